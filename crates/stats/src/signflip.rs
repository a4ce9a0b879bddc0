//! Is a mean different from zero? Sign flips of differences.

use rayon::prelude::*;

use crate::{
    permute::{TIE, Tail, max_abs, p_value},
    random::Random,
};

/// Sign changes of `items` differences, each kept or negated with equal chance: the null under which a difference is as
/// likely as its negative (Fisher 1935, section 21).
///
/// The first item is never negated, since flipping all items changes no two-sided statistic. If there are no more distinct flips
/// than asked for, all are enumerated and the p-values are exact. Else they are drawn, and flip `k` depends only on the sizes, the
/// seed and `k`.
#[derive(Clone, Copy, Debug)]
pub struct SignFlips {
    items: usize,
    count: usize,
    seed: u64,
    exact: bool,
}

impl SignFlips {
    /// At most `at_most` flips of this many items, under a seed.
    pub fn new(items: usize, at_most: usize, seed: u64) -> Self {
        // Without the identity, for which the `1 +` of `p_value` stands.
        let distinct = u32::try_from(items).ok().and_then(|n| 1usize.checked_shl(n.saturating_sub(1)));
        let distinct = distinct.filter(|_| items <= 60).map(|all| all - 1);
        let exact = distinct.is_some_and(|all| all <= at_most);
        let count = if exact { distinct.unwrap_or(0) } else { at_most };
        Self { items, count, seed, exact }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether these are all the flips there are.
    pub fn exact(&self) -> bool {
        self.exact
    }

    /// The smallest p-value that a test over them can give.
    pub fn smallest_p(&self) -> f64 {
        1.0 / (1 + self.count) as f64
    }

    /// Flip number `k`: which items are negated.
    pub fn negated(&self, k: usize) -> Vec<bool> {
        if self.exact {
            return (0..self.items).map(|item| item > 0 && ((k + 1) >> (item - 1)) & 1 == 1).collect();
        }
        let mut random = Random::new(self.seed, k as u64);
        (0..self.items).map(|item| item > 0 && random.bits() >> 63 == 1).collect()
    }
}

/// What [`sign_flip_test`] found, one entry per column.
#[derive(Clone, Debug, PartialEq)]
pub struct SignFlipTest {
    /// Two-sided p-value that the column's mean is 0, for this column alone.
    pub p: Vec<f64>,
    /// The same corrected for having looked at every column: from the largest statistic of all columns under each flip
    /// (Westfall and Young 1993, single step).
    pub p_max: Vec<f64>,
}

/// Tests the mean of every column of a row-major table of differences `[items, columns]` against 0 by sign flips.
///
/// The statistic is `Σ x / √(Σ x²)`. `Σ x²` does not change under flips, so for one column it orders them as the mean does, and as
/// Student's t does. Over columns it is free of their units, so a loud column does not drown the others in the maximum. A column of
/// zeros has a p of 1, and one that holds a NaN has NaN. Without any flip all p are NaN.
/// Panics if `values` is not a whole number of rows, `columns` is 0, or the flips are of another number of items.
pub fn sign_flip_test(values: &[f64], columns: usize, flips: &SignFlips) -> SignFlipTest {
    assert!(columns > 0 && values.len() == columns * flips.items, "one row an item");
    if flips.count == 0 {
        return SignFlipTest { p: vec![f64::NAN; columns], p_max: vec![f64::NAN; columns] };
    }
    let scaled = unit_columns(values, columns);
    // Gains that equal the losses sum to 0, but for rounding of columns of length 1: every flip is as extreme.
    let rounded = |x: f64| if x.abs() < TIE { 0.0 } else { x };
    let [observed] = &signed_sums(&scaled, columns, &[vec![false; flips.items]])[..] else { unreachable!("one flip") };
    let observed: Vec<f64> = observed.iter().copied().map(rounded).collect();
    let blocks = (0..flips.count).into_par_iter().step_by(AT_ONCE).map(|first| {
        let negated: Vec<Vec<bool>> = (first..flips.count.min(first + AT_ONCE)).map(|k| flips.negated(k)).collect();
        signed_sums(&scaled, columns, &negated)
    });
    let mut nulls = vec![Vec::with_capacity(flips.count); columns];
    let mut largest = Vec::with_capacity(flips.count);
    for sums in blocks.collect::<Vec<_>>().into_iter().flatten() {
        largest.push(max_abs(&sums));
        nulls.iter_mut().zip(sums).for_each(|(null, sum)| null.push(sum));
    }
    let each = observed.iter().zip(&nulls).map(|(&x, null)| p_value(x, null, Tail::TwoSided));
    let p_max = observed.iter().map(|&x| p_value(x, &largest, Tail::TwoSided));
    SignFlipTest { p: each.collect(), p_max: p_max.collect() }
}

/// Every column over the root of its sum of squares; columns of zeros stay as they are.
fn unit_columns(values: &[f64], columns: usize) -> Vec<f64> {
    let mut size = vec![0f64; columns];
    for row in values.chunks_exact(columns) {
        // Relative to the largest: squares neither overflow nor vanish.
        size.iter_mut().zip(row).for_each(|(size, x)| *size = size.max(x.abs()));
    }
    let mut squares = vec![0.0; columns];
    for row in values.chunks_exact(columns) {
        squares.iter_mut().zip(row.iter().zip(&size)).for_each(|(sum, (x, size))| *sum += (x / size).powi(2));
    }
    let scale = |(&square, &size): (&f64, &f64)| if size == 0.0 { 0.0 } else { 1.0 / (size * square.sqrt()) };
    let scale: Vec<f64> = squares.iter().zip(&size).map(scale).collect();
    values.iter().enumerate().map(|(i, x)| if *x == 0.0 { 0.0 } else { x * scale[i % columns] }).collect()
}

/// How many flips are summed in one pass over the table, which may be larger than any cache.
const AT_ONCE: usize = 16;

/// The sums of every column under each of these flips, over the rows in their order.
fn signed_sums(values: &[f64], columns: usize, negated: &[Vec<bool>]) -> Vec<Vec<f64>> {
    let mut sums = vec![vec![0.0; columns]; negated.len()];
    for (at, row) in values.chunks_exact(columns).enumerate() {
        for (sums, negated) in sums.iter_mut().zip(negated) {
            let sign = if negated[at] { -1.0 } else { 1.0 };
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += sign * x);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::{assert_uniform, normal_table};

    #[test]
    fn gains_that_equal_the_losses_are_no_finding() {
        for each in [3, 6, 9] {
            let values: Vec<f64> = [vec![1.0; each], vec![-1.0; each], vec![0.0; 20]].concat();
            let found = sign_flip_test(&values, 1, &SignFlips::new(values.len(), 999, 5));
            assert_eq!((found.p[0], found.p_max[0]), (1.0, 1.0), "{each} of either");
        }
    }

    #[test]
    fn few_items_are_enumerated() {
        let flips = SignFlips::new(4, 100, 0);
        assert!(flips.exact() && flips.count() == 7 && flips.smallest_p() == 0.125);
        let mut seen: Vec<Vec<bool>> = (0..flips.count()).map(|k| flips.negated(k)).collect();
        assert!(seen.iter().all(|negated| !negated[0] && negated.iter().any(|&n| n)));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 7);
        let drawn = SignFlips::new(40, 100, 0);
        assert!(!drawn.exact() && drawn.count() == 100);
        assert_eq!(drawn.negated(3), SignFlips::new(40, 500, 0).negated(3));
        assert_ne!(drawn.negated(3), SignFlips::new(40, 100, 1).negated(3));
        assert_eq!(SignFlips::new(1, 100, 0).count(), 0);
        assert_eq!(SignFlips::new(0, 100, 0).count(), 0);
        assert_eq!(SignFlips::new(200, 0, 0).count(), 0);
    }

    #[test]
    fn exact_p_by_hand() {
        // |±1 ±2 ±3| >= 4 at 4 of 8 sign choices for the sum 4 of (-1, 2, 3): ±4 and ±6.
        let test = sign_flip_test(&[-1.0, 2.0, 3.0], 1, &SignFlips::new(3, 10, 0));
        assert_eq!(test.p, [0.5]);
        // All of one sign: one of the four flips, whatever the sizes.
        let values = [1.0, -1e-9, 2.0, -1e-9, 3.0, -1e-9];
        let test = sign_flip_test(&values, 2, &SignFlips::new(3, 10, 0));
        assert_eq!(test.p, [0.25, 0.25]);
        assert_eq!(test.p_max[1], 0.25, "free of the columns' units");
    }

    #[test]
    fn nothing_flatters() {
        let values = [0.0, 1.0, f64::NAN, 0.0, 1.0, 1.0, 0.0, 2.0, 1.0];
        let test = sign_flip_test(&values, 3, &SignFlips::new(3, 10, 0));
        assert_eq!((test.p[0], test.p_max[0]), (1.0, 1.0));
        assert!(test.p[1] == 0.25 && test.p[2].is_nan());
        assert!(sign_flip_test(&[1.0, 2.0], 2, &SignFlips::new(1, 10, 0)).p[0].is_nan());
        assert!(sign_flip_test(&[1e-300, 1e-300, 1e-300], 1, &SignFlips::new(3, 10, 0)).p[0] == 0.25);
    }

    #[test]
    fn p_is_uniform_without_signal() {
        let p = |set: u64| {
            let values = normal_table(12_000 + set, 19, &[1.0]);
            sign_flip_test(&values, 1, &SignFlips::new(19, 199, set)).p[0]
        };
        assert_uniform((0..500).map(p).collect());
    }

    #[test]
    fn the_smallest_family_wise_p_is_uniform_without_signal() {
        // Columns a million times louder than others: the maximum must not be theirs alone.
        let sds: Vec<f64> = (0..15).map(|column| 10f64.powi(column % 3 * 3)).collect();
        let smallest = |set: u64| {
            let values = normal_table(15_000 + set, 20, &sds);
            let test = sign_flip_test(&values, 15, &SignFlips::new(20, 199, set));
            test.p_max.into_iter().fold(1.0, f64::min)
        };
        assert_uniform((0..400).map(smallest).collect());
    }
}
