//! Effect sizes of every column of a table, under many labelings.

use crate::effect::{cohen_d, pooled_sd, standardised, welch_d, welch_sd};
use crate::permute::group_sizes;

/// Where the spread within the groups is below this share of the total, it is computed anew instead of by subtraction: fewer than
/// four of sixteen digits are ever lost.
const MOSTLY_BETWEEN: f64 = 1e-4;

/// A row-major table `[items, columns]`, made ready for Cohen's d of all its columns under many labelings.
///
/// The columns are centred on their grand means once. Then one group's sum gives the other's, and the spread within the groups is
/// the total less the spread between them: a labeling costs one sum over the rows of its smaller group.
#[derive(Clone, Debug)]
pub struct Columns {
    centred: Vec<f64>,
    grand_means: Vec<f64>,
    /// Sum of squares of each centred column.
    total: Vec<f64>,
    items: usize,
}

impl Columns {
    /// Takes a table of `columns` values per row. Panics if `values` is not a whole number of rows, or `columns` is 0.
    pub fn new(values: &[f64], columns: usize) -> Self {
        let (centred, grand_means) = centre(values, columns);
        let mut total = vec![0.0; columns];
        for row in centred.chunks_exact(columns) {
            for (sum, x) in total.iter_mut().zip(row) {
                *sum += x * x;
            }
        }
        Self { centred, grand_means, total, items: values.len() / columns }
    }

    /// [`cohen_d`] of every column, one label per row (`true` = group a). Degenerate input as there: all NaN if a group has fewer
    /// than two rows, 0 for a column without spread. Panics unless there is one label per row.
    pub fn cohen_d(&self, labels: &[bool]) -> Vec<f64> {
        assert_eq!(labels.len(), self.items, "one label per row");
        let (n_a, n_b) = group_sizes(labels);
        if n_a < 2 || n_b < 2 {
            return vec![f64::NAN; self.total.len()];
        }
        let sums = sum_group_a(&self.centred, self.total.len(), labels);
        let per_a = 1.0 / n_a as f64;
        let per_b = 1.0 / n_b as f64;
        let effect = |(column, sum): (usize, f64)| {
            let total = self.total[column];
            let within = total - sum * sum * (per_a + per_b);
            if within < MOSTLY_BETWEEN * total {
                return self.cohen_d_of(column, labels);
            }
            let grand = self.grand_means[column];
            standardised(grand + sum * per_a, grand - sum * per_b, pooled_sd(within, n_a, n_b))
        };
        sums.into_iter().enumerate().map(effect).collect()
    }

    /// [`welch_d`] of every column, as [`Columns::cohen_d`]: what shuffled labels are compared by.
    pub fn welch_d(&self, labels: &[bool]) -> Vec<f64> {
        assert_eq!(labels.len(), self.items, "one label per row");
        let (n_a, n_b) = group_sizes(labels);
        let columns = self.total.len();
        if n_a < 2 || n_b < 2 {
            return vec![f64::NAN; columns];
        }
        let sums = sum_group_a(&self.centred, columns, labels);
        let smaller = n_a <= n_b;
        let mut squares = vec![0.0; columns];
        for (row, _) in self.centred.chunks_exact(columns).zip(labels).filter(|&(_, &label)| label == smaller) {
            squares.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
        }
        let effect = |(column, (sum, square)): (usize, (f64, f64))| {
            let total = self.total[column];
            let (of_a, of_b) = if smaller { (square, total - square) } else { (total - square, square) };
            let within = [of_a - sum * sum / n_a as f64, of_b - sum * sum / n_b as f64];
            if within.iter().any(|&within| within < MOSTLY_BETWEEN * total) {
                let [a, b] = [true, false].map(|which| self.group(column, labels, which));
                return welch_d(&a, &b);
            }
            let grand = self.grand_means[column];
            let sd = welch_sd(within, [n_a - 1, n_b - 1], [n_a, n_b]);
            standardised(grand + sum / n_a as f64, grand - sum / n_b as f64, sd)
        };
        sums.into_iter().zip(squares).enumerate().map(effect).collect()
    }

    /// The slow way, for a column with next to no spread within its groups.
    fn cohen_d_of(&self, column: usize, labels: &[bool]) -> f64 {
        cohen_d(&self.group(column, labels, true), &self.group(column, labels, false))
    }

    /// The values of one group in a column.
    fn group(&self, column: usize, labels: &[bool], which: bool) -> Vec<f64> {
        let rows = self.centred.chunks_exact(self.total.len()).zip(labels);
        let of_group = rows.filter(|&(_, &label)| label == which);
        of_group.map(|(row, _)| row[column] + self.grand_means[column]).collect()
    }
}

