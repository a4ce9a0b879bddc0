//! Gated MLPs.

use candle_core::{Result, Tensor};

use super::Linear;
use crate::{Loaded, Weights};

/// `W_down(act(W_gate x) * W_up x)` (transformers `LlamaMLP`, `Gemma4TextMLP`).
pub(crate) struct Mlp {
    gate_up: Linear,
    down: Linear,
    /// The activation, from gate and up side by side, `[n, 2 width]`, to `[n, width]`.
    activation: fn(&Tensor) -> Result<Tensor>,
}

impl Mlp {
    /// The MLP of a layer, from and to `hidden` features through `width`.
    pub(crate) fn load(
        weights: &mut Weights,
        layer: usize,
        (hidden, width): (usize, usize),
        activation: fn(&Tensor) -> Result<Tensor>,
    ) -> Loaded<Self> {
        let name = |part: &str| format!("model.layers.{layer}.mlp.{part}.weight");
        Ok(Self {
            gate_up: Linear::fused(weights, &[(name("gate_proj"), width), (name("up_proj"), width)], hidden)?,
            down: Linear::load(weights, &name("down_proj"), hidden, width)?,
            activation,
        })
    }

    /// `x` `[n, hidden]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&(self.activation)(&self.gate_up.forward(x)?)?)
    }

    /// `y` plus the result of [`Mlp::forward`], added as it is computed.
    pub(crate) fn forward_add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.down.forward_add(&(self.activation)(&self.gate_up.forward(x)?)?, y)
    }
}
