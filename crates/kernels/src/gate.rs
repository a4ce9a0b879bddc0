//! The output gates of Qwen3.5, one pass each: sigmoid after attention, norm and SiLU after the delta rule.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};

use crate::{
    Level,
    activation::{Gate, Silu, sigmoid_mul},
    gpu,
    lambda::{factors, scale},
    norm::{over_rms, rms_norm_reference},
    place::Place,
    room::{Room, for_rows},
    serving::{Serving, serving},
    simd::{self, Simd, dispatch},
};

/// `x * sigmoid(gate)`, the output gate of attention (transformers `Qwen3_5Attention`).
///
/// # Shapes
/// `x` `[n, heads, dim]` f32; `gate` likewise, or `[n, heads * dim]`. Both may be views whose last dimension is contiguous,
/// such as part of a fused projection, and are read in place. Result `[n, heads, dim]`.
///
/// # Errors
/// If the shapes do not fit each other, or a last dimension is not contiguous.
pub fn sigmoid_gate(x: &Tensor, gate: &Tensor) -> Result<Tensor> {
    match serving(x.device()) {
        Serving::Cpu => x.apply_op2_no_bwd(gate, &SigmoidGate(Level::best())),
        Serving::Gpu => gpu::sigmoid_gate(x, gate),
        Serving::Plain => sigmoid_gate_reference(x, gate),
    }
}

/// The oracle of [`sigmoid_gate`] in plain candle ops.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn sigmoid_gate_reference(x: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let gate = gate.to_dtype(DType::F32)?.reshape(x.shape())?;
    let sigmoid = (gate.neg()?.exp()? + 1.0)?.recip()?;
    x * sigmoid.to_dtype(x.dtype())?
}

/// `rms_norm(x) * weight * silu(gate) * lambda`, the end of a delta net (transformers `Qwen3_5RMSNormGated`).
///
/// The norm is over each head, so it would cancel a factor applied before it: this is where λ belongs.
///
/// # Shapes
/// `x` and `gate` as in [`sigmoid_gate`]; `weight` `[dim]` f32; `eps` is added to the mean of the squares; `lambda`
/// `[n, heads]` f32, where 1 gives the same bits as `None`. Result `[n, heads, dim]` in the dtype of `gate`.
///
/// # Errors
/// If the shapes do not fit each other, or a last dimension is not contiguous.
pub fn gated_norm(x: &Tensor, gate: &Tensor, weight: &Tensor, eps: f32, lambda: Option<&Tensor>) -> Result<Tensor> {
    match serving(x.device()) {
        Serving::Cpu => {
            let (n, heads, _) = x.dims3()?;
            let lambda = factors("gated_norm", lambda, n, heads)?;
            x.apply_op3_no_bwd(gate, weight, &GatedNorm { eps, lambda: lambda.as_deref(), level: Level::best() })
        }
        Serving::Gpu => gpu::gated_norm(x, gate, weight, eps, lambda),
        Serving::Plain => gated_norm_reference(x, gate, weight, eps, lambda),
    }
}

/// The oracle of [`gated_norm`] in plain candle ops.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn gated_norm_reference(
    x: &Tensor,
    gate: &Tensor,
    weight: &Tensor,
    eps: f32,
    lambda: Option<&Tensor>,
) -> Result<Tensor> {
    let dtype = gate.dtype();
    let [x, gate, weight] = [x, gate, weight].map(|t| t.to_dtype(DType::F32));
    let (x, gate) = (x?, gate?);
    let normed = rms_norm_reference(&x, &weight?, eps)?;
    let z = (normed * gate.reshape(x.shape())?.silu()?)?;
    scale("gated_norm", z, lambda)?.to_dtype(dtype)
}

/// Operations per value, used to share work between threads.
const COST: usize = 16;

struct SigmoidGate(Level);

impl CustomOp2 for SigmoidGate {
    fn name(&self) -> &'static str {
        "sigmoid_gate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, gate: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        let size @ (n, heads, dim) = lx.shape().dims3()?;
        let (px, pg) = (Place::of(self.name(), lx, size)?, Place::of(self.name(), lg, size)?);
        let (x, gate) = (x.as_slice::<f32>()?, gate.as_slice::<f32>()?);
        let mut out = Room::new(n * heads * dim);
        let to = out.start();
        for_rows(n * heads, COST * dim, |row| {
            let (x, gate) = (&x[px.at(row, heads)..][..dim], &gate[pg.at(row, heads)..][..dim]);
            // SAFETY: both hold `dim` values, and each head has its own place in the result.
            unsafe { sigmoid_row(self.0, dim, x.as_ptr(), gate.as_ptr(), to.get().add(row * dim)) }
        });
        // SAFETY: every head was written.
        Ok((CpuStorage::F32(unsafe { out.filled() }), lx.shape().clone()))
    }
}

struct GatedNorm<'a> {
    eps: f32,
    /// `[n, heads]`
    lambda: Option<&'a [f32]>,
    level: Level,
}

