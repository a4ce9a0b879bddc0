//! A run in shards, on any machines: the merged shards are the whole, and shards that do not make up a whole are refused.

use std::{collections::BTreeSet, fs, path::Path};

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use crate::lab::{HEADS, LAYERS, Lab, unchecked};

fn items(lab: &Lab, count: usize) {
    let item = |i: usize| json!({"id": format!("q{i}"), "prompt": format!("Qui est {i} à {}?", i * i), "gold": ["a"]});
    lab.write_lines("q.jsonl", (0..count).map(item));
}

fn rows(lab: &Lab, dir: &str) -> BTreeSet<String> {
    lab.rows(&format!("{dir}/rows.jsonl"))
}

const RESULTS: [&str; 4] = ["sweep.json", "sweep.csv", "lambda.npz", "plan.json"];

/// The reference, the control and 24 single heads, of which a shard sees a few; sampled, with two seeds, judged.
const SWEEP: &str = "sweep --model M --items q.jsonl --heads all --each --lambda 1,1,0 --temperature 0.8 --seeds 3,4 \
                     --max-new-tokens 3 --hedges hedges.txt";

/// Arms x seeds x items.
const ROWS: usize = 26 * 2 * 5;

#[test]
fn the_shards_of_a_sweep_make_up_the_sweep() {
    let lab = Lab::new();
    items(&lab, 5);
    lab.write("hedges.txt", "# hedges\nI'm not sure\nperhaps\n");
    let printed = lab.done(&format!("{SWEEP} --out whole --json"));
    assert_eq!(rows(&lab, "whole").len(), ROWS);
    for of in [1, 4, 7] {
        let mut joined = BTreeSet::new();
        let dirs: Vec<String> = (1..=of).map(|i| format!("{of}-{i}")).collect();
        for (i, dir) in dirs.iter().enumerate() {
            let (out, err) = lab.ends(0, &format!("{SWEEP} --out {dir} --shard {}/{of}", i + 1));
            assert!(out.is_empty() && err.contains("temper merge"), "a shard has no outcomes: {out}{err}");
            assert!(!lab.path(dir).join("sweep.json").exists());
            let part = rows(&lab, dir);
            assert!((ROWS / of..=ROWS / of + 1).contains(&part.len()));
            assert!(joined.is_disjoint(&part), "a row was made twice");
            joined.extend(part);
        }
        assert_eq!(joined, rows(&lab, "whole"));
        let merged = format!("m{of}");
        let shards: Vec<&str> = dirs.iter().rev().map(String::as_str).collect();
        let merge = format!("merge {merged} {} --json", shards.join(" "));
        assert_eq!(lab.done(&merge), printed);
        assert_eq!(rows(&lab, &merged), joined);
        lab.same(&RESULTS, "whole", &merged);
        let manifest = lab.json(&format!("{merged}/manifest.json"));
        let whole = lab.json("whole/manifest.json");
        for name in ["command", "key", "parts", "identity"] {
            assert_eq!(manifest[name], whole[name], "{name}");
        }
        let fired = |manifest: &Value| manifest["stages"]["sweep"]["fired"].as_object().unwrap().clone();
        assert_eq!((fired(&manifest).len(), fired(&manifest)), (26, fired(&whole)));
        assert_eq!(lab.done(&merge), printed, "merged once more");
        assert_eq!(lab.json(&format!("{merged}/manifest.json")), manifest, "nothing has fired again");
    }
}

