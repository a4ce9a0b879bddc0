//! Whether two halves of the items rank heads alike, compared with what shuffled labels give.

use crate::{
    attribution::{Disposition, Reliability},
    report::{
        axis::{Axis, extent},
        text::{count, escape, fixed, p_value, put, signed},
    },
    significance::{LEVEL, least_p},
};

const WIDTH: f64 = 460.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 12.0;
const ROW: f64 = 30.0;
const HEIGHT: f64 = 2.0 * ROW + 48.0;

/// A line for each ranking, and a sentence.
pub(super) fn draw(disposition: &Disposition) -> String {
    let stability = &disposition.stability;
    let rows = [("by d", &stability.magnitude), ("by d held out", &stability.directional)];
    if rows.iter().all(|(_, row)| !row.rho.is_finite()) {
        return r#"<p class="muted">The items could not be halved and ranked twice: there are too few, or halves would share what was taken out of both.</p>"#.to_owned();
    }
    let mut out = format!(
        "<p>{} The heads were ranked in one random half of the items and again in the other, {}; a point is the mean
        rank correlation between the two.</p>",
        sentence(disposition),
        count(stability.splits, "time")
    );
    out.push_str("<figure>");
    out += &chart(&rows);
    out + "</figure>"
}

fn chart(rows: &[(&str, &Reliability); 2]) -> String {
    let drawn = rows.iter().flat_map(|(_, row)| [row.rho, row.null_mean, row.null_q95]);
    let drawn = drawn.filter(|value| value.abs() <= 1.0).chain([0.0, 1.0]);
    let (low, high) = extent(drawn).unwrap_or((0.0, 1.0));
    let x = Axis::new(low.min(-0.1), high, LEFT, RIGHT);
    let bottom = 18.0 + 2.0 * ROW;
    let mut out = format!(
        r#"<svg role="img" aria-label="Split-half rank correlations: {}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"
        height="{HEIGHT}">"#,
        rows.map(|(name, row)| format!("{name} {}", signed(row.rho, 2))).join(", ")
    );
    for (index, (name, row)) in rows.iter().enumerate() {
        let y = 18.0 + (index as f64 + 0.5) * ROW;
        put!(out, r#"<text class="axis" x="0" y="{:.1}">{}</text>"#, y + 4.0, escape(name));
        if row.null_q95.is_finite() && row.null_mean.is_finite() {
            let (from, to) = (x.at(row.null_mean), x.at(row.null_q95));
            let (from, to) = (from.min(to), from.max(to));
            let (top, wide) = (y - 6.0, (to - from).max(1.0));
            put!(out, r#"<rect class="band" x="{from:.1}" y="{top:.1}" width="{wide:.1}" height="12">"#);
            put!(out, "<title>shuffled labels: {} on average, ", signed(row.null_mean, 2));
            put!(out, "{} at 95 %</title></rect>", signed(row.null_q95, 2));
        }
        if row.rho.is_finite() {
            let at = x.at(row.rho);
            let hollow = if found(row) { "" } else { " hollow" };
            put!(out, r#"<circle class="dot one{hollow}" cx="{at:.1}" cy="{y:.1}" r="4"/>"#);
            let edge = if row.null_q95.is_finite() { at.max(x.at(row.null_q95)) } else { at };
            let (text, anchor) = if edge > RIGHT - 110.0 { (at - 9.0, "end") } else { (edge + 9.0, "start") };
            put!(out, r#"<text class="halo" text-anchor="{anchor}" x="{text:.1}" y="{:.1}">"#, y + 4.0);
            put!(out, "{}, p {}</text>", signed(row.rho, 2), p_value(row.p));
        }
    }
    out += &x.below((LEFT, RIGHT), bottom, fixed);
    put!(out, r#"<text x="{LEFT}" y="12">grey: shuffled labels, from the mean to 95 %</text>"#);
    out + "</svg>"
}

fn found(row: &Reliability) -> bool {
    (0.0..=LEVEL).contains(&row.p)
}

/// Whether either ranking is reproduced.
fn sentence(disposition: &Disposition) -> &'static str {
    let stability = &disposition.stability;
    let tested = |row: &Reliability| row.shuffles > 0 && row.p.is_finite();
    if !tested(&stability.magnitude) && !tested(&stability.directional) {
        return "There are no shuffled labels to compare with.";
    }
    if [&stability.magnitude, &stability.directional].iter().all(|row| least_p(row.shuffles) > LEVEL) {
        return "The shuffled labels are too few to tell whether either ranking comes out again.";
    }
    match (found(&stability.magnitude), found(&stability.directional)) {
        (true, true) => "Both rankings come out again in other items, more than shuffled labels would.",
        (true, false) => "The ranking by d comes out again in other items; the one by d held out does not.",
        (false, true) => "The ranking by d held out comes out again in other items; the one by d does not.",
        (false, false) => "Neither ranking comes out again in other items more than shuffled labels would.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn rankings_that_come_out_again_are_told_apart() {
        let mut disposition = fixture::disposition(&[2]);
        assert!(sentence(&disposition).starts_with("Neither"));
        assert_eq!(draw(&disposition).matches("hollow").count(), 2);
        disposition.stability.magnitude.p = 0.01;
        assert!(sentence(&disposition).starts_with("The ranking by d comes out again"));
        assert_eq!(draw(&disposition).matches("hollow").count(), 1);
        (disposition.stability.magnitude.shuffles, disposition.stability.directional.shuffles) = (18, 18);
        assert!(sentence(&disposition).contains("too few"), "1/19 is above the level");
        (disposition.stability.magnitude.p, disposition.stability.directional.p) = (f64::NAN, f64::NAN);
        assert!(sentence(&disposition).contains("no shuffled labels"));
    }

    #[test]
    fn no_correlation_no_chart() {
        let mut disposition = fixture::disposition(&[2]);
        disposition.stability.magnitude.rho = f64::NAN;
        assert_eq!(draw(&disposition).matches("<circle").count(), 1);
        disposition.stability.directional.rho = f64::NAN;
        assert!(!draw(&disposition).contains("<svg"));
    }
}
