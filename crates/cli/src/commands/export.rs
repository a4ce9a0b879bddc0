//! `temper export`: λ written into the weights.

use anyhow::Result;
use headtemper_engine::export::Original;
use headtemper_study::{count, head_remarks};
use serde_json::json;

use crate::{Done, args::Export, model, ui};

pub(crate) fn run(args: &Export) -> Result<Done> {
    anyhow::ensure!(args.plan.plan.is_some(), "--plan is missing: without it, the export would be a copy");
    model::check_out(&args.out)?;
    model::check_plan(&args.plan)?;
    let original = Original::find(&args.model.choice())?;
    if let Some(note) = original.note() {
        ui::say(&format!("note: {note}"));
    }
    let plans = model::plans_of(&args.plan, original.spec(), None)?;
    anyhow::ensure!(plans.len() == 1, "the λ table has {} rows, but a checkpoint has one plan", plans.len());
    anyhow::ensure!(
        plans[0].iter().any(|(_, lambda)| lambda != 1.0),
        "every λ of the plan is 1: the export would be a copy"
    );
    if let Some(source) = args.plan.source() {
        ui::warn(&head_remarks(source.text, &original.weights_sha256()?)?);
    }
    let written = original.export(&plans[0], &args.out, Some(ui::stop_on_interrupt()))?;
    if args.json {
        let facts = json!({
            "plan": plans[0].to_string(),
            "changed": written.changed,
            "rounding": written.rounding,
            "files": written.files,
        });
        ui::put_json(&facts)?;
    } else {
        let (changed, files) = (count(written.changed.len(), "tensor"), count(written.files.len(), "file"));
        let mut text = format!("{changed} changed, {files} written\n");
        if written.rounding > 1e-6 {
            text += &format!("weights are stored in half width: λ is off by up to {:.2} %\n", 100.0 * written.rounding);
        }
        ui::put(&text)?;
    }
    ui::say(&format!("checkpoint {}", args.out.display()));
    Ok(Done::Well)
}
