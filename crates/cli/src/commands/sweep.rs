//! `temper sweep`: generations for every prompt, λ and head set.

use std::path::Path;

use anyhow::Result;
use headtemper_study::{
    ArmsWanted, Grader, RandomFrom, Sharded, SweepOptions, SweepRun, arms, check_arms, check_groups, check_head_set,
    count, dry_sweep, head_set, outcome::Outcomes, sweep_markdown, sweep_run,
};

use crate::{
    Done,
    args::{Drawn, Sweep},
    model, ui,
};

pub(crate) fn run(args: &Sweep) -> Result<Done> {
    model::check_out(&args.out)?;
    let items = model::items(&args.items)?;
    let grader = args.hedges.as_deref().map(Grader::read).transpose()?;
    let options = SweepOptions {
        max_new_tokens: args.max_new_tokens,
        sampling: args.sampling.sampling(),
        seeds: if args.seeds.is_empty() { vec![args.sampling.seed] } else { args.seeds.clone() },
        ends: args.stop.rule(),
        max_rows: args.batch.asked_rows(),
        memory: args.batch.memory()?,
        stop: None,
    };
    // What needs no model is refused before one is opened, which may take minutes.
    options.check()?;
    check_groups(&items, args.groups.groups.as_deref())?;
    check_arms(&args.lambda, args.random_sets)?;
    args.heads.iter().try_for_each(|text| check_head_set(text))?;
    let engine = model::open(&args.model, args.items.thinking)?;
    let mut sets = Vec::new();
    for text in &args.heads {
        let heads = head_set(text, engine.spec())?;
        model::remark(text, engine.identity())?;
        if args.each {
            sets.extend(heads.into_iter().map(|at| vec![at]));
        } else {
            sets.push(heads);
        }
    }
    let (random_sets, random_seed) = (args.random_sets, args.random_seed);
    let random_from = match args.random_from {
        Drawn::Model => RandomFrom::Model,
        Drawn::Layers => RandomFrom::Layers,
    };
    let (lambdas, positions) = (&args.lambda[..], args.positions);
    let wanted = ArmsWanted { sets: &sets, lambdas, random_sets, random_seed, random_from, positions };
    let arms = arms(&wanted, &engine.spec().slots())?;
    let options = SweepOptions { stop: Some(ui::stop_on_interrupt()), ..options };
    let grader = grader.as_ref();
    let groups = args.groups.groups.as_deref();
    let run = SweepRun {
        items: &items,
        from: args.items.from(),
        groups,
        arms: &arms,
        options: &options,
        grader,
        shard: args.shard.shard,
    };
    if args.dry_run {
        return ui::dry(&dry_sweep(&engine, &run, &args.out)?, args.json);
    }
    match sweep_run(&engine, &run, &args.out, &mut ui::Bars::default())? {
        Sharded::Whole(outcomes) => put(&outcomes, &args.out, args.json)?,
        Sharded::Part { rows, of } => {
            ui::say_part(args.shard.shard, &format!("{rows} of {}", count(of, "row")), &args.out);
        }
    }
    ui::say_peak();
    Ok(Done::Well)
}

/// Ends an unsharded sweep: prints its outcomes on stdout, warnings and the report's path on stderr.
///
/// # Errors
/// If stdout is closed or full.
pub(crate) fn put(outcomes: &Outcomes, dir: &Path, as_json: bool) -> Result<()> {
    if as_json {
        ui::put_json(outcomes)?;
        ui::warn(&outcomes.warnings());
    } else {
        ui::put(&sweep_markdown(outcomes))?;
    }
    ui::say(&format!("report     {}", dir.join("report.html").display()));
    Ok(())
}
