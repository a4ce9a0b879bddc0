//! The rule of a delta net, and its gates and norm.

use candle_core::{D, DType, Device, Result, Tensor};

use super::{TYPES, both, close, flat, on, random};
use crate::{
    Spans, StateSpan, add_reference, delta_gates_reference, delta_rule_reference, gated_norm_reference, gpu,
    sigmoid_gate_reference, testing::worst_relative,
};

pub(super) fn span(first: usize, len: usize, start: usize, slot: usize) -> StateSpan {
    StateSpan { first, len, start, slot }
}

/// The columns of a tensor within a wider one that is NaN elsewhere.
pub(super) fn among_others(x: &Tensor, (before, behind): (usize, usize)) -> Result<Tensor> {
    let x = x.to_device(&Device::Cpu)?;
    let (n, width) = x.dims2()?;
    let other = |width| Tensor::full(f32::NAN, (n, width), x.device())?.to_dtype(x.dtype());
    on(&Tensor::cat(&[&other(before)?, &x, &other(behind)?], 1)?)?.narrow(1, before, width)
}

fn normalised(x: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
}

/// Ragged batches: tokens, and spans with gaps before, between and after them; each slot below `SLOTS`.
pub(super) fn batches() -> Vec<(usize, Vec<StateSpan>)> {
    vec![
        (3, vec![span(0, 1, 4, 5), span(1, 1, 0, 0), span(2, 1, 9, 3)]),
        (11, vec![span(1, 2, 3, 2), span(3, 0, 5, 1), span(4, 3, 0, 4), span(9, 1, 7, 0)]),
        (101, vec![span(35, 33, 2, 1), span(68, 1, 0, 2), span(69, 2, 1, 3), span(71, 30, 0, 5)]),
        (40, vec![]),
        (70, vec![span(0, 70, 1, 2)]),
        // At most one token each: more spans than a block takes, tokens of no span, and some idle spans.
        (
            9,
            vec![
                span(1, 1, 4, 5),
                span(2, 0, 3, 1),
                span(2, 1, 0, 0),
                span(5, 1, 2, 3),
                span(6, 1, 7, 2),
                span(7, 0, 0, 4),
            ],
        ),
        (2, vec![span(0, 0, 2, 1)]),
    ]
}
pub(super) const SLOTS: usize = 6;

/// (key heads, value heads, dk, dv)
pub(super) type Dims = (usize, usize, usize, usize);

/// q, k, v, g and beta of `n` tokens; the logarithms of the decays reach down to `-strength`.
fn inputs(n: usize, (key_heads, value_heads, dk, dv): Dims, strength: f64) -> Result<[Tensor; 5]> {
    let q = (normalised(&random(&[n, key_heads, dk], 1))? / (dk as f64).sqrt())?;
    let k = normalised(&random(&[n, key_heads, dk], 2))?;
    // Cubed, so that strong and weak decays alternate.
    let g = random(&[n, value_heads], 4).affine(-0.5, -0.5)?.powf(3.0)?.affine(strength, 0.0)?;
    let beta = random(&[n, value_heads], 5).affine(0.5, 0.5)?;
    Ok([q, k, random(&[n, value_heads, dv], 3), g, beta])
}

/// The inputs on the device, with q, k and v in the type; and the same in f32 for the oracle.
fn prepared([q, k, v, g, beta]: &[Tensor; 5], dtype: DType) -> Result<([Tensor; 5], [Tensor; 5])> {
    let ((q, q32), (k, k32), (v, v32)) = (both(q, dtype)?, both(k, dtype)?, both(v, dtype)?);
    Ok(([q, k, v, on(g)?, on(beta)?], [q32, k32, v32, g.clone(), beta.clone()]))
}

fn oracle([q, k, v, g, beta]: &[Tensor; 5], state: &Tensor, spans: &[StateSpan]) -> Result<Tensor> {
    delta_rule_reference(q, k, v, g, beta, state, spans)
}

