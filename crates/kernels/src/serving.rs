//! Which kernels serve a device.

use std::sync::atomic::{AtomicU8, Ordering};

use candle_core::Device;

/// Which kernels operations run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    /// The fastest that the device has: ours on the CPU and on CUDA, candle's elsewhere.
    #[default]
    Own,
    /// The oracles, in candle's own operations, on every device; linear layers on the CPU stay ours, since weights lie there
    /// as they want them.
    Plain,
    /// The kernels for CUDA, run on the CPU: for tests, and very slow.
    #[cfg(feature = "emulate")]
    Emulated,
}

/// The choice, for the whole process.
static CHOSEN: AtomicU8 = AtomicU8::new(0);

impl Kernels {
    /// Has all operations from now on run on these.
    pub fn choose(self) {
        CHOSEN.store(self as u8, Ordering::Relaxed);
    }

    /// What was chosen.
    pub fn chosen() -> Self {
        match CHOSEN.load(Ordering::Relaxed) {
            0 => Self::Own,
            1 => Self::Plain,
            #[cfg(feature = "emulate")]
            2 => Self::Emulated,
            _ => unreachable!("only choices are stored"),
        }
    }
}

/// What serves an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serving {
    /// SIMD code on the CPU.
    Cpu,
    /// A kernel for CUDA.
    Gpu,
    /// candle's own operations.
    Plain,
}

/// What serves operations on this device.
pub(crate) fn serving(device: &Device) -> Serving {
    match (Kernels::chosen(), device) {
        (Kernels::Own, Device::Cpu) => Serving::Cpu,
        #[cfg(feature = "cuda")]
        (Kernels::Own, Device::Cuda(_)) => Serving::Gpu,
        #[cfg(feature = "emulate")]
        (Kernels::Emulated, Device::Cpu) => Serving::Gpu,
        _ => Serving::Plain,
    }
}
