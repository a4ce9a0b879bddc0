//! The short causal convolution before a linear-attention layer, with carried state.

use candle_core::{Result, Tensor, bail};

use crate::{
    Level, Shared, Spans, StateSpan,
    activation::{Gate, Silu},
    gpu,
    place::{Place, stored, values},
    room::{Room, for_rows},
    serving::{Serving, serving},
    simd::{self, MAX_LANES, Simd, dispatch},
    state::{check_spans, check_state, idle, update},
};

/// Depthwise causal convolution and SiLU of packed sequences (transformers `Qwen3_5GatedDeltaNet`, `conv1d`).
///
/// `out[t] = silu(Σ_i weight[:, i] x[t - (kernel - 1) + i])`: the last tap applies to the current token.
///
/// # Shapes
/// `x` `[n, channels]` f32, packed; it may be a column range of a fused projection, read in place. `weight`
/// `[channels, kernel]` f32, kernel at least 2. `state` `[slots, kernel - 1, channels]` f32: the last inputs of each slot,
/// oldest first. Result `[n, channels]`, 0 at tokens of no span. The CUDA kernel also takes `x` in bf16 and f16, with the
/// state in that type or in f32; the result has the type of `x`.
///
/// **`state` is changed in place**: every tensor that shares its storage sees the slots of `spans` advance.
///
/// # Errors
/// If the shapes do not fit each other, a span reaches outside the tokens or the slots, two spans name the same slot, or the
/// state is not contiguous or shares its storage with an input. The state is then unchanged.
pub fn causal_conv(x: &Tensor, weight: &Tensor, state: &Tensor, spans: &Spans<StateSpan>) -> Result<Tensor> {
    match serving(x.device()) {
        Serving::Cpu => causal_conv_at(Level::best(), x, weight, state, spans),
        Serving::Gpu => gpu::causal_conv(x, weight, state, spans),
        Serving::Plain => causal_conv_reference(x, weight, state, spans.still("causal_conv")?),
    }
}

/// The oracle of [`causal_conv`] in plain candle ops: a sum over the taps, sequence by sequence.
///
/// # Errors
/// As [`causal_conv`].
pub fn causal_conv_reference(x: &Tensor, weight: &Tensor, state: &Tensor, spans: &[StateSpan]) -> Result<Tensor> {
    let Size { channels, kernel, .. } = Size::of(x, weight, state, spans)?;
    let out = x.contiguous()?.zeros_like()?;
    // For narrower types the CUDA kernel rounds only the result; the state keeps the inputs as they are.
    let wide = weight.dtype();
    for span in spans.iter().filter(|span| span.len > 0) {
        let history = state.get(span.slot)?.to_dtype(wide)?; // [kernel - 1, channels]
        let history = if span.start == 0 { history.zeros_like()? } else { history };
        let rows = Tensor::cat(&[&history, &x.narrow(0, span.first, span.len)?.to_dtype(wide)?], 0)?;
        let mut sum = Tensor::zeros((span.len, channels), wide, x.device())?;
        for tap in 0..kernel {
            let weight = weight.narrow(1, tap, 1)?.t()?; // [1, channels]
            sum = (sum + rows.narrow(0, tap, span.len)?.broadcast_mul(&weight)?)?;
        }
        out.slice_set(&sum.silu()?.to_dtype(x.dtype())?, 0, span.first)?;
        let kept = rows.narrow(0, span.len, kernel - 1)?.to_dtype(state.dtype())?;
        state.slice_set(&kept.unsqueeze(0)?, 0, span.slot)?;
    }
    Ok(out)
}

/// The sizes of a convolution whose arguments were checked to fit each other.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) n: usize,
    pub(crate) channels: usize,
    pub(crate) kernel: usize,
    /// Elements between one token's input and the next.
    stride: usize,
}

impl Size {
    pub(crate) fn of(x: &Tensor, weight: &Tensor, state: &Tensor, spans: &[StateSpan]) -> Result<Self> {
        let ((n, channels), (wide, kernel), (slots, rows, held)) = (x.dims2()?, weight.dims2()?, state.dims3()?);
        if wide != channels || held != channels || kernel < 2 || rows != kernel - 1 {
            let (x, weight, state) = (x.shape(), weight.shape(), state.shape());
            bail!("causal_conv: activations {x:?}, weight {weight:?} and state {state:?} do not fit");
        }
        check_state("causal_conv", state)?;
        check_spans("causal_conv", spans, n, slots)?;
        Ok(Self { n, channels, kernel, stride: x.stride()[0] })
    }
}

