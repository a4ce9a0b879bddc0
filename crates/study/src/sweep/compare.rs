//! Arms of a sweep against its reference, item by item, with intervals and p-values.

use std::borrow::Cow;

use headtemper_engine::FinishReason;
use headtemper_hook::Positions;
use headtemper_stats::{
    Interval, SignFlips, averaged_shares, clustered_t, effective_units, paired_shares, sign_flip_test,
};

use crate::{
    Arm, Grader, Item, RandomFrom, Role, Row,
    items::{
        thought::Thoughts,
        units::{sizes, sums, units},
    },
    sweep::{
        arms::likeness,
        asymmetry::{self, Stance},
        beside_random::{SetArm, beside_random},
        compared::{Compared, PerOutcome},
        mark::{JudgedAnswers, Mark, marks_by_rules},
        of_seeds::{accuracy_by_seed, floor_of_seeds},
        outcome::{ArmOutcome, Band, Difference, Flips, Marked, Outcomes, SweepTable, Values, outcome},
        withhold::{withhold, withhold_unjudged},
    },
    text::as_written,
};

/// Sign flips per test: the smallest p is 1 in 5000.
const FLIPS: usize = 4999;
/// Their seed.
const SEED: u64 = 0;

/// The rows of a sweep, and what they answer. Needs no model.
#[derive(Clone, Copy)]
pub struct Answered<'a> {
    /// What was asked.
    pub items: &'a [Item],
    /// The field whose values group items into units, if items are grouped by more than their prompts.
    pub groups: Option<&'a str>,
    /// The arms.
    pub arms: &'a [Arm],
    /// `[arm][seed * items + item]`
    pub rows: &'a [Vec<Row>],
    /// How answers are graded by rules, if they are.
    pub grader: Option<&'a Grader>,
    /// What a judge said of them, if one was asked; it then holds what the rules say of whatever the judge was not asked for.
    pub judged: Option<&'a JudgedAnswers>,
    /// The limit that answers were cut off at.
    pub max_new_tokens: usize,
    /// The temperature that they were drawn at; 0 for greedy ones.
    pub temperature: f32,
    /// Whether the chat template ends a prompt within a thought, as those of some models do.
    pub prompts_open_thought: bool,
}

/// An arm with the values that it is compared by.
pub(super) struct Judged<'a> {
    pub(super) arm: &'a Arm,
    pub(super) outcome: ArmOutcome,
    pub(super) values: Values,
    /// Whether each answer is right, and whether it is asserted.
    stances: Vec<Stance>,
}

/// How one arm differs from the reference.
pub(crate) struct Column {
    /// What each unit contributes, with the sign that a flip changes.
    pub(crate) signed: Vec<f64>,
    /// The difference, and its 95 % interval.
    pub(crate) interval: Interval,
    /// Items that it is over.
    pub(crate) items: usize,
    /// Those of them that differ.
    pub(crate) differing: usize,
}

