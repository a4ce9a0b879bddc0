//! `temper sweep`: generations for every prompt, λ and head set.

use anyhow::Result;
use headtemper_study::{Judge, SweepOptions, SweepRun, arms, dry_sweep, head_set, sweep_markdown, sweep_run};
use serde_json::json;

use crate::{Done, args::Sweep, model, ui};

pub(crate) fn run(args: &Sweep) -> Result<Done> {
    let items = model::items(&args.items)?;
    let judge = args.hedges.as_deref().map(Judge::read).transpose()?;
    let engine = model::open(&args.model, args.items.thinking)?;
    let mut sets = Vec::new();
    for text in &args.heads {
        let heads = head_set(text, engine.spec())?;
        if args.each {
            sets.extend(heads.into_iter().map(|at| vec![at]));
        } else {
            sets.push(heads);
        }
    }
    let arms = arms(&sets, &args.lambda)?;
    if !args.lambda.contains(&1.0) {
        ui::say("note: without lambda 1 nothing tells what changed; --lambda 1,1,... also shows the noise floor");
    }
    let options = SweepOptions {
        max_new_tokens: args.max_new_tokens,
        sampling: args.sampling.sampling(),
        seeds: if args.seeds.is_empty() { vec![args.sampling.seed] } else { args.seeds.clone() },
        ends: args.stop.rule(),
        max_rows: args.batch.max_rows(),
        memory: args.batch.memory()?,
        stop: Some(ui::stop_on_interrupt()),
    };
    let run = SweepRun { items: &items, arms: &arms, options: &options, judge: judge.as_ref() };
    if args.dry_run {
        return ui::dry(&dry_sweep(&engine, &run, &args.out)?, args.json);
    }
    let tables = sweep_run(&engine, &run, &args.out, &mut ui::Bars::default())?;
    if args.json {
        let document = json!({"schema": "sweep/v1", "tables": tables});
        ui::put(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        ui::put(&tables.iter().map(sweep_markdown).collect::<Vec<_>>().join("\n"))?;
    }
    ui::say_peak();
    ui::say(&format!("wrote      {}", args.out.display()));
    Ok(Done::Well)
}
