//! Dot products of R keys with M queries, kept in registers.

use crate::simd::{self, Simd};

/// `out[r][c] = w_r · x_c` over `k` elements: row `r` of the weight starts at `w + r * stride`.
///
/// Each product has one accumulator vector that runs over `k` in order, whatever R and M are: this makes a row's result
/// independent of its neighbours.
///
/// # Safety
/// `k` elements must be readable at every row, and the machine must have the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn dots<S: Simd, const R: usize, const M: usize>(
    k: usize,
    w: *const f32,
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
                ws[r] = S::load(w.add(r * stride + i));
                // Rows are short, so the hardware prefetcher starts afresh at each one: prefetch the next tile's rows explicitly.
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
                let ws = simd::load_part::<S>(w.add(r * stride + whole), rest);
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
