//! Made-up arms: what is found, what is withheld, and how intervals and p account for prompts and seeds.

use headtemper_engine::{FinishReason, Input};
use headtemper_hook::HeadRef;

use super::*;
use crate::{
    ArmsWanted, GoldRule, arms,
    sweep::outcome::{BesideRandom, Difference},
};

mod judged;
mod withheld;

const ITEMS: usize = 50;

fn items() -> Vec<Item> {
    let item = |i: usize| Item {
        id: format!("q{i}"),
        input: Input::Prompt(format!("which is {i}?")),
        prompt_len: None,
        response_ids: None,
        response: None,
        label: None,
        scores: std::collections::BTreeMap::new(),
        gold: vec!["yes".into()],
        other: serde_json::Map::new(),
    };
    (0..ITEMS).map(item).collect()
}

/// An answer with this many tokens.
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
        fired: None,
    }
}

fn of(items: &[Item], arms: &[Arm], rows: &[Vec<Row>], grader: Option<&Grader>) -> Outcomes {
    outcomes_of(&Answered {
        items,
        groups: None,
        arms,
        rows,
        grader,
        judged: None,
        max_new_tokens: 9,
        temperature: 0.0,
        prompts_open_thought: false,
    })
}

fn made(random_sets: usize) -> Vec<Arm> {
    let slots: Vec<HeadRef> = (0..9).map(|head| HeadRef::query(0, head)).collect();
    let sets = [vec![HeadRef::query(0, 0)], vec![HeadRef::query(0, 1)]];
    let wanted = ArmsWanted { sets: &sets, lambdas: &[1.0, 1.0, 0.5], random_sets, ..ArmsWanted::default() };
    arms(&wanted, &slots).unwrap()
}

/// The untouched model is right on all items but the first ten; tempering the first head also loses items 10 to 21.
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
    let grader = Grader::new(["perhaps"].into_iter());
    let outcomes = of(&items(), &arms, &answers(&arms, 1), Some(&grader));
    let roles: Vec<Role> = outcomes.tables[0].arms.iter().map(|arm| arm.role).collect();
    assert_eq!(roles, [Role::Reference, Role::Control, Role::Tempered]);
    let lost = accuracy(&outcomes, 0);
    let tango = paired_shares(0, 12, ITEMS);
    assert_eq!((lost.items, lost.differing, lost.mean), (ITEMS, 12, -0.24));
    assert_eq!((lost.low, lost.high), (tango.low, tango.high));
    // All twelve have one sign: two of 2^12 patterns.
    assert_eq!((lost.p, lost.p_max), (2.0 / 4096.0, Some(2.0 / 4096.0)));
    // None of three random sets does as much; but by chance, the larger of the two arms stands out of five sets in two of five cases.
    let beside = lost.random.unwrap();
    assert_eq!((beside.sets, beside.reach, beside.p), (3, 0, 1.0 / 4.0));
    assert!((beside.p_max - 2.0 / 5.0).abs() < 1e-12, "{beside:?}");
    let same = accuracy(&outcomes, 1);
    assert_eq!((same.differing, same.p, same.p_max), (0, 1.0, Some(1.0)));
    assert_eq!(same.random, Some(BesideRandom { sets: 3, reach: 3, p: 1.0, p_max: 1.0, enough: 38 }));
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
    let of = |grader: Option<&Grader>| of(&items(), &arms, &rows, grader).tables[0].arms[0].accuracy;
    assert_eq!((of(None), of(Some(&Grader::by_gold(GoldRule::Exact)))), (0.8, 0.78));
}

