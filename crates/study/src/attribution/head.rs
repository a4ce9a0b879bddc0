//! One head between two cohorts, and what its numbers say.

use std::fmt;

use headtemper_hook::{HeadKind, HeadRef};
use serde::{Deserialize, Serialize};

use super::KindWords;
use crate::{significance::LEVEL, store::nan::number};

/// What the numbers say of one head; `attribute::rule` has the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The cohorts' z lie apart on items that did not define the direction, and not only in their length.
    Separable,
    /// The cohorts' z differ in length, and in nothing else that held-out items show.
    #[serde(rename = "magnitude only")]
    MagnitudeOnly,
    /// In-sample the cohorts look far apart along their own direction; on held-out items nothing of it is left.
    #[serde(rename = "variance artefact")]
    VarianceArtefact,
    /// Neither.
    #[serde(rename = "no evidence")]
    NoEvidence,
    /// Labels were not shuffled, or a number does not exist: nothing is known.
    Untested,
}

impl Verdict {
    /// From the strongest to the weakest.
    pub const ALL: [Self; 5] =
        [Self::Separable, Self::MagnitudeOnly, Self::VarianceArtefact, Self::NoEvidence, Self::Untested];

    /// Its words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Separable => "separable",
            Self::MagnitudeOnly => "magnitude only",
            Self::VarianceArtefact => "variance artefact",
            Self::NoEvidence => "no evidence",
            Self::Untested => "untested",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// One head between two cohorts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadEffect {
    /// Decoder layer.
    pub layer: usize,
    /// `attn` for a query head, `linear` for a value head of a delta net.
    #[serde(with = "KindWords")]
    pub kind: HeadKind,
    /// Head in its layer.
    pub head: usize,
    /// The norm of z over the last tokens of the response.
    #[serde(flatten)]
    pub magnitude: Magnitude,
    /// Hedges' g of the same.
    #[serde(deserialize_with = "number")]
    pub hedges_g: f64,
    /// Lower end of the 95 % bootstrap interval of `cohen_d`.
    #[serde(deserialize_with = "number")]
    pub d_low: f64,
    /// Upper end of it.
    #[serde(deserialize_with = "number")]
    pub d_high: f64,
    /// Lower end of the 95 % bootstrap interval of `hedges_g`.
    #[serde(deserialize_with = "number")]
    pub g_low: f64,
    /// Upper end of it.
    #[serde(deserialize_with = "number")]
    pub g_high: f64,
    /// Welch's t of the norms.
    #[serde(deserialize_with = "number")]
    pub welch_t: f64,
    /// Its degrees of freedom.
    #[serde(deserialize_with = "number")]
    pub welch_df: f64,
    /// Its two-sided p, which trusts the norms to be normal.
    #[serde(deserialize_with = "number")]
    pub welch_p: f64,
    /// Pearson's correlation of the norm with the length of the response.
    #[serde(deserialize_with = "number")]
    pub r_length: f64,
    /// `cohen_d`, adjusted for the length of the response and its logarithm as well.
    #[serde(deserialize_with = "number")]
    pub d_length_adjusted: f64,
    /// The norm of z at the last token of the response alone.
    pub final_token: Magnitude,
    /// Cohen's d of the projections on the direction that the same items defined, adjusted as `cohen_d` is. In-sample: not evidence.
    #[serde(deserialize_with = "number")]
    pub d_naive: f64,
    /// Permutation p of `d_naive`, the direction defined anew for every shuffle. Of the pooled spread, unlike `p_directional`: with cohorts
    /// of different sizes it is off where their spreads differ.
    #[serde(deserialize_with = "number")]
    pub p_naive: f64,
    /// Cohen's d of held-out items along the direction of all others, adjusted for what --within and --adjust length take out.
    #[serde(deserialize_with = "number")]
    pub d_crossfit: f64,
    /// Permutation p of `d_crossfit` with Welch's spread (greater), folds and directions made anew for every shuffle; this head alone.
    #[serde(deserialize_with = "number")]
    pub p_directional: f64,
    /// Benjamini-Hochberg q of `p_directional` over all heads.
    #[serde(deserialize_with = "number")]
    pub q_directional: f64,
    /// Permutation p of the same, against the largest of all heads.
    #[serde(deserialize_with = "number")]
    pub p_max_directional: f64,
    /// `d_crossfit` of what of z lies across its mean, adjusted likewise: what is more than a matter of length.
    #[serde(deserialize_with = "number")]
    pub d_across: f64,
    /// Permutation p of `d_across` with Welch's spread (greater), this head alone.
    #[serde(deserialize_with = "number")]
    pub p_across: f64,
    /// Benjamini-Hochberg q of `p_across` over all heads.
    #[serde(deserialize_with = "number")]
    pub q_across: f64,
    /// Permutation p of the same, against the largest of all heads.
    #[serde(deserialize_with = "number")]
    pub p_max_across: f64,
    /// Cosine of the two cohorts' mean z.
    #[serde(deserialize_with = "number")]
    pub cos_means: f64,
    /// Cosine of the two cohorts' mean z after the grand mean is taken off, the means being of different halves of the items:
    /// -1 where the cohorts lie apart, about 0 without signal.
    #[serde(deserialize_with = "number")]
    pub cos_centered: f64,
    /// Length of the difference of the two mean z.
    #[serde(deserialize_with = "number")]
    pub direction_norm: f64,
    /// `direction_norm` over the mean length of the two mean z.
    #[serde(deserialize_with = "number")]
    pub relative_norm: f64,
    /// Which story the numbers support.
    pub verdict: Verdict,
    /// The names of the original scripts for the same, where their arithmetic was asked for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub dd: Option<DdNames>,
}