/// The outcomes of a sweep.
pub fn outcomes_of(answered: &Answered<'_>) -> Outcomes {
    let Answered { items, groups, arms, rows, grader, judged: judge, max_new_tokens, temperature, .. } = *answered;
    let kept = distinct(arms);
    let thoughts = Thoughts { by_prompt: answered.prompts_open_thought };
    let marks: Vec<Cow<'_, [Mark]>> = match judge {
        Some(judge) => kept.iter().map(|&arm| Cow::Borrowed(&judge.marks[arm][..])).collect(),
        None => kept.iter().map(|&arm| Cow::Owned(marks_by_rules(items, &rows[arm], grader, thoughts))).collect(),
    };
    let rows: Vec<&[Row]> = kept.iter().map(|&arm| &rows[arm][..]).collect();
    let arms: Vec<&Arm> = kept.into_iter().map(|arm| &arms[arm]).collect();
    let reference = arms.iter().position(|arm| arm.role == Role::Reference);
    let axes = judge.map_or_else(Vec::new, |judge| judge.axes.clone());
    let answers = |arm: usize| Marked { rows: rows[arm], marks: &marks[arm] };
    let mut judged: Vec<Judged<'_>> = arms
        .iter()
        .enumerate()
        .map(|(at, arm)| {
            let named = (arm.variant.as_str(), as_written(arm.lambda), arm.role);
            let reference = reference.map(|at| rows[at]);
            let (mut outcome, values, stances) = outcome(named, answers(at), &axes, reference);
            let lacking = |which: Compared<'_>| marks[at].iter().filter(|mark| mark.lacks(which, &axes)).count();
            // Without a judge, what is missing is what the rules cannot say.
            let any = || marks[at].iter().any(|mark| mark.right_missing || mark.asserted_missing);
            outcome.unjudged = (judge.is_some() || any()).then(|| PerOutcome::from_fn(&axes, lacking));
            Judged { arm, outcome, values, stances }
        })
        .collect();
    let mut seed_floor = None;
    let units = units(items, groups);
    if let Some(at) = reference {
        withhold(&mut judged, at, &rows, &units);
        for which in Compared::all(&axes) {
            withhold_unjudged(&mut judged, at, (which, &axes), &marks, &units);
            compare(&mut judged, at, which, &units);
            put_beside_random(&mut judged, which);
        }
        seed_floor = floor_of_seeds(items.len(), answers(at), &axes);
    }
    let family = judged.iter().filter(|j| j.arm.role == Role::Tempered && j.outcome.withheld.is_none()).count();
    let seeds = rows.first().copied().unwrap_or_default().iter().step_by(items.len().max(1)).map(|row| row.seed);
    Outcomes {
        schema: "sweep/v1".into(),
        max_new_tokens,
        items: items.len(),
        prompts: units.len(),
        groups: groups.map(String::from),
        seeds: seeds.collect(),
        temperature: as_written(temperature),
        judge: judge.map(|judge| judge.judge.clone()),
        tasks: judge.map_or_else(Vec::new, |judge| judge.tasks.clone()),
        judge_warnings: judge.map_or_else(Vec::new, |judge| judge.warnings.clone()),
        flips: Flips { at_most: FLIPS, seed: SEED, family },
        seed_floor,
        accuracy_by_seed: reference.map_or_else(Vec::new, |at| accuracy_by_seed(items.len(), &marks[at])),
        tables: tables(&judged, &axes, max_new_tokens),
        random: judged.iter().filter(|j| j.arm.role == Role::Random).map(|j| j.outcome.clone()).collect(),
        random_from: random_from(&arms),
        at_context: rows.iter().copied().flatten().filter(|row| at_context(row, max_new_tokens)).count(),
        within_thought: within_thought(items, &rows, thoughts),
        elsewhere: Vec::new(),
        axes,
    }
}

/// Where random sets come from; none if there are some of either kind. Without any, the default.
fn random_from(arms: &[&Arm]) -> Option<RandomFrom> {
    let mut kinds = arms.iter().filter(|arm| arm.role == Role::Random).map(|arm| arm.random_from);
    let first = kinds.next().unwrap_or_default();
    kinds.all(|kind| kind == first).then_some(first)
}

/// Which arms are compared: of random sets, no two with the same heads, such as draws of several seeds have, and none that is tempered
/// itself by now. One set counted twice would pass for two that say the same.
fn distinct(arms: &[Arm]) -> Vec<usize> {
    let same = |one: &Arm, other: &Arm| one.lambda == other.lambda && one.plan == other.plan;
    // A set that was drawn for both kinds counts for both.
    let of_one_kind = |one: &Arm, other: &Arm| same(one, other) && one.random_from == other.random_from;
    let counted = |arm: usize| {
        let before = |(other, one): (usize, &Arm)| match one.role {
            Role::Tempered => same(one, &arms[arm]),
            Role::Random => other < arm && of_one_kind(one, &arms[arm]),
            _ => false,
        };
        arms[arm].role != Role::Random || !arms.iter().enumerate().any(before)
    };
    (0..arms.len()).filter(|&arm| counted(arm)).collect()
}

fn within_thought(items: &[Item], rows: &[&[Row]], thoughts: Thoughts) -> usize {
    let answers = rows.iter().flat_map(|rows| rows.iter().zip(items.iter().cycle()));
    answers.filter(|(row, item)| thoughts.after(&item.input).holds(&row.response)).count()
}

/// Whether an answer was cut off before its limit, which happens only at the end of the context.
fn at_context(row: &Row, max_new_tokens: usize) -> bool {
    row.finish_reason == FinishReason::Length && row.n_tokens < max_new_tokens
}

/// The differences of one outcome, for every arm that can be compared.
fn compare(judged: &mut [Judged<'_>], reference: usize, which: Compared<'_>, units: &[Vec<usize>]) {
    for family in [true, false] {
        let member = |j: &Judged<'_>| {
            let others = matches!(j.arm.role, Role::Control | Role::Random);
            !j.outcome.withholds(which) && if family { j.arm.role == Role::Tempered } else { others }
        };
        let members = (0..judged.len()).filter(|&index| member(&judged[index]));
        let found =
            members.filter_map(|index| Some((index, column(which, (&judged[index], &judged[reference]), units)?)));
        let (members, columns): (Vec<usize>, Vec<Column>) = found.unzip();
        let (p, p_max) = tested(&columns.iter().map(|column| &column.signed[..]).collect::<Vec<_>>());
        for (place, (index, Column { interval, items, differing, .. })) in members.into_iter().zip(columns).enumerate()
        {
            let difference = Difference {
                items,
                differing,
                mean: interval.mean,
                low: interval.low,
                high: interval.high,
                p: p[place],
                p_max: family.then_some(p_max[place]),
                random: None,
            };
            judged[index].outcome.difference.set(which, Some(difference));
        }
    }
}

