//! The fit over items, where they are fewer than the features. It needs only the products of items, not the features.

use super::{Cholesky, FitError, Logistic, PATIENCE, STEPS, Target, line_search, matrix::times_transposed};
use crate::vector::dot;

/// Products of items with each other, and of further items with these: computed once, fitted under any labels.
///
/// At the minimum `w = Σ a_i x_i`, with `a_i = C s_i (t_i - p_i)` and `Σ a_i = 0`, so that log-odds are `K a + b`. Newton's
/// step is solved in the form `I + W^½ K W^½`, which is well-conditioned however K is (Rasmussen and Williams 2006,
/// algorithm 3.1), the intercept along with it.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// `x xᵀ` `[items, items]`.
    gram: Vec<f64>,
    /// `other xᵀ` `[others, items]`.
    cross: Vec<f64>,
}

/// A fit over items.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DualFit {
    /// The weight of each item in the coefficients.
    pub(crate) weights: Vec<f64>,
    /// Log-odds at the origin.
    pub(crate) intercept: f64,
    /// Newton steps that it took.
    pub(crate) steps: usize,
}

impl DualFit {
    /// The same fit as coefficients of features, from the rows that the kernel was made of.
    pub(crate) fn in_features(&self, x: &[f64], features: usize) -> Logistic {
        let mut coef = vec![0.0; features];
        for (row, weight) in x.chunks_exact(features).zip(&self.weights) {
            coef.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
        }
        Logistic { coef, intercept: self.intercept, steps: self.steps }
    }
}

/// Where the search stands.
struct State {
    a: Vec<f64>,
    b: f64,
    /// `K a`.
    ka: Vec<f64>,
}

impl State {
    fn log_odds(&self) -> Vec<f64> {
        self.ka.iter().map(|ka| ka + self.b).collect()
    }
}

impl Kernel {
    /// The products of row-major `x` `[items, features]`, and of `others` `[others, features]` with them.
    pub(crate) fn new(x: &[f64], features: usize, others: &[f64]) -> Self {
        Self { gram: times_transposed(x, x, features), cross: times_transposed(others, x, features) }
    }

    /// Log-odds of the further items, by a fit.
    pub(crate) fn log_odds(&self, fit: &DualFit) -> Vec<f64> {
        let products = self.cross.chunks_exact(fit.weights.len());
        products.map(|row| dot(row, &fit.weights) + fit.intercept).collect()
    }

    /// Fits the items. Panics unless there is one label and one weight per item.
    ///
    /// # Errors
    /// As [`Logistic::fit`].
    pub(crate) fn fit(&self, target: Target<'_>) -> Result<DualFit, FitError> {
        let n = target.labels.len();
        assert_eq!((self.gram.len(), target.weights.len()), (n * n, n), "one label and weight an item");
        target.check()?;
        let mut at = State { a: vec![0.0; n], b: 0.0, ka: vec![0.0; n] };
        let (mut left, mut least, mut stalled, mut taken) = (f64::INFINITY, f64::INFINITY, 0, 0);
        let longest = (0..n).map(|i| self.gram[i * n + i]).fold(0.0, f64::max).sqrt();
        for steps in 0..STEPS {
            let log_odds = at.log_odds();
            let (pulls, stiffness) = target.pulls(&log_odds);
            left = self.gradient(&at, &pulls);
            stalled = if left < least / 2.0 { 0 } else { stalled + 1 };
            least = least.min(left);
            if left <= target.enough() || (stalled >= PATIENCE && left <= target.rounding(longest)) {
                return Ok(DualFit { weights: at.a, intercept: at.b, steps });
            }
            let value = target.loss(&log_odds) + dot(&at.a, &at.ka) / 2.0;
            if !self.step(&mut at, value, &pulls, &stiffness, target) {
                break;
            }
            taken = steps + 1;
        }
        Err(FitError::NotConverged { steps: taken, gradient: left })
    }

    /// The length of the gradient over coefficients and intercept.
    fn gradient(&self, at: &State, pulls: &[f64]) -> f64 {
        let over: Vec<f64> = at.a.iter().zip(pulls).map(|(a, pull)| a - pull).collect();
        let of_intercept: f64 = pulls.iter().sum();
        (dot(&over, &self.times(&over)).max(0.0) + of_intercept * of_intercept).sqrt()
    }

    /// One Newton step; false if none lowers the objective.
    fn step(&self, at: &mut State, value: f64, pulls: &[f64], stiffness: &[f64], target: Target<'_>) -> bool {
        let n = pulls.len();
        let roots: Vec<f64> = stiffness.iter().map(|w| w.sqrt()).collect();
        let mut form = self.gram.clone();
        for (i, row) in form.chunks_exact_mut(n).enumerate() {
            row.iter_mut().zip(&roots).for_each(|(k, root)| *k *= roots[i] * root);
            row[i] += 1.0;
        }
        let Some(form) = Cholesky::new(form, n) else { return false };
        // (I + W K)⁻¹ v = v - W^½ (I + W^½ K W^½)⁻¹ W^½ K v
        let solve = |v: Vec<f64>| {
            let mut inner: Vec<f64> = self.times(&v).iter().zip(&roots).map(|(kv, root)| kv * root).collect();
            form.solve(&mut inner);
            v.iter().zip(inner.iter().zip(&roots)).map(|(v, (x, root))| v - x * root).collect::<Vec<f64>>()
        };
        // The Newton point: a' + W K a' = pull + W (K a + b) - b' W 1, and Σ a' = 0.
        let log_odds = at.log_odds();
        let pulled = pulls.iter().zip(stiffness.iter().zip(&log_odds));
        let free = solve(pulled.map(|(pull, (w, f))| pull + w * f).collect());
        let held = solve(stiffness.to_vec());
        let held_sum: f64 = held.iter().sum();
        if held_sum.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
            return false;
        }
        let b = free.iter().sum::<f64>() / held_sum;
        let delta: Vec<f64> = free.iter().zip(&held).zip(&at.a).map(|((free, held), a)| free - b * held - a).collect();
        let (delta_b, k_delta) = (b - at.b, self.times(&delta));
        let over: Vec<f64> = at.a.iter().zip(pulls).map(|(a, pull)| a - pull).collect();
        let slope = dot(&over, &k_delta) - pulls.iter().sum::<f64>() * delta_b;
        let moved = |share: f64| State {
            a: at.a.iter().zip(&delta).map(|(a, d)| a + share * d).collect(),
            b: at.b + share * delta_b,
            ka: at.ka.iter().zip(&k_delta).map(|(ka, d)| ka + share * d).collect(),
        };
        let objective = |share: f64| {
            let at = moved(share);
            target.loss(&at.log_odds()) + dot(&at.a, &at.ka) / 2.0
        };
        match line_search(value, slope, objective) {
            Some(share) => {
                *at = moved(share);
                // Computed anew, so that rounding does not add up over the steps.
                at.ka = self.times(&at.a);
                true
            }
            None => false,
        }
    }

    fn times(&self, v: &[f64]) -> Vec<f64> {
        self.gram.chunks_exact(v.len()).map(|row| dot(row, v)).collect()
    }
}
