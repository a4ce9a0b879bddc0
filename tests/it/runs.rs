//! Sweeps and whole experiments on the tiny Llama: the rows they leave, what they say, and going on where they stopped.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use headtemper_tests::golden_dir;

use crate::lab::{HEADS, LAYERS, Lab, array, by_id, counts, lines, prompts, texts};

/// Rows as (id, variant, seed, response): what a set of them must be, in whatever order they were made.
fn row_set(lab: &Lab, name: &str) -> BTreeSet<(String, String, u64, String)> {
    let rows = lines(&lab.read(name));
    let count = rows.len();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_string();
    let key =
        |row: Value| (text(&row, "id"), text(&row, "variant"), row["seed"].as_u64().unwrap(), text(&row, "response"));
    let set: BTreeSet<_> = rows.into_iter().map(key).collect();
    assert_eq!(set.len(), count, "{name} holds a row twice");
    set
}

const SWEEP: &str = "sweep --model M --items q.jsonl --heads L0H1,L2H4 --max-new-tokens 12 --out out";

/// What ends before a plan's window is the untouched model's, and told.
#[test]
fn what_a_plan_never_touched_is_told() {
    let lab = Lab::new();
    let items = [("long", "one two three four five six seven eight nine ten"), ("short", "hi")];
    lab.write_lines("w.jsonl", items.map(|(id, prompt)| json!({"id": id, "prompt": prompt})));
    let sweep = "sweep --model M --items w.jsonl --heads L0H1 --lambda 1,0.5 --max-new-tokens 3";
    let (out, _) = lab.ends(0, &format!("{sweep} --positions window:30..40 --out out"));
    assert!(out.contains("only 1 of 2 answers of L0H1@0.5 at window:30..40 were touched"), "{out}");
    let untouched: Vec<Value> =
        lines(&lab.read("out/rows.jsonl")).into_iter().filter(|row| row["touched"] == false).collect();
    assert_eq!(untouched.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), ["short"]);
    assert_eq!(lab.json("out/sweep.json")["tables"][0]["arms"][1]["touched"], 1);
    // Of three tokens that are cut off two are read, all of them behind the prompt.
    let (out, _) = lab.ends(0, &format!("{sweep} --positions response --out response"));
    assert!(!out.contains("were touched"), "{out}");
    let capture = "capture --model M --items w.jsonl --plan L0H1:0.5 --positions window:30..40 --out c.npz";
    let (_, said) = lab.ends(0, capture);
    assert!(said.contains("2 of 2 items have no response"), "{said}");
    assert!(said.contains("1 of 2 items have no token at the positions of their plan"), "{said}");
}

