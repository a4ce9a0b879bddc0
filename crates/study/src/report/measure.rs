//! The quantities drawn as heat maps: what they are, what shuffled labels give for them, and their colours.

use crate::{
    attribution::{Disposition, HeadEffect},
    report::{
        legend::{Legend, Level},
        scale::{Hue, Scale},
        text::{fixed, p_value, signed},
        verdict::Question,
    },
    significance::LEVEL,
};

/// A q below this is drawn as this: p has no such digits, and a map has no such shades.
const LEAST_Q: f64 = 1e-6;

/// If a scale ends at more than this many times its null, colour grows as the square root.
const BLEACHED: f64 = 4.0;

/// A number per head that a heat map shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measure {
    /// Cohen's d of the heads' output norms: signed, on the diverging scale.
    Magnitude,
    /// Cohen's d of held-out items along the direction of all others: a negative value shows nothing.
    HeldOut,
    /// -log10 of the false discovery rate of the magnitudes.
    MagnitudeQ,
    /// The same for the held-out d.
    HeldOutQ,
}

impl Measure {
    /// What it is, for those who cannot see the map.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Magnitude => "Cohen's d",
            Self::HeldOut => "d on held-out items",
            Self::MagnitudeQ => "minus log10 q of d",
            Self::HeldOutQ => "minus log10 q of d on held-out items",
        }
    }

    /// What its colour scale is of.
    fn title(self) -> &'static str {
        match self {
            Self::Magnitude => "d",
            Self::HeldOut => "d held out",
            Self::MagnitudeQ => "−log₁₀ q of d",
            Self::HeldOutQ => "−log₁₀ q of d held out",
        }
    }

    /// Whether it is a size and not a certainty.
    pub(super) fn is_size(self) -> bool {
        matches!(self, Self::Magnitude | Self::HeldOut)
    }

    /// The question that it answers.
    pub(super) fn question(self) -> Question {
        match self {
            Self::Magnitude | Self::MagnitudeQ => Question::Magnitude,
            Self::HeldOut | Self::HeldOutQ => Question::Direction,
        }
    }

    /// The number of one head.
    pub(super) fn of(self, effect: &HeadEffect) -> f64 {
        match self {
            Self::Magnitude => effect.magnitude.cohen_d,
            Self::HeldOut => effect.d_crossfit,
            Self::MagnitudeQ => evidence(effect.magnitude.q),
            Self::HeldOutQ => evidence(effect.q_directional),
        }
    }

    /// The levels without signal, from the smallest to the largest; none if labels were not shuffled.
    pub(super) fn levels(self, disposition: &Disposition) -> Vec<Level> {
        let shuffled = &disposition.shuffled;
        let level = |value: f64, name: String, mirrored: bool| Level { value, label: name, mirrored };
        let said = |name: &str, value: f64| format!("{name} {}", fixed(value, 2));
        let mut levels = match self {
            Self::Magnitude if !disposition.has_level_of_d() => Vec::new(),
            Self::HeldOut if !disposition.has_level_of_direction() => Vec::new(),
            Self::Magnitude => vec![
                level(shuffled.mean_abs_d, said("mean |d|", shuffled.mean_abs_d), true),
                level(shuffled.max_abs_d_mean, said("largest |d|, mean", shuffled.max_abs_d_mean), true),
                level(shuffled.max_abs_d_q95, said("largest |d|, 95\u{a0}%", shuffled.max_abs_d_q95), true),
            ],
            Self::HeldOut => vec![
                level(shuffled.d_crossfit_q95, said("one head, 95\u{a0}%", shuffled.d_crossfit_q95), false),
                level(shuffled.max_d_crossfit_mean, said("largest, mean", shuffled.max_d_crossfit_mean), false),
                level(shuffled.max_d_crossfit_q95, said("largest, 95\u{a0}%", shuffled.max_d_crossfit_q95), false),
            ],
            Self::MagnitudeQ | Self::HeldOutQ => vec![level(evidence(LEVEL), format!("q = {LEVEL}"), false)],
        };
        levels.retain(|level| shuffled.shuffles > 0 && level.value.is_finite());
        levels.sort_by(|x, y| x.value.total_cmp(&y.value));
        levels
    }

    /// The range of nine in ten single heads under shuffled labels.
    fn band(self, disposition: &Disposition) -> Option<(f64, f64)> {
        let shuffled = &disposition.shuffled;
        let band = (shuffled.d_crossfit_q05, shuffled.d_crossfit_q95);
        (self == Self::HeldOut && shuffled.shuffles > 0).then_some(band)
    }

    /// The colour scale: wide enough for every head and for every level.
    pub(super) fn scale(self, disposition: &Disposition) -> Scale {
        let heads = disposition.heads.iter().map(|effect| self.of(effect));
        let levels = self.levels(disposition).into_iter().map(|level| level.value);
        let band = self.band(disposition).into_iter().flat_map(|(low, high)| [low, high]);
        let hue = match self {
            Self::Magnitude => Hue::Diverging,
            Self::HeldOut => Hue::HeldOut,
            Self::MagnitudeQ | Self::HeldOutQ => Hue::Ink,
        };
        let scale = Scale::over(hue, heads.chain(levels).chain(band));
        let null = self.levels(disposition).last().map_or(f64::INFINITY, |level| level.value);
        if scale.range().1 > BLEACHED * null { scale.rooted_too() } else { scale }
    }

    /// The scale with what lies on it.
    pub(super) fn legend(self, disposition: &Disposition) -> Legend {
        Legend {
            title: self.title(),
            scale: self.scale(disposition),
            values: disposition.heads.iter().map(|effect| self.of(effect)).collect(),
            levels: self.levels(disposition),
            band: self.band(disposition),
            unlevelled: if disposition.shuffled.shuffles == 0 {
                "labels were not shuffled: no level to compare with"
            } else {
                "no level: p, which is of d over another spread, says otherwise"
            },
        }
    }

    /// What hovering over a cell shows (nothing in it needs further escaping).
    pub(super) fn tip(self, effect: &HeadEffect) -> String {
        let name = effect.at();
        match self {
            Self::Magnitude => {
                let (d, p_max) = (signed(effect.magnitude.cohen_d, 2), p_value(effect.magnitude.p_max));
                format!("{name}: d {d}, q {}, p max {p_max}", p_value(effect.magnitude.q))
            }
            Self::HeldOut => {
                let (d, p_max) = (signed(effect.d_crossfit, 2), p_value(effect.p_max_directional));
                format!("{name}: held out {d}, q {}, p max {p_max}", p_value(effect.q_directional))
            }
            // The maps of d show it already, and there are thousands of cells.
            Self::MagnitudeQ | Self::HeldOutQ => String::new(),
        }
    }
}