/// Compares with the oracle, with all slots from one carried state; slots of no span must stay unchanged.
fn check(inputs: &[Tensor; 5], dims: Dims, spans: Vec<StateSpan>, dtype: DType, what: &str) -> Result<()> {
    let (_, value_heads, dk, dv) = dims;
    let (n, spans) = (inputs[0].dim(0)?, Spans::from(spans));
    let (mine, theirs) = prepared(inputs, dtype)?;
    let before = random(&[SLOTS, value_heads, dk, dv], 6);
    let (state32, width) = (before.copy()?, value_heads * dv);
    let expected = oracle(&theirs, &state32, &spans)?;
    let lying = among_others(&mine[2].reshape((n, width))?, (4, 4))?;
    let askew = among_others(&mine[2].reshape((n, width))?, (3, 2))?;
    let mut first = None;
    for v in [&mine[2], &lying, &askew] {
        let state = on(&before)?.copy()?;
        let out = gpu::delta_rule([&mine[0], &mine[1], v, &mine[3], &mine[4]], &state, &spans)?;
        close(&out, &expected, &format!("delta rule {dims:?} {what}, {n} tokens"));
        close(&state, &state32, &format!("state of {dims:?} {what}, {n} tokens"));
        for slot in (0..SLOTS).filter(|slot| spans.iter().all(|span| span.len == 0 || span.slot != *slot)) {
            assert_eq!(flat(&state.get(slot)?), flat(&before.get(slot)?), "slot {slot} is of no span");
        }
        // Wide and narrow loads give the same bits.
        let bits = (flat(&out), flat(&state));
        assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{what}: bits depend on where the values lie");
    }
    Ok(())
}

#[test]
fn the_delta_rule_is_its_oracle_on_ragged_batches() -> Result<()> {
    for dtype in TYPES {
        for dims in [(2, 4, 16, 24), (3, 3, 21, 7), (1, 2, 5, 1), (1, 1, 128, 20), (1, 2, 32, 68), (2, 2, 60, 12)] {
            for (n, spans) in batches() {
                check(&inputs(n, dims, 1.0)?, dims, spans, dtype, "ragged")?;
            }
        }
        // Long keys, and keys too long for all kernels.
        for dims in [(1, 1, 256, 12), (1, 2, 200, 9), (1, 1, 131, 8), (1, 2, 260, 4)] {
            let (n, spans) = batches().swap_remove(1);
            check(&inputs(n, dims, 1.0)?, dims, spans, dtype, "long keys")?;
        }
        let dims = (2, 2, 128, 128);
        check(&inputs(5, dims, 1.0)?, dims, vec![span(0, 1, 3, 1), span(2, 3, 0, 0)], dtype, "as in Qwen3.5")?;
    }
    Ok(())
}

#[test]
fn strong_decays_and_repeated_keys_are_the_same_rule() -> Result<()> {
    for dims @ (key_heads, value_heads, dk, _) in [(1, 2, 16, 8), (1, 1, 128, 16)] {
        for len in [64, 130] {
            let spans = || vec![span(0, len, 9, 2)];
            for strength in [0.01, 50.0] {
                check(&inputs(len, dims, strength)?, dims, spans(), DType::F32, &format!("decay {strength}"))?;
            }
            let [q, _, v, g, _] = inputs(len, dims, 0.01)?;
            let k = normalised(&random(&[1, key_heads, dk], 2))?.repeat((len, 1, 1))?;
            let beta = Tensor::ones((len, value_heads), DType::F32, v.device())?;
            check(&[q, k, v, g, beta], dims, spans(), DType::F32, "one key")?;
        }
    }
    Ok(())
}

/// Largest difference between states written in chunks and the oracle's, relative to max(1, |y|): a product's values are passed
/// as two values of the type each, 16 bits in bf16 and 22 in f16. Measured worst case: 7.9e-6, in the emulation, which
/// rounds a product's sum once.
const CHUNKED: f32 = 5e-5;

/// The same between outputs, which are rounded once more. Measured worst cases in the emulation: 4.9e-4 in bf16, 6.2e-5
/// in f16 (2026-11-29).
fn chunked_out(dtype: DType) -> f32 {
    if dtype == DType::BF16 { 2e-3 } else { 2e-4 }
}

