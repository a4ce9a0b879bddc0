//! Arms whose answers are cut off, or empty, more often than the reference's.

use super::*;

#[test]
fn one_answer_of_a_few_that_is_cut_off_withholds_nothing() {
    let (arms, items) = (made(0), &items()[..12]);
    let few = |rows: &Vec<Row>| rows[..12].to_vec();
    let mut rows: Vec<Vec<Row>> = answers(&arms, 1).iter().map(few).collect();
    let mut withheld = |cut: usize| {
        rows[2][..cut].iter_mut().for_each(|row| row.finish_reason = FinishReason::Length);
        of(items, &arms, &rows, None).tables[0].arms[2].withheld.is_some()
    };
    assert_eq!([withheld(1), withheld(2)], [false, true]);
}

#[test]
fn arms_that_are_cut_off_more_often_are_not_compared() {
    let arms = made(3);
    let mut rows = answers(&arms, 1);
    let cut = |rows: &mut [Row], n: usize| rows[..n].iter_mut().for_each(|r| r.finish_reason = FinishReason::Length);
    // One of fifty is two in a hundred, which is allowed. Two are more.
    cut(&mut rows[2], 1);
    cut(&mut rows[3], 2);
    cut(&mut rows[5], 30);
    let outcomes = of(&items(), &arms, &rows, None);
    assert!(outcomes.tables[0].arms[2].withheld.is_none());
    let arm = &outcomes.tables[1].arms[2];
    let why = "4.0 % of its answers were cut off, of the reference's 0.0 %";
    assert_eq!((arm.withheld.as_deref(), arm.truncated), (Some(why), 0.04));
    assert!(outcomes.compared().all(|which| arm.difference.of(which).is_none()));
    assert_eq!(outcomes.flips.family, 1, "it is no part of the family");
    let band = &outcomes.tables[0].bands[0];
    assert_eq!((band.sets, band.compared.accuracy, band.compared.mean_tokens), (3, 2, 2));
    let told = "1 of 3 random sets at λ = 0.5 are not compared, and count as if they differed more than any: no p beside them is below 0.50";
    let warnings = outcomes.warnings();
    assert!(warnings.iter().any(|warning| warning == told), "{warnings:?}");
    let beside = BesideRandom { sets: 3, reach: 1, p: 2.0 / 4.0, p_max: 2.0 / 4.0, enough: 19 };
    assert_eq!(accuracy(&outcomes, 0).random, Some(beside), "a set that is not compared counts against the finding");
    // The random set is told by the warning above: it is not left out.
    let told = format!("not compared: L0H1@0.5 ({why})");
    assert!(warnings.contains(&told), "{warnings:?}");
}

/// Of many answers, less than two in a hundred is more than chance: eighteen of a thousand that are cut off are eighteen that look wrong.
#[test]
fn of_many_answers_fewer_in_a_hundred_withhold() {
    let arms = made(1);
    let items: Vec<Item> = (0..1000)
        .map(|i| Item { id: format!("q{i}"), input: Input::Prompt(format!("{i}?")), ..items()[0].clone() })
        .collect();
    let of_arm = |arm: &Arm| (0..1000).map(|item| row(arm, item, 0, "yes", 5)).collect::<Vec<Row>>();
    let whole: Vec<Vec<Row>> = arms.iter().map(of_arm).collect();
    let withheld = |arm: usize, cut: usize| {
        let mut rows = whole.clone();
        for row in &mut rows[arm][..cut] {
            (row.finish_reason, row.response) = (FinishReason::Length, "no".into());
        }
        let found = of(&items, &arms, &rows, None);
        let all = found.tables[0].arms.iter().chain(&found.tables[1].arms).chain(&found.random);
        all.filter_map(|arm| arm.withheld.clone()).collect::<Vec<_>>()
    };
    assert_eq!(withheld(2, 18), ["1.8 % of its answers were cut off, of the reference's 0.0 %"]);
    assert!(withheld(2, 5).is_empty(), "five of one sign: p 0.06");
    // The control and random sets are taken by their share alone.
    assert_eq!((arms[1].role, arms[4].role), (Role::Control, Role::Random));
    assert_eq!((withheld(1, 18).len(), withheld(4, 18).len(), withheld(4, 21).len()), (0, 0, 1));
    assert_eq!(withheld(0, 18).len(), 2, "of the reference as well");
}

/// Who says nothing asserts nothing: an arm that makes answers empty, or leaves them within a thought, is not compared by what it asserts.
#[test]
fn empty_answers_assert_nothing() {
    let arms = made(0);
    let grader = Grader::new(["perhaps"].into_iter());
    let text = |arm: &Arm, item: usize| match item {
        0..10 if arm.set == "L0H0" => " \n",
        // It ends within a thought.
        10..15 if arm.set == "L0H0" => "<think>yes? perhaps",
        20..30 => "<think>no</think>yes",
        0..20 => "no, perhaps",
        _ => "yes",
    };
    let of_arm = |arm: &Arm| (0..ITEMS).map(|item| row(arm, item, 0, text(arm, item), 5)).collect::<Vec<Row>>();
    let rows: Vec<Vec<Row>> = arms.iter().map(of_arm).collect();
    let found = of(&items(), &arms, &rows, Some(&grader));
    let (arm, other) = (&found.tables[0].arms[2], &found.tables[1].arms[2]);
    assert_eq!((arm.assertion_rate, other.assertion_rate), (30.0 / 35.0, 30.0 / 50.0));
    assert_eq!((arm.unjudged(Compared::AssertionRate), arm.unjudged(Compared::Accuracy)), (15, 0));
    assert!(other.unjudged.is_none(), "where no answer is empty, nothing is missing");
    assert!(arm.difference.assertion_rate.is_none() && arm.difference.accuracy.is_some());
    assert_eq!(arm.unequally_judged, ["assertion_rate", "assertion_asymmetry"]);
    assert_eq!((found.within_thought, other.accuracy), (5, 30.0 / 50.0), "what is thought is neither right nor wrong");
    let warnings = found.warnings();
    for told in [
        "5 answers end within a thought",
        "up to 15 of 50 answers say nothing, neither asserted nor hedged (assertion_asymmetry of L0H0@0.5)",
        "assertion_rate is not compared: L0H0@0.5 (30.0 % of its answers say nothing, of the reference's 0.0 %)",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(told)), "{warnings:?}");
    }
    let by_gold = of(&items(), &arms, &rows, None);
    assert!(by_gold.tables[0].arms[2].unjudged.is_none(), "without a lexicon, nobody asks what is asserted");
}