const NAME: &str = "causal_conv";
/// Operations per value, used to share work between threads.
const COST: usize = 16;
/// Channels per task: the weights and the rows of a few tokens stay in the L1 cache.
const BLOCK: usize = 256;

fn causal_conv_at(level: Level, x: &Tensor, weight: &Tensor, state: &Tensor, spans: &[StateSpan]) -> Result<Tensor> {
    let size @ Size { n, channels, .. } = Size::of(x, weight, state, spans)?;
    let start = Place::of(NAME, x.layout(), (n, 1, channels))?.at(0, 1);
    let weight = weight.contiguous()?;
    let guards = (x.storage_and_layout(), weight.storage_and_layout());
    let (input, taps) = (stored(NAME, &guards.0)?, values(NAME, &guards.1)?);
    let input = input.get(start..).unwrap_or_default(); // no tokens, no values
    let mut out = Room::new(n * channels);
    let to = out.start();
    update(NAME, state, &[x, &weight], |state| {
        let state = Shared(state.as_mut_ptr());
        let tokens = spans.iter().map(|span| span.len).sum::<usize>();
        for_rows(channels.div_ceil(BLOCK), COST * tokens * BLOCK, |block| {
            let (input, taps) = (input.as_ptr(), taps.as_ptr());
            // SAFETY: the shapes and spans were checked to fit, and each task has its own channels.
            unsafe { convolve(level, size, block * BLOCK, spans, input, taps, state.get(), to.get()) }
        });
    })?;
    for token in idle(spans, n) {
        // SAFETY: the token's row of the result, which no span has written.
        unsafe { to.get().add(token * channels).write_bytes(0, channels) }
    }
    // SAFETY: every token is of a span or idle.
    Tensor::from_vec(unsafe { out.filled() }, (n, channels), x.device())
}

