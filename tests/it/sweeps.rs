//! Sweeps on the tiny Llama: the rows they leave, what they report, and doing only what is missing.

mod thoughts;
mod tried;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::lab::{HEADS, LAYERS, Lab, array, by_id, lines, prompts, row_set, unchecked};

const SWEEP: &str = "sweep --model M --items q.jsonl --heads L0H1,L2H4 --max-new-tokens 12 --out out";

/// An answer that ends before a plan's window is the untouched model's, and this is told.
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
    // Of a cut-off answer's three tokens two are read, both behind the prompt, so every answer is touched.
    let (out, _) = lab.ends(0, &format!("{sweep} --positions response --out response"));
    assert!(!out.contains("were touched"), "{out}");
    let capture = "capture --model M --items w.jsonl --plan L0H1:0.5 --positions window:30..40 --out c.npz";
    let (_, said) = lab.ends(0, capture);
    assert!(said.contains("2 of 2 items have no response"), "{said}");
    assert!(said.contains("1 of 2 items have no token at the positions of their plan"), "{said}");
}

/// A window that no answer can reach is refused before anything is generated, by every verb; the directory goes on as if nobody had asked.
#[test]
fn what_no_answer_can_reach_is_refused_at_once() {
    let lab = Lab::new();
    prompts(&lab, 3);
    let sweep = "sweep --model M --items q.jsonl --lambda 1,0.5 --max-new-tokens 3 --out out";
    lab.done(&format!("{sweep} --heads L0H1"));
    let rows = lab.rows("out/rows.jsonl");
    for line in [
        format!("{sweep} --heads L2H4 --positions window:200..210"),
        format!("{sweep} --dry-run --heads L2H4 --positions window:200..210"),
        "capture --model M --items q.jsonl --plan L2H4:0.5 --positions window:200..210 --out c.npz".into(),
        "capture --model M --items q.jsonl --plan L2H4:0.5 --positions window:40..50 --out c.npz --generate --max-new-tokens 1".into(),
        "sweep --model M --items q.jsonl --lambda 0.5 --heads L2H4 --positions response --out s --max-new-tokens 1".into(),
    ] {
        let (_, err) = lab.ends(2, &line);
        assert!(err.contains("the plan names L2H4 at") && err.contains("never fired"), "{line}: {err}");
        assert!(!lab.path("c.npz.parts").exists(), "{line}");
    }
    assert_eq!(lab.rows("out/rows.jsonl"), rows);
    lab.done(&format!("{sweep} --heads L0H1"));
    // Nor is an answer printed first.
    let short = "generate --model M --items q.jsonl --plan L2H4:0.5 --positions window:40..50 --max-new-tokens 3";
    let (out, err) = lab.ends(2, short);
    assert!(out.is_empty() && err.contains("never fired"), "{out}{err}");
}

/// An answer that ends before its plan's window says so, wherever it is printed.
#[test]
fn an_answer_that_was_not_touched_says_so() {
    let lab = Lab::new();
    let items = [("long", "one two three four five six seven eight nine ten"), ("short", "hi")];
    lab.write_lines("w.jsonl", items.map(|(id, prompt)| json!({"id": id, "prompt": prompt})));
    let generate =
        "generate --model M --items w.jsonl --plan L0H1,L2H4 --lambda 0.5 --positions window:30..40 --max-new-tokens 3";
    let (out, err) = lab.ends(0, generate);
    let fired = |id: &str| by_id(&out)[id]["fired"].as_u64().unwrap();
    assert!(fired("short") == 0 && fired("long") > 0 && fired("long").is_multiple_of(2), "{out}");
    assert!(err.contains("1 of 2 answers hold no token at the positions of their plan"), "{err}");
}

/// A row whose count of head-tokens its plan cannot give is no result.
#[test]
fn a_count_that_no_plan_gives_is_refused() {
    let lab = Lab::new();
    prompts(&lab, 3);
    lab.done(&format!("{SWEEP} --lambda 1,0.5"));
    let text = lab.read("out/rows.jsonl");
    for wrong in ["0", "7"] {
        let mut rows = unchecked(&text);
        for row in rows.iter_mut().filter(|row| row["variant"] != "base") {
            row["fired"] = wrong.parse::<u64>().unwrap().into();
        }
        lab.write_lines("out/rows.jsonl", rows);
        let (_, err) = lab.ends(2, &format!("{SWEEP} --lambda 1,0.5"));
        assert!(
            err.contains(&format!("says that hooks fired on {wrong} head-tokens")) && err.contains("made again"),
            "{err}"
        );
    }
    lab.write("out/rows.jsonl", text);
    lab.done(&format!("{SWEEP} --lambda 1,0.5"));
}

