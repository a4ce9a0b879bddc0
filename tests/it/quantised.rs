//! Weights held in ggml blocks: the outputs are those of the dequantised weights in f32, bit for bit, and files say what is held.

use std::{fs, path::Path};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, gguf_file},
};
use headtemper_model::{Blocks, CausalLm, Checkpoint, Held, HoldAs, Loaded, load};
use headtemper_tests::{golden_dir, golden_model, read_through, temper};
use serde_json::Value;

use crate::gguf::rewritten;

fn open(path: &Path, hold: impl Into<HoldAs>) -> Loaded<Box<dyn CausalLm>> {
    load(&Checkpoint::Gguf(path.into()), hold.into(), &Device::Cpu)
}

/// Logits of 40 tokens at once, which widens panels in memory, and of the first token alone, which widens in registers.
pub(crate) fn logits(model: &dyn CausalLm) -> [Vec<u32>; 2] {
    let vocab = model.spec().vocab as u32;
    let ids: Vec<u32> = (0..40).map(|i: u32| i.wrapping_mul(7919) % vocab).collect();
    [&ids[..], &ids[..1]].map(|ids| {
        let (_, logits) = read_through(model, ids, None);
        logits.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    })
}

#[test]
fn a_file_that_is_kept_computes_what_it_does_in_f32() {
    for (name, file, held) in [
        ("llama-blocks", "model.q4_0.gguf", "stored (q4_0)"),
        ("llama-blocks", "model.q4_1.gguf", "stored (q4_1)"),
        ("llama-blocks", "model.q5_0.gguf", "stored (q5_0)"),
        ("llama-blocks", "model.q5_1.gguf", "stored (q5_1)"),
        ("llama-blocks", "model.q8_0.gguf", "stored (q8_0)"),
        ("llama-blocks", "model.bf16.gguf", "stored (bf16)"),
        ("qwen3", "model.q8_0.gguf", "stored (q8_0)"),
        ("qwen3_5", "model.bf16.gguf", "stored (bf16)"),
        ("qwen3_5_even", "model.q8_0.gguf", "stored (q8_0, f16)"),
        ("gemma4_wide", "model.q8_0.gguf", "stored (q8_0, f16, bf16)"),
        ("gemma4_wide", "model.q4_0.gguf", "stored (q4_0, f16, bf16)"),
    ] {
        let path = golden_dir(name).join(file);
        let (kept, wide) = (open(&path, HoldAs::Stored).unwrap(), open(&path, Held::F32).unwrap());
        assert_eq!(kept.holding().to_string(), held, "{name} {file}");
        assert!(kept.holding().bytes() < wide.holding().bytes(), "{name} {file}");
        assert_eq!(kept.spec(), wide.spec());
        assert!(logits(&*kept) == logits(&*wide), "{name} {file}");
    }
}

/// A fused matrix whose parts are stored in different types, like v in K_M files, keeps each part as it is.
#[test]
fn fused_parts_of_several_types_are_kept() {
    let lab = tempfile::tempdir().unwrap();
    let (file, blocks) = (lab.path().join("m.gguf"), golden_dir("llama-blocks").join("model.q4_0.gguf"));
    let v = matrices(&blocks).into_iter().find(|(name, _)| name == "blk.0.attn_v.weight").unwrap();
    rewritten(&blocks, &file, &[], &[("blk.0.attn_v.weight", v.1, GgmlDType::Q8_0)]);
    let (kept, wide) = (open(&file, HoldAs::Stored).unwrap(), open(&file, HoldAs::Native).unwrap());
    assert_eq!((kept.holding().to_string(), wide.holding().to_string()), ("stored (q4_0, q8_0)".into(), "f32".into()));
    assert!(logits(&*kept) == logits(&*wide));
}

/// The matrices of a file, dequantised, by their names in the file.
fn matrices(path: &Path) -> Vec<(String, Tensor)> {
    let mut bytes = std::io::Cursor::new(fs::read(path).unwrap());
    let content = gguf_file::Content::read(&mut bytes).unwrap();
    let names = content.tensor_infos.iter().filter(|(_, info)| info.shape.rank() == 2);
    names
        .map(|(name, _)| {
            let tensor = content.tensor(&mut bytes, name, &Device::Cpu).unwrap();
            (name.clone(), tensor.dequantize(&Device::Cpu).unwrap())
        })
        .collect()
}

