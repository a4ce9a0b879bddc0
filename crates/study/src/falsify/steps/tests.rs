//! What passes, fails or cannot tell, and which mode is named.

use super::*;
use crate::falsify::tests::origin;

fn seen_of(auc: f64, asym: f64, kept: f64, smaller: usize) -> Seen {
    let gate = OperatingPoint { thr: 0.5, asym, p_assert_correct: kept, p_assert_wrong: kept + asym };
    // So narrow that every missed gate is failed.
    let (auc_range, asym_range) = (around(auc, 0.01), around(asym, 0.01));
    let correct = smaller as f64;
    Seen { auc, auc_range, p: Some(0.001), gate: Some(gate), asym_range, smaller, of_units: false, correct }
}

fn around(value: f64, by: f64) -> Ends {
    Ends { low: value - by, high: value + by }
}

fn outcome(seen: &Seen) -> Outcome {
    transfer(&Gates::default(), StepName::Fresh, seen, &[]).outcome
}

#[test]
fn what_can_have_no_p_is_not_shown() {
    let seen = Seen { p: Some(f64::NAN), of_units: true, ..seen_of(0.9, -0.6, 0.9, 60) };
    assert_eq!(outcome(&seen), Outcome::Inconclusive);
    assert_eq!(outcome(&Seen { p: None, ..seen }), Outcome::Passed, "unless nobody asked");
}

#[test]
fn a_step_passes_fails_or_cannot_tell() {
    assert_eq!(outcome(&seen_of(0.8, -0.4, 0.8, 40)), Outcome::Passed);
    assert_eq!(outcome(&seen_of(0.516, -0.043, 0.8, 55)), Outcome::Failed);
    assert_eq!(outcome(&seen_of(0.8, -0.1, 0.8, 40)), Outcome::Failed, "an AUC alone is not enough");
    assert_eq!(outcome(&seen_of(0.8, -0.4, 0.3, 40)), Outcome::Failed, "right answers must stand");
    assert_eq!(outcome(&seen_of(0.8, -0.4, 0.65, 40)), Outcome::Passed, "0.65 of 40 is 0.70 within its error of 0.07");
    assert_eq!(outcome(&seen_of(0.8, -0.4, 0.60, 40)), Outcome::Inconclusive, "0.60 may be 0.70");
    assert_eq!(outcome(&Seen { p: Some(0.2), ..seen_of(0.8, -0.4, 0.8, 40) }), Outcome::Inconclusive);
    assert_eq!(outcome(&Seen { gate: None, ..seen_of(0.8, -0.4, 0.8, 40) }), Outcome::Failed);
    assert_eq!(outcome(&seen_of(f64::NAN, -0.4, 0.8, 40)), Outcome::Failed, "what is no number passes nothing");
}

