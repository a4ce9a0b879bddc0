//! Numbers beside their gates, and what they come to.

use headtemper_stats::worth;

use super::{Axis, AxisPair, Check, FailureMode, Gates, Kind, Outcome, Step, StepName, config::AxesConfig};
use crate::probe::{Ends, Evaluation, FitOptions, Gate, Null, Origin, Probe, ProbeSet};

/// Share of the training positive rate at or below which fresh items are out of the model's reach. The paper's case fell
/// from 0.56 to 0.047, to a twelfth; its other model, which it did not call so, still had 0.285 on fresh items.
const CLIFF: f64 = 0.25;

/// What a probe did on items, as far as gates ask for it.
pub(crate) struct Seen {
    pub(crate) auc: f64,
    /// Against shuffled labels: NaN where units can be labelled in too few ways, none where it was not asked for.
    pub(crate) p: Option<f64>,
    pub(crate) gate: Option<Gate>,
    /// Items of the smaller class, or prompts or groups where items share them.
    pub(crate) smaller: usize,
    /// Whether items share prompts or groups.
    pub(crate) of_units: bool,
    /// How many independent positive items p(assert | correct) is worth.
    pub(crate) correct: f64,
}

impl Seen {
    /// What it did out of fold.
    pub(crate) fn cv(probe: &Probe, options: &FitOptions) -> Self {
        let (meta, train) = (&probe.meta, &probe.meta.train);
        let cv = &meta.results[meta.chosen].cv;
        Self {
            auc: cv.auc,
            p: p_of(meta.null.as_ref(), options),
            gate: cv.best,
            smaller: train.smaller_of_units(),
            of_units: train.units.is_some(),
            correct: train.positives as f64,
        }
    }

    /// What it did on fresh items, from its probabilities of them.
    pub(crate) fn fresh(
        evaluation: &Evaluation,
        (p, fresh): (&[f64], &ProbeSet),
        null: Option<&Null>,
        options: &FitOptions,
    ) -> Self {
        let result = &evaluation.results[evaluation.chosen];
        let asserted = |gate: Gate| {
            let correct = (0..p.len()).filter(|&item| fresh.labels[item]);
            let (kept, units): (Vec<bool>, Vec<usize>) =
                correct.map(|item| (p[item] >= gate.thr, fresh.units[item])).unzip();
            worth(&kept, &units)
        };
        Self {
            auc: result.measured.auc,
            p: p_of(null, options),
            gate: result.train_chosen,
            smaller: evaluation.set.smaller_of_units(),
            of_units: evaluation.set.units.is_some(),
            correct: result.train_chosen.map_or(f64::NAN, asserted),
        }
    }
}

/// A p that was asked for.
fn p_of(null: Option<&Null>, options: &FitOptions) -> Option<f64> {
    (options.shuffles > 0).then(|| null.map_or(f64::NAN, |null| null.p))
}

impl Check {
    fn at_least(kind: Kind, what: &str, value: f64, needed: f64) -> Self {
        let outcome = if value >= needed { Outcome::Passed } else { Outcome::Failed };
        Self { what: what.into(), kind, value, needed, at_least: true, outcome }
    }

    fn at_most(kind: Kind, what: &str, value: f64, needed: f64) -> Self {
        let outcome = if value <= needed { Outcome::Passed } else { Outcome::Failed };
        Self { what: what.into(), kind, value, needed, at_least: false, outcome }
    }

    /// The same where missing the gate says that the items cannot tell.
    fn or_inconclusive(self) -> Self {
        let outcome = if self.outcome == Outcome::Failed { Outcome::Inconclusive } else { self.outcome };
        Self { outcome, ..self }
    }
}

/// What several outcomes come to: one failure is a failure, and else what cannot be told cannot be told.
pub(crate) fn all(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    let outcomes: Vec<Outcome> = outcomes.collect();
    let any = |outcome: Outcome| outcomes.contains(&outcome);
    if any(Outcome::Failed) {
        Outcome::Failed
    } else if any(Outcome::Inconclusive) {
        Outcome::Inconclusive
    } else if any(Outcome::Passed) {
        Outcome::Passed
    } else {
        Outcome::NotRun
    }
}

