//! The result beside the same computation where there is nothing to find.

use crate::{
    attribute::LEVEL,
    attribution::{Attribution, Summary, Verdict},
    report::{
        text::{escape, fixed, p_value, put, signed},
        verdict::{self, marked},
    },
};

/// One table over all dispositions; nothing if no control was run.
pub(super) fn draw(attribution: &Attribution) -> String {
    if attribution.controls.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        r#"<section id="controls"><h2>Where there is nothing to find</h2>
        <p>The same computation, once more, on data without an answer. Whatever it names there is a false finding.</p>"#,
    );
    out += &table(attribution);
    out.push_str(r#"<dl class="facts">"#);
    for control in &attribution.controls {
        put!(out, "<dt>{}</dt><dd>{}</dd>", escape(&control.name), escape(&control.how));
    }
    out + "</dl></section>"
}

fn table(attribution: &Attribution) -> String {
    let mut out = String::from(r#"<div class="wide"><table class="grouped">"#);
    out += &head_row("", true);
    for (index, disposition) in attribution.dispositions.iter().enumerate() {
        out.push_str("<tbody>");
        out += &row(&link(index, &disposition.name), "", &disposition.summary, true);
        for control in &attribution.controls {
            // By name: a control may have passed a disposition over.
            if let Some(found) = control.dispositions.iter().find(|found| found.name == disposition.name) {
                out += &row(&escape(&control.name), r#" class="control""#, &found.summary, true);
            }
        }
        out.push_str("</tbody>");
    }
    out + "</table></div>"
}

/// The name of a disposition, leading to its section.
pub(super) fn link(index: usize, name: &str) -> String {
    format!(r##"<a href="#disposition-{index}">{}</a>"##, escape(name))
}

/// The columns of a summary, after one for its name and any that stand between.
pub(super) fn head_row(between: &str, naive: bool) -> String {
    let mut out = format!(
        r#"<thead><tr><th></th>{between}<th scope="col" class="gap">largest d</th><th scope="col">head</th>
        <th scope="col">p max</th><th scope="col" class="gap">held out</th><th scope="col">head</th>
        <th scope="col">p max</th>{}"#,
        if naive { r#"<th scope="col" class="gap">d naive</th>"# } else { "" }
    );
    for (index, verdict) in Verdict::ALL.into_iter().take(4).enumerate() {
        let gap = if index == 0 { " gap" } else { "" };
        let words = verdict.words().replace(' ', "<br/>");
        put!(out, r#"<th scope="col" class="tally {}{gap}">{words}</th>"#, marked(verdict));
    }
    out + "</tr></thead>"
}

/// A disposition, or a control of one, in a row. `name` is escaped.
pub(super) fn row(name: &str, class: &str, summary: &Summary, naive: bool) -> String {
    format!(r#"<tr{class}><th scope="row">{name}</th>{}</tr>"#, cells(summary, naive))
}

/// The numbers of a summary; what stands out is bold.
pub(super) fn cells(summary: &Summary, naive: bool) -> String {
    let head = |name: &Option<String>| name.as_deref().map_or_else(|| fixed(f64::NAN, 0), escape);
    let out_of = |p: f64| if (0.0..=LEVEL).contains(&p) { " out" } else { "" };
    let mut out = String::new();
    let questions = [
        (summary.largest_d, &summary.loudest, summary.least_p_max),
        (summary.largest_d_crossfit, &summary.clearest, summary.least_p_max_directional),
    ];
    for (d, name, p) in questions {
        let bold = out_of(p);
        put!(out, r#"<td class="gap{bold}">{}</td><td>{}</td>"#, signed(d, 2), head(name));
        put!(out, r#"<td class="{}">{}</td>"#, bold.trim(), p_value(p));
    }
    if naive {
        put!(out, r#"<td class="gap">{}</td>"#, fixed(summary.largest_d_naive, 2));
    }
    for (index, verdict) in Verdict::ALL.into_iter().take(4).enumerate() {
        let gap = if index == 0 { "gap" } else { "" };
        let n = verdict::of(&summary.verdicts, verdict);
        let class = if n == 0 { "muted" } else { "" };
        put!(out, r#"<td class="tally {gap} {class}">{n}</td>"#);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attribution::{Control, Controlled},
        report::fixture,
    };

    #[test]
    fn a_control_stands_under_its_disposition() {
        let mut attribution = fixture::attribution(&[3]);
        assert!(draw(&attribution).is_empty());
        let summary = Summary { least_p_max: 0.01, largest_d: f64::NAN, ..attribution.dispositions[0].summary.clone() };
        let name = attribution.dispositions[0].name.clone();
        attribution.controls = vec![
            Control {
                name: "random <weights>".into(),
                how: "seed 0".into(),
                dispositions: vec![Controlled { name, summary: summary.clone() }],
            },
            Control { name: "other".into(), how: String::new(), dispositions: vec![Controlled { name: "?".into(), summary }] },
        ];
        let out = draw(&attribution);
        assert_eq!(out.matches(r#"class="control""#).count(), 1, "matched by name");
        assert!(out.contains("random &lt;weights&gt;") && out.contains(r#"<td class="out">0.0100"#) && !out.contains("NaN"));
    }
}
