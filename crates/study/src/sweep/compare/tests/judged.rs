//! Arms that a judge has read: levels, missing verdicts, and what they are compared by.

use super::*;

/// Marks of a judge with one axis: what the rules say, and level 4 everywhere but under the first head, which loses a level on the first
/// twelve items.
fn judged(arms: &[Arm], rows: &[Vec<Row>]) -> JudgedAnswers {
    let level = |arm: &Arm, item: usize| if arm.set == "L0H0" && item < 12 { 3.0 } else { 4.0 };
    let mark = |arm: &Arm, (at, mark): (usize, Mark)| Mark { levels: vec![Some(level(arm, at % ITEMS))], ..mark };
    let of = |(arm, rows): (&Arm, &Vec<Row>)| {
        let marks = marks_by_rules(&items(), rows, None, Thoughts::default()).into_iter().enumerate();
        marks.map(|marked| mark(arm, marked)).collect()
    };
    let marks = arms.iter().zip(rows).map(of).collect();
    let (judge, tasks, axes, warnings) = ("wise".into(), vec!["rubric".into()], vec!["curious".into()], Vec::new());
    JudgedAnswers { judge, tasks, axes, marks, warnings }
}

fn by_judge(arms: &[Arm], rows: &[Vec<Row>], judged: &JudgedAnswers) -> Outcomes {
    let items = items();
    let (groups, grader, judged, max_new_tokens) = (None, None, Some(judged), 9);
    outcomes_of(&Answered {
        items: &items,
        groups,
        arms,
        rows,
        grader,
        judged,
        max_new_tokens,
        temperature: 0.0,
        prompts_open_thought: false,
    })
}

#[test]
fn levels_of_a_judge_are_outcomes_too() {
    let arms = made(3);
    let rows = answers(&arms, 1);
    let outcomes = by_judge(&arms, &rows, &judged(&arms, &rows));
    let arm = &outcomes.tables[0].arms[2];
    let found = arm.difference.of(Compared::Score("curious")).unwrap();
    assert_eq!((found.items, found.differing, found.mean), (ITEMS, 12, -0.24));
    assert_eq!((found.p, found.p_max), (2.0 / 4096.0, Some(2.0 / 4096.0)));
    assert!(found.low < -0.36 && found.high < -0.1, "{found:?}");
    assert_eq!((arm.scores["curious"], arm.unjudged(Compared::Score("curious"))), (Some(3.76), 0));
    assert_eq!(found.random.unwrap().reach, 0);
    assert_eq!(outcomes.tables[0].bands[0].range.scores["curious"], Some((0.0, 0.0)));
    // What the judge was not asked for is as it was without one.
    assert_eq!(arm.difference.accuracy, of(&items(), &arms, &rows, None).tables[0].arms[2].difference.accuracy);
    let text = crate::sweep_markdown(&outcomes);
    for told in ["judged by wise (rubric)", "curious, levels", "-0.24 [-0.", "| level, 1-5  | curious |", "|    3.76 |"]
    {
        assert!(text.contains(told), "{told} in\n{text}");
    }
    let csv = crate::sweep::csv::sweep_csv(&outcomes);
    assert!(csv.contains("tempered,L0H0,0.5,L0H0@0.5,scores.curious,50,3.76,50,12,-0.24"), "{csv}");
    let read: Outcomes = serde_json::from_value(serde_json::json!(outcomes)).unwrap();
    assert_eq!(serde_json::json!(read), serde_json::json!(outcomes));
}

