//! Heads among the columns of a fused projection, read only where they are needed.

use candle_core::{Result, Tensor};
use headtemper_kernels::{HeadSteps, HeadsOf};

use super::{Angles, RmsNorm};

/// Heads where they lie, and what becomes of them on their way: a norm, then a turn by the position.
pub(crate) struct HeadView<'a> {
    x: Tensor,
    size: (usize, usize),
    steps: HeadSteps<'a>,
}

/// The features `from..from + heads * dim` of a fused projection's output `[n, features]`.
pub(crate) fn heads_of<'a>(x: &Tensor, from: usize, heads: usize, dim: usize) -> Result<HeadView<'a>> {
    Ok(HeadView { x: x.narrow(1, from, heads * dim)?, size: (heads, dim), steps: HeadSteps::default() })
}

impl<'a> HeadView<'a> {
    /// Heads that lie apart: a view `[n, heads, dim]` whose last dimension lies together.
    pub(crate) fn of(x: Tensor) -> Result<Self> {
        let (_, heads, dim) = x.dims3()?;
        Ok(Self { x, size: (heads, dim), steps: HeadSteps::default() })
    }

    /// Each head normalised.
    pub(crate) fn normed(mut self, norm: &'a RmsNorm) -> Self {
        self.steps.norm = Some(norm.borrowed());
        self
    }

    /// Each head turned by the angles of its token, after the norm.
    pub(crate) fn turned(mut self, angles: &'a Angles) -> Self {
        self.steps.angles = Some(angles.parts());
        self
    }

    /// A tensor of their own, `[n, heads, dim]`.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        let [tensor] = headtemper_kernels::heads([self.view()])?;
        Ok(tensor)
    }

    /// As operations are told of them.
    pub(crate) fn view(&self) -> HeadsOf<'_> {
        HeadsOf { x: &self.x, count: self.size.0, dim: self.size.1, steps: self.steps }
    }
}
