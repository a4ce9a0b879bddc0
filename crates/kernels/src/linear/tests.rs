//! Every level and form against the oracle, on odd shapes; and invariants that hold to the bit.

use super::*;
use crate::testing::{numbers, values, worst};
use crate::{Level, MatrixBuilder};
use candle_core::{DType, Device};
use proptest::prelude::*;

/// Largest difference from candle's own matmul, relative to the size of the terms: both round, in different orders.
/// Measured worst case over the shapes below: 2.1e-6 (portable, no FMA, 2026-11-25).
const TOLERANCE: f64 = 1e-5;

fn activations(m: usize, k: usize) -> Result<Tensor> {
    values(&[m, k], 7)
}

/// A weight for a level's kernels, and its values.
fn weight(level: Level, held: Held, n: usize, k: usize) -> Result<(Matrix, Tensor)> {
    let values = numbers(n * k, 99);
    let mut matrix = MatrixBuilder::at(level, held, n, k, &Device::Cpu)?;
    // In two calls, as fused projections are filled.
    let first = n / 3;
    for (from, to) in [(0, first), (first, n)] {
        matrix.fill(to - from, |r, out| out.copy_from_slice(&values[(from + r) * k..][..k]))?;
    }
    let matrix = matrix.finish()?;
    let tensor = matrix.to_tensor()?;
    let rounded = Tensor::from_slice(&values, (n, k), &Device::Cpu)?.to_dtype(held.dtype())?;
    let same = |t: &Tensor| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
    assert_eq!(same(&tensor)?, same(&rounded)?, "{level:?} {held}: what is held is not what was given");
    Ok((matrix, tensor))
}

/// The largest difference relative to the size of the terms.
fn off(fast: &Tensor, oracle: &Tensor, k: usize) -> f64 {
    f64::from(worst(fast, oracle)) / (k as f64).sqrt().max(1.0)
}

fn check(m: usize, n: usize, k: usize, held: Held) -> Result<()> {
    let x = activations(m, k)?;
    for level in Level::available() {
        let (matrix, tensor) = weight(level, held, n, k)?;
        let worst = off(&linear(&x, &matrix)?, &linear_reference(&x, &tensor)?, k);
        println!("linear {level:?} {m}x{n}x{k} {held}: {worst:e} of {TOLERANCE:e}");
        assert!(worst < TOLERANCE, "{level:?} {m}x{n}x{k} {held}: {worst:e}");
    }
    Ok(())
}

const FORMS: [Held; 3] = [Held::F32, Held::Bf16, Held::F16];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_level_is_the_oracle_on_odd_shapes(m in 0usize..20, n in 1usize..140, k in 1usize..100, which in 0usize..3) {
        check(m, n, k, FORMS[which]).unwrap();
    }

    #[test]
    fn some_columns_are_those_of_the_weight(m in 1usize..9, n in 1usize..70, from in 0usize..40, len in 1usize..60) {
        let x = activations(m, len).unwrap();
        for level in Level::available() {
            for held in FORMS {
                let (matrix, tensor) = weight(level, held, n, 100).unwrap();
                let fast = linear_columns(&x, &matrix, from..from + len).unwrap();
                let columns = tensor.narrow(1, from, len).unwrap();
                let worst = off(&fast, &linear_reference(&x, &columns).unwrap(), len);
                prop_assert!(worst < TOLERANCE, "{level:?} {held} {from}..{}: {worst:e}", from + len);
            }
        }
    }
}

#[test]
fn every_level_is_the_oracle_on_the_models_shapes() -> Result<()> {
    for (m, n, k) in [(1, 960, 576), (33, 3072, 576), (7, 576, 1536), (0, 8, 8), (3, 1, 1), (5, 4608, 2)] {
        check(m, n, k, Held::Bf16)?;
    }
    Ok(())
}

