//! The causal convolution before a delta rule.

use candle_core::{DType, Result};

use super::{
    TYPES, both, close,
    delta::{SLOTS, among_others, batches, span},
    flat, on, random,
};
use crate::{Spans, StateSpan, causal_conv_reference, gpu};

#[test]
fn the_convolution_is_its_oracle_wherever_its_input_lies() -> Result<()> {
    for dtype in TYPES {
        for (channels, kernel) in [(1, 4), (7, 2), (12, 4), (600, 4), (21, 3), (5, 33), (5, 35)] {
            for (n, spans) in batches() {
                let what = format!("convolution of {channels} channels, {kernel} taps, {n} tokens");
                let (_, x32) = both(&random(&[n, channels], 1), dtype)?;
                let (weight, state) = (random(&[channels, kernel], 2), random(&[SLOTS, kernel - 1, channels], 3));
                let spans: Spans<StateSpan> = spans.into();
                for (before, behind) in [(0, 0), (4, 8), (3, 2)] {
                    let x = among_others(&x32.to_dtype(dtype)?, (before, behind))?;
                    for held in [dtype, DType::F32] {
                        let (state, state32) = both(&state, held)?;
                        let state = state.copy()?; // f32 on the CPU would be the oracle's own
                        let oracle = causal_conv_reference(&x32, &weight, &state32, &spans)?;
                        let out = gpu::causal_conv(&on(&x)?, &on(&weight)?, &state, &spans)?;
                        assert_eq!(out.dtype(), dtype);
                        close(&out, &oracle, &what);
                        assert_eq!(flat(&state), flat(&state32), "{what}: the state holds inputs as they are");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_convolution_is_the_same_bits_however_it_is_cut() -> Result<()> {
    let (x, weight) = (on(&random(&[71, 12], 1))?, on(&random(&[12, 4], 2))?);
    let whole = on(&random(&[2, 3, 12], 3))?;
    let all = gpu::causal_conv(&x, &weight, &whole, &vec![span(0, 5, 2, 0), span(5, 66, 0, 1)].into())?;
    for len in [1, 2, 3, 4, 7, 40] {
        let carried = on(&random(&[1, 3, 12], 9))?;
        for start in (0..66).step_by(len) {
            let len = len.min(66 - start);
            let x = x.narrow(0, 5 + start, len)?;
            let piece = gpu::causal_conv(&x, &weight, &carried, &vec![span(0, len, start, 0)].into())?;
            assert_eq!(flat(&piece), flat(&all.narrow(0, 5 + start, len)?), "{len} at {start}");
        }
        assert_eq!(flat(&carried), flat(&whole.narrow(0, 1, 1)?), "pieces of {len}");
    }
    Ok(())
}

#[test]
fn a_convolution_is_the_same_bits_wherever_its_input_lies() -> Result<()> {
    let (channels, slots) = (24, 70);
    let weight = random(&[channels, 4], 2);
    let one = |i: usize| span(2 * i + i / 9, 1, i % 3, slots - 1 - i);
    let some = |i: usize| span(7 * i + i / 9, i % 8, i % 3, slots - 1 - i);
    for (n, spans) in [(150, (0..slots).map(one).collect::<Vec<_>>()), (500, (0..slots).map(some).collect())] {
        let spans: Spans<StateSpan> = spans.into();
        // Sums of every size: 0, tiny, ordinary, and so large that the exponential overflows.
        for scale in [0.0, 1e-25, 1.0, 200.0] {
            let gaps = random(&[n, channels], 5).ge(0.8)?.to_dtype(DType::F32)?;
            let x = (random(&[n, channels], 1) * scale)?.broadcast_sub(&(gaps * (scale * 0.5))?)?;
            for dtype in TYPES {
                let (x, x32) = both(&x, dtype)?;
                let (before, state32) = both(&(random(&[slots, 3, channels], 3) * scale)?, dtype)?;
                let state32 = state32.copy()?;
                let oracle = causal_conv_reference(&x32, &weight, &state32, &spans)?;
                let lying = [(0, 0), (4, 8), (3, 2)].map(|columns| {
                    let state = before.copy()?;
                    let out = gpu::causal_conv(&among_others(&x, columns)?, &on(&weight)?, &state, &spans)?;
                    Ok::<_, candle_core::Error>((out, state))
                });
                let [one, two, askew] = lying;
                let ((out, state), (other, other_state), (askew, askew_state)) = (one?, two?, askew?);
                let what = format!("{} spans, inputs of {scale}", spans.len());
                close(&out, &oracle, &what);
                assert_eq!(flat(&state), flat(&state32), "{what}: the state");
                assert_eq!(flat(&out), flat(&other), "{what}: among others");
                assert_eq!(flat(&state), flat(&other_state), "{what}: the state, among others");
                assert_eq!(flat(&out), flat(&askew), "{what}: askew");
                assert_eq!(flat(&state), flat(&askew_state), "{what}: the state, askew");
            }
        }
    }
    Ok(())
}
