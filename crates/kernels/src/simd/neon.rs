//! NEON, which every aarch64 has.

#[allow(clippy::wildcard_imports, reason = "twenty intrinsics whose prefix says what they are")]
use std::arch::aarch64::*;

use super::Simd;

/// Four lanes of NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

// SAFETY (all of them): the caller has the instruction set and, for loads and stores, `LANES` values at `p`.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Neon {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    type F = float32x4_t;

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn load_bf16_of_pairs<const ODD: bool>(p: *const u16) -> float32x4_t {
        unsafe {
            let pairs = vreinterpretq_u32_u16(vld1q_u16(p));
            vreinterpretq_f32_u32(if ODD {
                vandq_u32(pairs, vdupq_n_u32(0xffff_0000))
            } else {
                vshlq_n_u32::<16>(pairs)
            })
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> float32x4_t {
        unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: float32x4_t) {
        unsafe { vst1q_f32(p, x) }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmaxq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    // Neighbours first: (0 + 1) + (2 + 3).
    #[inline(always)]
    unsafe fn sum(x: float32x4_t) -> f32 {
        unsafe { vaddvq_f32(x) }
    }
    #[inline(always)]
    unsafe fn largest(x: float32x4_t) -> f32 {
        unsafe { vmaxvq_f32(x) }
    }
    #[inline(always)]
    unsafe fn round(x: float32x4_t) -> float32x4_t {
        unsafe { vrndnq_f32(x) }
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: float32x4_t) -> float32x4_t {
        unsafe {
            let n = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(n))
        }
    }
}
