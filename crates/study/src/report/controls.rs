//! The result, compared with the same computation where there is nothing to find.

use crate::{
    attribution::{Attribution, Control, Controlled, Summary, Verdict},
    report::{
        text::{NARROW, count, escape, fixed, p_value, put, signed, wide},
        verdict::{self, marked},
    },
    significance::LEVEL,
};

/// One table over all dispositions; nothing if no control was run.
pub(super) fn draw(attribution: &Attribution) -> String {
    if attribution.controls.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        r#"<section id="controls"><h2>Where there is nothing to find</h2>
        <p>The same computation once more. With shuffled labels, whatever stands out does so by chance. A model with
        random weights has learnt nothing, but it reads the same texts: what stands out in it is a difference between
        the texts, not something that the trained heads found.</p>"#,
    );
    out += &table(attribution);
    out.push_str(r#"<dl class="facts">"#);
    for control in &attribution.controls {
        put!(out, "<dt>{}</dt><dd>{}</dd>", escape(&control.name), escape(&control.how));
    }
    out + "</dl></section>"
}

/// How a control weakens the findings: said at the top, since a verdict without it misleads.
pub(super) fn caution(attribution: &Attribution) -> String {
    let finds = |summary: &Summary| {
        [Verdict::Separable, Verdict::MagnitudeOnly].iter().any(|&which| verdict::of(&summary.verdicts, which) > 0)
    };
    let untrained = attribution.controls.iter().filter(|control| control.name == Control::RANDOM);
    let found: Vec<&Controlled> =
        untrained.flat_map(|control| &control.dispositions).filter(|x| finds(&x.summary)).collect();
    if found.is_empty() {
        return String::new();
    }
    let heads = |one: &Controlled| {
        let n =
            [Verdict::Separable, Verdict::MagnitudeOnly].iter().map(|&which| verdict::of(&one.summary.verdicts, which));
        format!("{} ({})", escape(&one.name), count(n.sum(), "head"))
    };
    let names: Vec<String> = found.into_iter().map(heads).collect();
    format!(
        r##"<p class="caution"><b>Random weights find heads</b>, for {}. That much is a difference between the texts, which
        <a href="#controls">an untrained network shows</a>.</p>"##,
        names.join(", ")
    )
}

fn table(attribution: &Attribution) -> String {
    let mut out = wide("Dispositions and their controls", "grouped");
    out += &head_row("disposition, control", "", true);
    for (index, disposition) in attribution.dispositions.iter().enumerate() {
        out.push_str("<tbody>");
        out += &row(&link(index, &disposition.name), "", &disposition.summary, true);
        for control in &attribution.controls {
            // By name: a control may have skipped a disposition.
            if let Some(found) = control.dispositions.iter().find(|found| found.name == disposition.name) {
                out += &row(&escape(&control.name), r#" class="control""#, &found.summary, true);
            }
        }
        out.push_str("</tbody>");
    }
    out + NARROW
}

/// The name of a disposition, as a link to its section.
pub(super) fn link(index: usize, name: &str) -> String {
    format!(r##"<a href="#disposition-{index}">{}</a>"##, escape(name))
}

/// The verdicts that have a column; all other heads are untested.
const TALLIED: [Verdict; 4] =
    [Verdict::Separable, Verdict::MagnitudeOnly, Verdict::VarianceArtefact, Verdict::NoEvidence];

/// The columns of a summary, after one for its name and any in between.
pub(super) fn head_row(name: &str, between: &str, naive: bool) -> String {
    let mut out = format!(r#"<thead><tr><th scope="col">{name}</th>{between}"#);
    for verdict in TALLIED {
        let words = verdict.words().replace(' ', "<br/>");
        put!(out, r#"<th scope="col" class="tally {}">{words}</th>"#, marked(verdict));
    }
    out.push_str(
        r#"<th scope="col" class="gap">largest d</th><th scope="col">head</th><th scope="col">least p max</th>
        <th scope="col" class="gap">held out</th><th scope="col">head</th><th scope="col">least p max</th>"#,
    );
    out + if naive { r#"<th scope="col" class="gap">d naive</th></tr></thead>"# } else { "</tr></thead>" }
}

/// A row for a disposition, or for a control of one. `name` is escaped already.
pub(super) fn row(name: &str, class: &str, summary: &Summary, naive: bool) -> String {
    format!(r#"<tr{class}><th scope="row">{name}</th>{}</tr>"#, cells(summary, naive))
}

/// The numbers of a summary; a p that stands out is bold.
pub(super) fn cells(summary: &Summary, naive: bool) -> String {
    let head = |name: &Option<String>| name.as_deref().map_or_else(|| fixed(f64::NAN, 0), escape);
    let out_of = |p: f64| if (0.0..=LEVEL).contains(&p) { "out" } else { "" };
    let mut out = String::new();
    for verdict in TALLIED {
        let n = verdict::of(&summary.verdicts, verdict);
        put!(out, "<td{}>{n}</td>", if n == 0 { r#" class="muted""# } else { "" });
    }
    let questions = [
        (summary.largest_d, &summary.loudest, summary.least_p_max),
        (summary.largest_d_crossfit, &summary.clearest, summary.least_p_max_directional),
    ];
    for (d, name, p) in questions {
        // The least p may be another head's: only it can be bold, the largest d cannot.
        put!(out, r#"<td class="gap">{}</td><td>{}</td>"#, signed(d, 2), head(name));
        put!(out, r#"<td class="{}">{}</td>"#, out_of(p), p_value(p));
    }
    if naive {
        put!(out, r#"<td class="gap">{}</td>"#, fixed(summary.largest_d_naive, 2));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

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
            // No disposition has this name.
            Control {
                name: "other".into(),
                how: String::new(),
                dispositions: vec![Controlled { name: "?".into(), summary }],
            },
        ];
        let out = draw(&attribution);
        assert_eq!(out.matches(r#"class="control""#).count(), 1, "matched by name");
        assert!(
            out.contains("random &lt;weights&gt;") && out.contains(r#"<td class="out">0.010"#) && !out.contains("NaN")
        );
    }

    #[test]
    fn findings_of_random_weights_are_said_at_the_top() {
        let mut attribution = fixture::attribution(&[3]);
        let mut controlled = Controlled { name: "<x>".into(), summary: attribution.dispositions[0].summary.clone() };
        let control = |one: &Controlled| Control {
            name: Control::RANDOM.into(),
            how: String::new(),
            dispositions: vec![one.clone()],
        };
        attribution.controls = vec![control(&controlled)];
        assert!(caution(&attribution).is_empty(), "variance artefacts are no finding");
        controlled.summary.verdicts = vec![(Verdict::Separable, 4), (Verdict::MagnitudeOnly, 1)];
        attribution.controls = vec![control(&controlled)];
        assert!(caution(&attribution).contains("for &lt;x&gt; (5 heads)"));
    }
}
