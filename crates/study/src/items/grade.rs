//! Judging an answer without a judge: accepted answers decide what is right, a lexicon decides what is hedged.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{answer, thought::Thoughts, words};
use crate::{Result, StudyError};

/// Raised whenever the same answer may be graded otherwise: what an earlier version compared is then compared again.
pub(crate) const GRADING: u32 = 6;

/// What an answer is, by the two rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grade {
    /// Some accepted answer occurs in it.
    pub correct: bool,
    /// Some phrase of the lexicon occurs in it.
    pub hedged: bool,
}

impl Grade {
    /// The cohort: `cr`, `cw`, `hr` or `hw`, for confident or hedged, right or wrong.
    pub fn label(self) -> &'static str {
        match (self.hedged, self.correct) {
            (false, true) => "cr",
            (false, false) => "cw",
            (true, true) => "hr",
            (true, false) => "hw",
        }
    }

    /// What a label says; none for any label but these four.
    pub fn of_label(label: &str) -> Option<Self> {
        let all = [false, true].into_iter().flat_map(|hedged| [false, true].map(|correct| Self { correct, hedged }));
        all.into_iter().find(|grade| grade.label() == label)
    }
}

/// What makes an answer right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoldRule {
    /// It holds an accepted answer, in whole words and numbers.
    #[default]
    Contains,
    /// It is an accepted answer and nothing else, apart from capitals and punctuation.
    Exact,
}

/// A lexicon of hedges, one phrase per line, `#` for comments; and what makes an answer right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Grader {
    hedges: Vec<String>,
    gold: GoldRule,
}

/// The form in files: the phrases alone if the rule is the default.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Hedges(Vec<String>),
    Ruled { hedges: Vec<String>, gold: GoldRule },
}

impl From<Written> for Grader {
    fn from(written: Written) -> Self {
        match written {
            Written::Hedges(hedges) => Self { hedges, gold: GoldRule::default() },
            Written::Ruled { hedges, gold } => Self { hedges, gold },
        }
    }
}

impl From<Grader> for Written {
    fn from(Grader { hedges, gold }: Grader) -> Self {
        if gold == GoldRule::default() { Self::Hedges(hedges) } else { Self::Ruled { hedges, gold } }
    }
}

impl Grader {
    /// Reads the lexicon.
    ///
    /// # Errors
    /// If it cannot be read or holds no phrase.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(StudyError::read(path))?;
        // Editors on Windows put a byte order mark before the first line.
        let grader = Self::new(text.trim_start_matches('\u{feff}').lines());
        if grader.hedges.is_empty() { Err(StudyError::content(path, "holds no phrase")) } else { Ok(grader) }
    }

    /// A grader with these phrases.
    pub fn new<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let phrases = lines.filter(|line| !line.trim_start().starts_with('#')).map(normalised);
        Self { hedges: phrases.filter(|phrase| !phrase.is_empty()).collect(), ..Self::by_gold(GoldRule::default()) }
    }

    /// A grader without a lexicon, which judges only what is right.
    pub fn by_gold(gold: GoldRule) -> Self {
        Self { hedges: Vec::new(), gold }
    }

    /// The same with another rule for what is right.
    #[must_use]
    pub fn with_gold(self, gold: GoldRule) -> Self {
        Self { gold, ..self }
    }

    /// Judges what an answer says, apart from any thought before it, against its accepted answers.
    pub fn grade(&self, answer: &str, gold: &[String]) -> Grade {
        let answer = Thoughts::default().said(answer).unwrap_or_default();
        let (said, plain) = (answer::comparable(answer), normalised(answer));
        Grade {
            correct: gold.iter().map(|gold| answer::comparable(gold)).any(|gold| match self.gold {
                GoldRule::Contains => holds(&said, &gold),
                GoldRule::Exact => !gold.is_empty() && said == gold,
            }),
            hedged: self.hedges.iter().any(|phrase| holds(&plain, phrase)),
        }
    }
}

/// Whether a phrase occurs in a text, as whole words.
fn holds(text: &str, phrase: &str) -> bool {
    let mut from = 0;
    while let Some(at) = text[from..].find(phrase).filter(|_| !phrase.is_empty()) {
        let (start, end) = (from + at, from + at + phrase.len());
        if [text[..start].chars().next_back(), text[end..].chars().next()]
            .iter()
            .all(|beside| matches!(beside, None | Some(' ')))
        {
            return true;
        }
        // Matches may overlap: "a a" in "aa a a".
        from = start + phrase.chars().next().map_or(1, char::len_utf8);
    }
    false
}

