//! The verb `sweep`: every prompt under every arm, what each arm does to the answers, and the tables that say so.

mod answers;
mod arms;
pub(crate) mod asymmetry;
mod beside_random;
mod compare;
pub mod compared;
pub(crate) mod csv;
mod earlier;
pub(crate) mod examples;
pub(crate) mod files;
pub(crate) mod mark;
mod of_seeds;
pub mod outcome;
pub(crate) mod reading;
pub(crate) mod run;
pub(crate) mod text;
mod touched;
pub(crate) mod wanted;
mod warnings;
mod withhold;
pub(crate) mod work;

use std::{collections::BTreeSet, sync::atomic::AtomicBool};

use headtemper_engine::{Engine, GenerateOptions, Sampling, StopRule};
use headtemper_hook::HeadPlan;
use serde::{Deserialize, Serialize};

use crate::{Result, StudyError};

pub use answers::SweptAnswers;
pub use arms::{ArmsWanted, RandomFrom, arms, check_arms};
pub use compare::{Answered, outcomes_of};
pub use mark::{JudgedAnswers, Mark};
pub use run::{SweepRun, merge_sweep, sweep_run};
pub use text::sweep_markdown;
pub(crate) use touched::{check_reach, fired_by_arm, fired_of};
pub use work::sweep;

/// What an arm of a sweep is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The untouched model, which all others are compared with.
    Reference,
    /// λ = 1 through every hook: what differs from the reference is rounding and batching alone.
    Control,
    /// A head set that was asked for.
    Tempered,
    /// Heads drawn at random: what any heads would have done.
    Random,
}

/// One arm of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name in the rows.
    pub variant: String,
    /// The name of its head set.
    pub set: String,
    /// λ of the set.
    pub lambda: f32,
    /// What it is for.
    pub role: Role,
    /// Which heads the random sets beside its set are drawn from; for a random set, which heads it was drawn from.
    #[serde(default, skip_serializing_if = "RandomFrom::is_model")]
    pub random_from: RandomFrom,
    /// The plan.
    #[serde(with = "plan_text")]
    pub plan: HeadPlan,
}

/// A plan in a file, as it is written: `L7H6:0.5,L23H1:0.5`, or `none`.
mod plan_text {
    use headtemper_hook::{HeadList, HeadPlan};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(plan: &HeadPlan, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(plan)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<HeadPlan, D::Error> {
        match String::deserialize(from)?.as_str() {
            "none" => Ok(HeadPlan::none()),
            text => HeadList::parse(text).and_then(|list| list.plan(None)).map_err(D::Error::custom),
        }
    }
}

impl Arm {
    /// The untouched model.
    pub fn base() -> Self {
        let (variant, set) = ("base".into(), String::new());
        let (role, random_from) = (Role::Reference, RandomFrom::Model);
        Self { variant, set, lambda: 1.0, role, random_from, plan: HeadPlan::none() }
    }
}

/// How to generate.
#[derive(Clone)]
pub struct SweepOptions<'a> {
    /// Most new tokens per answer.
    pub max_new_tokens: usize,
    /// How tokens are chosen; its seed is replaced by each of `seeds`.
    pub sampling: Sampling,
    /// One generation per item, arm and seed. Greedy decoding needs one seed.
    pub seeds: Vec<u64>,
    /// Which tokens end an answer before the limit.
    pub ends: StopRule,
    /// The most rows that are decoded together; fewer where memory is short. By default, what suits the device.
    pub max_rows: Option<usize>,
    /// The most memory to take, in bytes; by default, what the machine has available.
    pub memory: Option<u64>,
    /// When set from outside, generation stops after the current step.
    pub stop: Option<&'a AtomicBool>,
}

impl SweepOptions<'_> {
    /// The options in the engine's form.
    pub(crate) fn generation(&self, engine: &Engine) -> GenerateOptions<'_> {
        let (max_rows, memory, stop) = (self.max_rows.unwrap_or_else(|| engine.rows_at_once()), self.memory, self.stop);
        GenerateOptions { max_rows, memory, stop, ..GenerateOptions::default() }
    }

    /// Refuses invalid settings.
    ///
    /// # Errors
    /// If a setting is invalid; the error says what is allowed.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        let wrong = |what: &str, found: String, allowed: &str| Err(StudyError::option(what, found, allowed));
        if self.max_new_tokens == 0 {
            return wrong("max_new_tokens", "0".into(), "at least 1");
        }
        let distinct: BTreeSet<u64> = self.seeds.iter().copied().collect();
        if distinct.len() != self.seeds.len() || distinct.is_empty() {
            return wrong("the list of seeds", format!("{:?}", self.seeds), "different numbers, at least one");
        }
        if self.sampling.temperature == 0.0 && self.seeds.len() > 1 {
            return wrong(
                "the list of seeds",
                format!("{:?}", self.seeds),
                "one, since greedy answers do not depend on it",
            );
        }
        Ok(())
    }
}
