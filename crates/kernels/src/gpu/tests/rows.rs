//! Kernels that work on rows and heads.

use candle_core::{D, DType, Device, Result, Tensor};

use super::{TYPES, both, close, flat, on, random};
use crate::{
    AttentionSpan, HeadSteps, HeadsOf, Join, Norm, Spans, angles_reference, attended_heads_reference,
    gelu_mul_reference, gpu, heads_reference, join_in_steps, rms_norm_reference, silu_mul_reference, softcap_reference,
};

#[test]
fn norms_are_their_oracles() -> Result<()> {
    for dtype in TYPES {
        for (rows, width) in [(1, 1), (3, 7), (5, 64), (2, 576), (7, 1000), (4, 1024), (2, 4096), (2, 6144), (0, 8)] {
            let [x, y, weight] = [(&[rows, width][..], 1), (&[rows, width], 2), (&[width], 3)]
                .map(|(shape, seed)| both(&random(shape, seed), dtype));
            let ((x, x32), (y, y32), (weight, weight32)) = (x?, y?, weight?);
            let what = format!("{rows} x {width}");
            if rows == 0 {
                assert_eq!(gpu::rms_norm(&x, &weight, 1e-5)?.elem_count(), 0);
                continue;
            }
            let oracle = rms_norm_reference(&x32, &weight32, 1e-5)?;
            close(&gpu::rms_norm(&x, &weight, 1e-5)?, &oracle, &format!("norm {what}"));
            let (other, other32) = both(&random(&[width], 4), dtype)?;
            let [norm, norm32] = [&weight, &weight32].map(|weight| Some(Norm { weight, eps: 1e-5 }));
            let [before, before32] = [&other, &other32].map(|weight| Some(Norm { weight, eps: 1e-3 }));
            for (joined, with_before, scale, with_next) in [
                ("sum", false, 1.0, false),
                ("sum and norm", false, 1.0, true),
                ("scaled", false, 0.375, true),
                ("normed, sum", true, 1.0, false),
                ("normed, scaled, normed", true, -1.5, true),
            ] {
                let how = |before, next| Join {
                    before: if with_before { before } else { None },
                    scale,
                    next: if with_next { next } else { None },
                };
                let (stream, normed) = gpu::join(&x, &y, &how(before, norm))?;
                let (stream32, normed32) = join_in_steps(&x32, &y32, &how(before32, norm32))?;
                if !with_before && scale == 1.0 {
                    let sum = stream32.to_dtype(dtype)?;
                    assert_eq!(flat(&stream), flat(&sum), "{what}: the sum is exact, rounded once");
                }
                close(&stream, &stream32, &format!("{joined} {what}"));
                assert_eq!((normed.is_some(), normed32.is_some()), (with_next, with_next));
                if let (Some(normed), Some(_)) = (normed, normed32) {
                    // From the stream as it is held: rounding may be large relative to a small sum.
                    let (_, held) = both(&stream.to_device(&Device::Cpu)?, dtype)?;
                    close(&normed, &rms_norm_reference(&held, &weight32, 1e-5)?, &format!("{joined} {what}, next"));
                }
            }
            // Views that begin inside a pack of 16 bytes are read value by value, to the same result.
            let askew = |x: &Tensor| -> Result<Tensor> {
                let lead = Tensor::zeros(1, x.dtype(), x.device())?;
                Tensor::cat(&[&lead, &x.flatten_all()?], 0)?.narrow(0, 1, x.elem_count())?.reshape(x.shape())
            };
            let how = Join { before: Some(Norm { weight: &other, eps: 1e-3 }), scale: 1.0, next: norm };
            let (stream, normed) = gpu::join(&x, &y, &how)?;
            let weight_askew = askew(&weight)?;
            let next = Some(Norm { weight: &weight_askew, eps: 1e-5 });
            for (x, y, next) in
                [(askew(&x)?, y.clone(), norm), (x.clone(), askew(&y)?, norm), (x.clone(), y.clone(), next)]
            {
                let (found, found_normed) = gpu::join(&x, &y, &Join { next, ..how })?;
                close(&found, &stream.to_dtype(DType::F32)?.to_device(&Device::Cpu)?, &format!("askew {what}"));
                let normed = normed.as_ref().expect("a norm was asked for").to_dtype(DType::F32)?;
                let found_normed = found_normed.expect("a norm was asked for");
                close(&found_normed, &normed.to_device(&Device::Cpu)?, &format!("askew {what}, next"));
            }
            // The same row alone gives the same bits.
            let alone = gpu::rms_norm(&x.narrow(0, rows - 1, 1)?, &weight, 1e-5)?;
            assert_eq!(flat(&alone), flat(&gpu::rms_norm(&x, &weight, 1e-5)?.narrow(0, rows - 1, 1)?));
        }
    }
    Ok(())
}

