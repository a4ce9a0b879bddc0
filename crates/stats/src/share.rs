//! Intervals for single shares, and for the difference of two values with independent intervals.

use std::collections::BTreeMap;

use crate::{
    paired::{Interval, Z, clustered_t, t_quantile},
    units::{are_alone, effective_units, worth},
};

/// The share of items that hold, with its 95 % interval: Wilson's. Over units of several items it is Wilson's for as many items as
/// those are worth, with Student's quantile for as many units of one size, and widened to Student's for clusters where that reaches further.
/// NaN for no items, and where units of several items are worth less than two of one size: one of them is nearly all. Panics unless there is
/// one unit per item.
pub fn share(holds: &[bool], unit: &[usize]) -> Interval {
    let hits = holds.iter().filter(|&&holds| holds).count() as f64;
    let mean = hits / holds.len() as f64;
    let worth = worth(holds, unit);
    if are_alone(unit) {
        return wilson(mean, worth);
    }
    let mut units: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
    for (&holds, &of) in holds.iter().zip(unit) {
        let (sum, size) = units.entry(of).or_default();
        (*sum, *size) = (*sum + f64::from(holds), *size + 1);
    }
    let (sums, sizes): (Vec<f64>, Vec<usize>) = units.into_values().unzip();
    let freedom = effective_units(sizes.iter().copied()) - 1.0;
    if freedom.is_nan() || freedom < 1.0 {
        return Interval { mean, low: f64::NAN, high: f64::NAN };
    }
    // What few units are worth is known no better than their spread.
    let (score, student) = (wilson_at(mean, worth, t_quantile(freedom)), clustered_t(&sums, &sizes));
    Interval { mean, low: score.low.min(student.low.max(0.0)), high: score.high.max(student.high.min(1.0)) }
}

/// A share with Wilson's score interval (Wilson 1927), for this many independent items; [`worth`](crate::worth) says how many items
/// in units are worth.
///
/// Lies inside 0 and 1 and always has a width, even where every item is a hit or none is. NaN for no items.
pub fn wilson(share: f64, n: f64) -> Interval {
    wilson_at(share, n, Z)
}

/// The same with another quantile, of as many standard errors.
pub(crate) fn wilson_at(share: f64, n: f64, z: f64) -> Interval {
    if share.is_nan() || n.is_nan() || n <= 0.0 {
        return Interval { mean: f64::NAN, low: f64::NAN, high: f64::NAN };
    }
    let z2 = z * z;
    let centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = z / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    // Rounding must not leave 0 or 1 outside the interval where the share is that.
    Interval { mean: share, low: (centre - half).clamp(0.0, share), high: (centre + half).clamp(share, 1.0) }
}

/// The interval of a minus b from those of a and b, which must be independent (MOVER, Zou and Donner 2008). From Wilson's intervals
/// it is Newcombe's tenth (Newcombe 1998, Statistics in Medicine 17, 873-890). NaN where either has none.
pub fn difference(a: Interval, b: Interval) -> Interval {
    let mean = a.mean - b.mean;
    let low = mean - (a.mean - a.low).hypot(b.high - b.mean);
    let high = mean + (a.high - a.mean).hypot(b.mean - b.low);
    Interval { mean, low, high }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn near(found: Interval, low: f64, high: f64) {
        assert!((found.low - low).abs() < 6e-5 && (found.high - high).abs() < 6e-5, "{found:?}, not {low} to {high}");
    }

    /// Newcombe 1998, Statistics in Medicine 17, 857-872, table I, third method, and 873-890, table II, tenth method.
    #[test]
    fn intervals_are_those_of_newcombe_s_tables() {
        let share = |hits: f64, n: f64| wilson(hits / n, n);
        near(share(81.0, 263.0), 0.2553, 0.3662);
        near(share(15.0, 148.0), 0.0624, 0.1605);
        near(share(0.0, 20.0), 0.0, 0.1611);
        near(share(1.0, 29.0), 0.0061, 0.1718);
        near(difference(share(56.0, 70.0), share(48.0, 80.0)), 0.0524, 0.3339);
        near(difference(share(9.0, 10.0), share(3.0, 10.0)), 0.1705, 0.8090);
        near(difference(share(10.0, 10.0), share(0.0, 20.0)), 0.6791, 1.0);
    }

    /// Shares of items that have much in common within units: how many intervals miss the true share.
    #[test]
    fn intervals_of_shares_over_units_hold_the_true_one() {
        let equal = |units, each| vec![each; units];
        for sizes in [
            equal(40, 1),
            equal(12, 1),
            equal(30, 4),
            equal(8, 5),
            [vec![10, 6, 4, 3, 2, 2], equal(4, 1)].concat(),
            [vec![20, 8], equal(10, 1)].concat(),
            [vec![15], equal(20, 1)].concat(),
        ] {
            let unit: Vec<usize> = sizes.iter().enumerate().flat_map(|(unit, &size)| vec![unit; size]).collect();
            let sets = 1000;
            let misses = |set: u64| {
                let mut random = Random::new(11, set);
                let mut of_unit = 0.0;
                let mut holds = |item: usize| {
                    if item == 0 || unit[item] != unit[item - 1] {
                        of_unit = random.uniform();
                    }
                    // Three of four items say what their unit says.
                    (if random.uniform() < 0.75 { of_unit } else { random.uniform() }) < 0.3
                };
                let found = share(&(0..unit.len()).map(&mut holds).collect::<Vec<_>>(), &unit);
                usize::from(found.low > 0.3 || found.high < 0.3)
            };
            let missed = (0..sets).map(misses).sum::<usize>() as f64 / sets as f64;
            println!("{sizes:?}: {missed}");
            assert!(missed < 0.05 + 4.0 * (0.05 * 0.95 / sets as f64).sqrt(), "{sizes:?}: {missed}");
        }
        let most: Vec<usize> = (0..42).map(|item: usize| item.saturating_sub(29)).collect();
        assert!(share(&[true; 42], &most).low.is_nan(), "one unit has thirty of 42 items");
        let (one, none) = (share(&[true, false, true], &[0, 1, 2]), share(&[], &[]));
        assert!(one == wilson(2.0 / 3.0, 3.0) && none.low.is_nan());
        let twice = share(&[true, true, false, false, true, true], &[0, 0, 1, 1, 2, 2]);
        assert!(twice.low <= one.low && twice.high >= one.high, "{twice:?} {one:?}");
    }

    #[test]
    fn nothing_is_known_of_no_items_and_little_of_few() {
        assert!(wilson(f64::NAN, 0.0).low.is_nan() && wilson(0.5, 0.0).high.is_nan());
        let all = wilson(1.0, 7.0);
        assert!(all.high == 1.0 && all.low > 0.5 && all.low < 0.7, "{all:?}");
        assert!(wilson(0.5, 20.0).low < wilson(0.5, 80.0).low);
        assert!(difference(all, wilson(f64::NAN, 0.0)).low.is_nan());
    }
}
