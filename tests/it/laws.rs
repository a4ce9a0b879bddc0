//! The laws of design: what must hold for every architecture, on the CPU mostly bit for bit.

use candle_core::{DType, Device, Tensor};
use headtemper_engine::{Engine, Event, GenerateOptions, Generated, ModelChoice, Request, Sampling};
use headtemper_hook::{Batch, HeadPlan, HeadRef, HeadScale, Recorder, Span, Tap, Tee};
use headtemper_model::{CausalLm, Checkpoint, load};
use headtemper_tests::{Golden, golden_dir, golden_model, in_pieces, read_through, worst};

/// Scaling z against scaling the columns of W_o, relative to the largest logit: the products round differently.
/// Measured worst case: 2.3e-7 (2026-11-21).
const FOLDED: f32 = 1e-5;

fn ids(seq: usize) -> Vec<u32> {
    Golden::read("llama").ids(&format!("seq{seq}.input_ids"))
}

fn plan(entries: &[(usize, usize, f32)]) -> HeadPlan {
    HeadPlan::new(entries.iter().map(|&(layer, head, lambda)| (HeadRef::query(layer, head), lambda))).unwrap()
}

fn scale(model: &dyn CausalLm, plans: &[HeadPlan]) -> HeadScale {
    HeadScale::compile(plans, model.spec(), DType::F32, &Device::Cpu).unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// No tap = an empty tap = an observing tap = λ 1 on every head, bit for bit, in prefill and in decode.
#[test]
fn no_tap_is_lambda_one() {
    let model = golden_model("llama");
    let everywhere = HeadPlan::uniform(&model.spec().slots(), 1.0).unwrap();
    let ids = ids(2);
    let pieces = [ids.len() - 3, 1, 1, 1];
    let bare = in_pieces(&*model, &ids, &pieces, &mut ());
    let mut one = scale(&*model, &[everywhere]);
    let mut watching = Recorder::default();
    let taps: [&mut dyn Tap; 3] = [&mut Tee(Vec::new()), &mut watching, &mut one];
    for tap in taps {
        assert_eq!(bits(&in_pieces(&*model, &ids, &pieces, tap)), bits(&bare));
    }
    one.check_fired().unwrap();
}

/// Scaling a head's z is scaling its columns of W_o, and does something.
#[test]
fn scaling_z_is_folding_lambda_into_the_weights() {
    let (layer, head, lambda) = (2, 4, 0.3);
    let model = golden_model("llama");
    let dim = model.spec().layers[layer].heads.dim;
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(golden_dir("llama").join(name), dir.path().join(name)).unwrap();
    }
    let mut tensors =
        candle_core::safetensors::load(golden_dir("llama").join("model.safetensors"), &Device::Cpu).unwrap();
    let name = format!("model.layers.{layer}.self_attn.o_proj.weight");
    let w = &tensors[&name];
    let factor: Vec<f32> =
        (0..w.dim(1).unwrap()).map(|column| if column / dim == head { lambda } else { 1.0 }).collect();
    let folded = w.broadcast_mul(&Tensor::new(factor, &Device::Cpu).unwrap()).unwrap();
    tensors.insert(name, folded);
    candle_core::safetensors::save(&tensors, dir.path().join("model.safetensors")).unwrap();
    let folded = load(&Checkpoint::Directory(dir.path().into()), None, &Device::Cpu).unwrap();

    let ids = ids(2);
    let (_, hooked) = read_through(&*model, &ids, Some(&plan(&[(layer, head, lambda)])));
    let (_, weights) = read_through(&*folded, &ids, None);
    let (_, base) = read_through(&*model, &ids, None);
    let size: f32 = base.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
    let off = worst(&hooked, &weights) / size;
    println!("folded: {off:e} of {FOLDED:e}");
    assert!(off <= FOLDED, "{off:e}");
    assert!(worst(&hooked, &base) / size > 1000.0 * FOLDED, "the edit must be far from nothing");
}

/// A row in any batch, at any place, beside any others, under its own plan, is the row alone: bit for bit.
#[test]
fn the_lambda_grid_as_rows_is_separate_runs() {
    let model = golden_model("llama");
    let plans = [plan(&[]), plan(&[(0, 1, 0.5)]), plan(&[(3, 3, -0.5), (1, 2, 0.0)]), plan(&[(0, 1, 1.0)])];
    let sequences = [ids(1), ids(0), ids(2), ids(1)];
    let alone: Vec<Vec<u32>> = sequences
        .iter()
        .zip(&plans)
        .map(|(ids, plan)| {
            let mut tap = scale(&*model, std::slice::from_ref(plan));
            bits(&in_pieces(&*model, ids, &[ids.len()], &mut tap))
        })
        .collect();
    for order in [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]] {
        let spans = order.iter().enumerate();
        let spans = spans.map(|(slot, &i)| Span { slot, start: 0, len: sequences[i].len(), row: i }).collect();
        let batch = Batch::new(spans);
        let packed: Vec<u32> = order.iter().flat_map(|&i| sequences[i].clone()).collect();
        let mut cache = model.new_cache(4, 64).unwrap();
        let mut tap = scale(&*model, &plans);
        let packed = Tensor::new(packed, &Device::Cpu).unwrap();
        let hidden = model.forward(&packed, &batch, &mut cache, &mut tap).unwrap();
        for ((_, range), &i) in batch.ranges().zip(&order) {
            let row = hidden.narrow(0, range.start, range.len()).unwrap();
            assert_eq!(bits(&row), alone[i], "sequence {i} in order {order:?}");
        }
    }
}