/// Whoever tries heads, λ and seeds one call at a time asks as many questions as whoever asks them at once, and gets the same p.
#[test]
fn what_is_tried_one_by_one_is_one_family() {
    let lab = Lab::new();
    let gold = |i: usize| vec![["a", "e", "o"][i % 3]];
    let item = |i: usize| json!({"id": format!("q{i}"), "prompt": format!("Is {i} even?"), "gold": gold(i)});
    lab.write_lines("q.jsonl", (0..24).map(item));
    let sweep = |asked: &str, out: &str| {
        let (_, err) = lab.ends(
            0,
            &format!("sweep --model M --items q.jsonl --temperature 1 --max-new-tokens 6 {asked} --out {out}"),
        );
        err
    };
    // What a table says of each arm, whatever its place in it.
    let told = |dir: &str| {
        let outcomes = lab.json(&format!("{dir}/sweep.json"));
        let arms = |table: &Value| table["arms"].as_array().unwrap().clone();
        let all = outcomes["tables"].as_array().unwrap().iter().flat_map(arms);
        let named: BTreeMap<String, Value> =
            all.map(|arm| (arm["variant"].as_str().unwrap().to_owned(), arm)).collect();
        (named, outcomes["flips"].clone(), outcomes.get("elsewhere").cloned())
    };
    sweep("--each --heads L0H1,L2H4,L3H0 --lambda 1,1,0.5,0 --seeds 1", "whole");
    sweep("--heads L0H1 --lambda 1,1,0.5,0 --seeds 1", "out");
    let alone = told("out").0["L0H1@0"]["difference"]["accuracy"]["p_max"].clone();
    let err = sweep("--heads L2H4 --lambda 1,1,0.5,0 --seeds 1", "out");
    assert!(err.contains("note: 2 arms of earlier calls stand in the tables as well"), "{err}");
    sweep("--heads L3H0 --lambda 1,1,0.5,0 --seeds 1", "out");
    assert_eq!(told("out"), told("whole"));
    let of = |dir: &str| told(dir).0["L0H1@0"]["difference"]["accuracy"]["p_max"].as_f64().unwrap();
    assert!(of("out") >= alone.as_f64().unwrap());
    assert_eq!(told("out").2, None, "nothing lies elsewhere");

    // Another seed joins if all that is asked for now has it; where it has not, its rows are said to be elsewhere.
    sweep("--each --heads L0H1,L2H4,L3H0 --lambda 1,1,0.5,0 --seeds 2", "out");
    sweep("--each --heads L0H1,L2H4,L3H0 --lambda 1,1,0.5,0 --seeds 1,2", "both");
    assert_eq!(lab.json("out/sweep.json")["seeds"], json!([2, 1]));
    let n = |dir: &str| told(dir).0["L2H4@0.5"]["n"].clone();
    assert_eq!((n("out"), n("out")), (json!(48), n("both")));
    sweep("--heads L1H1 --lambda 1,1,0 --seeds 3", "out");
    let (arms, _, elsewhere) = told("out");
    assert_eq!(arms.keys().collect::<Vec<_>>(), ["L1H1@0", "all@1", "base"]);
    let strays = elsewhere.unwrap();
    assert!(
        ["L0H1@0", "seed 1", "seed 2"].iter().all(|name| strays.as_array().unwrap().contains(&json!(name))),
        "{strays}"
    );
    assert!(lab.read("out/report.html").contains("rows that no table here holds"));
}

/// A row for every item and arm; the control arm is the λ = 1 arm, which is the untouched model.
#[test]
fn sweep_writes_a_row_for_every_item_and_arm() {
    let lab = Lab::new();
    prompts(&lab, 7);
    let out = lab.done(&format!("{SWEEP} --lambda 1,1,0.5 --json"));
    let rows = lines(&lab.read("out/rows.jsonl"));
    assert_eq!(rows.len(), 3 * 7);
    let untouched = by_id(&lab.done("generate --model M --items q.jsonl --max-new-tokens 12"));
    let tempered = by_id(&lab.done("generate --model M --items q.jsonl --max-new-tokens 12 --plan L0H1:0.5,L2H4:0.5"));
    let mut arms: BTreeMap<&str, usize> = BTreeMap::new();
    let shared = ["id", "seed", "prompt", "response", "finish_reason", "n_tokens", "sum_logprob", "response_ids"];
    for row in &rows {
        let variant = row["variant"].as_str().unwrap();
        *arms.entry(variant).or_default() += 1;
        let expected = if variant == "L0H1+L2H4@0.5" { &tempered } else { &untouched };
        let expected = &expected[row["id"].as_str().unwrap()];
        for key in shared {
            assert_eq!(row[key], expected[key], "{variant} {key}");
        }
        assert_eq!(row["key"].as_str().unwrap().len(), 32);
        assert_eq!(row.as_object().unwrap().len(), shared.len() + 3, "a row has no other fields");
        // Every token but the last of an answer that was cut off is read, by the heads of its plan.
        let heads = match variant {
            "base" => 0,
            "all@1" => LAYERS * HEADS,
            _ => 2,
        };
        let read = row["fired"].as_u64().unwrap() as usize;
        assert!(read >= heads * row["n_tokens"].as_u64().unwrap() as usize && (heads == 0) == (read == 0), "{row}");
    }
    let names = ["base", "all@1", "L0H1+L2H4@0.5"];
    assert_eq!(arms, names.map(|name| (name, 7)).into());

    let document = lab.json("out/sweep.json");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), document);
    let table = &document["tables"][0];
    assert_eq!((&document["schema"], &table["set"]), (&json!("sweep/v1"), &json!("L0H1 L2H4")));
    let differ = tempered.iter().filter(|(id, line)| line["response_ids"] != untouched[*id]["response_ids"]).count();
    assert!(differ > 0);
    for (arm, (name, changed)) in table["arms"].as_array().unwrap().iter().zip(names.into_iter().zip([0, 0, differ])) {
        assert_eq!((&arm["variant"], &arm["n"]), (&json!(name), &json!(7)));
        assert_eq!(arm["changed"].as_f64().unwrap(), changed as f64 / 7.0);
    }
    let roles: Vec<&Value> = table["arms"].as_array().unwrap().iter().map(|arm| &arm["role"]).collect();
    assert_eq!(roles, ["reference", "control", "tempered"]);
    // The control went through the hook of every head, and the reference through none.
    let fired = &lab.json("out/manifest.json")["stages"]["sweep"]["fired"];
    let (control, tempered) = (fired["all@1"].as_u64().unwrap(), fired["L0H1+L2H4@0.5"].as_u64().unwrap());
    assert!(fired["base"] == 0 && tempered > 0 && control > tempered, "{fired}");
    let lambda = array(&lab.npz("out/lambda.npz"), "lambda");
    assert_eq!(lambda.dims(), [3, LAYERS, HEADS]);
    let lambda: Vec<f32> = lambda.flatten_all().unwrap().to_vec1().unwrap();
    let half = 2 * LAYERS * HEADS;
    let expected = |at: usize| if at == half + 1 || at == half + 2 * HEADS + 4 { 0.5 } else { 1.0 };
    assert_eq!(lambda, (0..3 * LAYERS * HEADS).map(expected).collect::<Vec<f32>>());
}

