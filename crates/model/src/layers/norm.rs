//! Root-mean-square norms.

use candle_core::{Result, Tensor};

use crate::{Loaded, Weights};

/// `w * x / sqrt(mean(x²) + eps)`, normalised in f32 and cast before the weight (transformers `LlamaRMSNorm`).
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// The norm `name` over `width` features.
    pub(crate) fn load(weights: &mut Weights, name: &str, width: usize, eps: f64) -> Loaded<Self> {
        Ok(Self { weight: weights.vector(name, width)?, eps: eps as f32 })
    }

    /// `x` `[n, width]`, normalised over the last dimension.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(x, &self.weight, self.eps)
    }
}
