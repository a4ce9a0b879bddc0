//! `temper probe` as a user runs it, on files that a user's script could have written.

mod beside;
mod falsify;
mod gate;
mod labels;

use headtemper_stats::Random;
use headtemper_study::{Array, Npz};
use serde_json::{Value, json};

use crate::lab::{Lab, array, counts};

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

/// Noise, with every item twice: whole units are dealt to folds, shuffled and drawn, and noise gives no finding.
#[test]
fn items_that_stand_several_times_stay_together() {
    let lab = Lab::new();
    let (mut by_chance, mut p) = (0, Vec::new());
    for seed in 1..=12 {
        let (x, labels) = data(seed, 40, 20, 0.0);
        write(&lab, "train", ([&x[..], &x].concat(), [&labels[..], &labels].concat()));
        let out = format!("probe{seed}");
        let (_, err) = lab.ends(0, &format!("{FIT} --out {out}"));
        assert!(err.contains("80 of 80 items share their prompt or all their features with another"), "{err}");
        let fit = lab.json(&format!("{out}/fit.json"));
        assert_eq!((&fit["train"]["items"], &fit["train"]["units"]), (&json!(80), &json!(40)));
        let interval =
            |at: &str| -> Vec<f64> { ["low", "high"].map(|end| fit["results"][0][at][end].as_f64().unwrap()).to_vec() };
        assert!(interval("auc_delong")[1] - interval("auc_delong")[0] > 0.25, "that of forty items: {fit}");
        assert!(interval("auc_bootstrap")[0] < interval("auc_bootstrap")[1]);
        let fold = counts(&lab.npz(&format!("{out}/predictions.npz")), "fold");
        assert!((0..40).all(|item| fold[item] == fold[item + 40]), "{fold:?}");
        p.push(fit["null"]["p"].as_f64().unwrap());
        by_chance += usize::from(p[p.len() - 1] <= 0.05);
    }
    println!("p of noise: {p:?}");
    // As single items all twelve would be findings; at a true level of 5 %, four or more have a chance of one in three hundred.
    assert!(by_chance < 4, "{p:?}");
}

/// A column groups items that nothing else marks as belonging together; a class in one group cannot be cross-validated.
#[test]
fn groups_stay_together() {
    let lab = Lab::new();
    let (x, labels) = data(3, 80, 40, 1.2);
    write(&lab, "train", (x, labels));
    let mut npz = Npz::read(&lab.path("train.npz")).unwrap();
    let topic = |at: usize| if at == 79 { String::new() } else { format!("t{}", at / 4) };
    npz.add("topic", Array::Text((0..80).map(topic).collect()));
    npz.save(&lab.path("train.npz")).unwrap();
    let (_, err) = lab.ends(0, &format!("{FIT} --groups train.npz:topic --out probe"));
    assert!(
        err.contains("79 of 80 items share their prompt, all their features or a value of train.npz:topic"),
        "{err}"
    );
    // The last item alone, and the three beside it, have no unit of their size to change labels with.
    assert!(
        err.contains("of 80 items keep their label in every shuffle, as nothing with as many items that stay"),
        "{err}"
    );
    let fit = lab.json("probe/fit.json");
    assert_eq!((&fit["train"]["units"], &fit["train"]["groups"]), (&json!(21), &json!("train.npz:topic")));
    let fold = counts(&lab.npz("probe/predictions.npz"), "fold");
    assert!((0..79).all(|item| fold[item] == fold[item / 4 * 4]), "{fold:?}");
    assert!(fit["null"]["p"].as_f64().unwrap() <= 0.05, "a signal is found among twenty-one units: {}", fit["null"]);
    let eval: Value = serde_json::from_str(&lab.done(
        "probe eval probe --features train.npz:X --labels train.npz:coverage>=0.5 --groups train.npz:topic --json",
    ))
    .unwrap();
    assert_eq!(eval["set"]["units"], 21);
    let (_, err) = lab.ends(2, &format!("{FIT} --groups train.npz:topic --no-shuffle --out no"));
    assert!(err.contains("--no-shuffle is given, but must be left out where items share prompts or groups"), "{err}");
    // A class that is a single group says nothing about other groups.
    let (out, err) = lab.ends(0, &format!("{FIT} --groups train.npz:coverage --out one"));
    assert!(
        err.contains("no p and no interval: a class of train.npz:coverage>=0.5 is of one prompt or group"),
        "{err}"
    );
    assert!(!out.contains("shuffled labelings") && out.contains("| no interval |"), "{out}");
    let (_, err) = lab.ends(2, &format!("{FIT} --groups train.npz:nothing --out no"));
    assert!(err.contains("nothing") && !lab.path("no").exists(), "{err}");
}

