//! Features in units of their spread.

/// What is subtracted from each feature, and what it is then divided by: `sklearn.preprocessing.StandardScaler`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    /// The mean of each feature.
    pub mean: Vec<f64>,
    /// The standard deviation (with n) of each feature; 1 for a feature without spread.
    pub scale: Vec<f64>,
}

impl Scaler {
    /// Learns from the given rows of row-major `x` `[items, features]`, in two passes. Panics if there are none.
    pub fn of(x: &[f64], features: usize, rows: &[usize]) -> Self {
        assert!(!rows.is_empty(), "there is something to learn from");
        let n = rows.len() as f64;
        let row = |item: usize| &x[item * features..(item + 1) * features];
        let mut mean = vec![0.0; features];
        for &item in rows {
            mean.iter_mut().zip(row(item)).for_each(|(sum, x)| *sum += x);
        }
        mean = mean.into_iter().map(|sum| sum / n).collect();
        let mut scale = vec![0.0; features];
        for &item in rows {
            let deviations = row(item).iter().zip(&mean);
            scale.iter_mut().zip(deviations).for_each(|(sum, (x, mean))| *sum += (x - mean) * (x - mean));
        }
        for (sum, mean) in scale.iter_mut().zip(&mean) {
            let variance = *sum / n;
            // What is left of a constant after its mean is taken off is rounding (scikit-learn's bound).
            let rounding = n * f64::EPSILON * variance + (n * mean * f64::EPSILON).powi(2);
            *sum = if variance <= rounding { 1.0 } else { variance.sqrt() };
        }
        Self { mean, scale }
    }

    /// The given rows in units of the spread, row-major.
    pub fn apply(&self, x: &[f64], features: usize, rows: &[usize]) -> Vec<f64> {
        let mut out = Vec::with_capacity(rows.len() * features);
        for &item in rows {
            let row = &x[item * features..(item + 1) * features];
            let by = self.mean.iter().zip(&self.scale);
            out.extend(row.iter().zip(by).map(|(x, (mean, scale))| (x - mean) / scale));
        }
        out
    }
}
