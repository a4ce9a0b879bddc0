//! What earlier calls have tried in the same directory. The tables show it beside what is asked for now, since p max is over all that was
//! tried, whether at once or one by one.

use std::collections::BTreeMap;

use super::{Arm, run::SweepPlan};
use crate::{Plan, RowLog};

/// The keys of an arm's rows under a seed, one per item.
type Cells<'a> = BTreeMap<(&'a str, u64), &'a [String]>;

/// The new plan, followed by those arms and seeds of an earlier plan whose rows are all there. Both have the same items, as all plans of
/// one directory do.
///
/// A further seed joins if every arm of the new plan has its rows under it; a further arm joins if it then has rows under every seed.
/// Answers that are not sampled have no seeds. What does not fit stays out, and the tables carry a warning about it. An arm that touched
/// nothing stays out too: the call that asked for it was refused, and this one did not ask.
pub(super) fn with_earlier(new: &Plan<SweepPlan>, earlier: &Plan<SweepPlan>, log: &RowLog) -> Plan<SweepPlan> {
    let (mut cells, own) = (cells_of(earlier), cells_of(new));
    cells.retain(|_, keys| keys.iter().all(|key| log.get(key).is_some()));
    cells.extend(own);
    let has = |arm: &Arm, seed: u64| cells.contains_key(&(arm.variant.as_str(), seed));

    let (mut arms, mut seeds) = (new.plan.arms.clone(), new.plan.seeds.clone());
    if new.plan.sampling.temperature > 0.0 {
        let further = |seed: &&u64| !new.plan.seeds.contains(seed) && arms.iter().all(|arm| has(arm, **seed));
        seeds.extend(earlier.plan.seeds.iter().filter(further));
    }
    // An arm's name says which heads and which λ.
    let touches = |arm: &Arm| {
        arm.plan.is_empty()
            || seeds.iter().any(|&seed| {
                let keys = cells.get(&(arm.variant.as_str(), seed)).copied().unwrap_or_default();
                keys.iter().any(|key| log.get(key).is_some_and(|row| row.touched))
            })
    };
    let further = |arm: &&Arm| {
        new.plan.arms.iter().all(|own| own.variant != arm.variant)
            && seeds.iter().all(|&seed| has(arm, seed))
            && touches(arm)
    };
    arms.extend(earlier.plan.arms.iter().filter(further).cloned());

    let of = |arm: &Arm, seed: u64| cells[&(arm.variant.as_str(), seed)].to_vec();
    let keys = arms.iter().flat_map(|arm| seeds.iter().flat_map(move |&seed| of(arm, seed))).collect();
    Plan::new(keys, new.plan.of(arms, seeds))
}

fn cells_of(plan: &Plan<SweepPlan>) -> Cells<'_> {
    let SweepPlan { arms, seeds, items, .. } = &plan.plan;
    let of = arms.iter().flat_map(|arm| seeds.iter().map(|&seed| (arm.variant.as_str(), seed)));
    // If the numbers of rows and cells do not match, the surplus is dropped.
    of.zip(plan.keys.chunks_exact(items.len().max(1))).collect()
}
