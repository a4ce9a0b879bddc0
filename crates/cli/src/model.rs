//! From arguments to a loaded model, its plans and its items.

use std::path::Path;

use anyhow::Result;
use headtemper_engine::{Engine, Identity, ModelChoice};
use headtemper_hook::{HeadPlan, ModelSpec};
use headtemper_model::Precision;
use headtemper_study::{self as study, Item, ItemFile, Predicate, Taken, head_remarks, plans, read_taken};

use crate::{
    args::{ItemArgs, ModelArgs, PlanArgs, Switch},
    ui,
};

impl ModelArgs {
    /// What was typed, in the engine's form.
    pub(crate) fn choice(&self, thinking: Option<Switch>) -> ModelChoice {
        ModelChoice {
            model: self.model.clone(),
            revision: self.revision.clone(),
            precision: Precision { hold: self.how.dtype, products: self.how.products },
            device: self.how.device.clone(),
            thinking: thinking.map(|switch| switch == Switch::On),
            random: self.how.random,
            progress: true,
        }
    }
}

/// Opens a model and says on stderr what it is: a wrong geometry is the likeliest cause of a wrong result.
pub(crate) fn open(args: &ModelArgs, thinking: Option<Switch>) -> Result<Engine> {
    open_choice(&args.choice(thinking))
}

/// Opens a model that was not chosen on the command line.
pub(crate) fn open_choice(choice: &ModelChoice) -> Result<Engine> {
    let engine = Engine::open(choice)?;
    if let Some(note) = engine.note() {
        ui::say(&format!("note: {note}"));
    }
    let (identity, spec) = (engine.identity(), engine.spec());
    ui::say(&format!(
        "model      {}  {}, {} layers, {} heads  {}",
        match identity.random {
            Some(seed) => format!("{}, random weights of seed {seed}", identity.model),
            None => identity.model.clone(),
        },
        identity.architecture,
        spec.layers.len(),
        spec.slots().len(),
        identity.held_in()
    ));
    Ok(engine)
}

/// Refuses a place for results that is a file or leads nowhere, before a model is opened.
pub(crate) fn check_out(dir: &Path) -> Result<()> {
    anyhow::ensure!(
        !dir.exists() || dir.is_dir(),
        "cannot write into {}: it is a file; give a directory",
        dir.display()
    );
    if let Ok(to) = dir.read_link() {
        anyhow::ensure!(
            dir.exists(),
            "cannot write into {}: it is a link to {}, which is not there; make that directory, or remove the link",
            dir.display(),
            to.display()
        );
    }
    Ok(())
}

/// Reads items.
pub(crate) fn items(args: &ItemArgs) -> Result<Vec<Item>> {
    let (items, taken) = read_taken(&args.items, &args.read_as()?)?;
    say_taken(taken, args.only.as_ref());
    Ok(items)
}

/// Scans a file of items without keeping them in memory.
pub(crate) fn item_file(args: &ItemArgs) -> Result<ItemFile> {
    let file = ItemFile::open(&args.items, args.read_as()?)?;
    say_taken(file.taken(), args.only.as_ref());
    Ok(file)
}

/// Prints for how many items a condition holds.
pub(crate) fn say_taken(taken: Taken, only: Option<&Predicate>) {
    if let Some(only) = only {
        ui::say(&format!("note: {}", taken.told(only)));
    }
}

/// Prints what a user must know about heads that come from an attribution.
pub(crate) fn remark(heads: &str, identity: &Identity) -> Result<()> {
    ui::warn(&head_remarks(heads, &identity.weights_sha256)?);
    Ok(())
}

/// Refuses a plan that is none for any model, before one is opened.
pub(crate) fn check_plan(args: &PlanArgs) -> Result<()> {
    Ok(args.source().map_or(Ok(()), |source| study::check_plan(&source))?)
}

/// The plans that were asked for, or the empty plan if none was.
pub(crate) fn plans_of(args: &PlanArgs, spec: &ModelSpec, identity: Option<&Identity>) -> Result<Vec<HeadPlan>> {
    match args.source() {
        None => Ok(vec![HeadPlan::none()]),
        Some(source) => {
            let plans = plans(&source, spec)?;
            identity.map_or(Ok(()), |identity| remark(source.text, identity))?;
            match &plans[..] {
                [one] => ui::say(&format!("plan       {one}")),
                many => {
                    ui::say(&format!("plan       {} rows of {}", many.len(), source.text));
                    let none = many.iter().filter(|plan| plan.is_empty()).count();
                    if none > 0 {
                        let of = many.len();
                        ui::say(&format!(
                            "warning: {none} of {of} rows temper no head: their items are the untouched model's"
                        ));
                    }
                }
            }
            Ok(plans)
        }
    }
}