/// How an arm differs from the reference over the items for which both are known, under one seed at least; none where this cannot be said.
fn column(which: Compared<'_>, (arm, base): (&Judged<'_>, &Judged<'_>), units: &[Vec<usize>]) -> Option<Column> {
    let (values, of_base) = (arm.values.get(which)?, base.values.get(which)?);
    let items = units.iter().map(Vec::len).sum::<usize>();
    // The means of an item, over the seeds for which both are known.
    let means: Vec<Option<(f64, f64)>> = (0..items).map(|item| known_means(values, of_base, item, items)).collect();
    let known = |&item: &usize| means[item].is_some();
    let of_both: Vec<Vec<usize>> = units.iter().map(|of| of.iter().copied().filter(known).collect()).collect();
    let filled: Vec<Vec<usize>> = of_both.iter().filter(|of| !of.is_empty()).cloned().collect();
    if filled.is_empty() {
        return None;
    }
    let mut column = if which == Compared::AssertionAsymmetry {
        let of_both = |own: &[Stance], other: &[Stance]| -> Vec<Stance> {
            own.iter().zip(other).map(|(own, other)| own.filter(|_| other.is_some())).collect()
        };
        let (own, other) = (of_both(&arm.stances, &base.stances), of_both(&base.stances, &arm.stances));
        asymmetry::column(&own, &other, items, &filled)?
    } else {
        let pair = |item: usize| means[item].unwrap_or((f64::NAN, f64::NAN));
        let differences: Vec<f64> = (0..items).map(|item| pair(item).0 - pair(item).1).collect();
        let signed = sums(&differences, &filled);
        let interval = interval(which, &signed, &filled, &pair);
        let differing = filled.iter().flatten().filter(|&&item| pair(item).0 != pair(item).1).count();
        Column { signed, interval, items: filled.iter().map(Vec::len).sum(), differing }
    };
    // Every arm has an entry for every unit, so that a flip changes the same units in all of them; a unit of which nothing is known adds
    // nothing.
    let mut of_filled = column.signed.into_iter();
    column.signed =
        of_both.iter().map(|of| if of.is_empty() { 0.0 } else { of_filled.next().unwrap_or(0.0) }).collect();
    Some(column)
}

/// The means of an item's values under an arm and under the reference, over the seeds for which both are known; none if there is no such
/// seed.
fn known_means(values: &[f64], of_base: &[f64], item: usize, items: usize) -> Option<(f64, f64)> {
    let pairs = values.iter().zip(of_base).skip(item).step_by(items);
    let known = pairs.filter(|(value, base)| value.is_finite() && base.is_finite());
    let (mut sums, mut seeds) = ((0.0, 0.0), 0.0);
    known.for_each(|(value, base)| (sums, seeds) = ((sums.0 + value, sums.1 + base), seeds + 1.0));
    (seeds > 0.0).then_some((sums.0 / seeds, sums.1 / seeds))
}

/// Tango's interval where each item is a unit of its own and either a hit or a miss. For everything else it is Student's for clusters; and
/// where there is a largest difference (shares of several seeds or items, levels of an axis), widened to Tango's over as many draws as would
/// vary as much: what never happened may still happen. None where units are worth less than two of one size: one of them is nearly all.
fn interval(which: Compared<'_>, d: &[f64], units: &[Vec<usize>], pair: &dyn Fn(usize) -> (f64, f64)) -> Interval {
    let whole = |x: f64| x == 0.0 || x == 1.0;
    let hits = which.is_share() && units.iter().flatten().map(|&item| pair(item)).all(|(a, b)| whole(a) && whole(b));
    let sizes = sizes(units);
    if hits && sizes.iter().all(|&size| size == 1) {
        let count = |sign: f64| d.iter().filter(|&&sum| sum * sign > 0.0).count();
        return paired_shares(count(1.0), count(-1.0), d.len());
    }
    let student = clustered_t(d, &sizes);
    if effective_units(sizes.iter().copied()) < 2.0 {
        return Interval { low: f64::NAN, high: f64::NAN, ..student };
    }
    let Some(span) = which.span() else { return student };
    let means: Vec<f64> = d.iter().zip(&sizes).map(|(sum, &size)| sum / size as f64 / span).collect();
    let tango = averaged_shares(&means);
    Interval { low: student.low.min(span * tango.low), high: student.high.max(span * tango.high), ..student }
}