#[test]
fn a_merged_sweep_goes_on_as_any_other() {
    let lab = Lab::new();
    items(&lab, 3);
    let sweep = "sweep --model M --items q.jsonl --heads L0H1,L2H4 --max-new-tokens 4 --raw";
    for i in 1..=2 {
        lab.done(&format!("{sweep} --lambda 1,0.5 --out s{i} --shard {i}/2"));
    }
    lab.done("merge m s1 s2");
    let before = lab.read("m/rows.jsonl");
    let (_, err) = lab.ends(0, &format!("{sweep} --lambda 1,0.5 --out m"));
    assert!(err.contains("6 done, nothing left to do"), "{err}");
    assert_eq!(lab.read("m/rows.jsonl"), before);
    // Shards that went on are merged into the same directory, and earlier firings are not counted twice.
    for i in 1..=2 {
        lab.done(&format!("{sweep} --lambda 1,0.5,0.2 --out s{i} --shard {i}/2"));
    }
    lab.done("merge m s1 s2");
    let fired =
        |dir: &str| lab.json(&format!("{dir}/manifest.json"))["stages"]["sweep"]["fired"]["L0H1+L2H4@0.5"].as_u64();
    assert_eq!(fired("m"), Some(fired("s1").unwrap() + fired("s2").unwrap()));
    let before = lab.read("m/rows.jsonl");
    lab.done(&format!("{sweep} --lambda 1,0.5,0.2,0 --out m"));
    lab.done(&format!("{sweep} --lambda 1,0.5,0.2,0 --out whole"));
    assert!(lab.read("m/rows.jsonl").starts_with(&before));
    assert_eq!(rows(&lab, "m"), rows(&lab, "whole"));
    lab.same(&RESULTS, "whole", "m");
    // Arms that were tried earlier stay in the tables, also those of merged shards.
    let arms = |dir: &str| lab.json(&format!("{dir}/plan.json"))["plan"]["arms"].as_array().unwrap().clone();
    let printed = lab.json("m/sweep.json");
    let (_, err) = lab.ends(0, &format!("{sweep} --lambda 1,0.5 --out m"));
    assert!(err.contains("note: 2 arms of earlier calls stand in the tables as well"), "{err}");
    assert_eq!(arms("m").len(), 4);
    assert_eq!(lab.json("m/sweep.json")["flips"], printed["flips"]);
    for i in 1..=2 {
        lab.done(&format!("{sweep} --lambda 1,0.7 --out s{i} --shard {i}/2"));
    }
    let (_, err) = lab.ends(0, "merge m s1 s2");
    assert!(err.contains("note: 3 arms of earlier calls"), "{err}");
    assert_eq!(arms("m").len(), 5);
    assert!(lab.json("m/sweep.json").get("elsewhere").is_none());
    // The shards themselves remember what was tried in them, for a directory that has not seen it.
    let (_, err) = lab.ends(0, "merge anew s1 s2");
    assert!(err.contains("note: 2 arms of earlier calls"), "{err}");
    assert_eq!(arms("anew").len(), 4);
    assert!(lab.json("anew/sweep.json").get("elsewhere").is_none());
    let (out, _) = lab.ends(0, &format!("{sweep} --lambda 1 --out ones"));
    assert!(out.contains("no head is tempered: every λ is 1"), "{out}");
}

#[test]
fn what_does_not_make_up_a_sweep_is_not_merged() {
    let lab = Lab::new();
    items(&lab, 4);
    let sweep = |rest: &str| {
        lab.done(&format!("sweep --model M --items q.jsonl --heads L0H1 --max-new-tokens 2 {rest}"));
    };
    for i in 1..=3 {
        sweep(&format!("--lambda 1,0.5 --out s{i} --shard {i}/3"));
    }
    sweep("--lambda 1,0.5 --out half --shard 1/2");
    sweep("--lambda 1,0.25 --out lambda --shard 2/3");
    sweep("--lambda 1,0.5 --out few --shard 2/3 --limit 3");
    sweep("--lambda 1,0.5 --out bf16 --shard 2/3 --dtype bf16");
    sweep("--lambda 1,0.5 --out whole");
    lab.write_lines("o.jsonl", (0..4).map(|i| json!({"id": format!("q{i}"), "prompt": if i < 2 { "x" } else { "y" }})));
    lab.done("sweep --model M --items o.jsonl --heads L0H1 --max-new-tokens 2 --lambda 1,0.5 --out items --shard 2/3");
    for (shards, parts) in [
        ("s1 s3", &["missing 2/3"][..]),
        ("s2", &["missing 1/3, 3/3"]),
        ("s1 s2 s3 s2", &["s2 and s2 are both shard 2/3"]),
        ("s1 half s3", &["s1 is shard 1/3, half is shard 1/2"]),
        ("s1 lambda s3", &["from s1 to lambda, plan.arms differ", "was 'L0H1@0.5', is 'L0H1@0.25'"]),
        ("s1 few s3", &["from s1 to few, items were 4, are 3; the first that differs was 'q3', is none"]),
        ("s1 bf16 s3", &["from s1 to bf16, dtype was f32, is bf16"]),
        ("s1 items s3", &["from s1 to items, items differ; the first that differs is 'q0'"]),
        ("whole", &["whole holds a whole run"]),
        ("s1 q.jsonl", &["some are directories and some are not"]),
        ("q.jsonl", &["q.jsonl: no npz archive"]),
        ("gone", &["the shard gone does not exist"]),
    ] {
        let (out, err) = lab.ends(2, &format!("merge m {shards}"));
        assert!(out.is_empty() && parts.iter().all(|part| err.contains(part)), "{shards}\n{err}");
        assert!(!lab.path("m").exists(), "{shards}: something was written");
    }
    let (_, err) = lab.ends(2, "merge s1 s1 s2 s3");
    assert!(err.contains("s1 belongs to another run: it holds shard 1/3"), "{err}");
    let (_, err) = lab.ends(2, "merge bf16 s1 s2 s3");
    assert!(err.contains("bf16 belongs to another run: dtype was bf16, is f32"), "{err}");

    // A shard that was killed lacks rows until it is run again.
    let text = lab.read("s2/rows.jsonl");
    lab.write("s2/rows.jsonl", &text[..text.len() - 5]);
    let (_, err) = lab.ends(2, "merge m s1 s2 s3");
    assert!(err.contains("shard 2/3 in s2 lacks 1 of its 3 rows: run it again"), "{err}");
    assert_eq!(lab.read("s2/rows.jsonl"), text[..text.len() - 5], "a merge changes no shard");
    sweep("--lambda 1,0.5 --out s2 --shard 2/3");
    lab.done("merge m s1 s2 s3");
    lab.same(&RESULTS, "whole", "m");
    // Where the same items were found, and how they were chosen, differs from machine to machine.
    lab.write("copied.jsonl", lab.read("q.jsonl"));
    let elsewhere =
        "sweep --model M --items copied.jsonl --where id!=\"none\" --heads L0H1 --max-new-tokens 2 --lambda 1,0.5";
    lab.done(&format!("{elsewhere} --out copied --shard 2/3"));
    lab.done("merge again s1 copied s3");
    lab.same(&RESULTS, "whole", "again");
}

