//! Linear axes for the drawings: from values to pixels, and round tick values.

use crate::report::text::put;

/// A linear map from the values `low..high` to the pixels `start..end` (either may run downwards).
pub(super) struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

/// Differences of numbers up to this are still finite.
const LARGEST: f64 = 1e300;

impl Axis {
    /// An axis over finite values; a range without extent is widened.
    pub(super) fn new(low: f64, high: f64, start: f64, end: f64) -> Self {
        let (low, high) = (low.clamp(-LARGEST, LARGEST), high.clamp(-LARGEST, LARGEST));
        let pad = if low == high { (low.abs() * 0.01).max(1e-3) } else { 0.0 };
        Self { low: low - pad, high: high + pad, start, end }
    }

    /// The pixel of a value; values beyond the range are put at its edge.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low.min(self.high), self.low.max(self.high));
        let share = (value - self.low) / (self.high - self.low);
        self.start + share * (self.end - self.start)
    }

    /// The axis as a line at `y`, with about six round values below it, each written by `told` with that many decimals.
    pub(super) fn below(&self, (left, right): (f64, f64), y: f64, told: impl Fn(f64, usize) -> String) -> String {
        let mut out = format!(r#"<path class="tick" d="M{left} {y}H{right}"/>"#);
        let (ticks, decimals) = self.ticks(6);
        for tick in ticks {
            let at = self.at(tick);
            put!(out, r#"<path class="tick" d="M{at:.1} {y}v4"/>"#);
            put!(out, r#"<text class="mid" x="{at:.1}" y="{}">{}</text>"#, y + 16.0, told(tick, decimals));
        }
        out
    }

    /// About `wanted` round values inside the range, and the decimals that tell them apart.
    pub(super) fn ticks(&self, wanted: usize) -> (Vec<f64>, usize) {
        let (low, high) = (self.low.min(self.high), self.low.max(self.high));
        let step = round_step((high - low) / wanted.max(1) as f64);
        if !step.is_finite() || step <= 0.0 {
            return (Vec::new(), 0);
        }
        let first = (low / step - 1e-9).ceil();
        let steps = ((high / step + 1e-9).floor() - first).clamp(-1.0, 100.0);
        let decimals = (-step.log10().floor()).clamp(0.0, 8.0) as usize;
        // 0.25 needs one decimal more than 0.2 and 0.5.
        let quarter = (step / 10f64.powf(step.log10().floor()) - 2.5).abs() < 1e-6;
        ((0..(steps + 1.0) as usize).map(|i| (first + i as f64) * step).collect(), decimals + usize::from(quarter))
    }
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A round number at or a little above `value`, for the end of a scale.
pub(super) fn round_up(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let factors = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0];
    factors.into_iter().find(|factor| factor * power >= value * (1.0 - 1e-9)).unwrap_or(10.0) * power
}

/// The smallest and the largest finite value.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let (ticks, decimals) = Axis::new(0.982, 0.9991, 0.0, 500.0).ticks(5);
        assert_eq!(decimals, 3);
        assert!(ticks.len() >= 3 && ticks.iter().all(|tick| (0.982..=0.9991).contains(tick)), "{ticks:?}");
        let (ticks, decimals) = Axis::new(1.0, 0.0, 0.0, 500.0).ticks(4);
        assert_eq!((ticks.len(), decimals), (5, 2));
    }

    #[test]
    fn odd_ranges_do_not_break_an_axis() {
        assert!(Axis::new(1.0, 1.0, 0.0, 100.0).at(1.0).is_finite());
        assert!(Axis::new(-1e308, 1e308, 0.0, 100.0).ticks(5).0.len() <= 101);
        assert_eq!(Axis::new(-1e308, 1e308, 0.0, 100.0).at(0.0), 50.0);
        assert_eq!(Axis::new(0.0, 1.0, 0.0, 100.0).at(7.0), 100.0);
        assert_eq!(extent([f64::NAN, f64::INFINITY].into_iter()), None);
        assert_eq!(round_up(0.742), 0.8);
        assert_eq!(round_up(f64::NAN), 1.0);
    }
}
