//! Shared by the tests of kernels: pseudo-random values, and the distance of a kernel from its oracle.

use candle_core::{DType, Device, Result, Tensor};

/// `count` pseudo-random numbers from -1 to 1.
pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    (0..count as u32).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

/// A tensor of such numbers.
pub(crate) fn values(shape: &[usize], seed: u32) -> Result<Tensor> {
    Tensor::from_vec(numbers(shape.iter().product(), seed), shape, &Device::Cpu)
}

/// The values in f32.
pub(crate) fn flat(x: &Tensor) -> Vec<f32> {
    let x = x.to_device(&Device::Cpu).and_then(|x| x.to_dtype(DType::F32)?.contiguous()?.flatten_all()?.to_vec1());
    x.expect("a tensor of floats")
}

/// The bits of the values, for comparisons that must be exact, including the signs of zeros.
pub(crate) fn bits(x: &Tensor) -> Vec<u32> {
    flat(x).into_iter().map(f32::to_bits).collect()
}

/// The largest difference from the oracle.
pub(crate) fn worst(fast: &Tensor, oracle: &Tensor) -> f32 {
    largest_of(fast, oracle, |_| 1.0)
}

/// The same relative to max(1, |y|).
pub(crate) fn worst_relative(fast: &Tensor, oracle: &Tensor) -> f32 {
    largest_of(fast, oracle, |y| y.abs().max(1.0))
}

fn largest_of(fast: &Tensor, oracle: &Tensor, size: impl Fn(f32) -> f32) -> f32 {
    assert_eq!(fast.dims(), oracle.dims());
    let off = |(f, o): (&f32, &f32)| f64::from((f - o).abs() / size(*o));
    largest(flat(fast).iter().zip(&flat(oracle)).map(off)) as f32
}

/// The largest of some distances, 0 if there are none; infinite if one is NaN, which `f32::max` and candle's `max_all` skip.
pub(crate) fn largest(off: impl IntoIterator<Item = f64>) -> f64 {
    off.into_iter().fold(0.0, |worst, off| if off.is_nan() { f64::INFINITY } else { worst.max(off) })
}

#[test]
fn what_is_no_number_is_as_far_off_as_can_be() -> Result<()> {
    let on = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
    let good = on(&[1.0, -2.0, 3.0])?;
    assert_eq!((worst(&good, &good), worst(&on(&[1.0, -2.5, 3.0])?, &good)), (0.0, 0.5));
    assert_eq!(worst_relative(&on(&[1.0, -2.5, 3.0])?, &good), 0.25);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in 0..3 {
            let mut values = [1.0, -2.0, 3.0];
            values[place] = bad;
            let bad = on(&values)?;
            for (fast, oracle) in [(&bad, &good), (&good, &bad), (&bad, &bad)] {
                assert_eq!((worst(fast, oracle), worst_relative(fast, oracle).is_finite()), (f32::INFINITY, false));
            }
        }
    }
    Ok(())
}
