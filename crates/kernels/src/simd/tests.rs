use super::*;

/// Largest error of the functions against f64, relative to their values, or to their largest term. Measured worst case: 2.0e-7
/// (2026-11-26).
const TOLERANCE: f64 = 4e-7;

/// Finite values of all sizes and signs, including zeros and subnormal numbers; whole vectors of every level.
fn numbers() -> Vec<f32> {
    let mut numbers =
        vec![0.0, -0.0, 1.0, -1.0, f32::MIN_POSITIVE, f32::from_bits(1), -f32::from_bits(77), 1e30, -3e-30];
    let random = |i: u32| f32::from_bits(i.wrapping_mul(2_654_435_761).rotate_left(7) ^ 0x5a5a_1234);
    numbers.extend((0..5000).map(random).filter(|x| x.is_finite()));
    numbers.truncate(4000);
    numbers
}

/// `count` values from `from` to `to`; whole vectors of every level.
fn between(from: f64, to: f64, count: usize) -> Vec<f32> {
    let values = (0..count).map(|i| (from + (to - from) * i as f64 / (count - 1) as f64) as f32);
    let mut values: Vec<f32> = values.collect();
    values.resize(count.next_multiple_of(MAX_LANES), to as f32);
    values
}

/// The lanes of a vector.
#[inline(always)]
unsafe fn lanes<S: Simd>(x: S::F) -> Vec<f32> {
    let mut out = vec![f32::NAN; S::LANES];
    // SAFETY: there is room for a vector.
    unsafe { S::store(out.as_mut_ptr(), x) };
    out
}

/// The bits, with all NaNs mapped to one.
fn bits(x: f32) -> u32 {
    if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
}

type Scalar = fn(f32, f32, f32) -> f32;

dispatch! {
    /// One instruction gives the same as the scalar operation.
    unsafe fn check_arithmetic(level: Level, values: &[f32]) = arithmetic_generic;
}

#[inline(always)]
unsafe fn arithmetic_generic<S: Simd>(level: Level, values: &[f32]) {
    let fused = level != Level::Portable || cfg!(any(target_arch = "aarch64", target_feature = "fma"));
    let whole = values.len() - 2 * MAX_LANES;
    for i in (0..whole).step_by(S::LANES) {
        // Different operands: close ones from the list, and ones from its far end.
        let (x, y, z) = (&values[i..], &values[values.len() - S::LANES - i..], &values[i + 7..]);
        // SAFETY: each pointer has a vector of values.
        unsafe {
            let (a, b, c) = (S::load(x.as_ptr()), S::load(y.as_ptr()), S::load(z.as_ptr()));
            let each: [(&str, S::F, Scalar); 6] = [
                ("load", a, |x, _, _| x),
                ("splat", S::splat(x[0]), |x, _, _| x),
                ("add", S::add(a, b), |x, y, _| x + y),
                ("mul", S::mul(a, b), |x, y, _| x * y),
                ("div", S::div(a, b), |x, y, _| x / y),
                ("fma", S::fma(a, b, c), |x, y, z| x.mul_add(y, z)),
            ];
            for (name, result, scalar) in each {
                for (l, &result) in lanes::<S>(result).iter().enumerate() {
                    let (x, y, z) = (if name == "splat" { x[0] } else { x[l] }, y[l], z[l]);
                    let expected = if name == "fma" && !fused { x * y + z } else { scalar(x, y, z) };
                    assert_eq!(bits(result), bits(expected), "{level:?} {name} of {x:e}, {y:e}, {z:e}");
                }
            }
            for (l, &larger) in lanes::<S>(S::max(a, b)).iter().enumerate() {
                assert!(larger >= x[l] && larger >= y[l] && (larger == x[l] || larger == y[l]), "{level:?} max");
            }
            let largest = x[..S::LANES].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(S::largest(a) == largest, "{level:?} largest");
        }
    }
}

dispatch! {
    /// Sums, and parts of vectors.
    unsafe fn check_vectors(level: Level) = vectors_generic;
}

