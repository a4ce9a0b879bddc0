//! All pairs of dispositions in a square: how alike their rankings are and, across the diagonal, their labels.

use crate::{
    attribution::{Attribution, Pair},
    report::{
        scale::{Hue, Scale},
        text::{escape, put, signed},
    },
};

/// With fewer dispositions, the table reads better.
const FEWEST: usize = 3;
const SIDE: f64 = 46.0;
const TOP: f64 = 4.0;
/// The greatest width of a character in a name.
const CHARACTER: f64 = 6.6;

/// The square; nothing for two dispositions.
pub(super) fn draw(attribution: &Attribution) -> String {
    let names: Vec<&str> = attribution.dispositions.iter().map(|one| one.name.as_str()).collect();
    if names.len() < FEWEST {
        return String::new();
    }
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(24);
    let left = longest as f64 * CHARACTER + 24.0;
    let size = names.len() as f64 * SIDE;
    let (width, height) = (left + size + 2.0, TOP + size + 22.0);
    let mut out = format!(
        r#"<figure><figcaption><b>Above the diagonal</b>: rank correlation of d. <b>Below</b>: correlation of the labels.
        <span class="key pos"></span> alike, <span class="key neg"></span> opposite.</figcaption>
        <svg role="img" aria-label="Rank correlations of d between {} dispositions, and correlations of their labels"
        viewBox="0 0 {width:.1} {height:.1}" width="{width:.0}" height="{height:.0}">"#,
        names.len()
    );
    let scale = Scale::over(Hue::Diverging, [1.0].into_iter());
    for (row, name) in names.iter().enumerate() {
        let y = TOP + (row as f64 + 0.5) * SIDE + 4.0;
        let shown: String = name.chars().take(24).collect();
        put!(out, r#"<text class="axis end" x="{:.1}" y="{y:.1}">{} {}</text>"#, left - 8.0, escape(&shown), row + 1);
        put!(
            out,
            r#"<text class="mid small" x="{:.1}" y="{:.1}">"#,
            left + (row as f64 + 0.5) * SIDE,
            TOP + size + 15.0
        );
        put!(out, "{}</text>", row + 1);
        for column in (0..names.len()).filter(|&column| column != row) {
            let at = (left + column as f64 * SIDE, TOP + row as f64 * SIDE);
            let pair = find(&attribution.across.pairs, names[row.min(column)], names[row.max(column)]);
            let value = pair.map_or(f64::NAN, |pair| if column > row { pair.rho_d } else { pair.label_correlation });
            cell(&mut out, at, &scale, value);
        }
    }
    out + "</svg></figure>"
}

fn find<'a>(pairs: &'a [Pair], one: &str, other: &str) -> Option<&'a Pair> {
    pairs.iter().find(|pair| (pair.first == one && pair.second == other) || (pair.first == other && pair.second == one))
}

fn cell(out: &mut String, (x, y): (f64, f64), scale: &Scale, value: f64) {
    let painted = scale.paint(value).map(|(class, share)| (class, share * 0.75));
    let (class, share) = painted.unwrap_or(("frame", 0.0));
    put!(out, r#"<path class="cell {class}" fill-opacity="{share:.2}" d="M{x:.1} {y:.1}h{SIDE}v{SIDE}h-{SIDE}z"/>"#);
    let (middle, base) = (x + SIDE / 2.0, y + SIDE / 2.0 + 4.0);
    put!(out, r#"<text class="axis mid" x="{middle:.1}" y="{base:.1}">{}</text>"#, signed(value, 2));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_cell_for_each_pair_on_either_side_of_the_diagonal() {
        let mut attribution = fixture::several(&[2], 4);
        let out = draw(&attribution);
        assert_eq!(out.matches(r#"class="cell"#).count(), 4 * 3);
        attribution.across.pairs.pop();
        attribution.across.pairs[0].rho_d = f64::INFINITY;
        let out = draw(&attribution);
        assert!(out.matches(">–<").count() == 2 && !out.contains("NaN"));
        assert!(draw(&fixture::several(&[2], 2)).is_empty());
    }
}
