//! bf16 products: activations are rounded, sums stay f32. Named in every output where it is on, and never a default.

use half::bf16;
use rayon::prelude::*;

use super::Job;

/// Values below which threads cost more than they gain.
const CHUNK: usize = 1 << 14;

/// Activations rounded to bf16, as f32: the input of kernels without bf16 products.
pub(super) fn rounded(x: &[f32]) -> Vec<f32> {
    x.par_iter().with_min_len(CHUNK).map(|&x| bf16::from_f32(x).to_f32()).collect()
}

/// Rows of activations rounded to bf16, two features per element; an odd last one is paired with 0.
pub(super) fn pairs(x: &[f32], features: usize) -> Vec<u32> {
    let width = features.div_ceil(2);
    let mut out = vec![0u32; x.len() / features.max(1) * width];
    let rows = out.par_chunks_mut(width.max(1)).zip(x.par_chunks(features.max(1)));
    rows.with_min_len((CHUNK / features.max(1)).max(1)).for_each(|(out, x)| {
        let (whole, rest) = x.as_chunks::<2>();
        for (out, &[a, b]) in out.iter_mut().zip(whole) {
            *out = bits(a) | bits(b) << 16;
        }
        if let (Some(out), &[last]) = (out.last_mut(), rest) {
            *out = bits(last);
        }
    });
    out
}

/// The nearest bf16, ties to even: `bf16::from_f32` in a form that vectorises.
fn bits(x: f32) -> u32 {
    let raw = x.to_bits();
    let nearest = raw.wrapping_add(0x7fff + (raw >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { nearest }
}

/// Runs a job whose activations are pairs: `job.x` counts elements of two features, and features start at an even one.
///
/// Every output is summed in the order of its pairs, whatever is computed beside it. The instruction adds the two products of
/// a pair before adding them to the sum, and treats subnormal numbers as 0.
///
/// # Safety
/// As for exact products, on bf16 panels; and [`crate::Level::multiplies_bf16`] must hold.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn multiply(job: &Job<u32>) {
    // SAFETY: the caller's contract, passed on.
    unsafe { avx512::multiply(job) }
}

/// See above: no machine of this architecture does.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn multiply(_: &Job<u32>) {
    unreachable!("no such instructions here");
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps,
    };

    use super::super::tile::{RUN, put};
    use crate::{linear::Job, matrix::form::WIDE, simd::Avx512};

    const LANES: usize = 16;

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    pub(super) unsafe fn multiply(job: &Job<u32>) {
        let mut row = 0;
        // SAFETY: rows below `job.rows`; the rest is the caller's contract.
        unsafe {
            while job.rows - row >= 6 {
                strip::<6, 2>(job, row);
                row += 6;
            }
            while job.rows - row >= 2 {
                strip::<2, 4>(job, row);
                row += 2;
            }
            if row < job.rows {
                strip::<1, 4>(job, row);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn strip<const M: usize, const P: usize>(job: &Job<u32>, row: usize) {
        let (_, count, _) = job.panels;
        let mut panel = 0;
        // SAFETY: panels below `count`.
        unsafe {
            while panel + P <= count {
                tile::<M, P>(job, row, panel);
                panel += P;
            }
            while panel < count {
                tile::<M, 1>(job, row, panel);
                panel += 1;
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn tile<const M: usize, const P: usize>(job: &Job<u32>, row: usize, panel: usize) {
        // SAFETY: the caller has these rows and panels; a vector of bf16 has the same bits as the integer vector.
        unsafe {
            let (first, _, size) = job.panels;
            let (from, to) = job.features;
            let zero = _mm512_setzero_ps();
            let mut total = [[[zero; WIDE]; P]; M];
            let mut k = from / 2;
            let (end, start) = (to.div_ceil(2), k);
            while k < end {
                let stop = end.min(k + RUN / 2);
                let mut sums = [[[zero; WIDE]; P]; M];
                for pair in k..stop {
                    let mut w = [[std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(0)); WIDE]; P];
                    for p in 0..P {
                        for v in 0..WIDE {
                            let at = first.add((panel + p) * size + (pair * WIDE + v) * LANES * 4);
                            w[p][v] = std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(at.cast()));
                        }
                    }
                    for r in 0..M {
                        let x = *job.x.0.add((row + r) * job.x.1 + pair - start);
                        let x = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x as i32));
                        for p in 0..P {
                            for v in 0..WIDE {
                                sums[r][p][v] = _mm512_dpbf16_ps(sums[r][p][v], w[p][v], x);
                            }
                        }
                    }
                }
                for r in 0..M {
                    for p in 0..P {
                        for v in 0..WIDE {
                            total[r][p][v] = _mm512_add_ps(total[r][p][v], sums[r][p][v]);
                        }
                    }
                }
                k = stop;
            }
            for r in 0..M {
                for p in 0..P {
                    let sums: [__m512; WIDE] = total[r][p];
                    put::<Avx512, u32>(job, row + r, panel + p, sums);
                }
            }
        }
    }
}
