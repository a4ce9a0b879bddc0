//! The gates of a delta net: how much a token writes, and how much of the state it leaves.

use candle_core::{DType, Result, Tensor};

use crate::{
    place::{Place, stored, values},
    room::{Room, for_rows},
};

/// `beta = sigmoid(b)` and `g = decay * softplus(a + bias)`, the logarithm of the decay (transformers
/// `Qwen3_5GatedDeltaNet`, where `decay` is `-exp(A_log)`).
///
/// # Shapes
/// `b` and `a` `[n, heads]`, on the CPU f32, where some columns of a fused projection are read where they are; `decay`
/// and `bias` `[heads]` f32. Both results `[n, heads]` f32.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn delta_gates(b: &Tensor, a: &Tensor, decay: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
    if !b.device().is_cpu() {
        return delta_gates_reference(b, a, decay, bias);
    }
    let (n, heads) = b.dims2()?;
    let place = |t: &Tensor| Place::of("delta_gates", t.layout(), (n, heads, 1));
    let (at_b, at_a) = (place(b)?, place(a)?);
    for vector in [decay, bias] {
        Place::of("delta_gates", vector.unsqueeze(0)?.layout(), (1, heads, 1))?;
    }
    let guards = [b, a, decay, bias].map(Tensor::storage_and_layout);
    let [b, a, ..] = guards.each_ref().map(|guard| stored("delta_gates", guard));
    let [.., decay, bias] = guards.each_ref().map(|guard| values("delta_gates", guard));
    let (b, a, decay, bias) = (b?, a?, decay?, bias?);
    let (mut beta, mut g) = (Room::new(n * heads), Room::new(n * heads));
    let (to_beta, to_g) = (beta.start(), g.start());
    for_rows(n, COST * heads, |token| {
        for head in 0..heads {
            let written = sigmoid(b[at_b.head(token, head)]);
            let left = decay[head] * softplus(a[at_a.head(token, head)] + bias[head]);
            // SAFETY: each token and head has a place of its own in both results.
            unsafe {
                to_beta.get().add(token * heads + head).write(written);
                to_g.get().add(token * heads + head).write(left);
            }
        }
    });
    // SAFETY: every token and head was written.
    let (beta, g) = unsafe { (beta.filled(), g.filled()) };
    let cpu = guards[0].0.device();
    Ok((Tensor::from_vec(beta, (n, heads), &cpu)?, Tensor::from_vec(g, (n, heads), &cpu)?))
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

/// Operations of a head, for the sharing of work between threads: three calls into the mathematics library.
const COST: usize = 800;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `ln(1 + e^x)`, without overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Largest difference to the oracle, relative to max(1, |y|). Measured worst case: 9.2e-7 (2026-11-25).
    const TOLERANCE: f32 = 4e-6;

    fn flat(t: &Tensor) -> Result<Vec<f32>> {
        t.flatten_all()?.to_vec1()
    }

    /// The gates of `n` tokens and 5 heads within a wider row, from -100 to 100.
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
            let (beta, g) = delta_gates(&b, &a, &decay, &bias)?;
            let (expected_beta, expected_g) = delta_gates_reference(&b, &a, &decay, &bias)?;
            for (fast, oracle) in [(beta, expected_beta), (g, expected_g)] {
                assert_eq!(fast.dims(), oracle.dims());
                let off =
                    |(f, o): (&f32, &f32)| if f.is_nan() { f32::INFINITY } else { (f - o).abs() / o.abs().max(1.0) };
                let worst = flat(&fast)?.iter().zip(&flat(&oracle)?).map(off).fold(0.0, f32::max);
                println!("delta_gates: {worst:e} of {TOLERANCE:e}");
                assert!(worst < TOLERANCE, "{n} tokens: {worst:e}");
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
        let (_, all) = delta_gates(&b, &a, &decay, &bias)?;
        for token in [0, 150, 299] {
            let (_, alone) = delta_gates(&b.narrow(0, token, 1)?, &a.narrow(0, token, 1)?, &decay, &bias)?;
            assert_eq!(flat(&alone)?, flat(&all.narrow(0, token, 1)?)?, "token {token}");
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