#[test]
fn long_sequences_in_chunks_are_the_same_rule() -> Result<()> {
    let long = |lens: &[usize]| {
        let mut first = 0;
        let span_of = |(slot, &len): (usize, &usize)| {
            first += len + slot % 2; // and a token of no span, now and then
            span(first - len, len, [0, 5][slot % 2], SLOTS - 1 - slot)
        };
        let spans: Vec<StateSpan> = lens.iter().enumerate().map(span_of).collect();
        (first + 2, spans)
    };
    for dtype in [DType::BF16, DType::F16] {
        for (dims @ (key_heads, value_heads, dk, dv), lens) in [
            ((2, 4, 128, 64), &[64][..]),
            ((1, 1, 128, 64), &[65, 128, 1, 31]),
            ((1, 1, 128, 192), &[32]),
            ((2, 2, 128, 128), &[33, 5, 70]),
        ] {
            let mut others = 0;
            for (strength, one_key) in
                [(0.0, false), (0.05, false), (1.0, false), (50.0, false), (0.0, true), (300.0, true)]
            {
                let (n, spans) = long(lens);
                let mut inputs = inputs(n, dims, strength)?;
                if one_key {
                    // One key, seen again and again with beta 1: what was written is always taken back.
                    inputs[1] = normalised(&random(&[1, key_heads, dk], 2))?.repeat((n, 1, 1))?;
                    inputs[4] = Tensor::ones((n, value_heads), DType::F32, inputs[2].device())?;
                }
                if strength > 100.0 {
                    // Nearly everything is forgotten at first and nothing afterwards: differences of large sums.
                    let g = |i: usize| if i / value_heads % 64 < 30 { -150f32 } else { -0.003 };
                    let g = (0..n * value_heads).map(g).collect::<Vec<_>>();
                    inputs[3] = Tensor::from_vec(g, (n, value_heads), inputs[2].device())?;
                }
                let (mine, theirs) = prepared(&inputs, dtype)?;
                let before = random(&[SLOTS, value_heads, dk, dv], 6);
                let (state, state32) = (on(&before)?.copy()?, before.copy()?);
                let expected = oracle(&theirs, &state32, &spans)?;
                // Values are a column range of a projection.
                let v = among_others(&mine[2].reshape((n, value_heads * dv))?, (8, 16))?;
                let spans = Spans::from(spans);
                let out = gpu::delta_rule([&mine[0], &mine[1], &v, &mine[3], &mine[4]], &state, &spans)?;
                let what = format!("{dims:?} of {lens:?}, one key {one_key}, decay {strength}");
                let off = worst_relative(&out, &expected);
                println!("out in chunks {what} {dtype:?}: {off:e} of {:e}", chunked_out(dtype));
                assert!(off <= chunked_out(dtype), "{what} {dtype:?}: {off:e}");
                let off = worst_relative(&state, &state32);
                println!("state in chunks {what} {dtype:?}: {off:e} of {CHUNKED:e}");
                assert!(off <= CHUNKED, "{what} {dtype:?}: {off:e}");
                // Alone it gives the same bits, and nearly the same where it cannot go in chunks.
                let StateSpan { first, len, start, slot } = spans[0];
                let [q, k, v, g, beta] = mine.each_ref().map(|t| t.narrow(0, first, len));
                let (q, k, v, g, beta) = (q?, k?, v?, g?, beta?);
                let (own, own_spans) = (on(&before)?.copy()?, vec![span(0, len, start, slot)].into());
                let alone = gpu::delta_rule([&q, &k, &v, &g, &beta], &own, &own_spans)?;
                assert_eq!(flat(&alone), flat(&out.narrow(0, first, len)?), "{what}: alone");
                assert_eq!(flat(&own.get(slot)?), flat(&state.get(slot)?), "{what}: alone");
                let (askew, steps) =
                    (among_others(&v.reshape((len, value_heads * dv))?, (3, 2))?, on(&before)?.copy()?);
                gpu::delta_rule([&q, &k, &askew, &g, &beta], &steps, &own_spans)?;
                let off = worst_relative(&steps.get(slot)?, &state.get(slot)?);
                assert!(off <= CHUNKED, "{what} {dtype:?}, token by token: {off:e}");
                others += usize::from(flat(&steps.get(slot)?) != flat(&state.get(slot)?));
            }
            assert!(others > 0, "{dims:?} {dtype:?}: not one sequence went in chunks");
        }
    }
    Ok(())
}

#[test]
fn a_sequence_is_the_same_bits_in_any_batch_and_however_it_is_cut() -> Result<()> {
    for (dims, dtype) in [((2, 4, 16, 24), DType::F32), ((1, 2, 37, 9), DType::BF16), ((1, 1, 128, 32), DType::F16)] {
        let (_, value_heads, dk, dv) = dims;
        let states = |slots| on(&random(&[slots, value_heads, dk, dv], 6));
        let (packed, _) = prepared(&inputs(40, dims, 1.0)?, dtype)?;
        let whole = states(3)?;
        let spans = vec![span(0, 6, 4, 2), span(6, 31, 0, 0), span(37, 3, 0, 1)];
        let all = gpu::delta_rule(packed.each_ref(), &whole, &spans.into())?.narrow(0, 6, 31)?;
        for len in [1, 2, 5, 31] {
            let carried = states(2)?;
            for start in (0..31).step_by(len) {
                let len = len.min(31 - start);
                let [q, k, v, g, beta] = packed.each_ref().map(|t| t.narrow(0, 6 + start, len));
                let inputs = [&q?, &k?, &v?, &g?, &beta?];
                let piece = gpu::delta_rule(inputs, &carried, &vec![span(0, len, start, 1)].into())?;
                assert_eq!(flat(&piece), flat(&all.narrow(0, start, len)?), "{dims:?} {len} at {start}");
            }
            assert_eq!(flat(&carried.get(1)?), flat(&whole.get(0)?), "{dims:?} pieces of {len}");
        }
    }
    Ok(())
}

