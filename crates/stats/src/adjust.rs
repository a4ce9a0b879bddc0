//! Taking a covariate out of a table.

use crate::{folds::Folds, summary::mean, vector::dot};

/// A covariate counts as dependent if less than this share of it is left after the earlier ones are taken out.
const DEPENDENT: f64 = 1e-9;
/// A share of the degrees of freedom that is 0 but for rounding.
const NO_FREEDOM: f64 = 1e-9;

/// Covariates of items, made ready to be taken out of tables.
///
/// Taking them out changes the size of every d of the residuals; [`Covariates::adjustment`] gives it back.
#[derive(Clone, Debug)]
pub struct Covariates {
    items: usize,
    /// Orthonormal, and orthogonal to a constant.
    axes: Vec<Vec<f64>>,
    /// How many of them are of covariates that shuffles keep in place.
    kept: usize,
}

impl Covariates {
    /// Takes covariates of `items` items. One that is constant, or follows from those before it, is ignored. Panics unless each has
    /// one value per item.
    pub fn new(items: usize, covariates: &[Vec<f64>]) -> Self {
        Self::beside(items, &[], covariates)
    }

    /// The same where shuffles exchange only items that agree in `kept`, as within strata. `covariates` are the others.
    pub fn beside(items: usize, kept: &[Vec<f64>], covariates: &[Vec<f64>]) -> Self {
        let mut axes: Vec<Vec<f64>> = Vec::new();
        let mut axes_kept = 0;
        for (index, covariate) in kept.iter().chain(covariates).enumerate() {
            assert_eq!(covariate.len(), items, "one value an item");
            let mean = covariate.iter().sum::<f64>() / items as f64;
            let mut axis: Vec<f64> = covariate.iter().map(|x| x - mean).collect();
            let size = dot(covariate, covariate).sqrt();
            // Twice: the second pass removes what rounding left of the earlier axes in the first.
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
                axes_kept += usize::from(index < kept.len());
            }
        }
        Self { items, axes, kept: axes_kept }
    }

    /// Whether shuffles move some of them away from their items: those exchange residuals, and not labels
    /// ([`Projector::exchanged`](crate::Projector::exchanged)).
    pub fn move_in_shuffles(&self) -> bool {
        !self.moving().is_empty()
    }

    /// The axes of those that shuffles do not keep in place.
    pub(crate) fn moving(&self) -> &[Vec<f64>] {
        &self.axes[self.kept..]
    }

    /// Whether these labels (`true` = group a) follow from them, so that nothing is left to compare. Panics unless there is one label per
    /// item.
    pub fn tell(&self, labels: &[bool]) -> bool {
        self.correction(labels).own <= DEPENDENT
    }

    /// How many degrees of freedom they take.
    pub fn count(&self) -> usize {
        self.axes.len()
    }

    /// A row-major table `[items, columns]` less what a linear fit on the covariates explains of each column; the column's mean is
    /// kept. The fit is ordinary least squares with an intercept, by Gram-Schmidt.
    ///
    /// The fit does not use the labels, so shuffled labels can be compared on what is left. A NaN in the table spoils its column,
    /// one in a covariate spoils the table. Panics unless the table has one row per item, or if `columns` is 0.
    pub fn residuals(&self, values: &[f64], columns: usize) -> Vec<f64> {
        assert!(columns > 0 && values.len() == self.items * columns, "one row an item");
        let mut left = values.to_vec();
        self.axes.iter().for_each(|axis| take_out(axis, &mut left, columns));
        left
    }

    /// What they do to a d of all items under these labels (`true` = group a). Panics unless there is one label per item.
    pub fn correction(&self, labels: &[bool]) -> Correction {
        assert_eq!(labels.len(), self.items, "one label an item");
        let of_a: Vec<usize> = (0..self.items).filter(|&item| labels[item]).collect();
        let weight = (of_a.len() * (self.items - of_a.len())) as f64 / self.items as f64;
        let freedom = self.items as f64 - 2.0;
        Correction { taken: self.count() as f64, freedom, weight, own: self.own_share(&of_a) }
    }

    /// What the covariates do to d: `order[place]` is the item at each place of `folds`. Panics unless there is one item per place.
    pub fn adjustment(&self, order: &[usize], folds: &Folds) -> Adjustment {
        let (n_a, n_b) = folds.sizes();
        assert_eq!((order.len(), n_a + n_b), (self.items, self.items), "one item a place");
        if self.axes.is_empty() {
            return Adjustment::default();
        }
        let mut labels = vec![false; self.items];
        order[..n_a].iter().for_each(|&item| labels[item] = true);
        let repeats = || (0..folds.repeats()).map(|repeat| folds.cells(repeat));
        let left = mean(&repeats().map(|cells| self.left_within(order, cells)).collect::<Vec<_>>());
        Adjustment {
            all: Some(self.correction(&labels)),
            held_out: Some(self.held_out(&order[..n_a], left)),
            leaks: repeats().map(|cells| self.leaks(order, cells, (n_a, n_b))).collect(),
        }
    }

    /// The share of the degrees of freedom within cells of items that the covariates leave.
    fn left_within(&self, order: &[usize], cells: &[Vec<usize>]) -> f64 {
        let (mut freedom, mut taken) = (0.0, self.count() as f64);
        for cell in cells.iter().filter(|cell| !cell.is_empty()) {
            freedom += cell.len() as f64 - 1.0;
            taken -= self.axes.iter().map(|axis| sum(axis, cell, order).powi(2)).sum::<f64>() / cell.len() as f64;
        }
        (freedom - taken) / freedom
    }

    /// The share of the labels that does not go with the covariates, 1 - R².
    fn own_share(&self, of_a: &[usize]) -> f64 {
        let of_labels = (of_a.len() * (self.items - of_a.len())) as f64 / self.items as f64;
        let shared = |axis: &Vec<f64>| of_a.iter().map(|&item| axis[item]).sum::<f64>().powi(2);
        1.0 - self.axes.iter().map(shared).sum::<f64>() / of_labels
    }

    /// `√left`, and 0 where labels follow from the covariates.
    fn held_out(&self, of_a: &[usize], left: f64) -> f64 {
        let own = self.own_share(of_a);
        if left.is_nan() || left <= NO_FREEDOM || own.is_nan() {
            return f64::NAN;
        }
        if own <= DEPENDENT { 0.0 } else { left.sqrt() }
    }

    /// The leak of every fold.
    fn leaks(&self, order: &[usize], cells: &[Vec<usize>], (n_a, n_b): (usize, usize)) -> Vec<f64> {
        let mut leaks = vec![0.0; cells.len() / 2];
        let freedom = (self.items - 1 - self.count()) as f64;
        for axis in &self.axes {
            let sums: Vec<f64> = cells.iter().map(|cell| sum(axis, cell, order)).collect();
            let total = [0, 1].map(|group| sums.iter().skip(group).step_by(2).sum::<f64>());
            for (fold, leak) in leaks.iter_mut().enumerate() {
                let [held_a, held_b] = [0, 1].map(|group| cells[2 * fold + group].len());
                let here = sums[2 * fold] / held_a as f64 - sums[2 * fold + 1] / held_b as f64;
                let [of_a, of_b] = [0, 1].map(|group| total[group] - sums[2 * fold + group]);
                let others = of_a / (n_a - held_a) as f64 - of_b / (n_b - held_b) as f64;
                *leak -= here * others / freedom;
            }
        }
        leaks
    }
}

