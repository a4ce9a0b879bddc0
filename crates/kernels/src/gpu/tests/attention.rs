//! Attention against its oracle: ragged batches, groups, sizes, windows, λ, and what must not be read.

use candle_core::{DType, Device, Result, Tensor};

use super::{DEVICE, TYPES, flat, on, random};
use crate::{AttentionSpan, Spans, attend_reference, gpu, testing::worst};

/// Sequences in one batch: (start, len) of each, in cache slots with gaps between them that must not be read.
struct Batch {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: Vec<AttentionSpan>,
    scale: f32,
}

/// Unused cache rows in front of each sequence.
const GAP: usize = 3;

impl Batch {
    /// A batch with values rounded to `dtype`. Queries are large enough that weights differ.
    fn new(sequences: &[(usize, usize)], (group, kv, dim): (usize, usize, usize), dtype: DType) -> Result<Self> {
        let (mut first, mut cache, mut spans) = (0, GAP, Vec::new());
        for &(start, len) in sequences {
            spans.push(AttentionSpan { first, len, start, cache });
            first += len;
            cache += start + len + GAP;
        }
        let make = |shape: &[usize], seed, size: f64| (random(shape, seed) * size)?.to_dtype(dtype);
        let scale = 2.0 / (dim as f32).sqrt();
        Ok(Self {
            q: make(&[first, group * kv, dim], 1, 3.0)?,
            k: make(&[cache, kv, dim], 2, 1.5)?,
            v: make(&[cache, kv, dim], 3, 1.0)?,
            spans,
            scale,
        })
    }

    /// The kernels' result. All keys and values that no query of the batch sees are NaN.
    fn attend(&self, window: Option<usize>, lambda: Option<&Tensor>) -> Result<Tensor> {
        let width = self.k.dim(1)? * self.k.dim(2)?;
        let seen = |row: usize| {
            self.spans.iter().any(|span| {
                let from = (span.start + 1).saturating_sub(window.unwrap_or(usize::MAX));
                (span.cache + from..span.cache + span.start + span.len).contains(&row)
            })
        };
        let poisoned = |x: &Tensor| -> Result<Tensor> {
            let mut values = flat(x);
            for (_, values) in values.chunks_mut(width).enumerate().filter(|(row, _)| !seen(*row)) {
                values.fill(f32::NAN);
            }
            on(&Tensor::from_vec(values, x.dims(), &Device::Cpu)?.to_dtype(x.dtype())?)
        };
        let lambda = lambda.map(on).transpose()?;
        let spans = Spans::from(self.spans.clone());
        let (q, k, v) = (on(&self.q)?, poisoned(&self.k)?, poisoned(&self.v)?);
        gpu::attend(&q, &k, &v, &spans, self.scale, window, lambda.as_ref())
    }

    fn oracle(&self, window: Option<usize>, lambda: Option<&Tensor>) -> Result<Tensor> {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|x| x.to_dtype(DType::F32));
        attend_reference(&q?, &k?, &v?, &self.spans, self.scale, window, lambda)
    }

    /// Checks the largest difference from the oracle; values are of order 1.
    fn check(&self, window: Option<usize>, what: &str) -> Result<()> {
        self.check_with(window, None, what)
    }

    fn check_with(&self, window: Option<usize>, lambda: Option<&Tensor>, what: &str) -> Result<()> {
        let worst = worst(&self.attend(window, lambda)?, &self.oracle(window, lambda)?);
        let (dtype, most) = (self.q.dtype(), most(self.q.dtype()));
        println!("{what}, window {window:?}, {dtype:?}: {worst:e} of {most:e}");
        assert!(worst <= most, "{what}, window {window:?}, {dtype:?}: {worst:e}");
        Ok(())
    }
}

