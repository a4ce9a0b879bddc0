//! What the rankings of several dispositions, and of several models, have in common.

use std::collections::BTreeMap;

use headtemper_hook::HeadRef;
use headtemper_stats::{pearson, spearman};

use crate::{
    attribution::{Across, Attribution, Beside, Disposition, HeadEffect, Pair, Recurring},
    dispositions::Cohorts,
};

/// How many heads count as the top of a disposition.
const TOP: usize = 10;

/// Compares every two dispositions; `cohorts` are theirs, over the same items.
pub(crate) fn across(dispositions: &[Disposition], cohorts: &[Cohorts], others: &[Attribution]) -> Across {
    let tops: Vec<Vec<HeadRef>> = dispositions.iter().map(top).collect();
    let mut places: BTreeMap<HeadRef, Vec<String>> = BTreeMap::new();
    for (disposition, top) in dispositions.iter().zip(&tops) {
        for &at in top {
            places.entry(at).or_default().push(disposition.name.clone());
        }
    }
    let mut recurring: Vec<Recurring> = places
        .into_iter()
        .filter(|(_, names)| names.len() > 1)
        .map(|(at, dispositions)| Recurring { head: at.to_string(), dispositions })
        .collect();
    recurring.sort_by_key(|r| std::cmp::Reverse(r.dispositions.len()));
    let mut pairs = Vec::new();
    for first in 0..dispositions.len() {
        for second in first + 1..dispositions.len() {
            let (x, y) = (&dispositions[first], &dispositions[second]);
            let shared = tops[first].iter().filter(|at| tops[second].contains(at)).count();
            let (shared_items, label_correlation) = labels(&cohorts[first], &cohorts[second]);
            pairs.push(Pair {
                first: x.name.clone(),
                second: y.name.clone(),
                rho_d: rho(x, y, |head| head.magnitude.cohen_d).1,
                rho_crossfit: rho(x, y, |head| head.d_crossfit).1,
                shared_items,
                label_correlation,
                shared_top: shared,
                expected_top: (tops[first].len() * tops[second].len()) as f64 / x.heads.len() as f64,
            });
        }
    }
    let beside = others.iter().flat_map(|other| dispositions.iter().map(|one| beside(one, other))).collect();
    Across { top: TOP, recurring, pairs, beside }
}

/// The heads with the largest |d|.
fn top(disposition: &Disposition) -> Vec<HeadRef> {
    let mut heads: Vec<&HeadEffect> =
        disposition.heads.iter().filter(|head| head.magnitude.cohen_d.is_finite()).collect();
    heads.sort_by(|x, y| y.magnitude.cohen_d.abs().total_cmp(&x.magnitude.cohen_d.abs()));
    heads.into_iter().take(TOP).map(HeadEffect::at).collect()
}

/// How many heads two rankings share, and Spearman's correlation of a number over them.
fn rho(x: &Disposition, y: &Disposition, of: impl Fn(&HeadEffect) -> f64) -> (usize, f64) {
    let of_y: BTreeMap<HeadRef, f64> = y.heads.iter().map(|head| (head.at(), of(head))).collect();
    let pairs = x.heads.iter().filter_map(|head| Some((of(head), *of_y.get(&head.at())?)));
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.unzip();
    (a.len(), spearman(&a, &b))
}

/// How many items have a place in both, and how far they have the same one.
fn labels(x: &Cohorts, y: &Cohorts) -> (usize, f64) {
    let label = |cohorts: &Cohorts, row: &usize| {
        let in_b = cohorts.b.binary_search(row).is_ok().then_some(0.0);
        if cohorts.a.binary_search(row).is_ok() { Some(1.0) } else { in_b }
    };
    let rows = x.a.iter().chain(&x.b);
    let both = rows.filter_map(|row| Some((label(x, row)?, label(y, row)?)));
    let (a, b): (Vec<f64>, Vec<f64>) = both.unzip();
    (a.len(), pearson(&a, &b))
}

