//! GGUF files: the same weights as safetensors give the same logits; every block type reads what it stores.

use std::{fs::File, io::Cursor};

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use headtemper_engine::{Engine, Input, ModelChoice};
use headtemper_hook::HeadKind;
use headtemper_model::{CausalLm, Checkpoint, Config, GgufFile, Held, HoldAs, load};
use headtemper_tests::{Golden, golden_dir, golden_model, read_through, worst};

/// The effect of rounding the tiniest weights to f16. Measured worst case: 3.8e-6 (2026-11-21).
const F16: f32 = 2e-5;
/// The rounding of undoing the converter's arithmetic: 1 + w, -exp(A_log). Measured worst case: 3.7e-5 (2026-11-21).
const UNDONE: f32 = 5e-4;
/// Against transformers on the weights as gguf-py dequantises them. Measured worst case: 1.7e-5 (2026-11-21).
const BLOCKS: f32 = 1e-4;

fn open(name: &str, file: &str) -> Box<dyn CausalLm> {
    load(&Checkpoint::Gguf(golden_dir(name).join(file)), Some(Held::F32), &Device::Cpu).unwrap()
}

/// Files written by the `gguf` package as llama.cpp's converter writes them, with its transforms, are the directory's model,
/// bit for bit where the file holds the same values.
#[test]
fn gguf_and_safetensors_are_the_same_model() {
    // The golden weights are bf16 values, and f16 holds all but the tiniest of them exactly.
    for (name, file, tolerance) in [
        ("llama", "model.f32.gguf", 0.0),
        ("llama", "model.f16.gguf", F16),
        ("qwen3", "model.bf16.gguf", 0.0),
        ("qwen3_5", "model.bf16.gguf", UNDONE),
        ("qwen3_5_even", "model.bf16.gguf", UNDONE),
        ("gemma4", "model.bf16.gguf", 0.0),
        ("gemma4_wide", "model.bf16.gguf", 0.0),
    ] {
        let directory = golden_model(name);
        let golden = Golden::read(name);
        let last = golden.meta["sequences"].as_array().unwrap().len() - 1;
        let ids = golden.ids(&format!("seq{last}.input_ids"));
        let (_, expected) = read_through(&*directory, &ids, None);
        let gguf = open(name, file);
        assert_eq!(gguf.spec(), directory.spec(), "{name}");
        let (_, logits) = read_through(&*gguf, &ids, None);
        let off = worst(&logits, &expected);
        println!("{name} {file}: {off:e} of {tolerance:e}");
        assert!(off <= tolerance, "{name} {file}: {off:e}");
    }
}

/// Tokenizer, template and stop tokens from the metadata are those of the directory.
#[test]
fn the_metadata_rebuilds_the_text_side() {
    let engine = |path: std::path::PathBuf| {
        let model = path.to_string_lossy().into_owned();
        Engine::open(&ModelChoice { model, device: "cpu".into(), ..ModelChoice::default() }).unwrap()
    };
    let (directory, gguf) = (engine(golden_dir("llama")), engine(golden_dir("llama").join("model.f32.gguf")));
    for text in ["the quick brown fox", "  two  spaces\n", "é 你好 12 345", "<|im_start|>user"] {
        let input = Input::Prompt(text.into());
        assert_eq!(directory.encode("x", &input, Some(text)).unwrap(), gguf.encode("x", &input, Some(text)).unwrap());
    }
    let ids: Vec<u32> = gguf.stop().ids().collect();
    assert!(directory.stop().ids().all(|id| ids.contains(&id)), "{ids:?}");
}

/// Block types as the `gguf` package quantises them, against transformers on the values it dequantises.
#[test]
fn block_types_are_what_gguf_py_dequantises() {
    let check = |name: &str, golden: &Golden, kinds: &[&str]| {
        let ids = golden.ids("input_ids");
        for kind in kinds {
            let (_, logits) = read_through(&*open(name, &format!("model.{kind}.gguf")), &ids, None);
            let off = worst(&logits.get(ids.len() - 1).unwrap(), golden.get(&format!("logits.{kind}")));
            println!("{name} {kind}: {off:e}, {:.0} % of the tolerance", 100.0 * off / BLOCKS);
            assert!(off <= BLOCKS, "{name} {kind}: {off:e}");
        }
    };
    let kinds = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "bf16"];
    check("llama-blocks", &Golden::read("llama-blocks"), &kinds);
    check("qwen3", &Golden::read_file("qwen3", "gguf"), &["q8_0"]);
    check("qwen3_5_even", &Golden::read_file("qwen3_5_even", "gguf"), &["q8_0"]);
    // The per-layer embeddings stay in blocks, and are read row by row.
    check("gemma4_wide", &Golden::read_file("gemma4_wide", "gguf"), &["q8_0", "q4_0"]);
}

