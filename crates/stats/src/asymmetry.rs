//! What an assertion gate would do: how many wrong answers, and how many right ones, does it let stand as assertions?

use crate::{
    bootstrap::Range,
    paired::{Z, t_quantile},
    share::wilson_at,
    units::{are_alone, class_freedom, worth},
};

/// Thresholds that are tried, 0.05 to 0.95 in steps of 0.01.
const THRESHOLDS: std::ops::RangeInclusive<u32> = 5..=95;

/// The gate "assert where the probability of being correct is at least the threshold", at one threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatePoint {
    /// The threshold.
    pub threshold: f64,
    /// p(assert | correct).
    pub assert_correct: f64,
    /// p(assert | wrong).
    pub assert_wrong: f64,
}

impl GatePoint {
    /// The gate at one threshold. NaN where there are no correct or no wrong answers. Panics unless there is one label per
    /// probability.
    pub fn at(threshold: f64, probabilities: &[f64], correct: &[bool]) -> Self {
        assert_eq!(probabilities.len(), correct.len(), "one label a probability");
        let share = |class: bool| {
            let of_class = || probabilities.iter().zip(correct).filter(|&(_, &label)| label == class);
            of_class().filter(|&(&p, _)| p >= threshold).count() as f64 / of_class().count() as f64
        };
        Self { threshold, assert_correct: share(true), assert_wrong: share(false) }
    }

    /// Assertion asymmetry p(assert | wrong) - p(assert | correct): below 0 where the gate holds back wrong answers more
    /// than right ones.
    pub fn asymmetry(&self) -> f64 {
        self.assert_wrong - self.assert_correct
    }
}

/// The 95 % interval of the asymmetry at a threshold that was chosen on other items: Newcombe's (1998, his method 10), from the
/// score intervals of both shares. It has a width even where all or none of a class are asserted.
///
/// Each share counts as many items as it is [`worth`] over units; `unit` is that of each item. Where items share units, the
/// quantile is Student's, for as many units of one size as those of either class are worth at least. What units of both classes have in
/// common is ignored, which makes the interval too wide rather than too narrow. NaN where a class has no items, or where items share units
/// and those of a class are worth less than two. Panics unless there is one label and one unit per probability.
pub fn asymmetry_range(threshold: f64, probabilities: &[f64], correct: &[bool], unit: &[usize]) -> Range {
    assert_eq!(probabilities.len(), unit.len(), "one unit a probability");
    let at = GatePoint::at(threshold, probabilities, correct);
    if at.asymmetry().is_nan() {
        return Range::NONE;
    }
    let Some(quantile) = quantile(correct, unit) else { return Range::NONE };
    let of = |class: bool| {
        let items = (0..unit.len()).filter(|&item| correct[item] == class);
        let (asserted, units): (Vec<bool>, Vec<usize>) =
            items.map(|item| (probabilities[item] >= threshold, unit[item])).unzip();
        worth(&asserted, &units)
    };
    let (right, wrong) = (at.assert_correct, at.assert_wrong);
    let (of_right, of_wrong) = (wilson_at(right, of(true), quantile), wilson_at(wrong, of(false), quantile));
    Range {
        low: at.asymmetry() - (wrong - of_wrong.low).hypot(of_right.high - right),
        high: at.asymmetry() + (of_wrong.high - wrong).hypot(right - of_right.low),
    }
}

/// How many standard errors an interval reaches to either side; None where items share units and those of a class are worth less than two.
fn quantile(correct: &[bool], unit: &[usize]) -> Option<f64> {
    if are_alone(unit) { Some(Z) } else { class_freedom(correct, unit).map(t_quantile) }
}

/// The gate over all thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asymmetry {
    /// The least asymmetry among the thresholds that keep p(assert | correct) at the floor or above; of equals, the lowest
    /// threshold. None if no threshold keeps it. Chosen on the very items that it is measured on: an oracle's choice.
    pub best: Option<GatePoint>,
    /// The least asymmetry of all thresholds.
    pub lowest: GatePoint,
    /// The gate at one half.
    pub half: GatePoint,
}

/// The gate at every threshold from 0.05 to 0.95, ascending.
pub(crate) fn gate_curve(probabilities: &[f64], correct: &[bool]) -> Vec<GatePoint> {
    THRESHOLDS.map(|percent| GatePoint::at(f64::from(percent) / 100.0, probabilities, correct)).collect()
}

