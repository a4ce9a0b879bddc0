//! From a gate file to a verdict, in the one order that keeps it honest: fit, freeze, and only then read a fresh label.

use std::{collections::BTreeMap, io::Write, path::Path};

use headtemper_stats::{Shuffles, auc, delong_difference, principal_components};
use serde_json::Value;

use super::{
    Baseline, Falsification, Frozen, GateFile, Outcome, Plane, Step, StepName, Transfer, axes,
    baselines::{self, Ran},
    overlap::{self, Prompts},
    steps::{self, Seen},
    view::{Texts, View},
};
use crate::{
    Parts, Progress, Result, RunDir, StudyError,
    files::{read_json, write_json, write_text, write_whole},
    probe::{EvalResult, FitOptions, Null, PROBE_FILE, Probe, ProbeSet, evaluate, fit, prediction_npz},
    report,
};

const FROZEN: &str = "frozen.json";
const FOUND: &str = "falsify.json";
/// The question of each step that may be left out.
const POOLED: &str = "do the last layers together carry it?";
const REPLICATION: &str = "does another model show it?";
const AXES: &str = "does every score carry over, and are they more than one?";

/// Runs everything that a gate file declares, and writes `falsify.json`, `report.html`, `report.md`, `frozen.json`,
/// `probe.safetensors` and `predictions.npz`.
///
/// # Errors
/// If a file cannot be used, the sets overlap, a fit does not converge, or the directory belongs to something else: other
/// gates, other training items, or a probe that was frozen before.
pub fn falsify(file: &GateFile, dir: &Path, progress: &mut dyn Progress) -> Result<Falsification> {
    let gates_sha256 = file.sha256.clone();
    progress.note(&format!("gates      {gates_sha256}"));
    let declared = match &file.axes {
        Some(config) => axes::declared(file, config)?,
        None => Vec::new(),
    };
    let train_view = View::of(&file.train)?;
    let train = train_view.set(&file.train.features, &file.train.labels)?;
    let train_texts = train_view.texts(&train)?;
    let train_prompts = Prompts::of(&train_texts)?;
    let options = file.fit_options(&train);
    let run = RunDir::open(dir, "falsify", &parts(file, &train), None, progress)?;
    progress.begin("fit", 1, 0);
    let fitted = fit(&train, &options)?;
    fitted.notes.iter().for_each(|note| progress.note(&format!("note: {note}")));
    let probe = fitted.probe;
    let frozen = freeze(&run, &probe, &gates_sha256, progress)?;
    progress.step();
    progress.end();

    let fresh_view = View::of(&file.fresh)?;
    let fresh = fresh_view.set(&file.fresh.features, &file.fresh.labels)?;
    let fresh_texts = fresh_view.texts(&fresh)?;
    let fresh_prompts = Prompts::of(&fresh_texts)?;
    let overlap = overlap::compare((&train, &train_prompts), (&fresh, &fresh_prompts))?;
    same_site(&train, &fresh)?;
    tested_once(&run, &fresh)?;
    progress.begin("controls", 1, 0);
    let mut warnings = Vec::new();
    let (evaluation, predictions) = evaluate(&probe, &fresh, options.measure)?;
    warnings.extend(evaluation.warnings.iter().cloned());
    if train.origin.unlabelled > 0 {
        warnings.push(format!("{} training items without a label were left out", train.origin.unlabelled));
    }
    let p = &predictions[probe.meta.chosen];
    let mut ran = Vec::new();
    // A fresh set of one class ranks nothing, and nothing against it.
    if fresh.smaller_class() > 0 {
        let shuffled = baselines::shuffled_labels(&probe, &train, &fresh, &options)?;
        ran.push((shuffled, vec![f64::NAN; fresh.labels.len()]));
        ran.extend(baselines::run(file, (&train_texts, &fresh_texts), p, &mut warnings)?);
    }
    let all_baselines: Vec<Baseline> = ran.iter().map(|(baseline, _)| baseline.clone()).collect();
    let fresh_null = null_of(p, &fresh.labels, &options);
    progress.step();
    progress.end();

    let gates = &file.gates;
    let chosen = &probe.meta.results[probe.meta.chosen];
    let of_cv = Seen {
        auc: chosen.cv.auc,
        p: probe.meta.null.as_ref().map(|null| null.p),
        gate: chosen.cv.best,
        smaller: train.smaller_class(),
        correct: train.origin.positives,
        shared: shared(&train, &train_prompts),
    };
    let result = &evaluation.results[probe.meta.chosen];
    let of_fresh = Seen {
        auc: result.measured.auc,
        p: fresh_null.as_ref().map(|null| null.p),
        gate: result.train_chosen,
        smaller: fresh.smaller_class(),
        correct: fresh.origin.positives,
        shared: shared(&fresh, &fresh_prompts),
    };
    let question = "does it rank fresh items, and gate them, with nothing chosen on them?";
    let fresh_step = steps::transfer(gates, StepName::Fresh, question, &of_fresh, &all_baselines);
    let failure_modes = if fresh_step.outcome == Outcome::Passed {
        Vec::new()
    } else {
        steps::failure_modes(&train.origin, &fresh.origin, result.measured.auc, result.measured.auc_delong)
    };
    let mut all_steps = vec![steps::cv(gates, &of_cv), fresh_step];
    let (found_axes, axis_pairs) = if let Some(config) = &file.axes {
        let (found, pairs) = axes::run(file, config, &declared, (&train_view, &fresh_view))?;
        all_steps.push(steps::axes(gates, config, &found, &pairs));
        (found, pairs)
    } else {
        all_steps.push(steps::not_run(gates, StepName::Axes, AXES, "axes"));
        (Vec::new(), Vec::new())
    };
    let pooled = file.pooled.as_ref().map(|of| {
        let train = train_view.set(&of.train, &file.train.labels)?;
        other(of.train.to_string(), (train, fresh_view.set(&of.fresh, &file.fresh.labels)?), &options)
    });
    let main = &train;
    let replication = file.replication.as_ref().map(|of| {
        let train_labels = of.train_labels.as_ref().unwrap_or(&file.train.labels);
        let fresh_labels = of.fresh_labels.as_ref().unwrap_or(&file.fresh.labels);
        let train = train_view.set(&of.train, train_labels)?;
        if train.origin.same_weights(&main.origin) == Some(true) {
            return Err(StudyError::Experiment {
                name: file.name.clone(),
                why: format!("[replication] '{}' has the weights of [train]: it is no other model", of.model),
            });
        }
        other(of.model.clone(), (train, fresh_view.set(&of.fresh, fresh_labels)?), &options)
    });
    let (mut pooled, mut replication) = (pooled.transpose()?, replication.transpose()?);
    all_steps.push(of_other(file, (StepName::Pooled, POOLED), pooled.as_mut(), (&fresh, &ran)));
    let replicated = (StepName::Replication, REPLICATION);
    all_steps.push(of_other(file, replicated, replication.as_mut(), (&fresh, &ran)));
    let (verdict, sentence) = steps::verdict(&all_steps, &failure_modes, &not_compared(file, &all_baselines));
    if !overlap.by_prompt {
        warnings.push("prompts were not compared between the sets: give [train] items and [fresh] items".into());
    }
    let found = Falsification {
        schema: "falsify/v1".into(),
        name: file.name.clone(),
        title: file.title.clone().unwrap_or_else(|| file.name.clone()),
        verdict,
        sentence,
        failure_modes,
        declared: file.clone(),
        gates_sha256,
        frozen,
        train: train.origin.clone(),
        fresh: fresh.origin.clone(),
        overlap,
        steps: all_steps,
        cv: probe.meta.results.clone(),
        cv_null: probe.meta.null.clone(),
        transfer: evaluation.results.clone(),
        fresh_null,
        axes: found_axes,
        axis_pairs,
        pooled: pooled.map(|found| found.transfer),
        replication: replication.map(|found| found.transfer),
        baselines: all_baselines,
        plane: plane(&probe, &fresh),
        warnings,
    };
    write_json(&run.file(FOUND), &found)?;
    prediction_npz(&predictions, &probe, &fresh).save(&run.file("predictions.npz"))?;
    write_text(&run.file("report.md"), &super::markdown(&found))?;
    write_text(&run.file("report.html"), &report::falsify(&found))?;
    Ok(found)
}

