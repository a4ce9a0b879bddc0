//! From features to a ranking of heads between two cohorts, by magnitude and by direction, every number beside what
//! shuffled labels give for it.
//!
//! [`magnitude`] compares norms, [`direction`] the vectors, and [`effects`] has both side by side. [`confounds`] measures what else
//! the cohorts differ in, [`warnings`] says what a reader must know about it, and [`verdict`] says which story all this supports.

mod across;
mod confounds;
pub(crate) mod dd;
mod direction;
mod effects;
pub(crate) mod items;
mod magnitude;
mod options;
pub(crate) mod results;
mod run;
mod source;
mod stability;
mod strata;
mod table;
#[cfg(test)]
mod tests;
mod verdict;
mod warnings;

use headtemper_stats::{Folds, mean, quantile};

use crate::{
    DispositionSpec, Features, ItemFacts, Result, StudyError,
    attribution::{Disposition, HeadEffect, ShuffledLabels},
    items::dispositions::Cohorts,
    significance::LEVEL,
    watch::Watch,
};
use direction::Directions;
use effects::Measured;
use magnitude::Magnitudes;
use table::Table;

pub(crate) use confounds::no_ends;
pub use items::Controls;
pub use options::{Adjust, AttributeOptions, Compat, HeadChoice};
pub use results::write_attribution;
pub use run::{AttributeRun, attribute_run};
pub use source::AttributeSource;
pub(crate) use verdict::{named_heads, rule, summary};

/// An in-sample d from here on would be called large (Cohen 1988).
pub(crate) const LARGE: f64 = 0.8;

/// Below this many shuffles, a warning says what they cannot tell.
const FEW_SHUFFLES: usize = 99;

/// Raised whenever the same features give other numbers or verdicts: what an earlier version finished is then done again.
pub(crate) const STATISTICS: u32 = 13;

/// What shuffled labels give for every head, `[shuffle][head]`: what a ranking is compared with.
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
    attribute_with_nulls(features, spec, cohorts, facts, (options, &Watch::default()))
        .map(|(disposition, _)| disposition)
}

/// The same, with its nulls, watched from outside.
pub(crate) fn attribute_with_nulls(
    features: &Features,
    spec: &DispositionSpec,
    cohorts: &Cohorts,
    facts: &[ItemFacts],
    (options, watch): (&AttributeOptions, &Watch<'_>),
) -> Result<(Disposition, Nulls)> {
    options.check()?;
    if features.head_vectors.is_empty() {
        return Err(StudyError::option("what was captured of the heads", "not their vectors", "vectors"));
    }
    let table = Table::new(features, cohorts, facts, options)?;
    if table.slots.is_empty() {
        return Err(options.heads.none_left());
    }
    let folds = Folds::whole(table.sizes(), options.folds, options.repeats, options.seed, &table.units);
    let measured = Measured::of(&table, &folds, options, watch)?;
    let untestable = verdict::untestable(&table, options);
    let floor = (options.shuffles < FEW_SHUFFLES).then(|| 1.0 / (options.shuffles as f64 + 1.0));
    let judged = |mut effect: HeadEffect| {
        effect.verdict = verdict::of(&effect, untestable.is_none(), floor);
        effect
    };
    let heads: Vec<HeadEffect> = measured.effects(options).map(judged).collect();
    let Measured { magnitudes, directions, without_length, .. } = measured;
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
        stability: stability::of(&magnitudes.norms, &directions.halves, &table, options),
        length,
        prompts: confounds::prompts(&table, facts, options),
        groups: confounds::groups(&table, facts, options),
        fields_checked,
        fields,
        warnings: Vec::new(),
    };
    disposition.warnings = warnings::warnings(&disposition, (&table, facts), &magnitudes.norms, &folds, options);
    disposition.sentence = verdict::sentence(&disposition, untestable.as_deref(), options.adjust);
    let of_shuffle = |k: usize| directions.nulls.iter().map(|null| null.crossfit[k]).collect();
    let crossfit = (0..options.shuffles).map(of_shuffle).collect();
    Ok((disposition, Nulls { d: magnitudes.null, crossfit }))
}

/// A quantile of the values that are not NaN.
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