/// Random sets and a reference that all heads share; files for people and programs; what comes later touches no row.
#[test]
fn sweep_says_what_it_found() {
    let lab = Lab::new();
    prompts(&lab, 6);
    lab.write("hedges.txt", "perhaps\n");
    let line = "sweep --model M --items q.jsonl --heads L0H1,L2H4 --hedges hedges.txt --max-new-tokens 8 --out out";
    let out = lab.done(&format!("{line} --lambda 1,1,0.5 --random-sets 2"));
    assert!(out.contains("| 1 (control) |") && out.contains("| 0.5, random |") && out.contains("p max"), "{out}");
    assert!(out.lines().all(|line| line.starts_with("warning") || line.chars().count() <= 120), "{out}");
    let document = lab.json("out/sweep.json");
    let random = document["random"].as_array().unwrap();
    assert!(random.len() == 2 && random.iter().all(|arm| arm["variant"].as_str().unwrap().contains("-of-2H-")));
    let tempered = &document["tables"][0]["arms"][2];
    let difference = &tempered["difference"]["assertion_rate"];
    assert_eq!(
        (&difference["items"], &difference["differing"], &difference["p_max"]),
        (&json!(6), &json!(0), &json!(1.0))
    );
    let (low, high) = (difference["low"].as_f64().unwrap(), difference["high"].as_f64().unwrap());
    assert!(low < -0.3 && high > 0.3, "six items that do not differ are no certainty: {low} to {high}");
    assert_eq!((&tempered["difference"]["accuracy"], &document["flips"]["family"]), (&Value::Null, &json!(1)));
    let csv = lab.read("out/sweep.csv");
    assert_eq!(csv.lines().count(), 1 + (3 + 2) * 7, "a line an arm and outcome");
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == columns), "{csv}");
    let page = lab.read("out/report.html");
    assert!(page.contains("Assertion rate") && !page.contains("://") && !page.contains("src="));

    let rows = lab.read("out/rows.jsonl");
    assert_eq!(rows.lines().count(), (3 + 2) * 6);
    lab.done(&format!("{line} --lambda 1,1,0.5 --random-sets 4"));
    assert!(lab.read("out/rows.jsonl").starts_with(&rows), "further random sets leave the first");
    assert_eq!(lab.read("out/rows.jsonl").lines().count(), (3 + 4) * 6);

    let each = "sweep --model M --items q.jsonl --heads all --each --lambda 1,1,0 --max-new-tokens 8 --out each";
    let out = lab.done(each);
    assert!(out.contains("24 head sets; 6 items") && out.contains("in any of 24 arms"), "{out}");
    assert_eq!(lab.read("each/rows.jsonl").lines().count(), (1 + 1 + 24) * 6, "one reference for all heads");
    assert!(lab.read("each/report.html").contains("Heat map of Length by head"));
}

