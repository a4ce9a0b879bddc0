//! What the gate changes, each number with its interval over prompts, and beside it what as many prefixes change when dealt at random.
//!
//! A gate takes assertions away and adds none, so the change in a share of assertions is itself a share: that of the answers which lost
//! their assertion.

use headtemper_stats::{Interval, Relabelings, Tail, clustered_t, difference, mean, p_value, quantile, share};

use super::result::{AtRandom, Change, Changes, Dealt, GatedRow};
use crate::{
    Grade,
    items::units::sizes,
    significance::LEVEL,
    sweep::asymmetry::{LEAST, Stance, column},
};

/// How often prefixes are dealt at random.
const DRAWS: usize = 1000;
/// Seed of the draws.
const SEED: u64 = 0;
/// An interval without ends.
const NO_ENDS: (f64, f64) = (f64::NAN, f64::NAN);

/// An answer that is known to be right or wrong.
#[derive(Clone, Copy)]
struct Answer {
    /// The unit that it belongs to.
    unit: usize,
    right: bool,
    /// Whether it stands as an assertion without the gate.
    plain: bool,
    /// The same with it.
    gated: bool,
}

impl Answer {
    fn lost(&self) -> bool {
        self.plain && !self.gated
    }
}

impl Changes {
    /// From the rows, and which of them belong to one prompt.
    pub(super) fn of(rows: &[GatedRow], units: &[Vec<usize>]) -> Self {
        let answer = |unit: usize, row: &GatedRow| {
            let Grade { correct, hedged } = Grade::of_label(row.plain_label.as_deref()?)?;
            Some(Answer { unit, right: correct, plain: !hedged, gated: !hedged && !row.prefixed })
        };
        let of_unit = |(unit, of): (usize, &Vec<usize>)| {
            of.iter().filter_map(|&row| answer(unit, &rows[row])).collect::<Vec<Answer>>()
        };
        Self::of_answers(&units.iter().enumerate().flat_map(of_unit).collect::<Vec<_>>(), DRAWS)
    }

    /// From answers in the order of their units.
    fn of_answers(answers: &[Answer], draws: usize) -> Self {
        let [right, wrong] = [true, false].map(|class| lost(answers.iter().filter(|answer| answer.right == class)));
        Self {
            known: answers.len(),
            prompts: answers.chunk_by(|a, b| a.unit == b.unit).count(),
            p_assert_correct: taken(right),
            p_assert_wrong: taken(wrong),
            asymmetry: of_asymmetry(answers, difference(right, wrong)),
            asserted: taken(lost(answers.iter())),
            asserted_right: of_asserted(answers),
            at_random: at_random(answers, draws),
        }
    }
}

/// The share of these answers that lost their assertion.
fn lost<'a>(answers: impl Iterator<Item = &'a Answer>) -> Interval {
    share_of(answers, Answer::lost)
}

fn share_of<'a>(answers: impl Iterator<Item = &'a Answer>, holds: impl Fn(&Answer) -> bool) -> Interval {
    let (holds, units): (Vec<bool>, Vec<usize>) = answers.map(|answer| (holds(answer), answer.unit)).unzip();
    share(&holds, &units)
}

/// How a share of assertions changes if this share is taken away.
fn taken(Interval { mean, low, high }: Interval) -> Change {
    // Avoids -0.
    Change { difference: 0.0 - mean, low: 0.0 - high, high: 0.0 - low }
}

/// How the asymmetry changes: over prompts as in sweeps, widened to the interval from the shares of right and of wrong answers that lost
/// their assertion, since what never happened may still happen. No interval if a class is too small.
fn of_asymmetry(answers: &[Answer], of_shares: Interval) -> Change {
    let stances = |asserted: fn(&Answer) -> bool| -> Vec<Stance> {
        answers.iter().map(|answer| Some((answer.right, asserted(answer)))).collect()
    };
    let over_units = column(&stances(|a| a.gated), &stances(|a| a.plain), answers.len(), &places(answers));
    let ends = over_units.map_or(NO_ENDS, |column| wider(column.interval, of_shares));
    Change { difference: of_shares.mean, low: ends.0, high: ends.1 }
}