/// Weights quantised here, or by candle into a file that is then read in f32, make the same model.
#[test]
fn weights_are_rounded_once_and_nothing_else() {
    let lab = tempfile::tempdir().unwrap();
    let (file, exact) = (lab.path().join("m.gguf"), golden_dir("llama-blocks").join("model.bf16.gguf"));
    let all = matrices(&exact);
    let of = |path: &Path, hold: HoldAs| logits(&*open(path, hold).unwrap());
    let unrounded = of(&exact, Held::F32.into());
    for blocks in [Blocks::Q8_0, Blocks::Q4_0, Blocks::Q4_1, Blocks::Q5_0, Blocks::Q5_1] {
        let quantised: Vec<_> = all.iter().map(|(name, w)| (name.as_str(), w.clone(), blocks.ggml())).collect();
        rewritten(&exact, &file, &[], &quantised);
        let held = Held::Blocks(blocks).into();
        let (here, there) = (of(&exact, held), of(&file, Held::F32.into()));
        // A row of llama's q and k is quantised the same wherever it is.
        assert!(here == there, "{blocks}");
        assert!(here != unrounded, "{blocks} must round something");
        // Weights stored in the type that is asked for are kept, not rounded again.
        assert!(of(&file, held) == here, "{blocks}, again");
    }
    // Random weights are rounded in the same way.
    let checkpoint = Checkpoint::Random { config: golden_dir("qwen3_5_even"), seed: 1 };
    let error = load(&checkpoint, Held::Blocks(Blocks::Q8_0), &Device::Cpu).err().expect("rows of 48 and 40");
    assert!(error.to_string().contains("no whole blocks of q8_0: a block holds 32"), "{error}");
    let checkpoint = Checkpoint::Random { config: golden_dir("qwen3"), seed: 1 };
    let model = load(&checkpoint, Held::Blocks(Blocks::Q8_0), &Device::Cpu).unwrap();
    assert!(model.holding().is_all(Held::Blocks(Blocks::Q8_0)), "{}", model.holding());
}

fn said(line: &str) -> (Option<i32>, String, String) {
    let output = temper().args(line.split_whitespace()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Types that a matrix cannot be held in are refused by name, with what would be allowed.
#[test]
fn what_cannot_be_held_is_refused() {
    let llama = golden_dir("llama").display().to_string(); // 72 features
    for verb in ["inspect --weights q8_0", "generate x --max-new-tokens 1 --dtype q4_k"] {
        let (code, _, stderr) = said(&format!("{verb} --model {llama}"));
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("has rows of 72 features, which are no whole blocks of q"), "{stderr}");
        assert!(stderr.contains("--weights f32, bf16 and f16 hold rows of any length"), "{stderr}");
    }
    let blocks = golden_dir("llama-blocks").join("model.bf16.gguf").display().to_string(); // 128 features
    let (_, _, stderr) = said(&format!("inspect --model {blocks} --weights q4_k"));
    assert!(stderr.contains("a block holds 256") && stderr.contains("--weights q8_0"), "{stderr}");
    let (code, _, stderr) = said(&format!("inspect --model {blocks} --weights q3_0"));
    assert!(code == Some(2) && stderr.contains("q8_0") && stderr.contains("stored"), "{stderr}");
    let (code, _, stderr) = said(&format!("bench --model {blocks} --weights q8_0 --products bf16"));
    assert!(code == Some(2) && stderr.contains("not in q8_0 on the CPU"), "{stderr}");
}

/// Every output names what is held, and counts its bytes.
#[test]
fn outputs_say_what_is_held() {
    let blocks = golden_dir("llama-blocks").join("model.q4_1.gguf").display().to_string();
    let facts = |line: &str| -> Value {
        let (code, stdout, stderr) = said(&format!("{line} --model {blocks} --json"));
        assert_eq!(code, Some(0), "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    };
    let (kept, eight, wide) = (facts("inspect --weights stored"), facts("inspect --weights q8_0"), facts("inspect"));
    assert_eq!(
        [&kept["dtype"], &eight["dtype"], &wide["dtype"]],
        ["stored (q4_1)", "q8_0", "f32"].map(Value::from).each_ref()
    );
    let bytes = |facts: &Value| facts["weight_bytes"].as_u64().unwrap();
    assert!(bytes(&kept) * 6 < bytes(&wide) && bytes(&eight) * 3 < bytes(&wide), "{kept:#} {eight:#}");
    let bench = facts("bench --weights stored --prompt-tokens 4 --new-tokens 2 --rows 1 --repeat 1");
    assert_eq!(bench["dtype"], "stored (q4_1)");
    assert!((bench["weights_mb"].as_f64().unwrap() * 1e6 - bytes(&kept) as f64).abs() < 1.0, "{bench}");
    // A directory's matrices are kept too.
    let directory = load(&Checkpoint::Directory(golden_dir("qwen3")), HoldAs::Stored, &Device::Cpu).unwrap();
    assert!(logits(&*directory) == logits(&*golden_model("qwen3")));
}
