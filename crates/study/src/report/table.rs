//! The ranked table of heads: the first twenty together with the clearest on held-out items, and all of them behind a click.

use crate::{
    RankBy,
    attribution::{Attribution, Disposition, HeadEffect, Verdict, text::ranked},
    report::{
        axis::{Axis, extent},
        text::{NARROW, column_decimals, escape, fixed, folded, interval, p_value, put, signed, wide},
        verdict::{Question, marked, stands_out},
    },
    significance::LEVEL,
};

/// How many heads the first table lists by |d|.
pub(super) const LISTED: usize = 20;
/// How many it lists by d on held-out items, if those are others.
pub(super) const CLEAREST: usize = 5;

const BAR: f64 = 100.0;

/// Both tables of one disposition.
pub(super) fn draw(attribution: &Attribution, disposition: &Disposition) -> String {
    let heads = ranked(disposition, attribution.method.compat, RankBy::Magnitude);
    let clear = clearest(disposition);
    let is_clear = |head: &HeadEffect| clear.iter().any(|clear| clear.at() == head.at());
    let first: Vec<&HeadEffect> = heads
        .iter()
        .enumerate()
        .filter(|(rank, head)| *rank < LISTED || is_clear(head))
        .map(|(_, head)| *head)
        .collect();
    let mut out = table(disposition, &first, true);
    if heads.len() > first.len() {
        let all = format!("All {} heads", heads.len());
        out += &folded(&all, "attribution.csv", &table(disposition, &heads, false));
    }
    out
}

/// The heads that lie furthest apart on held-out items.
fn clearest(disposition: &Disposition) -> Vec<&HeadEffect> {
    let mut heads: Vec<&HeadEffect> = disposition.heads.iter().filter(|head| head.d_crossfit.is_finite()).collect();
    heads.sort_by(|x, y| y.d_crossfit.total_cmp(&x.d_crossfit));
    heads.truncate(CLEAREST);
    heads
}

/// How many decimals the columns without a natural unit have.
struct Decimals {
    means: usize,
    deltas: usize,
}

impl Decimals {
    fn of(heads: &[HeadEffect]) -> Self {
        let means = column_decimals(heads.iter().flat_map(|head| [head.magnitude.mean_a, head.magnitude.mean_b]));
        Self { means, deltas: column_decimals(heads.iter().map(|head| head.magnitude.delta)).min(means + 1) }
    }
}

fn table(disposition: &Disposition, heads: &[&HeadEffect], bars: bool) -> String {
    let mut out = wide(&format!("Heads of {}", escape(&disposition.name)), "sort heads-table");
    head_row(&mut out, disposition, bars);
    out.push_str("<tbody>");
    let decimals = Decimals::of(&disposition.heads);
    let axis = bars.then(|| bar_axis(disposition, heads));
    for head in heads {
        row(&mut out, disposition, head, &decimals, axis.as_ref());
    }
    out + "</tbody>" + NARROW
}

