//! From features to a ranking of heads between two cohorts, by magnitude and by direction, every number beside what
//! shuffled labels give for it.
//!
//! [`magnitude`] compares norms, [`direction`] the vectors, [`confounds`] what else the cohorts differ in, and [`verdict`]
//! says which story all that supports.

mod across;
mod confounds;
pub(crate) mod dd;
mod direction;
pub(crate) mod items;
mod magnitude;
pub(crate) mod results;
mod run;
mod stability;
mod strata;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use headtemper_hook::{HeadKind, ModelSpec};
use headtemper_stats::{
    Folds, Range, Shuffles, Welch, bootstrap_d, hedges_correction, mean, quantile, residuals, welch_t,
};

use crate::{
    DispositionSpec, Features, Result, StudyError,
    attribution::{Disposition, HeadEffect, Method, ShuffledLabels, kind_name},
    items::dispositions::Cohorts,
};
use direction::Directions;
use magnitude::Magnitudes;

pub use confounds::ItemFacts;
pub(crate) use confounds::LENGTH_D;
pub(crate) use direction::permuted;
pub use items::Controls;
pub use results::{write_attribution, write_lambda};
pub use run::{AttributeRun, attribute_run};
pub(crate) use verdict::{rule, summary};

/// The level at which each of the two questions is asked: is it louder, does it lie elsewhere.
pub(crate) const LEVEL: f64 = 0.05;
/// An in-sample d from here on would be called large (Cohen 1988).
pub(crate) const LARGE: f64 = 0.8;

/// Which heads are ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadChoice {
    /// All.
    #[default]
    All,
    /// Query heads of attention.
    Attn,
    /// Value heads of delta nets.
    Linear,
}

impl HeadChoice {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Attn => "attn",
            Self::Linear => "linear",
        }
    }

    /// Refuses a choice that leaves no head of a model.
    ///
    /// # Errors
    /// Says so.
    pub fn check(self, spec: &ModelSpec) -> Result<()> {
        if spec.slots().iter().any(|at| self.has(at.kind)) { Ok(()) } else { Err(self.none_left()) }
    }

    fn none_left(self) -> StudyError {
        StudyError::Option {
            what: "heads".into(), // as both the flag and the field of a run's file are called
            found: self.name().into(),
            allowed: "heads that this model has; `temper inspect` lists them".into(),
        }
    }

    fn has(self, kind: HeadKind) -> bool {
        match self {
            Self::All => true,
            Self::Attn => kind == HeadKind::Query,
            Self::Linear => kind == HeadKind::Value,
        }
    }
}

/// How heads are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeOptions {
    /// Which heads are ranked.
    pub heads: HeadChoice,
    /// Whether length is taken out of norms and vectors before anything is compared.
    pub adjust_length: bool,
    /// A field of the items whose values are taken out of norms and vectors; labels are then shuffled among items of one
    /// value only.
    pub within: Option<String>,
    /// Whether d and cosine are computed as the scripts of arXiv 2604.11867 do, with their guards.
    pub compat_dd: bool,
    /// How often labels are shuffled for the null; 0 leaves it out.
    pub shuffles: usize,
    /// Folds of the cross-fit.
    pub folds: usize,
    /// How often the items are dealt into folds.
    pub repeats: usize,
    /// Resamples of the bootstrap intervals; 0 leaves them out.
    pub resamples: usize,
    /// Seed of shuffles, folds and resamples.
    pub seed: u64,
}

/// Raised whenever other numbers or verdicts come of the same features: what an earlier version finished is then done again.
pub(crate) const STATISTICS: u32 = 3;

impl Default for AttributeOptions {
    fn default() -> Self {
        Self {
            heads: HeadChoice::All,
            adjust_length: false,
            within: None,
            compat_dd: false,
            shuffles: Self::SHUFFLES,
            folds: Self::FOLDS,
            repeats: Self::REPEATS,
            resamples: Self::RESAMPLES,
            seed: 0,
        }
    }
}

impl AttributeOptions {
    /// Shuffles of the null, where nobody says another number.
    pub const SHUFFLES: usize = 1000;
    /// Folds of the cross-fit, the same.
    pub const FOLDS: usize = 5;
    /// Dealings into folds, the same.
    pub const REPEATS: usize = 5;
    /// Resamples of the bootstrap, the same.
    pub const RESAMPLES: usize = 1000;

