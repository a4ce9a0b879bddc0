//! The real SmolLM2-135M-Instruct against transformers: tokens, hidden states, tempering, templates.
//!
//! The weights (98 MB) are fetched by `scripts/test.sh`, which also makes their absence a failure.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use headtemper_engine::{Engine, Event, GenerateOptions, Input, ModelChoice, Request, Sampling, StopRule};
use headtemper_hook::{HeadPlan, Site};
use headtemper_model::{Blocks, Checkpoint, Held, HoldAs, Weights};
use headtemper_tests::{Golden, golden_dir, read_through, worst};

use crate::quantised::logits;

/// Hidden states and logits of 30 layers in f32, against transformers on the same weights, whose own spread between
/// eager and SDPA attention is 7e-5 on logits. Measured worst case: 1.8e-4 on a residual stream, 4.2e-5 on logits (2026-11-21).
const REAL: f32 = 1e-3;

pub(crate) fn gguf_path() -> Option<PathBuf> {
    let root = golden_dir("..").join("..");
    let path = std::env::var_os("HEADTEMPER_MODEL")
        .map_or_else(|| root.join("models/SmolLM2-135M-Instruct.Q4_1.gguf"), PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("HEADTEMPER_REQUIRE_MODEL").is_none(), "the real model is missing; run scripts/test.sh");
    println!("skipped: {} is not there; scripts/test.sh fetches it", path.display());
    None
}

fn open(path: &std::path::Path, held: Held) -> Engine {
    let model = path.to_string_lossy().into_owned();
    Engine::open(&ModelChoice { model, precision: Some(held).into(), ..ModelChoice::default() }).unwrap()
}

fn greedy(engine: &Engine, ids: &[u32], plan: &HeadPlan) -> Vec<u32> {
    let request = Request {
        ids: ids.into(),
        plan: 0,
        sampling: Sampling::default(),
        noise: 0,
        max_new_tokens: 64,
        stop: StopRule::Model,
    };
    let mut tokens = Vec::new();
    engine
        .generate(&[request], std::slice::from_ref(plan), &GenerateOptions::default(), |event| {
            if let Event::Done { result, .. } = event {
                tokens.clone_from(&result.ids);
            }
            Ok(())
        })
        .unwrap();
    tokens
}

/// Compares all three prompts of one weight set: every layer's last hidden state, tempered h_last, greedy tokens.
fn parity(engine: &Engine, golden: &Golden, weights: &str) {
    let close = |what: &str, ours: &Tensor, theirs: &Tensor| {
        let off = worst(ours, theirs);
        println!("{weights} {what}: {off:e}, {:.0} % of the tolerance", 100.0 * off / REAL);
        assert!(off <= REAL, "{weights} {what}: {off:e}");
    };
    for (i, prompt) in golden.meta["prompts"].as_array().unwrap().iter().enumerate() {
        let ids: Vec<u32> = serde_json::from_value(prompt["ids"].clone()).unwrap();
        let text = prompt["user"].as_str().unwrap();
        let encoded = engine.encode("prompt", &Input::Prompt(text.into()), None).unwrap();
        assert_eq!(encoded.ids, ids, "template and tokenizer of '{text}'");
        let hidden = golden.get(&format!("{weights}.p{i}.hidden_last"));
        let (record, logits) = read_through(engine.model(), &ids, None);
        let layers = engine.spec().layers.len();
        for (site, x) in &record.0 {
            let index = match *site {
                Site::ResidPost(layer) if layer + 1 < layers => layer + 1,
                Site::FinalNorm => layers,
                _ => continue,
            };
            close(&format!("p{i} {site}"), &x.get(ids.len() - 1).unwrap(), &hidden.get(index).unwrap());
        }
        if let Some(theirs) = golden.tensors.get(&format!("{weights}.p{i}.logits_last")) {
            close(&format!("p{i} logits"), &logits.get(ids.len() - 1).unwrap(), theirs);
        }
        // transformers keeps the stop token at the end; we do not count it as part of the answer
        let expected = |value: &serde_json::Value| -> Vec<u32> {
            let mut tokens: Vec<u32> = serde_json::from_value(value["greedy"].clone()).unwrap();
            if tokens.last() == Some(&2) {
                tokens.pop();
            }
            tokens
        };
        assert_eq!(greedy(engine, &ids, &HeadPlan::none()), expected(&prompt[weights]), "p{i} greedy");
        for set in ["half", "zero"] {
            let plan = golden.plan(set);
            let (record, _) = read_through(engine.model(), &ids, Some(&plan));
            let h_last = record.0.last().unwrap().1.get(ids.len() - 1).unwrap();
            close(&format!("p{i} {set} h_last"), &h_last, golden.get(&format!("{weights}.p{i}.{set}.h_last")));
            assert_eq!(greedy(engine, &ids, &plan), expected(&prompt[weights][set]), "p{i} {set} greedy");
        }
    }
}

