//! Arms of a sweep against its reference, item by item, with intervals and p-values.

use std::borrow::Cow;

use headtemper_engine::FinishReason;
use headtemper_stats::{Interval, SignFlips, averaged_shares, clustered_t, mean, paired_shares, sign_flip_test};

use crate::{
    Arm, Grader, Item, RandomFrom, Role, Row,
    items::units::{sizes, sums, units},
    sweep::{
        arms::likeness,
        asymmetry::{self, Stance},
        beside_random::{SetArm, beside_random},
        mark::{JudgedAnswers, Mark, marks_by_rules},
        outcome::{
            ArmOutcome, Band, Compared, Difference, Flips, Marked, Outcomes, PerOutcome, SeedFloor, SweepTable,
            UNEQUAL_SHARES, Values, outcome,
        },
    },
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
}

/// An arm with the values that it is compared by.
struct Judged<'a> {
    arm: &'a Arm,
    outcome: ArmOutcome,
    values: Values,
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
    let Answered { items, groups, arms, rows, grader, judged: judge, max_new_tokens } = *answered;
    let reference = arms.iter().position(|arm| arm.role == Role::Reference);
    let axes = judge.map_or_else(Vec::new, |judge| judge.axes.clone());
    let marks: Vec<Cow<'_, [Mark]>> = match judge {
        Some(judge) => judge.marks.iter().map(|marks| Cow::Borrowed(&marks[..])).collect(),
        None => rows.iter().map(|rows| Cow::Owned(marks_by_rules(items, rows, grader))).collect(),
    };
    let answers = |arm: usize| Marked { rows: &rows[arm], marks: &marks[arm] };
    let mut judged: Vec<Judged<'_>> = arms
        .iter()
        .enumerate()
        .map(|(at, arm)| {
            // 0.9 as it was written, not the f64 closest to the f32 closest to it
            let lambda = arm.lambda.to_string().parse().unwrap_or(f64::from(arm.lambda));
            let named = (arm.variant.as_str(), lambda, arm.role);
            let reference = reference.map(|at| rows[at].as_slice());
            let (mut outcome, values, stances) = outcome(named, items.len(), answers(at), &axes, reference);
            outcome.unjudged = judge.map(|_| marks[at].iter().filter(|mark| mark.unjudged).count());
            Judged { arm, outcome, values, stances }
        })
        .collect();
    let mut seed_floor = None;
    let units = units(items, groups);
    if let Some(at) = reference {
        withhold(&mut judged, at);
        for which in Compared::all(&axes) {
            compare(&mut judged, at, which, &units);
            put_beside_random(&mut judged, which);
        }
        seed_floor = floor_of_seeds(items.len(), answers(at), &axes);
    }
    let family = judged.iter().filter(|j| j.arm.role == Role::Tempered && j.outcome.withheld.is_none()).count();
    let seeds = rows.first().map_or(&[][..], Vec::as_slice).iter().step_by(items.len().max(1)).map(|row| row.seed);
    Outcomes {
        schema: "sweep/v1".into(),
        max_new_tokens,
        items: items.len(),
        prompts: units.len(),
        groups: groups.map(String::from),
        seeds: seeds.collect(),
        judge: judge.map(|judge| judge.judge.clone()),
        flips: Flips { at_most: FLIPS, seed: SEED, family },
        seed_floor,
        tables: tables(&judged, &axes, max_new_tokens),
        random: judged.iter().filter(|j| j.arm.role == Role::Random).map(|j| j.outcome.clone()).collect(),
        random_from: arms.iter().find(|arm| arm.role == Role::Random).map_or(RandomFrom::Model, |arm| arm.random_from),
        at_context: rows.iter().flatten().filter(|row| at_context(row, max_new_tokens)).count(),
        elsewhere: Vec::new(),
        axes,
    }
}

/// Whether an answer was cut off before its limit, which happens only at the end of the context.
fn at_context(row: &Row, max_new_tokens: usize) -> bool {
    row.finish_reason == FinishReason::Length && row.n_tokens < max_new_tokens
}

