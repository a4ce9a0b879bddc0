//! Labels: from any column, what their file says besides, and texts that may not mean what they seem to.

use headtemper_study::{Array, Npz};
use serde_json::{Value, json};

use super::{D, data, fitted, write};
use crate::lab::Lab;

const FIT: &str = "probe fit --features train.npz:X --cv 2 --c 1 --shuffles 0 --out p --labels";

/// Lines of labels for `train.npz`, each with `more`.
fn labelled(more: &dyn Fn(usize, bool) -> Value) -> Lab {
    let lab = Lab::new();
    let (x, labels) = data(1, 40, 20, 1.2);
    let line = |(i, &label): (usize, &bool)| {
        let mut line = json!({"y": u8::from(label)});
        more(i, label).as_object().unwrap().iter().for_each(|(name, value)| line[name] = value.clone());
        line
    };
    lab.write_lines("l.jsonl", labels.iter().enumerate().map(line));
    write(&lab, "train", (x, labels));
    lab
}

/// Ends are read from lines that have no texts, too: a probe may read them where it should read the answer.
#[test]
fn labels_without_texts_say_how_answers_ended() {
    for name in ["finish_reason", "truncated"] {
        let lab = labelled(&|_, right| match name {
            "truncated" => json!({"truncated": !right}),
            _ => json!({"finish_reason": if right { "stop" } else { "length" }}),
        });
        let (out, err) = lab.ends(0, &format!("{FIT} l.jsonl:y"));
        assert!((out + &err).contains("the classes were not cut off alike"), "{name}: {err}");
    }
}

/// Where a capture and the labels say otherwise how an answer ended, that is told, and the answer counts as cut off.
#[test]
fn contradicted_ends_are_told() {
    let lab = Lab::new();
    let item = |i: usize, end: &str| {
        json!({"id": format!("i{i}"), "prompt": format!("Is {i} even?"), "response": format!("so {i}"), "y": i % 2,
               "finish_reason": end})
    };
    lab.write_lines("i.jsonl", (0..24).map(|i| item(i, "stop")));
    lab.write_lines("l.jsonl", (0..24).map(|i| item(i, if i % 2 == 0 { "length" } else { "stop" })));
    lab.done("capture --model M --items i.jsonl --layers last --heads none --out f.npz");
    let fit = "probe fit --features f.npz:h_last --cv 2 --c 1 --shuffles 0";
    let (out, err) = lab.ends(0, &format!("{fit} --labels l.jsonl:y --out p"));
    let said = out + &err;
    assert!(
        said.contains("of 12 of 24 responses, features and the labels say otherwise whether they were cut off"),
        "{said}"
    );
    assert!(said.contains("the classes were not cut off alike"), "{said}");
    let (out, err) = lab.ends(0, &format!("{fit} --labels i.jsonl:y --out q"));
    assert!(!(out + &err).contains("cut off"), "all ended by themselves");
}

/// A text that a rule does not name makes an item negative: texts that were perhaps meant are told.
#[test]
fn labels_that_may_be_meant_otherwise_are_told() {
    let of = |i: usize, right: bool| match (right, i % 8) {
        (true, 0) => "CR",
        (true, 2) => "cr ",
        (true, _) => "cr",
        (false, 1) => "n/a",
        _ => "cw",
    };
    let lab = labelled(&|i, right| json!({"label": of(i, right)}));
    let (out, err) = lab.ends(0, &format!("{FIT} l.jsonl:label==cr"));
    let said = out + &err;
    assert!(said.contains("labels 'CR', 'cr ' are those of the rule but for case and blanks"), "{said}");
    assert!(said.contains("labels 'n/a' may stand for no label"), "{said}");
    let (out, err) = lab.ends(0, &format!("{} l.jsonl:y", FIT.replace("--out p", "--out q")));
    assert!(!(out + &err).contains("may stand for"), "numbers are no texts");
    lab.write("empty.jsonl", "\n");
    assert!(lab.ends(2, &format!("{FIT} empty.jsonl:y")).1.contains("empty.jsonl: holds no items"));
    assert!(lab.ends(2, &format!("{FIT} l.jsonl:y>=1e400")).1.contains("must be a comparison with a number"));
}

#[test]
fn labels_come_from_any_column_and_find_their_items_by_id() {
    let lab = fitted(1.2, 1.2);
    let (x, labels) = data(2, 90, 45, 1.2);
    let mut npz = Npz::default();
    npz.add("h_layers", Array::F32(vec![90, 2, D], x.chunks_exact(D).flat_map(|row| [row, row].concat()).collect()));
    npz.add("id", Array::Text((0..90).map(|i| format!("q{i}")).collect()));
    npz.save(&lab.path("named.npz")).unwrap();
    // In reverse order, with one item that has no features and one without a value.
    let line = |i: usize| match i {
        0 => json!({"id": "q0", "m": {}}),
        _ => json!({"id": format!("q{i}"), "m": {"kind": if i < 90 && labels[i] { "yes" } else { "no" }}}),
    };
    lab.write_lines("labels.jsonl", (0..91).rev().map(line));
    let eval = |features: &str, labels: &str| -> Value {
        let line = format!("probe eval probe --features {features} --labels {labels} --json");
        serde_json::from_str(&lab.done(&line)).unwrap()
    };
    let plain = eval("fresh.npz:X", "fresh.json:labels");
    let named = eval("named.npz:h_layers[0]", "labels.jsonl:m.kind==yes");
    assert_eq!((&named["set"]["matched_by"], &named["set"]["items"]), (&json!("id"), &json!(89)));
    assert_eq!(named["set"]["unlabelled"], 1);
    // The mean of two equal layers is either of them.
    assert_eq!(eval("named.npz:h_layers[-2:]", "labels.jsonl:m.kind==yes")["results"], named["results"]);
    let auc = |of: &Value| of["results"][0]["auc"].as_f64().unwrap();
    assert!((auc(&plain) - auc(&named)).abs() < 0.02, "one item less");
    // A value that no item has is told, since it may be misspelt.
    let misspelt = "probe eval probe --features named.npz:h_layers[0] --labels labels.jsonl:m.kind==yes|Yes";
    let (_, err) = lab.ends(0, misspelt);
    assert!(err.contains("warning: no value of labels.jsonl:m.kind is 'Yes', which the rule names"), "{err}");
    assert!(!err.contains("is 'yes'"), "{err}");
    // A table with one column is a column too.
    let mut npz = Npz::default();
    npz.add("y", Array::F32(vec![90, 1], labels.iter().map(|&label| f32::from(u8::from(label))).collect()));
    npz.save(&lab.path("tall.npz")).unwrap();
    assert_eq!(eval("fresh.npz:X", "tall.npz:y")["results"], plain["results"]);
    // Objects in an array of an object.
    let items: Vec<Value> = labels.iter().map(|&label| json!({"s": {"x": if label { 5 } else { 2 }}})).collect();
    lab.write("deep.json", json!({"items": items}).to_string());
    assert_eq!(eval("fresh.npz:X", "deep.json:items.s.x>=4")["results"], plain["results"]);
}