#[test]
fn the_gguf_is_transformers() {
    let Some(path) = gguf_path() else { return };
    parity(&open(&path, Held::F32), &Golden::read("smollm2-135m"), "gguf");
}

/// Blocks kept as stored give the same bits and tokens as the weights widened to f32.
#[test]
fn the_gguf_kept_as_it_is_computes_what_it_does_in_f32() {
    let Some(path) = gguf_path() else { return };
    let golden = Golden::read("smollm2-135m");
    let model = path.to_string_lossy().into_owned();
    let choice = ModelChoice { model, precision: HoldAs::Stored.into(), ..ModelChoice::default() };
    let (kept, wide) = (Engine::open(&choice).unwrap(), open(&path, Held::F32));
    assert_eq!(kept.identity().dtype, "stored (q4_1, q8_0)");
    assert!(logits(kept.model()) == logits(wide.model()));
    for prompt in golden.meta["prompts"].as_array().unwrap() {
        let ids: Vec<u32> = serde_json::from_value(prompt["ids"].clone()).unwrap();
        let tokens = |engine| greedy(engine, &ids, &HeadPlan::none());
        assert_eq!(tokens(&kept), tokens(&wide));
    }
    // 576 features are 18 blocks of 32, but not a whole number of blocks of 256.
    let of = |blocks| ModelChoice { precision: Held::Blocks(blocks).into(), ..choice.clone() };
    assert_eq!(Engine::open(&of(Blocks::Q8_0)).unwrap().identity().dtype, "q8_0");
    let error = Engine::open(&of(Blocks::Q4K)).err().expect("must be refused").to_string();
    assert!(error.contains("rows of 576 features, which are no whole blocks of q4_k: a block holds 256"), "{error}");
}

/// Writes the GGUF's weights as a directory in Hugging Face form, rounded to bf16, as the hub ships them.
fn as_directory(path: &std::path::Path, engine: &Engine, dir: &std::path::Path) {
    let spec = engine.spec();
    let mut weights = Weights::open(&Checkpoint::Gguf(path.into()), Some(Held::F32), &Device::Cpu).unwrap();
    let mut tensors = std::collections::HashMap::new();
    let (d, mlp) = (spec.d_model, 1536);
    let mut keep = |name: String, rows: usize, columns: usize| {
        let tensor = match columns {
            0 => weights.vector(&name, rows, 1.0).unwrap(),
            _ => weights.matrix(&name, rows, columns).unwrap().to_tensor().unwrap(),
        };
        tensors.insert(name, tensor.to_dtype(DType::BF16).unwrap());
    };
    keep("model.embed_tokens.weight".into(), spec.vocab, d);
    keep("model.norm.weight".into(), d, 0);
    for layer in 0..spec.layers.len() {
        let parts = [
            ("input_layernorm", d, 0),
            ("post_attention_layernorm", d, 0),
            ("self_attn.q_proj", 576, d),
            ("self_attn.k_proj", 192, d),
            ("self_attn.v_proj", 192, d),
            ("self_attn.o_proj", d, 576),
            ("mlp.gate_proj", mlp, d),
            ("mlp.up_proj", mlp, d),
            ("mlp.down_proj", d, mlp),
        ];
        for (part, rows, columns) in parts {
            keep(format!("model.layers.{layer}.{part}.weight"), rows, columns);
        }
    }
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors")).unwrap();
    let config = serde_json::json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": d, "intermediate_size": mlp,
        "num_hidden_layers": spec.layers.len(), "num_attention_heads": 9, "num_key_value_heads": 3,
        "max_position_embeddings": spec.context, "rms_norm_eps": 1e-5, "rope_theta": 100_000,
        "rope_scaling": null, "tie_word_embeddings": true, "vocab_size": spec.vocab, "torch_dtype": "bfloat16",
        "eos_token_id": 2, "bos_token_id": 1,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.join("tokenizer.json"), engine.tokenizer().to_json().unwrap()).unwrap();
    std::fs::write(dir.join("chat_template.jinja"), engine.template().unwrap().source()).unwrap();
}

