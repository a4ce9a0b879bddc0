//! The direction between two cohorts of vectors, how far it flatters, and what it is worth on items it has not seen.

use crate::adjust::Adjustment;
use crate::effect::{NO_SPREAD, pooled_sd, welch_sd};
use crate::folds::Folds;
use crate::stability::Halves;
use crate::summary::{mean, squared_deviations};
use crate::table::sum_rows;
use crate::vector::{cosine, dot, norm};

/// The difference of two cohort means, `v = mean_a - mean_b`, in four numbers. Made by [`naive_direction`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Direction {
    /// Cohen's d of the projections on v, **of the very items that defined v: not evidence.**
    /// No unit; never negative, but for rounding.
    ///
    /// v points at whatever happens to separate these items, so this is far above 0 on pure noise: about
    /// `√((1/n_a + 1/n_b) · k)` where k is the effective number of dimensions, `(Σλ)² / Σλ²` of the eigenvalues of
    /// the covariance, and more where a few dimensions lead. For 64 and 18 items of 256 dimensions that is 4.1
    /// on white noise, and 1.5 where the variances fall as 1/rank (k = 23). It means something only beside its
    /// own value under shuffled labels: see [`Separation::naive`](crate::Separation::naive) and
    /// [`p_value`](crate::p_value).
    pub d_naive: f64,
    /// Cosine of the two cohort means. Near 1 wherever the vectors have a large common mean, signal or none.
    pub cos_means: f64,
    /// Length of v, in the unit of the vectors.
    pub norm: f64,
    /// Length of v over the mean length of the two cohort means. No unit.
    pub relative_norm: f64,
}

/// The paper's directional statistics (arXiv 2604.11867) of row-major vectors `[items, dim]`, one label per item
/// (`true` = group a), computed as written there. **[`Direction::d_naive`] is in-sample and by itself no evidence.**
///
/// `d_naive` is NaN if a group has fewer than two items, and 0 if the spread along v is below 1e-12 of the longest
/// vector; an empty group makes every field NaN, and means of length 0 the cosine and the relative norm.
/// Panics if `dim` is 0 or there is not one label per item.
pub fn naive_direction(vectors: &[f64], dim: usize, labels: &[bool]) -> Direction {
    assert_eq!(vectors.len(), labels.len() * dim, "one label per item");
    let mean_a = mean_of(vectors, dim, |item| labels[item]);
    let mean_b = mean_of(vectors, dim, |item| !labels[item]);
    let v = difference(&mean_a, &mean_b);
    let projections: Vec<f64> = vectors.chunks_exact(dim).map(|x| dot(x, &v)).collect();
    Direction {
        d_naive: d_of_projections(&projections, labels, NO_SPREAD * longest(vectors, dim)),
        cos_means: cosine(&mean_a, &mean_b),
        norm: norm(&v),
        relative_norm: norm(&v) / f64::midpoint(norm(&mean_a), norm(&mean_b)),
    }
}

/// Cosine of the two cohort means after the grand mean is taken off, with each mean from a different half of the items. (With the
/// grand mean of the same items it is always -1, and diagnoses nothing.) Averaged over the splits and over which half is used for
/// which cohort: -1 where the cohorts lie apart, about 0 without signal.
///
/// The grand mean of a half counts both groups alike, so this is minus the cosine of the directions `mean_a - mean_b` of the two
/// halves. `order[place]` is the item at each place. NaN where a half has none of a group.
pub fn centred_cosine(vectors: &[f64], dim: usize, order: &[usize], halves: &Halves) -> f64 {
    let of_split = |split: usize| {
        let [first, second] = halves.of(split, order).map(|[a, b]| {
            let mean = |items: &[usize]| {
                let mut taken = vec![false; order.len()];
                for &item in items {
                    taken[item] = true;
                }
                mean_of(vectors, dim, |item| taken[item])
            };
            difference(&mean(&a), &mean(&b))
        });
        -cosine(&first, &second)
    };
    mean(&(0..halves.splits()).map(of_split).collect::<Vec<_>>())
}

/// Cross-fitted d: Cohen's d of held-out items along the direction of all others. Centred on 0 without signal. Two cohorts whose
/// means are `Δ` apart in k dimensions of unit spread give about `Δ² / √(Δ² + (k - 1) (1/n_a + 1/n_b))`, where n_a and n_b count
/// the items that define the direction. This is less than Δ, since the direction is not known exactly.
///
/// For every fold of the row-major vectors `[items, dim]`, the direction is `v = mean_a - mean_b` of the other folds. The fold's
/// items are projected on v over its length, and the difference of their two means is taken. Both means are of one fold, so no item
/// meets a direction that it helped to make, and no offset between folds counts as a difference. `d` is the mean of these
/// differences, each weighted by `n_a n_b / (n_a + n_b)` of its fold, over the sd within folds and groups (`items - 2 folds`
/// degrees of freedom), averaged over the repeats.
///
/// `order[place]` is the item at each place of `folds`. This is the definition; [`Projector`](crate::Projector) is the fast way.
/// NaN if a group has fewer than two items, a fold has all of a group, or no fold has two of either; 0 without spread. Panics
/// unless `order` has one item per place.
pub fn held_out_d(vectors: &[f64], dim: usize, order: &[usize], folds: &Folds) -> f64 {
    held_out_d_beside(vectors, dim, order, folds, &Adjustment::default())
}

