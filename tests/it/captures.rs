//! `temper capture` as a job over a data set: parts, stops and kills, what goes into the file (answers generated on the way: `answers`).

mod answers;

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use candle_core::Tensor;
use headtemper_engine::{CaptureRow, Encoded, Keep, Pool};
use headtemper_hook::HeadPlan;
use headtemper_study::{Array, CaptureJob, CaptureOptions, ItemFile, Npz, Progress, ReadAs, Silent, capture_file};
use headtemper_tests::engine;
use serde_json::{Value, json};

use crate::{
    lab::{Lab, lines},
    states::{captured, keep},
};

fn items(lab: &Lab, count: usize) {
    let item = |i: usize| {
        let mut item = json!({"id": format!("q{i}"), "prompt": format!("Qui est {i}?"), "response": "né 你 ".repeat(i % 4 + 1),
            "label": "x".repeat(i % 3), "correct": i.is_multiple_of(2)});
        if !i.is_multiple_of(3) {
            item["scores"] = json!({"hedging": i as f64 / 4.0});
        }
        item
    };
    lab.write_lines("i.jsonl", (0..count).map(item));
}

const CAPTURE: &str =
    "capture --model M --items i.jsonl --layers 1,last --mean-layers 2 --pool last:3 --heads vector --logits";

const ANSWERS: &str = "capture --model M --items i.jsonl --layers last:2 --pool response --generate --max-new-tokens 9 \
                       --temperature 1.3 --seed 4";

