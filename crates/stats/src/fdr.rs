//! False discovery rate over many tests.

/// Benjamini-Hochberg q-values (Benjamini and Hochberg 1995; `scipy.stats.false_discovery_control`): the smallest
/// false discovery rate at which each test is still a discovery. Same order as `p`, monotone in it, at most 1.
///
/// NaN, and anything else outside 0..=1, is not a p-value: its q is NaN and it does not count as a test.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).filter(|&i| (0.0..=1.0).contains(&p[i])).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let tests = order.len() as f64;
    let mut q = vec![f64::NAN; p.len()];
    let mut least = 1.0f64;
    for (rank, &i) in order.iter().enumerate().rev() {
        least = least.min(p[i] * tests / (rank + 1) as f64);
        q[i] = least;
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_p_value_is_no_test() {
        let q = benjamini_hochberg(&[0.01, f64::NAN, 0.04, -0.5, 1.5]);
        assert_eq!(q[0], 0.02);
        assert_eq!(q[2], 0.04);
        assert!(q[1].is_nan() && q[3].is_nan() && q[4].is_nan());
        assert!(benjamini_hochberg(&[]).is_empty());
    }

    #[test]
    fn q_is_never_below_p_and_never_above_one() {
        let p = [0.9, 1.0, 0.2, 0.2, 0.0, 0.95];
        for (q, p) in benjamini_hochberg(&p).iter().zip(p) {
            assert!((p..=1.0).contains(q));
        }
    }
}
