//! Intervals for the mean of paired differences: one difference per item, the items being the units.

use crate::effect::NO_SPREAD;
use crate::summary::{mean, sd};
use crate::units::effective_units;
use crate::welch::two_sided_p;

/// The share of intervals that hold the true value.
pub const CONFIDENCE: f64 = 0.95;

/// The standard normal quantile at 0.975, for [`CONFIDENCE`].
pub(crate) const Z: f64 = 1.959_963_984_540_054;

/// A mean with its 95 % interval, in the unit of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end of the interval; NaN where there is none.
    pub low: f64,
    /// Upper end of the interval; NaN where there is none.
    pub high: f64,
}

/// Mean of the differences with Student's interval (`scipy.stats.ttest_1samp(..).confidence_interval()`).
///
/// The interval is NaN for fewer than two differences, and where all are the same (a spread below 1e-12 of the largest): a spread
/// of 0 is an accident of the sample, not knowledge, and an interval without width would claim certainty.
pub fn paired_t(differences: &[f64]) -> Interval {
    let mean = mean(differences);
    let spread = sd(differences);
    let largest = differences.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    if differences.len() < 2 || spread.is_nan() || spread <= NO_SPREAD * largest {
        return Interval { mean, low: f64::NAN, high: f64::NAN };
    }
    let n = differences.len() as f64;
    let half = t_quantile(n - 1.0) * spread / n.sqrt();
    Interval { mean, low: mean - half, high: mean + half }
}

/// [`paired_t`] over clusters of differences, such as those of one prompt, where only differences of different clusters are
/// independent. It takes the sum and the size of each cluster.
///
/// The mean is that of all differences, and its variance the jackknife's over clusters (CR3). Student's quantile has one degree of
/// freedom less than the effective number of clusters, `n² / Σ size²` (Carter, Schnepel and Steigerwald 2017). With `u - 1` degrees
/// of freedom for u clusters and the plain variance, intervals miss a true mean of 0 up to nine times as often as they should where
/// one cluster holds more than half of all differences.
///
/// With clusters of one it is [`paired_t`]. NaN as there, and where the effective number is below two. Panics unless there is one
/// size per sum.
pub fn clustered_t(sums: &[f64], sizes: &[usize]) -> Interval {
    assert_eq!(sums.len(), sizes.len(), "one size a sum");
    let freedom = effective_units(sizes.iter().copied()) - 1.0;
    let sizes: Vec<f64> = sizes.iter().map(|&size| size as f64).collect();
    let n = sizes.iter().sum::<f64>();
    let (u, mean) = (sums.len() as f64, sums.iter().sum::<f64>() / n);
    // By how much the mean changes without this cluster.
    let without = |(sum, size): (&f64, &f64)| (sum - mean * size) / (n - size);
    let squares: f64 = sums.iter().zip(&sizes).map(|of| without(of).powi(2)).sum();
    let error = (squares * (u - 1.0) / u).sqrt();
    let largest = sums.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    if sums.len() < 2 || freedom < 1.0 || error.is_nan() || error * n <= NO_SPREAD * largest {
        return Interval { mean, low: f64::NAN, high: f64::NAN };
    }
    let half = t_quantile(freedom) * error;
    Interval { mean, low: mean - half, high: mean + half }
}

/// Difference of two paired shares with Tango's score interval (Tango 1998, Statistics in Medicine 17, 891-908).
///
/// Of `n` items `gained` are a hit on the first side only and `lost` on the second only; the difference is
/// `(gained - lost) / n`. Never without width: where no item differs it is `±z² / (n + z²)`. NaN for no items. Panics
/// if more items differ than there are.
pub fn paired_shares(gained: usize, lost: usize, n: usize) -> Interval {
    assert!(gained + lost <= n, "more items differ than there are");
    if n == 0 {
        return Interval { mean: f64::NAN, low: f64::NAN, high: f64::NAN };
    }
    tango(gained as f64, lost as f64, n as f64)
}