/// A step from its checks. Where a class has too few items the rest decides nothing.
fn step(gates: &Gates, name: StepName, checks: Vec<Check>, few: bool, note: String) -> Step {
    // Too few items can tell nothing, whatever their numbers say.
    let checks: Vec<Check> =
        checks.into_iter().map(|check| if few { check.or_inconclusive() } else { check }).collect();
    let outcome = if few { Outcome::Inconclusive } else { all(checks.iter().map(|check| check.outcome)) };
    Step { name, question: name.question().into(), outcome, decides: gates.decide.contains(&name), checks, note }
}

/// Checks that both of the first steps make, in this order: class size, AUC, p, asymmetry.
fn checks(seen: &Seen, gates: &Gates, auc: f64, asymmetry: f64, where_at: &str) -> Vec<Check> {
    let asym = seen.gate.map_or(f64::NAN, |gate| gate.asym);
    let of = if seen.of_units { "prompts or groups of the smaller class" } else { "items of the smaller class" };
    let size = Check::at_least(Kind::Items, of, seen.smaller as f64, gates.min_class as f64);
    let mut checks = vec![size.or_inconclusive(), Check::at_least(Kind::Share, "AUC", seen.auc, auc)];
    // An AUC over its gate that shuffled labels reach as well is too small a set, not a failure.
    let p = seen.p.map(|p| Check::at_most(Kind::P, "p against shuffled labels", p, gates.alpha).or_inconclusive());
    checks.extend(p);
    checks.push(Check::at_most(Kind::Asymmetry, &format!("asymmetry, {where_at}"), asym, asymmetry));
    checks
}

/// Step 1.
pub(crate) fn cv(gates: &Gates, seen: &Seen) -> Step {
    let at = "best threshold that keeps p(assert given correct)";
    let checks = checks(seen, gates, gates.cv_auc, gates.cv_asymmetry, at);
    let few = seen.smaller < gates.min_class;
    let note = match seen.gate {
        Some(gate) => format!("threshold {:.2}, chosen on these items: the asymmetry flatters", gate.thr),
        None => format!("no threshold keeps p(assert given correct) at {}", gates.assert_correct),
    };
    step(gates, StepName::Cv, checks, few, note)
}

/// Step 2, and those like it: at the threshold that the training items chose.
pub(crate) fn transfer(gates: &Gates, name: StepName, seen: &Seen, baselines: &[super::Baseline]) -> Step {
    let mut checks = checks(seen, gates, gates.fresh_auc, gates.fresh_asymmetry, "threshold chosen in training");
    let kept = seen.gate.map_or(f64::NAN, |gate| gate.p_assert_correct);
    checks.push(floor(kept, gates.assert_correct, seen.correct));
    for baseline in baselines.iter().filter(|baseline| baseline.to_beat && gates.beat_baselines) {
        checks.push(beats(baseline));
    }
    let few = seen.smaller < gates.min_class;
    let note = if few {
        let of = if seen.of_units { "prompts or groups" } else { "items" };
        format!("the smaller class has {} {of}: whatever the numbers say, they cannot tell", seen.smaller)
    } else {
        match seen.gate {
            Some(gate) => format!("threshold {:.2}, chosen in training", gate.thr),
            None => "the training items chose no threshold".into(),
        }
    };
    step(gates, name, checks, few, note)
}

/// Whether the probe ranks better than a baseline. Texts are a rival: a gain that may be chance is not shown. Random numbers are
/// none, and shuffled labels ask the same of the probe already.
fn beats(baseline: &super::Baseline) -> Check {
    // NaN where either has no AUC: then the AUC's own check has failed.
    let mut check = Check::at_least(Kind::Above, &format!("AUC above {}", baseline.name), baseline.gain, 0.0);
    let low = baseline.gain_range.low;
    if check.value == 0.0 {
        check.outcome = Outcome::Failed;
    } else if check.outcome == Outcome::Passed && baseline.rival && (low.is_nan() || low <= 0.0) {
        // Nor is one that has no interval.
        check.outcome = Outcome::Inconclusive;
    }
    check
}