#[test]
fn missing_verdicts_leave_items_out_and_unequally_many_an_outcome() {
    let arms = made(3);
    let rows = answers(&arms, 1);
    let mut judged = judged(&arms, &rows);
    let lose_level = |mark: &mut Mark| mark.levels = vec![None];
    let lose_right = |mark: &mut Mark| (mark.right, mark.right_missing) = (None, true);
    // One verdict on the reference and another on the arm: both items are left out of the comparison.
    for place in [(0, 0), (2, 49)] {
        lose_level(&mut judged.marks[place.0][place.1]);
        lose_right(&mut judged.marks[place.0][place.1]);
    }
    let curious = Compared::Score("curious");
    let outcomes = by_judge(&arms, &rows, &judged);
    let arm = &outcomes.tables[0].arms[2];
    let found = arm.difference.of(curious).unwrap();
    assert_eq!((found.items, found.differing, arm.unjudged(curious)), (48, 11, 1));
    assert!((found.mean + 11.0 / 48.0).abs() < 1e-12);
    let right = arm.difference.accuracy.unwrap();
    assert_eq!((right.items, right.mean, arm.accuracy), (48, -12.0 / 48.0, 27.0 / 49.0));
    let warnings = outcomes.warnings();
    let told = "up to 1 of 50 answers lack a verdict";
    assert!(warnings.iter().any(|warning| warning.starts_with(told)), "{warnings:?}");
    let text = crate::sweep_markdown(&outcomes);
    assert!(text.contains("3.76 of 49"), "{text}");

    // Three of fifty levels, where the reference lacks one: which answers remain may be the arm's doing. What needs no level is compared,
    // even if every level is missing everywhere, which would hide three of fifty in a common count.
    judged.marks[2][40..42].iter_mut().for_each(lose_level);
    let outcomes = by_judge(&arms, &rows, &judged);
    let arm = &outcomes.tables[0].arms[2];
    assert_eq!(arm.unequally_judged, ["scores.curious"]);
    assert!(arm.difference.of(curious).is_none() && arm.difference.accuracy.is_some());
    let why =
        "scores.curious is not compared: L0H0@0.5 (6.0 % of its answers lack a verdict, of the reference's 2.0 %)";
    assert!(outcomes.warnings().iter().any(|warning| warning == why), "{:?}", outcomes.warnings());
    assert!(outcomes.tables[1].arms[2].difference.of(curious).is_some());
    judged.marks.iter_mut().flatten().for_each(lose_level);
    judged.marks[2][40..42].iter_mut().for_each(lose_right);
    let outcomes = by_judge(&arms, &rows, &judged);
    let arm = &outcomes.tables[0].arms[2];
    assert_eq!(arm.unequally_judged, ["accuracy"]);
    assert!(arm.difference.accuracy.is_none() && arm.difference.mean_tokens.is_some());
}

/// A random set that lacks verdicts is compared by what needs none, and what it is not compared by is said.
#[test]
fn random_sets_are_counted_by_outcome() {
    let arms = made(3);
    let rows = answers(&arms, 1);
    let mut judged = judged(&arms, &rows);
    let random = arms.iter().position(|arm| arm.role == Role::Random).unwrap();
    judged.marks[random][..5].iter_mut().for_each(|mark| mark.levels = vec![None]);
    let outcomes = by_judge(&arms, &rows, &judged);
    let curious = Compared::Score("curious");
    for band in outcomes.tables.iter().flat_map(|table| &table.bands) {
        let compared = |which| *band.compared.get(which).unwrap();
        assert_eq!((compared(curious), compared(Compared::Accuracy), compared(Compared::MeanTokens)), (2, 3, 3));
    }
    let told = "1 of 3 random sets at λ = 0.5 are not compared by scores.curious, and count as if they differed more than any: no p beside \
                them is below 0.50";
    let warnings = outcomes.warnings();
    assert!(warnings.iter().any(|warning| warning == told), "{warnings:?}");
    assert!(!warnings.iter().any(|warning| warning.starts_with("scores.curious is not compared")), "{warnings:?}");
    assert_eq!(crate::sweep_markdown(&outcomes).matches("(2 sets)").count(), 2, "once in each table");
}

/// An item is compared over the seeds for which both arms are known: a missing verdict takes one answer, not the item.
#[test]
fn a_missing_seed_takes_an_answer_and_not_its_item() {
    let arms = made(0);
    let rows = answers(&arms, 4);
    let mut judged = judged(&arms, &rows);
    // The first verdict of twelve items, those on which the arm loses a level: 12 of 200 answers in both arms.
    for arm in [0, 2] {
        judged.marks[arm][..12].iter_mut().for_each(|mark| mark.levels = vec![None]);
    }
    let outcomes = by_judge(&arms, &rows, &judged);
    let found = outcomes.tables[0].arms[2].difference.of(Compared::Score("curious")).unwrap();
    assert_eq!((found.items, found.differing, found.mean), (ITEMS, 12, -0.24));
    // All four of one item: the item is left out, and said to be.
    for seed in 0..4 {
        judged.marks[2][seed * ITEMS + 5].levels = vec![None];
    }
    let outcomes = by_judge(&arms, &rows, &judged);
    let found = outcomes.tables[0].arms[2].difference.of(Compared::Score("curious")).unwrap();
    assert_eq!((found.items, found.differing), (ITEMS - 1, 11));
}