/// A λ that joins a sweep adds its rows and touches none; what is there already is not made again.
#[test]
fn sweep_does_only_what_is_missing() {
    let lab = Lab::new();
    prompts(&lab, 5);
    lab.done(&format!("{SWEEP} --lambda 1,0.5"));
    let first = lab.read("out/rows.jsonl");
    lab.done(&format!("{SWEEP} --lambda 1,0.5,0"));
    let second = lab.read("out/rows.jsonl");
    assert!(second.starts_with(&first) && second.lines().count() == 15);
    let (_, said) = lab.ends(0, &format!("{SWEEP} --lambda 0,0.5"));
    assert!(said.contains("nothing left to do") && lab.read("out/rows.jsonl") == second, "{said}");
    lab.done(&format!("{SWEEP} --lambda 1 --heads L3H5"));
    assert!(lab.read("out/rows.jsonl").starts_with(&second));
    let each = lab.done("sweep --model M --items q.jsonl --heads L0H1,L2H4 --each --lambda 0 --seeds 3,4 --temperature 1 --max-new-tokens 4 --out each --json");
    let each: Value = serde_json::from_str(&each).unwrap();
    let sets: Vec<&Value> = each["tables"].as_array().unwrap().iter().map(|table| &table["set"]).collect();
    assert_eq!(sets, ["L0H1", "L2H4"]);
    let rows = row_set(&lab, "each/rows.jsonl");
    assert_eq!(rows.len(), (1 + 2) * 2 * 5, "one reference for both sets");
    assert_eq!(rows.iter().map(|row| row.2).collect::<BTreeSet<_>>(), [3, 4].into());
}

/// Cuts `rows.jsonl` at a byte, as a killed run leaves it, and runs the sweep again.
fn heals(at: impl FnOnce(&str) -> usize) {
    let lab = Lab::new();
    prompts(&lab, 5);
    lab.done(&format!("{SWEEP} --lambda 1,0.5"));
    let (text, rows) = (lab.read("out/rows.jsonl"), row_set(&lab, "out/rows.jsonl"));
    let cut = at(&text);
    lab.write("out/rows.jsonl", &text.as_bytes()[..cut]);
    lab.done(&format!("{SWEEP} --lambda 1,0.5"));
    assert_eq!(row_set(&lab, "out/rows.jsonl"), rows);
    let kept = text[..text.floor_char_boundary(cut)].rfind('\n').map_or(0, |at| at + 1);
    assert!(lab.read("out/rows.jsonl").starts_with(&text[..kept]), "whole lines stay");
}

/// A row that was cut off when a run was killed is made again, and no other.
#[test]
fn a_row_cut_off_is_made_again() {
    let last_line = |text: &str| text.trim_end().rfind('\n').unwrap() + 1;
    heals(|text| text.floor_char_boundary(last_line(text).midpoint(text.len())));
    heals(|text| text.len() - 1); // the line is whole, its end is not
    heals(|_| 0);
}

/// The cut may fall inside a character.
#[test]
fn a_row_cut_off_inside_a_character_is_made_again() {
    heals(|text| text.rfind('à').unwrap() + 1);
}

/// The files of a run directory.
const RUN_FILES: [&str; 14] = [
    "config.toml",
    "manifest.json",
    "rows.jsonl",
    "judged.jsonl",
    "features.npz",
    "lambda.npz",
    "attribution.json",
    "attribution.csv",
    "attribution.npz",
    "sweep.json",
    "sweep.csv",
    "report.html",
    "report.json",
    "report.md",
];

/// Writes an experiment over `count` questions, half of those whose answer holds a word having it as accepted answer.
/// Returns the answers of the untouched model, and how many are right.
fn write_experiment(lab: &Lab, count: usize, new_tokens: usize) -> (BTreeMap<String, Value>, usize) {
    prompts(lab, count);
    let answers = by_id(&lab.done(&format!("generate --model M --items q.jsonl --max-new-tokens {new_tokens}")));
    let word = |text: &str| text.split_whitespace().find(|word| word.contains(char::is_alphanumeric)).map(String::from);
    let mut right = 0;
    let items: Vec<Value> = lines(&lab.read("q.jsonl"))
        .into_iter()
        .enumerate()
        .map(|(i, mut item)| {
            let word = word(answers[item["id"].as_str().unwrap()]["response"].as_str().unwrap());
            item["gold"] = match word.filter(|_| i.is_multiple_of(2)) {
                Some(word) => json!(["nothing of the kind", word]),
                None => json!("nothing of the kind"),
            };
            right += usize::from(item["gold"].is_array());
            item
        })
        .collect();
    lab.write_lines("q.jsonl", items);
    lab.write("hedges.txt", "# none of them occurs\nperhaps\nI am not sure\n");
    lab.write(
        "x.toml",
        format!(
            "name = \"t\"\n[model]\npath = \"{}\"\n[items]\npath = \"q.jsonl\"\n[generate]\nmax_new_tokens = {new_tokens}\n\
             max_rows = 2\n[judge]\nhedges = \"hedges.txt\"\n[attribute]\ndisposition = \"parity\"\na = \"cw\"\nb = \"cr\"\n\
             shuffles = 20\nmin_cohort = 2\n[sweep]\nheads = \"top:2\"\nlambdas = [1, 1, 0.5]\n",
            golden_dir("llama").display()
        ),
    );
    (answers, right)
}

