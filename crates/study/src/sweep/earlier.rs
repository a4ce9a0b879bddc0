//! What earlier calls have tried in the same directory: it stands in the tables beside what is asked for now, since p max is over
//! all that was tried, whether at once or one by one.

use std::collections::BTreeMap;

use super::{Arm, run::SweepPlan};
use crate::{Plan, RowLog};

/// The keys of an arm's rows under a seed, one an item.
type Cells<'a> = BTreeMap<(&'a str, u64), &'a [String]>;

/// A plan with the arms and seeds of an earlier one all rows of which are there, behind its own. The items are the same, as those
/// of one directory are.
///
/// A further seed joins if every arm of the new plan has its rows under it, a further arm if it has rows under every seed then;
/// answers that are not drawn have no seeds. What does not fit stays out, and is warned of where the tables are made.
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
    // Of an arm, its name says which heads and λ.
    let further = |arm: &&Arm| {
        new.plan.arms.iter().all(|own| own.variant != arm.variant) && seeds.iter().all(|&seed| has(arm, seed))
    };
    arms.extend(earlier.plan.arms.iter().filter(further).cloned());

    let of = |arm: &Arm, seed: u64| cells[&(arm.variant.as_str(), seed)].to_vec();
    let keys = arms.iter().flat_map(|arm| seeds.iter().flat_map(move |&seed| of(arm, seed))).collect();
    Plan::new(keys, new.plan.of(arms, seeds))
}

fn cells_of(plan: &Plan<SweepPlan>) -> Cells<'_> {
    let SweepPlan { arms, seeds, items, .. } = &plan.plan;
    let of = arms.iter().flat_map(|arm| seeds.iter().map(|&seed| (arm.variant.as_str(), seed)));
    // Where a plan does not hold together, its rows are nobody's.
    of.zip(plan.keys.chunks_exact(items.len().max(1))).collect()
}