/// As on the CPU: a row that overflows must not give zeros. f16 cannot hold values that large.
#[test]
fn squares_without_a_finite_sum_are_nan_and_no_zeros() -> Result<()> {
    let nan = |x: &Tensor| flat(x).iter().filter(|x| x.is_nan()).count();
    for dtype in [DType::F32, DType::BF16] {
        for width in [7, 576, 2048, 6144] {
            let rows = random(&[3, width], 1).broadcast_mul(&Tensor::new(&[[1f32], [1e20], [1e15]], &Device::Cpu)?)?;
            let ((x, _), (weight, _)) = (both(&rows, dtype)?, both(&random(&[width], 2), dtype)?);
            let normed = gpu::rms_norm(&x, &weight, 1e-5)?;
            let how = Join { before: None, scale: 1.0, next: Some(Norm { weight: &weight, eps: 1e-5 }) };
            let (_, next) = gpu::join(&x, &x.zeros_like()?, &how)?;
            for normed in [normed, next.expect("a norm was asked for")] {
                assert_eq!((nan(&normed), nan(&normed.narrow(0, 1, 1)?)), (width, width), "{dtype:?} {width}");
            }
        }
        // Heads of any size, and of the sizes that have their own kernel.
        for dim in [20, 64, 128, 256, 512] {
            let loud =
                random(&[2, 3, dim], 1).broadcast_mul(&Tensor::new(&[[[1f32], [1e20], [1.0]]], &Device::Cpu)?)?;
            let ((x, _), (weight, _)) = (both(&loud, dtype)?, both(&random(&[dim], 2), dtype)?);
            let steps = HeadSteps { norm: Some(Norm { weight: &weight, eps: 1e-6 }), angles: None };
            let [z] = gpu::heads([HeadsOf { x: &x, count: 3, dim, steps }])?;
            assert_eq!((nan(&z), nan(&z.narrow(1, 1, 1)?)), (2 * dim, 2 * dim), "{dtype:?} heads of {dim}");
        }
    }
    Ok(())
}

#[test]
fn gated_activations_are_their_oracles() -> Result<()> {
    for dtype in TYPES {
        for (rows, width) in [(1, 1), (3, 7), (2, 64), (3, 1000), (33, 1536), (2051, 8)] {
            let (x, x32) = both(&(random(&[rows, 2 * width], 4) * 6.0)?, dtype)?;
            let what = format!("{rows} x {width}");
            close(&gpu::gate_mul(&x, false)?, &silu_mul_reference(&x32)?, &format!("silu {what}"));
            let gelu = gelu_mul_reference(&x32)?;
            close(&gpu::gate_mul(&x, true)?, &gelu, &format!("gelu {what}"));
            // Gate and up as separate tensors, and among the columns of others.
            let gate = x.narrow(1, 0, width)?.contiguous()?;
            for up in [x.narrow(1, width, width)?, x.narrow(1, width, width)?.contiguous()?] {
                close(&gpu::gelu_mul_with(&gate, &up)?, &gelu, &format!("gelu of two {what}"));
            }
        }
    }
    Ok(())
}

