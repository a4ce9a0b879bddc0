//! Taking a covariate out of a table.

use crate::vector::dot;

/// A covariate of which less than this share is left beside the others says nothing that they do not.
const DEPENDENT: f64 = 1e-9;

/// A row-major table `[items, columns]` less what a linear fit on the covariates explains of each column, the column's
/// mean kept: ordinary least squares with an intercept, by Gram-Schmidt.
///
/// The fit knows no labels, so that shuffled labels may be compared on what is left; where the labels go with a
/// covariate, a part of their effect goes with it, which counts against the finding. Labels that were balanced on a covariate lose less to
/// it than shuffled ones, by which their p is a little too small: 0.06 of them are up to 0.05 at 40 items. Covariates that are constant, or
/// follow from the others, change nothing. A NaN spoils what it touches. Panics if a covariate does not have one value
/// an item, or `columns` is 0.
pub fn residuals(values: &[f64], columns: usize, covariates: &[Vec<f64>]) -> Vec<f64> {
    assert!(columns > 0 && values.len().is_multiple_of(columns), "a whole number of rows");
    let items = values.len() / columns;
    let mut axes: Vec<Vec<f64>> = Vec::new();
    for covariate in covariates {
        assert_eq!(covariate.len(), items, "one value an item");
        let mean = covariate.iter().sum::<f64>() / items as f64;
        let mut axis: Vec<f64> = covariate.iter().map(|x| x - mean).collect();
        let size = dot(covariate, covariate).sqrt();
        // Twice: what rounding leaves of the earlier axes the first time is gone the second.
        for _ in 0..2 {
            for earlier in &axes {
                let share = dot(&axis, earlier);
                axis.iter_mut().zip(earlier).for_each(|(x, e)| *x -= share * e);
            }
        }
        let left = dot(&axis, &axis).sqrt();
        if left > DEPENDENT * size || left.is_nan() {
            for x in &mut axis {
                *x /= left;
            }
            axes.push(axis);
        }
    }
    let mut left = values.to_vec();
    for axis in &axes {
        let mut share = vec![0.0; columns];
        for (row, weight) in left.chunks_exact(columns).zip(axis) {
            share.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
        }
        for (row, weight) in left.chunks_exact_mut(columns).zip(axis) {
            row.iter_mut().zip(&share).for_each(|(x, s)| *x -= weight * s);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::normal_table;
    use crate::{mean, pearson};

    #[test]
    fn what_is_left_does_not_follow_the_covariate_and_keeps_its_mean() {
        let length: Vec<f64> = (0..40).map(|i| f64::from(i % 13) * 7.0 + 5.0).collect();
        let noise = normal_table(3, 40, &[1.0]);
        let table: Vec<f64> = length.iter().zip(&noise).flat_map(|(l, e)| [3.0 * l + e, 50.0 - l]).collect();
        let left = residuals(&table, 2, &[length.clone(), length.iter().map(|l| l.ln()).collect()]);
        let column = |table: &[f64], c: usize| table.iter().skip(c).step_by(2).copied().collect::<Vec<f64>>();
        assert!(pearson(&column(&left, 0), &length).abs() < 1e-9);
        assert!((mean(&column(&left, 0)) - mean(&column(&table, 0))).abs() < 1e-9);
        let flat = column(&left, 1);
        assert!(flat.iter().all(|x| (x - flat[0]).abs() < 1e-9), "nothing but the covariate: {flat:?}");
    }

    #[test]
    fn covariates_that_say_nothing_change_nothing() {
        let table = normal_table(4, 9, &[1.0, 2.0]);
        assert_eq!(residuals(&table, 2, &[]), table);
        assert_eq!(residuals(&table, 2, &[vec![7.0; 9]]), table);
        let line: Vec<f64> = (0..9).map(f64::from).collect();
        let twice = [line.clone(), line.iter().map(|x| 3.0 - 2.0 * x).collect()];
        assert_eq!(residuals(&table, 2, &twice), residuals(&table, 2, &[line]));
    }
}
