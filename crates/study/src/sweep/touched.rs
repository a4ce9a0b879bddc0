//! Whether the arms of a sweep touched anything: before it runs, by how far answers may reach, and afterwards, by what the hooks counted.

use std::path::Path;

use headtemper_engine::{Engine, EngineError};

use super::{Arm, wanted::Wanted};
use crate::{HookCounts, Item, Keyed, Result, Row, StudyError, hooks::counted, text::count};

/// What the hooks of each arm counted over its rows, `[arm][seed * items + item]`, whichever calls wrote them.
///
/// # Errors
/// If no row of an arm has a token at its plan's positions: to report no difference would be a false null. Or if a row says that it
/// belongs elsewhere, or its count cannot be that of its plan.
pub(crate) fn fired_by_arm((items, seeds): (&[Item], &[u64]), arms: &[Arm], rows: &[Vec<Row>]) -> Result<HookCounts> {
    for (arm, rows) in arms.iter().zip(rows) {
        let places = seeds.iter().flat_map(|&seed| items.iter().map(move |item| (seed, item)));
        for ((seed, item), row) in places.zip(rows) {
            check_place((arm, seed, item), row)?;
            check_count(arm, row)?;
        }
    }
    let untouched = |rows: &[Row]| !rows.is_empty() && !rows.iter().any(|row| row.touched);
    refuse_first(arms.iter().zip(rows).filter(|(_, rows)| untouched(rows)).map(|(arm, _)| arm))?;
    Ok(fired_of(rows.iter().flatten()))
}

/// Refuses a row that names another arm, seed or item than the one that its key is of.
fn check_place((arm, seed, item): (&Arm, u64, &Item), row: &Row) -> Result<()> {
    if (&row.id, &row.variant, row.seed) == (&item.id, &arm.variant, seed) {
        return Ok(());
    }
    let named = |id: &str, variant: &str, seed: u64| format!("item '{id}' under {variant} with seed {seed}");
    let (says, is) = (named(&row.id, &row.variant, row.seed), named(&item.id, &arm.variant, seed));
    let why = format!(
        "a line says that it answers {says}, but its key ({}) is that of {is}; without it, the row is made again",
        row.key
    );
    Err(StudyError::content(Path::new(Row::FILE), why))
}

/// Refuses a row that cannot be what the hooks counted: every planned head is applied to the same tokens, and to none only where the
/// plan's positions hold none.
fn check_count(arm: &Arm, row: &Row) -> Result<()> {
    let (heads, Some(fired)) = (arm.plan.iter().count() as u64, row.fired) else { return Ok(()) };
    let fits = if heads == 0 { fired == 0 } else { fired.is_multiple_of(heads) && (fired > 0) == row.touched };
    if fits {
        return Ok(());
    }
    let (id, variant, file) = (&row.id, &row.variant, Row::FILE);
    let why = format!(
        "the answer to item '{id}' under {variant} says that hooks fired on {fired} head-tokens, which its plan of {} cannot give; \
         without its line (key {}), it is made again",
        count(heads as usize, "head"),
        row.key
    );
    Err(StudyError::content(Path::new(file), why))
}

/// Refuses an arm whose positions none of its answers can reach, however long they become: nothing needs to be generated to know.
///
/// # Errors
/// As [`fired_by_arm`] would give afterwards.
pub(crate) fn check_reach(engine: &Engine, arms: &[Arm], wanted: &[Wanted]) -> Result<()> {
    let mut reached = vec![false; arms.len()];
    for w in wanted {
        let most = engine.most_read(w.request.ids.len(), w.request.max_new_tokens, false);
        reached[w.arm] |= arms[w.arm].plan.positions().touch(most, w.request.ids.len());
    }
    refuse_first(arms.iter().zip(reached).filter(|(_, reached)| !reached && !wanted.is_empty()).map(|(arm, _)| arm))
}

/// Refuses the first of these arms that has a plan: they touched nothing, or would.
fn refuse_first<'a>(idle: impl Iterator<Item = &'a Arm>) -> Result<()> {
    let first = idle.map(|arm| &arm.plan).find(|plan| !plan.is_empty());
    first.map_or(Ok(()), |plan| Err(EngineError::from(plan.never_fired()).into()))
}

/// What the hooks counted over any rows, which may be only a part: nothing is refused.
pub(crate) fn fired_of<'a>(rows: impl Iterator<Item = &'a Row>) -> HookCounts {
    counted(rows.map(|row| (&*row.variant, row.fired)))
}