#[test]
fn a_step_is_the_same_bits_alone_and_among_many() -> Result<()> {
    let dims @ (_, value_heads, dk, dv) = (4, 8, 16, 72);
    let (packed, oracles) = prepared(&inputs(33, dims, 1.0)?, DType::F32)?;
    let before = random(&[33, value_heads, dk, dv], 6);
    let spans = (0..33).map(|i| span(i, 1, i, 32 - i)).collect::<Vec<_>>();
    let (many, state32) = (on(&before)?.copy()?, before.copy()?);
    let all = gpu::delta_rule(packed.each_ref(), &many, &spans[..].into())?;
    close(&all, &oracle(&oracles, &state32, &spans)?, "a step of many");
    close(&many, &state32, "states after a step of many");
    for i in [0, 1, 32] {
        let state = on(&before)?.copy()?;
        let [q, k, v, g, beta] = packed.each_ref().map(|t| t.narrow(0, i, 1));
        let alone = vec![span(0, 1, i, 32 - i)].into();
        let alone = gpu::delta_rule([&q?, &k?, &v?, &g?, &beta?], &state, &alone)?;
        assert_eq!(flat(&alone), flat(&all.narrow(0, i, 1)?), "token {i}");
        assert_eq!(flat(&state.get(32 - i)?), flat(&many.get(32 - i)?), "slot of token {i}");
    }
    Ok(())
}

#[test]
fn gates_of_the_rule_are_their_oracle() -> Result<()> {
    for dtype in TYPES {
        for (n, heads) in [(1, 1), (3, 5), (40, 16), (0, 2)] {
            let (decay, bias) = ((random(&[heads], 3).abs()? * -8.0)?, (random(&[heads], 4) * 40.0)?);
            let (b, b32) = both(&(random(&[n, heads], 1) * 50.0)?, dtype)?;
            let (a, a32) = both(&(random(&[n, heads], 2) * 50.0)?, dtype)?;
            let oracle = delta_gates_reference(&b32, &a32, &decay, &bias)?;
            let both = [among_others(&b, (3, 1))?, among_others(&a, (1, 6))?];
            let gates = gpu::delta_gates(&both[0], &both[1], &on(&decay)?, &on(&bias)?)?;
            assert_eq!((gates.0.dtype(), gates.1.dtype()), (DType::F32, DType::F32));
            if n > 0 {
                close(&gates.0, &oracle.0, "beta");
                close(&gates.1, &oracle.1, "g");
            }
        }
    }
    Ok(())
}

