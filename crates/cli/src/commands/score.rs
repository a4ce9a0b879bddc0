//! `temper score`: the causal map of recorded responses.

use anyhow::Result;
use headtemper_study::{ScoreRun, head_set, score_run};

use crate::{Done, args::Score, model, ui};

pub(crate) fn run(args: &Score) -> Result<Done> {
    let items = model::items(&args.items)?;
    let engine = model::open(&args.model, args.items.thinking)?;
    let mut heads = head_set(&args.heads, engine.spec())?;
    heads.sort_unstable();
    let settings = ScoreRun {
        items_path: &args.items.items,
        heads: &heads,
        lambdas: &args.lambda,
        contrast: args.a.as_deref().zip(args.b.as_deref()),
        plain: args.plain,
        shuffles: args.shuffles,
        seed: args.seed,
        batch_tokens: args.batch_tokens,
        stop: Some(ui::stop_on_interrupt()),
    };
    let outcome = score_run(&engine, &items, &settings, &args.out, &mut ui::Bars::default())?;
    ui::finish(&outcome, &args.out, if args.json { Some("score.json") } else { None })
}
