//! The sentences at the top of the page, computed from the numbers, and the rules they follow.

use crate::{
    items::units::counted,
    report::{
        sweep::lambda as written,
        text::{count, fixed, p_value, put, signed},
    },
    score::{CellEffect, Contrast, ScoreMap},
    significance::LEVEL,
    text::some_of,
};

/// Most heads that a sentence names.
const NAMED: usize = 3;

/// Whether a family-wise p counts as a finding; one that does not exist does not.
pub(super) fn called(p_max: f64) -> bool {
    p_max <= LEVEL
}

/// What the map says, in plain text.
pub(super) fn finding(map: &ScoreMap) -> String {
    let mut cells: Vec<&CellEffect> = map.cells.iter().collect();
    cells.sort_by(|x, y| y.delta.abs().total_cmp(&x.delta.abs()));
    let Some(largest) = cells.first() else { return "No verdict: no head was scored.".to_owned() };
    let most = format!(
        "the largest mean Δ of {}, {} nats a token ({} at λ\u{a0}=\u{a0}{})",
        count(map.heads(), "head"),
        signed(largest.delta, 4),
        largest.at(),
        written(f64::from(largest.lambda))
    );
    if map.flips.count == 0 {
        return format!("No verdict: no sign was flipped, so {most}, has nothing to be compared with.");
    }
    if map.flips.smallest_p > LEVEL {
        let (units, least) = (counted(map.prompts, map.groups.as_deref()), fixed(map.flips.smallest_p, 3));
        return format!("No verdict: with {units} and {} no p can be below {least}; {most}.", flips(map));
    }
    if !cells.iter().any(|cell| called(cell.p_max)) {
        return format!("No head stands out: {most}, has a family-wise p of {}.", p_value(largest.p_max));
    }
    let mut text = String::new();
    for &lambda in &map.lambdas {
        let here: Vec<_> = cells.iter().filter(|cell| cell.lambda == lambda && called(cell.p_max)).collect();
        let verb = if here.len() == 1 { "moves" } else { "move" };
        let space = if text.is_empty() { "" } else { " " };
        let (scored, lambda, n) = (map.heads_at(lambda), written(f64::from(lambda)), here.len());
        put!(text, "{space}At λ\u{a0}=\u{a0}{lambda}, {n} of {scored} heads {verb} the responses' log-probability");
        if n > 0 {
            let named = here.iter().take(NAMED).map(|cell| format!("{} by {}", cell.at(), signed(cell.delta, 4)));
            let most = if n > NAMED { ", most of all" } else { ":" };
            put!(text, "{most} {} nats a token", named.collect::<Vec<_>>().join(", "));
        }
        text.push('.');
    }
    text
}

/// The rule the sentence follows.
pub(super) fn rule(map: &ScoreMap) -> String {
    let own = "Where the model wrote the responses itself, nearly any disturbance lowers their probability: a negative Δ \
        says that a head is used, not what for.";
    if map.flips.count == 0 {
        return format!("Rule: a head is called at a family-wise sign-flip p of at most {LEVEL}. {own}");
    }
    format!(
        "Rule: a head is called at a family-wise p of at most {LEVEL}: under {} of the Δ of {units}, so seldom does any head \
        at any λ have a mean as far from 0 for its spread. Without any effect, one map in twenty still names a head. {own}",
        flips(map),
        units = map.units()
    )
}

fn flips(map: &ScoreMap) -> String {
    let how = if map.flips.exact { "all " } else { "" };
    format!("{how}{}", count(map.flips.count, "sign flip"))
}

