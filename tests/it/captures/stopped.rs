//! Captures that end before their end, whose parts are damaged, or whose items change meanwhile: what is kept, and what is made again.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use headtemper_study::{CaptureJob, CaptureOptions, ItemFile, Npz, Progress, ReadAs, Silent, capture_file};
use headtemper_tests::engine;
use serde_json::{Value, json};

use super::{CAPTURE, bytes, items};
use crate::lab::{Lab, lines};

/// Counts down steps of progress, and then asks to stop.
struct StopAfter<'a>(usize, &'a AtomicBool);

impl Progress for StopAfter<'_> {
    fn begin(&mut self, _: &str, _: usize, _: usize) {}
    fn step(&mut self) {
        self.0 = self.0.saturating_sub(1);
        if self.0 == 0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    fn end(&mut self) {}
    fn note(&mut self, _: &str) {}
}

/// Captures i.jsonl to c.npz in parts of two items, read one by one, and stops after so many.
fn stopped_after(steps: usize, lab: &Lab) {
    let items = ItemFile::open(&lab.path("i.jsonl"), ReadAs::default()).unwrap();
    let (stop, out) = (AtomicBool::new(false), lab.path("c.npz"));
    let options = CaptureOptions { stop: Some(&stop), max_rows: 1, ..CaptureOptions::default() };
    let (answering, shard, part_items) = (None, None, Some(2));
    let job = CaptureJob { items: &items, options: &options, answering, shard, part_items, out: &out, answers: None };
    let error = capture_file(&engine("llama"), &job, &mut StopAfter(steps, &stop)).unwrap_err();
    assert!(error.interrupted(), "{error}");
}

/// Who stops it while the items are looked at does not wait for the last of them.
#[test]
fn a_look_at_items_can_be_stopped() {
    let lab = Lab::new();
    items(&lab, 3);
    let file = ItemFile::open(&lab.path("i.jsonl"), ReadAs::default()).unwrap();
    let (stop, out) = (AtomicBool::new(true), lab.path("c.npz"));
    let options = CaptureOptions { stop: Some(&stop), ..CaptureOptions::default() };
    let (answering, shard, part_items) = (None, None, None);
    let job = CaptureJob { items: &file, options: &options, answering, shard, part_items, out: &out, answers: None };
    // Whoever reads on is told that the file is gone.
    fs::remove_file(lab.path("i.jsonl")).unwrap();
    assert!(capture_file(&engine("llama"), &job, &mut Silent).unwrap_err().interrupted());
}

/// A stopped capture keeps its finished parts, resumes, and leaves the same file as an uninterrupted one.
#[test]
fn a_capture_that_was_stopped_goes_on() {
    let lab = Lab::new();
    items(&lab, 9);
    let line = "capture --model M --items i.jsonl --part-items 2";
    lab.done(&format!("{line} --out whole.npz"));
    let (out, parts) = (lab.path("c.npz"), lab.path("c.npz.parts"));
    let stopped = |steps: usize| {
        stopped_after(steps, &lab);
        let files =
            fs::read_dir(&parts).into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        files.filter(|name| name.starts_with("items-")).count()
    };
    assert_eq!((stopped(1), parts.exists()), (0, false), "a stop in the first part leaves nothing");
    // The stop is noticed before the next batch, in the third part.
    assert_eq!(stopped(5), 2);
    assert!(!out.exists());
    let dry: Value = serde_json::from_str(&lab.done(&format!("{line} --out c.npz --dry-run --json"))).unwrap();
    assert_eq!((&dry["rows_done"], &dry["rows_new"]), (&json!(4), &json!(5)));

    // Another capture is refused, and nothing is touched.
    let (_, err) = lab.ends(2, &format!("{line} --out c.npz --pool last:2"));
    assert!(
        err.contains("c.npz.parts belongs to another run: pool was last, is last:2\nhint: choose another --out"),
        "{err}"
    );
    let (_, err) = lab.ends(2, &format!("{line} --out c.npz --limit 8"));
    assert!(err.contains("items were 9, are 8; the first that differs was 'q8', is none"), "{err}");
    let (_, err) = lab.ends(2, &format!("{line} --out c.npz --shard 1/2"));
    assert!(err.contains("it holds the whole run, asked for is shard 1/2"), "{err}");

    let (_, err) = lab.ends(0, &line.replace("--part-items 2", "--part-items 3 --out c.npz"));
    assert!(err.contains("note: it goes on in parts of 2 items, as it was begun"), "{err}");
    assert!(err.contains("9 to do, 4 of them done before"), "{err}");
    assert!(!parts.exists() && bytes(&lab, "c.npz") == bytes(&lab, "whole.npz"));

    // A finished capture does nothing more; another capture that would overwrite it is refused.
    let before = lab.modified("c.npz");
    let (out, err) = lab.ends(0, &format!("{line} --out c.npz --json"));
    assert!(err.contains("9 done, nothing left to do") && err.contains("there      c.npz: 9 items"), "{err}");
    assert_eq!(lines(&out)[0]["fired_tokens"], Value::Null);
    assert_eq!(lab.modified("c.npz"), before);
    for (rest, why) in [
        ("--layers 0", "layers was [], is [0]"),
        ("--plan L0H1:0.5", "plan differ; the first that differs was 'none', is 'L0H1:0.5'"),
        ("--shard 1/2", "it holds the whole run, asked for is shard 1/2"),
    ] {
        let (_, err) = lab.ends(2, &format!("{line} --out c.npz {rest}"));
        assert!(err.contains(&format!("c.npz belongs to another run: {why}")), "{err}");
        assert!(err.contains("hint: choose another --out, or remove the file"), "{err}");
    }
    lab.write("other.npz", "something else");
    let (_, err) = lab.ends(2, &format!("{line} --out other.npz"));
    assert!(err.contains("other.npz belongs to another run: it was not made by `temper capture`"), "{err}");
    assert_eq!((lab.read("other.npz").as_str(), lab.modified("c.npz")), ("something else", before));

    // A finished capture counts as such if its bytes are those that were written.
    let mut damaged = bytes(&lab, "c.npz");
    let at = damaged.windows(6).position(|name| name == b"h_last").unwrap() + 200;
    damaged[at] ^= 1;
    fs::write(lab.path("c.npz"), &damaged).unwrap();
    let (_, err) = lab.ends(2, &format!("{line} --out c.npz"));
    assert!(err.contains("c.npz: is damaged: ") && err.contains("the same command makes it again"), "{err}");
    fs::remove_file(lab.path("c.npz")).unwrap();
    lab.done(&format!("{line} --out c.npz"));
    assert_eq!(bytes(&lab, "c.npz"), bytes(&lab, "whole.npz"));
}

