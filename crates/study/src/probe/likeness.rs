//! Which rows of features are of one item: by their numbers in f32, and by sums that rounding hardly moves.

use half::f16;
use headtemper_stats::{Random, quantile};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::items::units::root;

/// The fewest features by which rows count as one item: fewer may be equal by chance, as lengths are.
pub(super) const NAMING: usize = 8;

/// How many random sums of a row's features stand for it.
pub(super) const SUMS: usize = 8;

/// What all sums of two rows may differ by and still be of one item, in units of the spread of a feature. Measured on SmolLM2-135M, 500
/// prompts of which many differ by a number alone: other prompts are at least 0.04 away at `h_last`, 5.4e-3 after the first layer and 0.03 in
/// norms of heads; a relative error of 1e-6 moves sums by at most 2.9e-4 in states. It moves norms of all heads further, which hardly vary
/// beside their size: of these, copies are recognised by equal numbers in f32 alone.
const SAME: f64 = 5e-4;

/// What numbers of one item may differ by beside their size, where they were computed once more.
const ROUNDING: f64 = 1e-5;

/// From how many rows the spread of a feature is learnt at most.
const LEARNT_FROM: usize = 1000;

/// A row's random sums.
pub(crate) type Sketch = [f64; SUMS];

/// What rows are recognised by when they are met again: random sums of their features (Johnson and Lindenstrauss 1984), each feature in units
/// of its spread, a robust one: one broken row must not make all others alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Likeness {
    /// The median of each feature `[d]`.
    pub(super) centre: Vec<f64>,
    /// Its median distance from there `[d]`.
    pub(super) spread: Vec<f64>,
    /// Of each row `[n, 8]`.
    pub(super) sketches: Vec<Sketch>,
    /// Of each row after rounding to f16 `[n, 8]`.
    pub(super) halves: Vec<Sketch>,
}

impl Likeness {
    /// Of row-major features `[n, d]`; none where these are too few to name an item.
    pub(crate) fn of(x: &[f64], features: usize) -> Option<Self> {
        if features < NAMING || x.is_empty() {
            return None;
        }
        let (centre, spread) = (0..features).map(|column| scale_of(x, features, column)).unzip();
        let mut of = Self { centre, spread, sketches: Vec::new(), halves: Vec::new() };
        (of.sketches, of.halves) = of.sketched(x);
        Some(of)
    }

    /// How many features there are.
    pub(crate) fn features(&self) -> usize {
        self.centre.len()
    }

    /// The first row that each row is the same as.
    ///
    /// Sums alone may be alike of different rows that one number determines, so the rows themselves must be.
    pub(crate) fn first(&self, x: &[f64]) -> Vec<usize> {
        let same = |one: usize, other: usize| {
            let row = |at: usize| &x[at * self.features()..(at + 1) * self.features()];
            alike(&self.sketches[one], &self.sketches[other]) && same_numbers(row(one), row(other))
        };
        let order = in_order(&self.sketches);
        let mut first: Vec<usize> = (0..self.sketches.len()).collect();
        for (at, &row) in order.iter().enumerate() {
            let near =
                order[at + 1..].iter().take_while(|&&other| self.sketches[other][0] - self.sketches[row][0] <= SAME);
            for &other in near {
                // Of many equal rows, as of a layer that has read the last token alone, most are known to be by now.
                let (one, two) = (root(&first, row), root(&first, other));
                if one != two && same(row, other) {
                    first[one.max(two)] = one.min(two);
                }
            }
        }
        (0..first.len()).map(|row| root(&first, row)).collect()
    }

    /// Which of these rows, of as many features, are the same as one of its own.
    pub(crate) fn holds(&self, x: &[f64]) -> Vec<bool> {
        let (sketches, halves) = self.sketched(x);
        // Rounding wider numbers to f16 makes of them what a file of f16 has, and of numbers of f16 nothing else.
        let by_halves = sketches == halves || self.sketches == self.halves;
        let (own, theirs) = if by_halves { (&self.halves, halves) } else { (&self.sketches, sketches) };
        let order = in_order(own);
        let held = |sketch: &Sketch| {
            let from = order.partition_point(|&row| own[row][0] < sketch[0] - SAME);
            let near = order[from..].iter().take_while(|&&row| own[row][0] <= sketch[0] + SAME);
            near.into_iter().any(|&row| alike(&own[row], sketch))
        };
        theirs.iter().map(held).collect()
    }

