//! Places that belong to others, cannot be written to, or are full.

use std::{fs, process::Command};

use headtemper_tests::temper;
use serde_json::json;

use super::{Bench, assert_refused, experiment, files};

/// A directory that belongs to another run, or to something else, is not touched.
#[test]
fn directories_that_belong_to_others() {
    let bench = Bench::new();
    let attribute = "attribute --model M --items c.jsonl --out out --shuffles 10";
    bench.done(&format!("{attribute} --a a --b b"));
    let other = |options: &str, changes: &str| {
        let why = format!("error: out belongs to another run: {changes}\nhint: choose another --out");
        bench.refused(&format!("{attribute} {options}"), &[&why]);
    };
    other("--a b --b a", "dispositions differ; the first that differs was 'a against b', is 'b against a'");
    other("--a a --b b --last-n 3", "last_n was 32, is 3");
    other("--a a --b b --seed 3", "method.seed was 0, is 3");
    other("--a a --b b --dtype bf16", "dtype was f32, is bf16");
    other(
        "--a a --b b --limit 5",
        "items were 6, are 5; the first that differs was '5', is none; dispositions differ; the first that differs is 'a \
         against b'",
    );
    let made_by = ["out belongs to another run", "made by `temper attribute`"];
    bench.refused("sweep --model M --items q.jsonl --out out --heads L0H0 --lambda 1", &made_by);
    bench.write("x.toml", experiment());
    bench.refused("run x.toml --out out", &made_by);
    bench.done(&format!("{attribute} --a a --b b"));

    let sweep = "sweep --model M --items q.jsonl --heads L0H0 --lambda 1 --out swept";
    bench.done(&format!("{sweep} --max-new-tokens 2"));
    let other = |options: &str, changes: &str| {
        let why = format!("error: swept belongs to another run: {changes}\nhint: choose another --out");
        bench.refused(&format!("{sweep} {options}"), &[&why]);
    };
    other("--max-new-tokens 3", "max_new_tokens was 2, is 3");
    other("--max-new-tokens 2 --temperature 1", "sampling.temperature was 0.0, is 1.0");
    other("--max-new-tokens 3 --dtype bf16", "dtype was f32, is bf16; max_new_tokens was 2, is 3");
    other("--max-new-tokens 2 --raw", "prompts were put through the chat template, are read as they stand (--raw)");
    other("--max-new-tokens 2 --ignore-eos", "ends (--ignore-eos) was none, is never");
    other("--max-new-tokens 2 --shard 1/2", "it holds the whole run, asked for is shard 1/2");

    let judged = || experiment().replace("c.jsonl", "h.jsonl").replace("\"a\"", "\"cw\"").replace("\"b\"", "\"hw\"");
    let hedged = || judged() + "judge = { hedges = \"hedges.txt\" }\n";
    let gold = |id: &str, prompt: &str| json!({"id": id, "prompt": prompt, "gold": "x"}).to_string() + "\n";
    let answers = ["a", "b", "c"].map(|id| gold(id, id)).concat();
    let other = |toml: &str, items: &str, hedges: &str, changes: &str| {
        bench.write("h.toml", toml);
        bench.write("h.jsonl", items);
        bench.write("hedges.txt", hedges);
        if changes.is_empty() {
            // Every answer is wrong and none is hedged, so one cohort is empty, but the rows are there.
            let output = bench.run("run h.toml --out run");
            assert!(String::from_utf8_lossy(&output.stderr).contains("cohort"), "{output:?}");
        } else {
            bench.refused("run h.toml --out run", &[&format!("error: run belongs to another run: {changes}\nhint")]);
        }
    };
    other(&hedged(), &answers, "perhaps\n", "");
    other(&hedged().replace("new_tokens = 4", "new_tokens = 5"), &answers, "perhaps\n", "max_new_tokens was 4, is 5");
    let sampled = hedged().replace("new_tokens = 4", "new_tokens = 4, sampling = { temperature = 0.5 }");
    other(&sampled, &answers, "perhaps\n", "sampling.temperature was 0.0, is 0.5");
    other(&hedged(), &answers, "# only a comment\nperhaps\n", "");
    other(&hedged(), &answers, "maybe\n", "hedges differ; the first that differs was 'perhaps', is 'maybe'");
    other(
        &hedged(),
        &(answers.clone() + &gold("d", "d")),
        "perhaps\n",
        "items were 3, are 4; the first that differs was none, is 'd'",
    );
    other(
        &hedged(),
        &answers.replace(":\"b\",\"gold", ":\"B\",\"gold"),
        "perhaps\n",
        "items differ; the first that differs is 'b', in its text or what is made of it (system message, template)",
    );

    fs::create_dir(bench.path("mine")).unwrap();
    bench.write("mine/notes.txt", "precious");
    let foreign = ["mine belongs to another run", "it holds notes.txt and no manifest.json"];
    bench.refused("attribute --model M --items c.jsonl --a a --b b --out mine", &foreign);
    bench.refused("sweep --model M --items q.jsonl --heads L0H0 --lambda 1 --out mine", &foreign);
    bench.refused("run x.toml --out mine", &foreign);
    bench.write("mine/manifest.json", "{");
    bench.refused("run x.toml --out mine", &["mine/manifest.json"]);
    bench.refused("run x.toml --out q.jsonl", &["cannot write into q.jsonl: it is a file"]);
}

