//! What else two cohorts differ in: length, truncation, prompts, their size.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_stats::{Tail, cohen_d, mean, pearson};

use super::{AttributeOptions, Table};
use crate::{
    DispositionSpec, ItemFacts, Predicate,
    attribution::{Disposition, FieldCheck, GroupCheck, HeadEffect, LengthCheck, Magnitude, PromptCheck},
    confounds::{Dealt, LikeResponses, OUTCOMES, SAY_SO, Truncation, says_the_label},
    items::units::{clustering, response_of},
    significance::permuted,
};

/// Cohorts below this are called tiny.
pub(super) const TINY: usize = 15;

/// Correlation of one head's norm with the length of the response.
pub(super) fn r_length(norms: &[f64], columns: usize, column: usize, table: &Table<'_>) -> f64 {
    let of_head: Vec<f64> = norms.iter().skip(column).step_by(columns).copied().collect();
    pearson(&of_head, &table.length[0])
}

/// The cohorts' response lengths, and which heads stand out by them alone.
pub(super) fn length(
    table: &Table<'_>,
    facts: &[ItemFacts],
    options: &AttributeOptions,
    heads: &[HeadEffect],
    null_d: &[Vec<f64>],
    without_length: &[Magnitude],
) -> LengthCheck {
    let (a, b) = table.length[0].split_at(table.n_a);
    let r: Vec<f64> = heads.iter().map(|head| head.r_length).collect();
    let ranking_r = pearson(&r, &heads.iter().map(|head| head.magnitude.cohen_d).collect::<Vec<_>>());
    let null: Vec<f64> = null_d.iter().map(|d| pearson(&r, d)).collect();
    let cut: Vec<Option<bool>> = table.rows.iter().map(|&row| facts.get(row).and_then(|f| f.truncated)).collect();
    let Truncation { cut: [truncated_a, truncated_b], known: [ends_known_a, ends_known_b] } =
        Truncation::of(&cut, table.n_a);
    let only_by_length = heads
        .iter()
        .zip(without_length)
        .filter(|(head, without)| head.magnitude.is_louder() && !without.is_louder())
        .count();
    LengthCheck {
        mean_a: mean(a),
        mean_b: mean(b),
        cohen_d: cohen_d(a, b),
        p: dealt(table, options).p_of_lengths(&table.length[0]),
        ends_known_a,
        ends_known_b,
        truncated_a,
        truncated_b,
        only_by_length,
        ranking_r,
        ranking_p: permuted(ranking_r, &null, Tail::TwoSided),
    }
}

/// The items of a table, and how their labels are shuffled.
fn dealt(table: &Table<'_>, options: &AttributeOptions) -> Dealt {
    Dealt { n_a: table.n_a, items: table.rows.len(), shuffles: table.shuffles(options.seed), count: options.shuffles }
}

/// The cohorts' prompts.
pub(super) fn prompts(table: &Table<'_>, facts: &[ItemFacts], options: &AttributeOptions) -> PromptCheck {
    // An item that asks nothing has a prompt of its own.
    let mut seen: BTreeMap<(Option<&str>, usize), [usize; 2]> = BTreeMap::new();
    for (place, &row) in table.rows.iter().enumerate() {
        if let Some(facts) = facts.get(row) {
            let key = facts.asked().map_or((None, place), |prompt| (Some(prompt), 0));
            seen.entry(key).or_default()[usize::from(place >= table.n_a)] += 1;
        }
    }
    let of = |which: &dyn Fn(&[usize; 2]) -> bool| seen.values().filter(|counts| which(counts)).count();
    let tokens: Vec<f64> = table.rows.iter().map(|&row| table.features.prompt_len[row] as f64).collect();
    let (a, b) = tokens.split_at(table.n_a);
    PromptCheck {
        distinct_a: of(&|counts| counts[0] > 0),
        distinct_b: of(&|counts| counts[1] > 0),
        shared: of(&|counts| counts[0] > 0 && counts[1] > 0),
        repeated: seen.values().map(|counts| counts[0] + counts[1]).filter(|&n| n > 1).sum(),
        clustering: clustering(&table.labels(), &table.units, table.strata.as_deref()),
        mean_tokens_a: mean(a),
        mean_tokens_b: mean(b),
        cohen_d: cohen_d(a, b),
        p: dealt(table, options).p_of_lengths(&tokens),
    }
}

/// The groups that stay together, where items are grouped.
pub(super) fn groups(table: &Table<'_>, facts: &[ItemFacts], options: &AttributeOptions) -> Option<GroupCheck> {
    let field = options.groups.clone()?;
    let of = |places: &[usize]| places.iter().collect::<BTreeSet<_>>().len();
    let (a, b) = table.units.split_at(table.n_a);
    let has = |row: &usize| facts.get(*row).is_some_and(|facts| facts.value(&field).is_some());
    let items_without = table.rows.iter().filter(|&row| !has(row)).count();
    Some(GroupCheck { groups: table.unit_count(), groups_a: of(a), groups_b: of(b), items_without, field })
}

/// What the cohorts' responses have in common.
pub(super) fn like_responses(table: &Table<'_>, facts: &[ItemFacts]) -> LikeResponses {
    let responses = response_of(table.rows.iter().map(|&row| facts.get(row)));
    LikeResponses::of(&table.labels(), &table.units, &responses, table.strata.as_deref())
}

/// The fields of the items that go with the cohorts more than by chance, except those that chose the cohorts, and how many fields
/// were looked at.
pub(super) fn fields(
    table: &Table<'_>,
    facts: &[ItemFacts],
    spec: &DispositionSpec,
    options: &AttributeOptions,
) -> (Vec<FieldCheck>, usize) {
    let chose = [&spec.a.holds, &spec.b.holds].map(Predicate::fields).concat();
    let labels = [&spec.a.holds, &spec.b.holds].map(|holds| holds.texts_of("label"));
    let verdicts = |name: &str| labels.iter().all(|labels| says_the_label(name, labels));
    let passed_over = |name: &str| {
        let own = |field: &&str| *field == name || field.starts_with(&format!("{name}."));
        OUTCOMES.contains(&name) || options.within.as_deref() == Some(name) || chose.iter().any(own) || verdicts(name)
    };
    let fields: Vec<_> = table.rows.iter().map(|&row| facts.get(row).map(|facts| &facts.fields)).collect();
    dealt(table, options).fields(&fields, passed_over)
}

/// How the cohorts' responses end.
pub(crate) fn ends(length: &LengthCheck) -> Truncation {
    Truncation { cut: [length.truncated_a, length.truncated_b], known: [length.ends_known_a, length.ends_known_b] }
}

/// What a reader must know where it is not known how any response of a disposition ends: said once, for all such dispositions.
pub(crate) fn no_ends(dispositions: &[Disposition]) -> Option<String> {
    let unknown = |disposition: &&Disposition| ends(&disposition.length).known == [0, 0];
    let names: Vec<&str> = dispositions.iter().filter(unknown).map(|disposition| &disposition.name[..]).collect();
    let of = if names.len() == dispositions.len() { String::new() } else { format!(" of {}", names.join(", ")) };
    (!names.is_empty()).then(|| format!("whether responses{of} were cut off is not known: {SAY_SO}"))
}
