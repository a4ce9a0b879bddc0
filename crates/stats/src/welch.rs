//! Welch's test of two means with unequal variances.

use statrs::function::beta::beta_reg;

use crate::effect::NO_SPREAD;
use crate::summary::{mean, variance};

/// What [`welch_t`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welch {
    /// Difference of the means, a minus b, in standard errors.
    pub t: f64,
    /// Degrees of freedom after Satterthwaite.
    pub df: f64,
    /// Two-sided p-value under Student's t.
    pub p: f64,
}

impl Welch {
    /// The result for items that the test is not for.
    pub const NONE: Self = Self { t: f64::NAN, df: f64::NAN, p: f64::NAN };
}

/// Welch's t-test of two independent groups, two-sided (Welch 1947; `scipy.stats.ttest_ind(equal_var=False)`).
///
/// All three fields are NaN if either group has fewer than two values. Two groups without spread (below 1e-12 of
/// the larger mean) give t = 0, p = 1 and a df of NaN, where scipy would claim p = 0 if their means differ.
pub fn welch_t(a: &[f64], b: &[f64]) -> Welch {
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (var_a, var_b) = (variance(a), variance(b));
    if (var_a + var_b).sqrt() <= NO_SPREAD * mean_a.abs().max(mean_b.abs()) {
        return Welch { t: 0.0, df: f64::NAN, p: 1.0 };
    }
    let (error_a, error_b) = (var_a / a.len() as f64, var_b / b.len() as f64);
    let total = error_a + error_b;
    let t = (mean_a - mean_b) / total.sqrt();
    // Shares of the error, not squares of it: they neither overflow nor vanish.
    let (share_a, share_b) = (error_a / total, error_b / total);
    let df = 1.0 / (share_a.powi(2) / (a.len() as f64 - 1.0) + share_b.powi(2) / (b.len() as f64 - 1.0));
    Welch { t, df, p: two_sided_p(t, df) }
}

/// P(|T| >= |t|) for Student's t with `df` degrees of freedom, as a regularised incomplete beta (Abramowitz and
/// Stegun 26.5.27), from the side where its argument is small: near 1 the rounding of the argument would show.
pub(crate) fn two_sided_p(t: f64, df: f64) -> f64 {
    let square = t * t;
    if !square.is_finite() || df.is_nan() {
        return f64::NAN;
    }
    if square < df {
        1.0 - beta_reg(0.5, df / 2.0, square / (df + square))
    } else {
        beta_reg(df / 2.0, 0.5, df / (df + square))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_one_are_nan() {
        for (a, b) in [(vec![1.0], vec![2.0, 3.0]), (vec![1.0, 2.0], vec![]), (vec![], vec![])] {
            let Welch { t, df, p } = welch_t(&a, &b);
            assert!(t.is_nan() && df.is_nan() && p.is_nan());
        }
    }

    #[test]
    fn constant_groups_are_no_finding() {
        let found = welch_t(&[0.1; 7], &[0.3; 5]);
        assert_eq!((found.t, found.p), (0.0, 1.0));
        assert!(found.df.is_nan());
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        assert!(welch_t(&[1.0, f64::NAN], &[2.0, 2.0]).p.is_nan());
    }

    #[test]
    fn cauchy_tails_are_known_in_closed_form() {
        for t in [1e-9, 1e-3, 0.5, 1.0, 3.0, 1e3, 1e9] {
            let exact = 2.0 * (1.0f64 / t).atan() / std::f64::consts::PI;
            assert!((two_sided_p(t, 1.0) / exact - 1.0).abs() < 1e-12, "t = {t}");
        }
    }
}
