//! What stands out in the outcomes of a sweep, and in which units: for the terminal, the page and the warnings alike.

use crate::{
    RandomFrom, Role,
    significance::LEVEL,
    sweep::{
        compared::Compared,
        outcome::{ArmOutcome, Difference, Outcomes, SweepTable},
    },
    text::percent,
};

/// With more head sets than this, arms are ranked instead of listed set by set.
pub(crate) const RANKED_ABOVE: usize = 3;

/// From this share of cut-off answers on, the report must say that nobody knows how they would have ended.
const MANY_CUT: f64 = 0.1;

/// A difference in the units of the report: percentage points, tokens, or levels of an axis.
pub(crate) fn in_units(which: Compared<'_>, x: f64) -> f64 {
    if which.is_share() { 100.0 * x } else { x }
}

/// How many decimals it is given with: levels run from 1 to 5.
pub(crate) fn decimals(which: Compared<'_>) -> usize {
    if matches!(which, Compared::Score(_)) { 2 } else { 1 }
}

/// Where random sets come from.
pub(crate) fn drawn(outcomes: &Outcomes) -> &'static str {
    match outcomes.random_from {
        Some(RandomFrom::Model) => "from all layers",
        Some(RandomFrom::Layers) => "from the same layers",
        None => "some from all layers and some from the same layers",
    }
}

/// How often, at most, one of this many outcomes finds something where there is nothing.
pub(crate) fn by_chance(outcomes: usize) -> f64 {
    1.0 - (1.0 - LEVEL).powi(outcomes as i32)
}

/// The outcomes by which at least one arm is compared.
pub(crate) fn compared(outcomes: &Outcomes) -> Vec<Compared<'_>> {
    let has = |which: &Compared<'_>| outcomes.arms().any(|(_, arm)| arm.difference.of(*which).is_some());
    outcomes.compared().filter(has).collect()
}

/// The judge, and what it was asked for.
pub(crate) fn judged_by(outcomes: &Outcomes) -> Option<String> {
    outcomes.judge.as_ref().map(|judge| format!("{judge} ({})", outcomes.tasks.join(", ")))
}

/// Several heads are tempered together.
pub(crate) fn tempered(table: &SweepTable) -> &'static str {
    if table.heads.len() > 1 { "tempered together" } else { "tempered" }
}

/// The tempered arms by |difference|, the largest first; arms that are not compared are left out.
pub(crate) fn ranked<'a>(
    outcomes: &'a Outcomes,
    which: Compared<'_>,
) -> Vec<(&'a SweepTable, &'a ArmOutcome, &'a Difference)> {
    let tempered = outcomes.arms().filter(|(_, arm)| arm.role == Role::Tempered);
    let mut ranked: Vec<_> =
        tempered.filter_map(|(table, arm)| Some((table, arm, arm.difference.of(which)?))).collect();
    ranked.sort_by(|a, b| b.2.mean.abs().total_cmp(&a.2.mean.abs()).then(a.2.p.total_cmp(&b.2.p)));
    ranked
}

/// How many tempered arms this is about, and out of how many, if some cannot be compared: of those nothing is known.
pub(crate) fn arms_compared(outcomes: &Outcomes, compared: usize) -> String {
    let all = outcomes.arms().filter(|(_, arm)| arm.role == Role::Tempered).count();
    match (compared, all) {
        (1, 1) => "the only arm".into(),
        _ if compared == all => format!("all {all} arms"),
        _ => format!("the {compared} of {all} arms that can be compared"),
    }
}

/// Of how many items the comparisons are at the least, where that is not all.
pub(crate) fn over_items(outcomes: &Outcomes, ranked: &[(&SweepTable, &ArmOutcome, &Difference)]) -> String {
    match ranked.iter().map(|(.., d)| d.items).min() {
        Some(least) if least < outcomes.items => format!(", over {least} of {} items", outcomes.items),
        _ => String::new(),
    }
}

/// What must be said of outcomes that are the same, if many answers were cut off: they are the same only as far as they go.
pub(crate) fn as_far_as_they_go(outcomes: &Outcomes) -> String {
    let compared = outcomes.arms().map(|(_, arm)| arm).filter(|arm| arm.withheld.is_none());
    let cut = compared.map(|arm| arm.truncated).fold(0.0, f64::max);
    if cut < MANY_CUT {
        return String::new();
    }
    format!(
        ", as far as they go: up to {} of an arm's answers were cut off at {} tokens",
        percent(cut),
        outcomes.max_new_tokens
    )
}
