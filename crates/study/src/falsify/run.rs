//! From a gate file to a verdict, in the one order that keeps it honest: fit, freeze, and only then read a fresh label.

use std::{collections::BTreeSet, io::Write, path::Path};

use headtemper_stats::{Relabelings, auc, principal_components};

use super::{
    Baseline, BaselineName, FailureMode, Falsification, Frozen, GateFile, Outcome, Plane, Step, StepName, axes,
    axes::Swept,
    baselines::{self, Ran},
    earlier::{Earlier, FOUND},
    other::{Other, of_other, other, pooled_sets, replicated_sets},
    overlap,
    side::{Side, told_field},
    steps::{self, Seen},
    view::View,
};
use crate::{
    Parts, Progress, Result, RunDir, StudyError,
    probe::{
        Evaluation, FeatureRows, FitOptions, LabelSource, Null, PROBE_FILE, Probe, ProbeSet, evaluate, fit, folds_of,
        other_labels, prediction_npz,
    },
    report,
    significance::told_fixed,
    store::files::{read_json, write_json, write_text, write_whole},
    text::{listed, some_of},
};

pub(crate) const FROZEN: &str = "frozen.json";
/// Most axes or fields that a sentence names.
const NAMED: usize = 5;

/// Runs everything that a gate file declares, and writes `falsify.json`, `report.html`, `report.md`, `frozen.json`,
/// `probe.safetensors` and `predictions.npz`.
///
/// # Errors
/// If a file cannot be used, the sets overlap, a fit does not converge, or the directory belongs to something else: other gates, other
/// training items, or a probe that was frozen before.
pub fn falsify(file: &GateFile, dir: &Path, progress: &mut dyn Progress) -> Result<Falsification> {
    progress.note(&format!("gates      {}", file.sha256));
    let declared = match &file.axes {
        Some(config) => axes::declared(file, config)?,
        None => Vec::new(),
    };
    let view = View::of(&file.train)?;
    let rows = view.rows(&file.train.features)?;
    let set = rows.labelled(&file.train.labels)?;
    let train = Side::of(&view, &rows, &set)?;
    let options = file.fit_options(train.set);
    // A fit may take minutes: whatever can be refused without a fresh label is refused before the first, and before the first file.
    let fresh_view = View::of(&file.fresh)?;
    let fresh_rows = fresh_view.rows(&file.fresh.features)?;
    check_ready(train.set, (&fresh_rows, &file.fresh.labels), &options)?;
    declared.iter().try_for_each(|axis| axis.check_fresh(&fresh_rows))?;
    let of_pooled = pooled_sets(file, (train.view, &fresh_view), &options)?;
    let of_replication = replicated_sets(file, (&train, &fresh_view), &options)?;
    let train_items_sha256 = train.texts.sha256();
    let run = RunDir::open(dir, "falsify", &parts(file, train.set, train_items_sha256.as_deref()), None, progress)?;
    let fitted = fit(train.set, &options, "fit", progress)?;
    fitted.notes.iter().for_each(|note| progress.note(&format!("note: {note}")));
    let probe = fitted.probe;
    let frozen = freeze(&run, &probe, &file.sha256, progress)?;

    let set = fresh_rows.labelled(&file.fresh.labels)?;
    let fresh = Side::of(&fresh_view, &fresh_rows, &set)?;
    let overlap = match overlap::compare(&train.prompts, (fresh.set, &fresh.prompts)) {
        Err(e) if !run.file(FOUND).exists() => {
            // Nothing was tested, so the directory is free for a corrected file.
            let own = [PROBE_FILE, FROZEN].map(|name| run.file(name));
            let _ = run.discard(&own); // the first error is the one to report
            return Err(e);
        }
        compared => compared?,
    };
    let fresh_items_sha256 = fresh.texts.sha256();
    tested_once(&run, (fresh.set, fresh_items_sha256.as_deref()))?;
    progress.begin("controls", 1, 0);
    let mut tested = test(file, &probe, (&train, &fresh), &options)?;
    if !overlap.by_prompt {
        let why = "prompts were not compared between the sets: give [train] items and [fresh] items";
        tested.warnings.push(why.into());
    }
    tested.warnings.extend(fitted.notes.iter().map(|note| format!("training: {note}")));
    progress.step();
    progress.end();

    let baselines: Vec<Baseline> = tested.ran.iter().map(|(baseline, _)| baseline.clone()).collect();
    let of_cv = steps::cv(&file.gates, &Seen::cv(&probe, &options));
    let (of_fresh, failure_modes) = fresh_step(file, &tested, &baselines, (&train, &fresh), &options);
    let (of_axes, swept) = sweep_axes(file, &declared, (&train, &fresh), progress)?;
    let views = (train.view, fresh.view);
    let mut pooled = of_pooled.map(|sets| other(sets, "pooled", views, &options, progress)).transpose()?;
    let mut replication =
        of_replication.map(|sets| other(sets, "replication", views, &options, progress)).transpose()?;
    let others = [("pooled", pooled.as_ref()), ("replication", replication.as_ref())];
    for (step, _) in others.iter().filter(|(_, other)| other.is_some_and(|other| !other.by_prompt)) {
        let why =
            format!("prompts were not compared between the sets of [{step}]: give [train] items and [fresh] items");
        tested.warnings.push(why);
    }
    let told = told_of_labels(&swept, others, &tested.warnings);
    tested.warnings.extend(told);
    let beside = (fresh.set, &tested.ran[..]);
    let of_pooled = of_other(file, StepName::Pooled, pooled.as_mut(), beside);
    let of_replication = of_other(file, StepName::Replication, replication.as_mut(), beside);
    let steps = vec![of_cv, of_fresh, of_axes, of_pooled, of_replication];
    let (verdict, sentence) = steps::verdict(&steps, &failure_modes, &but(file, (&train, &fresh), &tested));
    let found = Falsification {
        schema: "falsify/v1".into(),
        name: file.name.clone(),
        title: file.title.clone().unwrap_or_else(|| file.name.clone()),
        verdict,
        sentence,
        failure_modes,
        declared: file.clone(),
        gates_sha256: file.sha256.clone(),
        frozen,
        train: train.set.origin.clone(),
        fresh: fresh.set.origin.clone(),
        train_items_sha256,
        fresh_items_sha256,
        overlap,
        steps,
        cv: probe.meta.results.clone(),
        cv_null: probe.meta.null.clone(),
        transfer: tested.evaluation.results,
        fresh_null: tested.null,
        axes: swept.axes,
        axis_pairs: swept.pairs,
        pooled: pooled.map(|found| found.transfer),
        replication: replication.map(|found| found.transfer),
        baselines,
        plane: plane(&probe, fresh.set),
        warnings: tested.warnings,
    };
    write_json(&run.file(FOUND), &found)?;
    prediction_npz(&tested.predictions, &probe, fresh.set).save(&run.file("predictions.npz"))?;
    write_text(&run.file("report.md"), &super::markdown(&found))?;
    write_text(&run.file("report.html"), &report::falsify(&found))?;
    Ok(found)
}

