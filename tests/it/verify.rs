//! `temper verify` and `temper doctor`; and tests that each fault of a model breaks the laws it should, and no others.

mod spoilt;

use std::process::Output;

use headtemper_engine::verify::{self, Check, Hooked, LAWS};
use headtemper_hook::Site;
use headtemper_model::{Checkpoint, load_folded};
use headtemper_tests::{DEVICE, FAMILIES, Golden, golden_dir, golden_model, temper};
use serde_json::Value;

use spoilt::{Fault, Spoilt};

/// The site of spoilt hooks: query heads of an attention layer, which every family has.
const QUERY: Site = Site::Z(3);

/// The same for value heads of a delta net, in Qwen3.5.
const VALUE: Site = Site::LinearZ(1);

/// The laws, as they are printed.
const UNTOUCHED: &str = "no tap = empty tap = λ 1";

const PACKED: &str = "packed = alone";

const DECODED: &str = "prefill + decode = one forward";

const SITES: &str = "sites fire once, in order";

const FIRED: &str = "planned heads fire on every token";

const EFFECTS: &str = "every head changes every token";

const FINITE: &str = "logits are finite";

const FOLDED: &str = "hook = folded weights";

/// Checks every law on a spoilt model; returns the names of those that do not hold.
fn broken(family: &str, fault: Fault, site: Site) -> Vec<String> {
    let model = Spoilt(golden_model(family), fault, site);
    let mut checks: Vec<Check> = LAWS.iter().map(|law| law(&model)).collect();
    let hooked = Hooked::read(&model);
    match hooked {
        Ok(hooked) => {
            let checkpoint = Checkpoint::Directory(golden_dir(family));
            let folded = load_folded(&checkpoint, hooked.plan(), &DEVICE).unwrap();
            checks.push(hooked.compare(&Spoilt(folded, fault, site)));
        }
        // A planned head that never fired is refused before anything is compared.
        Err(error) => assert!(error.to_string().contains("never fired"), "{family} {fault:?}: {error}"),
    }
    for check in &checks {
        assert!(check.failed() || !check.note.is_empty(), "{check:?}");
    }
    checks.into_iter().filter(Check::failed).map(|check| check.name).collect()
}

/// A fault breaks the laws that it should break, in every family, and no others: a law cannot be passed by accident.
#[test]
fn each_fault_breaks_its_laws_and_no_others() {
    for (family, site) in FAMILIES.map(|family| (family, QUERY)).into_iter().chain([("qwen3_5", VALUE)]) {
        // A scaling that the last layer leaves out in decode also shows in the effects: no later layer hides it.
        let last = site.head_layer() == Some(golden_model(family).spec().layers.len() - 1);
        let in_decode = if last { &[DECODED, EFFECTS][..] } else { &[DECODED] };
        for (fault, laws) in [
            (Fault::Sound, &[][..]),
            (Fault::Deaf, &[SITES, FIRED, EFFECTS]),
            (Fault::Silent, &[EFFECTS, FOLDED]),
            (Fault::SilentHead, &[EFFECTS]),
            (Fault::SilentInDecode, in_decode),
            (Fault::WrongHead, &[FOLDED]),
            (Fault::Twice, &[SITES, FIRED]),
            (Fault::Shy, &[UNTOUCHED, PACKED]),
            (Fault::Crowded, &[PACKED]),
            (Fault::Swapped, &[PACKED]),
            (Fault::OffByOne, &[DECODED]),
            (Fault::Infinite, &[FINITE, FOLDED]),
        ] {
            assert_eq!(broken(family, fault, site), laws, "{family} {fault:?} at {site}");
        }
    }
}

/// Golden files are compared with the model: each fault shows in the quantity that it spoils.
#[test]
fn a_spoilt_model_is_not_the_golden_one() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        for (fault, quantity) in [
            (Fault::Loud, "golden logits"),
            (Fault::Infinite, "golden logits"),
            (Fault::Silent, "golden tempered logits"),
            (Fault::WrongHead, "golden tempered logits"),
            (Fault::OffByOne, "golden greedy tokens"),
        ] {
            let checks = golden.checks(&Spoilt(golden_model(family), fault, QUERY)).unwrap();
            let found: Vec<_> = checks.iter().filter(|c| c.failed()).map(|c| &*c.name).collect();
            assert!(found.contains(&quantity), "{family} {fault:?}: {found:?}");
        }
        // A deaf model never shows the heads of a layer: some plan of the file names them and does not fire, or z is missing.
        let checks = golden.checks(&Spoilt(golden_model(family), Fault::Deaf, QUERY));
        let seen = checks.map_or_else(|e| e.to_string(), |checks| format!("{checks:?}"));
        assert!(seen.contains("never fired") || seen.contains("did not fire once"), "{family}: {seen}");
    }
}