impl CustomOp3 for GatedNorm<'_> {
    fn name(&self) -> &'static str {
        "gated_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gate: &CpuStorage,
        lg: &Layout,
        weight: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let size @ (n, heads, dim) = lx.shape().dims3()?;
        let (px, pg) = (Place::of(self.name(), lx, size)?, Place::of(self.name(), lg, size)?);
        let Some((w0, w1)) = lw.contiguous_offsets().filter(|_| lw.dims() == [dim]) else {
            bail!("gated_norm: the weight must be contiguous [{dim}], not {:?}", lw.shape());
        };
        let (x, gate, weight) = (x.as_slice::<f32>()?, gate.as_slice::<f32>()?, &weight.as_slice::<f32>()?[w0..w1]);
        let mut out = Room::new(n * heads * dim);
        let to = out.start();
        for_rows(n * heads, COST * dim, |row| {
            let (x, gate) = (&x[px.at(row, heads)..][..dim], &gate[pg.at(row, heads)..][..dim]);
            let lambda = self.lambda.map_or(1.0, |lambda| lambda[row]);
            let inputs = [x.as_ptr(), gate.as_ptr(), weight.as_ptr()];
            // SAFETY: the three hold `dim` values, and each head has its own place in the result.
            unsafe { norm_row(self.level, dim, inputs, self.eps, lambda, to.get().add(row * dim)) }
        });
        // SAFETY: every head was written.
        Ok((CpuStorage::F32(unsafe { out.filled() }), lx.shape().clone()))
    }
}

dispatch! {
    /// `x * sigmoid(gate)` of one head.
    unsafe fn sigmoid_row(dim: usize, x: *const f32, gate: *const f32, out: *mut f32) = sigmoid_row_generic;
}

#[inline(always)]
unsafe fn sigmoid_row_generic<S: Simd>(dim: usize, x: *const f32, gate: *const f32, out: *mut f32) {
    // SAFETY: `count` values from `i` on lie below `dim`.
    unsafe {
        for i in (0..dim).step_by(S::LANES) {
            let count = S::LANES.min(dim - i);
            let y = sigmoid_mul::<S>(simd::load_some::<S>(x.add(i), count), simd::load_some::<S>(gate.add(i), count));
            simd::store_some::<S>(out.add(i), y, count);
        }
    }
}

dispatch! {
    /// `x / rms(x) * weight * silu(gate) * lambda` of one head.
    unsafe fn norm_row(dim: usize, inputs: [*const f32; 3], eps: f32, lambda: f32, out: *mut f32) = norm_row_generic;
}