    /// Refuses what has no meaning.
    ///
    /// # Errors
    /// Says what would have been allowed.
    pub fn check(&self) -> Result<()> {
        let refused = |what: &str, found: &dyn ToString, allowed: &str| {
            Err(StudyError::Option { what: what.into(), found: found.to_string(), allowed: allowed.into() })
        };
        if self.compat_dd {
            // The scripts take nothing out, and know attention alone: half of either arithmetic would be neither.
            if let Some(field) = &self.within {
                return refused("--within", field, "left out with --compat dd");
            }
            if self.adjust_length {
                return refused("--adjust", &"length", "left out with --compat dd");
            }
            if self.heads != HeadChoice::Attn {
                return refused("--heads", &self.heads.name(), "attn, or left out, with --compat dd");
            }
        }
        match (self.folds, self.repeats) {
            (0 | 1, _) => refused("folds", &self.folds, "at least 2"),
            (_, 0) => refused("repeats", &0, "at least 1"),
            (folds, _) if folds > usize::from(u16::MAX) => refused("folds", &folds, "at most 65535"),
            _ => Ok(()),
        }
    }

    /// Refuses a field that these items lack, or that no two of different cohorts share.
    ///
    /// # Errors
    /// Names the fields that they have.
    pub(crate) fn check_within(&self, cohorts: Option<&Cohorts>, facts: &[ItemFacts]) -> Result<()> {
        match (&self.within, cohorts) {
            (None, _) => Ok(()),
            (Some(field), None) => strata::check(field, facts),
            (Some(field), Some(Cohorts { a, b })) => {
                strata::of(field, &[&a[..], &b[..]].concat(), a.len(), facts).map(|_| ())
            }
        }
    }

    /// As the file says it.
    pub fn method(&self) -> Method {
        Method {
            heads: self.heads.name().into(),
            adjust: if self.adjust_length { "length" } else { "none" }.into(),
            within: self.within.clone(),
            compat: if self.compat_dd { "dd" } else { "none" }.into(),
            shuffles: self.shuffles,
            folds: self.folds,
            repeats: self.repeats,
            resamples: self.resamples,
            seed: self.seed,
        }
    }
}

/// The items of two cohorts in one table, a's first: what shuffles and folds call places.
struct Table<'a> {
    features: &'a Features,
    /// Rows of the features.
    rows: Vec<usize>,
    n_a: usize,
    /// Slots of the features that are ranked.
    slots: Vec<usize>,
    /// Response tokens of each item, and their logarithm: what is taken out where length is adjusted for.
    length: [Vec<f64>; 2],
    /// The stratum of each item, where labels are shuffled within strata.
    strata: Option<Vec<usize>>,
    /// The prompt of each item: its items are shuffled, folded and drawn together, as they are no more independent.
    prompts: Vec<usize>,
    adjust_length: bool,
}

impl<'a> Table<'a> {
    fn new(features: &'a Features, cohorts: &Cohorts, facts: &[ItemFacts], options: &AttributeOptions) -> Result<Self> {
        let rows: Vec<usize> = cohorts.a.iter().chain(&cohorts.b).copied().collect();
        let slots = (0..features.slots.len()).filter(|&slot| options.heads.has(features.slots[slot].kind)).collect();
        let strata =
            options.within.as_ref().map(|field| strata::of(field, &rows, cohorts.a.len(), facts)).transpose()?;
        let length: Vec<f64> = rows.iter().map(|&row| features.span_len(row) as f64).collect();
        let logarithm = length.iter().map(|x| x.ln()).collect();
        let length = [length, logarithm];
        // An item that nobody knows the prompt of is its own.
        let mut numbers = BTreeMap::new();
        let number = |(place, &row): (usize, &usize)| {
            let next = numbers.len();
            *numbers.entry(facts.get(row).map(|facts| facts.prompt.as_str()).ok_or(place)).or_insert(next)
        };
        let prompts = rows.iter().enumerate().map(number).collect();
        let (n_a, adjust_length) = (cohorts.a.len(), options.adjust_length);
        Ok(Self { features, rows, n_a, slots, length, strata, prompts, adjust_length })
    }

    fn sizes(&self) -> (usize, usize) {
        (self.n_a, self.n_b())
    }

    /// How many prompts there are.
    fn prompt_count(&self) -> usize {
        self.prompts.iter().max().map_or(0, |most| most + 1)
    }

    /// Shuffles of the labels, by whole prompts and within strata.
    fn shuffles(&self, seed: u64) -> Shuffles {
        Shuffles::whole(self.n_a, self.n_b(), seed, &self.prompts, self.strata.as_deref())
    }

    fn n_b(&self) -> usize {
        self.rows.len() - self.n_a
    }

    fn labels(&self) -> Vec<bool> {
        (0..self.rows.len()).map(|place| place < self.n_a).collect()
    }

