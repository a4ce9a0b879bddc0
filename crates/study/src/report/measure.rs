//! The two quantities drawn as heat maps: what they are, what shuffled labels give for them, and their colours.

use crate::{
    attribution::{Disposition, HeadEffect},
    report::{
        axis::round_up,
        text::{fixed, p_value, signed},
    },
};

/// A number per head that a heat map shows.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Measure {
    /// Cohen's d of the heads' output norms: signed, on the diverging scale.
    Magnitude,
    /// The in-sample d of projections: never negative, and never evidence, so on a grey scale.
    Naive,
}

/// What the same computation gives under shuffled labels: one mark on the legend.
pub(super) struct Level {
    /// Where the mark stands.
    pub(super) value: f64,
    /// What it says.
    pub(super) label: String,
}

impl Measure {
    /// The number of one head.
    pub(super) fn of(self, effect: &HeadEffect) -> f64 {
        match self {
            Self::Magnitude => effect.cohen_d,
            Self::Naive => effect.d_naive,
        }
    }

    /// The shuffled-label levels, from the smallest to the largest; none if labels were not shuffled.
    pub(super) fn levels(self, disposition: &Disposition) -> Vec<Level> {
        let shuffled = &disposition.shuffled;
        let (what, values) = match self {
            Self::Magnitude => ("|d|", [shuffled.mean_abs_d, shuffled.max_abs_d_mean, shuffled.max_abs_d_q95]),
            Self::Naive => ("d", [shuffled.mean_d_naive, shuffled.max_d_naive_mean, shuffled.max_d_naive_q95]),
        };
        let names = [format!("mean {what}"), format!("largest {what}, mean"), format!("largest {what}, 95\u{a0}%")];
        let mut levels: Vec<_> = values
            .into_iter()
            .zip(names)
            .filter(|(value, _)| shuffled.shuffles > 0 && value.is_finite())
            .map(|(value, name)| Level { value, label: format!("{name} {}", fixed(value, 2)) })
            .collect();
        levels.sort_by(|x, y| x.value.total_cmp(&y.value));
        levels
    }

    /// The ends of the colour scale: wide enough for every head and for every shuffled-label level.
    pub(super) fn range(self, disposition: &Disposition) -> (f64, f64) {
        let heads = disposition.heads.iter().map(|effect| self.of(effect).abs());
        let levels = self.levels(disposition).into_iter().map(|level| level.value.abs());
        let largest = heads.chain(levels).filter(|value| value.is_finite()).fold(0.0, f64::max);
        let limit = round_up(largest);
        (if self == Self::Magnitude { -limit } else { 0.0 }, limit)
    }

    /// The class that gives a cell its hue, and how much of it: none at zero, all at the end of the scale.
    pub(super) fn paint(self, value: f64, limit: f64) -> Option<(&'static str, f64)> {
        let class = match self {
            _ if !value.is_finite() => return None,
            Self::Magnitude if value < 0.0 => "neg",
            Self::Magnitude => "pos",
            Self::Naive => "naive",
        };
        let size = if self == Self::Naive { value.max(0.0) } else { value.abs() };
        Some((class, (size / limit).clamp(0.0, 1.0)))
    }

    /// What hovering a cell shows (nothing in it needs escaping beyond what it does).
    pub(super) fn tip(self, effect: &HeadEffect) -> String {
        let name = effect.at();
        match self {
            Self::Magnitude => format!(
                "{name}: d {}, p {}, q {}, p(max) {}",
                signed(effect.cohen_d, 2),
                p_value(effect.p),
                p_value(effect.q),
                p_value(effect.p_max)
            ),
            Self::Naive => format!(
                "{name}: d_naive {} (in-sample), p directional {}, cos {}",
                fixed(effect.d_naive, 2),
                p_value(effect.p_directional),
                fixed(effect.cos_means, 4)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn only_numbers_are_painted() {
        assert_eq!(Measure::Magnitude.paint(-0.5, 1.0), Some(("neg", 0.5)));
        assert_eq!(Measure::Naive.paint(-0.5, 1.0), Some(("naive", 0.0)));
        assert_eq!(Measure::Magnitude.paint(f64::NAN, 1.0), None);
        assert_eq!(Measure::Naive.paint(f64::INFINITY, 1.0), None);
    }

    #[test]
    fn the_scale_reaches_past_the_null() {
        let mut disposition = fixture::disposition(&[1]);
        disposition.heads[0].cohen_d = 0.1;
        disposition.shuffled.max_abs_d_q95 = 0.74;
        assert_eq!(Measure::Magnitude.range(&disposition), (-0.8, 0.8));
        disposition.shuffled.shuffles = 0;
        assert!(Measure::Magnitude.levels(&disposition).is_empty());
        assert_eq!(Measure::Magnitude.range(&disposition), (-0.1, 0.1));
    }
}