/// K-quants, which no other writer at hand makes: candle quantises them, and the file is read as stored.
#[test]
fn k_quants_are_read_as_stored() {
    let path = golden_dir("llama-blocks").join("model.bf16.gguf");
    let bytes = std::fs::read(&path).unwrap();
    let content = gguf_file::Content::read(&mut Cursor::new(&bytes)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ids = Golden::read("llama-blocks").ids("input_ids");
    let write = |name: &str, kind: Option<GgmlDType>, plain: bool| {
        let mut tensors = Vec::new();
        for name in content.tensor_infos.keys().collect::<std::collections::BTreeSet<_>>() {
            let tensor = content.tensor(&mut Cursor::new(&bytes), name, &Device::Cpu).unwrap();
            let tensor = tensor.dequantize(&Device::Cpu).unwrap();
            // K-quants pack rows of 256 values: the output projection has them.
            let quantised = match kind.filter(|_| tensor.dims().get(1).is_some_and(|n| n % 256 == 0)) {
                Some(kind) => QTensor::quantize(&tensor, kind).unwrap(),
                None => QTensor::quantize(&tensor, GgmlDType::F32).unwrap(),
            };
            let stored = if plain {
                QTensor::quantize(&quantised.dequantize(&Device::Cpu).unwrap(), GgmlDType::F32).unwrap()
            } else {
                quantised
            };
            tensors.push((name.clone(), stored));
        }
        let metadata: std::collections::BTreeMap<_, _> = content.metadata.iter().collect();
        let metadata: Vec<_> = metadata.into_iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let file = dir.path().join(name);
        gguf_file::write(&mut File::create(&file).unwrap(), &metadata, &tensors).unwrap();
        let model = load(&Checkpoint::Gguf(file), Some(Held::F32), &Device::Cpu).unwrap();
        read_through(&*model, &ids, None).1
    };
    let exact: Tensor = write("exact.gguf", None, true);
    for kind in [GgmlDType::Q2K, GgmlDType::Q3K, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K] {
        let stored = write("stored.gguf", Some(kind), false);
        let values = write("values.gguf", Some(kind), true);
        assert_eq!(worst(&stored, &values), 0.0, "{kind:?}");
        assert!(worst(&stored, &exact) > 0.0, "{kind:?} must round something");
        let kept = load(&Checkpoint::Gguf(dir.path().join("stored.gguf")), HoldAs::Stored, &Device::Cpu);
        match kept {
            Ok(kept) => assert_eq!(worst(&read_through(&*kept, &ids, None).1, &values), 0.0, "{kind:?}, kept"),
            Err(error) => {
                let name = format!("{kind:?}").to_lowercase().replace('k', "_k");
                assert!(matches!(kind, GgmlDType::Q2K | GgmlDType::Q3K), "{kind:?}: {error}");
                assert!(error.to_string().contains(&format!("is stored as {name}, which weights are not held in")));
                assert!(error.hint().unwrap().contains("without --weights"), "{error}");
            }
        }
    }
}

/// A GGUF file with other metadata or more tensors.
pub(crate) fn rewritten(
    from: &std::path::Path,
    to: &std::path::Path,
    metadata: &[(&str, gguf_file::Value)],
    more: &[(&str, Tensor, GgmlDType)],
) {
    let bytes = std::fs::read(from).unwrap();
    let mut content = gguf_file::Content::read(&mut Cursor::new(&bytes)).unwrap();
    content.metadata.extend(metadata.iter().map(|(key, value)| (key.to_string(), value.clone())));
    let mut tensors: std::collections::BTreeMap<String, QTensor> = content
        .tensor_infos
        .keys()
        .map(|name| (name.clone(), content.tensor(&mut Cursor::new(&bytes), name, &Device::Cpu).unwrap()))
        .collect();
    for (name, tensor, kind) in more {
        tensors.insert(name.to_string(), QTensor::quantize(tensor, *kind).unwrap());
    }
    let metadata: std::collections::BTreeMap<_, _> = content.metadata.iter().collect();
    let metadata: Vec<_> = metadata.into_iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut File::create(to).unwrap(), &metadata, &tensors).unwrap();
}

