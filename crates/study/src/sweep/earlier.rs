//! What earlier calls have tried in the same directory. The tables show it beside what is asked for now, since p max is over all that was
//! tried, whether at once or one by one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Arm, Role, run::SweepPlan};
use crate::{Plan, RowLog};

/// An arm under one seed that an earlier call asked for and that the tables of the last one do not hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cell {
    pub(super) arm: Arm,
    seed: u64,
    /// The keys of its rows, one per item.
    keys: Vec<String>,
}

/// Keeps in `plan` what an earlier plan of the directory asked for and this one does not. Both have the same items, as all plans of one
/// directory do.
pub(super) fn remember(plan: &mut Plan<SweepPlan>, earlier: &Plan<SweepPlan>) {
    // A call that asks for no random sets leaves an arm those that it has.
    if plan.plan.arms.iter().all(|arm| arm.role != Role::Random) {
        for arm in &mut plan.plan.arms {
            let known = earlier.plan.elsewhere.iter().map(|cell| &cell.arm);
            let before = earlier.plan.arms.iter().chain(known).find(|before| before.variant == arm.variant);
            arm.random_from = before.map_or(arm.random_from, |before| before.random_from);
        }
    }
    let mut known: Vec<Cell> = std::mem::take(&mut plan.plan.elsewhere);
    let mut names: BTreeSet<(String, u64)> = table_cells(plan).iter().chain(&known).map(name).collect();
    for cell in table_cells(earlier).iter().chain(&earlier.plan.elsewhere) {
        if names.insert(name(cell)) {
            known.push(cell.clone());
        }
    }
    plan.plan.elsewhere = known;
}

/// The plan, followed by those of the arms and seeds it remembers whose rows are all there.
///
/// A further seed joins if every arm of the plan has its rows under it; a further arm joins if it then has rows under every seed.
/// Answers that are not sampled have no seeds. What does not fit stays out, and the tables carry a warning about it. An arm that touched
/// nothing stays out too: the call that asked for it was refused, and this one did not ask.
pub(super) fn with_earlier(plan: &Plan<SweepPlan>, log: &RowLog) -> Plan<SweepPlan> {
    let known = &plan.plan.elsewhere;
    let complete = known.iter().filter(|cell| cell.keys.iter().all(|key| log.get(key).is_some()));
    // An arm's name says which heads and which λ.
    let cells: BTreeMap<(String, u64), Vec<String>> =
        table_cells(plan).iter().chain(complete).map(|cell| (name(cell), cell.keys.clone())).collect();
    let has = |arm: &Arm, seed: u64| cells.contains_key(&(arm.variant.clone(), seed));

    let (mut arms, mut seeds) = (plan.plan.arms.clone(), plan.plan.seeds.clone());
    if plan.plan.sampling.temperature > 0.0 {
        for cell in known {
            if !seeds.contains(&cell.seed) && plan.plan.arms.iter().all(|arm| has(arm, cell.seed)) {
                seeds.push(cell.seed);
            }
        }
    }
    let touches = |arm: &Arm| {
        let rows = seeds.iter().flat_map(|&seed| &cells[&(arm.variant.clone(), seed)]).map(|key| log.get(key));
        arm.plan.is_empty() || rows.flatten().any(|row| row.touched)
    };
    let fits = |arm: &&Arm| seeds.iter().all(|&seed| has(arm, seed)) && touches(arm);
    let fitting: Vec<&Arm> = known.iter().map(|cell| &cell.arm).filter(fits).collect();
    for arm in fitting {
        if arms.iter().all(|there| there.variant != arm.variant) {
            arms.push(arm.clone());
        }
    }

    let of = |arm: &Arm, seed: u64| cells[&(arm.variant.clone(), seed)].clone();
    let keys = arms.iter().flat_map(|arm| seeds.iter().flat_map(move |&seed| of(arm, seed))).collect();
    let in_tables = |cell: &Cell| seeds.contains(&cell.seed) && arms.iter().any(|arm| arm.variant == cell.arm.variant);
    let elsewhere = known.iter().filter(|cell| !in_tables(cell)).cloned().collect();
    Plan::new(keys, plan.plan.of(arms, seeds, elsewhere))
}

fn name(cell: &Cell) -> (String, u64) {
    (cell.arm.variant.clone(), cell.seed)
}

/// The cells of a plan's tables, in its order.
fn table_cells(plan: &Plan<SweepPlan>) -> Vec<Cell> {
    let SweepPlan { arms, seeds, items, .. } = &plan.plan;
    let of = arms.iter().flat_map(|arm| seeds.iter().map(move |&seed| (arm, seed)));
    // If the numbers of rows and cells do not match, the surplus is dropped.
    let cell = |((arm, seed), keys): ((&Arm, u64), &[String])| Cell { arm: arm.clone(), seed, keys: keys.to_vec() };
    of.zip(plan.keys.chunks_exact(items.len().max(1))).map(cell).collect()
}
