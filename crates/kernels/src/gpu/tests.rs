//! Every kernel against its oracle on ragged shapes, in each of its forms.
//!
//! They need a device: a card (`scripts/gpu-check.sh`) or the stand-in driver (`scripts/test_cuda.sh gpu::`). Oracles are computed in
//! f32 on the CPU from the same rounded inputs.

use std::sync::LazyLock;

use candle_core::{DType, Device, Result, Tensor};

pub(super) use crate::testing::flat;
use crate::testing::worst_relative;

mod advance;
mod attention;
mod conv;
mod delta;
mod delta_step;
mod many;
mod ranges;
mod rows;
mod sample;
mod score;

/// The device the kernels run on.
pub(super) static DEVICE: LazyLock<Device> =
    LazyLock::new(|| crate::open_cuda(0).expect("these tests need a CUDA device, or scripts/test_cuda.sh"));

/// The types of activations.
pub(super) const TYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// Pseudo-random numbers from -1 to 1.
pub(super) fn random(shape: &[usize], seed: u32) -> Tensor {
    let count = shape.iter().product::<usize>() as u32;
    let mix = |i: u32| {
        let x = (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(2_654_435_761);
        (x ^ (x >> 15)).wrapping_mul(2_246_822_519) >> 8
    };
    let values = (0..count).map(|i| mix(i) as f32 / 8_388_608.0 - 1.0).collect::<Vec<_>>();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values")
}

/// The tensor on the kernels' device. A device may refuse to allocate zero bytes.
pub(super) fn on(x: &Tensor) -> Result<Tensor> {
    match x.elem_count() {
        0 => Tensor::zeros(1, x.dtype(), &DEVICE)?.narrow(0, 0, 0)?.reshape(x.shape()),
        _ => x.to_device(&DEVICE),
    }
}

/// The tensor as the kernel gets it, and the same values in f32 for the oracle.
pub(super) fn both(x: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
    let rounded = x.to_dtype(dtype)?;
    Ok((on(&rounded)?, rounded.to_dtype(DType::F32)?))
}

/// How far a kernel may be from its oracle, relative to max(1, |y|): a few roundings to the type.
pub(super) fn tolerance(dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => 2e-2,
        DType::F16 => 2.5e-3,
        _ => 1e-5,
    }
}

/// Asserts that a kernel's result is close to its oracle's.
pub(super) fn close(fast: &Tensor, oracle: &Tensor, what: &str) {
    let (dtype, most) = (fast.dtype(), tolerance(fast.dtype()));
    let worst = worst_relative(fast, oracle);
    println!("{what} {dtype:?}: {worst:e} of {most:e}");
    assert!(worst <= most, "{what} {dtype:?}: {worst:e}");
}
