//! The ranked tables: the first twenty heads, and all of them behind a click.

use crate::{
    report::{
        score::sentence::called,
        text::{column_decimals, escape, fixed, p_value, percent, put, signed},
    },
    score::{CellContrast, CellEffect, Contrast, ScoreMap, ranked, ranked_contrast},
};

/// How many heads the first table lists.
const LISTED: usize = 20;
/// Most decimals that are shown: more are noise.
const MOST_DECIMALS: usize = 6;

/// The heads of a λ by |mean Δ|.
pub(super) fn effects(map: &ScoreMap, lambda: f32) -> String {
    let cells = ranked(map, lambda);
    let digits =
        |value: fn(&CellEffect) -> f64| column_decimals(cells.iter().map(|cell| value(cell))).min(MOST_DECIMALS);
    let (delta, kl) = (digits(|cell| cell.delta), digits(|cell| cell.kl));
    let head = r#"<thead><tr class="span"><td></td><th colspan="3" scope="colgroup">Δ log-probability, nats a token</th>
        <th colspan="2" scope="colgroup" class="gap">next-token distributions</th>
        <th colspan="2" scope="colgroup" class="gap">sign flips</th></tr><tr><th scope="col">head</th>
        <th scope="col" data-size>mean Δ</th><th scope="col">95 % from</th><th scope="col">to</th>
        <th scope="col" class="gap">KL</th><th scope="col">agreement %</th>
        <th scope="col" class="gap">p</th><th scope="col">p max</th></tr></thead>"#;
    let row = |cell: &&CellEffect| {
        let cells = [
            signed(cell.delta, delta),
            signed(cell.low, delta),
            signed(cell.high, delta),
            fixed(cell.kl, kl),
            percent(cell.agreement),
            p_value(cell.p),
            p_value(cell.p_max),
        ];
        line(&cell.at().to_string(), called(cell.p_max), &cells)
    };
    listed(head, &cells.iter().map(row).collect::<Vec<_>>())
}

/// The heads of a λ by |d| between two cohorts.
pub(super) fn contrast(contrast: &Contrast, lambda: f32) -> String {
    let cells = ranked_contrast(contrast, lambda);
    let means = cells.iter().flat_map(|cell| [cell.mean_a, cell.mean_b]);
    let decimals = column_decimals(means).min(MOST_DECIMALS);
    let head = format!(
        r#"<thead><tr class="span"><td></td><th colspan="2" scope="colgroup">mean Δ a token, nats</th>
        <th colspan="5" scope="colgroup" class="gap">difference</th></tr><tr><th scope="col">head</th>
        <th scope="col" data-size>{}</th><th scope="col" data-size>{}</th><th scope="col" class="gap" data-size>d</th>
        <th scope="col">95 % from</th><th scope="col">to</th><th scope="col">p</th><th scope="col">p max</th></tr></thead>"#,
        escape(&contrast.a),
        escape(&contrast.b)
    );
    let row = |cell: &&CellContrast| {
        let cells = [
            signed(cell.mean_a, decimals),
            signed(cell.mean_b, decimals),
            signed(cell.cohen_d, 2),
            signed(cell.d_low, 2),
            signed(cell.d_high, 2),
            p_value(cell.p),
            p_value(cell.p_max),
        ];
        line(&cell.at().to_string(), called(cell.p_max), &cells)
    };
    listed(&head, &cells.iter().map(row).collect::<Vec<_>>())
}

fn line(name: &str, bold: bool, cells: &[String]) -> String {
    let class = if bold { r#" class="out""# } else { "" };
    let mut out = format!(r#"<tr{class}><th scope="row">{name}</th>"#);
    for cell in cells {
        put!(out, "<td>{cell}</td>");
    }
    out + "</tr>"
}

fn listed(head: &str, rows: &[String]) -> String {
    let table = |rows: &[String]| {
        format!(r#"<div class="wide"><table class="sort">{head}<tbody>{}</tbody></table></div>"#, rows.concat())
    };
    let mut out = table(&rows[..rows.len().min(LISTED)]);
    if rows.len() > LISTED {
        put!(out, "<details><summary>All {} heads</summary>{}</details>", rows.len(), table(rows));
    }
    out
}
