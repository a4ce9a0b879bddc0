//! What an assertion gate would do: of wrong and of right answers, how many does it let stand as assertions?

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
    /// The gate at one threshold. NaN where there are no correct or no wrong answers. Panics unless there is one label a
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

/// The gate over all thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asymmetry {
    /// The least asymmetry of those thresholds that keep p(assert | correct) at the floor, the lowest such threshold of
    /// equals. None if none keeps it. Found on the very items that it is measured on: an oracle's choice.
    pub best: Option<GatePoint>,
    /// The least asymmetry of all.
    pub lowest: GatePoint,
    /// At one half.
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
}