/// Prefill and decode with the cache are one full forward, under a plan: bit for bit.
#[test]
fn decode_with_the_cache_is_one_forward() {
    let model = golden_model("llama");
    let ids = ids(2);
    let plans = [plan(&[(0, 0, 0.25), (1, 5, 1.75), (2, 1, 0.0)])];
    let whole = in_pieces(&*model, &ids, &[ids.len()], &mut scale(&*model, &plans));
    for pieces in [vec![1; ids.len()], vec![17, 1, 1, ids.len() - 19], vec![ids.len() - 1, 1]] {
        let parts = in_pieces(&*model, &ids, &pieces, &mut scale(&*model, &plans));
        assert_eq!(bits(&parts), bits(&whole), "in pieces {pieces:?}");
    }
}

fn engine() -> Engine {
    let model = golden_dir("llama").to_string_lossy().into_owned();
    Engine::open(&ModelChoice { model, device: "cpu".into(), ..ModelChoice::default() }).unwrap()
}

fn generate(
    engine: &Engine,
    requests: &[Request],
    plans: &[HeadPlan],
    max_rows: usize,
    prefill: usize,
) -> Vec<Generated> {
    let mut results = vec![None; requests.len()];
    let options = GenerateOptions { max_rows, prefill_tokens: prefill, stop: None };
    engine
        .generate(requests, plans, &options, |event| {
            if let Event::Done { row, result } = event {
                assert!(results[row].replace(result.clone()).is_none(), "row {row} was reported twice");
            }
            Ok(())
        })
        .unwrap();
    results.into_iter().map(|result| result.expect("every row is reported")).collect()
}

/// What is generated does not depend on how many rows run together, nor on how prompts are read; greedy or sampled.
#[test]
fn generation_does_not_depend_on_the_batch() {
    let engine = engine();
    let plans = [plan(&[]), plan(&[(0, 1, 0.0), (2, 4, 0.0)])];
    let hot = Sampling { temperature: 1.0, top_p: 0.95, seed: 3, ..Sampling::default() };
    let requests: Vec<Request> = (0..12)
        .map(|i| Request {
            ids: ids(i % 3),
            plan: i % 2,
            sampling: if i < 6 { Sampling::default() } else { hot.clone() },
            noise: i as u64 / 2,
            max_new_tokens: 5 + i,
        })
        .collect();
    let one_by_one = generate(&engine, &requests, &plans, 1, 1);
    for (max_rows, prefill) in [(2, 8), (5, 64), (12, 4096)] {
        assert_eq!(generate(&engine, &requests, &plans, max_rows, prefill), one_by_one, "{max_rows} rows");
    }
}

/// Prompts that begin alike are read once and copied: the same answers as from prompts read whole.
#[test]
fn a_shared_start_changes_nothing() {
    let engine = engine();
    let plans = [plan(&[(0, 1, 0.0), (2, 4, 0.5)])];
    let request = |i: usize| Request {
        ids: ids(2)[..20 + i].to_vec(),
        plan: 0,
        sampling: Sampling::default(),
        noise: 0,
        max_new_tokens: 10,
    };
    let together = generate(&engine, &[request(0), request(3), request(9)], &plans, 3, 64);
    for (i, expected) in [0, 3, 9].into_iter().zip(&together) {
        assert_eq!(&generate(&engine, &[request(i)], &plans, 1, 64)[0], expected, "prompt {i}");
    }
}

/// Arms share their draws: sampled under λ = 1 and without a plan, an item gives the same answer.
#[test]
fn arms_share_their_random_numbers() {
    let engine = engine();
    let plans = [plan(&[]), HeadPlan::uniform(&engine.spec().slots(), 1.0).unwrap()];
    let sampling = Sampling { temperature: 1.2, seed: 11, ..Sampling::default() };
    let request = |plan| Request { ids: ids(1), plan, sampling: sampling.clone(), noise: 5, max_new_tokens: 24 };
    let results = generate(&engine, &[request(0), request(1)], &plans, 2, 64);
    assert_eq!(results[0], results[1]);
    let other = Request { noise: 6, ..request(0) };
    assert_ne!(generate(&engine, &[other], &plans[..1], 1, 64)[0].ids, results[0].ids, "another item draws anew");
}

/// The log-probability of a generated text is that of reading it: the sum over its tokens, under the same plan.
#[test]
fn sum_logprob_is_the_teacher_forced_one() {
    let engine = engine();
    let plans = [plan(&[(1, 2, 0.0)])];
    let prompt = ids(1);
    let request = Request { ids: prompt.clone(), plan: 0, sampling: Sampling::default(), noise: 0, max_new_tokens: 12 };
    let result = generate(&engine, &[request], &plans, 1, 64).remove(0);
    let all: Vec<u32> = prompt.iter().chain(&result.ids).copied().collect();
    let (_, logits) = read_through(engine.model(), &all, Some(&plans[0]));
    let logprobs = candle_nn::ops::log_softmax(&logits, 1).unwrap().to_vec2::<f32>().unwrap();
    let sum: f64 = (prompt.len()..all.len()).map(|i| f64::from(logprobs[i - 1][all[i] as usize])).sum();
    assert!((sum - result.sum_logprob).abs() < 1e-4, "{sum} is not {}", result.sum_logprob);
}
