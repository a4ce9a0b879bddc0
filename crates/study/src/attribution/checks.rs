//! What stands beside a ranking: shuffled labels, other halves of the items, lengths, prompts, fields, controls.

use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::{
    confounds::Lengths,
    store::nan::{number, unwritten},
};

/// What shuffled labels give, over all heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShuffledLabels {
    /// How often the labels were shuffled; 0 if not at all, and the levels are then null.
    pub shuffles: usize,
    /// The seed of the shuffles.
    pub seed: u64,
    /// Mean |cohen_d| of a head.
    #[serde(deserialize_with = "number")]
    pub mean_abs_d: f64,
    /// Mean of the largest |cohen_d| with Welch's spread.
    #[serde(deserialize_with = "number")]
    pub max_abs_d_mean: f64,
    /// 95 % quantile of the largest |cohen_d| with Welch's spread.
    #[serde(deserialize_with = "number")]
    pub max_abs_d_q95: f64,
    /// Mean d_naive of a head.
    #[serde(deserialize_with = "number")]
    pub mean_d_naive: f64,
    /// Mean of the largest d_naive.
    #[serde(deserialize_with = "number")]
    pub max_d_naive_mean: f64,
    /// 95 % quantile of the largest d_naive.
    #[serde(deserialize_with = "number")]
    pub max_d_naive_q95: f64,
    /// Mean d_crossfit of a head: 0, but for chance.
    #[serde(deserialize_with = "number")]
    pub mean_d_crossfit: f64,
    /// 5 % quantile of the d_crossfit of a head.
    #[serde(deserialize_with = "number")]
    pub d_crossfit_q05: f64,
    /// 95 % quantile of the d_crossfit of a head.
    #[serde(deserialize_with = "number")]
    pub d_crossfit_q95: f64,
    /// Mean of the largest d_crossfit.
    #[serde(deserialize_with = "number")]
    pub max_d_crossfit_mean: f64,
    /// 95 % quantile of the largest d_crossfit.
    #[serde(deserialize_with = "number")]
    pub max_d_crossfit_q95: f64,
}

/// A disposition, or the control of one, in a few numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Heads that were ranked.
    pub heads: usize,
    /// The head with the largest |cohen_d|; none if no head has one.
    pub loudest: Option<String>,
    /// Its cohen_d.
    #[serde(deserialize_with = "number")]
    pub largest_d: f64,
    /// The smallest p_max of a magnitude.
    #[serde(deserialize_with = "number")]
    pub least_p_max: f64,
    /// The largest d_naive.
    #[serde(deserialize_with = "number")]
    pub largest_d_naive: f64,
    /// The head with the largest d_crossfit; none if no head has one.
    pub clearest: Option<String>,
    /// Its d_crossfit.
    #[serde(deserialize_with = "number")]
    pub largest_d_crossfit: f64,
    /// The smallest p_max_directional.
    #[serde(deserialize_with = "number")]
    pub least_p_max_directional: f64,
    /// How many heads have each verdict; those that none has are left out.
    pub verdicts: Vec<(Verdict, usize)>,
}

/// Whether a ranking comes out again: Spearman's correlation over heads between random halves of the items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// How many ways the items were halved.
    pub splits: usize,
    /// Of the signed cohen_d.
    pub magnitude: Reliability,
    /// Of d_crossfit, cross-fitted within each half.
    pub directional: Reliability,
}

/// One split-half correlation, and what shuffled labels give.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Averaged over the splits.
    #[serde(deserialize_with = "number")]
    pub rho: f64,
    /// Its mean under shuffled labels.
    #[serde(deserialize_with = "number")]
    pub null_mean: f64,
    /// Its 95 % quantile under shuffled labels.
    #[serde(deserialize_with = "number")]
    pub null_q95: f64,
    /// Permutation p (greater).
    #[serde(deserialize_with = "number")]
    pub p: f64,
    /// How many shuffles that is of.
    pub shuffles: usize,
}

