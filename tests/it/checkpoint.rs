//! Golden files of real checkpoints: the text side, tolerances that allow for noise, ties. The file is of a tiny wrapper, but
//! `scripts/golden/make_checkpoint.py` made it as for a real checkpoint.

use std::path::{Path, PathBuf};

use headtemper_engine::{
    Engine, ModelChoice,
    verify::{Check, Golden},
};
use headtemper_tests::{golden_dir, temper};
use serde_json::{Value, json};

const WRAPPER: &str = "gemma4_wrapper";
/// The checks of the text side.
const TOKENS: &str = "golden tokens";
const DECODED: &str = "golden decoded text";
const CHATS: &str = "golden chats";
const STOP: &str = "golden stop tokens";

fn path() -> PathBuf {
    golden_dir("checkpoint").join("golden.safetensors")
}

fn golden() -> Golden {
    Golden::read(&path()).unwrap()
}

fn open(path: &Path) -> Engine {
    let model = path.to_string_lossy().into_owned();
    Engine::open(&ModelChoice { model, device: "cpu".into(), ..ModelChoice::default() }).unwrap()
}

fn failed(checks: &[Check]) -> Vec<&str> {
    checks.iter().filter(|check| check.failed()).map(|check| &*check.name).collect()
}

#[test]
fn verify_compares_text_and_numbers() {
    let mut command = temper();
    command.args(["verify", "--quick", "--json", "--model"]).arg(golden_dir(WRAPPER)).arg("--golden").arg(path());
    let output = command.env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = facts["checks"].as_array().unwrap();
    let named = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap();
    for (name, note) in [
        (TOKENS, "56 texts, with and without special tokens"),
        (DECODED, "36 texts"),
        (CHATS, "12 chats"),
        (STOP, "{1, 5}"),
        ("golden geometry", "8 layers"),
        ("golden greedy tokens", "16 compared"),
    ] {
        assert!(named(name)["passed"] == true && named(name)["note"] == note, "{}", named(name));
    }
    assert!(named("golden tempered logits")["note"].as_str().unwrap().starts_with("12 compared"));
}

/// One error in the file fails one check, which names it.
#[test]
fn each_difference_of_texts_is_told() {
    let engine = open(&golden_dir(WRAPPER));
    assert!(failed(&golden().text_checks(&engine).unwrap()).is_empty());
    for (at, wrong, name, note) in [
        ("/text/texts/5/ids/0", json!(77), TOKENS, "1 of 56 differ: \"Hello world! 123\": "),
        (
            "/text/texts/5/decoded",
            json!("Hello"),
            DECODED,
            "1 of 36 differ: of \"Hello\": ' ' at 5, in the file the end",
        ),
        ("/text/decodes/2/text", json!("x"), DECODED, "1 of 36 differ: of \"x\": "),
        ("/text/chats/1/render", json!("<|im_start|>x"), CHATS, "1 of 12 differ: 'spaces': 'u' at 12, in the file 'x'"),
        ("/text/chats/1/ids/0", json!(77), CHATS, "'spaces': 4 at 0, in the file 77"),
        ("/text/chats/1/render", Value::Null, CHATS, "'spaces': refused in the file"),
        ("/text/chats/1/thinking", json!(true), CHATS, "'spaces', thinking: chat template of "),
        ("/text/stop", json!([5]), STOP, "1 ends one too; in the file {5}"),
        ("/text/stop/1", json!(6), STOP, "6 does not end a generation; in the file {1, 6}"),
    ] {
        let mut golden = golden();
        *golden.meta.pointer_mut(at).unwrap() = wrong;
        let checks = golden.text_checks(&engine).unwrap();
        assert_eq!(failed(&checks), [name], "{at}");
        let check = checks.iter().find(|check| check.failed()).unwrap();
        assert!(check.note.contains(note), "{at}: {}", check.note);
    }
    // The tokens with special tokens are also those that are decoded.
    let mut golden = golden();
    golden.meta["text"]["texts"][5]["special"] = json!([]);
    let checks = golden.text_checks(&engine).unwrap();
    assert_eq!(failed(&checks), [TOKENS, DECODED]);
    assert!(checks[0].note.contains("\"Hello world! 123\", special tokens added: "), "{}", checks[0].note);
    golden.meta["text"]["texts"][0]["ids"] = json!("none");
    let message = golden.text_checks(&engine).unwrap_err().to_string();
    assert!(message.contains("the section 'text' of its .json: invalid type"), "{message}");
    golden.meta["text"] = Value::Null;
    assert!(golden.text_checks(&engine).unwrap().is_empty());
}

