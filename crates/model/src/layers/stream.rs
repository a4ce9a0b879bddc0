//! The residual stream between layers.

use candle_core::{Result, Tensor};
use headtemper_hook::{Site, Tap};
use headtemper_kernels::{Join, Kernels, join};

use super::{Mlp, RmsNorm};

/// The residual stream `[n, hidden]` after a layer. On a GPU, the norm through which the next layer reads it is computed in the same
/// launch, except where a tap sees the stream and may change it.
pub(crate) struct Stream {
    x: Tensor,
    normed: Option<Tensor>,
}

impl From<Tensor> for Stream {
    fn from(x: Tensor) -> Self {
        Self { x, normed: None }
    }
}

/// The end of a layer: its site, and the norm through which the next layer reads the stream.
pub(crate) struct End<'a> {
    pub(crate) site: Site,
    pub(crate) next: &'a RmsNorm,
}

impl End<'_> {
    fn is_joined(&self, x: &Tensor, tap: &dyn Tap) -> bool {
        Kernels::serve_gpu(x.device()) && !tap.wants(self.site)
    }
}

impl Stream {
    /// The stream and its norm: the one computed along with it, or otherwise `norm` of the stream.
    pub(crate) fn read(self, norm: &RmsNorm) -> Result<(Tensor, Tensor)> {
        let normed = self.normed.map_or_else(|| norm.forward(&self.x), Ok)?;
        Ok((self.x, normed))
    }

    /// Ends a layer with an MLP: the stream `x` plus the MLP of `normed`.
    pub(crate) fn behind(mlp: &Mlp, normed: &Tensor, x: &Tensor, end: &End<'_>, tap: &mut dyn Tap) -> Result<Self> {
        if end.is_joined(x, tap) {
            let (x, normed) = end.next.forward_sum(x, &mlp.forward(normed)?)?;
            return Ok(Self { x, normed: Some(normed) });
        }
        Ok(tap.visit(end.site, mlp.forward_add(normed, x)?)?.into())
    }

    /// Ends a layer with `y`: normalises `y`, adds it to the stream `x`, and scales the sum.
    pub(crate) fn joined(
        x: &Tensor,
        (y, norm): (&Tensor, &RmsNorm),
        scale: f64,
        end: &End<'_>,
        tap: &mut dyn Tap,
    ) -> Result<Self> {
        let next = end.is_joined(x, tap).then(|| end.next.borrowed());
        let (x, normed) = join(x, y, &Join { before: Some(norm.borrowed()), scale, next })?;
        let x = tap.visit(end.site, x)?;
        Ok(Self { x, normed })
    }
}
