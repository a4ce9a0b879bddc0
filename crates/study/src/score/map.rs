//! The causal map: what tempering each head does to the responses, over items, each number beside its null.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_hook::{HeadKind, HeadRef};
use headtemper_stats::{
    Columns, Interval, Shuffles, SignFlips, Tail, bootstrap_d, clustered_t, cohen_d, max_abs, max_p_values, mean,
    p_value, quantile, sign_flip_test,
};
use serde::Serialize;

use crate::{
    Cohort,
    attribute::AttributeOptions,
    attribution::{FieldCheck, KindWords},
    confounds::{Dealt, confounds, cut_off, told_cut_off, told_field, told_prompts},
    items::units::{self, clustering, sizes, sums},
    score::{
        Scores,
        plan::{Beside, is_zero},
    },
    significance::LEVEL,
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
    /// How many prompts they have, or groups where they are grouped: intervals and sign flips are over these, of whose items the
    /// mean is taken.
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
    /// How many of the cells earlier calls scored in the same directory; absent where none.
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
    /// Mean over items of Δ log-probability a token, tempered minus untempered, in nats.
    pub delta: f64,
    /// Lower end of its 95 % t interval over items; none for fewer than two, or for equal ones.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Mean over items of KL(untempered || tempered) a token, in nats.
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
    /// Whether they are all there are.
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
    /// What else the cohorts differ in; absent where an earlier version planned the shards, which did not note it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confounds: Option<Confounds>,
    /// How far labels follow prompts, 1 where none is repeated: the variance of the difference that is common to prompts, over
    /// what labels shuffled item by item would give of it. They are shuffled by whole prompts.
    pub clustering: f64,
    /// Prompts of both.
    pub prompts: usize,
    /// In how many ways labels can be shuffled that tell different things; not written, as it may be more than JSON can say.
    #[serde(skip)]
    pub labelings: f64,
    /// How often the labels were shuffled.
    pub shuffles: usize,
    /// Seed of shuffles and resamples.
    pub seed: u64,
    /// Resamples of the bootstrap intervals of d.
    pub resamples: usize,
    /// Under shuffled labels: the largest |d| of all cells, its mean over shuffles.
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
    /// Whether it is known which responses were cut off.
    pub truncation_known: bool,
    /// Responses of a that were cut off, where known.
    pub truncated_a: usize,
    /// Responses of b that were cut off, where known.
    pub truncated_b: usize,
    /// How many fields of the items were looked at.
    pub fields_checked: usize,
    /// Those that go with the cohorts more than chance would have it, the most first.
    pub fields: Vec<FieldCheck>,
}

