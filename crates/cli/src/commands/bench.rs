//! `temper bench`: how fast a model reads and writes on this machine.

use std::time::Instant;

use anyhow::Result;
use candle_core::Tensor;
use headtemper_engine::{Engine, Event, GenerateOptions, Request, Sampling, StopRule, peak_memory};
use headtemper_hook::{Batch, HeadPlan, HeadScale, Span};
use headtemper_model::{Cache, Recording};
use serde_json::{Value, json};

use crate::{Done, args::Bench, model, ui};

pub(crate) fn run(args: &Bench) -> Result<Done> {
    check(args)?;
    let start = Instant::now();
    let engine = model::open(&args.model, None)?;
    let load_s = start.elapsed().as_secs_f64();
    let given = model::plans_of(&args.plan, engine.spec(), Some(engine.identity()))?;
    anyhow::ensure!(given.len() == 1, "the λ table has {} rows, but a bench runs under one", given.len());
    let mut scale = HeadScale::compile(&given, engine.spec(), engine.model().device())?;
    let context = engine.spec().context;
    anyhow::ensure!(
        args.prompt_tokens > 0 && args.new_tokens > 0 && args.prompt_tokens.saturating_add(args.new_tokens) <= context,
        "--prompt-tokens and --new-tokens must each be at least 1 and together at most {context}"
    );
    let prefill = prefill(&engine, args, &mut scale)?;
    scale.check_fired()?;
    let mut decoded = Vec::new();
    for &rows in &args.rows {
        let sets = args.plans.iter().map(|&count| different(&engine, count)).collect::<Result<Vec<_>>>()?;
        let sets = if sets.is_empty() { std::slice::from_ref(&given) } else { &sets };
        decoded.extend(if args.whole { whole(&engine, args, rows, sets)? } else { decode(&engine, args, rows, sets)? });
    }
    let result = json!({
        "model": engine.identity().model,
        "dtype": engine.identity().dtype,
        "threads": rayon::current_num_threads(),
        "plan": given[0].to_string(),
        "load_s": load_s,
        "prefill": {"tokens": args.prompt_tokens, "tokens_per_s": prefill},
        "decode": decoded,
        "peak_rss_mb": peak_memory().map(|bytes| bytes as f64 / 1e6),
        "weights_mb": engine.model().holding().bytes() as f64 / 1e6,
    });
    if args.json {
        ui::put(&format!("{result}\n"))?;
    } else {
        ui::put(&text(&result))?;
    }
    Ok(Done::Well)
}

/// Refuses what needs no model to be refused, before one is opened, which may take minutes.
fn check(args: &Bench) -> Result<()> {
    model::check_plan(&args.plan)?;
    anyhow::ensure!(args.repeat > 0 && !args.rows.contains(&0), "--repeat and --rows must be at least 1");
    anyhow::ensure!(
        args.shared_tokens == 0 || args.shared_tokens < args.prompt_tokens,
        "--shared-tokens {} is not less than the {} tokens of a prompt",
        args.shared_tokens,
        args.prompt_tokens
    );
    anyhow::ensure!(
        args.whole || Recording::allowed(),
        "--no-graph is for --whole: single decode steps are never recorded"
    );
    let fewest = args.rows.iter().copied().min().unwrap_or(0);
    match args.plans.iter().find(|&&count| count > fewest) {
        Some(count) => anyhow::bail!("--plans {count} is more than the {fewest} rows that they are for"),
        None => Ok(()),
    }
}

/// Arbitrary token ids, the same at every call.
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

/// `count` different plans of one head each; for 0, the plan that touches nothing.
fn different(engine: &Engine, count: usize) -> Result<Vec<HeadPlan>> {
    if count == 0 {
        return Ok(vec![HeadPlan::none()]);
    }
    let slots = engine.spec().slots();
    // Heads spread over all layers, each plan with a λ of its own.
    let plan = |i: usize| {
        let at = slots[(i * (slots.len() / count).max(1)) % slots.len()];
        Ok(HeadPlan::uniform(&[at], 1.0 - 0.001 * (i + 1) as f32)?)
    };
    (0..count).map(plan).collect()
}

/// Rows that are decoded together under one set of plans.
struct Rows {
    plans: usize,
    scale: HeadScale,
    cache: Cache,
    next: Vec<u32>,
    steps: Vec<f64>,
}

