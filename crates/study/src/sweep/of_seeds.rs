//! What the seeds of the reference's answers say: how right each is, and how much another one changes.

use headtemper_stats::mean;

use crate::{
    Role, Row,
    sweep::{
        compared::{Compared, PerOutcome},
        mark::Mark,
        outcome::{ArmOutcome, Marked, SeedFloor, Values, outcome},
    },
};

/// The reference's accuracy under each seed; its marks are in the order `[seed * items + item]`.
pub(super) fn accuracy_by_seed(items: usize, marks: &[Mark]) -> Vec<Option<f64>> {
    let of = |marks: &[Mark]| {
        let right: Vec<f64> = marks.iter().filter_map(|mark| Some(f64::from(u8::from(mark.right?)))).collect();
        (!right.is_empty()).then(|| mean(&right))
    };
    marks.chunks(items.max(1)).map(of).collect()
}

/// How much another seed changes the reference's answers, which are in the order `[seed * items + item]`.
pub(super) fn floor_of_seeds(items: usize, Marked { rows, marks }: Marked<'_>, axes: &[String]) -> Option<SeedFloor> {
    let chunk = items.max(1);
    let seeds: Vec<Marked<'_>> =
        rows.chunks(chunk).zip(marks.chunks(chunk)).map(|(rows, marks)| Marked { rows, marks }).collect();
    let pairs: Vec<(usize, usize)> = (0..seeds.len()).flat_map(|one| (0..one).map(move |other| (one, other))).collect();
    if pairs.is_empty() {
        return None;
    }
    let named = ("", 1.0, Role::Reference);
    let against = |&(one, other): &(usize, usize)| {
        let other: &[Row] = seeds[other].rows;
        outcome(named, seeds[one], axes, Some(other)).0.changed
    };
    let of_seeds: Vec<(ArmOutcome, Values)> = seeds
        .iter()
        .map(|&answers| {
            let (outcome, values, _) = outcome(named, answers, axes, None);
            (outcome, values)
        })
        .collect();
    let largest = |which: Compared<'_>| {
        let means: Vec<f64> = of_seeds
            .iter()
            .map(|(outcome, values)| {
                if which == Compared::AssertionAsymmetry {
                    return outcome.assertion_asymmetry.unwrap_or(f64::NAN);
                }
                let of = values.get(which).into_iter().flatten();
                mean(&of.copied().filter(|x| x.is_finite()).collect::<Vec<_>>())
            })
            .collect();
        let gaps = pairs.iter().map(|&(one, other)| (means[one] - means[other]).abs());
        gaps.filter(|gap| gap.is_finite()).max_by(f64::total_cmp)
    };
    Some(SeedFloor {
        pairs: pairs.len(),
        changed: mean(&pairs.iter().map(against).collect::<Vec<_>>()),
        largest: PerOutcome::from_fn(axes, largest),
    })
}