/// What the contrast says.
pub(super) fn contrast(contrast: &Contrast, units: &str) -> String {
    let mut cells: Vec<_> = contrast.cells.iter().filter(|cell| cell.cohen_d.is_finite()).collect();
    cells.sort_by(|x, y| y.cohen_d.abs().total_cmp(&x.cohen_d.abs()));
    let (a, b) = (&contrast.a, &contrast.b);
    let told: Vec<_> = cells.iter().filter(|cell| called(cell.p_max)).collect();
    // p is of d with Welch's spread: the head with the largest d need not be one of those that are called.
    let Some(largest) = told.first().copied().or(cells.first()) else {
        return format!("No verdict between {a} and {b}: no head has a defined d.");
    };
    let at = format!("{} at λ\u{a0}=\u{a0}{}", largest.at(), written(f64::from(largest.lambda)));
    let d = signed(largest.cohen_d, 2);
    if contrast.shuffles == 0 {
        return format!("No verdict between {a} and {b}: labels were not shuffled; the largest d is {d} ({at}).");
    }
    if contrast.too_few() {
        return format!(
            "No verdict between {a} and {b}: {} {units} can be labelled in {} ways, too few to tell any head from chance; the \
             largest d is {d} ({at}).",
            contrast.prompts, contrast.labelings
        );
    }
    if contrast.smallest_p() > LEVEL {
        return format!(
            "No verdict between {a} and {b}: with {} no p can be below {}; the largest d is {d} ({at}).",
            count(contrast.shuffles, "shuffle"),
            fixed(contrast.smallest_p(), 3)
        );
    }
    let level = if contrast.has_level() {
        format!("; shuffled labels give |d| up to {} (95\u{a0}%)", fixed(contrast.max_abs_d_q95, 2))
    } else {
        String::new()
    };
    let out = told.len();
    if out == 0 {
        return format!("No head tells {a} from {b}: the largest d is {d} ({at}){level}.");
    }
    let heads = if out == 1 { "head tells" } else { "heads, counted at each λ, tell" };
    let mut text = format!("{out} {heads} {a} from {b}, most of all {at} (d\u{a0}{d}){level}.");
    if contrast.lengths().confound() {
        let (x, y) = (fixed(contrast.tokens_a, 1), fixed(contrast.tokens_b, 1));
        put!(text, " The cohorts also differ in response length ({x} and {y} tokens), which alone can do this.");
    }
    let fields = contrast.confounds.iter().flat_map(|found| &found.fields);
    let fields: Vec<String> = fields.map(|check| format!("'{}'", check.field)).collect();
    if !fields.is_empty() {
        put!(text, " Fields of the items go with the cohorts ({}), which alone can do this.", some_of(&fields, NAMED));
    }
    text
}

/// The rule of the contrast.
pub(super) fn contrast_rule(contrast: &Contrast) -> String {
    if contrast.shuffles == 0 {
        return "Rule: a head tells the cohorts apart when its |d| is beyond what shuffled labels give.".to_owned();
    }
    format!(
        "Rule: a head tells the cohorts apart at a family-wise p of at most {LEVEL}, over {} of the labels, of the largest \
        |d| among all heads and λ. Without any difference, one map in twenty still names a head.",
        count(contrast.shuffles, "shuffle")
    )
}

#[cfg(test)]
mod tests {
    use headtemper_hook::HeadKind;

    use super::*;
    use crate::score::CellContrast;

    fn cell(head: usize, cohen_d: f64, p_max: f64) -> CellContrast {
        CellContrast {
            layer: 1,
            kind: HeadKind::Query,
            head,
            lambda: 0.5,
            mean_a: 0.1,
            mean_b: 0.0,
            cohen_d,
            d_low: f64::NAN,
            d_high: f64::NAN,
            p: p_max,
            p_max,
        }
    }

    fn contrast_of(cells: Vec<CellContrast>, shuffles: usize) -> Contrast {
        Contrast {
            a: "cw".into(),
            b: "cr".into(),
            n_a: 12,
            n_b: 48,
            tokens_a: 9.0,
            tokens_b: 9.0,
            tokens_d: 0.0,
            tokens_p: 1.0,
            confounds: None,
            clustering: f64::NAN,
            prompts: 60,
            labelings: 1e12,
            fixed: 0,
            shuffles,
            seed: 0,
            resamples: 0,
            max_abs_d_mean: f64::NAN,
            max_abs_d_q95: f64::NAN,
            cells,
        }
    }

    /// With unequal spreads, the largest d need not be the least p.
    #[test]
    fn the_sentence_names_a_head_that_is_called() {
        let cells = || vec![cell(0, 1.3, 0.12), cell(1, -1.1, 0.02), cell(2, 0.4, 0.7)];
        let said = contrast(&contrast_of(cells(), 999), "prompts");
        assert!(said.starts_with("1 head tells cw from cr, most of all L1H1 at λ"), "{said}");
        let quiet = contrast(&contrast_of(vec![cell(0, 1.3, 0.12), cell(2, 0.4, 0.7)], 999), "prompts");
        assert!(quiet.starts_with("No head tells cw from cr: the largest d is +1.30"), "{quiet}");
        // 1/11 is above the level: nothing could have been called.
        let few = contrast(&contrast_of(cells(), 10), "prompts");
        assert!(few.starts_with("No verdict between cw and cr: with 10 shuffles no p can be below 0.091"), "{few}");
    }
}