/// Tiny weights with the text files of a family: thinking, refusals, a BOS.
fn family(name: &str) -> (tempfile::TempDir, Engine) {
    let temp = tempfile::tempdir().unwrap();
    for (dir, files) in [
        (golden_dir("llama"), &["config.json", "model.safetensors"][..]),
        (golden_dir("text").join(name), &["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]),
    ] {
        for file in files {
            std::fs::copy(dir.join(file), temp.path().join(file)).unwrap();
        }
    }
    let engine = open(temp.path());
    (temp, engine)
}

/// What transformers does with a family's text holds for that family, and for no other.
#[test]
fn every_family_is_told_by_its_text() {
    let families = ["smollm2", "qwen3", "qwen3_5", "gemma4"].map(|name| (name, family(name)));
    for (name, _) in &families {
        let file = std::fs::read_to_string(golden_dir("text").join(name).join("golden.json")).unwrap();
        let mut golden = golden();
        golden.meta["text"] = serde_json::from_str(&file).unwrap();
        golden.meta["text"]["decodes"] = json!([]);
        for (other, (_, engine)) in &families {
            golden.meta["text"]["stop"] = json!(engine.stop().ids().collect::<Vec<_>>());
            let checks = golden.text_checks(engine).unwrap();
            let expected = if name == other { vec![] } else { vec![TOKENS, DECODED, CHATS] };
            assert_eq!(failed(&checks), expected, "{name} read by {other}");
        }
    }
}

/// llama.cpp also stops at tokens known by name, so a GGUF file may have more stop tokens than transformers.
#[test]
fn a_gguf_may_stop_at_more() {
    let engine = open(&golden_dir("gemma4").join("model.bf16.gguf"));
    let ours: Vec<u32> = engine.stop().ids().collect();
    let mut golden = golden();
    for (stop, wrong) in [(json!(ours[1..]), &[][..]), (json!([ours[0], 200]), &[STOP])] {
        golden.meta["text"]["stop"] = stop;
        let checks = golden.text_checks(&engine).unwrap();
        let found: Vec<_> = failed(&checks).into_iter().filter(|name| *name == STOP).collect();
        assert_eq!(found, wrong);
    }
}

/// Noise widens the family's tolerance only in the file of a real checkpoint, and never as far as a fault moves.
#[test]
fn noise_allows_little_and_only_of_a_checkpoint() {
    let engine = open(&golden_dir(WRAPPER));
    let off = |by: f64, noise: f64, checkpoint: bool| {
        let mut golden = golden();
        let logits = (&golden.tensors["seq1.logits"] * (1.0 + by)).unwrap();
        golden.tensors.insert("seq1.logits".into(), logits);
        golden.meta["checks"]["float32_noise_logits"] = json!(noise);
        if !checkpoint {
            golden.meta["checkpoint"] = Value::Null;
        }
        let checks = golden.checks(engine.model()).unwrap();
        let check = checks.iter().find(|check| check.name == "golden logits").unwrap().clone();
        (check.failed(), check.note.contains("transformers' own float32 noise here is"))
    };
    assert_eq!(off(1e-4, 1e-6, true), (true, false));
    assert_eq!(off(1e-4, 1e-3, true), (false, true));
    assert_eq!(off(1e-4, 1e-3, false), (true, false));
    assert_eq!(off(1e-3, 1e9, true), (true, true));
}

/// A different greedy token is wrong, unless it was nearly tied.
#[test]
fn only_ties_excuse_another_token() {
    let engine = open(&golden_dir(WRAPPER));
    let mut golden = golden();
    let replace = |golden: &mut Golden, name: &str, at: usize, value: f64| {
        let tensor = &golden.tensors[name];
        let mut values: Vec<f64> = tensor.to_dtype(candle_core::DType::F64).unwrap().to_vec1().unwrap();
        values[at] = value;
        let new = candle_core::Tensor::new(values, tensor.device()).unwrap().to_dtype(tensor.dtype()).unwrap();
        golden.tensors.insert(name.into(), new);
    };
    let told = |golden: &Golden| {
        let checks = golden.checks(engine.model()).unwrap();
        let check = checks.iter().find(|check| check.name == "golden greedy tokens").unwrap();
        (check.measured.unwrap(), check.note.clone())
    };
    replace(&mut golden, "seq1.half.greedy", 3, 7.0);
    assert_eq!(told(&golden), (5.0, "16 compared, worst at seq1 half: another from token 3 on".into()));
    replace(&mut golden, "seq1.half.greedy_lead", 3, 1e-3);
    assert_eq!(told(&golden), (0.0, "16 compared, 123 of 128 tokens, up to 1 near ties".into()));
}
