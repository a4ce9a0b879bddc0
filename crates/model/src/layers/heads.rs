//! Heads among the columns of a fused projection, read only where they are needed.

use candle_core::{Result, Tensor};
use headtemper_kernels::{HeadSteps, HeadsOf};

use super::{Angles, RmsNorm};

/// A view of heads, and what is done to them when read: a norm, then a rotation by position.
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
    /// Heads that are not adjacent: a view `[n, heads, dim]` whose last dimension is contiguous.
    pub(crate) fn of(x: Tensor) -> Result<Self> {
        let (_, heads, dim) = x.dims3()?;
        Ok(Self { x, size: (heads, dim), steps: HeadSteps::default() })
    }

    /// Normalises each head.
    pub(crate) fn normed(mut self, norm: &'a RmsNorm) -> Self {
        self.steps.norm = Some(norm.borrowed());
        self
    }

    /// Rotates each head by the angles of its token, after the norm.
    pub(crate) fn turned(mut self, angles: &'a Angles) -> Self {
        self.steps.angles = Some(angles.parts());
        self
    }

    /// Copies the heads to their own tensor, `[n, heads, dim]`.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        let [tensor] = headtemper_kernels::heads([self.view()])?;
        Ok(tensor)
    }

    /// The view in the form that operations take.
    pub(crate) fn view(&self) -> HeadsOf<'_> {
        HeadsOf { x: &self.x, count: self.size.0, dim: self.size.1, steps: self.steps }
    }
}
