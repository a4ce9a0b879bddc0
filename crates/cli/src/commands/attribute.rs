//! `temper attribute`: heads ranked between two cohorts, with a report.

use anyhow::Result;
use headtemper_study::{AttributeRun, attribute_run};

use crate::{Done, args::Attribute, model, ui};

pub(crate) fn run(args: &Attribute) -> Result<Done> {
    let items = model::items(&args.items)?;
    let engine = model::open(&args.model, args.items.thinking)?;
    let name = args.name.clone().unwrap_or_else(|| format!("{} against {}", args.a, args.b));
    let settings = AttributeRun {
        items_path: &args.items.items,
        name: &name,
        a: &args.a,
        b: &args.b,
        last_n: args.last_n,
        shuffles: args.shuffles,
        seed: args.seed,
        stop: Some(ui::stop_on_interrupt()),
    };
    let outcome = attribute_run(&engine, &items, &settings, &args.out, &mut ui::Bars::default())?;
    ui::finish(&outcome, &args.out, if args.json { Some("attribution.json") } else { None })
}
