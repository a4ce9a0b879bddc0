//! `temper falsify` as a user runs it: gates that decide, frozen probes, and fresh items that are not fresh.

use std::fs;

use headtemper_study::{Array, Npz};
use serde_json::{Value, json};

use super::{D, data, fitted, write};
use crate::lab::{Lab, prompts, squeezed};

pub(super) const GATE: &str = "name = 'test'\n[train]\nfeatures = 'train.npz:X'\nlabels = 'train.npz:coverage>=0.5'\n\
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
    write(&collapses, "fresh", data(4, 400, 200, 0.0));
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

/// What the items say is part of a test: other texts or ends under the same directory would be a second try. One group with most items
/// decides nothing.
#[test]
fn other_texts_are_another_test_and_one_large_group_is_none() {
    let lab = fitted(1.2, 1.2);
    let items = |name: &str, n: usize, more: &dyn Fn(usize) -> Value| {
        lab.write_lines(
            &format!("{name}.jsonl"),
            (0..n).map(|i| {
                let mut item = json!({"id": i.to_string(), "prompt": format!("{name} {i}"), "response": "r"});
                more(i).as_object().unwrap().iter().for_each(|(name, value)| item[name] = value.clone());
                item
            }),
        );
    };
    let plain = |_: usize| json!({});
    let gate = GATE
        .replace("\n[fresh]", "\nitems = 'train.jsonl'\n[fresh]")
        .replace("\n[controls]", "\nitems = 'fresh.jsonl'\n[controls]\nbag_of_words = false\nlength = false");
    lab.write("gate.toml", &gate);
    items("train", 80, &plain);
    items("fresh", 90, &plain);
    lab.ends(0, "falsify gate.toml --out run");
    items("fresh", 90, &|i| json!({"finish_reason": if i < 45 { "length" } else { "stop" }}));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("tested on other fresh items before"), "{err}");
    items("fresh", 90, &plain);
    items("train", 80, &|i| json!({"response": format!("another {i}")}));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("train_items_sha256"), "{err}");

    // One document with sixty of ninety items, and thirty with one each.
    items("train", 80, &plain);
    let grouped = |name: &str| format!("groups = '{name}.jsonl:document'\n");
    lab.write(
        "gate.toml",
        gate.replace("[fresh]", &format!("{}[fresh]", grouped("train")))
            .replace("[controls]", &format!("{}[controls]", grouped("fresh"))),
    );
    items("train", 80, &|i| json!({"document": format!("t{i}")}));
    items("fresh", 90, &|i| json!({"document": format!("f{}", i.max(59))}));
    let (out, _) = lab.ends(4, "falsify gate.toml --out documents");
    assert!(out.contains("the smaller class is worth 2 prompts or groups of one size"), "{out}");
    let found = lab.json("documents/falsify.json");
    assert!(found["fresh"]["class_units"].as_u64().unwrap() > 10, "{}", found["fresh"]);
    assert!(found["fresh"]["class_worth"].as_f64().unwrap() < 3.0, "{}", found["fresh"]);
}

/// A gate between a number and the end of its interval: the items cannot decide, unless the point was declared to decide.
#[test]
fn a_missed_gate_fails_where_its_interval_misses_it() {
    let lab = fitted(1.2, 1.2);
    lab.write("gate.toml", GATE);
    lab.done("falsify gate.toml --out run");
    let check = lab.json("run/falsify.json")["steps"][1]["checks"][1].clone();
    assert_eq!(check["what"], "AUC");
    let (auc, high) = (check["value"].as_f64().unwrap(), check["range"]["high"].as_f64().unwrap());
    let between = format!("{GATE}[gates]\nfresh_auc = {}\n", f64::midpoint(auc, high));
    lab.write("gate.toml", &between);
    let (out, _) = lab.ends(4, "falsify gate.toml --out open");
    assert!(out.contains("inconclusive at fresh (AUC: 0.") && out.contains("but its 95 % interval, 0."), "{out}");
    assert_eq!(lab.json("open/falsify.json")["failure_modes"], json!([]));
    assert!(lab.read("open/report.html").contains("but its 95 % interval, 0."));
    lab.write("gate.toml", format!("{between}failed_by = 'point'\n"));
    let (_, err) = lab.ends(2, "falsify gate.toml --out open");
    assert!(err.contains("gates.failed_by was interval, is point"), "{err}");
    let (out, _) = lab.ends(3, "falsify gate.toml --out point");
    assert!(out.contains("failed at fresh (AUC)"), "{out}");
}

