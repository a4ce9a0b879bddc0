//! `temper score` as a user runs it: the files it writes, what it does not do twice, its warnings and its refusals.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

use std::{fs, path::PathBuf, process::Output};

use candle_core::npy::NpzTensors;
use headtemper_tests::{FAMILIES, golden_dir, golden_model, temper};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::unchecked;

/// A directory to run the program in; it holds `c.jsonl`, eight answered items, four of cohort `a` and four of `b`.
struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(TempDir::new().unwrap());
        let item = |i: usize| {
            let (label, word) = if i.is_multiple_of(2) { ("a", "yes, it is") } else { ("b", "no") };
            let response = format!("{word} {i}");
            json!({"id": format!("q{i}"), "prompt": format!("Is {i} even?"), "response": response, "label": label})
        };
        lab.write("c.jsonl", &(0..8).map(|i| item(i).to_string() + "\n").collect::<String>());
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Runs `temper score` on the tiny model of a family with the words of a line.
    fn score(&self, family: &str, line: &str) -> Output {
        let mut command = temper();
        command.args(["score", "--model", &golden_dir(family).to_string_lossy()]).args(line.split_whitespace());
        command.current_dir(self.0.path()).env("HF_HUB_OFFLINE", "1").output().unwrap()
    }

    /// Runs a line that must succeed; returns stdout and stderr.
    fn done(&self, line: &str) -> (String, String) {
        let output = self.score("llama", line);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let err = text(output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}\n{err}");
        (text(output.stdout), err)
    }

    fn values(&self, name: &str, array: &str) -> (Vec<usize>, Vec<f32>) {
        let tensor = NpzTensors::new(self.path(name)).unwrap().get(array).unwrap().expect(array);
        (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1().unwrap())
    }
}

#[test]
fn a_second_run_computes_only_what_is_missing() {
    let lab = Lab::new();
    let heads = "--items c.jsonl --heads L3H2,L0H1 --out s";
    lab.done(&format!("{heads} --lambda 0"));
    let first = lab.read("s/scores.jsonl");
    assert_eq!(first.lines().count(), 2 * 8);
    let (_, err) = lab.done(&format!("{heads} --lambda 0.5,0"));
    assert!(err.contains("16 of them done before"), "{err}");
    let both = lab.read("s/scores.jsonl");
    assert!(both.starts_with(&first) && both.lines().count() == 2 * 2 * 8);
    let npz = fs::read(lab.path("s/scores.npz")).unwrap();
    let scored = lab.values("s/scores.npz", "delta_logprob");
    // Killed within a line: only that cell is computed again, and the numbers are the same.
    fs::write(lab.path("s/scores.jsonl"), &both[..both.len() - 20]).unwrap();
    let (_, err) = lab.done(&format!("{heads} --lambda 0.5,0"));
    assert!(err.contains("31 of them done before") && err.contains("was cut off"), "{err}");
    assert_eq!(lab.read("s/scores.jsonl"), both);
    assert_eq!(fs::read(lab.path("s/scores.npz")).unwrap(), npz);
    let (_, err) = lab.done(&format!("{heads} --lambda 0.5,0 --a a --b b"));
    assert!(err.contains("nothing left to do"), "{err}");
    assert_eq!(lab.read("s/scores.jsonl"), both);
    assert_eq!(lab.values("s/scores.npz", "delta_logprob"), scored);
    assert_eq!(lab.values("s/scores.npz", "contrast_d").0, [2, 2]);
    // A further head costs only its own rows.
    lab.done("--items c.jsonl --heads L3H2,L0H1,L1H0 --lambda 0 --out s");
    assert_eq!(lab.read("s/scores.jsonl").lines().count(), 32 + 8);
    // In one call: the same rows, up to their order.
    lab.done(&format!("{heads} --lambda 0.5,0 --batch-tokens 1").replace("--out s", "--out t"));
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&lab.read("t/scores.jsonl")), sorted(&both));
    assert_eq!(fs::read(lab.path("t/scores.npz")).unwrap(), npz);
}

