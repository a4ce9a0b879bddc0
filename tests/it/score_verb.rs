//! `temper score` as a user runs it: the files it writes, its warnings and its refusals.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

mod again;

use std::{fs, path::PathBuf, process::Output};

use candle_core::npy::NpzTensors;
use headtemper_tests::{FAMILIES, golden_dir, golden_model, temper};
use serde_json::{Value, json};
use tempfile::TempDir;

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
