//! `temper attribute --features`: a capture gives the same as reading with the model, and no features pass for those of
//! other texts.

use headtemper_study::{Array, Npz};
use headtemper_tests::golden_dir;
use serde_json::{Value, json};

use crate::{attribute::item, lab::Lab};

const ATTRIBUTE: &str = "attribute --items i.jsonl --a even --b odd --shuffles 60 --resamples 50 --control shuffled";

/// An attribution from a capture has the numbers of one that reads the texts with the model, however the capture is ordered
/// and cut, and whatever else it holds; labels are those that the items have now.
#[test]
fn a_capture_is_attributed_as_its_texts_are() {
    let hybrid = golden_dir("qwen3_5").display().to_string();
    for model in ["M", &hybrid] {
        let lab = Lab::new();
        lab.write_lines("i.jsonl", (0..15).map(item));
        let unlabelled = |i: usize| {
            let mut item = item(i);
            item.as_object_mut().unwrap().remove("label");
            item
        };
        lab.write_lines("all.jsonl", (0..20).rev().map(unlabelled));
        let capture =
            format!("capture --model {model} --items all.jsonl --heads vector --last-n 8 --layers all --logits");
        for i in 1..=2 {
            lab.done(&format!("{capture} --out s{i}.npz --shard {i}/2 --part-items 3"));
        }
        lab.done("merge c.npz s1.npz s2.npz");
        lab.done(&format!("{ATTRIBUTE} --model {model} --last-n 8 --out read"));
        let (table, said) = lab.ends(0, &format!("{ATTRIBUTE} --features c.npz --out kept"));
        assert!(said.contains("features   c.npz  13 items read by") && said.contains("last 8 tokens"), "{said}");
        assert!(table.contains("even against odd"), "{table}");
        for name in ["attribution.json", "attribution.csv", "heads.json"] {
            assert_eq!(lab.read(&format!("kept/{name}")), lab.read(&format!("read/{name}")), "{name}");
        }
        let page = lab.read("kept/report.html");
        assert!(page.contains("as captured in c.npz"), "the report says what was read");
        // The same attribution is not computed again; another question needs no model either.
        let (_, said) = lab.ends(0, &format!("{ATTRIBUTE} --features c.npz --out kept"));
        assert!(said.contains("nothing left to do"), "{said}");
        lab.write_lines(
            "i.jsonl",
            (0..12).map(|i| {
                let mut item = item(i);
                item["label"] = if i < 6 { "even" } else { "odd" }.into();
                item
            }),
        );
        let (_, why) = lab.ends(2, &format!("{ATTRIBUTE} --features c.npz --out kept"));
        assert!(why.contains("belongs to another run"), "{why}");
        lab.done(&format!("{ATTRIBUTE} --features c.npz --out other"));
        lab.done(&format!("{ATTRIBUTE} --model {model} --last-n 8 --out read-other"));
        assert_eq!(lab.read("other/attribution.json"), lab.read("read-other/attribution.json"));
        assert_ne!(lab.read("other/attribution.json"), lab.read("kept/attribution.json"));
    }
}

/// Answers that the model wrote during a capture are attributed once they are judged.
#[test]
fn written_answers_are_attributed_from_their_capture() {
    let lab = Lab::new();
    let asked = |i: usize| json!({"id": format!("i{i}"), "prompt": format!("Is {} even?", 7 * i)});
    lab.write_lines("q.jsonl", (0..12).map(asked));
    lab.done(
        "capture --model M --items q.jsonl --out g.npz --heads vector --generate --max-new-tokens 6 --temperature 1",
    );
    let npz = Npz::read(&lab.path("g.npz")).unwrap();
    let Some(Array::Text(answers)) = npz.get("response") else { panic!("no answers") };
    let judged = |(i, answer): (usize, &String)| {
        let mut item = asked(i);
        (item["response"], item["label"]) = (json!(answer), json!(["even", "odd"][i % 2]));
        item
    };
    lab.write_lines("i.jsonl", answers.iter().enumerate().map(judged));
    lab.done(&format!("{ATTRIBUTE} --features g.npz --out out"));
    let found = &lab.json("out/attribution.json")["dispositions"][0];
    assert_eq!(found["n_a"], 6);
    // The items do not say how their answers ended, but the capture that wrote them does.
    let Some(Array::Text(reasons)) = npz.get("finish_reason") else { panic!("no reasons") };
    let cut = |rest: usize| reasons.iter().skip(rest).step_by(2).filter(|reason| *reason == "length").count();
    let length = &found["length"];
    assert_eq!((&length["ends_known_a"], &length["ends_known_b"]), (&json!(6), &json!(6)));
    assert_eq!((&length["truncated_a"], &length["truncated_b"]), (&json!(cut(0)), &json!(cut(1))));
    assert!(cut(0) + cut(1) > 0, "{reasons:?}");
    let (_, why) = lab
        .ends(2, &ATTRIBUTE.replace("i.jsonl", "q.jsonl").replace("attribute", "attribute --features g.npz --out x"));
    assert!(why.contains("no cohorts") || why.contains("label"), "{why}");
}