#[test]
fn seeds_of_an_item_are_no_further_items() {
    let arms = made(0);
    let (one, three) = (answers(&arms, 1), answers(&arms, 3));
    let (once, thrice) = (of(&items(), &arms, &one, None), of(&items(), &arms, &three, None));
    assert_eq!(accuracy(&once, 0), accuracy(&thrice, 0), "the same answers three times tell no more");
    assert_eq!((thrice.items, &thrice.seeds[..]), (ITEMS, &[0, 1, 2][..]));
    assert_eq!(thrice.seed_floor.unwrap().changed, 0.0);
    // One seed of one item differs: a third of an item, so values are no longer 0 or 1.
    let mut three = three;
    three[2][ITEMS + 30].response = "no".into();
    three[0][2 * ITEMS + 40].response_ids = vec![7];
    three[0][2 * ITEMS + 40].n_tokens = 45;
    let found = of(&items(), &arms, &three, None);
    let third = accuracy(&found, 0);
    assert!((third.mean - (-12.0 - 1.0 / 3.0) / ITEMS as f64).abs() < 1e-12 && third.differing == 13);
    let floor = found.seed_floor.unwrap();
    assert_eq!((floor.pairs, floor.largest.accuracy, floor.largest.assertion_rate), (3, Some(0.0), None));
    assert!((floor.changed - 2.0 / 3.0 / ITEMS as f64).abs() < 1e-12);
    assert!((floor.largest.mean_tokens.unwrap() - 40.0 / ITEMS as f64).abs() < 1e-12);
}

/// Ten questions, five times each: what happens on four of them counts as four, not as twenty.
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
    let found = of(&items, &arms, &rows, None);
    let lost = accuracy(&found, 0);
    assert_eq!((found.items, found.prompts, lost.items, lost.differing), (ITEMS, 10, ITEMS, 20));
    assert!((lost.mean + 0.4).abs() < 1e-12);
    assert_eq!(lost.p, 2.0 / 16.0, "all four of one sign: two of 2^4 patterns");
    let [four, six] = [-1.0, 0.0].map(|d| [d; 10]);
    // At least as wide as Tango's over ten prompts, of which four were lost.
    let tango = paired_shares(0, 4, 10);
    let student = headtemper_stats::paired_t(&[&four[..4], &six[..6]].concat());
    assert_eq!((lost.low, lost.high), (student.low.min(tango.low), student.high.max(tango.high)));
    assert!(found.warnings().iter().any(|warning| warning.contains("50 items have 10 prompts")));
    assert!(found.warnings().iter().any(|warning| warning.contains("the reference is right on every item")));
    // Prompts of unequal size: the mean is still over items.
    items[49].input = Input::Prompt("another".into());
    let uneven = accuracy(&of(&items, &arms, &rows, None), 0);
    assert!((uneven.mean + 0.4).abs() < 1e-12 && uneven.p == 2.0 / 16.0);
    // What never happened may still happen: no prompt differs, and the interval is that of ten prompts.
    let none = accuracy(&of(&items, &arms, &rows, None), 1);
    assert!(none.differing == 0 && none.low < -0.2 && none.high > 0.2, "{none:?}");
    // Each item has its own question, but there are ten topics: by topic, items count as ten prompts do.
    for (index, item) in items.iter_mut().enumerate() {
        item.input = Input::Prompt(format!("what is {index}?"));
        item.other.insert("topic".into(), prompt(index).into());
    }
    assert_eq!(accuracy(&of(&items, &arms, &rows, None), 0).p, 1.0 / 5000.0);
    let topic = Some("topic");
    let (grader, judged, max_new_tokens) = (None, None, 9);
    let answered = Answered {
        items: &items,
        groups: topic,
        arms: &arms,
        rows: &rows,
        grader,
        judged,
        max_new_tokens,
        temperature: 0.0,
        prompts_open_thought: false,
    };
    let by_topic = outcomes_of(&answered);
    assert_eq!((accuracy(&by_topic, 0), by_topic.prompts), (lost, 10));
    assert!(by_topic.warnings().iter().any(|warning| warning.contains("50 items have 10 groups by topic")));
}

