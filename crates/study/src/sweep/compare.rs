//! Arms of a sweep against its reference, item by item, and what that is worth.

use headtemper_stats::{Interval, SignFlips, clustered_t, mean, paired_shares, sign_flip_test};

use crate::{
    Arm, Item, Judge, Role, Row,
    items::units::{sizes, sums, units},
    sweep::{
        arms::composition,
        beside_random::{SetArm, beside_random},
        outcome::{
            ArmOutcome, Band, Compared, Difference, Flips, Outcomes, PerOutcome, SeedFloor, SweepTable,
            UNEQUAL_TRUNCATION, Values, outcome,
        },
    },
};

/// Sign flips of a test: the smallest p is 1 in 5000.
const FLIPS: usize = 4999;
/// Their seed.
const SEED: u64 = 0;

/// An arm with what it is compared by.
struct Judged<'a> {
    arm: &'a Arm,
    outcome: ArmOutcome,
    values: Values,
}

/// The outcomes of a sweep whose rows are `[arm][seed * items + item]`.
pub fn outcomes_of(
    items: &[Item],
    arms: &[Arm],
    rows: &[Vec<Row>],
    judge: Option<&Judge>,
    max_new_tokens: usize,
) -> Outcomes {
    let reference = arms.iter().position(|arm| arm.role == Role::Reference);
    let mut judged: Vec<Judged<'_>> = arms
        .iter()
        .zip(rows)
        .map(|(arm, of)| {
            // 0.9 as it was written, not the f64 nearest to the f32 nearest to it
            let lambda = arm.lambda.to_string().parse().unwrap_or(f64::from(arm.lambda));
            let named = (arm.variant.as_str(), lambda, arm.role);
            let (outcome, values) = outcome(named, items, of, reference.map(|at| rows[at].as_slice()), judge);
            Judged { arm, outcome, values }
        })
        .collect();
    let mut seed_floor = None;
    let prompts = units(items);
    if let Some(at) = reference {
        withhold(&mut judged, at);
        for which in Compared::ALL {
            compare(&mut judged, at, which, &prompts);
            put_beside_random(&mut judged, which);
        }
        seed_floor = floor_of_seeds(items, &rows[at], judge);
    }
    let family = judged.iter().filter(|j| j.arm.role == Role::Tempered && j.outcome.withheld.is_none()).count();
    let seeds = rows.first().map_or(&[][..], Vec::as_slice).iter().step_by(items.len().max(1)).map(|row| row.seed);
    Outcomes {
        schema: "sweep/v1".into(),
        max_new_tokens,
        items: items.len(),
        prompts: prompts.len(),
        seeds: seeds.collect(),
        flips: Flips { at_most: FLIPS, seed: SEED, family },
        seed_floor,
        tables: tables(&judged, max_new_tokens),
        random: judged.iter().filter(|j| j.arm.role == Role::Random).map(|j| j.outcome.clone()).collect(),
    }
}