dispatch! {
    /// Processes all spans on the channels of one block, which starts at `from`.
    unsafe fn convolve(
        size: Size, from: usize, spans: &[StateSpan], x: *const f32, weight: *const f32, state: *mut f32, out: *mut f32,
    ) = convolve_generic;
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn convolve_generic<S: Simd>(
    size: Size,
    from: usize,
    spans: &[StateSpan],
    x: *const f32,
    weight: *const f32,
    state: *mut f32,
    out: *mut f32,
) {
    let Size { channels, kernel, stride, .. } = size;
    let count = BLOCK.min(channels - from);
    let held = kernel - 1;
    // SAFETY: rows of `channels` values, those of x `stride` apart; this task reads and writes `count` of them, starting at `from`.
    unsafe {
        // The weights of each tap side by side: [kernel, BLOCK].
        let mut taps = vec![0f32; kernel * BLOCK];
        for c in 0..count {
            for tap in 0..kernel {
                taps[tap * BLOCK + c] = *weight.add((from + c) * kernel + tap);
            }
        }
        let mut rows = vec![std::ptr::null(); kernel];
        for span in spans.iter().filter(|span| span.len > 0) {
            let state = state.add(span.slot * held * channels + from);
            if span.start == 0 {
                for row in 0..held {
                    state.add(row * channels).write_bytes(0, count);
                }
            }
            let x = x.add(span.first * stride + from);
            // The row of a token, counted from the oldest row in the state.
            let row = |i: usize| if i < held { state.add(i * channels) } else { x.add((i - held) * stride).cast_mut() };
            for token in 0..span.len {
                for tap in 0..kernel {
                    rows[tap] = row(token + tap).cast_const();
                }
                one_token::<S>(count, &taps, &rows, out.add((span.first + token) * channels + from));
            }
            for i in 0..held {
                // In ascending order, so that a row of the state is read before it is overwritten.
                state.add(i * channels).copy_from_nonoverlapping(row(i + span.len), count);
            }
        }
    }
}

/// `out = silu(Σ_tap taps[tap] rows[tap])` on `count` channels, one tap at a time.
#[inline(always)]
unsafe fn one_token<S: Simd>(count: usize, taps: &[f32], rows: &[*const f32], out: *mut f32) {
    // SAFETY: whole vectors below `count`, then a partial one; `taps` holds whole vectors.
    unsafe {
        let whole = count - count % S::LANES;
        let mut c = 0;
        while c < whole {
            let mut sum = S::splat(0.0);
            for (tap, row) in rows.iter().enumerate() {
                sum = S::fma(S::load(taps.as_ptr().add(tap * BLOCK + c)), S::load(row.add(c)), sum);
            }
            S::store(out.add(c), Silu::apply::<S>(sum));
            c += S::LANES;
        }
        if c < count {
            let mut sum = S::splat(0.0);
            for (tap, row) in rows.iter().enumerate() {
                let row = simd::load_part::<S>(row.add(c), count - c);
                sum = S::fma(S::load(taps.as_ptr().add(tap * BLOCK + c)), row, sum);
            }
            simd::store_part::<S>(out.add(c), Silu::apply::<S>(sum), count - c);
        }
    }
}

const _: () = assert!(BLOCK.is_multiple_of(MAX_LANES)); // a partial vector is always the last of its block

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bits, values, worst};
    use candle_core::{DType, Device};
    use proptest::prelude::*;

    /// Largest difference from the oracle; values are of order 1. Measured worst case: 7.2e-7 (2026-11-21).
    const TOLERANCE: f32 = 2e-6;

    /// Spans (start, len) end to end, the slots in descending order.
    fn packed(spans: &[(usize, usize)]) -> (usize, Vec<StateSpan>) {
        let mut first = 0;
        let list = spans.iter().enumerate().map(|(i, &(start, len))| {
            first += len;
            StateSpan { first: first - len, len, start, slot: spans.len() - i }
        });
        let list = list.collect();
        (first, list)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_level_is_the_oracle(
            spans in prop::collection::vec((0usize..3, 0usize..9), 1..4), channels in 1usize..600, kernel in 2usize..6,
        ) {
            let (n, list) = packed(&spans);
            let (x, weight) = (values(&[n, channels], 1).unwrap(), values(&[channels, kernel], 2).unwrap());
            let state = || values(&[spans.len() + 2, kernel - 1, channels], 3).unwrap();
            let expected = state();
            let oracle = causal_conv_reference(&x, &weight, &expected, &list).unwrap();
            let columns = Tensor::cat(&[&values(&[n, 3], 9).unwrap(), &x, &x], 1).unwrap().narrow(1, 3, channels).unwrap();
            for (level, x) in Level::available().into_iter().flat_map(|level| [(level, &x), (level, &columns)]) {
                let carried = state();
                let fast = causal_conv_at(level, x, &weight, &carried, &list).unwrap();
                let worst = worst(&fast, &oracle);
                println!("causal_conv {level:?}: {worst:e} of {TOLERANCE:e}");
                prop_assert!(worst < TOLERANCE, "{level:?} {spans:?} channels {channels} kernel {kernel}: {worst:e}");
                prop_assert_eq!(bits(&carried), bits(&expected), "{:?}", level);
            }
        }
    }

    #[test]
    fn a_sequence_is_the_same_bits_however_it_is_cut() -> Result<()> {
        let (n, list) = packed(&[(4, 5), (0, 23)]);
        let (x, weight) = (values(&[n, 300], 1)?, values(&[300, 4], 2)?);
        for level in Level::available() {
            let whole = values(&[3, 3, 300], 3)?;
            let all = causal_conv_at(level, &x, &weight, &whole, &list)?.narrow(0, 5, 23)?;
            for len in [1, 2, 7] {
                let carried = values(&[1, 3, 300], 9)?;
                for start in (0..23).step_by(len) {
                    let len = len.min(23 - start);
                    let piece = [StateSpan { first: 0, len, start, slot: 0 }];
                    let piece = causal_conv_at(level, &x.narrow(0, 5 + start, len)?, &weight, &carried, &piece)?;
                    assert_eq!(bits(&piece), bits(&all.narrow(0, start, len)?), "{level:?} {len} at {start}");
                }
                assert_eq!(bits(&carried), bits(&whole.get(list[1].slot)?), "{level:?} pieces of {len}");
            }
        }
        Ok(())
    }

    /// Candle's own operations widen 16-bit inputs and round the result once; the state keeps its type.
    #[test]
    fn the_oracle_takes_sixteen_bits() -> Result<()> {
        let weight = values(&[6, 4], 2)?;
        let span = [StateSpan { first: 0, len: 5, start: 2, slot: 0 }];
        for dtype in [DType::BF16, DType::F16] {
            let (x, state) = (values(&[5, 6], 1)?.to_dtype(dtype)?, values(&[1, 3, 6], 3)?.to_dtype(dtype)?);
            let expected_state = state.to_dtype(DType::F32)?;
            let expected = causal_conv_reference(&x.to_dtype(DType::F32)?, &weight, &expected_state, &span)?;
            let y = causal_conv_reference(&x, &weight, &state, &span)?;
            assert_eq!((y.dtype(), state.dtype()), (dtype, dtype));
            assert_eq!(bits(&y.to_dtype(DType::F32)?), bits(&expected.to_dtype(dtype)?.to_dtype(DType::F32)?));
            assert_eq!(bits(&state.to_dtype(DType::F32)?), bits(&expected_state));
        }
        Ok(())
    }

    #[test]
    fn the_last_tap_meets_the_current_token() -> Result<()> {
        let x = Tensor::new(&[[1f32], [2.0], [4.0]], &Device::Cpu)?;
        let weight = Tensor::new(&[[100f32, 10.0, 1.0]], &Device::Cpu)?;
        let state = Tensor::new(&[[[7f32], [8.0]]], &Device::Cpu)?;
        let span = |start| [StateSpan { first: 0, len: 3, start, slot: 0 }];
        for (start, expected) in [(2, [781.0, 812.0, 124.0]), (0, [1.0, 12.0, 124.0])] {
            let expected = Tensor::new(&expected.map(|sum: f32| [sum]), &Device::Cpu)?.silu()?.to_vec2::<f32>()?;
            let y = causal_conv(&x, &weight, &state.copy()?, &span(start)[..].into())?.to_vec2::<f32>()?;
            for (y, expected) in y.concat().iter().zip(expected.concat()) {
                assert!((y / expected - 1.0).abs() < TOLERANCE, "start {start}: {y} is not {expected}");
            }
        }
        causal_conv(&x, &weight, &state, &span(2)[..].into())?;
        assert_eq!(state.to_vec3::<f32>()?, [[[2.0], [4.0]]]);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() -> Result<()> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
        let (x, weight, state) = (zeros(&[4, 8])?, zeros(&[8, 4])?, Tensor::ones((2, 3, 8), DType::F32, &Device::Cpu)?);
        let span = |first, len, slot| StateSpan { first, len, start: 0, slot };
        let both = [span(0, 2, 1), span(2, 2, 0)];
        let refused = |state: &Tensor, spans: &[StateSpan], why: &str| {
            let refused =
                [causal_conv(&x, &weight, state, &spans.into()), causal_conv_reference(&x, &weight, state, spans)];
            for refused in refused {
                let error = refused.unwrap_err().to_string();
                assert!(error.contains(why), "'{error}' does not say '{why}'");
            }
        };
        refused(&zeros(&[2, 4, 8])?, &both, "do not fit");
        refused(&state, &[span(0, 2, 2)], "outside 4 tokens or 2 slots");
        refused(&state, &[span(3, 2, 0)], "outside 4 tokens or 2 slots");
        refused(&state, &[span(1, 2, 0), span(0, 1, 1)], "into the span before it");
        refused(&state, &[span(0, 1, 0), span(1, 1, 0)], "slot 0 is continued by two spans");
        refused(&zeros(&[2, 8, 3])?.transpose(1, 2)?, &both, "must be contiguous");
        assert_eq!(state.sum_all()?.to_scalar::<f32>()?, 48.0);
        let own = state.get(0)?;
        let error = causal_conv(&own, &weight, &state, &vec![span(0, 3, 1)].into()).unwrap_err().to_string();
        assert!(error.contains("shares the storage"), "{error}");
        Ok(())
    }
}
