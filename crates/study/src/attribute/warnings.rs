//! What a reader of an attribution must know before any number: one warning per function.

use headtemper_stats::{Folds, quantile, sd};

use super::{
    Adjust, AttributeOptions, FEW_SHUFFLES, LEVEL, Table,
    confounds::{TINY, ends, like_responses},
    strata,
};
use crate::{
    ItemFacts,
    attribution::{Disposition, GroupCheck, HeadEffect},
    confounds::{Truncation, group_responses, told_field, told_prompts},
    items::{
        facts::RESPONSE,
        units::{called, counted},
    },
    significance::{least_p, told_fixed},
};

/// Of a cohort with this many items the spread is known well enough.
const MANY: usize = 50;
/// How many times as large the other cohort is, and how many times as far a smaller one spreads, for p to be in doubt. With 12 items at
/// twice the sd of 48, 24 % of reports on 24 heads named one, not 10 %; at 1.4 times the sd, 15 %.
const UNEQUAL: f64 = 2.0;
const SPREADS: f64 = 1.5;

/// All warnings, in the order in which a reader sees them.
pub(super) fn warnings(
    disposition: &Disposition,
    (table, facts): (&Table<'_>, &[ItemFacts]),
    norms: &[f64],
    folds: &Folds,
    options: &AttributeOptions,
) -> Vec<String> {
    tiny(disposition, table)
        .into_iter()
        .chain(spread(disposition, norms))
        .chain(length(disposition, options.adjust))
        .chain(truncation(disposition))
        .chain(units(disposition, table))
        .chain(responses(disposition, table, facts))
        .chain(prompts(disposition))
        .chain(fields(disposition))
        .chain(without_stratum(table, facts, options.within.as_deref()))
        .chain(strata_of_one_cohort(table))
        .chain(fixed(disposition, table).filter(|_| options.shuffles > 0))
        .chain(short(table))
        .chain(few_folds(folds, options))
        .chain(coarse(options.shuffles, &disposition.heads))
        .collect()
}

/// The field whose values stay together, if there is one.
fn grouped(disposition: &Disposition) -> Option<&str> {
    disposition.groups.as_ref().map(|groups| groups.field.as_str())
}

/// Whether some units have several items.
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

/// A small cohort whose norms (one row per item) spread further than those of a much larger one.
fn spread(disposition: &Disposition, norms: &[f64]) -> Option<String> {
    let Disposition { a, b, n_a, n_b, heads, .. } = disposition;
    let (of_a, of_b) = norms.split_at(n_a * heads.len());
    let (of_a, of_b) = ((a, *n_a, of_a), (b, *n_b, of_b));
    let ((name, least, small), (_, most, large)) = if n_a <= n_b { (of_a, of_b) } else { (of_b, of_a) };
    if least >= MANY || (most as f64) < UNEQUAL * least as f64 || heads.is_empty() {
        return None;
    }
    let sd_of =
        |rows: &[f64], head: usize| sd(&rows.iter().skip(head).step_by(heads.len()).copied().collect::<Vec<_>>());
    let ratio = |head: usize| sd_of(small, head) / sd_of(large, head);
    let mut ratios: Vec<f64> = (0..heads.len()).map(ratio).filter(|ratio| ratio.is_finite()).collect();
    ratios.sort_by(f64::total_cmp);
    let median = quantile(&ratios, 0.5);
    (median >= SPREADS).then(|| {
        format!(
            "the norms of {name}, the smaller cohort ({least} items beside {most}), spread {median:.1} times as far: with so few items a \
             difference in spread can still look like one of means more often than p says; cohorts of one size are not fooled"
        )
    })
}

/// Responses of one cohort that are longer.
fn length(Disposition { a, b, length, .. }: &Disposition, adjust: Adjust) -> Option<String> {
    let lengths = length.lengths();
    lengths.confound().then(|| {
        let so = match adjust {
            Adjust::None => "a head that tracks length ranks high; compare with --adjust length",
            Adjust::Length => {
                "what goes with length or its logarithm is taken out, and nothing that goes with it in another way"
            }
        };
        format!("responses in {a} and {b} differ in length ({}): {so}", lengths.told())
    })
}

/// Responses that were cut off, or for which this is not known. Where it is known for none, the whole attribution says so.
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

/// Items that do not have the field within whose values labels are shuffled.
fn without_stratum(table: &Table<'_>, facts: &[ItemFacts], within: Option<&str>) -> Option<String> {
    let field = within?;
    let has = |row: &usize| facts.get(*row).is_some_and(|facts| facts.value(field).is_some());
    let (without, all) = (table.rows.iter().filter(|row| !has(row)).count(), table.rows.len());
    let so = "they are compared with one another, as if this were a value of it";
    (without > 0).then(|| format!("{without} of {all} items have no {field}: {so}"))
}

/// Items whose stratum has none of the other cohort.
fn strata_of_one_cohort(table: &Table<'_>) -> Option<String> {
    let strata = table.strata.as_ref()?;
    let (mixed, all) = (strata::mixed(strata, table.n_a), strata.len());
    (mixed < all).then(|| {
        format!("{} of {all} items share their stratum with no item of the other cohort, and tell nothing", all - mixed)
    })
}

/// Items whose label no shuffle changes, beyond those that [`strata_of_one_cohort`] tells of.
fn fixed(disposition: &Disposition, table: &Table<'_>) -> Option<String> {
    let told = table.strata.as_ref().map_or(0, |strata| strata.len() - strata::mixed(strata, table.n_a));
    // The seed decides which labels are dealt, not which can be.
    let fixed = table.shuffles(0).fixed();
    let one = grouped(disposition).unwrap_or("prompt");
    let like = if table.strata.is_some() {
        format!("as many items of the same {one} in every stratum")
    } else {
        format!("as many items of the same {one}")
    };
    told_fixed(fixed, table.rows.len(), &like).filter(|_| fixed > told)
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

/// What shuffles cannot tell, where they are so few that verdicts depend on their number.
fn coarse(shuffles: usize, heads: &[HeadEffect]) -> Option<String> {
    let (least, count) = (least_p(shuffles), heads.len());
    if shuffles == 0 || least > LEVEL {
        return None;
    }
    // How many heads must share the smallest p for their q to be at the level.
    let sharing = |least: f64| (count as f64 * least / LEVEL - 1e-9).ceil();
    if shuffles < FEW_SHUFFLES {
        return Some(format!(
            "labels were shuffled only {shuffles} times: no p is below {least:.3}, and q names a head only where {} of {count} or more \
             have that; what a thousand shuffles would find may be missing",
            sharing(least)
        ));
    }
    let stuck = |p: f64, q: f64, p_max: f64| p <= least * (1.0 + 1e-9) && q > LEVEL && p_max > LEVEL;
    let magnitude = heads.iter().filter(|head| stuck(head.magnitude.p, head.magnitude.q, head.magnitude.p_max)).count();
    let directional =
        heads.iter().filter(|head| stuck(head.p_directional, head.q_directional, head.p_max_directional)).count();
    let most = magnitude.max(directional);
    (most > 0).then(|| {
        let enough = (count as f64 / (LEVEL * most as f64) / 100.0).ceil() * 100.0;
        format!(
            "{magnitude} heads in magnitude and {directional} in direction have the smallest p that {shuffles} shuffles can give, and are \
             not named for that: q names heads only where {} of {count} or more have it; --shuffles {enough} can tell",
            sharing(least)
        )
    })
}