/// Marks the arms that were cut off more or less often than the reference.
fn withhold(judged: &mut [Judged<'_>], reference: usize) {
    let expected = judged[reference].outcome.truncated;
    for Judged { outcome, .. } in judged {
        // Two of a hundred are not more than two of a hundred for the rounding of shares.
        if (outcome.truncated - expected).abs() > UNEQUAL_TRUNCATION + 1e-9 {
            let (here, there) = (100.0 * outcome.truncated, 100.0 * expected);
            let why = format!("{here:.1} % of its answers were cut off, of the reference's {there:.1} %");
            outcome.withheld = Some(why);
        }
    }
}

/// The differences of one outcome, for every arm that can be compared.
fn compare(judged: &mut [Judged<'_>], reference: usize, which: Compared, prompts: &[Vec<usize>]) {
    let base = judged[reference].values.of(which).clone();
    let judgeable = |of: &Vec<usize>| of.iter().copied().filter(|&item| base[item].is_finite()).collect::<Vec<_>>();
    let prompts: Vec<Vec<usize>> = prompts.iter().map(judgeable).filter(|of| !of.is_empty()).collect();
    if prompts.is_empty() {
        return;
    }
    let shared: Vec<usize> = prompts.iter().flatten().copied().collect();
    let differences = |values: &Values| -> Vec<f64> {
        sums(&values.of(which).iter().zip(&base).map(|(value, base)| value - base).collect::<Vec<_>>(), &prompts)
    };
    for family in [true, false] {
        let member = |j: &Judged<'_>| {
            let others = matches!(j.arm.role, Role::Control | Role::Random);
            j.outcome.withheld.is_none() && if family { j.arm.role == Role::Tempered } else { others }
        };
        let members: Vec<usize> = (0..judged.len()).filter(|&index| member(&judged[index])).collect();
        let columns: Vec<Vec<f64>> = members.iter().map(|&index| differences(&judged[index].values)).collect();
        let (p, p_max) = tested(&columns);
        for (place, (&index, d)) in members.iter().zip(&columns).enumerate() {
            let values = judged[index].values.of(which);
            let found = interval(which, d, &prompts, &|item| (values[item], base[item]));
            let differing = shared.iter().filter(|&&item| values[item] != base[item]).count();
            *judged[index].outcome.difference.of_mut(which) = Some(Difference {
                items: shared.len(),
                differing,
                mean: found.mean,
                low: found.low,
                high: found.high,
                p: p[place],
                p_max: family.then_some(p_max[place]),
                random: None,
            });
        }
    }
}

/// Tango's interval where an item is a hit or none, Student's where seeds were averaged or tokens counted. Over prompts of several
/// items it is Student's for clusters; where the items of each prompt agree, Tango's over prompts if that is wider, which minds
/// that what never happened may happen.
fn interval(which: Compared, d: &[f64], prompts: &[Vec<usize>], pair: &dyn Fn(usize) -> (f64, f64)) -> Interval {
    let whole = |x: f64| x == 0.0 || x == 1.0;
    let hits = which.is_share() && prompts.iter().flatten().map(|&item| pair(item)).all(|(a, b)| whole(a) && whole(b));
    let sizes = sizes(prompts);
    let agree = d.iter().zip(&sizes).all(|(sum, &size)| *sum == 0.0 || sum.abs() == size as f64);
    let tango = (hits && agree).then(|| {
        let count = |sign: f64| d.iter().filter(|&&sum| sum * sign > 0.0).count();
        paired_shares(count(1.0), count(-1.0), d.len())
    });
    match tango {
        Some(tango) if sizes.iter().all(|&size| size == 1) => tango,
        Some(tango) => {
            let student = clustered_t(d, &sizes);
            Interval { low: student.low.min(tango.low), high: student.high.max(tango.high), ..student }
        }
        None => clustered_t(d, &sizes),
    }
}

/// Sign-flip p of every column, alone and for the largest of them.
fn tested(columns: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let items = columns.first().map_or(0, Vec::len);
    // Items that differ nowhere are the same under either sign; without them, few have few patterns, and all are tried.
    let differing: Vec<usize> = (0..items).filter(|&item| columns.iter().any(|d| d[item] != 0.0)).collect();
    if differing.len() < 2 {
        return (vec![1.0; columns.len()], vec![1.0; columns.len()]);
    }
    let table: Vec<f64> = differing.iter().flat_map(|&item| columns.iter().map(move |d| d[item])).collect();
    let found = sign_flip_test(&table, columns.len(), &SignFlips::new(differing.len(), FLIPS, SEED));
    (found.p, found.p_max)
}

/// Puts each tempered arm beside random head sets.
fn put_beside_random(judged: &mut [Judged<'_>], which: Compared) {
    let sets = judged.iter().enumerate().filter(|(_, j)| matches!(j.arm.role, Role::Tempered | Role::Random));
    let arms = sets.map(|(index, j)| SetArm {
        index,
        random: j.arm.role == Role::Random,
        set: &j.arm.set,
        size: size_of(j.arm),
        lambda: j.arm.lambda,
        mean: j.outcome.difference.of(which).map_or(f64::NAN, |difference| difference.mean),
    });
    let found = beside_random(&arms.collect::<Vec<_>>());
    for (index, found) in found {
        if let Some(difference) = judged[index].outcome.difference.of_mut(which) {
            difference.random = Some(found);
        }
    }
}

/// How many heads of each kind an arm tempers.
fn size_of(arm: &Arm) -> (usize, usize) {
    composition(arm.plan.iter().map(|(at, _)| at))
}

/// The random arms that are like an arm.
fn alike<'a>(judged: &'a [Judged<'a>], arm: &'a Arm) -> impl Iterator<Item = &'a Judged<'a>> {
    let like = move |other: &Arm| other.lambda == arm.lambda && size_of(other) == size_of(arm);
    judged.iter().filter(move |j| j.arm.role == Role::Random && like(j.arm))
}

fn random_means<'a>(judged: &'a [Judged<'a>], arm: &'a Arm, which: Compared) -> Vec<f64> {
    alike(judged, arm).filter_map(|j| j.outcome.difference.of(which).map(|difference| difference.mean)).collect()
}

fn tables(judged: &[Judged<'_>], max_new_tokens: usize) -> Vec<SweepTable> {
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
            let range = |which| {
                let mut means = random_means(judged, j.arm, which);
                means.sort_by(f64::total_cmp);
                Some((*means.first()?, *means.last()?))
            };
            let compared = alike(judged, j.arm).filter(|j| j.outcome.withheld.is_none()).count();
            let lambda = j.outcome.lambda;
            table.bands.push(Band { lambda, sets, compared, range: PerOutcome::from_fn(range) });
        }
    }
    if tables.is_empty() && !shared.is_empty() {
        let (set, heads) = ("none".into(), Vec::new());
        tables.push(SweepTable { set, heads, max_new_tokens, arms: shared, bands: Vec::new() });
    }
    tables
}

/// What another seed moves in the reference's rows, `[seed * items + item]`.
fn floor_of_seeds(items: &[Item], rows: &[Row], judge: Option<&Judge>) -> Option<SeedFloor> {
    let seeds: Vec<&[Row]> = rows.chunks(items.len().max(1)).collect();
    let pairs: Vec<(usize, usize)> = (0..seeds.len()).flat_map(|one| (0..one).map(move |other| (one, other))).collect();
    if pairs.is_empty() {
        return None;
    }
    let named = ("", 1.0, Role::Reference);
    let against =
        |&(one, other): &(usize, usize)| outcome(named, items, seeds[one], Some(seeds[other]), judge).0.changed;
    let values: Vec<Values> = seeds.iter().map(|rows| outcome(named, items, rows, None, judge).1).collect();
    let largest = |which| {
        let means: Vec<f64> = values
            .iter()
            .map(|values| mean(&values.of(which).iter().copied().filter(|x| x.is_finite()).collect::<Vec<_>>()))
            .collect();
        let gaps = pairs.iter().map(|&(one, other)| (means[one] - means[other]).abs());
        gaps.filter(|gap| gap.is_finite()).max_by(f64::total_cmp)
    };
    Some(SeedFloor {
        pairs: pairs.len(),
        changed: mean(&pairs.iter().map(against).collect::<Vec<_>>()),
        largest: PerOutcome::from_fn(largest),
    })
}

#[cfg(test)]
mod tests {
    use headtemper_engine::{FinishReason, Input};
    use headtemper_hook::HeadRef;

    use super::*;
    use crate::{
        ArmsWanted, GoldRule, arms,
        sweep::outcome::{BesideRandom, Difference},
    };

    const ITEMS: usize = 50;

    fn items() -> Vec<Item> {
        let item = |i: usize| Item {
            id: format!("q{i}"),
            input: Input::Prompt(format!("which is {i}?")),
            prompt_len: None,
            response: None,
            label: None,
            scores: std::collections::BTreeMap::new(),
            gold: vec!["yes".into()],
            other: serde_json::Map::new(),
        };
        (0..ITEMS).map(item).collect()
    }

    /// An answer of so many tokens.
    fn row(arm: &Arm, item: usize, seed: u64, text: &str, tokens: usize) -> Row {
        Row {
            key: format!("{}-{item}-{seed}", arm.variant),
            id: format!("q{item}"),
            variant: arm.variant.clone(),
            seed,
            prompt: "?".into(),
            response: text.into(),
            finish_reason: FinishReason::Stop,
            n_tokens: tokens,
            sum_logprob: -0.5 * tokens as f64,
            response_ids: vec![u32::from(text == "yes"), tokens as u32],
            touched: true,
        }
    }

    fn made(random_sets: usize) -> Vec<Arm> {
        let slots: Vec<HeadRef> = (0..9).map(|head| HeadRef::query(0, head)).collect();
        let sets = [vec![HeadRef::query(0, 0)], vec![HeadRef::query(0, 1)]];
        let wanted = ArmsWanted { sets: &sets, lambdas: &[1.0, 1.0, 0.5], random_sets, ..ArmsWanted::default() };
        arms(&wanted, &slots).unwrap()
    }

    /// The untouched model is right on all items but the first ten; the first head loses items 10 to 21.
    fn answers(arms: &[Arm], seeds: u64) -> Vec<Vec<Row>> {
        let right = |arm: &Arm, item: usize| item >= 10 && !(arm.set == "L0H0" && item < 22);
        let text = |arm: &Arm, item| if right(arm, item) { "yes" } else { "no, perhaps" };
        let of = |arm: &Arm| {
            let cells = (0..seeds).flat_map(|seed| (0..ITEMS).map(move |item| (seed, item)));
            cells.map(|(seed, item)| row(arm, item, seed, text(arm, item), 5 + usize::from(item == 0))).collect()
        };
        arms.iter().map(of).collect()
    }

    fn accuracy(outcomes: &Outcomes, table: usize) -> Difference {
        outcomes.tables[table].arms.last().unwrap().difference.accuracy.unwrap()
    }

    #[test]
    fn arms_are_compared_item_by_item() {
        let arms = made(3);
        let judge = Judge::new(["perhaps"].into_iter());
        let outcomes = outcomes_of(&items(), &arms, &answers(&arms, 1), Some(&judge), 9);
        let roles: Vec<Role> = outcomes.tables[0].arms.iter().map(|arm| arm.role).collect();
        assert_eq!(roles, [Role::Reference, Role::Control, Role::Tempered]);
        let lost = accuracy(&outcomes, 0);
        let tango = paired_shares(0, 12, ITEMS);
        assert_eq!((lost.items, lost.differing, lost.mean), (ITEMS, 12, -0.24));
        assert_eq!((lost.low, lost.high), (tango.low, tango.high));
        // All twelve of one sign: two of 2^12 patterns.
        assert_eq!((lost.p, lost.p_max), (2.0 / 4096.0, Some(2.0 / 4096.0)));
        // None of three random sets does it; but the largest of two arms stands out of five sets in two of five cases.
        let beside = lost.random.unwrap();
        assert_eq!((beside.sets, beside.reach, beside.p), (3, 0, 1.0 / 4.0));
        assert!((beside.p_max - 2.0 / 5.0).abs() < 1e-12, "{beside:?}");
        let same = accuracy(&outcomes, 1);
        assert_eq!((same.differing, same.p, same.p_max), (0, 1.0, Some(1.0)));
        assert_eq!(same.random, Some(BesideRandom { sets: 3, reach: 3, p: 1.0, p_max: 1.0 }));
        assert!(same.low < 0.0 && same.high > 0.0, "that no item differs is not certainty");
        let tokens = outcomes.tables[0].arms[2].difference.mean_tokens.unwrap();
        assert!(tokens.mean == 0.0 && tokens.low.is_nan() && tokens.p == 1.0, "no spread, no interval");
        assert_eq!(outcomes.tables[0].bands[0].range.accuracy, Some((0.0, 0.0)));
        assert_eq!((outcomes.flips.family, outcomes.random.len(), outcomes.seed_floor), (2, 3, None));
        let untouched = &outcomes.tables[0].arms[0];
        assert_eq!((untouched.accuracy, untouched.assertion_rate, untouched.mean_logprob), (0.8, 0.8, -0.5));
        assert_eq!((untouched.assertion_asymmetry, outcomes.tables[0].arms[2].changed), (Some(-1.0), 0.24));
    }

    #[test]
    fn right_is_what_the_judge_calls_right() {
        let arms = made(0);
        let mut rows = answers(&arms, 1);
        rows[0][20].response = "yes, it is".into();
        let of = |judge: Option<&Judge>| outcomes_of(&items(), &arms, &rows, judge, 9).tables[0].arms[0].accuracy;
        assert_eq!((of(None), of(Some(&Judge::by_gold(GoldRule::Exact)))), (0.8, 0.78));
    }

    #[test]
    fn seeds_of_an_item_are_no_further_items() {
        let arms = made(0);
        let (one, three) = (answers(&arms, 1), answers(&arms, 3));
        let (once, thrice) =
            (outcomes_of(&items(), &arms, &one, None, 9), outcomes_of(&items(), &arms, &three, None, 9));
        assert_eq!(accuracy(&once, 0), accuracy(&thrice, 0), "the same answers three times tell no more");
        assert_eq!((thrice.items, &thrice.seeds[..]), (ITEMS, &[0, 1, 2][..]));
        assert_eq!(thrice.seed_floor.unwrap().changed, 0.0);
        // One seed of one item differs: a third of an item, and no share any more.
        let mut three = three;
        three[2][ITEMS + 30].response = "no".into();
        three[0][2 * ITEMS + 40].response_ids = vec![7];
        three[0][2 * ITEMS + 40].n_tokens = 45;
        let found = outcomes_of(&items(), &arms, &three, None, 9);
        let third = accuracy(&found, 0);
        assert!((third.mean - (-12.0 - 1.0 / 3.0) / ITEMS as f64).abs() < 1e-12 && third.differing == 13);
        let floor = found.seed_floor.unwrap();
        assert_eq!((floor.pairs, floor.largest.accuracy, floor.largest.assertion_rate), (3, Some(0.0), None));
        assert!((floor.changed - 2.0 / 3.0 / ITEMS as f64).abs() < 1e-12);
        assert!((floor.largest.mean_tokens.unwrap() - 40.0 / ITEMS as f64).abs() < 1e-12);
    }

    /// Twelve questions five times each: what four of them do is known of four, and not of twenty.
    #[test]
    fn items_of_one_prompt_are_one() {
        let arms = made(0);
        let prompt = |item: usize| (item / 5).min(9);
        let mut items = items();
        for (index, item) in items.iter_mut().enumerate() {
            item.input = Input::Prompt(format!("what is {}?", prompt(index)));
        }
        let right = |arm: &Arm, item: usize| !(arm.set == "L0H0" && prompt(item) < 4);
        let text = |arm: &Arm, item| if right(arm, item) { "yes" } else { "no" };
        let rows = |arm: &Arm| (0..ITEMS).map(|item| row(arm, item, 0, text(arm, item), 5)).collect();
        let rows: Vec<Vec<Row>> = arms.iter().map(rows).collect();
        let found = outcomes_of(&items, &arms, &rows, None, 9);
        let lost = accuracy(&found, 0);
        assert_eq!((found.items, found.prompts, lost.items, lost.differing), (ITEMS, 10, ITEMS, 20));
        assert!((lost.mean + 0.4).abs() < 1e-12);
        assert_eq!(lost.p, 2.0 / 16.0, "all four of one sign: two of 2^4 patterns");
        let [four, six] = [-1.0, 0.0].map(|d| [d; 10]);
        // Wider than Tango's over ten prompts, of which four were lost.
        let tango = paired_shares(0, 4, 10);
        let student = headtemper_stats::paired_t(&[&four[..4], &six[..6]].concat());
        assert_eq!((lost.low, lost.high), (student.low.min(tango.low), student.high.max(tango.high)));
        assert!(found.warnings().iter().any(|warning| warning.contains("50 items have 10 prompts")));
        assert!(found.warnings().iter().any(|warning| warning.contains("the reference is right on every item")));
        // Prompts of unequal size: the mean is that of the items.
        items[49].input = Input::Prompt("another".into());
        let uneven = accuracy(&outcomes_of(&items, &arms, &rows, None, 9), 0);
        assert!((uneven.mean + 0.4).abs() < 1e-12 && uneven.p == 2.0 / 16.0);
        // What never happened may happen: no prompt differs, and the interval is that of so many prompts.
        let none = accuracy(&outcomes_of(&items, &arms, &rows, None, 9), 1);
        assert!(none.differing == 0 && none.low < -0.2 && none.high > 0.2, "{none:?}");
    }

    /// Three λ of one set beside 39 random ones: at whichever λ it stands out most, one in forty does by chance.
    #[test]
    fn several_lambdas_of_a_set_are_one_set() {
        let slots: Vec<HeadRef> = (0..60).map(|head| HeadRef::query(0, head)).collect();
        let sets = [vec![HeadRef::query(0, 0)]];
        let wanted =
            ArmsWanted { sets: &sets, lambdas: &[1.0, 1.0, 0.9, 0.5, 0.0], random_sets: 39, ..ArmsWanted::default() };
        let arms = arms(&wanted, &slots).unwrap();
        let found = outcomes_of(&items(), &arms, &answers(&arms, 1), None, 9);
        let beside: Vec<BesideRandom> =
            found.tables[0].arms[2..].iter().map(|arm| arm.difference.accuracy.unwrap().random.unwrap()).collect();
        assert_eq!(beside.len(), 3);
        assert!(beside.iter().all(|one| one.sets == 39 && one.reach == 0 && one.p == 1.0 / 40.0));
        assert!(beside.iter().all(|one| (one.p_max - 1.0 / 40.0).abs() < 1e-12), "{beside:?}");
    }

    #[test]
    fn arms_that_are_cut_off_more_often_are_not_compared() {
        let arms = made(3);
        let mut rows = answers(&arms, 1);
        let cut =
            |rows: &mut [Row], n: usize| rows[..n].iter_mut().for_each(|r| r.finish_reason = FinishReason::Length);
        // One of fifty is two in a hundred: no more than what is allowed. Two are more.
        cut(&mut rows[2], 1);
        cut(&mut rows[3], 2);
        cut(&mut rows[5], 30);
        let outcomes = outcomes_of(&items(), &arms, &rows, None, 9);
        assert!(outcomes.tables[0].arms[2].withheld.is_none());
        let arm = &outcomes.tables[1].arms[2];
        let why = "4.0 % of its answers were cut off, of the reference's 0.0 %";
        assert_eq!((arm.withheld.as_deref(), arm.truncated), (Some(why), 0.04));
        assert!(Compared::ALL.into_iter().all(|which| arm.difference.of(which).is_none()));
        assert_eq!(outcomes.flips.family, 1, "it is no part of the family");
        let band = outcomes.tables[0].bands[0];
        assert_eq!((band.sets, band.compared), (3, 2));
        let beside = BesideRandom { sets: 3, reach: 1, p: 2.0 / 4.0, p_max: 2.0 / 4.0 };
        assert_eq!(
            accuracy(&outcomes, 0).random,
            Some(beside),
            "a set that is not compared counts against the finding"
        );
        assert!(
            outcomes.warnings().iter().any(|warning| warning.contains("L0H1@0.5 (4.0 %") && warning.contains("1 more"))
        );
    }

    #[test]
    fn what_cannot_be_judged_is_not_compared() {
        let arms = made(0);
        let mut unasked = items();
        for item in &mut unasked {
            item.gold.clear();
        }
        let outcomes = outcomes_of(&unasked, &arms, &answers(&arms, 1), None, 9);
        let arm = &outcomes.tables[0].arms[2];
        assert!(arm.difference.accuracy.is_none() && arm.difference.assertion_rate.is_none());
        assert!(arm.accuracy.is_nan() && arm.difference.mean_tokens.is_some());
        let text = serde_json::to_string(&outcomes).unwrap();
        let again: Outcomes = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text, "what is written is read");
    }
}
