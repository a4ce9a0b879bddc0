//! The fit over features, where they are no more than the items.

use rayon::prelude::*;

use super::{Cholesky, FitError, Logistic, PATIENCE, STEPS, Target, line_search, matrix::transposed_times};
use crate::vector::dot;

/// Products up to which the Hessian is computed and factored at every step; above, the first factor serves all steps.
const CHEAP: usize = 1 << 28;
/// Items that are added up together: sums run over these blocks in order, whatever the number of threads.
const BLOCK: usize = 256;
/// How exactly a step is solved, as a share of the gradient.
const STEP_PRECISION: f64 = 1e-4;
/// The most conjugate gradient iterations per step.
const CONJUGATE: usize = 500;

/// The factor of the first Hessian of a fit. While all log-odds are 0, all items of equal weight are equally stiff, whatever their labels:
/// one factor serves all labelings, with the same numbers.
pub(crate) struct First {
    stiffness: f64,
    factor: Cholesky,
}

impl First {
    /// For rows of `x`, all of weight 1, under this C. None if the Hessian cannot be factored.
    pub(crate) fn new(x: &[f64], features: usize, c: f64) -> Option<Self> {
        let (labels, weights) = (vec![true; x.len() / features], vec![1.0; x.len() / features]);
        let target = Target { labels: &labels, weights: &weights, c };
        let (_, stiffness) = target.pulls(&vec![0.0; labels.len()]);
        let factor = Problem { x, features, target }.factor(&stiffness)?;
        Some(Self { stiffness: stiffness[0], factor })
    }

    fn is_of(&self, stiffness: &[f64]) -> bool {
        stiffness.iter().all(|&of_item| of_item == self.stiffness)
    }
}

/// Newton's method. Each step is solved by conjugate gradients, which only need the Hessian's products with vectors; the
/// preconditioner is the latest Cholesky factor of a Hessian. Vectors hold the coefficients and, last, the intercept.
pub(crate) fn fit(x: &[f64], features: usize, target: Target<'_>, first: Option<&First>) -> Result<Logistic, FitError> {
    target.check()?;
    let problem = Problem { x, features, target };
    let cheap = target.labels.len() * features * features <= CHEAP;
    let mut at = vec![0.0; features + 1];
    let mut log_odds = vec![0.0; target.labels.len()];
    let (mut shared, mut factor) = (None, None);
    let (mut left, mut least, mut stalled, mut taken) = (f64::INFINITY, f64::INFINITY, 0, 0);
    let largest = x.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
    for steps in 0..STEPS {
        let (pulls, stiffness) = target.pulls(&log_odds);
        let gradient = problem.gradient(&at, &pulls);
        left = gradient.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        stalled = if left < least / 2.0 { 0 } else { stalled + 1 };
        least = least.min(left);
        if left <= target.enough() || (stalled >= PATIENCE && left <= target.rounding(largest)) {
            let intercept = at.pop().expect("the intercept is the last");
            return Ok(Logistic { coef: at, intercept, steps });
        }
        if steps == 0 {
            shared = first.filter(|first| first.is_of(&stiffness));
        }
        let known = shared.filter(|_| steps == 0 || !cheap);
        if known.is_none() && (cheap || factor.is_none()) {
            factor = problem.factor(&stiffness);
        }
        let Some(factor) = known.map(|first| &first.factor).or(factor.as_ref()) else { break };
        let step = problem.step(&gradient, &stiffness, factor);
        let moved = problem.log_odds(&step);
        let penalty = |share: f64| at[..features].iter().zip(&step).map(|(w, d)| (w + share * d).powi(2)).sum::<f64>();
        let objective = |share: f64| {
            let log_odds: Vec<f64> = log_odds.iter().zip(&moved).map(|(f, d)| f + share * d).collect();
            target.loss(&log_odds) + penalty(share) / 2.0
        };
        match line_search(objective(0.0), dot(&gradient, &step), objective) {
            Some(share) => {
                at.iter_mut().zip(&step).for_each(|(w, d)| *w += share * d);
                log_odds = problem.log_odds(&at);
                taken = steps + 1;
            }
            None => break,
        }
    }
    Err(FitError::NotConverged { steps: taken, gradient: left })
}

struct Problem<'a> {
    x: &'a [f64],
    features: usize,
    target: Target<'a>,
}