/// Decodes under every set of plans, taking turns after each step, so that other load on the machine hits all sets alike.
fn decode(engine: &Engine, args: &Bench, rows: usize, sets: &[Vec<HeadPlan>]) -> Result<Vec<Value>> {
    let model = engine.model();
    let prompt = Tensor::new(ids(engine, args.prompt_tokens), model.device())?;
    let span =
        |slot: usize, start, len, plans| Span { slot, start, len, row: slot % plans, prompt: args.prompt_tokens };
    let mut arms = Vec::new();
    for plans in sets {
        let mut scale = HeadScale::compile(plans, engine.spec(), model.device())?;
        let mut cache = model.new_cache(rows, args.prompt_tokens + args.new_tokens)?;
        for slot in 0..rows {
            let batch = Batch::new(vec![span(slot, 0, args.prompt_tokens, plans.len())]);
            model.forward(&prompt, &batch, &mut cache, &mut scale)?;
        }
        arms.push(Rows { plans: plans.len(), scale, cache, next: ids(engine, rows), steps: Vec::new() });
    }
    for step in 0..args.new_tokens {
        for arm in &mut arms {
            let start = Instant::now();
            let batch = (0..rows).map(|slot| span(slot, args.prompt_tokens + step, 1, arm.plans));
            let input = Tensor::new(&arm.next[..], model.device())?;
            let hidden = model.forward(&input, &Batch::new(batch.collect()), &mut arm.cache, &mut arm.scale)?;
            arm.next = model.logits(&hidden)?.argmax(1)?.to_vec1::<u32>()?;
            arm.steps.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let result = |(arm, plans): (&Rows, &Vec<HeadPlan>)| {
        arm.scale.check_fired()?;
        let named = plans.iter().filter(|plan| !plan.is_empty()).count();
        let slower: Vec<f64> = arm.steps.iter().zip(&arms[0].steps).map(|(own, first)| own / first).collect();
        Ok(json!({
            "rows": rows, "plans": named, "step_ms": arm.steps, "tokens_per_s": rows as f64 / median(&arm.steps) * 1e3,
            "step_to_first": median(&slower),
        }))
    };
    arms.iter().zip(sets).map(result).collect()
}

/// Writes whole answers under every set of plans, one set after another, each with one extra round to warm up.
fn whole(engine: &Engine, args: &Bench, rows: usize, sets: &[Vec<HeadPlan>]) -> Result<Vec<Value>> {
    let (mut found, shared) = (Vec::<Value>::new(), args.shared_tokens);
    for plans in sets {
        let request = |row: usize| Request {
            // But for what they share no two prompts begin alike, so that the rest of each is read in full.
            ids: [&ids(engine, shared)[..], &ids(engine, args.prompt_tokens + row)[shared + row..]].concat().into(),
            plan: row % plans.len(),
            sampling: Sampling::default(),
            noise: row as u64,
            max_new_tokens: args.new_tokens,
            stop: StopRule::Never,
        };
        let requests: Vec<Request> = (0..rows).map(request).collect();
        let options = GenerateOptions { max_rows: rows, ..GenerateOptions::default() };
        // Where memory is short, fewer rows run at once than were asked for.
        let at_once = engine.plan_generation(&requests, plans.len(), &options, &|row| format!("row {row}"))?.rows;
        let (before, mut seconds) = (engine.plays(), Vec::new());
        for round in 0..=args.repeat {
            let (start, mut tokens) = (Instant::now(), 0);
            engine.generate(&requests, plans, &options, |event| {
                if let Event::Done { result, .. } = event {
                    tokens += result.ids.len();
                }
                Ok(())
            })?;
            anyhow::ensure!(tokens == rows * args.new_tokens, "{tokens} tokens of {rows} rows were written");
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        let rate = (rows * args.new_tokens) as f64 / median(&seconds);
        let first = found.first().and_then(|first| first["tokens_per_s"].as_f64()).unwrap_or(rate);
        let named = plans.iter().filter(|plan| !plan.is_empty()).count();
        let step = engine.recorded_steps().range(..=rows).next_back().map(|(_, &step)| step).unwrap_or_default();
        found.push(json!({
            "rows": rows, "at_once": at_once, "plans": named, "whole": true, "shared_tokens": shared, "new_tokens": args.new_tokens, "seconds": seconds, "tokens_per_s": rate, "step_to_first": first / rate,
            "plays": engine.plays() - before, "launches": step.kernels, "other_operations": step.others,
        }));
    }
    Ok(found)
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
    let decoded = || result["decode"].as_array().into_iter().flatten();
    let several = decoded().any(|decode| decode["step_to_first"] != 1.0);
    for decode in decoded() {
        let rate = number(&decode["tokens_per_s"]);
        out += &format!("decode    {:>3} rows: {rate:.1} tokens a second", decode["rows"].to_string());
        if several {
            let slower = number(&decode["step_to_first"]);
            out += &format!(", {} plans, a step takes {slower:.3} of the first line's", decode["plans"]);
        }
        out.push('\n');
    }
    out
}