/// What accepted answers lose is said before anything is generated.
#[test]
fn golds_without_what_decides_are_warned_of() {
    let lab = Lab::new();
    lab.write_lines("q.jsonl", ["?", "x^2", "-5"].map(|gold| json!({"id": gold, "prompt": "Qui est", "gold": gold})));
    let line = "sweep --model M --items q.jsonl --heads L0H1 --lambda 1 --max-new-tokens 1 --out out";
    let (_, err) = lab.ends(0, line);
    assert!(err.contains("1 without a letter or digit match nothing ('?' of ?)"), "{err}");
    assert!(err.contains("1 are compared without signs that may decide ('x^2' of x^2)"), "{err}");
}

/// A whole experiment: every file is there, and each says what the stage before it found.
#[test]
fn run_does_a_whole_experiment() {
    let lab = Lab::new();
    let (answers, right) = write_experiment(&lab, 24, 12);
    assert!((2..=22).contains(&right), "{right} right answers make no two cohorts");
    let out = lab.done("run x.toml --out out");
    let mut there: Vec<String> =
        fs::read_dir(lab.path("out")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    let mut expected: Vec<&str> = RUN_FILES.into_iter().chain([".lock"]).collect();
    expected.sort_unstable();
    assert_eq!(there, expected, "all files and no other");

    let judged = by_id(&lab.read("out/judged.jsonl"));
    let questions = by_id(&lab.read("q.jsonl"));
    for (id, item) in &judged {
        assert_eq!(item["response"], answers[id]["response"], "{id}");
        assert_eq!(item["label"], if questions[id]["gold"].is_array() { "cr" } else { "cw" }, "{id}");
    }
    assert_eq!(judged.len(), 24);
    let report = lab.json("out/report.json");
    assert_eq!(report["cohorts"], json!({"cr": right, "cw": 24 - right}));
    let attribution = lab.json("out/attribution.json");
    assert_eq!(report["attribution"], attribution);
    let disposition = &attribution["dispositions"][0];
    assert_eq!((&disposition["n_a"], &disposition["n_b"]), (&json!(24 - right), &json!(right)));
    assert_eq!(report["sweep"], lab.json("out/sweep.json"));
    let arms = report["sweep"]["tables"][0]["arms"].as_array().unwrap();
    assert_eq!(arms[0]["accuracy"], right as f64 / 24.0);
    assert_eq!((&arms[1]["accuracy"], &arms[1]["changed"]), (&arms[0]["accuracy"], &json!(0.0)));
    let variants = row_set(&lab, "out/rows.jsonl").into_iter().fold(BTreeMap::new(), |mut counts, row| {
        *counts.entry(row.1).or_insert(0) += 1;
        counts
    });
    assert_eq!((variants["base"], variants.len(), variants.values().sum::<usize>()), (24, 3, 3 * 24));

    let npz = lab.npz("out/features.npz");
    assert_eq!(array(&npz, "h_layers").dims(), [24, LAYERS, 72]);
    let lengths: Vec<i64> =
        counts(&npz, "total_len").iter().zip(counts(&npz, "prompt_len")).map(|(t, p)| t - p).collect();
    let generated: Vec<i64> = (0..24).map(|i| answers[&format!("q{i}")]["n_tokens"].as_i64().unwrap()).collect();
    assert_eq!(lengths, generated, "the very tokens that were generated");
    assert_eq!(array(&lab.npz("out/lambda.npz"), "lambda").dims(), [3, LAYERS, HEADS]);
    let page = lab.read("out/report.html");
    assert!(page.contains("parity") && !page.contains("://") && !page.contains("src="));
    assert_eq!(lab.read("out/report.md").trim_end(), out.trim_end());
    assert!(lab.read("out/config.toml").contains("min_cohort = 2"));
}

/// An answer of nothing but a line break is no part of the attribution, but its item is swept: whether an arm answers it is an
/// outcome.
#[test]
fn items_without_an_answer_are_swept() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 1);
    let ask = |mut item: Value| {
        if item["id"] == "q3" {
            item["prompt"] = json!("bbbbbb 221?"); // as the tiny model answers it
        }
        item
    };
    lab.write_lines("q.jsonl", lines(&lab.read("q.jsonl")).into_iter().map(ask).collect::<Vec<_>>());
    let out = lab.done("run x.toml --out out");
    assert!(out.contains("1 answer is empty and takes no part in the attribution"), "{out}");
    assert!(!by_id(&lab.read("out/judged.jsonl")).contains_key("q3"));
    let report = lab.json("out/report.json");
    let counted: u64 = report["cohorts"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!((counted, &report["sweep"]["items"]), (23, &json!(24)));
    assert_eq!(row_set(&lab, "out/rows.jsonl").iter().filter(|row| row.0 == "q3").count(), 3);
}

