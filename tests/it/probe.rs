//! `temper probe`, `falsify` and `gate` as a user runs them, on files that a script of theirs could have written.

use headtemper_stats::Random;
use headtemper_study::{Array, Npz};
use serde_json::{Value, json};

use crate::lab::{Lab, array, by_id, lines, prompts};

/// Features of a made-up data set.
const D: usize = 24;

/// Items of noise; where `shift` is not 0 the positive ones lie elsewhere. Returns features and labels.
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

/// `NAME.npz` with `X` and `coverage`, and `NAME.json` with `labels`.
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
    // The AUC of the file is that of the probabilities beside it.
    let p = lab.npz("eval/predictions.npz");
    let (rows, labels) = (array(&p, "p").to_vec2::<f64>().unwrap(), array(&p, "label").to_vec1::<i64>().unwrap());
    let labels: Vec<bool> = labels.iter().map(|&label| label == 1).collect();
    for (row, result) in rows.iter().zip(eval["results"].as_array().unwrap()) {
        assert!((headtemper_stats::auc(row, &labels) - result["auc"].as_f64().unwrap()).abs() < 1e-12);
    }
    // The same fit again is the same file; what it was fitted on it knows again.
    lab.done(&format!("{FIT} --out again"));
    lab.same(&["probe.safetensors", "fit.json", "predictions.npz"], "probe", "again");
    let (_, err) = lab.ends(0, "probe eval probe --features train.npz:X --labels train.npz:coverage>=0.5");
    assert!(err.contains("80 of 80 items are among those that the probe was fitted on"), "{err}");
}