/// How the share of right answers among the asserted ones changes. Their share without the gate is that of the kept and the lost ones
/// together, so the change is the difference between these two, times the lost ones' part. Each answer contributes to a share its
/// difference from it (the delta method), summed over units; the interval is widened to that from the two shares.
fn of_asserted(answers: &[Answer]) -> Change {
    let plain = || answers.iter().filter(|answer| answer.plain);
    let part = lost(plain()).mean;
    let right = |lost: bool| share_of(plain().filter(|answer| answer.lost() == lost), |answer| answer.right);
    let (kept, taken, all) = (right(false), right(true), share_of(plain(), |answer| answer.right));
    let found = kept.mean - all.mean;
    let counts = [plain().count() as f64, answers.iter().filter(|answer| answer.gated).count() as f64];
    let units = places(answers);
    let added = |answer: &Answer| {
        let of = |holds: bool, share: f64, count: f64| {
            if holds { (f64::from(answer.right) - share) / count } else { 0.0 }
        };
        of(answer.gated, kept.mean, counts[1]) - of(answer.plain, all.mean, counts[0])
    };
    let sum = |unit: &Vec<usize>| -> f64 {
        unit.iter().map(|&place| found + answers.len() as f64 * added(&answers[place])).sum()
    };
    let enough = units.iter().filter(|unit| unit.iter().any(|&place| answers[place].gated)).count() >= LEAST;
    let over_units = clustered_t(&units.iter().map(sum).collect::<Vec<_>>(), &sizes(&units));
    let of_shares = difference(kept, taken);
    let of_shares = Interval { mean: found, low: part * of_shares.low, high: part * of_shares.high };
    // If no answer lost its assertion, there is nothing to compare.
    let ends = if enough && part > 0.0 { wider(over_units, of_shares) } else { NO_ENDS };
    Change { difference: found, low: ends.0, high: ends.1 }
}

/// The ends of an interval that holds both; if one has none, those of the other.
fn wider(one: Interval, other: Interval) -> (f64, f64) {
    (one.low.min(other.low), one.high.max(other.high))
}

/// The positions of each unit's answers.
fn places(answers: &[Answer]) -> Vec<Vec<usize>> {
    let mut next = 0;
    let place = |unit: &[Answer]| {
        next += unit.len();
        (next - unit.len()..next).collect()
    };
    answers.chunk_by(|a, b| a.unit == b.unit).map(place).collect()
}

/// Deals out the prefixes of asserted answers at random. Their number stays, so every number of interest follows from how many right
/// answers got one, and p is the same for all of them.
fn at_random(answers: &[Answer], draws: usize) -> Option<AtRandom> {
    let asserted: Vec<Answer> = answers.iter().filter(|answer| answer.plain).copied().collect();
    let dealt: Vec<bool> = asserted.iter().map(Answer::lost).collect();
    let units: Vec<usize> = asserted.iter().map(|answer| answer.unit).collect();
    let relabelings = Relabelings::new(&dealt, SEED, &units, None);
    if 1.0 / relabelings.labelings() > LEVEL {
        return None;
    }
    let of = |class: bool| answers.iter().filter(|answer| answer.right == class).count() as f64;
    let all = [of(true), of(false)];
    // The asymmetry with its sign reversed, so that more is better, and the share of right answers.
    let outcome = |prefixed: &[bool]| {
        let mut kept = [0.0; 2];
        for (answer, _) in asserted.iter().zip(prefixed).filter(|&(_, &prefixed)| !prefixed) {
            kept[usize::from(!answer.right)] += 1.0;
        }
        [kept[0] / all[0] - kept[1] / all[1], kept[0] / (kept[0] + kept[1])]
    };
    let before = outcome(&vec![false; asserted.len()]);
    let observed = outcome(&dealt);
    let null: Vec<[f64; 2]> = (0..draws as u64).map(|k| outcome(&relabelings.labels(k))).collect();
    let found = |which: usize, sign: f64| {
        let values: Vec<f64> = null.iter().map(|of| of[which]).collect();
        let mut changes: Vec<f64> = values.iter().map(|value| sign * (value - before[which])).collect();
        changes.sort_by(f64::total_cmp);
        Dealt {
            mean: mean(&changes),
            low: quantile(&changes, 0.025),
            high: quantile(&changes, 0.975),
            p: p_value(observed[which], &values, Tail::Greater),
        }
    };
    Some(AtRandom {
        draws,
        seed: SEED,
        answers: asserted.len(),
        prefixed: dealt.iter().filter(|&&dealt| dealt).count(),
        fixed: relabelings.fixed(),
        asymmetry: found(0, -1.0),
        asserted_right: found(1, 1.0),
    })
}

#[cfg(test)]
mod tests;
