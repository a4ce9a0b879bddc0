//! What a gate did, for people.

use super::result::{AtRandom, Change, Dealt, GateResult, Standing};
use crate::{
    items::units::counted,
    probe::Ends,
    significance::LEVEL,
    sweep::asymmetry::LEAST,
    text::{
        interval, short, signed,
        table::{
            Column::{Left, Right},
            Table,
        },
    },
};

/// A number of [`Standing`], its change, and its change by chance.
type Line<'a> = (&'a str, fn(&Standing) -> f64, Option<Change>, Option<Dealt>);

/// The result as a table.
pub fn gate_markdown(found: &GateResult) -> String {
    let Ends { low, high } = found.auc_delong;
    let range = if low.is_finite() { format!(" ({})", interval(low, high, 3)) } else { String::new() };
    let mut out = format!(
        "{} of {} answers fall below {:.2} (from {}) and get the prefix; AUC of the probe {} {}{range}\n\n",
        found.prefixed,
        found.items,
        found.threshold,
        found.threshold_from,
        measured(found),
        short(found.auc)
    );
    let table = Table::of([Left("")]).with([Right("without"), Right("gated")]).with([Right("change, 95 %")]);
    let dealt = found.change.at_random.is_some();
    let mut table = if dealt { table.with([Right("dealt at random, 95 %"), Right("p")]) } else { table };
    let (of, random) = (&found.change, found.change.at_random);
    let lines: [Line<'_>; 6] = [
        ("p(assert given correct)", |s| s.p_assert_correct, Some(of.p_assert_correct), None),
        ("p(assert given wrong)", |s| s.p_assert_wrong, Some(of.p_assert_wrong), None),
        ("assertion asymmetry", |s| s.asymmetry, Some(of.asymmetry), random.map(|random| random.asymmetry)),
        ("coverage: right answers", |s| s.coverage, None, None),
        ("asserted answers", |s| s.asserted, Some(of.asserted), None),
        ("of these, right", |s| s.asserted_right, Some(of.asserted_right), random.map(|random| random.asserted_right)),
    ];
    for line in &lines {
        let beside = dealt.then(|| at_random(line.3));
        table.row(row(line, found).into_iter().chain(beside.into_iter().flatten()));
    }
    out += &table.to_string();
    out += &footnotes(found);
    for warning in &found.warnings {
        out += &format!("\nwarning: {warning}\n");
    }
    out
}

/// The answers that the numbers are of.
fn measured(found: &GateResult) -> String {
    match found.seen_in_training {
        0 => "here".into(),
        seen if seen == found.items => "on the answers that it was fitted on".into(),
        _ => format!("on the {} that it was not fitted on, which all numbers below are of,", found.measured),
    }
}

fn row((name, of, change, _): &Line<'_>, found: &GateResult) -> [String; 4] {
    let number = |x: f64| if *name == "assertion asymmetry" { signed(x, 3) } else { short(x) };
    let change = change.map_or_else(String::new, |Change { difference, low, high }| {
        format!("{} ({})", signed(difference, 3), interval(low, high, 3))
    });
    [(*name).into(), number(of(&found.plain)), number(of(&found.gated)), change]
}

/// What the same prefixes change when dealt at random, and p; empty where they were not dealt.
fn at_random(dealt: Option<Dealt>) -> [String; 2] {
    dealt.map_or_else(Default::default, |Dealt { mean, low, high, p }| {
        [format!("{} ({})", signed(mean, 3), interval(low, high, 3)), short(p)]
    })
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
            "no interval where fewer than {LEAST} prompts are answered right, or wrong, or keep an assertion, where one of them has most of \
             the answers, or where none loses one\n"
        );
    }
    out += &match change.at_random {
        None => "no p: there are too few ways to deal these prefixes over the answers that stand as assertions without them\n".into(),
        Some(AtRandom { draws, answers, prefixed, asymmetry, asserted_right, .. }) => {
            let p = if asymmetry.p.is_nan() { asserted_right.p } else { asymmetry.p };
            let so = if p > LEVEL { "; this gate cannot be told from chance" } else { "" };
            format!(
                "dealt at random: what becomes of {prefixed} prefixes over the {answers} answers that stand as assertions without them, \
                 {draws} times,\nwhole prompts together; p: how often that does as well{so}\n"
            )
        }
    };
    out
}

