//! Memory, planned and held, and dry runs, as a user sees them.

use std::{fs, path::PathBuf, process::Output};

use headtemper_engine::parse_bytes;
use headtemper_tests::{FAMILIES, golden_dir, temper};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with `q.jsonl`: eight prompts as token ids, of which `long` is by far the longest.
fn lab() -> TempDir {
    let dir = TempDir::new().unwrap();
    let ids = |len: usize| (0..len).map(|i| 8 + i % 40).collect::<Vec<_>>();
    let item = |i: usize| json!({"id": format!("q{i}"), "input_ids": ids(10 + i)}).to_string() + "\n";
    let long = json!({"id": "long", "input_ids": ids(200)}).to_string() + "\n";
    fs::write(dir.path().join("q.jsonl"), (0..7).map(item).collect::<String>() + &long).unwrap();
    dir
}

/// Runs a line, split at spaces; a family's name stands for its tiny model.
fn run(dir: &TempDir, line: &str) -> Output {
    let model = |word: &str| if FAMILIES.contains(&word) { golden_dir(word) } else { PathBuf::from(word) };
    temper().args(line.split_whitespace().map(model)).current_dir(dir.path()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a line that must succeed; returns stdout.
fn done(dir: &TempDir, line: &str) -> String {
    let output = run(dir, line);
    assert_eq!(output.status.code(), Some(0), "{line}\n{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a line that must be refused with these words, and must make no file.
fn refused(dir: &TempDir, line: &str, parts: &[&str]) {
    let output = run(dir, line);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{line}\n{}", said(&output));
    for part in parts {
        assert!(said(&output).contains(part), "{line}\n'{part}' is not in:\n{}", said(&output));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{line} left files");
}

const SWEEP: &str = "sweep --model llama --items q.jsonl --heads L0H1 --out out";

/// Amounts of memory without a unit or without meaning, and zero rows.
#[test]
fn limits_without_meaning_are_refused() {
    let dir = lab();
    for (option, part) in [
        ("--memory 8", "memory is '8', but must be a positive number with KB"),
        ("--memory 0GB", "'0GB'"),
        ("--memory=-1GB", "'-1GB'"),
        ("--memory lots", "such as 8GiB"),
        ("--max-rows 0", "0 is not in 1.."),
    ] {
        refused(&dir, &format!("generate --model llama --items q.jsonl {option}"), &[part]);
        refused(&dir, &format!("{SWEEP} --lambda 0.5 {option}"), &[part]);
        refused(&dir, &format!("capture --model llama --items q.jsonl --out c.npz {option}"), &[part]);
    }
}

/// An item that does not fit is named, with what it takes and what there is, before a file is made.
#[cfg(target_os = "linux")]
#[test]
fn an_item_longer_than_the_memory_is_refused_by_name() {
    let dir = lab();
    let item =
        ["item 'long' with", "of memory, ", " of it for the model, but may take 1.0 MiB", "hint: allow more with"];
    for line in [
        "generate --model llama --items q.jsonl --max-new-tokens 20 --memory 1MiB",
        &format!("{SWEEP} --lambda 0.5 --memory 1MiB"),
        &format!("{SWEEP} --lambda 0.5 --memory 1MiB --dry-run"),
        "capture --model qwen3_5 --items q.jsonl --out c.npz --memory 1MiB",
        "capture --model llama --items q.jsonl --out c.npz --memory 1MiB --dry-run",
    ] {
        refused(&dir, line, &item);
    }
}

/// The planned memory bounds the memory held, and is not far above it.
#[cfg(target_os = "linux")]
#[test]
fn the_plan_bounds_what_is_held() {
    let dir = lab();
    for family in FAMILIES {
        for line in [
            format!(
                "generate --model {family} --items q.jsonl --max-new-tokens 40 --ignore-eos --temperature 1 --top-p 0.9"
            ),
            format!("capture --model {family} --items q.jsonl --out {family}.npz --layers all --heads vector --logits"),
        ] {
            let output = run(&dir, &line);
            let said = said(&output);
            let planned = said.split("in all ").nth(1).and_then(|rest| rest.split(" of ").next());
            let peak = |line: &str| line.strip_suffix(" at the peak")?.strip_prefix("memory     ").map(String::from);
            let held = said.lines().find_map(peak);
            let bytes = |amount: Option<&str>| parse_bytes(amount.unwrap_or_else(|| panic!("{line}\n{said}"))).unwrap();
            let (planned, held) = (bytes(planned), bytes(held.as_deref()));
            println!("{family}: {held} of {planned} bytes planned");
            assert!(held <= planned && 2 * held >= planned, "{line}: {held} of {planned}");
        }
    }
}

/// With less memory, fewer rows run at once and give the same answers.
#[cfg(target_os = "linux")]
#[test]
fn memory_decides_how_many_rows_run_at_once() {
    let dir = lab();
    let ids = |i: usize| (0..150 + i).map(|t| 8 + (t * i) % 40).collect::<Vec<_>>();
    let items = (0..60).map(|i| json!({"id": i, "input_ids": ids(i)}).to_string() + "\n");
    fs::write(dir.path().join("q.jsonl"), items.collect::<String>()).unwrap();
    let sweep = "sweep --model llama --items q.jsonl --heads L0H1 --lambda 0.5 --max-new-tokens 8 --max-rows 60";
    let dry = |rest: &str| -> Value {
        serde_json::from_str(&done(&dir, &format!("{sweep} --out out --dry-run --json {rest}"))).unwrap()
    };
    let ample = dry("");
    let number = |name: &str| ample["memory"][name].as_u64().unwrap();
    let tight = format!("--memory {}B", number("total") - number("cache") / 2);
    let rows = dry(&tight)["memory"]["rows"].as_u64().unwrap();
    assert!(number("rows") == 60 && rows > 1 && rows < 60, "{rows} rows");
    assert_eq!(done(&dir, &format!("{sweep} --out a --json")), done(&dir, &format!("{sweep} --out b --json {tight}")));
    let rows = |out: &str| {
        let text = fs::read_to_string(dir.path().join(out).join("rows.jsonl")).unwrap();
        let mut rows: Vec<String> = text.lines().map(String::from).collect();
        rows.sort();
        rows
    };
    assert_eq!(rows("a"), rows("b"));
}

/// A dry run counts what is missing, estimates its cost, and writes nothing; it makes the checks of the run.
#[test]
fn a_dry_run_says_what_there_is_to_do() {
    let dir = lab();
    let json = |line: &str| -> Value { serde_json::from_str(&done(&dir, line)).unwrap() };
    let dry = json(&format!("{SWEEP} --lambda 1,0.5 --max-new-tokens 6 --max-rows 3 --dry-run --json"));
    assert!(!dir.path().join("out").exists(), "a dry run writes nothing");
    let tokens = (0..7).map(|i| 10 + i).sum::<usize>() + 200;
    assert_eq!((&dry["rows_new"], &dry["rows_done"]), (&json!(16), &json!(0)));
    assert_eq!((&dry["prompt_tokens"], &dry["new_tokens"]), (&json!(2 * tokens), &json!(2 * 8 * 6)));
    assert_eq!((&dry["memory"]["rows"], &dry["speed"]["rows"]), (&json!(3), &json!(3)));
    assert!(dry["seconds"].as_f64().unwrap() > 0.0 && dry["memory"]["total"].as_u64() > dry["memory"]["held"].as_u64());
    done(&dir, &format!("{SWEEP} --lambda 1,0.5 --max-new-tokens 6"));
    let rows = fs::read(dir.path().join("out/rows.jsonl")).unwrap();
    let again = json(&format!("{SWEEP} --lambda 1,0.5 --max-new-tokens 6 --dry-run --json"));
    assert_eq!((&again["rows_new"], &again["rows_done"], &again["seconds"]), (&json!(0), &json!(16), &json!(0.0)));
    let more = done(&dir, &format!("{SWEEP} --lambda 1,0.5,0 --max-new-tokens 6 --dry-run"));
    assert!(more.starts_with("rows       8 to do, 16 done before\n"), "{more}");
    assert!(
        more.contains("\nmemory     ") && more.contains("tokens/s written by 8 rows") && more.contains("at most about")
    );
    let other = run(&dir, &format!("{SWEEP} --lambda 1 --max-new-tokens 7 --dry-run"));
    assert!(other.status.code() == Some(2) && said(&other).contains("belongs to another run"), "{}", said(&other));
    assert_eq!(fs::read(dir.path().join("out/rows.jsonl")).unwrap(), rows);

    let capture = "capture --model llama --items q.jsonl --out c.npz --dry-run";
    let dry = json(&format!("{capture} --json"));
    assert_eq!((&dry["rows_new"], &dry["prompt_tokens"], &dry["new_tokens"]), (&json!(8), &json!(tokens), &json!(0)));
    let text = done(&dir, capture);
    assert!(text.contains("time       about ") && !text.contains("write"), "{text}");
    assert!(!dir.path().join("c.npz").exists(), "a dry run writes nothing");
    let wrong = run(&dir, &format!("{capture} --plan L9H0:0.5"));
    assert!(wrong.status.code() == Some(2) && said(&wrong).contains("layers are 0 to 3"), "{}", said(&wrong));
}

/// Without stop tokens every answer is as long as allowed, and its rows do not mix with those that heed stop tokens.
#[test]
fn answers_that_heed_no_stop_token_are_of_equal_length() {
    let dir = lab();
    let line = format!("{SWEEP} --lambda 1 --max-new-tokens 30");
    done(&dir, &format!("{line} --ignore-eos"));
    let rows = fs::read_to_string(dir.path().join("out/rows.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| row["n_tokens"] == 30 && row["finish_reason"] == "length"));
    let mixed = run(&dir, &line);
    assert!(mixed.status.code() == Some(2) && said(&mixed).contains("belongs to another run"), "{}", said(&mixed));
    let heeding = done(&dir, &line.replace("--out out", "--out other"));
    assert!(heeding.contains("| 1 "), "{heeding}");
}
