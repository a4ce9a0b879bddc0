//! What a gate did: `gate.json`, and `gated.jsonl` with every answer as the gate lets it out.

use std::fmt;

use headtemper_engine::FinishReason;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    probe::{CrossTable, Ends},
    store::nan::{number, unwritten},
};

/// One answer, as the gate lets it out and as it was: a line of `gated.jsonl`, which is an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatedRow {
    /// The item.
    pub id: String,
    /// What the item brought, except its answer and fields about that: prompt, accepted answers, other fields.
    #[serde(flatten)]
    pub item: Map<String, Value>,
    /// What the gate lets out: the answer, with the prefix if the probe is below the threshold.
    pub response: String,
    /// The answer as it was.
    pub plain_response: String,
    /// Why it ended, if that is known.
    pub finish_reason: Option<FinishReason>,
    /// The probe's probability that it is correct.
    pub p: f64,
    /// Whether the prefix was put in front.
    pub prefixed: bool,
    /// Whether it is correct, if that is known.
    pub correct: Option<bool>,
    /// cr, cw, hr or hw with the gate, if it is known whether it is correct.
    pub label: Option<String>,
    /// The same without the gate.
    pub plain_label: Option<String>,
    /// Whether the probe was fitted on it, or on an answer to its prompt.
    pub seen_in_training: bool,
}

/// How answers stand, with or without the gate. Shares are of the answers that are known to be right or wrong.
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
    /// Share of answers that hold an accepted answer.
    #[serde(deserialize_with = "number")]
    pub coverage: f64,
    /// Share of answers that stand as assertions.
    #[serde(deserialize_with = "number")]
    pub asserted: f64,
    /// Share of the asserted answers that are right.
    #[serde(deserialize_with = "number")]
    pub asserted_right: f64,
}

/// A number of [`Standing`] with the gate, minus the same without it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The difference.
    #[serde(deserialize_with = "number")]
    pub difference: f64,
    /// Lower end of its 95 % interval, over prompts; null if there is none.
    #[serde(deserialize_with = "number")]
    pub low: f64,
    /// Upper end of its 95 % interval.
    #[serde(deserialize_with = "number")]
    pub high: f64,
}

/// What the gate changes in the answers that are known to be right or wrong. Coverage is not included: content does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// Answers that are known to be right or wrong.
    pub known: usize,
    /// How many prompts they answer: answers to one prompt are one unit.
    pub prompts: usize,
    /// In p(assert | correct).
    pub p_assert_correct: Change,
    /// In p(assert | wrong).
    pub p_assert_wrong: Change,
    /// In the assertion asymmetry.
    pub asymmetry: Change,
    /// In the share of answers that stand as assertions.
    pub asserted: Change,
    /// In the share of these that are right.
    pub asserted_right: Change,
    /// What as many prefixes change when dealt at random; null if they can be dealt in fewer than 20 ways.
    pub at_random: Option<AtRandom>,
}

/// What the prefixes change when dealt at random instead of by the probe, over the answers that stand as assertions without them. Whole
/// prompts are swapped with prompts that have as many such answers, and answers within a prompt with each other. On an answer that hedges
/// by itself a prefix changes nothing, wherever it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtRandom {
    /// How often they were dealt.
    pub draws: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Answers over which they were dealt.
    pub answers: usize,
    /// Prefixes that these got from the probe, and get in every draw.
    pub prefixed: usize,
    /// Answers that have, or lack, their prefix in every draw: those of no prompt with as many are prefixed otherwise.
    #[serde(default)]
    pub fixed: usize,
    /// How the asymmetry changes.
    pub asymmetry: Dealt,
    /// How the share of asserted answers that are right changes.
    pub asserted_right: Dealt,
}