/// One head; what stands out for a question is bold there, with the p or q that makes it so.
fn row(out: &mut String, disposition: &Disposition, head: &HeadEffect, decimals: &Decimals, bars: Option<&Axis>) {
    let bold = |yes: bool| if yes { r#" class="out""# } else { "" };
    let (loud, elsewhere) = (bold(stands_out(head, Question::Magnitude)), bold(stands_out(head, Question::Direction)));
    let small = |p: f64| bold(p <= LEVEL);
    let magnitude = &head.magnitude;
    // What the cells of a column share is set once, in the style sheet: there are thousands of cells.
    let (mark, at, verdict) = (marked(head.verdict), head.at(), head.verdict);
    let rank = Verdict::ALL.iter().rev().position(|of| *of == verdict).unwrap_or(0);
    put!(out, r#"<tr><th scope="row" class="{mark}">{at}</th><td data-v="{rank}">{verdict}</td>"#);
    let means = [magnitude.mean_a, magnitude.mean_b].map(|mean| fixed(mean, decimals.means));
    put!(out, "<td>{}</td><td>{}</td><td>{}</td>", means[0], means[1], signed(magnitude.delta, decimals.deltas));
    put!(out, "<td{loud}>{}</td><td>{}</td>", signed(magnitude.cohen_d, 2), interval(head.d_low, head.d_high, 2));
    if let Some(axis) = bars {
        put!(out, r#"<td class="bar">{}</td>"#, bar(disposition, head, axis));
    }
    put!(out, "<td>{}</td><td{}>{}</td>", p_value(magnitude.p), small(magnitude.q), p_value(magnitude.q));
    put!(out, "<td{}>{}</td>", small(magnitude.p_max), p_value(magnitude.p_max));
    put!(out, "<td>{}</td>", signed(head.final_token.cohen_d, 2));
    put!(out, "<td>{}</td><td{elsewhere}>{}</td>", fixed(head.d_naive, 2), signed(head.d_crossfit, 2));
    put!(out, "<td>{}</td>", p_value(head.p_directional));
    put!(out, "<td{}>{}</td>", small(head.q_directional), p_value(head.q_directional));
    put!(out, "<td{}>{}</td>", small(head.p_max_directional), p_value(head.p_max_directional));
    put!(out, "<td>{}</td>", p_value(head.p_max_across.min(head.q_across)));
    put!(out, "<td>{}</td><td>{}</td>", fixed(head.cos_means, 4), signed(head.cos_centered, 2));
    put!(out, "<td>{}</td><td>{}</td></tr>", signed(head.r_length, 2), signed(head.d_length_adjusted, 2));
}

fn head_row(out: &mut String, disposition: &Disposition, bars: bool) {
    let (a, b) = (escape(&disposition.a), escape(&disposition.b));
    put!(
        out,
        r#"<colgroup><col span="2"/><col class="unprinted" span="2"/><col span="3"/>{}<col/><col class="unprinted"/><col span="5"/>
        <col class="unprinted"/><col span="6"/></colgroup>
        <thead><tr class="span"><td></td><td></td><th colspan="{}" scope="colgroup">magnitude: is z louder?</th>
        <th colspan="8" scope="colgroup" class="gap">direction: does z lie elsewhere?</th>
        <th colspan="2" scope="colgroup" class="gap">length</th></tr>
        <tr><th scope="col">head</th><th scope="col">verdict</th><th scope="col">mean {a}</th><th scope="col">mean {b}</th>
        <th scope="col" data-size>Δ</th><th scope="col" data-size aria-sort="descending">d</th><th scope="col">95 %</th>"#,
        if bars { r#"<col class="unprinted"/>"# } else { "" },
        9 + usize::from(bars)
    );
    if bars {
        out.push_str(r#"<td class="bar"></td>"#);
    }
    out.push_str(
        r#"<th scope="col">p</th><th scope="col">q</th><th scope="col">p max</th><th scope="col" data-size>d final</th>
        <th scope="col">d naive</th><th scope="col">d held out</th><th scope="col">p</th>
        <th scope="col">q</th><th scope="col">p max</th><th scope="col">across</th><th scope="col">cos</th><th scope="col">centred</th>
        <th scope="col" data-size>r</th><th scope="col" data-size>d adjusted</th></tr></thead>"#,
    );
}

/// Wide enough for every interval that is drawn, and for the level.
fn bar_axis(disposition: &Disposition, heads: &[&HeadEffect]) -> Axis {
    let drawn = heads.iter().flat_map(|head| [head.magnitude.cohen_d, head.d_low, head.d_high]);
    let level = level(disposition).unwrap_or(0.0);
    let (low, high) = extent(drawn.chain([0.0, level, -level])).unwrap_or((-1.0, 1.0));
    Axis::new(low, high, 4.0, BAR - 4.0)
}

/// The |d| that the largest of all heads reaches in one of twenty shuffles.
fn level(disposition: &Disposition) -> Option<f64> {
    let shuffled = &disposition.shuffled;
    (shuffled.shuffles > 0 && shuffled.max_abs_d_q95.is_finite()).then_some(shuffled.max_abs_d_q95)
}

/// d with its interval, between lines at the shuffled-label level.
fn bar(disposition: &Disposition, head: &HeadEffect, axis: &Axis) -> String {
    let d = head.magnitude.cohen_d;
    let mut out = format!(r#"<svg aria-hidden="true" viewBox="0 0 {BAR} 14" width="{BAR}" height="14">"#);
    put!(out, r#"<path class="grid" d="M{:.1} 0v14"/>"#, axis.at(0.0));
    if let Some(level) = level(disposition) {
        put!(out, r#"<path class="level minor" d="M{:.1} 0v14M{:.1} 0v14"/>"#, axis.at(-level), axis.at(level));
    }
    if d.is_finite() {
        let class = if d < 0.0 { "neg" } else { "pos" };
        if head.d_low.is_finite() && head.d_high.is_finite() {
            put!(
                out,
                r#"<path class="whisker s-{class}" d="M{:.1} 7H{:.1}"/>"#,
                axis.at(head.d_low),
                axis.at(head.d_high)
            );
        }
        put!(out, r#"<circle class="{class}" cx="{:.1}" cy="7" r="3"/>"#, axis.at(d));
    }
    out.push_str("</svg>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn drawn(disposition: Disposition) -> String {
        let mut attribution = fixture::attribution(&[]);
        attribution.dispositions = vec![disposition];
        draw(&attribution, &attribution.dispositions[0])
    }

    #[test]
    fn the_first_twenty_the_clearest_and_then_all() {
        let mut disposition = fixture::disposition(&[5; 6]);
        assert!(drawn(fixture::disposition(&[5; 4])).matches("<details").next().is_none());
        let quiet = disposition.heads.iter_mut().find(|head| head.magnitude.cohen_d == 0.0).expect("one is 0");
        quiet.d_crossfit = 2.0;
        let name = format!(">{}</th>", quiet.at());
        let out = drawn(disposition);
        let (first, all) = out.split_once("<details").expect("a fold");
        assert!(all.contains("All 30 heads") && all.matches("<tr>").count() == 30 + 1);
        let rows = first.matches("<tr>").count() - 1;
        assert!((LISTED + 1..=LISTED + CLEAREST).contains(&rows), "{rows}");
        assert!(first.contains(&name), "the clearest head is not among the loudest");
    }

    #[test]
    fn the_same_number_of_cells_in_every_row() {
        let out = drawn(fixture::disposition(&[5; 6]));
        for table in out.split("<table").skip(1) {
            let cells = |row: &str| row.matches("<td").count() + row.matches("<th ").count();
            let rows: Vec<usize> = table.split("<tr>").skip(1).map(cells).collect();
            assert!(rows.iter().all(|&cells| cells == rows[0]), "{rows:?}");
        }
    }

    #[test]
    fn what_stands_out_is_bold_where_it_does() {
        let mut disposition = fixture::disposition(&[2]);
        disposition.heads[0].p_max_directional = 0.01;
        assert_eq!(drawn(disposition).matches(r#"class="out""#).count(), 2);
    }

    #[test]
    fn cohort_names_are_escaped_and_nan_is_a_dash() {
        let mut disposition = fixture::disposition(&[1]);
        disposition.a = "<i>".to_owned();
        disposition.heads[0].magnitude.cohen_d = f64::NAN;
        disposition.heads[0].d_low = f64::NAN;
        let out = drawn(disposition);
        assert!(out.contains("mean &lt;i&gt;") && !out.contains("<i>"));
        assert!(out.contains("<td>–</td>") && !out.contains("NaN"));
    }
}
