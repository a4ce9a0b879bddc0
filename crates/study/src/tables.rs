//! Tables for people: on a terminal, as CSV, as Markdown.

use serde::Deserialize;

use crate::attribution::{Disposition, HeadEffect};

/// JSON has no NaN: what is not a number is written as null.
pub(crate) fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// A number to three digits, an en dash if it is none.
pub(crate) fn short(x: f64) -> String {
    if x.is_finite() { format!("{x:.3}") } else { "–".into() }
}

const COLUMNS: [&str; 15] = [
    "layer",
    "kind",
    "head",
    "mean_a",
    "mean_b",
    "delta",
    "cohen_d",
    "p",
    "q",
    "p_max",
    "d_naive",
    "p_directional",
    "cos_means",
    "direction_norm",
    "relative_norm",
];

/// Every head as CSV, in slot order; full precision, empty where there is no number.
pub(crate) fn heads_csv(disposition: &Disposition) -> String {
    let mut out = format!("disposition,{}\n", COLUMNS.join(","));
    let cell = |x: f64| if x.is_finite() { x.to_string() } else { String::new() };
    for h in &disposition.heads {
        let numbers = [
            h.mean_a,
            h.mean_b,
            h.delta,
            h.cohen_d,
            h.p,
            h.q,
            h.p_max,
            h.d_naive,
            h.p_directional,
            h.cos_means,
            h.direction_norm,
            h.relative_norm,
        ];
        let cells = numbers.map(cell).join(",");
        out += &format!("{},{},{},{},{cells}\n", quoted(&disposition.name), h.layer, h.kind, h.head);
    }
    out
}

pub(crate) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

/// The heads by |d|, largest first.
pub(crate) fn ranked(disposition: &Disposition) -> Vec<&HeadEffect> {
    let mut heads: Vec<&HeadEffect> = disposition.heads.iter().collect();
    heads.sort_by(|a, b| {
        let size = |h: &HeadEffect| if h.cohen_d.is_finite() { h.cohen_d.abs() } else { -1.0 };
        size(b).total_cmp(&size(a))
    });
    heads
}

/// The top of a ranking, with what shuffled labels give, in Markdown that also reads well on a terminal.
pub fn heads_markdown(disposition: &Disposition, count: usize) -> String {
    let s = &disposition.shuffled;
    let mut out = format!(
        "{}: a = {} ({} items), b = {} ({} items); d > 0: louder in a\n\n",
        disposition.name, disposition.a, disposition.n_a, disposition.b, disposition.n_b
    );
    out += "| head  |   mean a |   mean b |      d | p max | d naive* | cos    |\n";
    out += "|-------|---------:|---------:|-------:|------:|---------:|-------:|\n";
    for h in ranked(disposition).into_iter().take(count) {
        out += &format!(
            "| {:<5} | {:>8} | {:>8} | {:>6} | {:>5} | {:>8} | {:>6} |\n",
            h.at().to_string(),
            short(h.mean_a),
            short(h.mean_b),
            short(h.cohen_d),
            short(h.p_max),
            short(h.d_naive),
            short(h.cos_means),
        );
    }
    if s.shuffles > 0 {
        out += &format!(
            "\nshuffled labels ({} times): largest |d| {} on average, {} at 95 %; d naive {} on average, largest {} at 95 %\n",
            s.shuffles,
            short(s.max_abs_d_mean),
            short(s.max_abs_d_q95),
            short(s.mean_d_naive),
            short(s.max_d_naive_q95),
        );
    }
    out += "* in-sample, as the paper defines it: not evidence by itself\n";
    out
}