/// What the directory belongs to: everything that is fixed before a fresh label is read.
fn parts(file: &GateFile, train: &ProbeSet) -> Parts {
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
}

/// Writes the probe, and then what is fixed from here on. A directory that was frozen before must agree.
fn freeze(run: &RunDir, probe: &Probe, gates_sha256: &str, progress: &mut dyn Progress) -> Result<Frozen> {
    let path = run.file(FROZEN);
    let (bytes, probe_sha256) = probe.bytes();
    let before: Option<Frozen> = if path.exists() { Some(read_json(&path)?) } else { None };
    let chosen = &probe.meta.results[probe.meta.chosen];
    let frozen = Frozen { probe_sha256, gates_sha256: gates_sha256.into(), c: chosen.c, threshold: chosen.cv.best_thr };
    if let Some(before) = before.filter(|before| *before != frozen) {
        let why = format!("was frozen with the probe {}, which is now {}", before.probe_sha256, frozen.probe_sha256);
        return Err(StudyError::content(&path, why));
    }
    write_whole(&run.file(PROBE_FILE), |file| file.write_all(&bytes))?;
    write_json(&path, &frozen)?;
    let threshold = frozen.threshold.map_or("none".into(), |threshold| format!("{threshold:.2}"));
    progress.note(&format!("frozen     probe {}, C {}, threshold {threshold}", frozen.probe_sha256, frozen.c));
    Ok(frozen)
}

/// The AUC of probabilities beside shuffled labels of the same items; none for no shuffles or one class.
pub(super) fn null_of(p: &[f64], labels: &[bool], options: &FitOptions) -> Option<Null> {
    let observed = auc(p, labels);
    if options.shuffles == 0 || observed.is_nan() {
        return None;
    }
    let shuffles = Shuffles::of(labels, options.measure.seed);
    Some(Null::of(observed, shuffles.iter().take(options.shuffles).map(|labels| auc(p, &labels)).collect()))
}

