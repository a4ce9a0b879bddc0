//! The gated activation of the MLPs, without intermediate copies.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::{
    Level,
    simd::{self, Simd, dispatch},
};

/// `silu(gate) * up` of a fused `gate|up` projection (SwiGLU; transformers `LlamaMLP`).
///
/// # Shapes
/// `x` `[n, 2 i]` f32, the gate in the first half of each row; result `[n, i]`.
///
/// # Errors
/// If the last dimension is odd.
pub fn silu_mul(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { x.apply_op1_no_bwd(&SiluMul(Level::best())) } else { silu_mul_reference(x) }
}

/// The oracle of [`silu_mul`] in plain candle ops.
///
/// # Errors
/// If the last dimension is odd.
pub fn silu_mul_reference(x: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    x.narrow(D::Minus1, 0, half)?.silu()? * x.narrow(D::Minus1, half, half)?
}

struct SiluMul(Level);

impl CustomOp1 for SiluMul {
    fn name(&self) -> &'static str {
        "silu_mul"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, width) = layout.shape().dims2()?;
        let Some((start, end)) = layout.contiguous_offsets().filter(|_| width % 2 == 0) else {
            bail!("silu_mul: needs a contiguous tensor with an even last dimension, not {:?}", layout.shape());
        };
        let half = width / 2;
        let mut out = vec![0f32; n * half];
        if half > 0 {
            let rows = x.as_slice::<f32>()?[start..end].par_chunks(width).zip(out.par_chunks_mut(half));
            rows.with_min_len(8).for_each(|(x, out)| {
                // SAFETY: `x` holds 2 * half values and `out` holds half.
                unsafe { row(self.0, half, x.as_ptr(), out.as_mut_ptr()) }
            });
        }
        Ok((CpuStorage::F32(out), Shape::from((n, half))))
    }
}

dispatch! {
    /// One row: `half` gates, then `half` ups.
    unsafe fn row(half: usize, x: *const f32, out: *mut f32) = row_generic;
}

#[inline(always)]
unsafe fn row_generic<S: Simd>(half: usize, x: *const f32, out: *mut f32) {
    // SAFETY: whole vectors below `half`, then part of one.
    unsafe {
        let whole = half - half % S::LANES;
        let mut i = 0;
        while i < whole {
            S::store(out.add(i), gated::<S>(S::load(x.add(i)), S::load(x.add(half + i))));
            i += S::LANES;
        }
        let rest = half - whole;
        if rest > 0 {
            let gate = simd::load_part::<S>(x.add(whole), rest);
            let up = simd::load_part::<S>(x.add(half + whole), rest);
            simd::store_part::<S>(out.add(whole), gated::<S>(gate, up), rest);
        }
    }
}

/// `g / (1 + e^-g) * u`. Below -87 the exponent is held where e^-g is still finite: the result is a tiny -0 as in f32.
#[inline(always)]
unsafe fn gated<S: Simd>(g: S::F, u: S::F) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        let e = simd::exp::<S>(S::mul(S::max(g, S::splat(-87.0)), S::splat(-1.0)));
        S::mul(S::div(g, S::add(S::splat(1.0), e)), u)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Largest difference to candle's silu, relative to max(1, |y|). Measured worst case: 1.7e-7 (2026-11-21).
    const TOLERANCE: f32 = 2e-6;

    #[test]
    fn every_level_is_the_oracle() -> Result<()> {
        for half in [1usize, 7, 16, 33, 1536] {
            let x: Vec<f32> = (0..4 * half).map(|i| ((i * 37 % 2001) as f32 - 1000.0) / 8.0).collect();
            let x = Tensor::from_vec(x, (2, 2 * half), &Device::Cpu)?;
            let oracle = silu_mul_reference(&x)?.to_vec2::<f32>()?.concat();
            for level in Level::available() {
                let fast = x.apply_op1_no_bwd(&SiluMul(level))?.to_vec2::<f32>()?.concat();
                let off = |(f, o): (&f32, &f32)| (f - o).abs() / o.abs().max(1.0);
                let worst = fast.iter().zip(&oracle).map(off).fold(0.0, f32::max);
                println!("silu_mul {level:?} width {half}: {worst:e} of {TOLERANCE:e}");
                assert!(worst < TOLERANCE, "{level:?} width {half}: {worst:e}");
            }
        }
        Ok(())
    }

    #[test]
    fn odd_widths_are_refused() -> Result<()> {
        let x = Tensor::zeros((1, 3), candle_core::DType::F32, &Device::Cpu)?;
        assert!(silu_mul(&x).unwrap_err().to_string().contains("even last dimension"));
        Ok(())
    }
}
