//! A map whose directory is called again: what is not computed twice, what counts as tried, what goes, and rows that are refused.

use std::fs;

use serde_json::{Value, json};

use super::Lab;
use crate::lab::unchecked;

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
fn plain_is_never_read_from_what_was_shared() {
    let lab = Lab::new();
    let line = "--items c.jsonl --heads L0H1 --lambda 0 --out s";
    lab.done(line);
    let output = lab.score("llama", &format!("{line} --plain"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("belongs to another run"));
}