/// Sign-flip p of every column, by itself and for the largest of all columns.
pub(super) fn tested(columns: &[&[f64]]) -> (Vec<f64>, Vec<f64>) {
    let items = columns.first().map_or(0, |column| column.len());
    // Items that differ nowhere are the same under either sign. Without them, a few items have few sign patterns, and all are tried.
    let differing: Vec<usize> = (0..items).filter(|&item| columns.iter().any(|of| of[item] != 0.0)).collect();
    if differing.len() < 2 {
        return (vec![1.0; columns.len()], vec![1.0; columns.len()]);
    }
    let table: Vec<f64> = differing.iter().flat_map(|&item| columns.iter().map(move |of| of[item])).collect();
    let found = sign_flip_test(&table, columns.len(), &SignFlips::new(differing.len(), FLIPS, SEED));
    (found.p, found.p_max)
}

/// Compares each tempered arm with random head sets.
fn put_beside_random(judged: &mut [Judged<'_>], which: Compared<'_>) {
    let sets = judged.iter().enumerate().filter(|(_, j)| matches!(j.arm.role, Role::Tempered | Role::Random));
    let arms = sets.map(|(index, j)| SetArm {
        index,
        random: j.arm.role == Role::Random,
        set: &j.arm.set,
        like: likeness(j.arm),
        lambda: j.arm.lambda,
        mean: j.outcome.difference.of(which).map_or(f64::NAN, |difference| difference.mean),
    });
    let found = beside_random(&arms.collect::<Vec<_>>());
    for (index, found) in found {
        let differences = &mut judged[index].outcome.difference;
        if let Some(&difference) = differences.of(which) {
            differences.set(which, Some(Difference { random: Some(found), ..difference }));
        }
    }
}

/// The random arms that are like an arm, at its λ.
fn alike<'a>(judged: &'a [Judged<'a>], arm: &Arm) -> Vec<&'a ArmOutcome> {
    let own = likeness(arm);
    let like = |other: &Arm| other.lambda == arm.lambda && likeness(other) == own;
    judged.iter().filter(|j| j.arm.role == Role::Random && like(j.arm)).map(|j| &j.outcome).collect()
}

fn means(outcomes: &[&ArmOutcome], which: Compared<'_>) -> Vec<f64> {
    outcomes.iter().filter_map(|outcome| outcome.difference.of(which).map(|difference| difference.mean)).collect()
}

/// One table for each head set and the tokens at which it is tempered. Arms of earlier calls join those that are asked for now.
fn tables(judged: &[Judged<'_>], axes: &[String], max_new_tokens: usize) -> Vec<SweepTable> {
    // The reference, and the controls at these positions.
    let shared = |positions: Option<Positions>| -> Vec<ArmOutcome> {
        let at = |j: &&Judged<'_>| match j.arm.role {
            Role::Reference => true,
            Role::Control => positions.is_none_or(|positions| j.arm.plan.positions() == positions),
            _ => false,
        };
        judged.iter().filter(at).map(|j| j.outcome.clone()).collect()
    };
    let mut tables: Vec<SweepTable> = Vec::new();
    for j in judged.iter().filter(|j| j.arm.role == Role::Tempered) {
        let (set, positions) = (j.arm.set.replace('+', " "), j.arm.plan.positions());
        let own = tables.iter().position(|table| table.set == set && table.positions == positions);
        let own = own.unwrap_or_else(|| {
            let heads = j.arm.plan.iter().map(|(at, _)| at).collect();
            let arms = shared(Some(positions));
            tables.push(SweepTable { set, heads, positions, max_new_tokens, arms, bands: Vec::new() });
            tables.len() - 1
        });
        let table = &mut tables[own];
        table.arms.push(j.outcome.clone());
        let random = alike(judged, j.arm);
        if !random.is_empty() {
            let range = |which: Compared<'_>| {
                let mut means = means(&random, which);
                means.sort_by(f64::total_cmp);
                Some((*means.first()?, *means.last()?))
            };
            let compared = PerOutcome::from_fn(axes, |which| means(&random, which).len());
            let (lambda, sets) = (j.outcome.lambda, random.len());
            table.bands.push(Band { lambda, sets, compared, range: PerOutcome::from_fn(axes, range) });
        }
    }
    let arms = if tables.is_empty() { shared(None) } else { Vec::new() };
    if !arms.is_empty() {
        let (set, heads, positions) = ("none".into(), Vec::new(), Positions::All);
        tables.push(SweepTable { set, heads, positions, max_new_tokens, arms, bands: Vec::new() });
    }
    tables
}

#[cfg(test)]
mod tests;