#[inline(always)]
unsafe fn norm_row_generic<S: Simd>(
    dim: usize,
    [x, gate, weight]: [*const f32; 3],
    eps: f32,
    lambda: f32,
    out: *mut f32,
) {
    // SAFETY: `count` values from `i` on lie below `dim`.
    unsafe {
        let factor = S::splat(over_rms::<S>(dim, x, eps));
        for i in (0..dim).step_by(S::LANES) {
            let count = S::LANES.min(dim - i);
            let [x, gate, weight] = [x, gate, weight].map(|p| p.add(i));
            let normed = S::mul(S::mul(simd::load_some::<S>(x, count), factor), simd::load_some::<S>(weight, count));
            let z = S::mul(normed, Silu::apply::<S>(simd::load_some::<S>(gate, count)));
            simd::store_some::<S>(out.add(i), S::mul(z, S::splat(lambda)), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, flat, worst_relative};
    use candle_core::Device;
    use proptest::prelude::*;

    /// Largest difference from the oracle, relative to max(1, |y|). Measured worst case: 4.9e-7 (2026-11-25).
    const TOLERANCE: f32 = 2e-6;

    /// Values from -9 to 9.
    fn values(shape: &[usize], seed: u32) -> Result<Tensor> {
        testing::values(shape, seed)? * 9.0
    }

    /// x `[n, h, d]`; the gate as `[n, h, d]` beside each head, and with the same values as `[n, h * d]` within a wider row; weight, λ.
    struct Inputs {
        x: Tensor,
        gate: Tensor,
        flat: Tensor,
        weight: Tensor,
        lambda: Tensor,
    }

    fn inputs(n: usize, h: usize, d: usize) -> Result<Inputs> {
        let fused = values(&[n, h + 1, 2 * d], 77)?;
        let gate = fused.narrow(1, 1, h)?.narrow(2, d, d)?;
        let pad = values(&[n, 3], 1)?;
        let flat = Tensor::cat(&[&pad, &gate.contiguous()?.reshape((n, h * d))?, &pad], 1)?.narrow(1, 3, h * d)?;
        Ok(Inputs { x: values(&[n, h, d], 3)?, gate, flat, weight: values(&[d], 5)?, lambda: values(&[n, h], 9)? })
    }

    fn sigmoid(level: Level, x: &Tensor, gate: &Tensor) -> Result<Tensor> {
        x.apply_op2_no_bwd(gate, &SigmoidGate(level))
    }

    fn norm(level: Level, i: &Inputs, gate: &Tensor, lambda: Option<&[f32]>) -> Result<Tensor> {
        i.x.apply_op3_no_bwd(gate, &i.weight, &GatedNorm { eps: 1e-6, lambda, level })
    }

    fn close(fast: &Tensor, oracle: &Tensor, what: &str) {
        let worst = worst_relative(fast, oracle);
        println!("{what}: {worst:e} of {TOLERANCE:e}");
        assert!(worst < TOLERANCE, "{what}: {worst:e}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_level_is_the_oracle_on_views(n in 1usize..40, h in 1usize..5, d in 1usize..140) {
            let i = inputs(n, h, d).unwrap();
            let gated = sigmoid_gate_reference(&i.x, &i.gate).unwrap();
            let factors = flat(&i.lambda);
            for lambda in [None, Some(&i.lambda)] {
                let normed = gated_norm_reference(&i.x, &i.gate, &i.weight, 1e-6, lambda).unwrap();
                for level in Level::available() {
                    for gate in [&i.gate, &i.flat] {
                        close(&sigmoid(level, &i.x, gate).unwrap(), &gated, &format!("sigmoid_gate {level:?}"));
                        let fast = norm(level, &i, gate, lambda.map(|_| factors.as_slice())).unwrap();
                        close(&fast, &normed, &format!("gated_norm {level:?}"));
                    }
                }
            }
        }
    }

    #[test]
    fn a_head_by_hand() -> Result<()> {
        let new = |values: &[f32]| Tensor::from_slice(values, (1, 1, 2), &Device::Cpu);
        let (x, gate) = (new(&[3.0, -4.0])?, new(&[0.0, 2.0])?);
        let sigmoid = 1.0 / (1.0 + (-2f32).exp());
        let (weight, lambda) = (Tensor::new(&[2f32, 1.0], &Device::Cpu)?, Tensor::new(&[[-0.5f32]], &Device::Cpu)?);
        for op in [sigmoid_gate, sigmoid_gate_reference] {
            close(&op(&x, &gate)?, &new(&[1.5, -4.0 * sigmoid])?, "by hand");
        }
        for op in [gated_norm, gated_norm_reference] {
            // The mean square is 12.5; an eps of 12.5 makes the root 5.
            let expected = new(&[0.0, -0.8 * 2.0 * sigmoid * -0.5])?;
            close(&op(&x, &gate, &weight, 12.5, Some(&lambda))?, &expected, "by hand");
        }
        Ok(())
    }

    #[test]
    fn squares_without_a_finite_sum_are_nan_and_no_zeros() -> Result<()> {
        let mut i = inputs(1, 2, 20)?;
        i.x = i.x.broadcast_mul(&Tensor::new(&[[[1f32], [1e20]]], &Device::Cpu)?)?;
        let mut all = vec![gated_norm_reference(&i.x, &i.gate, &i.weight, 1e-6, None)?];
        for level in Level::available() {
            all.push(norm(level, &i, &i.gate, None)?);
        }
        for z in all.iter().map(flat) {
            assert!(z[..20].iter().all(|x| x.is_finite()) && z[20..].iter().all(|x| x.is_nan()), "{z:?}");
        }
        Ok(())
    }

    #[test]
    fn lambda_1_is_none_bit_for_bit_and_0_is_zero() -> Result<()> {
        let i = inputs(5, 3, 21)?;
        for level in Level::available() {
            let plain = flat(&norm(level, &i, &i.gate, None)?);
            assert_eq!(flat(&norm(level, &i, &i.gate, Some(&[1.0; 15]))?), plain, "{level:?}");
            let one: Vec<f32> = (0..15).map(|i| f32::from(u8::from(i == 7))).collect();
            let mut expected = vec![0.0; plain.len()];
            expected[7 * 21..8 * 21].copy_from_slice(&plain[7 * 21..8 * 21]);
            assert_eq!(flat(&norm(level, &i, &i.gate, Some(&one))?), expected, "{level:?}");
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() -> Result<()> {
        let Inputs { x, gate, weight, lambda, .. } = inputs(4, 4, 8)?;
        let turned = gate.contiguous()?.transpose(1, 2)?.contiguous()?.transpose(1, 2)?;
        let says = |refused: Result<Tensor>, why: &str| {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(why), "'{error}' does not say '{why}'");
        };
        for wrong in [&turned, &gate.narrow(1, 0, 3)?] {
            says(sigmoid_gate(&x, wrong), "needs [4, 4, 8] or [4, 32]");
            says(gated_norm(&x, wrong, &weight, 1e-6, None), "needs [4, 4, 8] or [4, 32]");
        }
        says(gated_norm(&x, &gate, &weight.narrow(0, 0, 7)?, 1e-6, None), "the weight must be contiguous [8]");
        for op in [gated_norm, gated_norm_reference] {
            let lambda = lambda.narrow(0, 0, 3)?;
            says(op(&x, &gate, &weight, 1e-6, Some(&lambda)), "lambda must be contiguous f32 [4, 4]");
        }
        Ok(())
    }
}
