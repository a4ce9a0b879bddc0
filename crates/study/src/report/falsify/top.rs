//! What the page says to somebody who reads nothing else.

use crate::{
    falsify::{Falsification, Step, word},
    probe::Origin,
    report::{
        falsify::{mark, plane, without_folders},
        html,
        text::{UNDEFINED, count, escape, fixed, put, typeset},
    },
    text::capital,
};

/// The header, closed.
pub(super) fn draw(found: &Falsification) -> String {
    let mut out = html::open(&found.title, &eyebrow(found));
    put!(
        out,
        r#"<div class="verdict"><p><b class="outcome {}">{}</b>{}</p><p class="note">{}</p></div>"#,
        mark(found.verdict),
        capital(word(found.verdict)),
        escape(&typeset(&found.sentence)),
        escape(&rule(found))
    );
    strip(&mut out, &found.steps);
    totals(&mut out, found);
    out += &html::warning_list(&found.warnings);
    out += &html::contents(&sections(found));
    out + "</header>"
}

/// The sections of the page, in its order.
fn sections(found: &Falsification) -> Vec<(String, String)> {
    let all = [
        ("collapse", "training and fresh", true),
        ("steps", "five steps", true),
        ("gate", "gate", true),
        ("axes", "scores", !found.axes.is_empty()),
        ("plane", "plane", !plane::draw(&found.plane).is_empty()),
        ("baselines", "baselines", !found.baselines.is_empty()),
        ("fixed", "fixed beforehand", true),
        ("run", "what was run", true),
        ("columns", "glossary", true),
    ];
    all.into_iter().filter(|(.., there)| *there).map(|(id, name, _)| (id.to_owned(), name.to_owned())).collect()
}

/// What was examined, in a line.
fn eyebrow(found: &Falsification) -> String {
    let origin = &found.train;
    let source = without_folders(&origin.features);
    let of = match &origin.meta {
        Some(meta) => format!("{} · {} · {source}", meta.identity.model, meta.site),
        None => source,
    };
    let (train, fresh) = (count(found.train.items, "training item"), count(found.fresh.items, "fresh item"));
    format!("{} · {train} · {fresh}", escape(&of))
}

/// The rule that the verdict follows.
fn rule(found: &Falsification) -> String {
    let deciding: Vec<String> =
        found.steps.iter().filter(|step| step.decides).map(|step| step.name.to_string()).collect();
    let deciding = if deciding.is_empty() { "none".to_owned() } else { deciding.join(" and ") };
    format!(
        "Rule: {deciding} decide, in bold below; what else was run is reported. If one of them fails, so does the probe; else, \
        if one cannot tell, the verdict is open. Gates were declared, and the probe frozen, before a fresh label was read."
    )
}

/// The five steps as a line of marks that link to them.
fn strip(out: &mut String, steps: &[Step]) {
    out.push_str(r#"<ul class="counts">"#);
    for (index, step) in steps.iter().enumerate() {
        let (number, name) = (index + 1, step.name);
        let name = if step.decides { format!("<b>{name}</b>") } else { name.to_string() };
        put!(
            out,
            r##"<li class="{}"><a href="#step-{number}">{name}</a> {}</li>"##,
            mark(step.outcome),
            word(step.outcome)
        );
    }
    out.push_str("</ul>");
}

fn totals(out: &mut String, found: &Falsification) {
    let of = |origin: &Origin| format!("{} of {}", origin.positives, origin.items);
    let (cv, fresh) = (found.chosen_cv(), found.chosen_fresh());
    let cells = [
        ("cross-validated AUC", fixed(cv.map_or(f64::NAN, |result| result.cv.auc), 3)),
        ("fresh AUC", fixed(fresh.map_or(f64::NAN, |result| result.measured.auc), 3)),
        ("training items correct", of(&found.train)),
        ("fresh items correct", of(&found.fresh)),
        ("frozen threshold", found.frozen.threshold.map_or(UNDEFINED.to_owned(), |threshold| fixed(threshold, 2))),
    ];
    out.push_str(r#"<dl class="line">"#);
    for (name, value) in cells {
        put!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{falsify::Outcome, report::falsify::fixture};

    #[test]
    fn the_verdict_is_a_word_and_its_steps_lead_down() {
        let found = fixture::whole(2);
        let out = draw(&found);
        assert!(out.contains(r#"<b class="outcome m-failed">Failed</b>"#) && out.contains("cv and fresh decide"));
        assert_eq!(out.matches("href=\"#step-").count(), 5);
        assert!(out.contains("<b>fresh</b></a> failed") && out.contains("56 of 100"));
    }

    #[test]
    fn without_steps_that_decide_there_is_still_a_page() {
        let mut found = fixture::whole(0);
        (found.steps, found.verdict) = (Vec::new(), Outcome::NotRun);
        assert!(draw(&found).contains("none decide"));
    }
}
