//! `temper bench`: how fast a model reads and writes on this machine.

use std::time::Instant;

use anyhow::Result;
use candle_core::Tensor;
use headtemper_engine::{Engine, peak_memory};
use headtemper_hook::{Batch, HeadScale, Span};
use serde_json::{Value, json};

use crate::{Done, args::Bench, model, ui};

pub(crate) fn run(args: &Bench) -> Result<Done> {
    let start = Instant::now();
    let engine = model::open(&args.model, None)?;
    let load_s = start.elapsed().as_secs_f64();
    let plans = model::plans_of(&args.plan, engine.spec())?;
    anyhow::ensure!(plans.len() == 1, "the λ table has {} rows, but a bench runs under one", plans.len());
    let mut scale = HeadScale::compile(&plans, engine.spec(), candle_core::DType::F32, engine.model().device())?;
    let context = engine.spec().context;
    anyhow::ensure!(
        args.prompt_tokens > 0 && args.new_tokens > 0 && args.prompt_tokens.saturating_add(args.new_tokens) <= context,
        "--prompt-tokens and --new-tokens must each be at least 1 and together at most {context}"
    );
    anyhow::ensure!(args.repeat > 0 && !args.rows.contains(&0), "--repeat and --rows must be at least 1");
    let prefill = prefill(&engine, args, &mut scale)?;
    let decode = args.rows.iter().map(|&rows| decode(&engine, args, rows, &mut scale)).collect::<Result<Vec<_>>>()?;
    scale.check_fired()?;
    let (model, spec) = (engine.model(), engine.spec());
    let held = spec.parameters - spec.mapped_parameters;
    let result = json!({
        "model": engine.identity().model,
        "dtype": engine.identity().dtype,
        "threads": rayon::current_num_threads(),
        "plan": plans[0].to_string(),
        "load_s": load_s,
        "prefill": {"tokens": args.prompt_tokens, "tokens_per_s": prefill},
        "decode": decode,
        "peak_rss_mb": peak_memory().map(|bytes| bytes as f64 / 1e6),
        "weights_mb": (held * model.dtype().size_in_bytes()) as f64 / 1e6,
    });
    if args.json {
        ui::put(&format!("{result}\n"))?;
    } else {
        ui::put(&text(&result))?;
    }
    Ok(Done::Well)
}

/// Token ids that look like nothing in particular, the same at every call.
fn ids(engine: &Engine, count: usize) -> Vec<u32> {
    let vocab = engine.spec().vocab as u32;
    (0..count as u32).map(|i| i.wrapping_mul(7919) % vocab).collect()
}

fn prefill(engine: &Engine, args: &Bench, scale: &mut HeadScale) -> Result<Vec<f64>> {
    let model = engine.model();
    let input = Tensor::new(ids(engine, args.prompt_tokens), model.device())?;
    let batch = Batch::single(args.prompt_tokens);
    let mut cache = model.new_cache(1, args.prompt_tokens)?;
    let mut rates = Vec::new();
    for round in 0..=args.repeat {
        let start = Instant::now();
        let hidden = model.forward(&input, &batch, &mut cache, scale)?;
        model.logits(&hidden.narrow(0, args.prompt_tokens - 1, 1)?)?.to_vec2::<f32>()?;
        if round > 0 {
            rates.push(args.prompt_tokens as f64 / start.elapsed().as_secs_f64()); // the first warms up
        }
    }
    Ok(rates)
}

fn decode(engine: &Engine, args: &Bench, rows: usize, scale: &mut HeadScale) -> Result<Value> {
    let model = engine.model();
    let prompt = Tensor::new(ids(engine, args.prompt_tokens), model.device())?;
    let mut cache = model.new_cache(rows, args.prompt_tokens + args.new_tokens)?;
    for slot in 0..rows {
        let batch = Batch::new(vec![Span { slot, start: 0, len: args.prompt_tokens, row: 0 }]);
        model.forward(&prompt, &batch, &mut cache, scale)?;
    }
    let mut next: Vec<u32> = ids(engine, rows);
    let mut steps = Vec::with_capacity(args.new_tokens);
    for step in 0..args.new_tokens {
        let start = Instant::now();
        let span = |slot| Span { slot, start: args.prompt_tokens + step, len: 1, row: 0 };
        let batch = Batch::new((0..rows).map(span).collect());
        let hidden = model.forward(&Tensor::new(&next[..], model.device())?, &batch, &mut cache, scale)?;
        next = model.logits(&hidden)?.argmax(1)?.to_vec1::<u32>()?;
        steps.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let rate = rows as f64 / median(&steps) * 1e3;
    Ok(json!({"rows": rows, "step_ms": steps, "tokens_per_s": rate}))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn text(result: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let rates: Vec<f64> = result["prefill"]["tokens_per_s"].as_array().into_iter().flatten().map(number).collect();
    let mut out = format!(
        "load      {:.2} s, {:.0} MB of weights, peak memory {:.0} MB\nprefill   {} tokens: {:.0} a second\n",
        number(&result["load_s"]),
        number(&result["weights_mb"]),
        number(&result["peak_rss_mb"]),
        result["prefill"]["tokens"],
        median(&rates)
    );
    for decode in result["decode"].as_array().into_iter().flatten() {
        let rate = number(&decode["tokens_per_s"]);
        out += &format!("decode    {:>3} rows: {rate:.1} tokens a second\n", decode["rows"].to_string());
    }
    out
}
