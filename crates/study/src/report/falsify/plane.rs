//! The fresh items in the plane of their two widest directions.

use crate::{
    falsify::Plane,
    report::{
        axis::{Axis, extent},
        text::{fixed, percent, put},
    },
};

const WIDTH: f64 = 540.0;
const LEFT: f64 = 12.0;
const RIGHT: f64 = WIDTH - 8.0;
const TOP: f64 = 8.0;
/// Least and greatest height of the plot; within these, a unit is as long upwards as to the right.
const HEIGHTS: (f64, f64) = (220.0, 420.0);
const BELOW: f64 = 26.0;
/// Most items that are drawn; more would be a blot.
const ITEMS: usize = 1500;

/// The section; nothing without points.
pub(super) fn draw(plane: &Plane) -> String {
    let finite = |&((x, y), _): &((f64, f64), bool)| x.is_finite() && y.is_finite();
    let points: Vec<((f64, f64), bool)> =
        plane.points.iter().copied().zip(plane.labels.iter().copied()).filter(finite).collect();
    if points.is_empty() {
        return String::new();
    }
    // Items at regular intervals, not the first ones: files are often sorted.
    let every = points.len().div_ceil(ITEMS);
    let drawn: Vec<((f64, f64), bool)> = points.iter().copied().step_by(every).collect();
    let correct = points.iter().filter(|(_, label)| *label).count();
    let mut out = String::from(r#"<section id="plane"><h2>Where the fresh items lie</h2><div class="beside"><figure>"#);
    out += &chart(&drawn, &plane.share);
    put!(out, r#"</figure><div class="prose"><ul class="counts"><li class="m-correct"><b>{correct}</b> correct</li>"#);
    put!(out, r#"<li class="m-wrong"><b>{}</b> wrong</li></ul>"#, points.len() - correct);
    let share = |at: usize| plane.share.get(at).map_or_else(|| fixed(f64::NAN, 1), |share| percent(*share));
    put!(
        out,
        "<p>Their hidden states along the two principal components, which hold {}&#160;% and {}&#160;% of the variance.</p>
        <p>A plane shows what varies most, not what a probe reads: correct and wrong items that lie apart here differ in
        something large, such as their source or their length, and items that lie mixed may still be told apart along a
        direction of little variance.</p>",
        share(0),
        share(1)
    );
    if every > 1 {
        put!(out, r#"<p class="note">{} of {} items are drawn, one in {every}.</p>"#, drawn.len(), points.len());
    }
    out + "</div></div></section>"
}

fn chart(points: &[((f64, f64), bool)], share: &[f64]) -> String {
    let ends = |of: &dyn Fn(&(f64, f64)) -> f64| extent(points.iter().map(|(at, _)| of(at))).unwrap_or((0.0, 1.0));
    let (x, y, bottom) = axes(ends(&|at| at.0), ends(&|at| at.1));
    let height = bottom + BELOW;
    let mut out = format!(
        r#"<svg role="img" aria-label="Scatter plot of {} fresh items along their two principal components"
        viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}">"#,
        points.len()
    );
    put!(out, r#"<path class="grid" d="M{LEFT} {:.1}H{RIGHT}M{:.1} {TOP}V{bottom:.1}"/>"#, y.at(0.0), x.at(0.0));
    put!(out, r#"<path class="tick" d="M{LEFT} {TOP}V{bottom:.1}H{RIGHT}"/>"#);
    for label in [false, true] {
        for ((at_x, at_y), _) in points.iter().filter(|point| point.1 == label) {
            let (cx, cy) = (x.at(*at_x), y.at(*at_y));
            if label {
                put!(out, r#"<circle class="correct" cx="{cx:.1}" cy="{cy:.1}" r="3.6"/>"#);
            } else {
                put!(out, r#"<path class="wrong" d="M{cx:.1} {:.1}l4 4l-4 4l-4 -4z"/>"#, cy - 4.0);
            }
        }
    }
    let told = |at: usize| share.get(at).map_or_else(|| fixed(f64::NAN, 1), |share| percent(*share));
    let base = height - 6.0;
    put!(out, r#"<text class="axis end" x="{RIGHT}" y="{base:.1}">first component, {} % →</text>"#, told(0));
    put!(out, r#"<text class="axis" x="{LEFT}" y="{base:.1}">↑ second, {} %</text></svg>"#, told(1));
    out
}

/// Axes with one scale, so that distances are true, and where the lower edge is. Points that do not fill a direction are centred in it.
fn axes((x_low, x_high): (f64, f64), (y_low, y_high): (f64, f64)) -> (Axis, Axis, f64) {
    let (width, tall) = (RIGHT - LEFT, HEIGHTS.1 - TOP);
    let (x_wide, y_wide) = (1.08 * (x_high - x_low), 1.08 * (y_high - y_low));
    let unit = (x_wide / width).max(y_wide / tall);
    let height = if unit > 0.0 && unit.is_finite() { (y_wide / unit).clamp(HEIGHTS.0, tall) } else { HEIGHTS.0 };
    // Points in one place, or immeasurably far apart, get a scale for each axis.
    if !(unit > 0.0 && unit.is_finite()) {
        let bottom = TOP + height;
        return (Axis::new(x_low, x_high, LEFT, RIGHT), Axis::new(y_low, y_high, bottom, TOP), bottom);
    }
    let (x_middle, y_middle) = (f64::midpoint(x_low, x_high), f64::midpoint(y_low, y_high));
    let (x_half, y_half) = (unit * width / 2.0, unit * height / 2.0);
    let bottom = TOP + height;
    (
        Axis::new(x_middle - x_half, x_middle + x_half, LEFT, RIGHT),
        Axis::new(y_middle - y_half, y_middle + y_half, bottom, TOP),
        bottom,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_upwards_is_as_long_as_one_to_the_right() {
        for (x, y) in [((-3.0, 5.0), (-1.0, 1.0)), ((0.0, 1.0), (-30.0, 10.0)), ((-9.0, 9.0), (0.0, 0.0))] {
            let (horizontal, vertical, bottom) = axes(x, y);
            let right = horizontal.at(x.0 + 1e-3) - horizontal.at(x.0);
            let up = vertical.at(y.0) - vertical.at(y.0 + 1e-3);
            assert!((right - up).abs() < 1e-9, "{right} {up}");
            assert!((HEIGHTS.0..=HEIGHTS.1 + TOP).contains(&bottom));
        }
    }

    #[test]
    fn classes_differ_in_shape() {
        let points = (0..4000).map(|i| (f64::from(i), if i == 3 { f64::NAN } else { 1.0 })).collect();
        let plane = Plane { points, labels: (0..4000).map(|i| i % 5 == 0).collect(), share: vec![0.5] };
        let out = draw(&plane);
        let marks = out.matches("<circle").count() + out.matches(r#"class="wrong""#).count();
        assert_eq!(marks, 1333);
        assert!(out.contains("1333 of 3999 items are drawn, one in 3") && out.contains("– %"), "{out}");
        assert!(draw(&Plane::default()).is_empty());
    }
}