/// Other weights of the same geometry are told apart as another model.
#[test]
fn another_model_is_told_apart() {
    let [(_, llama), (_, qwen3), ..] = verify::FAMILIES;
    let model = |config| verify::tiny(config, &DEVICE).unwrap();
    assert_eq!(verify::same_as(&*model(llama), &*model(llama)).measured, Some(0.0));
    assert!(verify::same_as(&*model(llama), &*golden_model("llama")).failed());
    let checks = Golden::read("llama").checks(&*model(llama)).unwrap();
    assert!(checks.len() > 1 && checks[1].failed(), "{checks:?}");
    let checks = Golden::read("llama").checks(&*model(qwen3)).unwrap();
    assert!(checks.len() == 1 && checks[0].failed(), "{checks:?}");
}

/// The tiny models of `doctor` have the architectures that they are named after.
#[test]
fn tiny_models_are_of_every_family() {
    for (name, config) in verify::FAMILIES {
        let model = verify::tiny(config, &DEVICE).unwrap();
        assert_eq!((&*model.spec().architecture, model.spec()), (name, golden_model(name).spec()));
    }
}

/// Runs the program on a golden model.
fn verified(family: &str, arguments: &[&str]) -> Output {
    let mut command = temper();
    command.args(["verify", "--model"]).arg(golden_dir(family)).args(arguments).env("HF_HUB_OFFLINE", "1");
    command.output().unwrap()
}

