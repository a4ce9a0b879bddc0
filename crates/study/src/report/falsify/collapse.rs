//! How far the AUC falls from training to fresh items, beside what does not fall because there is nothing to find.

use crate::{
    falsify::{FailureMode, Falsification, Outcome, Step, StepName, Transfer},
    probe::{Ends, Null},
    report::{
        falsify::{
            chart::{CHANCE, Chart, LEFT, Level, RIGHT, name},
            words::meaning,
        },
        text::{count, escape, fixed, p_value, put, typeset},
    },
    text::{capital, listed},
};

const ROW: f64 = 46.0;
/// Room for the labels of the first row's marks.
const LABELLED: f64 = 24.0;
/// Gap before the baselines.
const GAP: f64 = 26.0;
/// Distance within a row, from the cross-validated AUC down to the fresh one.
const FALL: f64 = 18.0;

/// One row of the chart.
struct Row {
    name: String,
    cv: f64,
    cv_null: Option<Null>,
    fresh: f64,
    range: Ends,
    fresh_null: Option<Null>,
    baseline: bool,
}

/// The section.
pub(super) fn draw(found: &Falsification) -> String {
    let rows = rows(found);
    let mut out = String::from(r#"<section id="collapse"><h2>From training to fresh items</h2><div class="beside">"#);
    if rows.iter().any(|row| row.cv.is_finite() || row.fresh.is_finite()) {
        put!(
            out,
            r#"<figure class="chart">{}<figcaption>{}</figcaption></figure>"#,
            chart(found, &rows),
            caption(&rows)
        );
    }
    put!(out, r#"<div class="prose"><p class="story">{}</p>"#, escape(&story(found)));
    for sentence in nulls(found) {
        put!(out, "<p>{}</p>", escape(&sentence));
    }
    modes(&mut out, None, &found.failure_modes);
    let others = [("pooled layers", &found.pooled), ("another model", &found.replication)];
    for (name, other) in others.into_iter().filter_map(|(name, other)| Some((name, other.as_ref()?))) {
        modes(&mut out, Some(name), &other.failure_modes);
    }
    out + "</div></div></section>"
}

fn rows(found: &Falsification) -> Vec<Row> {
    let (cv, fresh) = (found.chosen_cv(), found.chosen_fresh());
    let mut rows = vec![Row {
        name: "this probe".into(),
        cv: cv.map_or(f64::NAN, |result| result.cv.auc),
        cv_null: found.cv_null.clone(),
        fresh: fresh.map_or(f64::NAN, |result| result.measured.auc),
        range: fresh.map_or(Ends::NONE, |result| result.measured.auc_delong),
        fresh_null: found.fresh_null.clone(),
        baseline: false,
    }];
    let of_transfer = |name: &str, of: &Transfer| Row {
        name: name.into(),
        cv: of.cv_auc,
        cv_null: None,
        fresh: of.fresh_auc,
        range: of.fresh_range,
        fresh_null: None,
        baseline: false,
    };
    rows.extend(found.pooled.iter().map(|of| of_transfer("pooled layers", of)));
    rows.extend(found.replication.iter().map(|of| of_transfer(&of.name, of)));
    rows.extend(found.baselines.iter().map(|of| Row {
        name: of.name.as_str().into(),
        cv: of.cv_auc,
        cv_null: None,
        fresh: of.fresh_auc,
        range: Ends::NONE,
        fresh_null: None,
        baseline: true,
    }));
    rows
}

fn chart(found: &Falsification, rows: &[Row]) -> String {
    let gates = &found.declared.gates;
    let levels = vec![
        Level { value: CHANCE, name: "chance", gate: false },
        Level { value: gates.fresh_auc, name: "gate on fresh items", gate: true },
        Level { value: gates.cv_auc, name: "gate in training", gate: true },
    ];
    let of_null = |null: &Option<Null>| null.iter().flat_map(|null| [null.mean, null.q95]).collect::<Vec<f64>>();
    let values = rows.iter().flat_map(|row| {
        let mut values = vec![row.cv, row.fresh, row.range.low, row.range.high];
        values.extend(of_null(&row.cv_null));
        values.extend(of_null(&row.fresh_null));
        values
    });
    let baselines = rows.iter().any(|row| row.baseline);
    let height = 2.0 * LABELLED + rows.len() as f64 * ROW - 10.0 + if baselines { GAP } else { 0.0 };
    let chart = Chart::new(values, levels, height);
    let (mut out, mut y, mut below) = (String::new(), chart.top + LABELLED, false);
    for (index, row) in rows.iter().enumerate() {
        if row.baseline && !below {
            below = true;
            put!(out, r#"<path class="grid" d="M0 {:.1}H{RIGHT}"/>"#, y - 2.0);
            put!(out, r#"<text class="end" x="{:.1}" y="{:.1}">baselines</text>"#, LEFT - 12.0, y + 14.0);
            y += GAP;
        }
        draw_row(&mut out, row, (&chart, found.declared.gates.fresh_auc), y);
        if index == 0 {
            labels(&mut out, row, &chart, y);
            y += LABELLED;
        }
        y += ROW;
    }
    chart.around("AUC in cross-validation and on fresh items, of the probe and its baselines", &out)
}

/// The cross-validated AUC above, the fresh one below, and the line between them.
fn draw_row(out: &mut String, row: &Row, (chart, gate): (&Chart, f64), top: f64) {
    let (x, above, below) = (&chart.x, top + 8.0, top + 8.0 + FALL);
    name(out, &row.name, above + 4.0);
    let numbers = format!("{} → {}", fixed(row.cv, 3), fixed(row.fresh, 3));
    put!(out, r#"<text class="end" x="{:.1}" y="{:.1}">{numbers}</text>"#, LEFT - 12.0, below + 3.0);
    band(out, row.cv_null.as_ref(), chart, above);
    band(out, row.fresh_null.as_ref(), chart, below);
    let class = if row.baseline { "rest" } else { "own" };
    if row.cv.is_finite() && row.fresh.is_finite() {
        let class = if row.fresh < gate && !row.baseline { "lost" } else { class };
        put!(
            out,
            r#"<path class="fall {class}" d="M{:.1} {above:.1}L{:.1} {below:.1}"/>"#,
            x.at(row.cv),
            x.at(row.fresh)
        );
    }
    if row.range.low.is_finite() && row.range.high.is_finite() {
        let (low, high) = (x.at(row.range.low), x.at(row.range.high));
        put!(
            out,
            r#"<path class="interval {class}" d="M{low:.1} {below:.1}H{high:.1}m0 -4v8M{low:.1} {:.1}v8"/>"#,
            below - 4.0
        );
    }
    let mut dot = |value: f64, y: f64, hollow: &str, what: &str| {
        if value.is_finite() {
            put!(out, r#"<circle class="dot {class}{hollow}" cx="{:.1}" cy="{y:.1}" r="4.2">"#, x.at(value));
            put!(out, "<title>{}: {what} AUC {}</title></circle>", escape(&row.name), fixed(value, 3));
        }
    };
    dot(row.cv, above, " hollow", "cross-validated");
    dot(row.fresh, below, "", "fresh");
}

/// From the mean of shuffled labels to the value that 95 % of them stay below.
fn band(out: &mut String, null: Option<&Null>, chart: &Chart, y: f64) {
    let Some(null) = null.filter(|null| null.mean.is_finite() && null.q95.is_finite()) else { return };
    let (from, to) = (chart.x.at(null.mean), chart.x.at(null.q95));
    let (left, wide) = (from.min(to), (to - from).abs().max(1.0));
    put!(out, r#"<rect class="band" x="{left:.1}" y="{:.1}" width="{wide:.1}" height="12"/>"#, y - 6.0);
}

/// What the marks of the first row are.
fn labels(out: &mut String, row: &Row, chart: &Chart, top: f64) {
    let mut label = |value: f64, y: f64, text: &str| {
        if !value.is_finite() {
            return;
        }
        let at = chart.x.at(value);
        let (anchor, x) = match at {
            at if at > RIGHT - 60.0 => ("end", (at + 24.0).min(RIGHT)),
            at if at < LEFT + 60.0 => ("start", (at - 24.0).max(LEFT)),
            at => ("middle", at),
        };
        put!(out, r#"<text class="halo" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{text}</text>"#);
    };
    label(row.cv, top - 5.0, "○ cross-validated");
    let interval = row.range.low.is_finite() && row.range.high.is_finite();
    let fresh = if interval { "● fresh, 95\u{a0}% interval" } else { "● fresh" };
    label(row.fresh, top + 8.0 + FALL + 19.0, fresh);
}

fn caption(rows: &[Row]) -> String {
    let mut out = "○ cross-validated AUC, ● AUC on fresh items; the line between them is the fall.".to_owned();
    if rows.iter().any(|row| row.cv_null.is_some() || row.fresh_null.is_some()) {
        out.push_str(" Grey bands: shuffled labels, from their mean to what 95\u{a0}% of them stay below.");
    }
    if rows.iter().any(|row| row.baseline) {
        out.push_str(" Grey points: baselines.");
    }
    out
}

/// What happened to the AUC.
fn story(found: &Falsification) -> String {
    let cv = found.chosen_cv().map_or(f64::NAN, |result| result.cv.auc);
    let fresh = found.chosen_fresh().map_or(f64::NAN, |result| result.measured.auc);
    let gates = &found.declared.gates;
    let smaller = found.fresh.smaller_class();
    let (told_cv, told_fresh) = (fixed(cv, 3), fixed(fresh, 3));
    if smaller == 0 {
        return format!("All {} fresh items are of one class: there is nothing to rank.", found.fresh.items);
    }
    if !cv.is_finite() || !fresh.is_finite() {
        return format!("The AUC is {told_cv} in training and {told_fresh} on fresh items: one of them cannot be had.");
    }
    let few = if smaller < gates.min_class {
        format!(" But the smaller class of the fresh set has {}: too few to tell.", count(smaller, "item"))
    } else {
        String::new()
    };
    if cv < gates.cv_auc {
        let by_chance = found.cv_null.as_ref().is_none_or(|null| null.p > gates.alpha);
        let own = if by_chance {
            "It does not rank its own training items beyond chance"
        } else {
            "It ranks its own training items, but below the gate"
        };
        return format!("{own}: AUC {told_cv}, and {told_fresh} on fresh ones.{few}");
    }
    let rest = match (fresh - CHANCE) / (cv - CHANCE) {
        _ if cv <= CHANCE => String::new(),
        left if left >= 0.005 && !above_chance(found) => " Nothing of it can be told from chance.".to_owned(),
        left if left < 0.005 => " Of what lay above chance, nothing is left.".to_owned(),
        left if left < 0.995 => format!(" Of what lay above chance, {}\u{a0}% is left.", fixed(100.0 * left, 0)),
        _ => String::new(),
    };
    if fresh < gates.fresh_auc {
        return format!("The AUC falls from {told_cv} in training to {told_fresh} on fresh items.{rest}{few}");
    }
    // An AUC is one check of several, and must not read as the verdict.
    let step = found.steps.iter().find(|step: &&Step| step.name == StepName::Fresh);
    let all_the_same = match step.map(|step| step.outcome) {
        Some(Outcome::Failed) => " The step fails all the same, by another check.",
        Some(Outcome::Inconclusive) => " The step is open all the same, by another check.",
        _ => "",
    };
    let no_better = no_better(found, fresh);
    format!(
        "The AUC stays above its gate: {told_cv} in training, {told_fresh} on fresh items.{rest}{no_better}{all_the_same}{few}"
    )
}

/// The baselines that rank fresh items as well: an AUC that a length reaches says nothing of hidden states.
fn no_better(found: &Falsification, fresh: f64) -> String {
    let as_good = found.baselines.iter().filter(|baseline| baseline.to_beat && baseline.fresh_auc >= fresh);
    let names: Vec<String> = as_good.map(|of| format!("{} ({})", of.name.as_str(), fixed(of.fresh_auc, 3))).collect();
    if names.is_empty() {
        return String::new();
    }
    let does = if names.len() == 1 { "does" } else { "do" };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!(" {} alone {does} no worse.", capital(&listed(&names)))
}

/// Whether the fresh AUC lies above chance, by its p or by its interval.
fn above_chance(found: &Falsification) -> bool {
    let by_p = found.fresh_null.as_ref().is_some_and(|null| null.p <= found.declared.gates.alpha);
    // An interval without width is not certainty.
    let above = |range: Ends| range.low > CHANCE && range.low < range.high;
    by_p || found.chosen_fresh().is_some_and(|result| above(result.measured.auc_delong))
}

/// Both AUCs, compared with what shuffled labels give.
fn nulls(found: &Falsification) -> Vec<String> {
    let mut out = Vec::new();
    let mut say = |what: &str, null: Option<&Null>| match null {
        Some(null) => out.push(format!(
            "{what}, {} shuffles of the labels give {} on average and stay below {} in 95\u{a0}%: p\u{a0}{}.",
            null.shuffles,
            fixed(null.mean, 3),
            fixed(null.q95, 3),
            p_value(null.p).replace("&lt;", "<")
        )),
        None => out.push(format!("{what}: no labels were shuffled, so there is no level to compare with.")),
    };
    if found.cv_null.is_none() && found.fresh_null.is_none() {
        return vec!["No labels were shuffled, so there is no level to compare with.".to_owned()];
    }
    say("In training", found.cv_null.as_ref());
    // With one class there is no AUC, and no order that shuffles could break.
    if (1..found.fresh.items).contains(&found.fresh.positives) {
        say("On fresh items", found.fresh_null.as_ref());
    }
    out.extend(found.chosen_fresh().and_then(|result| interval(result.measured.auc_delong)));
    out
}

/// How precisely the fresh AUC is known.
fn interval(range: Ends) -> Option<String> {
    if !(range.low.is_finite() && range.high.is_finite()) {
        return None;
    }
    // If every pair is in order, ranks do not vary, and theory offers no interval.
    if range.low == range.high {
        let why = "no pair is out of order, or every pair is";
        return Some(format!("The interval of the fresh AUC has no width, since {why}: that is not certainty."));
    }
    let (low, high) = (fixed(range.low, 3), fixed(range.high, 3));
    let chance = if (range.low..=range.high).contains(&CHANCE) { ": chance is among them" } else { "" };
    Some(format!("The fresh AUC may be anything from {low} to {high} (95\u{a0}%, DeLong){chance}."))
}

/// How a probe failed, and what that means.
fn modes(out: &mut String, of: Option<&str>, modes: &[FailureMode]) {
    for mode in modes {
        let of = of.map_or(String::new(), |of| format!(", {of}"));
        put!(out, "<p><b>{}</b>{of}: {}.", escape(&capital(mode.name.as_str())), escape(&typeset(&mode.why)));
        // Explained once: the same holds for other features.
        if of.is_empty() {
            put!(out, " {}", meaning(mode.name));
        }
        out.push_str("</p>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{falsify::BaselineName, report::falsify::fixture};

    #[test]
    fn a_row_for_each_probe_and_a_line_for_each_fall() {
        let found = fixture::whole(0);
        let out = draw(&found);
        assert_eq!(out.matches(r#"class="fall lost""#).count(), 3, "the probe, pooled, replication");
        assert_eq!(out.matches(r#"class="fall rest""#).count(), found.baselines.len());
        assert_eq!((out.matches(r#"class="band""#).count(), out.matches(r#"class="level""#).count()), (2, 2));
        assert!(out.contains("gate on fresh items 0.63") && out.contains("chance 0.50"));
    }

    #[test]
    fn the_story_follows_the_gates() {
        let mut found = fixture::whole(0);
        assert!(story(&found).starts_with("The AUC falls from 0.906 in training to 0.516 on fresh items. Of what lay"));
        let mut chance = found.clone();
        chance.fresh_null.iter_mut().for_each(|null| null.p = 0.3);
        assert!(
            story(&chance).ends_with("0.516 on fresh items. Nothing of it can be told from chance."),
            "{}",
            story(&chance)
        );
        chance.fresh_null = None;
        chance.transfer[0].measured.auc_delong = Ends { low: 0.51, high: 0.52 };
        assert!(story(&chance).contains("Of what lay above chance, 4\u{a0}% is left."), "{}", story(&chance));
        found.transfer[0].measured.auc = 0.8;
        assert!(
            story(&found).starts_with("The AUC stays above its gate") && story(&found).ends_with("by another check.")
        );
        found.fresh.positives = 9;
        assert!(story(&found).ends_with("too few to tell."));
        found.cv[0].cv.auc = 0.55;
        assert!(story(&found).starts_with("It ranks its own training items, but below the gate"));
        found.fresh.positives = 0;
        assert!(story(&found).contains("of one class"));
    }

    #[test]
    fn baselines_that_do_as_well_are_named_beside_what_is_left() {
        let mut found = fixture::whole(0);
        found.transfer[0].measured.auc = 0.729;
        assert!(!story(&found).contains("no worse"), "all baselines are behind");
        let set = |found: &mut Falsification, name: BaselineName, auc: f64| {
            let baseline = found.baselines.iter_mut().find(|one| one.name == name).expect("a baseline of this name");
            baseline.fresh_auc = auc;
        };
        set(&mut found, BaselineName::ShuffledLabels, 0.9);
        assert!(!story(&found).contains("no worse"), "nobody need beat the mean of a null");
        set(&mut found, BaselineName::Length, 0.788);
        assert!(
            story(&found).contains("is left. Length (0.788) alone does no worse. The step fails"),
            "{}",
            story(&found)
        );
        set(&mut found, BaselineName::BagOfWords, 0.798);
        let step = found.steps.iter_mut().find(|step| step.name == StepName::Fresh).expect("the fresh step");
        step.outcome = Outcome::Inconclusive;
        let both = "Length (0.788) and bag of words (0.798) alone do no worse. The step is open all the same, by another check.";
        assert!(story(&found).ends_with(both), "{}", story(&found));
    }
}
