//! The operations as our own kernels on a CUDA device.
//!
//! Each function here has the signature of the operation it implements. It checks shapes, works out the launch and fills the
//! argument struct; [`launch`] runs it. All of that is also tested without a card, on the stand-in driver of `tests/driver`, which runs
//! the kernels' source compiled for the CPU.

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
#[cfg(feature = "cuda")]
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Layout, Result, StorageRef, Tensor, bail};

pub(crate) use activation::{gate_mul, gelu_mul_with, softcap};
pub use advance::{DecodeRow, DecodeRows, DecodeSize};
pub(crate) use attention::attend;
pub use attention::{SPLIT as ATTEND_SPLIT, attend_partial_bytes};
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

/// The index of a type among a kernel's forms.
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

/// Memory for a result that a kernel writes in full. In tests, unwritten values are NaN.
fn room(shape: &[usize], like: &Tensor) -> Result<Tensor> {
    room_of(shape, like.dtype(), like.device())
}

/// The same for another type; unwritten integers are the largest number.
fn room_of(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    let empty = shape.contains(&0);
    // A device may refuse to allocate zero bytes.
    let given: &[usize] = if empty { &[1] } else { shape };
    // A card's pool may return memory that still holds the previous call's numbers, which would hide a missing store.
    let room = match dtype {
        DType::U32 if cfg!(test) => Tensor::full(u32::MAX, given, device)?,
        _ if cfg!(test) => Tensor::full(f32::NAN, given, device)?.to_dtype(dtype)?,
        // SAFETY: the kernel writes every element before anything can read it: both run on the device's one stream.
        _ => unsafe { Tensor::empty(given, dtype, device)? },
    };
    if empty { room.narrow(0, 0, 0)?.reshape(shape) } else { Ok(room) }
}

/// Keeps a tensor's storage borrowed while a kernel has its address.
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
/// The storage outlives the launch because the caller owns the tensor: memory is freed through the stream, after the
/// kernel.
fn address(name: &str, tensor: &Tensor) -> Result<u64> {
    if !tensor.is_contiguous() {
        bail!("{name}: must be contiguous, {:?} is not", tensor.layout());
    }
    Held::of(tensor).address()
}

/// The address of an optional tensor; 0 stands for none.
fn address_of(name: &str, tensor: Option<&Tensor>) -> Result<u64> {
    tensor.map_or(Ok(0), |tensor| address(name, tensor))
}

/// Whether a kernel may move four values at once: see [`packed`].
fn wide(addresses: &[(u64, usize)], counts: &[usize]) -> bool {
    packed(4, addresses, counts)
}

/// Whether a kernel may move `values` values at once: every address, at `size` bytes a value, and every width and stride in
/// `counts` must be a multiple of whole packs.
fn packed(values: usize, addresses: &[(u64, usize)], counts: &[usize]) -> bool {
    addresses.iter().all(|&(address, size)| address.is_multiple_of((values * size) as u64))
        && counts.iter().all(|count| count.is_multiple_of(values))
}
