//! Faults of CUDA devices, and several devices, on the stand-in driver (`tests/driver`), which its environment configures:
//! `scripts/test_cuda.sh` runs these.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use crate::lab::{Lab, prompts, texts};

/// Runs a line with these settings of the stand-in driver; returns exit code, stdout and stderr.
fn told(lab: &Lab, settings: &[(&str, &str)], line: &str) -> (Option<i32>, String, String) {
    let output = lab.command(line).envs(settings.iter().copied()).output().unwrap();
    let (out, err) = texts(&output);
    (output.status.code(), out, err)
}

#[test]
fn devices_that_cannot_be_used_are_refused() {
    let lab = Lab::new();
    for (settings, device, why) in [
        (&[("STAND_IN_VERSION", "12080")][..], "cuda", "made for CUDA 12.8, and this binary needs one for 13.0"),
        (
            &[("STAND_IN_CAPABILITY", "75")],
            "cuda",
            "compute capability 7.5, and kernels are compiled for 8.0 and later",
        ),
        (&[], "cuda:7", "there is no device 7; there is cuda:0 alone"),
        (&[("STAND_IN_DEVICES", "3")], "cuda:3", "there is no device 3; there are cuda:0 to cuda:2"),
        (&[("CUDA_VISIBLE_DEVICES", "")], "cuda", "CUDA_ERROR_NO_DEVICE"),
        (&[("STAND_IN_MEMORY", "8")], "cuda", "CUDA_ERROR_OUT_OF_MEMORY"),
    ] {
        let (code, _, err) = told(&lab, settings, &format!("inspect --model M --device {device}"));
        assert!(code == Some(2) && err.contains(why), "{settings:?} {device}: {code:?} {err}");
        assert!(err.contains(&format!("device '{device}' cannot be used")) && err.contains("--device cpu"), "{err}");
        // If any device will do, the CPU is used, and the reason is said.
        if device == "cuda" {
            let (code, _, err) = told(&lab, settings, "inspect --model M");
            assert!(code == Some(0) && err.contains(why), "{settings:?}: {code:?} {err}");
        }
    }
}

const SWEEP: &str = "sweep --model M --device cuda --items q.jsonl --heads all --lambda 1,0.5 --max-new-tokens 5";

/// Another process takes the rest of the memory during a run: the error says what was planned, finished rows stay, and the
/// same command goes on.
#[test]
fn a_device_that_is_full_loses_nothing() {
    let lab = Lab::new();
    prompts(&lab, 6);
    lab.done(&format!("{SWEEP} --out whole"));
    let whole = lab.rows("whole/rows.jsonl");
    let (mut kept, mut full) = (BTreeSet::new(), BTreeSet::new());
    for after in [20, 50, 100, 300, 500, 700, 900, 1200] {
        let sweep = format!("{SWEEP} --max-rows 2 --out part");
        let (code, _, err) = told(&lab, &[("STAND_IN_FULL_AFTER", &after.to_string())], &sweep);
        if code != Some(0) {
            assert_eq!(code, Some(2), "{err}");
            assert!(err.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{err}");
            let loading =
                err.contains("no memory left for the model's weights") && err.contains("hint: something else");
            let running = err.contains("no memory left, though no more than")
                && err.contains("was planned")
                && err.contains("the same command goes on");
            assert!(loading || running, "{err}");
            full.insert(loading);
        }
        let rows = if lab.path("part/rows.jsonl").exists() { lab.rows("part/rows.jsonl") } else { BTreeSet::new() };
        assert!(rows.is_superset(&kept), "rows were lost");
        kept = rows;
    }
    assert!(
        full.len() == 2 && !kept.is_empty(),
        "full while loading and while running: {full:?}, rows: {}",
        kept.len()
    );
    lab.done(&format!("{SWEEP} --max-rows 2 --out part"));
    assert_eq!(lab.rows("part/rows.jsonl").len(), whole.len());
}

/// On a device without memory for recordings, steps are launched one by one, and what the recordings took is returned.
#[test]
fn a_device_without_room_for_recordings_does_without() {
    let lab = Lab::new();
    prompts(&lab, 3);
    lab.done(&format!("{SWEEP} --out whole"));
    let (code, _, err) = told(&lab, &[("STAND_IN_NO_UPLOAD", "1")], &format!("{SWEEP} --out alone"));
    assert!(code == Some(0) && !err.contains("stand-in driver"), "{code:?} {err}");
    assert_eq!(lab.rows("alone/rows.jsonl"), lab.rows("whole/rows.jsonl"));
}

/// Another reason not to record is said, with the way round it; nothing is lost.
#[test]
fn a_device_that_cannot_record_says_so() {
    let lab = Lab::new();
    prompts(&lab, 3);
    lab.done(&format!("{SWEEP} --out whole"));
    let cannot = [("STAND_IN_NO_CAPTURE", "1")];
    let (code, _, err) = told(&lab, &cannot, &format!("{SWEEP} --out alone"));
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("the device cannot record a decode step of"), "{err}");
    assert!(err.contains("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED") && err.contains("hint: with --no-graph"), "{err}");
    let (code, _, err) = told(&lab, &cannot, &format!("{SWEEP} --out alone --no-graph"));
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(lab.rows("alone/rows.jsonl"), lab.rows("whole/rows.jsonl"));
}

