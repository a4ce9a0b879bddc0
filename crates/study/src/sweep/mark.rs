//! What is known of each answer of a sweep: what the rules say, and what a judge said.

use super::compared::Compared;
use crate::{GoldRule, Grader, Item, Row, items::thought::Thoughts};

/// What is known of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mark {
    /// Whether it is right; none where nothing says so.
    pub right: Option<bool>,
    /// Whether it is asserted, that is, without a hedge; none likewise.
    pub asserted: Option<bool>,
    /// Its level along each axis of a judge's, from 1 to 5; none where the verdict is missing.
    pub levels: Vec<Option<f64>>,
    /// Whether a verdict is missing that would say whether it is right.
    pub right_missing: bool,
    /// Whether a verdict is missing that would say whether it is asserted, or, of rules, the answer is empty or ends within a thought.
    pub asserted_missing: bool,
}

impl Mark {
    /// Whether a verdict is missing that an outcome needs; `axes` are those of the levels.
    pub(crate) fn lacks(&self, which: Compared<'_>, axes: &[String]) -> bool {
        match which {
            Compared::Accuracy => self.right_missing,
            Compared::AssertionRate => self.asserted_missing,
            Compared::AssertionAsymmetry => self.right_missing || self.asserted_missing,
            Compared::MeanTokens => false,
            Compared::Score(axis) => axes.iter().zip(&self.levels).any(|(own, level)| own == axis && level.is_none()),
        }
    }
}

/// What a judge said of the answers of a sweep.
#[derive(Clone, Debug)]
pub struct JudgedAnswers {
    /// The judge model.
    pub judge: String,
    /// What it was asked for.
    pub tasks: Vec<String>,
    /// The axes along which it gave levels.
    pub axes: Vec<String>,
    /// One for each answer: `[arm][seed * items + item]`
    pub marks: Vec<Vec<Mark>>,
    /// What a reader must know about the judging.
    pub warnings: Vec<String>,
}

/// What accepted answers say of an arm's answers, in the order `[seed * items + item]`, and a lexicon of hedges if there is one.
pub(crate) fn marks_by_rules(items: &[Item], rows: &[Row], grader: Option<&Grader>, thoughts: Thoughts) -> Vec<Mark> {
    // With a grader, right is what its labels call right.
    let plain = Grader::by_gold(GoldRule::default());
    let gold = grader.unwrap_or(&plain);
    let mark = |(row, item): (&Row, &Item)| {
        let thoughts = thoughts.after(&item.input);
        let grade = gold.grade(thoughts.said(&row.response).unwrap_or_default(), &item.gold);
        // Nobody asserts anything by saying nothing, as to a judge.
        let empty = grader.is_some() && !thoughts.says(&row.response);
        Mark {
            right: (!item.gold.is_empty()).then_some(grade.correct),
            asserted: grader.filter(|_| !empty).map(|_| !grade.hedged),
            asserted_missing: empty,
            ..Mark::default()
        }
    };
    rows.iter().zip(items.iter().cycle()).map(mark).collect()
}
