//! The ranked table of heads: the first twenty, and all of them behind a click.

use crate::{
    attribution::{Disposition, HeadEffect},
    report::{
        axis::Axis,
        measure::Measure,
        text::{column_decimals, escape, fixed, p_value, put, signed},
        verdict::{ranked, stands_out, threshold},
    },
};

/// How many heads the first table lists.
pub(super) const LISTED: usize = 20;

/// Both tables of one disposition.
pub(super) fn draw(disposition: &Disposition) -> String {
    let heads = ranked(&disposition.heads);
    let mut out = String::new();
    out += &table(disposition, &heads[..heads.len().min(LISTED)], true);
    if heads.len() > LISTED {
        put!(out, "<details><summary>All {} heads</summary>", heads.len());
        out += &table(disposition, &heads, false);
        out.push_str("</details>");
    }
    out
}

fn table(disposition: &Disposition, heads: &[&HeadEffect], bars: bool) -> String {
    let mut out = String::from(r#"<div class="wide"><table class="sort">"#);
    head_row(&mut out, disposition, bars);
    out.push_str("<tbody>");
    let all = &disposition.heads;
    let means = column_decimals(all.iter().flat_map(|effect| [effect.magnitude.mean_a, effect.magnitude.mean_b]));
    let deltas = column_decimals(all.iter().map(|effect| effect.magnitude.delta)).min(means + 1);
    let relative = column_decimals(all.iter().map(|effect| effect.relative_norm)).min(4);
    let threshold = threshold(disposition);
    for effect in heads {
        let class = if stands_out(effect, threshold) { r#" class="out""# } else { "" };
        put!(out, r#"<tr{class}><th scope="row">{}</th>"#, effect.at());
        let cells = [
            fixed(effect.magnitude.mean_a, means),
            fixed(effect.magnitude.mean_b, means),
            signed(effect.magnitude.delta, deltas),
            signed(effect.magnitude.cohen_d, 2),
        ];
        for cell in cells {
            put!(out, "<td>{cell}</td>");
        }
        if bars {
            put!(out, r#"<td class="bar">{}</td>"#, bar(disposition, effect.magnitude.cohen_d));
        }
        let cells = [
            p_value(effect.magnitude.p),
            p_value(effect.magnitude.q),
            p_value(effect.magnitude.p_max),
            fixed(effect.d_naive, 2),
            p_value(effect.p_directional),
            fixed(effect.cos_means, 4),
            fixed(effect.relative_norm, relative),
        ];
        for (column, cell) in cells.iter().enumerate() {
            let class = if column == 3 { r#" class="gap muted""# } else { "" };
            put!(out, "<td{class}>{cell}</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

fn head_row(out: &mut String, disposition: &Disposition, bars: bool) {
    let bar = usize::from(bars);
    put!(
        out,
        r#"<thead><tr class="span"><td></td><th colspan="{}" scope="colgroup">magnitude</th>
        <th colspan="4" scope="colgroup" class="gap">direction</th></tr><tr><th scope="col">head</th>"#,
        7 + bar
    );
    put!(out, r#"<th scope="col">mean {}</th>"#, escape(&disposition.a));
    put!(out, r#"<th scope="col">mean {}</th>"#, escape(&disposition.b));
    out.push_str(r#"<th scope="col" data-size>Δ</th><th scope="col" data-size>d</th>"#);
    if bars {
        out.push_str(r#"<td class="bar"></td>"#);
    }
    for name in ["p", "q", "p(max)"] {
        put!(out, r#"<th scope="col">{name}</th>"#);
    }
    out.push_str(r#"<th scope="col" class="gap">d_naive</th><th scope="col">p(dir)</th>"#);
    out.push_str(r#"<th scope="col">cos</th><th scope="col">rel. norm</th></tr></thead>"#);
}

/// d as a bar from zero, between ticks at the shuffled-label level.
fn bar(disposition: &Disposition, d: f64) -> String {
    let scale = Measure::Magnitude.scale(disposition);
    let (low, high) = scale.range();
    let axis = Axis::new(low, high, 1.0, 89.0);
    let mut out = String::from(r#"<svg aria-hidden="true" viewBox="0 0 90 12" width="90" height="12">"#);
    if let Some((class, _)) = scale.paint(d) {
        let (from, to) = (axis.at(d.min(0.0)), axis.at(d.max(0.0)));
        put!(out, r#"<rect class="{class}" x="{from:.1}" y="3" width="{:.1}" height="6"/>"#, to - from);
    }
    put!(out, r#"<path class="tick" d="M{:.1} 1v10"/>"#, axis.at(0.0));
    if let Some(level) = threshold(disposition) {
        put!(out, r#"<path class="level" d="M{:.1} 0v12M{:.1} 0v12"/>"#, axis.at(-level), axis.at(level));
    }
    out.push_str("</svg>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_first_twenty_and_then_all() {
        let out = draw(&fixture::disposition(&[5; 5]));
        assert_eq!(out.matches("<tr").count(), (20 + 2) + (25 + 2));
        assert!(out.contains("All 25 heads"));
        assert!(!draw(&fixture::disposition(&[5; 4])).contains("<details"));
    }

    #[test]
    fn cohort_names_are_escaped_and_nan_is_a_dash() {
        let mut disposition = fixture::disposition(&[1]);
        disposition.a = "<i>".to_owned();
        disposition.heads[0].magnitude.cohen_d = f64::NAN;
        disposition.heads[0].relative_norm = f64::NAN;
        let out = draw(&disposition);
        assert!(out.contains("mean &lt;i&gt;") && !out.contains("<i>"));
        assert!(out.contains("<td>–</td>") && !out.contains("NaN"));
    }
}
