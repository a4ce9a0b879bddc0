//! Differences to λ = 1 against λ, as small charts: one per outcome.

use crate::{
    Role,
    report::{
        axis::{Axis, extent},
        sweep::{arm_name, lambda},
        text::{escape, p_value, put, signed},
    },
    significance::LEVEL,
    sweep::{
        compared::Compared,
        outcome::{ArmOutcome, Difference, Outcomes, SweepTable},
        reading::{decimals, in_units},
    },
    text::capital,
};

const WIDTH: f64 = 324.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = WIDTH - 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = HEIGHT - 42.0;
/// Half the width of the bar of random sets at each λ.
const BAR: f64 = 7.0;

/// How to read the charts: what is drawn in them, and nothing else.
pub(super) fn key(outcomes: &Outcomes) -> String {
    let mut out = "Points are differences to the untouched model on the same prompts, item by item, and whiskers their 95\u{a0}% \
        intervals, each by itself: p max is the one that is corrected for having looked at every arm."
        .to_owned();
    if outcomes.tables.iter().any(|table| !table.bands.is_empty()) {
        out.push_str(" Grey: from the lowest to the highest of the random head sets of the same size.");
    }
    if outcomes.control().is_some() {
        out.push_str(" Dashed: the control.");
    }
    out
}

/// One outcome of one set against λ; nothing when no arm is compared by it.
pub(super) fn draw(table: &SweepTable, which: Compared<'_>) -> String {
    let points: Vec<(&ArmOutcome, &Difference)> = table
        .arms
        .iter()
        .filter(|arm| arm.role == Role::Tempered && arm.lambda.is_finite())
        .filter_map(|arm| Some((arm, arm.difference.of(which).filter(|d| d.mean.is_finite())?)))
        .collect();
    let Some((low, high)) = extent(points.iter().map(|(arm, _)| arm.lambda)) else { return String::new() };
    let x = Axis::new(high.max(1.0), low.min(0.0), LEFT + 12.0, RIGHT - 12.0);
    let control = table.arms.iter().find(|arm| arm.role == Role::Control).and_then(|arm| arm.difference.of(which));
    let bands: Vec<_> = table.bands.iter().filter_map(|band| Some((band.lambda, *band.range.of(which)?))).collect();
    let drawn = points
        .iter()
        .flat_map(|(_, d)| [d.mean, d.low, d.high])
        .chain(bands.iter().flat_map(|(_, (low, high))| [*low, *high]))
        .chain(control.map(|d| d.mean))
        .chain([0.0])
        .map(|value| in_units(which, value));
    let (low, high) = extent(drawn).unwrap_or((0.0, 0.0));
    let pad = if high > low { 0.06 * (high - low) } else { 1.0 };
    let y = Axis::new(low - pad, high + pad, BOTTOM, TOP);
    let (title, unit) = names(which);
    let mut out = format!(
        r#"<figure><figcaption><b>{title}</b>, difference in {unit}</figcaption><svg role="img"
        aria-label="{title} against lambda, difference to lambda 1" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"
        height="{HEIGHT}">"#
    );
    for &(at, (low, high)) in &bands {
        let (left, top) = (x.at(at) - BAR, y.at(in_units(which, high)));
        let height = (y.at(in_units(which, low)) - top).max(1.0);
        let wide = 2.0 * BAR;
        put!(out, r#"<rect class="band" x="{left:.1}" y="{top:.1}" width="{wide:.1}" height="{height:.1}"/>"#);
    }
    frame(&mut out, &x, &y, points.iter().map(|(arm, _)| arm.lambda).collect());
    if let Some(control) = control.filter(|control| control.mean.is_finite()) {
        let at = y.at(in_units(which, control.mean));
        put!(out, r#"<path class="level" d="M{LEFT} {at:.1}H{RIGHT}"><title>control</title></path>"#);
    }
    for (arm, d) in points {
        point(&mut out, (which, arm, d), &x, &y);
    }
    out.push_str("</svg></figure>");
    out
}

/// What an outcome is called, safe in HTML, and its unit.
pub(super) fn names(which: Compared<'_>) -> (String, &'static str) {
    match which {
        Compared::Accuracy => ("Accuracy".to_owned(), "percentage points"),
        Compared::AssertionRate => ("Assertion rate".to_owned(), "percentage points"),
        Compared::AssertionAsymmetry => ("Assertion asymmetry".to_owned(), "percentage points"),
        Compared::MeanTokens => ("Length".to_owned(), "tokens"),
        Compared::Score(axis) => (escape(&capital(&axis.replace('_', " "))), "levels"),
    }
}

/// A difference in its unit, with its sign.
pub(super) fn told(which: Compared<'_>, x: f64) -> String {
    signed(in_units(which, x), decimals(which))
}

fn frame(out: &mut String, x: &Axis, y: &Axis, mut lambdas: Vec<f64>) {
    let (ticks, decimals) = y.ticks(5);
    for tick in ticks {
        let at = y.at(tick);
        put!(out, r#"<path class="grid" d="M{LEFT} {at:.1}H{RIGHT}"/>"#);
        put!(out, r#"<text class="end" x="{:.1}" y="{:.1}">{}</text>"#, LEFT - 6.0, at + 3.5, signed(tick, decimals));
    }
    let zero = y.at(0.0);
    put!(out, r#"<path class="tick" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}M{LEFT} {zero:.1}H{RIGHT}"/>"#);
    lambdas.push(1.0);
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
    put!(out, r#"<text class="axis end" x="{RIGHT}" y="{:.1}">λ, from untouched to ablated →</text>"#, HEIGHT - 8.0);
}

fn point(out: &mut String, (which, arm, d): (Compared<'_>, &ArmOutcome, &Difference), x: &Axis, y: &Axis) {
    let units = |value: f64| in_units(which, value);
    let left = x.at(arm.lambda);
    let mut interval = "no interval".to_owned();
    if d.low.is_finite() && d.high.is_finite() {
        let (low, high) = (y.at(units(d.low)), y.at(units(d.high)));
        put!(out, r#"<path class="whisker one" d="M{left:.1} {low:.1}V{high:.1}"/>"#);
        interval = format!("95 % {} to {}", told(which, d.low), told(which, d.high));
    }
    // Filled if it stands out even after looking at every arm.
    let hollow = if d.p_max.is_some_and(|p| p <= LEVEL) { "" } else { " hollow" };
    put!(
        out,
        r#"<circle class="dot one{hollow}" cx="{left:.1}" cy="{:.1}" r="3.6"><title>{}: {}, {interval}, p max {}</title></circle>"#,
        y.at(units(d.mean)),
        arm_name(arm),
        told(which, d.mean),
        p_value(d.p_max.unwrap_or(f64::NAN))
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn points_bands_and_the_control_are_drawn() {
        let sweep = fixture::sweep();
        let out = draw(&sweep.tables[0], Compared::Accuracy);
        assert_eq!(out.matches("<circle").count(), 2, "λ = 1 is no point");
        assert_eq!((out.matches(r#"class="band""#).count(), out.matches(r#"class="level""#).count()), (2, 1));
        assert_eq!(out.matches("hollow").count(), 1, "filled where p max is small");
        let second = out.rsplit("<circle").next().unwrap();
        assert!(second.contains("λ = 0: −12.0, 95 % −15.0 to −9.0, p max 0.010"), "{second}");
    }

    #[test]
    fn arms_without_numbers_leave_no_trace() {
        let mut table = fixture::sweep().tables.remove(0);
        for arm in &mut table.arms {
            arm.difference.accuracy = None;
        }
        assert!(draw(&table, Compared::Accuracy).is_empty());
        for arm in &mut table.arms {
            if let Some(d) = &mut arm.difference.mean_tokens {
                (d.low, d.high) = (f64::NAN, f64::NAN);
            }
        }
        let out = draw(&table, Compared::MeanTokens);
        assert!(out.contains("<circle") && !out.contains("NaN") && !out.contains("whisker"));
        table.arms.iter_mut().for_each(|arm| arm.lambda = f64::NAN);
        assert!(draw(&table, Compared::MeanTokens).is_empty());
    }
}