/// A tensor or key that would change the numbers but is not supported is refused; a block that predicts further tokens is skipped.
#[test]
fn nothing_in_a_file_is_ignored_that_counts() {
    let lab = tempfile::tempdir().unwrap();
    let (file, llama) = (lab.path().join("m.gguf"), golden_dir("llama").join("model.f32.gguf"));
    let ones = Tensor::ones(6, DType::F32, &Device::Cpu).unwrap();
    let error = |metadata: &[(&str, gguf_file::Value)], more: &[(&str, Tensor, GgmlDType)]| -> String {
        rewritten(&llama, &file, metadata, more);
        load(&Checkpoint::Gguf(file.clone()), HoldAs::Native, &Device::Cpu).err().expect("must be refused").to_string()
    };
    // Llama 3 scales its positions by this tensor alone.
    let message = error(&[], &[("rope_freqs.weight", ones.clone(), GgmlDType::F32)]);
    assert!(message.contains("does not know: rope_freqs.weight"), "{message}");
    let message = error(&[], &[("blk.9.attn_norm.weight", ones, GgmlDType::F32)]);
    assert!(message.contains("does not know: blk.9.attn_norm.weight"), "{message}");
    for (key, value) in [
        ("llama.rope.scaling.type", gguf_file::Value::String("yarn".into())),
        ("llama.rope.scale_linear", gguf_file::Value::F32(4.0)),
        ("llama.rope.scaling.attn_factor", gguf_file::Value::F32(1.5)),
        ("llama.rope.scaling.factor", gguf_file::Value::F32(4.0)),
        ("llama.attention.causal", gguf_file::Value::Bool(false)),
        ("llama.logit_scale", gguf_file::Value::F32(0.5)),
        ("llama.expert_count", gguf_file::Value::U32(8)),
    ] {
        let message = error(&[(key, value)], &[]);
        assert!(message.contains(key) && message.contains("is supported"), "{message}");
    }

    // What scales nothing is no reason.
    let plain = gguf_file::Value::String("linear".into());
    rewritten(
        &llama,
        &file,
        &[("llama.rope.scaling.type", plain), ("llama.rope.scale_linear", gguf_file::Value::F32(1.0))],
        &[],
    );
    load(&Checkpoint::Gguf(file.clone()), HoldAs::Native, &Device::Cpu).unwrap();
    // A block of a decoder is none for further tokens, whatever the key says.
    let bias = Tensor::ones(72, DType::F32, &Device::Cpu).unwrap();
    let message = error(
        &[("llama.nextn_predict_layers", gguf_file::Value::U32(1))],
        &[("blk.3.attn_q.bias", bias, GgmlDType::F32)],
    );
    assert!(message.contains("does not know: blk.3.attn_q.bias"), "{message}");

    let even = golden_dir("qwen3_5_even").join("model.bf16.gguf");
    let one = gguf_file::Value::U32(1);
    let blocks = gguf_file::Value::U32(6);
    let projection = Tensor::ones((40, 80), DType::F32, &Device::Cpu).unwrap();
    rewritten(
        &even,
        &file,
        &[("qwen35.nextn_predict_layers", one), ("qwen35.block_count", blocks)],
        &[("blk.5.nextn.eh_proj.weight", projection, GgmlDType::F32)],
    );
    let further = load(&Checkpoint::Gguf(file.clone()), Some(Held::F32), &Device::Cpu).unwrap();
    assert_eq!(further.spec(), open("qwen3_5_even", "model.bf16.gguf").spec());
    // Newer converters say block by block which of them are recurrent, beside an interval that need not be true.
    let spec = open("qwen3_5_even", "model.bf16.gguf").spec().clone();
    let kinds = spec.layers.iter().map(|layer| gguf_file::Value::Bool(layer.kind() == HeadKind::Value)).collect();
    let block_by_block = [
        ("qwen35.attention.recurrent_layers", gguf_file::Value::Array(kinds)),
        ("qwen35.full_attention_interval", gguf_file::Value::U32(4)),
    ];
    rewritten(&even, &file, &block_by_block, &[]);
    assert_eq!(load(&Checkpoint::Gguf(file.clone()), Some(Held::F32), &Device::Cpu).unwrap().spec(), &spec);
    let without = [("qwen35.nextn_predict_layers", gguf_file::Value::U32(1))];
    rewritten(&even, &file, &without, &[]);
    let message =
        load(&Checkpoint::Gguf(file), HoldAs::Native, &Device::Cpu).err().expect("must be refused").to_string();
    assert!(message.contains("does not know: blk.4."), "{message}");
}