/// The cohorts' response lengths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthCheck {
    /// Mean response tokens in a.
    pub mean_a: f64,
    /// Mean response tokens in b.
    pub mean_b: f64,
    /// Cohen's d of the lengths.
    #[serde(deserialize_with = "number")]
    pub cohen_d: f64,
    /// Permutation p of |cohen_d| with Welch's spread.
    #[serde(deserialize_with = "number")]
    pub p: f64,
    /// Responses in a of which it is known whether they were cut off.
    #[serde(default)]
    pub ends_known_a: usize,
    /// The same in b.
    #[serde(default)]
    pub ends_known_b: usize,
    /// Responses in a that were cut off, of those of which it is known.
    pub truncated_a: usize,
    /// The same in b.
    pub truncated_b: usize,
    /// Heads that are louder only until length is taken out of the norms.
    pub only_by_length: usize,
    /// Pearson's correlation over heads of `cohen_d` with `r_length`: whether the ranking is one of how heads follow length.
    #[serde(default = "unwritten", deserialize_with = "number")]
    pub ranking_r: f64,
    /// Permutation p of |ranking_r|: heads vary together, so that chance alone makes it large.
    #[serde(default = "unwritten", deserialize_with = "number")]
    pub ranking_p: f64,
}

impl LengthCheck {
    pub(crate) fn lengths(&self) -> Lengths {
        Lengths { means: [self.mean_a, self.mean_b], d: self.cohen_d, p: self.p }
    }
}

/// The cohorts' prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptCheck {
    /// Different prompts in a.
    pub distinct_a: usize,
    /// Different prompts in b.
    pub distinct_b: usize,
    /// Prompts that stand in both cohorts.
    pub shared: usize,
    /// Items whose prompt stands in the data more than once.
    pub repeated: usize,
    /// How far the cohorts follow prompts, or groups where items are grouped: the variance that what answers to one prompt have in
    /// common gives the difference of the cohorts' means, over what labels shuffled item by item would give of it on average. 1
    /// where none is repeated, 0 where every prompt has its share of both cohorts. Labels are shuffled by whole prompts or groups.
    #[serde(default = "unwritten", deserialize_with = "number")]
    pub clustering: f64,
    /// Mean prompt tokens in a.
    pub mean_tokens_a: f64,
    /// Mean prompt tokens in b.
    pub mean_tokens_b: f64,
    /// Cohen's d of the prompts' lengths.
    #[serde(deserialize_with = "number")]
    pub cohen_d: f64,
    /// Permutation p of |cohen_d| with Welch's spread.
    #[serde(deserialize_with = "number")]
    pub p: f64,
}

impl PromptCheck {
    pub(crate) fn lengths(&self) -> Lengths {
        Lengths { means: [self.mean_tokens_a, self.mean_tokens_b], d: self.cohen_d, p: self.p }
    }
}

/// Groups of items that stay together as the answers to one prompt do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupCheck {
    /// The field whose values make groups; groups that a prompt joins are one.
    pub field: String,
    /// How many there are.
    pub groups: usize,
    /// How many have items of a.
    pub groups_a: usize,
    /// How many have items of b.
    pub groups_b: usize,
    /// Items that have no value of the field: each prompt of theirs is a group.
    pub items_without: usize,
}

/// A field of the items that goes with the cohorts: what heads follow may be it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldCheck {
    /// The field.
    pub field: String,
    /// How many different values it has, or how many groups of equal size its numbers were cut into.
    pub values: usize,
    /// Cramér's V with the cohorts: 0 not at all, 1 it tells the cohort.
    #[serde(deserialize_with = "number")]
    pub cramers_v: f64,
    /// Permutation p of it (greater).
    #[serde(deserialize_with = "number")]
    pub p: f64,
}

/// The same computation where there is nothing to find.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// [`Control::SHUFFLED`] or [`Control::RANDOM`].
    pub name: String,
    /// How it was made, in words.
    pub how: String,
    /// What it gave for each disposition, in their order.
    pub dispositions: Vec<Controlled>,
}

impl Control {
    /// The name of the control whose labels were shuffled.
    pub const SHUFFLED: &'static str = "shuffled labels";
    /// The name of the control whose model has learnt nothing: what it finds lies in the texts.
    pub const RANDOM: &'static str = "random weights";
}

/// What a control gave for one disposition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Controlled {
    /// The disposition.
    pub name: String,
    /// Its numbers.
    pub summary: Summary,
}
