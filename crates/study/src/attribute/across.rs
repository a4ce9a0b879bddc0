//! What the rankings of several dispositions, and of several models, have in common.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_hook::HeadRef;
use headtemper_stats::{Tail, pearson, spearman};

use crate::{
    ItemFacts,
    attribute::Nulls,
    attribution::{Across, Attribution, Beside, Disposition, HeadEffect, Pair, Recurring},
    items::{dispositions::Cohorts, units::unit_of},
    significance::permuted,
};

/// How many heads count as the top of a disposition.
const TOP: usize = 10;

/// Compares every two dispositions; `cohorts` are theirs, over the same items.
pub(crate) fn across(
    (dispositions, nulls): (&[Disposition], &[Nulls]),
    cohorts: &[Cohorts],
    (facts, groups): (&[ItemFacts], Option<&str>),
    others: &[Attribution],
) -> Across {
    let units = unit_of(facts.iter().map(Some), groups);
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
            let apart = shared_items == 0 && !share_units(&cohorts[first], &cohorts[second], &units);
            let agreement = Agreement::of(x, y, Some(&nulls[first]).filter(|_| apart));
            pairs.push(Pair {
                first: x.name.clone(),
                second: y.name.clone(),
                rho_d: agreement.rho_d,
                p_rho_d: agreement.p_rho_d,
                rho_crossfit: agreement.rho_crossfit,
                p_rho_crossfit: agreement.p_rho_crossfit,
                shared_items,
                label_correlation,
                shared_top: shared,
                expected_top: (tops[first].len() * tops[second].len()) as f64 / x.heads.len() as f64,
            });
        }
    }
    let beside = others.iter().flat_map(|other| dispositions.iter().map(move |one| beside(one, other))).collect();
    Across { top: TOP, recurring, pairs, beside }
}

/// The heads with the largest |d|.
fn top(disposition: &Disposition) -> Vec<HeadRef> {
    let mut heads: Vec<&HeadEffect> =
        disposition.heads.iter().filter(|head| head.magnitude.cohen_d.is_finite()).collect();
    heads.sort_by(|x, y| y.magnitude.cohen_d.abs().total_cmp(&x.magnitude.cohen_d.abs()));
    heads.into_iter().take(TOP).map(HeadEffect::at).collect()
}

/// How far two rankings agree over the heads that they share, and how often the first one would under shuffled labels.
struct Agreement {
    heads: usize,
    rho_d: f64,
    p_rho_d: f64,
    rho_crossfit: f64,
    p_rho_crossfit: f64,
}

impl Agreement {
    /// `nulls` are those of `x`; None where they are no null for its agreement with `y`.
    fn of(x: &Disposition, y: &Disposition, nulls: Option<&Nulls>) -> Self {
        let of_d = nulls.map_or(&[][..], |nulls| &nulls.d);
        let of_crossfit = nulls.map_or(&[][..], |nulls| &nulls.crossfit);
        let (heads, rho_d, p_rho_d) = rho(x, y, |head| head.magnitude.cohen_d, of_d);
        let (_, rho_crossfit, p_rho_crossfit) = rho(x, y, |head| head.d_crossfit, of_crossfit);
        Self { heads, rho_d, p_rho_d, rho_crossfit, p_rho_crossfit }
    }
}

/// How many heads two rankings share, Spearman's correlation of a number over these heads, and its p. `null` holds the numbers of
/// `x` under shuffled labels.
fn rho(x: &Disposition, y: &Disposition, of: impl Fn(&HeadEffect) -> f64, null: &[Vec<f64>]) -> (usize, f64, f64) {
    let of_y: BTreeMap<HeadRef, f64> = y.heads.iter().map(|head| (head.at(), of(head))).collect();
    let shared: Vec<(usize, f64)> =
        x.heads.iter().enumerate().filter_map(|(at, head)| Some((at, *of_y.get(&head.at())?))).collect();
    let theirs: Vec<f64> = shared.iter().map(|&(_, d)| d).collect();
    let with =
        |mine: &dyn Fn(usize) -> f64| spearman(&shared.iter().map(|&(at, _)| mine(at)).collect::<Vec<_>>(), &theirs);
    let observed = with(&|at| of(&x.heads[at]));
    let null: Vec<f64> = null.iter().map(|d| with(&|at| d[at])).collect();
    (shared.len(), observed, permuted(observed, &null, Tail::TwoSided))
}

