//! What the gates let through: data without signal, with it, with a signal that only the training items have, and with too few items.
//! Seeded, so that results never vary; bounds are four standard errors.

use headtemper_stats::{Random, clustered_delong};

use super::{
    Check, Gates, Kind, Outcome, StepName,
    steps::{self, Seen},
};
use crate::probe::{FitOptions, MatchedBy, MeasureOptions, Origin, ProbeSet, evaluate, fit};

const FEATURES: usize = 60;
/// The fewest shuffles whose p can be 0.05.
const SHUFFLES: usize = 19;

/// Items of noise, the positive ones shifted along one direction.
fn set(seed: u64, items: usize, positives: usize, shift: f64) -> ProbeSet {
    set_of(seed, (items, 1), positives, shift)
}

/// The origin of this many items, each a unit of its own.
pub(super) fn origin(items: usize, positives: usize) -> Origin {
    Origin {
        features: "noise.npz:X".parse().unwrap(),
        labels: "noise.npz:y".parse().unwrap(),
        items,
        positives,
        unlabelled: 0,
        units: None,
        class_units: None,
        class_worth: None,
        groups: None,
        matched_by: MatchedBy::Place,
        other_texts: None,
        features_sha256: String::new(),
        labels_sha256: String::new(),
        layers: Vec::new(),
        meta: None,
    }
}

