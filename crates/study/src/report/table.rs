//! The ranked table of heads: the first twenty together with the clearest on held-out items, with what their verdicts rest on; and behind
//! a click all heads with every column.

use crate::{
    RankBy,
    attribution::{Attribution, Disposition, HeadEffect, Verdict, text::ranked},
    report::{
        axis::{Axis, extent},
        text::{NARROW, column_decimals, count, escape, fixed, folded, interval, p_value, put, signed, wide},
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
    let all = format!("All {}, every column", count(heads.len(), "head"));
    let every = table(disposition, &heads, Columns::Every);
    table(disposition, &first, Columns::Verdict) + &folded(&all, "attribution.csv", &every)
}

/// Which columns a table has.
#[derive(Clone, Copy, PartialEq)]
enum Columns {
    /// What a verdict rests on, with d drawn: as wide as a page.
    Verdict,
    /// All, as numbers.
    Every,
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

fn table(disposition: &Disposition, heads: &[&HeadEffect], columns: Columns) -> String {
    let name = escape(&disposition.name);
    let decimals = Decimals::of(&disposition.heads);
    let mut out = String::new();
    match columns {
        Columns::Verdict => {
            out += &wide(&format!("Heads of {name}"), "sort heads-table");
            head_row(&mut out, disposition, columns);
            let axis = bar_axis(disposition, heads);
            for head in heads {
                row(&mut out, head, &decimals, Some(&bar(disposition, head, &axis)));
            }
        }
        Columns::Every => {
            out += &wide(&format!("Heads of {name}, every column"), "sort heads-table every");
            head_row(&mut out, disposition, columns);
            for head in heads {
                row(&mut out, head, &decimals, None);
            }
        }
    }
    out + "</tbody>" + NARROW
}

/// One head; what stands out for a question is bold there, with the p or q that makes it so. With d drawn, only what its verdict
/// rests on.
fn row(out: &mut String, head: &HeadEffect, decimals: &Decimals, drawn: Option<&str>) {
    let bold = |yes: bool| if yes { r#" class="out""# } else { "" };
    let (loud, elsewhere) = (bold(stands_out(head, Question::Magnitude)), bold(stands_out(head, Question::Direction)));
    let small = |p: f64| bold(p <= LEVEL);
    let magnitude = &head.magnitude;
    let every = |out: &mut String, cells: &[String]| {
        if drawn.is_none() {
            for cell in cells {
                put!(out, "<td>{cell}</td>");
            }
        }
    };
    // What the cells of a column share is set once, in the style sheet: there are thousands of cells.
    let (mark, at, verdict) = (marked(head.verdict), head.at(), head.verdict);
    let rank = Verdict::ALL.iter().rev().position(|of| *of == verdict).unwrap_or(0);
    put!(out, r#"<tr><th scope="row" class="{mark}">{at}</th><td data-v="{rank}">{verdict}</td>"#);
    every(out, &[magnitude.mean_a, magnitude.mean_b].map(|mean| fixed(mean, decimals.means)));
    put!(out, "<td>{}</td>", signed(magnitude.delta, decimals.deltas));
    put!(out, "<td{loud}>{}</td><td>{}</td>", signed(magnitude.cohen_d, 2), interval(head.d_low, head.d_high, 2));
    if let Some(bar) = drawn {
        put!(out, r#"<td class="bar">{bar}</td>"#);
    }
    every(out, &[p_value(magnitude.p)]);
    put!(out, "<td{}>{}</td>", small(magnitude.q), p_value(magnitude.q));
    put!(out, "<td{}>{}</td>", small(magnitude.p_max), p_value(magnitude.p_max));
    every(out, &[signed(head.final_token.cohen_d, 2)]);
    put!(out, "<td>{}</td><td{elsewhere}>{}</td>", fixed(head.d_naive, 2), signed(head.d_crossfit, 2));
    every(out, &[p_value(head.p_directional)]);
    put!(out, "<td{}>{}</td>", small(head.q_directional), p_value(head.q_directional));
    put!(out, "<td{}>{}</td>", small(head.p_max_directional), p_value(head.p_max_directional));
    put!(out, "<td>{}</td>", p_value(head.p_max_across.min(head.q_across)));
    every(out, &[fixed(head.cos_means, 4), signed(head.cos_centered, 2), signed(head.r_length, 2)]);
    put!(out, "<td>{}</td></tr>", signed(head.d_length_adjusted, 2));
}

/// Opens a table: its columns' names, and its body.
fn head_row(out: &mut String, disposition: &Disposition, columns: Columns) {
    let every = columns == Columns::Every;
    let of_every = |text: &'static str| if every { text } else { "" };
    let spans = if every { [9, 8, 2] } else { [6, 5, 1] };
    out.push_str(of_every(
        r#"<colgroup><col span="2"/><col class="unprinted" span="2"/><col span="4"/><col class="unprinted"/><col span="5"/>
        <col class="unprinted"/><col span="6"/></colgroup>"#,
    ));
    put!(
        out,
        r#"<thead><tr class="span"><td></td><td></td><th colspan="{}" scope="colgroup">magnitude: is z louder?</th>
        <th colspan="{}" scope="colgroup" class="gap">direction: does z lie elsewhere?</th>
        <th colspan="{}" scope="colgroup" class="gap">length</th></tr>
        <tr><th scope="col">head</th><th scope="col">verdict</th>"#,
        spans[0],
        spans[1],
        spans[2]
    );
    if every {
        let (a, b) = (escape(&disposition.a), escape(&disposition.b));
        put!(out, r#"<th scope="col">mean {a}</th><th scope="col">mean {b}</th>"#);
    }
    out.push_str(
        r#"<th scope="col" data-size>Δ</th><th scope="col" data-size aria-sort="descending">d</th><th scope="col">95 %</th>"#,
    );
    out.push_str(if every { r#"<th scope="col">p</th>"# } else { r#"<td class="bar"></td>"# });
    put!(
        out,
        r#"<th scope="col">q</th><th scope="col">p max</th>{}<th scope="col">d naive</th><th scope="col">d held out</th>{}
        <th scope="col">q</th><th scope="col">p max</th><th scope="col">across</th>{}
        <th scope="col" data-size>d adjusted</th></tr></thead><tbody>"#,
        of_every(r#"<th scope="col" data-size>d final</th>"#),
        of_every(r#"<th scope="col">p</th>"#),
        of_every(r#"<th scope="col">cos</th><th scope="col">centred</th><th scope="col" data-size>r</th>"#)
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
    disposition.has_level_of_d().then_some(shuffled.max_abs_d_q95)
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
        let quiet = disposition.heads.iter_mut().find(|head| head.magnitude.cohen_d == 0.0).expect("one is 0");
        quiet.d_crossfit = 2.0;
        let name = format!(">{}</th>", quiet.at());
        let out = drawn(disposition);
        let (first, all) = out.split_once("<details").expect("a fold");
        assert!(all.contains("All 30 heads, every column") && all.matches("<tr>").count() == 30 + 1);
        let rows = first.matches("<tr>").count() - 1;
        assert!((LISTED + 1..=LISTED + CLEAREST).contains(&rows), "{rows}");
        assert!(first.contains(&name), "the clearest head is not among the loudest");
    }

    /// However few heads there are, a fold has the columns that the first table does not show.
    #[test]
    fn the_first_table_shows_what_verdicts_rest_on_and_the_fold_everything() {
        let out = drawn(fixture::disposition(&[2]));
        let (first, all) = out.split_once("<details").expect("a fold");
        let names = |table: &str| -> Vec<String> {
            let names = table.split("<th scope=\"col\"").skip(1).map(|cell| cell.split(['>', '<']).nth(1));
            names.map(|name| name.unwrap_or_default().to_owned()).collect()
        };
        let (shown, every) = (names(first), names(all));
        let only_there = ["mean cw", "mean cr", "p", "d final", "cos", "centred", "r"];
        assert!(shown.iter().all(|name| every.contains(name)), "{shown:?}");
        assert!(only_there.iter().all(|name| every.iter().any(|there| there == name)), "{every:?}");
        assert!(!only_there.iter().any(|name| shown.iter().any(|there| there == name)), "{shown:?}");
        assert_eq!(every.len(), shown.len() + only_there.len() + 1, "p stands there twice");
        assert_eq!(first.matches("<svg").count(), 2, "d is drawn once for each head");
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
        let out = drawn(disposition);
        let (first, all) = out.split_once("<details").expect("a fold");
        for table in [first, all] {
            assert_eq!(table.matches(r#"class="out""#).count(), 2);
        }
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