/// What covariates that were taken out do to Cohen's d of the residuals, and what gives it its size back.
///
/// They take degrees of freedom from the spread, and from the labels what these share with them. The corrected d is Student's t of the
/// labels beside the covariates (the analysis of covariance), over `√(n_a n_b / (n_a + n_b))`. Shuffled labels have the same
/// distribution, whatever they share with a covariate. Labels that go with a covariate have a smaller one than their difference over the
/// sd, which counts against the finding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// Degrees of freedom of the covariates, and of the spread without them.
    taken: f64,
    freedom: f64,
    /// `n_a n_b / (n_a + n_b)`
    weight: f64,
    /// The share of the labels that does not go with the covariates.
    own: f64,
}

impl Correction {
    /// The corrected value of a d of residuals. Without covariates the same; 0 where labels follow from them, or nothing is left of the
    /// spread; NaN where no degree of freedom is left.
    pub fn of(&self, d: f64) -> f64 {
        self.beside(d, d)
    }

    /// A d over another spread, such as [`welch_d`](crate::welch_d), times what `pooled`, Cohen's d of the same residuals and labels,
    /// is multiplied by. What the labels share with the covariates is known of the pooled spread only: of another one, a large d could
    /// leave nothing.
    pub fn beside(&self, d: f64, pooled: f64) -> f64 {
        let Self { taken, freedom, weight, own } = *self;
        if taken == 0.0 {
            return d;
        }
        if freedom - taken < 1.0 || own.is_nan() || d.is_nan() || pooled.is_nan() {
            return f64::NAN;
        }
        // The spread within groups of the residuals holds what the labels share with the covariates; t's does not.
        let spread = own * freedom - weight * (1.0 - own) * pooled * pooled;
        if own <= DEPENDENT || spread <= DEPENDENT * own * freedom {
            0.0
        } else {
            d * ((freedom - taken) / spread).sqrt()
        }
    }
}

