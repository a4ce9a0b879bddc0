//! Finding and running a kernel.

use candle_core::{Device, Result, Storage, bail};

/// A kernel in each form: for f32, bf16 and f16.
pub(super) struct Kernel {
    /// The names in its image, by form.
    pub(super) forms: [&'static str; 3],
    /// The image that nvcc compiled from its file.
    #[cfg(feature = "cuda")]
    pub(super) image: &'static [u8],
}

/// The kernel `$name` of `cuda/$file.cu`, where `$image` is the file's name in capitals. With `only`, the kernel has fixed types
/// and is launched as form 0.
macro_rules! kernel {
    ($image:ident, only $name:literal) => {
        $crate::gpu::launch::Kernel {
            forms: [$name; 3],
            #[cfg(feature = "cuda")]
            image: $crate::gpu::launch::images::$image,
        }
    };
    ($image:ident, $name:literal) => {
        $crate::gpu::launch::Kernel {
            forms: [concat!($name, "_f32"), concat!($name, "_bf16"), concat!($name, "_f16")],
            #[cfg(feature = "cuda")]
            image: $crate::gpu::launch::images::$image,
        }
    };
}
pub(super) use kernel;

/// The images made by the build.
#[cfg(feature = "cuda")]
pub(super) mod images {
    include!(concat!(env!("OUT_DIR"), "/images.rs"));
}

/// The shape of a launch.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Grid {
    /// Blocks in x, y and z.
    pub(super) blocks: [u32; 3],
    /// Threads per block.
    pub(super) threads: u32,
    /// Bytes of shared memory per block.
    pub(super) shared: u32,
}

/// The most blocks in x, y and z, of every card.
const MOST_BLOCKS: [u32; 3] = [i32::MAX as u32, u16::MAX as u32, u16::MAX as u32];

/// Shared memory that every card gives a block without a special request.
#[cfg(feature = "cuda")]
const USUAL_SHARED: u32 = 48 << 10;

impl Grid {
    /// A one-dimensional grid.
    pub(super) fn row(blocks: usize, threads: u32) -> Self {
        Self { blocks: [blocks as u32, 1, 1], threads, shared: 0 }
    }

    /// The same grid with shared memory.
    pub(super) fn shared(self, bytes: usize) -> Self {
        Self { shared: bytes as u32, ..self }
    }
}

/// Runs a kernel in one of its forms. `args` is the C struct that the kernel takes.
///
/// # Errors
/// If the device has no such kernel, or cannot launch it; if the grid is larger than a card takes.
///
/// # Safety
/// `args` must be `repr(C)` with the fields of the kernel's struct, its addresses must be valid on the device for everything
/// the kernel touches, and nothing else may write there.
pub(super) unsafe fn launch<A: Copy>(
    device: &Device,
    kernel: &Kernel,
    form: usize,
    grid: Grid,
    args: &A,
) -> Result<()> {
    if grid.blocks.contains(&0) {
        return Ok(());
    }
    if grid.blocks.iter().zip(MOST_BLOCKS).any(|(&blocks, most)| blocks > most) {
        let (name, blocks) = (kernel.forms[0], grid.blocks);
        bail!("{name}: {blocks:?} blocks are more than a card takes in one launch, {MOST_BLOCKS:?}");
    }
    match device {
        #[cfg(feature = "cuda")]
        // SAFETY: the caller's contract, passed on.
        Device::Cuda(device) => unsafe { card::run(device, kernel, form, grid, args) },
        _ => {
            let _ = (form, args);
            bail!("{}: no such kernel for this device", kernel.forms[0])
        }
    }
}

/// The address of an element of a storage.
pub(super) fn address(storage: &Storage, offset: usize) -> Result<u64> {
    match storage {
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => card::address(storage, offset),
        _ => {
            let _ = offset;
            bail!("kernels of a CUDA device work on its memory alone")
        }
    }
}

/// On a card.
#[cfg(feature = "cuda")]
mod card {
    use std::{
        collections::{HashMap, hash_map::Entry},
        sync::{Arc, LazyLock, Mutex},
    };

