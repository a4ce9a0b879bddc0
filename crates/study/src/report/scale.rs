//! From numbers to colours.

use crate::report::axis::{extent, round_up};

/// The colours of a scale.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Hue {
    /// Two hues, for numbers of either sign.
    Diverging,
    /// One hue, for numbers that are never negative.
    Sequential,
    /// One hue above zero and none below, where a value shows nothing.
    HeldOut,
    /// No hue, for numbers that are never negative.
    Ink,
}

/// A colour scale from 0, or from its negative, to a limit.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    hue: Hue,
    low: f64,
    limit: f64,
    /// Whether colour grows with the square root, so that a few large numbers do not bleach all the others.
    root: bool,
}

impl Scale {
    /// A linear scale that ends a little above the largest of these numbers, leaving out those that are not finite.
    pub(super) fn over(hue: Hue, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extent(values).unwrap_or((0.0, 0.0));
        let limit = round_up(high.abs().max(low.abs()));
        let low = match hue {
            Hue::Diverging => -limit,
            // Only as far down as there are values: below zero there is nothing to look for.
            Hue::HeldOut if low < 0.0 => -round_up(-low),
            Hue::HeldOut | Hue::Sequential | Hue::Ink => 0.0,
        };
        Self { hue, low, limit, root: false }
    }

    /// The same, with colour growing as the square root.
    pub(super) fn rooted(hue: Hue, values: impl Iterator<Item = f64>) -> Self {
        Self::over(hue, values).rooted_too()
    }

    /// This scale, with colour growing as the square root.
    pub(super) fn rooted_too(self) -> Self {
        Self { root: true, ..self }
    }

    /// Its ends.
    pub(super) fn range(&self) -> (f64, f64) {
        (self.low, self.limit)
    }

    /// Whether it has two sides.
    pub(super) fn diverging(&self) -> bool {
        matches!(self.hue, Hue::Diverging | Hue::HeldOut)
    }

    /// The class that gives a cell its hue, and how much of it: none at zero, all at the end of the scale.
    pub(super) fn paint(&self, value: f64) -> Option<(&'static str, f64)> {
        let class = match self.hue {
            _ if !value.is_finite() => return None,
            Hue::Diverging if value < 0.0 => "neg",
            Hue::Diverging => "pos",
            Hue::HeldOut if value < 0.0 => "naive",
            Hue::HeldOut | Hue::Sequential => "size",
            Hue::Ink => "sure",
        };
        let size = if self.diverging() { value.abs() } else { value.max(0.0) };
        let share = (size / self.limit).clamp(0.0, 1.0);
        Some((class, if self.root { share.sqrt() } else { share }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_painted() {
        let scale = |hue| Scale::over(hue, [1.0, -0.5, f64::INFINITY].into_iter());
        assert_eq!(scale(Hue::Diverging).paint(-0.5), Some(("neg", 0.5)));
        assert_eq!(scale(Hue::Ink).paint(-0.5), Some(("sure", 0.0)));
        assert_eq!(scale(Hue::HeldOut).paint(-0.5), Some(("naive", 0.5)));
        assert_eq!(scale(Hue::HeldOut).paint(0.5), Some(("size", 0.5)));
        assert_eq!(scale(Hue::Diverging).paint(f64::NAN), None);
        assert_eq!(scale(Hue::Sequential).paint(f64::INFINITY), None);
        assert_eq!(Scale::rooted(Hue::Sequential, [-1.0].into_iter()).paint(0.25), Some(("size", 0.5)));
    }
}
