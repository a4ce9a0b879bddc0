//! A run of operations, recorded once and played back at the cost of one launch: a CUDA graph.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Result};

/// Whether this process records nothing.
static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// Operations on a device as they were recorded. They read and write the same addresses every time, so whatever changes from
/// one time to the next must lie in tensors that are changed in place, and that outlive the recording.
pub struct Recording {
    #[cfg(feature = "cuda")]
    graph: Option<candle_core::cuda_backend::cudarc::driver::CudaGraph>,
    #[cfg(feature = "cuda")]
    stream: std::sync::Arc<candle_core::cuda_backend::cudarc::driver::CudaStream>,
}

/// Memory of recordings lies in a pool of its own, which the driver keeps for the next one: nothing else could have it.
#[cfg(feature = "cuda")]
impl Drop for Recording {
    fn drop(&mut self) {
        use candle_core::cuda_backend::cudarc::driver::sys::cuDeviceGraphMemTrim;
        drop(self.graph.take());
        // What fails here fails again where somebody can be told.
        if self.stream.synchronize().is_ok() {
            // SAFETY: the device exists, and what nothing uses of the pool is all that it loses.
            let _ = unsafe { cuDeviceGraphMemTrim(self.stream.context().cu_device()) };
        }
    }
}

impl Recording {
    /// Has this process record nothing from now on: every operation is asked for by itself.
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

    /// Records what `work` has the device do. It is called twice: the first time all of it is done, so that kernels are loaded
    /// and libraries have chosen theirs. What it allocates must not outlive it: memory of the first call cannot be given back
    /// while the second is recorded, and that of the second belongs to the recording.
    ///
    /// # Errors
    /// If the work fails, waits for the device, or moves data between it and the host, which cannot be recorded.
    #[cfg(feature = "cuda")]
    pub fn of(device: &Device, work: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        use candle_core::{
            bail,
            cuda_backend::{
                WrapErr,
                cudarc::driver::sys::{
                    CUgraphInstantiate_flags_enum as Instantiate, CUstreamCaptureMode_enum as Capture,
                },
            },
        };
        let device = device.as_cuda_device()?;
        let stream = device.cuda_stream();
        // What shapes and strides candle uploads is kept on the device, and need not be uploaded again.
        let _uploads = device.enable_cuda_graph_htod_cache();
        work()?;
        stream.synchronize().w()?;
        stream.begin_capture(Capture::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let worked = work();
        // The stream must leave its recording whatever happened, and would not where memory could not be given back meanwhile and
        // nobody has asked why.
        let given_back = stream.context().check_err();
        let graph = stream.end_capture(Instantiate::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        worked?;
        given_back.w()?;
        match graph.w()? {
            Some(graph) => {
                graph.upload().w()?;
                Ok(Self { graph: Some(graph), stream })
            }
            None => bail!("the device recorded nothing"),
        }
    }

    /// Records nothing: this build has no device that can.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "cuda"))]
    pub fn of(_: &Device, _: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        candle_core::bail!("only CUDA devices record operations")
    }

    #[cfg(feature = "cuda")]
    fn graph(&self) -> &candle_core::cuda_backend::cudarc::driver::CudaGraph {
        self.graph.as_ref().expect("it is there until the recording goes")
    }

    /// Plays it back, behind all that was asked of the device before.
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
    /// What it has the device do each time.
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
            // SAFETY: the graph is there; without room for nodes only their number is written, and then that many.
            let nodes = unsafe {
                sys::cuGraphGetNodes(graph, std::ptr::null_mut(), &raw mut count).result().w()?;
                let mut nodes = vec![std::ptr::null_mut(); count];
                sys::cuGraphGetNodes(graph, nodes.as_mut_ptr(), &raw mut count).result().w()?;
                nodes
            };
            let mut kernels = 0;
            for node in nodes {
                let mut kind = Kind::CU_GRAPH_NODE_TYPE_EMPTY;
                // SAFETY: the graph has just named the node.
                unsafe { sys::cuGraphNodeGetType(node, &raw mut kind) }.result().w()?;
                kernels += usize::from(kind == Kind::CU_GRAPH_NODE_TYPE_KERNEL);
            }
            Ok(Operations { kernels, others: count - kernels })
        }
        #[cfg(not(feature = "cuda"))]
        Ok(Operations::default())
    }
}

/// What a recording has a device do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Kernels that are launched.
    pub kernels: usize,
    /// Copies, and memory taken and given back.
    pub others: usize,
}
