//! What a map says: the numbers of `score.json`, schema `score/v1`.

use std::collections::BTreeSet;

use headtemper_hook::{HeadKind, HeadRef};
use serde::Serialize;

use crate::{
    attribution::{FieldCheck, KindWords},
    confounds::Lengths,
    items::units,
    score::plan::is_zero,
    significance::{LEVEL, least_p, level_holds},
};

/// The numbers of `score.json`, schema `score/v1`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreMap {
    /// `score/v1`.
    pub schema: String,
    /// The model's name.
    pub model: String,
    /// Items scored.
    pub items: usize,
    /// How many prompts they have, or groups where they are grouped. Intervals and sign flips are over these,
    /// means over their items.
    pub prompts: usize,
    /// The field that they are grouped by, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
    /// Scored tokens, over all items.
    pub tokens: usize,
    /// Mean log-probability of a token under the untempered model, over items, in nats.
    pub base_logprob_per_token: f64,
    /// The factors, in the order that they were asked for.
    pub lambdas: Vec<f32>,
    /// How many heads each layer of the model has, scored or not.
    pub heads_per_layer: Vec<usize>,
    /// Every scored head at every λ that it was scored at, by head and then by λ.
    pub cells: Vec<CellEffect>,
    /// How many of the cells earlier calls scored in the same directory; absent if none.
    #[serde(skip_serializing_if = "is_zero")]
    pub earlier: usize,
    /// What the p-values of the cells rest on.
    pub flips: Flips,
    /// Between two cohorts, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<Contrast>,
    /// What a reader must know before any number.
    pub warnings: Vec<String>,
}

/// One head at one λ, over items; every item counts once, however long it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellEffect {
    /// Decoder layer.
    pub layer: usize,
    /// `attn` for a query head, `linear` for a value head of a delta net.
    #[serde(with = "KindWords")]
    pub kind: HeadKind,
    /// Head in its layer.
    pub head: usize,
    /// Its λ.
    pub lambda: f32,
    /// Mean over items of Δ log-probability per token, tempered minus untempered, in nats.
    pub delta: f64,
    /// Lower end of its 95 % t interval, over prompts or groups; none for fewer than two of them, or for equal ones.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Mean over items of KL(untempered || tempered) per token, in nats.
    pub kl: f64,
    /// Mean over items of the share of tokens with the same likeliest token.
    pub agreement: f64,
    /// Two-sided sign-flip p of a mean Δ of 0, for this cell alone.
    pub p: f64,
    /// The same corrected for having looked at every head and λ.
    pub p_max: f64,
}

impl CellEffect {
    /// Which head it is.
    pub fn at(&self) -> HeadRef {
        HeadRef { layer: self.layer, head: self.head, kind: self.kind }
    }
}

/// The sign flips.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flips {
    /// How many.
    pub count: usize,
    /// Whether these are all there are.
    pub exact: bool,
    /// Seed, where they were drawn.
    pub seed: u64,
    /// The smallest p that they can give.
    pub smallest_p: f64,
}

/// The heads between two cohorts. Differences are a minus b.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contrast {
    /// Label of the first cohort.
    pub a: String,
    /// Label of the second cohort.
    pub b: String,
    /// Items in a.
    pub n_a: usize,
    /// Items in b.
    pub n_b: usize,
    /// Mean scored tokens of a.
    pub tokens_a: f64,
    /// Mean scored tokens of b.
    pub tokens_b: f64,
    /// Cohen's d of the scored tokens.
    pub tokens_d: f64,
    /// Permutation p of |tokens_d|.
    pub tokens_p: f64,
    /// What else the cohorts differ in; absent if an earlier version, which did not note it, planned the shards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confounds: Option<Confounds>,
    /// How far labels follow prompts; 1 where none is repeated. It is the variance of the difference that prompts account for, over
    /// what labels shuffled item by item would give. Labels are shuffled by whole prompts.
    pub clustering: f64,
    /// Prompts of both.
    pub prompts: usize,
    /// In how many ways labels can be shuffled that tell different things; not written, as it may be more than JSON can hold.
    #[serde(skip)]
    pub labelings: f64,
    /// Items whose label no shuffle changes, as no prompt with as many items has another.
    pub fixed: usize,
    /// How often the labels were shuffled.
    pub shuffles: usize,
    /// Seed of shuffles and resamples.
    pub seed: u64,
    /// Resamples of the bootstrap intervals of d.
    pub resamples: usize,
    /// Under shuffled labels: the largest |d| with Welch's spread of all cells, its mean over shuffles.
    pub max_abs_d_mean: f64,
    /// The same, its 95 % quantile.
    pub max_abs_d_q95: f64,
    /// Every scored head at every λ, as the cells of the map.
    pub cells: Vec<CellContrast>,
}