    /// The items as they are.
    fn order(&self) -> Vec<usize> {
        (0..self.rows.len()).collect()
    }

    /// One number of every slot, a row an item.
    fn columns(&self, of: &[f32]) -> Vec<f64> {
        let width = self.features.slots.len();
        self.rows.iter().flat_map(|&row| self.slots.iter().map(move |slot| f64::from(of[row * width + slot]))).collect()
    }

    /// The mean z of one slot, a row an item, and its width.
    fn vectors(&self, slot: usize) -> (Vec<f64>, usize) {
        let at = self.features.slots[slot];
        let layer = self.features.head_vectors.iter().find(|v| v.site.head_layer() == Some(at.layer));
        let layer = layer.expect("every slot's layer was captured");
        let values = self.rows.iter().flat_map(|&row| {
            let start = (row * layer.heads + at.head) * layer.dim;
            layer.values[start..start + layer.dim].iter().map(|&x| f64::from(x))
        });
        (values.collect(), layer.dim)
    }

    /// A table without what its strata explain of it, and its length where that is asked for.
    fn without(&self, length: bool, values: &[f64], columns: usize) -> Vec<f64> {
        let strata = self.strata.iter().flat_map(|strata| strata::indicators(strata));
        let length = self.length.iter().filter(|_| length).cloned();
        residuals(values, columns, &length.chain(strata).collect::<Vec<_>>())
    }

    /// A table without what was asked to be taken out.
    fn adjusted(&self, values: &[f64], columns: usize) -> Vec<f64> {
        self.without(self.adjust_length, values, columns)
    }
}

/// What shuffled labels give of every head, `[shuffle][head]`: what a ranking is compared with.
pub(crate) struct Nulls {
    /// Of cohen_d.
    pub(crate) d: Vec<Vec<f64>>,
    /// Of d_crossfit.
    pub(crate) crossfit: Vec<Vec<f64>>,
}

/// Ranks the heads of captured features between two cohorts of their rows.
///
/// # Errors
/// If the features hold no head vectors, none of the heads that were asked for, or a cohort is too small.
pub fn attribute(
    features: &Features,
    spec: &DispositionSpec,
    cohorts: &Cohorts,
    facts: &[ItemFacts],
    options: &AttributeOptions,
) -> Result<Disposition> {
    attribute_with_nulls(features, spec, cohorts, facts, options).map(|(disposition, _)| disposition)
}

