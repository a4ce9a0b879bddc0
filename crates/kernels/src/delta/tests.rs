//! The delta rule against its oracle: chunks, states, λ, odd shapes, a row alone and in a batch.

use super::*;
use crate::testing::{bits, values, worst};
use candle_core::{D, DType, Device};

/// Largest difference between the two forms; values are of order 1. Measured worst case: 1.3e-6 (2026-11-21).
const TOLERANCE: f32 = 1e-5;

fn normalised(x: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
}

/// (key heads, value heads, dk, dv)
type Dims = (usize, usize, usize, usize);
const DIMS: [Dims; 5] = [(2, 4, 16, 24), (3, 3, 21, 7), (1, 2, 5, 1), (1, 1, 128, 128), (1, 2, 32, 112)];

/// q, k, v, g and beta of `n` tokens; the logarithms of the decays reach down to `-strength`.
fn inputs(n: usize, (key_heads, value_heads, dk, dv): Dims, strength: f64) -> Result<[Tensor; 5]> {
    let q = (normalised(&values(&[n, key_heads, dk], 1)?)? / (dk as f64).sqrt())?;
    let k = normalised(&values(&[n, key_heads, dk], 2)?)?;
    // Cubed, so that strong and weak decays alternate.
    let g = values(&[n, value_heads], 4)?.affine(-0.5, -0.5)?.powf(3.0)?.affine(strength, 0.0)?;
    let beta = values(&[n, value_heads], 5)?.affine(0.5, 0.5)?;
    Ok([q, k, values(&[n, value_heads, dv], 3)?, g, beta])
}

fn states(slots: usize, (_, value_heads, dk, dv): Dims) -> Result<Tensor> {
    values(&[slots, value_heads, dk, dv], 6)
}

fn fast(level: Level, inputs: &[Tensor; 5], state: &Tensor, spans: &[StateSpan]) -> Result<Tensor> {
    recurrent(level, inputs.each_ref(), state, spans)
}

fn oracle([q, k, v, g, beta]: &[Tensor; 5], state: &Tensor, spans: &[StateSpan]) -> Result<Tensor> {
    delta_rule_reference(q, k, v, g, beta, state, spans)
}

/// Compares both forms on one sequence, from zero and from a carried state.
fn check(inputs: &[Tensor; 5], dims: Dims, what: &str) -> Result<()> {
    let len = inputs[0].dim(0)?;
    for start in [0, 9] {
        let span = [StateSpan { first: 0, len, start, slot: 1 }];
        let expected_state = states(3, dims)?;
        let expected = oracle(inputs, &expected_state, &span)?;
        for level in Level::available() {
            let state = states(3, dims)?;
            let z = fast(level, inputs, &state, &span)?;
            let worst = worst(&z, &expected).max(worst(&state, &expected_state));
            println!("delta_rule {level:?} {what}: {worst:e} of {TOLERANCE:e}");
            assert!(worst < TOLERANCE, "{level:?} {what} of {len} tokens, {dims:?} from {start}: {worst:e}");
        }
    }
    Ok(())
}

