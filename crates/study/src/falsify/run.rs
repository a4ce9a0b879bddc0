//! From a gate file to a verdict, in the one order that keeps it honest: fit, freeze, and only then read a fresh label.

use std::path::Path;

use super::{
    Baseline, Falsification, GateFile, Overlap, Step, StepName, axes,
    axes::Swept,
    earlier::{FOUND, tested_once},
    frozen::{FROZEN, freeze, parts},
    other::{Other, OtherSets, of_other, other, pooled_sets, replicated_sets},
    overlap,
    side::Side,
    steps::{self, Seen},
    tested::{self, NAMED, check_ready},
    view::View,
};
use crate::{
    Progress, Result, RunDir,
    probe::{PROBE_FILE, fit, prediction_npz},
    report,
    store::files::{write_json, write_text},
    text::some_of,
};

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
    let (run, overlap) = apart(run, &train, &fresh)?;
    let fresh_items_sha256 = fresh.texts.sha256();
    tested_once(&run, fresh.set, fresh_items_sha256.as_deref())?;
    progress.begin("controls", 1, 0);
    let mut tested = tested::test(file, &probe, (&train, &fresh), &options)?;
    if !overlap.by_prompt {
        let why = "prompts were not compared between the sets: give [train] items and [fresh] items";
        tested.warnings.push(why.into());
    }
    tested.warnings.extend(fitted.notes.iter().map(|note| format!("training: {note}")));
    progress.step();
    progress.end();

    let baselines: Vec<Baseline> = tested.ran.iter().map(|(baseline, _)| baseline.clone()).collect();
    let of_cv = steps::cv(&file.gates, &Seen::cv(&probe, &options));
    let (of_fresh, failure_modes) = tested::fresh_step(file, &tested, &baselines, (&train, &fresh), &options);
    let (of_axes, swept) = sweep_axes(file, &declared, (&train, &fresh), progress)?;
    let views = (train.view, fresh.view);
    let mut of = |step: StepName, sets: Option<OtherSets>| {
        sets.map(|sets| other(sets, (&run, step), views, &options, progress)).transpose()
    };
    let mut pooled = of(StepName::Pooled, of_pooled)?;
    let mut replication = of(StepName::Replication, of_replication)?;
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
    let (verdict, sentence) = steps::verdict(&steps, &failure_modes, &tested::but(file, (&train, &fresh), &tested));
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
        plane: tested::plane(&probe, fresh.set),
        warnings: tested.warnings,
    };
    write_json(&run.file(FOUND), &found)?;
    prediction_npz(&tested.predictions, &probe, fresh.set).save(&run.file("predictions.npz"))?;
    write_text(&run.file("report.md"), &super::markdown(&found))?;
    write_text(&run.file("report.html"), &report::falsify(&found))?;
    Ok(found)
}

/// Refuses sets that overlap. Nothing was tested then, so the directory is free for a corrected file, unless something was before.
fn apart(run: RunDir, train: &Side, fresh: &Side) -> Result<(RunDir, Overlap)> {
    match overlap::compare(&train.prompts, (fresh.set, &fresh.prompts)) {
        Err(e) if !run.file(FOUND).exists() => {
            let own = [PROBE_FILE, FROZEN].map(|name| run.file(name));
            let _ = run.discard(&own); // the first error is the one to report
            Err(e)
        }
        compared => Ok((run, compared?)),
    }
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

/// What must be known of the labels of steps 3 to 5, which may be others than those of step 2; what is known of these as well was said.
fn told_of_labels(swept: &Swept, others: [(&str, Option<&Other>); 2], said: &[String]) -> Vec<String> {
    let of_axes = swept.warnings.iter().map(|(why, names)| (format!("[axes] {}", some_of(names, NAMED)), why));
    let of_others = others.into_iter().filter_map(|(step, other)| Some((step, other?)));
    let of_others =
        of_others.flat_map(|(step, other)| other.warnings.iter().map(move |why| (format!("[{step}]"), why)));
    let new = of_axes.chain(of_others).filter(|(_, why)| !said.contains(why));
    new.map(|(step, why)| format!("{step}: {why}")).collect()
}