#[test]
fn capped_logits_are_their_oracle() -> Result<()> {
    for count in [1, 3, 4, 1030, 2052] {
        let x = (random(&[count], 1) * 90.0)?;
        for cap in [30.0, 0.5] {
            let oracle = softcap_reference(&x, cap)?;
            let on = on(&x)?;
            close(&gpu::softcap(&on, cap)?, &oracle, &format!("{count} logits, cap {cap}"));
            let behind = on.narrow(0, 1, count - 1)?; // which starts unaligned
            close(&gpu::softcap(&behind, cap)?, &oracle.narrow(0, 1, count - 1)?, "logits behind the first");
        }
    }
    let spoilt = on(&Tensor::new(&[f32::INFINITY, 1.0, f32::NEG_INFINITY, f32::NAN, 2.0], &Device::Cpu)?)?;
    let capped = gpu::softcap(&spoilt, 30.0)?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
    assert!(
        [0, 2, 3].iter().all(|&i: &usize| capped[i].is_nan()) && capped[1] > 0.99 && capped[4] > 1.99,
        "{capped:?}"
    );
    Ok(())
}

#[test]
fn heads_are_their_oracle_wherever_they_lie() -> Result<()> {
    for dtype in TYPES {
        for (heads, dim, rotary) in [
            (1, 2, 2),
            (3, 8, 8),
            (2, 64, 16),
            (9, 64, 64),
            (3, 64, 48),
            (3, 128, 128),
            (5, 128, 32),
            (2, 128, 4),
            (2, 256, 64),
            (1, 256, 192), // three rows apart
            (3, 256, 256),
            (1, 512, 256),
            (2, 512, 512),
            (1, 512, 128),
        ] {
            let (n, width) = (5, heads * dim + 24);
            let (fused, fused32) = both(&random(&[n, width], 5), dtype)?;
            let (weight, weight32) = both(&random(&[dim], 6), dtype)?;
            let ((cos, cos32), (sin, sin32)) =
                (both(&random(&[n, rotary / 2], 7), dtype)?, both(&random(&[n, rotary / 2], 8), dtype)?);
            // A column range of a fused projection, after other columns.
            let columns = |t: &Tensor| t.narrow(D::Minus1, 16, heads * dim);
            let (x, x32) = (columns(&fused)?, columns(&fused32)?);
            // The same with unaligned words, which f32 cannot have.
            let askew = on(&Tensor::cat(&[&fused32, &fused32.narrow(1, 0, 1)?], 1)?.to_dtype(dtype)?)?;
            let askew = columns(&askew)?;
            for (norm, turn) in [(false, false), (true, false), (false, true), (true, true)] {
                let steps = HeadSteps {
                    norm: norm.then_some(Norm { weight: &weight, eps: 1e-6 }),
                    angles: turn.then_some((&cos, &sin)),
                };
                let oracle = HeadSteps {
                    norm: norm.then_some(Norm { weight: &weight32, eps: 1e-6 }),
                    angles: turn.then_some((&cos32, &sin32)),
                };
                let what = format!("{heads} heads of {dim}, norm {norm}, turned {turn}");
                let view = HeadsOf { x: &x, count: heads, dim, steps };
                let view32 = HeadsOf { x: &x32, count: heads, dim, steps: oracle };
                let [own] = gpu::heads([view])?;
                close(&own, &heads_reference(view32)?, &what);
                let [other] = gpu::heads([HeadsOf { x: &askew, ..view }])?;
                assert_eq!(flat(&other), flat(&own), "{what}: wherever words begin");
                // Two kinds at once, the second without steps; then what attention needs: more query heads than key and value heads, of two
                // sequences with a token of no span between them.
                let bare = |view| HeadsOf { steps: HeadSteps::default(), ..view };
                let [one, two] = gpu::heads([view, bare(view)])?;
                assert_eq!(flat(&one), flat(&own), "{what}: alone and beside others");
                close(&two, &heads_reference(bare(view32))?, &format!("{what}, beside others"));
                let spans: Spans<AttentionSpan> = vec![
                    AttentionSpan { first: 0, len: 3, start: 2, cache: 9 },
                    AttentionSpan { first: 4, len: 1, start: 7, cache: 0 },
                ]
                .into();
                let queries = Tensor::cat(&[&x, &x], 1)?;
                let more = HeadsOf { x: &queries, count: 2 * heads, ..view };
                let caches = || {
                    Ok::<_, candle_core::Error>((
                        both(&random(&[20, heads, dim], 9), dtype)?,
                        both(&random(&[20, heads, dim], 3), dtype)?,
                    ))
                };
                let ((keys, keys32), (values, values32)) = caches()?;
                let (keys, values) = (keys.copy()?, values.copy()?); // f32 on the CPU would be the oracle's own
                let q = gpu::attended_heads(more, view, bare(view), (&keys, &values), &spans)?;
                assert_eq!(flat(&q.narrow(1, 0, heads)?), flat(&own), "{what}: queries");
                assert_eq!(flat(&q.narrow(1, heads, heads)?), flat(&own), "{what}: more queries");
                attended_heads_reference(view32, view32, bare(view32), (&keys32, &values32), &spans)?;
                close(&keys, &keys32, &format!("{what}, keys"));
                close(&values, &values32, &format!("{what}, values"));
            }
        }
    }
    Ok(())
}