/// Whether right answers still stand. The threshold was chosen on other items to keep the floor, often barely: a share of these
/// that misses it by less than a standard error has kept it, by less than two cannot tell.
fn floor(kept: f64, needed: f64, correct: f64) -> Check {
    let error = (needed * (1.0 - needed) / correct.max(1.0)).sqrt();
    let mut check =
        Check::at_least(Kind::Share, "p(assert given correct) there, to within a standard error", kept, needed);
    if check.outcome == Outcome::Failed && kept > needed - error {
        check.outcome = Outcome::Passed;
    } else if check.outcome == Outcome::Failed && kept > needed - 2.0 * error {
        check.outcome = Outcome::Inconclusive;
    }
    check
}

/// Step 3.
pub(crate) fn axes(gates: &Gates, config: &AxesConfig, (axes, pairs): (&[Axis], &[AxisPair])) -> Step {
    let mut checks = Vec::new();
    for axis in axes {
        let needed = [("cross-validated", axis.cv_auc, config.cv_auc), ("fresh", axis.fresh_auc, config.fresh_auc)];
        for (what, value, needed) in needed {
            let check = Check::at_least(Kind::Share, &format!("{}, {what} AUC", axis.name), value, needed);
            // An axis over its gates that shuffled labels reach too, or one of too few items, cannot be told.
            let open = axis.outcome == Outcome::Inconclusive;
            checks.push(if open { Check { outcome: Outcome::Inconclusive, ..check } } else { check });
        }
    }
    for pair in pairs.iter().filter(|pair| pair.flagged) {
        let mut check = Check::at_most(
            Kind::Share,
            &format!("size of r of {} and {}", pair.a, pair.b),
            pair.r.abs(),
            config.correlation,
        );
        check.outcome = Outcome::Failed;
        checks.push(check);
    }
    let passed = axes.iter().filter(|axis| axis.outcome == Outcome::Passed).count();
    let flagged = pairs.iter().filter(|pair| pair.flagged).count();
    let note = format!("{passed} of {} axes pass; {flagged} of {} pairs predict as one", axes.len(), pairs.len());
    step(gates, StepName::Axes, checks, false, note)
}

/// A step that was not asked for.
pub(crate) fn not_run(gates: &Gates, name: StepName) -> Step {
    let note = format!("not run: the file has no [{name}]");
    Step { outcome: Outcome::NotRun, ..step(gates, name, Vec::new(), false, note) }
}

/// How a probe failed, where its fresh step did not pass.
pub(crate) fn failure_modes(train: &Origin, fresh: &Origin, auc: f64, range: Ends) -> Vec<FailureMode> {
    let rate = |origin: &Origin| origin.positives as f64 / origin.items as f64;
    let (before, after) = (rate(train), rate(fresh));
    if after <= CLIFF * before {
        let why = format!("{before:.3} of the training items are positive, but {after:.3} of the fresh ones");
        return vec![FailureMode { name: "capability cliff".into(), why }];
    }
    if range.low <= 0.5 && range.high >= 0.5 {
        let why = format!(
            "the probabilities of right and wrong fresh answers cannot be told apart: AUC {auc:.3}, {:.3} to {:.3}",
            range.low, range.high
        );
        return vec![FailureMode { name: "single output distribution".into(), why }];
    }
    Vec::new()
}