#[test]
fn what_was_frozen_stays_and_what_was_seen_is_refused() {
    let lab = fitted(1.2, 1.2);
    lab.write("gate.toml", GATE);
    lab.done("falsify gate.toml --out run");
    lab.done("falsify gate.toml --out run");
    // From another directory it is the same run.
    let elsewhere = lab.path("gate.toml").display().to_string();
    lab.done(&format!("falsify {elsewhere} --out {}", lab.path("run").display()));
    lab.write("gate.toml", format!("{GATE}[gates]\nfresh_auc = 0.6\n"));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("gates.fresh_auc was 0.63, is 0.6"), "{err}");
    // Items that the probe was fitted on are not fresh, whatever they are called.
    let (mut x, mut labels) = data(2, 90, 45, 1.2);
    let (seen, seen_labels) = data(1, 80, 40, 1.2);
    x.extend(&seen[..2 * D]);
    labels.extend(&seen_labels[..2]);
    write(&lab, "fresh", (x, labels));
    lab.write("gate.toml", GATE);
    let (_, err) = lab.ends(2, "falsify gate.toml --out other");
    assert!(err.contains("2 items of") && err.contains("the very features of a training item: '90', '91'"), "{err}");
    // Nothing was tested: the directory is free for other items.
    assert!(!lab.path("other").exists());
}

