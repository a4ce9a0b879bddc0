//! The same probe for each score: a pair of bars per axis, and which axes count as one.

use crate::{
    falsify::{AxesConfig, Axis, AxisPair, Falsification, Outcome},
    report::{
        falsify::{
            chart::{CHANCE, Chart, LEFT, Level, name},
            marked, matrix,
        },
        text::{NARROW, count, escape, fixed, put, signed, wide},
    },
};

const ROW: f64 = 34.0;
const BAR: f64 = 9.0;
/// Most pairs that a sentence names.
const NAMED: usize = 6;

/// The section; nothing if no score was swept.
pub(super) fn draw(found: &Falsification) -> String {
    if found.axes.is_empty() {
        return String::new();
    }
    let mut out = format!(
        r#"<section id="axes"><h2>Every score</h2><p class="lead">The same probe, fitted anew for each of {}.</p>
        <p class="story">{}</p><div class="beside"><figure class="chart">{}<figcaption>Outlined: cross-validated AUC. Filled: AUC on
        fresh items, with its 95&#160;% interval. Bars begin at chance.</figcaption></figure>"#,
        count(found.axes.len(), "score"),
        escape(&story(found)),
        chart(found)
    );
    out += &matrix::draw(&found.axes, &found.axis_pairs);
    out.push_str("</div>");
    table(&mut out, &found.axes);
    out + "</section>"
}

fn story(found: &Falsification) -> String {
    let carry = found.axes.iter().filter(|axis| axis.outcome == Outcome::Passed).count();
    let mut out = format!("{carry} of {} carry over to fresh items.", count(found.axes.len(), "score"));
    let flagged: Vec<&AxisPair> = found.axis_pairs.iter().filter(|pair| pair.flagged).collect();
    if found.axis_pairs.is_empty() {
        return out;
    }
    if flagged.is_empty() {
        put!(out, " None of {} predict as one.", count(found.axis_pairs.len(), "pair"));
        return out;
    }
    let named: Vec<String> = flagged
        .iter()
        .take(NAMED)
        .map(|pair| format!("{} and {} (r\u{a0}{})", short(&pair.a), short(&pair.b), signed(pair.r, 2)))
        .collect();
    let more = if flagged.len() > NAMED { format!(", and {} more", flagged.len() - NAMED) } else { String::new() };
    put!(out, " Predicted as one: {}{more}. Such scores count as one, not as two that agree.", named.join(", "));
    out
}

/// A name without the prefix that all scores share.
pub(super) fn short(name: &str) -> &str {
    name.strip_prefix("scores.").filter(|rest| !rest.is_empty()).unwrap_or(name)
}

/// The gates of an axis.
fn gates(found: &Falsification) -> Vec<Level> {
    let of = |axes: &AxesConfig| {
        let gates = [(axes.fresh_auc, "gate on fresh items"), (axes.cv_auc, "gate in training")];
        Vec::from(gates.map(|(value, name)| Level { value, name, gate: true }))
    };
    found.declared.axes.as_ref().map(of).unwrap_or_default()
}

fn chart(found: &Falsification) -> String {
    let axes = &found.axes;
    let values =
        axes.iter().flat_map(|axis| [axis.cv_auc, axis.fresh_auc, axis.fresh_range.low, axis.fresh_range.high]);
    let mut levels = gates(found);
    levels.push(Level { value: CHANCE, name: "chance", gate: false });
    let chart = Chart::new(values, levels, axes.len() as f64 * ROW + 8.0);
    let mut rows = String::new();
    for (index, axis) in axes.iter().enumerate() {
        row(&mut rows, axis, &chart, chart.top + 6.0 + index as f64 * ROW);
    }
    chart.around("AUC of each score, cross-validated and on fresh items", &rows)
}