#[test]
fn output_gates_are_their_oracles_wherever_they_lie() -> Result<()> {
    for dtype in TYPES {
        for (n, heads, dim) in [(1, 1, 1), (3, 3, 8), (2, 3, 7), (5, 2, 128), (2, 2, 200), (2, 1, 258)] {
            let (x, x32) = both(&random(&[n, heads, dim], 1), dtype)?;
            let (gate, gate32) = both(&(random(&[n, heads * dim], 2) * 6.0)?, dtype)?;
            let weight = random(&[dim], 3);
            let lambda = random(&[n, heads], 4);
            let what = format!("{n} x {heads} heads of {dim}");
            // As columns of a fused projection, and next to others in every head.
            let paired = Tensor::cat(&[&x, &gate.reshape((n, heads, dim))?], D::Minus1)?;
            let views = [
                (x.clone(), gate.clone()),
                (x.clone(), among_others(&gate, (4, 8))?),
                (x.clone(), among_others(&gate, (1, 0))?),
                (paired.narrow(2, 0, dim)?, paired.narrow(2, dim, dim)?),
            ];
            let on_weight = on(&weight)?;
            let norm = |x: &Tensor, gate: &Tensor, lambda: Option<&Tensor>| {
                gpu::gated_norm(x, gate, &on_weight, 1e-6, lambda.map(on).transpose()?.as_ref())
            };
            for (x, gate) in &views {
                let gated = sigmoid_gate_reference(&x32, &gate32)?;
                close(&gpu::sigmoid_gate(x, gate)?, &gated, &format!("sigmoid gate {what}"));
                for lambda in [None, Some(&lambda)] {
                    let oracle = gated_norm_reference(&x32, &gate32, &weight, 1e-6, lambda)?;
                    close(&norm(x, gate, lambda)?, &oracle, &format!("gated norm {what}"));
                }
                let (plain, one) = (norm(x, gate, None)?, norm(x, gate, Some(&lambda.ones_like()?))?);
                assert_eq!(flat(&plain), flat(&one), "{what}: λ = 1 is no λ");
                assert_eq!(flat(&plain), flat(&norm(&views[0].0, &views[0].1, None)?), "{what}");
                assert!(flat(&norm(x, gate, Some(&lambda.zeros_like()?))?).iter().all(|&z| z == 0.0), "{what}");
                let last = |t: &Tensor| t.narrow(0, n - 1, 1);
                assert_eq!(flat(&norm(&last(x)?, &last(gate)?, None)?), flat(&last(&plain)?), "{what}: a row alone");
            }
        }
    }
    Ok(())
}

#[test]
fn sums_are_exact_and_rounded_once() -> Result<()> {
    for dtype in TYPES {
        for count in [1, 6, 64, 1028, 3001] {
            let (x, x32) = both(&random(&[count], 1), dtype)?;
            let (y, y32) = both(&random(&[count], 2), dtype)?;
            let oracle = add_reference(&x32, &y32)?.to_dtype(dtype)?;
            assert_eq!(flat(&gpu::add(&x, &y)?), flat(&oracle), "{count}");
            let behind = |t: &Tensor| t.narrow(0, 1, count - 1);
            assert_eq!(flat(&gpu::add(&behind(&x)?, &behind(&y)?)?), flat(&behind(&oracle)?), "{count}, askew");
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() -> Result<()> {
    let dims = (1, 2, 8, 4);
    let (mine, _) = prepared(&inputs(4, dims, 1.0)?, DType::F32)?;
    let state = on(&random(&[2, 2, 8, 4], 6))?;
    let before = flat(&state);
    let says = |refused: Result<Tensor>, why: &str| {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(why), "'{error}' does not say '{why}'");
    };
    let rule = |inputs: [&Tensor; 5], spans: Vec<StateSpan>| gpu::delta_rule(inputs, &state, &spans.into());
    let [q, k, v, g, beta] = mine.each_ref();
    says(rule([q, k, v, g, v], vec![]), "do not fit");
    says(rule([q, k, v, g, beta], vec![span(0, 5, 0, 0)]), "outside 4 tokens or 2 slots");
    says(rule([q, k, v, g, beta], vec![span(0, 1, 0, 0), span(1, 1, 0, 0)]), "continued by two spans");
    says(rule([q, k, &v.to_dtype(DType::BF16)?, g, beta], vec![]), "BF16");
    says(rule([q, k, v, &g.to_dtype(DType::BF16)?, beta], vec![]), "the state are f32");
    let own = state.get(0)?.reshape((4, 4, 4))?.narrow(1, 0, 2)?;
    says(rule([q, k, &own, g, beta], vec![span(0, 1, 0, 0)]), "shares the storage");
    assert_eq!(flat(&state), before);
    let (x, weight) = (on(&random(&[4, 8], 1))?, on(&random(&[8, 4], 2))?);
    let held = on(&random(&[2, 3, 8], 3))?;
    let conv = |x: &Tensor, state: &Tensor, spans: Vec<StateSpan>| gpu::causal_conv(x, &weight, state, &spans.into());
    says(conv(&x, &held.narrow(1, 0, 2)?, vec![]), "do not fit");
    says(conv(&x, &held, vec![span(2, 3, 0, 0)]), "outside 4 tokens or 2 slots");
    says(conv(&x, &held.to_dtype(DType::BF16)?, vec![]), "it is f32 or as they are");
    says(conv(&held.get(0)?, &held, vec![span(0, 1, 0, 0)]), "shares the storage");
    says(gpu::add(&x, &weight), "differ");
    says(gpu::gated_norm(q, v, &x.get(0)?, 1e-6, None), "gated_norm: needs [4, 1, 8]");
    Ok(())
}
