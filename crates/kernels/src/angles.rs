//! The rotary angles of heads.

use candle_core::{DType, Result, Tensor};

use crate::{
    gpu,
    serving::{Serving, serving},
};

/// Cosines and sines of the rotary angles: position times frequency, computed in f32 and rounded at the end, as in transformers
/// (`LlamaRotaryEmbedding`). One launch on a GPU.
///
/// # Shapes
/// `positions` `[n]` u32, `frequencies` `[rotary / 2]` f32; both results `[n, rotary / 2]` of `dtype`.
///
/// # Errors
/// If the inputs have other types.
pub fn angles(positions: &Tensor, frequencies: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
    match serving(positions.device()) {
        Serving::Gpu => gpu::angles(positions, frequencies, dtype),
        Serving::Cpu | Serving::Plain => angles_reference(positions, frequencies, dtype),
    }
}

/// The oracle of [`angles`] in candle's own ops, fast enough on a CPU.
///
/// # Errors
/// As [`angles`].
pub fn angles_reference(positions: &Tensor, frequencies: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
    let angles = positions.to_dtype(DType::F32)?.unsqueeze(1)?.matmul(&frequencies.unsqueeze(0)?)?; // [n, rotary / 2]
    Ok((angles.cos()?.to_dtype(dtype)?, angles.sin()?.to_dtype(dtype)?))
}
