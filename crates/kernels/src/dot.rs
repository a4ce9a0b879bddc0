//! Dot products of R weight rows with M activation rows, kept in registers: what linear layers and attention share.

use crate::simd::{self, MAX_LANES, Simd};

/// What a weight may be stored as. Widening to f32 is exact, so the arithmetic is that of f32 on the stored values.
pub(crate) trait Element: Copy + Send + Sync {
    /// The next [`Simd::LANES`] elements as f32.
    unsafe fn load<S: Simd>(p: *const Self) -> S::F;
    /// Zero.
    const ZERO: Self;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: the caller's contract, passed on.
        unsafe { S::load(p) }
    }
}

impl Element for half::bf16 {
    const ZERO: Self = half::bf16::ZERO;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: the caller's contract, passed on; bf16 is a transparent u16.
        unsafe { S::load_bf16(p.cast()) }
    }
}

impl Element for half::f16 {
    const ZERO: Self = half::f16::ZERO;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: the caller's contract, passed on; f16 is a transparent u16.
        unsafe { S::load_f16(p.cast()) }
    }
}

/// `out[r][c] = w_r · x_c` over `k` elements: row `r` of the weight starts at `w + r * stride`.
///
/// Each product has one accumulator vector that runs over `k` in order, whatever R and M are: this is what makes a
/// row's result independent of its neighbours.
///
/// # Safety
/// `k` elements must be readable at every row, and the machine must have the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn dots<S: Simd, W: Element, const R: usize, const M: usize>(
    k: usize,
    w: *const W,
    stride: usize,
    x: [*const f32; M],
) -> [[f32; M]; R] {
    // SAFETY: every offset stays below `k`, which the caller vouches for.
    unsafe {
        let mut acc = [[S::splat(0.0); M]; R];
        let whole = k - k % S::LANES;
        let mut i = 0;
        while i < whole {
            let mut ws = [S::splat(0.0); R];
            for r in 0..R {
                ws[r] = W::load::<S>(w.add(r * stride + i));
                // Rows are short, so the hardware prefetcher starts anew at each: name the next tile's rows to it.
                S::prefetch(w.wrapping_add((r + R) * stride + i));
            }
            for c in 0..M {
                let xs = S::load(x[c].add(i));
                for r in 0..R {
                    acc[r][c] = S::fma(ws[r], xs, acc[r][c]);
                }
            }
            i += S::LANES;
        }
        if whole < k {
            let rest = k - whole;
            let mut xs = [S::splat(0.0); M];
            for c in 0..M {
                xs[c] = simd::load_part::<S>(x[c].add(whole), rest);
            }
            for r in 0..R {
                let mut padded = [W::ZERO; MAX_LANES];
                w.add(r * stride + whole).copy_to_nonoverlapping(padded.as_mut_ptr(), rest);
                let ws = W::load::<S>(padded.as_ptr());
                for c in 0..M {
                    acc[r][c] = S::fma(ws, xs[c], acc[r][c]);
                }
            }
        }
        let mut out = [[0f32; M]; R];
        for r in 0..R {
            for c in 0..M {
                out[r][c] = S::sum(acc[r][c]);
            }
        }
        out
    }
}