/// A model that does not fit the device's memory is refused with advice.
#[test]
fn a_model_that_does_not_fit_is_said() {
    let lab = Lab::new();
    prompts(&lab, 2);
    let (code, _, err) = told(&lab, &[("STAND_IN_MEMORY", "33")], &format!("{SWEEP} --out full"));
    assert!(code == Some(2) && err.contains("of memory") && err.contains("--memory"), "{code:?} {err}");
}

/// `scripts/all_gpus.sh`: one process per device, chosen by number or by the names in the environment, and the shares merged.
#[test]
fn a_job_on_two_devices_is_the_job() {
    let lab = Lab::new();
    prompts(&lab, 5);
    lab.done(&format!("{SWEEP} --out whole"));
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/all_gpus.sh");
    let sweep =
        SWEEP.replace(" --device cuda", "").replace('M', &headtemper_tests::golden_dir("llama").to_string_lossy());
    for (out, name, value) in [("both", "GPUS", "2"), ("named", "CUDA_VISIBLE_DEVICES", "MIG-1,MIG-2")] {
        let mut command = Command::new(&script);
        command.arg(lab.path(out)).args(sweep.split_whitespace()).current_dir(lab.path(""));
        command.env(name, value).env("STAND_IN_DEVICES", "2").env("HF_HUB_OFFLINE", "1");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {}", texts(&output).1);
        assert_eq!(lab.rows(&format!("{out}/all/rows.jsonl")), lab.rows("whole/rows.jsonl"), "{name}");
        let log = lab.read(&format!("{out}/part-2.log"));
        assert!(log.contains("on cuda"), "{name}: {log}");
    }
}

/// A recorded decode step has a fixed number of launches in every layer and around them. `docs/gpu.md` lists them and the times
/// predicted from them.
#[test]
fn a_decode_step_takes_so_many_launches() {
    let lab = Lab::new();
    for (family, plans, in_layers, around) in [
        ("llama", 0, 4 * 9, 9),
        ("qwen3", 0, 4 * 9, 9),
        ("qwen3_5", 0, 6 * 9 + 2 * 10, 9), // delta nets and attention
        ("gemma4", 0, 8 * 13, 19),
        ("qwen3", 2, 4 * 9, 9 + 1), // each row's λ
    ] {
        let model = headtemper_tests::golden_dir(family);
        let bench = format!(
            "bench --model {} --device cuda --dtype bf16 --whole --prompt-tokens 8 --new-tokens 24 --rows 4 --plans {plans} --repeat 1 --json",
            model.display()
        );
        let bench: serde_json::Value = serde_json::from_str(&lab.done(&bench)).unwrap();
        let decode = &bench["decode"][0];
        assert!(decode["plays"].as_u64().unwrap() > 0, "{family}: no step was recorded");
        assert_eq!(decode["launches"], in_layers + around, "{family}, {plans} plans");
    }
}

/// Activations in f16 against transformers in f32: the direction of every token at every site, and the top tokens.
/// `scripts/gpu-check.sh` checks bf16.
#[test]
fn sixteen_bits_are_transformers_to_their_digits() {
    let lab = Lab::new();
    for family in headtemper_tests::FAMILIES {
        let model = headtemper_tests::golden_dir(family);
        let (model, golden) = (model.display(), model.join("golden.safetensors"));
        let verify =
            format!("verify --quick --model {model} --device cuda --dtype f16 --golden {} --json", golden.display());
        let found: serde_json::Value = serde_json::from_str(&lab.done(&verify)).unwrap();
        let checks = found["checks"].as_array().unwrap().iter();
        let golden = checks.filter(|check| check["name"].as_str().unwrap().starts_with("golden "));
        let directions = golden.filter(|check| check["name"].as_str().unwrap().ends_with(", direction"));
        let worst = directions.map(|check| check["measured"].as_f64().unwrap()).collect::<Vec<_>>();
        println!("{family}: {worst:?}");
        assert!(worst.len() >= 6 && worst.iter().all(|off| *off > 0.0), "{family}: {found}");
    }
}