#[test]
fn a_token_goes_where_its_span_says_however_many_there_are() -> Result<()> {
    let one = |i: usize| AttentionSpan { first: i, len: 1, start: i % 3, cache: 4 * i };
    let two = |i: usize| AttentionSpan { first: 2 * i + i / 7, len: 2, start: 0, cache: 4 * i };
    // Spans between those have no tokens, and begin where the next does.
    let some = |i: usize| AttentionSpan { first: i / 3 * 2, len: i % 3 / 2, start: i % 2, cache: 4 * i };
    for (n, list) in [
        (70, (0..70).map(one).collect::<Vec<_>>()),
        (3, vec![]),
        (4, vec![AttentionSpan { first: 2, len: 1, start: 1, cache: 2 }]),
        (90, (0..40).map(two).collect()),
        (65, (0..33).map(|i| AttentionSpan { first: i + 32, ..one(i) }).collect()),
        (80, (0..105).map(some).collect()),
        (2100, (0..1050).map(|i| AttentionSpan { first: 2 * i, ..one(i) }).collect()),
    ] {
        let (x, rows) = (random(&[n, 64], 1), 4 * list.len().max(1));
        let (mine, before) = (on(&x)?, random(&[rows, 1, 64], 2));
        let spans = list.into();
        let view = |x| HeadsOf { x, count: 1, dim: 64, steps: HeadSteps::default() };
        let (keys, expected) = (on(&before)?.copy()?, before.copy()?);
        let (values, other) = (on(&before)?.copy()?, before.copy()?);
        let (mine, theirs) = (view(&mine), view(&x));
        gpu::attended_heads(mine, mine, mine, (&keys, &values), &spans)?;
        attended_heads_reference(theirs, theirs, theirs, (&expected, &other), &spans)?;
        assert_eq!(flat(&keys), flat(&expected), "{} spans of {n} tokens", spans.len());
        assert_eq!(flat(&values), flat(&other), "{} spans of {n} tokens", spans.len());
        // One value at a time.
        let narrow = |t: &Tensor| t.narrow(D::Minus1, 0, 63)?.contiguous();
        let (few, before) = (narrow(&x)?, narrow(&before)?);
        let view = |x| HeadsOf { x, count: 1, dim: 63, steps: HeadSteps::default() };
        let (keys, values, few) = (on(&before)?.copy()?, on(&before)?.copy()?, on(&few)?);
        gpu::attended_heads(view(&few), view(&few), view(&few), (&keys, &values), &spans)?;
        assert_eq!(flat(&keys), flat(&narrow(&expected)?), "{} spans of {n} tokens, narrow", spans.len());
    }
    Ok(())
}