/// One norm of each item between two cohorts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Magnitude {
    /// Mean over a.
    #[serde(deserialize_with = "number")]
    pub mean_a: f64,
    /// Mean over b.
    #[serde(deserialize_with = "number")]
    pub mean_b: f64,
    /// `mean_a - mean_b`; of residuals where --within or --adjust length takes something out.
    #[serde(deserialize_with = "number")]
    pub delta: f64,
    /// Cohen's d, pooled over n - 1; adjusted for what --within and --adjust length take out.
    #[serde(deserialize_with = "number")]
    pub cohen_d: f64,
    /// Permutation p of |cohen_d| with Welch's spread, this head alone.
    #[serde(deserialize_with = "number")]
    pub p: f64,
    /// Benjamini-Hochberg q over all heads.
    #[serde(deserialize_with = "number")]
    pub q: f64,
    /// Permutation p of the same, against the largest of all heads.
    #[serde(deserialize_with = "number")]
    pub p_max: f64,
}

/// The fields of the original scripts' JSON files that ours has under other names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DdNames {
    /// Which of the layers with attention it is, from 0.
    pub attn_layer_idx: usize,
    /// `delta`.
    #[serde(deserialize_with = "number")]
    pub overconf_score: f64,
    /// `d_naive`.
    #[serde(deserialize_with = "number")]
    pub d_directional: f64,
    /// `cos_means`.
    #[serde(deserialize_with = "number")]
    pub cos_cohort_means: f64,
}

/// Whether a finding is beyond shuffled labels: against the largest of all heads, or by the false discovery rate.
fn beyond(p_max: f64, q: f64) -> bool {
    p_max <= LEVEL || q <= LEVEL
}

impl Magnitude {
    /// Whether the head is louder in one cohort, by the rule of the verdicts.
    pub fn is_louder(&self) -> bool {
        beyond(self.p_max, self.q)
    }
}

impl HeadEffect {
    /// Whether its z lies elsewhere on held-out items, by the rule of the verdicts.
    pub fn lies_elsewhere(&self) -> bool {
        beyond(self.p_max_directional, self.q_directional)
    }

    /// Whether that holds of the part of z across its mean, and so of more than its length.
    pub fn lies_across(&self) -> bool {
        beyond(self.p_max_across, self.q_across)
    }

    /// Which head it is.
    pub fn at(&self) -> HeadRef {
        HeadRef { layer: self.layer, head: self.head, kind: self.kind }
    }
}
