//! What a falsification found: `falsify.json`.

use serde::{Deserialize, Serialize};

use super::{GateFile, StepName};
use crate::{
    probe::{Ends, EvalResult, FitResult, Null, OperatingPoint, Origin},
    store::nan::number,
};

/// All that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Falsification {
    /// `falsify/v1`.
    pub schema: String,
    /// The gate file's name.
    pub name: String,
    /// Its title.
    pub title: String,
    /// The verdict.
    pub verdict: Outcome,
    /// The same in a sentence.
    pub sentence: String,
    /// How it failed, as far as that can be said.
    pub failure_modes: Vec<FailureMode>,
    /// What was declared beforehand: the gate file.
    pub declared: GateFile,
    /// SHA-256 over the values of the gate file, defaults included, as JSON with paths as they are written.
    pub gates_sha256: String,
    /// What was fixed before a fresh label was read.
    pub frozen: Frozen,
    /// The training items.
    pub train: Origin,
    /// The fresh items.
    pub fresh: Origin,
    /// SHA-256 of what the training items say, where they are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_items_sha256: Option<String>,
    /// The same of the fresh items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_items_sha256: Option<String>,
    /// How the two sets were kept apart.
    pub overlap: Overlap,
    /// The five steps, including those that were not run.
    pub steps: Vec<Step>,
    /// Step 1, one entry per C.
    pub cv: Vec<FitResult>,
    /// Its largest AUC, compared with shuffled labels.
    pub cv_null: Option<Null>,
    /// Step 2, one entry per C.
    pub transfer: Vec<EvalResult>,
    /// The chosen C's AUC on fresh items, compared with shuffled fresh labels.
    pub fresh_null: Option<Null>,
    /// Step 3.
    pub axes: Vec<Axis>,
    /// How alike the out-of-fold predictions of each pair of axes are.
    pub axis_pairs: Vec<AxisPair>,
    /// Step 4.
    pub pooled: Option<Transfer>,
    /// Step 5.
    pub replication: Option<Transfer>,
    /// Probes on inputs that are not hidden states, and the probe on labels that mean nothing.
    pub baselines: Vec<Baseline>,
    /// The fresh items in the plane of their two widest directions.
    pub plane: Plane,
    /// What a reader must know before any number.
    pub warnings: Vec<String>,
}

impl Falsification {
    /// The chosen C, in cross-validation.
    pub fn chosen_cv(&self) -> Option<&FitResult> {
        self.cv.iter().find(|result| result.c == self.frozen.c)
    }

    /// The chosen C, on fresh items.
    pub fn chosen_fresh(&self) -> Option<&EvalResult> {
        self.transfer.iter().find(|result| result.c == self.frozen.c)
    }
}

/// How a step, or all of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every check held.
    Passed,
    /// A check did not hold.
    Failed,
    /// The items cannot tell.
    Inconclusive,
    /// It was not asked for.
    NotRun,
}

/// How a probe failed on fresh items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureMode {
    /// Which it is.
    pub name: FailureName,
    /// What shows it.
    pub why: String,
}

/// The ways to fail on fresh items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureName {
    /// The probabilities of right and wrong answers cannot be told apart.
    #[serde(rename = "single output distribution")]
    SingleOutput,
    /// Hardly any fresh item is positive.
    #[serde(rename = "capability cliff")]
    CapabilityCliff,
}

impl FailureName {
    /// As files and people have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SingleOutput => "single output distribution",
            Self::CapabilityCliff => "capability cliff",
        }
    }
}

/// What was fixed before a fresh label was read: `frozen.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// SHA-256 of `probe.safetensors`.
    pub probe_sha256: String,
    /// SHA-256 of what was declared.
    pub gates_sha256: String,
    /// The C that cross-validation chose.
    pub c: f64,
    /// The threshold that the training items chose; null if none keeps the floor.
    pub threshold: Option<f64>,
}

/// How the fresh items were compared with the training items. Any overlap is refused, so overlaps are not counted here.
#[expect(clippy::struct_excessive_bools, reason = "each is a way in which sets may be compared")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Compared by the features of each item.
    pub by_features: bool,
    /// Compared by a hash of the normalised prompt.
    pub by_prompt: bool,
    /// Compared by the column that groups the items.
    #[serde(default)]
    pub by_group: bool,
    /// Compared for prompts that share most of their word triples.
    pub by_text: bool,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Which step it is.
    pub name: StepName,
    /// What it asks.
    pub question: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the verdict depends on it.
    pub decides: bool,
    /// What was checked.
    pub checks: Vec<Check>,
    /// The outcome in words.
    pub note: String,
}

/// A number and its gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What was measured.
    pub what: String,
    /// What kind of number it is.
    pub kind: Kind,
    /// The number; null if there is none.
    #[serde(deserialize_with = "number")]
    pub value: f64,
    /// The gate.
    pub needed: f64,
    /// Whether the number must be at least the gate, or at most.
    pub at_least: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// The number's 95 % interval, by which a missed gate on fresh items is judged; omitted if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Ends>,
    /// Why a missed gate does not count as failed; omitted if there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What kind of number a check has: decides how it is shown and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A count of items.
    Items,
    /// An assertion asymmetry.
    Asymmetry,
    /// A p value.
    P,
    /// A difference that must exceed its gate; reaching it is not enough.
    Above,
    /// A number from 0 to 1: an AUC, a share, the size of a correlation.
    Share,
}

