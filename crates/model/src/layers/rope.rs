//! Rotary position embeddings.

use candle_core::{DType, Device, Result, Tensor};

/// Cosines and sines of every position: half-split ("NEOX") layout, dimension `i` turns with `i + dim / 2`
/// (transformers `LlamaRotaryEmbedding`, `rotate_half`).
pub(crate) struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// The table for `context` positions, `[context, dim / 2]`; angles in f32, as transformers computes them.
    pub(crate) fn new(theta: f64, dim: usize, context: usize, dtype: DType, device: &Device) -> Result<Self> {
        let frequencies: Vec<f32> =
            (0..dim).step_by(2).map(|i| (1.0 / theta.powf(i as f64 / dim as f64)) as f32).collect();
        let frequencies = Tensor::from_vec(frequencies, (1, dim / 2), device)?;
        let positions = Tensor::arange(0, context as u32, device)?.to_dtype(DType::F32)?.reshape((context, 1))?;
        let angles = positions.matmul(&frequencies)?;
        Ok(Self { cos: angles.cos()?.to_dtype(dtype)?, sin: angles.sin()?.to_dtype(dtype)? })
    }

    /// The rows of the packed tokens' positions, shared by all layers of a forward pass.
    pub(crate) fn at(&self, positions: &Tensor) -> Result<Self> {
        Ok(Self { cos: self.cos.index_select(positions, 0)?, sin: self.sin.index_select(positions, 0)? })
    }

    /// Turns `x` `[n, head, dim]`, whose row `i` stands at the `i`-th chosen position.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::rotary_emb::rope_thd(&x.unsqueeze(0)?.contiguous()?, &self.cos, &self.sin)?.squeeze(0)
    }
}