/// [`held_out_d`] of vectors from which covariates were taken out. `adjustment` is their
/// [`Covariates::adjustment`](crate::Covariates::adjustment) for this order and these folds.
pub fn held_out_d_beside(vectors: &[f64], dim: usize, order: &[usize], folds: &Folds, adjustment: &Adjustment) -> f64 {
    held_out(vectors, dim, order, folds, adjustment, Pooled::d)
}

/// A d of held-out items, as `d_of` makes it from those of one repeat and the spread below which there is none.
pub(crate) fn held_out(
    vectors: &[f64],
    dim: usize,
    order: &[usize],
    folds: &Folds,
    adjustment: &Adjustment,
    d_of: impl Fn(&Pooled, f64) -> f64,
) -> f64 {
    let (n_a, n_b) = folds.sizes();
    assert_eq!((vectors.len(), order.len()), ((n_a + n_b) * dim, n_a + n_b), "one item a place");
    if n_a < 2 || n_b < 2 || folds.leaves_none() {
        return f64::NAN;
    }
    let floor = NO_SPREAD * longest(vectors, dim);
    let all = mean_of(vectors, dim, |_| true);
    let squares = vectors.chunks_exact(dim).map(|x| dot(x, x)).sum::<f64>() - order.len() as f64 * dot(&all, &all);
    let mut d = Vec::new();
    for repeat in 0..folds.repeats() {
        let fold_of = folds.fold_of(repeat);
        // By item: its fold, and whether it is of group a.
        let mut of = vec![(0, false); order.len()];
        order.iter().enumerate().for_each(|(place, &item)| of[item] = (fold_of[place], place < n_a));
        let mut found = Pooled::default();
        for fold in 0..folds.count() as u16 {
            let mean_of_others = |in_a: bool| mean_of(vectors, dim, |item| of[item].0 != fold && of[item].1 == in_a);
            let v = difference(&mean_of_others(true), &mean_of_others(false));
            let size = norm(&v);
            let along = |in_a: bool| -> Vec<f64> {
                let items = vectors.chunks_exact(dim).zip(&of).filter(|(_, of)| **of == (fold, in_a));
                items.map(|(x, _)| if size > floor { dot(x, &v) / size } else { 0.0 }).collect()
            };
            let leak = if size > floor { adjustment.leak(repeat, fold.into()) * squares / size } else { 0.0 };
            found.add(&along(true), &along(false), leak);
        }
        d.push(d_of(&found, floor));
    }
    adjustment.held_out(mean(&d))
}

/// Differences and spreads, pooled over folds.
#[derive(Default)]
pub(crate) struct Pooled {
    weight: f64,
    difference: f64,
    /// Squared deviations, their degrees of freedom, and items, by group.
    within: [f64; 2],
    freedom: [usize; 2],
    items: [usize; 2],
}

impl Pooled {
    /// Adds the projections of one fold's items; `leak` is the part of their difference that is leak.
    pub(crate) fn add(&mut self, a: &[f64], b: &[f64], leak: f64) {
        if !a.is_empty() && !b.is_empty() {
            let weight = (a.len() * b.len()) as f64 / (a.len() + b.len()) as f64;
            self.weight += weight;
            self.difference += weight * (mean(a) - mean(b) - leak);
        }
        for (of, group) in [a, b].into_iter().enumerate().filter(|(_, group)| !group.is_empty()) {
            self.within[of] += squared_deviations(group);
            self.freedom[of] += group.len() - 1;
            self.items[of] += group.len();
        }
    }

    /// Cohen's d of all folds; 0 unless the spread is above `floor`.
    pub(crate) fn d(&self, floor: f64) -> f64 {
        let freedom = self.freedom[0] + self.freedom[1];
        if freedom == 0 {
            f64::NAN
        } else {
            self.over((self.within.iter().sum::<f64>() / freedom as f64).sqrt(), floor)
        }
    }

    /// The same difference over the spread of [`welch_d`](crate::welch_d). Where no fold has two items of a group, its variance is not
    /// known, and this is [`Pooled::d`].
    pub(crate) fn welch_d(&self, floor: f64) -> f64 {
        if self.freedom.contains(&0) {
            self.d(floor)
        } else {
            self.over(welch_sd(self.within, self.freedom, self.items), floor)
        }
    }

    fn over(&self, sd: f64, floor: f64) -> f64 {
        if sd <= floor { 0.0 } else { self.difference / self.weight / sd }
    }
}

