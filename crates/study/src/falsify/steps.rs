//! Numbers compared with their gates, and the outcomes that follow.

use headtemper_stats::{wilson, worth};

use super::{
    Axis, AxisPair, Check, FailedBy, FailureMode, FailureName, Gates, Kind, Outcome, Step, StepName, config::AxesConfig,
};
use crate::{
    probe::{Ends, Evaluation, FitOptions, Null, OperatingPoint, Origin, Probe, ProbeSet},
    text::{capital, short, signed},
};

/// Share of the training positive rate at or below which fresh items are out of the model's reach. The paper's case fell from 0.56 to
/// 0.047, to a twelfth; its other model, which it did not call a cliff, still had 0.285 on fresh items.
const CLIFF: f64 = 0.25;

/// Most axes that the note says more about.
const TOLD: usize = 4;

/// What a probe did on items, as far as gates need it.
pub(crate) struct Seen {
    pub(crate) auc: f64,
    /// Its 95 % interval on fresh items; none out of fold, where intervals are too narrow to decide by.
    pub(crate) auc_range: Ends,
    /// p against shuffled labels: NaN if units can be labelled in too few ways, none if it was not asked for.
    pub(crate) p: Option<f64>,
    pub(crate) gate: Option<OperatingPoint>,
    /// The interval of its asymmetry, likewise.
    pub(crate) asym_range: Ends,
    /// Items of the smaller class or, if items share them, how many prompts or groups of one size it is worth.
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
            auc_range: Ends::NONE,
            asym_range: Ends::NONE,
            p: p_of(meta.null.as_ref(), options),
            gate: cv.best,
            smaller: train.smaller_worth(),
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
        let asserted = |gate: OperatingPoint| {
            let correct = (0..p.len()).filter(|&item| fresh.labels[item]);
            let (kept, units): (Vec<bool>, Vec<usize>) =
                correct.map(|item| (p[item] >= gate.thr, fresh.units[item])).unzip();
            worth(&kept, &units)
        };
        Self {
            auc: result.measured.auc,
            auc_range: result.measured.auc_delong,
            asym_range: result.asym_range,
            p: p_of(null, options),
            gate: result.train_chosen,
            smaller: evaluation.set.smaller_worth(),
            of_units: evaluation.set.units.is_some(),
            correct: result.train_chosen.map_or(f64::NAN, asserted),
        }
    }
}

/// The p, if shuffles were asked for; NaN if there is none.
fn p_of(null: Option<&Null>, options: &FitOptions) -> Option<f64> {
    (options.shuffles > 0).then(|| null.map_or(f64::NAN, |null| null.p))
}

impl Check {
    pub(super) fn at_least(kind: Kind, what: &str, value: f64, needed: f64) -> Self {
        let outcome = if value >= needed { Outcome::Passed } else { Outcome::Failed };
        Self { what: what.into(), kind, value, needed, at_least: true, outcome, range: None, why: None }
    }

    fn at_most(kind: Kind, what: &str, value: f64, needed: f64) -> Self {
        let outcome = if value <= needed { Outcome::Passed } else { Outcome::Failed };
        Self { what: what.into(), kind, value, needed, at_least: false, outcome, range: None, why: None }
    }

    /// The same with the number's interval. The number alone passes a gate, but it fails one only if the whole interval misses it, unless
    /// the point was declared to decide: with 10 items per class, an AUC of 0.70 is measured below 0.63 in one of four sets.
    pub(super) fn known_to(self, range: Ends, gates: &Gates) -> Self {
        let check = Self { range: range.known(), ..self };
        // NaN has no interval, and passes nothing.
        if check.outcome != Outcome::Failed || check.value.is_nan() || gates.failed_by == FailedBy::Point {
            return check;
        }
        let misses = |range: Ends| match (check.kind, check.at_least) {
            (Kind::Above, _) => range.high <= check.needed,
            (_, true) => range.high < check.needed,
            (_, false) => range.low > check.needed,
        };
        if check.range.is_some_and(misses) {
            return check;
        }
        let why = check.undecided();
        Self { outcome: Outcome::Inconclusive, why: Some(why), ..check }
    }

