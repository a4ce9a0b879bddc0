//! Probes in tables for people.

use super::{Ends, EvalResult, Evaluation, Measured, OperatingPoint, ProbeMeta};
use crate::text::{UNDEFINED, count, interval, short, signed};

const HEAD: &str = "| C | AUC | 95 % | accuracy | Brier | ECE | best asym | at | lowest asym | at | asym at 0.5 |\n\
                    |---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";

/// What was fitted, one row per C.
pub fn fit_markdown(meta: &ProbeMeta) -> String {
    let train = &meta.train;
    let mut out = format!(
        "{}, {} positive, {} folds{}; out-of-fold probabilities:\n\n{HEAD}",
        count(train.items, "item"),
        train.positives,
        meta.folds,
        if meta.shuffled_folds { format!(" (seed {})", meta.seed) } else { " as they stand".into() },
    );
    meta.results.iter().for_each(|result| out += &row(result.c, &result.cv));
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
    let mut out = format!("{}, {} positive:\n\n{HEAD}", count(set.items, "item"), set.positives);
    evaluation.results.iter().for_each(|result| out += &row(result.c, &result.measured));
    out += "\nat the threshold that the training items chose:\n\n\
            | C | threshold | p(assert correct) | p(assert wrong) | asym | AUC in training |\n|---:|---:|---:|---:|---:|---:|\n";
    evaluation.results.iter().for_each(|result| out += &chosen(result));
    out
}

fn row(c: f64, of: &Measured) -> String {
    let best = of.best.map_or((UNDEFINED.into(), UNDEFINED.into()), |gate: OperatingPoint| {
        (signed(gate.asym, 3), format!("{:.2}", gate.thr))
    });
    format!(
        "| {c} | {} | {} | {} | {} | {} | {} | {} | {} | {:.2} | {} |\n",
        short(of.auc),
        interval(of.auc_delong.low, of.auc_delong.high, 3),
        short(of.accuracy),
        short(of.brier),
        short(of.ece),
        best.0,
        best.1,
        signed(of.lowest.asym, 3),
        of.lowest.thr,
        signed(of.half.asym, 3),
    )
}

fn chosen(result: &EvalResult) -> String {
    let Some(gate) = result.train_chosen else {
        return format!("| {} | – | – | – | – | {} |\n", result.c, short(result.cv_auc));
    };
    let range = |of: Ends| format!(" ({} to {})", signed(of.low, 3), signed(of.high, 3));
    let range = result.asym_range.known().map_or(String::new(), range);
    format!(
        "| {} | {:.2} | {} | {} | {} | {} |\n",
        result.c,
        gate.thr,
        short(gate.p_assert_correct),
        short(gate.p_assert_wrong),
        signed(gate.asym, 3) + &range,
        short(result.cv_auc)
    )
}