#[test]
fn a_missed_gate_fails_where_its_interval_misses_it_too() {
    let point = Gates { failed_by: FailedBy::Point, ..Gates::default() };
    let by = |gates: &Gates, seen: &Seen| transfer(gates, StepName::Fresh, seen, &[]);
    // 12 and 12 items: AUC 0.514, 0.270 to 0.758.
    let of_auc = |range| Seen { auc_range: range, ..seen_of(0.514, -0.4, 0.8, 12) };
    let wide = of_auc(Ends { low: 0.270, high: 0.758 });
    let step = by(&Gates::default(), &wide);
    assert_eq!(step.outcome, Outcome::Inconclusive);
    let why = "AUC: 0.514 misses 0.630, but its 95 % interval, 0.270 to 0.758, reaches it";
    assert!(step.note.ends_with(why), "{}", step.note);
    let sentence = verdict(std::slice::from_ref(&step), &[], "").1;
    assert!(sentence.contains(&format!("inconclusive at fresh ({why}): these items cannot tell")), "{sentence}");
    assert_eq!(step.checks[1].range, Some(Ends { low: 0.270, high: 0.758 }));
    assert_eq!(by(&point, &wide).outcome, Outcome::Failed, "the paper's rule");
    assert_eq!(by(&point, &wide).checks[1].why, None);
    assert_eq!(outcome(&of_auc(Ends { low: 0.4, high: 0.629 })), Outcome::Failed);
    assert_eq!(outcome(&of_auc(Ends { low: 0.4, high: 0.63 })), Outcome::Inconclusive, "a gate is reached");
    let none = by(&Gates::default(), &of_auc(Ends::NONE));
    assert!(none.outcome == Outcome::Inconclusive && none.note.contains("no 95 % interval"), "{}", none.note);
    // The number alone decides a pass, wherever its interval ends.
    let reached = Seen { auc_range: Ends { low: 0.5, high: 0.9 }, ..seen_of(0.7, -0.4, 0.8, 40) };
    assert_eq!(outcome(&reached), Outcome::Passed);
    let of_asym = |low, high| Seen { asym_range: Ends { low, high }, ..seen_of(0.8, -0.1, 0.8, 40) };
    assert_eq!(outcome(&of_asym(-0.3, 0.1)), Outcome::Inconclusive);
    assert_eq!(outcome(&of_asym(-0.14, 0.1)), Outcome::Failed);
    assert_eq!(by(&point, &of_asym(-0.3, 0.1)).outcome, Outcome::Failed);
    let step = by(&Gates::default(), &of_asym(-0.3, 0.1));
    assert!(step.note.contains("-0.100 misses -0.150, but its 95 % interval, -0.300 to +0.100"), "{}", step.note);
    // Training items are no test: at their gates the number alone decides.
    let of_cv = Seen { auc_range: around(0.64, 0.2), ..seen_of(0.64, -0.4, 0.8, 40) };
    assert_eq!(cv(&Gates::default(), &of_cv).outcome, Outcome::Failed);
}

#[test]
fn an_axis_fails_where_its_interval_does() {
    use Outcome::{Failed, Inconclusive, Passed};
    let config = AxesConfig {
        columns: vec!["a".into()],
        every: None,
        train: None,
        fresh: None,
        cv_auc: 0.65,
        fresh_auc: 0.6,
        correlation: 0.8,
    };
    let swept = |cv_auc: f64, fresh_auc: f64, by: f64, outcome: Outcome, why: Option<&str>| {
        let (name, sizes, fresh_range) = ("a".into(), (9, 4), around(fresh_auc, by));
        let why = why.map(Into::into);
        let axis = Axis { name, train: sizes, fresh: sizes, cv_auc, fresh_auc, fresh_range, p: None, outcome, why };
        axes(&Gates::default(), &config, (&[axis], &[]))
    };
    let of = |cv_auc: f64, fresh_auc: f64, by: f64, outcome: Outcome| {
        let step = swept(cv_auc, fresh_auc, by, outcome, None);
        step.checks.iter().map(|check| check.outcome).collect::<Vec<_>>()
    };
    assert_eq!(of(0.7, 0.5, 0.2, Inconclusive), [Passed, Inconclusive]);
    assert_eq!(of(0.7, 0.5, 0.05, Failed), [Passed, Failed]);
    assert_eq!(of(0.6, 0.5, 0.2, Failed), [Failed, Inconclusive]);
    assert_eq!(of(0.7, 0.7, 0.05, Inconclusive), [Inconclusive, Inconclusive], "shuffled labels reach it");
    assert_eq!(of(0.6, 0.5, 0.05, Inconclusive), [Inconclusive, Inconclusive], "too few items");
    assert_eq!(of(0.7, 0.7, 0.2, Passed), [Passed, Passed]);
    let note = swept(0.7, 0.7, 0.05, Inconclusive, Some("too few items")).note;
    assert_eq!(note, "0 of 1 axes pass; 0 of 0 pairs predict as one; a: too few items");
}