/// What hooks counted stands in the rows, so nothing that stops a call takes it away; and rows that do not say it are told.
#[test]
fn whatever_stops_a_call_what_its_hooks_counted_stays() {
    let lab = Lab::new();
    let line = |dir: &str| format!("--items c.jsonl --heads L3H2,L0H1 --lambda 0.5,0 --out {dir}");
    let fired = |dir: &str| {
        let manifest: Value = serde_json::from_str(&lab.read(&format!("{dir}/manifest.json"))).unwrap();
        manifest["stages"]["score"]["fired"].clone()
    };
    lab.done(&line("whole"));
    let all = fired("whole");
    let rows = lab.read("whole/scores.jsonl");
    let row = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let read: u64 = rows.lines().map(|line| row(line)["fired"].as_u64().unwrap()).sum();
    assert!(read > 0 && all["L0H1"] == all["L3H2"] && all["L0H1"].as_u64().unwrap() * 2 == read);
    // A directory stands where a report belongs.
    lab.done(&line("s").replace("0.5,0", "0"));
    fs::remove_file(lab.path("s/score.json")).unwrap();
    fs::create_dir_all(lab.path("s/score.json/taken")).unwrap();
    let failed = lab.score("llama", &line("s"));
    assert!(String::from_utf8(failed.stderr).unwrap().contains("cannot write s/score.json"));
    fs::remove_dir_all(lab.path("s/score.json")).unwrap();
    let (_, err) = lab.done(&line("s"));
    assert!(err.contains("nothing left to do") && fired("s") == all, "{err}");
    // Killed among its rows, before anything else was written.
    let half: String = rows.split_inclusive('\n').take(13).collect();
    fs::write(lab.path("s/scores.jsonl"), half).unwrap();
    fs::remove_file(lab.path("s/score.json")).unwrap();
    let (_, err) = lab.done(&line("s"));
    assert!(err.contains("13 of them done before") && fired("s") == all, "{err}");
    let page = |dir: &str| lab.read(&format!("{dir}/report.html"));
    let told = format!("{read} head-tokens, all that the plans are for, counted cell by cell");
    assert!(page("s").contains(&told));
    // As an earlier version wrote them.
    let older: String = rows.lines().map(|line| line[..line.find(r#","fired""#).unwrap()].to_owned() + "}\n").collect();
    fs::write(lab.path("s/scores.jsonl"), older).unwrap();
    lab.done(&line("s"));
    assert!(fired("s").as_object().unwrap().is_empty());
    assert!(page("s").contains("not known: an earlier version wrote cells, which do not say"));
}

/// Rows of which something was changed are no scores: what hooks counted, what a key is of, how many tokens were scored.
#[test]
fn scores_that_were_changed_are_refused() {
    let lab = Lab::new();
    let line = "--items c.jsonl --heads L3H2,L0H1 --lambda 0.5,0 --out s";
    lab.done(line);
    let text = lab.read("s/scores.jsonl");
    let rows = unchecked(&text);
    let refused = |rows: &[Value]| {
        lab.write("s/scores.jsonl", &rows.iter().map(|row| row.to_string() + "\n").collect::<String>());
        let output = lab.score("llama", line);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let (fired, tokens) = (rows[5]["fired"].as_u64().unwrap(), rows[5]["tokens"].as_u64().unwrap());
    for (field, value, told) in [
        ("fired", json!(0), "says that its hook fired on 0 tokens, but the item has".to_string()),
        ("fired", json!(fired + 1), format!("fired on {} tokens, but the item has {fired}", fired + 1)),
        ("tokens", json!(tokens + 1), format!("is over {} tokens, but another of that item", tokens + 1)),
        ("agree", json!(tokens + 1), format!("line 6 is no row: agree is {}, but only {tokens} tokens", tokens + 1)),
        ("head", json!("L1H1"), "under L1H1:".into()),
        ("lambda", json!(0.25), ":0.25, but its key is that of".into()),
        ("id", json!("nobody"), "a line says that it scores item 'nobody'".into()),
    ] {
        let mut changed = rows.clone();
        changed[5][field] = value;
        let err = refused(&changed);
        assert!(err.contains(&told), "{field}: {err}");
    }
    // A count that is wrong in every row, so that no row stands out.
    let mut all = rows.clone();
    for row in &mut all {
        row["fired"] = json!(1000);
    }
    assert!(refused(&all).contains("fired on 1000 tokens"));
    fs::write(lab.path("s/scores.jsonl"), text).unwrap();
    lab.done(line);
}

/// Heads tried one per call count as tried together: the map, and its p max, are over every complete cell of the directory.
#[test]
fn heads_tried_in_several_calls_are_one_map() {
    let lab = Lab::new();
    let score = "--items c.jsonl --lambda 0 --a a --b b --shuffles 99 --json";
    let map = |line: &str| -> Value { serde_json::from_str(&lab.done(line).0).unwrap() };
    let number = |value: &Value| value.as_f64().unwrap();
    let alone = map(&format!("{score} --heads L1H0 --out alone"));
    assert!(alone.get("earlier").is_none());
    lab.done(&format!("{score} --heads L1H0,L2H5 --out once"));
    lab.done(&format!("{score} --heads L2H5 --out s"));
    let (dry, _) = lab.done(&format!("{score} --heads L1H0 --out s --dry-run"));
    assert_eq!(serde_json::from_str::<Value>(&dry).unwrap()["rows_new"], 8, "only what is missing");
    let both = map(&format!("{score} --heads L1H0 --out s"));
    // One call that asks for both leaves the same numbers; apart from `earlier`, the files do not depend on the calls.
    let once: Value = serde_json::from_str(&lab.read("once/score.json")).unwrap();
    assert_eq!((&both["earlier"], &both["cells"]), (&json!(1), &once["cells"]));
    assert_eq!(both["contrast"], once["contrast"]);
    assert_eq!(both["warnings"], once["warnings"]);
    for file in ["scores.npz", "scores.csv"] {
        assert!(
            fs::read(lab.path(&format!("s/{file}"))).unwrap() == fs::read(lab.path(&format!("once/{file}"))).unwrap()
        );
    }
    for of in ["cells", "contrast"] {
        let p = |map: &Value| {
            let cells = if of == "cells" { &map["cells"] } else { &map["contrast"]["cells"] };
            (number(&cells[0]["p"]), number(&cells[0]["p_max"]))
        };
        assert_eq!(p(&alone).0, p(&both).0, "{of}: of the cell alone");
        assert!(p(&alone).1 <= p(&both).1, "{of}: a p over two heads is no smaller than over one");
    }
    let plan: Value = serde_json::from_str(&lab.read("s/plan.json")).unwrap();
    assert_eq!((&plan["plan"]["heads"], plan["keys"].as_array().unwrap().len()), (&json!(["L1H0", "L2H5"]), 16));
    // Only some heads at a further λ: not every head is there at every λ.
    let (text, _) = lab.done("--items c.jsonl --lambda 0.5 --heads L0H1 --out s --shuffles 99");
    assert!(text.contains("scored by earlier calls in this directory: 2 of 3 cells"), "{text}");
    let (shape, delta) = lab.values("s/scores.npz", "delta_logprob");
    assert_eq!(shape, [3, 2, 8]);
    let there: Vec<bool> = delta.chunks(8).map(|items| items.iter().all(|x| x.is_finite())).collect();
    assert_eq!(there, [true, false, false, true, false, true], "L0H1 at 0.5, L1H0 and L2H5 at 0");
    assert_eq!(lab.read("s/scores.csv").lines().count(), 1 + 3 * 8);
    assert!(lab.read("s/report.html").contains("2 of 3 cells (a head at a λ)"));
    // A cell that lacks items is left out of the tables, and is named.
    let rows = lab.read("s/scores.jsonl");
    let short: Vec<&str> = rows.lines().filter(|row| !(row.contains("L2H5") && row.contains("\"q3\""))).collect();
    lab.write("s/scores.jsonl", &(short.join("\n") + "\n"));
    let map = map("--items c.jsonl --lambda 0.5 --heads L0H1 --out s --shuffles 99 --json");
    assert_eq!(map["cells"].as_array().unwrap().len(), 2);
    let warnings = map["warnings"].to_string();
    assert!(warnings.contains("unfinished cells") && warnings.contains("(L2H5:0 with 7 of 8 items)"), "{warnings}");
    // A line of another model, which somebody put there.
    let mut other = unchecked(short.last().unwrap()).remove(0);
    (other["key"], other["head"]) = (json!("another model's"), json!("L0H0"));
    lab.write("s/scores.jsonl", &(short.join("\n") + "\n" + &other.to_string() + "\n"));
    let (told, _) = lab.done("--items c.jsonl --lambda 0.5 --heads L0H1 --out s --shuffles 99");
    assert!(told.contains("1 line of scores.jsonl of another model"), "{told}");
}

/// Tables of one call never stand beside those of another, also where a call is killed between them.
#[test]
fn tables_go_before_others_are_written() {
    let lab = Lab::new();
    lab.done("--items c.jsonl --heads L0H1 --lambda 0 --out s --shuffles 99");
    // No file can take the place of a directory: as if the call had been killed there.
    fs::remove_file(lab.path("s/report.html")).unwrap();
    fs::create_dir(lab.path("s/report.html")).unwrap();
    let output = lab.score("llama", "--items c.jsonl --heads L2H5 --lambda 0 --out s --shuffles 99");
    assert_eq!(output.status.code(), Some(2));
    for name in ["scores.npz", "scores.csv", "score.json"] {
        assert!(!lab.path("s").join(name).exists(), "{name} has not the page that belongs to it");
    }
}

#[test]
fn the_files_hold_the_same_numbers() {
    let lab = Lab::new();
    let (out, _) = lab.done("--items c.jsonl --heads L2H5,L0H1 --lambda 1,0 --out s --a a --b b --shuffles 99 --json");
    let map: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(out, lab.read("s/score.json"));
    let rows: Vec<Value> = lab.read("s/scores.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (shape, delta) = lab.values("s/scores.npz", "delta_logprob");
    assert_eq!(shape, [2, 2, 8], "head, lambda, item: only what was asked for");
    let (_, per_token) = lab.values("s/scores.npz", "delta_logprob_per_token");
    let (_, kl) = lab.values("s/scores.npz", "kl");
    let (_, kl_per_token) = lab.values("s/scores.npz", "kl_per_token");
    let (_, agreement) = lab.values("s/scores.npz", "agreement");
    let (_, base) = lab.values("s/scores.npz", "base_logprob");
    let csv = lab.read("s/scores.csv");
    let csv: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let number = |value: &Value| value.as_f64().unwrap();
    for (h, head) in ["L0H1", "L2H5"].into_iter().enumerate() {
        for (l, lambda) in [1.0, 0.0].into_iter().enumerate() {
            let mut mean = 0.0;
            for (item, &base) in base.iter().enumerate() {
                let place = (h * 2 + l) * 8 + item;
                let named = |row: &&Value| row["head"] == head && row["id"] == format!("q{item}");
                let row = rows.iter().find(|row| named(row) && number(&row["lambda"]) == lambda).unwrap();
                let tokens = number(&row["tokens"]);
                let expected = number(&row["sum_logprob"]) - number(&row["base_logprob"]);
                assert_eq!(delta[place], expected as f32);
                assert_eq!(per_token[place], (expected / tokens) as f32);
                assert_eq!(kl[place], number(&row["kl"]) as f32);
                assert_eq!(kl_per_token[place], (number(&row["kl"]) / tokens) as f32);
                assert_eq!(agreement[place], (number(&row["agree"]) / tokens) as f32);
                assert_eq!(base, number(&row["base_logprob"]) as f32);
                assert_eq!(csv[place][..1], [head]);
                assert_eq!(csv[place][8].parse::<f64>().unwrap(), expected);
                assert_eq!(expected == 0.0, lambda == 1.0, "{row}");
                mean += expected / tokens / 8.0;
            }
            let cell = &map["cells"][h * 2 + l];
            assert!((number(&cell["delta"]) - mean).abs() < 1e-12);
            assert_eq!(number(&cell["lambda"]), lambda);
            let same = lambda == 1.0;
            assert_eq!(number(&cell["p_max"]) == 1.0 && number(&cell["kl"]) == 0.0, same, "{cell}");
            if same {
                assert!(cell["low"].is_null() && cell["high"].is_null(), "no item differs: there is no interval");
            } else {
                assert!(number(&cell["low"]) < mean && mean < number(&cell["high"]));
            }
        }
    }
    let npz = NpzTensors::new(lab.path("s/scores.npz")).unwrap();
    let layers: Vec<i64> = npz.get("head_layer").unwrap().unwrap().to_vec1().unwrap();
    let index: Vec<i64> = npz.get("head_index").unwrap().unwrap().to_vec1().unwrap();
    assert_eq!((layers, index), (vec![0, 2], vec![1, 5]));
    assert_eq!(map["flips"]["exact"], false);
    assert_eq!(map["flips"]["count"], 99);
    assert_eq!(map["contrast"]["cells"].as_array().unwrap().len(), 4);
    assert_eq!(number(&map["contrast"]["cells"][0]["cohen_d"]), 0.0, "lambda 1 tells nothing apart");
    // The interval of d is the same in every file, and contains d.
    let cell = &map["contrast"]["cells"][3];
    let [low, d, high] = ["d_low", "cohen_d", "d_high"].map(|name| number(&cell[name]));
    assert!(low < d && d < high, "{cell}");
    for (array, value) in [("contrast_d", d), ("contrast_d_low", low), ("contrast_d_high", high)] {
        let (shape, values) = lab.values("s/scores.npz", array);
        assert_eq!((shape, values[3]), (vec![2, 2], value as f32), "{array}");
    }
    let (text, _) = lab.done("--items c.jsonl --heads L2H5,L0H1 --lambda 1,0 --out s --a a --b b --shuffles 99");
    assert!(text.contains(&format!("{low:.2} to {high:.2}")), "{text}");
    // `yes, it is 4` is longer than `no 5`, always by as much; and four items are few.
    let warnings = map["warnings"].to_string();
    assert!(warnings.contains("scored tokens in every item)") && warnings.contains("only 4 items"), "{warnings}");
    let report = lab.read("s/report.html");
    for part in [
        "Heat map of mean Δ",
        "Heat map of KL",
        "Heat map of Cohen's d",
        ">L2H5<",
        "<title>q7: ",
        "the length has no d",
    ] {
        assert!(report.contains(part), "{part}");
    }
    assert!(!report.replace("isNaN", "").contains("NaN") && !report.contains("://"));
}

/// Like an attribution, the map warns of a field that tells the cohorts apart, of prompts' length and of unequal truncation.
#[test]
fn what_else_the_cohorts_differ_in_is_said() {
    let lab = Lab::new();
    let item = |i: usize| {
        let in_a = i.is_multiple_of(2);
        let (label, topic) = if in_a { ("a", "sums") } else { ("b", "towns") };
        let asked = if in_a { "Is it so?" } else { "Is it so, and if it is, why would anybody say that it is?" };
        json!({
            "id": format!("q{i}"), "prompt": format!("{i} {asked}"), "response": format!("yes {}", i % 5), "label": label,
            "topic": topic, "year": 1990 + i % 3, "finish_reason": if in_a { "length" } else { "stop" },
        })
    };
    lab.write("t.jsonl", &(0..24).map(|i| item(i).to_string() + "\n").collect::<String>());
    let line = "--items t.jsonl --lambda 0 --heads L0H1 --shuffles 199 --json";
    let map: Value = serde_json::from_str(&lab.done(&format!("{line} --a a --b b --out s")).0).unwrap();
    let warnings = map["warnings"].to_string();
    for part in [
        "the field 'topic' goes with the cohorts (Cramér's V 1.00, p 0.005)",
        "looks like one that tells the cohorts apart",
        "prompts in a and b differ in length",
        "12 of 12 responses in a and 0 of 12 in b were cut off at the limit of tokens: ",
    ] {
        assert!(warnings.contains(part), "{part}\n{warnings}");
    }
    assert!(!warnings.contains("'year'") && !warnings.contains("'finish_reason'"), "{warnings}");
    let found = &map["contrast"]["confounds"];
    assert_eq!((&found["fields_checked"], &found["truncated_a"]), (&json!(2), &json!(12)));
    assert!(lab.read("s/report.html").contains("the field &#39;topic&#39; goes with the cohorts"));
    // Merged shards warn of this too; where nothing is compared, nothing of it is written.
    for i in 1..=2 {
        lab.done(&format!("{} --a a --b b --out s{i} --shard {i}/2", line.replace(" --json", "")));
    }
    let mut merge = temper();
    merge.args(["merge", "m", "s1", "s2"]).current_dir(lab.0.path());
    assert_eq!(merge.output().unwrap().status.code(), Some(0));
    assert_eq!(lab.read("m/score.json"), lab.read("s/score.json"));
    lab.done(&format!("{line} --out alone"));
    assert!(!lab.read("alone/plan.json").contains("topic"));
}

#[test]
fn a_map_that_tempers_nothing_says_so() {
    let lab = Lab::new();
    let score =
        |lambda: &str| lab.done(&format!("--items c.jsonl --heads L0H1 --lambda {lambda} --shuffles 9 --out {lambda}"));
    assert!(score("1").0.contains("no head is tempered: every λ is 1"));
    assert!(!score("1,0").0.contains("no head is tempered"));
}

#[test]
fn every_family_has_a_map() {
    let lab = Lab::new();
    for family in FAMILIES {
        let output =
            lab.score(family, &format!("--items c.jsonl --lambda 0 --limit 2 --shuffles 9 --out {family} --json"));
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{family}: {err}");
        let map: Value = serde_json::from_slice(&output.stdout).unwrap();
        let heads = golden_model(family).spec().slots().len();
        assert_eq!(map["cells"].as_array().unwrap().len(), heads, "{family}");
        assert!(map["warnings"].to_string().contains("6 are the least"), "{family}");
        let report = lab.read(&format!("{family}/report.html"));
        assert!(report.contains("No verdict: with 2 prompts"), "{family}");
        assert_eq!(report.contains("Underlined: gated delta nets"), family == "qwen3_5");
    }
}

#[test]
fn plain_is_never_read_from_what_was_shared() {
    let lab = Lab::new();
    let line = "--items c.jsonl --heads L0H1 --lambda 0 --out s";
    lab.done(line);
    let output = lab.score("llama", &format!("{line} --plain"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("belongs to another run"));
}

#[test]
fn what_the_program_cannot_score_it_refuses() {
    let lab = Lab::new();
    lab.write(
        "silent.jsonl",
        "{\"id\":\"a1\",\"prompt\":\"x\",\"response\":\"y\"}\n{\"id\":\"a2\",\"prompt\":\"x\"}\n",
    );
    lab.write("ids.jsonl", "{\"id\":\"a3\",\"input_ids\":[1,2,3]}\n");
    lab.write("none.jsonl", "");
    for (line, part) in [
        ("--items silent.jsonl --lambda 0", "item 'a2' has no response"),
        ("--items ids.jsonl --lambda 0", "input_ids with prompt_len"),
        ("--items none.jsonl --lambda 0", "none.jsonl"),
        ("--items c.jsonl --lambda 0,0.5,0", "0 twice"),
        (
            "--items c.jsonl --lambda inf",
            "'inf' for '--lambda <LAMBDA,...>': must be a number from -1000000 to 1000000",
        ),
        ("--items c.jsonl --lambda 1e20", "must be a number from -1000000 to 1000000"),
        ("--items c.jsonl", "--lambda"),
        ("--items c.jsonl --lambda 0 --heads L9H0", "layer 9 of head L9H0 does not exist"),
        ("--items c.jsonl --lambda 0 --heads L0H6", "head L0H6 does not exist"),
        ("--items c.jsonl --lambda 0 --heads L0H1:0.5", "like L0H1 without λ"),
        ("--items c.jsonl --lambda 0 --heads top:3@none.json", "none.json"),
        ("--items c.jsonl --lambda 0 --a a --b c", "labels in the data: a 4, b 4"),
        ("--items c.jsonl --lambda 0 --a a --b a", "cohort b is 'a' like cohort a, but must be another label"),
        ("--items c.jsonl --lambda 0 --a a", "--b"),
        ("--items c.jsonl --lambda 0 --batch-tokens 0", "batch_tokens is 0"),
    ] {
        let output = lab.score("llama", &format!("{line} --out s"));
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}\n{err}");
        assert!(err.contains(part), "{line}\n{err}");
        assert!(output.stdout.is_empty() && !lab.path("s").exists(), "{line}: something was left");
    }
    lab.done("--items c.jsonl --lambda 0 --heads L0H1 --out s");
    let output = lab.score("llama", "--items c.jsonl --limit 7 --lambda 0 --heads L0H1 --out s");
    assert!(String::from_utf8_lossy(&output.stderr).contains("belongs to another run"));
}
