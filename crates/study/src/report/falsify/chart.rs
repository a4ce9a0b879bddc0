//! What the charts of AUC have in common: the axis, chance and gates as named lines, and names on the left.

use crate::report::{
    axis::{Axis, extent},
    falsify::shortened,
    text::{fixed, put},
};

/// How wide a chart is: narrow enough for a telephone.
pub(super) const WIDTH: f64 = 540.0;
/// Names stand left of here.
pub(super) const LEFT: f64 = 128.0;
/// Where the axis ends.
pub(super) const RIGHT: f64 = WIDTH - 12.0;
/// Characters of a name that fit there.
const NAME: usize = 16;
/// Height of the row that a line's name has to itself.
const LINE: f64 = 15.0;
/// Height of the axis below the rows.
const BELOW: f64 = 42.0;
/// The AUC of a random order.
pub(super) const CHANCE: f64 = 0.5;

/// A value that others are compared with.
pub(super) struct Level {
    /// Its position on the axis.
    pub(super) value: f64,
    /// Its name.
    pub(super) name: &'static str,
    /// Whether it is a gate, or only a landmark.
    pub(super) gate: bool,
}

/// A chart of AUC without its rows.
pub(super) struct Chart {
    /// From AUC to pixels.
    pub(super) x: Axis,
    levels: Vec<(f64, String, bool)>,
    /// Where rows begin.
    pub(super) top: f64,
    bottom: f64,
}

impl Chart {
    /// A chart of these numbers, with `height` for its rows.
    pub(super) fn new(values: impl Iterator<Item = f64>, levels: Vec<Level>, height: f64) -> Self {
        let levels = merged(levels);
        let all = values.chain(levels.iter().map(|level| level.0)).chain([CHANCE]);
        let (low, high) = extent(all).unwrap_or((0.0, 1.0));
        let pad = 0.04 * (high - low).max(0.1);
        // An AUC is a share: its axis stays within 0 to 1 unless the numbers do not.
        let (from, to) = ((low - pad).max(0.0_f64.min(low)), (high + pad).min(1.0_f64.max(high)));
        let top = levels.len() as f64 * LINE + 8.0;
        Self { x: Axis::new(from, to, LEFT, RIGHT), levels, top, bottom: top + height }
    }

    /// The chart around its rows.
    pub(super) fn around(&self, label: &str, rows: &str) -> String {
        let height = self.bottom + BELOW;
        let mut out = format!(
            r#"<svg role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}">"#
        );
        self.lines(&mut out);
        out += rows;
        out += &self.x.below((LEFT, RIGHT), self.bottom, fixed);
        put!(out, r#"<text class="axis end" x="{RIGHT}" y="{:.1}">AUC →</text></svg>"#, self.bottom + 35.0);
        out
    }

    /// Lines and their names. Names stand on the side with more room, and the line furthest from them reaches highest, so that no line
    /// crosses a name.
    fn lines(&self, out: &mut String) {
        let leftwards = self.levels.last().is_some_and(|last| self.x.at(last.0) > RIGHT - 110.0);
        for (rank, (value, name, gate)) in self.levels.iter().enumerate() {
            let row = if leftwards { self.levels.len() - 1 - rank } else { rank };
            let (at, y) = (self.x.at(*value), row as f64 * LINE + 2.0);
            let class = if *gate { "level" } else { "tick" };
            put!(out, r#"<path class="{class}" d="M{at:.1} {y:.1}V{:.1}"/>"#, self.bottom);
            let (text, anchor) = if leftwards { (at - 5.0, "end") } else { (at + 5.0, "start") };
            put!(out, r#"<text class="halo" text-anchor="{anchor}" x="{text:.1}" y="{:.1}">{name}"#, y + 9.0);
            put!(out, " {}</text>", fixed(*value, 2));
        }
    }
}

/// Lines from left to right; lines in the same place become one line with both names.
fn merged(levels: Vec<Level>) -> Vec<(f64, String, bool)> {
    let mut levels: Vec<Level> = levels.into_iter().filter(|level| level.value.is_finite()).collect();
    levels.sort_by(|one, other| one.value.total_cmp(&other.value));
    let mut out: Vec<(f64, String, bool)> = Vec::new();
    for level in levels {
        match out.last_mut().filter(|last| last.0 == level.value) {
            Some(last) => {
                last.1 = format!("{} and {}", last.1, level.name);
                last.2 |= level.gate;
            }
            None => out.push((level.value, level.name.to_owned(), level.gate)),
        }
    }
    out
}

/// A name on the left, cut off if it is too long.
pub(super) fn name(out: &mut String, text: &str, y: f64) {
    put!(out, r#"<text class="axis end" x="{:.1}" y="{y:.1}">{}</text>"#, LEFT - 12.0, shortened(text, NAME));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(value: f64, name: &'static str) -> Level {
        Level { value, name, gate: true }
    }

    #[test]
    fn lines_in_one_place_are_one() {
        let levels = vec![level(0.65, "a"), level(0.5, "b"), level(0.65, "c"), level(f64::NAN, "d")];
        let found = merged(levels);
        assert_eq!(found, [(0.5, "b".to_owned(), true), (0.65, "a and c".to_owned(), true)]);
    }

    #[test]
    fn names_turn_where_there_is_no_room() {
        let drawn = |value: f64| Chart::new([0.4].into_iter(), vec![level(value, "gate")], 10.0).around("x", "");
        assert!(drawn(0.99).contains(r#"text-anchor="end""#) && drawn(0.41).contains(r#"text-anchor="start""#));
    }
}
