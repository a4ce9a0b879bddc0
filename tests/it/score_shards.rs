//! A causal map in shards, its dry run, and its memory.

use std::{collections::BTreeSet, fs};

use headtemper_engine::parse_bytes;
use headtemper_tests::{FAMILIES, golden_dir};
use serde_json::{Value, json};

use crate::lab::{Lab, lines};

/// `c.jsonl`: seven answered items of two labels, some of which begin alike.
fn lab() -> Lab {
    let lab = Lab::new();
    let item = |i: usize| {
        let label = if i.is_multiple_of(2) { "a" } else { "b" };
        let start = if i < 4 { "The same beginning of all, and then" } else { "Otherwise" };
        json!({"id": format!("q{i}"), "prompt": format!("{start} {i}?"), "response": "né ".repeat(i + 1), "label": label})
    };
    lab.write_lines("c.jsonl", (0..7).map(item));
    lab
}

const SCORE: &str = "score --model M --items c.jsonl --heads L0H1,L1H2,L3H0 --lambda 0.5,0,1 --shuffles 99";
/// Items x heads x λ.
const CELLS: usize = 7 * 3 * 3;
const RESULTS: [&str; 5] = ["scores.npz", "scores.csv", "score.json", "report.html", "plan.json"];

fn rows(lab: &Lab, dir: &str) -> BTreeSet<String> {
    lab.rows(&format!("{dir}/scores.jsonl"))
}

fn ids(rows: &BTreeSet<String>) -> usize {
    let id = |row: &String| serde_json::from_str::<Value>(row).unwrap()["id"].to_string();
    rows.iter().map(id).collect::<BTreeSet<_>>().len()
}

#[test]
fn the_shards_of_a_map_make_up_the_map() {
    let lab = lab();
    let score = format!("{SCORE} --a a --b b");
    let printed = lab.done(&format!("{score} --out whole --json"));
    assert_eq!(rows(&lab, "whole").len(), CELLS);
    for of in [1, 3, 5] {
        let mut joined = BTreeSet::new();
        let dirs: Vec<String> = (1..=of).map(|i| format!("{of}-{i}")).collect();
        for (i, dir) in dirs.iter().enumerate() {
            let (out, err) = lab.ends(0, &format!("{score} --out {dir} --shard {}/{of}", i + 1));
            assert!(out.is_empty() && err.contains("temper merge"), "a shard has no map: {out}{err}");
            assert!(!lab.path(dir).join("score.json").exists());
            let part = rows(&lab, dir);
            assert!((CELLS / of..=CELLS / of + 1).contains(&part.len()));
            assert!(ids(&part) <= 7usize.div_ceil(of) + 1, "a part has few items");
            assert!(joined.is_disjoint(&part), "a cell was scored twice");
            joined.extend(part);
        }
        assert_eq!(joined, rows(&lab, "whole"));
        let shards: Vec<&str> = dirs.iter().rev().map(String::as_str).collect();
        let merge = format!("merge m{of} {} --json", shards.join(" "));
        assert_eq!(lab.done(&merge), printed);
        lab.same(&RESULTS, "whole", &format!("m{of}"));
        let manifest = lab.json(&format!("m{of}/manifest.json"));
        let whole = lab.json("whole/manifest.json");
        for name in ["command", "key", "parts", "identity", "stages"] {
            assert_eq!(manifest[name], whole[name], "{name}: the same tokens of every head");
        }
        assert_eq!(lab.done(&merge), printed, "merged once more");
        assert_eq!(lab.json(&format!("m{of}/manifest.json")), manifest, "nothing has fired again");
    }
    // A merged map goes on like any other.
    let (_, err) = lab.ends(0, &format!("{score} --out m3"));
    assert!(err.contains("nothing left to do"), "{err}");
}

