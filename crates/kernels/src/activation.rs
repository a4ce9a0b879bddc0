//! The gated activations of the MLPs, and the cap of logits, without intermediate copies.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};

use crate::{
    Level, gpu,
    place::values,
    room::{Room, for_rows},
    serving::{Serving, serving},
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
    match serving(x.device()) {
        Serving::Cpu => x.apply_op1_no_bwd(&GateMul(Level::best(), Silu)),
        Serving::Gpu => gpu::gate_mul(x, false),
        Serving::Plain => silu_mul_reference(x),
    }
}

/// The oracle of [`silu_mul`] in plain candle ops.
///
/// # Errors
/// If the last dimension is odd.
pub fn silu_mul_reference(x: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    x.narrow(D::Minus1, 0, half)?.silu()? * x.narrow(D::Minus1, half, half)?
}

/// `gelu(gate) * up` of a fused `gate|up` projection, gelu in its tanh form (GeGLU; transformers `gelu_pytorch_tanh`).
///
/// # Shapes
/// `x` `[n, 2 i]` f32, the gate in the first half of each row; result `[n, i]`.
///
/// # Errors
/// If the last dimension is odd.
pub fn gelu_mul(x: &Tensor) -> Result<Tensor> {
    match serving(x.device()) {
        Serving::Cpu => x.apply_op1_no_bwd(&GateMul(Level::best(), Gelu)),
        Serving::Gpu => gpu::gate_mul(x, true),
        Serving::Plain => gelu_mul_reference(x),
    }
}

/// [`gelu_mul`] with gate and up in separate tensors, whose rows may be views into wider ones.
///
/// # Shapes
/// Both `[n, i]` f32; result the same.
///
/// # Errors
/// If the shapes differ.
pub fn gelu_mul_with(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    match serving(gate.device()) {
        Serving::Gpu => gpu::gelu_mul_with(gate, up),
        Serving::Cpu | Serving::Plain => gelu_mul(&Tensor::cat(&[gate, up], 1)?),
    }
}

/// The oracle of [`gelu_mul`] in plain candle ops.
///
/// # Errors
/// If the last dimension is odd.
pub fn gelu_mul_reference(x: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    x.narrow(D::Minus1, 0, half)?.gelu()? * x.narrow(D::Minus1, half, half)?
}

/// Soft-capped logits: `cap * tanh(x / cap)` (transformers `final_logit_softcapping`), in one pass.
///
/// # Shapes
/// `x` f32 of any shape; result as `x`.
///
/// # Errors
/// If `x` is not f32.
pub fn softcap(x: &Tensor, cap: f32) -> Result<Tensor> {
    match serving(x.device()) {
        Serving::Gpu => gpu::softcap(x, cap),
        Serving::Cpu => softcap_at(Level::best(), x, cap),
        Serving::Plain => softcap_reference(x, cap),
    }
}

/// The oracle of [`softcap`] in plain candle ops.
///
/// # Errors
/// As [`softcap`].
pub fn softcap_reference(x: &Tensor, cap: f32) -> Result<Tensor> {
    let capped = ((x / f64::from(cap))?.tanh()? * f64::from(cap))?;
    // tanh would make a plausible logit of an infinite one: its product with 0 is NaN.
    capped + (x * 0.0)?
}

/// Values capped by one call.
const CHUNK: usize = 4096;

fn softcap_at(level: Level, x: &Tensor, cap: f32) -> Result<Tensor> {
    let x = x.contiguous()?;
    let guard = x.storage_and_layout();
    let from = values("softcap", &guard)?;
    let count = from.len();
    let mut out = Room::new(count);
    let to = out.start();
    for_rows(count.div_ceil(CHUNK), COST * CHUNK, |chunk| {
        let at = chunk * CHUNK;
        // SAFETY: the chunk's values of the input and of the result, which only this call writes.
        unsafe { cap_row(level, CHUNK.min(count - at), from[at..].as_ptr(), cap, to.get().add(at)) }
    });
    // SAFETY: every chunk was written.
    Tensor::from_vec(unsafe { out.filled() }, x.shape(), x.device())
}

dispatch! {
    /// The capped values of `count`. tanh would make a plausible logit of an infinite one: its product with 0 is NaN.
    unsafe fn cap_row(count: usize, x: *const f32, cap: f32, out: *mut f32) = cap_generic;
}

#[inline(always)]
unsafe fn cap_generic<S: Simd>(count: usize, x: *const f32, cap: f32, out: *mut f32) {
    // SAFETY: `some` values from `at` on lie below `count`.
    unsafe {
        let (to, inverse, zero) = (S::splat(cap), S::splat(1.0 / cap), S::splat(0.0));
        for at in (0..count).step_by(S::LANES) {
            let some = S::LANES.min(count - at);
            let logits = simd::load_some::<S>(x.add(at), some);
            let capped = S::mul(to, simd::tanh::<S>(S::mul(logits, inverse)));
            simd::store_some::<S>(out.add(at), S::fma(logits, zero, capped), some);
        }
    }
}