#[test]
fn labels_come_from_any_column_and_find_their_items_by_id() {
    let lab = fitted(1.2, 1.2);
    let (x, labels) = data(2, 90, 45, 1.2);
    let mut npz = Npz::default();
    npz.add("h_layers", Array::F32(vec![90, 2, D], x.chunks_exact(D).flat_map(|row| [row, row].concat()).collect()));
    npz.add("id", Array::Text((0..90).map(|i| format!("q{i}")).collect()));
    npz.save(&lab.path("named.npz")).unwrap();
    // Backwards, with an item that has no features, and one without a value.
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
    // The mean of two equal layers is either.
    assert_eq!(eval("named.npz:h_layers[-2:]", "labels.jsonl:m.kind==yes")["results"], named["results"]);
    let auc = |of: &Value| of["results"][0]["auc"].as_f64().unwrap();
    assert!((auc(&plain) - auc(&named)).abs() < 0.02, "one item less");
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
    for (line, part) in [
        ("--features train.npz:Y --labels train.npz:coverage>=0.5", "has no array 'Y'; it has X, coverage"),
        ("--features gone.npz:X --labels train.npz:coverage>=0.5", "cannot read gone.npz"),
        ("--features train.npz:coverage --labels train.npz:coverage>=0.5", "features are [items, features]"),
        ("--features train.npz:X[0] --labels train.npz:coverage>=0.5", "has no middle axis for [0]"),
        ("--features nan.npz:X --labels nan.npz:coverage>=0.5", "feature 5 of item 3 is NaN"),
        ("--features train.npz:X --labels short.npz:coverage>=0.5", "is 79, but must be 80"),
        ("--features train.npz:X --labels train.json:nope", "has no 'nope'"),
        ("--features train.npz:X --labels text.json:labels", "[1]: a value is neither a number"),
        ("--features train.npz:X --labels train.npz:coverage", "must be 0, 1, true or false"),
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
    assert!(lab.done("probe table --items judged.jsonl").contains("-0.500"));
    lab.write_lines("none.jsonl", [json!({"prompt": "x", "label": "a"})]);
    assert!(lab.ends(2, "probe table --items none.jsonl").1.contains("cr, cw, hr or hw"));
}

const GATE: &str = "name = 'test'\n[train]\nfeatures = 'train.npz:X'\nlabels = 'train.npz:coverage>=0.5'\n\
                    [fresh]\nfeatures = 'fresh.npz:X'\nlabels = 'fresh.json:labels'\n\
                    [controls]\nshuffles = 99\nresamples = 50\n";

#[test]
fn a_falsification_ends_as_its_gates_do() {
    let passes = fitted(1.2, 1.2);
    passes.write("gate.toml", GATE);
    let (out, err) = passes.ends(0, "falsify gate.toml --out run");
    let found = passes.json("run/falsify.json");
    assert_eq!((&found["verdict"], &found["failure_modes"]), (&json!("passed"), &json!([])));
    assert!(out.contains("passed every gate") && err.contains("frozen     probe"), "{out}{err}");
    assert_eq!(found["frozen"], passes.json("run/frozen.json"));
    let hash = headtemper_engine::sha256_file(&passes.path("run/probe.safetensors")).unwrap();
    assert_eq!(found["frozen"]["probe_sha256"], json!(hash));
    assert!(passes.read("run/report.html").contains("</html>") && passes.read("run/report.md") == out);

    let collapses = fitted(1.2, 0.0);
    write(&collapses, "fresh", data(3, 90, 45, 0.0));
    collapses.write("gate.toml", GATE);
    let (out, _) = collapses.ends(3, "falsify gate.toml --out run --json");
    let found: Value = serde_json::from_str(&out).unwrap();
    let outcome = |name: &str| {
        let steps = found["steps"].as_array().unwrap();
        steps.iter().find(|step| step["name"] == name).unwrap()["outcome"].clone()
    };
    assert_eq!(
        (outcome("cv"), outcome("fresh"), outcome("axes")),
        (json!("passed"), json!("failed"), json!("not_run"))
    );
    assert_eq!(found["failure_modes"][0]["name"], "single output distribution");

    let few = Lab::new();
    write(&few, "train", data(1, 100, 50, 1.2));
    write(&few, "fresh", data(2, 193, 9, 1.2));
    few.write("gate.toml", GATE);
    let (out, _) = few.ends(4, "falsify gate.toml --out run");
    assert!(out.contains("Capability cliff"), "{out}");
    assert!(out.contains("the smaller class has 9 items"), "{out}");
}

#[test]
fn what_was_frozen_stays_and_what_was_seen_is_refused() {
    let lab = fitted(1.2, 1.2);
    lab.write("gate.toml", GATE);
    lab.done("falsify gate.toml --out run");
    lab.done("falsify gate.toml --out run");
    lab.write("gate.toml", format!("{GATE}[gates]\nfresh_auc = 0.6\n"));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("gates.fresh_auc was 0.63, is 0.6"), "{err}");
    // Items that were fitted on are no fresh items, whatever they are called.
    let (mut x, mut labels) = data(2, 90, 45, 1.2);
    let (seen, seen_labels) = data(1, 80, 40, 1.2);
    x.extend(&seen[..2 * D]);
    labels.extend(&seen_labels[..2]);
    write(&lab, "fresh", (x, labels));
    lab.write("gate.toml", GATE);
    let (_, err) = lab.ends(2, "falsify gate.toml --out other");
    assert!(err.contains("2 items of") && err.contains("the very features of a training item: '90', '91'"), "{err}");
    assert!(!lab.path("other/falsify.json").exists());
}

/// Prompts in common are found by their text, and by the hashes that a capture keeps.
#[test]
fn prompts_in_common_are_refused() {
    let lab = fitted(1.2, 1.2);
    let item =
        |prefix: &str, i: usize| json!({"id": format!("{prefix}{i}"), "prompt": format!("{prefix} question {i}")});
    lab.write_lines("train.jsonl", (0..80).map(|i| item("old", i)));
    let fresh = |last: &str| {
        let all = (0..89).map(|i| item("new", i));
        lab.write_lines("fresh.jsonl", all.chain([json!({"id": "x", "prompt": last})]));
    };
    let gate = GATE
        .replace("\n[fresh]", "\nitems = 'train.jsonl'\n[fresh]")
        .replace("\n[controls]", "\nitems = 'fresh.jsonl'\n[controls]");
    lab.write("gate.toml", &gate);
    fresh("Old, QUESTION 7?");
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("the prompt of a training item: 'old question 7'"), "{err}");
    fresh("entirely new");
    lab.done("falsify gate.toml --out run");
    let overlap = lab.json("run/falsify.json")["overlap"].clone();
    assert_eq!(overlap, json!({"by_features": true, "by_prompt": true, "by_text": true}));
    let names: Vec<String> = lab.json("run/falsify.json")["baselines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|baseline| baseline["name"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(names, ["shuffled labels", "random features", "length", "bag of words"]);
}

