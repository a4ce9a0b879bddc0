//! `temper probe` as a user runs it, on files that a user's script could have written: a fit, an evaluation, a table, and what is refused.

mod beside;
mod falsify;
mod gate;
mod labels;
mod units;

use headtemper_stats::Random;
use headtemper_study::{Array, Npz};
use serde_json::{Value, json};

use crate::lab::{Lab, array};

/// Number of features of a made-up data set.
const D: usize = 24;

/// Items of noise; if `shift` is not 0, the positive ones lie elsewhere. Returns features and labels.
fn data(seed: u64, items: usize, positives: usize, shift: f64) -> (Vec<f32>, Vec<bool>) {
    let mut random = Random::new(seed, 1);
    let labels: Vec<bool> = (0..items).map(|item| item % items.div_ceil(positives) == 0).collect();
    let mut x = Vec::new();
    for &label in &labels {
        x.extend((0..D).map(|at| {
            let noise = (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0;
            (noise + if label && at < 4 { shift } else { 0.0 }) as f32
        }));
    }
    (x, labels)
}

/// Writes `NAME.npz` with `X` and `coverage`, and `NAME.json` with `labels`.
fn write(lab: &Lab, name: &str, (x, labels): (Vec<f32>, Vec<bool>)) {
    let mut npz = Npz::default();
    npz.add("X", Array::F32(vec![labels.len(), D], x));
    npz.add("coverage", Array::floats(labels.iter().map(|&label| if label { 0.5 } else { 0.25 })));
    npz.save(&lab.path(&format!("{name}.npz"))).unwrap();
    let labels: Vec<u8> = labels.iter().map(|&label| u8::from(label)).collect();
    lab.write(&format!("{name}.json"), json!({"coverage": [0.1], "labels": labels}).to_string());
}

const FIT: &str =
    "probe fit --features train.npz:X --labels train.npz:coverage>=0.5 --c 1.0,0.1 --cv 5 --seed 0 --shuffles 99";

fn fitted(train: f64, fresh: f64) -> Lab {
    let lab = Lab::new();
    write(&lab, "train", data(1, 80, 40, train));
    write(&lab, "fresh", data(2, 90, 45, fresh));
    lab.done(&format!("{FIT} --out probe"));
    lab
}

/// Settings and places that no fit could use are refused before the fit.
#[test]
fn what_cannot_be_kept_is_not_fitted() {
    let lab = fitted(1.2, 1.2);
    lab.done("probe eval probe --features fresh.npz:X --labels fresh.json:labels --out e");
    lab.write("file", "x");
    let eval = "probe eval probe --features fresh.npz:X --labels fresh.json:labels";
    let other_c = FIT.replace("1.0,0.1", "1.0");
    let features = FIT.replace("train.npz:X", "gone.npz:X");
    for (line, part) in [
        (format!("{other_c} --out probe"), "probe belongs to another run: c was [1.0,0.1], is [1.0]"),
        (format!("{FIT} --out file"), "cannot write into file: it is a file"),
        (format!("{FIT} --out e"), "made by `temper probe eval`"),
        // Before the features, which may be large, are read.
        (format!("{} --out new", features.replace("0.1 ", "nan ")), "C is [1.0, NaN]"),
        (format!("{} --out new", features.replace("0.1 ", "1 ")), "C is 1 twice, but must be each number once"),
        (format!("{features} --out new --assert-correct 2"), "the floor of p(assert | correct) is 2"),
        (format!("{} --out new", features.replace("coverage", "cover")), "cover"),
        (format!("{eval} --out file"), "cannot write into file: it is a file"),
        (format!("{eval} --out e --seed 3"), "e belongs to another run: measure"),
        (
            format!("{} --assert-correct 2", eval.replace("fresh.npz", "gone.npz")),
            "the floor of p(assert | correct) is 2",
        ),
    ] {
        let (_, err) = lab.ends(2, &line);
        assert!(err.contains(part) && !err.contains("gone.npz"), "{line}: {err}");
        assert!(!err.contains("to do"), "{line}: something was fitted: {err}");
    }
    assert!(lab.ends(2, &format!("{features} --out new")).1.contains("gone.npz"));
}

#[test]
fn a_probe_is_fitted_saved_and_evaluated() {
    let lab = fitted(1.2, 1.2);
    let fit = lab.json("probe/fit.json");
    let (c, aucs): (Vec<f64>, Vec<f64>) = fit["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| (result["c"].as_f64().unwrap(), result["auc"].as_f64().unwrap()))
        .unzip();
    assert_eq!(c, [1.0, 0.1]);
    assert!(aucs.iter().all(|auc| *auc > 0.8), "{aucs:?}");
    assert!(fit["null"]["p"].as_f64().unwrap() <= 0.02);
    let eval: Value = serde_json::from_str(
        &lab.done("probe eval probe --features fresh.npz:X --labels fresh.json:labels --json --out eval"),
    )
    .unwrap();
    assert_eq!(eval, lab.json("eval/eval.json"));
    for result in eval["results"].as_array().unwrap() {
        assert!(result["auc"].as_f64().unwrap() > 0.8 && result["best_asym"].as_f64().unwrap() < -0.4, "{result}");
        let thr = result["best_thr"].as_f64().unwrap();
        assert!((0.05..=0.95).contains(&thr) && result["best"]["p_assert_correct"].as_f64().unwrap() >= 0.7);
        assert!(result["train_chosen"]["asym"].as_f64().unwrap() < -0.3);
    }
    // The AUC in the file is that of the probabilities beside it.
    let p = lab.npz("eval/predictions.npz");
    let (rows, labels) = (array(&p, "p").to_vec2::<f64>().unwrap(), array(&p, "label").to_vec1::<i64>().unwrap());
    let labels: Vec<bool> = labels.iter().map(|&label| label == 1).collect();
    for (row, result) in rows.iter().zip(eval["results"].as_array().unwrap()) {
        assert!((headtemper_stats::auc(row, &labels) - result["auc"].as_f64().unwrap()).abs() < 1e-12);
    }
    // The same fit gives the same file; a probe recognises the items that it was fitted on.
    lab.done(&format!("{FIT} --out again"));
    lab.same(&["probe.safetensors", "fit.json", "predictions.npz"], "probe", "again");
    let (_, err) = lab.ends(0, "probe eval probe --features train.npz:X --labels train.npz:coverage>=0.5");
    assert!(err.contains("80 of 80 items are among those that the probe was fitted on"), "{err}");
}

/// A probe that was changed where it was fitted is none.
#[test]
fn a_probe_that_was_changed_is_refused() {
    let lab = fitted(1.2, 1.2);
    let mut bytes = std::fs::read(lab.path("probe/probe.safetensors")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    lab.write("probe/probe.safetensors", &bytes);
    let eval = "--features fresh.npz:X --labels fresh.json:labels";
    let (_, err) = lab.ends(2, &format!("probe eval probe {eval}"));
    assert!(
        err.contains("is not the probe that was fitted here: its SHA-256 is") && err.contains("manifest.json"),
        "{err}"
    );
    // Elsewhere it is a probe of its own.
    lab.write("other.safetensors", &bytes);
    lab.done(&format!("probe eval other.safetensors {eval}"));
}

#[test]
fn bad_input_is_named() {
    let lab = fitted(1.2, 1.2);
    let nan = |at: usize| {
        let (mut x, labels) = data(1, 80, 40, 1.0);
        x[at] = f32::NAN;
        (x, labels)
    };
    write(&lab, "nan", nan(3 * D + 5));
    write(&lab, "short", data(1, 79, 40, 1.0));
    lab.write("text.json", r#"{"labels": ["a", {"b": 1}]}"#);
    lab.write("yes.json", json!({"labels": vec!["yes"; 80]}).to_string());
    lab.write("list.json", "[0, 1, 1]");
    lab.write("bare.jsonl", "0\n1\n");
    lab.write("python.json", r#"{"labels": [0, NaN]}"#);
    lab.write("latin.jsonl", b"{\"y\": 1}\n{\"y\": \"\xe9\"}\n");
    for (line, part) in [
        ("--features train.npz:Y --labels train.npz:coverage>=0.5", "has no array 'Y'; it has X, coverage"),
        ("--features gone.npz:X --labels train.npz:coverage>=0.5", "cannot read gone.npz"),
        ("--features train.npz:coverage --labels train.npz:coverage>=0.5", "features are [items, features]"),
        ("--features train.npz:X[0] --labels train.npz:coverage>=0.5", "has no middle axis for [0]"),
        (
            "--features nan.npz:X --labels nan.npz:coverage>=0.5",
            "error: nan.npz:X cannot be used: feature 5 of item 3 is NaN",
        ),
        ("--features train.npz:X --labels short.npz:coverage>=0.5", "is 79, but must be 80"),
        ("--features train.npz:X --labels train.json:nope", "has no 'nope'"),
        ("--features train.npz:X --labels text.json:labels", "[1]: a value is neither a number"),
        ("--features train.npz:X --labels train.npz:coverage", "must be 0, 1, true or false"),
        ("--features train.npz:X --labels yes.json:labels", "or give a rule such as yes.json:labels==yes"),
        (
            "--features train.npz:X --labels list.json:0",
            "list.json: is a list whose entries have no field '0', but must be",
        ),
        ("--features train.npz:X --labels bare.jsonl:y", "no field 'y', but must hold lines such as {\"y\": 1}"),
        (
            "--features train.npz:X --labels python.json:labels",
            "NaN and Infinity are not JSON: null stands for a number",
        ),
        ("--features train.npz:X --labels latin.jsonl:y", "latin.jsonl: line 2 is not UTF-8"),
        ("--features train.npz:X --labels train.npz:coverage==high", "value 0 of train.npz:coverage is 0.5"),
        ("--features train.npz:X --labels train.npz:coverage>=0.9", "all 80 items are of one class (false)"),
        ("--features train.npz:X --labels train.npz:coverage>=0.5 --c 0", "numbers above 0 and up to 1e6"),
        ("--features train.npz:X --labels train.npz:coverage>=0.5 --cv 1", "must be 2 or more"),
    ] {
        let (_, err) = lab.ends(2, &format!("probe fit {line} --out x"));
        assert!(err.contains(part), "{part} is not in: {err}");
        assert!(!lab.path("x").exists(), "{line} left something");
    }
    let (_, err) = lab.ends(2, &format!("{FIT} --no-shuffle --out probe"));
    assert!(err.contains("belongs to another run: shuffled_folds was true, is false"), "{err}");
    let (_, err) = lab.ends(2, "probe eval train.npz --features fresh.npz:X --labels fresh.json:labels");
    assert!(err.contains("is no probe"), "{err}");
    let eval = "probe eval probe --features fresh.npz:X --labels fresh.json:labels --assert-correct 70";
    let (_, err) = lab.ends(2, eval);
    assert!(err.contains("the floor of p(assert | correct) is 70, but must be from 0 to 1"), "{err}");
    let mut npz = Npz::default();
    npz.add("X", Array::F32(vec![2, 3], vec![1.0; 6]));
    npz.save(&lab.path("narrow.npz")).unwrap();
    lab.write("two.json", r#"{"labels": [0, 1]}"#);
    let (_, err) = lab.ends(2, "probe eval probe --features narrow.npz:X --labels two.json:labels");
    assert!(err.contains("number of features in narrow.npz:X is 3, but must be 24"), "{err}");
}

#[test]
fn the_two_by_two_table_counts_labels() {
    let lab = Lab::new();
    let labels = ["cr", "cr", "cr", "hr", "cw", "hw", "hw", "hw", "other"];
    let item = |(i, label): (usize, &&str)| json!({"id": format!("{i}"), "prompt": "x", "label": label});
    lab.write_lines("judged.jsonl", labels.iter().enumerate().map(item));
    let table: Value = serde_json::from_str(&lab.done("probe table --items judged.jsonl --json")).unwrap();
    assert_eq!((&table["cr"], &table["hw"], &table["missing"]), (&json!(3), &json!(3), &json!(1)));
    assert_eq!(table["asymmetry"], json!(0.25 - 0.75));
    let told = lab.done("probe table --items judged.jsonl");
    let none = "intervals are over 1 prompt: there is none where one has nearly all answers of a class\n";
    assert!(told.contains("-0.500") && told.contains(none), "{told}");
    // Three of four is Wilson's 0.301 to 0.954 if they are four prompts; one prompt says nothing of others.
    let low = |table: &Value, of: &str| table["intervals"][of]["low"].as_f64().unwrap();
    let item = |(i, label): (usize, &&str)| json!({"id": format!("{i}"), "prompt": format!("{i}?"), "label": label});
    lab.write_lines("apart.jsonl", labels.iter().enumerate().map(item));
    let apart: Value = serde_json::from_str(&lab.done("probe table --items apart.jsonl --json")).unwrap();
    assert!((low(&apart, "p_assert_correct") - 0.3006).abs() < 1e-4 && low(&apart, "asymmetry") < -0.5, "{apart}");
    assert_eq!(table["intervals"]["p_assert_correct"]["low"], Value::Null);
    assert_eq!((&table["prompts"], &apart["prompts"]), (&json!(1), &json!(8)));
    // One item says that it is wrong and is labelled as right, another the other way round; a half is right.
    let said =
        [json!({"correct": false}), json!({"coverage": 0.5}), json!({"correct": 1}), json!({}), json!({"coverage": 1})];
    let item = |(i, (label, said)): (usize, (&&str, &Value))| {
        let mut item = json!({"prompt": format!("{i}?"), "label": label});
        said.as_object().unwrap().iter().for_each(|(name, value)| item[name] = value.clone());
        item
    };
    lab.write_lines("said.jsonl", labels.iter().zip(&said).enumerate().map(item));
    let (out, err) = lab.ends(0, "probe table --items said.jsonl --json");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["contradicted"], 2);
    assert!(err.contains("warning: 2 items had a correct or coverage that the label contradicts: the label counts"));
    assert_eq!(apart["contradicted"], 0);
    lab.write_lines("none.jsonl", [json!({"prompt": "x", "label": "a"})]);
    assert!(lab.ends(2, "probe table --items none.jsonl").1.contains("cr, cw, hr or hw"));
}