#[test]
fn recurrent_and_chunked_are_the_same_rule() -> Result<()> {
    for len in [1, 3, 4, 63, 64, 65, 130] {
        for dims in DIMS {
            for strength in [0.01, 1.0, 50.0] {
                check(&inputs(len, dims, strength)?, dims, &format!("decay {strength}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn repeated_keys_are_the_same_rule() -> Result<()> {
    for dims @ (key_heads, value_heads, dk, _) in DIMS {
        let [q, _, v, g, _] = inputs(130, dims, 0.01)?;
        let k = normalised(&values(&[1, key_heads, dk], 2)?)?.repeat((130, 1, 1))?;
        let beta = Tensor::ones((130, value_heads), DType::F32, &Device::Cpu)?;
        check(&[q, k, v, g, beta], dims, "one key")?;
    }
    Ok(())
}

/// Two tokens worked out by hand, so that both forms are checked against the rule and not only against each other.
#[test]
fn two_tokens_by_hand() -> Result<()> {
    let new = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
    let inputs = [
        new(&[1.0, 1.0, 0.0, 1.0], &[2, 1, 2])?,
        new(&[1.0, 0.0, 0.6, 0.8], &[2, 1, 2])?,
        new(&[2.0, 4.0, 1.0, 1.0], &[2, 1, 2])?,
        new(&[-3.0, 0.5f32.ln()], &[2, 1])?,
        new(&[0.5, 1.0], &[2, 1])?,
    ];
    let spans = [StateSpan { first: 0, len: 2, start: 0, slot: 0 }];
    for op in [oracle, |i: &_, state: &_, spans: &_| fast(Level::best(), i, state, spans)] {
        let state = Tensor::full(7f32, (1, 1, 2, 2), &Device::Cpu)?;
        let z = op(&inputs, &state, &spans)?.flatten_all()?.to_vec1::<f32>()?;
        // u = (1, 2); then half of it remains, Sᵀ k = (0.3, 0.6) and u = (0.7, 0.4).
        let s = state.flatten_all()?.to_vec1::<f32>()?;
        for (got, expected) in z.iter().chain(&s).zip([1.0, 2.0, 0.56, 0.32, 0.92, 1.24, 0.56, 0.32]) {
            assert!((got - expected).abs() < TOLERANCE, "{z:?} {s:?}");
        }
    }
    Ok(())
}

#[test]
fn a_sequence_is_the_same_bits_however_it_is_cut() -> Result<()> {
    for dims in DIMS {
        let packed = inputs(40, dims, 1.0)?;
        let spans = [
            StateSpan { first: 0, len: 6, start: 4, slot: 2 },
            StateSpan { first: 6, len: 31, start: 0, slot: 0 },
            StateSpan { first: 37, len: 3, start: 0, slot: 1 },
        ];
        for level in Level::available() {
            let whole = states(3, dims)?;
            let all = fast(level, &packed, &whole, &spans)?.narrow(0, 6, 31)?;
            for len in [1, 2, 5, 16] {
                let carried = states(2, dims)?;
                for start in (0..31).step_by(len) {
                    let len = len.min(31 - start);
                    let [q, k, v, g, beta] = packed.each_ref().map(|t| t.narrow(0, 6 + start, len));
                    let span = [StateSpan { first: 0, len, start, slot: 1 }];
                    let piece = fast(level, &[q?, k?, v?, g?, beta?], &carried, &span)?;
                    assert_eq!(bits(&piece), bits(&all.narrow(0, start, len)?), "{level:?} {dims:?} {span:?}");
                }
                assert_eq!(bits(&carried.get(1)?), bits(&whole.get(0)?), "{level:?} {dims:?} pieces of {len}");
            }
        }
    }
    Ok(())
}

#[test]
fn tokens_and_slots_of_no_span_are_left_alone() -> Result<()> {
    let dims = DIMS[0];
    let inputs = inputs(6, dims, 1.0)?;
    let spans = [StateSpan { first: 1, len: 2, start: 0, slot: 2 }, StateSpan { first: 4, len: 0, start: 0, slot: 0 }];
    for op in [oracle, |i: &_, state: &_, spans: &_| fast(Level::best(), i, state, spans)] {
        let (before, state) = (states(3, dims)?, states(3, dims)?);
        let z = op(&inputs, &state, &spans)?.abs()?.sum((1, 2))?.to_vec1::<f32>()?;
        assert!(z[1] > 0.0 && z[2] > 0.0 && [z[0], z[3], z[4], z[5]] == [0.0; 4], "{z:?}");
        let change = (state - before)?.abs()?.sum((1, 2, 3))?.to_vec1::<f32>()?;
        assert!(change[2] > 0.0 && change[..2] == [0.0; 2], "{change:?}");
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() -> Result<()> {
    let dims = DIMS[0];
    let [q, k, v, g, beta] = inputs(4, dims, 1.0)?;
    let state = states(2, dims)?;
    let before = state.copy()?;
    let span = |len, slot| [StateSpan { first: 0, len, start: 1, slot }];
    let refused = |inputs: [&Tensor; 5], state: &Tensor, spans: &[StateSpan], why: &str| {
        let [q, k, v, g, beta] = inputs;
        let refused =
            [delta_rule(q, k, v, g, beta, state, &spans.into()), delta_rule_reference(q, k, v, g, beta, state, spans)];
        for refused in refused {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(why), "'{error}' does not say '{why}'");
        }
    };
    refused([&q, &k, &v, &g, &v], &state, &span(4, 0), "do not fit");
    refused([&v, &v, &q, &g, &beta], &state, &span(4, 0), "do not fit");
    refused([&q, &k, &v, &g, &beta], &state, &span(5, 0), "outside 4 tokens or 2 slots");
    refused([&q, &k, &v, &g, &beta], &state, &span(4, 2), "outside 4 tokens or 2 slots");
    let scattered = states(2, (2, 4, 24, 16))?.transpose(2, 3)?;
    refused([&q, &k, &v, &g, &beta], &scattered, &span(4, 0), "must be contiguous");
    assert_eq!(bits(&state), bits(&before));
    Ok(())
}

/// Candle's own operations widen 16-bit inputs and round the result once.
#[test]
fn the_oracle_takes_sixteen_bits() -> Result<()> {
    let dims = DIMS[0];
    let [q, k, v, g, beta] = inputs(5, dims, 1.0)?;
    let span = [StateSpan { first: 0, len: 5, start: 1, slot: 0 }];
    for dtype in [DType::BF16, DType::F16] {
        let [q, k, v] = [&q, &k, &v].map(|x| x.to_dtype(dtype));
        let narrow = [q?, k?, v?, g.clone(), beta.clone()];
        let [q, k, v, ..] = narrow.each_ref().map(|x| x.to_dtype(DType::F32));
        let wide = [q?, k?, v?, g.clone(), beta.clone()];
        let (state, expected_state) = (states(1, dims)?, states(1, dims)?);
        let (z, expected) = (oracle(&narrow, &state, &span)?, oracle(&wide, &expected_state, &span)?);
        assert_eq!(z.dtype(), dtype);
        assert_eq!(bits(&z.to_dtype(DType::F32)?), bits(&expected.to_dtype(dtype)?.to_dtype(DType::F32)?));
        assert_eq!(bits(&state), bits(&expected_state));
    }
    Ok(())
}
