//! What the values of a panel may be stored as, and how its features become f32.

#![allow(clippy::cast_ptr_alignment, reason = "all loads are unaligned")]

use crate::simd::Simd;

/// Vectors that the columns of a panel make.
pub(crate) const WIDE: usize = 2;

/// How a panel stores its values. The columns of a feature are widened to f32 in registers, which is exact: the
/// arithmetic is that of f32 on the stored values.
pub(crate) trait Form: Copy + Send + Sync {
    /// Features that share a [`Form::Block`].
    const BLOCK: usize;
    /// What is loaded once a block.
    type Block<S: Simd>: Copy;

    /// Bytes of a panel of `features` (a whole number of blocks, or of pairs where blocks hold nothing).
    fn bytes(features: usize, columns: usize) -> usize;

    /// What is common to the features of block `index`.
    unsafe fn block<S: Simd>(panel: *const u8, index: usize) -> Self::Block<S>;

    /// Feature `2 pair`, or the odd one after it.
    unsafe fn feature<S: Simd, const ODD: bool>(panel: *const u8, pair: usize, block: Self::Block<S>) -> [S::F; WIDE];
}

/// f32: `[feature][column]`.
#[derive(Clone, Copy)]
pub(crate) struct F32;
/// f16: `[feature][column]`.
#[derive(Clone, Copy)]
pub(crate) struct F16;
/// bf16: `[pair of features][column][2]`, what AVX512-BF16 multiplies and two operations widen.
#[derive(Clone, Copy)]
pub(crate) struct Bf16;

impl Form for F32 {
    const BLOCK: usize = usize::MAX;
    type Block<S: Simd> = ();

    fn bytes(features: usize, columns: usize) -> usize {
        features * columns * 4
    }

    #[inline(always)]
    unsafe fn block<S: Simd>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn feature<S: Simd, const ODD: bool>(panel: *const u8, pair: usize, (): ()) -> [S::F; WIDE] {
        // SAFETY: the caller has a pair of features, each `WIDE` vectors.
        unsafe {
            let p = panel.cast::<f32>().add((2 * pair + usize::from(ODD)) * WIDE * S::LANES);
            [S::load(p), S::load(p.add(S::LANES))]
        }
    }
}

impl Form for F16 {
    const BLOCK: usize = usize::MAX;
    type Block<S: Simd> = ();

    fn bytes(features: usize, columns: usize) -> usize {
        features * columns * 2
    }

    #[inline(always)]
    unsafe fn block<S: Simd>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn feature<S: Simd, const ODD: bool>(panel: *const u8, pair: usize, (): ()) -> [S::F; WIDE] {
        // SAFETY: the caller has a pair of features, each `WIDE` vectors.
        unsafe {
            let p = panel.cast::<u16>().add((2 * pair + usize::from(ODD)) * WIDE * S::LANES);
            [S::load_f16(p), S::load_f16(p.add(S::LANES))]
        }
    }
}

impl Form for Bf16 {
    const BLOCK: usize = usize::MAX;
    type Block<S: Simd> = ();

    fn bytes(features: usize, columns: usize) -> usize {
        features * columns * 2
    }

    #[inline(always)]
    unsafe fn block<S: Simd>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn feature<S: Simd, const ODD: bool>(panel: *const u8, pair: usize, (): ()) -> [S::F; WIDE] {
        // SAFETY: the caller has a pair of features, each `WIDE` vectors.
        unsafe {
            let p = panel.cast::<u16>().add(pair * 2 * WIDE * S::LANES);
            [S::load_bf16_of_pairs::<ODD>(p), S::load_bf16_of_pairs::<ODD>(p.add(2 * S::LANES))]
        }
    }
}
