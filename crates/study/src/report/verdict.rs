//! The sentence at the top of the page, computed from the numbers, and the rule it follows.

use crate::{
    attribution::{Disposition, HeadEffect},
    report::text::{count, fixed, put, signed},
};

/// Beyond this |d| of the response lengths, length alone may explain what a head shows.
pub(super) const LENGTH_D: f64 = 0.5;

/// As many heads as a sentence can name.
const NAMED: usize = 5;

/// Under this many shuffles a 95 % quantile is hardly more than the largest value seen.
const FEW_SHUFFLES: usize = 20;

/// The |d| a head must exceed: the 95 % quantile of the largest |d| under shuffled labels, if labels were shuffled.
pub(super) fn threshold(disposition: &Disposition) -> Option<f64> {
    let shuffled = &disposition.shuffled;
    (shuffled.shuffles > 0 && shuffled.max_abs_d_q95.is_finite()).then_some(shuffled.max_abs_d_q95)
}

/// Whether a head's |d| exceeds what shuffled labels give.
pub(super) fn stands_out(effect: &HeadEffect, threshold: Option<f64>) -> bool {
    threshold
        .is_some_and(|threshold| effect.magnitude.cohen_d.is_finite() && effect.magnitude.cohen_d.abs() > threshold)
}

/// All heads by |d|, the largest first, undefined ones last.
pub(super) fn ranked(heads: &[HeadEffect]) -> Vec<&HeadEffect> {
    let size =
        |effect: &HeadEffect| if effect.magnitude.cohen_d.is_finite() { effect.magnitude.cohen_d.abs() } else { -1.0 };
    let mut heads: Vec<_> = heads.iter().collect();
    heads.sort_by(|x, y| size(y).total_cmp(&size(x)).then((x.layer, x.head).cmp(&(y.layer, y.head))));
    heads
}

/// What the magnitudes say about one disposition, in one or two sentences of plain text.
pub(super) fn sentence(disposition: &Disposition) -> String {
    let heads = ranked(&disposition.heads);
    let defined = heads.iter().filter(|effect| effect.magnitude.cohen_d.is_finite()).count();
    let Some(largest) = heads.first().filter(|_| defined > 0) else {
        return "No verdict: no head has a defined d.".to_owned();
    };
    let (name, size) = (largest.at(), largest.magnitude.cohen_d.abs());
    let Some(threshold) = threshold(disposition) else {
        let size = fixed(size, 2);
        let of = count(defined, "head");
        return format!(
            "No verdict: labels were not shuffled, so the largest |d| of {of}, {size} ({name}), has nothing to be \
            compared with."
        );
    };
    let outside: Vec<_> = heads.iter().filter(|effect| stands_out(effect, Some(threshold))).collect();
    let decimals = if fixed(size, 2) == fixed(threshold, 2) { 3 } else { 2 };
    let (size, level) = (fixed(size, decimals), fixed(threshold, decimals));
    let mut text = if outside.is_empty() {
        let of = count(defined, "head");
        format!(
            "No head stands out: the largest |d| of {of} is {size} ({name}); shuffled labels give up to {level} \
            (95\u{a0}%)."
        )
    } else {
        let verb = if outside.len() == 1 { "heads stands" } else { "heads stand" };
        let list = named(&outside, decimals);
        let n = outside.len();
        format!("{n} of {defined} {verb} out: {list}; shuffled labels give |d| up to {level} (95\u{a0}%).")
    };
    let undefined = heads.len() - defined;
    if undefined > 0 {
        put!(text, " (Left out: {} without a defined d.)", count(undefined, "head"));
    }
    let length = disposition.length.cohen_d;
    if !outside.is_empty() && length.abs() > LENGTH_D {
        let length = signed(length, 2);
        put!(text, " The cohorts also differ in response length (d\u{a0}{length}), which alone can do this.");
    }
    text
}

/// The rule the sentence follows, with the numbers it depends on.
pub(super) fn rule(disposition: &Disposition) -> String {
    let shuffles = disposition.shuffled.shuffles;
    if shuffles == 0 {
        return "Rule: a head stands out when its |d| exceeds the 95\u{a0}% quantile of the largest |d| over all heads \
            under shuffled cohort labels. There were no shuffles.".to_owned();
    }
    let few = if shuffles < FEW_SHUFFLES { " So few shuffles place that quantile only roughly." } else { "" };
    let shuffles = count(shuffles, "shuffle");
    format!(
        "Rule: a head stands out when its |d| exceeds the 95\u{a0}% quantile, over {shuffles} of the cohort labels, \
        of the largest |d| among all heads. Without any signal, one report in twenty still names a head.{few}"
    )
}

fn named(heads: &[&&HeadEffect], decimals: usize) -> String {
    let mut parts: Vec<_> = heads
        .iter()
        .take(NAMED)
        .map(|effect| format!("{} (d\u{a0}{})", effect.at(), signed(effect.magnitude.cohen_d, decimals)))
        .collect();
    if heads.len() > NAMED {
        parts.push(format!("and {} more", heads.len() - NAMED));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_sentence_follows_the_rule() {
        let mut disposition = fixture::disposition(&[2, 2]);
        disposition.shuffled.max_abs_d_q95 = 0.9;
        for (effect, d) in disposition.heads.iter_mut().zip([0.1, -0.6, f64::NAN, 0.2]) {
            effect.magnitude.cohen_d = d;
        }
        assert_eq!(
            sentence(&disposition),
            "No head stands out: the largest |d| of 3 heads is 0.60 (L0H1); shuffled labels give up to 0.90 \
            (95\u{a0}%). \
             (Left out: 1 head without a defined d.)"
        );
        disposition.heads[0].magnitude.cohen_d = -0.903;
        disposition.heads[2].magnitude.cohen_d = f64::INFINITY;
        disposition.length.cohen_d = -0.8;
        let text = sentence(&disposition);
        assert!(
            text.starts_with("1 of 3 heads stands out: L0H0 (d\u{a0}−0.903); shuffled labels give |d| up to 0.900"),
            "{text}"
        );
        assert!(text.contains("response length (d\u{a0}−0.80)"), "{text}");
    }

    #[test]
    fn without_shuffles_or_numbers_there_is_no_verdict() {
        let mut disposition = fixture::disposition(&[2]);
        disposition.shuffled.shuffles = 0;
        assert!(sentence(&disposition).starts_with("No verdict: labels were not shuffled"));
        disposition.heads.clear();
        assert_eq!(sentence(&disposition), "No verdict: no head has a defined d.");
    }
}
