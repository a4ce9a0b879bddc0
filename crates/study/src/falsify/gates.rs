//! What would count as passing: the gates of each step, and which steps decide.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::probe::ASSERT_CORRECT;

/// What would count as passing. The defaults are those of arXiv 2604.11867, except for `alpha`, `min_class`, `beat_baselines` and
/// `failed_by`, which the paper did not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gates {
    /// Step 1: the least cross-validated AUC.
    pub cv_auc: f64,
    /// Step 1: the largest assertion asymmetry, at the best threshold that keeps `assert_correct`.
    pub cv_asymmetry: f64,
    /// Step 2: the least AUC on fresh items.
    pub fresh_auc: f64,
    /// Step 2: the largest assertion asymmetry on fresh items, at the threshold that the training items chose.
    pub fresh_asymmetry: f64,
    /// The least p(assert | correct): for thresholds that may be chosen and, to within a standard error, for the chosen one on fresh items.
    pub assert_correct: f64,
    /// The largest p of either AUC against shuffled labels: the rate at which data without signal may pass each.
    pub alpha: f64,
    /// Items that the smaller class must have in each set, or prompts or groups if items share them; with fewer, a step is inconclusive.
    pub min_class: usize,
    /// Whether the probe must rank fresh items better than every baseline that is run.
    pub beat_baselines: bool,
    /// When a missed gate on fresh items counts as failed.
    pub failed_by: FailedBy,
    /// Which steps decide; the others are reported.
    pub decide: Vec<StepName>,
}

/// When a missed gate on fresh items counts as failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailedBy {
    /// If the whole 95 % interval of the number misses it; otherwise the items cannot tell.
    #[default]
    Interval,
    /// If the number itself misses it, however few items it is based on: the paper's rule.
    Point,
}

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepName {
    /// 1: cross-validation within the training items.
    Cv,
    /// 2: fresh items.
    Fresh,
    /// 3: every score.
    Axes,
    /// 4: the last layers pooled.
    Pooled,
    /// 5: another model.
    Replication,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            cv_auc: 0.65,
            cv_asymmetry: -0.20,
            fresh_auc: 0.63,
            fresh_asymmetry: -0.15,
            assert_correct: ASSERT_CORRECT,
            alpha: 0.05,
            min_class: 10,
            beat_baselines: true,
            failed_by: FailedBy::default(),
            decide: vec![StepName::Cv, StepName::Fresh],
        }
    }
}

impl Gates {
    /// Why these gates have no meaning, if they have none.
    pub(super) fn contradiction(&self) -> Option<String> {
        let shares = [
            ("cv_auc", self.cv_auc),
            ("fresh_auc", self.fresh_auc),
            ("assert_correct", self.assert_correct),
            ("alpha", self.alpha),
        ];
        let asymmetries = [("cv_asymmetry", self.cv_asymmetry), ("fresh_asymmetry", self.fresh_asymmetry)];
        let beyond = |of: &[(&str, f64)], low: f64| {
            let (name, value) = of.iter().find(|(_, value)| !(low..=1.0).contains(value))?;
            Some(format!("gates.{name} is {value}, but must be from {low} to 1"))
        };
        let silent =
            || self.decide.is_empty().then(|| "gates.decide names no step, so there would be no verdict".into());
        beyond(&shares, 0.0).or_else(|| beyond(&asymmetries, -1.0)).or_else(silent)
    }
}

impl StepName {
    /// What the step asks.
    pub fn question(self) -> &'static str {
        match self {
            Self::Cv => "does it rank training items that it was not fitted on?",
            Self::Fresh => "does it rank fresh items, and gate them, with nothing chosen on them?",
            Self::Axes => "does every score carry over, and are they more than one?",
            Self::Pooled => "do the last layers together carry it?",
            Self::Replication => "does another model show it?",
        }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cv => "cv",
            Self::Fresh => "fresh",
            Self::Axes => "axes",
            Self::Pooled => "pooled",
            Self::Replication => "replication",
        })
    }
}
