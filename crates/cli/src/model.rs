//! From arguments to a loaded model, its plans and its items.

use anyhow::{Context, Result};
use candle_core::DType;
use headtemper_engine::{Engine, ModelChoice};
use headtemper_hook::HeadPlan;
use headtemper_study::{Item, PlanSource, plans, read_items};

use crate::{
    args::{Dtype, HowArgs, ItemArgs, ModelArgs, PlanArgs},
    ui,
};

impl Dtype {
    /// The dtype to hold weights in; `None` keeps the file's.
    pub(crate) fn held(self) -> Option<DType> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(DType::F32),
            Self::Bf16 => Some(DType::BF16),
            Self::F16 => Some(DType::F16),
        }
    }
}

/// Sets the number of threads of everything that follows.
pub(crate) fn use_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    anyhow::ensure!(threads > 0, "--threads is 0, but must be at least 1");
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot set the number of threads")
}

/// Opens a model and says on stderr what it is: a wrong geometry is the likeliest wrong result.
pub(crate) fn open(args: &ModelArgs) -> Result<Engine> {
    open_as(&args.model, args.revision.clone(), &args.how)
}

/// Opens a model by name.
pub(crate) fn open_as(model: &str, revision: Option<String>, how: &HowArgs) -> Result<Engine> {
    use_threads(how.threads)?;
    let choice = ModelChoice {
        model: model.into(),
        revision,
        dtype: how.dtype.held(),
        device: how.device.clone(),
        thinking: None,
        progress: true,
    };
    let engine = Engine::open(&choice)?;
    if let Some(note) = engine.note() {
        ui::say(&format!("note: {note}"));
    }
    let (identity, spec) = (engine.identity(), engine.spec());
    ui::say(&format!(
        "model      {}  {}, {} layers, {} heads  {} on {}",
        identity.model,
        identity.architecture,
        spec.layers.len(),
        spec.slots().len(),
        identity.dtype,
        identity.device
    ));
    Ok(engine)
}

/// Reads items.
pub(crate) fn items(args: &ItemArgs) -> Result<Vec<Item>> {
    let mut items = read_items(&args.items, args.raw)?;
    items.truncate(args.limit.unwrap_or(usize::MAX));
    anyhow::ensure!(!items.is_empty(), "--limit is 0, but must be at least 1");
    Ok(items)
}

/// The plans that were asked for: the empty one if none was.
pub(crate) fn plans_of(args: &PlanArgs, engine: &Engine) -> Result<Vec<HeadPlan>> {
    match &args.plan {
        None if args.lambda.is_some() => anyhow::bail!("--lambda needs --plan, which names the heads it is for"),
        None => Ok(vec![HeadPlan::none()]),
        Some(text) => {
            let plans = plans(&PlanSource { text, lambda: args.lambda }, engine.spec())?;
            match &plans[..] {
                [one] => ui::say(&format!("plan       {one}")),
                many => ui::say(&format!("plan       {} rows of {text}", many.len())),
            }
            Ok(plans)
        }
    }
}