/// The same where an item is a hit in some of several draws, such as seeds or answers to one prompt: `d` holds each item's mean
/// difference, from -1 to 1.
///
/// It is Tango's interval for as many single draws as would vary as much as these means do (Rao and Scott 1992, Biometrics 48,
/// 577-585), and never for fewer than there are items. What changed in no draw, or in few, may change in others, which Student's
/// interval ignores. NaN for no items.
pub fn averaged_shares(d: &[f64]) -> Interval {
    let n = d.len() as f64;
    if d.is_empty() {
        return Interval { mean: f64::NAN, low: f64::NAN, high: f64::NAN };
    }
    let of = |sign: f64| d.iter().map(|d| (d * sign).max(0.0)).sum::<f64>() / n;
    let (gained, lost) = (of(1.0), of(-1.0));
    let mean = gained - lost;
    let spread = d.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>() / n;
    let largest = d.iter().fold(0.0, |largest: f64, d| largest.max(d.abs()));
    // The variance of single draws with these shares; equal means say nothing about it.
    let single = gained + lost - mean * mean;
    let draws = if spread.sqrt() > NO_SPREAD * largest { n * (single / spread).max(1.0) } else { n };
    tango(gained * draws, lost * draws, draws)
}

fn tango(gained: f64, lost: f64, n: f64) -> Interval {
    let mean = (gained - lost) / n;
    // The interval of the swapped sides is the mirror image: one search does for both ends.
    let high = |gained, lost, mean| bisect(mean, 1.0, |shift| score(gained, lost, n, shift) > -Z);
    Interval { mean, low: -high(lost, gained, -mean), high: high(gained, lost, mean) }
}

/// The score statistic of a true difference `shift`, with its variance at the maximum likelihood estimate under that difference.
/// Falls as `shift` rises.
fn score(gained: f64, lost: f64, n: f64, shift: f64) -> f64 {
    let b = (2.0 * n - gained + lost) * shift - gained - lost;
    let c = -lost * shift * (1.0 - shift);
    // Share of items lost: the larger root of 2n x² + b x + c.
    let share = ((b * b - 8.0 * n * c).max(0.0).sqrt() - b) / (4.0 * n);
    let variance = n * (2.0 * share + shift * (1.0 - shift));
    let distance = gained - lost - n * shift;
    if variance <= 0.0 && distance == 0.0 { 0.0 } else { distance / variance.max(0.0).sqrt() }
}

/// The t beyond which 5 % of Student's distribution lie, counting both sides, from its own p-value.
pub(crate) fn t_quantile(df: f64) -> f64 {
    // 12.7 for one degree of freedom, and less for more.
    bisect(Z / 2.0, 16.0, |t| two_sided_p(t, df) > 1.0 - CONFIDENCE)
}

