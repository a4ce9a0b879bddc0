//! What an attribution says: the numbers of `attribution.json`, schema `attribution/v1`.

use std::fmt;

use headtemper_hook::{HeadKind, HeadRef};
use serde::{Deserialize, Serialize};

use crate::{attribute::LEVEL, tables::number};

/// The heads of a model, ranked between two cohorts, for one or more dispositions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// `attribution/v1`.
    pub schema: String,
    /// The model's name.
    pub model: String,
    /// SHA-256 of its weights.
    #[serde(default)]
    pub weights_sha256: String,
    /// Over how many of the last response tokens a head was averaged.
    pub last_n: usize,
    /// How many heads each layer has.
    pub heads_per_layer: Vec<usize>,
    /// How everything was computed.
    pub method: Method,
    /// One entry a disposition.
    pub dispositions: Vec<Disposition>,
    /// Dispositions that were asked for and could not be attributed on these items.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// The same computation where there is nothing to find.
    #[serde(default)]
    pub controls: Vec<Control>,
    /// How alike the rankings of the dispositions are, and those of other models.
    #[serde(default)]
    pub across: Across,
}

/// How the numbers were computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Which heads were ranked: `all`, `attn` or `linear`.
    pub heads: String,
    /// What was taken out of norms and vectors before anything was compared: `none` or `length`.
    pub adjust: String,
    /// The field of the items that was taken out and within whose values labels were shuffled, if any.
    #[serde(default)]
    pub within: Option<String>,
    /// `none`, or `dd` for the arithmetic of the scripts of arXiv 2604.11867.
    pub compat: String,
    /// How often labels were shuffled; 0 leaves every p out.
    pub shuffles: usize,
    /// Folds of the cross-fit; fewer where a cohort is small.
    pub folds: usize,
    /// How often the items were dealt into folds.
    pub repeats: usize,
    /// Resamples of the bootstrap intervals.
    pub resamples: usize,
    /// Seed of shuffles, folds and resamples.
    pub seed: u64,
}

/// The heads between two cohorts. Differences are a minus b: d > 0 means louder in a.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disposition {
    /// Its name.
    pub name: String,
    /// What it means, in a sentence; empty if nobody said.
    #[serde(default)]
    pub means: String,
    /// Where its cohorts and thresholds come from; empty if nobody said.
    #[serde(default)]
    pub source: String,
    /// Name of the first cohort.
    pub a: String,
    /// Name of the second cohort.
    pub b: String,
    /// Which items the first cohort has.
    #[serde(default)]
    pub a_where: String,
    /// Which items the second cohort has.
    #[serde(default)]
    pub b_where: String,
    /// Items in a.
    pub n_a: usize,
    /// Items in b.
    pub n_b: usize,
    /// What the numbers say, in one plain sentence.
    pub sentence: String,
    /// The numbers in a row: what stands beside the controls.
    pub summary: Summary,
    /// Every head, in slot order.
    pub heads: Vec<HeadEffect>,
    /// What the same computation gives when the labels are shuffled.
    pub shuffled: ShuffledLabels,
    /// Whether the ranking comes out again in another half of the items.
    pub stability: Stability,
    /// Whether the cohorts differ in length already.
    pub length: LengthCheck,
    /// Whether the cohorts differ in their prompts already.
    pub prompts: PromptCheck,
    /// Other fields of the items that go with the cohorts, the closest first.
    #[serde(default)]
    pub fields: Vec<FieldCheck>,
    /// What a reader must know before any number.
    pub warnings: Vec<String>,
}

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
    pub kind: String,
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
    /// `cohen_d` after the length of the response and its logarithm were taken out of the norms.
    #[serde(deserialize_with = "number")]
    pub d_length_adjusted: f64,
    /// The norm of z at the last token of the response alone.
    pub final_token: Magnitude,
    /// Cohen's d of the projections on the direction that the same items defined. In-sample: not evidence.
    #[serde(deserialize_with = "number")]
    pub d_naive: f64,
    /// Permutation p of `d_naive`, the direction defined anew for every shuffle.
    #[serde(deserialize_with = "number")]
    pub p_naive: f64,
    /// Cohen's d of held-out items along the direction of all others.
    #[serde(deserialize_with = "number")]
    pub d_crossfit: f64,
    /// Permutation p of `d_crossfit` (greater), folds and directions made anew for every shuffle; this head alone.
    #[serde(deserialize_with = "number")]
    pub p_directional: f64,
    /// Benjamini-Hochberg q of `p_directional` over all heads.
    #[serde(deserialize_with = "number")]
    pub q_directional: f64,
    /// Permutation p against the largest `d_crossfit` of all heads.
    #[serde(deserialize_with = "number")]
    pub p_max_directional: f64,
    /// `d_crossfit` of what of z lies across its mean: what is more than a matter of length.
    #[serde(deserialize_with = "number")]
    pub d_across: f64,
    /// Permutation p of `d_across` (greater), this head alone.
    #[serde(deserialize_with = "number")]
    pub p_across: f64,
    /// Benjamini-Hochberg q of `p_across` over all heads.
    #[serde(deserialize_with = "number")]
    pub q_across: f64,
    /// Permutation p against the largest `d_across` of all heads.
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
    /// `mean_a - mean_b`.
    #[serde(deserialize_with = "number")]
    pub delta: f64,
    /// Cohen's d, pooled over n - 1.
    #[serde(deserialize_with = "number")]
    pub cohen_d: f64,
    /// Permutation p of |cohen_d|, this head alone.
    #[serde(deserialize_with = "number")]
    pub p: f64,
    /// Benjamini-Hochberg q over all heads.
    #[serde(deserialize_with = "number")]
    pub q: f64,
    /// Permutation p against the largest |cohen_d| of all heads.
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

