//! Ranks, and how alike two rankings are.

use crate::{bootstrap::Range, paired::Z};

/// Ranks from 1, ties sharing the mean of theirs (`scipy.stats.rankdata`). NaN has the rank NaN and takes none.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).filter(|&i| !values[i].is_nan()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![f64::NAN; values.len()];
    let mut first = 0;
    while first < order.len() {
        let tied = order[first..].iter().take_while(|&&i| values[i] == values[order[first]]).count();
        let rank = first as f64 + f64::midpoint(tied as f64, 1.0);
        order[first..first + tied].iter().for_each(|&i| ranks[i] = rank);
        first += tied;
    }
    ranks
}

/// Pearson's correlation, in -1..=1. Pairs with a NaN are left out; NaN for fewer than two pairs, or where either side
/// is constant. Panics if the lengths differ.
pub fn pearson(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "one value a pair on each side");
    let pairs: Vec<(f64, f64)> =
        a.iter().zip(b).map(|(&x, &y)| (x, y)).filter(|(x, y)| !x.is_nan() && !y.is_nan()).collect();
    if pairs.len() < 2 {
        return f64::NAN;
    }
    let n = pairs.len() as f64;
    let (mean_x, mean_y) = (pairs.iter().map(|p| p.0).sum::<f64>() / n, pairs.iter().map(|p| p.1).sum::<f64>() / n);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (x, y) = (x - mean_x, y - mean_y);
        (xx, yy, xy) = (xx + x * x, yy + y * y, xy + x * y);
    }
    // What is left of a constant after its mean is taken off is rounding.
    let flat = |squares: f64, mean: f64| squares.sqrt() <= crate::effect::NO_SPREAD * mean.abs() * n.sqrt();
    if flat(xx, mean_x) || flat(yy, mean_y) { f64::NAN } else { (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0) }
}

/// Spearman's rank correlation (`scipy.stats.spearmanr`): [`pearson`] of the [`ranks`] of the pairs without a NaN.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "one value a pair on each side");
    let pairs = a.iter().zip(b).filter(|(x, y)| !x.is_nan() && !y.is_nan());
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.unzip();
    pearson(&ranks(&x), &ranks(&y))
}

/// The 95 % interval of a correlation over `n` independent pairs, on the scale of its inverse hyperbolic tangent (Fisher 1921). NaN for fewer
/// than four pairs, and without width where all of them lie on one line.
pub fn fisher_range(r: f64, n: usize) -> Range {
    if n < 4 || r.is_nan() {
        return Range::NONE;
    }
    if r.abs() >= 1.0 {
        return Range { low: r, high: r };
    }
    let error = Z / ((n - 3) as f64).sqrt();
    Range { low: (r.atanh() - error).tanh(), high: (r.atanh() + error).tanh() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        let with_gap = ranks(&[2.0, f64::NAN, 1.0]);
        assert!(with_gap[0] == 2.0 && with_gap[1].is_nan() && with_gap[2] == 1.0);
    }

    #[test]
    fn degenerate_pairs_have_no_correlation() {
        assert!(spearman(&[1.0, 2.0, 3.0], &[5.0, 5.0, 5.0]).is_nan());
        assert!(spearman(&[1.0], &[2.0]).is_nan() && spearman(&[], &[]).is_nan());
        assert!(pearson(&[0.1, 0.1, 0.1], &[1.0, 2.0, 3.0]).is_nan());
        assert_eq!(spearman(&[1.0, f64::NAN, 2.0, 3.0], &[10.0, -5.0, 20.0, 1e9]), 1.0);
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0);
    }

    #[test]
    fn a_correlation_of_few_pairs_may_be_anything() {
        let Range { low, high } = fisher_range(0.5, 28);
        assert!((low - 0.156).abs() < 5e-4 && (high - 0.736).abs() < 5e-4, "{low} to {high}");
        let few = fisher_range(0.9, 5);
        assert!(few.low < 0.15 && few.high > 0.99, "{few:?}");
        assert!(fisher_range(0.9, 3).low.is_nan() && fisher_range(1.0, 3).low.is_nan());
        assert_eq!(fisher_range(-1.0, 9), Range { low: -1.0, high: -1.0 });
    }
}