/// A prompt that the probe was fitted on is recognised, whatever was answered.
#[test]
fn prompts_of_the_training_items_are_known_again() {
    let lab = Lab::new();
    for (name, seed, first) in [("train", 5, 0), ("fresh", 6, 78)] {
        let (x, labels) = data(seed, 80, 40, 1.2);
        write(&lab, name, (x, labels));
        let mut npz = Npz::read(&lab.path(&format!("{name}.npz"))).unwrap();
        npz.add("prompt_hash", Array::Text((first..first + 80).map(|at: usize| format!("{at:032x}")).collect()));
        npz.add("id", Array::Text((0..80).map(|at| format!("{name}{at}")).collect()));
        npz.save(&lab.path(&format!("{name}.npz"))).unwrap();
    }
    lab.done(&format!("{FIT} --out probe"));
    let (_, err) = lab.ends(0, "probe eval probe --features fresh.npz:X --labels fresh.json:labels");
    assert!(
        err.contains("2 of 80 items are among those that the probe was fitted on, or answer their prompts"),
        "{err}"
    );
    let set = |name: &str| format!("[{name}]\nfeatures = '{name}.npz:X'\nlabels = '{name}.npz:coverage>=0.5'\n");
    lab.write("gate.toml", format!("name = 'known'\n{}{}", set("train"), set("fresh")));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("the prompt of a training item: 'fresh0', 'fresh1'"), "{err}");
    // Items without a prompt share none.
    for name in ["train", "fresh"] {
        let path = lab.path(&format!("{name}.npz"));
        let old = Npz::read(&path).unwrap();
        let mut npz = Npz::default();
        for array in old.names().filter(|array| *array != "prompt_hash") {
            npz.add(array, old.get(array).unwrap().clone());
        }
        npz.add("prompt_hash", Array::Text(vec![String::new(); 80]));
        npz.save(&path).unwrap();
    }
    let (_, err) = lab.ends(0, &format!("{FIT} --out unasked"));
    assert!(!err.contains("share their prompt"), "{err}");
    let (_, err) = lab.ends(0, "probe eval unasked --features fresh.npz:X --labels fresh.json:labels");
    assert!(!err.contains("are among those"), "{err}");
    let output = lab.command("falsify gate.toml --out unasked-run").output().unwrap();
    assert!(output.status.code() != Some(2), "{output:?}");
    assert!(!lab.read("unasked-run/falsify.json").contains("share their prompt"));
}

/// Even with few features, items that a probe was fitted on are no test of it; but within one set, short rows may be equal by chance.
#[test]
fn few_features_name_training_items_and_no_units() {
    let lab = Lab::new();
    let mut npz = Npz::default();
    npz.add("X", Array::F32(vec![80, 2], (0..160).map(|at| ((at * 7) % 10) as f32).collect()));
    npz.add("y", Array::counts((0..80).map(|at: usize| at % 2)));
    npz.save(&lab.path("few.npz")).unwrap();
    let (_, err) = lab.ends(0, "probe fit --features few.npz:X --labels few.npz:y --shuffles 99 --out probe");
    assert!(!err.contains("share their prompt"), "{err}");
    // One step for each of 5 folds, under the labels themselves and shuffled ones.
    assert!(err.contains("fit        500 to do") && err.contains("fit        500 done"), "{err}");
    let (_, err) = lab.ends(0, "probe eval probe --features few.npz:X --labels few.npz:y");
    assert!(err.contains("80 of 80 items are among those that the probe was fitted on"), "{err}");
    let set = "features = 'few.npz:X'\nlabels = 'few.npz:y'\n";
    lab.write("gate.toml", format!("name = 'few'\n[train]\n{set}[fresh]\n{set}"));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("the very features of a training item"), "{err}");
    // Copies of an item, each taken for one: numbers that are no counts are hardly equal by chance.
    let mut npz = Npz::default();
    let x = |at: usize| ((at / 10 * 2 + at % 2) as f32).sin();
    npz.add("X", Array::F32(vec![80, 2], (0..160).map(x).collect()));
    npz.add("y", Array::counts((0..80).map(|at: usize| at / 5 % 2)));
    npz.add("of", Array::counts((0..80).map(|at: usize| at / 5)));
    npz.save(&lab.path("copies.npz")).unwrap();
    let fit = "probe fit --features copies.npz:X --labels copies.npz:y --shuffles 99";
    let told = "80 of 80 items have the very features of another; with fewer than 8 features";
    let (_, err) = lab.ends(0, &format!("{fit} --out copies"));
    assert!(err.contains(told), "{err}");
    let (_, err) = lab.ends(0, &format!("{fit} --groups copies.npz:of --out grouped"));
    assert!(!err.contains(told) && err.contains("those of 16 units"), "{err}");
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

/// Items that a probe was fitted on are no test of it in another width, or computed once more, either; and copies of one item are one.
#[test]
fn items_are_recognised_after_rounding() {
    let lab = fitted(0.0, 0.0);
    let train = Npz::read(&lab.path("train.npz")).unwrap();
    let Some(Array::F32(shape, x)) = train.get("X") else { panic!("features in f32") };
    let wide: Vec<f64> = x.iter().enumerate().map(|(at, &x)| f64::from(x) * (1.0 + 1e-6 * (at as f64).sin())).collect();
    let mut again = Npz::default();
    again.add("X", Array::F64(shape.clone(), wide.clone()));
    again.save(&lab.path("again.npz")).unwrap();
    let (_, err) = lab.ends(0, "probe eval probe --features again.npz:X --labels train.npz:coverage>=0.5");
    assert!(err.contains("80 of 80 items are among those that the probe was fitted on"), "{err}");
    let set = |name: &str| format!("features = '{name}.npz:X'\nlabels = 'train.npz:coverage>=0.5'\n");
    lab.write("gate.toml", format!("name = 'again'\n[train]\n{}[fresh]\n{}", set("train"), set("again")));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("80 items of") && err.contains("the features of a training item, but for rounding"), "{err}");
    let both: Vec<f64> = x.iter().map(|&x| f64::from(x)).chain(wide).collect();
    let mut twice = Npz::default();
    twice.add("X", Array::F64(vec![2 * shape[0], shape[1]], both));
    twice.add("y", Array::counts((0..2 * shape[0]).map(|at| at % 3 % 2)));
    twice.save(&lab.path("twice.npz")).unwrap();
    let (_, err) = lab.ends(0, "probe fit --features twice.npz:X --labels twice.npz:y --shuffles 0 --out twice");
    assert!(err.contains("160 of 160 items share their prompt or all their features with another"), "{err}");
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
