//! Attention against its oracle: windows, groups, λ, odd shapes, a row alone and in a batch.

use super::*;
use crate::testing::{values, worst};
use candle_core::Device;
use proptest::prelude::*;

/// Largest difference from the oracle; values are of order 1. Measured worst case: 2.4e-6 (2026-11-21).
const TOLERANCE: f32 = 1e-5;

/// Packed queries for spans (start, len), with their caches end to end.
fn inputs(
    spans: &[(usize, usize)],
    heads: usize,
    kv: usize,
    dim: usize,
) -> Result<(Tensor, Tensor, Tensor, Vec<AttentionSpan>)> {
    let (mut first, mut cache, mut list) = (0, 0, Vec::new());
    for &(start, len) in spans {
        list.push(AttentionSpan { first, len, start, cache });
        first += len;
        cache += start + len;
    }
    let make = |rows, heads, seed| values(&[rows, heads, dim], seed)? * 2.0;
    Ok((make(first, heads, 3)?, make(cache, kv, 5)?, make(cache, kv, 11)?, list))
}

fn at(
    level: Level,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    spans: &[AttentionSpan],
    window: Option<usize>,
) -> Result<Tensor> {
    q.apply_op3_no_bwd(k, v, &Attend { spans, scale: 0.3, window, lambda: None, level })
}

fn tempered(
    level: Level,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    spans: &[AttentionSpan],
    lambda: &[f32],
) -> Result<Vec<f32>> {
    let op = Attend { spans, scale: 0.3, window: Some(9), lambda: Some(lambda), level };
    q.apply_op3_no_bwd(k, v, &op)?.flatten_all()?.to_vec1()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_level_is_the_oracle(
        spans in prop::collection::vec((0usize..40, 1usize..20), 1..4), kv in 1usize..3, group in 1usize..4, dim in 1usize..40,
        window in prop::option::of(1usize..50),
    ) {
        let (q, k, v, list) = inputs(&spans, kv * group, kv, dim).unwrap();
        let oracle = attend_reference(&q, &k, &v, &list, 0.3, window, None).unwrap();
        for level in Level::available() {
            let worst = worst(&at(level, (&q, &k, &v), &list, window).unwrap(), &oracle);
            println!("attend {level:?}: {worst:e} of {TOLERANCE:e}");
            prop_assert!(worst < TOLERANCE, "{level:?} {spans:?} kv {kv} group {group} dim {dim} window {window:?}: {worst:e}");
        }
    }
}