impl Problem<'_> {
    fn blocks(&self) -> rayon::slice::Chunks<'_, f64> {
        self.x.par_chunks(BLOCK * self.features)
    }

    /// `x w + b` of every item.
    fn log_odds(&self, at: &[f64]) -> Vec<f64> {
        let (coef, intercept) = (&at[..self.features], at[self.features]);
        let rows = |block: &[f64]| {
            block.chunks_exact(self.features).map(|row| dot(row, coef) + intercept).collect::<Vec<f64>>()
        };
        self.blocks().map(rows).collect::<Vec<_>>().concat()
    }

    /// `[xᵀ; 1] v`, in blocks of fixed order.
    fn transposed(&self, v: &(dyn Fn(usize, &[f64]) -> f64 + Sync)) -> Vec<f64> {
        let sum = |(block, rows): (usize, &[f64])| {
            let mut sum = vec![0.0; self.features + 1];
            for (i, row) in rows.chunks_exact(self.features).enumerate() {
                let v = v(block * BLOCK + i, row);
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += v * x);
                sum[self.features] += v;
            }
            sum
        };
        let sums: Vec<Vec<f64>> = self.blocks().enumerate().map(sum).collect();
        let mut total = vec![0.0; self.features + 1];
        for sum in sums {
            total.iter_mut().zip(sum).for_each(|(total, x)| *total += x);
        }
        total
    }

    fn gradient(&self, at: &[f64], pulls: &[f64]) -> Vec<f64> {
        let mut gradient = self.transposed(&|item, _| -pulls[item]);
        gradient.iter_mut().zip(&at[..self.features]).for_each(|(g, w)| *g += w);
        gradient
    }

    /// The Hessian times a vector, in one pass over the items.
    fn curvature(&self, stiffness: &[f64], v: &[f64]) -> Vec<f64> {
        let (of_coef, of_intercept) = (&v[..self.features], v[self.features]);
        let mut out = self.transposed(&|item, row| stiffness[item] * (dot(row, of_coef) + of_intercept));
        out.iter_mut().zip(of_coef).for_each(|(sum, v)| *sum += v);
        out
    }

    /// The Cholesky factor of the Hessian `xᵀ W x + 1`, with no 1 in the intercept's row.
    fn factor(&self, stiffness: &[f64]) -> Option<Cholesky> {
        let (d, n) = (self.features, self.features + 1);
        let mut weighted = self.x.to_vec();
        for (row, w) in weighted.chunks_exact_mut(d).zip(stiffness) {
            row.iter_mut().zip(std::iter::repeat(w)).for_each(|(x, w)| *x *= w);
        }
        let products = transposed_times(&weighted, self.x, self.target.labels.len());
        drop(weighted);
        let mut hessian = vec![0.0; n * n];
        for (i, (row, products)) in hessian.chunks_exact_mut(n).zip(products.chunks_exact(d)).enumerate() {
            row[..d].copy_from_slice(products);
            row[i] += 1.0;
        }
        hessian[d * n..].copy_from_slice(&self.transposed(&|item, _| stiffness[item]));
        Cholesky::new(hessian, n)
    }

    /// Newton's step, by preconditioned conjugate gradients from 0.
    fn step(&self, gradient: &[f64], stiffness: &[f64], factor: &Cholesky) -> Vec<f64> {
        let solved = |v: &[f64]| {
            let mut v = v.to_vec();
            factor.solve(&mut v);
            v
        };
        let mut step = vec![0.0; gradient.len()];
        let mut rest: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut direction = solved(&rest);
        let mut square = dot(&rest, &direction);
        // The closer the minimum, the more exact the step: this keeps Newton's rate of convergence.
        let size = dot(gradient, gradient).sqrt();
        let enough = STEP_PRECISION.min(size) * size;
        for _ in 0..CONJUGATE {
            let curved = self.curvature(stiffness, &direction);
            let share = square / dot(&direction, &curved);
            step.iter_mut().zip(&direction).for_each(|(x, d)| *x += share * d);
            rest.iter_mut().zip(&curved).for_each(|(r, c)| *r -= share * c);
            if dot(&rest, &rest).sqrt() <= enough {
                break;
            }
            let next = solved(&rest);
            let next_square = dot(&rest, &next);
            let keep = next_square / square;
            direction.iter_mut().zip(&next).for_each(|(d, x)| *d = x + keep * *d);
            square = next_square;
        }
        step
    }
}