/// The directory form: bf16 as stored gives what bf16 widened to f32 gives, both match transformers, and candle's own
/// Llama agrees.
#[test]
fn the_bf16_directory_is_transformers_and_candles_llama() {
    let Some(path) = gguf_path() else { return };
    let dir = tempfile::tempdir().unwrap();
    as_directory(&path, &open(&path, Held::F32), dir.path());
    let golden = Golden::read("smollm2-135m");
    let (held, widened) = (open(dir.path(), Held::Bf16), open(dir.path(), Held::F32));
    parity(&held, &golden, "bf16");
    let ids: Vec<u32> = serde_json::from_value(golden.meta["prompts"][1]["ids"].clone()).unwrap();
    let (_, from_bf16) = read_through(held.model(), &ids, None);
    let (_, from_f32) = read_through(widened.model(), &ids, None);
    assert_eq!(worst(&from_bf16, &from_f32), 0.0, "weights in bf16 are exact f32 arithmetic on their values");
    let off = worst(&from_f32.get(ids.len() - 1).unwrap(), &candle_llama(dir.path(), &ids));
    println!("candle's Llama: {off:e}, {:.0} % of the tolerance", 100.0 * off / REAL);
    assert!(off <= REAL, "{off:e}");
}

/// Logits of the last token by `candle_transformers::models::llama`.
fn candle_llama(dir: &std::path::Path, ids: &[u32]) -> Tensor {
    use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
    let config: LlamaConfig = serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap();
    let config = config.into_config(false);
    let tensors = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let vars = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let llama = Llama::load(vars, &config).unwrap();
    let mut cache = Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
    let input = Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    llama.forward(&input, 0, &mut cache).unwrap().squeeze(0).unwrap()
}

/// Token vectors seen with the hub's own tokenizer; the file's metadata must rebuild them.
#[test]
fn the_tokenizer_is_the_hubs() {
    let Some(path) = gguf_path() else { return };
    let engine = open(&path, Held::F32);
    let vectors: [(&str, &[u32]); 6] = [
        ("The capital of France is", &[504, 3575, 282, 4649, 314]),
        ("Hello, we can use", &[19556, 28, 392, 416, 722]),
        ("Hello world! 123", &[19556, 905, 17, 216, 33, 34, 35]),
        ("Café déjà vu.", &[51, 1939, 2756, 32564, 90, 16739, 386, 101, 30]),
        ("  multiple   spaces", &[216, 2701, 256, 5600]),
        ("\n", &[198]),
    ];
    for (text, ids) in vectors {
        assert_eq!(engine.tokenizer().encode(text, true).unwrap(), ids, "'{text}'");
        assert_eq!(engine.tokenizer().decode(ids).unwrap(), text);
    }
    assert_eq!(engine.stop().ids().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(engine.spec().parameters, 134_515_008);
}