#[test]
fn a_mode_is_named_where_the_items_can_tell() {
    let named = |fresh: Origin, low: f64, high: f64| {
        let smaller = fresh.smaller_of_units();
        let seen = Seen { auc_range: Ends { low, high }, ..seen_of(f64::midpoint(low, high), 0.0, 0.8, smaller) };
        let modes = failure_modes(&Gates::default(), (&origin(100, 56), &fresh), &seen);
        modes.into_iter().map(|mode| mode.name).collect::<Vec<_>>()
    };
    let single = [FailureName::SingleOutput];
    let cliff = [FailureName::CapabilityCliff];
    assert_eq!(named(origin(190, 90), 0.43, 0.60), single);
    assert_eq!(named(origin(24, 12), 0.27, 0.758), [], "the interval reaches the gate");
    assert_eq!(named(origin(190, 90), 0.52, 0.60), [], "above chance");
    assert_eq!(named(origin(18, 9), 0.43, 0.60), [], "too few items");
    assert_eq!(named(origin(193, 9), 0.3, 0.8), cliff, "the paper's case");
    assert_eq!(named(origin(8, 1), 0.1, 0.9), [], "one of eight may be a half");
}

/// The paper's second model: 9 positives of 193, and an asymmetry that looks like a pass.
#[test]
fn too_few_positives_never_pass_and_never_fail() {
    assert_eq!(outcome(&seen_of(0.519, -0.188, 0.78, 9)), Outcome::Inconclusive);
    assert_eq!(outcome(&seen_of(0.9, -0.6, 0.9, 9)), Outcome::Inconclusive);
    assert_eq!(outcome(&seen_of(0.2, 0.3, 0.2, 0)), Outcome::Inconclusive);
}

#[test]
fn a_baseline_that_does_as_well_fails_it() {
    let baseline = |gain: f64, to_beat: bool| super::super::Baseline {
        name: super::super::BaselineName::Length,
        what: String::new(),
        cv_auc: 0.7,
        fresh_auc: 0.8 - gain,
        gain,
        gain_range: Ends { low: gain, high: gain },
        to_beat,
        rival: true,
    };
    let of = |gain: f64, to_beat: bool, gates: &Gates| {
        transfer(gates, StepName::Fresh, &seen_of(0.8, -0.4, 0.8, 40), &[baseline(gain, to_beat)]).outcome
    };
    let gates = Gates::default();
    assert_eq!(of(0.1, true, &gates), Outcome::Passed);
    let chance = super::super::Baseline { gain_range: Ends { low: -0.1, high: 0.3 }, ..baseline(0.1, true) };
    let beside =
        |of: super::super::Baseline| transfer(&gates, StepName::Fresh, &seen_of(0.8, -0.4, 0.8, 40), &[of]).outcome;
    assert_eq!(beside(chance.clone()), Outcome::Inconclusive, "a gain that may be chance");
    assert_eq!(beside(super::super::Baseline { rival: false, ..chance }), Outcome::Passed);
    let behind = super::super::Baseline { gain_range: Ends { low: -0.4, high: 0.2 }, ..baseline(-0.1, true) };
    assert_eq!(beside(behind.clone()), Outcome::Inconclusive, "it may be ahead");
    let random = super::super::Baseline { rival: false, ..behind.clone() };
    assert_eq!(beside(random), Outcome::Inconclusive, "of random numbers too");
    let point = Gates { failed_by: FailedBy::Point, ..Gates::default() };
    let step = transfer(&point, StepName::Fresh, &seen_of(0.8, -0.4, 0.8, 40), &[behind]);
    assert_eq!(step.outcome, Outcome::Failed, "the paper's rule");
    assert_eq!(of(0.0, true, &gates), Outcome::Failed);
    assert_eq!(of(-0.1, true, &gates), Outcome::Failed);
    assert_eq!(of(-0.1, false, &gates), Outcome::Passed);
    assert_eq!(of(-0.1, true, &Gates { beat_baselines: false, ..gates }), Outcome::Passed);
}

#[test]
fn sentences_begin_with_a_capital_of_any_script() {}

#[test]
fn a_failure_goes_before_what_cannot_be_told() {
    use Outcome::{Failed, Inconclusive, NotRun, Passed};
    let of = |outcomes: &[Outcome]| all(outcomes.iter().copied());
    assert_eq!(of(&[Passed, Inconclusive, Failed]), Failed);
    assert_eq!(of(&[Passed, Inconclusive]), Inconclusive);
    assert_eq!(of(&[Passed, NotRun]), Passed);
    assert_eq!(of(&[]), NotRun);
}
