//! Narrow models whose heads have the sizes of real checkpoints: the kernels that are made for those sizes run inside a model, where the
//! golden models' heads go to those for any size.
//!
//! On a CUDA device the models are held in bf16, and compared with the CPU, which computes in f32 with the same weights. On a CPU, where bf16 is
//! the weights' type alone, they are compared with weights in f32. Gemma 4 is not among them: it does not scale its scores down, so that under
//! random weights even a rounding of these decides between tokens (6e-3 of a cosine in its second full layer).

use std::{fs, path::Path};

use candle_core::{DType, Tensor};
use candle_nn::ops::log_softmax;
use headtemper_engine::{
    Engine, Event, GenerateOptions, Generated, ModelChoice, Precision, Request, Sampling, StopRule, verify,
};
use headtemper_hook::{HeadList, HeadPlan};
use headtemper_model::Held;
use headtemper_tests::{DEVICE, farther, golden_dir};
use serde_json::{Value, json};

/// Largest distance of a token's z or residual stream from the CPU's, as 1 - cosine. Measured worst case: 2.2e-3 on the
/// stand-in driver (2026-11-29).
const APART: f64 = 6e-3;
/// Largest difference of an answer's log-probability a token from that of the CPU, which reads the answer at once, in nats. Measured worst
/// case: 8.3e-3 there.
const NATS: f64 = 2e-2;

/// A configuration of a real model and what is made small in it: everything but the heads and how layers follow each other.
fn thin() -> Vec<(&'static str, &'static str, Value)> {
    let mixed = ["linear_attention", "linear_attention", "full_attention"];
    vec![
        ("smollm2-135m", "L0H1:0.25", json!({"num_hidden_layers": 2, "head_dim": 64})),
        ("qwen3-0.6b", "L0H1:0.25", json!({"num_hidden_layers": 2, "max_window_layers": 2})),
        ("qwen3.5-0.8b", "L0V1:0.25,L2H3:0.5", json!({"num_hidden_layers": 3, "layer_types": mixed})),
    ]
}

/// The model with seeded weights, on this device.
fn open(dir: &Path, name: &str, small: &Value, (device, held): (&str, Held)) -> Engine {
    let file = golden_dir("../../configs/models").join(format!("{name}.json"));
    let mut config: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let text = if config.get("text_config").is_some() { &mut config["text_config"] } else { &mut config };
    let narrow =
        json!({"hidden_size": 64, "intermediate_size": 64, "vocab_size": 320, "max_position_embeddings": 1100});
    for (key, value) in narrow.as_object().unwrap().iter().chain(small.as_object().unwrap()) {
        assert!(text.get(key).is_some() || key == "head_dim", "{name} has no {key}");
        text[key] = value.clone();
    }
    let file = dir.join("config.json");
    fs::write(&file, config.to_string()).unwrap();
    let model = file.to_string_lossy().into_owned();
    let (precision, device) = (Precision::from(held), device.into());
    Engine::open(&ModelChoice { model, precision, device, random: Some(1), ..ModelChoice::default() }).unwrap()
}

/// The engine that is tested, and what it is compared with.
fn both(dir: &Path, name: &str, small: &Value) -> (Engine, Engine) {
    let (device, beside) = if DEVICE.is_cpu() { ("cpu", Held::F32) } else { ("cuda", Held::Bf16) };
    (open(dir, name, small, (device, Held::Bf16)), open(dir, name, small, ("cpu", beside)))
}

fn plan(heads: &str) -> HeadPlan {
    HeadList::parse(heads).unwrap().plan(None).unwrap()
}

fn text(len: usize, seed: usize) -> Vec<u32> {
    (0..len).map(|t| (3 + (t * t * 7 + t * 13 + seed * 31) % 311) as u32).collect()
}