/// The activation function of a gate.
pub(crate) trait Gate: Sync {
    /// The operation's name in error messages.
    const NAME: &'static str;
    unsafe fn apply<S: Simd>(g: S::F) -> S::F;
}

/// `g / (1 + e^-g)`
pub(crate) struct Silu;

impl Gate for Silu {
    const NAME: &'static str = "silu_mul";
    #[inline(always)]
    unsafe fn apply<S: Simd>(g: S::F) -> S::F {
        // SAFETY: the caller's contract, passed on.
        unsafe { sigmoid_mul::<S>(g, g) }
    }
}

/// `g (1 + tanh u) / 2` with `u = sqrt(2 / pi) (g + 0.044715 g^3)`, which is `g / (1 + e^-2u)`.
struct Gelu;

impl Gate for Gelu {
    const NAME: &'static str = "gelu_mul";
    #[inline(always)]
    unsafe fn apply<S: Simd>(g: S::F) -> S::F {
        const TWICE: f32 = 1.595_769; // 2 sqrt(2 / pi)
        // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
        unsafe {
            let cubic = S::fma(S::mul(g, g), S::splat(0.044_715 * TWICE), S::splat(TWICE));
            sigmoid_mul::<S>(g, S::mul(g, cubic))
        }
    }
}

/// `g / (1 + e^-x)`. Below -87 the exponent is clamped so that e^-x stays finite: the result is a tiny -0 as in f32.
#[inline(always)]
pub(crate) unsafe fn sigmoid_mul<S: Simd>(g: S::F, x: S::F) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        let e = simd::exp::<S>(S::mul(S::max(S::splat(-87.0), x), S::splat(-1.0)));
        S::div(g, S::add(S::splat(1.0), e))
    }
}

/// Operations per value, used to share work between threads.
const COST: usize = 16;

struct GateMul<G>(Level, G);

impl<G: Gate> CustomOp1 for GateMul<G> {
    fn name(&self) -> &'static str {
        G::NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, width) = layout.shape().dims2()?;
        let Some((start, end)) = layout.contiguous_offsets().filter(|_| width % 2 == 0) else {
            let shape = layout.shape();
            bail!("{}: needs a contiguous tensor with an even last dimension, not {shape:?}", G::NAME);
        };
        let half = width / 2;
        let x = &x.as_slice::<f32>()?[start..end];
        let mut out = Room::new(n * half);
        let to = out.start();
        for_rows(n, COST * half, |i| {
            // SAFETY: row `i` of `x` holds 2 * half values, and its place in the result half.
            unsafe { row::<G>(self.0, half, x[i * width..].as_ptr(), to.get().add(i * half)) }
        });
        // SAFETY: every row was written.
        Ok((CpuStorage::F32(unsafe { out.filled() }), Shape::from((n, half))))
    }
}

dispatch! {
    /// One row: `half` gates, then `half` ups.
    unsafe fn row<G: Gate>(half: usize, x: *const f32, out: *mut f32) = row_generic;
}

