//! A falsification in tables for people.

use super::{Baseline, Check, Falsification, Kind, Outcome, Step, steps::word};
use crate::{
    probe::Origin,
    text::{
        short, signed,
        table::{
            Column::{Left, Right},
            Table,
        },
    },
};

/// How many prompts or groups the items come from, if they share them.
fn of_units(origin: &Origin) -> String {
    origin.units.map_or(String::new(), |units| format!(", of {units} prompts or groups"))
}

/// All of it as Markdown: `report.md`, and what `temper falsify` prints.
pub fn markdown(found: &Falsification) -> String {
    let mut out = format!("# {}\n\n**{}**: {}\n", found.title, word(found.verdict), found.sentence);
    let (train, fresh) = (&found.train, &found.fresh);
    out += &format!(
        "\n{} training items ({} positive{}), {} fresh items ({} positive{}), C {}, threshold {}\n",
        train.items,
        train.positives,
        of_units(train),
        fresh.items,
        fresh.positives,
        of_units(fresh),
        found.frozen.c,
        found.frozen.threshold.map_or("none".into(), |threshold| format!("{threshold:.2}")),
    );
    for (index, step) in found.steps.iter().enumerate() {
        out += &self::step(index + 1, step);
    }
    if let Some(result) = found.chosen_fresh() {
        let oracle = result.measured.best;
        out += &format!(
            "\nThe threshold that the fresh items would have chosen (an oracle's, decides nothing): {}\n",
            oracle.map_or("none keeps p(assert given correct)".into(), |gate| format!(
                "{:.2}, asymmetry {}",
                gate.thr,
                signed(gate.asym, 3)
            ))
        );
    }
    if !found.axis_pairs.is_empty() {
        let mut table = Table::of([Left("axes")]).with([Right("r of out-of-fold predictions"), Left("")]);
        for pair in &found.axis_pairs {
            let flag = if pair.flagged { "predict as one" } else { "" };
            table.row([format!("{}, {}", pair.a, pair.b), signed(pair.r, 3), flag.into()]);
        }
        out += &format!("\n{table}");
    }
    if !found.baselines.is_empty() {
        let mut table = Table::of([Left("baseline")]).with([Left("reads")]).with([
            Right("cross-validated AUC"),
            Right("fresh AUC"),
            Left("the probe's gain"),
        ]);
        found.baselines.iter().for_each(|of| table.row(baseline(of)));
        out += &format!("\n{table}");
    }
    for warning in &found.warnings {
        out += &format!("\nwarning: {warning}\n");
    }
    out
}

fn step(number: usize, step: &Step) -> String {
    let decides = if step.decides || step.outcome == Outcome::NotRun { "" } else { " (reported, decides nothing)" };
    let mut out =
        format!("\n## {number} {}: {}{decides}\n\n{} {}\n", step.name, word(step.outcome), step.question, step.note);
    if !step.checks.is_empty() {
        let mut table = Table::of([Left("check")]).with([Right("found"), Right("needed"), Left("")]);
        step.checks.iter().for_each(|of| table.row(check(of)));
        out += &format!("\n{table}");
    }
    out
}

fn check(check: &Check) -> [String; 4] {
    let sign = match (check.kind, check.at_least) {
        (Kind::Above, _) => ">",
        (_, true) => "≥",
        (_, false) => "≤",
    };
    let (value, needed) = match check.kind {
        Kind::Items => (check.value.to_string(), check.needed.to_string()),
        _ => (short(check.value), short(check.needed)),
    };
    let range = check.range.map_or(String::new(), |of| format!(" ({} to {})", short(of.low), short(of.high)));
    [check.what.clone(), value + &range, format!("{sign} {needed}"), word(check.outcome).into()]
}

fn baseline(baseline: &Baseline) -> [String; 5] {
    let gain = if baseline.gain.is_finite() {
        let range = baseline.gain_range;
        format!("{} ({} to {})", signed(baseline.gain, 3), signed(range.low, 3), signed(range.high, 3))
    } else {
        "–".into()
    };
    let (cv, fresh) = (short(baseline.cv_auc), short(baseline.fresh_auc));
    [baseline.name.as_str().into(), baseline.what.clone(), cv, fresh, gain]
}