fn golden_file(family: &str) -> String {
    golden_dir(family).join("golden.safetensors").to_string_lossy().into_owned()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Every golden directory passes every check, whether its file is f32 or bf16, and the report says what was found.
#[test]
fn verify_passes_on_every_golden_model() {
    for family in ["llama", "qwen3", "qwen3_tied", "qwen3_5", "gemma4", "gemma4_keqv", "gemma4_wide"] {
        let output = verified(family, &["--golden", &golden_file(family), "--json"]);
        assert_eq!(output.status.code(), Some(0), "{family}\n{}{}", text(&output.stdout), text(&output.stderr));
        let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = facts["checks"].as_array().unwrap();
        assert_eq!(checks.len(), if family == "qwen3_5" { 17 } else { 16 }, "{family}");
        assert!(facts["passed"] == true && checks.iter().all(|check| check["passed"] == true), "{facts}");
        assert_eq!(checks[0]["name"], UNTOUCHED);
        assert_eq!(checks.last().unwrap()["name"], FOLDED);
        assert!(facts["threads"] == 1 && facts["kernels"].is_string() && facts["identity"]["device"] == "cpu");
    }
}

/// The table has a line per law, a verdict and a total; a check that was left out is never called ok.
#[test]
fn verify_prints_a_table() {
    let output = verified("llama", &["--quick"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("law ") && lines[0].ends_with("allowed"), "{table}");
    for (line, name) in lines[1..].iter().zip([UNTOUCHED, PACKED, DECODED, SITES, FIRED, EFFECTS, FINITE]) {
        assert!(line.starts_with(name) && line.contains(" 0         0  ok  "), "{line}");
    }
    assert!(lines[8].starts_with(FOLDED) && lines[8].contains("skipped") && !lines[8].contains(" ok "), "{table}");
    assert_eq!(lines[9..], ["7 checks hold, 1 skipped"]);
    let skipped = verified("llama", &["--quick", "--json"]);
    let facts: Value = serde_json::from_slice(&skipped.stdout).unwrap();
    assert!(facts["checks"][7]["passed"].is_null() && facts["passed"] == true, "{facts}");
}

/// The golden file of another model, of another geometry or with other weights, fails; the other checks are still reported.
#[test]
fn verify_fails_on_the_golden_file_of_another_model() {
    let output = verified("llama", &["--quick", "--golden", &golden_file("qwen3")]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    let line = table.lines().find(|line| line.starts_with("golden geometry")).unwrap();
    assert!(line.contains("FAILED") && line.contains("layer 0 has 6 heads x 12"), "{line}");
    assert!(table.ends_with("1 of 9 checks FAILED, 1 skipped\n"), "{table}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("golden.safetensors");
    std::fs::copy(golden_dir("llama").join("golden.json"), path.with_extension("json")).unwrap();
    let mut tensors = Golden::read("llama").tensors.clone();
    let logits = (&tensors["seq1.logits"] * 1.001).unwrap();
    tensors.insert("seq1.logits".into(), logits);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let output = verified("llama", &["--quick", "--json", "--golden", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<_> = facts["checks"].as_array().unwrap().iter().filter(|c| c["passed"] == false).collect();
    assert!(failed.len() == 1 && failed[0]["name"] == "golden logits", "{facts}");
    assert!(failed[0]["note"].as_str().unwrap().contains("worst at seq1"), "{facts}");
}

/// A file that is not a golden file is refused before the model is read.
#[test]
fn verify_refuses_what_is_no_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    };
    let junk = file("junk.safetensors", b"junk");
    std::fs::copy(golden_file("llama"), dir.path().join("alone.safetensors")).unwrap();
    let alone = dir.path().join("alone.safetensors").to_str().unwrap().to_string();
    std::fs::copy(golden_file("llama"), dir.path().join("empty.safetensors")).unwrap();
    file("empty.json", b"{}");
    let empty = dir.path().join("empty.safetensors").to_str().unwrap().to_string();
    let gone = dir.path().join("gone.safetensors").to_str().unwrap().to_string();
    for (path, part) in [
        (&gone, "gone.safetensors: No such file"),
        (&junk, "junk.safetensors: not a safetensors file"),
        (&alone, "alone.json: No such file"),
    ] {
        let output = verified("llama", &["--golden", path]);
        let message = text(&output.stderr);
        assert!(output.status.code() == Some(2) && output.stdout.is_empty(), "{message}");
        assert!(message.contains(part) && message.contains("hint: a golden file is"), "{message}");
    }
    let output = verified("llama", &["--golden", &empty]);
    let message = text(&output.stderr);
    assert!(output.status.code() == Some(2) && message.contains("it has no list 'layers' in its .json"), "{message}");
}

/// Doctor reports the machine, the build, and tiny models of every family; that there is a token, but never the token.
#[test]
fn doctor_says_what_is_there() {
    let run = |arguments: &[&str]| {
        let mut command = temper();
        command.arg("doctor").args(arguments).env("HF_TOKEN", "hf_secret").env("HF_HUB_OFFLINE", "1");
        command
            .env("HF_HUB_CACHE", "/somewhere/hub")
            .env("HEADTEMPER_SIMD", "portable")
            .env("HF_ENDPOINT", "http://hub");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
        assert!(!text(&output.stdout).contains("secret") && output.stderr.is_empty());
        text(&output.stdout).to_string()
    };
    let lines = run(&[]);
    for part in [
        "kernels    portable of portable",
        "(as HEADTEMPER_SIMD says)",
        "threads    1\n",
        "hub        http://hub, never asked (HF_HUB_OFFLINE), with a token\n",
        "cache      /somewhere/hub\n",
        "cpu        qwen3_5, tiny and random: 7 checks hold\n",
        "all checks hold\n",
    ] {
        assert!(lines.contains(part), "'{part}' is not in:\n{lines}");
    }
    let facts: Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(facts["kernels"]["used"], "portable");
    assert!(facts["hub"]["token"] == true && facts["hub"]["offline"] == true && facts["passed"] == true);
    let cpu = &facts["devices"][0];
    assert!(cpu["device"] == "cpu" && cpu["found"] == true);
    let models: Vec<_> = cpu["models"].as_array().unwrap().iter().map(|m| m["model"].as_str().unwrap()).collect();
    assert_eq!(models, FAMILIES);
    assert_eq!(cpu["models"][3]["checks"].as_array().unwrap().len(), LAWS.len());
}
