//! λ: the factor on each token's and head's output that attention and the gated norm apply as they finish.

use candle_core::{DType, Result, Tensor, bail};

/// Refuses a `lambda` that is not f32 `[n, heads]`, contiguous.
pub(crate) fn check(name: &str, lambda: &Tensor, n: usize, heads: usize) -> Result<()> {
    if lambda.dims() != [n, heads] || lambda.dtype() != DType::F32 || !lambda.is_contiguous() {
        let (shape, dtype) = (lambda.shape(), lambda.dtype());
        bail!(
            "{name}: lambda must be contiguous f32 [{n}, {heads}], a factor a token and head, not {dtype:?} {shape:?}"
        );
    }
    Ok(())
}

/// The factors as values, one a token and head; `None` where there is no `lambda`.
pub(crate) fn factors(name: &str, lambda: Option<&Tensor>, n: usize, heads: usize) -> Result<Option<Vec<f32>>> {
    let Some(lambda) = lambda else { return Ok(None) };
    check(name, lambda, n, heads)?;
    lambda.flatten_all()?.to_vec1().map(Some)
}

/// `z` `[n, heads, dim]` times `lambda`, in plain candle ops.
pub(crate) fn scale(name: &str, z: Tensor, lambda: Option<&Tensor>) -> Result<Tensor> {
    let Some(lambda) = lambda else { return Ok(z) };
    check(name, lambda, z.dim(0)?, z.dim(1)?)?;
    z.broadcast_mul(&lambda.to_dtype(z.dtype())?.unsqueeze(2)?)
}
