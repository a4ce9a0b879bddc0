//! What else two cohorts differ in: length, truncation, prompts, their size.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_stats::{Columns, Tail, cohen_d, cramers_v, mean, pearson};

use super::{AttributeOptions, LEVEL, Table, direction::permuted};
use crate::{
    DispositionSpec, ItemFacts, Predicate,
    attribution::{Disposition, FieldCheck, GroupCheck, HeadEffect, LengthCheck, Magnitude, PromptCheck},
    items::{
        facts::RESPONSE,
        units::{clustering, unit_of},
    },
};

/// Cohorts below this are called tiny.
pub(super) const TINY: usize = 15;
/// |d| of a length above which a comparison is confounded with it.
pub(crate) const LENGTH_D: f64 = 0.5;
/// Truncation rates further apart than this confound a comparison.
const TRUNCATION_GAP: f64 = 0.1;
/// A smaller d is one too, where shuffled labels do not give it and it is not nothing.
const LITTLE_D: f64 = 0.2;
/// Groups of equal size that numbers are cut into, which would be a value for every few items otherwise.
const GROUPS: usize = 5;
/// How many times further than prompts the cohorts may follow their very responses before it is said.
pub(super) const LIKE: f64 = 1.5;
/// Fields that tell of the answer's end, which is looked at by itself.
const OUTCOMES: [&str; 2] = ["finish_reason", "truncated"];

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
    let count = |cut: &[Option<bool>]| cut.iter().filter(|&&cut| cut == Some(true)).count();
    let only_by_length = heads
        .iter()
        .zip(without_length)
        .filter(|(head, without)| head.magnitude.is_louder() && !without.is_louder())
        .count();
    LengthCheck {
        mean_a: mean(a),
        mean_b: mean(b),
        cohen_d: cohen_d(a, b),
        p: p_of_lengths(&table.length[0], table, options),
        truncation_known: cut.iter().all(Option::is_some),
        truncated_a: count(&cut[..table.n_a]),
        truncated_b: count(&cut[table.n_a..]),
        only_by_length,
        ranking_r,
        ranking_p: permuted(ranking_r, &null, Tail::TwoSided),
    }
}

/// Permutation p of the d of some lengths.
fn p_of_lengths(lengths: &[f64], table: &Table<'_>, options: &AttributeOptions) -> f64 {
    let columns = Columns::new(lengths, 1);
    let shuffles = table.shuffles(options.seed);
    let null: Vec<f64> = (0..options.shuffles as u64).map(|k| columns.cohen_d(&shuffles.labels(k))[0]).collect();
    permuted(columns.cohen_d(&table.labels())[0], &null, Tail::TwoSided)
}