/// A table less the mean of each column, and the means. Centred twice, so that the sums are 0 but for the rounding of the centred
/// values themselves.
pub(crate) fn centre(values: &[f64], columns: usize) -> (Vec<f64>, Vec<f64>) {
    assert!(columns > 0 && values.len().is_multiple_of(columns), "a whole number of rows");
    let items = (values.len() / columns) as f64;
    let mut centred = values.to_vec();
    let mut means = vec![0.0; columns];
    for _ in 0..2 {
        let shift: Vec<f64> = sum_rows(&centred, columns, |_| true).iter().map(|sum| sum / items).collect();
        centred.chunks_exact_mut(columns).for_each(|row| row.iter_mut().zip(&shift).for_each(|(x, s)| *x -= s));
        means.iter_mut().zip(&shift).for_each(|(mean, s)| *mean += s);
    }
    (centred, means)
}

/// Sum of the rows of group a of a centred table, computed from the group with fewer rows: each group's sum is the negative of the
/// other's.
pub(crate) fn sum_group_a(centred: &[f64], columns: usize, labels: &[bool]) -> Vec<f64> {
    let (n_a, n_b) = group_sizes(labels);
    if n_a <= n_b {
        return sum_rows(centred, columns, |item| labels[item]);
    }
    let mut sums = sum_rows(centred, columns, |item| !labels[item]);
    for sum in &mut sums {
        *sum = -*sum;
    }
    sums
}

/// Sum of the chosen rows of a row-major table.
pub(crate) fn sum_rows(values: &[f64], columns: usize, chosen: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut sums = vec![0.0; columns];
    for (_, row) in values.chunks_exact(columns).enumerate().filter(|&(item, _)| chosen(item)) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::normal_table;
    use crate::permute::Shuffles;

    /// Columns of different scale, shift and separation: column c has sd 10^(c/2 - 2), mean c·1000 times that, and
    /// the groups lie c⁴ sds apart.
    fn uneven(labels: &[bool], columns: usize) -> Vec<f64> {
        let mut values = normal_table(5, labels.len(), &vec![1.0; columns]);
        for (row, &label) in values.chunks_exact_mut(columns).zip(labels) {
            for (c, x) in row.iter_mut().enumerate() {
                let c = c as f64;
                *x = (*x + c * 1000.0 + if label { c.powi(4) } else { 0.0 }) * 10f64.powf(c / 2.0 - 2.0);
            }
        }
        values
    }

    fn oracle(values: &[f64], columns: usize, labels: &[bool], d: impl Fn(&[f64], &[f64]) -> f64) -> Vec<f64> {
        let column = |c: usize, which: bool| {
            let rows = values.chunks_exact(columns).zip(labels);
            rows.filter(|&(_, &label)| label == which).map(|(row, _)| row[c]).collect::<Vec<_>>()
        };
        (0..columns).map(|c| d(&column(c, true), &column(c, false))).collect()
    }

    #[test]
    fn columns_agree_with_cohen_d() {
        for (n_a, n_b) in [(2, 2), (7, 20), (31, 12)] {
            let labels = Shuffles::new(n_a, n_b, 8).labels(0);
            let values = uneven(&labels, 13);
            let table = Columns::new(&values, 13);
            for labels in std::iter::once(labels).chain(Shuffles::new(n_a, n_b, 8).iter().skip(1).take(20)) {
                let pooled = (table.cohen_d(&labels), oracle(&values, 13, &labels, cohen_d));
                let welch = (table.welch_d(&labels), oracle(&values, 13, &labels, welch_d));
                for (got, want) in [pooled, welch].into_iter().flat_map(|(got, want)| got.into_iter().zip(want)) {
                    assert!((got - want).abs() <= 1e-9 * want.abs().max(1.0), "{got} for {want}");
                }
            }
        }
    }

    #[test]
    fn degenerate_columns_do_not_flatter() {
        // Columns: constant, equal to the label, the label with rounding noise on a large mean, ordinary.
        let labels = [true, false, true, false, false, true, false];
        let row = |i: usize| {
            let label = f64::from(u8::from(labels[i]));
            [0.1, label, 1e5 / 3.0 + label * f64::EPSILON, i as f64]
        };
        let values: Vec<f64> = (0..labels.len()).flat_map(row).collect();
        let d = Columns::new(&values, 4).cohen_d(&labels);
        assert_eq!(d[..3], [0.0; 3]);
        assert!(d[3] != 0.0);
        let welch = Columns::new(&values, 4).welch_d(&labels);
        assert!(welch[..3] == [0.0; 3] && welch[3] != 0.0, "{welch:?}");
        let alone = [true, false, false, false, false, false, false];
        assert!(Columns::new(&values, 4).cohen_d(&alone).iter().all(|d| d.is_nan()));
    }

    #[test]
    fn centred_columns_sum_to_zero_whatever_their_mean() {
        let values: Vec<f64> = normal_table(4, 83, &[1.0]).iter().map(|x| x + 1e9).collect();
        let (centred, means) = centre(&values, 1);
        assert!(sum_rows(&centred, 1, |_| true)[0].abs() < 1e-10);
        assert!((means[0] - 1e9).abs() < 1.0);
    }

    #[test]
    fn a_missing_value_spoils_its_column_only() {
        let values = [1.0, f64::NAN, 2.0, 2.0, 4.0, 3.0, 6.0, 4.0];
        let d = Columns::new(&values, 2).cohen_d(&[true, true, false, false]);
        assert!(d[0].is_finite() && d[1].is_nan());
    }
}
