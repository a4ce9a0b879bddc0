//! `temper probe`: linear probes, fitted and measured.

use anyhow::Result;
use headtemper_study::{
    probe::{
        CrossTable, FitOptions, MeasureOptions, Probe, ProbeSet, eval_markdown, evaluate, fit, fit_markdown,
        usual_shuffles, write_eval, write_fit,
    },
    read_items,
};
use serde_json::json;

use crate::{
    Done,
    args::{MeasureArgs, ProbeCommand, ProbeEval, ProbeFit, ProbeTable},
    ui,
};

pub(crate) fn run(command: &ProbeCommand) -> Result<Done> {
    match command {
        ProbeCommand::Fit(args) => fit_probe(args),
        ProbeCommand::Eval(args) => eval_probe(args),
        ProbeCommand::Table(args) => table(args),
    }
}

fn fit_probe(args: &ProbeFit) -> Result<Done> {
    let set = ProbeSet::read(&args.set.features, &args.set.labels)?;
    say_set(&set);
    let shared = set.shared()?;
    let mut options = FitOptions {
        c: args.c.clone(),
        class_weight: args.class_weight.into(),
        folds: args.cv,
        shuffle: (!args.no_shuffle).then_some(args.seed),
        shuffles: args.shuffles.unwrap_or_else(|| usual_shuffles(&set, args.cv, args.c.len())),
        measure: measure(&args.measure, args.seed.into()),
    };
    warn(&set.warnings());
    if shared > 0 {
        options.shuffles = 0;
        warn(&[dependent(shared, &set)]);
    }
    let mut fitted = fit(&set, &options)?;
    if shared > 0 {
        fitted.probe.meta.results.iter_mut().for_each(|result| result.cv.withhold_intervals());
    }
    fitted.notes.iter().for_each(|note| ui::say(&format!("note: {note}")));
    let hash = write_fit(&args.out, &fitted, &set, &options, &mut ui::Bars::default())?;
    let meta = &fitted.probe.meta;
    ui::put(&if args.json { serde_json::to_string_pretty(meta)? + "\n" } else { fit_markdown(meta) })?;
    ui::say(&format!("probe      {} sha256 {hash}", args.out.join(headtemper_study::probe::PROBE_FILE).display()));
    Ok(Done::Well)
}

/// Why neither p nor intervals are given.
fn dependent(shared: usize, set: &ProbeSet) -> String {
    format!(
        "{shared} of {} items share their prompt or all their features with another: folds, shuffles and intervals would count them \
         as several, so there is no p and no interval; keep one item a prompt",
        set.labels.len()
    )
}

fn eval_probe(args: &ProbeEval) -> Result<Done> {
    let (probe, _) = Probe::read(&args.probe)?;
    let set = ProbeSet::read(&args.set.features, &args.set.labels)?;
    say_set(&set);
    let options = measure(&args.measure, args.seed);
    let (mut evaluation, probabilities) = evaluate(&probe, &set, options)?;
    let shared = set.shared()?;
    if shared > 0 {
        evaluation.results.iter_mut().for_each(|result| result.measured.withhold_intervals());
        evaluation.warnings.push(dependent(shared, &set));
    }
    warn(&evaluation.warnings);
    if let Some(dir) = &args.out {
        let of = (&evaluation, &probabilities[..]);
        write_eval(dir, of, (&probe, &set), options, &mut ui::Bars::default())?;
        ui::say(&format!("wrote      {}", dir.display()));
    }
    let text = if args.json { serde_json::to_string_pretty(&evaluation)? + "\n" } else { eval_markdown(&evaluation) };
    ui::put(&text)?;
    Ok(Done::Well)
}

fn table(args: &ProbeTable) -> Result<Done> {
    let table = CrossTable::of_items(&read_items(&args.items, false)?)?;
    let json = || {
        json!({
            "cr": table.cr, "cw": table.cw, "hr": table.hr, "hw": table.hw, "missing": table.missing,
            "p_assert_correct": table.assert_correct(), "p_assert_wrong": table.assert_wrong(),
            "asymmetry": table.asymmetry(),
        })
    };
    ui::put(&if args.json { format!("{}\n", json()) } else { table.markdown() })?;
    Ok(Done::Well)
}

fn measure(args: &MeasureArgs, seed: u64) -> MeasureOptions {
    MeasureOptions { assert_correct: args.assert_correct, resamples: args.resamples, seed }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        ui::say(&format!("warning: {warning}"));
    }
}

/// What was read, before anything is computed.
fn say_set(set: &ProbeSet) {
    let origin = &set.origin;
    let (n, positives) = set.sizes();
    let left_out =
        if origin.unlabelled > 0 { format!(", {} without a label", origin.unlabelled) } else { String::new() };
    ui::say(&format!(
        "items      {n} of {} features, {positives} positive by {}{left_out}; matched by {}",
        set.features, origin.labels, origin.matched_by
    ));
}