#[inline(always)]
unsafe fn vectors_generic<S: Simd>(level: Level) {
    assert!(MAX_LANES.is_multiple_of(S::LANES) && S::LANES == lanes_of(level), "{level:?}");
    // Powers of two, so that a sum that leaves one out or takes one twice is noticed.
    let values: Vec<f32> = (0..MAX_LANES).map(|i| (1 << i) as f32).collect();
    for count in 0..=S::LANES {
        let mut out = vec![-1.0; MAX_LANES + 1];
        // SAFETY: there are `count` values, and room for as many.
        let sum = unsafe {
            let part = load_part::<S>(values.as_ptr(), count);
            store_part::<S>(out.as_mut_ptr(), part, count);
            assert!(S::largest(S::max(part, S::splat(-1.0))) == if count == 0 { 0.0 } else { values[count - 1] });
            S::sum(part)
        };
        assert_eq!(sum.to_bits(), (((1 << count) - 1) as f32).to_bits(), "{level:?} {count}");
        assert_eq!(out[..count], values[..count], "{level:?} {count}");
        assert!(out[count..].iter().all(|&x| x == -1.0), "{level:?} {count}");
    }
}

dispatch! {
    /// Every bf16 and f16 is widened to the correct number.
    unsafe fn check_widening(level: Level) = widening_generic;
}

#[inline(always)]
unsafe fn widening_generic<S: Simd>(level: Level) {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let pairs: Vec<u16> = all.iter().flat_map(|&x| [x, x.rotate_left(5) ^ 0x1234]).collect();
    for i in (0..all.len()).step_by(S::LANES) {
        // SAFETY: whole vectors of values and pairs.
        let [f16, even, odd] = unsafe {
            [
                S::load_f16(all[i..].as_ptr()),
                S::load_bf16_of_pairs::<false>(pairs[2 * i..].as_ptr()),
                S::load_bf16_of_pairs::<true>(pairs[2 * i..].as_ptr()),
            ]
            .map(|x| lanes::<S>(x))
        };
        for l in 0..S::LANES {
            let [x, y] = [all[i + l], pairs[2 * (i + l) + 1]];
            let wide = |x| bits(half::bf16::from_bits(x).to_f32());
            assert_eq!(bits(f16[l]), bits(half::f16::from_bits(x).to_f32()), "{level:?} f16 {x:04x}");
            assert_eq!([even[l], odd[l]].map(bits), [x, y].map(wide), "{level:?} pair {x:04x} {y:04x}");
        }
    }
}

dispatch! {
    /// Rounding to integers, and powers of two.
    unsafe fn check_whole(level: Level) = whole_generic;
}

#[inline(always)]
unsafe fn whole_generic<S: Simd>(level: Level) {
    let mut values = between(-130.0, 130.0, 26_001);
    values.extend((-64..64).map(|i| i as f32 + 0.5)); // ties go to even
    for values in values.chunks_exact(S::LANES) {
        // SAFETY: a vector of values.
        let rounded = unsafe { lanes::<S>(S::round(S::load(values.as_ptr()))) };
        for (x, y) in values.iter().zip(rounded) {
            assert!(y == x.round_ties_even(), "{level:?} {x} is not {y}");
        }
    }
    for n in -126..=127 {
        // SAFETY: arithmetic.
        let powers = unsafe { lanes::<S>(S::exp2_whole(S::splat(n as f32))) };
        assert!(powers.iter().all(|&p| f64::from(p) == 2f64.powi(n)), "{level:?} 2^{n} is not {powers:?}");
    }
}

/// The vector functions under test.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Function {
    Exp,
    ExpAboveTangent,
    Tanh,
    Min(f32),
}

dispatch! {
    /// Applies a function to whole vectors.
    unsafe fn map(function: Function, values: &mut [f32]) = map_generic;
}

#[inline(always)]
unsafe fn map_generic<S: Simd>(function: Function, values: &mut [f32]) {
    for values in values.chunks_exact_mut(S::LANES) {
        let p = values.as_mut_ptr();
        // SAFETY: a vector of values.
        unsafe {
            let x = S::load(p);
            let y = match function {
                Function::Exp => exp::<S>(x),
                Function::ExpAboveTangent => exp_above_tangent::<S>(x),
                Function::Tanh => tanh::<S>(x),
                Function::Min(most) => min::<S>(x, most),
            };
            S::store(p, y);
        }
    }
}