/// Arms of two calls in one directory, at every token and in the answers alone: each stands beside the controls and the random sets of its
/// own positions. A further λ of a set joins the table of the set.
#[test]
fn positions_and_sets_keep_their_tables() {
    let slots: Vec<HeadRef> = (0..9).map(|head| HeadRef::query(0, head)).collect();
    let sets = [vec![HeadRef::query(0, 0)], vec![HeadRef::query(0, 1)]];
    let of_call = |lambdas: &[f32], random_sets, positions| {
        arms(&ArmsWanted { sets: &sets, lambdas, random_sets, positions, ..ArmsWanted::default() }, &slots).unwrap()
    };
    let mut all = of_call(&[1.0, 1.0, 0.5], 2, Positions::All);
    all.extend(of_call(&[1.0, 1.0, 0.5], 5, Positions::Response).into_iter().skip(1));
    all.extend(of_call(&[0.25], 0, Positions::All).into_iter().skip(1));
    let found = of(&items(), &all, &answers(&all, 1), None);
    let told: Vec<_> = found.tables.iter().map(|table| (table.set.as_str(), table.positions)).collect();
    assert_eq!(
        told,
        [
            ("L0H0", Positions::All),
            ("L0H1", Positions::All),
            ("L0H0", Positions::Response),
            ("L0H1", Positions::Response)
        ]
    );
    let variants = |table: usize| found.tables[table].arms.iter().map(|arm| arm.variant.as_str()).collect::<Vec<_>>();
    assert_eq!(variants(0), ["base", "all@1", "L0H0@0.5", "L0H0@0.25"]);
    assert_eq!(variants(2), ["base", "all@1 at response", "L0H0@0.5 at response"]);
    let bands =
        |table: usize| found.tables[table].bands.iter().map(|band| (band.lambda, band.sets)).collect::<Vec<_>>();
    assert_eq!((bands(0), bands(2)), (vec![(0.5, 2)], vec![(0.5, 5)]));
    let beside = found.tables[2].arms[2].difference.accuracy.unwrap().random.unwrap();
    assert_eq!((beside.sets, beside.p), (5, 1.0 / 6.0));
    assert_eq!((found.sets(), found.positions(), found.arms().count()), (2, None, 3 + 6));
    let text = crate::sweep_markdown(&found);
    assert!(text.starts_with("2 head sets; ") && text.contains("| L0H0 at response | 0.5"), "{text}");
    let two = Outcomes { tables: [&found.tables[0], &found.tables[2]].map(Clone::clone).into(), ..found };
    let text = crate::sweep_markdown(&two);
    assert!(text.contains("tempered: L0H0; ") && text.contains("tempered: L0H0 at response; "), "{text}");
}

/// Sampled answers under one seed are marked; greedy ones have no seed that could matter.
#[test]
fn a_single_seed_is_said() {
    let (items, arms) = (items(), made(0));
    let warned = |seeds, temperature| {
        let rows = answers(&arms, seeds);
        let of = Answered {
            items: &items,
            groups: None,
            arms: &arms,
            rows: &rows,
            grader: None,
            judged: None,
            max_new_tokens: 9,
            temperature,
            prompts_open_thought: false,
        };
        let found = outcomes_of(&of);
        (found.warnings().iter().any(|warning| warning.contains("under seed 0 alone")), crate::sweep_markdown(&found))
    };
    let ((greedy, _), (one, text), (two, _)) = (warned(1, 0.0), warned(1, 0.8), warned(2, 0.8));
    assert_eq!((greedy, one, two), (false, true, false));
    assert!(text.contains("at most 9 new tokens, drawn at temperature 0.8"), "{text}");
}

/// Three λ of one set beside 39 random sets: at the λ where it stands out most, chance does as much in one of forty cases.
#[test]
fn several_lambdas_of_a_set_are_one_set() {
    let slots: Vec<HeadRef> = (0..60).map(|head| HeadRef::query(0, head)).collect();
    let sets = [vec![HeadRef::query(0, 0)]];
    let wanted =
        ArmsWanted { sets: &sets, lambdas: &[1.0, 1.0, 0.9, 0.5, 0.0], random_sets: 39, ..ArmsWanted::default() };
    let arms = arms(&wanted, &slots).unwrap();
    let found = of(&items(), &arms, &answers(&arms, 1), None);
    let beside: Vec<BesideRandom> =
        found.tables[0].arms[2..].iter().map(|arm| arm.difference.accuracy.unwrap().random.unwrap()).collect();
    assert_eq!(beside.len(), 3);
    assert!(beside.iter().all(|one| one.sets == 39 && one.reach == 0 && one.p == 1.0 / 40.0));
    assert!(beside.iter().all(|one| (one.p_max - 1.0 / 40.0).abs() < 1e-12), "{beside:?}");
}

