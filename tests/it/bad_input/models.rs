//! Models that are not there, or not what their files say.

use std::{collections::HashMap, fs};

use candle_core::{DType, Device, Tensor};
use headtemper_tests::golden_dir;
use serde_json::Value;

use super::{Bench, assert_refused};

fn find(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).expect("the file holds it")
}

/// Directories whose weights are missing, cut short, or of another model.
#[test]
fn weights_that_do_not_belong() {
    let bench = Bench::new();
    let dir = bench.copy_model("m");
    let file = dir.join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    let inspect = "inspect --model m";

    fs::remove_file(&file).unwrap();
    bench.refused("bench --model m", &["m holds no model.safetensors and no model.safetensors.index.json"]);
    bench.done(inspect); // inspect reports what the configuration promises
    for (bytes, parts) in [
        (&whole[..whole.len() - 1000], &["model.safetensors is truncated", "fetch the file again"][..]),
        (&whole[..100], &["model.safetensors is truncated", "100 bytes"]),
        (&whole[..0], &["model.safetensors is truncated", "0 bytes"]),
        (&b"\x08\0\0\0\0\0\0\0not json"[..], &["model.safetensors is not a valid safetensors file"]),
    ] {
        fs::write(&file, bytes).unwrap();
        bench.refused(inspect, parts);
    }

    let index = dir.join("model.safetensors.index.json");
    fs::remove_file(&file).unwrap();
    fs::write(&index, r#"{"weight_map":{"model.norm.weight":"part-2.safetensors"}}"#).unwrap();
    bench.refused(inspect, &["part-2.safetensors is missing", "model.safetensors.index.json names it"]);
    fs::write(&index, "{}").unwrap();
    bench.refused(inspect, &["model.safetensors.index.json is not a valid safetensors index", "weight_map"]);
    fs::write(&file, &whole).unwrap();
    bench.done(inspect); // a single file takes precedence over an index
}

/// Tensors that are missing, too many, of another shape or of another type.
#[test]
fn tensors_that_do_not_fit() {
    let bench = Bench::new();
    let dir = bench.copy_model("m");
    let file = dir.join("model.safetensors");
    let whole = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let refused = |edit: &dyn Fn(&mut HashMap<String, Tensor>), parts: &[&str]| {
        let mut tensors = whole.clone();
        edit(&mut tensors);
        candle_core::safetensors::save(&tensors, &file).unwrap();
        bench.refused("inspect --model m", parts);
    };
    let zeros = |shape: (usize, usize), dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let q = "model.layers.1.self_attn.q_proj.weight";
    refused(
        &|t| drop(t.insert(q.into(), zeros((72, 60), DType::F32))),
        &[q, "shape [72, 60]", "asks for [72, 72]", "different models"],
    );
    refused(&|t| drop(t.insert(q.into(), zeros((72, 72), DType::F64))), &[q, "F64", "readable are F32, F16, BF16"]);
    refused(&|t| drop(t.remove(q)), &[q, "has no tensor"]);
    refused(
        &|t| drop(t.insert("model.layers.1.self_attn.q_norm.weight".into(), zeros((1, 12), DType::F32))),
        &["m holds tensors that the architecture does not know: model.layers.1.self_attn.q_norm.weight"],
    );
}

/// GGUF files that are cut short, hold types that candle cannot read, or are of another architecture.
#[test]
fn gguf_files_that_cannot_be_read() {
    let bench = Bench::new();
    let whole = fs::read(golden_dir("llama").join("model.f32.gguf")).unwrap();
    let refused = |bytes: &[u8], parts: &[&str]| {
        bench.write("m.gguf", bytes);
        bench.refused("inspect --model m.gguf", parts);
    };
    for cut in [3, 20, 1000] {
        refused(&whole[..cut], &["m.gguf is truncated", "header is cut short", "fetch the file again"]);
    }
    refused(&[], &["m.gguf is truncated"]);
    refused(&whole[..whole.len() - 1], &["m.gguf is truncated: tensor '", "fetch the file again"]);
    refused(&whole[..whole.len() / 2], &["m.gguf is truncated: tensor '"]);
    refused(b"PK\x03\x04 something else entirely", &["m.gguf is not a valid GGUF file"]);

    let name = b"blk.1.attn_q.weight";
    let info = find(&whole, name) + name.len();
    let dims = u32::from_le_bytes(whole[info..info + 4].try_into().unwrap()) as usize;
    let mut bytes = whole.clone();
    bytes[info + 4 + 8 * dims..][..4].copy_from_slice(&23u32.to_le_bytes());
    refused(&bytes, &["m.gguf", "ggml type 23 (IQ4_XS)", "readable are F32, F16, BF16, Q4_0", "Q4_K_M"]);

    let mut bytes = whole.clone();
    let key = find(&whole, b"general.architecture") + b"general.architecture".len();
    bytes[key + 12..key + 17].copy_from_slice(b"mamba"); // after the type and the length of the text
    refused(&bytes, &["m.gguf is of architecture 'mamba'", "supported are llama"]);

    let mut bytes = whole;
    let at = find(&bytes, b"llama.rope.freq_base");
    bytes[at..at + 5].copy_from_slice(b"xxxxx");
    refused(&bytes, &["m.gguf has no key 'llama.rope.freq_base'"]);
    bench.write("m.bin", "x");
    bench.refused("inspect --model m.bin", &["m.bin is neither a model directory nor a .gguf file"]);
}

/// Configurations of other architectures, without a key, or with settings that we cannot honour.
#[test]
fn configurations_that_are_not_ours() {
    let bench = Bench::new();
    let file = bench.copy_model("m").join("config.json");
    let whole: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let refused = |edit: &dyn Fn(&mut Value), parts: &[&str]| {
        let mut config = whole.clone();
        edit(&mut config);
        fs::write(&file, config.to_string()).unwrap();
        bench.refused("inspect --model m", parts);
    };
    let remove = |key: &'static str| move |config: &mut Value| drop(config.as_object_mut().unwrap().remove(key));
    refused(&|c| c["model_type"] = "gpt2".into(), &["config.json is of architecture 'gpt2'", "supported are llama"]);
    for key in ["model_type", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings", "vocab_size"] {
        refused(&remove(key), &[&format!("config.json has no key '{key}'")]);
    }
    refused(
        &|c| drop(c["rope_parameters"].as_object_mut().unwrap().remove("rope_theta")),
        &["config.json has no key 'rope_parameters.rope_theta'"],
    );
    refused(&remove("rope_parameters"), &["config.json has no key 'rope_theta'"]);
    refused(&|c| c["rope_parameters"]["rope_type"] = "yarn".into(), &["rope_type is \"yarn\"", "only \"default\""]);
    refused(&|c| c["hidden_act"] = "gelu".into(), &["hidden_act is \"gelu\"", "only \"silu\" is supported"]);
    refused(&|c| c["num_key_value_heads"] = 4.into(), &["6 query heads cannot share 4 key/value heads"]);
    refused(&|c| c["num_hidden_layers"] = 5.into(), &["has no tensor 'model.layers.4."]);
    refused(&|c| c["num_hidden_layers"] = 3.into(), &["does not know: model.layers.3.", "and 4 more"]);
    fs::write(&file, "{\"model_type\":").unwrap();
    bench.refused("inspect --model m", &["config.json is not a valid config.json"]);
    fs::remove_file(&file).unwrap();
    bench.refused("inspect --model m", &["cannot read m/config.json"]);
}

/// Tokenizers and chat templates that are missing or broken; `--raw` needs no template.
#[test]
fn texts_that_cannot_become_tokens() {
    let bench = Bench::new();
    let dir = bench.copy_model("m");
    let template = dir.join("chat_template.jinja");
    fs::remove_file(&template).unwrap();
    let parts = ["m has no chat template", "give --raw"];
    bench.refused("generate --model m hi", &parts);
    bench.refused("generate --model m --items q.jsonl", &parts);
    bench.refused("capture --model m --items q.jsonl --out out.npz", &parts);
    bench.refused("sweep --model m --items q.jsonl --out out --heads L0H0 --lambda 1", &parts);
    bench.done("generate --model m hi --raw --max-new-tokens 1");
    bench.done("generate --model m --items q.jsonl --raw --max-new-tokens 1");

    fs::write(&template, "{{ raise_exception('roles must alternate') }}").unwrap();
    bench.refused("generate --model m hi", &["chat template of m", "roles must alternate"]);
    bench.done("generate --model m hi --raw --max-new-tokens 1");
    fs::write(&template, "{% for m in messages %}").unwrap();
    bench.refused("generate --model m hi", &["chat template of m"]);
    fs::remove_file(&template).unwrap();

    let tokenizer = dir.join("tokenizer.json");
    fs::write(&tokenizer, "{}").unwrap();
    bench.refused("inspect --model m", &["tokenizer of m", "tokenizer.json"]);
    fs::remove_file(&tokenizer).unwrap();
    bench.refused("inspect --model m", &["tokenizer of m: tokenizer.json is missing"]);
}

/// A model that overflows: no NaN or infinity on stdout or in a file.
#[test]
fn what_overflows_is_no_result() {
    let bench = Bench::new();
    let file = bench.copy_model("m").join("model.safetensors");
    let sound = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    // With the second factor everything is finite except the squares in norms, which would turn the states into zeros.
    for factor in [f64::INFINITY, 1e25] {
        let mut weights = sound.clone();
        let large = weights.get_mut("model.layers.0.mlp.down_proj.weight").unwrap();
        *large = (&*large * factor).unwrap();
        candle_core::safetensors::save(&weights, &file).unwrap();
        bench.refused("generate --model m hi", &["not numbers"]);
        bench.refused("capture --model m --items q.jsonl --out out.npz", &["item", "not numbers"]);
        for plain in ["", " --plain"] {
            let line = format!(
                "score --model m --items c.jsonl --heads L0H1 --lambda 0 --out s{factor}{}{plain}",
                plain.trim()
            );
            let parts = ["item '0' untempered gave", "not numbers", "hint: `temper verify`"];
            assert_refused(&line, &bench.run(&line), &parts);
        }
    }
    // With these weights the model is sound, but not under every λ: the head and λ are named too.
    let mut weights = sound.clone();
    let large = weights.get_mut("model.layers.0.self_attn.o_proj.weight").unwrap();
    *large = (&*large * 1e15).unwrap();
    candle_core::safetensors::save(&weights, &file).unwrap();
    for plain in ["", " --plain"] {
        let line = format!("score --model m --items c.jsonl --heads L0H1 --out t{} --shuffles 9{plain}", plain.trim());
        bench.done(&format!("{line} --lambda 0"));
        let parts = ["item '0' under L0H1:1000000 gave", "not numbers", "hint: `temper verify`", "a smaller |λ|"];
        assert_refused(&line, &bench.run(&format!("{line} --lambda 1000000")), &parts);
    }
}

/// Weights that are not numbers give no result, wherever they are: attention must not drop them on the way.
#[test]
fn weights_that_are_no_numbers() {
    let bench = Bench::new();
    for (dir, name) in [("q", "layers.0.self_attn.q_proj"), ("k", "layers.1.self_attn.k_proj"), ("g", "mlp.gate_proj")]
    {
        let weights = bench.copy_model(dir).join("model.safetensors");
        let mut bytes = fs::read(&weights).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let (_, tensor) = header.as_object().unwrap().iter().find(|(key, _)| key.contains(name)).unwrap();
        assert_eq!(tensor["dtype"], "F32");
        let from = 8 + length + tensor["data_offsets"][0].as_u64().unwrap() as usize;
        bytes[from..from + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&weights, bytes).unwrap();
        let line = format!("capture --model {dir} --items c.jsonl --out {dir}.npz");
        assert_refused(&line, &bench.run(&line), &["not numbers"]);
        let line = format!("generate --model {dir} hi --max-new-tokens 2");
        assert_refused(&line, &bench.run(&line), &["not numbers"]);
        assert_eq!(bench.run(&format!("verify --quick {dir}")).status.code(), Some(1), "{dir}");
    }
    let tokenizer = bench.copy_model("t").join("tokenizer.json");
    let text = fs::read_to_string(&tokenizer).unwrap();
    fs::write(&tokenizer, &text[..text.find("\"decoder\"").unwrap() + 12]).unwrap();
    bench.refused("generate --model t hi", &["tokenizer of t", "tokenizer.json: "]);
}

/// Models, devices and revisions that are not there.
#[test]
fn models_that_are_not_there() {
    let bench = Bench::new();
    for model in ["./gone", "/nowhere/gone", "gone", "a/b/c", "gone.gguf"] {
        let named = format!("model '{model}' is neither a directory, nor a .gguf file, nor a hub id");
        bench.refused(&format!("inspect --model {model}"), &[&named, "HuggingFaceTB/SmolLM2-135M-Instruct"]);
    }
    fs::create_dir(bench.path("empty")).unwrap();
    bench.refused(
        "inspect --model empty",
        &["cannot read empty/config.json", "hint: a model is a directory with config.json"],
    );
    fs::create_dir_all(bench.path("models--a--b/snapshots/1")).unwrap();
    bench.refused("inspect --model models--a--b", &["hint: this is a folder of the hub's cache: give the model's id"]);
    fs::write(bench.path("empty/m.gguf"), "x").unwrap();
    bench.refused("inspect --model empty", &["hint: give the file itself: empty/m.gguf"]);
    bench.refused("inspect q.jsonl", &["q.jsonl is neither a model directory nor a .gguf file"]);
    bench.refused("inspect --model M --revision main", &["revision is main", "left out for a local path"]);
    bench.refused("inspect", &["<MODEL>"]);
    bench.refused("generate --model M hi --thinking on", &["it has no thinking switch", "off or left to the template"]);
    bench.refused("generate --model M hi --raw --thinking off", &["--raw", "cannot be used with"]);
    for unused in
        ["inspect M --thinking on", "bench --model M --thinking on", "export M --dtype f32 --plan L0H0:1 --out o"]
    {
        bench.refused(unused, &["unexpected argument"]);
    }
    bench.done("generate --model M hi --thinking off --max-new-tokens 1");
    bench.write("ids.jsonl", "{\"input_ids\":[7,8]}\n{\"input_ids\":[9]}\n");
    let unused =
        ["--thinking, or thinking of [model], is off", "where no item's prompt goes through the chat template"];
    bench.refused("generate --model M --items ids.jsonl --thinking off", &unused);
    bench.refused("sweep --model M --items ids.jsonl --thinking off --heads L0H0 --lambda 0 --out s", &unused);
    bench.refused("capture --model M --items ids.jsonl --thinking off --out i.npz", &unused);
    bench.write("both.jsonl", "{\"input_ids\":[7,8]}\n{\"prompt\":\"hi\"}\n");
    bench.done("capture --model M --items both.jsonl --thinking off --out i.npz --part-items 1");
    bench.refused("bench --model gone.json --random 1", &["'gone.json' is no config.json", "random weights"]);
    bench.refused("bench --model M --random 1 --revision main", &["random weights are made from that"]);
    bench.refused("inspect --model M --device tpu", &["device 'tpu'", "auto, cpu, cuda, cuda:N and metal"]);
    bench.refused("inspect --model M --device cuda:x", &["device 'cuda:x'", "not a number"]);
    if !candle_core::utils::cuda_is_available() {
        for device in ["cuda", "cuda:1"] {
            let named = format!("device '{device}' cannot be used: this binary was built without CUDA");
            bench.refused(&format!("inspect --model M --device {device}"), &[&named, "--device cpu"]);
        }
    }
}
