//! Forms of checkpoints and configurations found in the wild: read as transformers reads them, or refused by name.

use std::{collections::HashMap, fs};

use candle_core::{Device, Tensor};
use headtemper_hook::HeadPlan;
use headtemper_model::{Checkpoint, Held, HoldAs, fold_file, load};
use headtemper_tests::{golden_dir, golden_model, read_through, worst};
use serde_json::{Value, json};

use crate::lab::Lab;

/// Settings that another variant of a family would need are refused by name.
#[test]
fn variants_that_are_not_ours_are_refused() {
    let lab = Lab::new();
    // Replaces a key of the configuration, given by its path, with a value; `None` removes it.
    let refusal = |family: &str, path: &str, value: &Option<Value>| -> String {
        let text = fs::read_to_string(golden_dir(family).join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = config.pointer_mut(parent).unwrap();
        match (value, parent) {
            (Some(value), Value::Array(list)) => list[key.parse::<usize>().unwrap()] = value.clone(),
            (Some(value), parent) => parent[key] = value.clone(),
            (None, parent) => drop(parent.as_object_mut().unwrap().remove(key)),
        }
        lab.write("config.json", config.to_string());
        lab.ends(2, "inspect config.json").1
    };
    let set = |value: Value| Some(value);
    for (family, path, value, parts) in [
        ("qwen3", "/model_type", set(json!("qwen3_moe")), ["'qwen3_moe'", "supported are llama, qwen3"]),
        ("qwen3_5_wrapper", "/model_type", set(json!("qwen3_5_moe")), ["'qwen3_5_moe'", "qwen3_5"]),
        ("qwen3_5_wrapper", "/model_type", set(json!("qwen3_5_vision")), ["'qwen3_5_vision'", "supported are"]),
        ("gemma4", "/enable_moe_block", set(json!(true)), ["enable_moe_block is true", "only false"]),
        ("gemma4_wrapper", "/text_config", set(Value::Null), ["text_config is null", "an object"]),
        ("qwen3", "/use_sliding_window", set(json!(true)), ["use_sliding_window is true", "only false"]),
        ("qwen3", "/layer_types/2", set(json!("sliding_attention")), ["\"sliding_attention\"", "full_attention"]),
        ("qwen3_5", "/layer_types/0", set(json!("mamba")), ["\"mamba\"", "full_attention or linear_attention"]),
        ("gemma4", "/layer_types/0", set(json!("chunked")), ["\"chunked\"", "sliding_attention or full_attention"]),
        ("qwen3_5", "/layer_types", set(json!(["full_attention"])), ["1 layer_types for 8 layers", "config.json"]),
        ("qwen3_5", "/linear_num_value_heads", set(json!(3)), ["3 value heads cannot share", "2 key heads"]),
        (
            "gemma4",
            "/per_layer_config/0",
            set(json!({"head_dim": 12, "sliding_window": 4})),
            ["per_layer_config is \"sliding_window\"", "only head_dim and num_key_value_heads"],
        ),
        (
            "gemma4",
            "/vocab_size_per_layer_input",
            set(json!(100)),
            ["embeddings for 100 tokens (vocab_size_per_layer_input)", "but the vocabulary has 320"],
        ),
        (
            "gemma4",
            "/per_layer_config/1",
            set(json!({"head_dim": 8, "num_key_value_heads": 2})),
            ["sliding attention layers have heads of", "but must have one head_dim"],
        ),
        ("gemma4", "/num_kv_shared_layers", set(json!(7)), ["layer 2 has no earlier layer", "to share keys with"]),
        (
            "gemma4_wrapper",
            "/text_config/final_logit_softcapping",
            None,
            ["no key", "text_config.final_logit_softcapping"],
        ),
        ("llama", "/is_causal", set(json!(false)), ["is_causal is false", "only true"]),
        ("llama", "/quantization_config", set(json!({"bits": 4})), ["quantization_config is", "only null"]),
        ("qwen3", "/rope_scaling", set(json!({"rope_type": "yarn", "factor": 4})), ["rope_scaling is", "only null"]),
        ("qwen3", "/rope_scaling", set(json!({"rope_type": "default"})), ["rope_scaling is", "only null"]),
        (
            "gemma4",
            "/rope_parameters/full_attention/factor",
            set(json!(8.0)),
            ["full_attention.factor is 8.0", "only 1"],
        ),
        (
            "qwen3_5",
            "/rope_parameters/partial_rotary_factor",
            set(json!(0.01)),
            ["the rotary width is 0", "configuration"],
        ),
        ("llama", "/max_position_embeddings", set(json!(0)), ["max_position_embeddings is 0", "configuration"]),
        (
            "gemma4",
            "/rope_parameters/full_attention/rope_type",
            set(json!("yarn")),
            ["rope_parameters.full_attention.rope_type is \"yarn\"", "only \"proportional\""],
        ),
    ] {
        let message = refusal(family, path, &value);
        for part in parts {
            assert!(message.contains(part), "{family} {path}: '{part}' is not in {message}");
        }
    }
    // A file with only the weights of a vision tower
    let tower: HashMap<String, Tensor> =
        candle_core::safetensors::load(golden_dir("gemma4_wrapper").join("model.safetensors"), &Device::Cpu).unwrap();
    let tower = tower.into_iter().filter(|(name, _)| name.contains("vision_tower")).collect();
    candle_core::safetensors::save(&tower, lab.path("model.safetensors")).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(golden_dir("gemma4_wrapper").join(name), lab.path(name)).unwrap();
    }
    let message = lab.ends(2, "inspect .").1;
    assert!(message.contains("has no tensor 'model.layers.0."), "{message}");
}