/// Features of other texts, of a tempered model or without heads are refused before anything is written; so are options that
/// need a model.
#[test]
fn features_that_are_not_of_the_items_are_refused() {
    let lab = Lab::new();
    lab.write_lines("i.jsonl", (0..12).map(item));
    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        lab.write_lines(
            name,
            (0..12).map(|i| {
                let mut item = item(i);
                if i == 5 {
                    change(&mut item);
                }
                item
            }),
        );
    };
    changed("answer.jsonl", &|item| item["response"] = "It is Seven.".into());
    changed("prompt.jsonl", &|item| item["prompt"] = "Is 35  even?".into());
    changed("id.jsonl", &|item| item["id"] = "other".into());
    changed("system.jsonl", &|item| {
        item["messages"] =
            json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": item["prompt"]}]);
        item.as_object_mut().unwrap().remove("prompt");
    });
    let capture = "capture --model M --items i.jsonl";
    lab.done(&format!("{capture} --heads vector --out c.npz"));
    lab.done(&format!("{capture} --out norms.npz"));
    lab.done(&format!("{capture} --heads vector --plan L1H1:0.5 --out plan.npz"));
    lab.done(&format!("{capture} --heads vector --shard 1/2 --out half.npz"));
    // As another program or an earlier version would write it.
    let npz = Npz::read(&lab.path("c.npz")).unwrap();
    let again = |name: &str, change: &dyn Fn(&str, &Array) -> Option<Array>| {
        let mut other = Npz::default();
        for array in npz.names() {
            if let Some(changed) = change(array, npz.get(array).unwrap()) {
                other.add(array, changed);
            }
        }
        other.save(&lab.path(name)).unwrap();
    };
    again("old.npz", &|name, array| (name != "text_hash").then(|| array.clone()));
    again("nan.npz", &|name, array| match array {
        Array::F32(shape, values) if name == "blocks.1.attn.hook_z" => {
            let mut values = values.clone();
            values[7] = f32::NAN;
            Some(Array::F32(shape.clone(), values))
        }
        array => Some(array.clone()),
    });
    again("narrow.npz", &|name, array| match array {
        Array::F32(shape, values) if name == "head_norm" => {
            Some(Array::F32(vec![shape[0], shape[1] - 1], values[..shape[0] * (shape[1] - 1)].to_vec()))
        }
        array => Some(array.clone()),
    });
    again("long.npz", &|name, array| {
        Some(if name == "prompt_len" { Array::I64(vec![12], vec![999; 12]) } else { array.clone() })
    });
    again("piece.npz", &|_, array| match array {
        Array::Scalar(meta) => {
            let mut meta: Value = serde_json::from_str(meta).unwrap();
            meta["piece"] = json!({"from": 0, "to": 12, "fired": {}, "fired_tokens": 0});
            Some(Array::Scalar(meta.to_string()))
        }
        array => Some(array.clone()),
    });
    again("layer.npz", &|name, array| (name != "blocks.2.attn.hook_z").then(|| array.clone()));
    lab.write("text.npz", "no archive");
    for (features, items, parts) in [
        ("c.npz", "answer.jsonl", &["item 'i5' was captured with another prompt or response"][..]),
        ("c.npz", "prompt.jsonl", &["item 'i5' was captured with another prompt or response"]),
        ("c.npz", "system.jsonl", &["item 'i5' was captured with another prompt or response"]),
        ("c.npz", "id.jsonl", &["item 'other' is not among its 12 items"]),
        ("half.npz", "i.jsonl", &["item 'i6' is not among its 6 items", "it holds shard 1/2", "temper merge"]),
        ("norms.npz", "i.jsonl", &["holds no vectors of heads", "--heads vector"]),
        ("plan.npz", "i.jsonl", &["was captured under the plan L1H1:0.5"]),
        ("old.npz", "i.jsonl", &["no array 'text_hash'", "an earlier version wrote it"]),
        ("nan.npz", "i.jsonl", &["array 'blocks.1.attn.hook_z' holds NaN"]),
        ("narrow.npz", "i.jsonl", &["array 'head_norm' is [12, 23], but must be [12, 24]"]),
        ("long.npz", "i.jsonl", &["item 'i0' has a prompt of 999 tokens in a text of"]),
        ("piece.npz", "i.jsonl", &["is a piece of a capture that is not finished"]),
        ("layer.npz", "i.jsonl", &["no array 'blocks.2.attn.hook_z'"]),
        ("text.npz", "i.jsonl", &["text.npz", "no npz archive"]),
        ("nowhere.npz", "i.jsonl", &["cannot read nowhere.npz"]),
    ] {
        let attribute = ATTRIBUTE.replace("i.jsonl", items);
        let (_, why) = lab.ends(2, &format!("{attribute} --features {features} --out out"));
        assert!(parts.iter().all(|part| why.contains(part)), "{features}, {items}: {why}");
        assert!(!lab.path("out").exists(), "{features}, {items}");
    }
    for (option, parts) in [
        ("--control random", &["--control is random", "shuffled, or left out, for a capture"][..]),
        ("--compat dd", &["cannot be used with"]),
        ("--model M", &["cannot be used with"]),
        ("--device cpu", &["cannot be used with"]),
        ("--last-n 8", &["cannot be used with"]),
        ("--heads linear", &["heads is linear"]),
    ] {
        let attribute = ATTRIBUTE.replace("--control shuffled", "");
        let (_, why) = lab.ends(2, &format!("{attribute} --features c.npz --out out {option}"));
        assert!(parts.iter().all(|part| why.contains(part)), "{option}: {why}");
        assert!(!lab.path("out").exists(), "{option}");
    }
    let (_, why) = lab.ends(2, &format!("{ATTRIBUTE} --out out"));
    assert!(why.contains("--model") && why.contains("required"), "{why}");
}
