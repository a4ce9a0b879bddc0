//! Vectors of f32 on each instruction set, behind one trait.
//!
//! The functions of [`Simd`] are `#[inline(always)]` and end up inside a function that enables the instruction set, see
//! [`dispatch`]; called from anywhere else they would be correct only on a machine that has it, hence `unsafe`.

use std::sync::OnceLock;

/// The instruction sets the CPU paths are compiled for, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust that the compiler vectorises for the target's baseline (SSE2, NEON).
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, VL, BW and DQ: every server and desktop chip that has AVX-512.
    Avx512,
}

impl Level {
    /// The levels this machine has, slowest first.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                levels.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                {
                    levels.push(Self::Avx512);
                }
            }
        }
        levels
    }

    /// The fastest level of this machine, or a slower one named in `HEADTEMPER_SIMD` (`portable`, `avx2`, `avx512`).
    ///
    /// # Errors
    /// If the variable names no level that this machine has.
    pub fn chosen() -> Result<Self, String> {
        let levels = Self::available();
        match std::env::var("HEADTEMPER_SIMD") {
            Err(_) => Ok(levels[levels.len() - 1]),
            Ok(name) => levels
                .iter()
                .copied()
                .find(|level| format!("{level:?}").eq_ignore_ascii_case(&name))
                .ok_or_else(|| format!("HEADTEMPER_SIMD is '{name}', but this machine has {levels:?}")),
        }
    }

    /// [`Level::chosen`], asked once.
    ///
    /// # Panics
    /// On its error: a setting that silently does nothing would be worse. Programs ask [`Level::chosen`] first.
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Self::chosen().unwrap_or_else(|why| panic!("{why}")))
    }
}

/// The longest vector of any level.
pub(crate) const MAX_LANES: usize = 16;

/// The lanes of a level's vectors.
pub(crate) fn lanes_of(level: Level) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => Avx512::LANES,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Avx2::LANES,
        _ => Portable::LANES,
    }
}

/// A vector of [`Simd::LANES`] f32.
pub(crate) trait Simd: Copy {
    /// Lanes of a vector.
    const LANES: usize;
    /// Vectors that the register file holds.
    const REGISTERS: usize;
    /// The vector.
    type F: Copy;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    /// Of `LANES` pairs of bf16 the first or the second of each, as f32.
    unsafe fn load_bf16_of_pairs<const ODD: bool>(p: *const u16) -> Self::F;
    unsafe fn load_f16(p: *const u16) -> Self::F;
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::F {
        // SAFETY: the caller has `LANES` readable values at `p`, no more than the longest vector.
        unsafe {
            Self::load(
                std::array::from_fn::<f32, MAX_LANES, _>(|i| if i < Self::LANES { f32::from(*p.add(i)) } else { 0.0 })
                    .as_ptr(),
            )
        }
    }
    /// Of `LANES` bytes the low or the high four bits of each, 0 to 15.
    #[inline(always)]
    unsafe fn load_nibbles<const HIGH: bool>(p: *const u8) -> Self::F {
        let nibble = |byte: u8| f32::from(if HIGH { byte >> 4 } else { byte & 15 });
        // SAFETY: as above.
        unsafe {
            Self::load(
                std::array::from_fn::<f32, MAX_LANES, _>(|i| if i < Self::LANES { nibble(*p.add(i)) } else { 0.0 })
                    .as_ptr(),
            )
        }
    }
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn sum(x: Self::F) -> f32;
    unsafe fn largest(x: Self::F) -> f32;
    unsafe fn round(x: Self::F) -> Self::F;
    /// `2^n` for whole `n` in -126..=127.
    unsafe fn exp2_whole(n: Self::F) -> Self::F;
    /// Asks for the cache line at `p`, which need not be readable.
    #[inline(always)]
    unsafe fn prefetch<T>(_p: *const T) {}
}

/// The `count` values at `p`, fewer than a vector, and zeros.
#[inline(always)]
pub(crate) unsafe fn load_part<S: Simd>(p: *const f32, count: usize) -> S::F {
    let mut padded = [0f32; MAX_LANES];
    // SAFETY: the caller has `count` readable values at `p`.
    unsafe {
        p.copy_to_nonoverlapping(padded.as_mut_ptr(), count);
        S::load(padded.as_ptr())
    }
}