/// Forms of checkpoints found in the wild, each read as transformers reads it.
#[test]
fn checkpoints_are_read_as_transformers_reads_them() {
    let device = Device::Cpu;
    let lab = tempfile::tempdir().unwrap();
    let (dir, file) = (lab.path(), lab.path().join("model.safetensors"));
    let base = golden_dir("llama");
    let whole = candle_core::safetensors::load(base.join("model.safetensors"), &device).unwrap();
    let config: Value = serde_json::from_str(&fs::read_to_string(base.join("config.json")).unwrap()).unwrap();
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let open = || load(&Checkpoint::Directory(dir.into()), None, &device).unwrap();
    let parameters = golden_model("llama").spec().parameters;
    let ids = [9u32, 20, 31];

    // An output head that is stored although it is tied: a copy changes nothing, other values are used as the head.
    let embedding = &whole["model.embed_tokens.weight"];
    let mut tensors = whole.clone();
    tensors.insert("lm_head.weight".into(), embedding.clone());
    candle_core::safetensors::save(&tensors, &file).unwrap();
    assert_eq!(open().spec().parameters, parameters);
    tensors.insert("lm_head.weight".into(), (embedding * 2.0).unwrap());
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let model = open();
    assert_eq!(model.spec().parameters, parameters + embedding.elem_count());
    let (_, base_logits) = read_through(&*golden_model("llama"), &ids, None);
    assert_eq!(worst(&read_through(&*model, &ids, None).1, &(base_logits * 2.0).unwrap()), 0.0);

    // Matrices of several types are held in the type that can hold them all.
    for (kinds, held) in [
        ([candle_core::DType::BF16, candle_core::DType::BF16], Held::Bf16),
        ([candle_core::DType::BF16, candle_core::DType::F32], Held::F32),
    ] {
        let cast = |(name, tensor): (&String, &Tensor)| {
            let kind = kinds[usize::from(name.ends_with("o_proj.weight"))];
            (name.clone(), tensor.to_dtype(kind).unwrap())
        };
        let tensors: HashMap<String, Tensor> = whole.iter().map(cast).collect();
        candle_core::safetensors::save(&tensors, &file).unwrap();
        assert!(open().holding().is_all(held));
    }

    // A single file takes precedence over an index that names others.
    fs::write(dir.join("model.safetensors.index.json"), r#"{"weight_map":{"a":"gone.safetensors"}}"#).unwrap();
    assert_eq!(open().spec().parameters, parameters);

    // A tensor in two shards is one if its values are; of two that differ, none is known to be the right one.
    fs::write(dir.join("model.safetensors.index.json"), r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#)
        .unwrap();
    let mut bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    (1..=2).for_each(|shard| fs::write(dir.join(format!("{shard}.safetensors")), &bytes).unwrap());
    assert_eq!(open().spec().parameters, parameters);
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(dir.join("2.safetensors"), &bytes).unwrap();
    let error = load(&Checkpoint::Directory(dir.into()), None, &device).err().unwrap().to_string();
    assert!(error.contains("2.safetensors") && error.contains("has other values than in shard 1"), "{error}");
}

/// A base model that was saved without the head, which is tied to its embedding: its tensors lie one level higher, in a wrapped decoder too.
#[test]
fn base_models_are_read_as_transformers_reads_them() {
    let (device, lab, ids) = (Device::Cpu, tempfile::tempdir().unwrap(), [9u32, 20, 31]);
    let (dir, file) = (lab.path(), lab.path().join("model.safetensors"));
    let bare = |name: &str| {
        let whole = candle_core::safetensors::load(golden_dir(name).join("model.safetensors"), &device).unwrap();
        let renamed = whole.into_iter().map(|(name, x)| (name.strip_prefix("model.").unwrap_or(&name).to_string(), x));
        let tensors: HashMap<String, Tensor> = renamed.collect();
        assert!(tensors.keys().all(|name| !name.starts_with("model.")));
        candle_core::safetensors::save(&tensors, &file).unwrap();
        fs::read_to_string(golden_dir(name).join("config.json")).unwrap()
    };
    let open = |config: &str| {
        fs::write(dir.join("config.json"), config).unwrap();
        load(&Checkpoint::Directory(dir.into()), Some(Held::F32), &device)
    };
    for (name, head) in [("llama", "L1H1"), ("qwen3_5_wrapper", "L2V3"), ("gemma4_wrapper", "L4H2")] {
        let config = bare(name);
        let here = open(&config).unwrap();
        let (_, logits) = read_through(&*golden_model(name), &ids, None);
        assert_eq!(worst(&read_through(&*here, &ids, None).1, &logits), 0.0, "{name}");
        let to = lab.path().join("folded.safetensors");
        let plan = HeadPlan::uniform(&[head.parse().unwrap()], 0.3).unwrap();
        let folded = fold_file(&file, &to, &plan, here.spec()).unwrap();
        assert_eq!(folded.changed.len(), 1, "{name}: {:?}", folded.changed);
        let (_, hooked) = read_through(&*here, &ids, Some(&plan));
        fs::copy(to, &file).unwrap();
        let there = read_through(&*open(&config).unwrap(), &ids, None).1;
        let size = worst(&hooked, &logits);
        assert!(worst(&hooked, &there) < 1e-2 * size, "{name}: {:?} is not {head}", folded.changed);
    }
    // A copy of the embedding as the head changes nothing. A head of its own cannot be made up.
    let mut config: Value = serde_json::from_str(&bare("llama")).unwrap();
    let mut tensors = candle_core::safetensors::load(&file, &device).unwrap();
    tensors.insert("lm_head.weight".into(), tensors["embed_tokens.weight"].clone());
    candle_core::safetensors::save(&tensors, &file).unwrap();
    assert_eq!(open(&config.to_string()).unwrap().spec().parameters, golden_model("llama").spec().parameters);
    bare("llama");
    config["tie_word_embeddings"] = json!(false);
    let error = open(&config.to_string()).err().unwrap().to_string();
    assert!(error.contains("has no tensor 'lm_head.weight'"), "{error}");
}

/// Gemma 4: sizes of single layers under keys that are padded with zeros, and a last layer that is always full attention.
#[test]
fn gemma_4_configurations_are_read_as_transformers_reads_them() {
    let lab = tempfile::tempdir().unwrap();
    let config = lab.path().join("config.json");
    let text = fs::read_to_string(golden_dir("gemma4").join("config.json")).unwrap();
    let spec = |edit: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_str(&text).unwrap();
        edit(&mut value);
        fs::write(&config, value.to_string()).unwrap();
        Checkpoint::Random { config: config.clone(), seed: 0 }.promised(HoldAs::Native, &Device::Cpu).unwrap().0
    };
    let plain = spec(&|_| ());
    let padded = spec(&|c| {
        c["per_layer_config"] = json!({"02": {"head_dim": 32}, "04": {"head_dim": 32}, "07": {"head_dim": 32}});
    });
    assert_eq!(padded, plain);
    assert_eq!(spec(&|c| c["layer_types"][7] = "sliding_attention".into()), plain);
    let hub = fs::read_to_string(golden_dir("gemma4_wrapper").join("config.json")).unwrap();
    let hub_spec = |heads: Value| {
        let mut value: Value = serde_json::from_str(&hub).unwrap();
        value["text_config"]["num_global_key_value_heads"] = heads;
        fs::write(&config, value.to_string()).unwrap();
        Checkpoint::Random { config: config.clone(), seed: 0 }.promised(HoldAs::Native, &Device::Cpu).unwrap().0
    };
    // Global layers have their own number of key heads only where keys serve as values.
    assert_eq!(hub_spec(json!(2)), hub_spec(Value::Null));
}
