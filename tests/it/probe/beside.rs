//! `temper falsify` on what goes with the labels beside hidden states: how answers end, and fields of the items.

use serde_json::json;

use super::{data, falsify::GATE, fitted};

/// A probe that reads where answers were cut off would pass every gate: that the classes were not cut off alike is said, and compared with,
/// from whatever file says how they ended.
#[test]
fn classes_that_were_not_cut_off_alike_are_said() {
    let lab = fitted(1.2, 1.2);
    let item = |i: usize, right: bool| {
        let end = if right == i.is_multiple_of(10) { "stop" } else { "length" };
        json!({"id": i.to_string(), "response": "r", "correct": right, "finish_reason": end})
    };
    let labels = |name: &str, (_, labels): (Vec<f32>, Vec<bool>)| {
        let named = labels.iter().enumerate().map(|(i, &right)| {
            let mut item = item(i, right);
            item["prompt"] = json!(format!("{name} {i}"));
            item
        });
        lab.write_lines(&format!("{name}.jsonl"), named);
    };
    labels("train", data(1, 80, 40, 1.2));
    labels("fresh", data(2, 90, 45, 1.2));
    let so = "; the classes were not cut off alike, so that what tells them apart may be truncation";
    let told = |text: &str| text.contains("were cut off at the limit of tokens") && text.contains(so);
    let by_labels = GATE
        .replace("train.npz:coverage>=0.5", "train.jsonl:correct")
        .replace("fresh.json:labels", "fresh.jsonl:correct");
    let by_items = GATE
        .replace("[fresh]", "items = 'train.jsonl'\n[fresh]")
        .replace("[controls]", "items = 'fresh.jsonl'\n[controls]");
    for (name, gate) in [("labels", by_labels), ("items", by_items)] {
        lab.write("gate.toml", gate);
        let (out, _) = lab.ends(4, &format!("falsify gate.toml --out {name}"));
        assert!(out.contains("inconclusive at fresh (AUC above truncation"), "{out}");
        let warnings = lab.json(&format!("{name}/falsify.json"))["warnings"].clone();
        let warnings: Vec<&str> = warnings.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        for begins in ["training: ", ""] {
            let found = warnings.iter().find(|it| told(it) && it.starts_with("training: ") != begins.is_empty());
            assert!(found.is_some(), "{name} '{begins}': {warnings:?}");
        }
    }
    let (_, err) =
        lab.ends(0, "probe fit --features train.npz:X --labels train.jsonl:correct --c 1 --shuffles 0 --out p");
    assert!(told(&err), "{err}");
}

/// How each response ended is a baseline, where that is known and differs.
#[test]
fn where_answers_were_cut_off_is_a_baseline() {
    let lab = fitted(1.2, 1.2);
    // Which answers are cut off, by their place and whether they are right; none where that is not known.
    let items = |cut: &dyn Fn(usize, bool) -> Option<bool>| {
        for (name, n, seed) in [("train", 80, 1), ("fresh", 90, 2)] {
            let labels = data(seed, n, n / 2, 1.2).1;
            let named = labels.iter().enumerate().map(|(i, &right)| {
                let mut item = json!({"id": i.to_string(), "prompt": format!("{name} {i}"), "response": "r"});
                if let Some(cut) = cut(i, right) {
                    item["finish_reason"] = json!(if cut { "length" } else { "stop" });
                }
                item
            });
            lab.write_lines(&format!("{name}.jsonl"), named);
        }
    };
    let gate = GATE
        .replace("\n[fresh]", "\nitems = 'train.jsonl'\n[fresh]")
        .replace("\n[controls]", "\nitems = 'fresh.jsonl'\n[controls]\nbag_of_words = false\nlength = false");
    let baseline = |out: &str| {
        let found = lab.json(&format!("{out}/falsify.json"));
        let mut all = found["baselines"].as_array().unwrap().clone().into_iter();
        let note = found["warnings"].to_string().contains("no truncation baseline");
        (all.find(|one| one["name"] == "truncation"), note)
    };
    lab.write("gate.toml", &gate);
    // The ends tell the classes apart better than the hidden states do: the verdict is open at best.
    items(&|i, right| Some(right == (i % 30 == 29)));
    let (out, _) = lab.ends(3, "falsify gate.toml --out all");
    // What ranks worse than chance is no easier to beat.
    let (mut worse, found) = (0, lab.json("all/falsify.json"));
    let of_probe = found["transfer"].as_array().unwrap().iter().find(|one| one["c"] == found["frozen"]["c"]).unwrap();
    let of_probe = of_probe["auc"].as_f64().unwrap();
    for baseline in found["baselines"].as_array().unwrap().iter().filter(|one| one["to_beat"] == json!(true)) {
        let [auc, gain] = ["fresh_auc", "gain"].map(|name| baseline[name].as_f64().unwrap());
        worse += usize::from(auc < 0.5);
        assert!((gain - (of_probe - auc.max(0.5))).abs() < 1e-9, "{baseline}");
    }
    println!("{worse} baselines rank worse than chance");
    let (found, _) = baseline("all");
    let found = found.unwrap();
    let auc = |name: &str| found[name].as_f64().unwrap();
    assert!(auc("fresh_auc") > 0.95 && auc("cv_auc") > 0.9 && auc("gain") < 0.0, "{found}");
    assert!(found["to_beat"] == json!(true) && found["rival"] == json!(true));
    assert!(out.contains("AUC above truncation"), "{out}");
    // Where the ends are those of other answers, they say nothing, and the probe stands.
    items(&|i, _| Some(i / 2 % 2 == 0));
    lab.ends(0, "falsify gate.toml --out half");
    let chance = baseline("half").0.unwrap()["fresh_auc"].as_f64().unwrap();
    assert!((chance - 0.5).abs() < 0.15, "{chance}");
    items(&|_, _| None);
    lab.ends(0, "falsify gate.toml --out unknown");
    assert_eq!(baseline("unknown"), (None, true));
    lab.write("gate.toml", format!("{gate}truncation = false\n"));
    lab.ends(0, "falsify gate.toml --out off");
    assert_eq!(baseline("off"), (None, false));
}

/// Fields of the items that go with the labels are told, but not one of many that does so by chance; a field that groups the items is none.
#[test]
fn fields_that_go_with_the_labels_are_told() {
    let lab = fitted(1.2, 1.2);
    for (name, n, seed) in [("train", 80, 1), ("fresh", 90, 2)] {
        let labels = data(seed, n, n / 2, 1.2).1;
        let item = |i: usize| {
            let topic = if labels[i] == (i % 6 == 5) { "a" } else { "b" };
            json!({"id": i.to_string(), "prompt": format!("{name} {i}"), "topic": topic, "coin": (i * 2_654_435_761) >> 13 & 1})
        };
        lab.write_lines(&format!("{name}.jsonl"), (0..n).map(item));
    }
    lab.write(
        "gate.toml",
        GATE.replace("\n[fresh]", "\nitems = 'train.jsonl'\n[fresh]")
            .replace("\n[controls]", "\nitems = 'fresh.jsonl'\n[controls]\nbag_of_words = false\nlength = false"),
    );
    let (out, _) = lab.ends(0, "falsify gate.toml --out run");
    assert!(out.contains("But labels go with 'topic', which it may read instead."), "{out}");
    for told in ["training: the field 'topic' goes with the labels", "warning: the field 'topic' goes with the labels"]
    {
        assert!(out.contains(told), "{told}: {out}");
    }
    assert!(!out.contains("'coin'"), "{out}");
}