/// A run that is complete does nothing again; another attribution may follow in it, and its check may fail.
#[test]
fn run_goes_on_where_it_stopped() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    let first = lab.done("run x.toml --out out");
    let contents = |lab: &Lab| RUN_FILES.map(|name| fs::read(lab.path("out").join(name)).unwrap());
    let (before, features) = (contents(&lab), lab.modified("out/features.npz"));
    let (second, said) = lab.ends(0, "run x.toml --out out");
    assert!(said.contains("nothing left to do"), "{said}");
    assert_eq!((second, lab.modified("out/features.npz")), (first, features));
    for ((name, before), after) in RUN_FILES.iter().zip(before).zip(contents(&lab)) {
        assert!(before == after, "{name} has changed");
    }
    fs::remove_file(lab.path("out/attribution.npz")).unwrap();
    lab.done("run x.toml --out out");
    assert!(lab.path("out/attribution.npz").exists(), "a file that is gone is made again");

    let rows = lab.read("out/rows.jsonl");
    lab.write("x.toml", lab.read("x.toml").replace("min_cohort = 2", "min_cohort = 100"));
    let (out, _) = lab.ends(1, "run x.toml --out out");
    assert!(out.contains("the experiment asks for 100"), "{out}");
    lab.write("x.toml", lab.read("x.toml").replace("0.5]", "0.5, 0]"));
    lab.ends(1, "run x.toml --out out");
    assert!(lab.read("out/rows.jsonl").starts_with(&rows) && lab.read("out/rows.jsonl").lines().count() == 4 * 24);
    let (out, _) = lab.ends(1, "run x.toml --out out --json");
    assert_eq!(out, lab.read("out/report.json"));
}

/// A second run with nothing to add leaves `rows.jsonl` as it is, its time of change included.
#[test]
fn rows_that_are_complete_are_not_touched() {
    let lab = Lab::new();
    prompts(&lab, 2);
    lab.done(&format!("{SWEEP} --lambda 1"));
    let before = lab.modified("out/rows.jsonl");
    lab.done(&format!("{SWEEP} --lambda 1"));
    assert_eq!(lab.modified("out/rows.jsonl"), before);
}

/// `config.toml` is the experiment as it was resolved: it can be run from where it lies.
#[test]
fn a_resolved_experiment_can_be_run_again() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    lab.done("run x.toml --out out");
    let (_, said) = lab.ends(0, "run out/config.toml --out out");
    assert!(said.contains("nothing left to do"), "{said}");
}