#[test]
fn heads_are_the_same_bits_in_few_tokens_and_in_many() -> Result<()> {
    // So many heads that warps take several, one after another.
    let (n, few, queries, heads, dim) = (1100, 3, 9, 3, 64);
    for dtype in TYPES {
        let x = on(&random(&[n, (queries + 2 * heads) * dim], 1).to_dtype(dtype)?)?;
        let weight = on(&random(&[dim], 2).to_dtype(dtype)?)?;
        let angles = on(&random(&[n, dim / 2], 3).to_dtype(dtype)?)?;
        let attended = |first: usize, len: usize| {
            let (x, angles) = (x.narrow(0, first, len)?, angles.narrow(0, first, len)?);
            let part = |from: usize, count: usize| x.narrow(1, from * dim, count * dim);
            let (q, k, v) = (part(0, queries)?, part(queries, heads)?, part(queries + heads, heads)?);
            let steps = HeadSteps { norm: Some(Norm { weight: &weight, eps: 1e-6 }), angles: Some((&angles, &angles)) };
            let view = |x, count, steps| HeadsOf { x, count, dim, steps };
            let cache = || on(&random(&[len, heads, dim], 4).to_dtype(dtype)?)?.copy();
            let (keys, values) = (cache()?, cache()?);
            let spans = vec![AttentionSpan { first: 0, len, start: 0, cache: 0 }].into();
            let (k, v) = (view(&k, heads, steps), view(&v, heads, HeadSteps::default()));
            let q = gpu::attended_heads(view(&q, queries, steps), k, v, (&keys, &values), &spans)?;
            Ok::<_, candle_core::Error>([q, keys, values])
        };
        let all = attended(0, n)?;
        for first in [0, 517, n - few] {
            for (some, all) in attended(first, few)?.iter().zip(&all) {
                assert_eq!(flat(some), flat(&all.narrow(0, first, few)?), "{dtype:?}, tokens from {first}");
            }
        }
    }
    Ok(())
}

#[test]
fn angles_are_their_oracle_as_far_as_contexts_reach() -> Result<()> {
    for dtype in TYPES {
        for (positions, half) in [(vec![0u32, 1, 5, 300, 40_959, 262_143], 32), (vec![7], 1), (vec![], 4)] {
            let n = positions.len();
            let positions = Tensor::from_vec(positions, n, &Device::Cpu)?;
            let frequencies: Vec<f32> = (0..half).map(|i| 1e6f32.powf(-(i as f32) / half as f32)).collect();
            let frequencies = Tensor::from_vec(frequencies, half, &Device::Cpu)?;
            let (cos, sin) = gpu::angles(&on(&positions)?, &on(&frequencies)?, dtype)?;
            assert_eq!((cos.dtype(), sin.dims()), (dtype, &[n, half][..]));
            if n > 0 {
                let (cos32, sin32) = angles_reference(&positions, &frequencies, DType::F32)?;
                close(&cos, &cos32, "cosines");
                close(&sin, &sin32, "sines");
            }
        }
    }
    let (positions, other) = (on(&random(&[3], 1))?, on(&random(&[4], 2))?);
    let error = gpu::angles(&positions, &other, DType::F32).unwrap_err().to_string();
    assert!(error.contains("positions are u32"), "{error}");
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let (x, weight) = (on(&random(&[2, 8], 1))?, on(&random(&[7], 2))?);
    let error = gpu::rms_norm(&x, &weight, 1e-6).unwrap_err().to_string();
    assert!(error.contains("rows of 8 and a weight [7] do not fit"), "{error}");
    let other = on(&random(&[8], 2).to_dtype(DType::BF16)?)?;
    let error = gpu::rms_norm(&x, &other, 1e-6).unwrap_err().to_string();
    assert!(error.contains("F32") && error.contains("BF16"), "{error}");
    let error = gpu::gate_mul(&x.narrow(1, 0, 7)?, false).unwrap_err().to_string();
    assert!(error.contains("even width, not 7"), "{error}");
    let spans: Spans<AttentionSpan> = vec![AttentionSpan { first: 0, len: 2, start: 3, cache: 0 }].into();
    let (view, cache) = (HeadsOf { x: &x, count: 1, dim: 8, steps: HeadSteps::default() }, on(&random(&[4, 1, 8], 1))?);
    let error = gpu::attended_heads(view, view, view, (&cache, &cache), &spans).unwrap_err();
    assert!(error.to_string().contains("reaches outside 2 tokens or 4 cache rows"), "{error}");
    let (own, others) = (on(&random(&[2, 3], 1))?, on(&random(&[2, 3], 1))?);
    let turned = |angles| HeadsOf { steps: HeadSteps { norm: None, angles: Some((angles, angles)) }, ..view };
    let error = gpu::heads([turned(&own), turned(&others)]).unwrap_err().to_string();
    assert!(error.contains("turned by other angles"), "{error}");
    let narrower = HeadsOf { count: 2, dim: 4, ..view };
    let error = gpu::heads([view, narrower]).unwrap_err().to_string();
    assert!(error.contains("2 heads of 4 beside others of 8"), "{error}");
    Ok(())
}
