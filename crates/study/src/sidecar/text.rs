//! What a sidecar did, for people.

use super::result::{AtRandom, Change, Dealt, GateResult, Standing};
use crate::{
    items::units::counted,
    probe::Ends,
    sweep::{asymmetry::LEAST, outcome::FOUND},
    text::{interval, short, signed},
};

/// A number of [`Standing`], what it changes by, and what chance makes of it.
type Line<'a> = (&'a str, fn(&Standing) -> f64, Option<Change>, Option<Dealt>);

/// The result as a table.
pub fn sidecar_markdown(found: &GateResult) -> String {
    let Ends { low, high } = found.auc_delong;
    let range = if low.is_finite() { format!(" ({})", interval(low, high, 3)) } else { String::new() };
    let mut out = format!(
        "{} of {} answers fall below {:.2} (from {}) and get the prefix; AUC of the probe here {}{range}\n\n\
         | | without | with the gate | change, 95 % | dealt at random, 95 % | p |\n|---|---:|---:|---:|---:|---:|\n",
        found.prefixed,
        found.items,
        found.threshold,
        found.threshold_from,
        short(found.auc)
    );
    let (of, random) = (&found.change, found.change.at_random);
    let lines: [Line<'_>; 6] = [
        ("p(assert given correct)", |s| s.p_assert_correct, Some(of.p_assert_correct), None),
        ("p(assert given wrong)", |s| s.p_assert_wrong, Some(of.p_assert_wrong), None),
        ("assertion asymmetry", |s| s.asymmetry, Some(of.asymmetry), random.map(|random| random.asymmetry)),
        ("coverage: answers that are right", |s| s.coverage, None, None),
        ("answers that stand as assertions", |s| s.asserted, Some(of.asserted), None),
        ("of these, right", |s| s.asserted_right, Some(of.asserted_right), random.map(|random| random.asserted_right)),
    ];
    out += &lines.map(|line| row(&line, found)).concat();
    out += &footnotes(found);
    for warning in &found.warnings {
        out += &format!("\nwarning: {warning}\n");
    }
    out
}

fn row((name, of, change, dealt): &Line<'_>, found: &GateResult) -> String {
    let number = |x: f64| if *name == "assertion asymmetry" { signed(x, 3) } else { short(x) };
    let change = change.map_or_else(String::new, |Change { difference, low, high }| {
        format!("{} ({})", signed(difference, 3), interval(low, high, 3))
    });
    let (random, p) = dealt.map_or_else(Default::default, |Dealt { mean, low, high, p }| {
        (format!("{} ({})", signed(mean, 3), interval(low, high, 3)), short(p))
    });
    format!("| {name} | {} | {} | {change} | {random} | {p} |\n", number(of(&found.plain)), number(of(&found.gated)))
}

/// What the columns are, and what they say.
fn footnotes(found: &GateResult) -> String {
    let change = &found.change;
    if change.known == 0 {
        return String::new();
    }
    let mut out = format!(
        "\nof {} answers to {} that are known to be right or wrong, intervals over prompts; coverage cannot change\n",
        change.known,
        counted(change.prompts, None)
    );
    if change.asymmetry.low.is_nan() || change.asserted_right.low.is_nan() {
        out += &format!(
            "no interval where fewer than {LEAST} prompts are answered right, or wrong, or keep an assertion, or none loses one\n"
        );
    }
    out += &match change.at_random {
        None => "no p: there are too few ways to deal these prefixes over the answers that stand as assertions without them\n".into(),
        Some(AtRandom { draws, answers, prefixed, asymmetry, asserted_right, .. }) => {
            let p = if asymmetry.p.is_nan() { asserted_right.p } else { asymmetry.p };
            let so = if p > FOUND { ": chance hedges wrong answers as well as this probe does" } else { "" };
            format!(
                "dealt at random: what becomes of {prefixed} prefixes over the {answers} answers that stand as assertions without them, \
                 {draws} times,\nwhole prompts together; p: how often that does as well{so}\n"
            )
        }
    };
    out
}
