//! `temper score`: the causal map of recorded responses.

use std::path::Path;

use anyhow::Result;
use headtemper_study::{RunSummary, ScoreRun, Sharded, check_head_set, dry_score, head_set, score_run};

use crate::{Done, args::Score, model, ui};

pub(crate) fn run(args: &Score) -> Result<Done> {
    model::check_out(&args.out)?;
    let items = model::items(&args.items)?;
    let mut settings = ScoreRun {
        from: args.items.from(),
        groups: args.groups.groups.as_deref(),
        heads: &[],
        lambdas: &args.lambda,
        contrast: args.a.as_deref().zip(args.b.as_deref()),
        plain: args.plain,
        shuffles: args.shuffles,
        seed: args.seed,
        batch_tokens: args.batch_tokens,
        memory: args.memory.bytes()?,
        shard: args.shard.shard,
        stop: None,
    };
    // What needs no model is refused before one is opened, which may take minutes.
    settings.check(&items)?;
    check_head_set(&args.heads)?;
    let engine = model::open(&args.model, args.items.thinking)?;
    let mut heads = head_set(&args.heads, engine.spec())?;
    model::remark(&args.heads, engine.identity())?;
    heads.sort_unstable();
    (settings.heads, settings.stop) = (&heads, Some(ui::stop_on_interrupt()));
    if args.dry_run {
        return ui::dry(&dry_score(&engine, &items, &settings, &args.out)?, args.json);
    }
    let done = match score_run(&engine, &items, &settings, &args.out, &mut ui::Bars::default())? {
        Sharded::Whole(outcome) => put(&outcome, &args.out, args.json)?,
        Sharded::Part { rows, of } => {
            ui::say_part(args.shard.shard, &format!("{rows} of {of} cells"), &args.out);
            Done::Well
        }
    };
    ui::say_peak();
    Ok(done)
}

/// Ends an unsharded map: prints the map on stdout, warnings and the report's path on stderr.
///
/// # Errors
/// If stdout is closed or full.
pub(crate) fn put(outcome: &RunSummary, dir: &Path, as_json: bool) -> Result<Done> {
    ui::finish(outcome, dir, if as_json { Some("score.json") } else { None })
}