impl Confounds {
    fn of(beside: &Beside, rows: &[usize], dealt: &Dealt) -> Self {
        let of = |row: &usize| beside.prompt_tokens[*row] as f64;
        let prompts: Vec<f64> = rows.iter().map(of).collect();
        let (a, b) = prompts.split_at(dealt.n_a);
        let cut: Vec<Option<bool>> = rows.iter().map(|&row| beside.truncated[row]).collect();
        let [truncated_a, truncated_b] = cut_off(&cut, dealt.n_a);
        let fields: Vec<_> = rows.iter().map(|&row| Some(&beside.fields[row])).collect();
        // Cohorts are labels, which are no field.
        let (fields, fields_checked) = dealt.fields(&fields, |_| false);
        Self {
            prompt_tokens_a: mean(a),
            prompt_tokens_b: mean(b),
            prompt_tokens_d: cohen_d(a, b),
            prompt_tokens_p: dealt.p_of_lengths(&prompts),
            truncation_known: cut.iter().all(Option::is_some),
            truncated_a,
            truncated_b,
            fields_checked,
            fields,
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
    /// Mean Δ log-probability a token over a, in nats.
    pub mean_a: f64,
    /// The same over b.
    pub mean_b: f64,
    /// Cohen's d of Δ a token: d > 0 where tempering costs a less, or gains it more.
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

    /// What else the cohorts differ in, as warnings.
    fn told_confounds(&self) -> Vec<String> {
        let Some(found) = &self.confounds else { return Vec::new() };
        let (a, b) = ((self.a.as_str(), found.truncated_a, self.n_a), (self.b.as_str(), found.truncated_b, self.n_b));
        let ends = ": Δ a token holds more ends of responses in one than in the other";
        told_cut_off(a, b, ends)
            .into_iter()
            .chain(told_prompts(&self.a, &self.b, (found.prompt_tokens_d, found.prompt_tokens_p)))
            .chain(found.fields.iter().map(|field| told_field(field, "tells the cohorts apart")))
            .collect()
    }

    /// Whether the cohorts' responses differ in length by more than half a standard deviation, or by less that shuffled labels do not
    /// give, or have no spread and differ at all: d is 0 there, since it has no unit.
    pub fn lengths_differ(&self) -> bool {
        confounds(self.tokens_d, self.tokens_p) || (self.tokens_d == 0.0 && self.tokens_a != self.tokens_b)
    }
}

/// Cohorts below this are called tiny.
const TINY: usize = 15;

/// How the nulls are made.
#[derive(Clone, Copy)]
pub(crate) struct Nulls {
    /// How many sign flips and how many shuffles; 0 leaves both out.
    pub(crate) shuffles: usize,
    /// Their seed.
    pub(crate) seed: u64,
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

/// The map of what was scored; `units` are the items of each prompt, or group by a field.
pub(crate) fn map(
    scores: &Scores,
    (units, groups): (&[Vec<usize>], Option<&str>),
    model: &str,
    heads_per_layer: Vec<usize>,
    cohorts: Option<(&[Cohort; 2], Option<&Beside>)>,
    nulls: Nulls,
) -> ScoreMap {
    let flips = SignFlips::new(units.len(), nulls.shuffles, nulls.seed);
    let columns: Vec<Vec<f64>> = (0..scores.scored.len()).map(|cell| scores.per_token(&scores.delta, cell)).collect();
    let by_unit: Vec<Vec<f64>> = columns.iter().map(|column| sums(column, units)).collect();
    let sizes = sizes(units);
    let test = sign_flip_test(&rows(&by_unit, &(0..units.len()).collect::<Vec<_>>()), columns.len(), &flips);
    let cells = scores.cells().enumerate().map(|(cell, (at, lambda))| {
        let Interval { low, high, .. } = clustered_t(&by_unit[cell], &sizes);
        CellEffect {
            layer: at.layer,
            kind: at.kind,
            head: at.head,
            lambda,
            delta: mean(&columns[cell]),
            low,
            high,
            kl: mean(&scores.per_token(&scores.kl, cell)),
            agreement: mean(&scores.agreement(cell)),
            p: test.p[cell],
            p_max: test.p_max[cell],
        }
    });
    let base: Vec<f64> = scores.base.iter().zip(&scores.tokens).map(|(sum, &tokens)| sum / tokens as f64).collect();
    let mut map = ScoreMap {
        schema: "score/v1".into(),
        model: model.into(),
        items: scores.ids.len(),
        prompts: units.len(),
        groups: groups.map(String::from),
        tokens: scores.tokens.iter().sum(),
        base_logprob_per_token: mean(&base),
        lambdas: scores.lambdas.clone(),
        heads_per_layer,
        cells: cells.collect(),
        earlier: 0,
        flips: Flips {
            count: flips.count(),
            exact: flips.exact(),
            seed: nulls.seed,
            smallest_p: if flips.count() == 0 { f64::NAN } else { flips.smallest_p() },
        },
        contrast: cohorts.map(|cohorts| contrast(scores, &columns, units, cohorts, nulls)),
        warnings: Vec::new(),
    };
    map.warnings = warnings(&map, nulls);
    map
}

/// Columns as a row-major table of some items.
fn rows(columns: &[Vec<f64>], items: &[usize]) -> Vec<f64> {
    items.iter().flat_map(|&item| columns.iter().map(move |column| column[item])).collect()
}

fn contrast(
    scores: &Scores,
    columns: &[Vec<f64>],
    units: &[Vec<usize>],
    ([a, b], beside): (&[Cohort; 2], Option<&Beside>),
    nulls: Nulls,
) -> Contrast {
    let items: Vec<usize> = a.rows.iter().chain(&b.rows).copied().collect();
    let labels: Vec<bool> = (0..items.len()).map(|place| place < a.rows.len()).collect();
    let unit_of: BTreeMap<usize, usize> =
        units.iter().enumerate().flat_map(|(unit, of)| of.iter().map(move |&item| (item, unit))).collect();
    let prompt_of: Vec<usize> = items.iter().map(|item| unit_of[item]).collect();
    let values = rows(columns, &items);
    let table = Columns::new(&values, columns.len());
    let d = table.cohen_d(&labels);
    let resamples = AttributeOptions::RESAMPLES;
    let intervals = bootstrap_d(&values, columns.len(), &labels, &prompt_of, resamples, nulls.seed);
    let (mut null, mut largest) = (vec![Vec::new(); columns.len()], Vec::new());
    let shuffles = Shuffles::whole(a.rows.len(), b.rows.len(), nulls.seed, &prompt_of, None);
    let labelings = shuffles.labelings();
    for labels in shuffles.iter().take(nulls.shuffles) {
        let d = table.cohen_d(&labels);
        largest.push(max_abs(&d));
        null.iter_mut().zip(d).for_each(|(null, d)| null.push(d));
    }
    let tested = !largest.is_empty() && 1.0 / labelings <= LEVEL;
    let p_max = if tested { max_p_values(&d, &largest) } else { vec![f64::NAN; columns.len()] };
    let of = |values: &dyn Fn(usize) -> f64, rows: &[usize]| rows.iter().map(|&row| values(row)).collect::<Vec<_>>();
    let cells = scores.cells().enumerate().map(|(cell, (at, lambda))| CellContrast {
        layer: at.layer,
        kind: at.kind,
        head: at.head,
        lambda,
        mean_a: mean(&of(&|item| columns[cell][item], &a.rows)),
        mean_b: mean(&of(&|item| columns[cell][item], &b.rows)),
        cohen_d: d[cell],
        d_low: intervals[cell].low,
        d_high: intervals[cell].high,
        p: if tested { p_value(d[cell], &null[cell], Tail::TwoSided) } else { f64::NAN },
        p_max: p_max[cell],
    });
    let cells = cells.collect();
    largest.sort_by(f64::total_cmp);
    let (tokens_a, tokens_b) =
        (of(&|item| scores.tokens[item] as f64, &a.rows), of(&|item| scores.tokens[item] as f64, &b.rows));
    let dealt = Dealt { n_a: a.rows.len(), items: items.len(), shuffles, count: nulls.shuffles };
    Contrast {
        a: a.name.clone(),
        b: b.name.clone(),
        n_a: a.rows.len(),
        n_b: b.rows.len(),
        tokens_a: mean(&tokens_a),
        tokens_b: mean(&tokens_b),
        tokens_d: cohen_d(&tokens_a, &tokens_b),
        tokens_p: dealt.p_of_lengths(&[&tokens_a[..], &tokens_b].concat()),
        confounds: beside.map(|beside| Confounds::of(beside, &items, &dealt)),
        clustering: clustering(&labels, &prompt_of, None),
        prompts: prompt_of.iter().collect::<BTreeSet<_>>().len(),
        labelings,
        shuffles: nulls.shuffles,
        seed: nulls.seed,
        resamples,
        max_abs_d_mean: mean(&largest),
        max_abs_d_q95: quantile(&largest, 0.95),
        cells,
    }
}

fn warnings(map: &ScoreMap, nulls: Nulls) -> Vec<String> {
    let mut warnings = Vec::new();
    let (items, prompts) = (map.items, map.prompts);
    let counted = |count: usize| units::counted(count, map.groups.as_deref());
    // If all of them were enumerated.
    let possible = 0.5f64.powi(prompts as i32 - 1);
    if nulls.shuffles == 0 {
        warnings.push("no sign was flipped and no label shuffled: there are no p-values, and nothing is called".into());
    } else if possible > LEVEL {
        warnings.push(format!(
            "with {} there are so few sign flips that no p can be below {possible}: nothing can be called, whatever the effects; 6 are the \
             least",
            counted(prompts)
        ));
    } else if map.flips.smallest_p > LEVEL {
        warnings.push(format!("{} sign flips cannot give a p below {:.2}", map.flips.count, map.flips.smallest_p));
    }
    if prompts < items {
        warnings.push(format!("the {items} items have {}; those that share one count as one", counted(prompts)));
    }
    let Some(contrast) = &map.contrast else { return warnings };
    for (name, n) in [(&contrast.a, contrast.n_a), (&contrast.b, contrast.n_b)] {
        if n < TINY {
            warnings.push(format!("cohort {name} has only {n} items; below {TINY} every effect size is a guess"));
        }
    }
    if contrast.prompts < contrast.n_a + contrast.n_b {
        warnings.push(format!(
            "the items of {} and {} have {}, by which their labels are shuffled",
            contrast.a,
            contrast.b,
            counted(contrast.prompts)
        ));
    }
    if contrast.too_few() {
        warnings.push(format!(
            "the {} of {} and {} can be labelled in {} ways, too few to tell any head from chance: nothing is tested",
            map.units(),
            contrast.a,
            contrast.b,
            contrast.labelings
        ));
    }
    if contrast.lengths_differ() {
        warnings.push(format!(
            "responses in {} and {} differ in length ({:.1} and {:.1} scored tokens, d = {:.2}): Δ a token depends on \
             how far into a response it is taken",
            contrast.a, contrast.b, contrast.tokens_a, contrast.tokens_b, contrast.tokens_d
        ));
    }
    warnings.extend(contrast.told_confounds());
    warnings
}