/// How far a result may be from its oracle; values are of order 1. Measured worst cases, in the emulation (2026-11-26):
/// 2.6e-6 in f32; one rounding of the result and those of the weights, 2.9e-3 in bf16 and 3.5e-4 in f16.
fn most(dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => 6e-3,
        DType::F16 => 8e-4,
        _ => 1e-5,
    }
}

/// Sequences of one token each: (start, len).
const SINGLE: [(usize, usize); 5] = [(0, 1), (37, 1), (511, 1), (512, 1), (700, 1)];

#[test]
fn single_tokens_are_their_oracle() -> Result<()> {
    for dtype in TYPES {
        for shape in [(1, 2, 64), (3, 1, 128), (4, 1, 128), (8, 1, 64), (2, 1, 256), (6, 1, 256), (3, 1, 512)] {
            Batch::new(&SINGLE, shape, dtype)?.check(None, &format!("single, {shape:?}"))?;
        }
        // Groups with more heads than half a fragment has rows, and than a whole one has.
        for shape in [(9, 1, 64), (16, 2, 128), (20, 2, 64), (12, 1, 256), (10, 1, 512)] {
            Batch::new(&[(0, 1), (33, 1), (530, 1)], shape, dtype)?.check(None, &format!("single, {shape:?}"))?;
        }
        // Sizes that no specialised form supports, and a group of more heads than a block has warps.
        for shape in [(3, 1, 8), (1, 3, 16), (2, 1, 40), (1, 1, 1), (1, 1, 320), (20, 1, 16)] {
            Batch::new(&[(0, 1), (70, 1), (530, 1)], shape, dtype)?.check(None, &format!("single, {shape:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_group_may_have_more_heads_than_a_block_has_warps() -> Result<()> {
    let batch = Batch::new(&[(0, 1), (70, 1)], (20, 1, 16), DType::F32)?;
    // One launch each, so that the emulation runs the threads forwards and backwards.
    batch.check(None, "20 heads")?;
    batch.check(None, "20 heads again")
}

#[test]
fn longer_spans_are_their_oracle() -> Result<()> {
    for dtype in TYPES {
        let mixed = [(0, 5), (20, 1), (510, 6), (3, 9)];
        for shape in [(2, 1, 64), (3, 1, 16)] {
            Batch::new(&mixed, shape, dtype)?.check(None, &format!("mixed, {shape:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn tiles_are_their_oracle() -> Result<()> {
    for dtype in [DType::BF16, DType::F16] {
        // Tiles that end inside a token's heads, sequences that end inside a tile, first keys inside a key tile.
        for (sequences, shape) in [
            (&[(0, 2), (61, 70), (5, 1), (130, 3)][..], (1, 2, 64)),
            (&[(0, 33), (200, 2)], (3, 1, 64)),
            (&[(0, 200)], (1, 1, 64)),
            (&[(700, 9)], (8, 1, 64)),
            (&[(0, 17), (63, 2), (40, 20)], (4, 1, 128)),
            (&[(0, 40), (30, 5)], (2, 1, 256)),
            (&[(0, 34), (31, 3)], (2, 1, 512)),
        ] {
            Batch::new(sequences, shape, dtype)?.check(None, &format!("tiles, {shape:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn layers_of_one_pass_may_have_other_groups() -> Result<()> {
    let sequences = [(0, 90), (3, 1), (7, 40)];
    let shared = Spans::from(Batch::new(&sequences, (1, 1, 64), DType::BF16)?.spans);
    for group in [4, 1, 4, 2] {
        let batch = Batch::new(&sequences, (group, 2, 64), DType::BF16)?;
        let [q, k, v] = [&batch.q, &batch.k, &batch.v].map(on);
        let found = gpu::attend(&q?, &k?, &v?, &shared, batch.scale, None, None)?;
        assert_eq!(flat(&found), flat(&batch.attend(None, None)?), "groups of {group}");
    }
    Ok(())
}

#[test]
fn a_prompt_in_pieces_has_the_same_bits() -> Result<()> {
    for (dtype, dim) in [(DType::F32, 16), (DType::BF16, 64), (DType::F16, 64)] {
        for window in [None, Some(70)] {
            let batch = Batch::new(&[(0, 150)], (2, 1, dim), dtype)?;
            let whole = batch.attend(window, None)?;
            for (first, len) in [(0, 30), (30, 93), (123, 27)] {
                let spans = vec![AttentionSpan { first: 0, len, start: first, cache: batch.spans[0].cache }];
                let (k, v) = (batch.k.clone(), batch.v.clone());
                let piece = Batch { q: batch.q.narrow(0, first, len)?.copy()?, k, v, spans, scale: batch.scale };
                let piece = flat(&piece.attend(window, None)?);
                assert_eq!(piece, flat(&whole.narrow(0, first, len)?), "{first} and {len} more, {dtype:?} {dim}");
            }
        }
    }
    Ok(())
}

#[test]
fn windows_hide_what_lies_before_them() -> Result<()> {
    for dtype in TYPES {
        for window in [1, 5, 512, 513, 2000] {
            for dim in [16, 64] {
                let batch = Batch::new(&[(0, 1), (4, 1), (5, 1), (700, 1), (1030, 1)], (2, 1, dim), dtype)?;
                batch.check(Some(window), &format!("single, {dim}"))?;
                let batch = Batch::new(&[(0, 7), (4, 1), (600, 4)], (2, 1, dim), dtype)?;
                batch.check(Some(window), &format!("mixed, {dim}"))?;
                let batch = Batch::new(&[(0, 1), (70, 40)], (2, 1, dim), dtype)?;
                batch.check(Some(window), &format!("mixed, {dim}"))?;
            }
        }
        // Every form of tiles, with first keys inside and outside of their key tiles.
        for (shape, windows) in [((2, 1, 128), [5, 70]), ((2, 1, 256), [5, 512]), ((1, 1, 512), [5, 70])] {
            for window in windows {
                let batch = Batch::new(&[(0, 90), (window + 20, 40)], shape, dtype)?;
                batch.check(Some(window), &format!("tiles, {shape:?}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn lambda_is_a_factor_and_costs_no_bit() -> Result<()> {
    for dtype in TYPES {
        let (single, mixed, tiles) = (&[(0, 1), (600, 1)][..], &[(0, 3), (30, 1)][..], &[(0, 40), (70, 33)][..]);
        for (sequences, shape) in [
            (single, (2, 2, 64)),
            (mixed, (2, 2, 64)),
            (tiles, (2, 2, 64)),
            (tiles, (2, 1, 128)),
            (tiles, (2, 1, 256)),
            (tiles, (1, 1, 512)),
        ] {
            let batch = Batch::new(sequences, shape, dtype)?;
            let (n, heads) = (batch.q.dim(0)?, batch.q.dim(1)?);
            let plain = flat(&batch.attend(None, None)?);
            let ones = Tensor::ones((n, heads), DType::F32, &Device::Cpu)?;
            assert_eq!(plain, flat(&batch.attend(None, Some(&ones))?), "{dtype:?}");
            assert!(flat(&batch.attend(None, Some(&ones.zeros_like()?))?).iter().all(|&x| x == 0.0), "{dtype:?}");
            batch.check_with(None, Some(&random(&[n, heads], 4)), "lambda")?;
        }
    }
    Ok(())
}

#[test]
fn a_sequence_has_the_same_bits_in_any_batch() -> Result<()> {
    for dtype in TYPES {
        for dim in [16, 64] {
            let batch = Batch::new(&[(0, 1), (600, 1), (20, 4), (9, 1), (1100, 1), (61, 40)], (2, 1, dim), dtype)?;
            let together = batch.attend(None, None)?;
            for span in &batch.spans {
                let q = batch.q.narrow(0, span.first, span.len)?.copy()?;
                let alone = Batch {
                    q,
                    k: batch.k.clone(),
                    v: batch.v.clone(),
                    spans: vec![AttentionSpan { first: 0, ..*span }],
                    scale: batch.scale,
                };
                let alone = flat(&alone.attend(None, None)?);
                assert_eq!(alone, flat(&together.narrow(0, span.first, span.len)?), "{span:?} {dtype:?} {dim}");
            }
        }
    }
    Ok(())
}

/// A NaN in a query, or in a key it sees, makes its output NaN, whichever kernel handles it: a softmax that dropped it would
/// look like a result.
#[test]
fn what_is_no_number_is_seen_in_the_output() -> Result<()> {
    let spoilt = |x: &Tensor, row: usize| -> Result<Tensor> {
        let mut values = flat(x);
        let width = values.len() / x.dim(0)?;
        values[row * width..][..width].fill(f32::NAN);
        Tensor::from_vec(values, x.dims(), &Device::Cpu)?.to_dtype(x.dtype())
    };
    let (decode, short, tiles) = (&[(40, 1), (9, 1)][..], &[(5, 7), (0, 3)][..], &[(0, 70), (3, 40)][..]);
    for (sequences, shape) in [(decode, (2, 2, 64)), (decode, (8, 1, 128)), (short, (2, 2, 64)), (tiles, (2, 1, 128))] {
        for dtype in TYPES {
            let (start, len) = sequences[0];
            let new = || Batch::new(sequences, shape, dtype);
            // The last query of the first sequence; and one of its keys, which is seen from its own position on.
            let (query, key) = (len - 1, 2);
            let of_query = Batch { q: spoilt(&new()?.q, query)?, ..new()? };
            let of_key = Batch { k: spoilt(&new()?.k, GAP + key)?, ..new()? };
            for (batch, rows) in [(of_query, query..len), (of_key, key.saturating_sub(start)..len)] {
                let found = batch.attend(None, None)?;
                let width = found.dim(1)? * found.dim(2)?;
                for (row, values) in flat(&found).chunks(width).enumerate() {
                    let none = values.iter().filter(|x| x.is_nan()).count();
                    let expected = if rows.contains(&row) { width } else { 0 };
                    assert_eq!(none, expected, "{sequences:?} {shape:?} {dtype:?}: row {row} of {rows:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn tokens_of_no_span_are_zero() -> Result<()> {
    for dtype in TYPES {
        let mut batch = Batch::new(&[(0, 1), (3, 3), (8, 1), (5, 2)], (2, 1, 64), dtype)?;
        let all = batch.attend(None, None)?;
        batch.spans.remove(1);
        batch.spans.remove(2);
        let some = batch.attend(None, None)?;
        for (token, kept) in [(0, true), (1, false), (2, false), (3, false), (4, true), (5, false), (6, false)] {
            let (some, all) = (flat(&some.get(token)?), flat(&all.get(token)?));
            assert!(if kept { some == all } else { some.iter().all(|&x| x == 0.0) }, "token {token} {dtype:?}");
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let batch = Batch::new(&[(3, 2)], (2, 2, 64), DType::BF16)?;
    let error = |spans: Vec<AttentionSpan>, window, lambda: Option<&Tensor>| {
        let on = |x: &Tensor| on(x).expect("a copy");
        let (q, k, v) = (on(&batch.q), on(&batch.k), on(&batch.v));
        gpu::attend(&q, &k, &v, &spans.into(), 1.0, window, lambda).unwrap_err().to_string()
    };
    let own = batch.spans[0];
    assert!(error(vec![own], Some(0), None).contains("window of 0 keys"));
    assert!(error(vec![AttentionSpan { start: 30, ..own }], None, None).contains("reaches outside 2 queries"));
    assert!(error(vec![own, own], None, None).contains("into the span before it"));
    let lambda = Tensor::ones((2, 3), DType::F32, &DEVICE)?;
    assert!(error(vec![own], None, Some(&lambda)).contains("lambda must be contiguous f32 [2, 4]"));
    Ok(())
}
