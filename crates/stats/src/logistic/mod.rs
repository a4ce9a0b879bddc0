//! L2-regularised logistic regression with scikit-learn's objective, to the precision of f64.
//!
//! The objective of `sklearn.linear_model.LogisticRegression(penalty="l2")`, which has one minimum:
//! `C Σ s_i log(1 + exp(-y_i (x_i·w + b))) + |w|² / 2` with y = ±1, one weight s per item, and an intercept b that is not
//! penalised. Where there are fewer items than features it is minimised over the items ([`dual`]), else over the features
//! ([`primal`]); the minimum is the same.

mod cholesky;
mod dual;
mod matrix;
mod primal;
mod scaler;

pub(crate) use dual::Kernel;
pub(crate) use primal::{First, fit as fit_over_features};
pub use scaler::Scaler;

use crate::vector::dot;
use cholesky::Cholesky;

/// The size of gradient at which the minimum counts as found, for C up to 1. A coefficient is then off by at most as much, since
/// the objective curves by at least 1 along every coefficient.
const GRADIENT: f64 = 1e-10;
/// After this many steps without halving the gradient, what is left of it is rounding, if it is small enough to be.
const PATIENCE: usize = 3;
/// Share of the pull of all items on a coefficient that rounding may leave at the minimum. Measured: 2e-17 where every item is
/// there twice.
const NOISE: f64 = 1e-13;
/// The largest C: beyond it the penalty is lost in rounding.
const MOST_C: f64 = 1e6;
/// The most Newton steps that are tried.
const STEPS: usize = 100;
/// Share of the objective below which its differences are rounding.
const ROUNDING: f64 = 1e-12;
/// Share of the decrease promised by the gradient that a step must keep (Armijo).
const ARMIJO: f64 = 1e-4;

/// A fitted model: log-odds `x·coef + intercept`.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    /// One coefficient per feature, for one unit of the feature.
    pub coef: Vec<f64>,
    /// Log-odds at the origin.
    pub intercept: f64,
    /// Newton steps that it took.
    pub steps: usize,
}

/// Why there is no fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// One class has no items.
    #[error("all {items} items are of one class ({class}), but both are needed")]
    OneClass {
        /// How many items there are.
        items: usize,
        /// Their class.
        class: bool,
    },
    /// A feature is not a finite number.
    #[error("feature {feature} of item {item} is {value}, but must be a finite number")]
    NotFinite {
        /// The item's place.
        item: usize,
        /// The feature's place.
        feature: usize,
        /// The value found.
        value: f64,
    },
    /// C is out of range.
    #[error("C is {0}, but must be above 0 and at most 1000000")]
    Strength(f64),
    /// The minimum was not reached.
    #[error("no minimum was found in {steps} steps: the gradient is still of size {gradient:.1e}")]
    NotConverged {
        /// Steps that were taken.
        steps: usize,
        /// The size of the gradient.
        gradient: f64,
    },
}

/// How items are weighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ClassWeight {
    /// All alike.
    #[default]
    None,
    /// Both classes alike: `n / (2 n_class)` per item, scikit-learn's `class_weight="balanced"`.
    Balanced,
}

impl ClassWeight {
    /// The weight of every item.
    pub fn of(self, labels: &[bool]) -> Vec<f64> {
        let positive = labels.iter().filter(|&&label| label).count();
        let size = |label: bool| if label { positive } else { labels.len() - positive };
        let weight = |&label: &bool| match self {
            Self::None => 1.0,
            Self::Balanced => labels.len() as f64 / (2.0 * size(label) as f64),
        };
        labels.iter().map(weight).collect()
    }
}

/// What is fitted: classes, weights of items, and the inverse strength of the penalty.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The class of each item.
    pub labels: &'a [bool],
    /// The weight of each item.
    pub weights: &'a [f64],
    /// scikit-learn's C: the larger, the weaker the penalty.
    pub c: f64,
}

impl Logistic {
    /// Fits row-major `x` `[items, features]`. Panics unless there is one label and one weight per row.
    ///
    /// # Errors
    /// If a class is empty, a number is not finite, C is not above 0 and at most 1000000, or the minimum is not reached.
    pub fn fit(x: &[f64], features: usize, target: Target<'_>) -> Result<Self, FitError> {
        let items = target.labels.len();
        assert_eq!((x.len(), target.weights.len()), (items * features, items), "one label and weight a row");
        check_finite(x, features)?;
        if items < features {
            return Kernel::new(x, features, &[]).fit(target).map(|fit| fit.in_features(x, features));
        }
        primal::fit(x, features, target, None)
    }