/// A probe of one score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// The column and its rule.
    pub name: String,
    /// Training items, and those of them that are positive.
    pub train: (usize, usize),
    /// Fresh items, and those of them that are positive.
    pub fresh: (usize, usize),
    /// Cross-validated AUC; null if there is none.
    #[serde(deserialize_with = "number")]
    pub cv_auc: f64,
    /// AUC on fresh items.
    #[serde(deserialize_with = "number")]
    pub fresh_auc: f64,
    /// Its DeLong interval.
    pub fresh_range: Ends,
    /// p of both AUCs against shuffled labels, each for this axis alone: it must be at most `alpha` over the number of axes.
    pub p: Option<(f64, f64)>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why its items cannot tell; omitted if they can, or if the intervals say why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Two axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AxisPair {
    /// The first axis.
    pub a: String,
    /// The second axis.
    pub b: String,
    /// Items that have both.
    pub items: usize,
    /// Prompts or groups of these items; as many as items where each is of its own.
    #[serde(default)]
    pub units: usize,
    /// Pearson's correlation of their out-of-fold predictions.
    #[serde(deserialize_with = "number")]
    pub r: f64,
    /// Its 95 % interval over so many pairs (Fisher).
    #[serde(default = "Ends::none")]
    pub range: Ends,
    /// Whether they count as one.
    pub flagged: bool,
}

/// A probe on other features, from training to fresh items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// The features, or the model.
    pub name: String,
    /// Where its training items came from.
    pub train: Origin,
    /// Where its fresh items came from.
    pub fresh: Origin,
    /// The C that cross-validation chose.
    pub c: f64,
    /// Cross-validated AUC.
    #[serde(deserialize_with = "number")]
    pub cv_auc: f64,
    /// Its p against shuffled labels.
    pub cv_p: Option<f64>,
    /// Least cross-validated asymmetry that keeps the floor.
    pub cv_asym: Option<f64>,
    /// AUC on fresh items.
    #[serde(deserialize_with = "number")]
    pub fresh_auc: f64,
    /// Its DeLong interval.
    pub fresh_range: Ends,
    /// The gate on fresh items, at the threshold that the training items chose.
    pub gate: Option<OperatingPoint>,
    /// The gate at the threshold that the fresh items would have chosen.
    pub oracle: Option<OperatingPoint>,
    /// How it failed, if its step did not pass and that can be said.
    pub failure_modes: Vec<FailureMode>,
}

/// A probe on input that is not a hidden state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Which it is.
    pub name: BaselineName,
    /// What it reads.
    pub what: String,
    /// Cross-validated AUC; null if it is not a fit of its own.
    #[serde(deserialize_with = "number")]
    pub cv_auc: f64,
    /// AUC on fresh items.
    #[serde(deserialize_with = "number")]
    pub fresh_auc: f64,
    /// By how much the probe ranks fresh items better than it, or than chance where that is more, with DeLong's interval for paired curves,
    /// over prompts or groups if items share them.
    #[serde(deserialize_with = "number")]
    pub gain: f64,
    /// That interval.
    pub gain_range: Ends,
    /// Whether the probe must do better.
    pub to_beat: bool,
    /// Whether it reads the texts: then a gain that may be chance does not count.
    pub rival: bool,
}

/// The probes on input that is not a hidden state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BaselineName {
    /// The probe's features, with labels dealt out at random.
    #[serde(rename = "shuffled labels")]
    ShuffledLabels,
    /// Normal random numbers.
    #[serde(rename = "random features")]
    RandomFeatures,
    /// The lengths of prompt and response.
    #[serde(rename = "length")]
    Length,
    /// Whether the response was cut off.
    #[serde(rename = "truncation")]
    Truncation,
    /// The words of prompt and response.
    #[serde(rename = "bag of words")]
    BagOfWords,
}

impl BaselineName {
    /// As files and people have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ShuffledLabels => "shuffled labels",
            Self::RandomFeatures => "random features",
            Self::Length => "length",
            Self::Truncation => "truncation",
            Self::BagOfWords => "bag of words",
        }
    }
}

/// Items in a plane.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Plane {
    /// The position of each.
    pub points: Vec<(f64, f64)>,
    /// The label of each.
    pub labels: Vec<bool>,
    /// Share of the variance along each direction.
    pub share: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_files_and_for_people() {
        let failures = [FailureName::SingleOutput, FailureName::CapabilityCliff];
        for name in failures {
            assert_eq!(serde_json::json!(name), name.as_str());
        }
        let baselines = [
            BaselineName::ShuffledLabels,
            BaselineName::RandomFeatures,
            BaselineName::Length,
            BaselineName::Truncation,
            BaselineName::BagOfWords,
        ];
        for name in baselines {
            assert_eq!(serde_json::json!(name), name.as_str());
        }
    }
}
