//! Vectors of f32 on each instruction set, behind one trait.
//!
//! The functions of [`Simd`] are `#[inline(always)]` and end up inside a function that enables the instruction set, see
//! [`dispatch`]. Called from anywhere else they would be correct only on a machine that has it, hence `unsafe`.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// The instruction sets that the CPU paths are compiled for, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust that the compiler vectorises for the target's baseline (SSE2, NEON).
    Portable,
    /// NEON, on aarch64.
    Neon,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, VL, BW and DQ: every server and desktop chip that has AVX-512.
    Avx512,
}

impl Level {
    /// Its name, as used in `HEADTEMPER_SIMD`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether its kernels multiply pairs of bf16 in one instruction on this machine.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn multiplies_bf16(self) -> bool {
        self == Self::Avx512 && is_x86_feature_detected!("avx512bf16")
    }

    /// See above: no machine of this architecture does.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn multiplies_bf16(self) -> bool {
        false
    }

    /// The levels that this machine supports, slowest first.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            levels.push(Self::Neon);
        }
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

    /// The fastest level of this machine, or a slower one chosen in `HEADTEMPER_SIMD` (`portable`, `neon`, `avx2`, `avx512`).
    ///
    /// # Errors
    /// If the variable names no level that this machine supports.
    pub fn chosen() -> Result<Self, String> {
        let levels = Self::available();
        match std::env::var("HEADTEMPER_SIMD") {
            Err(_) => Ok(levels[levels.len() - 1]),
            // As good as not set, to a shell and to who writes `HEADTEMPER_SIMD= temper …`.
            Ok(name) if name.is_empty() => Ok(levels[levels.len() - 1]),
            Ok(name) => {
                levels.iter().copied().find(|level| level.name().eq_ignore_ascii_case(&name)).ok_or_else(|| {
                    let names: Vec<&str> = levels.iter().map(|level| level.name()).collect();
                    format!("HEADTEMPER_SIMD is '{name}', but this machine has {}", names.join(", "))
                })
            }
        }
    }

    /// [`Level::chosen`], evaluated once.
    ///
    /// # Panics
    /// On its error: a setting that silently does nothing would be worse. Programs call [`Level::chosen`] first.
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Self::chosen().unwrap_or_else(|why| panic!("{why}")))
    }
}

/// The longest vector of any level, in lanes.
pub(crate) const MAX_LANES: usize = 16;