/// What the frozen probe did on fresh items, and what the baselines did.
struct Tested {
    evaluation: Evaluation,
    /// `[C][item]`.
    predictions: Vec<Vec<f64>>,
    null: Option<Null>,
    ran: Vec<Ran>,
    /// Fields that go with the labels of either set.
    fields: BTreeSet<String>,
    warnings: Vec<String>,
}

/// Applies the probe and the baselines to the fresh items.
fn test(file: &GateFile, probe: &Probe, (train, fresh): (&Side, &Side), options: &FitOptions) -> Result<Tested> {
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
fn fresh_step(
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

/// Step 3, if it is declared.
fn sweep_axes(
    file: &GateFile,
    declared: &[axes::Declared],
    (train, fresh): (&Side, &Side),
    progress: &mut dyn Progress,
) -> Result<(Step, Swept)> {
    let Some(config) = &file.axes else {
        return Ok((steps::not_run(&file.gates, StepName::Axes), Swept::default()));
    };
    let swept = axes::run(file, config, declared, (train.rows, fresh.rows), progress)?;
    Ok((steps::axes(&file.gates, config, (&swept.axes, &swept.pairs)), swept))
}

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

/// What the directory belongs to: everything fixed before a fresh label is read.
fn parts(file: &GateFile, train: &ProbeSet, items: Option<&str>) -> Parts {
    Parts::default()
        .with("gates", &file.gates)
        .with("probe", &file.probe)
        .with("controls", &file.controls)
        .with("axes", &file.axes)
        .with("pooled", &file.pooled)
        .with("replication", &file.replication)
        .with("fresh", &file.fresh)
        .with("train_features_sha256", &train.origin.features_sha256)
        .with("train_labels_sha256", &train.origin.labels_sha256)
        .with("train_items_sha256", items)
}

/// Writes the probe, and then what is fixed from here on. A directory that was frozen before must agree.
fn freeze(run: &RunDir, probe: &Probe, gates_sha256: &str, progress: &mut dyn Progress) -> Result<Frozen> {
    let path = run.file(FROZEN);
    let (bytes, probe_sha256) = probe.bytes();
    let before: Option<Frozen> = if path.exists() { Some(read_json(&path)?) } else { None };
    let chosen = &probe.meta.results[probe.meta.chosen];
    let frozen = Frozen { probe_sha256, gates_sha256: gates_sha256.into(), c: chosen.c, threshold: chosen.cv.best_thr };
    if let Some(before) = before.filter(|before| *before != frozen) {
        let why = format!(
            "was frozen with the probe {}, which is now {}\nhint: if nothing was changed, another version froze it; give a new directory",
            before.probe_sha256, frozen.probe_sha256
        );
        return Err(StudyError::content(&path, why));
    }
    write_whole(&run.file(PROBE_FILE), |file| file.write_all(&bytes))?;
    write_json(&path, &frozen)?;
    let threshold = frozen.threshold.map_or("none".into(), |threshold| format!("{threshold:.2}"));
    progress.note(&format!("frozen     probe {}, C {}, threshold {threshold}", frozen.probe_sha256, frozen.c));
    Ok(frozen)
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

/// A frozen probe is tested once: other fresh items under the same gates would be a second try.
fn tested_once(run: &RunDir, (fresh, items): (&ProbeSet, Option<&str>)) -> Result<()> {
    let path = run.file(FOUND);
    let earlier = path.parent().map(Earlier::of).transpose()?.flatten();
    if earlier.is_none_or(|of| of.tested_on(&fresh.origin.features_sha256, &fresh.origin.labels_sha256, items)) {
        return Ok(());
    }
    let why = "this probe was tested on other fresh items before; a second test needs an --out of its own";
    Err(StudyError::content(&path, why))
}

/// What must be said of a probe that passed: baselines that were asked for, but had nothing to read; fields that go with the labels.
fn but(file: &GateFile, (train, fresh): (&Side, &Side), tested: &Tested) -> String {
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

/// What must be known of the labels that a probe is fitted and tested on, besides those of steps 1 and 2.
pub(super) fn label_warnings(train: &ProbeSet, fresh: &ProbeSet) -> Vec<String> {
    let of_train = train.label_warnings().into_iter().map(|warning| format!("training: {warning}"));
    of_train.chain(fresh.label_warnings()).chain(other_labels(&train.origin, &fresh.origin)).collect()
}

/// What must be known of the labels of steps 3 to 5, which may be others than those of step 2; what is known of these as well was said.
fn told_of_labels(swept: &Swept, others: [(&str, Option<&Other>); 2], said: &[String]) -> Vec<String> {
    let of_axes = swept.warnings.iter().map(|(why, names)| (format!("[axes] {}", some_of(names, NAMED)), why));
    let of_others = others.into_iter().filter_map(|(step, other)| Some((step, other?)));
    let of_others =
        of_others.flat_map(|(step, other)| other.warnings.iter().map(move |why| (format!("[{step}]"), why)));
    let new = of_axes.chain(of_others).filter(|(_, why)| !said.contains(why));
    new.map(|(step, why)| format!("{step}: {why}")).collect()
}

/// The fresh items, scaled as the probe sees them, in their widest plane.
fn plane(probe: &Probe, fresh: &ProbeSet) -> Plane {
    let rows: Vec<usize> = (0..fresh.labels.len()).collect();
    let scaled = probe.scaler.apply(&fresh.x, fresh.features, &rows);
    let found = principal_components(&scaled, fresh.features, 2);
    let points = found.scores.chunks_exact(found.share.len().max(1)).map(|s| (s[0], s.get(1).copied().unwrap_or(0.0)));
    Plane { points: points.collect(), labels: fresh.labels.clone(), share: found.share }
}
