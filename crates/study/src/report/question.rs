//! What is asked: the disposition, its two cohorts and where they come from.

use crate::{
    attribution::Disposition,
    report::text::{escape, put},
};

/// The disposition in words, after its name if no heading has it, and a line for each cohort.
pub(super) fn draw(disposition: &Disposition, named: bool) -> String {
    let mut out = String::new();
    let means = if disposition.means.is_empty() { String::new() } else { escape(&sentence(&disposition.means)) };
    match (named, means.is_empty()) {
        (true, true) => put!(out, "<p><b>{}</b></p>", escape(&disposition.name)),
        (true, false) => put!(out, "<p><b>{}</b>. <span class=\"lead\">{means}</span></p>", escape(&disposition.name)),
        (false, true) => {}
        (false, false) => put!(out, r#"<p class="lead">{means}</p>"#),
    }
    out.push_str(r#"<dl class="question">"#);
    let cohorts = [
        ("a", &disposition.a, disposition.n_a, &disposition.a_where),
        ("b", &disposition.b, disposition.n_b, &disposition.b_where),
    ];
    for (letter, name, n, holds) in cohorts {
        put!(out, "<dt>{letter}</dt><dd><b>{}</b>", escape(name));
        if !holds.is_empty() {
            put!(out, " <code>{}</code>", escape(holds));
        }
        put!(out, "</dd><dd>{n}</dd>");
    }
    out.push_str("</dl>");
    let a = escape(&disposition.a);
    put!(out, r#"<p class="note">Differences are a minus b: d &gt; 0 is louder in {a}."#);
    if !disposition.source.is_empty() {
        put!(out, " Source: {}", escape(&sentence(&disposition.source)));
    }
    out + "</p>"
}

/// The text with a capital at its start and a full stop at its end.
fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    let stop = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{stop}", characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn what_nobody_said_is_left_out() {
        let mut disposition = fixture::disposition(&[1]);
        let out = draw(&disposition, true);
        assert!(out.contains("<b>overconfidence</b>. <"));
        assert!(out.contains("Sure of what is wrong.") && out.contains("Source: Made up."));
        assert!(out.contains("<code>label == &quot;cw&quot;</code></dd><dd>78</dd>"), "{out}");
        disposition.means.clear();
        disposition.source.clear();
        disposition.a_where.clear();
        let out = draw(&disposition, false);
        assert!(!out.contains("lead") && !out.contains("Source") && out.matches("<code>").count() == 1);
    }

    #[test]
    fn sentences_are_closed_once() {
        assert_eq!((sentence("état?"), sentence(""), sentence("x.")), ("État?".into(), ".".into(), "X.".into()));
    }
}
