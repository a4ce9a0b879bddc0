//! The operations as kernels of our own on a CUDA device, or emulated on the CPU in tests.
//!
//! Each function here has the signature of the operation that it serves. It checks shapes, works out the launch and fills the
//! struct of arguments; [`launch`] runs it. All of that is the same for a card and for the emulation, which runs the same
//! source compiled for the CPU: what differs is one call.

mod activation;
mod advance;
mod attention;
mod conv;
mod delta;
mod delta_step;
mod gate;
mod heads;
mod launch;
mod logits;
mod norm;
mod ranges;
mod sample;
mod score;
#[cfg(any(feature = "emulate", feature = "cuda"))]
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Layout, Result, StorageRef, Tensor, bail};

pub(crate) use activation::{gate_mul, gelu_mul_with, softcap};
pub use advance::{DecodeRow, DecodeRows};
pub use attention::SPLIT as ATTEND_SPLIT;
pub(crate) use attention::attend;
pub(crate) use conv::causal_conv;
pub(crate) use delta::delta_rule;
pub(crate) use delta_step::delta_step;
pub(crate) use gate::{add, delta_gates, gated_norm, sigmoid_gate};
pub(crate) use heads::{MOST_PARTS, angles, attended_heads, heads};
use launch::{Grid, Kernel, kernel, launch};
pub(crate) use logits::logits;
pub(crate) use norm::{join, rms_norm};
pub(crate) use ranges::{head_stats, range_means};
pub(crate) use sample::{MOST_TOKENS, choose, chooses};
pub use score::LOGITS as GPU_LOGITS;
pub(crate) use score::score_head;

/// The place of a type among a kernel's forms.
fn form(name: &str, dtype: DType) -> Result<usize> {
    match dtype {
        DType::F32 => Ok(0),
        DType::BF16 => Ok(1),
        DType::F16 => Ok(2),
        other => bail!("{name}: activations are f32, bf16 or f16, not {other:?}"),
    }
}

/// Refuses tensors of different types or on different devices.
fn alike(name: &str, tensors: &[&Tensor]) -> Result<()> {
    let first = tensors[0];
    for other in tensors {
        if other.dtype() != first.dtype() || !other.device().same_device(first.device()) {
            bail!(
                "{name}: {:?} on {:?} beside {:?} on {:?}",
                first.dtype(),
                first.device().location(),
                other.dtype(),
                other.device().location()
            );
        }
    }
    Ok(())
}

/// Room for a result that a kernel writes in full. In tests what it did not write is no number.
fn room(shape: &[usize], like: &Tensor) -> Result<Tensor> {
    room_of(shape, like.dtype(), like.device())
}

/// The same of another type; integers that were not written are the largest.
fn room_of(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    let empty = shape.contains(&0);
    // A device may refuse to give no bytes.
    let given: &[usize] = if empty { &[1] } else { shape };
    // A card's pool gives what may hold the same numbers from the call before, which a store that is missing would pass with.
    let room = match dtype {
        DType::U32 if device.is_cpu() || cfg!(test) => Tensor::full(u32::MAX, given, device)?,
        _ if device.is_cpu() || cfg!(test) => Tensor::full(f32::NAN, given, device)?.to_dtype(dtype)?,
        // SAFETY: the kernel writes every element before anything can read it: both go through the device's one stream.
        _ => unsafe { Tensor::empty(given, dtype, device)? },
    };
    if empty { room.narrow(0, 0, 0)?.reshape(shape) } else { Ok(room) }
}

/// A tensor while a kernel has its address.
struct Held<'a>(StorageRef<'a>, &'a Layout);

impl<'a> Held<'a> {
    fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self(storage, layout)
    }

    /// The address of the first element.
    fn address(&self) -> Result<u64> {
        launch::address(&self.0, self.1.start_offset())
    }
}

/// The address of a contiguous tensor's first element.
///
/// The storage outlives the launch because the caller has the tensor: memory is given back through the stream, behind the
/// kernel.
fn address(name: &str, tensor: &Tensor) -> Result<u64> {
    if !tensor.is_contiguous() {
        bail!("{name}: must be contiguous, {:?} is not", tensor.layout());
    }
    Held::of(tensor).address()
}

/// The address of a tensor that may not be there; 0 is none.
fn address_of(name: &str, tensor: Option<&Tensor>) -> Result<u64> {
    tensor.map_or(Ok(0), |tensor| address(name, tensor))
}

/// Whether a kernel may move four values at once: see [`packed`].
fn wide(addresses: &[(u64, usize)], counts: &[usize]) -> bool {
    packed(4, addresses, counts)
}

/// Whether a kernel may move so many values at once: every address, of `size` bytes a value, and every width and stride in
/// `counts` is one of whole packs.
fn packed(values: usize, addresses: &[(u64, usize)], counts: &[usize]) -> bool {
    addresses.iter().all(|&(address, size)| address.is_multiple_of((values * size) as u64))
        && counts.iter().all(|count| count.is_multiple_of(values))
}
