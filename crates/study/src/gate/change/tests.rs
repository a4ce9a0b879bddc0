//! Made-up answers: what is found of a gate that knows something, and how rarely anything is found of one that knows nothing.

use headtemper_stats::Random;

use super::*;
use crate::gate::warnings::never_dealt;

/// Answers, `each` to a prompt, all asserted. The prefix goes to wrong ones with probability `doubt.1`, to right ones with `doubt.0`.
/// Whether answers are right, and whether they are doubted, is mostly common to a prompt.
fn drawn(set: u64, prompts: usize, each: usize, doubt: (f64, f64)) -> Vec<Answer> {
    let mut random = Random::new(set, 0x9a7e);
    let mut answers = Vec::new();
    for unit in 0..prompts {
        let of_unit = [random.uniform(), random.uniform()];
        for _ in 0..each {
            let mut luck = |of_unit: f64| if random.uniform() < 0.75 { of_unit } else { random.uniform() };
            let right = luck(of_unit[0]) < 0.5;
            let gated = luck(of_unit[1]) >= if right { doubt.0 } else { doubt.1 };
            answers.push(Answer { unit, right, plain: true, gated });
        }
    }
    answers
}

fn answers(of: &[(usize, bool, bool, bool)]) -> Vec<Answer> {
    of.iter()
        .flat_map(|&(n, right, plain, gated)| vec![(right, plain, gated); n])
        .enumerate()
        .map(|(unit, (right, plain, gated))| Answer { unit, right, plain, gated })
        .collect()
}

#[test]
fn changes_are_those_of_the_shares() {
    // Of 20 right answers 4 hedge, of 40 wrong ones 8; the gate takes 2 and 24 more.
    let found = Changes::of_answers(
        &answers(&[
            (4, true, false, false),
            (2, true, true, false),
            (14, true, true, true),
            (8, false, false, false),
            (24, false, true, false),
            (8, false, true, true),
        ]),
        DRAWS,
    );
    let near = |change: Change, expected: f64| {
        assert!((change.difference - expected).abs() < 1e-12, "{change:?}");
        assert!(change.low < expected && expected < change.high, "{change:?}");
    };
    near(found.p_assert_correct, -0.1);
    near(found.p_assert_wrong, -0.6);
    near(found.asymmetry, -0.5);
    near(found.asserted, -26.0 / 60.0);
    near(found.asserted_right, 14.0 / 22.0 - 16.0 / 48.0);
    assert!(found.asymmetry.high < 0.0 && found.asserted_right.low > 0.0 && found.p_assert_correct.high <= 0.0);
    let random = found.at_random.unwrap();
    assert_eq!((random.answers, random.prefixed, found.known, found.prompts), (48, 26, 60, 60));
    // A draw takes 26 of 48 assertions from right and wrong answers alike: on average 16 * 26 / 48 from right ones.
    let right = 16.0 * 26.0 / 48.0;
    assert!((random.asymmetry.mean - (right / 20.0 - (26.0 - right) / 40.0)).abs() < 0.02, "{random:?}");
    assert!(random.asserted_right.mean.abs() < 0.02 && random.asserted_right.low < 0.0, "{random:?}");
    assert!(random.asymmetry.p == random.asserted_right.p && random.asymmetry.p < 0.005, "{random:?}");
}

/// Doubting an answer that hedges by itself changes nothing, and is no finding, however well it picks out wrong answers.
#[test]
fn prefixes_on_answers_that_hedge_are_worth_nothing() {
    let of = |prefixed: usize| {
        answers(&[
            (20, true, true, true),
            (2, true, true, false),
            (prefixed, false, true, false),
            (20, false, true, true),
            (30, false, false, false),
        ])
    };
    let found = Changes::of_answers(&of(2), DRAWS);
    let random = found.at_random.unwrap();
    assert!(random.prefixed == 4 && random.asymmetry.p > 0.5 && random.asserted_right.p > 0.5, "{random:?}");
    let none: Vec<Answer> = of(2).into_iter().map(|answer| Answer { gated: answer.plain, ..answer }).collect();
    let found = Changes::of_answers(&none, DRAWS);
    assert!(found.at_random.is_none() && found.asymmetry.difference == 0.0 && found.asserted_right.low.is_nan());
    // What has not happened may still happen.
    assert!(found.p_assert_wrong.low < 0.0 && found.asymmetry.low < 0.0 && found.asymmetry.high > 0.0, "{found:?}");
    let few = Changes::of_answers(&answers(&[(9, true, true, true), (20, false, true, false)]), DRAWS);
    assert!(few.asymmetry.low.is_nan() && few.asserted_right.low.is_nan() && few.p_assert_wrong.low < -0.8, "{few:?}");
    let nothing = Changes::of_answers(&[], DRAWS);
    assert!(nothing.known == 0 && nothing.asymmetry.difference.is_nan() && nothing.at_random.is_none());
}

/// Prompts that can change places only with their like keep their prefixes however these are dealt, which is said.
#[test]
fn what_no_dealing_changes_is_counted_and_said() {
    let mut of = drawn(3, 30, 1, (0.3, 0.6));
    let random = Changes::of_answers(&of, DRAWS).at_random.unwrap();
    assert_eq!((random.fixed, never_dealt(&random)), (0, None));
    of.extend((0..4).map(|_| Answer { unit: 30, right: false, plain: true, gated: false }));
    let random = Changes::of_answers(&of, DRAWS).at_random.unwrap();
    assert_eq!((random.fixed, random.answers), (4, 34));
    assert!(never_dealt(&random).unwrap().starts_with("4 of 34 asserted answers have, or lack, their prefix however"));
    // Another prompt of four, prefixed like it, changes nothing of that; one that is not, all of it.
    for (gated, fixed) in [(false, 8), (true, 0)] {
        let more = (0..4).map(|_| Answer { unit: 31, right: true, plain: true, gated });
        let of: Vec<Answer> = of.iter().copied().chain(more).collect();
        assert_eq!(Changes::of_answers(&of, DRAWS).at_random.unwrap().fixed, fixed);
    }
}

/// For gates that know nothing, p is uniform and intervals hold the population's value, both for single answers and for prompts with
/// several; the bounds are four standard errors.
#[test]
fn gates_that_know_nothing_are_seldom_findings() {
    let sets = 300;
    let most = |rate: f64| (sets as f64 * rate + 4.0 * (sets as f64 * rate * (1.0 - rate)).sqrt()) as usize;
    for (prompts, each) in [(60, 1), (40, 4)] {
        let [mut named, mut missed, mut shares, mut power] = [0; 4];
        for set in 0..sets {
            let found = Changes::of_answers(&drawn(100 + set as u64, prompts, each, (0.4, 0.4)), 99);
            let holds = |change: Change, truth: f64| !(change.low > truth || change.high < truth);
            named += usize::from(found.at_random.is_some_and(|random| random.asymmetry.p <= 0.05));
            missed += usize::from(!holds(found.asymmetry, 0.0));
            shares += usize::from(!holds(found.asserted_right, 0.0));
            let found = Changes::of_answers(&drawn(900 + set as u64, prompts, each, (0.2, 0.7)), 99);
            power += usize::from(found.at_random.is_some_and(|random| random.asserted_right.p <= 0.05));
        }
        println!(
            "of {sets}, {each} answers a prompt: {named} named, {missed} and {shares} intervals miss 0, {power} found"
        );
        assert!(named <= most(0.05) && missed <= most(0.05) && shares <= most(0.05), "{named}, {missed}, {shares}");
        assert!(power > sets / 2, "{power} of {sets}");
    }
}
