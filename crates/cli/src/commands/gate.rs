//! `temper gate`: a frozen probe reads finished answers, and those it doubts are hedged.

use anyhow::Result;
use headtemper_engine::StopRule;
use headtemper_study::{
    Grader, SweepOptions,
    gate::{FrozenProbe, GateRun, gate_markdown, gate_remarks, gate_run},
};

use crate::{Done, args::Gate, model, ui};

pub(crate) fn run(args: &Gate) -> Result<Done> {
    model::check_out(&args.out)?;
    let probe = FrozenProbe::open(&args.probe)?;
    let hedges = args.hedges.as_deref().map(Grader::read).transpose()?;
    let items = model::items(&args.items)?;
    let sampling = args.sampling.sampling();
    let mut settings = GateRun {
        probe: &probe,
        c: args.c,
        threshold: args.threshold,
        site: args.site.as_deref(),
        prefix: &args.prefix,
        hedges: hedges.as_ref(),
        generate: SweepOptions {
            max_new_tokens: args.max_new_tokens,
            seeds: vec![sampling.seed],
            sampling,
            ends: StopRule::Model,
            max_rows: args.batch.asked_rows(),
            memory: args.batch.memory()?,
            stop: None,
        },
    };
    // What needs no model is refused before one is opened, which may take minutes.
    settings.check(&items)?;
    ui::warn(&gate_remarks(&items));
    let engine = model::open(&args.model, args.items.thinking)?;
    settings.generate.stop = Some(ui::stop_on_interrupt());
    let found = gate_run(&engine, &items, &settings, &args.out, &mut ui::Bars::default())?;
    if args.json {
        ui::warn(&found.warnings);
        ui::put_json(&found)?;
    } else {
        ui::put(&gate_markdown(&found))?;
    }
    ui::say(&format!("wrote      {}", args.out.display()));
    Ok(Done::Well)
}
