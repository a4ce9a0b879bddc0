//! The heat maps: mean Δ and KL at a λ, and the contrast of two cohorts.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_hook::{HeadKind, HeadRef};

use crate::{
    report::{
        heatmap::{Cell, HeatMap},
        legend::{Legend, Level},
        scale::{Hue, Scale},
        score::sentence::called,
        text::{escape, fixed, p_value, put, signed},
    },
    score::{CellEffect, Contrast, ScoreMap},
};

/// Both maps of a λ; their colours are the same at every λ.
pub(super) fn effects(map: &ScoreMap, lambda: f32) -> String {
    let cells: BTreeMap<_, _> =
        map.cells.iter().filter(|cell| cell.lambda == lambda).map(|cell| ((cell.layer, cell.head), cell)).collect();
    let delta = Legend {
        title: "mean Δ a token, nats",
        scale: Scale::rooted(Hue::Diverging, map.cells.iter().map(|cell| cell.delta)),
        values: cells.values().map(|cell| cell.delta).collect(),
        levels: Vec::new(),
        band: None,
        unlevelled: if map.flips.count == 0 {
            "no sign was flipped: nothing to compare with"
        } else {
            "outlined in the map: p max at most 0.05"
        },
    };
    let kl = Legend {
        title: "KL a token, nats",
        scale: Scale::rooted(Hue::Sequential, map.cells.iter().map(|cell| cell.kl)),
        values: cells.values().map(|cell| cell.kl).collect(),
        levels: Vec::new(),
        band: None,
        unlevelled: "never below 0, and above it for any change: not tested",
    };
    let draw = |what, legend: &Legend, value: fn(&CellEffect) -> f64, outline: bool| {
        let cell = |layer: usize, head: usize| {
            let cell = *cells.get(&(layer, head))?;
            let tip = format!(
                "{}: mean Δ {} [{}, {}], p max {}, KL {}, agreement {} %",
                cell.at(),
                signed(cell.delta, 4),
                signed(cell.low, 4),
                signed(cell.high, 4),
                p_value(cell.p_max),
                fixed(cell.kl, 4),
                fixed(cell.agreement * 100.0, 1)
            );
            Some(Cell { value: value(cell), tip, outlined: outline && called(cell.p_max) })
        };
        let delta_nets = &delta_nets(map.cells.iter().map(CellEffect::at));
        HeatMap { what, columns: &map.heads_per_layer, delta_nets, legend, cell: &cell }.draw()
    };
    format!(
        r#"<div class="maps"><figure><figcaption><b>Mean Δ log-probability</b>, nats a token.
        <span class="key neg"></span> responses less probable, <span class="key pos"></span> more probable than
        untempered. Outlined: p max at most 0.05.{}</figcaption>{}</figure>
        <figure><figcaption><b>KL(untempered || tempered)</b>, nats a token: how far the next-token distributions move,
        whatever the response says.</figcaption>{}</figure></div><p class="note">Colour grows with the square root, and
        is the same at every λ. Above each scale: how many heads lie where.</p>"#,
        remarks(map, lambda),
        draw("mean Δ log-probability a token", &delta, |cell| cell.delta, true),
        draw("KL a token", &kl, |cell| cell.kl, false)
    )
}

/// What the marks of a map mean, if they occur.
fn remarks(map: &ScoreMap, lambda: f32) -> String {
    let mut out = String::new();
    if map.heads_at(lambda) < map.heads_per_layer.iter().sum() {
        out.push_str(" Struck through: not scored.");
    }
    if map.heads_per_layer.contains(&0) {
        out.push_str(" Hairlines: layers without heads.");
    }
    if !delta_nets(map.cells.iter().map(CellEffect::at)).is_empty() {
        out.push_str(" Underlined: gated delta nets, whose value heads are written V.");
    }
    out
}

fn delta_nets(heads: impl Iterator<Item = HeadRef>) -> BTreeSet<usize> {
    heads.filter(|at| at.kind == HeadKind::Value).map(|at| at.layer).collect()
}

/// The map of a contrast at a λ; its colours are the same at every λ.
pub(super) fn contrast(map: &ScoreMap, contrast: &Contrast, lambda: f32) -> String {
    let here = contrast.cells.iter().filter(|cell| cell.lambda == lambda);
    let cells: BTreeMap<_, _> = here.map(|cell| ((cell.layer, cell.head), cell)).collect();
    let levels = [(contrast.max_abs_d_mean, "mean"), (contrast.max_abs_d_q95, "95\u{a0}%")];
    let levels = levels.into_iter().filter(|(value, _)| contrast.has_level() && value.is_finite());
    let levels: Vec<Level> = levels
        .map(|(value, name)| Level { value, label: format!("largest |d|, {name} {}", fixed(value, 2)), mirrored: true })
        .collect();
    let all = contrast.cells.iter().map(|cell| cell.cohen_d);
    let legend = Legend {
        title: "d of Δ a token",
        scale: Scale::over(Hue::Diverging, all.chain(levels.iter().map(|level| level.value))),
        values: cells.values().map(|cell| cell.cohen_d).collect(),
        levels,
        band: None,
        unlevelled: if contrast.shuffles == 0 {
            "labels were not shuffled: no level to compare with"
        } else {
            "no level: p, which is of d over another spread, says otherwise"
        },
    };
    let cell = |layer: usize, head: usize| {
        let cell = *cells.get(&(layer, head))?;
        let ends = (signed(cell.d_low, 2), signed(cell.d_high, 2));
        let mut tip = format!("{}: d {} [{}, {}]", cell.at(), signed(cell.cohen_d, 2), ends.0, ends.1);
        put!(tip, ", p {}, p max {}", p_value(cell.p), p_value(cell.p_max));
        Some(Cell { value: cell.cohen_d, tip, outlined: called(cell.p_max) })
    };
    let drawn = HeatMap {
        what: "Cohen's d of Δ a token",
        columns: &map.heads_per_layer,
        delta_nets: &delta_nets(map.cells.iter().map(CellEffect::at)),
        legend: &legend,
        cell: &cell,
    };
    format!(
        r#"<figure><figcaption><b>Cohen's d of Δ a token</b>. <span class="key pos"></span> higher in {},
        <span class="key neg"></span> higher in {}. Outlined: p max at most 0.05. Dashed: what shuffled labels
        give.{}</figcaption>{}</figure>"#,
        escape(&contrast.a),
        escape(&contrast.b),
        remarks(map, lambda),
        drawn.draw()
    )
}