/// Common prompts are found by their text, and by the hashes that a capture keeps.
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
    assert_eq!(overlap, json!({"by_features": true, "by_prompt": true, "by_group": false, "by_text": true}));
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
                   "scores": {"a": good, "same": good, "noise": 1 + (i * 7 + i / 3) % 5, "rare": 1 + 4 * usize::from(i == 3)}})
        };
        lab.write_lines(&format!("{name}.jsonl"), (0..n).map(item));
    }
    write(&lab, "train_b", data(11, 80, 40, 1.2));
    // Labels the other way round, so that no interval reaches the gate.
    write(&lab, "fresh_b", data(12, 90, 45, -1.2));
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
    assert_eq!(axis("scores.rare>=4"), "inconclusive");
    let note = found["steps"][2]["note"].as_str().unwrap();
    let why = "scores.rare>=4: the smaller class of the training items has 1, but 10 are needed, and \
               the smaller class of the fresh items has 1, but 10 are needed";
    assert!(note.ends_with(why), "{note}");
    let flagged: Vec<&Value> =
        found["axis_pairs"].as_array().unwrap().iter().filter(|pair| pair["flagged"] == true).collect();
    assert_eq!(flagged.len(), 1, "{flagged:?}");
    assert!((flagged[0]["r"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    assert!(found["sentence"].as_str().unwrap().contains("Step replication (reported, not deciding): failed"));
    // Another model's features under the same name would be a second try.
    lab.done("falsify gate.toml --out run");
    let (before, failed) = (lab.read("run/falsify.json"), fs::read(lab.path("fresh_b.npz")).unwrap());
    write(&lab, "fresh_b", data(13, 90, 45, 1.2));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("the step replication was on other items before"), "{err}");
    assert_eq!(lab.read("run/falsify.json"), before);
    write(&lab, "fresh_b", data(12, 90, 45, -1.2));
    assert!(fs::read(lab.path("fresh_b.npz")).unwrap() == failed);
    lab.write("gate.toml", format!("{gate}{later}[gates]\ndecide = ['cv', 'fresh', 'replication']\n"));
    let (out, _) = lab.ends(3, "falsify gate.toml --out decided");
    assert!(out.contains("failed at replication"), "{out}");
    // An axis whose column is named like a count is still told as an AUC.
    let by_items = gate.replace("train.npz:coverage>=0.5", "train.jsonl:items_right>=4");
    lab.write("gate.toml", format!("{by_items}[axes]\ncolumns = ['items_right>=4']\n"));
    let out = lab.done("falsify gate.toml --out named");
    assert!(squeezed(&out).contains("| items_right>=4, fresh AUC | 0.") && out.contains("≥ 0.600"), "{out}");
    let found = lab.json("named/falsify.json");
    assert_eq!(found["steps"][2]["checks"][0]["kind"], "share");
    assert!(out.contains("warning: training: left out for want of a label: 1 item\n"), "{out}");
}

/// Each of these once passed, or crashed.
#[test]
fn what_would_mislead_is_refused_or_cannot_be_told() {
    let lab = fitted(1.2, 1.2);
    lab.write("gate.toml", GATE);
    lab.done("falsify gate.toml --out run");
    // A frozen probe is tested once.
    write(&lab, "fresh", data(4, 90, 45, 1.2));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("was tested on other fresh items before"), "{err}");
    let item = |prefix: &str, i: usize| json!({"id": format!("{prefix}{i}"), "prompt": format!("{prefix} {i}")});
    lab.write_lines("fresh.jsonl", (0..90).map(|i| item("new", i)));
    let with_items = |train: &str| {
        GATE.replace("\n[fresh]", &format!("\nitems = '{train}'\n[fresh]"))
            .replace("\n[controls]", "\nitems = 'fresh.jsonl'\n[controls]")
    };
    // Items in the order of the features name them; labels are then found by id, in any order.
    let labels = data(2, 90, 45, 1.2).1;
    write(&lab, "fresh", data(2, 90, 45, 1.2));
    let labelled = |i: usize| json!({"id": format!("new{i}"), "y": u8::from(labels[i])});
    lab.write_lines("shuffled.jsonl", (0..90).map(|i| labelled(i * 7 % 90)));
    lab.write_lines("train.jsonl", (0..80).map(|i| item("old", i)));
    lab.write("gate.toml", with_items("train.jsonl").replace("fresh.json:labels", "shuffled.jsonl:y"));
    lab.done("falsify gate.toml --out by-id");
    assert_eq!(lab.json("by-id/falsify.json")["fresh"]["matched_by"], "id");
    let (_, err) = lab.ends(0, "probe fit --features fresh.npz:X --labels shuffled.jsonl:y --shuffles 0 --out place");
    assert!(err.contains("matched by place: the labels name their items and the features do not"), "{err}");
    // Fewer or more items than rows of features.
    lab.write_lines("long.jsonl", (0..81).map(|i| item("old", 2 * i)));
    lab.write("gate.toml", with_items("long.jsonl"));
    let (_, err) = lab.ends(2, "falsify gate.toml --out long");
    assert!(err.contains("is 81, but must be 80"), "{err}");
    assert!(!lab.path("long").exists(), "refused before anything is fitted");
    // Arrays whose lengths contradict each other.
    let mut npz = Npz::default();
    npz.add("X", Array::F32(vec![3, 2], vec![1.0; 6]));
    npz.add("id", Array::Text(vec!["a".into(), "b".into()]));
    npz.save(&lab.path("ids.npz")).unwrap();
    let (_, err) = lab.ends(2, "probe fit --features ids.npz:X --labels fresh.json:labels --out x");
    assert!(err.contains("has 3 rows, but array 'id' 2"), "{err}");
    let mut npz = Npz::default();
    npz.add("X", Array::F32(vec![3, 2, 0], Vec::new()));
    npz.save(&lab.path("empty.npz")).unwrap();
    assert!(
        lab.ends(2, "probe fit --features empty.npz:X[0] --labels fresh.json:labels --out x")
            .1
            .contains("holds nothing")
    );
}

