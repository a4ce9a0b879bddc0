//! `temper capture` as a job over a data set: how it is cut, what goes into the file, what is refused (answers generated on the
//! way: `answers`; captures that were stopped or damaged: `stopped`).

mod answers;
mod stopped;

use std::fs;

use candle_core::Tensor;
use headtemper_engine::{CaptureRow, Encoded, Keep, Pool};
use headtemper_hook::HeadPlan;
use headtemper_study::{Array, ItemFile, Npz, ReadAs};
use headtemper_tests::engine;
use serde_json::{Value, json};

use crate::{
    lab::{Lab, lines},
    states::{captured, keep},
};

fn items(lab: &Lab, count: usize) {
    let item = |i: usize| {
        let mut item = json!({"id": format!("q{i}"), "prompt": format!("Qui est {i}?"), "response": "né 你 ".repeat(i % 4 + 1),
            "label": "x".repeat(i % 3), "correct": i.is_multiple_of(2)});
        if !i.is_multiple_of(3) {
            item["scores"] = json!({"hedging": i as f64 / 4.0});
        }
        item
    };
    lab.write_lines("i.jsonl", (0..count).map(item));
}

const CAPTURE: &str =
    "capture --model M --items i.jsonl --layers 1,last --mean-layers 2 --pool last:3 --heads vector --logits";

const ANSWERS: &str = "capture --model M --items i.jsonl --layers last:2 --pool response --generate --max-new-tokens 9 \
                       --temperature 1.3 --seed 4";