    /// Why a number that misses its gate may still reach it.
    fn undecided(&self) -> String {
        let told = |value: f64| match self.kind {
            Kind::Asymmetry | Kind::Above => signed(value, 3),
            _ => short(value),
        };
        let gate = if self.kind == Kind::Above { "0".into() } else { told(self.needed) };
        let value = told(self.value);
        match self.range {
            None => format!("{value} misses {gate}, and has no 95 % interval that would say how surely"),
            Some(Ends { low, high }) => {
                format!("{value} misses {gate}, but its 95 % interval, {} to {}, reaches it", told(low), told(high))
            }
        }
    }

    /// The same, except that to miss the gate means that the items cannot tell.
    fn or_inconclusive(self) -> Self {
        let outcome = if self.outcome == Outcome::Failed { Outcome::Inconclusive } else { self.outcome };
        Self { outcome, ..self }
    }
}

/// What several outcomes come to: failed if any of them failed, otherwise inconclusive if any is.
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

/// A step from its checks. If a class has too few items, the rest decides nothing.
fn step(gates: &Gates, name: StepName, checks: Vec<Check>, few: bool, note: String) -> Step {
    // Too few items tell nothing, whatever their numbers say.
    let checks: Vec<Check> =
        checks.into_iter().map(|check| if few { check.or_inconclusive() } else { check }).collect();
    let outcome = if few { Outcome::Inconclusive } else { all(checks.iter().map(|check| check.outcome)) };
    Step { name, question: name.question().into(), outcome, decides: gates.decide.contains(&name), checks, note }
}

/// Checks that both of the first steps make, in this order: class size, AUC, p, asymmetry.
fn checks(seen: &Seen, gates: &Gates, fresh: bool) -> Vec<Check> {
    let (auc, asymmetry, where_at) = if fresh {
        (gates.fresh_auc, gates.fresh_asymmetry, "threshold chosen in training")
    } else {
        (gates.cv_auc, gates.cv_asymmetry, "best threshold that keeps p(assert given correct)")
    };
    let asym = seen.gate.map_or(f64::NAN, |gate| gate.asym);
    let of =
        if seen.of_units { "worth of the smaller class in prompts or groups" } else { "items of the smaller class" };
    let size = Check::at_least(Kind::Items, of, seen.smaller as f64, gates.min_class as f64);
    // On items that C and threshold were chosen on, an interval is too narrow, so the number alone decides.
    let of_fresh = |check: Check, range| if fresh { check.known_to(range, gates) } else { check };
    let auc = of_fresh(Check::at_least(Kind::Share, "AUC", seen.auc, auc), seen.auc_range);
    let mut checks = vec![size.or_inconclusive(), auc];
    // If shuffled labels also reach an AUC that passes its gate, the set is too small: that is no failure.
    let p = seen.p.map(|p| Check::at_most(Kind::P, "p against shuffled labels", p, gates.alpha).or_inconclusive());
    checks.extend(p);
    let of_gate = Check::at_most(Kind::Asymmetry, &format!("asymmetry, {where_at}"), asym, asymmetry);
    checks.push(of_fresh(of_gate, seen.asym_range));
    checks
}

/// Step 1.
pub(crate) fn cv(gates: &Gates, seen: &Seen) -> Step {
    let checks = checks(seen, gates, false);
    let few = seen.smaller < gates.min_class;
    let note = match seen.gate {
        Some(gate) => format!("threshold {:.2}, chosen on these items: the asymmetry flatters", gate.thr),
        None => format!("no threshold keeps p(assert given correct) at {}", gates.assert_correct),
    };
    step(gates, StepName::Cv, checks, few, note)
}

