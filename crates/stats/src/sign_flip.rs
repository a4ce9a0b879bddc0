//! Sign-flip tests of paired differences, alone and for the largest of many columns.

use crate::permute::{TIE, max_abs};
use crate::random::Random;

/// What [`sign_flip`] found; one entry a column where nothing else is said.
#[derive(Clone, Debug, PartialEq)]
pub struct SignFlip {
    /// Mean difference, in the unit of the values.
    pub mean: Vec<f64>,
    /// How often flipped signs give a mean at least as far from 0 in this column; two-sided.
    pub p: Vec<f64>,
    /// How often they give one in any column: family-wise (Westfall and Young 1993, single step).
    pub p_max: Vec<f64>,
    /// The largest |mean| over all columns in each flip, ascending.
    pub null_max: Vec<f64>,
    /// Whether every pattern of signs was tried, so that the p-values are exact.
    pub exhaustive: bool,
}

/// Tests each column of a row-major table of paired differences `[items, columns]` against a mean of 0.
///
/// Without an effect a difference is as likely as its negative (Fisher 1935, section 21). Signs are flipped item by
/// item, for all columns at once, which keeps what the columns have in common: the columns of one reference are far
/// from independent. If the items that differ anywhere have no more than `flips` patterns of signs, all of them are
/// tried and p is exact, observed pattern included; otherwise `flips` random ones and `p = (1 + #) / (1 + flips)`.
///
/// The family-wise p is exact where a row is as likely as its negative as a whole. Arms that share a reference come
/// near to that: each column is symmetric, and the covariance of the columns is kept, so that it holds as the number
/// of items grows.
///
/// A column with a NaN has NaN for its mean and p-values and is no part of the family. No items: all NaN. Panics if
/// `columns` is 0 or the table is not a whole number of rows.
pub fn sign_flip(differences: &[f64], columns: usize, flips: usize, seed: u64) -> SignFlip {
    assert!(columns > 0 && differences.len().is_multiple_of(columns), "a whole number of rows");
    let items = differences.len() / columns;
    // A row without a difference is the same under either sign.
    let rows: Vec<&[f64]> = differences.chunks_exact(columns).filter(|row| row.iter().any(|&x| x != 0.0)).collect();
    let sums = |signs: &dyn Fn(usize) -> bool| {
        let mut sums = vec![0.0; columns];
        for (index, row) in rows.iter().enumerate() {
            if signs(index) {
                sums.iter_mut().zip(*row).for_each(|(sum, x)| *sum += x);
            } else {
                sums.iter_mut().zip(*row).for_each(|(sum, x)| *sum -= x);
            }
        }
        sums
    };
    let observed = sums(&|_| true);
    let patterns = u32::try_from(rows.len()).ok().and_then(|rows| 1usize.checked_shl(rows));
    let exhaustive = patterns.is_some_and(|patterns| patterns <= flips);
    let tried = if exhaustive { patterns.unwrap_or(flips) } else { flips };
    let bars: Vec<f64> = observed.iter().map(|x| x.abs() * (1.0 - TIE)).collect();
    let (mut extreme, mut largest) = (vec![0usize; columns], Vec::with_capacity(tried));
    for k in 0..tried {
        let pattern = pattern(k, rows.len(), seed, exhaustive);
        let flipped = sums(&|item| pattern[item / 64] >> (item % 64) & 1 == 0);
        for ((count, x), bar) in extreme.iter_mut().zip(&flipped).zip(&bars) {
            *count += usize::from(x.abs() >= *bar);
        }
        largest.push(max_abs(&flipped));
    }
    largest.sort_by(f64::total_cmp);
    // The observed pattern is one of all of them, but not one of those drawn.
    let one = usize::from(!exhaustive);
    let share = |count: usize| (one + count) as f64 / (one + tried) as f64;
    let known = |column: usize, x: f64| if observed[column].is_finite() && items > 0 { x } else { f64::NAN };
    let p = extreme.iter().enumerate().map(|(column, &count)| known(column, share(count))).collect();
    let p_max = bars.iter().enumerate().map(|(column, &bar)| {
        let below = largest.partition_point(|&x| x < bar);
        known(column, share(tried - below))
    });
    SignFlip {
        p_max: p_max.collect(),
        p,
        mean: observed.iter().enumerate().map(|(column, sum)| known(column, sum / items as f64)).collect(),
        null_max: largest.into_iter().map(|sum| sum / items as f64).collect(),
        exhaustive,
    }
}

/// One bit an item, 1 for a flipped sign: pattern `k` of all, or stream `k` of [`Random`].
fn pattern(k: usize, items: usize, seed: u64, exhaustive: bool) -> Vec<u64> {
    if exhaustive {
        return vec![k as u64; items.div_ceil(64)];
    }
    let mut random = Random::new(seed, k as u64);
    (0..items.div_ceil(64)).map(|_| random.bits()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_items_are_tried_in_all_patterns() {
        let found = sign_flip(&[1.0, 1.0, 1.0, 0.0, 0.0], 1, 100, 0);
        assert!(found.exhaustive && found.null_max.len() == 8);
        assert_eq!((found.mean[0], found.p[0]), (0.6, 2.0 / 8.0));
        assert_eq!(found.p_max, found.p, "a family of one");
        assert!(!sign_flip(&[1.0; 7], 1, 100, 0).exhaustive);
    }

    #[test]
    fn what_does_not_differ_is_no_finding() {
        let found = sign_flip(&[0.0; 12], 2, 100, 0);
        assert_eq!((found.p.as_slice(), found.p_max.as_slice()), (&[1.0; 2][..], &[1.0; 2][..]));
        assert!(sign_flip(&[], 1, 100, 0).p[0].is_nan());
    }

    #[test]
    fn the_family_sees_its_largest_column() {
        let table: Vec<f64> = (0..30).flat_map(|i| [1.0, f64::from(i % 2) - 0.5, 0.0]).collect();
        let found = sign_flip(&table, 3, 999, 4);
        assert_eq!(found.p[0], 1e-3);
        assert_eq!(found.p_max[0], 1e-3);
        assert!(found.p[1] > 0.9 && found.p_max[1] == 1.0 && found.p_max[2] == 1.0);
        assert!(found.p.iter().zip(&found.p_max).all(|(p, p_max)| p <= p_max));
    }

    #[test]
    fn a_missing_value_spoils_its_column_only() {
        let found = sign_flip(&[1.0, f64::NAN, 2.0, 1.0, 3.0, 1.0], 2, 10, 0);
        assert!(found.mean[1].is_nan() && found.p[1].is_nan() && found.p_max[1].is_nan());
        assert_eq!((found.p[0], found.p_max[0]), (0.25, 0.25));
    }
}
