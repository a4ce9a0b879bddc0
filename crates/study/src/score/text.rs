//! The causal map as a table for a terminal.

use crate::{
    score::{CellContrast, CellEffect, Contrast, ScoreMap},
    text::{
        count, fixed, interval, percent, short,
        table::{
            Column::{Left, Right},
            Table,
        },
    },
};

/// The cells of one λ by |mean Δ per token|, largest first.
pub(crate) fn ranked(map: &ScoreMap, lambda: f32) -> Vec<&CellEffect> {
    let mut cells: Vec<&CellEffect> = map.cells.iter().filter(|cell| cell.lambda == lambda).collect();
    cells.sort_by(|x, y| y.delta.abs().total_cmp(&x.delta.abs()));
    cells
}

/// The contrasts of one λ by |d|, largest first, undefined ones last.
pub(crate) fn ranked_contrast(contrast: &Contrast, lambda: f32) -> Vec<&CellContrast> {
    let size = |cell: &CellContrast| if cell.cohen_d.is_finite() { cell.cohen_d.abs() } else { -1.0 };
    let mut cells: Vec<&CellContrast> = contrast.cells.iter().filter(|cell| cell.lambda == lambda).collect();
    cells.sort_by(|x, y| size(y).total_cmp(&size(x)));
    cells
}

/// The top of the map at every λ, and of the contrast if there is one, in Markdown that also reads well on a terminal.
pub fn score_markdown(map: &ScoreMap, top: usize) -> String {
    let mut out = format!(
        "{}, {}, {:.3} nats a token untempered (each item counts once, however long); Δ is tempered minus untempered, in nats a token\n",
        count(map.items, "item"),
        count(map.tokens, "scored token"),
        map.base_logprob_per_token
    );
    for &lambda in &map.lambdas {
        out += &format!("\nλ = {lambda}, the largest |mean Δ| of {}\n\n", heads(map, lambda));
        let mut table = Table::of([Left("head")])
            .with([Right("mean Δ"), Right("95 % interval")])
            .with([Right("KL"), Right("agreement")])
            .with([Right("p"), Right("p max")]);
        for cell in ranked(map, lambda).into_iter().take(top) {
            table.row([
                cell.at().to_string(),
                fixed(cell.delta, 4),
                interval(cell.low, cell.high, 4),
                fixed(cell.kl, 4),
                percent(cell.agreement),
                short(cell.p),
                short(cell.p_max),
            ]);
        }
        out += &table.to_string();
    }
    if map.flips.count > 0 {
        out += &format!(
            "\np: {} sign flips of the items' Δ; p max: of the largest over all heads and λ\n",
            if map.flips.exact { format!("all {}", map.flips.count) } else { map.flips.count.to_string() }
        );
    }
    if map.earlier > 0 {
        out += &format!(
            "scored by earlier calls in this directory: {} of {} cells (a head at a λ); p max is over all of them\n",
            map.earlier,
            map.cells.len()
        );
    }
    map.contrast.iter().for_each(|contrast| out += &contrast_table(map, contrast, top));
    out
}

fn contrast_table(map: &ScoreMap, contrast: &Contrast, top: usize) -> String {
    let Contrast { a, b, n_a, n_b, .. } = contrast;
    let (in_a, in_b) = (count(*n_a, "item"), count(*n_b, "item"));
    let mut out = format!("\na = {a} ({in_a}), b = {b} ({in_b}); d > 0: Δ a token is higher in a\n");
    for &lambda in &map.lambdas {
        out += &format!("\nλ = {lambda}, the largest |d| of {}\n\n", heads(map, lambda));
        let mut table = Table::of([Left("head")])
            .with([Right("mean Δ a"), Right("mean Δ b"), Right("d"), Right("95 % interval")])
            .with([Right("p"), Right("p max")]);
        for cell in ranked_contrast(contrast, lambda).into_iter().take(top) {
            table.row([
                cell.at().to_string(),
                fixed(cell.mean_a, 4),
                fixed(cell.mean_b, 4),
                fixed(cell.cohen_d, 2),
                interval(cell.d_low, cell.d_high, 2),
                short(cell.p),
                short(cell.p_max),
            ]);
        }
        out += &table.to_string();
    }
    if contrast.shuffles > 0 {
        out += &format!(
            "\nshuffled labels ({} times): largest |d| of all heads and λ {} on average, {} at 95 %\n",
            contrast.shuffles,
            short(contrast.max_abs_d_mean),
            short(contrast.max_abs_d_q95)
        );
    }
    out
}

fn heads(map: &ScoreMap, lambda: f32) -> String {
    count(map.heads_at(lambda), "head")
}
