//! From arguments to a loaded model, its plans and its items.

use anyhow::{Context, Result};
use candle_core::DType;
use headtemper_engine::{Engine, ModelChoice};
use headtemper_hook::{HeadPlan, ModelSpec};
use headtemper_study::{Item, PlanSource, plans, read_items};

use crate::{
    args::{Dtype, ItemArgs, ModelArgs, PlanArgs, Switch},
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

impl ModelArgs {
    /// What was typed, as the engine asks for it.
    pub(crate) fn choice(&self, thinking: Option<Switch>) -> ModelChoice {
        ModelChoice {
            model: self.model.clone(),
            revision: self.revision.clone(),
            dtype: self.how.dtype.held(),
            device: self.how.device.clone(),
            thinking: thinking.map(|switch| switch == Switch::On),
            random: self.how.random,
            progress: true,
        }
    }
}

/// Opens a model and says on stderr what it is: a wrong geometry is the likeliest wrong result.
pub(crate) fn open(args: &ModelArgs, thinking: Option<Switch>) -> Result<Engine> {
    open_choice(&args.choice(thinking), args.how.threads)
}

/// Opens a model that was chosen elsewhere than on the command line.
pub(crate) fn open_choice(choice: &ModelChoice, threads: Option<usize>) -> Result<Engine> {
    use_threads(threads)?;
    let engine = Engine::open(choice)?;
    if let Some(note) = engine.note() {
        ui::say(&format!("note: {note}"));
    }
    let (identity, spec) = (engine.identity(), engine.spec());
    ui::say(&format!(
        "model      {}  {}, {} layers, {} heads  {} on {}",
        match identity.random {
            Some(seed) => format!("{}, random weights of seed {seed}", identity.model),
            None => identity.model.clone(),
        },
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
pub(crate) fn plans_of(args: &PlanArgs, spec: &ModelSpec) -> Result<Vec<HeadPlan>> {
    match &args.plan {
        None if args.lambda.is_some() => anyhow::bail!("--lambda needs --plan, which names the heads it is for"),
        None if args.positions.is_some() => anyhow::bail!("--positions needs --plan, which it limits"),
        None => Ok(vec![HeadPlan::none()]),
        Some(text) => {
            let plans = plans(&PlanSource { text, lambda: args.lambda, positions: args.positions }, spec)?;
            match &plans[..] {
                [one] => ui::say(&format!("plan       {one}")),
                many => ui::say(&format!("plan       {} rows of {text}", many.len())),
            }
            Ok(plans)
        }
    }
}