/// Axes, pooled layers and another model, each of which the file may declare to decide.
#[test]
fn the_later_steps_report_or_decide() {
    let lab = fitted(1.2, 1.2);
    for (name, seed, n) in [("train", 1, 80), ("fresh", 2, 90)] {
        let labels = data(seed, n, n / 2, 0.0).1;
        let item = |i: usize| {
            let good = if labels[i] { 5 } else { 2 };
            // One training item is not known to be right or wrong.
            let right = if name == "train" && i == 0 { Value::Null } else { json!(good) };
            json!({"id": format!("{name}{i}"), "prompt": format!("{name} {i}"), "items_right": right,
                   "scores": {"a": good, "same": good, "noise": 1 + (i * 7 + i / 3) % 5}})
        };
        lab.write_lines(&format!("{name}.jsonl"), (0..n).map(item));
    }
    write(&lab, "train_b", data(11, 80, 40, 1.2));
    write(&lab, "fresh_b", data(12, 90, 45, 0.0));
    let gate = GATE
        .replace("\n[fresh]", "\nitems = 'train.jsonl'\n[fresh]")
        .replace("\n[controls]", "\nitems = 'fresh.jsonl'\n[controls]");
    let later = "[axes]\nevery = '>=4'\n[replication]\nmodel = 'b'\ntrain = 'train_b.npz:X'\nfresh = 'fresh_b.npz:X'\n\
                 train_labels = 'train_b.npz:coverage>=0.5'\nfresh_labels = 'fresh_b.json:labels'\n";
    lab.write("gate.toml", format!("{gate}{later}"));
    lab.done("falsify gate.toml --out run");
    let found = lab.json("run/falsify.json");
    let axis = |name: &str| {
        let axes = found["axes"].as_array().unwrap();
        axes.iter().find(|axis| axis["name"] == name).unwrap()["outcome"].clone()
    };
    assert_eq!((axis("scores.a>=4"), axis("scores.noise>=4")), (json!("passed"), json!("failed")));
    let flagged: Vec<&Value> =
        found["axis_pairs"].as_array().unwrap().iter().filter(|pair| pair["flagged"] == true).collect();
    assert_eq!(flagged.len(), 1, "{flagged:?}");
    assert!((flagged[0]["r"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    assert!(found["sentence"].as_str().unwrap().contains("Step replication (reported, not deciding): failed"));
    lab.write("gate.toml", format!("{gate}{later}[gates]\ndecide = ['cv', 'fresh', 'replication']\n"));
    let (out, _) = lab.ends(3, "falsify gate.toml --out decided");
    assert!(out.contains("failed at replication"), "{out}");
    // An axis whose column is called as a count is told as the AUC that it has.
    let by_items = gate.replace("train.npz:coverage>=0.5", "train.jsonl:items_right>=4");
    lab.write("gate.toml", format!("{by_items}[axes]\ncolumns = ['items_right>=4']\n"));
    let out = lab.done("falsify gate.toml --out named");
    assert!(out.contains("| items_right>=4, fresh AUC | 0.") && out.contains("≥ 0.600"), "{out}");
    let found = lab.json("named/falsify.json");
    assert_eq!(found["steps"][2]["checks"][0]["kind"], "share");
    assert!(out.contains("warning: training: 1 items without a label were left out"), "{out}");
}

/// A sidecar on the tiny model: what it reads is what a capture of the same answers holds.
#[test]
fn a_sidecar_hedges_what_the_probe_doubts() {
    let lab = Lab::new();
    prompts(&lab, 12);
    let answers = by_id(&lab.done("generate --model M --items q.jsonl --max-new-tokens 6 --json"));
    lab.done(
        "capture --model M --items q.jsonl --generate --max-new-tokens 6 --layers last:2 --heads none --out f.npz",
    );
    let labels: Vec<u8> = (0..12).map(|i| u8::from(i % 3 != 0)).collect();
    lab.write("l.json", json!({"y": labels}).to_string());
    lab.done("probe fit --features f.npz:h_last --labels l.json:y --cv 3 --shuffles 0 --out p");
    // What is right is what the model says; what an item says of an answer that is not there yet does not count.
    let item = |i: usize| {
        let id = format!("q{i}");
        let gold = if labels[i] == 1 { answers[&id]["response"].clone() } else { json!("nobody says this") };
        json!({"id": id, "prompt": format!("Qu'est-ce que {i} à {}?", i * i), "gold": gold, "coverage": 0.0})
    };
    lab.write_lines("items.jsonl", (0..12).map(item));
    let run = "gate --model M --items items.jsonl --probe p --threshold 0.5 --max-new-tokens 6 --out g";
    let (out, _) = lab.ends(0, run);
    let found = lab.json("g/gate.json");
    let rows = lines(&lab.read("g/gated.jsonl"));
    assert_eq!((rows.len(), found["items"].as_u64()), (24, Some(12)));
    // A probe with as many features as here tells its own items apart: it doubts the wrong ones.
    assert_eq!((found["auc"].as_f64(), found["prefixed"].as_u64()), (Some(1.0), Some(4)), "{out}");
    assert_eq!(found["auc_delong"], json!({"low": 1.0, "high": 1.0}));
    assert!(out.contains("12 of 12 answers were generated here, and without a lexicon (--hedges)"), "{out}");
    assert_eq!((&found["plain"]["asymmetry"], &found["gated"]["asymmetry"]), (&json!(0.0), &json!(-1.0)));
    assert_eq!(found["plain"]["coverage"], found["gated"]["coverage"]);
    assert!(found["seen_in_training"] == 12 && out.contains("fitted on 12 of these 12 answers"), "{out}");
    for pair in rows.chunks_exact(2) {
        let (plain, gated) = (pair[0]["response"].as_str().unwrap(), pair[1]["response"].as_str().unwrap());
        let prefix = if pair[1]["prefixed"] == true { "I'm not sure, but " } else { "" };
        assert_eq!(gated, format!("{prefix}{plain}"));
    }
    // Probabilities are those of the probe on the capture of the same tokens.
    let eval = "probe eval p --features f.npz:h_last --labels l.json:y --out e";
    lab.done(eval);
    let p = array(&lab.npz("e/predictions.npz"), "p").to_vec2::<f64>().unwrap();
    for (row, p) in rows.iter().step_by(2).zip(&p[0]) {
        assert!((row["p"].as_f64().unwrap() - p).abs() < 1e-6, "{row}");
    }
    let (again, err) = lab.ends(0, run);
    assert!(again == out && err.contains("nothing left to do"), "{err}");
    let (_, err) = lab.ends(2, &run.replace("--threshold 0.5", "--threshold 0.6"));
    assert!(err.contains("threshold was 0.5, is 0.6"), "{err}");
    let (_, err) = lab.ends(2, &format!("{run} --site 0"));
    assert!(err.contains("belongs to another run: site was none"), "{err}");
    for (threshold, told) in [("nan", "NaN"), ("50", "50")] {
        let line = format!("gate --model M --items items.jsonl --probe p --threshold {threshold} --out g4");
        let (_, err) = lab.ends(2, &line);
        assert!(err.contains(&format!("the threshold is {told}, but must be a probability, from 0 to 1")), "{err}");
        assert!(!lab.path("g4").exists(), "refused before anything is generated");
    }
    // An answer that comes along without a label says nothing of its hedging either.
    let brought = |i: usize| {
        let label = if i < 3 { json!("cr") } else { Value::Null };
        json!({"id": format!("b{i}"), "prompt": format!("{i}?"), "response": "yes", "gold": "yes", "label": label})
    };
    lab.write_lines("brought.jsonl", (0..8).map(brought));
    let out = lab.done("gate --model M --items brought.jsonl --probe p --threshold 0.5 --out g5");
    assert!(out.contains("5 of 8 answers come without a label, and without a lexicon (--hedges)"), "{out}");
    lab.done("capture --model M --items q.jsonl --generate --max-new-tokens 6 --layers 0 --heads none --out other.npz");
    lab.done("probe fit --features other.npz:h_layers[0] --labels l.json:y --cv 3 --shuffles 0 --out layers");
    lab.done("gate --model M --items items.jsonl --probe layers --threshold 0.5 --max-new-tokens 6 --out g2");
    let (_, err) = lab.ends(2, "gate --model M --items items.jsonl --probe p --c 3 --out g3");
    assert!(err.contains("C is 3, but must be one that the probe was fitted with: 1"), "{err}");
}

/// Each of these once passed, or fell over.
#[test]
fn what_would_mislead_is_refused_or_cannot_be_told() {
    let lab = fitted(1.2, 1.2);
    lab.write("gate.toml", GATE);
    lab.done("falsify gate.toml --out run");
    // A frozen probe is tested once.
    write(&lab, "fresh", data(4, 90, 45, 1.2));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("was tested on other fresh items before"), "{err}");
    // Several answers to one prompt are not several items.
    let item = |prefix: &str, i: usize| json!({"id": format!("{prefix}{i}"), "prompt": format!("{prefix} {}", i / 2)});
    lab.write_lines("train.jsonl", (0..80).map(|i| item("old", i)));
    lab.write_lines("fresh.jsonl", (0..90).map(|i| item("new", i)));
    let with_items = |train: &str| {
        GATE.replace("\n[fresh]", &format!("\nitems = '{train}'\n[fresh]"))
            .replace("\n[controls]", "\nitems = 'fresh.jsonl'\n[controls]")
    };
    lab.write("gate.toml", with_items("train.jsonl"));
    let (out, _) = lab.ends(4, "falsify gate.toml --out repeated");
    assert!(out.contains("items that share their prompt with another | 80 | ≤ 0 | inconclusive"), "{out}");
    // Items that are fewer or more than the rows they stand beside.
    lab.write_lines("long.jsonl", (0..81).map(|i| item("old", 2 * i)));
    lab.write("gate.toml", with_items("long.jsonl"));
    let (_, err) = lab.ends(2, "falsify gate.toml --out long");
    assert!(err.contains("is 81, but must be 80"), "{err}");
    assert!(!lab.path("long").exists(), "refused before anything is fitted");
    // Arrays whose lengths contradict each other.
    let mut npz = Npz::default();
    npz.add("X", Array::F32(vec![3, 2], vec![1.0; 6]));
    npz.add("id", Array::Text(vec!["a".into(), "b".into()]));
    npz.add("y", Array::counts([0, 1, 0]));
    npz.save(&lab.path("ids.npz")).unwrap();
    let (_, err) = lab.ends(2, "probe fit --features ids.npz:X --labels ids.npz:y --out x");
    assert!(err.contains("has 3 rows, but array 'id' 2"), "{err}");
    let mut npz = Npz::default();
    npz.add("X", Array::F32(vec![3, 2, 0], Vec::new()));
    npz.save(&lab.path("empty.npz")).unwrap();
    assert!(lab.ends(2, "probe fit --features empty.npz:X[0] --labels ids.npz:y --out x").1.contains("holds nothing"));
}

/// Captures say what they are: features of another site are no fresh ones, and a merge overwrites nothing.
#[test]
fn captures_of_something_else_are_refused() {
    let lab = Lab::new();
    prompts(&lab, 24);
    let capture = |more: &str| lab.done(&format!("capture --model M --items q.jsonl --heads none {more}"));
    capture("--out a.npz --mean-layers 2 --limit 12");
    capture("--out b.npz --pool last:3 --shard 2/2");
    let labels: Vec<u8> = (0..12).map(|i| i % 2).collect();
    lab.write("l.json", json!({"y": labels}).to_string());
    let gate = |fresh: &str| {
        format!(
            "name = 'x'\n[train]\nfeatures = 'a.npz:h_mean'\nlabels = 'l.json:y'\n[fresh]\nfeatures = '{fresh}'\n\
             labels = 'l.json:y'\n[controls]\nshuffles = 19\nresamples = 0\n"
        )
    };
    lab.write("gate.toml", gate("b.npz:h_last"));
    let (_, err) = lab.ends(2, "falsify gate.toml --out x");
    assert!(
        err.contains("h_mean of the last 2 layers, pooled over last;") && err.contains("h_last, pooled over last:3"),
        "{err}"
    );
    lab.done("probe fit --features a.npz:h_mean --labels l.json:y --cv 3 --shuffles 0 --out p");
    let (_, err) = lab.ends(0, "probe eval p --features b.npz:h_last --labels l.json:y");
    assert!(err.contains("warning: the probe was fitted on something else"), "{err}");
    capture("--out c.npz --pool last:3 --shard 1/2");
    let (_, err) = lab.ends(2, "merge a.npz c.npz b.npz");
    assert!(err.contains("is there and holds something else"), "{err}");
    lab.done("merge whole.npz c.npz b.npz");
    lab.done("merge whole.npz c.npz b.npz");
}