/// Stores the first `count` lanes of `x`.
#[inline(always)]
pub(crate) unsafe fn store_part<S: Simd>(p: *mut f32, x: S::F, count: usize) {
    let mut padded = [0f32; MAX_LANES];
    // SAFETY: the caller has `count` writable values at `p`, no more than a vector.
    unsafe {
        S::store(padded.as_mut_ptr(), x);
        padded.as_ptr().copy_to_nonoverlapping(p, count);
    }
}

/// `e^x` to about one unit in the last place, 0 below -87.3; `x` must not exceed 88.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        let (two, r, p) = reduced::<S>(x);
        S::mul(S::fma(S::mul(r, r), p, S::add(r, S::splat(1.0))), two)
    }
}

/// `e^x - 1 - x`, never rounded away: near 0 it is `x^2 / 2` to the last digits. Above 88 the exponential stands still.
#[inline(always)]
pub(crate) unsafe fn exp_above_tangent<S: Simd>(x: S::F) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        let (two, r, p) = reduced::<S>(min::<S>(x, 88.0));
        // Near 0 `two` is 1 and `r` is x, so that all but the first term are exactly 0.
        let line = S::add(S::fma(two, r, S::mul(x, S::splat(-1.0))), S::add(two, S::splat(-1.0)));
        S::fma(two, S::mul(S::mul(r, r), p), line)
    }
}

/// `tanh x` by `e^2x - 1`, which keeps its digits near 0.
#[inline(always)]
pub(crate) unsafe fn tanh<S: Simd>(x: S::F) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        // At 20 it is 1 in f32.
        let x = S::max(min::<S>(x, 20.0), S::splat(-20.0));
        let (two, r, p) = reduced::<S>(S::add(x, x));
        let e = S::fma(two, S::fma(S::mul(r, r), p, r), S::add(two, S::splat(-1.0)));
        S::div(e, S::add(e, S::splat(2.0)))
    }
}

/// The smaller of each lane and `most`.
#[inline(always)]
pub(crate) unsafe fn min<S: Simd>(x: S::F, most: f32) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe { S::mul(S::max(S::mul(x, S::splat(-1.0)), S::splat(-most)), S::splat(-1.0)) }
}

/// `(t, r, p)` with `e^x = t (1 + r + r^2 p)`, where `t` is a power of two and `|r|` at most half of `ln 2`.
///
/// Cody-Waite reduction and the degree-6 polynomial of Cephes' `expf`.
#[inline(always)]
unsafe fn reduced<S: Simd>(x: S::F) -> (S::F, S::F, S::F) {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        let x = S::max(x, S::splat(-87.3));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = S::fma(p, r, S::splat(c));
        }
        (S::exp2_whole(n), r, p)
    }
}

/// Eight lanes of plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> [f32; 8] {
    std::array::from_fn(f)
}

