//! `temper capture`: a data set's hidden states and heads, as one .npz.

use anyhow::Result;
use headtemper_engine::HeadsWanted;
use headtemper_study::{CaptureOptions, capture, capture_shard, dry_capture, parse_layers};
use serde_json::json;

use crate::{
    Done,
    args::{Capture, Heads},
    model, ui,
};

pub(crate) fn run(args: &Capture) -> Result<Done> {
    let items = model::items(&args.items)?;
    let parent = args.out.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        anyhow::ensure!(parent.is_dir(), "cannot write {}: {} is no directory", args.out.display(), parent.display());
    }
    anyhow::ensure!(!args.out.is_dir(), "cannot write {}: it is a directory; give a .npz file", args.out.display());
    let engine = model::open(&args.model, args.items.thinking)?;
    let options = CaptureOptions {
        layers: parse_layers(&args.layers, engine.spec().layers.len())?,
        heads: match args.heads {
            Heads::None => HeadsWanted::None,
            Heads::Norm => HeadsWanted::Norm,
            Heads::Vector => HeadsWanted::Vector,
        },
        last_n: args.last_n,
        logits: args.logits,
        plans: model::plans_of(&args.plan, engine.spec())?,
        max_rows: args.batch.asked_rows().unwrap_or(usize::MAX),
        memory: args.batch.memory()?,
        stop: Some(ui::stop_on_interrupt()),
    };
    let mut bars = ui::Bars::default();
    if args.dry_run {
        return ui::dry(&dry_capture(&engine, &items, &options, args.shard.shard)?, args.json);
    }
    let (features, fired) = match args.shard.shard {
        Some(shard) => capture_shard(&engine, &items, &options, shard, &mut bars)?,
        None => capture(&engine, &items, &options, &mut bars)?,
    };
    let fired: u64 = fired.iter().flat_map(|row| row.values()).sum();
    let (n, d, layers) = (features.ids.len(), features.d_model, features.layers.len());
    features.save(&args.out)?;
    ui::say(&format!("wrote      {}: {n} items, h_last [{n}, {d}], {layers} layers", args.out.display()));
    ui::say_peak();
    if fired > 0 {
        ui::say(&format!("plan       fired on {fired} head-tokens"));
    }
    if args.json {
        let summary = json!({"out": args.out, "items": n, "d_model": d, "layers": layers, "fired_tokens": fired});
        ui::put(&format!("{summary}\n"))?;
    }
    Ok(Done::Well)
}
