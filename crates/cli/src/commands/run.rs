//! `temper run`: a whole experiment from one file.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use headtemper_engine::ModelChoice;
use headtemper_model::{Precision, Products};
use headtemper_study::{Experiment, dry_run, run as run_experiment};

use crate::{
    Done,
    args::{Dtype, Run},
    model, ui,
};

pub(crate) fn run(args: &Run) -> Result<Done> {
    let experiment = resolve(args)?;
    let dir = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&experiment.name));
    let model = &experiment.model;
    let named = model.id.clone().or_else(|| model.path.as_ref().map(|p| p.to_string_lossy().into_owned()));
    let choice = ModelChoice {
        model: named.unwrap_or_default(),
        revision: model.revision.clone(),
        precision: Precision { hold: dtype(&model.dtype)?.hold(), products: products(&model.products)? },
        device: model.device.clone(),
        thinking: model.thinking,
        random: None,
        progress: true,
    };
    let engine = model::open_choice(&choice)?;
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
        experiment.model.dtype = dtype_name(dtype);
    }
    if let Some(products) = args.products {
        experiment.model.products = products.products().to_string();
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

fn dtype_name(dtype: Dtype) -> String {
    dtype.to_possible_value().expect("none is hidden").get_name().into()
}

fn dtype(name: &str) -> Result<Dtype> {
    let all = Dtype::value_variants();
    all.iter().copied().find(|dtype| dtype_name(*dtype) == name).ok_or_else(|| {
        let allowed = all.iter().map(|dtype| dtype_name(*dtype)).collect::<Vec<_>>().join(", ");
        anyhow::anyhow!("[model] dtype is '{name}', but must be one of {allowed}")
    })
}

fn products(name: &str) -> Result<Products> {
    [Products::F32, Products::Bf16]
        .into_iter()
        .find(|products| products.to_string() == name)
        .ok_or_else(|| anyhow::anyhow!("[model] products is '{name}', but must be f32 or bf16"))
}
