//! The rows that a sweep wants: one per arm, seed and item, each with a key that hashes what determines it.

use std::sync::Arc;

use headtemper_engine::{Engine, Identity, Request, Sampling, StopRule};
use serde::Serialize;

use super::{Arm, SweepOptions};
use crate::{
    Item,
    store::digest::{Begun, noise_of},
};

/// What determines all rows of an item; what else determines one follows in [`Determinants`].
#[derive(Serialize)]
struct OfItem<'a> {
    identity: &'a Identity,
    ids: &'a [u32],
}

/// What determines a row of an item.
#[derive(Serialize)]
struct Determinants<'a> {
    plan: &'a str,
    sampling: &'a Sampling,
    max_new_tokens: usize,
    #[serde(skip_serializing_if = "is_default")]
    ends: &'a StopRule,
    /// How noise becomes a token; absent for greedy answers, which need none.
    #[serde(skip_serializing_if = "Option::is_none")]
    draw: Option<&'static str>,
    /// Two arms of the same plan are two measurements.
    variant: &'a str,
    item: &'a str,
}

/// The name of the method that turns noise into a token (`headtemper_engine::Sampling::next`).
const DRAW: &str = "gumbel";

/// Whether rows end by the default rule: if so, their keys stay as they always were.
pub(crate) fn is_default(ends: &StopRule) -> bool {
    *ends == StopRule::default()
}

/// A row that is wanted: where it belongs, and what makes it.
pub(crate) struct Wanted {
    pub(crate) arm: usize,
    pub(crate) item: usize,
    pub(crate) key: String,
    pub(crate) request: Request,
}

/// Every wanted row, arm by arm, so that neighbouring rows share the start of their prompts.
pub(crate) fn wanted(
    engine: &Engine,
    items: &[Item],
    prompts: &[Vec<u32>],
    arms: &[Arm],
    options: &SweepOptions<'_>,
) -> Vec<Wanted> {
    // A prompt is kept and hashed once, however many arms it is answered under.
    let of_item =
        |ids: &Vec<u32>| (Arc::<[u32]>::from(ids.as_slice()), Begun::new(&OfItem { identity: engine.identity(), ids }));
    let prompts: Vec<_> = prompts.iter().map(of_item).collect();
    let mut wanted = Vec::with_capacity(arms.len() * items.len() * options.seeds.len());
    for (arm_index, arm) in arms.iter().enumerate() {
        let plan = arm.plan.to_string();
        for &seed in &options.seeds {
            for (index, item) in items.iter().enumerate() {
                let sampling = Sampling { seed, ..options.sampling.clone() };
                let (ids, begun) = &prompts[index];
                let key = begun.digest(&Determinants {
                    plan: &plan,
                    sampling: &sampling,
                    max_new_tokens: options.max_new_tokens,
                    ends: &options.ends,
                    draw: (sampling.temperature > 0.0).then_some(DRAW),
                    variant: &arm.variant,
                    item: &item.id,
                });
                let request = Request {
                    ids: ids.clone(),
                    plan: arm_index,
                    sampling,
                    noise: noise_of(&item.id),
                    max_new_tokens: options.max_new_tokens,
                    stop: options.ends.clone(),
                };
                wanted.push(Wanted { arm: arm_index, item: index, key, request });
            }
        }
    }
    wanted
}