/// How a number of [`Standing`] changes when prefixes are dealt at random.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dealt {
    /// The mean over all draws.
    #[serde(deserialize_with = "number")]
    pub mean: f64,
    /// 2.5 % of the draws lie below.
    #[serde(deserialize_with = "number")]
    pub low: f64,
    /// 2.5 % of the draws lie above.
    #[serde(deserialize_with = "number")]
    pub high: f64,
    /// How often a draw does at least as well as the probe: as low an asymmetry, as great a share right.
    #[serde(deserialize_with = "number")]
    pub p: f64,
}

/// Answers that were cut off at a token limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    /// How many.
    pub answers: usize,
    /// Those of them that got the prefix.
    pub prefixed: usize,
    /// What they are without the gate.
    pub table: CrossTable,
    /// What all answers are without the gate, among those of which it is known how they ended.
    #[serde(default)]
    pub known: CrossTable,
    /// Answers of which it is not known how they ended.
    pub unsaid: usize,
}

/// Answers where the item contradicts what decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contradicted {
    /// By `correct`, `coverage` or label, the item contradicts its accepted answers: the accepted answers count.
    pub by_gold: usize,
    /// Without accepted answers, the item's `correct`, `coverage` and label contradict each other: the first of them counts.
    #[serde(default)]
    pub by_itself: usize,
    /// By its label, the item contradicts the lexicon: the lexicon counts.
    pub by_lexicon: usize,
}

/// Where the threshold of a gate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThresholdFrom {
    /// Whoever called asked for it.
    Asked,
    /// The items that the probe was fitted on chose it.
    Training,
}

impl fmt::Display for ThresholdFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "asked",
            Self::Training => "training",
        })
    }
}

/// The whole result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// `gate/v1`.
    pub schema: String,
    /// SHA-256 of the probe's file.
    pub probe_sha256: String,
    /// The C whose fit is used.
    pub c: f64,
    /// Below this probability, the prefix is put in front.
    pub threshold: f64,
    /// Where it comes from.
    pub threshold_from: ThresholdFrom,
    /// The prefix.
    pub prefix: String,
    /// Answers.
    pub items: usize,
    /// Answers that got the prefix.
    pub prefixed: usize,
    /// Answers with the very features of an item that the probe was fitted on, or to its prompt.
    pub seen_in_training: usize,
    /// Answers that the AUC, `plain`, `gated` and `change` are of: those not seen in training or, if all were seen, all.
    #[serde(default)]
    pub measured: usize,
    /// Answers that were cut off.
    #[serde(default)]
    pub cut_off: CutOff,
    /// Answers where the item contradicts what decides.
    #[serde(default)]
    pub contradicted: Contradicted,
    /// AUC of the probe on the measured answers; null if none is known to be right or wrong.
    #[serde(deserialize_with = "number")]
    pub auc: f64,
    /// Its DeLong interval.
    pub auc_delong: Ends,
    /// Without the gate.
    pub plain: Standing,
    /// With it.
    pub gated: Standing,
    /// With the gate, minus without it.
    #[serde(default)]
    pub change: Changes,
    /// What a reader must know before any number.
    pub warnings: Vec<String>,
}

impl Default for Change {
    fn default() -> Self {
        Self { difference: unwritten(), low: unwritten(), high: unwritten() }
    }
}

impl Standing {
    /// From the labels of answers.
    pub(super) fn of<'a>(labels: impl Iterator<Item = Option<&'a str>>) -> Self {
        let mut table = CrossTable::default();
        labels.for_each(|label| table.count(label));
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

impl CutOff {
    /// Counts the rows.
    pub(super) fn of(rows: &[GatedRow]) -> Self {
        let mut found = Self::default();
        for row in rows {
            let Some(reason) = row.finish_reason else {
                found.unsaid += 1;
                continue;
            };
            found.known.count(row.plain_label.as_deref());
            if reason == FinishReason::Length {
                found.answers += 1;
                found.prefixed += usize::from(row.prefixed);
                found.table.count(row.plain_label.as_deref());
            }
        }
        found
    }
}