/// The largest error of a function, relative to `scale`.
fn worst(
    level: Level,
    function: Function,
    values: &[f32],
    exact: impl Fn(f64) -> f64,
    scale: impl Fn(f64) -> f64,
) -> f64 {
    let mut fast = values.to_vec();
    // SAFETY: the level is available on this machine.
    unsafe { map(level, function, &mut fast) };
    let off = |(&x, &y): (&f32, &f32)| (f64::from(y) - exact(f64::from(x))).abs() / scale(f64::from(x));
    let worst = values.iter().zip(&fast).map(off).fold(0.0, f64::max);
    println!("{level:?} {function:?}: {worst:e}");
    worst
}

#[test]
fn every_level_computes_what_the_scalar_does() {
    for level in Level::available() {
        // SAFETY: the level is available on this machine.
        unsafe {
            check_arithmetic(level, level, &numbers());
            check_vectors(level, level);
            check_widening(level, level);
            check_whole(level, level);
        }
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let values = [[f32::NAN, 1.0], [1.0, f32::NAN], [f32::NAN, f32::NAN]].concat().repeat(16);
    let functions = [Function::Exp, Function::ExpAboveTangent, Function::Tanh, Function::Min(3.5)];
    for (level, function) in Level::available().into_iter().flat_map(|level| functions.map(|of| (level, of))) {
        let mut found = values.clone();
        // SAFETY: the level is available on this machine.
        unsafe { map(level, function, &mut found) };
        let lost = values.iter().zip(&found).position(|(x, y)| x.is_nan() != y.is_nan());
        assert_eq!(lost, None, "{level:?} {function:?}");
    }
}

#[test]
fn functions_are_the_exact_ones_to_rounding() {
    for level in Level::available() {
        let off = worst(level, Function::Exp, &between(-87.3, 88.0, 200_000), f64::exp, f64::exp);
        assert!(off < TOLERANCE, "{level:?}: {off:e}");
        for (to, count) in [(20.0, 100_000), (1e-3, 1000), (1e-30, 1000), (1e30, 1000)] {
            let off = worst(level, Function::Tanh, &between(-to, to, count), f64::tanh, |x| {
                x.tanh().abs().max(f64::from(f32::MIN_POSITIVE))
            });
            assert!(off < TOLERANCE, "{level:?} {to}: {off:e}");
        }
        let above = |x: f64| {
            // The series, where the difference would cancel.
            if x.abs() < 1e-2 {
                x * x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0)))
            } else {
                x.exp_m1() - x
            }
        };
        for (to, count) in [(0.34, 100_000), (1e-3, 1000), (1e-12, 1000)] {
            let off = worst(level, Function::ExpAboveTangent, &between(-to, to, count), above, |x| above(x).max(1e-37));
            assert!(off < TOLERANCE, "{level:?} {to}: {off:e}");
        }
        let terms = |x: f64| x.exp() + 1.0 + x.abs();
        let off = worst(level, Function::ExpAboveTangent, &between(-80.0, 88.0, 100_000), above, terms);
        assert!(off < TOLERANCE, "{level:?}: {off:e}");
        let off = worst(level, Function::Min(3.5), &between(-9.0, 9.0, 1000), |x| x.min(3.5), |_| 1.0);
        assert!(off == 0.0, "{level:?}: {off:e}");
    }
}

#[test]
fn exponentials_end_as_they_should() {
    for level in Level::available() {
        let mut ends = [f32::NEG_INFINITY, f32::MIN, -1e3, -88.0].repeat(MAX_LANES / 4);
        // SAFETY: whole vectors, and the level is available on this machine.
        unsafe { map(level, Function::Exp, &mut ends) };
        assert!(ends.iter().all(|&e| (0.0..1.22e-38).contains(&e)), "{level:?} {ends:?}");
        let mut ends = [-1e30, -20.0, 20.0, 1e30].repeat(MAX_LANES / 4);
        // SAFETY: as above.
        unsafe { map(level, Function::Tanh, &mut ends) };
        assert_eq!(ends, [-1.0, -1.0, 1.0, 1.0].repeat(MAX_LANES / 4), "{level:?}");
    }
}
