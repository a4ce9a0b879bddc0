//! What a reader of an attribution must know before any number: one warning a function.

use headtemper_stats::Folds;

use super::{
    AttributeOptions, FEW_SHUFFLES, LEVEL, Table,
    confounds::{TINY, ends, like_responses},
    strata,
};
use crate::{
    ItemFacts,
    attribution::{Disposition, GroupCheck},
    confounds::{Truncation, group_responses, told_field, told_prompts},
    items::{
        facts::RESPONSE,
        units::{called, counted},
    },
};

/// All of them, in the order in which they are told.
pub(super) fn warnings(
    disposition: &Disposition,
    (table, facts): (&Table<'_>, &[ItemFacts]),
    folds: &Folds,
    options: &AttributeOptions,
) -> Vec<String> {
    tiny(disposition, table)
        .into_iter()
        .chain(length(disposition))
        .chain(truncation(disposition))
        .chain(units(disposition, table))
        .chain(responses(disposition, table, facts))
        .chain(prompts(disposition))
        .chain(fields(disposition))
        .chain(strata_of_one_cohort(table))
        .chain(short(table))
        .chain(few_folds(folds, options))
        .chain(coarse(options.shuffles, disposition.heads.len()))
        .collect()
}

/// The field whose values stay together, if there is one.
fn grouped(disposition: &Disposition) -> Option<&str> {
    disposition.groups.as_ref().map(|groups| groups.field.as_str())
}

/// Whether items are no units of their own.
fn whole(table: &Table<'_>) -> bool {
    table.unit_count() < table.rows.len()
}

/// Cohorts too small for any effect size.
fn tiny(disposition: &Disposition, table: &Table<'_>) -> Vec<String> {
    let prompts = &disposition.prompts;
    let of_prompts = (prompts.distinct_a, prompts.distinct_b);
    let (units_a, units_b) =
        disposition.groups.as_ref().map_or(of_prompts, |groups| (groups.groups_a, groups.groups_b));
    let of_cohort = |(name, n, units): (&String, usize, usize)| {
        if n < TINY {
            Some(format!("cohort {name} has only {n} items; below {TINY} every effect size is a guess"))
        } else if whole(table) && units < TINY {
            let units = counted(units, grouped(disposition));
            Some(format!("cohort {name} has {n} items, but only {units}; below {TINY} every effect size is a guess"))
        } else {
            None
        }
    };
    let cohorts = [(&disposition.a, disposition.n_a, units_a), (&disposition.b, disposition.n_b, units_b)];
    cohorts.into_iter().filter_map(of_cohort).collect()
}

/// Responses of one cohort that are longer.
fn length(Disposition { a, b, length, .. }: &Disposition) -> Option<String> {
    let lengths = length.lengths();
    lengths.confound().then(|| {
        format!(
            "responses in {a} and {b} differ in length ({}): a head that tracks length ranks high; compare with --adjust length",
            lengths.told()
        )
    })
}

/// Responses that were cut off, or of which it is not known. Where it is known of none, the whole attribution says so.
fn truncation(disposition: &Disposition) -> Vec<String> {
    let Disposition { a, b, n_a, n_b, length, .. } = disposition;
    match ends(length) {
        Truncation { known: [0, 0], .. } => Vec::new(),
        ends => ends.told([a, b], [*n_a, *n_b], ": their last tokens are not comparable"),
    }
}

/// Items that stay together.
fn units(disposition: &Disposition, table: &Table<'_>) -> Option<String> {
    let (all, count, units) = (table.rows.len(), table.unit_count(), called(grouped(disposition)));
    let share = match &disposition.groups {
        Some(GroupCheck { items_without: 0, .. }) => "items of one group stay together".into(),
        Some(GroupCheck { items_without, field, .. }) => {
            format!("{items_without} of {all} items have no {field}; those of one group stay together")
        }
        None => format!("{} of {all} items share their prompt with another", disposition.prompts.repeated),
    };
    whole(table).then(|| {
        format!("{share}: labels are shuffled, and items dealt and drawn, by whole {units}, of which there are {count}")
    })
}

/// Responses that are word for word alike, and go with the cohorts.
fn responses(disposition: &Disposition, table: &Table<'_>, facts: &[ItemFacts]) -> Option<String> {
    let field = grouped(disposition);
    if field == Some(RESPONSE) {
        return None;
    }
    let remedy = group_responses(field, "compare");
    like_responses(table, facts).told(disposition.prompts.clustering, field, &remedy)
}

/// Prompts of one cohort that are longer.
fn prompts(Disposition { a, b, prompts, .. }: &Disposition) -> Option<String> {
    told_prompts(a, b, prompts.lengths())
}

/// Other fields that go with the cohorts.
fn fields(disposition: &Disposition) -> Vec<String> {
    disposition.fields.iter().map(|field| told_field(field, "follows the disposition")).collect()
}

/// Items whose stratum has none of the other cohort.
fn strata_of_one_cohort(table: &Table<'_>) -> Option<String> {
    let strata = table.strata.as_ref()?;
    let (mixed, all) = (strata::mixed(strata, table.n_a), strata.len());
    (mixed < all).then(|| {
        format!("{} of {all} items share their stratum with no item of the other cohort, and tell nothing", all - mixed)
    })
}

/// Responses shorter than the window of tokens.
fn short(table: &Table<'_>) -> Option<String> {
    let last_n = table.features.meta.last_n;
    let short = table.length[0].iter().filter(|&&tokens| tokens < last_n as f64).count();
    (short > 0).then(|| {
        format!(
            "{short} of {} responses have fewer than {last_n} tokens; their heads are averaged over what there is",
            table.rows.len()
        )
    })
}

/// Fewer folds than were asked for.
fn few_folds(folds: &Folds, options: &AttributeOptions) -> Option<String> {
    let (count, asked) = (folds.count(), options.folds);
    (count < asked).then(|| format!("cohorts so small are cross-fitted over {count} folds, not {asked}"))
}

/// What shuffles so few that verdicts depend on their number cannot tell.
fn coarse(shuffles: usize, heads: usize) -> Option<String> {
    let least = 1.0 / (shuffles as f64 + 1.0);
    // As few as must share the smallest p for their q to be at the level.
    let sharing = (heads as f64 * least / LEVEL).ceil();
    ((1..FEW_SHUFFLES).contains(&shuffles) && least <= LEVEL).then(|| {
        format!(
            "labels were shuffled only {shuffles} times: no p is below {least:.3}, and q names a head only where {sharing} of {heads} or \
             more have that; what a thousand shuffles would find may be missing"
        )
    })
}