fn bytes(lab: &Lab, name: &str) -> Vec<u8> {
    fs::read(lab.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn names(lab: &Lab) -> Vec<String> {
    let entries = fs::read_dir(lab.path(".")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The file is the same however it is cut, into parts of any size or shards of such parts, whether answers are read or generated.
#[test]
fn a_file_does_not_depend_on_how_it_is_cut() {
    let lab = Lab::new();
    items(&lab, 11);
    for (name, line) in [("c", CAPTURE), ("g", ANSWERS)] {
        lab.done(&format!("{line} --out {name}.npz"));
        let whole = bytes(&lab, &format!("{name}.npz"));
        for size in [1, 4, 11, 1000] {
            lab.done(&format!("{line} --out {name}-{size}.npz --part-items {size}"));
            assert!(bytes(&lab, &format!("{name}-{size}.npz")) == whole, "{name} in parts of {size}");
        }
        for i in 1..=3 {
            lab.done(&format!("{line} --out {name}-s{i}.npz --shard {i}/3 --part-items 2"));
        }
        lab.done(&format!("merge {name}-m.npz {name}-s3.npz {name}-s1.npz {name}-s2.npz"));
        assert!(bytes(&lab, &format!("{name}-m.npz")) == whole, "{name} in shards");
    }
    assert!(names(&lab).iter().all(|name| name.ends_with(".npz") || name == "i.jsonl"), "{:?}", names(&lab));
}

/// The file holds the numbers that items bring, NaN where an item has none; and the states are those of the engine.
#[test]
fn labels_scores_and_fields_go_into_the_file() {
    let lab = Lab::new();
    items(&lab, 5);
    lab.done(&format!("{CAPTURE} --out c.npz --part-items 2"));
    let npz = Npz::read(&lab.path("c.npz")).unwrap();
    let names: Vec<&str> = npz.names().collect();
    assert_eq!(names[..4], ["h_last", "layers", "h_layers", "h_mean"]);
    let last = ["prompt_hash", "response_hash", "text_hash", "scores.hedging", "fields.correct", "meta"];
    assert_eq!(names[names.len() - last.len()..], last);
    let floats = |name: &str| match npz.get(name) {
        Some(Array::F64(shape, values)) if shape[..] == [5] => values.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
        other => panic!("{name}: {other:?}"),
    };
    let bits = |values: [f64; 5]| values.map(f64::to_bits).to_vec();
    assert_eq!(floats("scores.hedging"), bits([f64::NAN, 0.25, 0.5, f64::NAN, 1.0]));
    assert_eq!(floats("fields.correct"), bits([1.0, 0.0, 1.0, 0.0, 1.0]));
    let texts = |name: &str| match npz.get(name) {
        Some(Array::Text(texts)) => texts.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(texts("label"), ["", "x", "xx", "", "x"]);
    // printf 'qui est 0' | sha256sum
    assert_eq!(texts("prompt_hash")[0], "9ce422f3a8dd5e7096cd9dbf8efd860a");
    // printf 'né 你' | sha256sum
    assert_eq!(texts("response_hash")[0], "c1362a49b2fa9cb9a6735cc446223062");
    let Some(Array::Scalar(meta)) = npz.get("meta") else { panic!("no meta") };
    let meta: Value = serde_json::from_str(meta).unwrap();
    assert_eq!((&meta["pool"], &meta["mean_layers"]), (&json!("last:3"), &json!(2)));
    assert_eq!((meta["key"].as_str().unwrap().len(), &meta["parts"]["pool"]), (32, &json!("last:3")));
    assert!(meta.get("piece").is_none() && meta.get("shard").is_none());

    let engine = engine("llama");
    let items = ItemFile::open(&lab.path("i.jsonl"), ReadAs::default()).unwrap().read(0..5).unwrap();
    let encode = |item: &headtemper_study::Item| engine.encode("x", &item.input, item.response.as_deref()).unwrap();
    let encoded: Vec<Encoded> = items.iter().map(encode).collect();
    let wanted = Keep { layers: vec![1, 3], mean_layers: Some(2), pool: Pool::LastN(3), ..keep("last", 0) };
    let rows = captured(&engine, &encoded, &Keep { last_n: 32, ..wanted }, &[HeadPlan::none()]);
    let f32s = |name: &str| match npz.get(name) {
        Some(Array::F32(_, values)) => values.clone(),
        other => panic!("{name}: {other:?}"),
    };
    let all = |of: &dyn Fn(&CaptureRow) -> Vec<f32>| rows.iter().flat_map(of).collect::<Vec<f32>>();
    assert_eq!(f32s("h_last"), all(&|row| row.h_last.clone()));
    assert_eq!(f32s("h_layers"), all(&|row| row.h_layers.concat()));
    assert_eq!(f32s("h_mean"), all(&|row| row.h_mean.clone()));
    assert_eq!(f32s("head_norm"), all(&|row| row.head_norm.clone()));
    assert_eq!(f32s("logits"), all(&|row| row.logits.clone()));
    assert_eq!(f32s("blocks.2.attn.hook_z"), all(&|row| row.head_vectors[2].clone()));
}

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
    let job = CaptureJob { items: &items, options: &options, answering, shard, part_items, out: &out };
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
    let job = CaptureJob { items: &file, options: &options, answering, shard, part_items, out: &out };
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

/// Whether a planned head fired is checked for the whole, not for a part: a part's items may have nothing at the plan's positions.
#[test]
fn a_plan_fires_in_the_whole() {
    let lab = Lab::new();
    let item = |i: usize| match i {
        0..=3 => json!({"id": i, "prompt": "x"}),
        _ => json!({"id": i, "prompt": "x", "response": "y"}),
    };
    lab.write_lines("i.jsonl", (0..6).map(item));
    let line = "capture --model M --items i.jsonl --plan L0H1:0.5 --positions response --part-items 2";
    let (out, _) = lab.ends(0, &format!("{line} --out c.npz --json"));
    let fired = lines(&out)[0]["fired_tokens"].as_u64().unwrap();
    let (out, _) = lab.ends(0, &format!("{line} --out w.npz --json").replace("--part-items 2", ""));
    assert!(fired > 0 && fired == lines(&out)[0]["fired_tokens"].as_u64().unwrap());
    let (_, err) = lab.ends(2, &format!("{line} --out none.npz --limit 4"));
    assert!(err.contains("the plan names L0H1 at response but the hook never fired there"), "{err}");
    assert!(!lab.path("none.npz").exists() && !lab.path("none.npz.parts").exists());
    // Nor is it checked for a shard; the merge checks.
    for (out, more) in [("joined.npz", ""), ("idle.npz", " --limit 4")] {
        (1..=2).for_each(|i| drop(lab.done(&format!("{line}{more} --out s{i}.npz --shard {i}/2"))));
        let merge = format!("merge {out} s1.npz s2.npz");
        if more.is_empty() {
            lab.done(&merge);
        } else {
            let (_, err) = lab.ends(2, &merge);
            assert!(err.contains("no shard has a token that the plan L0H1:0.5 at response touches at L0H1"), "{err}");
        }
        (1..=2).for_each(|i| fs::remove_file(lab.path(&format!("s{i}.npz"))).unwrap());
    }
    assert!(bytes(&lab, "joined.npz") == bytes(&lab, "c.npz") && !lab.path("idle.npz").exists());
}

/// The memory of a capture does not grow with its items: here 30 times as many, whose states alone are 42 MiB.
#[cfg(target_os = "linux")]
#[test]
fn a_capture_of_many_items_holds_few() {
    let lab = Lab::new();
    let peak = |count: usize| {
        let item = |i: usize| json!({"id": format!("q{i}"), "input_ids": [6 + i % 300, 7, 8], "scores": {"x": i}});
        lab.write_lines("i.jsonl", (0..count).map(item));
        let line = "capture --model M --items i.jsonl --layers all --logits --part-items 250 --out";
        let (_, err) = lab.ends(0, &format!("{line} {count}.npz"));
        let peak = err.lines().rev().find_map(|line| line.strip_suffix(" at the peak")?.strip_prefix("memory     "));
        headtemper_engine::parse_bytes(peak.unwrap_or_else(|| panic!("{err}"))).unwrap()
    };
    let (few, many) = (peak(500), peak(15_000));
    println!("500 items {few} bytes, 15,000 items {many} bytes");
    // Allows for 40 bytes and a hash of the id per item, and for the allocator's rounding (measured: less than 0.1 MiB beyond what
    // loading the model took).
    assert!(many < few + (12 << 20), "{many} for 15,000 items, {few} for 500");
    let npz = lab.npz("15000.npz");
    let h_last: Tensor = npz.get("h_last").unwrap().unwrap();
    assert_eq!(h_last.dims(), [15_000, 72]);
    // Shards are joined as parts are.
    for i in 1..=2 {
        lab.done(&format!("capture --model M --items i.jsonl --layers all --logits --out s{i}.npz --shard {i}/2"));
    }
    lab.done("merge m.npz s1.npz s2.npz");
    assert!(bytes(&lab, "m.npz") == bytes(&lab, "15000.npz"));
}

/// What cannot be captured is refused before anything is written.
#[test]
fn captures_that_mean_nothing_are_refused() {
    let lab = Lab::new();
    lab.write_lines("i.jsonl", [json!({"id": "a", "prompt": "x", "response": "y"}), json!({"id": "b", "prompt": "x"})]);
    let capture = "capture --model M --items i.jsonl --out c.npz";
    for (rest, parts) in [
        ("--pool first", &["pool is 'first', but must be last, last:N with N at least 1, or response"][..]),
        ("--pool last:0", &["pool is 'last:0'"]),
        ("--pool response", &["item 'b' has no response, over which pool 'response' would average", "hint: give it"]),
        ("--mean-layers 0", &["mean_layers is 0, but must be from 1 to the number of layers"]),
        ("--mean-layers 5", &["mean_layers is 5"]),
        ("--layers last:5", &["the list of layers is last:5", "last:2"]),
        ("--part-items 0", &["--part-items is 0, but must be at least 1"]),
        ("--max-new-tokens 4", &["--generate"]),
        ("--temperature 1", &["they need --generate"]),
        ("--ignore-eos", &["they need --generate"]),
        ("--generate --max-new-tokens 0", &["max_new_tokens is 0, but must be at least 1"]),
        ("--generate --temperature=-1", &["temperature is -1"]),
        ("--generate --last-n 0", &["last_n is 0"]),
    ] {
        let (out, err) = lab.ends(2, &format!("{capture} {rest}"));
        assert!(out.is_empty() && parts.iter().all(|part| err.contains(part)), "{rest}\n{err}");
        assert_eq!(names(&lab), ["i.jsonl"], "{rest}");
    }
    lab.write_lines("full.jsonl", [json!({"id": "full", "input_ids": vec![6; 256]})]);
    let (_, err) = lab.ends(2, "capture --model M --items full.jsonl --out c.npz --generate");
    assert!(err.contains("the prompt of item 'full', which leaves no room for an answer,"), "{err}");
    assert!(!lab.path("c.npz").exists());
    lab.done("capture --model M --items full.jsonl --out c.npz");
}