/// Of two rows of one key that differ, none is known to be the right one: a merge names them, and writes nothing.
#[test]
fn rows_of_one_key_that_differ_are_not_merged() {
    let lab = Lab::new();
    items(&lab, 4);
    for i in 1..=2 {
        lab.done(&format!(
            "sweep --model M --items q.jsonl --heads L0H1 --max-new-tokens 2 --lambda 1,0.5 --out s{i} --shard {i}/2"
        ));
    }
    lab.done("merge m s1 s2");
    let (whole, second) = (lab.read("m/rows.jsonl"), lab.read("s2/rows.jsonl"));
    let line = second.lines().nth(1).unwrap();
    let mut row = unchecked(line).remove(0);
    row["response"] = json!("something else");
    let key = row["key"].as_str().unwrap().to_owned();
    let refused = |one: &str, other: &str| {
        let before: Vec<String> = ["m/rows.jsonl", "m/plan.json", "m/manifest.json"].map(|file| lab.read(file)).into();
        let (out, err) = lab.ends(2, "merge m s1 s2");
        let why = format!("{one}/rows.jsonl says something else than {other}/rows.jsonl of one key ({key})");
        assert!(out.is_empty() && err.contains(&why), "{err}");
        let after: Vec<String> = ["m/rows.jsonl", "m/plan.json", "m/manifest.json"].map(|file| lab.read(file)).into();
        assert_eq!(before, after, "something was written");
    };
    lab.write("m/rows.jsonl", whole.replace(line, &row.to_string()));
    refused("m", "s2");
    lab.write("m/rows.jsonl", &whole);
    lab.write("s1/rows.jsonl", format!("{}{row}\n", lab.read("s1/rows.jsonl")));
    refused("s2", "s1");
    // A shard that ran in another split before may hold a row of another shard, which says the same.
    lab.write("s1/rows.jsonl", lab.read("s1/rows.jsonl").replace(&row.to_string(), line));
    lab.done("merge m s1 s2");
    assert_eq!(lab.read("m/rows.jsonl"), whole);
}

