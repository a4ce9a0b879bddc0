//! What counts as found, wherever something is said to be.

use headtemper_stats::{Tail, p_value};

use crate::{Result, StudyError};

/// The level at which each question is asked, by p, family-wise p or q: one in twenty finds something where there is nothing.
pub(crate) const LEVEL: f64 = 0.05;

/// The most shuffles, or resamples, of anything: beyond it no p says more, and none fits the memory.
pub(crate) const MOST: usize = 1_000_000;

/// The smallest p that this many draws of a null can give.
pub(crate) fn least_p(draws: usize) -> f64 {
    1.0 / (draws as f64 + 1.0)
}

/// A permutation p; NaN without shuffles, since a p of 1 would claim that there was a null.
pub(crate) fn permuted(observed: f64, null: &[f64], tail: Tail) -> f64 {
    if null.is_empty() { f64::NAN } else { p_value(observed, null, tail) }
}

/// Refuses more shuffles or resamples than that.
///
/// # Errors
/// Names which.
pub(crate) fn check_count(what: &str, count: usize) -> Result<()> {
    if count > MOST { Err(StudyError::option(what, count.to_string(), format!("at most {MOST}"))) } else { Ok(()) }
}

/// Whether what the largest of all reaches in one of twenty of `shuffles` may stand as a level beside these values and their family-wise p:
/// whether all values beyond it have a p to match, up to twice the level's. Shuffles are compared by d over Welch's spread, and heads show
/// Cohen's d. Where cohorts differ in size and in spread, these are two measures, and chance could often take a head beyond the level.
pub(crate) fn level_holds(level: f64, shuffles: usize, values: impl IntoIterator<Item = (f64, f64)>) -> bool {
    shuffles > 0
        && level.is_finite()
        && values.into_iter().all(|(value, p)| value <= level || p <= 2.0 * LEVEL || value.is_nan())
}

/// What a reader must know where some of the items keep their label in every shuffle; `like` names what others lack.
pub(crate) fn told_fixed(fixed: usize, items: usize, like: &str) -> Option<String> {
    (fixed > 0).then(|| {
        format!(
            "{fixed} of {items} items keep their label in every shuffle, as nothing with {like} has another label: what sets them apart \
             is in the null as well, and no p shows it"
        )
    })
}
