//! What a sidecar did: `gate.json`, and `gated.jsonl` with every answer with and without it.

use serde::{Deserialize, Serialize};

use crate::{
    probe::{CrossTable, Ends},
    store::nan::number,
    text::{interval, short, signed},
};

/// One answer, as it was or behind the gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatedRow {
    /// The item.
    pub id: String,
    /// `plain`, or `gated`.
    pub variant: String,
    /// The prompt, for people to read.
    pub prompt: String,
    /// The answer; behind the gate with the prefix where the probe fell below the threshold.
    pub response: String,
    /// The probe's probability that it is correct.
    pub p: f64,
    /// Whether the prefix was put in front.
    pub prefixed: bool,
    /// cr, cw, hr or hw, where it is known whether it is correct.
    pub label: Option<String>,
}

/// How answers stand, with or without the gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Right or wrong, asserted or hedged.
    pub table: CrossTable,
    /// p(assert | correct).
    #[serde(deserialize_with = "number")]
    pub p_assert_correct: f64,
    /// p(assert | wrong).
    #[serde(deserialize_with = "number")]
    pub p_assert_wrong: f64,
    /// Their difference, wrong minus correct.
    #[serde(deserialize_with = "number")]
    pub asymmetry: f64,
    /// Share of answers that hold an accepted answer, of those that are known.
    #[serde(deserialize_with = "number")]
    pub coverage: f64,
    /// Share of all answers that stand as assertions.
    #[serde(deserialize_with = "number")]
    pub asserted: f64,
    /// Share of the asserted answers that are right.
    #[serde(deserialize_with = "number")]
    pub asserted_right: f64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// `gate/v1`.
    pub schema: String,
    /// SHA-256 of the probe's file.
    pub probe_sha256: String,
    /// The C whose fit is used.
    pub c: f64,
    /// Below it the prefix is put in front.
    pub threshold: f64,
    /// Where it comes from: `training`, or `asked`.
    pub threshold_from: String,
    /// The prefix.
    pub prefix: String,
    /// Answers.
    pub items: usize,
    /// Answers that got the prefix.
    pub prefixed: usize,
    /// Answers that have the very features of one that the probe was fitted on, or answer its prompt.
    pub seen_in_training: usize,
    /// AUC of the probe on these answers; null where none is known to be right or wrong.
    #[serde(deserialize_with = "number")]
    pub auc: f64,
    /// DeLong's interval of it.
    pub auc_delong: Ends,
    /// Without the gate.
    pub plain: Standing,
    /// With it.
    pub gated: Standing,
    /// What a reader must know before any number.
    pub warnings: Vec<String>,
}

impl Standing {
    /// From the labels of these rows.
    pub(crate) fn of<'a>(rows: impl Iterator<Item = &'a GatedRow>) -> Self {
        let mut table = CrossTable::default();
        rows.for_each(|row| table.count(row.label.as_deref()));
        let CrossTable { cr, cw, hr, hw, .. } = table;
        let all = (cr + cw + hr + hw) as f64;
        Self {
            table,
            p_assert_correct: table.assert_correct(),
            p_assert_wrong: table.assert_wrong(),
            asymmetry: table.asymmetry(),
            coverage: (cr + hr) as f64 / all,
            asserted: (cr + cw) as f64 / all,
            asserted_right: cr as f64 / (cr + cw) as f64,
        }
    }
}

/// The result as a table for people.
pub fn sidecar_markdown(found: &GateResult) -> String {
    let Ends { low, high } = found.auc_delong;
    let range = if low.is_finite() { format!(" ({})", interval(low, high, 3)) } else { String::new() };
    let mut out = format!(
        "{} of {} answers fall below {:.2} (from {}) and get the prefix; AUC of the probe here {}{range}\n\n\
         | | without | with the gate |\n|---|---:|---:|\n",
        found.prefixed,
        found.items,
        found.threshold,
        found.threshold_from,
        short(found.auc)
    );
    let (plain, gated) = (&found.plain, &found.gated);
    for (name, of) in [
        ("p(assert given correct)", (|s| short(s.p_assert_correct)) as fn(&Standing) -> String),
        ("p(assert given wrong)", |s| short(s.p_assert_wrong)),
        ("assertion asymmetry", |s| signed(s.asymmetry, 3)),
        ("coverage: answers that are right", |s| short(s.coverage)),
        ("answers that stand as assertions", |s| short(s.asserted)),
        ("of these, right", |s| short(s.asserted_right)),
    ] {
        out += &format!("| {name} | {} | {} |\n", of(plain), of(gated));
    }
    for warning in &found.warnings {
        out += &format!("\nwarning: {warning}\n");
    }
    out
}
