//! The files of a fitted and of an evaluated probe.

use std::path::Path;

use super::{
    Evaluation, FitOptions, Fitted, MeasureOptions, PROBE_FILE, Probe, ProbeSet, file::PROBE_SHA256, fit::folds_of,
};
use crate::{
    Array, Npz, Parts, Progress, Result, RunDir,
    store::{digest::digest, files::write_json},
};

/// What directories of fits and of evaluations belong to.
const FIT: &str = "probe fit";
const EVAL: &str = "probe eval";

/// Refuses a set that cannot be fitted, and a directory that [`write_fit`] would refuse: a fit may take minutes.
///
/// # Errors
/// If an option has no meaning, a class has fewer than two items, or the directory belongs to another fit, naming what differs.
pub fn check_fit(dir: &Path, set: &ProbeSet, options: &FitOptions) -> Result<()> {
    RunDir::check(dir, FIT, &fit_parts(set, options, folds_of(set, options)?), None)
}

/// What determines a fit over so many folds.
fn fit_parts(set: &ProbeSet, options: &FitOptions, folds: usize) -> Parts {
    of_set(set)
        .with("c", &options.c)
        .with("class_weight", options.class_weight)
        .with("folds", folds)
        .with("shuffled_folds", options.shuffle.is_some())
        .with("seed", options.measure.seed)
        .with("shuffles", options.shuffles)
        .with("measure", of_measure(options.measure))
}

/// Writes `probe.safetensors`, `fit.json` and `predictions.npz` (`p` `[C, n]` out of fold, `c`, `id`, `label`, `fold`), and returns
/// the SHA-256 of the first.
///
/// # Errors
/// If the directory belongs to another fit, naming what differs, or cannot be written.
pub fn write_fit(
    dir: &Path,
    fitted: &Fitted,
    set: &ProbeSet,
    options: &FitOptions,
    progress: &mut dyn Progress,
) -> Result<String> {
    let meta = &fitted.probe.meta;
    let mut run = RunDir::open(dir, FIT, &fit_parts(set, options, meta.folds), None, progress)?;
    let hash = fitted.probe.save(&run.file(PROBE_FILE))?;
    write_json(&run.file("fit.json"), meta)?;
    let mut npz = prediction_npz(&fitted.out_of_fold, &fitted.probe, set);
    npz.add("fold", Array::counts(fitted.fold_of.iter().copied()));
    npz.save(&run.file("predictions.npz"))?;
    run.note(PROBE_SHA256, &hash)?;
    Ok(hash)
}

/// Refuses a directory that [`write_eval`] would refuse, before anything is measured.
///
/// # Errors
/// If it belongs to another evaluation, naming what differs.
pub fn check_eval(dir: &Path, (probe, set): (&Probe, &ProbeSet), options: MeasureOptions) -> Result<()> {
    RunDir::check(dir, EVAL, &eval_parts((probe, set), options), None)
}

/// What determines an evaluation.
fn eval_parts((probe, set): (&Probe, &ProbeSet), options: MeasureOptions) -> Parts {
    let rows = &probe.row_hashes;
    let probe_key = match &probe.prompt_names[..] {
        [] => digest(&(&probe.meta, rows)),
        prompts => digest(&(&probe.meta, rows, prompts)),
    };
    of_set(set).with("probe", probe_key).with("measure", of_measure(options))
}

/// Writes `eval.json` and `predictions.npz` (`p` `[C, n]`, `c`, `id`, `label`).
///
/// # Errors
/// If the directory belongs to another evaluation, naming what differs, or cannot be written.
pub fn write_eval(
    dir: &Path,
    (evaluation, probabilities): (&Evaluation, &[Vec<f64>]),
    (probe, set): (&Probe, &ProbeSet),
    options: MeasureOptions,
    progress: &mut dyn Progress,
) -> Result<()> {
    let run = RunDir::open(dir, EVAL, &eval_parts((probe, set), options), None, progress)?;
    write_json(&run.file("eval.json"), evaluation)?;
    prediction_npz(probabilities, probe, set).save(&run.file("predictions.npz"))
}

fn of_set(set: &ProbeSet) -> Parts {
    let parts = Parts::default()
        .with("features", &set.origin.features)
        .with("labels", &set.origin.labels)
        .with("features_sha256", &set.origin.features_sha256)
        .with("labels_sha256", &set.origin.labels_sha256);
    match &set.origin.groups {
        Some(groups) => parts.with("groups", groups),
        None => parts,
    }
}

fn of_measure(options: MeasureOptions) -> (f64, usize, u64) {
    (options.assert_correct, options.resamples, options.seed)
}

pub(crate) fn prediction_npz(p: &[Vec<f64>], probe: &Probe, set: &ProbeSet) -> Npz {
    let mut npz = Npz::default();
    npz.add("p", Array::F64(vec![p.len(), set.labels.len()], p.concat()));
    npz.add("c", Array::floats(probe.meta.results.iter().map(|result| result.c)));
    npz.add("id", Array::Text(set.ids.clone()));
    npz.add("label", Array::counts(set.labels.iter().map(|&label| usize::from(label))));
    npz
}
