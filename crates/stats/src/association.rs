//! How far a category goes with the group.

use crate::permute::group_sizes;

/// Cramér's V of a category and a group (Cramér 1946; `scipy.stats.contingency.association(method="cramer")`): 0 where both groups
/// have the same shares of every category, 1 where the category determines the group. NaN for an empty group or for fewer than two
/// categories, which leave nothing to associate. Panics unless there is one category per item.
pub fn cramers_v(categories: &[usize], labels: &[bool]) -> f64 {
    assert_eq!(categories.len(), labels.len(), "one category an item");
    let (n_a, n_b) = group_sizes(labels);
    let mut counts: Vec<[f64; 2]> = vec![[0.0; 2]; categories.iter().max().map_or(0, |most| most + 1)];
    for (&category, &in_a) in categories.iter().zip(labels) {
        counts[category][usize::from(in_a)] += 1.0;
    }
    counts.retain(|[b, a]| a + b > 0.0);
    if n_a == 0 || n_b == 0 || counts.len() < 2 {
        return f64::NAN;
    }
    let n = labels.len() as f64;
    let chi_square: f64 = counts
        .iter()
        .flat_map(|&[b, a]| [(a, n_a as f64), (b, n_b as f64)].map(|(found, of_group)| (found, of_group * (a + b) / n)))
        .map(|(found, expected)| (found - expected).powi(2) / expected)
        .sum();
    // Of two groups the smaller side of the table is 2 at most.
    (chi_square / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_scale() {
        let labels = [true, true, false, false];
        assert_eq!(cramers_v(&[0, 0, 7, 7], &labels), 1.0);
        assert_eq!(cramers_v(&[0, 7, 0, 7], &labels), 0.0);
        assert!(cramers_v(&[3, 3, 3, 3], &labels).is_nan() && cramers_v(&[], &[]).is_nan());
        assert!(cramers_v(&[0, 1], &[true, true]).is_nan());
    }
}