/// Every number of Gemma's rotary pairs is that of the file; what says otherwise, or is of another kind, is refused.
#[test]
fn gemma_turns_the_pairs_of_its_file() {
    let lab = tempfile::tempdir().unwrap();
    let (file, gemma) = (lab.path().join("m.gguf"), golden_dir("gemma4").join("model.bf16.gguf"));
    let config = |metadata: &[(&str, gguf_file::Value)], more: &[(&str, Tensor, GgmlDType)]| {
        rewritten(&gemma, &file, metadata, more);
        match Config::from_gguf(&GgufFile::open(&file).unwrap()) {
            Ok(Config::Gemma4(config)) => Ok(config),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(e.to_string()),
        }
    };
    let plain = config(&[], &[]).unwrap();
    let full = plain.layers.iter().find(|layer| !layer.sliding).unwrap().head_dim;
    let divisors = |turning: usize, of: usize| {
        let values: Vec<f32> = (0..of).map(|pair| if pair < turning { 1.0 } else { 1e30 }).collect();
        [("rope_freqs.weight", Tensor::new(values, &Device::Cpu).unwrap(), GgmlDType::F32)]
    };
    for turning in 1..=full / 2 {
        assert_eq!(config(&[], &divisors(turning, full / 2)).unwrap().full_turning, turning);
    }
    let half = config(&[], &divisors(1, full / 4)).unwrap_err();
    assert!(half.contains(&format!("rope_freqs.weight has {} values, but must have {}", full / 4, full / 2)), "{half}");
    for (key, value, part) in [
        ("gemma4.rope.dimension_count", gguf_file::Value::U32(2), "only"),
        ("gemma4.rope.dimension_count_swa", gguf_file::Value::U32(2), "only"),
        ("gemma4.rope.dimension_count", gguf_file::Value::Bool(true), "not a whole number"),
        ("gemma4.final_logit_softcapping", gguf_file::Value::String("30".into()), "not a number"),
        ("gemma4.block_count", gguf_file::Value::U64(1 << 40), "blocks cannot be made of"),
        ("tokenizer.ggml.eos_token_id", gguf_file::Value::U64((1 << 32) + 1), "is no id of the"),
    ] {
        let message = config(&[(key, value)], &[]).unwrap_err();
        assert!(message.contains(key) && message.contains(part), "{key}: {message}");
    }
    // A list is one value a block.
    let list = |count: usize| {
        let ones = vec![gguf_file::Value::U16(plain.heads as u16); count];
        [("gemma4.attention.head_count", gguf_file::Value::Array(ones))]
    };
    let blocks = plain.layers.len();
    assert_eq!(config(&list(blocks), &[]).unwrap().heads, plain.heads);
    assert!(config(&list(blocks - 1), &[]).unwrap_err().contains("a whole number for each block"));
    let few = [("gemma4.attention.head_count_kv", gguf_file::Value::Array(vec![gguf_file::Value::U32(1); blocks - 1]))];
    assert!(config(&few, &[]).unwrap_err().contains(&format!("needs {blocks} whole numbers")));
    let none = [("tokenizer.ggml.eos_token_id", gguf_file::Value::U32(u32::MAX))];
    assert_eq!(config(&none, &[]).unwrap().eos, Vec::<u32>::new());
    assert_eq!(config(&[("gemma4.final_logit_softcapping", gguf_file::Value::F32(0.0))], &[]).unwrap().softcap, None);
    // Images, videos and sounds are known by the texts of their tokens.
    let bytes = std::fs::read(&gemma).unwrap();
    let metadata = gguf_file::Content::read(&mut Cursor::new(&bytes)).unwrap().metadata;
    let mut tokens = metadata["tokenizer.ggml.tokens"].to_vec().unwrap().clone();
    let (image, sound) = (tokens.len() - 2, tokens.len() - 5);
    (tokens[image], tokens[sound]) =
        (gguf_file::Value::String("<|image|>".into()), gguf_file::Value::String("<|audio|>".into()));
    let config = config(&[("tokenizer.ggml.tokens", gguf_file::Value::Array(tokens))], &[]).unwrap();
    assert_eq!((plain.placeholders, config.placeholders), (vec![], vec![sound as u32, image as u32]));
}