/// The vectors less their part along the mean of all of them: what is left is more than a matter of length. Uses no labels.
/// Unchanged where that mean has no length. Of vectors that differ in length only, rounding is left, which may go with any labels:
/// compare what is left by [`Projector::above`](crate::Projector::above).
pub fn across_the_mean(vectors: &[f64], dim: usize) -> Vec<f64> {
    let mean = mean_of(vectors, dim, |_| true);
    let square = dot(&mean, &mean);
    let mut across = vectors.to_vec();
    if square > 0.0 {
        for x in across.chunks_exact_mut(dim) {
            let share = dot(x, &mean) / square;
            x.iter_mut().zip(&mean).for_each(|(x, m)| *x -= share * m);
        }
    }
    across
}

/// Cohen's d of projections on v itself instead of its unit vector: the projections are too long by v's length, and the difference
/// of their means is v's length squared. 0 unless their spread along the unit vector is above `floor`.
pub(crate) fn d_of_projections(projections: &[f64], labels: &[bool], floor: f64) -> f64 {
    let group = |which: bool| -> Vec<f64> {
        projections.iter().zip(labels).filter(|&(_, &label)| label == which).map(|(&x, _)| x).collect()
    };
    let (a, b) = (group(true), group(false));
    if a.len() < 2 || b.len() < 2 {
        return f64::NAN;
    }
    let square = mean(&a) - mean(&b);
    let sd = pooled_sd(squared_deviations(&a) + squared_deviations(&b), a.len(), b.len());
    if sd <= floor * square.abs().sqrt() { 0.0 } else { square / sd }
}

/// Length of the longest of row-major vectors `[items, dim]`; NaN if one has no length, since then nothing is known.
pub fn longest(vectors: &[f64], dim: usize) -> f64 {
    vectors
        .chunks_exact(dim)
        .map(norm)
        .fold(0.0, |longest: f64, x| if longest.is_nan() || x <= longest { longest } else { x })
}

fn mean_of(vectors: &[f64], dim: usize, chosen: impl Fn(usize) -> bool) -> Vec<f64> {
    let n = (0..vectors.len() / dim).filter(|&item| chosen(item)).count() as f64;
    sum_rows(vectors, dim, chosen).into_iter().map(|sum| sum / n).collect()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::normal_table;

    #[test]
    fn degenerate_vectors_do_not_flatter() {
        let labels = [true, true, true, false, false];
        let same: Vec<f64> = [0.1, 0.7, 0.3].repeat(5);
        let apart: Vec<f64> =
            labels.iter().flat_map(|&label| if label { [1e5, 0.1, 0.3] } else { [1e5, 0.4, 0.3] }).collect();
        // Two cohorts one unit apart at 1e5, and within each of them the last bit only.
        let rounding: Vec<f64> =
            (0..5).flat_map(|i| [1e5 + f64::from(u8::from(labels[i])) + (i % 2) as f64 * 1.5e-11, 0.1, 0.3]).collect();
        for vectors in [&same, &apart, &rounding, &vec![0.0; 15]] {
            assert_eq!(naive_direction(vectors, 3, &labels).d_naive, 0.0);
            assert_eq!(held_out_d(vectors, 3, &[0, 1, 2, 3, 4], &Folds::new(3, 2, 5, 3, 0)), 0.0);
        }
        let zero = naive_direction(&[0.0; 15], 3, &labels);
        assert!(zero.cos_means.is_nan() && zero.relative_norm.is_nan());
    }

    #[test]
    fn small_groups_and_missing_values_are_nan() {
        let mut vectors = normal_table(7, 4, &[1.0; 3]);
        let alone = [true, false, false, false];
        assert!(naive_direction(&vectors, 3, &alone).d_naive.is_nan());
        assert!(naive_direction(&vectors, 3, &alone).norm.is_finite());
        assert!(held_out_d(&vectors, 3, &[0, 1, 2, 3], &Folds::new(1, 3, 5, 2, 0)).is_nan());
        // Two and two in two folds: one of each in every cell, so there is no spread to compute.
        assert!(held_out_d(&vectors, 3, &[0, 1, 2, 3], &Folds::new(2, 2, 5, 2, 0)).is_nan());
        vectors[4] = f64::NAN;
        assert!(naive_direction(&vectors, 3, &[true, true, false, false]).d_naive.is_nan());
    }

    #[test]
    fn across_the_mean_nothing_of_it_is_left() {
        let mut vectors = normal_table(8, 12, &[1.0; 5]);
        vectors.iter_mut().step_by(5).for_each(|x| *x += 9.0);
        let across = across_the_mean(&vectors, 5);
        let mean = mean_of(&vectors, 5, |_| true);
        assert!(across.chunks_exact(5).all(|x| dot(x, &mean).abs() < 1e-12));
        assert!(mean_of(&across, 5, |_| true).iter().all(|x| x.abs() < 1e-12));
        assert_eq!(across_the_mean(&[1.0, -1.0], 1), [1.0, -1.0], "a mean of no length");
    }
}