/// The verdict, and the same in a sentence.
pub(crate) fn verdict(steps: &[Step], modes: &[FailureMode], not_run: &[&str]) -> (Outcome, String) {
    let deciding = || steps.iter().filter(|step| step.decides);
    let verdict = all(deciding().map(|step| step.outcome));
    let names = |outcome: Outcome| {
        let of = deciding().filter(|step| step.outcome == outcome).map(|step| {
            let missed: Vec<&str> =
                step.checks.iter().filter(|check| check.outcome == outcome).map(|check| check.what.as_str()).collect();
            format!("{} ({})", step.name, missed.join("; "))
        });
        of.collect::<Vec<_>>().join(", ")
    };
    let unbeaten =
        if not_run.is_empty() { String::new() } else { format!(" Not compared with {}.", not_run.join(" and ")) };
    let of_mode = modes.iter().map(|mode| format!(" {}: {}.", capital(&mode.name), mode.why)).collect::<String>();
    let reported: Vec<String> = steps
        .iter()
        .filter(|step| !step.decides && matches!(step.outcome, Outcome::Failed | Outcome::Inconclusive))
        .map(|step| format!(" Step {} (reported, not deciding): {}.", step.name, word(step.outcome)))
        .collect();
    let sentence = match verdict {
        Outcome::Passed => {
            format!("The probe passed every gate that was declared to decide.{unbeaten}{}", reported.concat())
        }
        Outcome::Failed => {
            format!("The probe failed at {}.{of_mode}{}", names(Outcome::Failed), reported.concat())
        }
        _ => format!(
            "The probe is inconclusive at {}: these items cannot tell.{of_mode}{}",
            names(Outcome::Inconclusive),
            reported.concat()
        ),
    };
    (verdict, sentence)
}

/// A text with its first letter as a capital.
pub(crate) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// An outcome as a word.
pub(crate) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Inconclusive => "inconclusive",
        Outcome::NotRun => "not run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen_of(auc: f64, asym: f64, kept: f64, smaller: usize) -> Seen {
        let gate = Gate { thr: 0.5, asym, p_assert_correct: kept, p_assert_wrong: kept + asym };
        Seen { auc, p: Some(0.001), gate: Some(gate), smaller, of_units: false, correct: smaller as f64 }
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
        assert_eq!(
            outcome(&seen_of(0.8, -0.4, 0.65, 40)),
            Outcome::Passed,
            "0.65 of 40 is 0.70 within its error of 0.07"
        );
        assert_eq!(outcome(&seen_of(0.8, -0.4, 0.60, 40)), Outcome::Inconclusive, "0.60 may be 0.70");
        assert_eq!(outcome(&Seen { p: Some(0.2), ..seen_of(0.8, -0.4, 0.8, 40) }), Outcome::Inconclusive);
        assert_eq!(outcome(&Seen { gate: None, ..seen_of(0.8, -0.4, 0.8, 40) }), Outcome::Failed);
        assert_eq!(outcome(&seen_of(f64::NAN, -0.4, 0.8, 40)), Outcome::Failed, "what is no number passes nothing");
    }

    /// The paper's second model: 9 positives of 193, an asymmetry that looks like a pass.
    #[test]
    fn too_few_positives_never_pass_and_never_fail() {
        assert_eq!(outcome(&seen_of(0.519, -0.188, 0.78, 9)), Outcome::Inconclusive);
        assert_eq!(outcome(&seen_of(0.9, -0.6, 0.9, 9)), Outcome::Inconclusive);
        assert_eq!(outcome(&seen_of(0.2, 0.3, 0.2, 0)), Outcome::Inconclusive);
    }

    #[test]
    fn a_baseline_that_does_as_well_fails_it() {
        let baseline = |gain: f64, to_beat: bool| super::super::Baseline {
            name: "length".into(),
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
        assert_eq!(of(0.0, true, &gates), Outcome::Failed);
        assert_eq!(of(-0.1, true, &gates), Outcome::Failed);
        assert_eq!(of(-0.1, false, &gates), Outcome::Passed);
        assert_eq!(of(-0.1, true, &Gates { beat_baselines: false, ..gates }), Outcome::Passed);
    }

    #[test]
    fn sentences_begin_with_a_capital_of_any_script() {
        assert_eq!((capital("über"), capital("")), ("Über".to_string(), String::new()));
    }

    #[test]
    fn a_failure_goes_before_what_cannot_be_told() {
        use Outcome::{Failed, Inconclusive, NotRun, Passed};
        let of = |outcomes: &[Outcome]| all(outcomes.iter().copied());
        assert_eq!(of(&[Passed, Inconclusive, Failed]), Failed);
        assert_eq!(of(&[Passed, Inconclusive]), Inconclusive);
        assert_eq!(of(&[Passed, NotRun]), Passed);
        assert_eq!(of(&[]), NotRun);
    }
}
