//! Standardised differences of two means.

use statrs::function::gamma::ln_gamma;

use crate::summary::{mean, squared_deviations};

/// A spread below this share of what it is compared with is rounding, not data.
pub(crate) const NO_SPREAD: f64 = 1e-12;

/// Cohen's d: `(mean_a - mean_b) / pooled sd`, the variances pooled with n - 1 (Cohen 1988, section 2.5). No unit;
/// positive where a is larger.
///
/// NaN if either group has fewer than two values. 0, not infinity, if the pooled sd is below 1e-12 of the larger
/// mean: two constant groups say nothing about an effect in units of a spread.
pub fn cohen_d(a: &[f64], b: &[f64]) -> f64 {
    if a.len() < 2 || b.len() < 2 {
        return f64::NAN;
    }
    let within = squared_deviations(a) + squared_deviations(b);
    standardised(mean(a), mean(b), pooled_sd(within, a.len(), b.len()))
}

/// [`cohen_d`] with a spread in which the variance of each group counts by the size of the other, as it does in the error of a
/// difference of means: Welch's t times `√(1/n_a + 1/n_b)`. The same number for groups of one size.
///
/// **This is what shuffled labels are compared by.** A shuffle mixes the groups and so gives them one spread. Where a smaller group
/// really spreads more, cohen_d is too large too often although the means are the same; this d is not, with enough items (Janssen
/// 1997; Chung and Romano 2013). Degenerate input as in [`cohen_d`].
pub fn welch_d(a: &[f64], b: &[f64]) -> f64 {
    if a.len() < 2 || b.len() < 2 {
        return f64::NAN;
    }
    let within = [squared_deviations(a), squared_deviations(b)];
    standardised(mean(a), mean(b), welch_sd(within, [a.len() - 1, b.len() - 1], [a.len(), b.len()]))
}

/// Hedges' g: [`cohen_d`] times [`hedges_correction`]. Unbiased for the population effect of normal groups with one
/// variance. Degenerate input as in [`cohen_d`].
pub fn hedges_g(a: &[f64], b: &[f64]) -> f64 {
    cohen_d(a, b) * hedges_correction((a.len() + b.len()).saturating_sub(2))
}

/// The exact small-sample correction `J = Γ(m/2) / (√(m/2) Γ((m-1)/2))` of a d whose spread has m degrees of freedom (Hedges 1981),
/// not the approximation `1 - 3 / (4m - 1)`. m is `n_a + n_b - 2`, less the degrees of freedom of covariates. NaN for m below two.
pub fn hedges_correction(freedom: usize) -> f64 {
    if freedom < 2 {
        return f64::NAN;
    }
    let half = freedom as f64 / 2.0;
    (ln_gamma(half) - ln_gamma(half - 0.5)).exp() / half.sqrt()
}

/// Pooled sd of two groups from the sum of squared deviations within them.
pub(crate) fn pooled_sd(within: f64, n_a: usize, n_b: usize) -> f64 {
    (within / (n_a + n_b - 2) as f64).sqrt()
}

/// The sd of [`welch_d`], from each group's squared deviations, their degrees of freedom and its size.
pub(crate) fn welch_sd(within: [f64; 2], freedom: [usize; 2], [n_a, n_b]: [usize; 2]) -> f64 {
    let [variance_a, variance_b] = [0, 1].map(|of| within[of] / freedom[of] as f64);
    ((n_b as f64 * variance_a + n_a as f64 * variance_b) / (n_a + n_b) as f64).sqrt()
}

/// A difference of means in units of `sd`; 0 where `sd` is only rounding beside the means.
pub(crate) fn standardised(mean_a: f64, mean_b: f64, sd: f64) -> f64 {
    if sd <= NO_SPREAD * mean_a.abs().max(mean_b.abs()) { 0.0 } else { (mean_a - mean_b) / sd }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_one_have_no_effect_size() {
        assert!(cohen_d(&[1.0], &[2.0, 3.0]).is_nan());
        assert!(cohen_d(&[1.0, 2.0], &[]).is_nan());
        assert!(hedges_g(&[1.0], &[2.0, 3.0, 4.0]).is_nan());
    }

    #[test]
    fn constant_groups_do_not_look_infinitely_different() {
        assert_eq!(cohen_d(&[0.1; 7], &[0.3; 5]), 0.0);
        assert_eq!(cohen_d(&[0.0; 7], &[0.0; 5]), 0.0);
        assert_eq!(hedges_g(&[0.1; 7], &[0.3; 5]), 0.0);
    }

    #[test]
    fn welch_d_is_welch_t_in_units_of_a_spread() {
        let (a, b) = ([3.0, 9.0, -5.0], [1.0, 2.0, 3.0, 2.5, 1.5]);
        let scale = (1.0 / 3.0 + 1.0 / 5.0_f64).sqrt();
        assert!((welch_d(&a, &b) - crate::welch_t(&a, &b).t * scale).abs() < 1e-14);
        assert!((welch_d(&a, &b) - cohen_d(&a, &b)).abs() > 0.01, "or the sizes and spreads are alike");
        assert!((welch_d(&a, &b[..3]) - cohen_d(&a, &b[..3])).abs() < 1e-15);
        assert_eq!(welch_d(&[0.1; 7], &[0.3; 5]), 0.0);
        assert!(welch_d(&[1.0], &b).is_nan() && welch_d(&[1.0, f64::NAN], &b).is_nan());
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        assert!(cohen_d(&[1.0, f64::NAN], &[2.0, 3.0]).is_nan());
        assert!(cohen_d(&[1.0, 2.0], &[f64::INFINITY, 3.0]).is_nan());
    }

    #[test]
    fn sign_is_a_minus_b_and_scale_cancels() {
        let (a, b) = ([3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 2.5]);
        assert!(cohen_d(&a, &b) > 0.0);
        assert_eq!(cohen_d(&a, &b), -cohen_d(&b, &a));
        let tiny = |x: &[f64]| x.iter().map(|x| x * 1e-30).collect::<Vec<_>>();
        assert!((cohen_d(&tiny(&a), &tiny(&b)) - cohen_d(&a, &b)).abs() < 1e-12);
    }
}