/// Marks the arms that were cut off, or whose verdicts are missing, more or less often than the reference: what is compared would be chosen
/// by the arm.
fn withhold(judged: &mut [Judged<'_>], reference: usize) {
    let unjudged = |of: &ArmOutcome| of.unjudged.map_or(0.0, |n| n as f64 / of.n as f64);
    let of_reference = &judged[reference].outcome;
    let (cut_there, unjudged_there) = (of_reference.truncated, unjudged(of_reference));
    for Judged { outcome, .. } in judged {
        // Two of a hundred must not exceed two of a hundred because shares are rounded. And one answer, however large its share of a few,
        // can make no difference that counts.
        let unequal = |here: f64, there: f64| {
            let gap = (here - there).abs();
            gap > UNEQUAL_SHARES + 1e-9 && gap * outcome.n as f64 > 1.0 + 1e-9
        };
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let (cut, unjudged) = (outcome.truncated, unjudged(outcome));
        if unequal(cut, cut_there) {
            let (here, there) = (percent(cut), percent(cut_there));
            outcome.withheld = Some(format!("{here} of its answers were cut off, of the reference's {there}"));
        } else if unequal(unjudged, unjudged_there) {
            let (here, there) = (percent(unjudged), percent(unjudged_there));
            outcome.withheld = Some(format!("{here} of its answers lack a verdict, of the reference's {there}"));
        }
    }
}

/// The differences of one outcome, for every arm that can be compared.
fn compare(judged: &mut [Judged<'_>], reference: usize, which: Compared<'_>, units: &[Vec<usize>]) {
    for family in [true, false] {
        let member = |j: &Judged<'_>| {
            let others = matches!(j.arm.role, Role::Control | Role::Random);
            j.outcome.withheld.is_none() && if family { j.arm.role == Role::Tempered } else { others }
        };
        let members = (0..judged.len()).filter(|&index| member(&judged[index]));
        let found =
            members.filter_map(|index| Some((index, column(which, (&judged[index], &judged[reference]), units)?)));
        let (members, columns): (Vec<usize>, Vec<Column>) = found.unzip();
        let (p, p_max) = tested(&columns);
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

/// How an arm differs from the reference over the items for which both are known; none where this cannot be said.
fn column(which: Compared<'_>, (arm, base): (&Judged<'_>, &Judged<'_>), units: &[Vec<usize>]) -> Option<Column> {
    let (values, of_base) = (arm.values.get(which)?, base.values.get(which)?);
    let known = |&item: &usize| values[item].is_finite() && of_base[item].is_finite();
    let of_both: Vec<Vec<usize>> = units.iter().map(|of| of.iter().copied().filter(known).collect()).collect();
    let filled: Vec<Vec<usize>> = of_both.iter().filter(|of| !of.is_empty()).cloned().collect();
    if filled.is_empty() {
        return None;
    }
    let mut column = if which == Compared::AssertionAsymmetry {
        asymmetry::column(&arm.stances, &base.stances, of_base.len(), &filled)?
    } else {
        let differences: Vec<f64> = values.iter().zip(of_base).map(|(value, base)| value - base).collect();
        let signed = sums(&differences, &filled);
        let interval = interval(which, &signed, &filled, &|item| (values[item], of_base[item]));
        let differing = filled.iter().flatten().filter(|&&item| values[item] != of_base[item]).count();
        Column { signed, interval, items: filled.iter().map(Vec::len).sum(), differing }
    };
    // Every arm has an entry for every unit, so that a flip changes the same units in all of them; a unit of which nothing is known adds
    // nothing.
    let mut of_filled = column.signed.into_iter();
    column.signed =
        of_both.iter().map(|of| if of.is_empty() { 0.0 } else { of_filled.next().unwrap_or(0.0) }).collect();
    Some(column)
}

/// Tango's interval where each item is a unit of its own and either a hit or a miss. For everything else it is Student's for clusters; and
/// where there is a largest difference, widened to Tango's over as many draws as would vary as much: what never happened may still happen.
/// So it is with shares of several seeds or items, and with levels of an axis as long as few units differ.
fn interval(which: Compared<'_>, d: &[f64], units: &[Vec<usize>], pair: &dyn Fn(usize) -> (f64, f64)) -> Interval {
    let whole = |x: f64| x == 0.0 || x == 1.0;
    let hits = which.is_share() && units.iter().flatten().map(|&item| pair(item)).all(|(a, b)| whole(a) && whole(b));
    let sizes = sizes(units);
    if hits && sizes.iter().all(|&size| size == 1) {
        let count = |sign: f64| d.iter().filter(|&&sum| sum * sign > 0.0).count();
        return paired_shares(count(1.0), count(-1.0), d.len());
    }
    let student = clustered_t(d, &sizes);
    let Some(span) = which.span() else { return student };
    // Levels that often differ show how they vary.
    if matches!(which, Compared::Score(_)) && d.iter().filter(|d| **d != 0.0).count() >= asymmetry::LEAST {
        return student;
    }
    let means: Vec<f64> = d.iter().zip(&sizes).map(|(sum, &size)| sum / size as f64 / span).collect();
    let tango = averaged_shares(&means);
    Interval { low: student.low.min(span * tango.low), high: student.high.max(span * tango.high), ..student }
}

/// Sign-flip p of every column, by itself and for the largest of all columns.
fn tested(columns: &[Column]) -> (Vec<f64>, Vec<f64>) {
    let items = columns.first().map_or(0, |column| column.signed.len());
    // Items that differ nowhere are the same under either sign. Without them, a few items have few sign patterns, and all are tried.
    let differing: Vec<usize> = (0..items).filter(|&item| columns.iter().any(|of| of.signed[item] != 0.0)).collect();
    if differing.len() < 2 {
        return (vec![1.0; columns.len()], vec![1.0; columns.len()]);
    }
    let table: Vec<f64> = differing.iter().flat_map(|&item| columns.iter().map(move |of| of.signed[item])).collect();
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
fn alike<'a>(judged: &'a [Judged<'a>], arm: &'a Arm) -> impl Iterator<Item = &'a Judged<'a>> {
    let like = move |other: &Arm| other.lambda == arm.lambda && likeness(other) == likeness(arm);
    judged.iter().filter(move |j| j.arm.role == Role::Random && like(j.arm))
}

fn random_means<'a>(judged: &'a [Judged<'a>], arm: &'a Arm, which: Compared<'_>) -> Vec<f64> {
    alike(judged, arm).filter_map(|j| j.outcome.difference.of(which).map(|difference| difference.mean)).collect()
}

fn tables(judged: &[Judged<'_>], axes: &[String], max_new_tokens: usize) -> Vec<SweepTable> {
    let shared: Vec<ArmOutcome> = judged
        .iter()
        .filter(|j| matches!(j.arm.role, Role::Reference | Role::Control))
        .map(|j| j.outcome.clone())
        .collect();
    let mut tables: Vec<SweepTable> = Vec::new();
    for j in judged.iter().filter(|j| j.arm.role == Role::Tempered) {
        let set = j.arm.set.replace('+', " ");
        if tables.last().is_none_or(|table| table.set != set) {
            let heads = j.arm.plan.iter().map(|(at, _)| at).collect();
            tables.push(SweepTable { set, heads, max_new_tokens, arms: shared.clone(), bands: Vec::new() });
        }
        let table = tables.last_mut().expect("one was pushed");
        table.arms.push(j.outcome.clone());
        let sets = alike(judged, j.arm).count();
        if sets > 0 {
            let range = |which: Compared<'_>| {
                let mut means = random_means(judged, j.arm, which);
                means.sort_by(f64::total_cmp);
                Some((*means.first()?, *means.last()?))
            };
            let compared = alike(judged, j.arm).filter(|j| j.outcome.withheld.is_none()).count();
            let lambda = j.outcome.lambda;
            table.bands.push(Band { lambda, sets, compared, range: PerOutcome::from_fn(axes, range) });
        }
    }
    if tables.is_empty() && !shared.is_empty() {
        let (set, heads) = ("none".into(), Vec::new());
        tables.push(SweepTable { set, heads, max_new_tokens, arms: shared, bands: Vec::new() });
    }
    tables
}

/// How much another seed changes the reference's answers, which are in the order `[seed * items + item]`.
fn floor_of_seeds(items: usize, Marked { rows, marks }: Marked<'_>, axes: &[String]) -> Option<SeedFloor> {
    let chunk = items.max(1);
    let seeds: Vec<Marked<'_>> =
        rows.chunks(chunk).zip(marks.chunks(chunk)).map(|(rows, marks)| Marked { rows, marks }).collect();
    let pairs: Vec<(usize, usize)> = (0..seeds.len()).flat_map(|one| (0..one).map(move |other| (one, other))).collect();
    if pairs.is_empty() {
        return None;
    }
    let named = ("", 1.0, Role::Reference);
    let against = |&(one, other): &(usize, usize)| {
        let other: &[Row] = seeds[other].rows;
        outcome(named, items, seeds[one], axes, Some(other)).0.changed
    };
    let of_seeds: Vec<(ArmOutcome, Values)> = seeds
        .iter()
        .map(|&answers| {
            let (outcome, values, _) = outcome(named, items, answers, axes, None);
            (outcome, values)
        })
        .collect();
    let largest = |which: Compared<'_>| {
        let means: Vec<f64> = of_seeds
            .iter()
            .map(|(outcome, values)| {
                if which == Compared::AssertionAsymmetry {
                    return outcome.assertion_asymmetry.unwrap_or(f64::NAN);
                }
                let of = values.get(which).into_iter().flatten();
                mean(&of.copied().filter(|x| x.is_finite()).collect::<Vec<_>>())
            })
            .collect();
        let gaps = pairs.iter().map(|&(one, other)| (means[one] - means[other]).abs());
        gaps.filter(|gap| gap.is_finite()).max_by(f64::total_cmp)
    };
    Some(SeedFloor {
        pairs: pairs.len(),
        changed: mean(&pairs.iter().map(against).collect::<Vec<_>>()),
        largest: PerOutcome::from_fn(axes, largest),
    })
}

#[cfg(test)]
mod tests;
