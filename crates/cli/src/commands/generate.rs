//! `temper generate`: shows what a model says, with or without a plan.

use std::{io::Read, time::Instant};

use anyhow::Result;
use headtemper_engine::{Engine, EngineError, Event, FinishReason, GenerateOptions, Input, Message, Request};
use headtemper_hook::HeadPlan;
use headtemper_study::{Answering, Item, ReadAs, check_rows, noise_of, prompts, read_items};
use serde_json::{Value, json};

use crate::{Done, args::Generate, model, ui};

pub(crate) fn run(args: &Generate) -> Result<Done> {
    let answering =
        Answering { max_new_tokens: args.max_new_tokens, sampling: args.sampling.sampling(), stop: args.stop.rule() };
    // What needs no model is refused before one is opened, which may take minutes.
    answering.check()?;
    let memory = args.batch.memory()?;
    model::check_plan(&args.plan)?;
    let items = match &args.items {
        Some(path) => read_items(path, &ReadAs { system: args.system.clone(), ..ReadAs::raw(args.raw) })?,
        None => vec![single(args)?],
    };
    if let Some(text) = &args.plan.plan {
        check_rows(text, || Ok(items.iter().map(|item| item.id.clone()).collect()))?;
    }
    let engine = model::open(&args.model, args.thinking)?;
    let plans = model::plans_of(&args.plan, engine.spec(), Some(engine.identity()))?;
    anyhow::ensure!(
        plans.len() == 1 || plans.len() == items.len(),
        "the λ table has {} rows, but must have 1 or as many as there are items ({})",
        plans.len(),
        items.len()
    );
    let requests = requests(&engine, &items, plans.len(), &answering)?;
    let mut settings = GenerateOptions {
        max_rows: args.batch.max_rows(&engine),
        memory,
        stop: Some(ui::stop_on_interrupt()),
        ..GenerateOptions::default()
    };
    let name = |row: usize| format!("item '{}'", items[row].id);
    let memory = engine.plan_generation(&requests, plans.len(), &settings, &name)?;
    if args.items.is_some() {
        ui::say(&format!("memory     {memory}"));
    }
    (settings.max_rows, settings.memory) = (memory.rows, memory.limit);
    let streamed = args.items.is_none() && !args.json;
    let start = Instant::now();
    let (mut written, mut tokens, mut reason, mut untouched) = (0, 0, FinishReason::Stop, 0);
    engine.generate(&requests, &plans, &settings, |event| {
        let failed = |e: std::io::Error| EngineError::Receiver(Box::new(e));
        match event {
            Event::Token { ids, .. } if streamed => {
                let text = engine.tokenizer().decode(ids)?;
                // A character whose bytes are not all there yet shows as U+FFFD: wait for the rest.
                if !text.ends_with('\u{FFFD}') && text.is_char_boundary(written) {
                    ui::put(&text[written..]).map_err(failed)?;
                    written = text.len();
                }
            }
            Event::Token { .. } => {}
            Event::Done { row, result } => {
                (tokens, reason) = (tokens + result.ids.len(), result.finish_reason);
                untouched += usize::from(result.fired == 0 && !plans[requests[row].plan].is_empty());
                let text = engine.tokenizer().decode(&result.ids)?;
                if streamed {
                    ui::put(&format!("{}\n", &text[written.min(text.len())..])).map_err(failed)?;
                } else {
                    let plan = &plans[requests[row].plan];
                    let line = line(&items[row], &text, result, plan, args, requests[row].ids.len());
                    ui::put(&format!("{line}\n")).map_err(failed)?;
                }
            }
        }
        Ok(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let ended = match (streamed, reason) {
        (true, FinishReason::Length) => ", cut off at the limit of tokens",
        _ => "",
    };
    ui::say(&format!("{tokens} tokens in {seconds:.2} s, {:.1} a second{ended}", tokens as f64 / seconds));
    if untouched > 0 {
        let n = items.len();
        ui::say(&format!(
            "warning: {untouched} of {n} answers hold no token at the positions of their plan: they are the untouched model's"
        ));
    }
    if args.items.is_some() {
        ui::say_peak();
    }
    Ok(Done::Well)
}

fn single(args: &Generate) -> Result<Item> {
    let mut prompt = args.prompt.clone().unwrap_or_default();
    if prompt == "-" {
        prompt.clear();
        std::io::stdin().read_to_string(&mut prompt)?;
        // The end of the line is the shell's, not the prompt's: a model would answer it, too.
        let line = prompt.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        prompt.truncate(line.map_or(prompt.len(), str::len));
    }
    anyhow::ensure!(!prompt.is_empty(), "the prompt is empty");
    let input = match (&args.system, args.raw) {
        (Some(system), _) => {
            Input::Messages(vec![Message { role: "system".into(), content: system.clone() }, Message::user(prompt)])
        }
        (None, true) => Input::Raw(prompt),
        (None, false) => Input::Prompt(prompt),
    };
    Ok(Item {
        id: "prompt".into(),
        input,
        response: None,
        prompt_len: None,
        response_ids: None,
        label: None,
        scores: std::collections::BTreeMap::default(),
        gold: Vec::new(),
        other: serde_json::Map::default(),
    })
}

fn requests(engine: &Engine, items: &[Item], plans: usize, answering: &Answering) -> Result<Vec<Request>> {
    let prompts = prompts(engine, items)?;
    Ok(prompts
        .into_iter()
        .enumerate()
        .map(|(index, ids)| Request {
            ids: ids.into(),
            plan: if plans == 1 { 0 } else { index },
            sampling: answering.sampling.clone(),
            noise: noise_of(&items[index].id),
            max_new_tokens: answering.max_new_tokens,
            stop: answering.stop.clone(),
        })
        .collect())
}

fn line(
    item: &Item,
    text: &str,
    result: &headtemper_engine::Generated,
    plan: &HeadPlan,
    args: &Generate,
    prompt_tokens: usize,
) -> Value {
    let (asked, input) = item.asked_json();
    json!({
        "id": item.id,
        asked: input,
        "response": text,
        "finish_reason": result.finish_reason,
        "n_tokens": result.ids.len(),
        "prompt_tokens": prompt_tokens,
        "sum_logprob": result.sum_logprob,
        "response_ids": result.ids,
        "plan": plan.to_string(),
        "fired": result.fired,
        "seed": args.sampling.seed,
    })
}
