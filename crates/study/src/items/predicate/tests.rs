//! Conditions on items: what holds, and what is refused.

use super::*;

fn item(line: &str) -> Item {
    Item::parse(line, 1, false).unwrap()
}

fn judged() -> Item {
    item(
        r#"{"id":"a","prompt":"why","response":"so","label":"cw","scores":{"self_verification":4,"b":1.5},
        "correct":false,"verbal":"assert","meta":{"level":2,"a.b":{"c":1},"the `real` one":1},"m.x":3,"gone":null,"5":"it's \"so\""}"#,
    )
}

fn holds(text: &str) -> bool {
    Predicate::parse(text).unwrap().holds(&judged()).unwrap()
}

#[test]
fn conditions_nest_as_deep_as_anybody_means() {
    let nested = |depth: usize| Predicate::parse(&format!("{}a{}", "!(".repeat(depth), ")".repeat(depth)));
    assert!(nested(50).is_ok());
    let why = nested(20_000).unwrap_err().to_string();
    assert!(why.contains("more than 100 conditions within each other"), "{}", &why[why.len() - 200..]);
}

#[test]
fn fields_are_compared_as_they_stand() {
    for text in [
        "label == \"cw\"",
        "label != 'cr'",
        "scores.self_verification >= 4",
        "scores.b < 2 && scores.b > 1",
        "!correct && verbal == \"assert\"",
        "correct == false",
        "!(correct || verbal != 'assert')",
        "meta.level == 2",
        "m.x == 3 && meta.a.b.c == 1",
        "id == \"a\" && prompt == \"why\" && response == \"so\"",
        "correct || label == \"cw\" && scores.b<=1.5",
        "`scores.b` == 1.5 && `5`!=\"\" && `meta.the ``real`` one` == 1",
        "`5` == \"it's \"\"so\"\"\" && `5` == 'it''s \"so\"'",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in ["label == \"cr\"", "scores.self_verification > 4", "correct", "correct && correct || correct"] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn what_nobody_judged_is_neither_in_nor_out() {
    for text in ["unjudged", "!unjudged", "scores.c >= 4", "!(scores.c >= 4)", "!gone", "unjudged && !correct"] {
        assert!(!holds(text), "{text}");
    }
    assert!(holds("unjudged || !correct") && holds("!(unjudged && correct)"));
    assert_eq!(Predicate::parse("a.b > 1 && !c || a.b < 0").unwrap().fields(), ["a.b", "c"]);
}

#[test]
fn numbers_as_labels_are_numbers() {
    // One cohort, whichever way it is written.
    for label in ["3", "3.0", "\"3\""] {
        let item = item(&format!(r#"{{"prompt":"x","label":{label}}}"#));
        assert!(Predicate::label("3").holds(&item).unwrap());
        assert!(Predicate::parse("label >= 2").unwrap().holds(&item).unwrap());
        assert!(Predicate::parse("label == \"3\"").unwrap().holds(&item).unwrap());
    }
}

#[test]
fn the_condition_of_any_label_can_be_read_again() {
    for label in ["cw", "it's \"so\"", "back\\slash", "\"", "a\nb", ""] {
        let condition = Predicate::label(label);
        assert_eq!(Predicate::parse(&condition.to_string()).unwrap(), condition);
    }
}

#[test]
fn unknown_fields_are_told_beside_those_that_can_be_named() {
    let unknown = Predicate::parse("`all so` == 1").unwrap();
    let error = unknown.check(|| "it".into(), &[judged()]).unwrap_err().to_string();
    assert!(error.contains("no item has all so") && error.contains("`meta.the ``real`` one`, prompt"), "{error}");
}

#[test]
fn what_cannot_be_compared_or_read_says_why() {
    for (text, part) in [
        ("verbal >= 4", "verbal = \"assert\", compared with 4"),
        (
            "verbal",
            "in the condition 'verbal' is verbal = \"assert\", which is neither true nor false, but must be compared, as in \
             verbal == \"assert\"",
        ),
        ("meta", "neither true nor false, but must be one of them"),
        ("correct == \"no\"", "correct = false, compared with \"no\""),
    ] {
        let error = Predicate::parse(text).unwrap().holds(&judged()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("item 'a'"), "{error}");
    }
    for (text, part) in [
        ("", "the end where a field's name was expected"),
        ("label = \"cw\"", "'=' where == (is equal to) was expected"),
        ("label == cw", "'cw' where a number, true, false or a text in quotes"),
        ("label == \"cw", "a text is not closed"),
        ("(label == \"cw\"", "a parenthesis is not closed"),
        ("label == \"cw\" && ", "the end where a field's name"),
        ("label < \"cw\"", "texts have no order"),
        ("`label == \"cw\"", "a field's name in backticks is not closed"),
        ("`` == \"cw\"", "'``' where a field's name"),
        ("a b == 1", "'b' where && or ||"),
        ("correct > true", "have no order"),
        ("4 <= scores.b", "'4' where a field's name"),
        ("label == \"a\" label", "'label' where && or ||"),
    ] {
        let error = Predicate::parse(text).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("like label =="), "{text}: {error}");
    }
}
