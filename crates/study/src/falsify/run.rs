//! From a gate file to a verdict, in the one order that keeps it honest: fit, freeze, and only then read a fresh label.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
};

use headtemper_stats::{Relabelings, Shuffles, auc, delong_difference, principal_components};

use super::{
    Baseline, BaselineName, FailureMode, Falsification, Frozen, GateFile, Outcome, Plane, SetConfig, Step, StepName,
    Transfer, axes,
    axes::Swept,
    baselines::{self, Ran},
    earlier::{Earlier, FOUND},
    overlap::{self, Prompts},
    steps::{self, Seen},
    view::{Texts, View},
};
use crate::{
    ItemFacts, Parts, Progress, Result, RunDir, StudyError,
    attribution::FieldCheck,
    confounds::{Dealt, OUTCOMES, VERDICTS},
    probe::{
        EvalResult, Evaluation, FeatureRows, FitOptions, LabelSource, Null, PROBE_FILE, Probe, ProbeSet, evaluate, fit,
        folds_of, other_labels, prediction_npz,
    },
    report,
    significance::{LEVEL, told_fixed},
    store::files::{read_json, write_json, write_text, write_whole},
    text::{listed, some_of},
};

const FROZEN: &str = "frozen.json";
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
    let run = RunDir::open(dir, "falsify", &parts(file, &train), None, progress)?;
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
        train_items_sha256: train.texts.sha256(),
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

/// One of the two sets, with all that is known of its items.
struct Side<'a> {
    view: &'a View,
    rows: &'a FeatureRows,
    set: &'a ProbeSet,
    texts: Texts<'a>,
    prompts: Prompts,
}

impl<'a> Side<'a> {
    fn of(view: &'a View, rows: &'a FeatureRows, set: &'a ProbeSet) -> Result<Self> {
        let texts = view.texts(set)?;
        let prompts = Prompts::of(&texts);
        Ok(Self { view, rows, set, texts, prompts })
    }

    /// What the file of items says about cut-off responses, where neither features nor labels do.
    fn cut_off(&self) -> Vec<String> {
        let unsaid = self.set.cut_off.iter().all(Option::is_none);
        if unsaid { self.set.truncation(&self.texts.cut_off()) } else { Vec::new() }
    }

    /// The fields of the items that go with the labels more than by chance, strongest first; none without items. Not those that the labels
    /// or groups are made from, nor verdicts.
    fn fields(&self, SetConfig { labels, groups, .. }: &SetConfig, options: &FitOptions) -> Vec<FieldCheck> {
        let Some(items) = self.texts.items.as_ref().filter(|_| self.set.smaller_class() > 0) else {
            return Vec::new();
        };
        let (mut order, others): (Vec<usize>, Vec<usize>) = (0..items.len()).partition(|&item| self.set.labels[item]);
        let n_a = order.len();
        order.extend(others);
        let unit: Vec<usize> = order.iter().map(|&item| self.set.units[item]).collect();
        let shuffles = Shuffles::whole(n_a, items.len() - n_a, options.measure.seed, &unit, None);
        let facts: Vec<ItemFacts> = order.iter().map(|&item| ItemFacts::of(items[item])).collect();
        let fields: Vec<Option<&BTreeMap<String, String>>> = facts.iter().map(|facts| Some(&facts.fields)).collect();
        let made_from = |field: &str| field == labels.column.key || groups.as_ref().is_some_and(|by| by.key == field);
        let dealt = Dealt { n_a, items: items.len(), shuffles, count: options.shuffles };
        // Ends have a baseline of their own, where they are known.
        let ends = self.texts.cut_off().iter().any(Option::is_some);
        let passed_over =
            |field: &str| made_from(field) || VERDICTS.contains(&field) || (ends && OUTCOMES.contains(&field));
        let (mut found, checked) = dealt.fields(&fields, passed_over);
        // Of many fields one goes with the labels by chance; no p is smaller than the shuffles allow.
        let most = (LEVEL / checked.max(1) as f64).max(1.0 / (options.shuffles as f64 + 1.0));
        found.retain(|field| field.p <= most);
        found
    }
}

