//! The direction between two cohorts of vectors, and how far it flatters.

use crate::effect::{NO_SPREAD, pooled_sd};
use crate::permute::group_sizes;
use crate::summary::{mean, squared_deviations};
use crate::table::{centre, sum_group_a, sum_rows};
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
    /// own value under shuffled labels: see [`Projector::d_naive`] and [`p_value`](crate::p_value).
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
    let (n_a, n_b) = group_sizes(labels);
    let cohort_mean = |which: bool, n: usize| {
        let sums = sum_rows(vectors, dim, |item| labels[item] == which);
        sums.into_iter().map(|sum| sum / n as f64).collect::<Vec<_>>()
    };
    let (mean_a, mean_b) = (cohort_mean(true, n_a), cohort_mean(false, n_b));
    let v: Vec<f64> = mean_a.iter().zip(&mean_b).map(|(a, b)| a - b).collect();
    let projections: Vec<f64> = vectors.chunks_exact(dim).map(|x| dot(x, &v)).collect();
    Direction {
        d_naive: d_of_projections(&projections, labels, longest(vectors, dim)),
        cos_means: cosine(&mean_a, &mean_b),
        norm: norm(&v),
        relative_norm: norm(&v) / f64::midpoint(norm(&mean_a), norm(&mean_b)),
    }
}

/// Vectors made ready for the naive d of many labelings, which is what its null distribution takes.
///
/// The vectors are centred on their grand mean, so that v is a multiple of the sum of one group, the smaller one. With
/// few items it is never formed: its products with the items are sums of rows of the Gram matrix, `[items, items]`,
/// and a labeling costs `items x smaller group` additions whatever the dimension. With more than two items a dimension
/// the vectors themselves are the smaller table.
#[derive(Clone, Debug)]
pub struct Projector {
    /// Inner products of the centred vectors `[items, items]`, or the centred vectors `[items, dim]`.
    table: Vec<f64>,
    width: usize,
    is_gram: bool,
    items: usize,
    longest: f64,
}

impl Projector {
    /// Takes row-major vectors `[items, dim]`. Panics if `vectors` is not a whole number of rows, or `dim` is 0.
    pub fn new(vectors: &[f64], dim: usize) -> Self {
        let (centred, _) = centre(vectors, dim);
        let (items, longest) = (vectors.len() / dim, longest(vectors, dim));
        if items > 2 * dim {
            return Self { table: centred, width: dim, is_gram: false, items, longest };
        }
        Self { table: gram(&centred, dim), width: items, is_gram: true, items, longest }
    }

    /// [`Direction::d_naive`] under these labels, one per item (`true` = group a); for the observed labels as for
    /// shuffled ones. **In-sample: only the comparison of the two is evidence.** Degenerate input as in
    /// [`naive_direction`].
    pub fn d_naive(&self, labels: &[bool]) -> f64 {
        assert_eq!(labels.len(), self.items, "one label per item");
        let (n_a, n_b) = group_sizes(labels);
        if n_a < 2 || n_b < 2 {
            return f64::NAN;
        }
        // v = (1/n_a + 1/n_b) Σ_a x: the sum over b is minus that over a.
        let per_sum = 1.0 / n_a as f64 + 1.0 / n_b as f64;
        let mut sums = sum_group_a(&self.table, self.width, labels);
        for sum in &mut sums {
            *sum *= per_sum;
        }
        if self.is_gram {
            return d_of_projections(&sums, labels, self.longest);
        }
        let projections: Vec<f64> = self.table.chunks_exact(self.width).map(|x| dot(x, &sums)).collect();
        d_of_projections(&projections, labels, self.longest)
    }
}

/// Cohen's d of projections on v itself, not on its unit vector: they are v's length too long, and the difference of
/// their means is its square. `longest` is the length of the longest vector, before any centring.
fn d_of_projections(projections: &[f64], labels: &[bool], longest: f64) -> f64 {
    let group = |which: bool| -> Vec<f64> {
        projections.iter().zip(labels).filter(|&(_, &label)| label == which).map(|(&x, _)| x).collect()
    };
    let (a, b) = (group(true), group(false));
    if a.len() < 2 || b.len() < 2 {
        return f64::NAN;
    }
    let square = mean(&a) - mean(&b);
    let sd = pooled_sd(squared_deviations(&a) + squared_deviations(&b), a.len(), b.len());
    if sd <= NO_SPREAD * square.abs().sqrt() * longest { 0.0 } else { square / sd }
}

/// Length of the longest row, NaN if any is: then nothing is known.
fn longest(vectors: &[f64], dim: usize) -> f64 {
    vectors.chunks_exact(dim).map(norm).fold(0.0, |longest, x| if x <= longest { longest } else { x })
}

/// Inner products of all pairs of rows.
fn gram(rows: &[f64], dim: usize) -> Vec<f64> {
    let items = rows.len() / dim;
    let mut products = vec![0.0; items * items];
    for (i, x) in rows.chunks_exact(dim).enumerate() {
        for (j, y) in rows.chunks_exact(dim).enumerate().take(i + 1) {
            let product = dot(x, y);
            products[i * items + j] = product;
            products[j * items + i] = product;
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::normal_table;
    use crate::permute::Shuffles;

    #[test]
    fn projector_agrees_with_the_direct_way() {
        // Few items (Gram) and many (rows), either group the smaller, and a common mean a thousand times the spread.
        for (n_a, n_b, dim) in [(9, 5, 40), (5, 9, 40), (30, 41, 12), (41, 30, 12), (2, 2, 1), (2, 3, 1)] {
            let mut vectors = normal_table(6, n_a + n_b, &vec![1.0; dim]);
            for (i, x) in vectors.iter_mut().enumerate() {
                *x += ((i % dim) as f64).sin() * 1000.0;
            }
            let projector = Projector::new(&vectors, dim);
            assert_eq!(projector.is_gram, n_a + n_b <= 2 * dim);
            for labels in Shuffles::new(n_a, n_b, 2).iter().take(20) {
                let want = naive_direction(&vectors, dim, &labels).d_naive;
                let got = projector.d_naive(&labels);
                assert!((got - want).abs() <= 1e-9 * want.abs(), "{got} for {want}, {n_a} + {n_b} items of {dim}");
            }
        }
    }

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
            assert_eq!(Projector::new(vectors, 3).d_naive(&labels), 0.0);
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
        assert!(Projector::new(&vectors, 3).d_naive(&alone).is_nan());
        assert!(naive_direction(&vectors, 3, &[false; 4]).norm.is_nan());
        vectors[5] = f64::NAN;
        let even = [true, true, false, false];
        assert!(naive_direction(&vectors, 3, &even).d_naive.is_nan());
        assert!(Projector::new(&vectors, 3).d_naive(&even).is_nan());
    }
}
