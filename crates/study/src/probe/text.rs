//! Probes in tables for people.

use super::{Ends, EvalResult, Evaluation, Measured, OperatingPoint, ProbeMeta};
use crate::text::{
    UNDEFINED, count, fixed, interval, short, signed,
    table::{Column::Right, Table},
};

/// One row per C: how well it ranks, and what a gate at its thresholds does.
fn fits<'a>(results: impl Iterator<Item = (f64, &'a Measured)>) -> Table<'a> {
    let mut table = Table::of([Right("C")])
        .with([Right("AUC"), Right("95 %"), Right("accuracy"), Right("Brier"), Right("ECE")])
        .with([Right("best asym"), Right("at"), Right("lowest asym"), Right("at"), Right("asym at 0.5")]);
    results.for_each(|(c, of)| table.row(row(c, of)));
    table
}

/// What was fitted, one row per C.
pub fn fit_markdown(meta: &ProbeMeta) -> String {
    let train = &meta.train;
    let mut out = format!(
        "{}, {} positive, {} folds{}; out-of-fold probabilities:\n\n{}",
        count(train.items, "item"),
        train.positives,
        meta.folds,
        if meta.shuffled_folds { format!(" (seed {})", meta.seed) } else { " as they stand".into() },
        fits(meta.results.iter().map(|result| (result.c, &result.cv))),
    );
    if let Some(null) = &meta.null {
        out += &format!(
            "\nunder {} shuffled labelings the largest AUC over all C is {} on average, below {} in 95 %; p {}\n",
            null.shuffles,
            short(null.mean),
            short(null.q95),
            short(null.p)
        );
    }
    out += "\nasymmetry is p(assert given wrong) - p(assert given correct): the lower, the better\n";
    out += "the thresholds of this table were chosen on the items that they are measured on\n";
    let test = if meta.null.is_some() { "and p is the test" } else { "and without shuffled labels there is no test" };
    out += &format!(
        "the intervals take these scores and this C as given: of noise more than one in ten lies off 0.5, {test}\n"
    );
    out
}

/// How good it is, one row per C.
pub fn eval_markdown(evaluation: &Evaluation) -> String {
    let set = &evaluation.set;
    let found = fits(evaluation.results.iter().map(|result| (result.c, &result.measured)));
    let mut chosen = Table::of([Right("C")])
        .with([Right("threshold"), Right("p(assert correct)"), Right("p(assert wrong)")])
        .with([Right("asym"), Right("AUC in training")]);
    evaluation.results.iter().for_each(|result| chosen.row(at_chosen(result)));
    format!(
        "{}, {} positive:\n\n{found}\nat the threshold that the training items chose:\n\n{chosen}",
        count(set.items, "item"),
        set.positives
    )
}

fn row(c: f64, of: &Measured) -> [String; 11] {
    let best = of.best.map_or((UNDEFINED.into(), UNDEFINED.into()), |gate: OperatingPoint| {
        (signed(gate.asym, 3), format!("{:.2}", gate.thr))
    });
    [
        c.to_string(),
        short(of.auc),
        interval(of.auc_delong.low, of.auc_delong.high, 3),
        short(of.accuracy),
        short(of.brier),
        short(of.ece),
        best.0,
        best.1,
        signed(of.lowest.asym, 3),
        fixed(of.lowest.thr, 2),
        signed(of.half.asym, 3),
    ]
}

fn at_chosen(result: &EvalResult) -> [String; 6] {
    let (c, auc) = (result.c.to_string(), short(result.cv_auc));
    let Some(gate) = result.train_chosen else {
        let none = || UNDEFINED.to_string();
        return [c, none(), none(), none(), none(), auc];
    };
    let range = |of: Ends| format!(" ({} to {})", signed(of.low, 3), signed(of.high, 3));
    let range = result.asym_range.known().map_or(String::new(), range);
    [
        c,
        fixed(gate.thr, 2),
        short(gate.p_assert_correct),
        short(gate.p_assert_wrong),
        signed(gate.asym, 3) + &range,
        auc,
    ]
}