    /// Log-odds of one row of features.
    pub fn log_odds(&self, row: &[f64]) -> f64 {
        dot(row, &self.coef) + self.intercept
    }
}

/// Refuses features that are not finite numbers.
///
/// # Errors
/// Names the first such number.
pub fn check_finite(x: &[f64], features: usize) -> Result<(), FitError> {
    match x.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(FitError::NotFinite { item: at / features, feature: at % features, value: x[at] }),
    }
}

/// Probability from log-odds.
pub fn sigmoid(log_odds: f64) -> f64 {
    if log_odds >= 0.0 { 1.0 / (1.0 + (-log_odds).exp()) } else { log_odds.exp() / (1.0 + log_odds.exp()) }
}

/// `log(1 + exp(-margin))`.
pub(crate) fn log_loss(margin: f64) -> f64 {
    if margin >= 0.0 { (-margin).exp().ln_1p() } else { margin.exp().ln_1p() - margin }
}

impl Target<'_> {
    fn check(&self) -> Result<(), FitError> {
        let first = self.labels.first().copied().unwrap_or(false);
        if self.labels.iter().all(|&label| label == first) {
            return Err(FitError::OneClass { items: self.labels.len(), class: first });
        }
        if self.c > 0.0 && self.c <= MOST_C { Ok(()) } else { Err(FitError::Strength(self.c)) }
    }

    /// The gradient at which the minimum counts as found: what rounding leaves of it grows with C.
    fn enough(&self) -> f64 {
        GRADIENT * self.c.max(1.0)
    }

    /// What rounding may leave of the gradient, for features up to this size.
    fn rounding(&self, largest: f64) -> f64 {
        NOISE * self.c * largest * self.weights.iter().sum::<f64>()
    }

    /// `C Σ s log(1 + exp(-y f))`.
    fn loss(&self, log_odds: &[f64]) -> f64 {
        let of = |((&f, &label), weight): ((&f64, &bool), &f64)| weight * log_loss(if label { f } else { -f });
        self.c * log_odds.iter().zip(self.labels).zip(self.weights).map(of).sum::<f64>()
    }

    /// How strongly each item pulls its log-odds, `C s (t - p)`, and how stiffly it holds them, `C s p (1 - p)`.
    fn pulls(&self, log_odds: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let of = |((&f, &label), weight): ((&f64, &bool), &f64)| {
            // 1 - p for the item's own class, without cancellation.
            let miss = sigmoid(if label { -f } else { f });
            let pull = if label { miss } else { -miss };
            (self.c * weight * pull, self.c * weight * miss * (1.0 - miss))
        };
        log_odds.iter().zip(self.labels).zip(self.weights).map(of).unzip()
    }
}

