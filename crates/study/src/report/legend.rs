//! The colour legend of a heat map: the scale, a histogram of the heads above it, and the shuffled-label levels.

use crate::report::{
    axis::Axis,
    scale::Scale,
    text::{fixed, put},
};

/// A colour scale, and what is marked on it.
pub(super) struct Legend {
    /// What the numbers are, with their unit.
    pub(super) title: &'static str,
    /// The colours.
    pub(super) scale: Scale,
    /// The numbers of all heads.
    pub(super) values: Vec<f64>,
    /// What the same computation gives without signal, from the smallest to the largest.
    pub(super) levels: Vec<Level>,
    /// The range of nine in ten heads without signal, if that is a range and not a level.
    pub(super) band: Option<(f64, f64)>,
    /// The text shown if there is no level.
    pub(super) unlevelled: &'static str,
}

/// What the same computation gives under shuffled labels: one mark on the legend.
pub(super) struct Level {
    /// Its position on the scale.
    pub(super) value: f64,
    /// What it says.
    pub(super) label: String,
    /// Whether it is also on the other side of zero.
    pub(super) mirrored: bool,
}

/// How high a legend is.
pub(super) const HEIGHT: f64 = ROWS as f64 * ROW + 87.0;

const ROW: f64 = 15.0;
/// How many levels have a row above the histogram.
const ROWS: usize = 3;
const HISTOGRAM_TOP: f64 = ROWS as f64 * ROW + 4.0;
const HISTOGRAM_HEIGHT: f64 = 34.0;
const BAR_TOP: f64 = HISTOGRAM_TOP + HISTOGRAM_HEIGHT + 1.0;
const BAR_HEIGHT: f64 = 8.0;
const BINS: usize = 60;

/// Draws the legend with its top left corner at `left`, `top`.
pub(super) fn draw(legend: &Legend, left: f64, top: f64, width: f64) -> String {
    let (low, high) = legend.scale.range();
    let axis = Axis::new(low, high, 0.0, width);
    let mut out = format!(r#"<g transform="translate({left:.1} {top:.1})">"#);
    if let Some((low, high)) = legend.band.filter(|(low, high)| low.is_finite() && high.is_finite()) {
        let (x, wide) = (axis.at(low), (axis.at(high) - axis.at(low)).max(1.0));
        put!(
            out,
            r#"<rect class="band" x="{x:.1}" y="{HISTOGRAM_TOP}" width="{wide:.1}" height="{HISTOGRAM_HEIGHT}"/>"#
        );
    }
    histogram(&mut out, &legend.values, &axis, width);
    bar(&mut out, &legend.scale, &axis, width);
    marks(&mut out, legend, &axis, width);
    put!(
        out,
        r#"<text class="axis end" x="{width:.1}" y="{:.1}">{} →</text></g>"#,
        BAR_TOP + BAR_HEIGHT + 31.0,
        legend.title
    );
    out
}

/// How many heads fall into each sixtieth of the scale.
fn histogram(out: &mut String, values: &[f64], axis: &Axis, width: f64) {
    let mut bins = [0usize; BINS];
    for &value in values.iter().filter(|value| value.is_finite()) {
        bins[((axis.at(value) / width * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let fullest = bins.iter().copied().max().unwrap_or(0).max(1);
    let step = width / BINS as f64;
    for (bin, &n) in bins.iter().enumerate().filter(|(_, n)| **n > 0) {
        let height = (n as f64 / fullest as f64 * HISTOGRAM_HEIGHT).max(1.5);
        let (x, y) = (bin as f64 * step, HISTOGRAM_TOP + HISTOGRAM_HEIGHT - height);
        put!(
            out,
            r#"<rect class="bin" x="{:.1}" y="{y:.1}" width="{:.1}" height="{height:.1}"/>"#,
            x + 0.5,
            step - 1.0
        );
    }
}

/// The colours, in steps fine enough to read as continuous, and round numbers below them.
fn bar(out: &mut String, scale: &Scale, axis: &Axis, width: f64) {
    let step = width / BINS as f64;
    let (low, high) = scale.range();
    for bin in 0..BINS {
        let value = low + (bin as f64 + 0.5) / BINS as f64 * (high - low);
        if let Some((class, opacity)) = scale.paint(value) {
            put!(
                out,
                r#"<rect class="{class}" fill-opacity="{opacity:.2}" x="{:.1}" y="{BAR_TOP}" width="{step:.1}" height="{BAR_HEIGHT}"/>"#,
                bin as f64 * step
            );
        }
    }
    put!(out, r#"<rect class="frame" x="0" y="{BAR_TOP}" width="{width:.1}" height="{BAR_HEIGHT}"/>"#);
    let (ticks, decimals) = axis.ticks(8);
    for tick in ticks {
        let (x, y) = (axis.at(tick), BAR_TOP + BAR_HEIGHT);
        put!(out, r#"<path class="tick" d="M{x:.1} {y}v4"/>"#);
        put!(out, r#"<text class="mid" x="{x:.1}" y="{:.1}">{}</text>"#, y + 16.0, fixed(tick, decimals));
    }
}

/// Lines at the shuffled-label levels, on both sides of a diverging scale, each with a text in a row of its own.
///
/// Texts stand on the side with more room; the line furthest from them reaches highest, so that no line crosses a text.
fn marks(out: &mut String, legend: &Legend, axis: &Axis, width: f64) {
    let levels = &legend.levels;
    let Some(last) = levels.last() else {
        put!(out, r#"<text class="note" x="0" y="{:.1}">{}</text>"#, 2.0 * ROW, legend.unlevelled);
        return;
    };
    let leftwards = axis.at(last.value) > 0.62 * width;
    for (rank, level) in levels.iter().enumerate() {
        let row = if leftwards { levels.len() - 1 - rank } else { rank };
        // The last row is next to the histogram, however many there are.
        let row = row + ROWS.saturating_sub(levels.len());
        let (x, y) = (axis.at(level.value), row as f64 * ROW + 2.0);
        let class = if rank + 1 == levels.len() { "level" } else { "level minor" };
        let bottom = BAR_TOP + BAR_HEIGHT;
        put!(out, r#"<path class="{class}" d="M{x:.1} {y:.1}V{bottom}"/>"#);
        if level.mirrored {
            put!(out, r#"<path class="{class}" d="M{:.1} {HISTOGRAM_TOP}V{bottom}"/>"#, axis.at(-level.value));
        }
        let (x, anchor) = if leftwards { (x - 4.0, "end") } else { (x + 4.0, "start") };
        put!(out, r#"<text class="halo" text-anchor="{anchor}" x="{x:.1}" y="{:.1}">{}</text>"#, y + 8.5, level.label);
    }
}