/// Whether an answer is beyond shuffled labels: beside the largest of all heads, or by the rate of false discoveries.
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

    /// Whether that holds of what of z lies across its mean, and so of more than its length.
    pub fn lies_across(&self) -> bool {
        beyond(self.p_max_across, self.q_across)
    }

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
    #[serde(deserialize_with = "number")]
    pub mean_abs_d: f64,
    /// Mean of the largest |cohen_d|.
    #[serde(deserialize_with = "number")]
    pub max_abs_d_mean: f64,
    /// 95 % quantile of the largest |cohen_d|.
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
    /// Permutation p of |cohen_d|.
    #[serde(deserialize_with = "number")]
    pub p: f64,
    /// Whether it is known which responses were cut off.
    pub truncation_known: bool,
    /// Truncated responses in a, where known.
    pub truncated_a: usize,
    /// Truncated responses in b, where known.
    pub truncated_b: usize,
    /// Heads that are louder only until length is taken out of the norms.
    pub only_by_length: usize,
    /// Pearson's correlation over heads of `cohen_d` with `r_length`: whether the ranking is one of how heads follow length.
    #[serde(deserialize_with = "number")]
    pub ranking_r: f64,
    /// Permutation p of |ranking_r|: heads vary together, so that chance alone makes it large.
    #[serde(deserialize_with = "number")]
    pub ranking_p: f64,
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
    /// Mean prompt tokens in a.
    pub mean_tokens_a: f64,
    /// Mean prompt tokens in b.
    pub mean_tokens_b: f64,
    /// Cohen's d of the prompts' lengths.
    #[serde(deserialize_with = "number")]
    pub cohen_d: f64,
    /// Permutation p of |cohen_d|.
    #[serde(deserialize_with = "number")]
    pub p: f64,
}

/// A field of the items that goes with the cohorts: what heads follow may be it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldCheck {
    /// The field.
    pub field: String,
    /// How many different values it has.
    pub values: usize,
    /// Cramér's V with the cohorts: 0 not at all, 1 it tells the cohort.
    #[serde(deserialize_with = "number")]
    pub cramers_v: f64,
    /// Permutation p of it (greater).
    #[serde(deserialize_with = "number")]
    pub p: f64,
}

/// A disposition that could not be attributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why not.
    pub why: String,
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
    /// Permutation p of |rho_d|, labels shuffled in one of them: heads vary together, so that chance makes it large.
    #[serde(deserialize_with = "number")]
    pub p_rho_d: f64,
    /// Spearman's correlation of their d_crossfit over heads.
    #[serde(deserialize_with = "number")]
    pub rho_crossfit: f64,
    /// Permutation p of |rho_crossfit|, likewise.
    #[serde(deserialize_with = "number")]
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

/// A disposition in two models.
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
    /// Permutation p of |rho_d|, labels shuffled in one of them: heads vary together, so that chance makes it large.
    #[serde(deserialize_with = "number")]
    pub p_rho_d: f64,
    /// Spearman's correlation of their d_crossfit over heads.
    #[serde(deserialize_with = "number")]
    pub rho_crossfit: f64,
    /// Permutation p of |rho_crossfit|, likewise.
    #[serde(deserialize_with = "number")]
    pub p_rho_crossfit: f64,
    /// Why the two cannot be compared, if they cannot.
    pub incomparable: Option<String>,
}
