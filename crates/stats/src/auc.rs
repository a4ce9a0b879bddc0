//! How well scores rank one class above the other.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::{
    bootstrap::{Range, resample},
    paired::CONFIDENCE,
    permute::group_sizes,
    rank::ranks,
    summary::{mean, quantile, variance},
};

/// Area under the ROC curve: the chance that a score of the true class lies above one of the other, ties counting half
/// (Mann and Whitney; `sklearn.metrics.roc_auc_score`). NaN if a class is empty or a score is NaN. Panics unless there is
/// one label a score.
pub fn auc(scores: &[f64], labels: &[bool]) -> f64 {
    assert_eq!(scores.len(), labels.len(), "one label a score");
    let (n_a, n_b) = group_sizes(labels);
    let of_a: f64 = ranks(scores).iter().zip(labels).filter(|&(_, &label)| label).map(|(rank, _)| rank).sum();
    if n_a == 0 || n_b == 0 || scores.iter().any(|score| score.is_nan()) {
        return f64::NAN;
    }
    (of_a - (n_a * (n_a + 1)) as f64 / 2.0) / (n_a as f64 * n_b as f64)
}

/// An AUC, and how sure it is by the theory of DeLong, DeLong and Clarke-Pearson (1988).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delong {
    /// The AUC, or the difference of two.
    pub value: f64,
    /// Its standard error; NaN for less than two items of a class.
    pub se: f64,
    /// The 95 % interval of the normal distribution, for an AUC cut off at 0 and 1. NaN where the AUC is 0 or 1: there are no
    /// errors to judge by, and an interval without width would claim certainty.
    pub range: Range,
}

/// The AUC with DeLong's interval, by midranks (Sun and Xu 2014).
pub fn delong(scores: &[f64], labels: &[bool]) -> Delong {
    let value = auc(scores, labels);
    if value.is_nan() {
        return Delong { value, se: value, range: Range { low: value, high: value } };
    }
    let (a, b) = placements(scores, labels);
    let se = (variance(&a) / a.len() as f64 + variance(&b) / b.len() as f64).sqrt();
    if se == 0.0 {
        return Delong { value, se, range: Range { low: f64::NAN, high: f64::NAN } };
    }
    let Range { low, high } = normal_range(value, se);
    Delong { value, se, range: Range { low: low.max(0.0), high: high.min(1.0) } }
}

/// By how much one score ranks the same items better than another, with DeLong's interval for paired curves.
pub fn delong_difference(scores: &[f64], others: &[f64], labels: &[bool]) -> Delong {
    let value = auc(scores, labels) - auc(others, labels);
    if value.is_nan() {
        return Delong { value, se: value, range: Range { low: value, high: value } };
    }
    let ((a, b), (other_a, other_b)) = (placements(scores, labels), placements(others, labels));
    let differ = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<_>>();
    let (a, b) = (differ(&a, &other_a), differ(&b, &other_b));
    let se = (variance(&a) / a.len() as f64 + variance(&b) / b.len() as f64).sqrt();
    Delong { value, se, range: normal_range(value, se) }
}

/// Percentile bootstrap interval of an AUC: the middle 95 % over `count` resamples within the classes. NaN for none.
pub fn bootstrap_auc(scores: &[f64], labels: &[bool], count: usize, seed: u64) -> Range {
    let none = Range { low: f64::NAN, high: f64::NAN };
    if count == 0 || auc(scores, labels).is_nan() {
        return none;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&i, &j| scores[i].total_cmp(&scores[j]));
    let mut found: Vec<f64> =
        (0..count as u64).map(|k| resampled(scores, labels, &order, &resample(labels, seed, k))).collect();
    found.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Range { low: quantile(&found, tail), high: quantile(&found, 1.0 - tail) }
}

/// The AUC of items in ascending order of scores, each counted as often as it was drawn.
fn resampled(scores: &[f64], labels: &[bool], order: &[usize], drawn: &[u32]) -> f64 {
    let (mut below, mut wins, mut n_a) = (0.0, 0.0, 0.0);
    let mut at = 0;
    while at < order.len() {
        let (mut tied_a, mut tied_b) = (0.0, 0.0);
        let score = scores[order[at]];
        while at < order.len() && scores[order[at]] == score {
            let item = order[at];
            *(if labels[item] { &mut tied_a } else { &mut tied_b }) += f64::from(drawn[item]);
            at += 1;
        }
        wins += tied_a * (below + tied_b / 2.0);
        (below, n_a) = (below + tied_b, n_a + tied_a);
    }
    wins / (n_a * below)
}

