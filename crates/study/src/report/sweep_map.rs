//! A sweep over single heads as a heat map: what tempering each head alone does to an outcome.

use std::collections::BTreeMap;

use headtemper_hook::Positions;

use crate::{
    Role,
    report::{
        axis::round_up,
        heatmap::axis_names,
        sweep::lambda,
        sweep_chart::{names, told},
        text::{fixed, p_value, put},
    },
    significance::LEVEL,
    sweep::{
        compared::Compared,
        outcome::{ArmOutcome, Difference, Outcomes},
        reading::in_units,
    },
};

const LEFT: f64 = 26.0;
const TOP: f64 = 19.0;
const AXIS: f64 = 34.0;
/// With fewer heads, the table reads better.
const FEWEST: usize = 8;

/// The maps of one outcome, one per λ and positions; nothing unless every set is one head and there are enough of them.
pub(super) fn draw(outcomes: &Outcomes, heads_per_layer: &[usize], which: Compared<'_>) -> String {
    if outcomes.tables.len() < FEWEST || outcomes.tables.iter().any(|table| table.heads.len() != 1) {
        return String::new();
    }
    let arms = || outcomes.arms().filter(|(_, arm)| arm.role == Role::Tempered);
    let size = |arm: &ArmOutcome| arm.difference.of(which).map_or(0.0, |d| in_units(which, d.mean).abs());
    let limit = round_up(arms().map(|(_, arm)| size(arm)).filter(|size| size.is_finite()).fold(0.0, f64::max));
    let places = arms().map(|(table, arm)| (table.positions, arm.lambda));
    let mut places: Vec<(Positions, f64)> = places.filter(|(_, lambda)| lambda.is_finite()).collect();
    places.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.total_cmp(&one.1)));
    places.dedup();
    let (title, unit) = names(which);
    let mut out = String::from(r#"<div class="maps">"#);
    for (positions, at) in places {
        let cells: BTreeMap<(usize, usize), &ArmOutcome> = arms()
            .filter(|(table, arm)| arm.lambda == at && table.positions == positions)
            .map(|(table, arm)| ((table.heads[0].layer, table.heads[0].head), arm))
            .collect();
        put!(
            out,
            r#"<figure><figcaption><b>{title} at λ = {}{}</b>, difference in {unit}. <span class="key pos"></span> up,
            <span class="key neg"></span> down; full colour is ±{}. Outlined: p max at most 0.05.</figcaption>{}</figure>"#,
            lambda(at),
            if outcomes.in_places() { format!(" at {positions}") } else { String::new() },
            fixed(limit, usize::from(limit < 10.0)),
            map(&cells, heads_per_layer, (which, limit))
        );
    }
    out + "</div>"
}

fn map(
    cells: &BTreeMap<(usize, usize), &ArmOutcome>,
    heads_per_layer: &[usize],
    (which, limit): (Compared<'_>, f64),
) -> String {
    let rows = heads_per_layer.iter().copied().max().unwrap_or(0);
    let side = (464.0 / heads_per_layer.len().max(1) as f64 * 2.0).floor().clamp(12.0, 40.0) / 2.0;
    let (width, bottom) = (heads_per_layer.len() as f64 * side, rows as f64 * side);
    let (full, height) = (LEFT + width.max(150.0) + 4.0, TOP + bottom + AXIS);
    let mut out = format!(
        r#"<svg role="img" aria-label="Heat map of {} by head" viewBox="0 0 {full:.1} {height:.1}" width="{full:.0}"
        height="{height:.0}"><g transform="translate({LEFT} {TOP})">"#,
        names(which).0
    );
    let mut outlines = String::new();
    for (layer, &heads) in heads_per_layer.iter().enumerate() {
        for head in 0..heads {
            let (x, y) = (layer as f64 * side, head as f64 * side);
            let arm = cells.get(&(layer, head));
            let found = arm.and_then(|arm| arm.difference.of(which)).filter(|d| d.mean.is_finite());
            let at = format!(r#"x="{x:.1}" y="{y:.1}" width="{side}" height="{side}""#);
            let Some(d) = found else {
                let why = if arm.is_some_and(|arm| arm.withholds(which)) { "not compared" } else { "not swept" };
                let (from, stroke) = (y + side - 2.0, side - 4.0);
                put!(out, r#"<g class="undefined"><rect class="cell" {at}/><path d="M{:.1} {from:.1}"#, x + 2.0);
                put!(out, r#"l{stroke} -{stroke}"/><title>layer {layer}, head {head}: {why}</title></g>"#);
                continue;
            };
            let size = in_units(which, d.mean);
            let (class, share) = (if size < 0.0 { "neg" } else { "pos" }, (size.abs() / limit).clamp(0.0, 1.0));
            put!(
                out,
                r#"<rect class="cell {class}" fill-opacity="{share:.2}" {at}><title>{}</title></rect>"#,
                tip((layer, head), which, d)
            );
            if d.p_max.is_some_and(|p| p <= LEVEL) {
                put!(outlines, r#"<rect class="outline" {at}/>"#);
            }
        }
    }
    out += &outlines;
    for layer in (0..heads_per_layer.len()).step_by(if side < 21.0 { 2 } else { 1 }) {
        let x = (layer as f64 + 0.5) * side;
        put!(out, r#"<text class="mid" x="{x:.1}" y="{:.1}">{layer}</text>"#, bottom + 13.0);
    }
    for head in 0..rows {
        put!(out, r#"<text class="end" x="-6" y="{:.1}">{head}</text>"#, (head as f64 + 0.5) * side + 3.5);
    }
    axis_names(&mut out, LEFT, bottom + 27.0);
    out + "</g></svg>"
}

fn tip((layer, head): (usize, usize), which: Compared<'_>, d: &Difference) -> String {
    let told = told(which, d.mean);
    let p_max = p_value(d.p_max.unwrap_or(f64::NAN));
    format!("layer {layer}, head {head}: {told}, p {}, p max {p_max}", p_value(d.p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::fixture, sweep::outcome::SweepTable};

    #[test]
    fn every_head_has_a_cell() {
        let outcomes = fixture::single_heads(&[4, 0, 5]);
        let out = draw(&outcomes, &[4, 0, 5], Compared::MeanTokens);
        assert_eq!(out.matches("<figure>").count(), 1);
        assert_eq!(out.matches(r#"class="cell"#).count(), 9);
        assert_eq!(out.matches(r#"class="undefined""#).count(), 1, "the arm that is not compared");
        assert_eq!(out.matches(r#"class="outline""#).count(), 1);
        let mut twice = outcomes.clone();
        for table in &outcomes.tables {
            twice.tables.push(SweepTable { positions: Positions::Response, ..table.clone() });
        }
        let out = draw(&twice, &[4, 0, 5], Compared::MeanTokens);
        assert_eq!((out.matches("<figure>").count(), out.matches(" at response</b>").count()), (2, 1));
        assert_eq!(out.matches(r#"class="outline""#).count(), 2, "neither hides the other");
        assert!(draw(&fixture::sweep(), &[4, 4], Compared::MeanTokens).is_empty(), "sets are no map");
        assert!(draw(&fixture::single_heads(&[3]), &[3], Compared::MeanTokens).is_empty(), "too few");
    }
}
