//! What the rankings of several dispositions, and of several models, have in common.

use serde::{Deserialize, Serialize};

use crate::store::nan::{number, unwritten};

/// What the rankings have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Across {
    /// How many heads of each disposition count as its top.
    pub top: usize,
    /// Heads that stand at the top of two dispositions or more, by |cohen_d|.
    pub recurring: Vec<Recurring>,
    /// Every two dispositions.
    pub pairs: Vec<Pair>,
    /// The same disposition in another model.
    pub beside: Vec<Beside>,
}

/// A head at the top of several dispositions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recurring {
    /// Which head.
    pub head: String,
    /// The dispositions at whose top it stands.
    pub dispositions: Vec<String>,
}

/// Two dispositions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The one.
    pub first: String,
    /// The other.
    pub second: String,
    /// Spearman's correlation of their cohen_d over heads.
    #[serde(deserialize_with = "number")]
    pub rho_d: f64,
    /// Permutation p of |rho_d|, labels shuffled in one of them: heads vary together, so that chance makes it large. None where
    /// items are shared: the noise of these is in both rankings, and in those of shuffled labels only once.
    #[serde(default = "unwritten", deserialize_with = "number")]
    pub p_rho_d: f64,
    /// Spearman's correlation of their d_crossfit over heads.
    #[serde(deserialize_with = "number")]
    pub rho_crossfit: f64,
    /// Permutation p of |rho_crossfit|, likewise.
    #[serde(default = "unwritten", deserialize_with = "number")]
    pub p_rho_crossfit: f64,
    /// Items that have a place in both.
    pub shared_items: usize,
    /// Correlation (phi) of their labels on those items: rankings of the same split agree by construction.
    #[serde(deserialize_with = "number")]
    pub label_correlation: f64,
    /// Heads at the top of both.
    pub shared_top: usize,
    /// How many that would be by chance.
    #[serde(deserialize_with = "number")]
    pub expected_top: f64,
}

/// A disposition in two models. There is no p: both have mostly read the same items, whose noise they share, so that rankings agree
/// where nothing is, and shuffled labels of one of them are no null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// The other model.
    pub model: String,
    /// The disposition.
    pub name: String,
    /// Heads that both have ranked.
    pub heads: usize,
    /// Spearman's correlation of their cohen_d over heads.
    #[serde(deserialize_with = "number")]
    pub rho_d: f64,
    /// Spearman's correlation of their d_crossfit over heads.
    #[serde(deserialize_with = "number")]
    pub rho_crossfit: f64,
    /// Why the two cannot be compared, if they cannot.
    pub incomparable: Option<String>,
}