/// A disposition beside the one of the same name in another model's attribution.
fn beside(one: &Disposition, other: &Attribution) -> Beside {
    let mut found = Beside {
        model: other.model.clone(),
        name: one.name.clone(),
        heads: 0,
        rho_d: f64::NAN,
        rho_crossfit: f64::NAN,
        incomparable: None,
    };
    let Some(twin) = other.dispositions.iter().find(|twin| twin.name == one.name) else {
        found.incomparable = Some("it has no disposition of this name".into());
        return found;
    };
    let (mine, theirs) = (one.heads.len(), twin.heads.len());
    let (shared, rho_d) = rho(one, twin, |head| head.magnitude.cohen_d);
    if shared != mine || shared != theirs {
        // A head's number means nothing in another geometry.
        found.incomparable = Some(format!("it has other heads: {theirs} ranked there, {mine} here"));
        return found;
    }
    let (heads, rho_crossfit) = rho(one, twin, |head| head.d_crossfit);
    Beside { heads, rho_d, rho_crossfit, ..found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn disposition(name: &str, d: impl Fn(usize) -> f64) -> Disposition {
        let mut disposition = fixture::disposition(&[6; 5]);
        disposition.name = name.into();
        for (index, head) in disposition.heads.iter_mut().enumerate() {
            (head.magnitude.cohen_d, head.d_crossfit) = (d(index), -d(index));
        }
        disposition
    }

    fn cohorts(a: std::ops::Range<usize>, b: std::ops::Range<usize>) -> Cohorts {
        Cohorts { a: a.collect(), b: b.collect() }
    }

    #[test]
    fn the_same_ranking_is_found_again_and_its_opposite_too() {
        let all = [
            disposition("up", |i| i as f64),
            disposition("up again", |i| (i * i) as f64),
            disposition("down", |i| -(i as f64)),
        ];
        let split = [cohorts(0..10, 10..20), cohorts(0..10, 10..20), cohorts(10..20, 0..10)];
        let found = across(&all, &split, &[]);
        assert_eq!((found.pairs.len(), found.recurring.len()), (3, TOP));
        assert!(found.recurring.iter().all(|head| head.dispositions.len() == 3), "the same ten by size");
        let [same, opposite, _] = &found.pairs[..] else { panic!("three pairs") };
        assert_eq!((same.rho_d, same.rho_crossfit, same.label_correlation), (1.0, 1.0, 1.0));
        assert_eq!((opposite.rho_d, opposite.label_correlation), (-1.0, -1.0));
        assert_eq!((same.shared_items, same.shared_top), (20, TOP));
        assert!((same.expected_top - 100.0 / 30.0).abs() < 1e-12);
        let apart = across(&all[..2], &[cohorts(0..5, 5..9), cohorts(20..25, 25..30)], &[]);
        assert_eq!(apart.pairs[0].shared_items, 0);
        assert!(apart.pairs[0].label_correlation.is_nan());
    }

    #[test]
    fn other_models_are_compared_head_by_head_or_not_at_all() {
        let mut twin = fixture::attribution(&[6; 5]);
        twin.model = "twin".into();
        twin.dispositions = vec![disposition("up", |i| 2.0 * i as f64)];
        let mut small = twin.clone();
        small.dispositions[0].heads.truncate(12);
        let mine = [disposition("up", |i| i as f64), disposition("other", |i| i as f64)];
        let split = [cohorts(0..2, 2..4), cohorts(0..2, 2..4)];
        let found = across(&mine, &split, &[twin, small]).beside;
        assert_eq!((found[0].heads, found[0].rho_d), (30, 1.0));
        assert_eq!(found[1].incomparable.as_deref(), Some("it has no disposition of this name"));
        assert_eq!(found[2].incomparable.as_deref(), Some("it has other heads: 12 ranked there, 30 here"));
    }
}
