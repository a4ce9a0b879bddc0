//! How much was asked of these data, and how much of it chance would answer.

use headtemper_hook::HeadKind;

use crate::{
    Adjust, Compat, HeadChoice,
    attribution::Attribution,
    report::text::{count, escape, fixed, put},
    significance::LEVEL,
};

/// The section.
pub(super) fn draw(attribution: &Attribution) -> String {
    let method = &attribution.method;
    let mut out = format!(r#"<section id="tried"><h2>What was tried</h2><p>{}</p>"#, sentence(attribution));
    out.push_str(r#"<dl class="facts">"#);
    let mut fact = |name: &str, value: String| put!(out, "<dt>{name}</dt><dd>{value}</dd>");
    let heads = match method.heads {
        HeadChoice::All
            if attribution.dispositions.iter().flat_map(|one| &one.heads).all(|head| head.kind == HeadKind::Query) =>
        {
            "all of them".to_owned()
        }
        HeadChoice::All => "all of them, attention and delta nets alike".to_owned(),
        HeadChoice::Attn => "query heads of attention only".to_owned(),
        HeadChoice::Linear => "value heads of delta nets only".to_owned(),
    };
    fact("heads ranked", heads);
    fact(
        "taken out before",
        match method.adjust {
            Adjust::None => "nothing".to_owned(),
            Adjust::Length => "the length of the response and its logarithm".to_owned(),
        },
    );
    if let Some(field) = &method.within {
        let field = escape(field);
        fact("within", format!("{field}: its values taken out, labels shuffled among items of one value"));
    }
    if let Some(field) = &method.groups {
        let field = escape(field);
        fact("groups", format!("{field}: items of one value stay together, as the answers to one prompt do"));
    }
    fact(
        "arithmetic",
        match method.compat {
            Compat::None => "as described below".to_owned(),
            Compat::Dd => "that of the scripts of arXiv 2604.11867: heads ranked by signed d".to_owned(),
        },
    );
    for skipped in &attribution.skipped {
        put!(out, "<dt>not attributed</dt><dd><b>{}</b>: {}</dd>", escape(&skipped.name), escape(&skipped.why));
    }
    out + "</dl></section>"
}

/// How many heads chance alone would name.
pub(super) fn sentence(attribution: &Attribution) -> String {
    let dispositions = attribution.dispositions.len();
    let heads = attribution.dispositions.iter().map(|one| one.heads.len()).max().unwrap_or(0);
    let expected = 2.0 * dispositions as f64 * LEVEL;
    let asked = format!(
        "{} × 2 questions × {}: {} numbers were looked at",
        count(dispositions, "disposition"),
        count(heads, "head"),
        attribution.dispositions.iter().map(|one| 2 * one.heads.len()).sum::<usize>()
    );
    if attribution.method.shuffles == 0 {
        return format!("{asked}, and none beside shuffled labels.");
    }
    format!(
        "{asked}. The p max and q of a question are corrected for all its heads, not for the questions: without any signal, \
        {} of {} would still name a head, and up to {} where p max and q find other heads.",
        fixed(expected, 1),
        count(2 * dispositions, "question"),
        fixed(2.0 * expected, 1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attribution::Skipped, report::fixture};

    #[test]
    fn chance_is_said_in_numbers() {
        let mut attribution = fixture::attribution(&[3, 3]);
        let text = sentence(&attribution);
        assert!(text.starts_with("1 disposition × 2 questions × 6 heads: 12 numbers"), "{text}");
        assert!(text.contains("0.1 of 2 questions"), "{text}");
        attribution.method.shuffles = 0;
        assert!(sentence(&attribution).ends_with("none beside shuffled labels."));
    }

    #[test]
    fn what_was_passed_over_is_named() {
        let mut attribution = fixture::attribution(&[3]);
        attribution.skipped.push(Skipped { name: "<eager>".into(), why: "2 & 3 items".into() });
        attribution.method.compat = Compat::Dd;
        let out = draw(&attribution);
        assert!(out.contains("<b>&lt;eager&gt;</b>: 2 &amp; 3 items") && out.contains("ranked by signed d"));
    }
}