/// A dry run of an experiment counts what is left of it, refuses what the run would refuse, and writes nothing.
#[test]
fn a_dry_run_counts_a_whole_experiment() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    let dry = || lines(&lab.done("run x.toml --out out --dry-run --json")).remove(0);
    let before = dry();
    assert!(!lab.path("out").exists(), "nothing is written");
    assert_eq!((&before["schema"], &before["command"]), (&json!("dry-run/v1"), &json!("run")));
    // Three arms: the untouched model, the control, two heads at 0.5.
    assert_eq!((&before["rows_done"], &before["rows_new"]), (&json!(0), &json!(72)));
    assert_eq!(before["new_tokens"], 72 * 12);
    let text = lab.done("run x.toml --out out --dry-run");
    assert!(
        text.contains("rows       72 to do, 0 done before\ntokens     at most ") && text.contains("memory "),
        "{text}"
    );

    lab.done("run x.toml --out out");
    let prompts: Vec<usize> = lines(&lab.done("generate --model M --items q.jsonl --max-new-tokens 1 --json"))
        .iter()
        .map(|row| row["prompt_tokens"].as_u64().unwrap() as usize)
        .collect();
    // Each prompt is read by every arm, and once more with its answer.
    let read = 4 * prompts.iter().sum::<usize>() + 24 * 12;
    assert_eq!(before["prompt_tokens"], read);
    let after = dry();
    assert_eq!((&after["rows_done"], &after["rows_new"], &after["prompt_tokens"]), (&json!(72), &json!(0), &json!(0)));
    assert!(after["memory"].is_null() && after["seconds"] == 0.0, "{after}");
    // Of other settings an attribution reads the texts again, and once more with random weights; which heads it will choose is not
    // known then, and others count in their place.
    let experiment = lab.read("x.toml");
    let texts = prompts.iter().sum::<usize>() + 24 * 12;
    for (other, times) in [("shuffles = 21", 1), ("shuffles = 20\ncontrol = [\"random\"]", 2)] {
        lab.write("x.toml", experiment.replace("shuffles = 20", other));
        let again = dry();
        let tokens = times * texts + prompts.iter().sum::<usize>();
        assert_eq!((&again["rows_new"], &again["prompt_tokens"]), (&json!(24), &json!(tokens)), "{other}");
    }
    // What the attribution chose is what is counted now, and another sweep has rows in common with this one.
    lab.write("x.toml", experiment.replace("[1, 1, 0.5]", "[1, 1, 0.5, 0]"));
    let more = dry();
    assert_eq!((&more["rows_done"], &more["rows_new"]), (&json!(72), &json!(24)));
    lab.write("x.toml", experiment.replace("max_new_tokens = 12", "max_new_tokens = 11"));
    let (_, why) = lab.ends(2, "run x.toml --out out --dry-run");
    assert!(why.contains("belongs to another run"), "{why}");
}

/// Labels that the judge replaces, and responses that are not what the model answers, are told of: neither is so by chance.
#[test]
fn what_items_bring_and_a_run_does_otherwise_is_told() {
    let lab = Lab::new();
    let (answers, _) = write_experiment(&lab, 24, 12);
    let bring = |(i, mut item): (usize, Value)| {
        let right = item["gold"].is_array();
        let answer = answers[item["id"].as_str().unwrap()]["response"].clone();
        // Four of the eight labels are not what the judge finds, and three of the six responses not what the model answers.
        if i < 8 {
            item["label"] = if right == (i < 4) { "cw" } else { "cr" }.into();
        }
        if (8..14).contains(&i) {
            item["response"] = if i < 11 { json!(format!("{} {i}", answer.as_str().unwrap())) } else { answer };
        }
        item
    };
    let items = lines(&lab.read("q.jsonl"));
    lab.write_lines("q.jsonl", items.into_iter().enumerate().map(bring));
    let said = lab.done("run x.toml --out out");
    for told in [
        "4 of 8 labels that items with accepted answers bring are replaced by others: [judge] labels these items",
        "3 of 6 responses that items bring are not what the model answers: the attribution is of those",
        "were cut off is not known: items say it by a field finish_reason",
    ] {
        assert!(said.contains(told), "{told} is not in:\n{said}");
        assert!(lab.read("out/report.md").contains(told), "{told}");
    }
}

/// A label that no answer can come to have is refused before anything is generated.
#[test]
fn labels_that_cannot_be_are_refused_at_once() {
    let lab = Lab::new();
    write_experiment(&lab, 8, 4);
    let experiment = lab.read("x.toml");
    lab.write("x.toml", experiment.replace("a = \"cw\"", "a = \"wrong\""));
    let (_, why) = lab.ends(2, "run x.toml --out out");
    assert!(why.contains("[attribute] a is 'wrong', which 0 of 8 items can come to have, where 2 are needed"), "{why}");
    assert!(why.contains("(cr, cw, hr, hw; of items with gold)") && !lab.path("out").exists(), "{why}");
    // Items without accepted answers keep their own labels, of which two are enough to begin with.
    let own = |i: usize| json!({"id": format!("own{i}"), "prompt": format!("Wer {i}?"), "label": "wrong"});
    let items = lines(&lab.read("q.jsonl"));
    lab.write_lines("q.jsonl", items.iter().cloned().chain((0..2).map(own)));
    lab.done("run x.toml --out out");
}