/// On a terminal, every finding says what random heads do, and a footnote is about nothing but what is shown.
#[test]
fn a_terminal_says_what_random_heads_do() {
    let arms_of = |heads: usize, random_sets: usize| {
        let slots: Vec<HeadRef> = (0..19).map(|head| HeadRef::query(0, head)).collect();
        let sets: Vec<Vec<HeadRef>> = slots[..heads].iter().map(|&at| vec![at]).collect();
        arms(&ArmsWanted { sets: &sets, lambdas: &[1.0, 1.0, 0.5], random_sets, ..ArmsWanted::default() }, &slots)
            .unwrap()
    };
    let said = |heads: usize, random_sets: usize| {
        let arms = arms_of(heads, random_sets);
        crate::sweep_markdown(&of(&items(), &arms, &answers(&arms, 1), None))
    };
    let few = said(2, 3);
    assert!(few.contains("random: lowest and highest of 3 random head sets"), "{few}");
    assert!(few.contains("accuracy, points: L0H0@0.5 is reached by 0 of 3 random sets, p random 0.400"), "{few}");
    let many = said(4, 3);
    assert!(
        !many.contains("lowest and highest") && many.contains("p random (p_random_max in sweep.csv): how often"),
        "{many}"
    );
    let row = many.lines().find(|line| line.starts_with("| L0H0 ")).unwrap();
    assert_eq!(row.matches('|').count(), 8, "{row}");
    assert!(many.contains("each of 2 outcomes is asked by itself: one finds something in 10 % of sweeps"), "{many}");
    let none = said(4, 0);
    assert!(!none.contains("random"), "{none}");
}

/// Sets that another seed draws again, or that are tempered themselves by now, are no further evidence.
#[test]
fn a_random_set_counts_once() {
    let once = made(3);
    let rows = answers(&once, 1);
    let found = of(&items(), &once, &rows, None);
    let (mut arms, mut again) = (once.clone(), rows.clone());
    for (arm, rows) in once.iter().zip(&rows).filter(|(arm, _)| arm.role == Role::Random) {
        let (variant, set) = (format!("other-{}", arm.variant), format!("other-{}", arm.set));
        arms.push(Arm { variant, set, ..arm.clone() });
        again.push(rows.clone());
    }
    let tempered = once.iter().position(|arm| arm.set == "L0H1").unwrap();
    let arm = Arm { variant: "drawn".into(), set: "drawn".into(), role: Role::Random, ..once[tempered].clone() };
    arms.push(arm);
    again.push(rows[tempered].clone());
    let beside =
        |found: &Outcomes| (accuracy(found, 0).random.unwrap(), found.random.len(), found.tables[0].bands[0].sets);
    let twice = of(&items(), &arms, &again, None);
    assert_eq!((beside(&twice), beside(&found).1), (beside(&found), 3));
}

/// Items that were chosen by the answers under one seed come out otherwise under others, whatever is tempered.
#[test]
fn items_that_one_seed_chose_are_told() {
    let arms = made(0);
    let chosen = |by: Option<u64>, but: usize| {
        let text = |item: usize, seed: u64| {
            if Some(seed) == by && item >= but || !(item + seed as usize).is_multiple_of(4) { "no" } else { "yes" }
        };
        let of_arm = |arm: &Arm| {
            let cells = (0..3).flat_map(|seed| (0..ITEMS).map(move |item| (seed, item)));
            cells.map(|(seed, item)| row(arm, item, seed, text(item, seed), 5)).collect::<Vec<Row>>()
        };
        let found = of(&items(), &arms, &arms.iter().map(of_arm).collect::<Vec<_>>(), None);
        (
            found.accuracy_by_seed.clone(),
            found.warnings().into_iter().find(|warning| warning.contains("items were chosen")),
        )
    };
    let (by_seed, told) = chosen(Some(1), 0);
    assert_eq!(by_seed, [Some(13.0 / 50.0), Some(0.0), Some(12.0 / 50.0)]);
    assert!(told.unwrap().starts_with("the reference is wrong on every item under seed 1, so that whatever"));
    // On other hardware one of fifty came out otherwise.
    let (_, told) = chosen(Some(1), 4);
    assert!(told.unwrap().starts_with("the reference is wrong on 98.0 % of items under seed 1"));
    assert_eq!(chosen(None, 0).1, None);
}

