//! What the page says to somebody who reads nothing else: a sentence, its rule, and a row for each disposition.

use crate::{
    attribute,
    attribution::{Attribution, Disposition, Verdict},
    report::{
        controls,
        text::{NARROW, count, escape, put, typeset, wide},
        tried, verdict,
    },
};

/// The top of the page.
pub(super) fn draw(attribution: Option<&Attribution>) -> String {
    let Some(attribution) = attribution.filter(|attribution| !attribution.dispositions.is_empty()) else {
        return r#"<div class="verdict"><p>No verdict: no cohorts were compared.</p></div>"#.to_owned();
    };
    let rule = escape(&unbroken(&attribute::rule()));
    match &attribution.dispositions[..] {
        [one] => format!(
            r#"<div class="verdict over"><p>{}</p><p class="note">{rule}</p></div>{}"#,
            escape(&unbroken(&one.sentence)),
            verdict::counts(&one.summary.verdicts)
        ),
        several => format!(
            r#"<div class="verdict over"><p>{}</p><p class="note">{rule}</p></div>{}{}<p class="note">{}</p>"#,
            headline(several),
            table(several),
            controls::caution(attribution),
            tried::sentence(attribution)
        ),
    }
}

/// Keeps a line from ending between a number and its per cent sign, or between d and its number.
pub(super) fn unbroken(text: &str) -> String {
    typeset(text).replace(" %", "\u{a0}%").replace("(d ", "(d\u{a0}")
}

/// How many dispositions have a head of each kind.
fn headline(dispositions: &[Disposition]) -> String {
    let has = |one: &&Disposition, which| verdict::of(&one.summary.verdicts, which) > 0;
    let separable = dispositions.iter().filter(|one| has(one, Verdict::Separable)).count();
    let louder =
        dispositions.iter().filter(|one| !has(one, Verdict::Separable) && has(one, Verdict::MagnitudeOnly)).count();
    let untested = dispositions.iter().filter(|one| one.summary.verdicts.iter().all(|(v, _)| *v == Verdict::Untested));
    let (all, untested) = (dispositions.len(), untested.count());
    if untested == all {
        return format!("No verdict on any of {}: too few shuffles to tell.", count(all, "disposition"));
    }
    let mut out = match separable {
        0 => format!("None of {} has a head that separates its cohorts", count(all, "disposition")),
        1 => format!("1 of {} has a head that separates its cohorts", count(all, "disposition")),
        n => format!("{n} of {} have heads that separate their cohorts", count(all, "disposition")),
    };
    out.push_str(" on held-out items");
    if louder > 0 {
        put!(out, "; {louder} {} in magnitude only", if louder == 1 { "differs" } else { "differ" });
    }
    let none = all - separable - louder - untested;
    if none > 0 {
        put!(out, "; {none} {} no evidence for any head", if none == 1 { "has" } else { "have" });
    }
    if untested > 0 {
        put!(out, "; {untested} {} untested", if untested == 1 { "is" } else { "are" });
    }
    out + "."
}

/// One row per disposition, linking to its section.
fn table(dispositions: &[Disposition]) -> String {
    let between = r#"<th scope="col">n a</th><th scope="col">n b</th>"#;
    let mut out = wide("Dispositions", "overview");
    out += &controls::head_row("disposition", between, false);
    out.push_str("<tbody>");
    for (index, one) in dispositions.iter().enumerate() {
        put!(out, r#"<tr><th scope="row">{}</th>"#, controls::link(index, &one.name));
        put!(out, "<td>{}</td><td>{}</td>{}</tr>", one.n_a, one.n_b, controls::cells(&one.summary, false));
    }
    out + "</tbody>" + NARROW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn one_disposition_says_its_own_sentence() {
        let attribution = fixture::attribution(&[3]);
        let out = draw(Some(&attribution));
        assert!(out.contains("No evidence for any of them.") && out.contains("3</b> variance artefact"));
        assert!(out.contains("Two questions are asked of every head") && !out.contains("<table"));
        assert!(draw(None).contains("no cohorts were compared"));
    }

    #[test]
    fn several_are_counted_and_lead_to_their_sections() {
        let mut attribution = fixture::several(&[3], 4);
        assert_eq!(
            headline(&attribution.dispositions),
            "None of 4 dispositions has a head that separates its cohorts on held-out items; 4 have no evidence for any \
             head."
        );
        attribution.dispositions[0].summary.verdicts = vec![(Verdict::Separable, 1), (Verdict::MagnitudeOnly, 1)];
        attribution.dispositions[1].summary.verdicts = vec![(Verdict::MagnitudeOnly, 1)];
        attribution.dispositions[2].summary.verdicts = vec![(Verdict::Untested, 3)];
        assert_eq!(
            headline(&attribution.dispositions),
            "1 of 4 dispositions has a head that separates its cohorts on held-out items; 1 differs in magnitude only; \
             1 has no evidence for any head; 1 is untested."
        );
        let out = draw(Some(&attribution));
        assert!(out.contains("href=\"#disposition-3\"") && out.contains("0.4 of 8 questions"));
        attribution.dispositions.iter_mut().for_each(|one| one.summary.verdicts = vec![(Verdict::Untested, 3)]);
        assert!(headline(&attribution.dispositions).starts_with("No verdict on any of 4"));
    }
}