/// A header that would have other bytes read as weights is refused.
#[test]
fn a_file_is_laid_out_as_its_header_says() {
    let lab = tempfile::tempdir().unwrap();
    let file = lab.path().join("m.gguf");
    let llama = golden_dir("llama").join("model.f32.gguf");
    let bytes = std::fs::read(&llama).unwrap();
    let opened = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        GgufFile::open(&file).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(opened(&bytes), Ok(()));
    let find = |what: &[u8]| bytes.windows(what.len()).position(|window| window == what).unwrap();
    // A tensor's name is followed by its number of dimensions, the dimensions, its type and its offset.
    let named = |name: &str| {
        let at = find(name.as_bytes()) + name.len();
        let dims = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        (at + 4, at + 4 + 8 * dims)
    };
    let with = |at: usize, value: &[u8]| {
        let mut changed = bytes.clone();
        changed[at..at + value.len()].copy_from_slice(value);
        opened(&changed).unwrap_err()
    };
    let (dims, kind) = named("blk.1.attn_q.weight");
    for offset in [0u64, 1, 1 << 40] {
        let message = with(kind + 4, &offset.to_le_bytes());
        assert!(message.contains("of the data, but must begin at"), "{offset}: {message}");
    }
    // F16 over values of F32: the tensor after it begins too late.
    assert!(with(kind, &1u32.to_le_bytes()).contains("must begin at"));
    assert!(with(kind, &2u32.to_le_bytes()).contains("has rows of 72 values, but blocks of 32"));
    assert!(with(dims + 8, &(1u64 << 62).to_le_bytes()).contains("is larger than any file"));
    let (twice, other) = (find(b"blk.1.attn_q.weight"), b"blk.0.attn_q.weight");
    assert!(with(twice, other).contains("'blk.0.attn_q.weight' stands there twice"));

    for (value, part) in [
        (gguf_file::Value::U32(0), "general.alignment is 0, but must be a power of two"),
        (gguf_file::Value::U32(24), "general.alignment is 24, but must be a power of two"),
        (gguf_file::Value::U64(32), "general.alignment must be a u32"),
    ] {
        // The library that writes the file aligns by 32, whatever the key says.
        rewritten(&llama, &file, &[("general.alignment", value)], &[]);
        let message = GgufFile::open(&file).map(drop).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    // Joined again, a file keeps the key.
    rewritten(&llama, &file, &[("split.count", gguf_file::Value::U16(0))], &[]);
    GgufFile::open(&file).unwrap();
    rewritten(&llama, &file, &[("split.count", gguf_file::Value::U16(2))], &[]);
    let message = GgufFile::open(&file).map(drop).unwrap_err().to_string();
    assert!(message.contains("split.count is 2: the file is one of several"), "{message}");
}

/// Matrices of several types are held in f32, which holds them all; matrices of one half-width type, in that type.
#[test]
fn mixed_types_are_not_rounded() {
    let lab = tempfile::tempdir().unwrap();
    let file = lab.path().join("m.gguf");
    let held = |path: &std::path::Path| {
        load(&Checkpoint::Gguf(path.into()), HoldAs::Native, &Device::Cpu).unwrap().holding().to_string()
    };
    assert_eq!(held(&golden_dir("qwen3").join("model.bf16.gguf")), "bf16");
    assert_eq!(held(&golden_dir("llama").join("model.f16.gguf")), "f16");
    // The taps of its convolutions are f32, in files of the converter as well.
    assert_eq!(held(&golden_dir("qwen3_5").join("model.bf16.gguf")), "bf16");
    let embedding = Tensor::ones((320, 128), DType::F32, &Device::Cpu).unwrap();
    let blocks = golden_dir("llama-blocks").join("model.q8_0.gguf");
    rewritten(&blocks, &file, &[], &[("token_embd.weight", embedding, GgmlDType::BF16)]);
    assert_eq!(held(&file), "f32");
}