/// Units of `each` items that have most of their noise in common; a whole unit is positive or not.
fn set_of(seed: u64, (units, each): (usize, usize), positives: usize, shift: f64) -> ProbeSet {
    let (items, positives) = (units * each, positives * each);
    let mut random = Random::new(seed, 0x7e57);
    // The Irwin-Hall distribution: nearly normal, and good enough here.
    let mut normal = || (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0;
    let labels: Vec<bool> = (0..items).map(|item| item < positives).collect();
    let mut x: Vec<f64> = (0..items * FEATURES).map(|_| normal()).collect();
    for unit in x.chunks_exact_mut(each * FEATURES).take(if each > 1 { units } else { 0 }) {
        let common: Vec<f64> = (0..FEATURES).map(|_| 2.0 * normal()).collect();
        unit.iter_mut().enumerate().for_each(|(at, x)| *x += common[at % FEATURES]);
    }
    for (row, &label) in x.chunks_exact_mut(FEATURES).zip(&labels) {
        if label {
            row[..4].iter_mut().for_each(|x| *x += shift / 2.0);
        }
    }
    let origin = Origin {
        units: (each > 1).then_some(units),
        class_units: (each > 1).then_some(positives.min(items - positives) / each),
        ..origin(items, positives)
    };
    let rows: Vec<usize> = (0..items).collect();
    ProbeSet {
        x,
        features: FEATURES,
        labels,
        named: false,
        labels_named: false,
        total: items,
        prompts: None,
        responses: None,
        groups: None,
        cut_off: vec![None; items],
        noticed: Vec::new(),
        units: rows.iter().map(|row| row / each).collect(),
        ids: rows.iter().map(ToString::to_string).collect(),
        rows,
        origin,
    }
}

/// How the first two steps end.
fn outcomes(train: &ProbeSet, fresh: &ProbeSet, seed: u64) -> (Outcome, Outcome) {
    let measure = MeasureOptions { resamples: 0, seed, ..MeasureOptions::default() };
    let options = FitOptions { shuffles: SHUFFLES, shuffle: Some(seed as u32), measure, ..FitOptions::default() };
    let probe = fit(train, &options, "fit", &mut crate::Silent).unwrap().probe;
    let (evaluation, p) = evaluate(&probe, fresh, measure).unwrap();
    let null = super::tested::null_of(&p[0], fresh, &options);
    let gates = Gates::default();
    let seen = Seen::fresh(&evaluation, (&p[0], fresh), null.as_ref(), &options);
    let fresh = steps::transfer(&gates, StepName::Fresh, &seen, &[]);
    (steps::cv(&gates, &Seen::cv(&probe, &options)).outcome, fresh.outcome)
}

#[test]
fn without_signal_no_gate_passes_beyond_the_declared_rate() {
    const TRIES: u64 = 1000;
    let (mut cv, mut fresh, mut both) = (0, 0, 0);
    for seed in 0..TRIES {
        let found = outcomes(&set(2 * seed, 50, 25, 0.0), &set(2 * seed + 1, 60, 25, 0.0), seed);
        cv += u64::from(found.0 == Outcome::Passed);
        fresh += u64::from(found.1 == Outcome::Passed);
        both += u64::from(found == (Outcome::Passed, Outcome::Passed));
    }
    println!("of {TRIES} probes of noise {cv} pass step 1, {fresh} step 2, {both} both");
    let alpha = Gates::default().alpha;
    let most = (TRIES as f64 * alpha + 4.0 * (TRIES as f64 * alpha * (1.0 - alpha)).sqrt()) as u64;
    assert!(cv <= most && fresh <= most, "{cv} and {fresh} of {TRIES}, at most {most}");
    // The rate of passing both is the product of the two rates.
    assert!(both <= 10, "{both} of {TRIES}");
}

/// Five answers to each of 30 prompts, which the features follow, and by chance the labels too: as single items nearly all would pass.
#[test]
fn answers_to_one_prompt_pass_no_gate_beyond_the_declared_rate() {
    const TRIES: u64 = 200;
    let found = |seed: u64, shift: f64| {
        let sets = (set_of(31_000 + 2 * seed, (30, 5), 15, shift), set_of(31_001 + 2 * seed, (30, 5), 15, shift));
        outcomes(&sets.0, &sets.1, seed)
    };
    let of_noise: Vec<_> = (0..TRIES).map(|seed| found(seed, 0.0)).collect();
    let passed = |of: &dyn Fn(&(Outcome, Outcome)) -> Outcome| {
        of_noise.iter().filter(|found| of(found) == Outcome::Passed).count() as f64
    };
    let (cv, fresh) = (passed(&|found| found.0), passed(&|found| found.1));
    println!("of {TRIES} probes of noise in units {cv} pass step 1, {fresh} step 2");
    let alpha = Gates::default().alpha * TRIES as f64;
    assert!(cv.max(fresh) <= alpha + 4.0 * alpha.sqrt(), "{cv} and {fresh} of {TRIES}");
    let signals = (0..20).filter(|&seed| found(1000 + seed, 8.0) == (Outcome::Passed, Outcome::Passed)).count();
    println!("{signals} of 20 planted signals pass");
    assert!(signals >= 18, "{signals} of 20");
}

#[test]
fn a_signal_that_is_there_passes() {
    let passed = |seed: u64| outcomes(&set(5000 + 2 * seed, 100, 50, 3.0), &set(5001 + 2 * seed, 120, 50, 3.0), seed);
    let found: Vec<_> = (0..40).map(passed).collect();
    let both = found.iter().filter(|found| **found == (Outcome::Passed, Outcome::Passed)).count();
    println!("{both} of 40 planted signals pass");
    assert!(both >= 36, "{both} of 40: {found:?}");
}

#[test]
fn a_signal_of_the_training_items_alone_fails_at_step_two() {
    for seed in 0..40 {
        let found = outcomes(&set(9000 + 2 * seed, 100, 50, 3.0), &set(9001 + 2 * seed, 120, 50, 0.0), seed);
        assert_eq!(found, (Outcome::Passed, Outcome::Failed), "seed {seed}");
    }
}

/// Ten items per class, and a true AUC of 0.70: by the point, one set in four fails a gate of 0.63; by the interval, few do.
#[test]
fn a_probe_above_the_gate_is_not_failed_by_few_items() {
    const SETS: u64 = 2000;
    // Normal scores this far apart have an AUC of 0.70.
    const APART: f64 = 0.7416;
    let labels: Vec<bool> = (0..20).map(|item| item < 10).collect();
    let alone: Vec<usize> = (0..20).collect();
    let gates = Gates::default();
    let (mut by_point, mut by_interval) = (0, 0);
    for set in 0..SETS {
        let mut random = Random::new(set, 0xa0c);
        let scores: Vec<f64> = labels.iter().map(|&label| random.normal() + if label { APART } else { 0.0 }).collect();
        let found = clustered_delong(&scores, &labels, &alone);
        let check = Check::at_least(Kind::Share, "AUC", found.value, gates.fresh_auc);
        by_point += u64::from(check.outcome == Outcome::Failed);
        by_interval += u64::from(check.known_to(found.range.into(), &gates).outcome == Outcome::Failed);
    }
    println!("of {SETS} sets of 10 and 10 at a true AUC of 0.70 {by_point} miss 0.63, and {by_interval} fail it");
    assert!(by_point > SETS / 5 && by_interval < SETS / 50, "{by_point} and {by_interval} of {SETS}");
}

#[test]
fn nine_positives_of_193_tell_nothing() {
    for (seed, shift) in (0..20).zip([0.0, 3.0].into_iter().cycle()) {
        let found = outcomes(&set(12_000 + 2 * seed, 100, 56, 3.0), &set(12_001 + 2 * seed, 193, 9, shift), seed);
        assert_eq!(found, (Outcome::Passed, Outcome::Inconclusive), "seed {seed}");
    }
}

#[test]
fn other_labels_than_those_it_was_fitted_on_are_told() {
    let labelled = |labels: &str, seed: u64| {
        let set = set(seed, 40, 20, 3.0);
        ProbeSet { origin: Origin { labels: labels.parse().unwrap(), ..set.origin.clone() }, ..set }
    };
    let options = FitOptions { shuffles: 0, ..FitOptions::default() }.without_intervals();
    let probe = fit(&labelled("train.jsonl:label==cr", 1), &options, "fit", &mut crate::Silent).unwrap().probe;
    let told = |labels: &str| {
        let (found, _) = evaluate(&probe, &labelled(labels, 2), options.measure).unwrap();
        found.warnings.into_iter().find(|warning| warning.contains("labels of another rule or column"))
    };
    assert_eq!(told("fresh.npz:label == cr"), None, "the same of another file");
    let rule = told("train.jsonl:label==cw").unwrap();
    assert!(rule.contains("(label==\"cr\" there, label==\"cw\" here)"), "{rule}");
    assert!(told("fresh.npz:verdict==cr").is_some() && told("fresh.npz:label").is_some());
}
