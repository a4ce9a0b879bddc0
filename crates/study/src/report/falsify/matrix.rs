//! All pairs of scores in a triangle: how alike their out-of-fold predictions are.

use std::collections::BTreeMap;

use crate::{
    falsify::{Axis, AxisPair},
    report::{
        falsify::{axes::short, shortened},
        scale::{Hue, Scale},
        text::{escape, put, signed},
    },
};

/// How many axes are drawn: fewer are told in a sentence, and more would be a blot.
const AXES: std::ops::RangeInclusive<usize> = 3..=40;
/// The width from which on a cell can hold its number.
const NUMBERED: f64 = 34.0;
const LARGEST: f64 = 44.0;
const WIDTH: f64 = 300.0;
/// Names stand left of here.
const LEFT: f64 = 122.0;
const NAME: usize = 15;

/// The triangle; nothing for two scores, or for very many.
pub(super) fn draw(axes: &[Axis], pairs: &[AxisPair]) -> String {
    if !AXES.contains(&axes.len()) {
        return String::new();
    }
    // The last score has no column, and the first no row, but both are numbered.
    let side = (WIDTH / (axes.len() - 1) as f64).min(LARGEST);
    let size = (axes.len() - 1) as f64 * side;
    let (width, height) = (LEFT + size + 10.0, 2.0 + size + side + 20.0);
    let mut out = format!(
        r#"<figure class="snug"><figcaption><b>Correlation of predictions</b>, out of fold. <span class="key pos"></span> alike,
        <span class="key neg"></span> opposite. Outlined: as one.</figcaption><svg role="img"
        aria-label="Correlations between the out-of-fold predictions of {} scores" viewBox="0 0 {width:.0} {height:.0}"
        width="{width:.0}" height="{height:.0}">"#,
        axes.len()
    );
    let of_pair: BTreeMap<(&str, &str), &AxisPair> =
        pairs.iter().map(|pair| ((pair.a.as_str(), pair.b.as_str()), pair)).collect();
    let scale = Scale::over(Hue::Diverging, [1.0].into_iter());
    let mut outlines = String::new();
    for (row, axis) in axes.iter().enumerate() {
        let y = 2.0 + row as f64 * side;
        let text = format!("{} {}", shortened(short(&axis.name), NAME), row + 1);
        put!(out, r#"<text class="axis end" x="{:.1}" y="{:.1}">{text}</text>"#, LEFT - 8.0, y + side / 2.0 + 4.0);
        for (column, other) in axes[..row].iter().enumerate() {
            let pair = of_pair.get(&(other.name.as_str(), axis.name.as_str())).copied();
            let pair = pair.or_else(|| of_pair.get(&(axis.name.as_str(), other.name.as_str())).copied());
            let at = (LEFT + column as f64 * side, y);
            cell(&mut out, at, side, &scale, pair);
            if pair.is_some_and(|pair| pair.flagged) {
                put!(
                    outlines,
                    r#"<path class="outline" d="M{:.1} {:.1}h{side:.1}v{side:.1}h-{side:.1}z"/>"#,
                    at.0,
                    at.1
                );
            }
        }
        if row + 1 < axes.len() {
            let x = LEFT + (row as f64 + 0.5) * side;
            put!(out, r#"<text class="mid small" x="{x:.1}" y="{:.1}">{}</text>"#, height - 6.0, row + 1);
        }
    }
    out + &outlines + "</svg></figure>"
}

fn cell(out: &mut String, (x, y): (f64, f64), side: f64, scale: &Scale, pair: Option<&AxisPair>) {
    let r = pair.map_or(f64::NAN, |pair| pair.r);
    let painted = scale.paint(r).map(|(class, share)| (class, share * 0.75));
    let (class, share) = painted.unwrap_or(("frame", 0.0));
    put!(
        out,
        r#"<path class="cell {class}" fill-opacity="{share:.2}" d="M{x:.1} {y:.1}h{side:.1}v{side:.1}h-{side:.1}z">"#
    );
    if let Some(pair) = pair {
        let (a, b) = (escape(&pair.a), escape(&pair.b));
        put!(out, "<title>{a} and {b}: r {} over {} items</title>", signed(r, 2), pair.items);
    }
    out.push_str("</path>");
    if side >= NUMBERED {
        let (middle, base) = (x + side / 2.0, y + side / 2.0 + 4.0);
        put!(out, r#"<text class="axis mid" x="{middle:.1}" y="{base:.1}">{}</text>"#, signed(r, 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::falsify::fixture;

    #[test]
    fn a_cell_for_each_pair() {
        for (axes, numbered) in [(3, true), (5, true), (20, false)] {
            let mut found = fixture::whole(axes);
            let out = draw(&found.axes, &found.axis_pairs);
            assert_eq!(out.matches(r#"class="cell"#).count(), axes * (axes - 1) / 2);
            assert_eq!(out.matches(r#"class="outline""#).count(), 1);
            assert_eq!(out.contains("axis mid"), numbered);
            found.axis_pairs.clear();
            assert!(!draw(&found.axes, &found.axis_pairs).contains("NaN"));
        }
        let found = fixture::whole(2);
        assert!(draw(&found.axes, &found.axis_pairs).is_empty());
    }
}
