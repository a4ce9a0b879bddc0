//! `temper falsify`: puts a probe through gates that were declared beforehand.

use std::path::Path;

use anyhow::Result;
use headtemper_study::falsify::{GateFile, Outcome, falsify, markdown};

use crate::{Done, args::Falsify, model, ui};

pub(crate) fn run(args: &Falsify) -> Result<Done> {
    let file = GateFile::read(&args.file)?;
    let dir = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&file.name));
    model::check_out(&dir)?;
    let found = falsify(&file, &dir, &mut ui::Bars::default())?;
    if args.json {
        ui::warn(&found.warnings);
        ui::put_json(&found)?;
    } else {
        ui::put(&markdown(&found))?;
    }
    ui::say(&format!("report     {}", dir.join("report.html").display()));
    Ok(match found.verdict {
        Outcome::Passed => Done::Well,
        Outcome::Failed => Done::GateFailed,
        Outcome::Inconclusive | Outcome::NotRun => Done::Inconclusive,
    })
}