/// Looks for the best threshold under p(assert | correct) >= `floor`.
pub fn asymmetry(probabilities: &[f64], correct: &[bool], floor: f64) -> Asymmetry {
    let curve = gate_curve(probabilities, correct);
    let least = |points: &mut dyn Iterator<Item = &GatePoint>| {
        points.copied().reduce(|best, point| if point.asymmetry() < best.asymmetry() { point } else { best })
    };
    Asymmetry {
        best: least(&mut curve.iter().filter(|point| point.assert_correct >= floor)),
        lowest: least(&mut curve.iter()).expect("there are thresholds"),
        half: GatePoint::at(0.5, probabilities, correct),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn the_best_gate_keeps_the_floor() {
        let p = [0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.1, 0.85];
        let correct = [true, true, true, true, false, false, false, false];
        let found = asymmetry(&p, &correct, 0.7);
        let best = found.best.unwrap();
        // From 0.61 on, one of four wrong answers is asserted and three of four right ones.
        assert_eq!((best.threshold, best.asymmetry(), best.assert_correct), (0.61, -0.5, 0.75));
        assert_eq!(found.lowest.threshold, 0.61);
        assert_eq!((found.half.assert_correct, found.half.assert_wrong), (0.75, 0.5));
        assert!(asymmetry(&p, &correct, 1.01).best.is_none());
        assert_eq!(gate_curve(&p, &correct).len(), 91);
    }

    #[test]
    fn without_a_class_there_is_no_asymmetry() {
        let found = asymmetry(&[0.4, 0.6], &[true, true], 0.7);
        assert!(found.lowest.asymmetry().is_nan() && found.half.assert_wrong.is_nan());
    }
    #[test]
    fn a_share_has_an_interval_also_where_all_hold() {
        // Newcombe's example of 56 of 70 and 48 of 80: 0.20, from 0.0524 to 0.3339.
        let p: Vec<f64> = (0..150).map(|item| f64::from(u8::from(item < 56 || (70..118).contains(&item)))).collect();
        let correct: Vec<bool> = (0..150).map(|item| item >= 70).collect();
        let alone: Vec<usize> = (0..150).collect();
        let found = asymmetry_range(0.5, &p, &correct, &alone);
        assert!((found.low - 0.0524).abs() < 5e-5 && (found.high - 0.3339).abs() < 5e-5, "{found:?}");
        let correct: Vec<bool> = (0..24).map(|item| item < 12).collect();
        let found = asymmetry_range(0.5, &[1.0; 24], &correct, &alone[..24]);
        assert!((found.low + 0.2425).abs() < 1e-4 && (found.high - 0.2425).abs() < 1e-4, "{found:?}");
        assert!(asymmetry_range(0.5, &[1.0; 3], &[true; 3], &[0, 1, 2]).low.is_nan());
        assert!(asymmetry_range(0.5, &[1.0; 4], &[true, true, false, false], &[0, 0, 1, 2]).low.is_nan());
        let none = crate::wilson(0.0, 90.0);
        assert!(none.low == 0.0 && (none.high - 0.04094).abs() < 1e-5, "{none:?}");
    }

    /// For items alone, and for units with much in common, the interval holds the truth in at least 93 % of sets.
    #[test]
    fn the_interval_holds_the_truth() {
        const SETS: u64 = 2000;
        let equal = |each: usize, units: usize| vec![each; units];
        // Of either class, every other unit.
        let uneven = [vec![12, 12, 6, 6, 4, 4], equal(1, 24)].concat();
        for (sizes, right, wrong) in [
            (equal(1, 24), 0.9, 0.6),
            (equal(1, 24), 0.75, 0.75),
            (equal(1, 200), 0.95, 0.7),
            (equal(4, 40), 0.8, 0.5),
            (uneven, 0.8, 0.5),
            ([vec![20, 20, 8, 8], equal(1, 20)].concat(), 0.8, 0.5),
        ] {
            let unit: Vec<usize> = sizes.iter().enumerate().flat_map(|(unit, &size)| vec![unit; size]).collect();
            let correct: Vec<bool> = unit.iter().map(|unit| unit % 2 == 0).collect();
            let together = sizes[0] > 1;
            let held = (0..SETS).filter(|&set| {
                let mut random = Random::new(set, 0xa57);
                let mut of_unit = 0.0;
                let p: Vec<f64> = (0..unit.len())
                    .map(|item| {
                        if item == 0 || unit[item] != unit[item - 1] {
                            of_unit = random.uniform();
                        }
                        let own = random.uniform();
                        let luck = if together && random.uniform() < 0.7 { of_unit } else { own };
                        f64::from(u8::from(luck < if correct[item] { right } else { wrong }))
                    })
                    .collect();
                let found = asymmetry_range(0.5, &p, &correct, &unit);
                found.low <= wrong - right && wrong - right <= found.high
            });
            let held = held.count();
            println!("{sizes:?}, {right} and {wrong}: {held} of {SETS} hold the truth");
            assert!(held as f64 >= 0.93 * SETS as f64, "{held} of {SETS}");
        }
    }
}
