//! The plane in which items lie furthest apart.

use crate::{
    random::Random,
    table::centre,
    vector::{dot, norm},
};

/// Rounds of the iteration; each brings a direction closer by the ratio of its variance to the next.
const ROUNDS: usize = 1000;
/// A direction that turns by less than this counts as found.
const STILL: f64 = 1e-12;

/// The first principal components of row-major `x` `[items, features]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Components {
    /// Where each item lies along each component, `[items, count]`.
    pub scores: Vec<f64>,
    /// Share of the variance along each.
    pub share: Vec<f64>,
}

/// The first `count` principal components, by power iteration with deflation, from a seeded start; the sign is such that the
/// largest score is positive. Components without variance have scores of 0. Panics if `x` is not a whole number of rows.
pub fn principal_components(x: &[f64], features: usize, count: usize) -> Components {
    let (centred, _) = centre(x, features);
    let rows = || centred.chunks_exact(features);
    let total = dot(&centred, &centred);
    let mut found: Vec<Vec<f64>> = Vec::new();
    let mut random = Random::new(0, 0x9ca0);
    for _ in 0..count.min(features) {
        let start: Vec<f64> = (0..features).map(|_| random.uniform() - 0.5).collect();
        let mut v = scaled(&start, 1.0 / norm(&start));
        for _ in 0..ROUNDS {
            let mut next = vec![0.0; features];
            for row in rows() {
                let along = dot(row, &v);
                next.iter_mut().zip(row).for_each(|(sum, x)| *sum += along * x);
            }
            for other in &found {
                let along = dot(&next, other);
                next.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
            }
            let length = norm(&next);
            // No variance is left: any direction is as good, and none is given.
            let next = if length <= f64::EPSILON * total { vec![0.0; features] } else { scaled(&next, 1.0 / length) };
            let still = 1.0 - dot(&next, &v).abs() < STILL;
            v = next;
            if still {
                break;
            }
        }
        found.push(v);
    }
    let along = |v: &Vec<f64>| {
        let scores: Vec<f64> = rows().map(|row| dot(row, v)).collect();
        let largest = scores.iter().fold(0.0, |most: f64, x| if x.abs() > most.abs() { *x } else { most });
        if largest < 0.0 { scores.into_iter().map(|x| -x).collect() } else { scores }
    };
    let mut columns: Vec<Vec<f64>> = found.iter().map(along).collect();
    // Of two directions with nearly equal variance, either may be found first.
    columns.sort_by(|a, b| dot(b, b).total_cmp(&dot(a, a)));
    let share = columns.iter().map(|scores| dot(scores, scores) / total).collect();
    let scores = (0..x.len() / features).flat_map(|item| columns.iter().map(move |column| column[item])).collect();
    Components { scores, share }
}

fn scaled(v: &[f64], by: f64) -> Vec<f64> {
    v.iter().map(|x| x * by).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::normal_table;

    #[test]
    fn the_widest_directions_come_first() {
        let x = normal_table(4, 60, &[0.5, 3.0, 1.0, 0.1]);
        let found = principal_components(&x, 4, 2);
        let variance = |at: usize| found.scores.iter().skip(at).step_by(2).map(|s| s * s).sum::<f64>();
        assert!(variance(0) > 5.0 * variance(1) && found.share[0] > 0.8 && found.share[1] < 0.2);
        let across: f64 = found.scores.chunks_exact(2).map(|s| s[0] * s[1]).sum();
        assert!(across.abs() < 1e-6 * variance(0), "components are uncorrelated: {across}");
        // The first is nearly the second feature.
        let with: f64 = x.chunks_exact(4).zip(found.scores.chunks_exact(2)).map(|(row, s)| row[1] * s[0]).sum();
        assert!(with.abs() > 0.98 * (variance(0) * x.chunks_exact(4).map(|row| row[1] * row[1]).sum::<f64>()).sqrt());
    }

    /// Noise has no widest direction to speak of, yet its components are still those of the definition: scores are eigenvectors of
    /// the products of the items, the largest first.
    #[test]
    fn components_of_noise_are_eigenvectors() {
        let (items, features) = (40, 60);
        let x = normal_table(11, items, &vec![1.0; features]);
        let (centred, _) = centre(&x, features);
        let gram = |i: usize, j: usize| {
            dot(&centred[i * features..(i + 1) * features], &centred[j * features..(j + 1) * features])
        };
        let found = principal_components(&x, features, 2);
        assert!(found.share[0] > found.share[1] && found.share[1] > 1.0 / items as f64, "{:?}", found.share);
        for at in 0..2 {
            let scores: Vec<f64> = found.scores.iter().skip(at).step_by(2).copied().collect();
            let value = dot(&scores, &scores);
            let off: f64 = (0..items)
                .map(|i| (0..items).map(|j| gram(i, j) * scores[j]).sum::<f64>() - value * scores[i])
                .map(|x| x * x)
                .sum();
            assert!(off.sqrt() < 1e-4 * value * value.sqrt(), "component {at}: {}", off.sqrt());
        }
    }

    #[test]
    fn items_that_are_all_alike_have_no_direction() {
        let found = principal_components(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 2, 2);
        assert!(found.scores.iter().all(|s| s.abs() < 1e-12));
    }
}