/// A capture killed at any moment, between parts, within one or while they are joined, resumes and leaves the same file.
#[test]
fn a_capture_that_is_killed_goes_on() {
    let lab = Lab::new();
    items(&lab, 24);
    let line = format!("{CAPTURE} --part-items 1 --out");
    lab.done(&format!("{line} warm.npz")); // so that the program is built and in the page cache
    let start = Instant::now();
    lab.done(&format!("{line} whole.npz"));
    let whole = start.elapsed();
    let parts = || {
        let dir = fs::read_dir(lab.path("c.npz.parts")).into_iter().flatten();
        dir.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("items-")).count()
    };
    let (mut kills, mut between, mut kept) = (0, 0, 0);
    while !lab.path("c.npz").exists() {
        let mut command = lab.command(&format!("{line} c.npz"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Kills move through the run; later, when little is left, each comes after a few more parts.
        let (start, wait) = (Instant::now(), whole.mul_f64(0.1 * f64::from(1 + kills % 9)));
        while child.try_wait().unwrap().is_none() && start.elapsed() < wait && parts() < kept + 3 {
            thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let now = parts();
        assert!(lab.path("c.npz").exists() || now >= kept, "a finished part was lost");
        between += usize::from(now > kept && now < 24);
        (kills, kept) = (kills + 1, now);
        assert!(kills < 200, "it never ends");
    }
    assert!(kills > 3 && between > 2, "{kills} kills, {between} of them between two parts");
    println!("{kills} kills, {between} of them between two parts");
    lab.done(&format!("{line} c.npz"));
    assert!(bytes(&lab, "c.npz") == bytes(&lab, "whole.npz"));
    assert!(!lab.path("c.npz.parts").exists());
}

/// A part that is missing, truncated, of other items or of an earlier version is made again; one that is damaged within is named, removed,
/// and made again by the next call.
#[test]
fn parts_are_checked_before_they_are_joined() {
    let lab = Lab::new();
    items(&lab, 6);
    let line = "capture --model M --items i.jsonl --part-items 2 --out c.npz";
    lab.done(line);
    let whole = bytes(&lab, "c.npz");
    let stop_before_the_end = || {
        // Leaves the parts of a run that was stopped before they were joined.
        let _ = fs::remove_file(lab.path("c.npz"));
        stopped_after(5, &lab);
    };
    let part =
        |i: usize| -> PathBuf { lab.path("c.npz.parts").join(format!("items-{:09}-{:09}.npz", 2 * i, 2 * i + 2)) };
    stop_before_the_end();
    fs::remove_file(part(0)).unwrap();
    let (_, err) = lab.ends(0, line);
    assert!(err.contains("6 to do, 2 of them done before"), "{err}");
    assert!(bytes(&lab, "c.npz") == whole);

    stop_before_the_end();
    let good = fs::read(part(1)).unwrap();
    fs::copy(part(0), part(1)).unwrap();
    let (_, err) = lab.ends(0, line);
    assert!(err.contains("6 to do, 2 of them done before"), "{err}");
    assert!(bytes(&lab, "c.npz") == whole);

    stop_before_the_end();
    let mut damaged = good.clone();
    damaged[200] ^= 1; // among the values of h_last
    fs::write(part(1), damaged).unwrap();
    let (_, err) = lab.ends(2, line);
    assert!(err.contains("items-000000002-000000004.npz: array 'h_last': Invalid checksum"), "{err}");
    assert!(err.contains("note: 1 damaged part removed; the same command makes what is missing again"), "{err}");
    assert!(!lab.path("c.npz").exists() && !part(1).exists());
    let (_, err) = lab.ends(0, line);
    assert!(err.contains("6 to do, 4 of them done before"), "{err}");
    assert!(bytes(&lab, "c.npz") == whole);

    // What a part says of itself is damaged: text of four bytes a character.
    stop_before_the_end();
    let flip = |i: usize, what: &[u8]| {
        let mut bytes = fs::read(part(i)).unwrap();
        let at = bytes.windows(what.len()).rposition(|here| here == what).unwrap();
        bytes[at] ^= 0x20;
        fs::write(part(i), bytes).unwrap();
    };
    flip(1, b"f\0\0\0e\0\0\0a\0\0\0t\0\0\0u\0\0\0r\0\0\0e\0\0\0s\0\0\0/");
    let (_, err) = lab.ends(2, line);
    assert!(err.contains("array 'meta") && err.contains("note: 1 damaged part removed"), "{err}");
    lab.done(line);
    assert!(bytes(&lab, "c.npz") == whole);
    // What all parts are compared by, in the first: the others are not to blame, and stay.
    stop_before_the_end();
    flip(0, b"label.npy");
    let (_, err) = lab.ends(2, line);
    assert!(err.contains("note: no part is damaged by itself; without c.npz.parts the capture begins anew"), "{err}");
    assert!(part(0).exists() && part(1).exists());
    fs::remove_dir_all(lab.path("c.npz.parts")).unwrap();
    // A truncated file is not a part, and is made again.
    stop_before_the_end();
    fs::write(part(1), &good[..good.len() / 2]).unwrap();
    let (_, err) = lab.ends(0, line);
    assert!(err.contains("6 to do, 2 of them done before"), "{err}");
    assert!(bytes(&lab, "c.npz") == whole);
    // So is one of an earlier version, which lacks an array.
    stop_before_the_end();
    let (today, mut earlier) = (Npz::read(&part(1)).unwrap(), Npz::default());
    for name in today.names().filter(|name| *name != "response_hash") {
        earlier.add(name, today.get(name).unwrap().clone());
    }
    earlier.save(&part(1)).unwrap();
    let (_, err) = lab.ends(0, line);
    assert!(err.contains("6 to do, 2 of them done before"), "{err}");
    assert!(bytes(&lab, "c.npz") == whole);
}

/// Texts that change while their tokens stay are other texts: half a capture of the old ones does not become one of both.
#[test]
fn other_texts_of_the_same_tokens_are_captured_again() {
    let lab = Lab::new();
    let text = |i: usize| json!({"id": format!("q{i}"), "prompt": "x", "response": "y".repeat(i + 1)});
    let write = |ids: &[u32]| {
        // Ids that are not those of the response: it is read as text, and its tokens stay the same.
        let with = |i: usize| {
            let mut item = text(i);
            item["response_ids"] = json!(ids);
            item
        };
        lab.write_lines("i.jsonl", (0..6).map(with));
    };
    let line = "capture --model M --items i.jsonl --part-items 2 --out";
    write(&[1]);
    lab.done(&format!("{line} fresh.npz"));
    write(&[2]);
    stopped_after(5, &lab);
    write(&[1]);
    let (_, err) = lab.ends(0, &format!("{line} c.npz"));
    assert!(err.contains("note: 2 parts made again: damaged, or of other texts than the items have now"), "{err}");
    assert!(bytes(&lab, "c.npz") == bytes(&lab, "fresh.npz"));

    // A finished one of other texts is not this one.
    write(&[2]);
    let (_, err) = lab.ends(2, &format!("{line} c.npz"));
    assert!(
        err.contains("c.npz belongs to another run: item 'q0' has another text now, though its tokens are"),
        "{err}"
    );
}

/// A link to where there is room stays: file and parts lie there.
#[cfg(unix)]
#[test]
fn a_capture_through_a_link_is_made_where_the_link_leads() {
    let lab = Lab::new();
    items(&lab, 9);
    lab.done("capture --model M --items i.jsonl --part-items 2 --out whole.npz");
    fs::create_dir(lab.path("scratch")).unwrap();
    std::os::unix::fs::symlink("scratch/there.npz", lab.path("c.npz")).unwrap();
    stopped_after(7, &lab);
    assert!(lab.path("scratch/there.npz.parts").is_dir() && !lab.path("c.npz.parts").exists());
    lab.done("capture --model M --items i.jsonl --part-items 2 --out c.npz");
    assert!(lab.path("c.npz").is_symlink() && !lab.path("scratch/there.npz.parts").exists());
    assert_eq!(bytes(&lab, "scratch/there.npz"), bytes(&lab, "whole.npz"));
}
