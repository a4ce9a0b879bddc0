//! The storage forms of a panel's values, and how its features are widened to f32.

#![allow(clippy::cast_ptr_alignment, reason = "all loads are unaligned")]

use super::blocks::Layout;
use crate::simd::{Simd, dispatch};

/// Vectors that make up the columns of a panel.
pub(crate) const WIDE: usize = 2;

/// How a panel stores its values. The columns of a feature are widened to f32 in registers, which is exact, so the
/// arithmetic is that of f32 on the stored values.
pub(crate) trait Form: Copy + Send + Sync {
    /// Features that share a [`Form::Block`].
    const BLOCK: usize;
    /// What is loaded once per block.
    type Block<S: Simd>: Copy;

    /// Bytes of a panel of `features` (whole blocks, or whole pairs where blocks hold nothing).
    fn bytes(features: usize, columns: usize) -> usize;

    /// What the features of block `index` share.
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
/// bf16: `[pair of features][column][2]`, the layout that AVX512-BF16 multiplies and two operations widen.
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

/// ggml blocks in the layout of [`Layout`], widened bit for bit as candle's `GgmlType::to_float` does, because products
/// of values and scales are exact in f32.
#[derive(Clone, Copy)]
pub(crate) struct Quant<const HALVES: usize, const PARTS: usize, const NIBBLES: bool>;

/// What the features of one part of a block share, and where its values would begin if it were the first part.
#[derive(Clone, Copy)]
pub(crate) struct Part<S: Simd> {
    scale: [S::F; WIDE],
    offset: [S::F; WIDE],
    values: *const u8,
}

impl<const HALVES: usize, const PARTS: usize, const NIBBLES: bool> Quant<HALVES, PARTS, NIBBLES> {
    const LAYOUT: Layout = Layout { halves: HALVES, parts: PARTS, nibbles: NIBBLES };
    /// Features per byte.
    const PACKED: usize = if NIBBLES { 2 } else { 1 };
}

impl<const HALVES: usize, const PARTS: usize, const NIBBLES: bool> Form for Quant<HALVES, PARTS, NIBBLES> {
    const BLOCK: usize = Self::LAYOUT.part_features();
    type Block<S: Simd> = Part<S>;

    fn bytes(features: usize, columns: usize) -> usize {
        features / Self::LAYOUT.features() * Self::LAYOUT.bytes() * columns
    }

    #[inline(always)]
    unsafe fn block<S: Simd>(panel: *const u8, index: usize) -> Part<S> {
        let width = WIDE * S::LANES;
        // SAFETY: the caller has the block, and all of its columns.
        unsafe {
            let whole = panel.add(index / PARTS * Self::LAYOUT.bytes() * width);
            let own = whole.add((2 * HALVES + index % PARTS * Self::LAYOUT.part_bytes()) * width);
            let (mut scale, mut offset) = ([S::splat(0.0); WIDE], [S::splat(0.0); WIDE]);
            for v in 0..WIDE {
                scale[v] = S::load_f16(whole.cast::<u16>().add(v * S::LANES));
                if PARTS > 1 {
                    scale[v] = S::mul(scale[v], S::load_i8(own.cast::<i8>().add(v * S::LANES)));
                }
                if HALVES == 2 {
                    offset[v] = S::load_f16(whole.cast::<u16>().add(width + v * S::LANES));
                    if PARTS > 1 {
                        let product = S::mul(offset[v], S::load_i8(own.cast::<i8>().add(width + v * S::LANES)));
                        offset[v] = S::mul(product, S::splat(-1.0));
                    }
                }
            }
            let first = index * Self::BLOCK / Self::PACKED * width;
            Part { scale, offset, values: own.add(Self::LAYOUT.own() * width).wrapping_sub(first) }
        }
    }

    // Loops instead of closures: code in a closure is not always inlined, and is then compiled without the instruction set.
    #[inline(always)]
    unsafe fn feature<S: Simd, const ODD: bool>(_: *const u8, pair: usize, part: Part<S>) -> [S::F; WIDE] {
        let width = WIDE * S::LANES;
        // SAFETY: the caller has a pair of features of this part, each `WIDE` vectors.
        unsafe {
            let mut out = [S::splat(0.0); WIDE];
            for v in 0..WIDE {
                let value = if NIBBLES {
                    let value = S::load_nibbles::<ODD>(part.values.wrapping_add(pair * width + v * S::LANES));
                    if HALVES == 1 { S::add(value, S::splat(-f32::from(Self::LAYOUT.centre()))) } else { value }
                } else {
                    let feature = 2 * pair + usize::from(ODD);
                    S::load_i8(part.values.cast::<i8>().wrapping_add(feature * width + v * S::LANES))
                };
                // Not an `fma` with an offset of 0, which would lose the sign of a zero.
                out[v] = if HALVES == 1 {
                    S::mul(value, part.scale[v])
                } else {
                    S::fma(value, part.scale[v], part.offset[v])
                };
            }
            out
        }
    }
}

/// Runs `$body` with `$form` as the form of a held type.
macro_rules! with_form {
    ($held:expr, $form:ident => $body:expr) => {{
        use $crate::matrix::{
            Blocks, Held,
            form::{Bf16, F16, F32, Quant},
        };
        macro_rules! with {
            ($of:ty) => {{
                type $form = $of;
                $body
            }};
        }
        match $held {
            Held::F32 => with!(F32),
            Held::F16 => with!(F16),
            Held::Bf16 => with!(Bf16),
            Held::Blocks(Blocks::Q4_0) => with!(Quant<1, 1, true>),
            Held::Blocks(Blocks::Q4_1) => with!(Quant<2, 1, true>),
            Held::Blocks(Blocks::Q8_0 | Blocks::Q5_0) => with!(Quant<1, 1, false>),
            Held::Blocks(Blocks::Q5_1) => with!(Quant<2, 1, false>),
            Held::Blocks(Blocks::Q4K) => with!(Quant<2, 8, true>),
            Held::Blocks(Blocks::Q5K) => with!(Quant<2, 8, false>),
            Held::Blocks(Blocks::Q6K) => with!(Quant<1, 16, false>),
        }
    }};
}
pub(crate) use with_form;

dispatch! {
    /// Widens features `from..to` of a panel, and those that share a pair with them, into an [`F32`] panel.
    ///
    /// # Safety
    /// The panel must be of this form and level and have these features, and `out` must have room for such a panel.
    unsafe fn widen<W: Form>(panel: *const u8, from: usize, to: usize, out: *mut f32) = widen_generic;
}

#[inline(always)]
unsafe fn widen_generic<S: Simd, W: Form>(panel: *const u8, from: usize, to: usize, out: *mut f32) {
    // SAFETY: the caller's contract.
    unsafe {
        let (mut pair, end) = (from / 2, to.div_ceil(2));
        while pair < end {
            let block = 2 * pair / W::BLOCK;
            let stop = end.min(block.saturating_add(1).saturating_mul(W::BLOCK) / 2);
            let shared = W::block::<S>(panel, block);
            for pair in pair..stop {
                let [even, odd] =
                    [W::feature::<S, false>(panel, pair, shared), W::feature::<S, true>(panel, pair, shared)];
                for (v, x) in even.into_iter().chain(odd).enumerate() {
                    S::store(out.add((2 * pair * WIDE + v) * S::LANES), x);
                }
            }
            pair = stop;
        }
    }
}