/// What else two cohorts differ in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confounds {
    /// Mean prompt tokens of a.
    pub prompt_tokens_a: f64,
    /// Mean prompt tokens of b.
    pub prompt_tokens_b: f64,
    /// Cohen's d of the prompt tokens.
    pub prompt_tokens_d: f64,
    /// Permutation p of |prompt_tokens_d|.
    pub prompt_tokens_p: f64,
    /// Responses of a for which it is known whether they were cut off.
    pub ends_known_a: usize,
    /// The same of b.
    pub ends_known_b: usize,
    /// Responses of a that were cut off, among those for which it is known.
    pub truncated_a: usize,
    /// The same of b.
    pub truncated_b: usize,
    /// How far the cohorts follow responses, with items that share a prompt or group joined: as [`Contrast::clustering`] for
    /// prompts. None in a plan of an earlier version.
    pub responses_clustering: Option<f64>,
    /// Items whose response is word for word one to another prompt, or of another group.
    pub responses_repeated: usize,
    /// How many fields of the items were looked at.
    pub fields_checked: usize,
    /// Those that go with the cohorts more than by chance, strongest first.
    pub fields: Vec<FieldCheck>,
}

impl Confounds {
    /// The lengths of the cohorts' prompts.
    pub(crate) fn prompt_lengths(&self) -> Lengths {
        Lengths {
            means: [self.prompt_tokens_a, self.prompt_tokens_b],
            d: self.prompt_tokens_d,
            p: self.prompt_tokens_p,
        }
    }
}

/// One head at one λ between two cohorts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellContrast {
    /// Decoder layer.
    pub layer: usize,
    /// `attn` or `linear`.
    #[serde(with = "KindWords")]
    pub kind: HeadKind,
    /// Head in its layer.
    pub head: usize,
    /// Its λ.
    pub lambda: f32,
    /// Mean Δ log-probability per token over a, in nats.
    pub mean_a: f64,
    /// The same over b.
    pub mean_b: f64,
    /// Cohen's d of Δ per token: d > 0 where tempering costs a less, or gains it more.
    pub cohen_d: f64,
    /// Lower end of its 95 % bootstrap interval, over prompts or groups; none where a cohort has fewer than two of them.
    pub d_low: f64,
    /// Upper end.
    pub d_high: f64,
    /// Permutation p of |d|, for this cell alone.
    pub p: f64,
    /// The same corrected for having looked at every head and λ.
    pub p_max: f64,
}

impl CellContrast {
    /// Which head it is.
    pub fn at(&self) -> HeadRef {
        HeadRef { layer: self.layer, head: self.head, kind: self.kind }
    }
}

impl Contrast {
    /// Whether prompts are so few that no labeling could be told from chance.
    pub fn too_few(&self) -> bool {
        1.0 / self.labelings > LEVEL
    }

    /// The smallest p that the shuffles can give.
    pub(crate) fn smallest_p(&self) -> f64 {
        least_p(self.shuffles)
    }

    /// Whether what the largest |d| reaches under shuffled labels may stand beside the cells' as a level ([`level_holds`]).
    pub(crate) fn has_level(&self) -> bool {
        let cells = self.cells.iter().map(|cell| (cell.cohen_d.abs(), cell.p_max));
        level_holds(self.max_abs_d_q95, self.shuffles, cells)
    }

    /// The lengths of the cohorts' responses.
    pub(crate) fn lengths(&self) -> Lengths {
        Lengths { means: [self.tokens_a, self.tokens_b], d: self.tokens_d, p: self.tokens_p }
    }
}

impl ScoreMap {
    /// How many heads were scored, at any λ.
    pub(crate) fn heads(&self) -> usize {
        self.cells.iter().map(CellEffect::at).collect::<BTreeSet<_>>().len()
    }

    /// How many heads were scored at a λ.
    pub(crate) fn heads_at(&self, lambda: f32) -> usize {
        self.cells.iter().filter(|cell| cell.lambda == lambda).count()
    }

    /// What the units of a comparison are called, several of them.
    pub(crate) fn units(&self) -> String {
        units::called(self.groups.as_deref())
    }
}
