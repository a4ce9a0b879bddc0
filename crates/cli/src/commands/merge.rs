//! `temper merge`: joins the shards of a sweep, a causal map or a capture into what an unsharded run would have written.

use anyhow::{Result, bail, ensure};
use headtemper_study::{count, made_by, merge_features, merge_score, merge_sweep};
use serde_json::json;

use crate::{
    Done,
    args::Merge,
    commands::{score, sweep},
    model, ui,
};

pub(crate) fn run(args: &Merge) -> Result<Done> {
    if let Some(gone) = args.shards.iter().find(|path| !path.exists()) {
        bail!("the shard {} does not exist", gone.display());
    }
    let dirs = args.shards.iter().filter(|path| path.is_dir()).count();
    ensure!(
        dirs == 0 || dirs == args.shards.len(),
        "these shards cannot be merged: some are directories and some are not, but must be all directories of a \
         sweep or a scoring, or all .npz files of a capture"
    );
    if dirs == 0 {
        return captures(args);
    }
    model::check_out(&args.out)?;
    match made_by(&args.shards[0])?.as_str() {
        "sweep" => {
            let outcomes = merge_sweep(&args.out, &args.shards, &mut ui::Bars::default())?;
            sweep::put(&outcomes, &args.out, args.json)?;
        }
        "score" => {
            let outcome = merge_score(&args.out, &args.shards, &mut ui::Bars::default())?;
            return score::put(&outcome, &args.out, args.json);
        }
        other => bail!(
            "{} was made by `temper {other}`, but must be a shard of `temper sweep` or `temper score`",
            args.shards[0].display()
        ),
    }
    Ok(Done::Well)
}

fn captures(args: &Merge) -> Result<Done> {
    ensure!(!args.out.is_dir(), "cannot write {}: it is a directory; give a .npz file", args.out.display());
    let items = merge_features(&args.out, &args.shards)?;
    ui::say(&format!("wrote      {}: {}", args.out.display(), count(items, "item")));
    ui::say_peak();
    if args.json {
        ui::put(&format!("{}\n", json!({"out": args.out.display().to_string(), "items": items})))?;
    }
    Ok(Done::Well)
}
