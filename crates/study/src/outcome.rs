//! What a sweep did to the answers, arm by arm.

use serde::{Deserialize, Serialize};

use crate::{Item, Judge, Row};
use headtemper_engine::FinishReason;

/// The outcomes of a sweep over one set of heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepTable {
    /// The heads, such as `L7H6 L20H3`.
    pub set: String,
    /// The limit on new tokens.
    pub max_new_tokens: usize,
    /// One entry an arm, in the order asked for.
    pub arms: Vec<ArmOutcome>,
}

/// The outcomes of one arm. Shares are of all its answers; what cannot be judged is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmOutcome {
    /// The arm's name.
    pub variant: String,
    /// λ of the tempered heads.
    pub lambda: f64,
    /// Whether it is the second λ = 1.
    pub control: bool,
    /// Answers.
    pub n: usize,
    /// Share of correct answers among the items that have accepted answers.
    #[serde(deserialize_with = "crate::tables::number")]
    pub accuracy: f64,
    /// Share of answers without a hedge.
    #[serde(deserialize_with = "crate::tables::number")]
    pub assertion_rate: f64,
    /// Assertion rate among wrong answers minus among right ones.
    pub assertion_asymmetry: Option<f64>,
    /// Mean length in tokens.
    pub mean_tokens: f64,
    /// Share of answers that were cut off.
    pub truncated: f64,
    /// Share of answers that differ from those of the first λ = 1 arm.
    #[serde(deserialize_with = "crate::tables::number")]
    pub changed: f64,
}

/// Judges the rows of one arm. `reference` are the first λ = 1 arm's rows, in the same order.
pub(crate) fn outcome(
    (variant, lambda, control): (&str, f64, bool),
    items: &[&Item],
    rows: &[&Row],
    reference: Option<&[&Row]>,
    judge: Option<&Judge>,
) -> ArmOutcome {
    let share = |hits: usize, of: usize| if of == 0 { f64::NAN } else { hits as f64 / of as f64 };
    let n = rows.len();
    let verdicts: Vec<_> = match judge {
        None => Vec::new(),
        Some(judge) => rows.iter().zip(items).map(|(row, item)| judge.judge(&row.response, &item.gold)).collect(),
    };
    let gold = Judge::new(std::iter::empty());
    let graded: Vec<bool> = rows
        .iter()
        .zip(items)
        .filter(|(_, item)| !item.gold.is_empty())
        .map(|(row, item)| gold.judge(&row.response, &item.gold).correct)
        .collect();
    let asserted = |right: bool| {
        let of: Vec<_> =
            verdicts.iter().zip(items).filter(|(v, item)| !item.gold.is_empty() && v.correct == right).collect();
        (!of.is_empty()).then(|| share(of.iter().filter(|(v, _)| !v.hedged).count(), of.len()))
    };
    let assertion_asymmetry = asserted(false).zip(asserted(true)).map(|(wrong, right)| wrong - right);
    let changed = reference.map(|reference| {
        rows.iter().zip(reference).filter(|(row, other)| row.response_ids != other.response_ids).count()
    });
    ArmOutcome {
        variant: variant.into(),
        lambda,
        control,
        n,
        accuracy: share(graded.iter().filter(|&&right| right).count(), graded.len()),
        assertion_rate: share(verdicts.iter().filter(|v| !v.hedged).count(), verdicts.len()),
        assertion_asymmetry,
        mean_tokens: rows.iter().map(|row| row.n_tokens as f64).sum::<f64>() / n.max(1) as f64,
        truncated: share(rows.iter().filter(|row| row.finish_reason == FinishReason::Length).count(), n),
        changed: changed.map_or(f64::NAN, |changed| share(changed, n)),
    }
}