#[inline(always)]
unsafe fn row_generic<S: Simd, G: Gate>(half: usize, x: *const f32, out: *mut f32) {
    // SAFETY: whole vectors below `half`, then part of one.
    unsafe {
        let whole = half - half % S::LANES;
        let mut i = 0;
        while i < whole {
            S::store(out.add(i), S::mul(G::apply::<S>(S::load(x.add(i))), S::load(x.add(half + i))));
            i += S::LANES;
        }
        let rest = half - whole;
        if rest > 0 {
            let gate = G::apply::<S>(simd::load_part::<S>(x.add(whole), rest));
            let up = simd::load_part::<S>(x.add(half + whole), rest);
            simd::store_part::<S>(out.add(whole), S::mul(gate, up), rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::worst_relative;
    use candle_core::{DType, Device};

    #[test]
    fn a_softcap_makes_no_plausible_logit_of_an_infinite_one() -> Result<()> {
        let x = Tensor::new(&[1e30f32, -40.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, 15.0], &Device::Cpu)?;
        let capped = softcap(&x, 30.0)?.to_vec1::<f32>()?;
        assert_eq!((capped[0], capped[5]), (30.0, 0.0));
        assert!(
            (capped[6] - 30.0 * 0.5f32.tanh()).abs() < 1e-5 && (capped[1] + 30.0 * (4.0f32 / 3.0).tanh()).abs() < 1e-5
        );
        assert!(capped[2..5].iter().all(|x| x.is_nan()), "{capped:?}");
        Ok(())
    }

    /// Largest difference to candle's silu in f64, relative to max(1, |y|). Measured worst case: 1.6e-7 (2026-11-21).
    const SILU_TOLERANCE: f32 = 2e-6;
    /// The same for candle's gelu. Measured worst case: 3.3e-7 (2026-11-21).
    const GELU_TOLERANCE: f32 = 2e-6;

    /// Largest difference of capped logits, relative to max(1, |y|). Measured worst case: 2.3e-7 (2026-11-30).
    const CAP_TOLERANCE: f32 = 1e-6;

    #[test]
    fn logits_are_capped_in_one_pass() -> Result<()> {
        let mut largest = 0f32;
        for count in [1usize, 7, 64, 5000, 40_001] {
            let x: Vec<f32> = (0..count).map(|i| ((i * 37 % 2001) as f32 - 1000.0) / 9.0).collect();
            let x = Tensor::from_vec(x, count, &Device::Cpu)?;
            for cap in [30.0f32, 50.0, 0.7] {
                let oracle = softcap_reference(&x.to_dtype(DType::F64)?, cap)?.to_dtype(DType::F32)?;
                for level in Level::available() {
                    largest = largest.max(worst_relative(&softcap_at(level, &x, cap)?, &oracle));
                }
            }
        }
        println!("softcap: {largest:e} of {CAP_TOLERANCE:e}");
        assert!(largest < CAP_TOLERANCE, "{largest:e}");
        let bad = Tensor::from_slice(&[1.0f32, f32::INFINITY, f32::NEG_INFINITY, f32::NAN], 4, &Device::Cpu)?;
        for level in Level::available() {
            let capped = softcap_at(level, &bad, 30.0)?.to_vec1::<f32>()?;
            assert!(capped[0].is_finite() && capped[1..].iter().all(|x| x.is_nan()), "{level:?} {capped:?}");
        }
        Ok(())
    }

    fn check<G: Gate>(gate: impl Fn() -> G, oracle: impl Fn(&Tensor) -> Result<Tensor>, tolerance: f32) -> Result<()> {
        for half in [1usize, 7, 16, 33, 1536] {
            // From -125 to 125, and the second time densely around 0; e^-u of the largest would overflow.
            for step in [8.0, 200.0] {
                let x: Vec<f32> = (0..4 * half).map(|i| ((i * 37 % 2001) as f32 - 1000.0) / step).collect();
                let x = Tensor::from_vec(x, (2, 2 * half), &Device::Cpu)?;
                // In f64, because `1 + tanh u` of candle's gelu cancels in f32.
                let oracle = oracle(&x.to_dtype(DType::F64)?)?.to_dtype(DType::F32)?;
                for level in Level::available() {
                    let worst = worst_relative(&x.apply_op1_no_bwd(&GateMul(level, gate()))?, &oracle);
                    println!("{} {level:?} width {half}: {worst:e} of {tolerance:e}", G::NAME);
                    assert!(worst < tolerance, "{} {level:?} width {half}: {worst:e}", G::NAME);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_no_number_stays_none() -> Result<()> {
        let x = Tensor::new(&[[1f32, f32::NAN, 0.5, 1.0, 1.0, f32::NAN]], &Device::Cpu)?;
        for level in Level::available() {
            for found in [x.apply_op1_no_bwd(&GateMul(level, Silu))?, x.apply_op1_no_bwd(&GateMul(level, Gelu))?] {
                let none: Vec<bool> = found.flatten_all()?.to_vec1::<f32>()?.iter().map(|x| x.is_nan()).collect();
                assert_eq!(none, [false, true, true], "{level:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn every_level_is_the_oracle() -> Result<()> {
        check(|| Silu, silu_mul_reference, SILU_TOLERANCE)?;
        check(|| Gelu, gelu_mul_reference, GELU_TOLERANCE)
    }

    #[test]
    fn huge_gates_stay_finite_or_zero() -> Result<()> {
        let x =
            Tensor::new(&[[-1e30f32, -1e13, -200.0, 200.0, 1e13, 3e38, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]], &Device::Cpu)?;
        for level in Level::available() {
            let y = x.apply_op1_no_bwd(&GateMul(level, Gelu))?.to_vec2::<f32>()?.concat();
            assert_eq!(y[3..], [200.0, 1e13, 3e38], "{level:?}");
            assert!(y[..3].iter().all(|y| y.abs() < 1e-6), "{level:?}: {y:?}");
        }
        Ok(())
    }

    #[test]
    fn a_row_is_the_same_bits_in_any_batch() -> Result<()> {
        let x: Vec<f32> = (0..19 * 70).map(|i| ((i * 37 % 2001) as f32 - 1000.0) / 100.0).collect();
        let x = Tensor::from_vec(x, (19, 70), &Device::Cpu)?;
        for level in Level::available() {
            let all = x.apply_op1_no_bwd(&GateMul(level, Gelu))?;
            for row in 0..19 {
                let alone = x.narrow(0, row, 1)?.apply_op1_no_bwd(&GateMul(level, Gelu))?;
                assert_eq!(alone.to_vec2::<f32>()?, all.narrow(0, row, 1)?.to_vec2::<f32>()?, "{level:?} row {row}");
            }
        }
        Ok(())
    }

    #[test]
    fn odd_widths_are_refused() -> Result<()> {
        let x = Tensor::zeros((1, 3), DType::F32, &Device::Cpu)?;
        for refused in [silu_mul(&x), gelu_mul(&x)] {
            assert!(refused.unwrap_err().to_string().contains("even last dimension"));
        }
        Ok(())
    }
}
