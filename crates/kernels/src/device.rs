//! Opens a device and sets it up before its first use.

use candle_core::Device;

/// The first usable CUDA device, or the CPU.
///
/// Never fails: without a driver, a device or its libraries it returns the CPU, and the reason as the second part.
pub fn fastest() -> (Device, Option<String>) {
    if !candle_core::utils::cuda_is_available() {
        return (Device::Cpu, None);
    }
    match open_cuda(0) {
        Ok(device) => (device, None),
        Err(why) => (Device::Cpu, Some(why.to_string())),
    }
}

/// Opens a CUDA device with its own stream, memory that stays with the process, and no events between operations, which a
/// single stream does not need.
///
/// # Errors
/// If the driver is missing or too old, the device does not exist or is not one these kernels are compiled for, or a library
/// is missing.
#[cfg(not(feature = "cuda"))]
pub fn open_cuda(_: usize) -> candle_core::Result<Device> {
    candle_core::bail!("this binary was built without CUDA")
}

#[cfg(feature = "cuda")]
pub use cuda::open as open_cuda;

/// Bytes of its own memory that a device has free; `None` if it has no memory of its own or does not report it.
pub fn free_memory(device: &Device) -> Option<u64> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            let stream = device.cuda_stream();
            // Freed memory stays in the pool and is as good as free; the pool gives it to nobody else.
            let kept = cuda::kept(device).unwrap_or(0);
            stream.context().mem_get_info().ok().map(|(free, _)| free as u64 + kept)
        }
        _ => None,
    }
}

/// Whether an error means that a device is out of memory.
pub fn is_out_of_memory(error: &candle_core::Error) -> bool {
    let text = error.to_string();
    // The wording of the driver, cuBLAS and cuRAND.
    ["OUT_OF_MEMORY", "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED"].iter().any(|told| text.contains(told))
}

/// The first line of an error, without the backtrace that candle appends if backtraces are enabled.
pub fn reason(error: &impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().into()
}

#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::{
        CudaDevice, Device, Result, bail,
        cuda_backend::{
            WrapErr,
            cudarc::{
                cublas::sys::{cublasSetWorkspace_v2, cublasStatus_t},
                driver::{
                    DevicePtr, result,
                    sys::{self, CUdevice_attribute_enum as Attribute, CUmemPool_attribute_enum as PoolAttribute},
                },
            },
        },
    };

    /// The driver version that this build's PTX needs, in CUDA's encoding: 13.0.
    const DRIVER: i32 = 13_000;
    /// The lowest compute capability that kernels are compiled for; bf16 needs it too.
    const CAPABILITY: (i32, i32) = (8, 0);

    /// See [`open_cuda`](super::open_cuda).
    ///
    /// # Errors
    /// As there.
    pub fn open(ordinal: usize) -> Result<Device> {
        libraries()?;
        check(ordinal)?;
        let device = CudaDevice::new_with_stream(ordinal)?;
        // SAFETY: this process issues all its work on the device's one stream, and nothing has been allocated yet.
        unsafe { device.disable_event_tracking() };
        keep_memory(&device)?;
        give_cublas_room(&device)?;
        Ok(Device::Cuda(device))
    }

    /// Fails if a library is missing: calling into it would end the process.
    fn libraries() -> Result<()> {
        #[cfg(feature = "dynamic-loading")]
        {
            use candle_core::cuda_backend::cudarc::{cublas, curand};
            // SAFETY: these only try to open the libraries.
            let there = unsafe {
                [
                    (sys::is_culib_present(), "libcuda.so.1, NVIDIA's driver"),
                    (cublas::sys::is_culib_present(), "libcublas.so.13"),
                    (curand::sys::is_culib_present(), "libcurand.so.10"),
                ]
            };
            if let Some((_, name)) = there.iter().find(|(there, _)| !there) {
                bail!("{name} is not found; LD_LIBRARY_PATH must name the folders of CUDA's libraries");
            }
        }
        Ok(())
    }

    /// Refuses a driver that is too old, a device that does not exist, and a card that no kernel is compiled for.
    fn check(ordinal: usize) -> Result<()> {
        let mut driver = 0;
        // SAFETY: the call writes the version and touches nothing else.
        unsafe { sys::cuDriverGetVersion(&raw mut driver) }.result().w()?;
        if driver < DRIVER {
            let written = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
            bail!(
                "the driver is made for CUDA {}, and this binary needs one for {} (580 or later)",
                written(driver),
                written(DRIVER)
            );
        }
        result::init().w()?;
        let count = result::device::get_count().w()? as usize;
        if ordinal >= count {
            bail!(
                "there is no device {ordinal}; there {}",
                match count {
                    0 => "is none".into(),
                    1 => "is cuda:0 alone".to_owned(),
                    _ => format!("are cuda:0 to cuda:{}", count - 1),
                }
            );
        }
        let device = result::device::get(ordinal as i32).w()?;
        // SAFETY: the device was just returned by the driver.
        let number = |attribute| unsafe { result::device::get_attribute(device, attribute) }.w();
        let found = (
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if found < CAPABILITY {
            bail!(
                "{} has compute capability {}.{}, and kernels are compiled for {}.{} and later; earlier cards have no bf16",
                result::device::get_name(device).w()?,
                found.0,
                found.1,
                CAPABILITY.0,
                CAPABILITY.1
            );
        }
        Ok(())
    }

    /// Keeps freed memory in the process: by default all of it goes back to the system whenever the host waits.
    fn keep_memory(device: &CudaDevice) -> Result<()> {
        let context = device.cuda_stream().context().clone();
        let mut pool = std::ptr::null_mut();
        let mut threshold = u64::MAX;
        // SAFETY: the device exists, and both calls only read or write the values passed to them.
        unsafe {
            sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()).result().w()?;
            let attribute = PoolAttribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result().w()
        }
    }

    /// Bytes of the device's memory that the pool holds and nobody uses.
    pub(super) fn kept(device: &CudaDevice) -> Result<u64> {
        let context = device.cuda_stream().context().clone();
        let mut pool = std::ptr::null_mut();
        // SAFETY: the device exists, and the calls write only the values passed to them.
        unsafe {
            sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()).result().w()?;
            let number = |attribute| {
                let mut bytes = 0u64;
                sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut bytes).cast()).result().w().map(|()| bytes)
            };
            let reserved = number(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
            Ok(reserved.saturating_sub(number(PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?))
        }
    }

    /// The size of cuBLAS's own workspace on Hopper. Given one, cuBLAS does not allocate another in the middle of a recording.
    const WORKSPACE: usize = 32 << 20;

    fn give_cublas_room(device: &CudaDevice) -> Result<()> {
        let stream = device.cuda_stream();
        // SAFETY: cuBLAS writes there before it reads.
        let room = unsafe { stream.alloc::<u8>(WORKSPACE) }.w()?;
        let address = room.device_ptr(&stream).0;
        // SAFETY: the workspace is never freed, as the handle lives as long as the device.
        let status = unsafe { cublasSetWorkspace_v2(*device.cublas_handle().handle(), address as *mut _, WORKSPACE) };
        std::mem::forget(room);
        match status {
            cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
            other => bail!("cuBLAS does not take a workspace: {other:?}"),
        }
    }
}
