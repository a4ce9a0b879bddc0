//! Accuracy and assertion rate against λ, as a small line chart.

use crate::{
    outcome::{ArmOutcome, SweepTable},
    report::{
        axis::{Axis, extent},
        sweep::lambda,
        text::{escape, percent, put},
    },
};

const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = WIDTH - 84.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = HEIGHT - 42.0;
/// How far beside its λ a control arm stands, so that it does not cover the arm that it repeats.
const DODGE: f64 = 7.0;

/// How to read the chart.
pub(super) const KEY: &str = "In the chart, hollow points are control arms, drawn a little aside, and whiskers are \
    the 95\u{a0}% Wilson interval of each share by itself; all arms answer the same prompts, so a difference between \
    two arms is known better than they suggest.";

/// One line of the chart.
struct Series {
    class: &'static str,
    name: &'static str,
    of: fn(&ArmOutcome) -> f64,
}

const SERIES: [Series; 2] = [
    Series { class: "one", name: "accuracy", of: |arm| arm.accuracy },
    Series { class: "two", name: "assertion", of: |arm| arm.assertion_rate },
];

/// The chart, or nothing when no arm has a finite λ.
pub(super) fn draw(sweep: &SweepTable) -> String {
    let lambdas = || sweep.arms.iter().map(|arm| arm.lambda).filter(|lambda| lambda.is_finite());
    let Some((low, high)) = extent(lambdas()) else { return String::new() };
    let x = Axis::new(high.max(1.0), low.min(0.0), LEFT + 8.0, RIGHT - 8.0);
    let y = Axis::new(0.0, 1.0, BOTTOM, TOP);
    let mut out = format!(
        r#"<figure><svg role="img" aria-label="Accuracy and assertion rate against lambda"
        viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">"#
    );
    frame(&mut out, &x, &y, lambdas().collect());
    let mut ends = Vec::new();
    for series in &SERIES {
        ends.extend(line(&mut out, sweep, series, &x, &y).map(|end| (end, series)));
    }
    labels(&mut out, ends);
    out.push_str("</svg></figure>");
    out
}

fn frame(out: &mut String, x: &Axis, y: &Axis, mut lambdas: Vec<f64>) {
    put!(out, r#"<path class="tick" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>"#);
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let at = y.at(tick);
        put!(out, r#"<path class="grid" d="M{LEFT} {at:.1}H{RIGHT}"/>"#);
        put!(out, r#"<text class="end" x="{:.1}" y="{:.1}">{}</text>"#, LEFT - 6.0, at + 3.5, tick * 100.0);
    }
    lambdas.sort_by(|one, other| other.total_cmp(one));
    lambdas.dedup();
    let mut free = f64::NEG_INFINITY;
    for value in lambdas {
        let at = x.at(value);
        put!(out, r#"<path class="tick" d="M{at:.1} {BOTTOM}v4"/>"#);
        let text = lambda(value);
        let half = text.chars().count() as f64 * 3.2;
        if at - half > free {
            put!(out, r#"<text class="mid" x="{at:.1}" y="{:.1}">{text}</text>"#, BOTTOM + 16.0);
            free = at + half + 3.0;
        }
    }
    let foot = HEIGHT - 8.0;
    put!(out, r#"<text class="axis" x="0" y="{foot:.1}">↑ %</text>"#);
    put!(out, r#"<text class="axis end" x="{RIGHT}" y="{foot:.1}">λ, from untouched to ablated →</text>"#);
}

/// Draws one series and says where its line ends.
fn line(out: &mut String, sweep: &SweepTable, series: &Series, x: &Axis, y: &Axis) -> Option<f64> {
    let mut arms: Vec<_> =
        sweep.arms.iter().filter(|arm| arm.lambda.is_finite() && (series.of)(arm).is_finite()).collect();
    arms.sort_by(|one, other| other.lambda.total_cmp(&one.lambda));
    let joined: Vec<_> = arms.iter().filter(|arm| !arm.control).collect();
    let path: Vec<_> =
        joined.iter().map(|arm| format!("{:.1} {:.1}", x.at(arm.lambda), y.at((series.of)(arm)))).collect();
    let class = series.class;
    if path.len() > 1 {
        put!(out, r#"<path class="line {class}" d="M{}"/>"#, path.join("L"));
    }
    for arm in &arms {
        let value = (series.of)(arm);
        let (at, dodge) = (y.at(value), if arm.control { DODGE } else { 0.0 });
        let left = x.at(arm.lambda) + dodge;
        if let Some((low, high)) = wilson(value, arm.n) {
            put!(out, r#"<path class="whisker {class}" d="M{left:.1} {:.1}V{:.1}"/>"#, y.at(low), y.at(high));
        }
        let hollow = if arm.control { " hollow" } else { "" };
        put!(
            out,
            r#"<circle class="dot {class}{hollow}" cx="{left:.1}" cy="{at:.1}" r="3.4"><title>{}: {} {} %</title></circle>"#,
            escape(&arm.variant),
            series.name,
            percent(value)
        );
    }
    joined.last().map(|arm| y.at((series.of)(arm)))
}

/// Names at the ends of the lines, pushed apart where they would touch.
fn labels(out: &mut String, mut ends: Vec<(f64, &Series)>) {
    ends.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut free = TOP;
    for (at, series) in ends {
        let at = at.max(free);
        free = at + 14.0;
        let class = series.class;
        put!(out, r#"<text class="name {class}" x="{:.1}" y="{:.1}">{}</text>"#, RIGHT + 8.0, at + 3.5, series.name);
    }
}

/// The 95 % Wilson score interval of a share of `n`.
fn wilson(share: f64, n: usize) -> Option<(f64, f64)> {
    if n == 0 || !(0.0..=1.0).contains(&share) {
        return None;
    }
    let (z, n) = (1.959_963_985, n as f64);
    let centre = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    Some(((centre - half) / scale, (centre + half) / scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn lambda_runs_from_untouched_to_ablated() {
        let out = draw(&fixture::sweep());
        let path = out.split(r#"class="line one" d="M"#).nth(1).expect("a line");
        assert!(path.starts_with("52.0 "), "λ = 1 stands at the left: {path:.40}");
        assert_eq!(out.matches("hollow").count(), 2);
    }

    #[test]
    fn wilson_agrees_with_a_published_value() {
        // Newcombe (1998), table I: 15 of 148, score method: 0.0624 to 0.1605.
        let (low, high) = wilson(15.0 / 148.0, 148).expect("defined");
        assert!((low - 0.0624).abs() < 5e-5 && (high - 0.1605).abs() < 5e-5, "{low} {high}");
        assert_eq!(wilson(f64::NAN, 10), None);
        assert_eq!(wilson(0.5, 0), None);
    }

    #[test]
    fn arms_without_numbers_leave_no_trace() {
        let mut sweep = fixture::sweep();
        sweep.arms.iter_mut().for_each(|arm| arm.accuracy = f64::NAN);
        let out = draw(&sweep);
        assert!(!out.contains("NaN") && !out.contains("dot one") && out.contains("dot two"));
        sweep.arms.iter_mut().for_each(|arm| arm.lambda = f64::NAN);
        assert!(draw(&sweep).is_empty());
    }
}
