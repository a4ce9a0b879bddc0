//! The two quantities drawn as heat maps: what they are, what shuffled labels give for them, and their colours.

use crate::{
    attribution::{Disposition, HeadEffect},
    report::{
        legend::{Legend, Level},
        scale::{Hue, Scale},
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

impl Measure {
    /// The number of one head.
    pub(super) fn of(self, effect: &HeadEffect) -> f64 {
        match self {
            Self::Magnitude => effect.magnitude.cohen_d,
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

    /// The colour scale: wide enough for every head and for every shuffled-label level.
    pub(super) fn scale(self, disposition: &Disposition) -> Scale {
        let heads = disposition.heads.iter().map(|effect| self.of(effect));
        let levels = self.levels(disposition).into_iter().map(|level| level.value);
        let hue = if self == Self::Magnitude { Hue::Diverging } else { Hue::Grey };
        Scale::over(hue, heads.chain(levels))
    }

    /// The scale with what lies on it.
    pub(super) fn legend(self, disposition: &Disposition) -> Legend {
        Legend {
            scale: self.scale(disposition),
            values: disposition.heads.iter().map(|effect| self.of(effect)).collect(),
            levels: self.levels(disposition),
            unlevelled: "labels were not shuffled: no level to compare with",
        }
    }

    /// What hovering a cell shows (nothing in it needs escaping beyond what it does).
    pub(super) fn tip(self, effect: &HeadEffect) -> String {
        let name = effect.at();
        match self {
            Self::Magnitude => format!(
                "{name}: d {}, p {}, q {}, p(max) {}",
                signed(effect.magnitude.cohen_d, 2),
                p_value(effect.magnitude.p),
                p_value(effect.magnitude.q),
                p_value(effect.magnitude.p_max)
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
    fn the_scale_reaches_past_the_null() {
        let mut disposition = fixture::disposition(&[1]);
        disposition.heads[0].magnitude.cohen_d = 0.1;
        disposition.shuffled.max_abs_d_q95 = 0.74;
        assert_eq!(Measure::Magnitude.scale(&disposition).range(), (-0.8, 0.8));
        disposition.shuffled.shuffles = 0;
        assert!(Measure::Magnitude.levels(&disposition).is_empty());
        assert_eq!(Measure::Magnitude.scale(&disposition).range(), (-0.1, 0.1));
    }
}
