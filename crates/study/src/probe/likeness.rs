//! Which rows of features are of one item, whatever width they were stored in and however little else they were rounded.

use half::f16;
use headtemper_stats::Random;
use rayon::prelude::*;

/// The fewest features by which rows count as one item: fewer may be equal by chance, as lengths are.
pub(super) const NAMING: usize = 8;

/// How many random sums of a row's features stand for it.
pub(super) const SUMS: usize = 8;

/// What all sums of two rows may differ by and still be of one item, in units of the spread of a feature. Measured on SmolLM2-135M, 500
/// prompts of which many differ by a number alone: rounding to f32 moves sums by at most 1e-6, and other prompts are at least 0.03 away at
/// `h_last` and 2.5e-3 after the first layer.
const SAME: f64 = 5e-4;

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
    pub(crate) fn first(&self) -> Vec<usize> {
        let order = in_order(&self.sketches);
        let mut first: Vec<usize> = (0..order.len()).collect();
        for (at, &row) in order.iter().enumerate() {
            let near =
                order[at + 1..].iter().take_while(|&&other| self.sketches[other][0] - self.sketches[row][0] <= SAME);
            for &other in near.filter(|&&other| alike(&self.sketches[row], &self.sketches[other])) {
                let (one, two) = (root(&first, row), root(&first, other));
                first[one.max(two)] = one.min(two);
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
        let sign = |k: usize, bits: u64| if bits >> k & 1 == 0 { 1.0 } else { -1.0 };
        let signs: Vec<Sketch> = self
            .centre
            .iter()
            .map(|_| {
                let bits = random.bits();
                std::array::from_fn(|k| sign(k, bits))
            })
            .collect();
        let of = |row: &[f64], round: fn(f64) -> f64| {
            let mut sums = [0.0; SUMS];
            for (((&x, centre), spread), signs) in row.iter().zip(&self.centre).zip(&self.spread).zip(&signs) {
                let x = (round(x) - centre) / spread;
                sums.iter_mut().zip(signs).for_each(|(sum, sign)| *sum += sign * x);
            }
            sums.map(|sum| sum / (row.len() as f64).sqrt())
        };
        let rows = x.par_chunks_exact(self.centre.len());
        rows.map(|row| (of(row, |x| x), of(row, |x| f16::from_f64(x).into()))).unzip()
    }
}

/// The median of a feature and its median distance from there, or how far it is at the most where most rows have the median.
fn scale_of(x: &[f64], features: usize, column: usize) -> (f64, f64) {
    let rows = x.len() / features;
    let mut values: Vec<f64> =
        (0..rows).step_by(rows.div_ceil(LEARNT_FROM)).map(|row| x[row * features + column]).collect();
    let centre = middle(&mut values);
    for x in &mut values {
        *x = (*x - centre).abs();
    }
    let spread = middle(&mut values);
    let most = values.iter().copied().fold(0.0, f64::max);
    (centre, [spread, most].into_iter().find(|&spread| spread > 0.0).unwrap_or(1.0))
}

fn middle(values: &mut [f64]) -> f64 {
    let at = values.len() / 2;
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

/// Rows by their first sum.
fn in_order(sketches: &[Sketch]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sketches.len()).collect();
    order.sort_by(|&a, &b| sketches[a][0].total_cmp(&sketches[b][0]));
    order
}

/// What is beyond f16 is infinite and like nothing.
fn alike(one: &Sketch, other: &Sketch) -> bool {
    one.iter().zip(other).all(|(x, y)| (x - y).abs() <= SAME)
}

fn root(first: &[usize], mut row: usize) -> usize {
    while first[row] != row {
        row = first[row];
    }
    row
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
        let first = Likeness::of(&x, features).unwrap().first();
        let expected: Vec<usize> = (0..30).chain(0..10).chain([40]).collect();
        assert_eq!(first, expected);
        assert!(Likeness::of(&x[..7], 7).is_none(), "too few features");
        let same = Likeness::of(&[2.0; 32], 8).unwrap().first();
        assert_eq!(same, [0; 4]);
    }
}