    /// Sketches of rows, as they are and rounded to f16.
    fn sketched(&self, x: &[f64]) -> (Vec<Sketch>, Vec<Sketch>) {
        let mut random = Random::new(0, 0);
        // Of normal numbers: of equal sizes, different rows of counts would have the same sums.
        let weights: Vec<Sketch> = self.centre.iter().map(|_| std::array::from_fn(|_| random.normal())).collect();
        let of = |row: &[f64], round: fn(f64) -> f64| {
            let mut sums = [0.0; SUMS];
            for (((&x, centre), spread), weights) in row.iter().zip(&self.centre).zip(&self.spread).zip(&weights) {
                let x = (round(x) - centre) / spread;
                sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight * x);
            }
            sums.map(|sum| sum / (row.len() as f64).sqrt())
        };
        let rows = x.par_chunks_exact(self.centre.len());
        rows.map(|row| (of(row, |x| x), of(row, |x| f16::from_f64(x).into()))).unzip()
    }
}

/// The median of a feature and the median distance of those that lie elsewhere, which one broken row cannot move.
fn scale_of(x: &[f64], features: usize, column: usize) -> (f64, f64) {
    let rows = x.len() / features;
    let mut values: Vec<f64> =
        (0..rows).step_by(rows.div_ceil(LEARNT_FROM)).map(|row| x[row * features + column]).collect();
    let centre = median(&mut values);
    let mut distances: Vec<f64> =
        values.iter().map(|x| (x - centre).abs()).filter(|&distance| distance > 0.0).collect();
    (centre, if distances.is_empty() { 1.0 } else { median(&mut distances) })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(values, 0.5)
}

/// Rows by their first sum, without those beyond f16, which are like nothing.
fn in_order(sketches: &[Sketch]) -> Vec<usize> {
    let finite = |row: &usize| sketches[*row].iter().all(|sum| sum.is_finite());
    let mut order: Vec<usize> = (0..sketches.len()).filter(finite).collect();
    order.sort_by(|&a, &b| sketches[a][0].total_cmp(&sketches[b][0]));
    order
}

/// Whether two rows have the same numbers but for rounding, beside the size of all of them: in f16, if both have no others.
fn same_numbers(one: &[f64], other: &[f64]) -> bool {
    let is_half = |row: &[f64]| row.iter().all(|&x| f64::from(f16::from_f64(x)) == x);
    let rounding = if is_half(one) && is_half(other) { 2.0 * f64::from(f16::EPSILON) } else { ROUNDING };
    let size = (one.iter().map(|x| x * x).sum::<f64>() / one.len() as f64).sqrt();
    one.iter().zip(other).all(|(x, y)| (x - y).abs() <= rounding * x.abs().max(size))
}

fn alike(one: &Sketch, other: &Sketch) -> bool {
    one.iter().zip(other).all(|(x, y)| (x - y).abs() <= SAME)
}

/// A name for each row of row-major features: rows that are equal in f32 have the same name.
pub(crate) fn row_hashes(x: &[f64], features: usize) -> Vec<u64> {
    let of = |row: &[f64]| {
        let stored: Vec<f64> = row.iter().map(|&x| f64::from(x as f32)).collect();
        u64::from_le_bytes(hash_numbers(&stored)[..8].try_into().expect("a hash has 32 bytes"))
    };
    x.chunks_exact(features).map(of).collect()
}

