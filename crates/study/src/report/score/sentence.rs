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
    let Some(largest) = cells.first() else {
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
    let level = if contrast.has_level() {
        format!("; shuffled labels give |d| up to {} (95\u{a0}%)", fixed(contrast.max_abs_d_q95, 2))
    } else {
        String::new()
    };
    let out = cells.iter().filter(|cell| called(cell.p_max)).count();
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
