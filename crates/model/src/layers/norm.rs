//! Norms.

use candle_core::{Result, Tensor};
use headtemper_kernels::{Norm, add_rms_norm, rms_norm};

use crate::{Loaded, Weights};

/// `w * x / sqrt(mean(x²) + eps)` (transformers `LlamaRMSNorm`, `Qwen3RMSNorm`, `Gemma4RMSNorm`).
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// The norm `name` over `width` features.
    pub(crate) fn load(weights: &mut Weights, name: &str, width: usize, eps: f64) -> Loaded<Self> {
        Ok(Self { weight: weights.vector(name, width, 1.0)?, eps: eps as f32 })
    }

    /// The norm `name`, whose file holds the difference from 1 (transformers `Qwen3_5RMSNorm`). 1 is added in f32.
    pub(crate) fn load_from_one(weights: &mut Weights, name: &str, width: usize, eps: f64) -> Loaded<Self> {
        let weight = (weights.vector_f32(name, width, 0.0)? + 1.0)?.to_dtype(weights.activations())?;
        Ok(Self { weight, eps: eps as f32 })
    }

    /// A norm without weight (Gemma 4's `v_norm`).
    pub(crate) fn plain(weights: &Weights, width: usize, eps: f64) -> Loaded<Self> {
        let weight = Tensor::ones(width, weights.activations(), weights.device())?;
        Ok(Self { weight, eps: eps as f32 })
    }

    /// `scale * x / sqrt(sum(x²) + 1e-6)` (transformers `l2norm` of Qwen3.5, from flash-linear-attention): the sum is
    /// `width` times the mean. Epsilon is added under the root, which is not `x / max(|x|, eps)`.
    pub(crate) fn l2(weights: &Weights, width: usize, scale: f64) -> Loaded<Self> {
        let weight = (Tensor::ones(width, weights.activations(), weights.device())? * (scale / (width as f64).sqrt()))?;
        Ok(Self { weight, eps: (1e-6 / width as f64) as f32 })
    }

    /// `x` `[.., width]`, normalised over the last dimension.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, &self.weight, self.eps)
    }

    /// The residual stream `x` with `y` added, and the norm of that: `(x + y, norm(x + y))`.
    pub(crate) fn forward_sum(&self, x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)> {
        add_rms_norm(x, y, &self.weight, self.eps)
    }

    /// The norm in the form that operations take.
    pub(crate) fn borrowed(&self) -> Norm<'_> {
        Norm { weight: &self.weight, eps: self.eps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// No golden file distinguishes the two forms: at ordinary sizes they agree up to rounding.
    #[test]
    fn l2_norm_has_its_epsilon_under_the_root() -> Result<()> {
        let x = Tensor::new(&[[3e-4f32, 4e-4], [0., 0.], [3., 4.]], &Device::Cpu)?;
        let norm = RmsNorm::l2(&Weights::random(1, &Device::Cpu), 2, 1.0).expect("no weight is read");
        let y = norm.forward(&x)?.to_vec2::<f32>()?;
        // |x|² = 2.5e-7, so the root is sqrt(1.25e-6): the other form would give 0.6 and 0.8.
        assert!((y[0][0] - 0.268_328).abs() < 1e-5 && (y[0][1] - 0.357_771).abs() < 1e-5, "{y:?}");
        assert_eq!(y[1], [0., 0.]);
        assert!((y[2][0] - 0.6).abs() < 1e-6);
        Ok(())
    }
}