/// Step 2, and those like it: at the threshold that the training items chose.
pub(crate) fn transfer(gates: &Gates, name: StepName, seen: &Seen, baselines: &[super::Baseline]) -> Step {
    let mut checks = checks(seen, gates, true);
    let kept = seen.gate.map_or(f64::NAN, |gate| gate.p_assert_correct);
    checks.push(floor(kept, gates.assert_correct, seen.correct));
    for baseline in baselines.iter().filter(|baseline| baseline.to_beat && gates.beat_baselines) {
        checks.push(beats(baseline, gates));
    }
    let few = seen.smaller < gates.min_class;
    let note = if few {
        let has = if seen.of_units { "is worth" } else { "has" };
        let of = if seen.of_units { "prompts or groups of one size" } else { "items" };
        format!("the smaller class {has} {} {of}: whatever the numbers say, they cannot tell", seen.smaller)
    } else {
        match seen.gate {
            Some(gate) => format!("threshold {:.2}, chosen in training", gate.thr),
            None => "the training items chose no threshold".into(),
        }
    };
    let whys = checks.iter().filter_map(|check| Some(format!("; {}: {}", check.what, check.why.as_ref()?)));
    let note = if few { note } else { note + &whys.collect::<String>() };
    step(gates, name, checks, few, note)
}

/// Whether the probe ranks better than a baseline. A baseline that reads texts is a rival: a gain that may be chance does not count. Random
/// numbers are no rival, and the p against shuffled labels already asks as much.
fn beats(baseline: &super::Baseline, gates: &Gates) -> Check {
    // NaN if either has no AUC: then the check of the AUC itself has failed.
    let mut check = Check::at_least(Kind::Above, &format!("AUC above {}", baseline.name.as_str()), baseline.gain, 0.0);
    if check.value == 0.0 {
        check.outcome = Outcome::Failed;
    }
    let mut check = check.known_to(baseline.gain_range, gates);
    // Nor does a gain without an interval count.
    let low = baseline.gain_range.low;
    if check.outcome == Outcome::Passed && baseline.rival && (low.is_nan() || low <= 0.0) {
        check.outcome = Outcome::Inconclusive;
        check.why = Some("the gain may be chance: its 95 % interval does not lie above 0".into());
    }
    check
}

/// Whether right answers still stand. The threshold was chosen on other items to keep the floor, often barely: a share of these that misses
/// it by less than one standard error has kept it; by less than two, it cannot tell.
fn floor(kept: f64, needed: f64, correct: f64) -> Check {
    let error = (needed * (1.0 - needed) / correct.max(1.0)).sqrt();
    let mut check =
        Check::at_least(Kind::Share, "p(assert given correct) there, to within a standard error", kept, needed);
    if check.outcome == Outcome::Failed && kept > needed - error {
        check.outcome = Outcome::Passed;
    } else if check.outcome == Outcome::Failed && kept > needed - 2.0 * error {
        check.outcome = Outcome::Inconclusive;
        check.why = Some(format!("{} misses {} by less than two standard errors", short(kept), short(needed)));
    }
    check
}

/// Step 3.
pub(crate) fn axes(gates: &Gates, config: &AxesConfig, (axes, pairs): (&[Axis], &[AxisPair])) -> Step {
    let mut checks = Vec::new();
    for axis in axes {
        let of = |what: &str, value, needed| {
            Check::at_least(Kind::Share, &format!("{}, {what} AUC", axis.name), value, needed)
        };
        let of_fresh = of("fresh", axis.fresh_auc, config.fresh_auc).known_to(axis.fresh_range, gates);
        let both = [of("cross-validated", axis.cv_auc, config.cv_auc), of_fresh];
        // If shuffled labels also reach an axis's gates, or if it has too few items, neither of its checks can tell.
        let open = axis.outcome == Outcome::Inconclusive;
        let told = both.iter().any(|check| check.outcome == Outcome::Inconclusive);
        checks.extend(both.map(|check| match check.outcome {
            Outcome::Passed if open && !told => Check { outcome: Outcome::Inconclusive, ..check },
            _ if open => check.or_inconclusive(),
            _ => check,
        }));
    }
    for pair in pairs.iter().filter(|pair| pair.flagged) {
        let what = format!("size of r of {} and {}", pair.a, pair.b);
        let mut check = Check::at_most(Kind::Share, &what, pair.r.abs(), config.correlation);
        check.outcome = Outcome::Failed;
        let Ends { low, high } = pair.range;
        let size = if pair.r < 0.0 { Ends { low: -high, high: -low } } else { pair.range };
        let check = check.known_to(size, gates);
        // Few pairs lie on a line by chance.
        let few = pair.units < gates.min_class && gates.failed_by == FailedBy::Interval;
        let why = format!("{} items, prompts or groups have both, but {} are needed", pair.units, gates.min_class);
        checks.push(if few { Check { why: Some(why), ..check.or_inconclusive() } } else { check });
    }
    let passed = axes.iter().filter(|axis| axis.outcome == Outcome::Passed).count();
    let flagged = pairs.iter().filter(|pair| pair.flagged).count();
    let mut note = format!("{passed} of {} axes pass; {flagged} of {} pairs predict as one", axes.len(), pairs.len());
    let whys: Vec<String> =
        axes.iter().filter_map(|axis| Some(format!("{}: {}", axis.name, axis.why.as_ref()?))).collect();
    if !whys.is_empty() {
        let more = if whys.len() > TOLD { "; …" } else { "" };
        note += &format!("; {}{more}", whys[..whys.len().min(TOLD)].join("; "));
    }
    step(gates, StepName::Axes, checks, false, note)
}