/// A line that says something else than what its key stands for is no result, whoever reads it.
#[test]
fn rows_that_were_changed_are_refused() {
    let lab = Lab::new();
    prompts(&lab, 3);
    let sweep = format!("{SWEEP} --lambda 1,0.5");
    lab.done(&sweep);
    let text = lab.read("out/rows.jsonl");
    // A check of each line says so of any field.
    let mut rows = lines(&text);
    rows[4]["response"] = json!("another");
    lab.write_lines("out/rows.jsonl", rows);
    for line in [&sweep, "judge --sweep out --endpoint http://127.0.0.1:9 --judge-model m --tasks delivery --out j"] {
        let (_, err) = lab.ends(2, line);
        assert!(err.contains("line 5 is no row: it was changed after it was written, as its check says"), "{err}");
    }
    // In lines of earlier versions, which have none, what they say must fit.
    let rows = unchecked(&text);
    let changed = |field: &str, value: Value| {
        let mut row = rows[4].clone();
        row[field] = value;
        row
    };
    let (id, ids) = (rows[4]["id"].as_str().unwrap(), rows[4]["response_ids"].as_array().unwrap());
    for (field, value, told) in [
        ("id", json!("q9"), "a line says that it answers item 'q9' under"),
        ("variant", json!("base2"), "under base2 with seed 0, but its key"),
        ("seed", json!(7), "with seed 7, but its key"),
        ("n_tokens", json!(ids.len() + 1), "line 5 is no row: n_tokens is"),
        ("response_ids", json!(ids[1..]), "line 5 is no row: n_tokens is"),
    ] {
        lab.write_lines(
            "out/rows.jsonl",
            rows.iter().cloned().enumerate().map(|(at, row)| if at == 4 { changed(field, value.clone()) } else { row }),
        );
        let (_, err) = lab.ends(2, &sweep);
        assert!(err.contains(told) && err.contains("made again"), "{field}: {err}");
    }
    // Two lines of one key: no result if they differ, one if they do not.
    lab.write_lines("out/rows.jsonl", rows.iter().cloned().chain([changed("response", json!("another"))]));
    for line in [&sweep, "judge --sweep out --endpoint http://127.0.0.1:9 --judge-model m --tasks delivery --out j"] {
        let (_, err) = lab.ends(2, line);
        let told = format!("line {} says something else than an earlier line with its key", rows.len() + 1);
        assert!(err.contains(&told) && err.contains(rows[4]["key"].as_str().unwrap()), "{id}: {err}");
    }
    lab.write("out/rows.jsonl", format!("{text}{text}"));
    let (_, err) = lab.ends(0, &sweep);
    assert!(err.contains("nothing left to do"), "{err}");
}

/// Heads whose columns of the output projection are zero: tempering them is a null by construction, and both verbs say so.
#[test]
fn a_head_that_adds_nothing_is_told() {
    let lab = Lab::new();
    prompts(&lab, 3);
    lab.done("export M --plan L1H1:0 --out zeroed");
    let told = "changed nothing, not even the last digit";
    let sweep =
        "sweep --model zeroed --items q.jsonl --each --heads L1H1,L2H4 --lambda 1,1,0.5 --max-new-tokens 3 --out s";
    let out = lab.done(sweep);
    let warning = out.lines().find(|line| line.contains(told)).unwrap_or_else(|| panic!("{out}"));
    assert!(warning.contains("L1H1@0.5") && !warning.contains("L2H4"), "{warning}");
    let answers = lines(&lab.read("s/rows.jsonl")).into_iter().filter(|row| row["variant"] == "base");
    let answered = answers.map(|row| json!({"id": row["id"], "prompt": row["prompt"], "response": row["response"]}));
    lab.write_lines("a.jsonl", answered);
    let out = lab.done("score --model zeroed --items a.jsonl --heads L1H1,L2H4 --lambda 0 --out c");
    let warning = out.lines().find(|line| line.contains(told)).unwrap_or_else(|| panic!("{out}"));
    assert!(warning.contains("L1H1@0") && !warning.contains("L2H4"), "{warning}");
    let (_, err) = lab.ends(2, "export zeroed --plan L1H1:0.5 --out again");
    assert!(err.contains("the export would be a copy") && !lab.path("again").exists(), "{err}");
    lab.done("export zeroed --plan L2H4:0.5 --out more");
    let record = lab.json("more/headtemper.json");
    assert_eq!((&record["plan"], &record["from"]["plan"]), (&json!("L2H4:0.5"), &json!("L1H1:0")));
}