/// Share of the other class that each item is placed beyond, on the right side: of the true class, and of the other.
fn placements(scores: &[f64], labels: &[bool]) -> (Vec<f64>, Vec<f64>) {
    let all = ranks(scores);
    let of = |class: bool| {
        let (own, overall): (Vec<f64>, Vec<f64>) =
            (0..scores.len()).filter(|&i| labels[i] == class).map(|i| (scores[i], all[i])).unzip();
        let others = (scores.len() - own.len()) as f64;
        // Ranks over all less those within the class: how many of the other class lie below.
        let below = overall.iter().zip(ranks(&own)).map(move |(all, own)| (all - own) / others);
        below.map(|share| if class { share } else { 1.0 - share }).collect::<Vec<_>>()
    };
    let (a, b) = (of(true), of(false));
    debug_assert!((mean(&a) - mean(&b)).abs() < 1e-9, "both are the AUC on average");
    (a, b)
}

fn normal_range(value: f64, se: f64) -> Range {
    let z = Normal::standard().inverse_cdf(f64::midpoint(1.0, CONFIDENCE));
    Range { low: value - z * se, high: value + z * se }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::normal_table;

    #[test]
    fn ties_count_half_and_one_class_has_none() {
        assert_eq!(auc(&[0.1, 0.4, 0.4, 0.9], &[false, false, true, true]), 3.5 / 4.0);
        assert_eq!(auc(&[0.5; 4], &[true, false, true, false]), 0.5);
        assert!(auc(&[1.0, 2.0], &[true, true]).is_nan() && auc(&[], &[]).is_nan());
        assert!(auc(&[f64::NAN, 2.0], &[true, false]).is_nan());
    }

    #[test]
    fn a_resample_is_the_auc_of_its_items() {
        let labels: Vec<bool> = (0..19).map(|i| i % 3 == 0).collect();
        let scores: Vec<f64> = normal_table(2, 19, &[1.0]).iter().map(|x| (x * 2.0).round()).collect();
        let mut order: Vec<usize> = (0..19).collect();
        order.sort_by(|&i, &j| scores[i].total_cmp(&scores[j]));
        for k in 0..5 {
            let drawn = resample(&labels, 1, k);
            let items: Vec<usize> = (0..19).flat_map(|i| std::iter::repeat_n(i, drawn[i] as usize)).collect();
            let pick = |i: &usize| (scores[*i], labels[*i]);
            let (s, l): (Vec<f64>, Vec<bool>) = items.iter().map(pick).unzip();
            assert!((resampled(&scores, &labels, &order, &drawn) - auc(&s, &l)).abs() < 1e-12);
        }
    }

    #[test]
    fn the_difference_of_a_score_to_itself_is_none() {
        let labels = [true, false, true, false, true];
        let scores = [0.9, 0.3, 0.4, 0.5, 0.6];
        let same = delong_difference(&scores, &scores, &labels);
        assert_eq!((same.value, same.se), (0.0, 0.0));
    }

    /// 95 % intervals hold the true AUC about as often as they say; the bounds are four standard errors.
    #[test]
    fn intervals_hold_the_truth() {
        let truth = Normal::standard().cdf(0.8 / std::f64::consts::SQRT_2);
        let (mut by_delong, mut by_bootstrap) = (0, 0);
        for set in 0..400 {
            let noise = normal_table(4000 + set, 80, &[1.0]);
            let labels: Vec<bool> = (0..80).map(|i| i < 30).collect();
            let scores: Vec<f64> = noise.iter().zip(&labels).map(|(x, &a)| x + 0.8 * f64::from(a)).collect();
            let holds = |range: Range| usize::from(range.low <= truth && truth <= range.high);
            by_delong += holds(delong(&scores, &labels).range);
            by_bootstrap += holds(bootstrap_auc(&scores, &labels, 200, set));
        }
        println!("of 400 intervals, {by_delong} and {by_bootstrap} hold the truth");
        for held in [by_delong, by_bootstrap] {
            assert!((0.95 - held as f64 / 400.0).abs() < 4.0 * (0.95f64 * 0.05 / 400.0).sqrt(), "{held} of 400");
        }
    }
}