/// What covariates that were taken out do to a d on held-out items of residuals, and to one of all items. By default, where there are
/// none: nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adjustment {
    /// Of a d of all items; `None` without covariates.
    pub(crate) all: Option<Correction>,
    /// What d on held-out items is multiplied by: the root of the share that the covariates leave of the degrees of freedom within folds.
    pub(crate) held_out: Option<f64>,
    /// The leak of each fold, `[repeat][fold]`. The residuals of some items hold a part of those of all others, so held-out items
    /// follow the direction of the others without any signal. The leak is the resulting difference of a fold's group means times
    /// the direction's length, over the sum of squares of all residuals.
    pub(crate) leaks: Vec<Vec<f64>>,
}

impl Adjustment {
    /// The corrected d of all items.
    pub fn all(&self, d: f64) -> f64 {
        self.all.map_or(d, |correction| correction.of(d))
    }

    /// The corrected d on held-out items.
    pub(crate) fn held_out(&self, d: f64) -> f64 {
        self.held_out.map_or(d, |factor| d * factor)
    }

    /// The leak of one fold.
    pub(crate) fn leak(&self, repeat: usize, fold: usize) -> f64 {
        self.leaks.get(repeat).map_or(0.0, |leaks| leaks[fold])
    }
}

/// Takes an axis out of every column of a row-major table.
pub(crate) fn take_out(axis: &[f64], table: &mut [f64], columns: usize) {
    let mut share = vec![0.0; columns];
    for (row, weight) in table.chunks_exact(columns).zip(axis) {
        share.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
    }
    for (row, weight) in table.chunks_exact_mut(columns).zip(axis) {
        row.iter_mut().zip(&share).for_each(|(x, s)| *x -= weight * s);
    }
}