/// Answers to one prompt are one unit, and gates count and draw units; so are items of one group, which the two sets may not share.
#[test]
fn answers_to_one_prompt_are_one_unit() {
    let lab = fitted(1.2, 1.2);
    // Four answers to each prompt, right and wrong ones.
    let item = |prefix: &str, i: usize| json!({"id": format!("{prefix}{i}"), "prompt": format!("{prefix} {}", i / 4), "topic": format!("{}", i / 20)});
    lab.write_lines("train.jsonl", (0..80).map(|i| item("old", i)));
    lab.write_lines("fresh.jsonl", (0..90).map(|i| item("new", i)));
    let gate = |more: &str, last: &str| {
        let set = |name: &str| format!("\nitems = '{name}.jsonl'\n{}", more.replace("NAME", name));
        GATE.replace("\n[fresh]", &format!("{}[fresh]", set("train")))
            .replace("\n[controls]", &format!("{}[controls]", set("fresh")))
            + last
    };
    lab.write("gate.toml", gate("", "[axes]\ncolumns = ['coverage>=0.5']\ntrain = 'train.npz'\nfresh = 'fresh.npz'\n"));
    let out = lab.done("falsify gate.toml --out run");
    let found = lab.json("run/falsify.json");
    assert_eq!((&found["train"]["units"], &found["fresh"]["units"]), (&json!(20), &json!(23)));
    assert!(out.contains("of 20 prompts or groups), 90 fresh items"), "{out}");
    assert!(squeezed(&out).contains("worth of the smaller class in prompts or groups | 20 | ≥ 10 | passed"), "{out}");
    for p in [&found["cv_null"]["p"], &found["fresh_null"]["p"]] {
        assert_eq!(p, &json!(0.01), "a signal is found among twenty units");
    }
    assert_eq!(found["axes"][0]["outcome"], "passed");
    let width = |found: &Value| {
        let range = &found["transfer"][0]["auc_delong"];
        range["high"].as_f64().unwrap() - range["low"].as_f64().unwrap()
    };
    lab.write("gate.toml", GATE);
    lab.done("falsify gate.toml --out single");
    assert_ne!(width(&found), width(&lab.json("single/falsify.json")), "intervals are over prompts");
    // Five topics are too few to decide, and shared topics are not fresh.
    lab.write("gate.toml", gate("groups = 'NAME.jsonl:topic'\n", ""));
    let (_, err) = lab.ends(2, "falsify gate.toml --out topics");
    assert!(err.contains("the group of a training item: 'new 0' ('0'), 'new 0' ('0')"), "{err}");
    let topic =
        |i: usize| json!({"id": format!("new{i}"), "prompt": format!("new {i}"), "topic": format!("n{}", i / 20)});
    lab.write_lines("fresh.jsonl", (0..90).map(topic));
    let (out, _) = lab.ends(4, "falsify gate.toml --out topics");
    assert!(
        squeezed(&out).contains("worth of the smaller class in prompts or groups | 4 | ≥ 10 | inconclusive"),
        "{out}"
    );
    assert_eq!(lab.json("topics/falsify.json")["overlap"]["by_group"], true);
    lab.write("gate.toml", gate("", "").replace("\n[fresh]", "\ngroups = 'train.jsonl:topic'\n[fresh]"));
    assert!(lab.ends(2, "falsify gate.toml --out half").1.contains("take groups both or neither"));
}

