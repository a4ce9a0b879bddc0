//! ggml blocks: the values match candle's bit for bit, and results computed on them match those of f32 weights.

use std::borrow::Cow;

use candle_core::{
    CpuStorage,
    quantized::{GgmlDType, QTensor},
};
use half::f16;
use proptest::prelude::*;

use super::*;
use crate::{linear, linear_add, linear_columns};

fn random(count: usize, seed: u32) -> impl Iterator<Item = u32> {
    (0..count as u32).map(move |i| (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(2_654_435_761).rotate_left(15))
}

fn floats(count: usize, seed: u32) -> Vec<f32> {
    random(count, seed).map(|bits| (bits >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

/// Rows of blocks with arbitrary bits, except that shared scales and offsets are finite; some are negative.
fn stored(kind: Blocks, rows: usize, columns: usize, seed: u32) -> Vec<u8> {
    let size = kind.ggml().type_size();
    let mut bytes: Vec<u8> = random(rows * kind.stored_bytes(columns), seed).map(|bits| (bits >> 13) as u8).collect();
    let places: &[usize] = match kind {
        Blocks::Q6K => &[208],
        Blocks::Q8_0 | Blocks::Q4_0 | Blocks::Q5_0 => &[0],
        _ => &[0, 2],
    };
    let blocks = bytes.len() / size;
    for (block, halves) in bytes.chunks_exact_mut(size).zip(floats(2 * blocks, seed + 1).chunks_exact(2)) {
        for (&place, &half) in places.iter().zip(halves) {
            block[place..place + 2].copy_from_slice(&f16::from_f32(0.01 * half).to_le_bytes());
        }
    }
    bytes
}

/// The values as candle dequantises them.
fn candles(kind: GgmlDType, stored: &[u8], count: usize) -> Vec<f32> {
    match kind.from_data(Cow::Borrowed(stored)).dequantize(count).unwrap() {
        CpuStorage::F32(values) => values,
        other => panic!("{other:?}"),
    }
}

fn held_in(level: Level, kind: Blocks, (rows, columns): (usize, usize), stored: &[u8]) -> Matrix {
    let mut matrix = MatrixBuilder::at(level, Held::Blocks(kind), rows, columns, &Device::Cpu).unwrap();
    let size = kind.stored_bytes(columns);
    // In two calls, as fused projections are filled.
    for (from, to) in [(0, rows / 3), (rows / 3, rows)] {
        matrix.fill_blocks(to - from, |r| Cow::Borrowed(&stored[(from + r) * size..][..size])).unwrap();
    }
    matrix.finish().unwrap()
}

fn plain(level: Level, (rows, columns): (usize, usize), values: &[f32]) -> Matrix {
    let mut matrix = MatrixBuilder::at(level, Held::F32, rows, columns, &Device::Cpu).unwrap();
    matrix.fill(rows, |r, out| out.copy_from_slice(&values[r * columns..][..columns])).unwrap();
    matrix.finish().unwrap()
}

/// Bits, so that signs of zeros count.
fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn activations(rows: usize, columns: usize) -> Tensor {
    Tensor::from_vec(floats(rows * columns, 7), (rows, columns), &Device::Cpu).unwrap()
}

/// Compares a weight of blocks with its dequantised values in f32: gathered rows and linear layers, also on some columns.
fn check(kind: Blocks, m: usize, n: usize, blocks: usize, seed: u32) {
    let k = blocks * kind.features();
    let stored = stored(kind, n, k, seed);
    let values = candles(kind.ggml(), &stored, n * k);
    let mut own = vec![0f32; n * k];
    kind.widen(&stored, &mut own);
    let of = |values: &[f32]| Tensor::from_slice(values, (n, k), &Device::Cpu).unwrap();
    assert_eq!(bits(&of(&own)), bits(&of(&values)), "{kind}");
    let x = activations(m, k);
    let y = activations(m, n);
    for level in Level::available() {
        let (held, wide) = (held_in(level, kind, (n, k), &stored), plain(level, (n, k), &values));
        let what = format!("{level:?} {kind} {m}x{n}x{k}");
        assert_eq!(bits(&held.to_tensor().unwrap()), bits(&of(&values)), "{what}");
        assert_eq!(bits(&linear(&x, &held).unwrap()), bits(&linear(&x, &wide).unwrap()), "{what}");
        let sum = |matrix| bits(&linear_add(&x, matrix, &y).unwrap());
        assert_eq!(sum(&held), sum(&wide), "{what}, with a sum");
        for range in [seed as usize % k..k, 1..k.min(20 + seed as usize % 300), k / 3..k / 2 + 1] {
            let some = x.narrow(1, range.start, range.len()).unwrap();
            let part = |matrix| bits(&linear_columns(&some, matrix, range.clone()).unwrap());
            assert_eq!(part(&held), part(&wide), "{what} {range:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn blocks_are_their_dequantised_values(
        which in 0usize..8, m in 0usize..60, n in 1usize..120, blocks in 1usize..4, seed in 0u32..1000,
    ) {
        check(Blocks::ALL[which], m, n, blocks, seed);
    }
}

#[test]
fn blocks_are_their_dequantised_values_on_the_models_shapes() {
    for kind in Blocks::ALL {
        for (m, n) in [(1, 200), (24, 200), (61, 90)] {
            for k in [64, 256, 576, 1536] {
                if k % kind.features() == 0 {
                    check(kind, m, n, k / kind.features(), 5);
                }
            }
        }
    }
}

#[test]
fn a_row_is_the_same_bits_in_any_batch() {
    let (n, k) = (150, 1536);
    let x = activations(40, k);
    for level in Level::available() {
        for kind in Blocks::ALL {
            let matrix = held_in(level, kind, (n, k), &stored(kind, n, k, 3));
            let all = linear(&x, &matrix).unwrap();
            for row in 0..40 {
                let alone = linear(&x.narrow(0, row, 1).unwrap(), &matrix).unwrap();
                assert_eq!(bits(&alone), bits(&all.narrow(0, row, 1).unwrap()), "{level:?} {kind} row {row}");
            }
        }
    }
}

#[test]
fn rows_are_quantised_as_candle_does() {
    let (n, k) = (35, 512);
    let values = floats(n * k, 11);
    let tensor = Tensor::from_slice(&values, (n, k), &Device::Cpu).unwrap();
    for kind in Blocks::ALL {
        let stored = QTensor::quantize(&tensor, kind.ggml()).unwrap();
        let mut matrix = MatrixBuilder::at(Level::best(), Held::Blocks(kind), n, k, &Device::Cpu).unwrap();
        matrix.fill(n, |r, out| out.copy_from_slice(&values[r * k..][..k])).unwrap();
        let held = matrix.finish().unwrap().to_tensor().unwrap();
        assert_eq!(bits(&held), bits(&stored.dequantize(&Device::Cpu).unwrap()), "{kind}");
    }
}

#[test]
fn parts_of_several_types_are_the_parts() {
    let (k, rows) = (256, [70, 1, 45, 33]);
    let kinds = [Blocks::Q4K, Blocks::Q6K, Blocks::Q8_0, Blocks::Q4_1];
    let part = |i: usize| held_in(Level::best(), kinds[i], (rows[i], k), &stored(kinds[i], rows[i], k, i as u32));
    let whole = Matrix::stacked(&(0..4).map(part).collect::<Vec<_>>()).unwrap();
    assert_eq!((whole.rows(), whole.columns()), (149, k));
    for m in [1, 5, 30, 300] {
        let (x, y) = (activations(m, k), activations(m, 149));
        let all = linear(&x, &whole).unwrap();
        let apart: Vec<_> = (0..4).map(|i| linear(&x, &part(i)).unwrap()).collect();
        let apart = Tensor::cat(&apart, 1).unwrap();
        assert_eq!(bits(&all), bits(&apart), "{m}");
        assert_eq!(bits(&linear_add(&x, &whole, &y).unwrap()), bits(&(y + apart).unwrap()), "{m}");
    }
    let values: Vec<_> = (0..4).map(|i| part(i).to_tensor().unwrap()).collect();
    assert_eq!(bits(&whole.to_tensor().unwrap()), bits(&Tensor::cat(&values, 0).unwrap()));
}

#[test]
fn what_blocks_cannot_hold_is_refused() {
    let says = |refused: Result<MatrixBuilder>, why: &str| {
        let error = refused.err().expect("refused").to_string();
        assert!(error.contains(why), "{error}");
    };
    let of = |kind, k| MatrixBuilder::new(Held::Blocks(kind), 3, k, &Device::Cpu);
    says(of(Blocks::Q4K, 576), "q4_k holds rows of whole blocks of 256, not of 576 features");
    says(of(Blocks::Q8_0, 40), "q8_0 holds rows of whole blocks of 32, not of 40 features");
    let mut plain = MatrixBuilder::new(Held::F32, 3, 32, &Device::Cpu).unwrap();
    let error = plain.fill_blocks(1, |_| Cow::Borrowed(&[][..])).unwrap_err().to_string();
    assert!(error.contains("held in f32 takes no blocks"), "{error}");
}

#[test]
fn memory_is_that_of_the_panels() {
    for kind in Blocks::ALL {
        let matrix = held_in(Level::best(), kind, (64, 512), &stored(kind, 64, 512, 1));
        let bytes: usize = matrix.panels().unwrap().iter().map(|panels| panels.bytes().len()).sum();
        assert_eq!(Held::Blocks(kind).bytes(64 * 512), bytes, "{kind}");
    }
}