/// The sum of an axis over the items at some places.
fn sum(axis: &[f64], places: &[usize], order: &[usize]) -> f64 {
    places.iter().map(|&place| axis[order[place]]).sum()
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
        let left = Covariates::new(40, &[length.clone(), length.iter().map(|l| l.ln()).collect()]).residuals(&table, 2);
        let column = |table: &[f64], c: usize| table.iter().skip(c).step_by(2).copied().collect::<Vec<f64>>();
        assert!(pearson(&column(&left, 0), &length).abs() < 1e-9);
        assert!((mean(&column(&left, 0)) - mean(&column(&table, 0))).abs() < 1e-9);
        let flat = column(&left, 1);
        assert!(flat.iter().all(|x| (x - flat[0]).abs() < 1e-9), "nothing but the covariate: {flat:?}");
    }

    #[test]
    fn labels_that_follow_from_covariates_have_no_effect_and_no_freedom_no_size() {
        let labels: Vec<f64> = (0..8).map(|item| f64::from(u8::from(item < 4))).collect();
        let (order, folds) = ((0..8).collect::<Vec<_>>(), Folds::new(4, 4, 2, 1, 0));
        let adjustment = |covariates: &[Vec<f64>]| Covariates::new(8, covariates).adjustment(&order, &folds);
        assert_eq!(adjustment(&[]), Adjustment::default());
        let (tells, groups) = (Covariates::new(8, std::slice::from_ref(&labels)), |n: usize| {
            (0..8).map(|item| item < n).collect::<Vec<_>>()
        });
        assert!(tells.tell(&groups(4)) && !tells.tell(&groups(3)) && !Covariates::new(8, &[]).tell(&groups(4)));
        let followed = adjustment(&[labels]);
        assert_eq!((followed.all(1.5), followed.held_out(1.5)), (0.0, 0.0));
        let each = |one: usize| (0..8).map(|item| f64::from(u8::from(item == one))).collect::<Vec<f64>>();
        assert!(adjustment(&(0..6).map(each).collect::<Vec<_>>()).all(1.5).is_nan());
        assert!(adjustment(&[vec![f64::NAN; 8]]).all(1.5).is_nan());
        // Two halves, with equally many of both groups: they take one degree of six, and share nothing with the labels.
        let halves: Vec<f64> = (0..8).map(|item| f64::from(item % 2)).collect();
        assert!((adjustment(&[halves]).all(1.0) - (5.0f64 / 6.0).sqrt()).abs() < 1e-12);
    }

    /// Eight and thirty-two items far apart, whose labels go with the covariate: Welch's d of the residuals is beyond what a pooled d
    /// could be.
    #[test]
    fn a_large_d_over_another_spread_stays_large() {
        let labels: Vec<bool> = (0..40).map(|item| item < 8).collect();
        let covariate: Vec<f64> = (0..40).map(|item| f64::from(item % 5) + if item < 8 { 4.0 } else { 0.0 }).collect();
        let noise = normal_table(5, 40, &[0.1]);
        let far = |item: usize| if labels[item] { 20.0 } else { 0.0 };
        let values: Vec<f64> = (0..40).map(|item| far(item) + noise[item]).collect();
        let covariates = Covariates::new(40, &[covariate]);
        let (left, correction) = (covariates.residuals(&values, 1), covariates.correction(&labels));
        let (pooled, welch) = (crate::cohen_d(&left[..8], &left[8..]), crate::welch_d(&left[..8], &left[8..]));
        assert!(welch > pooled, "{welch} {pooled}");
        assert_eq!(correction.of(welch), 0.0, "no pooled d is so large");
        assert!(correction.of(pooled) > 100.0 && correction.beside(welch, pooled) > 100.0);
    }

    #[test]
    fn covariates_that_say_nothing_change_nothing() {
        let table = normal_table(4, 9, &[1.0, 2.0]);
        let residuals = |covariates: &[Vec<f64>]| Covariates::new(9, covariates).residuals(&table, 2);
        assert_eq!(residuals(&[]), table);
        assert_eq!(residuals(&[vec![7.0; 9]]), table);
        let line: Vec<f64> = (0..9).map(f64::from).collect();
        let twice = [line.clone(), line.iter().map(|x| 3.0 - 2.0 * x).collect()];
        assert_eq!(residuals(&twice), residuals(&[line]));
    }
}
