//! Heat maps of layers by heads, as inline SVG.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_hook::HeadKind;

use crate::{
    attribution::{Attribution, Disposition, HeadEffect},
    report::{
        legend::{self, Legend},
        measure::Measure,
        text::{count, put},
        verdict::stands_out,
    },
};

/// Two maps of up to this many layers stand side by side; deeper models get the full width of the page.
const SIDE_BY_SIDE: usize = 48;
const LEFT: f64 = 26.0;
const RIGHT: f64 = 14.0;
/// Room for the word above the heads' numbers.
const TOP: f64 = 19.0;
const AXIS: f64 = 36.0;

/// A heat map: one cell per head, layers from left to right, heads from top to bottom.
pub(super) struct HeatMap<'a> {
    /// What it shows, for those who cannot see it.
    pub(super) what: &'a str,
    /// How many heads each layer has.
    pub(super) columns: &'a [usize],
    /// Layers that are gated delta nets: underlined.
    pub(super) delta_nets: &'a BTreeSet<usize>,
    /// The colours.
    pub(super) legend: &'a Legend,
    /// The cell of a layer and head; none if it was not measured.
    pub(super) cell: &'a dyn Fn(usize, usize) -> Option<Cell>,
}

/// One head of a heat map.
pub(super) struct Cell {
    /// Its number.
    pub(super) value: f64,
    /// What hovering it shows; escaped, and empty where another map shows it.
    pub(super) tip: String,
    /// Whether it exceeds its null.
    pub(super) outlined: bool,
}

/// Draws one number of every head of a disposition, with its legend.
pub(super) fn draw(attribution: &Attribution, disposition: &Disposition, measure: Measure) -> String {
    let effects: BTreeMap<_, _> =
        disposition.heads.iter().map(|effect| ((effect.layer, effect.head), effect)).collect();
    let cell = |layer: usize, head: usize| {
        let effect = effects.get(&(layer, head))?;
        // On a scale of q itself, an outline would only repeat the colour, in ink on ink.
        let outlined = measure.is_size() && stands_out(effect, measure.question());
        Some(Cell { value: measure.of(effect), tip: measure.tip(effect), outlined })
    };
    let map = HeatMap {
        what: measure.name(),
        columns: &attribution.heads_per_layer,
        delta_nets: &delta_nets(disposition),
        legend: &measure.legend(disposition),
        cell: &cell,
    };
    map.draw()
}