/// Halves a step until the objective falls as it should, and returns the share of the step taken. None if it never does.
fn line_search(start: f64, slope: f64, mut at: impl FnMut(f64) -> f64) -> Option<f64> {
    // This close to the minimum Newton's step is right, and rounding hides how much the objective falls.
    if slope.abs() <= ROUNDING * (1.0 + start.abs()) {
        return Some(1.0);
    }
    let shares = std::iter::successors(Some(1.0), |share| Some(share / 2.0)).take(60);
    shares.into_iter().find(|&share| at(share) <= start + ARMIJO * share * slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{laws::normal_table, probe_fixtures::worst};

    fn labels(x: &[f64], features: usize, noise: &[f64]) -> Vec<bool> {
        x.chunks_exact(features).zip(noise).map(|(row, e)| row[0] - 0.5 * row[1] + e > 0.0).collect()
    }

    /// The largest entry of the gradient, from its definition.
    fn gradient(fit: &Logistic, x: &[f64], target: Target<'_>) -> f64 {
        let features = fit.coef.len();
        let mut of_coef = fit.coef.clone();
        let mut of_intercept = 0.0;
        for ((row, &label), weight) in x.chunks_exact(features).zip(target.labels).zip(target.weights) {
            let pull = target.c * weight * (f64::from(label) - sigmoid(fit.log_odds(row)));
            of_coef.iter_mut().zip(row).for_each(|(sum, x)| *sum -= pull * x);
            of_intercept -= pull;
        }
        of_coef.iter().fold(of_intercept.abs(), |most, x| most.max(x.abs()))
    }

    #[test]
    fn the_gradient_vanishes_at_the_minimum_of_every_shape() {
        for (items, features, c) in
            [(30, 200, 1.0), (30, 200, 1e-4), (40, 39, 10.0), (40, 41, 10.0), (300, 5, 1e4), (60, 80, 1e4)]
        {
            let x = normal_table(items as u64, items, &vec![1.0; features]);
            let labels = labels(&x, features, &normal_table(7, items, &[1.0]));
            for weight in [ClassWeight::None, ClassWeight::Balanced] {
                let weights = weight.of(&labels);
                let target = Target { labels: &labels, weights: &weights, c };
                let fit = Logistic::fit(&x, features, target).unwrap();
                let left = gradient(&fit, &x, target);
                assert!(left <= 1e-9 * c.max(1.0), "{items} x {features}, C {c}: {left:e} after {}", fit.steps);
            }
        }
    }

    /// Items that are there twice, and features of few directions: the products of items have no inverse.
    #[test]
    fn what_has_fewer_directions_than_items_is_fitted() {
        for (rank, twice, c) in [(3, false, 1e4), (3, true, 100.0), (20, true, 1e4), (500, true, 100.0)] {
            let (half, features) = (60, 500);
            let along = normal_table(21, half, &vec![1.0; rank]);
            let directions = normal_table(22, rank, &vec![1.0; features]);
            let of = |row: &[f64]| {
                let one = |j: usize| (0..rank).map(|k| row[k] * directions[k * features + j]).sum::<f64>();
                (0..features).map(one).collect::<Vec<f64>>()
            };
            let mut x: Vec<f64> = along.chunks_exact(rank).flat_map(of).collect();
            let mut labels: Vec<bool> = along.chunks_exact(rank).map(|row| row[0] > 0.0).collect();
            if twice {
                x.extend_from_within(..);
                labels.extend_from_within(..);
            }
            let weights = vec![1.0; labels.len()];
            let target = Target { labels: &labels, weights: &weights, c };
            let fit = Logistic::fit(&x, features, target).unwrap();
            let left = gradient(&fit, &x, target);
            println!("rank {rank}, twice {twice}, C {c}: {left:e} in {} steps", fit.steps);
            assert!(left <= 1e-7 * c, "rank {rank}, twice {twice}, C {c}: {left:e}");
        }
    }

    /// Two ways to the minimum, each the other's oracle.
    #[test]
    fn over_items_and_over_features_there_is_one_minimum() {
        for (items, features) in [(25, 60), (60, 25), (40, 40)] {
            let x = normal_table(3, items, &vec![1.0; features]);
            let labels = labels(&x, features, &normal_table(5, items, &[2.0]));
            let weights = vec![1.0; items];
            let target = Target { labels: &labels, weights: &weights, c: 0.7 };
            let dual = Kernel::new(&x, features, &[]).fit(target).unwrap().in_features(&x, features);
            let primal = primal::fit(&x, features, target, None).unwrap();
            let differ = worst(&dual.coef, &primal.coef);
            assert!(differ <= 1e-9 && (dual.intercept - primal.intercept).abs() <= 1e-9, "{differ:e}");
        }
    }

    #[test]
    fn what_has_no_fit_says_why() {
        let weights = [1.0; 3];
        let fit = |labels: &[bool], x: &[f64], c: f64| {
            Logistic::fit(x, 1, Target { labels, weights: &weights, c }).unwrap_err().to_string()
        };
        let x = [0.0, 1.0, 2.0];
        assert_eq!(fit(&[true; 3], &x, 1.0), "all 3 items are of one class (true), but both are needed");
        assert!(fit(&[true, false, true], &[0.0, f64::NAN, 1.0], 1.0).starts_with("feature 0 of item 1 is NaN"));
        for c in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(fit(&[true, false, true], &x, c).contains("must be above 0 and at most 1000000"));
        }
    }

    #[test]
    fn a_feature_that_says_nothing_gets_nothing() {
        let x: Vec<f64> = (0..20).flat_map(|i| [f64::from(i), 3.0, 0.0]).collect();
        let labels: Vec<bool> = (0..20).map(|i| i > 7).collect();
        let rows: Vec<usize> = (0..20).collect();
        let scaler = Scaler::of(&x, 3, &rows);
        let scaled = scaler.apply(&x, 3, &rows);
        let fit = Logistic::fit(&scaled, 3, Target { labels: &labels, weights: &[1.0; 20], c: 1.0 }).unwrap();
        assert_eq!(fit.coef[1..], [0.0, 0.0]);
        assert!(fit.coef[0] > 0.5);
    }

    #[test]
    fn log_odds_of_any_size_have_a_probability() {
        for f in [-1e4, -40.0, -1.0, 0.0, 1.0, 40.0, 1e4] {
            assert!((sigmoid(f) + sigmoid(-f) - 1.0).abs() < 1e-15);
            assert!(log_loss(f) >= 0.0 && log_loss(f).is_finite());
        }
    }
}