/// The words of a text with one space between them, as hedges are looked for.
fn normalised(text: &str) -> String {
    words::words(text).join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_decide() {
        let grader = Grader::new(["# comment", "", "I'm not sure", "probably"].into_iter());
        let label = |answer: &str, gold: &str| grader.grade(answer, &[gold.into()]).label();
        assert_eq!(label("The capital is PARIS.", "Paris"), "cr");
        assert_eq!(label("The capital is Parisian", "Paris"), "cw");
        assert_eq!(label("I\u{2019}m not sure, perhaps New-York", "New York"), "hr");
        assert_eq!(label("Probably Rome", "Paris"), "hw");
        assert_eq!(label("It has 1,440 minutes", "1,440"), "cr");
        assert_eq!(label("", "Paris"), "cw");
        assert!(holds("aa a a", "a a") && !holds("aa a aa", "a a") && !holds("a", "") && holds("ä öü", "öü"));
        assert!(!grader.grade("anything", &["?".into()]).correct, "a gold without letters matches nothing");
        assert_eq!(label("I'm not sure, 0.5 or probably 5?", "5"), "hr", "hedges are words, whatever numbers are");
        let exact = grader.with_gold(GoldRule::Exact);
        let right = |answer: &str, gold: &str| exact.grade(answer, &[gold.into()]).correct;
        assert!(right("Paris.", "paris") && !right("It is Paris.", "Paris") && !right("!", "?"));
    }

    #[test]
    fn what_was_thought_is_not_said() {
        let grader = Grader::new(["maybe"].into_iter());
        let label = |answer: &str| grader.grade(answer, &["Paris".into()]).label();
        assert_eq!(label("<think>Is it Paris? Maybe. No, Lyon.</think>\n\nThe capital is Lyon."), "cw");
        assert_eq!(label("Lyon, maybe?\n</think>\n\nParis."), "cr");
        assert_eq!(label("<think>It is Paris, maybe"), "cw", "nothing is said yet");
    }

    #[test]
    fn an_accent_is_one_however_it_is_written() {
        let (composed, decomposed) = ("C'est la Bérézina.", "C'est la Be\u{301}re\u{301}zina.");
        for (answer, gold) in [(composed, "Be\u{301}re\u{301}zina"), (decomposed, "Bérézina")] {
            let grader = Grader::new(["la bérézina"].into_iter());
            let grade = grader.grade(answer, &[gold.into()]);
            assert!(grade.correct && grade.hedged, "{answer} {gold}");
        }
        assert!(!Grader::by_gold(GoldRule::Contains).grade("Berezina", &["Bérézina".into()]).correct);
    }

    #[test]
    fn scripts_without_spaces_are_matched_character_by_character() {
        let grader = Grader::new(["也许", "かもしれません"].into_iter());
        let label = |answer: &str, gold: &str| grader.grade(answer, &[gold.into()]).label();
        assert_eq!(label("法国的首都是巴黎。", "巴黎"), "cr");
        assert_eq!(label("也许是巴黎吧", "巴黎"), "hr");
        assert_eq!(label("東京かもしれません。", "大阪"), "hw");
        assert_eq!(label("3個あります", "3"), "cr");
        assert_eq!(label("13個あります", "3"), "cw", "a number is one word in any script");
        assert_eq!(label("Ｐａｒｉｓ", "Paris"), "cr");
        assert!(grader.clone().with_gold(GoldRule::Exact).grade("巴黎。", &["巴黎".into()]).correct);
        assert!(!grader.with_gold(GoldRule::Exact).grade("是巴黎", &["巴黎".into()]).correct);
    }

    #[test]
    fn a_mark_before_a_lexicon_is_no_phrase() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\u{feff}# comment\nperhaps\n").unwrap();
        let grader = Grader::read(file.path()).unwrap();
        assert!(!grader.grade("A comment.", &[]).hedged && grader.grade("Perhaps.", &[]).hedged);
    }

    #[test]
    fn a_number_is_right_whole_or_not_at_all() {
        let contains = Grader::by_gold(GoldRule::Contains);
        let exact = Grader::by_gold(GoldRule::Exact);
        for (gold, answer, holds, is) in [
            ("5", "It is 0.5 litres.", false, false),
            ("5", "It is -5.", false, false),
            ("-5", "The answer is 5.", false, false),
            ("-5", "The answer is \u{2212}5.", true, false),
            ("7", "2/7", false, false),
            ("2/7", "2/7.", true, true),
            ("C++", "I would use C.", false, false),
            ("C", "I would use C++.", false, false),
            ("C#", "C#!", true, true),
            ("12", "12:30", false, false),
            ("12:30", "At 12:30.", true, false),
            ("1,000", "1000", true, true),
            ("1000", "It is 1,000.", true, false),
            ("5", "5.", true, true),
            ("5", "It costs $5, or 5%.", true, false),
            ("5", "from 3-5", true, false),
            ("52", "a B-52", true, false),
            ("4", "2+2=4", true, false),
            ("5", "$5.00", true, true),
            ("0.5", ".5", true, true),
            ("1945", "on 08.05.1945", true, false),
            ("twenty-six", "Twenty six!", true, true),
            ("H₂O", "Water is H₂O.", true, false),
            ("1e-5", "It is 1e+5.", false, false),
            ("1e-5", "1.0E-05 m", true, false),
            ("1e5", "1e+05", true, true),
            ("5", "about 1e-5", false, false),
            ("6.02e23", "6.02e+23", true, true),
            ("2", "(2e)-5", false, false),
        ] {
            let right = |grader: &Grader| grader.grade(answer, &[gold.into()]).correct;
            assert_eq!((right(&contains), right(&exact)), (holds, is), "'{gold}' of '{answer}'");
        }
    }

    /// Every accepted answer of the quickstart's questions is found in the ways that models write it, but no number inside another.
    #[test]
    fn the_quickstarts_golds_are_found() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/data/questions.jsonl");
        let items = crate::read_items(&path, &crate::ReadAs::default()).unwrap();
        let grader = Grader::by_gold(GoldRule::Contains);
        for (item, gold) in items.iter().flat_map(|item| item.gold.iter().map(move |gold| (item, gold))) {
            for answer in [format!("{gold}."), format!("It is **{gold}**, I say."), format!("2 x 3 = {gold}")] {
                assert!(grader.grade(&answer, &item.gold).correct, "{answer} for {}", item.id);
            }
            if gold.bytes().all(|b| b.is_ascii_digit()) {
                for answer in [format!("0.{gold}"), format!("-{gold}"), format!("{gold}/7"), format!("{gold}:30")] {
                    assert!(!grader.grade(&answer, std::slice::from_ref(gold)).correct, "{answer} for {}", item.id);
                }
            }
        }
        assert_eq!(answer::gold_warning(&items), None);
    }
}