/// How small a q is.
fn evidence(q: f64) -> f64 {
    if (0.0..=1.0).contains(&q) { -q.max(LEAST_Q).log10() } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_scale_reaches_past_the_null() {
        let mut disposition = fixture::disposition(&[1]);
        disposition.heads[0].magnitude.cohen_d = 0.1;
        disposition.shuffled.max_abs_d_q95 = 0.74;
        assert_eq!(Measure::Magnitude.scale(&disposition).range(), (-0.8, 0.8));
        let (low, high) = Measure::HeldOut.scale(&disposition).range();
        assert!((low + 0.3).abs() < 1e-9 && high == 0.8, "{low} {high}");
        assert_eq!(Measure::HeldOut.legend(&disposition).band, Some((-0.3, 0.31)));
        disposition.shuffled.shuffles = 0;
        assert!(Measure::Magnitude.levels(&disposition).is_empty());
        assert_eq!(Measure::HeldOut.legend(&disposition).band, None);
        assert_eq!(Measure::Magnitude.scale(&disposition).range(), (-0.1, 0.1));
    }

    #[test]
    fn the_line_of_a_q_is_on_its_scale() {
        let disposition = fixture::disposition(&[2]);
        let levels = Measure::HeldOutQ.levels(&disposition);
        assert!(levels.len() == 1 && levels[0].label == "q = 0.05" && (levels[0].value - 1.301).abs() < 1e-3);
        assert_eq!(Measure::MagnitudeQ.scale(&disposition).range(), (0.0, 1.5));
        assert_eq!((evidence(0.0), evidence(1.0)), (6.0, 0.0));
        assert!(evidence(f64::NAN).is_nan() && evidence(-0.1).is_nan() && evidence(f64::INFINITY).is_nan());
    }
}
