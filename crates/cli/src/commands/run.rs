//! `temper run`: a whole experiment from one file.

use std::path::Path;

use anyhow::Result;
use headtemper_engine::ModelChoice;
use headtemper_study::{Experiment, check_experiment, dry_run, run as run_experiment};

use crate::{Done, args::Run, model, ui};

pub(crate) fn run(args: &Run) -> Result<Done> {
    let experiment = resolve(args)?;
    let dir = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&experiment.name));
    model::check_out(&dir)?;
    check_experiment(&experiment)?;
    let engine = model::open_choice(&ModelChoice { progress: true, ..experiment.model.choice() })?;
    if args.dry {
        return ui::dry(&dry_run(&engine, &experiment, &dir)?, args.json);
    }
    let stop = ui::stop_on_interrupt();
    let outcome = run_experiment(&engine, &experiment, &dir, Some(stop), &mut ui::Bars::default())?;
    ui::finish(&outcome, &dir, if args.json { Some("report.json") } else { None })
}

/// The experiment of the file, with what was typed taking precedence.
fn resolve(args: &Run) -> Result<Experiment> {
    let mut experiment = Experiment::read(&args.file)?;
    if let Some(model) = &args.model {
        let path = Path::new(model);
        let local = path.exists() || model.ends_with(".gguf");
        (experiment.model.path, experiment.model.id) =
            if local { (Some(std::path::absolute(model)?), None) } else { (None, Some(model.clone())) };
        experiment.model.revision = None;
    }
    if let Some(revision) = &args.revision {
        experiment.model.revision = Some(revision.clone());
    }
    if let Some(device) = &args.device {
        experiment.model.device.clone_from(device);
    }
    if let Some(dtype) = args.dtype {
        experiment.model.dtype = dtype;
    }
    if let Some(products) = args.products {
        experiment.model.products = products;
    }
    if let Some(rows) = args.batch.asked_rows() {
        experiment.generate.max_rows = Some(rows);
    }
    if let Some(memory) = args.batch.asked_memory() {
        args.batch.memory()?;
        experiment.generate.memory = Some(memory.into());
    }
    if args.limit.is_some() {
        experiment.items.limit = args.limit;
    }
    Ok(experiment)
}