/// Where a condition that holds at `low` ceases to hold; `high` if it holds everywhere.
fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    loop {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            return high;
        }
        if holds(middle) { low = middle } else { high = middle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn clusters_of_one_are_differences() {
        let d = [0.5, -1.0, 2.0, 0.0, 1.5];
        let (one, plain) = (clustered_t(&d, &[1; 5]), paired_t(&d));
        assert!((one.mean - plain.mean).abs() < 1e-15);
        assert!((one.low - plain.low).abs() < 1e-12 && (one.high - plain.high).abs() < 1e-12, "{one:?} {plain:?}");
        // The same differences, each of them twice, tell no more.
        let twice: Vec<f64> = d.iter().map(|x| 2.0 * x).collect();
        let twice = clustered_t(&twice, &[2; 5]);
        assert!((twice.low - plain.low).abs() < 1e-12 && (twice.high - plain.high).abs() < 1e-12, "{twice:?}");
        // One effect in clusters of every size has no spread.
        let same = clustered_t(&[-1.0, -9.0, -1.0, -9.0], &[1, 9, 1, 9]);
        assert!(same.mean == -1.0 && same.low.is_nan());
        assert!(clustered_t(&[1.0], &[3]).low.is_nan());
    }

    /// Differences that clusters share, around 0: how many intervals miss it.
    #[test]
    fn intervals_of_clusters_of_any_size_hold_nothing() {
        for sizes in [
            vec![20, 8, 1, 1, 1, 1, 1, 1],
            [vec![30], vec![1; 20]].concat(),
            vec![10, 6, 4, 3, 2, 2, 1, 1],
            vec![3; 12],
        ] {
            let sets = 2000;
            let misses = |set: u64| {
                let mut random = Random::new(5, set);
                let sums: Vec<f64> = sizes.iter().map(|&size| random.normal() * size as f64).collect();
                let found = clustered_t(&sums, &sizes);
                usize::from(found.low > 0.0 || found.high < 0.0)
            };
            let share = (0..sets).map(misses).sum::<usize>() as f64 / sets as f64;
            println!("{sizes:?}: {share}");
            assert!(share < 0.05 + 4.0 * (0.05 * 0.95 / sets as f64).sqrt(), "{sizes:?}: {share}");
        }
        assert!(clustered_t(&[1.0, -1.0, 40.0], &[1, 1, 40]).low.is_nan(), "one cluster is nearly all");
    }

    #[test]
    fn equal_differences_have_no_interval() {
        for differences in [vec![], vec![1.0], vec![0.0; 9], vec![0.1; 9], vec![1.0, f64::NAN, 2.0]] {
            let found = paired_t(&differences);
            assert!(found.low.is_nan() && found.high.is_nan(), "{differences:?}");
        }
        assert_eq!(paired_t(&[0.0; 9]).mean, 0.0);
    }

    #[test]
    fn no_item_that_differs_is_not_certainty() {
        for n in [1, 5, 50, 2000] {
            let found = paired_shares(0, 0, n);
            let half = Z * Z / (n as f64 + Z * Z);
            assert_eq!(found.mean, 0.0);
            assert!((found.high - half).abs() < 1e-12 && (found.low + half).abs() < 1e-12, "{found:?} of {n}");
        }
        assert!(paired_shares(0, 0, 0).low.is_nan());
    }

    #[test]
    fn single_draws_are_shares() {
        let d = [vec![1.0; 3], vec![-1.0; 5], vec![0.0; 22]].concat();
        let (one, other) = (averaged_shares(&d), paired_shares(3, 5, 30));
        for (one, other) in [(one.mean, other.mean), (one.low, other.low), (one.high, other.high)] {
            assert!((one - other).abs() < 1e-9, "{one} is not {other}");
        }
        let never = averaged_shares(&[0.0; 50]);
        assert_eq!((never.low, never.high), (paired_shares(0, 0, 50).low, paired_shares(0, 0, 50).high));
        assert!(averaged_shares(&[]).low.is_nan());
        // Equal means that differ by rounding: no spread is no certainty.
        for n in 2..40 {
            let found = averaged_shares(&vec![-1.0 / 3.0; n]);
            assert!(found.high - found.low > 0.2, "{found:?} of {n}");
        }
    }

    /// Where few answers of several seeds change, Student's interval misses the truth in 10 to 14 % of samples, mostly because the
    /// loss is larger than its low end. With this interval beside it, it does so in 1 % or fewer.
    #[test]
    fn rare_changes_of_several_seeds_are_not_certainty() {
        for (items, seeds, loss) in [(60, 3, 0.02), (60, 2, 0.03), (200, 5, 0.005)] {
            let (mut by_student, mut by_both) = (0, 0);
            for set in 0..400 {
                let mut random = Random::new(11, set);
                let lost = |random: &mut Random| f64::from(u8::from(random.below(1000) < (1000.0 * loss) as usize));
                let d: Vec<f64> = (0..items)
                    .map(|_| -(0..seeds).map(|_| lost(&mut random)).sum::<f64>() / f64::from(seeds))
                    .collect();
                let (student, tango) = (paired_t(&d), averaged_shares(&d));
                by_student += usize::from(!(student.low <= -loss && -loss <= student.high));
                by_both += usize::from(!(student.low.min(tango.low) <= -loss && -loss <= student.high.max(tango.high)));
            }
            println!("{items} items, {seeds} seeds: {by_student} and {by_both} of 400 miss it");
            assert!(by_student > 24 && by_both < 8, "{by_student} and {by_both}");
        }
    }

    #[test]
    fn shares_stay_shares_and_swap() {
        for (gained, lost, n) in [(7, 0, 7), (0, 7, 7), (3, 1, 4), (1, 0, 200), (12, 2, 50)] {
            let (one, other) = (paired_shares(gained, lost, n), paired_shares(lost, gained, n));
            assert!(-1.0 <= one.low && one.low < one.mean.max(-0.999) && one.mean <= one.high && one.high <= 1.0);
            assert_eq!((one.low, one.high), (-other.high, -other.low));
        }
    }
}