/// 1 - cosine of the rows of two tensors that are farthest apart.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let rows = |x: &Tensor| {
        let width = x.elem_count() / x.dim(0).unwrap();
        let x = x.to_device(&candle_core::Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        x.reshape(((), width)).unwrap().to_vec2::<f64>().unwrap()
    };
    rows(a).iter().zip(&rows(b)).fold(0.0, |worst, (a, b)| farther(worst, 1.0 - headtemper_stats::cosine(a, b)))
}

#[test]
fn prompts_are_read_as_on_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    for (name, heads, small) in thin() {
        let (engine, cpu) = both(dir.path(), name, &small);
        let mut worst = 0.0;
        for (len, tempered) in [(100, false), (100, true), (1, true), (33, true)] {
            let (ids, plan) = (text(len, len), tempered.then(|| plan(heads)));
            let read = |engine: &Engine| verify::read_through(engine.model(), &ids, plan.as_ref()).unwrap();
            let ((ours, logits), (theirs, expected)) = (read(&engine), read(&cpu));
            assert_eq!(ours.0.len(), theirs.0.len());
            let sites = ours.0.iter().zip(&theirs.0).map(|((site, ours), (other, theirs))| {
                assert_eq!(site, other);
                (site.to_string(), apart(ours, theirs))
            });
            for (site, off) in sites.chain([("logits".into(), apart(&logits, &expected))]) {
                assert!(off <= APART, "{name}, {len} tokens, {site}: {off:e}");
                worst = farther(worst, off);
            }
        }
        println!("{name}: {worst:e} of {APART:e}");
    }
}

/// Rows of several lengths, one of which passes 512 keys, each under a plan: what is decoded, in recorded steps on a GPU,
/// is as likely as the CPU finds it in reading the whole answer under the plan.
#[test]
fn answers_are_as_likely_as_on_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    for (name, heads, small) in thin() {
        let (engine, cpu) = both(dir.path(), name, &small);
        let plans = [HeadPlan::none(), plan(heads)];
        let hot = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
        let request = |(i, &len): (usize, &usize)| Request {
            ids: text(len, i).into(),
            plan: i % 2,
            sampling: if i > 1 { hot.clone() } else { Sampling::default() },
            noise: i as u64,
            max_new_tokens: 12 + i,
            stop: StopRule::Never,
        };
        let requests: Vec<Request> = [3, 70, 505, 40].iter().enumerate().map(request).collect();
        let mut answers: Vec<Option<Generated>> = vec![None; requests.len()];
        let before = engine.plays();
        let done = |event: Event<'_>| {
            if let Event::Done { row, result } = event {
                answers[row] = Some(result.clone());
            }
            Ok(())
        };
        engine
            .generate(&requests, &plans, &GenerateOptions { max_rows: 3, ..GenerateOptions::default() }, done)
            .unwrap();
        assert_eq!(engine.plays() > before, !DEVICE.is_cpu(), "{name}: whether steps were played");
        let mut worst = 0.0;
        for (row, (request, answer)) in requests.iter().zip(&answers).enumerate() {
            let answer = answer.as_ref().unwrap();
            assert_eq!(answer.ids.len(), request.max_new_tokens, "{name} row {row}");
            let (ids, prompt) = ([&request.ids[..], &answer.ids].concat(), request.ids.len());
            let (_, logits) =
                verify::read_through(cpu.model(), &ids, (request.plan == 1).then_some(&plans[1])).unwrap();
            let logprobs = log_softmax(&logits.to_dtype(DType::F64).unwrap(), 1).unwrap().to_vec2::<f64>().unwrap();
            let expected = (prompt..ids.len()).map(|at| logprobs[at - 1][ids[at] as usize]).sum::<f64>();
            worst = farther(worst, (answer.sum_logprob - expected).abs() / answer.ids.len() as f64);
        }
        println!("{name}: {worst:e} nats a token of {NATS:e}");
        assert!(worst <= NATS, "{name}: {worst:e} nats a token");
    }
}