/// Results that cannot be written where they should go.
#[test]
fn places_that_cannot_be_written_to() {
    let bench = Bench::new();
    fs::create_dir(bench.path("dir")).unwrap();
    let capture = "capture --model M --items q.jsonl --out";
    bench.refused(&format!("{capture} gone/out.npz"), &["cannot write gone/out.npz", "gone is no directory"]);
    bench.refused(&format!("{capture} new/"), &["--out is new/, a directory, but must be a .npz file"]);
    bench.refused(&format!("{capture} dir"), &["cannot write dir", "give a .npz file"]);
    bench.refused(
        "sweep --model M --items q.jsonl --heads L0H0 --lambda 1 --out q.jsonl/out",
        &["cannot write q.jsonl/out"],
    );
}

/// A link to a directory that is not there: the directory would not be made, and a capture would be lost at its end.
#[cfg(unix)]
#[test]
fn links_that_lead_nowhere() {
    use std::os::unix::fs::symlink;
    let bench = Bench::new();
    symlink("nowhere", bench.path("link")).unwrap();
    symlink("nowhere/o.npz", bench.path("o.npz")).unwrap();
    let nowhere = ["cannot write into link: it is a link to nowhere, which is not there"];
    bench.refused("sweep --model M --items q.jsonl --heads L0H0 --lambda 1 --out link", &nowhere);
    bench.refused("attribute --model M --items c.jsonl --a a --b b --out link", &nowhere);
    bench.refused("export --model M --plan L0H0:0.5 --out link", &nowhere);
    let file = ["--out is a link to nowhere/o.npz, whose directory is not there"];
    bench.refused("capture --model M --items q.jsonl --out o.npz", &file);
    fs::create_dir(bench.path("nowhere")).unwrap();
    bench.done("capture --model M --items q.jsonl --out o.npz");
    bench.done("sweep --model M --items q.jsonl --heads L0H0 --lambda 1 --max-new-tokens 1 --out link/s");
    assert!(bench.path("nowhere/o.npz").is_file() && bench.path("nowhere/s/sweep.json").is_file());
}

/// The program with a limit of 4 KiB per file, which looks like a full disk.
fn on_a_full_disk() -> Command {
    let program = temper().get_program().to_owned();
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\""]).arg(program).env("RAYON_NUM_THREADS", "1");
    shell
}

/// A full disk leaves no half-written file, and rows that can be continued.
#[test]
fn a_full_disk() {
    let bench = Bench::new();
    let capture = "capture --model M --items q.jsonl --out out.npz --layers all --heads vector --logits";
    let before = files(bench.0.path());
    let output = bench.run_in(on_a_full_disk(), capture);
    assert_refused(capture, &output, &["cannot write out.npz"]);
    assert!(files(bench.0.path()) == before, "something was left");
    bench.done(capture);

    let sweep = "sweep --model M --items q.jsonl --heads L0H1 --lambda 1,0.5,0 --max-new-tokens 100 --out";
    let output = bench.run_in(on_a_full_disk(), &format!("{sweep} out"));
    assert_refused(sweep, &output, &["cannot write out/rows.jsonl"]);
    let rows = |name: &str| {
        let text = fs::read_to_string(bench.path(name).join("rows.jsonl")).unwrap();
        let mut rows: Vec<String> = text.lines().map(String::from).collect();
        rows.sort();
        rows
    };
    let kept = fs::read(bench.path("out/rows.jsonl")).unwrap();
    let whole = kept.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    assert!(whole > 0, "no row fits 4 KiB");
    bench.done(&format!("{sweep} out"));
    bench.done(&format!("{sweep} fresh"));
    assert!(fs::read(bench.path("out/rows.jsonl")).unwrap().starts_with(&kept[..whole]), "finished rows stay");
    assert_eq!(rows("out"), rows("fresh"));
}