#[test]
fn a_row_is_the_same_bits_in_any_batch() -> Result<()> {
    // More features than are summed at once, and an odd number of them.
    let x = activations(23, 521)?;
    for level in Level::available() {
        for held in FORMS {
            let (matrix, _) = weight(level, held, 150, 521)?;
            let all = linear(&x, &matrix)?.to_vec2::<f32>()?;
            for (row, expected) in all.iter().enumerate() {
                let alone = linear(&x.narrow(0, row, 1)?, &matrix)?;
                assert_eq!(&alone.to_vec2::<f32>()?[0], expected, "{level:?} {held} row {row}");
            }
        }
    }
    Ok(())
}

#[test]
fn threads_and_tasks_change_no_bit() -> Result<()> {
    // Enough for several tasks of rows and of panels.
    let x = activations(150, 400)?;
    let (matrix, _) = weight(Level::best(), Held::Bf16, 700, 400)?;
    let under = |threads| -> Result<Vec<f32>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
        pool.install(|| linear(&x, &matrix))?.flatten_all()?.to_vec1()
    };
    assert_eq!(under(1)?, under(3)?);
    Ok(())
}

#[test]
fn a_sum_is_that_of_the_two_bit_for_bit() -> Result<()> {
    let (x, y) = (activations(9, 40)?, activations(9, 70)?);
    for level in Level::available() {
        let (matrix, _) = weight(level, Held::F32, 70, 40)?;
        let apart = (&y + linear(&x, &matrix)?)?.to_vec2::<f32>()?;
        assert_eq!(linear_add(&x, &matrix, &y)?.to_vec2::<f32>()?, apart, "{level:?}");
    }
    let (matrix, _) = weight(Level::best(), Held::F32, 70, 40)?;
    let error = linear_add(&x, &matrix, &y.narrow(1, 0, 69)?).unwrap_err().to_string();
    assert!(error.contains("must be [9, 70]"), "{error}");
    Ok(())
}

/// A weight in bf16 with bf16 products.
fn rounding(level: Level, n: usize, k: usize) -> Result<(Matrix, Tensor)> {
    let values = numbers(n * k, 99);
    let mut matrix = MatrixBuilder::at(level, Held::Bf16, n, k, &Device::Cpu)?.with_products(Products::Bf16);
    matrix.fill(n, |r, out| out.copy_from_slice(&values[r * k..][..k]))?;
    let matrix = matrix.finish()?;
    let tensor = matrix.to_tensor()?;
    Ok((matrix, tensor))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn products_of_bf16_are_those_of_rounded_activations(m in 0usize..20, n in 1usize..140, k in 1usize..600) {
        let x = activations(m, k).unwrap();
        let bf16 = x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        for level in Level::available() {
            let (matrix, tensor) = rounding(level, n, k).unwrap();
            let fast = linear(&x, &matrix).unwrap();
            let worst = off(&fast, &linear_reference(&bf16, &tensor).unwrap(), k);
            prop_assert!(worst < TOLERANCE, "{level:?} {m}x{n}x{k}: {worst:e}");
            // The rounding must show: if the mode did nothing, it would be as accurate as the exact one.
            if m * n > 200 && k > 8 {
                let exact = off(&fast, &linear_reference(&x, &tensor).unwrap(), k);
                prop_assert!(exact > 10.0 * TOLERANCE, "{level:?} {m}x{n}x{k}: {exact:e}");
            }
        }
    }
}

#[test]
fn a_rounded_row_is_the_same_bits_in_any_batch() -> Result<()> {
    let x = activations(15, 521)?;
    for level in Level::available() {
        let (matrix, _) = rounding(level, 150, 521)?;
        let all = linear(&x, &matrix)?.to_vec2::<f32>()?;
        for (row, expected) in all.iter().enumerate() {
            assert_eq!(&linear(&x.narrow(0, row, 1)?, &matrix)?.to_vec2::<f32>()?[0], expected, "{level:?} row {row}");
        }
    }
    Ok(())
}

#[test]
fn shapes_that_do_not_fit_are_refused() -> Result<()> {
    let (matrix, _) = weight(Level::best(), Held::F32, 3, 5)?;
    let says = |refused: Result<Tensor>, why: &str| {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    says(linear(&activations(2, 4)?, &matrix), "4 features, the weight has 5");
    says(linear_columns(&activations(2, 4)?, &matrix, 2..6), "no features 2..6, the weight has 5");
    Ok(())
}