/// The same, with what it was compared with.
pub(crate) fn attribute_with_nulls(
    features: &Features,
    spec: &DispositionSpec,
    cohorts: &Cohorts,
    facts: &[ItemFacts],
    options: &AttributeOptions,
) -> Result<(Disposition, Nulls)> {
    options.check()?;
    if features.head_vectors.is_empty() {
        return Err(StudyError::Option {
            what: "what was captured of the heads".into(),
            found: "not their vectors".into(),
            allowed: "vectors".into(),
        });
    }
    let table = Table::new(features, cohorts, facts, options)?;
    if table.slots.is_empty() {
        return Err(options.heads.none_left());
    }
    let folds = Folds::whole(table.sizes(), options.folds, options.repeats, options.seed, &table.prompts);
    let raw = table.columns(&features.head_norm);
    let columns = table.slots.len();
    let norms = &table.adjusted(&raw, columns);
    let magnitudes = Magnitudes::of(norms, &table, options);
    let finals = table.columns(&features.head_norm_final);
    let final_token = Magnitudes::of(&table.adjusted(&finals, columns), &table, options);
    let directions = Directions::of(&table, &folds, options);
    let without_length = Magnitudes::of(&table.without(true, &raw, columns), &table, options);

    let intervals = bootstrap_d(norms, columns, &table.labels(), &table.prompts, options.resamples, options.seed);
    let j = hedges_correction(table.n_a, table.n_b());
    let prompts = confounds::prompts(&table, facts, options);
    let untestable = verdict::untestable(&table, options);
    let heads = (0..columns).map(|column| {
        let at = features.slots[table.slots[column]];
        let values: Vec<f64> = norms.iter().skip(column).step_by(columns).copied().collect();
        let (a, b) = values.split_at(table.n_a);
        // Welch's test knows of no prompts.
        let welch = if prompts.repeated == 0 { welch_t(a, b) } else { Welch::NONE };
        let magnitude = magnitudes.heads[column];
        let direction = &directions.heads[column];
        let Range { low, high } = intervals[column];
        let mut effect = HeadEffect {
            layer: at.layer,
            kind: kind_name(at.kind).into(),
            head: at.head,
            magnitude,
            hedges_g: magnitude.cohen_d * j,
            d_low: low,
            d_high: high,
            g_low: low * j,
            g_high: high * j,
            welch_t: welch.t,
            welch_df: welch.df,
            welch_p: welch.p,
            r_length: confounds::r_length(&raw, columns, column, &table),
            d_length_adjusted: without_length.heads[column].cohen_d,
            final_token: final_token.heads[column],
            d_naive: direction.naive.d_naive,
            p_naive: direction.p_naive,
            d_crossfit: direction.d_crossfit,
            p_directional: direction.p,
            q_directional: direction.q,
            p_max_directional: direction.p_max,
            d_across: direction.d_across,
            p_across: direction.p_across,
            q_across: direction.q_across,
            p_max_across: direction.p_max_across,
            cos_means: direction.naive.cos_means,
            cos_centered: direction.cos_centred,
            direction_norm: direction.naive.norm,
            relative_norm: direction.naive.relative_norm,
            verdict: crate::attribution::Verdict::Untested,
            dd: None,
        };
        if options.compat_dd {
            dd::recompute(&mut effect, &values, &table.vectors(table.slots[column]), table.n_a);
        }
        effect.verdict = verdict::of(&effect, untestable.is_none());
        effect
    });
    let heads: Vec<HeadEffect> = heads.collect();
    let shuffled = shuffled(&magnitudes, &directions, options);
    let length = confounds::length(&table, facts, options, &heads, &magnitudes.null, &without_length.heads);
    let (fields, fields_checked) = confounds::fields(&table, facts, spec, options);
    let mut disposition = Disposition {
        name: spec.name.clone(),
        means: spec.means.clone(),
        source: spec.source.clone(),
        a: spec.a.name.clone(),
        b: spec.b.name.clone(),
        a_where: spec.a.holds.to_string(),
        b_where: spec.b.holds.to_string(),
        n_a: table.n_a,
        n_b: table.n_b(),
        sentence: String::new(),
        summary: summary(&heads),
        heads,
        shuffled,
        stability: stability::of(norms, &directions, &table, options),
        length,
        prompts,
        fields_checked,
        fields,
        warnings: Vec::new(),
    };
    disposition.warnings = confounds::warnings(&disposition, &table);
    if folds.count() < options.folds {
        disposition.warnings.push(format!(
            "cohorts so small are cross-fitted over {} folds, not {}",
            folds.count(),
            options.folds
        ));
    }
    disposition.sentence = verdict::sentence(&disposition, untestable.as_deref());
    let of_shuffle = |k: usize| directions.nulls.iter().map(|null| null.crossfit[k]).collect();
    let crossfit = (0..options.shuffles).map(of_shuffle).collect();
    Ok((disposition, Nulls { d: magnitudes.null, crossfit }))
}

/// Values by the number of each in their order, and how many different ones there are.
fn numbered<T: Ord>(values: impl Iterator<Item = T> + Clone) -> (Vec<usize>, usize) {
    let number: BTreeMap<T, usize> = values.clone().collect::<BTreeSet<T>>().into_iter().zip(0..).collect();
    (values.map(|value| number[&value]).collect(), number.len())
}

/// A quantile of what is a number.
fn level(values: &[f64], at: f64) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|x| !x.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, at)
}

/// What shuffled labels gave, over all heads.
fn shuffled(magnitudes: &Magnitudes, directions: &Directions, options: &AttributeOptions) -> ShuffledLabels {
    let naive: Vec<f64> = directions.nulls.iter().flat_map(|null| null.naive.iter().copied()).collect();
    let crossfit: Vec<f64> = directions.nulls.iter().flat_map(|null| null.crossfit.iter().copied()).collect();
    let abs_d: Vec<f64> = magnitudes.null.iter().flatten().map(|d| d.abs()).collect();
    ShuffledLabels {
        shuffles: options.shuffles,
        seed: options.seed,
        mean_abs_d: mean(&abs_d),
        max_abs_d_mean: mean(&magnitudes.largest),
        max_abs_d_q95: level(&magnitudes.largest, 1.0 - LEVEL),
        mean_d_naive: mean(&naive),
        max_d_naive_mean: mean(&directions.largest_naive),
        max_d_naive_q95: level(&directions.largest_naive, 1.0 - LEVEL),
        mean_d_crossfit: mean(&crossfit),
        d_crossfit_q05: level(&crossfit, LEVEL),
        d_crossfit_q95: level(&crossfit, 1.0 - LEVEL),
        max_d_crossfit_mean: mean(&directions.largest),
        max_d_crossfit_q95: level(&directions.largest, 1.0 - LEVEL),
    }
}
