//! A sequence of operations, recorded once and played back at the cost of one launch: a CUDA graph.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Result};

/// Whether recording is disabled in this process.
static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// Recorded operations on a device. They read and write the same addresses every time, so whatever changes between plays must
/// be in tensors that are changed in place and outlive the recording.
pub struct Recording {
    #[cfg(feature = "cuda")]
    graph: Option<candle_core::cuda_backend::cudarc::driver::CudaGraph>,
    #[cfg(feature = "cuda")]
    stream: std::sync::Arc<candle_core::cuda_backend::cudarc::driver::CudaStream>,
}

/// Memory of recordings comes from a separate pool, which the driver keeps for the next recording: nothing else could use it.
#[cfg(feature = "cuda")]
impl Drop for Recording {
    fn drop(&mut self) {
        use candle_core::cuda_backend::cudarc::driver::sys::cuDeviceGraphMemTrim;
        drop(self.graph.take());
        // A failure here will occur again where it can be reported.
        if self.stream.synchronize().is_ok() {
            // SAFETY: the device exists, and only unused memory of the pool is released.
            let _ = unsafe { cuDeviceGraphMemTrim(self.stream.context().cu_device()) };
        }
    }
}

impl Recording {
    /// Disables recording in this process from now on: every operation is launched separately.
    pub fn forbid() {
        FORBIDDEN.store(true, Ordering::Relaxed);
    }

    /// Whether this process may record.
    pub fn allowed() -> bool {
        !FORBIDDEN.load(Ordering::Relaxed)
    }

    /// Whether operations on this device can be recorded.
    pub fn possible(device: &Device) -> bool {
        cfg!(feature = "cuda") && Self::allowed() && device.is_cuda() && crate::Kernels::serve_gpu(device)
    }

    /// Records the operations that `work` issues. `work` is called twice: the first call runs everything, so that kernels are loaded
    /// and libraries have made their choices. What it allocates must not outlive it: memory of the first call cannot be freed while
    /// the second is recorded, and that of the second belongs to the recording.
    ///
    /// # Errors
    /// If the work fails when it is run. The inner error: if it runs, but the device has no memory for a recording, or cannot record
    /// it, as where it waits for the device or moves data between it and the host.
    #[cfg(feature = "cuda")]
    pub fn of(device: &Device, work: &mut dyn FnMut() -> Result<()>) -> Result<Result<Self>> {
        use candle_core::cuda_backend::WrapErr;
        let device = device.as_cuda_device()?;
        let stream = device.cuda_stream();
        // Shapes and strides that candle uploads are kept on the device and need not be uploaded again.
        let _uploads = device.enable_cuda_graph_htod_cache();
        work()?;
        stream.synchronize().w()?;
        Ok(Self::captured(stream, work))
    }

    /// Records what `work` issues to the stream.
    #[cfg(feature = "cuda")]
    fn captured(
        stream: std::sync::Arc<candle_core::cuda_backend::cudarc::driver::CudaStream>,
        work: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Self> {
        use candle_core::{
            bail,
            cuda_backend::{
                WrapErr,
                cudarc::driver::sys::{
                    CUgraphInstantiate_flags_enum as Instantiate, CUstreamCaptureMode_enum as Capture,
                },
            },
        };
        stream.begin_capture(Capture::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let worked = work();
        // The stream must end its capture whatever happened. It would not if memory could not be freed meanwhile and that error had
        // not been fetched.
        let given_back = stream.context().check_err();
        let graph = stream.end_capture(Instantiate::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        let (graph, ended) = match graph {
            Ok(graph) => (graph, Ok(())),
            Err(error) => (None, Err(error)),
        };
        // From here on dropping it returns what the device took, also where something fails.
        let recording = Self { graph, stream };
        worked?;
        given_back.w()?;
        ended.w()?;
        match &recording.graph {
            Some(graph) => graph.upload().w()?,
            None => bail!("the device recorded nothing"),
        }
        Ok(recording)
    }

    /// Records nothing: this build supports no device that can.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "cuda"))]
    pub fn of(_: &Device, _: &mut dyn FnMut() -> Result<()>) -> Result<Result<Self>> {
        candle_core::bail!("only CUDA devices record operations")
    }

    #[cfg(feature = "cuda")]
    fn graph(&self) -> &candle_core::cuda_backend::cudarc::driver::CudaGraph {
        self.graph.as_ref().expect("it is there until the recording goes")
    }

    /// Plays the recording, after everything issued to the device before.
    ///
    /// # Errors
    /// If the device fails.
    pub fn play(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        {
            use candle_core::cuda_backend::WrapErr;
            self.graph().launch().w()?;
        }
        Ok(())
    }
    /// The operations that each play runs.
    ///
    /// # Errors
    /// If the device fails.
    pub fn operations(&self) -> Result<Operations> {
        #[cfg(feature = "cuda")]
        {
            use candle_core::cuda_backend::{
                WrapErr,
                cudarc::driver::sys::{self, CUgraphNodeType_enum as Kind},
            };
            let graph = self.graph().cu_graph();
            let mut count = 0;
            // SAFETY: the graph exists; called without room for nodes, only their number is written, and then that many.
            let nodes = unsafe {
                sys::cuGraphGetNodes(graph, std::ptr::null_mut(), &raw mut count).result().w()?;
                let mut nodes = vec![std::ptr::null_mut(); count];
                sys::cuGraphGetNodes(graph, nodes.as_mut_ptr(), &raw mut count).result().w()?;
                nodes
            };
            let mut kernels = 0;
            for node in nodes {
                let mut kind = Kind::CU_GRAPH_NODE_TYPE_EMPTY;
                // SAFETY: the graph has just returned the node.
                unsafe { sys::cuGraphNodeGetType(node, &raw mut kind) }.result().w()?;
                kernels += usize::from(kind == Kind::CU_GRAPH_NODE_TYPE_KERNEL);
            }
            Ok(Operations { kernels, others: count - kernels })
        }
        #[cfg(not(feature = "cuda"))]
        Ok(Operations::default())
    }
}

/// The number of operations that a recording runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Kernel launches.
    pub kernels: usize,
    /// Copies, allocations and frees.
    pub others: usize,
}
