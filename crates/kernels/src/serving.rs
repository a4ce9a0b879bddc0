//! Which kernels run on a device.

use std::sync::OnceLock;

use candle_core::Device;

/// Which kernels the operations use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    /// The fastest available: ours on the CPU and on CUDA, candle's elsewhere.
    #[default]
    Own,
    /// The oracles, in candle's own operations, on every device; linear layers on the CPU stay ours, since weights are stored in
    /// their layout there.
    Plain,
}

impl Kernels {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Own, Self::Plain];

    /// [`Kernels::Own`], or the choice in `HEADTEMPER_KERNELS` (`own`, `plain`).
    ///
    /// # Errors
    /// If the variable has another value.
    pub fn chosen() -> Result<Self, String> {
        match std::env::var("HEADTEMPER_KERNELS") {
            Err(_) => Ok(Self::default()),
            Ok(name) => Self::ALL
                .into_iter()
                .find(|kernels| format!("{kernels:?}").eq_ignore_ascii_case(&name))
                .ok_or_else(|| format!("HEADTEMPER_KERNELS is '{name}', but must be own or plain")),
        }
    }

    /// [`Kernels::chosen`], evaluated once.
    ///
    /// # Panics
    /// On its error: a setting that silently does nothing would be worse. Programs call [`Kernels::chosen`] first.
    pub fn used() -> Self {
        static USED: OnceLock<Kernels> = OnceLock::new();
        *USED.get_or_init(|| Self::chosen().unwrap_or_else(|why| panic!("{why}")))
    }
}

impl Kernels {
    /// Whether operations on this device run on our CUDA kernels.
    pub fn serve_gpu(device: &Device) -> bool {
        serving(device) == Serving::Gpu
    }
}

/// What runs an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serving {
    /// SIMD code on the CPU.
    Cpu,
    /// A CUDA kernel.
    Gpu,
    /// candle's own operations.
    Plain,
}

/// What runs operations on this device.
pub(crate) fn serving(device: &Device) -> Serving {
    match (Kernels::used(), device) {
        (Kernels::Own, Device::Cpu) => Serving::Cpu,
        (Kernels::Own, Device::Cuda(_)) => Serving::Gpu,
        _ => Serving::Plain,
    }
}