/// A step that was not asked for.
pub(crate) fn not_run(gates: &Gates, name: StepName) -> Step {
    let note = format!("not run: the file has no [{name}]");
    Step { outcome: Outcome::NotRun, ..step(gates, name, Vec::new(), false, note) }
}

/// How a probe failed, if its fresh step did not pass and there are enough items to say so.
pub(crate) fn failure_modes(gates: &Gates, (train, fresh): (&Origin, &Origin), seen: &Seen) -> Vec<FailureMode> {
    let rate = |origin: &Origin| origin.positives as f64 / origin.items as f64;
    let (before, after) = (rate(train), rate(fresh));
    // A cliff leaves few positive items; whether there is one shows in their share, which is taken over all items.
    let most = wilson(after, fresh.units.unwrap_or(fresh.items) as f64).high;
    if most <= CLIFF * before {
        let why = format!("{before:.3} of the training items are positive, but {after:.3} of the fresh ones");
        return vec![FailureMode { name: FailureName::CapabilityCliff, why }];
    }
    let Ends { low, high } = seen.auc_range;
    if seen.smaller >= gates.min_class && low <= 0.5 && high >= 0.5 && high < gates.fresh_auc {
        let why = format!(
            "the probabilities of right and wrong fresh answers cannot be told apart: AUC {:.3}, {low:.3} to {high:.3}, all of it \
             below the gate",
            seen.auc
        );
        return vec![FailureMode { name: FailureName::SingleOutput, why }];
    }
    Vec::new()
}

/// The verdict, and the same in a sentence.
pub(crate) fn verdict(steps: &[Step], modes: &[FailureMode], but: &str) -> (Outcome, String) {
    let deciding = || steps.iter().filter(|step| step.decides);
    let verdict = all(deciding().map(|step| step.outcome));
    // If there are too few items, there is nothing more to say.
    let few = |step: &Step| {
        step.checks.iter().any(|check| check.kind == Kind::Items && check.outcome == Outcome::Inconclusive)
    };
    let names = |outcome: Outcome| {
        let of = deciding().filter(|step| step.outcome == outcome).map(|step| {
            let told = |check: &Check| match (&check.why, few(step)) {
                (Some(why), false) => format!("{}: {why}", check.what),
                _ => check.what.clone(),
            };
            let missed: Vec<String> = step.checks.iter().filter(|check| check.outcome == outcome).map(told).collect();
            format!("{} ({})", step.name, missed.join("; "))
        });
        of.collect::<Vec<_>>().join(", ")
    };
    let of_mode =
        modes.iter().map(|mode| format!(" {}: {}.", capital(mode.name.as_str()), mode.why)).collect::<String>();
    let reported: Vec<String> = steps
        .iter()
        .filter(|step| !step.decides && matches!(step.outcome, Outcome::Failed | Outcome::Inconclusive))
        .map(|step| format!(" Step {} (reported, not deciding): {}.", step.name, word(step.outcome)))
        .collect();
    let sentence = match verdict {
        Outcome::Passed => {
            format!("The probe passed every gate that was declared to decide.{but}{}", reported.concat())
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
mod tests;