/// Heads that were tried earlier are in the map, whether in the directory of the merge or in all of its shards.
#[test]
fn a_merged_map_is_of_all_that_was_tried() {
    let lab = lab();
    let score = |heads: &str, rest: &str| {
        lab.done(&format!("score --model M --items c.jsonl --lambda 0 --shuffles 99 --heads {heads} {rest}"))
    };
    score("L0H1", "--out m");
    for heads in ["L1H2", "L3H0"] {
        for i in 1..=2 {
            score(heads, &format!("--out s{i} --shard {i}/2"));
        }
    }
    lab.done("merge m s1 s2");
    let map = lab.json("m/score.json");
    let heads: Vec<(u64, u64)> = map["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| (cell["layer"].as_u64().unwrap(), cell["head"].as_u64().unwrap()))
        .collect();
    assert_eq!((heads, &map["earlier"]), (vec![(3, 0), (0, 1), (1, 2)], &json!(2)));
    score("L3H0,L1H2,L0H1", "--out whole");
    assert_eq!(rows(&lab, "m"), rows(&lab, "whole"));
    // Other labels than those of the last call are told, by a merge as well.
    let relabelled = lines(&lab.read("c.jsonl")).into_iter().map(|mut item| {
        item["label"] = "other".into();
        item
    });
    lab.write_lines("c.jsonl", relabelled);
    for i in 1..=2 {
        score("L1H2", &format!("--out r{i} --shard {i}/2"));
    }
    let (_, err) = lab.ends(0, "merge m r1 r2");
    assert!(err.contains("other than in the last call here: the items' labels"), "{err}");
}

/// Items with the same text are separate items, each with cells of its own.
#[test]
fn the_same_text_twice_is_scored_and_merged_as_two_items() {
    let lab = Lab::new();
    let item =
        |i: usize| json!({"id": format!("q{i}"), "prompt": "Why?", "response": if i < 3 { "so" } else { "thus" }});
    lab.write_lines("c.jsonl", (0..5).map(item));
    let score = "score --model M --items c.jsonl --heads L0H1 --lambda 0.5,0 --shuffles 99";
    lab.done(&format!("{score} --out whole"));
    for i in 1..=2 {
        lab.done(&format!("{score} --out s{i} --shard {i}/2"));
    }
    lab.done("merge m s1 s2");
    assert_eq!((rows(&lab, "whole").len(), ids(&rows(&lab, "whole"))), (10, 5));
    lab.same(&RESULTS, "whole", "m");
}

#[test]
fn what_does_not_make_up_a_map_is_not_merged() {
    let lab = lab();
    for i in 1..=3 {
        lab.done(&format!("{SCORE} --out s{i} --shard {i}/3"));
    }
    let score = |rest: &str| lab.done(&format!("score --model M --items c.jsonl --shuffles 99 {rest} --shard 2/3"));
    score("--heads L0H1,L1H2,L3H0 --lambda 0.25,0,1 --out lambda");
    score("--heads L0H1,L1H2,L3H1 --lambda 0.5,0,1 --out heads");
    score("--heads L0H1,L1H2,L3H0 --lambda 0.5,0,1 --a a --b b --out contrast");
    score("--heads L0H1,L1H2,L3H0 --lambda 0.5,0,1 --plain --out plain");
    let relabelled = lab.read("c.jsonl").replace("\"label\":\"b\"", "\"label\":\"c\"");
    lab.write("other.jsonl", relabelled);
    lab.done(&format!("{} --out labels --shard 2/3", SCORE.replace("c.jsonl", "other.jsonl")));
    lab.done("sweep --model M --items c.jsonl --heads L0H1 --lambda 0 --max-new-tokens 1 --out sweep --shard 2/3");
    for (shards, part) in [
        ("s1 lambda s3", "from s1 to lambda, plan.lambdas was [0.5,0.0,1.0], is [0.25,0.0,1.0]"),
        ("s1 heads s3", "plan.heads differ; the first that differs was 'L3H0', is 'L3H1'"),
        ("s1 contrast s3", "plan.contrast was none, is"),
        ("s1 plain s3", "from s1 to plain, plain was false, is true"),
        ("s1 labels s3", "plan.labels differ; the first that differs was 'b', is 'c'"),
        ("s1 sweep s3", "one was made by `temper score`, one by `temper sweep`"),
        ("s1 s3", "missing 2/3"),
    ] {
        let (out, err) = lab.ends(2, &format!("merge m {shards}"));
        assert!(out.is_empty() && err.contains(part), "{shards}\n{err}");
        assert!(!lab.path("m").exists(), "{shards}: something was written");
    }
    let (_, err) = lab.ends(2, &format!("{SCORE} --out out --shard 1/64"));
    assert!(err.contains("at most 63 parts: there are so many cells"), "{err}");
    assert!(!lab.path("out").exists());
    // A shard that was killed lacks cells until it is run again.
    let text = lab.read("s2/scores.jsonl");
    lab.write("s2/scores.jsonl", &text[..text.len() - 5]);
    let (_, err) = lab.ends(2, "merge m s1 s2 s3");
    assert!(err.contains("shard 2/3 in s2 lacks 1 of its 21 rows: run it again"), "{err}");
    lab.done(&format!("{SCORE} --out s2 --shard 2/3"));
    lab.done("merge m s1 s2 s3");
}

/// A dry run counts the missing cells, writes nothing, and makes the checks of the run.
#[test]
fn a_dry_run_of_a_map_says_what_there_is_to_do() {
    let lab = Lab::new();
    let item = |i: usize| json!({"id": format!("q{i}"), "input_ids": vec![9 + i; 10 + i], "prompt_len": 6});
    lab.write_lines("c.jsonl", (0..3).map(item));
    let tokens = 10 + 11 + 12;
    let dry = |line: &str| -> Value { serde_json::from_str(&lab.done(&format!("{line} --dry-run --json"))).unwrap() };
    let score = "score --model M --items c.jsonl --lambda 0,0.5 --out s";
    let all = dry(&format!("{score} --heads L0H1,L3H0"));
    assert!(!lab.path("s").exists(), "a dry run writes nothing");
    assert_eq!((&all["command"], &all["rows_new"], &all["rows_done"]), (&json!("score"), &json!(12), &json!(0)));
    assert_eq!(all["prompt_tokens"], json!(tokens * (1 + 2 * 2)), "the untempered pass, and every cell");
    assert_eq!(all["new_tokens"], 0);
    assert!(all["seconds"].as_f64().unwrap() > 0.0 && all["memory"]["total"].as_u64() > all["memory"]["held"].as_u64());
    // The cost in tokens of whole passes, whatever the speed: heads of the last layer cost least.
    let cost = |line: &str| {
        let dry = dry(line);
        dry["seconds"].as_f64().unwrap() * dry["speed"]["read_per_s"].as_f64().unwrap()
    };
    let [first, last] = ["L0H1", "L3H1"].map(|head| cost(&format!("{score} --heads {head}")));
    assert!(first > last + 2.0 * f64::from(tokens) * 0.7, "three of four layers are spared: {first} {last}");
    assert!(cost(&format!("{score} --heads L3H1 --plain")) > first - 1.0);
    lab.done(&format!("{score} --heads L0H1 --shuffles 9"));
    let before = lab.read("s/scores.jsonl");
    let more = dry(&format!("{score} --heads L0H1,L3H0"));
    assert_eq!((&more["rows_new"], &more["rows_done"]), (&json!(6), &json!(6)));
    assert_eq!(more["prompt_tokens"], json!(tokens * (1 + 2)));
    let none = dry(&format!("{score} --heads L0H1"));
    assert_eq!((&none["rows_new"], &none["seconds"], &none["memory"]), (&json!(0), &json!(0.0), &Value::Null));
    let part = lab.done(&format!("{score} --heads L1H1 --shard 2/3 --dry-run").replace("--out s", "--out t"));
    assert!(
        part.starts_with("cells      2 to do, 0 done before\ntokens     at most 33 to read\nmemory     "),
        "{part}"
    );
    assert!(part.contains("time       at most about"), "{part}");
    assert!(!lab.path("t").exists());
    let (_, err) = lab.ends(2, &format!("{score} --heads L1H1 --plain --dry-run"));
    assert!(err.contains("belongs to another run"), "{err}");
    assert_eq!(lab.read("s/scores.jsonl"), before);
}

#[test]
fn an_item_beyond_the_memory_is_refused_by_name() {
    let lab = lab();
    let ids = |len: usize| (0..len).map(|i| 8 + i % 40).collect::<Vec<_>>();
    let item = |id: &str, len| json!({"id": id, "input_ids": ids(len), "prompt_len": 5});
    lab.write_lines("long.jsonl", [item("short", 20), item("long", 200), item("brief", 8)]);
    for rest in ["", " --plain", " --dry-run", " --shard 1/2"] {
        let (out, err) =
            lab.ends(2, &format!("score --model M --items long.jsonl --lambda 0 --out s --memory 1MiB{rest}"));
        let parts = ["item 'long' with 200 tokens", "may take 1.0 MiB", "hint: allow more with --memory"];
        // The item that is too long is not the first.
        assert!(out.is_empty() && parts.iter().all(|part| err.contains(part)), "{rest}\n{err}");
        assert!(!lab.path("s").exists(), "{rest}: something was left");
    }
    let (_, err) = lab.ends(2, &format!("{SCORE} --out s --memory 8"));
    assert!(err.contains("memory is '8', but must be a positive number with KB"), "{err}");
}

/// Less memory means smaller batches and the same numbers.
#[cfg(target_os = "linux")]
#[test]
fn short_memory_makes_small_batches() {
    let lab = Lab::new();
    // Long enough that a batch of all takes megabytes more than one item: what is held varies by tenths from process to process.
    let item = |i: usize| {
        let (label, response) = (if i.is_multiple_of(2) { "a" } else { "b" }, "né ".repeat(60 + i));
        json!({"id": format!("q{i}"), "prompt": format!("Which is {i}?"), "response": response, "label": label})
    };
    lab.write_lines("long.jsonl", (0..12).map(item));
    for plain in ["", " --plain"] {
        let score = format!(
            "score --model M --items long.jsonl --heads L0H1,L1H2,L3H0 --lambda 0,0.5 --shuffles 9 --dry-run --json --out s{plain}"
        );
        let memory = |rest: &str| -> Value {
            let dry: Value = serde_json::from_str(&lab.done(&format!("{score} {rest}"))).unwrap();
            dry["memory"].clone()
        };
        let number = |memory: &Value, name: &str| memory[name].as_u64().unwrap();
        let (all, one) = (memory(""), memory("--batch-tokens 1"));
        assert_eq!((number(&all, "step_tokens"), number(&one, "step_tokens")), (2048, 1));
        assert!(number(&all, "rows") > number(&one, "rows") && number(&one, "rows") == 1);
        assert!(
            number(&all, "total") > number(&one, "total") + 4_000_000,
            "{one} and {all} are too close to be told apart"
        );
        let between = u64::midpoint(number(&one, "total"), number(&all, "total"));
        let less = memory(&format!("--memory {between}B"));
        assert!((2..2048).contains(&number(&less, "step_tokens")) && number(&less, "total") <= between, "{less}");
        let npz = |out: &str, rest: &str| {
            let out = format!("{out}{}", plain.trim());
            let line = score.replace("--dry-run --json", "").replace("--out s", &format!("--out {out}"));
            lab.done(&format!("{line} {rest}"));
            fs::read(lab.path(&out).join("scores.npz")).unwrap()
        };
        assert!(npz("less", &format!("--memory {between}B")) == npz("all", ""), "the same numbers");
    }
}

/// The planned memory bounds the memory held, and is not far above it.
#[cfg(target_os = "linux")]
#[test]
fn the_plan_bounds_what_a_map_holds() {
    let lab = Lab::new();
    // A long common start makes caches larger than what is read.
    let ids = |i: usize| (0..120 + i).map(|t| if t < 90 { 8 + t % 40 } else { 8 + (t * i) % 40 }).collect::<Vec<_>>();
    let item = |i: usize| json!({"id": format!("q{i}"), "input_ids": ids(i), "prompt_len": 100});
    lab.write_lines("c.jsonl", (0..12).map(item));
    for family in FAMILIES {
        for plain in ["", " --plain"] {
            let model = golden_dir(family).to_string_lossy().into_owned();
            let line =
                format!("score --items c.jsonl --lambda 0,0.5 --shuffles 9 --out {family}{}{plain}", plain.trim());
            let output = lab.command(&line).args(["--model", &model]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{line}\n{said}");
            let planned = said.split("in all ").nth(1).and_then(|rest| rest.split(" of ").next());
            let peak = |line: &str| line.strip_suffix(" at the peak")?.strip_prefix("memory     ").map(String::from);
            let held = said.lines().find_map(peak);
            let bytes = |amount: Option<&str>| parse_bytes(amount.unwrap_or_else(|| panic!("{line}\n{said}"))).unwrap();
            let (planned, held) = (bytes(planned), bytes(held.as_deref()));
            println!("{family}{plain}: {held} of {planned} bytes planned");
            assert!(held <= planned && 2 * held >= planned, "{line}: {held} of {planned}");
        }
    }
}
