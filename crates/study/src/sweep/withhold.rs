//! Arms that are not compared with the reference, since what is known of their answers is not known alike.

use std::borrow::Cow;

use headtemper_engine::FinishReason;

use crate::{
    Role, Row,
    items::units::sums,
    significance::LEVEL,
    sweep::{
        compare::{Judged, tested},
        compared::Compared,
        mark::Mark,
        outcome::{ArmOutcome, UNEQUAL_SHARES},
    },
};

/// Whether shares of this many answers differ too much: by more than two of a hundred, which must not exceed itself because shares are
/// rounded; and by more than one answer, however large its share of a few, as one can make no difference that counts.
fn unequal(here: f64, there: f64, answers: usize) -> bool {
    let gap = (here - there).abs();
    gap > UNEQUAL_SHARES + 1e-9 && gap * answers as f64 > 1.0 + 1e-9
}

/// The tempered arms of which surely more answers lack something than of the reference's, or fewer: by sign flips over units, for all of
/// them together. Of many answers, a share that differs by less than [`UNEQUAL_SHARES`] may still be the arm's doing, and make what looks
/// like a finding. Random sets take no part: one that is withheld counts against all findings, and some would be by chance.
fn surely_unequal(
    judged: &[Judged<'_>],
    reference: usize,
    units: &[Vec<usize>],
    lacks: &dyn Fn(usize) -> Vec<bool>,
) -> Vec<bool> {
    let items = units.iter().map(Vec::len).sum::<usize>();
    let of_reference = lacks(reference);
    let column = |arm: usize| -> Vec<f64> {
        let more: Vec<f64> = lacks(arm)
            .iter()
            .zip(&of_reference)
            .map(|(&own, &other)| f64::from(i8::from(own) - i8::from(other)))
            .collect();
        let of_item: Vec<f64> = (0..items).map(|item| more.iter().skip(item).step_by(items).sum()).collect();
        sums(&of_item, units)
    };
    let tempered: Vec<usize> = (0..judged.len()).filter(|&arm| judged[arm].arm.role == Role::Tempered).collect();
    let columns: Vec<Vec<f64>> = tempered.iter().map(|&arm| column(arm)).collect();
    let (_, p_max) = tested(&columns.iter().map(|column| &column[..]).collect::<Vec<_>>());
    let mut sure = vec![false; judged.len()];
    for (arm, p) in tempered.into_iter().zip(p_max) {
        sure[arm] = p <= LEVEL;
    }
    sure
}

/// Marks the arms that were cut off more or less often than the reference: by too large a share, or by more than chance does.
pub(super) fn withhold(judged: &mut [Judged<'_>], reference: usize, rows: &[&[Row]], units: &[Vec<usize>]) {
    let cut_off = |arm: usize| rows[arm].iter().map(|row| row.finish_reason == FinishReason::Length).collect();
    let sure = surely_unequal(judged, reference, units, &cut_off);
    let there = judged[reference].outcome.truncated;
    for (Judged { outcome, .. }, sure) in judged.iter_mut().zip(sure) {
        let here = outcome.truncated;
        if sure || unequal(here, there, outcome.n) {
            let percent = |share: f64| format!("{:.1} %", 100.0 * share);
            let why = format!("{} of its answers were cut off, of the reference's {}", percent(here), percent(there));
            outcome.withheld = Some(why);
        }
    }
}

/// Marks the arms for which what an outcome needs to know is missing more or less often than for the reference: the answers that would be
/// compared may be the arm's choice.
pub(super) fn withhold_unjudged(
    judged: &mut [Judged<'_>],
    reference: usize,
    (which, axes): (Compared<'_>, &[String]),
    marks: &[Cow<'_, [Mark]>],
    units: &[Vec<usize>],
) {
    let share = |of: &ArmOutcome| of.unjudged(which) as f64 / of.n as f64;
    let Judged { outcome: of_reference, values, .. } = &judged[reference];
    // Of an outcome that nothing says anything of, nothing is withheld.
    if !values.get(which).is_some_and(|values| values.iter().any(|value| value.is_finite())) {
        return;
    }
    let there = share(of_reference);
    let lacks = |arm: usize| marks[arm].iter().map(|mark| mark.lacks(which, axes)).collect();
    let sure = surely_unequal(judged, reference, units, &lacks);
    for (Judged { outcome, .. }, sure) in judged.iter_mut().zip(sure) {
        if sure || unequal(share(outcome), there, outcome.n) {
            outcome.unequally_judged.push(which.name());
        }
    }
}
