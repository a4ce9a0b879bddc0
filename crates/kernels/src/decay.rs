//! The gates of a delta net: how much a token writes, and how much of the state it keeps.

use candle_core::{DType, Result, Tensor};

use crate::{
    Level,
    activation::sigmoid_mul,
    gpu,
    place::{Place, stored, values},
    room::{Room, for_rows},
    serving::{Serving, serving},
    simd::{self, Simd, dispatch},
};

/// `beta = sigmoid(b)` and `g = decay * softplus(a + bias)`, the logarithm of the decay (transformers
/// `Qwen3_5GatedDeltaNet`, where `decay` is `-exp(A_log)`).
///
/// # Shapes
/// `b` and `a` `[n, heads]`, f32 on the CPU; they may be column ranges of a fused projection, read in place. `decay`
/// and `bias` `[heads]` f32. Both results `[n, heads]` f32.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn delta_gates(b: &Tensor, a: &Tensor, decay: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
    match serving(b.device()) {
        Serving::Cpu => gates_at(Level::best(), b, a, decay, bias),
        Serving::Gpu => gpu::delta_gates(b, a, decay, bias),
        Serving::Plain => delta_gates_reference(b, a, decay, bias),
    }
}

/// The oracle of [`delta_gates`] in candle's own ops.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn delta_gates_reference(b: &Tensor, a: &Tensor, decay: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
    let [b, a] = [b, a].map(|t| t.to_dtype(DType::F32)?.contiguous());
    let beta = candle_nn::ops::sigmoid(&b?)?;
    let x = a?.broadcast_add(bias)?;
    let softplus = (x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    Ok((beta, softplus.broadcast_mul(decay)?))
}

/// Operations per head, used to share work between threads.
const COST: usize = 64;

fn gates_at(level: Level, b: &Tensor, a: &Tensor, decay: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
    let (n, heads) = b.dims2()?;
    let device = b.device();
    let place = |t: &Tensor| Place::of("delta_gates", t.layout(), (n, 1, heads));
    let (at_b, at_a) = (place(b)?, place(a)?);
    for vector in [decay, bias] {
        Place::of("delta_gates", vector.unsqueeze(0)?.layout(), (1, 1, heads))?;
    }
    let guards = [b, a, decay, bias].map(Tensor::storage_and_layout);
    let (b, a) = (stored("delta_gates", &guards[0])?, stored("delta_gates", &guards[1])?);
    let (decay, bias) = (values("delta_gates", &guards[2])?, values("delta_gates", &guards[3])?);
    let (mut beta, mut g) = (Room::new(n * heads), Room::new(n * heads));
    let (to_beta, to_g) = (beta.start(), g.start());
    for_rows(n, COST * heads, |token| {
        let (b, a) = (&b[at_b.head(token, 0)..][..heads], &a[at_a.head(token, 0)..][..heads]);
        // SAFETY: the inputs hold `heads` values, and each token has its own row in both results.
        unsafe {
            let (beta, g) = (to_beta.get().add(token * heads), to_g.get().add(token * heads));
            gates_row(level, heads, [b, a, decay, bias].map(<[f32]>::as_ptr), beta, g);
        }
    });
    // SAFETY: every token's row was written.
    let (beta, g) = unsafe { (beta.filled(), g.filled()) };
    Ok((Tensor::from_vec(beta, (n, heads), device)?, Tensor::from_vec(g, (n, heads), device)?))
}

dispatch! {
    /// Both gates of one token; the inputs are b, a, the decay and the bias.
    unsafe fn gates_row(heads: usize, inputs: [*const f32; 4], beta: *mut f32, g: *mut f32) = gates_row_generic;
}

#[inline(always)]
unsafe fn gates_row_generic<S: Simd>(heads: usize, inputs: [*const f32; 4], beta: *mut f32, g: *mut f32) {
    // SAFETY: `count` values from `i` on lie below `heads`.
    unsafe {
        for i in (0..heads).step_by(S::LANES) {
            let count = S::LANES.min(heads - i);
            let mut values = [S::splat(0.0); 4];
            for (value, input) in values.iter_mut().zip(inputs) {
                *value = simd::load_some::<S>(input.add(i), count);
            }
            let [b, a, decay, bias] = values;
            simd::store_some::<S>(beta.add(i), sigmoid_mul::<S>(S::splat(1.0), b), count);
            simd::store_some::<S>(g.add(i), S::mul(decay, softplus::<S>(S::add(a, bias))), count);
        }
    }
}