impl Simd for Portable {
    const LANES: usize = 8;
    const REGISTERS: usize = 8; // sixteen of half the width
    type F = [f32; 8];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        // SAFETY: the caller has 8 readable values at `p`.
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        // SAFETY: the caller has 8 readable values at `p`.
        let raw = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        lanes(|i| f32::from_bits(u32::from(raw[i]) << 16))
    }
    #[inline(always)]
    unsafe fn load_bf16_of_pairs<const ODD: bool>(p: *const u16) -> Self::F {
        // SAFETY: the caller has 8 readable pairs at `p`.
        let raw = unsafe { p.cast::<[[u16; 2]; 8]>().read_unaligned() };
        lanes(|i| f32::from_bits(u32::from(raw[i][usize::from(ODD)]) << 16))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        // SAFETY: the caller has 8 readable values at `p`.
        let raw = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        lanes(|i| half::f16::from_bits(raw[i]).to_f32())
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Self::F) {
        // SAFETY: the caller has 8 writable values at `p`.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        lanes(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        lanes(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // `mul_add` without hardware FMA is a library call, a hundred times slower.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            lanes(|i| a[i].mul_add(b[i], c[i]))
        } else {
            lanes(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    unsafe fn sum(x: Self::F) -> f32 {
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }
    #[inline(always)]
    unsafe fn largest(x: Self::F) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn round(x: Self::F) -> Self::F {
        // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits; |x| is far below 2^22 here.
        lanes(|i| (x[i] + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::F) -> Self::F {
        lanes(|i| f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports, reason = "forty intrinsics whose prefix says what they are")]
    use std::arch::x86_64::*;

    use super::Simd;

    /// Eight lanes of AVX2.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    // SAFETY (all of them): the caller has the instruction set and, for loads and stores, `LANES` values at `p`.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx2 {
        const LANES: usize = 8;
        const REGISTERS: usize = 16;
        type F = __m256;

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> __m256 {
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())))) }
        }
        #[inline(always)]
        unsafe fn load_bf16_of_pairs<const ODD: bool>(p: *const u16) -> __m256 {
            unsafe {
                let pairs = _mm256_loadu_si256(p.cast());
                _mm256_castsi256_ps(if ODD {
                    _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32))
                } else {
                    _mm256_slli_epi32::<16>(pairs)
                })
            }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> __m256 {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_i8(p: *const i8) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_nibbles<const HIGH: bool>(p: *const u8) -> __m256 {
            unsafe {
                let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
                _mm256_cvtepi32_ps(if HIGH {
                    _mm256_srli_epi32::<4>(bytes)
                } else {
                    _mm256_and_si256(bytes, _mm256_set1_epi32(15))
                })
            }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, x: __m256) {
            unsafe { _mm256_storeu_ps(p, x) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn sum(x: __m256) -> f32 {
            unsafe {
                let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
            }
        }
        #[inline(always)]
        unsafe fn largest(x: __m256) -> f32 {
            unsafe {
                let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
                let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
                _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
            }
        }
        #[inline(always)]
        unsafe fn round(x: __m256) -> __m256 {
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
        }
        #[inline(always)]
        unsafe fn exp2_whole(n: __m256) -> __m256 {
            unsafe {
                let n = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
            }
        }
        #[inline(always)]
        unsafe fn prefetch<T>(p: *const T) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
    }

    /// Sixteen lanes of AVX-512.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;

    // SAFETY (all of them): the caller has the instruction set and, for loads and stores, `LANES` values at `p`.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx512 {
        const LANES: usize = 16;
        const REGISTERS: usize = 32;
        type F = __m512;

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> __m512 {
            unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))) }
        }
        #[inline(always)]
        unsafe fn load_bf16_of_pairs<const ODD: bool>(p: *const u16) -> __m512 {
            unsafe {
                let pairs = _mm512_loadu_si512(p.cast());
                _mm512_castsi512_ps(if ODD {
                    _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32))
                } else {
                    _mm512_slli_epi32::<16>(pairs)
                })
            }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> __m512 {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_i8(p: *const i8) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_nibbles<const HIGH: bool>(p: *const u8) -> __m512 {
            unsafe {
                let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
                _mm512_cvtepi32_ps(if HIGH {
                    _mm512_srli_epi32::<4>(bytes)
                } else {
                    _mm512_and_si512(bytes, _mm512_set1_epi32(15))
                })
            }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, x: __m512) {
            unsafe { _mm512_storeu_ps(p, x) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn sum(x: __m512) -> f32 {
            unsafe { _mm512_reduce_add_ps(x) }
        }
        #[inline(always)]
        unsafe fn largest(x: __m512) -> f32 {
            unsafe { _mm512_reduce_max_ps(x) }
        }
        #[inline(always)]
        unsafe fn round(x: __m512) -> __m512 {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
        }
        #[inline(always)]
        unsafe fn exp2_whole(n: __m512) -> __m512 {
            unsafe {
                let n = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n))
            }
        }
        #[inline(always)]
        unsafe fn prefetch<T>(p: *const T) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Defines `$name(level, args..)`, which runs `$generic::<S>(args..)` inside a function that enables the instruction set.
macro_rules! dispatch {
    ($(#[$doc:meta])* unsafe fn $name:ident$(<$w:ident: $bound:path>)?($($arg:ident: $ty:ty),* $(,)?) = $generic:ident;) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) unsafe fn $name$(<$w: $bound>)?(level: crate::Level, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2$(<$w: $bound>)?($($arg: $ty),*) {
                // SAFETY: the caller's contract, passed on.
                unsafe { $generic::<crate::simd::Avx2, $($w)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512$(<$w: $bound>)?($($arg: $ty),*) {
                // SAFETY: the caller's contract, passed on.
                unsafe { $generic::<crate::simd::Avx512, $($w)?>($($arg),*) }
            }
            // SAFETY: the caller's contract, passed on; a level is only ever taken from `Level::available`.
            unsafe {
                match level {
                    #[cfg(target_arch = "x86_64")]
                    crate::Level::Avx512 => avx512$(::<$w>)?($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    crate::Level::Avx2 => avx2$(::<$w>)?($($arg),*),
                    _ => $generic::<crate::simd::Portable, $($w)?>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use dispatch;