fn bytes(lab: &Lab, name: &str) -> Vec<u8> {
    fs::read(lab.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn names(lab: &Lab) -> Vec<String> {
    let entries = fs::read_dir(lab.path(".")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The file is the same however it is cut, into parts of any size or shards of such parts, whether answers are read or generated.
#[test]
fn a_file_does_not_depend_on_how_it_is_cut() {
    let lab = Lab::new();
    items(&lab, 11);
    for (name, line) in [("c", CAPTURE), ("g", ANSWERS)] {
        lab.done(&format!("{line} --out {name}.npz"));
        let whole = bytes(&lab, &format!("{name}.npz"));
        for size in [1, 4, 11, 1000] {
            lab.done(&format!("{line} --out {name}-{size}.npz --part-items {size}"));
            assert!(bytes(&lab, &format!("{name}-{size}.npz")) == whole, "{name} in parts of {size}");
        }
        for i in 1..=3 {
            lab.done(&format!("{line} --out {name}-s{i}.npz --shard {i}/3 --part-items 2"));
        }
        lab.done(&format!("merge {name}-m.npz {name}-s3.npz {name}-s1.npz {name}-s2.npz"));
        assert!(bytes(&lab, &format!("{name}-m.npz")) == whole, "{name} in shards");
    }
    assert!(names(&lab).iter().all(|name| name.ends_with(".npz") || name == "i.jsonl"), "{:?}", names(&lab));
}

/// The file holds the numbers that items bring, NaN where an item has none; and the states are those of the engine.
#[test]
fn labels_scores_and_fields_go_into_the_file() {
    let lab = Lab::new();
    items(&lab, 5);
    lab.done(&format!("{CAPTURE} --out c.npz --part-items 2"));
    let npz = Npz::read(&lab.path("c.npz")).unwrap();
    let names: Vec<&str> = npz.names().collect();
    assert_eq!(names[..4], ["h_last", "layers", "h_layers", "h_mean"]);
    let last = ["prompt_hash", "response_hash", "text_hash", "scores.hedging", "fields.correct", "meta"];
    assert_eq!(names[names.len() - last.len()..], last);
    let floats = |name: &str| match npz.get(name) {
        Some(Array::F64(shape, values)) if shape[..] == [5] => values.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
        other => panic!("{name}: {other:?}"),
    };
    let bits = |values: [f64; 5]| values.map(f64::to_bits).to_vec();
    assert_eq!(floats("scores.hedging"), bits([f64::NAN, 0.25, 0.5, f64::NAN, 1.0]));
    assert_eq!(floats("fields.correct"), bits([1.0, 0.0, 1.0, 0.0, 1.0]));
    let texts = |name: &str| match npz.get(name) {
        Some(Array::Text(texts)) => texts.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(texts("label"), ["", "x", "xx", "", "x"]);
    // printf 'qui est 0' | sha256sum
    assert_eq!(texts("prompt_hash")[0], "9ce422f3a8dd5e7096cd9dbf8efd860a");
    // printf 'né 你' | sha256sum
    assert_eq!(texts("response_hash")[0], "c1362a49b2fa9cb9a6735cc446223062");
    let Some(Array::Scalar(meta)) = npz.get("meta") else { panic!("no meta") };
    let meta: Value = serde_json::from_str(meta).unwrap();
    assert_eq!((&meta["pool"], &meta["mean_layers"]), (&json!("last:3"), &json!(2)));
    assert_eq!((meta["key"].as_str().unwrap().len(), &meta["parts"]["pool"]), (32, &json!("last:3")));
    assert!(meta.get("piece").is_none() && meta.get("shard").is_none());

    let engine = engine("llama");
    let items = ItemFile::open(&lab.path("i.jsonl"), ReadAs::default()).unwrap().read(0..5).unwrap();
    let encode = |item: &headtemper_study::Item| engine.encode("x", &item.input, item.response.as_deref()).unwrap();
    let encoded: Vec<Encoded> = items.iter().map(encode).collect();
    let wanted = Keep { layers: vec![1, 3], mean_layers: Some(2), pool: Pool::LastN(3), ..keep("last", 0) };
    let rows = captured(&engine, &encoded, &Keep { last_n: 32, ..wanted }, &[HeadPlan::none()]);
    let f32s = |name: &str| match npz.get(name) {
        Some(Array::F32(_, values)) => values.clone(),
        other => panic!("{name}: {other:?}"),
    };
    let all = |of: &dyn Fn(&CaptureRow) -> Vec<f32>| rows.iter().flat_map(of).collect::<Vec<f32>>();
    assert_eq!(f32s("h_last"), all(&|row| row.h_last.clone()));
    assert_eq!(f32s("h_layers"), all(&|row| row.h_layers.concat()));
    assert_eq!(f32s("h_mean"), all(&|row| row.h_mean.clone()));
    assert_eq!(f32s("head_norm"), all(&|row| row.head_norm.clone()));
    assert_eq!(f32s("logits"), all(&|row| row.logits.clone()));
    assert_eq!(f32s("blocks.2.attn.hook_z"), all(&|row| row.head_vectors[2].clone()));
}

/// Whether a planned head fired is checked for the whole, not for a part: a part's items may have nothing at the plan's positions.
#[test]
fn a_plan_fires_in_the_whole() {
    let lab = Lab::new();
    let item = |i: usize| match i {
        0..=3 => json!({"id": i, "prompt": "x"}),
        _ => json!({"id": i, "prompt": "x", "response": "y"}),
    };
    lab.write_lines("i.jsonl", (0..6).map(item));
    let line = "capture --model M --items i.jsonl --plan L0H1:0.5 --positions response --part-items 2";
    let (out, _) = lab.ends(0, &format!("{line} --out c.npz --json"));
    let fired = lines(&out)[0]["fired_tokens"].as_u64().unwrap();
    let (out, _) = lab.ends(0, &format!("{line} --out w.npz --json").replace("--part-items 2", ""));
    assert!(fired > 0 && fired == lines(&out)[0]["fired_tokens"].as_u64().unwrap());
    let (_, err) = lab.ends(2, &format!("{line} --out none.npz --limit 4"));
    assert!(err.contains("the plan names L0H1 at response but the hook never fired there"), "{err}");
    assert!(!lab.path("none.npz").exists() && !lab.path("none.npz.parts").exists());
    // Of an answer that is written, the last token is read as well: a single one is tempered.
    let one = "capture --model M --items i.jsonl --limit 4 --generate --max-new-tokens 1 --plan L0H1:0.5 --positions response";
    let (out, _) = lab.ends(0, &format!("{one} --heads none --out one.npz --json"));
    assert_eq!(lines(&out)[0]["fired_tokens"], 4);
    // A shard may be idle, the whole may not.
    (1..=2).for_each(|i| drop(lab.done(&format!("{line} --out s{i}.npz --shard {i}/2"))));
    lab.done("merge joined.npz s1.npz s2.npz");
    assert!(bytes(&lab, "joined.npz") == bytes(&lab, "c.npz"));
    let (_, err) = lab.ends(2, &format!("{line} --limit 4 --out idle.npz --shard 1/2"));
    assert!(err.contains("the plan names L0H1 at response but the hook never fired there"), "{err}");
}

/// The memory of a capture does not grow with its items: here 30 times as many, whose states alone are 42 MiB.
#[cfg(target_os = "linux")]
#[test]
fn a_capture_of_many_items_holds_few() {
    let lab = Lab::new();
    let peak = |count: usize| {
        let item = |i: usize| json!({"id": format!("q{i}"), "input_ids": [6 + i % 300, 7, 8], "scores": {"x": i}});
        lab.write_lines("i.jsonl", (0..count).map(item));
        let line = "capture --model M --items i.jsonl --layers all --logits --part-items 250 --out";
        let (_, err) = lab.ends(0, &format!("{line} {count}.npz"));
        let peak = err.lines().rev().find_map(|line| line.strip_suffix(" at the peak")?.strip_prefix("memory     "));
        headtemper_engine::parse_bytes(peak.unwrap_or_else(|| panic!("{err}"))).unwrap()
    };
    let (few, many) = (peak(500), peak(15_000));
    println!("500 items {few} bytes, 15,000 items {many} bytes");
    // Allows for 40 bytes and a hash of the id per item, and for the allocator's rounding (measured: less than 0.1 MiB beyond what
    // loading the model took).
    assert!(many < few + (12 << 20), "{many} for 15,000 items, {few} for 500");
    let npz = lab.npz("15000.npz");
    let h_last: Tensor = npz.get("h_last").unwrap().unwrap();
    assert_eq!(h_last.dims(), [15_000, 72]);
    // Shards are joined as parts are.
    for i in 1..=2 {
        lab.done(&format!("capture --model M --items i.jsonl --layers all --logits --out s{i}.npz --shard {i}/2"));
    }
    lab.done("merge m.npz s1.npz s2.npz");
    assert!(bytes(&lab, "m.npz") == bytes(&lab, "15000.npz"));
}

/// What cannot be captured is refused before anything is written.
#[test]
fn captures_that_mean_nothing_are_refused() {
    let lab = Lab::new();
    lab.write_lines("i.jsonl", [json!({"id": "a", "prompt": "x", "response": "y"}), json!({"id": "b", "prompt": "x"})]);
    let capture = "capture --model M --items i.jsonl --out c.npz";
    for (rest, parts) in [
        ("--pool first", &["pool is 'first', but must be last, last:N with N at least 1, or response"][..]),
        ("--pool last:0", &["pool is 'last:0'"]),
        ("--pool response", &["item 'b' has no response, over which pool 'response' would average", "hint: give it"]),
        ("--mean-layers 0", &["mean_layers is 0, but must be from 1 to the number of layers"]),
        ("--mean-layers 5", &["mean_layers is 5"]),
        ("--layers last:5", &["the list of layers is last:5", "last:2"]),
        ("--part-items 0", &["--part-items is 0, but must be at least 1"]),
        ("--max-new-tokens 4", &["--generate"]),
        ("--temperature 1", &["they need --generate"]),
        ("--ignore-eos", &["they need --generate"]),
        ("--generate --max-new-tokens 0", &["max_new_tokens is 0, but must be at least 1"]),
        ("--generate --temperature=-1", &["temperature is -1"]),
        ("--generate --last-n 0", &["last_n is 0"]),
    ] {
        let (out, err) = lab.ends(2, &format!("{capture} {rest}"));
        assert!(out.is_empty() && parts.iter().all(|part| err.contains(part)), "{rest}\n{err}");
        assert_eq!(names(&lab), ["i.jsonl"], "{rest}");
    }
    lab.write_lines("full.jsonl", [json!({"id": "full", "input_ids": vec![6; 256]})]);
    let (_, err) = lab.ends(2, "capture --model M --items full.jsonl --out c.npz --generate");
    assert!(err.contains("the prompt of item 'full', which leaves no room for an answer,"), "{err}");
    assert!(!lab.path("c.npz").exists());
    lab.done("capture --model M --items full.jsonl --out c.npz");
}
