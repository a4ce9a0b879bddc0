//! Steps 4 and 5: the same probe on other features, of the same items or of another model.

use headtemper_stats::delong_difference;

use super::{
    Baseline, GateFile, Outcome, Step, StepName, Transfer,
    baselines::Ran,
    earlier::transferred_once,
    overlap::{self, Prompts},
    side::Side,
    steps::{self, Seen},
    tested::{check_ready, label_warnings, null_of},
    view::View,
};
use crate::{
    Progress, Result, RunDir, StudyError,
    probe::{EvalResult, FeatureRows, FitOptions, LabelSource, ProbeSet, evaluate, fit},
};

/// The sets of step 4 or 5, as far as they are known before a fresh label is read.
pub(super) struct OtherSets {
    name: String,
    train: ProbeSet,
    fresh: FeatureRows,
    fresh_labels: LabelSource,
}

impl OtherSets {
    /// # Errors
    /// If a file cannot be used, no probe can be fitted on the training items, or none of them could read the fresh ones.
    fn read(
        name: String,
        (train, fresh): (ProbeSet, FeatureRows),
        fresh_labels: &LabelSource,
        options: &FitOptions,
    ) -> Result<Self> {
        check_ready(&train, (&fresh, fresh_labels), options)?;
        Ok(Self { name, train, fresh, fresh_labels: fresh_labels.clone() })
    }
}

/// What step 4 is about, if it is declared.
pub(super) fn pooled_sets(
    file: &GateFile,
    (train, fresh): (&View, &View),
    options: &FitOptions,
) -> Result<Option<OtherSets>> {
    let Some(of) = &file.pooled else { return Ok(None) };
    let sets = (train.set(&of.train, &file.train.labels)?, fresh.rows(&of.fresh)?);
    OtherSets::read(of.train.to_string(), sets, &file.fresh.labels, options).map(Some)
}

/// What step 5 is about, if it is declared.
pub(super) fn replicated_sets(
    file: &GateFile,
    (train, fresh): (&Side, &View),
    options: &FitOptions,
) -> Result<Option<OtherSets>> {
    let Some(of) = &file.replication else { return Ok(None) };
    let of_train = train.view.set(&of.train, of.train_labels.as_ref().unwrap_or(&file.train.labels))?;
    if of_train.origin.same_weights(&train.set.origin) == Some(true) {
        return Err(StudyError::Experiment {
            name: file.name.clone(),
            why: format!("[replication] '{}' has the weights of [train]: it is no other model", of.model),
        });
    }
    let labels = of.fresh_labels.as_ref().unwrap_or(&file.fresh.labels);
    OtherSets::read(of.model.clone(), (of_train, fresh.rows(&of.fresh)?), labels, options).map(Some)
}

/// A probe on other features, what it did on fresh items, and its probabilities for them.
pub(super) struct Other {
    pub(super) transfer: Transfer,
    seen: Seen,
    /// Whether prompts were compared between its sets.
    pub(super) by_prompt: bool,
    p: Vec<f64>,
    /// What must be known of its labels.
    pub(super) warnings: Vec<String>,
}

/// Steps 4 and 5: the same on other features of the items.
///
/// # Errors
/// If the sets overlap, are others than those of an earlier call in the directory, or cannot be fitted.
pub(super) fn other(
    sets: OtherSets,
    (run, step): (&RunDir, StepName),
    (of_train, of_fresh): (&View, &View),
    options: &FitOptions,
    progress: &mut dyn Progress,
) -> Result<Other> {
    let OtherSets { name, train, fresh, fresh_labels } = sets;
    let fresh = fresh.labelled(&fresh_labels)?;
    transferred_once(run, step, (&train, &fresh))?;
    let prompts = (Prompts::of(&of_train.texts(&train)?), Prompts::of(&of_fresh.texts(&fresh)?));
    let by_prompt = overlap::compare(&prompts.0, (&fresh, &prompts.1))?.by_prompt;
    let options = &options.clone().without_intervals();
    let probe = fit(&train, options, &step.to_string(), progress)?.probe;
    let (evaluation, predictions) = evaluate(&probe, &fresh, options.measure)?;
    let warnings = label_warnings(&train, &fresh);
    let chosen = probe.meta.chosen;
    let p = predictions.into_iter().nth(chosen).expect("a fit has predictions");
    let null = null_of(&p, &fresh, options);
    let mut seen = Seen::fresh(&evaluation, (&p, &fresh), null.as_ref(), options);
    // A probe fitted on three positives tells nothing, however many fresh items it is applied to.
    seen.smaller = seen.smaller.min(train.origin.smaller_worth());
    let (cv, EvalResult { measured, train_chosen, .. }) = (&probe.meta.results[chosen], &evaluation.results[chosen]);
    let transfer = Transfer {
        name,
        c: cv.c,
        cv_auc: cv.cv.auc,
        cv_p: probe.meta.null.as_ref().map(|null| null.p),
        cv_asym: cv.cv.best_asym,
        fresh_auc: measured.auc,
        fresh_range: measured.auc_delong,
        gate: *train_chosen,
        oracle: measured.best,
        failure_modes: Vec::new(),
        train: train.origin,
        fresh: fresh.origin,
    };
    Ok(Other { transfer, seen, by_prompt, p, warnings })
}

/// A step on other features; compared with the baselines if it is about the same answers.
pub(super) fn of_other(
    file: &GateFile,
    name: StepName,
    found: Option<&mut Other>,
    (fresh, baselines): (&ProbeSet, &[Ran]),
) -> Step {
    let Some(found) = found else {
        return steps::not_run(&file.gates, name);
    };
    let Other { transfer, seen, p, .. } = found;
    let same = transfer.fresh.labels_sha256 == fresh.origin.labels_sha256;
    let beside = |(of, others): &Ran| {
        let gain = delong_difference(p, others, &fresh.labels, &fresh.units);
        Baseline { gain: gain.value, gain_range: gain.range.into(), ..of.clone() }
    };
    let baselines: Vec<Baseline> = baselines.iter().filter(|_| same).map(beside).collect();
    let step = steps::transfer(&file.gates, name, seen, &baselines);
    if step.outcome != Outcome::Passed {
        transfer.failure_modes = steps::failure_modes(&file.gates, (&transfer.train, &transfer.fresh), seen);
    }
    if same {
        step
    } else {
        Step { note: format!("{}; no baselines, since these are other answers than step 2's", step.note), ..step }
    }
}