pub(super) fn hash_numbers(values: &[f64]) -> [u8; 32] {
    let mut hash = Sha256::new();
    // -0 and 0 are the same number.
    for x in values {
        hash.update((x + 0.0).to_le_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(rows: usize, features: usize, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed, 0);
        // Columns of unlike sizes, as those of a residual stream are.
        let size = |column: usize| [1.0, 1e-3, 40.0, 0.2][column % 4];
        let x = |at: usize| size(at % features) * ((random.bits() >> 11) as f64 / (1u64 << 52) as f64 - 0.9);
        (0..rows * features).map(x).collect()
    }

    type Round = fn(f64) -> f64;
    const ROUNDED: [Round; 4] = [|x| x, |x| f64::from(x as f32), |x| f16::from_f64(x).into(), |x| x * (1.0 + 1e-6)];

    #[test]
    fn rows_are_recognised_in_any_width() {
        for features in [8, 64, 300] {
            let (x, other) = (noise(200, features, 1), noise(200, features, 2));
            for trained in ROUNDED {
                let train: Vec<f64> = x.iter().copied().map(trained).collect();
                let known = Likeness::of(&train, features).unwrap();
                for fresh in ROUNDED {
                    let again = |of: &[f64]| known.holds(&of.iter().copied().map(fresh).collect::<Vec<_>>());
                    assert!(again(&x).into_iter().all(|held| held), "{features} features");
                    assert!(!again(&other).into_iter().any(|held| held), "{features} features");
                }
            }
        }
    }

    #[test]
    fn copies_are_one_item_and_a_broken_row_makes_no_others_alike() {
        let features = 20;
        let mut x = noise(30, features, 3);
        let copy: Vec<f64> = x[..10 * features].iter().map(|x| x * (1.0 - 1e-7)).collect();
        x.extend(copy);
        x.extend(vec![1e9; features]);
        let first = Likeness::of(&x, features).unwrap().first(&x);
        let expected: Vec<usize> = (0..30).chain(0..10).chain([40]).collect();
        assert_eq!(first, expected);
        assert!(Likeness::of(&x[..7], 7).is_none(), "too few features");
        let same = vec![2.0; 5000 * 64];
        assert!(Likeness::of(&same, 64).unwrap().first(&same).iter().all(|&first| first == 0));
    }

    /// Counts, one of many, texts that a few features say much of, and what one number determines.
    #[test]
    fn different_items_are_different_whatever_their_features_are() {
        let mut random = Random::new(5, 0);
        let mut below = |n: usize| random.below(n);
        let one_of =
            |at: usize, features: usize| (0..features).map(|k| f64::from(u8::from(k == at))).collect::<Vec<_>>();
        let mut tables: Vec<(usize, Vec<f64>)> = vec![
            (600, (0..600).flat_map(|at| one_of(at, 600)).collect()),
            (16, (0..500 * 16).map(|_| below(4) as f64).collect()),
            (128, (0..1000 * 128).map(|_| f64::from(u8::from(below(30) == 0))).collect()),
            (17, (0..4000).flat_map(|row| (1..18).map(move |k| f64::from(k) * f64::from(row).sqrt())).collect()),
        ];
        // Few of many features are there, and one row is broken.
        let mut sparse: Vec<f64> =
            (0..300 * 400).map(|at| if below(50) == 0 { 1.0 + at as f64 / 1e5 } else { 0.0 }).collect();
        sparse[..400].fill(1e9);
        tables.push((400, sparse));
        for (features, x) in tables {
            let first = Likeness::of(&x, features).unwrap().first(&x);
            let rows: Vec<&[f64]> = x.chunks_exact(features).collect();
            for (row, &first) in first.iter().enumerate() {
                assert!(rows[row] == rows[first], "{features} features: row {row} is not row {first}");
            }
            // Those of the second half that are not in the first are none that it has seen (of what one number determines, sums cannot tell).
            let (seen, fresh) = rows.split_at(rows.len() / 2);
            let held = Likeness::of(&seen.concat(), features).unwrap().holds(&fresh.concat());
            if features != 17 {
                let wrong = held.iter().zip(fresh).filter(|(held, row)| **held && !seen.contains(row)).count();
                assert_eq!(wrong, 0, "{features} features");
            }
        }
    }
}
