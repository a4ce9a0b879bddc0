//! The ranked tables: the first twenty heads, and all of them behind a click.

use crate::{
    report::{
        score::sentence::called,
        text::{
            NARROW, column_decimals, decimals, escape, fixed, folded, interval, p_value, percent, put, signed, wide,
        },
    },
    score::{CellContrast, CellEffect, Contrast, ScoreMap, ranked, ranked_contrast},
};

/// How many heads the first table lists.
const LISTED: usize = 20;
/// Most decimals that are shown: more are noise.
const MOST_DECIMALS: usize = 4;

/// The heads of a λ by |mean Δ|.
pub(super) fn effects(map: &ScoreMap, lambda: f32) -> String {
    let cells = ranked(map, lambda);
    let (delta, kl) = (effect_decimals(&cells), column_decimals(cells.iter().map(|cell| cell.kl)).min(MOST_DECIMALS));
    let head = r#"<thead><tr class="span"><td></td><th colspan="2" scope="colgroup">Δ log-probability, nats a token</th>
        <th colspan="2" scope="colgroup" class="gap">next-token distributions</th>
        <th colspan="2" scope="colgroup" class="gap">sign flips</th></tr><tr><th scope="col">head</th>
        <th scope="col" data-size aria-sort="descending">mean Δ</th><th scope="col">95 %</th>
        <th scope="col" class="gap">KL</th><th scope="col">agreement %</th>
        <th scope="col" class="gap">p</th><th scope="col">p max</th></tr></thead>"#;
    let row = |cell: &&CellEffect| {
        let cells = [
            signed(cell.delta, delta),
            interval(cell.low, cell.high, delta),
            fixed(cell.kl, kl),
            percent(cell.agreement),
            p_value(cell.p),
            p_value(cell.p_max),
        ];
        line(&cell.at().to_string(), called(cell.p_max), &cells)
    };
    listed("Heads by mean Δ", head, &cells.iter().map(row).collect::<Vec<_>>())
}

/// The heads of a λ by |d| between two cohorts.
pub(super) fn contrast(contrast: &Contrast, lambda: f32) -> String {
    let cells = ranked_contrast(contrast, lambda);
    let means = cells.iter().flat_map(|cell| [cell.mean_a, cell.mean_b]);
    let of_means = column_decimals(means).min(MOST_DECIMALS);
    let head = format!(
        r#"<thead><tr class="span"><td></td><th colspan="2" scope="colgroup">mean Δ a token, nats</th>
        <th colspan="4" scope="colgroup" class="gap">difference</th></tr><tr><th scope="col">head</th>
        <th scope="col" data-size>{}</th><th scope="col" data-size>{}</th><th scope="col" class="gap" data-size aria-sort="descending">d</th>
        <th scope="col">95 %</th><th scope="col">p</th><th scope="col">p max</th></tr></thead>"#,
        escape(&contrast.a),
        escape(&contrast.b)
    );
    let row = |cell: &&CellContrast| {
        let cells = [
            signed(cell.mean_a, of_means),
            signed(cell.mean_b, of_means),
            signed(cell.cohen_d, 2),
            interval(cell.d_low, cell.d_high, 2),
            p_value(cell.p),
            p_value(cell.p_max),
        ];
        line(&cell.at().to_string(), called(cell.p_max), &cells)
    };
    listed("Heads by d", &head, &cells.iter().map(row).collect::<Vec<_>>())
}

/// How many decimals the means and their intervals have: two digits of how far a typical mean is uncertain.
fn effect_decimals(cells: &[&CellEffect]) -> usize {
    let halves = cells.iter().map(|cell| (cell.high - cell.low) / 2.0);
    let mut halves: Vec<f64> = halves.filter(|half| half.is_finite() && *half > 0.0).collect();
    halves.sort_by(f64::total_cmp);
    let wanted = match halves.get(halves.len() / 2) {
        Some(&half) => decimals(half, 2),
        None => column_decimals(cells.iter().map(|cell| cell.delta)),
    };
    wanted.min(MOST_DECIMALS)
}

fn line(name: &str, bold: bool, cells: &[String]) -> String {
    let class = if bold { r#" class="out""# } else { "" };
    let mut out = format!(r#"<tr{class}><th scope="row">{name}</th>"#);
    for cell in cells {
        put!(out, "<td>{cell}</td>");
    }
    out + "</tr>"
}

fn listed(name: &str, head: &str, rows: &[String]) -> String {
    let table = |rows: &[String]| format!("{}{head}<tbody>{}</tbody>{NARROW}", wide(name, "sort"), rows.concat());
    let mut out = table(&rows[..rows.len().min(LISTED)]);
    if rows.len() > LISTED {
        out += &folded(&format!("All {} heads", rows.len()), "scores.csv", &table(rows));
    }
    out
}

#[cfg(test)]
mod tests {
    use headtemper_hook::HeadKind;

    use super::*;

    #[test]
    fn means_have_the_digits_that_their_intervals_leave_them() {
        let cell = |delta: f64, half: f64| CellEffect {
            layer: 0,
            kind: HeadKind::Query,
            head: 0,
            lambda: 0.0,
            delta,
            low: delta - half,
            high: delta + half,
            kl: 0.1,
            agreement: 1.0,
            p: 1.0,
            p_max: 1.0,
        };
        let of = |halves: &[f64]| {
            let cells: Vec<CellEffect> = halves.iter().map(|&half| cell(-0.123_456, half)).collect();
            effect_decimals(&cells.iter().collect::<Vec<_>>())
        };
        assert_eq!((of(&[0.034]), of(&[0.34, 0.034, 0.0034]), of(&[3.4])), (3, 3, 1));
        assert_eq!((of(&[0.000_01]), of(&[f64::NAN]), of(&[0.0, 0.034]), of(&[])), (4, 4, 3, 3));
    }
}