/// The number of lanes in a level's vectors.
pub(crate) fn lanes_of(level: Level) -> usize {
    match level {
        #[cfg(target_arch = "aarch64")]
        Level::Neon => Neon::LANES,
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
    /// Vectors that fit in the register file.
    const REGISTERS: usize;
    /// The vector.
    type F: Copy;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    /// The first or the second value of each of `LANES` pairs of bf16, as f32.
    unsafe fn load_bf16_of_pairs<const ODD: bool>(p: *const u16) -> Self::F;
    unsafe fn load_f16(p: *const u16) -> Self::F;
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::F {
        let mut out = [0f32; MAX_LANES];
        // SAFETY: the caller has `LANES` readable values at `p`, no more than the longest vector has.
        unsafe {
            for i in 0..Self::LANES {
                out[i] = f32::from(*p.add(i));
            }
            Self::load(out.as_ptr())
        }
    }
    /// The low or the high four bits of each of `LANES` bytes, 0 to 15.
    #[inline(always)]
    unsafe fn load_nibbles<const HIGH: bool>(p: *const u8) -> Self::F {
        let mut out = [0f32; MAX_LANES];
        // SAFETY: as above.
        unsafe {
            for i in 0..Self::LANES {
                out[i] = f32::from(if HIGH { *p.add(i) >> 4 } else { *p.add(i) & 15 });
            }
            Self::load(out.as_ptr())
        }
    }
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a` where it is larger, else `b`: a NaN in `b` is kept, but one in `a` may be lost, as in the instruction.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn sum(x: Self::F) -> f32;
    unsafe fn largest(x: Self::F) -> f32;
    unsafe fn round(x: Self::F) -> Self::F;
    /// `2^n` for integers `n` in -126..=127.
    unsafe fn exp2_whole(n: Self::F) -> Self::F;
    /// Prefetches the cache line at `p`, which need not be readable.
    #[inline(always)]
    unsafe fn prefetch<T>(_p: *const T) {}
}

/// Loads the `count` values at `p`, fewer than a vector, and pads with zeros.
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

/// Loads `count` values, a full vector or part of one.
#[inline(always)]
pub(crate) unsafe fn load_some<S: Simd>(p: *const f32, count: usize) -> S::F {
    // SAFETY: the caller has `count` readable values at `p`.
    unsafe { if count == S::LANES { S::load(p) } else { load_part::<S>(p, count) } }
}

/// Stores the first `count` lanes, all or some of them.
#[inline(always)]
pub(crate) unsafe fn store_some<S: Simd>(p: *mut f32, x: S::F, count: usize) {
    // SAFETY: the caller has `count` writable values at `p`.
    unsafe { if count == S::LANES { S::store(p, x) } else { store_part::<S>(p, x, count) } }
}

/// `e^x` to about one unit in the last place; below -87.3 the value there, 1.2e-38. `x` must not exceed 88. NaN stays NaN.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        let (two, r, p) = reduced::<S>(x);
        S::mul(S::fma(S::mul(r, r), p, S::add(r, S::splat(1.0))), two)
    }
}

/// `e^x - 1 - x`, never rounded away: near 0 it is `x^2 / 2` to the last digits. Above 88 the exponential is held constant.
#[inline(always)]
pub(crate) unsafe fn exp_above_tangent<S: Simd>(x: S::F) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        let (two, r, p) = reduced::<S>(min::<S>(x, 88.0));
        // Near 0, `two` is 1 and `r` is x, so that all terms but the first are exactly 0.
        let line = S::add(S::fma(two, r, S::mul(x, S::splat(-1.0))), S::add(two, S::splat(-1.0)));
        S::fma(two, S::mul(S::mul(r, r), p), line)
    }
}

/// `tanh x` through `e^2x - 1`, which keeps its digits near 0.
#[inline(always)]
pub(crate) unsafe fn tanh<S: Simd>(x: S::F) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        // tanh 20 is 1 in f32.
        let x = S::max(S::splat(-20.0), min::<S>(x, 20.0));
        let (two, r, p) = reduced::<S>(S::add(x, x));
        let e = S::fma(two, S::fma(S::mul(r, r), p, r), S::add(two, S::splat(-1.0)));
        S::div(e, S::add(e, S::splat(2.0)))
    }
}

/// The smaller of each lane and `most`; NaN stays NaN.
#[inline(always)]
pub(crate) unsafe fn min<S: Simd>(x: S::F, most: f32) -> S::F {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe { S::mul(S::max(S::splat(-most), S::mul(x, S::splat(-1.0))), S::splat(-1.0)) }
}

/// `(t, r, p)` with `e^x = t (1 + r + r^2 p)`, where `t` is a power of two and `|r|` at most half of `ln 2`.
///
/// Cody-Waite reduction and the degree-6 polynomial of Cephes' `expf`.
#[inline(always)]
unsafe fn reduced<S: Simd>(x: S::F) -> (S::F, S::F, S::F) {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    unsafe {
        // In this order, NaN stays NaN.
        let x = S::max(S::splat(-87.3), x);
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

/// Defines `$name(level, args..)`, which runs `$generic::<S>(args..)` inside a function that enables the instruction set.
macro_rules! dispatch {
    ($(#[$doc:meta])* unsafe fn $name:ident$(<$w:ident: $bound:path>)?($($arg:ident: $ty:ty),* $(,)?) = $generic:ident;) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) unsafe fn $name$(<$w: $bound>)?(level: crate::Level, $($arg: $ty),*) {
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn neon$(<$w: $bound>)?($($arg: $ty),*) {
                // SAFETY: the caller's contract, passed on.
                unsafe { $generic::<crate::simd::Neon, $($w)?>($($arg),*) }
            }
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
            // SAFETY: the caller's contract, passed on; levels only ever come from `Level::available`.
            unsafe {
                match level {
                    #[cfg(target_arch = "aarch64")]
                    crate::Level::Neon => neon$(::<$w>)?($($arg),*),
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

#[cfg(test)]
mod tests;