#[cfg(test)]
mod tests {
    use headtemper_engine::FinishReason;
    use serde_json::Map;

    use super::*;
    use crate::gate::{Changes, Contradicted, CutOff, GatedRow, ThresholdFrom};

    /// Forty answers, every second one right, of which these get a prefix.
    fn found(prefixed: impl Fn(usize) -> bool) -> GateResult {
        let row = |i: usize| GatedRow {
            id: i.to_string(),
            item: Map::new(),
            response: String::new(),
            plain_response: String::new(),
            finish_reason: Some(FinishReason::Stop),
            p: 0.5,
            prefixed: prefixed(i),
            correct: Some(i.is_multiple_of(2)),
            label: Some(format!(
                "{}{}",
                if prefixed(i) { "h" } else { "c" },
                if i.is_multiple_of(2) { "r" } else { "w" }
            )),
            plain_label: Some(if i.is_multiple_of(2) { "cr" } else { "cw" }.into()),
            seen_in_training: false,
        };
        let rows: Vec<GatedRow> = (0..40).map(row).collect();
        let units: Vec<Vec<usize>> = (0..40).map(|i| vec![i]).collect();
        GateResult {
            schema: "gate/v1".into(),
            probe_sha256: String::new(),
            c: 1.0,
            threshold: 0.5,
            threshold_from: ThresholdFrom::Asked,
            prefix: "Perhaps ".into(),
            items: rows.len(),
            prefixed: rows.iter().filter(|row| row.prefixed).count(),
            seen_in_training: 0,
            measured: rows.len(),
            cut_off: CutOff::of(&rows),
            contradicted: Contradicted::default(),
            auc: f64::NAN,
            auc_delong: Ends { low: f64::NAN, high: f64::NAN },
            plain: Standing::of(rows.iter().map(|row| row.plain_label.as_deref())),
            gated: Standing::of(rows.iter().map(|row| row.label.as_deref())),
            change: Changes::of(&rows, &units),
            warnings: vec!["mind".into()],
        }
    }

    /// The text with one space where there are several.
    fn squeezed(text: &str) -> String {
        text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_table_tells_a_finding_from_chance() {
        let wide = gate_markdown(&found(|i| !i.is_multiple_of(2) && i < 24));
        assert!(wide.lines().filter(|line| line.starts_with('|')).all(|line| line.chars().count() <= 80), "{wide}");
        let knowing = squeezed(&wide);
        assert!(knowing.contains("| assertion asymmetry | +0.000 | -0.600 | -0.600 (-0."), "{knowing}");
        assert!(knowing.contains("| coverage: right answers | 0.500 | 0.500 | |"), "{knowing}");
        assert!(knowing.contains("| coverage: right answers | | |"), "{knowing}");
        assert!(
            knowing.contains("what becomes of 12 prefixes over the 40 answers") && knowing.contains(" | 0.001 |"),
            "{knowing}"
        );
        assert!(!knowing.contains("told from chance") && !knowing.contains("no interval"), "{knowing}");
        let blind = gate_markdown(&found(|i| i < 12));
        assert!(
            blind.contains("; this gate cannot be told from chance\n") && blind.ends_with("warning: mind\n"),
            "{blind}"
        );
        let idle = gate_markdown(&found(|_| false));
        assert!(
            idle.contains("no p: there are too few ways") && idle.contains("no interval where fewer than 10"),
            "{idle}"
        );
    }

    #[test]
    fn a_result_of_before_there_were_changes_is_read() {
        let mut old = serde_json::to_value(found(|i| i < 12)).unwrap();
        let unwritten = ["change", "cut_off", "contradicted"];
        old.as_object_mut().unwrap().retain(|name, _| !unwritten.contains(&name.as_str()));
        let old: GateResult = serde_json::from_value(old).unwrap();
        assert!(old.change.known == 0 && old.change.asymmetry.difference.is_nan());
        assert!(squeezed(&gate_markdown(&old)).contains("| of these, right | 0.500 | 0.500 | – (no interval) |"));
    }
}