/// A row for every item and arm; the control is the λ = 1 arm, whose answers are the untouched model's.
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
        assert_eq!(row.as_object().unwrap().len(), shared.len() + 4, "a row has no other fields");
        // The heads of the plan read every token except the last of a cut-off answer.
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

/// Random sets, and a reference that all heads share; files for people and programs; later additions touch no row.
/// Tables of one call never stand beside those of another, also where a call is killed between them.
#[test]
fn tables_go_before_others_are_written() {
    let lab = Lab::new();
    prompts(&lab, 3);
    lab.done(&format!("{SWEEP} --lambda 1,0"));
    // No file can take the place of a directory: as if the call had been killed there.
    std::fs::remove_file(lab.path("out/report.html")).unwrap();
    std::fs::create_dir(lab.path("out/report.html")).unwrap();
    lab.ends(2, &format!("{SWEEP} --lambda 1,0,-1"));
    for name in ["sweep.json", "sweep.csv", "lambda.npz"] {
        assert!(!lab.path("out").join(name).exists(), "{name} has not the page that belongs to it");
    }
}

#[test]
fn sweep_says_what_it_found() {
    let lab = Lab::new();
    prompts(&lab, 6);
    lab.write("hedges.txt", "perhaps\n");
    let line = "sweep --model M --items q.jsonl --heads L0H1,L2H4 --hedges hedges.txt --max-new-tokens 8 --out out";
    let out = lab.done(&format!("{line} --lambda 1,1,0.5 --random-sets 2"));
    assert!(out.contains("| 1 (control) |") && out.contains("| 0.5, random |") && out.contains("p max"), "{out}");
    assert!(out.lines().all(|line| !line.starts_with('|') || line.chars().count() <= 80), "{out}");
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

/// A λ added to a sweep adds its rows and touches no others; existing rows are not made again.
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

/// Cuts `rows.jsonl` at a byte, as a killed run would leave it, and runs the sweep again.
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
    heals(|text| text.len() - 1); // the line is complete, but its line break is missing
    heals(|_| 0);
}

/// The cut may fall inside a character.
#[test]
fn a_row_cut_off_inside_a_character_is_made_again() {
    heals(|text| text.rfind('à').unwrap() + 1);
}

/// Accepted answers that lose deciding signs when compared are reported before anything is generated.
#[test]
fn golds_without_what_decides_are_warned_of() {
    let lab = Lab::new();
    lab.write_lines("q.jsonl", ["?", "x^2", "-5"].map(|gold| json!({"id": gold, "prompt": "Qui est", "gold": gold})));
    let line = "sweep --model M --items q.jsonl --heads L0H1 --lambda 1 --max-new-tokens 1 --out out";
    let (_, err) = lab.ends(0, line);
    assert!(err.contains("1 without a letter or digit match nothing ('?' of ?)"), "{err}");
    assert!(err.contains("1 are compared without signs that may decide ('x^2' of x^2)"), "{err}");
}

/// A second run with nothing to add leaves `rows.jsonl` as it is, its modification time included.
#[test]
fn rows_that_are_complete_are_not_touched() {
    let lab = Lab::new();
    prompts(&lab, 2);
    lab.done(&format!("{SWEEP} --lambda 1"));
    let before = lab.modified("out/rows.jsonl");
    lab.done(&format!("{SWEEP} --lambda 1"));
    assert_eq!(lab.modified("out/rows.jsonl"), before);
}
