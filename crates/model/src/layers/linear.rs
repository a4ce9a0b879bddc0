//! Projections without bias, on weights in their held type.

use candle_core::{Result, Tensor};
use headtemper_kernels::Matrix;

use crate::{Loaded, Weights};

/// `x Wᵀ`, on a weight in its held type; see `headtemper_kernels::linear` for the arithmetic.
pub(crate) struct Linear(Matrix);

impl Linear {
    /// The projection `name`, from `inputs` to `outputs` features.
    pub(crate) fn load(weights: &mut Weights, name: &str, outputs: usize, inputs: usize) -> Loaded<Self> {
        Ok(Self(weights.matrix(name, outputs, inputs)?))
    }

    /// Several projections of the same input as one, their outputs side by side: the input is read once.
    pub(crate) fn fused(weights: &mut Weights, parts: &[(String, usize)], inputs: usize) -> Loaded<Self> {
        Ok(Self(weights.stacked(parts, inputs)?))
    }

    /// A projection with an existing matrix, such as a tied embedding.
    pub(crate) fn of(weight: Matrix) -> Self {
        Self(weight)
    }

    /// The weight, `[outputs, inputs]`.
    pub(crate) fn weight(&self) -> &Matrix {
        &self.0
    }

    /// `x` `[n, inputs]` to `[n, outputs]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        headtemper_kernels::linear(x, &self.0)
    }

    /// `y + x Wᵀ`: a projection added to the residual stream.
    pub(crate) fn forward_add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        headtemper_kernels::linear_add(x, &self.0, y)
    }
}
