//! What a sweep's section says, whatever the names and numbers are.

use headtemper_hook::Positions;

use super::*;
use crate::report::fixture;

fn drawn(outcomes: &Outcomes) -> String {
    draw(outcomes, &[4, 0, 5], false)
}

#[test]
fn the_control_arm_is_marked_and_explained() {
    let mut sweep = fixture::sweep();
    sweep.tables[0].arms[1].changed = 0.03;
    let out = drawn(&sweep);
    assert!(out.contains(r#"title="all@1">λ = 1 (control)</th>"#) && out.contains("here 3.0 % of the responses"));
    sweep.tables[0].arms.remove(1);
    assert!(drawn(&sweep).contains("no control arm"));
}

#[test]
fn what_is_found_is_said_and_what_random_sets_do_beside_it() {
    let mut sweep = fixture::sweep();
    let out = drawn(&sweep);
    assert!(out.contains("<b>Accuracy</b>: 1 of 2 arms differs beyond chance; the largest difference is −12.0"));
    assert!(out.contains("2 of 9 random sets of the same size do as much (p 0.400)"));
    let beside = |reach, p_max| beside_random(&BesideRandom { sets: 9, reach, p: p_max, p_max, enough: 9 });
    assert_eq!(beside(0, 0.01), " Random sets do not reach that (p 0.010).");
    assert!(beside(0, 0.1).contains("None of 9 random sets of the same size does as much, but that is too few"));
    assert_eq!(beside(1, 0.01), " 1 of 9 random sets of the same size does as much (p 0.010).");
    sweep.tables[0].arms.iter_mut().filter_map(|arm| arm.difference.accuracy.as_mut()).for_each(|d| {
        d.p_max = d.p_max.map(|_| 0.2);
    });
    assert!(drawn(&sweep).contains("<b>Accuracy</b>: none of 2 arms differs beyond chance"));
    sweep.tables[0].arms[3].difference.accuracy = None;
    assert!(drawn(&sweep).contains("<b>Accuracy</b>: the one arm that can be compared (of 2) does not differ beyond"));
}

#[test]
fn where_every_difference_prints_as_zero_no_arm_is_the_largest() {
    let mut sweep = fixture::sweep();
    sweep.tables[0].arms.iter_mut().filter_map(|arm| arm.difference.accuracy.as_mut()).for_each(|d| {
        (d.mean, d.p_max) = (-0.0004, d.p_max.map(|_| 0.5));
    });
    let out = drawn(&sweep);
    let said = "<b>Accuracy</b>: none of 2 arms differs beyond chance; the difference is 0.0 percentage points in each of them.";
    assert!(out.contains(said), "{out}");
    sweep.tables[0].arms.iter_mut().filter_map(|arm| arm.difference.accuracy.as_mut()).for_each(|d| d.mean = -0.0006);
    assert!(drawn(&sweep).contains("the largest difference is −0.1 percentage points, at λ = 0"));
}

#[test]
fn the_key_speaks_of_what_is_drawn() {
    let mut sweep = fixture::sweep();
    let key = sweep_chart::key(&sweep);
    assert!(key.contains("random head sets") && key.ends_with("Dashed: the control."), "{key}");
    sweep.tables[0].bands.clear();
    sweep.tables[0].arms.retain(|arm| arm.role != Role::Control);
    assert!(sweep_chart::key(&sweep).ends_with("looked at every arm."));
}

#[test]
fn undefined_numbers_and_names_are_safe() {
    let mut sweep = fixture::sweep();
    sweep.tables[0].set = "<script>".to_owned();
    let arm = &mut sweep.tables[0].arms[2];
    (arm.assertion_asymmetry, arm.accuracy, arm.lambda) = (None, f64::NAN, f64::NAN);
    let out = drawn(&sweep);
    assert!(!out.contains("<script>") && !out.contains("NaN"));
    sweep.tables[0].arms.clear();
    assert!(!drawn(&sweep).contains("NaN"));
}

#[test]
fn unequal_truncation_is_said_and_not_compared() {
    let mut sweep = fixture::sweep();
    assert!(!drawn(&sweep).contains("were cut off"));
    let arm = &mut sweep.tables[0].arms[3];
    (arm.truncated, arm.withheld) = (0.125, Some("12.5 % and 0.0 %".into()));
    arm.difference = crate::sweep::compared::PerOutcome::default();
    let out = drawn(&sweep);
    assert!(out.contains("up to 12.5 % of an arm&#39;s answers (L7H6+L20H3@0) were cut off at 128 tokens"));
    assert!(out.contains("not compared: L7H6+L20H3@0 (12.5 % and 0.0 %)"));
    assert!(out.contains(r#"<td class="gap">not compared</td>"#));
}

#[test]
fn positions_stand_above_the_arms_and_where_nothing_is_compared_there_is_no_p_max() {
    let mut sweep = fixture::sweep();
    assert!(!drawn(&sweep).contains("</span> at ") && drawn(&sweep).contains("in any of 2 arms"));
    sweep.tables[0].arms[1..].iter_mut().for_each(|arm| arm.variant += " at response");
    sweep.tables[0].positions = Positions::Response;
    sweep.flips.family = 0;
    let (page, text) = (drawn(&sweep), crate::sweep_markdown(&sweep));
    assert!(text.starts_with("tempered together: L7H6 L20H3 at response; 139 items"), "{text}");
    assert!(page.contains("</span> at response. 139 items"));
    assert!(text.contains("no tempered arm was compared") && page.contains("No tempered arm was compared"));
    assert!(!text.contains("of 0 arms") && !page.contains("of 0 arms"));
}

#[test]
fn what_holds_for_all_sets_is_said_once() {
    let mut sweep = fixture::sweep();
    sweep.tables[0].arms[3].truncated = 0.125;
    let other = SweepTable { set: "L1H1".into(), ..sweep.tables[0].clone() };
    sweep.tables.push(other);
    for (out, notes) in [(drawn(&sweep), 1), (draw(&sweep, &[4, 0, 5], true), 0)] {
        assert!(out.contains("2 head sets, each tempered by itself; 139 items"), "{out}");
        assert_eq!(out.matches(r#"<h3 class="heads">"#).count(), 2);
        for once in ["of an arm&#39;s answers", "The control arm", &sweep_chart::key(&sweep)] {
            assert_eq!(out.matches(once).count(), 1, "{once}");
        }
        assert_eq!(out.matches("Differences are taken item by item").count(), notes);
    }
    let top = verdicts(&sweep);
    assert!(
        top.matches("<p>").count() == compared(&sweep).len()
            && top.matches("Differences are taken item by item").count() == 1
    );
}

#[test]
fn many_sets_are_ranked() {
    let out = drawn(&fixture::single_heads(&[4, 0, 30]));
    assert!(out.contains("34 head sets") && out.contains("All 33 arms"));
}

#[test]
fn a_terminal_shows_the_same_in_lines_that_fit() {
    let ranked = crate::sweep_markdown(&fixture::single_heads(&[4, 0, 30]));
    assert_eq!(ranked.lines().filter(|line| line.contains("20 of 139")).count(), 10, "{ranked}");
    assert!(
        ranked.contains("the 10 largest of 33 differences; sweep.csv has all") && !ranked.contains("| L0H1 "),
        "{ranked}"
    );
    let set = crate::sweep_markdown(&fixture::sweep());
    assert!(set.contains("-12.0 [-15.0, -9.0] | 0.010 |") && set.contains("| 0, random"), "{set}");
    for line in ranked.lines().chain(set.lines()).filter(|line| line.starts_with('|')) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn lambda_is_short() {
    assert_eq!((lambda(1.0), lambda(0.0), lambda(0.25)), ("1".to_owned(), "0".to_owned(), "0.25".to_owned()));
    assert_eq!((lambda(-0.5), lambda(f64::NAN)), ("−0.5".to_owned(), "–".to_owned()));
}
