//! Exported checkpoints: what a plan does here, its exported model does elsewhere.

use std::{
    fs::{self, File},
    path::Path,
    sync::atomic::AtomicBool,
};

use candle_core::Device;
use headtemper_engine::{EngineError, ModelChoice, export::Original};
use headtemper_hook::{HeadList, HeadPlan};
use headtemper_model::{Checkpoint, load};
use headtemper_tests::{Golden, golden_dir, golden_model, read_through, temper, worst};

/// An exported f32 checkpoint against the hook, relative to the largest logit: the products round differently.
/// Measured worst case: 2.6e-6 in Gemma 4, whose norms follow the projection (2026-11-21).
const EXPORTED: f32 = 1e-5;
/// A bf16 checkpoint: λ times a weight is rounded to 8 bits. Measured worst case: 3.0e-3 (2026-11-21).
const ROUNDED: f32 = 2e-2;

fn plan(text: &str) -> HeadPlan {
    HeadList::parse(text).unwrap().plan(None).unwrap()
}

fn original(dir: &Path) -> Original {
    let model = dir.to_string_lossy().into_owned();
    Original::find(&ModelChoice { model, ..ModelChoice::default() }).unwrap()
}

/// The exported model alone gives what the hook gives: for every family, wrapped, sharded, tied, in f32 and bf16.
#[test]
fn tempered_here_is_exported_there() {
    for (name, text, tolerance) in [
        ("llama", "L0H1:0.3,L2H4:-1.5", EXPORTED),
        ("qwen3", "L0H1:0.3,L3H2:0", EXPORTED),
        ("qwen3_5", "L2V3:0.3,L3H1:0,L4V0:-1", EXPORTED),
        ("gemma4", "L0H1:0.3,L4H2:0,L7H3:-1", EXPORTED),
        ("qwen3_tied", "L0H1:0.3,L2H2:0", ROUNDED),
        ("qwen3_5_wrapper", "L2V3:0.3,L3H1:0", ROUNDED),
        ("gemma4_wrapper", "L0H1:0.3,L4H2:0", ROUNDED),
    ] {
        let (plan, lab) = (plan(text), tempfile::tempdir().unwrap());
        let out = lab.path().join("out");
        let exported = original(&golden_dir(name)).export(&plan, &out, None).unwrap();
        assert_eq!(exported.changed.len(), text.split(',').count(), "{name}");
        assert_eq!(exported.rounding > 1e-6, tolerance == ROUNDED, "{name}: {}", exported.rounding);

        let golden = name.strip_suffix("_wrapper").unwrap_or(name);
        let ids = Golden::read(golden).ids("seq1.input_ids");
        let model = golden_model(name);
        let there = load(&Checkpoint::Directory(out.clone()), Some(headtemper_model::Held::F32), &Device::Cpu).unwrap();
        let (_, hooked) = read_through(&*model, &ids, Some(&plan));
        let (_, weights) = read_through(&*there, &ids, None);
        let (_, base) = read_through(&*model, &ids, None);
        let size: f32 = base.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        let off = worst(&hooked, &weights) / size;
        println!("{name}: {off:e} of {tolerance:e}");
        assert!(off <= tolerance, "{name}: {off:e}");
        assert!(worst(&hooked, &base) / size > 10.0 * tolerance, "{name}: the edit must be far from nothing");

        // Everything else is as it was, byte for byte.
        for entry in fs::read_dir(golden_dir(name)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            let kept = !file.ends_with(".safetensors") && !file.ends_with(".gguf");
            let weights = file.starts_with("model") && file.ends_with(".safetensors");
            assert_eq!(out.join(&file).exists(), kept || weights, "{name}: {file}");
            if kept {
                assert_eq!(fs::read(out.join(&file)).unwrap(), fs::read(&path).unwrap(), "{name}: {file}");
            }
        }
    }
}

/// λ = 1 exports a copy, bit for bit.
#[test]
fn lambda_one_exports_a_copy() {
    let lab = tempfile::tempdir().unwrap();
    let out = lab.path().join("out");
    original(&golden_dir("gemma4_wrapper")).export(&plan("L0H1:1,L5H0:1"), &out, None).unwrap();
    let bytes = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
    assert_eq!(bytes(&out), bytes(&golden_dir("gemma4_wrapper")));
}

