//! The items behind the top heads: one dot per item, with the mean and its interval across them.

use crate::{
    report::{
        axis::{Axis, extent},
        text::{count, escape, fixed, put, signed},
    },
    score::{CellEffect, ScoreMap, Scores, ranked},
};

/// Heads that are drawn.
const HEADS: usize = 10;
/// Most items that are drawn; more would be a blot.
const ITEMS: usize = 400;
const LEFT: f64 = 64.0;
const WIDTH: f64 = 900.0;
const RIGHT: f64 = 30.0;
const ROW: f64 = 22.0;
const AXIS: f64 = 40.0;

/// The heads with the largest |mean Δ| at a λ, one row each.
pub(super) fn draw(scores: &Scores, map: &ScoreMap, lambda: f32) -> String {
    let heads: Vec<&CellEffect> = ranked(map, lambda).into_iter().take(HEADS).collect();
    let column = |cell: &CellEffect| {
        let place = scores.cells().position(|(at, l)| at == cell.at() && l == lambda);
        place.map_or_else(Vec::new, |place| scores.per_token(&scores.delta, place))
    };
    let columns: Vec<Vec<f64>> = heads.iter().map(|cell| column(cell)).collect();
    let drawn = scores.ids.len().min(ITEMS);
    let values = columns.iter().flat_map(|column| column[..drawn.min(column.len())].iter().copied());
    let ends = heads.iter().flat_map(|cell| [cell.low, cell.high, 0.0]);
    let Some((low, high)) = extent(values.chain(ends)) else { return String::new() };
    // So that no dot touches the name of its row.
    let pad = 0.04 * (high - low);
    let axis = Axis::new(low - pad, high + pad, LEFT, LEFT + WIDTH);
    let (width, height) = (LEFT + WIDTH + RIGHT, heads.len() as f64 * ROW + AXIS);
    let mut out = format!(
        r#"<figure><svg role="img" aria-label="Δ a token of every item, {}" viewBox="0 0 {width:.0} {height:.0}"
        width="{width:.0}" height="{height:.0}">"#,
        count(heads.len(), "head")
    );
    frame(&mut out, &axis, heads.len() as f64 * ROW);
    for (row, (cell, column)) in heads.iter().zip(&columns).enumerate() {
        let y = (row as f64 + 0.5) * ROW;
        put!(out, r#"<text class="end axis" x="{:.1}" y="{:.1}">{}</text>"#, LEFT - 10.0, y + 4.0, cell.at());
        dots(&mut out, scores, map, &column[..drawn], &axis, y);
        if cell.low.is_finite() && cell.high.is_finite() {
            let (from, to) = (axis.at(cell.low), axis.at(cell.high));
            put!(out, r#"<path class="line one" d="M{from:.1} {y:.1}H{to:.1}"/>"#);
        }
        if cell.delta.is_finite() {
            put!(out, r#"<path class="line one" d="M{:.1} {:.1}v12"/>"#, axis.at(cell.delta), y - 6.0);
        }
    }
    out.push_str("</svg>");
    put!(out, "<figcaption>{}</figcaption></figure>", caption(map, scores));
    out
}

fn frame(out: &mut String, axis: &Axis, bottom: f64) {
    let (ticks, decimals) = axis.ticks(8);
    for tick in ticks {
        let x = axis.at(tick);
        put!(out, r#"<path class="grid" d="M{x:.1} 0V{bottom:.1}"/>"#);
        put!(out, r#"<text class="mid" x="{x:.1}" y="{:.1}">{}</text>"#, bottom + 14.0, fixed(tick, decimals));
    }
    put!(out, r#"<path class="tick" d="M{:.1} 0V{bottom:.1}"/>"#, axis.at(0.0));
    put!(out, r#"<text class="axis end" x="{:.1}" y="{:.1}">Δ a token, nats →</text>"#, LEFT + WIDTH, bottom + 32.0);
}

/// A mark for each item; cohorts differ in shape, not only in colour.
fn dots(out: &mut String, scores: &Scores, map: &ScoreMap, column: &[f64], axis: &Axis, y: f64) {
    for (item, &value) in column.iter().enumerate().filter(|(_, value)| value.is_finite()) {
        let x = axis.at(value);
        let title = format!("<title>{}: {}</title>", escape(&scores.ids[item]), signed(value, 4));
        let circle = |r: f64| format!(r#"<circle class="point" cx="{x:.1}" cy="{y:.1}" r="{r}">{title}</circle>"#);
        *out += &match side(map, &scores.labels[item]) {
            Side::A => format!(r#"<path class="point over" d="M{x:.1} {:.1}l4 4l-4 4l-4 -4z">{title}</path>"#, y - 4.0),
            Side::B => circle(3.0),
            Side::Neither => circle(1.8),
        };
    }
}

/// Where an item stands in the contrast. Without one, there is nothing to be outside of.
#[derive(PartialEq)]
enum Side {
    A,
    B,
    Neither,
}

fn side(map: &ScoreMap, label: &str) -> Side {
    match &map.contrast {
        Some(contrast) if contrast.a == label => Side::A,
        Some(contrast) if contrast.b != label => Side::Neither,
        _ => Side::B,
    }
}

fn caption(map: &ScoreMap, scores: &Scores) -> String {
    let items = scores.ids.len();
    let mut out = "One mark an item; the bar is the mean, the line its 95\u{a0}% interval.".to_owned();
    if let Some(contrast) = &map.contrast {
        put!(out, " ◆ items of {}, ● of {}", escape(&contrast.a), escape(&contrast.b));
        let neither = scores.labels.iter().take(ITEMS).any(|label| side(map, label) == Side::Neither);
        out.push_str(if neither { ", smaller: of neither." } else { "." });
    }
    if items > ITEMS {
        put!(out, " The first {ITEMS} of {items} items are drawn; mean and interval are of all.");
    }
    out
}
