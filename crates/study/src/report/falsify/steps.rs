//! The five steps: what each asks, what it found and what was needed, and whether it decides.

use crate::{
    falsify::{Check, FailedBy, Falsification, Kind, Outcome, Step},
    report::{
        falsify::marked,
        text::{escape, fixed, folded, p_value, put, signed, typeset},
    },
    text::capital,
};

/// With more checks than this, they are behind a click: those of many axes, which have a section of their own.
const FOLDED: usize = 16;

/// The section.
pub(super) fn draw(found: &Falsification) -> String {
    let mut out = format!(
        r#"<section id="steps"><h2>The five steps</h2><p class="lead">Each number beside the gate that was declared for
        it. A step passes if all of its checks do; where a class has too few items, none of them can tell. {}</p>
        <div class="steps">"#,
        failing(found.declared.gates.failed_by)
    );
    for (index, step) in found.steps.iter().enumerate() {
        self::step(&mut out, index + 1, step);
    }
    out + "</div></section>"
}

/// When a missed gate on fresh items counts as failed.
pub(super) fn failing(by: FailedBy) -> &'static str {
    match by {
        FailedBy::Interval => {
            "A gate on fresh items that is missed is failed where the whole 95\u{a0}% interval of the number misses it; else the \
             items cannot tell."
        }
        FailedBy::Point => "A gate on fresh items that is missed is failed, whatever the interval of the number.",
    }
}

fn step(out: &mut String, number: usize, step: &Step) {
    put!(
        out,
        r#"<article id="step-{number}"><h3>{number} {} {}{}</h3><p>{}</p>"#,
        step.name,
        marked(step.outcome),
        match (step.decides, step.outcome) {
            (true, _) => r#"<span class="decides">decides</span>"#,
            (false, Outcome::NotRun) => "",
            _ => r#"<span class="decides">reported, decides nothing</span>"#,
        },
        escape(&capital(&step.question))
    );
    match step.checks.len() {
        0 => {}
        n if n > FOLDED => *out += &folded(&format!("{n} checks"), "falsify.json", &table(step)),
        _ => *out += &table(step),
    }
    put!(out, r#"<p class="note">{}</p></article>"#, escape(&typeset(&capital(&step.note))));
}

fn table(step: &Step) -> String {
    let rows: String = step.checks.iter().map(row).collect();
    format!(
        r#"<table class="small checks" aria-label="Checks of {}"><thead><tr><th scope="col">check</th><th scope="col">found</th>
        <th scope="col">needed</th><th scope="col" class="word">outcome</th></tr></thead><tbody>{rows}</tbody></table>"#,
        step.name
    )
}

fn row(check: &Check) -> String {
    let sign = match (check.kind, check.at_least) {
        (Kind::Above, _) => "&gt;",
        (_, true) => "≥",
        (_, false) => "≤",
    };
    format!(
        r#"<tr><th scope="row">{}</th><td>{}</td><td class="muted">{sign} {}</td><td class="word">{}</td></tr>"#,
        escape(&check.what),
        told(check.kind, check.value, check.needed) + &range(check),
        needed(check.kind, check.needed),
        marked(check.outcome)
    )
}

/// The interval of a number, if it has one.
fn range(check: &Check) -> String {
    let end = |value: f64| match check.kind {
        Kind::Asymmetry | Kind::Above => signed(value, 3),
        _ => fixed(value, 3),
    };
    let range = check.range.filter(|range| range.low.is_finite() && range.high.is_finite());
    range.map_or(String::new(), |of| format!(r#" <span class="muted">({} to {})</span>"#, end(of.low), end(of.high)))
}

/// A number with enough decimals to tell it from its gate: 0.6297 has not reached 0.63.
fn told(kind: Kind, value: f64, gate: f64) -> String {
    let decimals = (3..7).find(|&decimals| {
        let unit = 10f64.powi(decimals);
        let rounded = (value * unit).round() / unit;
        !value.is_finite() || rounded.partial_cmp(&gate) == value.partial_cmp(&gate)
    });
    let decimals = decimals.unwrap_or(6) as usize;
    match kind {
        Kind::Items => fixed(value, 0),
        Kind::P if value < 0.000_5 => p_value(value),
        Kind::Asymmetry | Kind::Above => signed(value, decimals),
        Kind::P | Kind::Share => fixed(value, decimals),
    }
}

/// A gate as it was declared.
fn needed(kind: Kind, gate: f64) -> String {
    match kind {
        Kind::Items | Kind::Above => fixed(gate, 0),
        // As many decimals as it has, but at least two.
        _ => {
            let decimals = (2..6).find(|&d| (gate * 10f64.powi(d)).fract().abs() < 1e-9).unwrap_or(6);
            fixed(gate, decimals as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::falsify::fixture;

    #[test]
    fn a_number_is_told_from_its_gate() {
        assert_eq!(told(Kind::Share, 0.516, 0.63), "0.516");
        assert_eq!(told(Kind::Share, 0.629_96, 0.63), "0.62996");
        assert_eq!(told(Kind::Share, 0.63, 0.63), "0.630");
        assert_eq!((told(Kind::P, 0.0104, 0.01), told(Kind::P, 0.0002, 0.01)), ("0.0104".into(), "&lt;0.001".into()));
        assert_eq!(told(Kind::Items, 55.0, 10.0), "55");
        assert_eq!(told(Kind::Share, f64::NAN, 0.63), "–");
        assert_eq!((needed(Kind::Share, 0.65), needed(Kind::Asymmetry, -0.2)), ("0.65".into(), "−0.20".into()));
        assert_eq!(needed(Kind::Share, 0.625), "0.625");
    }

    #[test]
    fn a_step_says_whether_it_decides() {
        let out = draw(&fixture::whole(2));
        assert_eq!(out.matches(">decides<").count(), 2);
        assert_eq!(out.matches("<article").count(), 5);
        assert!(out.contains("&gt; 0</td>"), "a baseline must be beaten");
        assert!(out.contains(r#"0.516 <span class="muted">(0.430 to 0.600)</span>"#), "{out}");
        assert!(out.contains("the whole 95\u{a0}% interval"), "how a gate is failed");
    }
}