/// One prompt with nearly all of the items leaves nothing to judge by, however its interval is made.
#[test]
fn one_prompt_with_nearly_all_items_has_no_interval() {
    let arms = made(0);
    let mut items = items();
    for (index, item) in items.iter_mut().enumerate() {
        item.input = Input::Prompt(format!("what is {}?", index.max(39)));
    }
    let found = accuracy(&of(&items, &arms, &answers(&arms, 1), None), 0);
    assert!(found.mean < 0.0 && found.low.is_nan() && found.high.is_nan(), "{found:?}");
}

/// Answers that were all cut off are the same only as far as they go.
#[test]
fn the_same_in_answers_without_an_end_is_no_null() {
    let slots: Vec<HeadRef> = (0..9).map(|head| HeadRef::query(0, head)).collect();
    let sets: Vec<Vec<HeadRef>> = (0..5).map(|head| vec![HeadRef::query(0, head)]).collect();
    let arms = arms(&ArmsWanted { sets: &sets, lambdas: &[1.0, 0.5], ..ArmsWanted::default() }, &slots).unwrap();
    let mut rows = vec![answers(&arms[..1], 1).remove(0); arms.len()];
    let said = |rows: &[Vec<Row>]| crate::sweep_markdown(&of(&items(), &arms, rows, None));
    assert!(said(&rows).contains("accuracy, points: the same, item by item, in all 5 arms\n"), "{}", said(&rows));
    rows.iter_mut().flatten().for_each(|row| row.finish_reason = FinishReason::Length);
    let far = "in all 5 arms, as far as they go: up to 100.0 % of an arm's answers were cut off at 9 tokens\n";
    assert!(said(&rows).contains(far), "{}", said(&rows));
}

#[test]
fn what_cannot_be_judged_is_not_compared() {
    let arms = made(0);
    let mut unasked = items();
    for item in &mut unasked {
        item.gold.clear();
    }
    let outcomes = of(&unasked, &arms, &answers(&arms, 1), None);
    let arm = &outcomes.tables[0].arms[2];
    assert!(arm.difference.accuracy.is_none() && arm.difference.assertion_rate.is_none());
    assert!(arm.accuracy.is_nan() && arm.difference.mean_tokens.is_some());
    let text = serde_json::to_string(&outcomes).unwrap();
    let again: Outcomes = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), text, "what is written is read");
}

/// Where few answers change their level, Student's interval misses the truth in 22 % of samples, or has no width; with Tango's beside it,
/// on levels as shares of the span, it does so in none. Where more do, it misses it in 2 to 4 %.
#[test]
fn intervals_of_levels_hold_the_truth_however_rarely_they_change() {
    let sets = 400;
    let units: Vec<Vec<usize>> = (0..ITEMS).map(|item| vec![item]).collect();
    for (often, most) in [(0.03, 8), (0.1, 20), (0.2, 37), (0.5, 37)] {
        let (mut by_student, mut missed) = (0, 0);
        for set in 0..sets {
            let mut random = headtemper_stats::Random::new(set, 0xa9);
            let d: Vec<f64> = (0..ITEMS)
                .map(
                    |_| if random.uniform() < often { -1.0 - f64::from(u8::from(random.uniform() < 0.3)) } else { 0.0 },
                )
                .collect();
            let truth = -1.3 * often;
            let holds = |of: Interval| of.low <= truth && truth <= of.high;
            by_student += usize::from(!holds(clustered_t(&d, &sizes(&units))));
            missed += usize::from(!holds(interval(Compared::Score("curious"), &d, &units, &|item| (d[item], 0.0))));
        }
        println!("{often}: {by_student} by Student's, {missed} of {sets} miss it");
        assert!(missed <= most, "{often}: {missed}");
        assert!(often > 0.03 || by_student > 60, "{by_student}");
    }
}
