//! The law that scaling a head's z = scaling its columns of the output projection.

use candle_core::{Device, Result, Tensor};
use headtemper_hook::HeadPlan;
use headtemper_model::{CausalLm, Held, load, load_folded};

use super::{
    Check,
    feed::{in_pieces, length, read_through, tokens},
    laws::exact_plan,
    relative, short,
};
use crate::Engine;

/// The name of the law.
const NAME: &str = "hook = folded weights";
/// Allowed difference relative to the largest logit, in f32. Measured worst case: 0 (2026-11-21), since products with 0.5, 0
/// and -1 do not round.
const FOLDED: f64 = 1e-5;
/// The least that the plan must move: a hook and a fold that both do nothing would agree too.
const MOVED: f64 = 100.0 * FOLDED;

/// What a model says with and without a plan, for comparison with the folded checkpoint. The model itself may be dropped
/// before that, so that only one copy of the weights is in memory at a time.
pub struct Hooked {
    plan: HeadPlan,
    ids: Vec<u32>,
    tempered: Tensor,
    base: Tensor,
}

impl Hooked {
    /// Reads some tokens with and without a plan of one head in every layer.
    ///
    /// # Errors
    /// What the model reports, or if a planned head never fired.
    pub fn read(model: &dyn CausalLm) -> Result<Self> {
        let (spec, plan) = (model.spec(), exact_plan(model.spec()));
        let ids = tokens(spec, length(spec), 12);
        let on_cpu = |logits: Tensor| logits.to_device(&Device::Cpu);
        let tempered = on_cpu(read_through(model, &ids, Some(&plan))?.1)?;
        let base = on_cpu(read_through(model, &ids, None)?.1)?;
        Ok(Self { plan, ids, tempered, base })
    }

    /// The plan to fold.
    pub fn plan(&self) -> &HeadPlan {
        &self.plan
    }

    /// Compares with a model that has the plan folded into its weights.
    pub fn compare(&self, folded: &dyn CausalLm) -> Check {
        let found = || {
            let hidden = in_pieces(folded, &self.ids, &[self.ids.len()], &mut ())?;
            let weights = folded.logits(&hidden)?.to_device(&Device::Cpu)?;
            let (off, moved) = (relative(&self.tempered, &weights)?, relative(&self.tempered, &self.base)?);
            let note = format!("a head a layer; the plan moves logits by {} of the largest", short(moved));
            // Moving nothing is as bad as moving the wrong thing.
            Ok(if moved >= MOVED { (off, note) } else { (f64::INFINITY, format!("{note}: a silent hook")) })
        };
        Check::of(NAME, FOLDED, found())
    }
}

/// Compares the hook with the folded checkpoint, in f32 whatever the model is held in. Drops the engine before it loads that.
pub fn folded(engine: Engine) -> Check {
    let (checkpoint, device) = (engine.checkpoint().clone(), engine.model().device().clone());
    let found = || -> crate::Result<Check> {
        let hooked = if engine.model().holding().is_all(Held::F32) {
            let hooked = Hooked::read(engine.model())?;
            drop(engine);
            hooked
        } else {
            drop(engine);
            Hooked::read(&*load(&checkpoint, Some(Held::F32), &device)?)?
        };
        Ok(hooked.compare(&*load_folded(&checkpoint, hooked.plan(), &device)?))
    };
    found().unwrap_or_else(|error| Check::of(NAME, FOLDED, Err(candle_core::Error::Msg(error.to_string()))))
}

/// The check of this law when it is skipped.
pub fn folded_skipped() -> Check {
    let note = "it reads the weights once more, in f32".into();
    Check { name: NAME.into(), measured: None, allowed: FOLDED, passed: None, note }
}
