//! `temper sweep`: generations for every prompt, λ and head set.

use anyhow::Result;
use headtemper_study::{ArmsWanted, Judge, SweepOptions, SweepRun, arms, head_set, sweep_markdown, sweep_run};

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
    let (random_sets, random_seed) = (args.random_sets, args.random_seed);
    let wanted = ArmsWanted { sets: &sets, lambdas: &args.lambda, random_sets, random_seed };
    let arms = arms(&wanted, &engine.spec().slots())?;
    let options = SweepOptions {
        max_new_tokens: args.max_new_tokens,
        sampling: args.sampling.sampling(),
        seeds: if args.seeds.is_empty() { vec![args.sampling.seed] } else { args.seeds.clone() },
        max_rows: args.max_rows,
        stop: Some(ui::stop_on_interrupt()),
    };
    let run = SweepRun { items: &items, arms: &arms, options: &options, judge: judge.as_ref() };
    let outcomes = sweep_run(&engine, &run, &args.out, &mut ui::Bars::default())?;
    if args.json {
        ui::put(&format!("{}\n", serde_json::to_string_pretty(&outcomes)?))?;
        outcomes.warnings().iter().for_each(|warning| ui::say(&format!("warning: {warning}")));
    } else {
        ui::put(&sweep_markdown(&outcomes))?;
    }
    ui::say(&format!("report     {}", args.out.join("report.html").display()));
    Ok(Done::Well)
}
