//! From arguments to a loaded model, its plans and its items.

use anyhow::Result;
use headtemper_engine::{Engine, Identity, ModelChoice};
use headtemper_hook::{HeadPlan, ModelSpec};
use headtemper_model::{Blocks, Held, HoldAs, Precision, Products};
use headtemper_study::{Item, ItemFile, PlanSource, Predicate, Taken, head_remarks, plans, read_taken};

use crate::{
    args::{Dtype, ItemArgs, ModelArgs, PlanArgs, ProductsOf, Switch},
    ui,
};

impl Dtype {
    /// The form to hold weights in.
    pub(crate) fn hold(self) -> HoldAs {
        let blocks = |blocks| HoldAs::All(Held::Blocks(blocks));
        match self {
            Self::Auto => HoldAs::Native,
            Self::F32 => HoldAs::All(Held::F32),
            Self::Bf16 => HoldAs::All(Held::Bf16),
            Self::F16 => HoldAs::All(Held::F16),
            Self::Stored => HoldAs::Stored,
            Self::Q8_0 => blocks(Blocks::Q8_0),
            Self::Q4_0 => blocks(Blocks::Q4_0),
            Self::Q4_1 => blocks(Blocks::Q4_1),
            Self::Q5_0 => blocks(Blocks::Q5_0),
            Self::Q5_1 => blocks(Blocks::Q5_1),
            Self::Q4K => blocks(Blocks::Q4K),
            Self::Q5K => blocks(Blocks::Q5K),
            Self::Q6K => blocks(Blocks::Q6K),
        }
    }
}

impl ProductsOf {
    /// The engine's value for this choice.
    pub(crate) fn products(self) -> Products {
        match self {
            Self::F32 => Products::F32,
            Self::Bf16 => Products::Bf16,
        }
    }
}

impl ModelArgs {
    /// What was typed, in the engine's form.
    pub(crate) fn choice(&self, thinking: Option<Switch>) -> ModelChoice {
        ModelChoice {
            model: self.model.clone(),
            revision: self.revision.clone(),
            precision: Precision { hold: self.how.dtype.hold(), products: self.how.products.products() },
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

/// Reads items.
pub(crate) fn items(args: &ItemArgs) -> Result<Vec<Item>> {
    let (items, taken) = read_taken(&args.items, &args.read_as()?)?;
    say_taken(taken, args.holds.as_ref());
    Ok(items)
}

/// Scans a file of items without keeping them in memory.
pub(crate) fn item_file(args: &ItemArgs) -> Result<ItemFile> {
    let file = ItemFile::open(&args.items, args.read_as()?)?;
    say_taken(file.taken(), args.holds.as_ref());
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

/// The plans that were asked for, or the empty plan if none was.
pub(crate) fn plans_of(args: &PlanArgs, spec: &ModelSpec, identity: Option<&Identity>) -> Result<Vec<HeadPlan>> {
    match &args.plan {
        None if args.lambda.is_some() => anyhow::bail!("--lambda needs --plan, which names the heads it is for"),
        None if args.positions.is_some() => anyhow::bail!("--positions needs --plan, which it limits"),
        None => Ok(vec![HeadPlan::none()]),
        Some(text) => {
            let plans = plans(&PlanSource { text, lambda: args.lambda, positions: args.positions }, spec)?;
            identity.map_or(Ok(()), |identity| remark(text, identity))?;
            match &plans[..] {
                [one] => ui::say(&format!("plan       {one}")),
                many => ui::say(&format!("plan       {} rows of {text}", many.len())),
            }
            Ok(plans)
        }
    }
}