/// Two bars from chance, and the interval of the lower bar.
fn row(out: &mut String, axis: &Axis, chart: &Chart, top: f64) {
    name(out, short(&axis.name), top + 10.0);
    put!(
        out,
        r#"<text class="end" x="{:.1}" y="{:.1}">{} → {}</text>"#,
        LEFT - 12.0,
        top + 24.0,
        fixed(axis.cv_auc, 2),
        fixed(axis.fresh_auc, 2)
    );
    let start = chart.x.at(CHANCE);
    for (value, class, y) in [(axis.cv_auc, "bar-cv", top + 2.0), (axis.fresh_auc, "bar-fresh", top + 4.0 + BAR)] {
        if value.is_finite() {
            let at = chart.x.at(value);
            let (left, wide) = (start.min(at), (at - start).abs().max(1.0));
            put!(out, r#"<rect class="{class}" x="{left:.1}" y="{y:.1}" width="{wide:.1}" height="{BAR}"/>"#);
        }
    }
    let range = axis.fresh_range;
    if range.low.is_finite() && range.high.is_finite() {
        let y = top + 4.0 + 1.5 * BAR;
        let (low, high) = (chart.x.at(range.low), chart.x.at(range.high));
        put!(out, r#"<path class="interval own" d="M{low:.1} {y:.1}H{high:.1}m0 -3v6M{low:.1} {:.1}v6"/>"#, y - 3.0);
    }
}

fn table(out: &mut String, axes: &[Axis]) {
    *out += &wide("Scores", "sort");
    out.push_str(
        r#"<thead><tr class="span"><td></td><th colspan="2" scope="colgroup">training</th>
        <th colspan="3" scope="colgroup" class="gap">fresh</th><td class="gap"></td></tr><tr><th scope="col">score</th>
        <th scope="col">positive</th><th scope="col">AUC</th><th scope="col" class="gap">positive</th>
        <th scope="col">AUC</th><th scope="col">95 % (DeLong)</th><th scope="col" class="gap word">outcome</th></tr></thead>
        <tbody>"#,
    );
    for axis in axes {
        let of = |(items, positives): (usize, usize)| format!("{positives} of {items}");
        let range = axis.fresh_range;
        put!(
            out,
            r#"<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td class="gap">{}</td><td>{}</td><td>{}</td>"#,
            escape(&axis.name),
            of(axis.train),
            fixed(axis.cv_auc, 3),
            of(axis.fresh),
            fixed(axis.fresh_auc, 3),
            interval(range.low, range.high)
        );
        put!(out, r#"<td class="gap word">{}</td></tr>"#, marked(axis.outcome));
    }
    out.push_str("</tbody>");
    out.push_str(NARROW);
}

/// An interval of AUC, or a dash.
pub(super) fn interval(low: f64, high: f64) -> String {
    if low.is_finite() && high.is_finite() {
        format!("{} to {}", fixed(low, 3), fixed(high, 3))
    } else {
        fixed(f64::NAN, 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::falsify::fixture;

    #[test]
    fn two_bars_and_an_interval_for_each_score() {
        let mut found = fixture::whole(5);
        let out = draw(&found);
        let of = |out: &str, class: &str| out.matches(&format!("class=\"{class}\"")).count();
        assert_eq!((of(&out, "bar-cv"), of(&out, "bar-fresh"), of(&out, "interval own")), (5, 5, 5));
        assert!(out.contains("gate in training 0.65") && out.contains("gate on fresh items 0.60"));
        found.axes[0].fresh_auc = f64::NAN;
        assert_eq!(of(&draw(&found), "bar-fresh"), 4);
    }

    #[test]
    fn pairs_that_predict_as_one_are_named() {
        let mut found = fixture::whole(5);
        assert!(story(&found).contains("Predicted as one: "), "{}", story(&found));
        found.axis_pairs.iter_mut().for_each(|pair| pair.flagged = false);
        assert!(story(&found).contains("None of 10 pairs predict as one."));
        found.axis_pairs.iter_mut().for_each(|pair| pair.flagged = true);
        assert!(story(&found).contains("and 4 more"));
        assert_eq!((short("scores.humble>=4"), short("scores.")), ("humble>=4", "scores."));
    }
}
