//! What an attribution says: the numbers of `attribution.json`, schema `attribution/v1`.

use headtemper_hook::{HeadKind, HeadRef};
use serde::{Deserialize, Serialize};

/// The heads of a model, ranked between two cohorts, for one or more dispositions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// `attribution/v1`.
    pub schema: String,
    /// The model's name.
    pub model: String,
    /// Over how many of the last response tokens a head was averaged.
    pub last_n: usize,
    /// How many heads each layer has.
    pub heads_per_layer: Vec<usize>,
    /// One entry a disposition.
    pub dispositions: Vec<Disposition>,
}

/// The heads between two cohorts. Differences are a minus b: d > 0 means louder in a.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disposition {
    /// Its name.
    pub name: String,
    /// Label of the first cohort.
    pub a: String,
    /// Label of the second cohort.
    pub b: String,
    /// Items in a.
    pub n_a: usize,
    /// Items in b.
    pub n_b: usize,
    /// Every head, in slot order.
    pub heads: Vec<HeadEffect>,
    /// What the same computation gives when the labels are shuffled.
    pub shuffled: ShuffledLabels,
    /// Whether the cohorts differ in length already.
    pub length: LengthCheck,
    /// What a reader must know before any number.
    pub warnings: Vec<String>,
}

/// One head between two cohorts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadEffect {
    /// Decoder layer.
    pub layer: usize,
    /// `attn` for a query head, `linear` for a value head of a delta net.
    pub kind: String,
    /// Head in its layer.
    pub head: usize,
    /// Mean over a of the item's mean z norm.
    pub mean_a: f64,
    /// Mean over b of the item's mean z norm.
    pub mean_b: f64,
    /// `mean_a - mean_b`.
    pub delta: f64,
    /// Cohen's d of the norms, pooled over n - 1.
    #[serde(deserialize_with = "crate::tables::number")]
    pub cohen_d: f64,
    /// Permutation p of |cohen_d|, this head alone.
    #[serde(deserialize_with = "crate::tables::number")]
    pub p: f64,
    /// Benjamini-Hochberg q over all heads.
    #[serde(deserialize_with = "crate::tables::number")]
    pub q: f64,
    /// Permutation p against the largest |cohen_d| of all heads.
    #[serde(deserialize_with = "crate::tables::number")]
    pub p_max: f64,
    /// Cohen's d of the projections on the direction that the same items defined. In-sample: not evidence.
    #[serde(deserialize_with = "crate::tables::number")]
    pub d_naive: f64,
    /// Permutation p of `d_naive`, the direction defined anew for every shuffle.
    #[serde(deserialize_with = "crate::tables::number")]
    pub p_directional: f64,
    /// Cosine of the two cohorts' mean z.
    #[serde(deserialize_with = "crate::tables::number")]
    pub cos_means: f64,
    /// Length of the difference of the two mean z.
    pub direction_norm: f64,
    /// `direction_norm` over the mean length of the two mean z.
    #[serde(deserialize_with = "crate::tables::number")]
    pub relative_norm: f64,
}

impl HeadEffect {
    /// Which head it is.
    pub fn at(&self) -> HeadRef {
        let kind = if self.kind == kind_name(HeadKind::Value) { HeadKind::Value } else { HeadKind::Query };
        HeadRef { layer: self.layer, head: self.head, kind }
    }
}

/// How an attribution names the kind of a head.
pub(crate) fn kind_name(kind: HeadKind) -> &'static str {
    match kind {
        HeadKind::Query => "attn",
        HeadKind::Value => "linear",
    }
}

/// What shuffled labels give, over all heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShuffledLabels {
    /// How often the labels were shuffled; 0 if not at all, and the levels are then null.
    pub shuffles: usize,
    /// The seed of the shuffles.
    pub seed: u64,
    /// Mean |cohen_d| of a head.
    #[serde(deserialize_with = "crate::tables::number")]
    pub mean_abs_d: f64,
    /// Mean of the largest |cohen_d|.
    #[serde(deserialize_with = "crate::tables::number")]
    pub max_abs_d_mean: f64,
    /// 95 % quantile of the largest |cohen_d|.
    #[serde(deserialize_with = "crate::tables::number")]
    pub max_abs_d_q95: f64,
    /// Mean d_naive of a head.
    #[serde(deserialize_with = "crate::tables::number")]
    pub mean_d_naive: f64,
    /// Mean of the largest d_naive.
    #[serde(deserialize_with = "crate::tables::number")]
    pub max_d_naive_mean: f64,
    /// 95 % quantile of the largest d_naive.
    #[serde(deserialize_with = "crate::tables::number")]
    pub max_d_naive_q95: f64,
}

/// The cohorts' response lengths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthCheck {
    /// Mean response tokens in a.
    pub mean_a: f64,
    /// Mean response tokens in b.
    pub mean_b: f64,
    /// Cohen's d of the lengths.
    #[serde(deserialize_with = "crate::tables::number")]
    pub cohen_d: f64,
    /// Truncated responses in a, where known.
    pub truncated_a: usize,
    /// Truncated responses in b, where known.
    pub truncated_b: usize,
}
