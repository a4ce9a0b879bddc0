//! Signals: what stops a command, what is then kept, and what it was started to ignore.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::{
    lab::{Lab, prompts, row_set, texts},
    runs::write_experiment,
};

/// Starts a line, interrupts it once rows are there, and checks that it ends properly with work left to do.
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

/// A disk that is full is told once, by name; so is whoever reads stdout no more.
#[cfg(unix)]
#[test]
fn what_cannot_be_written_is_named() {
    let lab = Lab::new();
    prompts(&lab, 30);
    // No file may be longer than a few blocks, as if there were no more room.
    let line = lab.command("capture --model M --items q.jsonl --heads vector --out c.npz");
    let mut sh = Command::new("sh");
    sh.args(["-c", "trap '' XFSZ; ulimit -f 20; exec \"$@\"", "sh"]).arg(line.get_program()).args(line.get_args());
    let output = sh.current_dir(lab.path("")).output().unwrap();
    let said = texts(&output).1;
    assert_eq!(output.status.code(), Some(2), "{said}");
    let part = "error: cannot write c.npz.parts/items-000000000-000000030.npz: File too large";
    assert!(said.contains(part) && !said.contains("ZipWriter"), "{said}");
    assert!(!lab.path("c.npz").exists() && !lab.path("c.npz.parts").exists());

    let mut command = lab.command("generate --model M --items q.jsonl --max-new-tokens 2");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = texts(&output).1;
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("error: cannot write to stdout: Broken pipe"), "{said}");
}

/// What would be printed into nothing is refused before anything is done, help and version too.
#[cfg(unix)]
#[test]
fn a_closed_stdout_is_refused() {
    let lab = Lab::new();
    prompts(&lab, 2);
    let closed = |line: &str, to: &str| {
        let command = lab.command(line);
        let mut sh = Command::new("sh");
        sh.args(["-c", &format!("exec \"$@\" {to}"), "sh"]).arg(command.get_program()).args(command.get_args());
        let output = sh.current_dir(lab.path("")).output().unwrap();
        (output.status.code(), texts(&output).1)
    };
    for line in [
        "--version",
        "inspect --model M --json",
        "generate --model M hi --max-new-tokens 1",
        "sweep --model M --items q.jsonl --heads L0H0 --lambda 0 --out out",
    ] {
        let (code, said) = closed(line, ">&-");
        assert_eq!(code, Some(2), "{line}: {said}");
        assert!(said.starts_with("error: stdout is closed"), "{line}: {said}");
    }
    assert!(!lab.path("out").exists());
    let (code, said) = closed("generate --model M hi --max-new-tokens 1", ">/dev/null");
    assert_eq!(code, Some(0), "{said}");
}

/// Whoever starts it with `nohup` may log out.
#[test]
fn what_it_was_started_to_ignore_does_not_stop_it() {
    let lab = Lab::new();
    prompts(&lab, 60);
    let line = "sweep --model M --items q.jsonl --heads L0H1 --lambda 1,0.5 --max-rows 2 --max-new-tokens 60 --out";
    for signal in ["HUP", "INT"] {
        let line = lab.command(&format!("{line} {signal}"));
        let mut child = Command::new("sh")
            .args(["-c", &format!("trap '' {signal}; exec \"$@\""), "sh"])
            .arg(line.get_program())
            .args(line.get_args())
            .current_dir(lab.path(""))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !fs::read(lab.path(signal).join("rows.jsonl")).is_ok_and(|bytes| bytes.contains(&b'\n')) {
            thread::sleep(Duration::from_millis(2));
        }
        let killed = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let done = lab.read(&format!("{signal}/rows.jsonl")).lines().count();
        assert!(done < 120, "it had ended before {signal} came");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal} stopped it");
        assert_eq!(lab.read(&format!("{signal}/rows.jsonl")).lines().count(), 120);
    }
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

/// An attribution that reads with a model keeps nothing before its end; it says so, and names the command that does.
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