/// Refuses fresh features that are another thing than those of the training items.
fn same_site(train: &ProbeSet, fresh: &ProbeSet) -> Result<()> {
    match train.origin.other_site(&fresh.origin) {
        None => Ok(()),
        Some(why) => Err(StudyError::content(&fresh.origin.features.path, format!("holds something else: {why}"))),
    }
}

/// A frozen probe is tested once: other fresh items under the same gates would be another try.
fn tested_once(run: &RunDir, fresh: &ProbeSet) -> Result<()> {
    let path = run.file(FOUND);
    if !path.exists() {
        return Ok(());
    }
    let before: Value = read_json(&path)?;
    let same = |name: &str, now: &str| before["fresh"][name] == now;
    if same("features_sha256", &fresh.origin.features_sha256) && same("labels_sha256", &fresh.origin.labels_sha256) {
        return Ok(());
    }
    let why = "this probe was tested on other fresh items before; a second test needs an --out of its own";
    Err(StudyError::content(&path, why))
}

/// Items that share their prompt, or all their features, with another of the set.
fn shared(set: &ProbeSet, prompts: &Prompts) -> usize {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for row in set.row_hashes() {
        *counts.entry(row).or_default() += 1;
    }
    prompts.shared().max(counts.into_values().filter(|&count| count > 1).sum())
}

/// Baselines that read texts and were asked for, but had none.
fn not_compared(file: &GateFile, ran: &[Baseline]) -> Vec<&'static str> {
    let asked = [(file.controls.length, "length"), (file.controls.bag_of_words, "bag of words")];
    let missing = |name: &&str| !ran.iter().any(|baseline| baseline.name == **name);
    asked.into_iter().filter(|(asked, _)| *asked).map(|(_, name)| name).filter(missing).collect()
}

/// A probe on other features, its p on fresh items, and its probabilities of them.
struct Other {
    transfer: Transfer,
    null: Option<Null>,
    p: Vec<f64>,
}

/// Steps 4 and 5: the same on other features.
fn other(name: String, (train, fresh): (ProbeSet, ProbeSet), options: &FitOptions) -> Result<Other> {
    let texts = |set| Prompts::of(&Texts { set, items: None });
    let prompts = (texts(&train)?, texts(&fresh)?);
    overlap::compare((&train, &prompts.0), (&fresh, &prompts.1))?;
    same_site(&train, &fresh)?;
    let probe = fit(&train, options)?.probe;
    let (evaluation, predictions) = evaluate(&probe, &fresh, options.measure)?;
    let chosen = probe.meta.chosen;
    let null = null_of(&predictions[chosen], &fresh.labels, options);
    let (cv, EvalResult { measured, train_chosen, .. }) = (&probe.meta.results[chosen], &evaluation.results[chosen]);
    let transfer = Transfer {
        name,
        shared: shared(&train, &prompts.0).max(shared(&fresh, &prompts.1)),
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
    Ok(Other { transfer, null, p: predictions.into_iter().nth(chosen).expect("a fit has predictions") })
}

/// A step on other features; beside the baselines where it is about the same answers.
fn of_other(
    file: &GateFile,
    (name, question): (StepName, &str),
    found: Option<&mut Other>,
    (fresh, baselines): (&ProbeSet, &[Ran]),
) -> Step {
    let Some(found) = found else {
        return steps::not_run(&file.gates, name, question, &name.to_string());
    };
    let Other { transfer, null, p } = found;
    let same = transfer.fresh.labels_sha256 == fresh.origin.labels_sha256;
    let beside = |(of, others): &Ran| {
        let gain = delong_difference(p, others, &fresh.labels);
        Baseline { gain: gain.value, gain_range: gain.range.into(), ..of.clone() }
    };
    let baselines: Vec<Baseline> = baselines.iter().filter(|_| same).map(beside).collect();
    let step = steps::transfer(&file.gates, name, question, &steps::seen(transfer, null.as_ref()), &baselines);
    if step.outcome != Outcome::Passed {
        let (auc, range) = (transfer.fresh_auc, transfer.fresh_range);
        transfer.failure_modes = steps::failure_modes(&transfer.train, &transfer.fresh, auc, range);
    }
    if same {
        step
    } else {
        Step { note: format!("{}; no baselines, since these are other answers than step 2's", step.note), ..step }
    }
}

/// The fresh items, scaled as the probe sees them, in their widest plane.
fn plane(probe: &Probe, fresh: &ProbeSet) -> Plane {
    let rows: Vec<usize> = (0..fresh.labels.len()).collect();
    let scaled = probe.scaler.apply(&fresh.x, fresh.features, &rows);
    let found = principal_components(&scaled, fresh.features, 2);
    let points = found.scores.chunks_exact(found.share.len().max(1)).map(|s| (s[0], s.get(1).copied().unwrap_or(0.0)));
    Plane { points: points.collect(), labels: fresh.labels.clone(), share: found.share }
}
