//! λ: the factor on the output of each head at each token, applied by attention and the gated norm as they finish.

use candle_core::{DType, Result, Tensor, bail};

/// Refuses a `lambda` that is not contiguous f32 `[n, heads]`.
pub(crate) fn check(name: &str, lambda: &Tensor, n: usize, heads: usize) -> Result<()> {
    if lambda.dims() != [n, heads] || lambda.dtype() != DType::F32 || !lambda.is_contiguous() {
        let (shape, dtype) = (lambda.shape(), lambda.dtype());
        bail!(
            "{name}: lambda must be contiguous f32 [{n}, {heads}], a factor a token and head, not {dtype:?} {shape:?}"
        );
    }
    Ok(())
}

/// The factors as values, one per token and head; `None` if there is no `lambda`.
pub(crate) fn factors(name: &str, lambda: Option<&Tensor>, n: usize, heads: usize) -> Result<Option<Vec<f32>>> {
    let Some(lambda) = lambda else { return Ok(None) };
    check(name, lambda, n, heads)?;
    lambda.flatten_all()?.to_vec1().map(Some)
}

/// `z` `[n, heads, dim]` times `lambda`, in plain candle ops: in f32, rounded once. In bf16, 1.1 itself would be 1.1016.
pub(crate) fn scale(name: &str, z: Tensor, lambda: Option<&Tensor>) -> Result<Tensor> {
    let Some(lambda) = lambda else { return Ok(z) };
    check(name, lambda, z.dim(0)?, z.dim(1)?)?;
    z.to_dtype(DType::F32)?.broadcast_mul(&lambda.unsqueeze(2)?)?.to_dtype(z.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn lambda_itself_is_not_rounded_to_the_type_of_z() -> Result<()> {
        let lambda = Tensor::new(&[[1.1f32, -1e5]], &Device::Cpu)?;
        for dtype in [DType::BF16, DType::F16] {
            let z = Tensor::new(&[[[4f32], [0.25]]], &Device::Cpu)?.to_dtype(dtype)?;
            let scaled = scale("scale", z, Some(&lambda))?;
            let expected = Tensor::new(&[[[4.4f32], [-25000.0]]], &Device::Cpu)?.to_dtype(dtype)?;
            assert_eq!(
                scaled.to_dtype(DType::F32)?.to_vec3::<f32>()?,
                expected.to_dtype(DType::F32)?.to_vec3::<f32>()?
            );
        }
        Ok(())
    }
}