/// The warning that a field goes with the labels; a probe is not compared with it as with a baseline.
fn told_field(field: &FieldCheck) -> String {
    format!(
        "the field '{}' goes with the labels (Cramér's V {:.2}, p {:.3}): a probe that reads it looks like one that reads what is asked, and \
         p and intervals take items with one value for independent; `groups` of [train] and [fresh] keeps them together",
        field.field, field.cramers_v, field.p
    )
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

/// The sets of step 4 or 5, as far as they are known before a fresh label is read.
struct OtherSets {
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

/// Refuses training items that no probe can be fitted on, and fresh ones that it could not be applied to.
fn check_ready(train: &ProbeSet, (fresh, labels): (&FeatureRows, &LabelSource), options: &FitOptions) -> Result<()> {
    folds_of(train, options)?;
    fresh.check_like(train)?;
    fresh.check_labels(labels)
}

/// What step 4 is about, if it is declared.
fn pooled_sets(file: &GateFile, (train, fresh): (&View, &View), options: &FitOptions) -> Result<Option<OtherSets>> {
    let Some(of) = &file.pooled else { return Ok(None) };
    let sets = (train.set(&of.train, &file.train.labels)?, fresh.rows(&of.fresh)?);
    OtherSets::read(of.train.to_string(), sets, &file.fresh.labels, options).map(Some)
}

/// What step 5 is about, if it is declared.
fn replicated_sets(file: &GateFile, (train, fresh): (&Side, &View), options: &FitOptions) -> Result<Option<OtherSets>> {
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

/// What the directory belongs to: everything fixed before a fresh label is read.
fn parts(file: &GateFile, train: &Side<'_>) -> Parts {
    Parts::default()
        .with("gates", &file.gates)
        .with("probe", &file.probe)
        .with("controls", &file.controls)
        .with("axes", &file.axes)
        .with("pooled", &file.pooled)
        .with("replication", &file.replication)
        .with("fresh", &file.fresh)
        .with("train_features_sha256", &train.set.origin.features_sha256)
        .with("train_labels_sha256", &train.set.origin.labels_sha256)
        .with("train_items_sha256", train.texts.sha256())
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

/// A probe on other features, what it did on fresh items, and its probabilities for them.
struct Other {
    transfer: Transfer,
    seen: Seen,
    /// Whether prompts were compared between its sets.
    by_prompt: bool,
    p: Vec<f64>,
    /// What must be known of its labels.
    warnings: Vec<String>,
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

/// Steps 4 and 5: the same on other features of the items.
fn other(
    sets: OtherSets,
    stage: &str,
    (of_train, of_fresh): (&View, &View),
    options: &FitOptions,
    progress: &mut dyn Progress,
) -> Result<Other> {
    let OtherSets { name, train, fresh, fresh_labels } = sets;
    let fresh = fresh.labelled(&fresh_labels)?;
    let prompts = (Prompts::of(&of_train.texts(&train)?), Prompts::of(&of_fresh.texts(&fresh)?));
    let by_prompt = overlap::compare(&prompts.0, (&fresh, &prompts.1))?.by_prompt;
    let options = &options.clone().without_intervals();
    let probe = fit(&train, options, stage, progress)?.probe;
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
fn of_other(
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

/// The fresh items, scaled as the probe sees them, in their widest plane.
fn plane(probe: &Probe, fresh: &ProbeSet) -> Plane {
    let rows: Vec<usize> = (0..fresh.labels.len()).collect();
    let scaled = probe.scaler.apply(&fresh.x, fresh.features, &rows);
    let found = principal_components(&scaled, fresh.features, 2);
    let points = found.scores.chunks_exact(found.share.len().max(1)).map(|s| (s[0], s.get(1).copied().unwrap_or(0.0)));
    Plane { points: points.collect(), labels: fresh.labels.clone(), share: found.share }
}
