//! A probe on fresh items: whether it can be tested on them, what it does there, and what must be said of it.

use std::collections::BTreeSet;

use headtemper_stats::{Relabelings, auc, principal_components};

use super::{
    Baseline, BaselineName, FailureMode, GateFile, Outcome, Plane, Step, StepName,
    baselines::{self, Ran},
    side::{Side, told_field},
    steps::{self, Seen},
};
use crate::{
    Result,
    probe::{
        Evaluation, FeatureRows, FitOptions, LabelSource, Null, Probe, ProbeSet, evaluate, folds_of, other_labels,
    },
    significance::told_fixed,
    text::{listed, some_of},
};

/// Most axes or fields that a sentence names.
pub(super) const NAMED: usize = 5;

/// Refuses training items that no probe can be fitted on, and fresh ones that it could not be applied to.
pub(super) fn check_ready(
    train: &ProbeSet,
    (fresh, labels): (&FeatureRows, &LabelSource),
    options: &FitOptions,
) -> Result<()> {
    folds_of(train, options)?;
    fresh.check_like(train)?;
    fresh.check_labels(labels)
}

/// What must be known of the labels that a probe is fitted and tested on, besides those of steps 1 and 2.
pub(super) fn label_warnings(train: &ProbeSet, fresh: &ProbeSet) -> Vec<String> {
    let of_train = train.label_warnings().into_iter().map(|warning| format!("training: {warning}"));
    of_train.chain(fresh.label_warnings()).chain(other_labels(&train.origin, &fresh.origin)).collect()
}

/// The AUC of these probabilities, beside its null from labels dealt out anew by whole units; none without shuffles or with one class.
pub(super) fn null_of(p: &[f64], set: &ProbeSet, options: &FitOptions) -> Option<Null> {
    let observed = auc(p, &set.labels);
    if options.shuffles == 0 || observed.is_nan() {
        return None;
    }
    let relabelings = Relabelings::new(&set.labels, options.measure.seed, &set.units, None);
    let of = |k| auc(p, &relabelings.labels(k));
    Some(Null::of(observed, (0..options.shuffles as u64).map(of).collect()))
}

/// What the frozen probe did on fresh items, and what the baselines did.
pub(super) struct Tested {
    pub(super) evaluation: Evaluation,
    /// `[C][item]`.
    pub(super) predictions: Vec<Vec<f64>>,
    pub(super) null: Option<Null>,
    pub(super) ran: Vec<Ran>,
    /// Fields that go with the labels of either set.
    fields: BTreeSet<String>,
    pub(super) warnings: Vec<String>,
}

/// Applies the probe and the baselines to the fresh items.
pub(super) fn test(
    file: &GateFile,
    probe: &Probe,
    (train, fresh): (&Side, &Side),
    options: &FitOptions,
) -> Result<Tested> {
    let (evaluation, predictions) = evaluate(probe, fresh.set, options.measure)?;
    let mut warnings = evaluation.warnings.clone();
    warnings.extend(fresh.cut_off());
    let fields = [train.fields(&file.train, options), fresh.fields(&file.fresh, options)];
    warnings.extend(fields[1].iter().map(told_field));
    let of_train = train.set.warnings().into_iter().chain(train.cut_off()).chain(fields[0].iter().map(told_field));
    warnings.extend(of_train.map(|warning| format!("training: {warning}")));
    let p = &predictions[probe.meta.chosen];
    let mut ran = Vec::new();
    // A fresh set with only one class cannot be ranked, by the probe or by a baseline.
    if fresh.set.smaller_class() > 0 {
        let shuffled = baselines::shuffled_labels(probe, train.set, fresh.set, options)?;
        ran.push((shuffled, vec![vec![f64::NAN; fresh.set.labels.len()]]));
        ran.extend(baselines::run(file, (&train.texts, &fresh.texts), p, &mut warnings)?);
    }
    let null = null_of(p, fresh.set, options);
    if null.is_some() {
        // The seed decides which labels are dealt, not which can be.
        let fixed = Relabelings::new(&fresh.set.labels, 0, &fresh.set.units, None).fixed();
        warnings.extend(told_fixed(fixed, fresh.set.labels.len(), "as many items that stay together"));
    }
    let fields = fields.into_iter().flatten().map(|field| field.field).collect();
    Ok(Tested { evaluation, predictions, null, ran, fields, warnings })
}

/// Step 2, and how the probe failed if it did.
pub(super) fn fresh_step(
    file: &GateFile,
    tested: &Tested,
    baselines: &[Baseline],
    (train, fresh): (&Side, &Side),
    options: &FitOptions,
) -> (Step, Vec<FailureMode>) {
    let p = &tested.predictions[tested.evaluation.chosen];
    let seen = Seen::fresh(&tested.evaluation, (p, fresh.set), tested.null.as_ref(), options);
    let step = steps::transfer(&file.gates, StepName::Fresh, &seen, baselines);
    if step.outcome == Outcome::Passed {
        return (step, Vec::new());
    }
    let modes = steps::failure_modes(&file.gates, (&train.set.origin, &fresh.set.origin), &seen);
    (step, modes)
}

/// What must be said of a probe that passed: baselines that were asked for, but had nothing to read; fields that go with the labels.
pub(super) fn but(file: &GateFile, (train, fresh): (&Side, &Side), tested: &Tested) -> String {
    let ran = |name: BaselineName| tested.ran.iter().any(|(baseline, _)| baseline.name == name);
    // Where all responses ended alike there is nothing to compare with.
    let ends: BTreeSet<Option<bool>> = [train, fresh].iter().flat_map(|side| side.texts.cut_off()).collect();
    let all_alike = ends.len() == 1 && !ends.contains(&None);
    let asked = [
        (file.controls.length, BaselineName::Length),
        (file.controls.truncation && !all_alike, BaselineName::Truncation),
        (file.controls.bag_of_words, BaselineName::BagOfWords),
    ];
    let missing: Vec<&str> =
        asked.into_iter().filter(|&(asked, name)| asked && !ran(name)).map(|(_, name)| name.as_str()).collect();
    let mut out = String::new();
    if !missing.is_empty() {
        out += &format!(" Not compared with {}.", listed(&missing));
    }
    let fields: Vec<String> = tested.fields.iter().map(|field| format!("'{field}'")).collect();
    if !fields.is_empty() {
        out += &format!(" But labels go with {}, which it may read instead.", some_of(&fields, NAMED));
    }
    out
}

/// The fresh items, scaled as the probe sees them, in their widest plane.
pub(super) fn plane(probe: &Probe, fresh: &ProbeSet) -> Plane {
    let rows: Vec<usize> = (0..fresh.labels.len()).collect();
    let scaled = probe.scaler.apply(&fresh.x, fresh.features, &rows);
    let found = principal_components(&scaled, fresh.features, 2);
    let points = found.scores.chunks_exact(found.share.len().max(1)).map(|s| (s[0], s.get(1).copied().unwrap_or(0.0)));
    Plane { points: points.collect(), labels: fresh.labels.clone(), share: found.share }
}