    use candle_core::{
        CudaDevice, CudaStorage, DType, Result,
        backend::BackendStorage,
        bail,
        cuda_backend::{
            CudaStorageSlice, WrapErr,
            cudarc::{
                driver::{
                    CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DeviceRepr, LaunchConfig,
                    PushKernelArg,
                    sys::{CUfunction_attribute_enum as Attribute, cuFuncGetParamInfo},
                },
                nvrtc::Ptx,
            },
        },
    };

    use super::{Grid, Kernel, USUAL_SHARED};

    /// An argument struct as CUDA expects it: by value.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    struct ByValue<A>(A);
    // SAFETY: the caller of `launch` vouches that it is the struct that the kernel takes.
    unsafe impl<A: Copy> DeviceRepr for ByValue<A> {}

    /// Modules and functions already loaded, by device.
    #[derive(Default)]
    struct Loaded {
        /// By the image's address.
        modules: HashMap<(usize, usize), Arc<CudaModule>>,
        /// By name, with the size of the struct that each takes: a look-up in the driver takes longer than a launch.
        functions: HashMap<(usize, &'static str), (CudaFunction, usize)>,
    }

    static LOADED: LazyLock<Mutex<Loaded>> = LazyLock::new(Mutex::default);

    /// The bytes of a kernel's only parameter.
    fn parameter(function: &CudaFunction) -> Result<usize> {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function's module is loaded, and both places are written before the call returns.
        unsafe { cuFuncGetParamInfo(function.cu_function(), 0, &raw mut offset, &raw mut size) }.result().w()?;
        Ok(size)
    }

    fn function(device: &CudaDevice, kernel: &Kernel, form: usize) -> Result<(CudaFunction, usize)> {
        let context = device.cuda_stream().context().clone();
        let (ordinal, name) = (context.ordinal(), kernel.forms[form]);
        let mut loaded = LOADED.lock().expect("no launch panics");
        if let Some(function) = loaded.functions.get(&(ordinal, name)) {
            return Ok(function.clone());
        }
        let module = match loaded.modules.entry((ordinal, kernel.image.as_ptr() as usize)) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => {
                entry.insert(context.load_module(Ptx::from_binary(kernel.image.to_vec())).w()?).clone()
            }
        };
        let function = module.load_function(name).w()?;
        let taken = parameter(&function)?;
        loaded.functions.insert((ordinal, name), (function.clone(), taken));
        Ok((function, taken))
    }

    pub(super) unsafe fn run<A: Copy>(
        device: &CudaDevice,
        kernel: &Kernel,
        form: usize,
        grid: Grid,
        args: &A,
    ) -> Result<()> {
        let ((function, taken), stream) = (function(device, kernel, form)?, device.cuda_stream());
        if taken != size_of::<A>() {
            bail!("{}: takes {taken} bytes, not a struct of {} bytes", kernel.forms[form], size_of::<A>());
        }
        if grid.shared > USUAL_SHARED {
            stream.context().bind_to_thread().w()?; // a launch does this by itself
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, grid.shared as i32).w()?;
        }
        let args = ByValue(*args);
        let mut launch = stream.launch_builder(&function);
        launch.arg(&args);
        let [x, y, z] = grid.blocks;
        let config =
            LaunchConfig { grid_dim: (x, y, z), block_dim: (grid.threads, 1, 1), shared_mem_bytes: grid.shared };
        // SAFETY: the caller's contract, passed on.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
    }

    pub(super) fn address(storage: &CudaStorage, offset: usize) -> Result<u64> {
        fn of<T>(slice: &CudaSlice<T>, stream: &CudaStream) -> u64 {
            slice.device_ptr(stream).0
        }
        let stream = storage.device().cuda_stream();
        let (start, size) = match &storage.slice {
            CudaStorageSlice::F64(slice) => (of(slice, &stream), DType::F64),
            CudaStorageSlice::F32(slice) => (of(slice, &stream), DType::F32),
            CudaStorageSlice::BF16(slice) => (of(slice, &stream), DType::BF16),
            CudaStorageSlice::F16(slice) => (of(slice, &stream), DType::F16),
            CudaStorageSlice::U32(slice) => (of(slice, &stream), DType::U32),
            _ => bail!("kernels work on f64, f32, bf16, f16 and u32"),
        };
        Ok(start + (offset * size.size_in_bytes()) as u64)
    }
}