#[test]
fn wide_heads_in_large_groups_are_the_oracle() -> Result<()> {
    for dim in [256, 512] {
        for window in [None, Some(16), Some(21)] {
            let (q, k, v, list) = inputs(&[(70, 1), (0, 40), (30, 5)], 8, 1, dim)?;
            // Scores of order 1, as with a model's scale.
            let q = (q / f64::from(dim as u32).sqrt())?;
            let oracle = attend_reference(&q, &k, &v, &list, 0.3, window, None)?;
            for level in Level::available() {
                let worst = worst(&at(level, (&q, &k, &v), &list, window)?, &oracle);
                println!("attend {level:?} dim {dim}: {worst:e} of {TOLERANCE:e}");
                assert!(worst < TOLERANCE, "{level:?} dim {dim} window {window:?}: {worst:e}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_sequence_is_the_same_bits_however_it_is_cut() -> Result<()> {
    let (q, k, v, list) = inputs(&[(0, 61), (7, 9)], 8, 2, 20)?;
    for window in [None, Some(1), Some(5), Some(16), Some(23)] {
        for level in Level::available() {
            let all = at(level, (&q, &k, &v), &list, window)?;
            for len in [1, 3, 17] {
                for start in (0..61).step_by(len) {
                    let len = len.min(61 - start);
                    let piece = [AttentionSpan { first: 0, len, start, cache: 0 }];
                    let alone = at(level, (&q.narrow(0, start, len)?, &k, &v), &piece, window)?;
                    let same = all.narrow(0, start, len)?.to_vec3::<f32>()?;
                    assert_eq!(alone.to_vec3::<f32>()?, same, "{level:?} window {window:?} {piece:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_window_over_everything_is_full_attention_bit_for_bit() -> Result<()> {
    let (q, k, v, list) = inputs(&[(3, 40)], 4, 2, 20)?;
    for level in Level::available() {
        let full = at(level, (&q, &k, &v), &list, None)?.to_vec3::<f32>()?;
        assert_eq!(at(level, (&q, &k, &v), &list, Some(43))?.to_vec3::<f32>()?, full, "{level:?}");
    }
    Ok(())
}

#[test]
fn lambda_is_a_factor_on_every_token_and_head() -> Result<()> {
    let (q, k, v, list) = inputs(&[(12, 7), (0, 20), (3, 1)], 6, 2, 20)?;
    let factors: Vec<f32> = (0..28 * 6).map(|i| [0.5, -1.25, 3.0, 0.9][i % 4] + (i / 4) as f32 / 64.0).collect();
    let lambda = Tensor::from_slice(&factors, (28, 6), &Device::Cpu)?;
    let oracle = attend_reference(&q, &k, &v, &list, 0.3, Some(9), Some(&lambda))?;
    for level in Level::available() {
        let z = Tensor::from_vec(tempered(level, (&q, &k, &v), &list, &factors)?, (28, 6, 20), &Device::Cpu)?;
        let worst = worst(&z, &oracle);
        println!("attend {level:?} lambda: {worst:e} of {TOLERANCE:e}");
        assert!(worst < TOLERANCE, "{level:?}: {worst:e}");
    }
    let public = attend(&q, &k, &v, &list[..].into(), 0.3, Some(9), Some(&lambda))?;
    assert!(worst(&public, &oracle) < TOLERANCE, "lambda does not reach the operation");
    Ok(())
}

#[test]
fn lambda_1_is_none_bit_for_bit_and_0_is_zero() -> Result<()> {
    let (q, k, v, list) = inputs(&[(12, 7), (0, 20)], 6, 2, 21)?;
    // Every third head is kept, the others are silenced.
    let some: Vec<f32> = (0..27 * 6).map(|i| f32::from(u8::from(i % 3 == 0))).collect();
    for level in Level::available() {
        let plain = at(level, (&q, &k, &v), &list, Some(9))?.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(tempered(level, (&q, &k, &v), &list, &[1.0; 27 * 6])?, plain, "{level:?}");
        let mixed = tempered(level, (&q, &k, &v), &list, &some)?;
        for (head, (mixed, plain)) in mixed.chunks(21).zip(plain.chunks(21)).enumerate() {
            let silent = [0.0; 21];
            assert_eq!(mixed, if head % 3 == 0 { plain } else { &silent }, "{level:?} token and head {head}");
        }
    }
    Ok(())
}

#[test]
fn a_lambda_that_does_not_fit_is_refused() -> Result<()> {
    let (q, k, v, list) = inputs(&[(0, 4)], 2, 1, 8)?;
    let ones = |shape: (usize, usize), dtype| Tensor::ones(shape, dtype, &Device::Cpu);
    for wrong in [ones((4, 1), DType::F32)?, ones((2, 4), DType::F32)?.t()?, ones((4, 2), DType::F64)?] {
        let refused = [
            attend(&q, &k, &v, &list[..].into(), 1.0, None, Some(&wrong)),
            attend_reference(&q, &k, &v, &list, 1.0, None, Some(&wrong)),
        ];
        for refused in refused {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("lambda must be contiguous f32 [4, 2]"), "{error}");
        }
    }
    Ok(())
}

#[test]
fn keys_long_out_of_the_window_are_not_read() -> Result<()> {
    let (q, k, v, list) = inputs(&[(100, 9)], 4, 2, 20)?;
    // Position 100 sees 93..=100 of a window of 8, and the tile starts at 80 for every level.
    let gone = Tensor::full(f32::NAN, (80, 2, 20), &Device::Cpu)?;
    let spoil = |t: &Tensor| Tensor::cat(&[&gone, &t.narrow(0, 80, 29)?], 0);
    let (k_spoiled, v_spoiled) = (spoil(&k)?, spoil(&v)?);
    for level in Level::available() {
        let whole = at(level, (&q, &k, &v), &list, Some(8))?.to_vec3::<f32>()?;
        assert_eq!(at(level, (&q, &k_spoiled, &v_spoiled), &list, Some(8))?.to_vec3::<f32>()?, whole, "{level:?}");
    }
    Ok(())
}

/// A NaN in a query, or in a key it sees, makes its output NaN: a softmax that dropped it would look like a result.
#[test]
fn what_is_no_number_is_seen_in_the_output() -> Result<()> {
    let (q, k, v, list) = inputs(&[(0, 9), (5, 3)], 4, 2, 20)?;
    let spoil = |t: &Tensor, at: usize, with: f32| {
        let gone = Tensor::full(with, (1, t.dim(1)?, t.dim(2)?), &Device::Cpu)?;
        Tensor::cat(&[&t.narrow(0, 0, at)?, &gone, &t.narrow(0, at + 1, t.dim(0)? - at - 1)?], 0)
    };
    let none = |t: &Tensor| -> Result<Vec<bool>> {
        Ok(t.flatten_all()?.to_vec1::<f32>()?.iter().map(|x| x.is_nan()).collect())
    };
    // Key 4 belongs to the first sequence, and is seen from its positions 4 to 8.
    for (q, k, rows) in [(spoil(&q, 2, f32::NAN)?, k.clone(), 2..3), (q.clone(), spoil(&k, 4, f32::NAN)?, 4..9)] {
        let expected: Vec<bool> = (0..12 * 80).map(|value| rows.contains(&(value / 80))).collect();
        for level in Level::available() {
            assert!(none(&at(level, (&q, &k, &v), &list, Some(6))?)? == expected, "{level:?} {rows:?}");
        }
    }
    Ok(())
}

#[test]
fn a_span_outside_the_cache_is_refused() -> Result<()> {
    let (q, k, v, mut list) = inputs(&[(0, 4)], 2, 1, 8)?;
    list[0].start = 1;
    assert!(attend(&q, &k, &v, &list.into(), 1.0, None, None).unwrap_err().to_string().contains("outside"));
    Ok(())
}

#[test]
fn an_empty_window_is_refused() -> Result<()> {
    let (q, k, v, list) = inputs(&[(0, 4)], 2, 1, 8)?;
    for refused in [
        attend(&q, &k, &v, &list[..].into(), 1.0, Some(0), None),
        attend_reference(&q, &k, &v, &list, 1.0, Some(0), None),
    ] {
        assert!(refused.unwrap_err().to_string().contains("window of 0"));
    }
    Ok(())
}
