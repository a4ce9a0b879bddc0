//! `temper probe`: linear probes, fitted and measured.

use anyhow::Result;
use headtemper_study::{
    ReadAs, count,
    probe::{
        FitOptions, LabelTable, MeasureOptions, Probe, ProbeSet, check_eval, check_fit, eval_markdown, evaluate, fit,
        fit_markdown, unmet, usual_shuffles, write_eval, write_fit,
    },
    read_items,
};

use crate::{
    Done,
    args::{MeasureArgs, ProbeCommand, ProbeEval, ProbeFit, ProbeTable, SetArgs},
    model, ui,
};

pub(crate) fn run(command: &ProbeCommand) -> Result<Done> {
    match command {
        ProbeCommand::Fit(args) => fit_probe(args),
        ProbeCommand::Eval(args) => eval_probe(args),
        ProbeCommand::Table(args) => table(args),
    }
}

fn fit_probe(args: &ProbeFit) -> Result<Done> {
    model::check_out(&args.out)?;
    let mut options = FitOptions {
        c: args.c.clone(),
        class_weight: args.class_weight.into(),
        folds: args.cv,
        shuffle: (!args.no_shuffle).then_some(args.seed),
        shuffles: args.shuffles.unwrap_or_default(),
        measure: measure(&args.measure, args.seed.into()),
    };
    options.check()?;
    let set = read(&args.set)?;
    if args.shuffles.is_none() {
        options.shuffles = usual_shuffles(&set, args.cv, args.c.len());
    }
    check_fit(&args.out, &set, &options)?;
    ui::warn(&set.warnings());
    let fitted = fit(&set, &options, "fit", &mut ui::Bars::default())?;
    fitted.notes.iter().for_each(|note| ui::say(&format!("note: {note}")));
    let hash = write_fit(&args.out, &fitted, &set, &options, &mut ui::Bars::default())?;
    let meta = &fitted.probe.meta;
    if args.json {
        ui::put_json(meta)?;
    } else {
        ui::put(&fit_markdown(meta))?;
    }
    ui::say(&format!("probe      {} sha256 {hash}", args.out.join(headtemper_study::probe::PROBE_FILE).display()));
    Ok(Done::Well)
}

/// Reads features, labels and groups, and says what was read.
fn read(args: &SetArgs) -> Result<ProbeSet> {
    let set = ProbeSet::read(&args.features, &args.labels, args.groups.as_ref())?;
    say_set(&set);
    for text in unmet(&args.labels)? {
        ui::say(&format!("warning: no value of {} is '{text}', which the rule names", args.labels.column));
    }
    Ok(set)
}

fn eval_probe(args: &ProbeEval) -> Result<Done> {
    let options = measure(&args.measure, args.seed);
    options.check()?;
    args.out.as_deref().map_or(Ok(()), model::check_out)?;
    let (probe, _) = Probe::read(&args.probe)?;
    let set = read(&args.set)?;
    if let Some(dir) = &args.out {
        check_eval(dir, (&probe, &set), options)?;
    }
    let (evaluation, probabilities) = evaluate(&probe, &set, options)?;
    ui::warn(&evaluation.warnings);
    if let Some(dir) = &args.out {
        let of = (&evaluation, &probabilities[..]);
        write_eval(dir, of, (&probe, &set), options, &mut ui::Bars::default())?;
        ui::say(&format!("wrote      {}", dir.display()));
    }
    if args.json {
        ui::put_json(&evaluation)?;
    } else {
        ui::put(&eval_markdown(&evaluation))?;
    }
    Ok(Done::Well)
}

fn table(args: &ProbeTable) -> Result<Done> {
    let table = LabelTable::of(&read_items(&args.items, &ReadAs::default())?)?;
    ui::warn(&table.warnings());
    ui::put(&if args.json { format!("{}\n", serde_json::to_string(&table)?) } else { table.markdown() })?;
    Ok(Done::Well)
}

fn measure(args: &MeasureArgs, seed: u64) -> MeasureOptions {
    MeasureOptions { assert_correct: args.assert_correct, resamples: args.resamples, seed }
}

/// Says what was read, before anything is computed.
fn say_set(set: &ProbeSet) {
    let origin = &set.origin;
    let (n, positives) = set.sizes();
    let features = count(set.features, "feature");
    let left_out =
        if origin.unlabelled > 0 { format!(", {} without a label", origin.unlabelled) } else { String::new() };
    ui::say(&format!(
        "items      {n} of {features}, {positives} positive by {}{left_out}; matched by {}",
        origin.labels, origin.matched_by
    ));
}