impl HeatMap<'_> {
    /// The map and its legend, as SVG.
    pub(super) fn draw(&self) -> String {
        let columns = self.columns;
        let width = if columns.len() <= SIDE_BY_SIDE { 464.0 } else { 1010.0 };
        let side = ((width / columns.len().max(1) as f64) * 2.0).floor().clamp(8.0, 40.0) / 2.0;
        let rows = columns.iter().copied().max().unwrap_or(0);
        let grid_height = rows as f64 * side;
        let grid_width = columns.len() as f64 * side;
        let width = if grid_width > 0.7 * width { grid_width } else { width };
        let (full, height) = (LEFT + width + RIGHT, TOP + grid_height + AXIS + legend::HEIGHT);
        let mut out = format!(
            r#"<svg role="img" aria-label="Heat map of {}, {} by {}" viewBox="0 0 {full:.1} {height:.1}"
            width="{full:.0}" height="{height:.0}">"#,
            self.what,
            count(columns.len(), "layer"),
            count(rows, "head")
        );
        put!(out, r#"<g transform="translate({LEFT} {TOP})">"#);
        self.cells(&mut out, side);
        axes(&mut out, columns.len(), rows, side);
        for &layer in self.delta_nets {
            let (x, y) = (layer as f64 * side + 1.0, grid_height + 1.5);
            put!(
                out,
                r#"<path class="delta" stroke="currentColor" stroke-width="1.5" d="M{x:.1} {y:.1}h{:.1}"/>"#,
                side - 2.0
            );
        }
        out.push_str("</g>");
        out += &legend::draw(self.legend, LEFT, TOP + grid_height + AXIS, width);
        out.push_str("</svg>");
        out
    }

    fn cells(&self, out: &mut String, side: f64) {
        let rows = self.columns.iter().copied().max().unwrap_or(0);
        let mut outlines = String::new();
        // Cells without a tip are drawn as one path per colour.
        let mut silent: BTreeMap<String, String> = BTreeMap::new();
        for (layer, &heads) in self.columns.iter().enumerate() {
            let x = layer as f64 * side;
            if heads == 0 {
                let middle = x + side / 2.0;
                put!(out, r#"<path class="none" d="M{middle:.1} 0V{:.1}">"#, rows as f64 * side);
                put!(out, "<title>layer {layer}: no heads</title></path>");
            }
            for head in 0..heads {
                let y = head as f64 * side;
                let cell = (self.cell)(layer, head);
                let painted = cell.as_ref().and_then(|cell| Some((self.legend.scale.paint(cell.value)?, cell)));
                let Some(((class, opacity), cell)) = painted else {
                    undefined(out, (layer, head), side, cell.map(|cell| cell.tip));
                    continue;
                };
                // A path takes half the bytes of a rect, and there are thousands.
                let square = format!("M{x} {y}h{side}v{side}H{x}z");
                let paint = format!(r#"{class}" fill-opacity="{opacity:.2}""#);
                if cell.tip.is_empty() {
                    *silent.entry(paint).or_default() += &square;
                } else {
                    put!(out, r#"<path class="cell {paint} d="{square}"><title>{}</title></path>"#, cell.tip);
                }
                if cell.outlined {
                    outlines += &square;
                }
            }
        }
        for (paint, squares) in silent {
            put!(out, r#"<path class="cell {paint} pointer-events="none" d="{squares}"/>"#);
        }
        if !outlines.is_empty() {
            put!(out, r#"<path class="outline" d="{outlines}"/>"#);
        }
    }
}

/// Heads that the geometry has no place for: they are in the table, and the caption says that they are not drawn.
pub(super) fn outside(attribution: &Attribution, disposition: &Disposition) -> usize {
    let drawn =
        |effect: &&HeadEffect| attribution.heads_per_layer.get(effect.layer).is_some_and(|&heads| effect.head < heads);
    disposition.heads.len() - disposition.heads.iter().filter(drawn).count()
}

/// The layers whose heads are the value heads of a gated delta net.
pub(super) fn delta_nets(disposition: &Disposition) -> BTreeSet<usize> {
    let values = disposition.heads.iter().map(HeadEffect::at).filter(|at| at.kind == HeadKind::Value);
    values.map(|at| at.layer).collect()
}

/// A cell without a number: no colour, struck through.
fn undefined(out: &mut String, (layer, head): (usize, usize), side: f64, tip: Option<String>) {
    let (x, y) = (layer as f64 * side, head as f64 * side);
    let tip = tip.unwrap_or_else(|| format!("L{layer}H{head}: not measured"));
    put!(out, r#"<g class="undefined"><rect class="cell" x="{x:.1}" y="{y:.1}" width="{side}" height="{side}"/>"#);
    let stroke = side - 4.0;
    put!(out, r#"<path d="M{:.1} {:.1}l{stroke} -{stroke}"/><title>{tip}</title></g>"#, x + 2.0, y + side - 2.0);
}

fn axes(out: &mut String, layers: usize, rows: usize, side: f64) {
    let bottom = rows as f64 * side;
    for layer in (0..layers).step_by(label_step(side, 21.0)) {
        let x = (layer as f64 + 0.5) * side;
        put!(out, r#"<text class="mid" x="{x:.1}" y="{:.1}">{layer}</text>"#, bottom + 13.0);
    }
    for head in (0..rows).step_by(label_step(side, 12.0)) {
        let y = (head as f64 + 0.5) * side + 3.5;
        put!(out, r#"<text class="end" x="-6" y="{y:.1}">{head}</text>"#);
    }
    axis_names(out, LEFT, bottom + 28.5);
}

/// What the numbers below and beside the cells of a map count.
pub(super) fn axis_names(out: &mut String, left: f64, below: f64) {
    put!(
        out,
        r#"<text class="axis" x="-{left}" y="-7">head ↓</text><text class="axis" x="0" y="{below:.1}">layer →</text>"#
    );
}

/// At every how many cells a label that needs `room` pixels fits.
fn label_step(side: f64, room: f64) -> usize {
    [1, 2, 4, 5, 8].into_iter().find(|&step| step as f64 * side >= room).unwrap_or(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn ragged_layers_have_their_own_number_of_cells() {
        let attribution = fixture::attribution(&[3, 0, 1, 2]);
        let map = draw(&attribution, &attribution.dispositions[0], Measure::Magnitude);
        assert_eq!(map.matches(r#"class="cell"#).count(), 6);
        assert!(map.contains("layer 1: no heads"));
    }

    #[test]
    fn delta_nets_are_underlined() {
        let mut attribution = fixture::attribution(&[2, 2, 2]);
        for effect in attribution.dispositions[0].heads.iter_mut().filter(|effect| effect.layer != 1) {
            effect.kind = HeadKind::Value;
        }
        let map = draw(&attribution, &attribution.dispositions[0], Measure::Magnitude);
        assert_eq!(map.matches(r#"class="delta""#).count(), 2);
        assert!(map.contains("L0V1") && map.contains("L1H0") && !map.contains("L2H0"));
    }

    #[test]
    fn what_is_undefined_or_missing_has_no_colour() {
        let mut attribution = fixture::attribution(&[3]);
        let heads = &mut attribution.dispositions[0].heads;
        heads[0].magnitude.cohen_d = f64::NAN;
        heads.truncate(2);
        let map = draw(&attribution, &attribution.dispositions[0], Measure::Magnitude);
        assert_eq!(map.matches(r#"<g class="undefined">"#).count(), 2);
        assert!(map.contains("L0H2: not measured") && map.contains("L0H0: d –"));
        assert!(!map.contains("NaN"));
    }

    #[test]
    fn a_model_without_heads_is_an_empty_map() {
        let attribution = fixture::attribution(&[]);
        let map = draw(&attribution, &attribution.dispositions[0], Measure::HeldOut);
        assert!(!map.contains("NaN") && !map.contains("inf"), "{map}");
    }

    #[test]
    fn heads_beyond_the_geometry_are_counted() {
        let mut attribution = fixture::attribution(&[2]);
        attribution.dispositions[0].heads[1].head = 9;
        assert_eq!(outside(&attribution, &attribution.dispositions[0]), 1);
    }
}