/// Captures say what they hold: features of another site are refused as fresh ones, and a merge overwrites nothing.
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
    // So are those of another plan or template; another arithmetic is told.
    capture("--out plan.npz --mean-layers 2 --shard 2/2 --plan L0H1:0.5");
    capture("--out raw.npz --mean-layers 2 --shard 2/2 --raw");
    for (other, why) in
        [("plan", "pooled over last, under L0H1:0.5"), ("raw", "pooled over last, without the chat template")]
    {
        lab.write("gate.toml", gate(&format!("{other}.npz:h_mean")));
        let (_, err) = lab.ends(2, &format!("falsify gate.toml --out {other}"));
        assert!(err.contains(why), "{err}");
    }
    lab.done("probe fit --features a.npz:h_mean --labels l.json:y --cv 3 --shuffles 0 --out p");
    capture("--out half.npz --mean-layers 2 --shard 2/2 --dtype bf16");
    let (_, err) = lab.ends(0, "probe eval p --features half.npz:h_mean --labels l.json:y");
    assert!(err.contains("another arithmetic: weights in f32 there, weights in bf16 here"), "{err}");
    let (_, err) = lab.ends(0, "probe eval p --features b.npz:h_last --labels l.json:y");
    assert!(err.contains("warning: the probe was fitted on something else"), "{err}");
    capture("--out c.npz --pool last:3 --shard 1/2");
    let (_, err) = lab.ends(2, "merge a.npz c.npz b.npz");
    assert!(err.contains("is there and holds something else"), "{err}");
    lab.done("merge whole.npz c.npz b.npz");
    lab.done("merge whole.npz c.npz b.npz");
}

/// A fit may take minutes: what does not fit a later step is refused before the first one, and before the first file.
#[test]
fn later_steps_are_refused_before_the_first_fit() {
    let lab = fitted(1.2, 1.2);
    let mut narrow = Npz::default();
    narrow.add("X", Array::F32(vec![90, 2], vec![1.0; 180]));
    narrow.save(&lab.path("narrow.npz")).unwrap();
    lab.write("short.json", json!({"labels": [0, 1, 0]}).to_string());
    lab.write("one.json", json!({"labels": vec![1; 80]}).to_string());
    let labels = "train_labels = 'train.json:labels'\nfresh_labels = 'fresh.json:labels'\n";
    let replication = |train: &str, fresh: &str| {
        format!("[replication]\nmodel = 'b'\ntrain = '{train}'\nfresh = '{fresh}'\n{labels}")
    };
    let axes = |fresh: &str| format!("[axes]\ncolumns = ['coverage>=0.5']\ntrain = 'train.npz'\nfresh = '{fresh}'\n");
    for (more, part) in [
        ("[pooled]\ntrain = 'train.npz:X'\nfresh = 'narrow.npz:X'\n".to_string(), "is 2, but must be 24, as the probe"),
        ("[pooled]\ntrain = 'train.npz:Y'\nfresh = 'fresh.npz:X'\n".to_string(), "'Y'"),
        (replication("train.npz:X", "gone.npz:X"), "gone.npz"),
        (replication("gone.npz:X", "fresh.npz:X"), "gone.npz"),
        (replication("train.npz:X", "fresh.npz:X").replace("train.json:labels", "one.json:labels"), "one class"),
        (
            replication("train.npz:X", "fresh.npz:X").replace("fresh.json:labels", "short.json:labels"),
            "is 3, but must be 90",
        ),
        (axes("gone.npz"), "gone.npz"),
        (axes("narrow.npz"), "coverage"),
    ] {
        lab.write("gate.toml", format!("{GATE}{more}"));
        refused_unfitted(&lab, part);
    }
    for (from, to, part) in [
        ("fresh.json:labels", "gone.json:labels", "gone.json"),
        ("fresh.json:labels", "short.json:labels", "is 3, but must be 90"),
        ("fresh.npz:X", "narrow.npz:X", "is 2, but must be 24, as the probe"),
    ] {
        lab.write("gate.toml", GATE.replace(from, to));
        refused_unfitted(&lab, part);
    }
}

fn refused_unfitted(lab: &Lab, part: &str) {
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains(part), "{part} is not in: {err}");
    assert!(!err.contains("to do") && !lab.path("run").exists(), "something was fitted: {err}");
}
