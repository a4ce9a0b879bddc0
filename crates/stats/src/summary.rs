//! One sample in one number: mean, variance, quantile.

/// Arithmetic mean, in the unit of the values. NaN for an empty slice.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample variance with n - 1, in squared units, computed in two passes. NaN for fewer than two values.
pub fn variance(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return f64::NAN;
    }
    squared_deviations(values) / (values.len() - 1) as f64
}

/// Sample standard deviation: the root of [`variance`], NaN for fewer than two values.
pub fn sd(values: &[f64]) -> f64 {
    variance(values).sqrt()
}

/// Quantile `q` in 0..=1 of values in ascending order, interpolated linearly: `numpy.quantile(.., method="linear")`,
/// type 7 of Hyndman and Fan (1996). NaN for an empty slice and for a `q` outside 0..=1.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    if sorted.is_empty() || !(0.0..=1.0).contains(&q) {
        return f64::NAN;
    }
    let at = q * (sorted.len() - 1) as f64;
    let below = at as usize;
    let part = at - below as f64;
    // A quantile that falls on a value is that value, also beside an infinite neighbour.
    if part == 0.0 { sorted[below] } else { sorted[below] + part * (sorted[below + 1] - sorted[below]) }
}

/// Sum of squared deviations from the mean of the values.
pub(crate) fn squared_deviations(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|x| (x - mean).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_values_are_nan() {
        assert!(mean(&[]).is_nan());
        assert!(variance(&[]).is_nan() && variance(&[3.0]).is_nan() && sd(&[3.0]).is_nan());
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn variance_survives_a_large_mean() {
        let shifted: Vec<f64> = [1.0, 2.0, 3.0, 4.0].iter().map(|x| x + 1e9).collect();
        assert!((variance(&shifted) - 5.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn quantile_keeps_to_its_range() {
        assert!(quantile(&[1.0, 2.0], -0.1).is_nan());
        assert!(quantile(&[1.0, 2.0], 1.1).is_nan());
        assert!(quantile(&[1.0, 2.0], f64::NAN).is_nan());
        assert_eq!(quantile(&[1.0, 2.0, f64::INFINITY], 0.5), 2.0);
        assert_eq!(quantile(&[7.0], 0.3), 7.0);
    }
}