/// Whether an item of one shares its unit, such as its prompt, with an item of the other: what these have in common is in both
/// rankings.
fn share_units(x: &Cohorts, y: &Cohorts, units: &[usize]) -> bool {
    let of = |cohorts: &Cohorts| -> BTreeSet<usize> {
        cohorts.a.iter().chain(&cohorts.b).filter_map(|&row| units.get(row)).copied().collect()
    };
    !of(x).is_disjoint(&of(y))
}

/// How many items have a place in both, and how far their labels agree.
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

/// A disposition beside that of the same name in another model's attribution.
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
    let Agreement { heads, rho_d, rho_crossfit, .. } = Agreement::of(one, twin, None);
    if heads != mine || heads != theirs {
        // A head's number means nothing in another geometry.
        found.incomparable = Some(format!("it has other heads: {theirs} ranked there, {mine} here"));
        return found;
    }
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

    /// Arbitrary shuffles: each gives every head another number.
    fn nulls(count: usize) -> Vec<Nulls> {
        let row = |k: usize| (0..30).map(|head| ((head * 7 + k * 11) % 30) as f64).collect::<Vec<f64>>();
        let rows = || (0..99).map(row).collect::<Vec<_>>();
        (0..count).map(|_| Nulls { d: rows(), crossfit: rows() }).collect()
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
        let found = across((&all, &nulls(3)), &split, (&[], None), &[]);
        assert_eq!((found.pairs.len(), found.recurring.len()), (3, TOP));
        assert!(found.recurring.iter().all(|head| head.dispositions.len() == 3), "the same ten by size");
        let [same, opposite, _] = &found.pairs[..] else { panic!("three pairs") };
        assert_eq!((same.rho_d, same.rho_crossfit, same.label_correlation), (1.0, 1.0, 1.0));
        assert_eq!((opposite.rho_d, opposite.label_correlation), (-1.0, -1.0));
        assert_eq!((same.shared_items, same.shared_top), (20, TOP));
        assert!(same.p_rho_d.is_nan() && same.p_rho_crossfit.is_nan(), "both hold the noise of the same items");
        assert!((same.expected_top - 100.0 / 30.0).abs() < 1e-12);
        let split = [cohorts(0..5, 5..9), cohorts(20..25, 25..30), cohorts(30..35, 35..40)];
        let apart = across((&all, &nulls(3)), &split, (&[], None), &[]);
        assert_eq!(apart.pairs[0].shared_items, 0);
        assert!(apart.pairs[0].label_correlation.is_nan());
        let p = |pair: usize| apart.pairs[pair].p_rho_d;
        assert_eq!((p(0), p(1)), (0.01, 0.01), "either way, no shuffle agrees as far");
        let without = [(); 3].map(|()| Nulls { d: Vec::new(), crossfit: Vec::new() });
        assert!(across((&all, &without), &split, (&[], None), &[]).pairs[0].p_rho_d.is_nan(), "no shuffles, no p");
        // Item 3 of the first asks the same as item 22 of the second.
        let facts = |item: usize| ItemFacts {
            prompt: if item == 22 { "3".into() } else { item.to_string() },
            ..ItemFacts::default()
        };
        let same: Vec<ItemFacts> = (0..40).map(facts).collect();
        let found = across((&all, &nulls(3)), &split, (&same, None), &[]).pairs;
        assert!(found[0].p_rho_d.is_nan() && found[0].p_rho_crossfit.is_nan(), "both hold the noise of one prompt");
        assert_eq!(found[1].p_rho_d, 0.01);
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
        let found = across((&mine, &nulls(2)), &split, (&[], None), &[twin, small]).beside;
        assert_eq!((found[0].heads, found[0].rho_d), (30, 1.0));
        assert_eq!(found[1].incomparable.as_deref(), Some("it has no disposition of this name"));
        assert_eq!(found[2].incomparable.as_deref(), Some("it has other heads: 12 ranked there, 30 here"));
    }
}