/// Shards are named as test runners do, and none is empty.
#[test]
fn a_shard_is_one_of_n() {
    let lab = Lab::new();
    items(&lab, 3);
    for bad in ["0/4", "5/4", "x", "4", "1/0"] {
        for verb in ["sweep --heads L0H1 --lambda 1", "capture"] {
            let (_, err) = lab.ends(2, &format!("{verb} --model M --items q.jsonl --out out --shard {bad}"));
            assert!(err.contains(&format!("'{bad}'")) && err.contains("i/n with i from 1 to n"), "{err}");
        }
    }
    let (_, err) = lab.ends(2, "sweep --model M --items q.jsonl --heads L0H1 --lambda 1,0 --out out --shard 1/7");
    assert!(err.contains("at most 6 parts: there are so many rows"), "{err}");
    let (_, err) = lab.ends(2, "capture --model M --items q.jsonl --out out --shard 4/4");
    assert!(err.contains("at most 3 parts: there are so many items"), "{err}");
    let (_, err) = lab.ends(2, "sweep --model M --items q.jsonl --heads L0H1 --lambda 1 --out out --shard 1/2 --json");
    assert!(err.contains("cannot be used with"), "{err}");
    assert!(!lab.path("out").exists());
}

#[test]
fn the_shards_of_a_capture_make_up_the_capture() {
    let lab = Lab::new();
    let item = |i: usize| {
        let response = "né 你好 ".repeat(i % 4 + 1);
        json!({"id": format!("à{i}"), "prompt": format!("p{i}"), "response": response, "label": "x".repeat(i % 3)})
    };
    lab.write_lines("i.jsonl", (0..7).map(item));
    // A λ table with a row per item: all but the first are tempered.
    let mut lambda = vec![1f32; 7 * LAYERS * HEADS];
    for item in 1..7 {
        lambda[item * LAYERS * HEADS + 1] = 0.1 * item as f32;
        lambda[item * LAYERS * HEADS + 3 * HEADS + 5] = 0.0;
    }
    let table = Tensor::from_vec(lambda, (7, LAYERS, HEADS), &Device::Cpu).unwrap();
    Tensor::write_npz(&[("lambda", table)], lab.path("t.npz")).unwrap();
    for (name, plan) in [("none", ""), ("one", "--plan L1H2:0.5"), ("table", "--plan t.npz")] {
        let capture = format!("capture --model M --items i.jsonl --layers 0,3 --heads vector --logits {plan} --out");
        lab.done(&format!("{capture} {name}.npz"));
        let dry = |shard: &str| -> Value {
            serde_json::from_str(&lab.done(&format!("{capture} dry.npz --dry-run --json {shard}"))).unwrap()
        };
        let planned = |dry: Value| (dry["rows_new"].as_u64().unwrap(), dry["memory"]["results"].as_u64().unwrap());
        let (items, results) = planned(dry(""));
        let mut parts = (0, 0);
        for i in 1..=3 {
            lab.done(&format!("{capture} {name}-{i}.npz --shard {i}/3"));
            let part = planned(dry(&format!("--shard {i}/3")));
            parts = (parts.0 + part.0, parts.1 + part.1);
        }
        assert_eq!((parts, lab.path("dry.npz").exists()), ((items, results), false), "a part is planned as a part");
        let merge = format!("merge {name}-m.npz {name}-2.npz {name}-3.npz {name}-1.npz --json");
        assert_eq!(lab.done(&merge), format!("{}\n", json!({"out": format!("{name}-m.npz"), "items": 7})));
        let read = |name: &str| fs::read(lab.path(name)).unwrap();
        assert!(read(&format!("{name}-m.npz")) == read(&format!("{name}.npz")), "{name}");
    }
    lab.done("capture --model M --items i.jsonl --out other.npz --shard 2/3 --last-n 3");
    lab.done(
        "capture --model M --items i.jsonl --out limit.npz --shard 2/3 --layers 0,3 --heads vector --logits --limit 6",
    );
    for (shards, part) in [
        ("none-1.npz none-3.npz", "missing 2/3"),
        ("none-1.npz none-2.npz none-3.npz none-1.npz", "none-1.npz and none-1.npz are both shard 1/3"),
        ("none-1.npz one-2.npz none-3.npz", "plan differ; the first that differs was 'none', is 'L1H2:0.5'"),
        ("none-1.npz other.npz", "layers was [0,3], is []; heads was vector, is norm; last_n was 32, is 3; logits was"),
        ("none-1.npz limit.npz none-3.npz", "items were 7, are 6; the first that differs was 'à6', is none"),
        ("none.npz", "none.npz holds a whole capture"),
        ("t.npz", "has no text 'meta'"),
    ] {
        let (out, err) = lab.ends(2, &format!("merge m.npz {shards}"));
        assert!(out.is_empty() && err.contains(part), "{shards}\n{err}");
        assert!(!Path::new(&lab.path("m.npz")).exists(), "{shards}");
    }
}