/// Starts a line, interrupts it once rows are there, and checks that it ends as it should, with work left to do.
fn interrupted(lab: &Lab, line: &str, rows: &str, all: usize) {
    let mut child = lab.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !fs::read(lab.path(rows)).is_ok_and(|bytes| bytes.contains(&b'\n')) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        thread::sleep(Duration::from_millis(2));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let (out, said) = texts(&output);
    assert_eq!((output.status.code(), out.as_str()), (Some(130), ""), "{said}");
    assert!(said.contains("what was written stays"), "{said}");
    let done = lab.read(rows).lines().count();
    assert!(done > 0 && done < all, "{done} of {all} rows were done");
}

/// An interrupted sweep and an interrupted run keep their rows, and end as if they had not been interrupted.
#[test]
fn what_was_interrupted_goes_on() {
    let lab = Lab::new();
    write_experiment(&lab, 60, 60);
    let sweep =
        "sweep --model M --items q.jsonl --heads L0H1,L2H4 --lambda 1,1,0.5 --max-rows 2 --max-new-tokens 60 --out";
    for (line, all) in [(sweep, 3 * 60), ("run x.toml --out", 3 * 60)] {
        let name = &line[..3];
        let (stopped, straight) = (format!("{name}-stopped"), format!("{name}-straight"));
        let rows = format!("{stopped}/rows.jsonl");
        interrupted(&lab, &format!("{line} {stopped}"), &rows, all);
        let kept = lab.read(&rows);
        let resumed = lab.done(&format!("{line} {stopped}"));
        assert!(lab.read(&rows).starts_with(&kept));
        assert_eq!(lab.done(&format!("{line} {straight}")), resumed);
        let set = row_set(&lab, &rows);
        assert_eq!(set.len(), all);
        assert_eq!(set, row_set(&lab, &format!("{straight}/rows.jsonl")));
    }
    for name in ["attribution.json", "attribution.npz", "features.npz", "lambda.npz", "sweep.json", "report.md"] {
        let of = |dir: &str| fs::read(lab.path(dir).join(name)).unwrap();
        assert!(of("run-stopped") == of("run-straight"), "{name} differs");
    }
}

/// An attribution that reads a model keeps nothing before its end, and says so, and what does.
#[test]
fn an_interrupted_attribution_says_that_nothing_is_kept() {
    let lab = Lab::new();
    let label = |i: usize| if i.is_multiple_of(2) { "x" } else { "y" };
    let item = |i: usize| json!({"prompt": format!("Qui {i}?"), "response": format!("Moi {i}."), "label": label(i)});
    lab.write_lines("i.jsonl", (0..60).map(item));
    let line = "attribute --model M --items i.jsonl --a x --b y --shuffles 1000000 --out out";
    let mut child = lab.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("to do") {
        assert!(err.read_line(&mut said).unwrap() > 0, "it ended before it could be stopped: {said}");
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    err.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(
        said.contains("stopped; nothing was kept") && said.contains("hint: `temper capture --heads vector`"),
        "{said}"
    );
    assert!(!lab.path("out/attribution.json").exists());
}

/// An answer is read as the tokens it was generated as: up to the end of the context, and even if its text would take
/// more tokens than fit.
#[test]
fn run_reads_the_tokens_that_were_generated() {
    let lab = Lab::new();
    let (answers, _) = write_experiment(&lab, 24, 1000);
    lab.done("run x.toml --out out");
    let npz = lab.npz("out/features.npz");
    let (total, prompt) = (counts(&npz, "total_len"), counts(&npz, "prompt_len"));
    for (i, (total, prompt)) in total.into_iter().zip(prompt).enumerate() {
        assert_eq!(json!(total - prompt), answers[&format!("q{i}")]["n_tokens"], "q{i}");
        assert!(total <= 256, "q{i} has {total} tokens, but the context is 256");
    }
}
