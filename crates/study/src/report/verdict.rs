//! Verdicts as marks that differ in shape, not only in colour, and which heads stand out.

use crate::{
    attribution::{HeadEffect, Verdict},
    report::text::{count, put},
};

/// A question that is asked of every head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Question {
    /// Is z louder in one cohort?
    Magnitude,
    /// Does z lie elsewhere, on items that the direction was not fitted to?
    Direction,
}

/// Whether a head's answer is yes.
pub(super) fn stands_out(effect: &HeadEffect, question: Question) -> bool {
    // Even if nothing can be tested, a p may be small.
    effect.verdict != Verdict::Untested
        && match question {
            Question::Magnitude => effect.magnitude.is_louder(),
            Question::Direction => effect.lies_elsewhere(),
        }
}

/// The class that colours a verdict.
pub(super) fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Separable => "v-separable",
        Verdict::MagnitudeOnly => "v-magnitude",
        Verdict::VarianceArtefact => "v-artefact",
        Verdict::NoEvidence => "v-none",
        Verdict::Untested => "v-untested",
    }
}

/// The outline of a verdict's mark around a point, as the data of a path.
pub(super) fn outline(verdict: Verdict, x: f64, y: f64) -> String {
    let circle = |r: f64| format!("M{:.1} {y:.1}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z", x - r, d = 2.0 * r);
    match verdict {
        Verdict::Separable => circle(4.0),
        Verdict::MagnitudeOnly => format!("M{x:.1} {:.1}l4.6 4.6l-4.6 4.6l-4.6 -4.6z", y - 4.6),
        Verdict::VarianceArtefact => circle(2.7),
        Verdict::NoEvidence => circle(1.3),
        Verdict::Untested => format!("M{:.1} {:.1}l4 4m0 -4l-4 4", x - 2.0, y - 2.0),
    }
}

/// The class that puts the mark before a text; those who cannot see it read the words.
pub(super) fn marked(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Separable => "m-separable",
        Verdict::MagnitudeOnly => "m-magnitude",
        Verdict::VarianceArtefact => "m-artefact",
        Verdict::NoEvidence => "m-none",
        Verdict::Untested => "m-untested",
    }
}

/// How many heads have each verdict, from the strongest, as a line of marks.
pub(super) fn counts(verdicts: &[(Verdict, usize)]) -> String {
    let mut out = String::from(r#"<ul class="counts">"#);
    for (verdict, n) in verdicts.iter().filter(|(_, n)| *n > 0) {
        put!(out, r#"<li class="{}"><b>{n}</b> {verdict}</li>"#, marked(*verdict));
    }
    out + "</ul>"
}

/// How many heads have one verdict.
pub(super) fn of(verdicts: &[(Verdict, usize)], which: Verdict) -> usize {
    verdicts.iter().filter(|(verdict, _)| *verdict == which).map(|(_, n)| n).sum()
}

/// The same in words.
pub(super) fn words(verdicts: &[(Verdict, usize)]) -> String {
    let parts: Vec<String> =
        verdicts.iter().filter(|(_, n)| *n > 0).map(|(verdict, n)| format!("{n} {verdict}")).collect();
    if parts.is_empty() { count(0, "head") } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_head_stands_out_in_one_question_or_the_other() {
        let mut head = fixture::head(0, 0);
        assert!(!stands_out(&head, Question::Magnitude) && !stands_out(&head, Question::Direction));
        head.magnitude.q = 0.05;
        assert!(stands_out(&head, Question::Magnitude) && !stands_out(&head, Question::Direction));
        for hole in [f64::NAN, f64::INFINITY] {
            (head.p_max_directional, head.q_directional) = (hole, hole);
            assert!(!stands_out(&head, Question::Direction));
        }
        head.verdict = Verdict::Untested;
        assert!(!stands_out(&head, Question::Magnitude), "a small p of what nothing tests");
    }

    #[test]
    fn every_verdict_has_a_shape_of_its_own() {
        let shapes: std::collections::BTreeSet<String> =
            Verdict::ALL.into_iter().map(|verdict| outline(verdict, 0.0, 0.0)).collect();
        assert_eq!(shapes.len(), Verdict::ALL.len());
    }

    #[test]
    fn verdicts_are_counted() {
        let verdicts = [(Verdict::Separable, 2), (Verdict::NoEvidence, 7)];
        assert_eq!(words(&verdicts), "2 separable, 7 no evidence");
        assert_eq!(counts(&verdicts).matches("<li ").count(), 2);
        assert_eq!((of(&verdicts, Verdict::NoEvidence), of(&verdicts, Verdict::Untested)), (7, 0));
    }
}