#[test]
fn what_cannot_be_exported_is_refused_and_nothing_is_left() {
    let lab = tempfile::tempdir().unwrap();
    let model = golden_dir("qwen3_5").to_string_lossy().into_owned();
    let gguf = golden_dir("llama").join("model.f32.gguf").to_string_lossy().into_owned();
    fs::create_dir(lab.path().join("full")).unwrap();
    fs::write(lab.path().join("full/file"), "x").unwrap();
    for (args, part) in [
        (vec![&*model, "--out", "o"], "--plan is missing"),
        (vec![&model, "--plan", "L0H0:0.5", "--out", "o"], "the heads of layer 0 are L0V0 to L0V3"),
        (vec![&model, "--plan", "L0V0:0.5", "--out", "full"], "cannot export full: it exists already"),
        (vec![&gguf, "--plan", "L0H0:0.5", "--out", "o"], "only a directory with safetensors can be exported"),
        (vec![&model, "--plan", "L0V0", "--out", "o"], "head L0V0 has no lambda"),
        (vec![&model, "--plan", "L0V0:1", "--out", "o"], "every λ of the plan is 1: the export would be a copy"),
    ] {
        let output = temper().arg("export").args(&args).current_dir(lab.path()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(part), "{args:?}: {stderr}");
    }
    // What a killed export left goes; what another writes stays, and so does what is no export.
    let parts = [".o.1.part", ".o.2.part", ".o.3.part"].map(|name| lab.path().join(name));
    for part in &parts {
        fs::create_dir(part).unwrap();
        fs::write(part.join("half.safetensors"), "x").unwrap();
    }
    let locks = [0, 1].map(|at| File::create(parts[at].join(".lock")).unwrap());
    locks[1].lock().unwrap();
    let export = || {
        temper().args(["export", &model, "--plan", "L2V0:0.5", "--out", "o"]).current_dir(lab.path()).output().unwrap()
    };
    assert_eq!(export().status.code(), Some(0));
    assert_eq!(parts.each_ref().map(|part| part.exists()), [false, true, true]);
    assert!(!lab.path().join("o/.lock").exists());
    for dir in [&lab.path().join("o"), &parts[1], &parts[2]] {
        fs::remove_dir_all(dir).unwrap();
    }

    let left: Vec<_> = fs::read_dir(lab.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["full"]);
}

/// A directory that is a file system of its own cannot be replaced: that is said before anything is written, through a link as well.
#[cfg(target_os = "linux")]
#[test]
fn an_export_takes_no_file_systems_place() {
    let lab = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/proc", lab.path().join("o")).unwrap();
    for out in ["o", "/proc"] {
        let args = ["export", "--plan", "L2H0:0.5", "--out", out];
        let refused = temper().args(args).arg(golden_dir("llama")).current_dir(lab.path()).output().unwrap();
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{stderr}");
        let why =
            "cannot export /proc: a file system is mounted there, whose place no copy can take; give a directory in it";
        assert!(stderr.contains(why), "{stderr}");
    }
}

/// A link to an empty directory stays a link, and one that leads nowhere is refused.
/// An export that is stopped leaves nothing, neither the checkpoint nor a part of it.
#[test]
fn what_is_stopped_leaves_nothing() {
    let lab = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(true);
    let stopped = original(&golden_dir("llama")).export(&plan("L2H0:0.5"), &lab.path().join("o"), Some(&stop));
    assert!(matches!(stopped, Err(EngineError::Interrupted)), "{stopped:?}");
    assert_eq!(fs::read_dir(lab.path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn an_export_goes_where_a_link_leads() {
    let lab = tempfile::tempdir().unwrap();
    let model = golden_dir("llama").to_string_lossy().into_owned();
    fs::create_dir_all(lab.path().join("disk/empty")).unwrap();
    std::os::unix::fs::symlink("disk/empty", lab.path().join("o")).unwrap();
    std::os::unix::fs::symlink("gone", lab.path().join("dangling")).unwrap();
    let export = |out: &str| {
        let args = ["export", &model, "--plan", "L2H0:0.5", "--out", out];
        temper().args(args).current_dir(lab.path()).output().unwrap()
    };
    assert_eq!(export("o").status.code(), Some(0));
    assert!(lab.path().join("o").is_symlink() && lab.path().join("disk/empty/headtemper.json").exists());
    let refused = export("dangling");
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cannot write into dangling: it is a link to gone, which is not there"), "{stderr}");
}

/// A checkpoint is lasting: that a plan was made for other weights is said here as by every verb. Directories above it are made.
#[test]
fn a_plan_of_other_weights_is_said() {
    let lab = crate::lab::Lab::new();
    crate::lab::prompts(&lab, 2);
    lab.done("sweep --model M --items q.jsonl --heads L0H1 --lambda 0.5 --max-new-tokens 2 --out s");
    let of = |model: &str, out: &str| {
        lab.ends(0, &format!("export --model {model} --plan s/lambda.npz#L0H1@0.5 --out {out}")).1
    };
    assert!(!of("M", "made/for/it").contains("warning"));
    let record = lab.json("made/for/it/headtemper.json");
    let told = of("made/for/it", "other");
    assert!(told.contains("warning: s/lambda.npz#L0H1@0.5: it is of llama, whose weights are others"), "{told}");
    let inspected: serde_json::Value = serde_json::from_str(&lab.done("inspect --model M --json")).unwrap();
    assert_eq!(record["weights_sha256"], inspected["weights_sha256"]);
}