/// The cohorts' prompts.
pub(super) fn prompts(table: &Table<'_>, facts: &[ItemFacts], options: &AttributeOptions) -> PromptCheck {
    // An item that nothing was asked has a prompt of its own.
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
        p: p_of_lengths(&tokens, table, options),
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

/// How far the cohorts follow their very responses, as [`PromptCheck::clustering`] has it of prompts, and how many items share
/// theirs with an item of another unit.
pub(super) fn like_responses(table: &Table<'_>, facts: &[ItemFacts]) -> (f64, usize) {
    let of_row = |&row: &usize| facts.get(row);
    let units = unit_of(table.rows.iter().map(of_row), Some(RESPONSE));
    let mut of_response: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let response = |place: usize| of_row(&table.rows[place])?.response.as_deref();
    for place in 0..table.rows.len() {
        if let Some(text) = response(place) {
            of_response.entry(text).or_default().insert(table.units[place]);
        }
    }
    let repeated = |place: &usize| response(*place).is_some_and(|text| of_response[text].len() > 1);
    let items = (0..table.rows.len()).filter(repeated).count();
    (clustering(&table.labels(), &units, table.strata.as_deref()), items)
}

/// The fields of the items that go with the cohorts more than chance would have it, but for those that chose them, and how many
/// were looked at.
pub(super) fn fields(
    table: &Table<'_>,
    facts: &[ItemFacts],
    spec: &DispositionSpec,
    options: &AttributeOptions,
) -> (Vec<FieldCheck>, usize) {
    if options.shuffles == 0 {
        return (Vec::new(), 0);
    }
    let chose = [&spec.a.holds, &spec.b.holds].map(Predicate::fields).concat();
    let of_place = |place: usize| facts.get(table.rows[place]).map(|facts| &facts.fields);
    let names: BTreeSet<&String> = (0..table.rows.len()).filter_map(of_place).flat_map(BTreeMap::keys).collect();
    let shuffles = table.shuffles(options.seed);
    let check = |name: &&String| -> Option<FieldCheck> {
        let own = |field: &&str| *field == name.as_str() || field.starts_with(&format!("{name}."));
        let within = options.within.as_ref() == Some(*name);
        if within || OUTCOMES.contains(&name.as_str()) || chose.iter().any(own) {
            return None;
        }
        // An item without the field is a category of its own.
        let values: Vec<Option<&String>> = (0..table.rows.len()).map(|place| of_place(place)?.get(*name)).collect();
        let (categories, count) = categories(&values)?;
        let v = cramers_v(&categories, &table.labels());
        let null: Vec<f64> =
            (0..options.shuffles as u64).map(|k| cramers_v(&categories, &shuffles.labels(k))).collect();
        let p = permuted(v, &null, Tail::Greater);
        Some(FieldCheck { field: (*name).clone(), values: count, cramers_v: v, p })
    };
    let mut found: Vec<FieldCheck> = names.iter().filter_map(check).collect();
    let checked = found.len();
    found.retain(|check| check.p <= LEVEL);
    found.sort_by(|x, y| y.cramers_v.total_cmp(&x.cramers_v));
    (found, checked)
}

/// The category of each item by its value of a field, and how many there are; items without the field are a category of their own.
/// None if one value stands for all, or each names an item, as a text or a whole number of its own does. Many numbers are cut into
/// groups of equal size.
fn categories(values: &[Option<&String>]) -> Option<(Vec<usize>, usize)> {
    let there: Vec<&String> = values.iter().flatten().copied().collect();
    let distinct = there.iter().collect::<BTreeSet<_>>().len();
    let numbers: Option<Vec<f64>> = there.iter().map(|value| value.parse().ok()).collect();
    let fractions = numbers.as_ref().is_some_and(|numbers| numbers.iter().any(|x| x.fract() != 0.0));
    if distinct == there.len() && distinct > 1 && !fractions {
        return None;
    }
    let mut sorted = numbers.filter(|_| distinct > 2 * GROUPS).unwrap_or_default();
    sorted.sort_by(f64::total_cmp);
    // Equal numbers are in one group, that of the first of them.
    let group = |value: &String| {
        let x: f64 = value.parse().expect("all of them were");
        sorted.partition_point(|other| other.total_cmp(&x).is_lt()) * GROUPS / sorted.len()
    };
    let groups = numbered(values.iter().map(|value| value.filter(|_| !sorted.is_empty()).map(group)));
    let enough = 1 + usize::from(there.len() < values.len());
    let (categories, count) = if groups.1 > enough { groups } else { numbered(values.iter()) };
    (count > 1).then_some((categories, count))
}

/// Values by the number of each in their order, and how many different ones there are.
fn numbered<T: Ord>(values: impl Iterator<Item = T> + Clone) -> (Vec<usize>, usize) {
    let number: BTreeMap<T, usize> = values.clone().collect::<BTreeSet<T>>().into_iter().zip(0..).collect();
    (values.map(|value| number[&value]).collect(), number.len())
}

/// Whether the cohorts differ so far in some length that heads may follow it.
pub(super) fn confounds(d: f64, p: f64) -> bool {
    d.abs() > LENGTH_D || (d.abs() > LITTLE_D && p <= LEVEL)
}

/// Whether more responses of one cohort than of the other were cut off, so that their last tokens are no ends.
pub(super) fn unequally_cut(disposition: &Disposition) -> bool {
    let Disposition { n_a, n_b, length, .. } = disposition;
    cut_apart((length.truncated_a, *n_a), (length.truncated_b, *n_b))
}

/// Whether the shares of two groups' answers that were cut off, so many of so many, confound their comparison.
pub(crate) fn cut_apart(a: (usize, usize), b: (usize, usize)) -> bool {
    let rate = |(cut, n): (usize, usize)| cut as f64 / n as f64;
    (rate(a) - rate(b)).abs() > TRUNCATION_GAP
}
