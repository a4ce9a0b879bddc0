//! The residual stream between layers.

use candle_core::{Result, Tensor};
use headtemper_hook::{Site, Tap};
use headtemper_kernels::{Join, Kernels, join};

use super::{Mlp, RmsNorm};

/// The residual stream `[n, hidden]` behind a layer. On a GPU what the next layer reads of it is made along with it, in one
/// launch, except where a tap sees the stream, and may change it.
pub(crate) struct Stream {
    x: Tensor,
    normed: Option<Tensor>,
}

impl From<Tensor> for Stream {
    fn from(x: Tensor) -> Self {
        Self { x, normed: None }
    }
}

/// Where a layer ends: its site, and the norm through which the next one reads the stream.
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
    /// The stream itself, and what the norm that it was made for gives of it.
    pub(crate) fn read(self, norm: &RmsNorm) -> Result<(Tensor, Tensor)> {
        let normed = self.normed.map_or_else(|| norm.forward(&self.x), Ok)?;
        Ok((self.x, normed))
    }

    /// The stream `x` behind a layer that ends with an MLP of `normed`.
    pub(crate) fn behind(mlp: &Mlp, normed: &Tensor, x: &Tensor, end: &End<'_>, tap: &mut dyn Tap) -> Result<Self> {
        if end.is_joined(x, tap) {
            let (x, normed) = end.next.forward_sum(x, &mlp.forward(normed)?)?;
            return Ok(Self { x, normed: Some(normed) });
        }
        Ok(tap.visit(end.site, mlp.forward_add(normed, x)?)?.into())
    }

    /// The stream `x` behind a layer that ends with `y`, which is normalised before it joins; all is scaled then.
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