/// `ln(1 + e^x) = max(x, 0) + ln(1 + y)` with `y = e^-|x|`, at most 1. The last term is twice the inverse hyperbolic tangent of
/// `s = y / (2 + y)`, whose series in `s² <= 1/9` is truncated below 1e-9.
#[inline(always)]
unsafe fn softplus<S: Simd>(x: S::F) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        let minus = S::mul(x, S::splat(-1.0));
        let y = simd::exp::<S>(S::mul(S::max(x, minus), S::splat(-1.0)));
        let s = S::div(y, S::add(y, S::splat(2.0)));
        let squared = S::mul(s, s);
        let mut series = S::splat(1.0 / 15.0);
        for odd in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
            series = S::fma(series, squared, S::splat(1.0 / odd));
        }
        S::fma(S::add(s, s), series, S::max(S::splat(0.0), x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{flat, worst_relative};
    use candle_core::Device;

    /// Largest difference from the oracle, relative to max(1, |y|). Measured worst case: 9.2e-7 (2026-11-25).
    const TOLERANCE: f32 = 4e-6;

    /// The gates of `n` tokens and 5 heads within a wider row, values from -100 to 100.
    fn inputs(n: usize) -> Result<[Tensor; 4]> {
        let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 83_886.08 - 100.0;
        let row = Tensor::from_vec((0..n as u32 * 13).map(value).collect::<Vec<_>>(), (n, 13), &Device::Cpu)?;
        let decay = Tensor::new(&[-1f32, -0.01, -16.0, -0.3, -2.0], &Device::Cpu)?;
        let bias = Tensor::new(&[0f32, 1.0, -7.0, 90.0, -90.0], &Device::Cpu)?;
        Ok([row.narrow(1, 2, 5)?, row.narrow(1, 8, 5)?, decay, bias])
    }

    #[test]
    fn gates_are_the_oracles() -> Result<()> {
        for n in [1, 3, 300] {
            let [b, a, decay, bias] = inputs(n)?;
            let (expected_beta, expected_g) = delta_gates_reference(&b, &a, &decay, &bias)?;
            for (level, which) in Level::available().into_iter().flat_map(|level| [(level, true), (level, false)]) {
                let (beta, g) = gates_at(level, &b, &a, &decay, &bias)?;
                let (fast, oracle) = if which { (beta, &expected_beta) } else { (g, &expected_g) };
                let worst = worst_relative(&fast, oracle);
                println!("delta_gates {level:?}: {worst:e} of {TOLERANCE:e}");
                assert!(worst < TOLERANCE, "{level:?} {n} tokens: {worst:e}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_no_number_stays_none() -> Result<()> {
        let [b, a, decay, bias] = inputs(1)?;
        let gone = Tensor::full(f32::NAN, (1, 5), &Device::Cpu)?;
        for level in Level::available() {
            for (b, a, expected) in [(&gone, &a, [true, false]), (&b, &gone, [false, true])] {
                let (beta, g) = gates_at(level, b, a, &decay, &bias)?;
                for (found, expected) in [beta, g].iter().zip(expected) {
                    assert!(flat(found).iter().all(|x| x.is_nan() == expected), "{level:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn no_tokens_have_no_gates() -> Result<()> {
        let [b, a, decay, bias] = inputs(0)?;
        assert_eq!(delta_gates(&b, &a, &decay, &bias)?.0.dims(), [0, 5]);
        Ok(())
    }

    #[test]
    fn a_token_is_the_same_bits_in_any_batch() -> Result<()> {
        let [b, a, decay, bias] = inputs(300)?;
        for level in Level::available() {
            let (_, all) = gates_at(level, &b, &a, &decay, &bias)?;
            for token in [0, 150, 299] {
                let of = |t: &Tensor| t.narrow(0, token, 1);
                let (_, alone) = gates_at(level, &of(&b)?, &of(&a)?, &decay, &bias)?;
                assert_eq!(flat(&alone), flat(&of(&all)?), "{level:?} token {token}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() -> Result<()> {
        let [b, a, decay, bias] = inputs(3)?;
        for (a, bias) in [(&a.narrow(1, 0, 4)?, &bias), (&a, &bias.narrow(0, 0, 4)?)] {
            let error = delta_gates(&b, a, &decay, bias).unwrap_err().to_string();
            assert!(error.contains("delta_gates: needs ["), "{error}");
        }
        Ok(())
    }
}
