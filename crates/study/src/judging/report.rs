//! `judge.json`: what was asked, what came back, and what is missing.

use std::{collections::BTreeMap, iter};

use serde::Serialize;

use super::{
    Axis,
    labels::{Found, Verdicts},
    prompts::Kind,
    questions::Questions,
    reading::Missing,
};
use crate::text::{
    count,
    table::{
        Column::{Left, Right},
        Table,
    },
};

/// What a judge was asked and what it said, in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct JudgeReport {
    /// `judge/v1`.
    pub schema: String,
    /// The version of this program.
    pub version: String,
    /// The address of the server that was asked in this call.
    pub endpoint: String,
    /// The model that was asked for.
    pub model: String,
    /// 0.
    pub temperature: f64,
    /// The token limit of a reply.
    pub max_tokens: u32,
    /// Where the prompts come from: a directory, or `built in`.
    pub prompts: String,
    /// SHA-256 of each prompt and of the axes.
    pub prompts_sha256: BTreeMap<String, String>,
    /// How many items there are.
    pub items: usize,
    /// Hash of the items as they were read.
    pub items_key: String,
    /// Questions by kind, each counted once, however many items raise it.
    pub questions: BTreeMap<String, Counts>,
    /// Items by field: `coverage`, `verbal`, `label` and `scores.AXIS`, as far as they were asked for.
    pub fields: BTreeMap<String, FieldCounts>,
    /// Items by label.
    pub labels: BTreeMap<String, usize>,
    /// Requests in this call, including repeated ones.
    pub requests: u64,
    /// Questions that got a reply in this call.
    pub answered_now: usize,
    /// Questions that had already been answered.
    pub cached: usize,
    /// Tokens of this call, as servers counted them.
    pub tokens_now: u64,
    /// Tokens of all replies behind these labels, as servers counted them.
    pub tokens: Tokens,
    /// Who gave the replies.
    pub answered_by: Vec<Source>,
    /// Why questions in this call got no reply, and how many.
    pub failures: BTreeMap<String, usize>,
    /// Whether nothing is missing.
    pub complete: bool,
    /// What a reader should know.
    pub warnings: Vec<String>,
}

/// What became of questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them.
    pub questions: usize,
    /// With a verdict.
    pub verdicts: usize,
    /// Refused by the judge.
    pub refused: usize,
    /// Replied to with something other than what was asked for, or nothing.
    pub unparsable: usize,
    /// Of the unparsable ones, those cut off at the token limit.
    pub cut_off: usize,
    /// Without a reply.
    pub failed: usize,
    /// Not asked.
    pub unasked: usize,
}

/// How many items have a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FieldCounts {
    /// Items that have it.
    pub known: usize,
    /// Items that lack it because a verdict is missing.
    pub missing: usize,
    /// Items that cannot have it: they have neither claims nor accepted answers.
    pub without_claims: usize,
}

/// Tokens, as servers counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Of questions.
    pub prompt: u64,
    /// Of replies.
    pub completion: u64,
}

/// A server that gave replies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Its address.
    pub endpoint: String,
    /// The model that it said it was.
    pub served: Option<String>,
    /// Its replies.
    pub replies: usize,
}

/// Counts over all questions, with their tokens and sources.
pub(crate) struct Counted {
    pub(crate) questions: BTreeMap<String, Counts>,
    pub(crate) tokens: Tokens,
    pub(crate) answered_by: Vec<Source>,
}

impl Counted {
    /// Counts all questions.
    pub(crate) fn new(questions: &Questions<'_>, verdicts: Verdicts<'_>) -> Self {
        let (mut kinds, mut tokens, mut sources) = (BTreeMap::new(), Tokens::default(), BTreeMap::new());
        for question in &questions.list {
            let counts: &mut Counts = kinds.entry(question.kind().name().to_string()).or_default();
            counts.questions += 1;
            let answer = verdicts.answers.get(&question.key);
            match verdicts.missing(&question.key, question.kind()) {
                None => counts.verdicts += 1,
                Some(Missing::Refused) => counts.refused += 1,
                Some(Missing::Unparsable) => {
                    counts.unparsable += 1;
                    counts.cut_off += usize::from(answer.is_some_and(|answer| answer.cut_off));
                }
                Some(Missing::Failed) => counts.failed += 1,
                Some(Missing::Unasked) => counts.unasked += 1,
            }
            if let Some(answer) = answer {
                tokens.prompt += answer.prompt_tokens;
                tokens.completion += answer.completion_tokens;
                *sources.entry((answer.endpoint.clone(), answer.served.clone())).or_insert(0) += 1;
            }
        }
        let without_rubric = questions.without_rubric();
        if without_rubric > 0 {
            let counts = kinds.entry(Kind::Score.name().to_string()).or_default();
            counts.questions += without_rubric;
            counts.unasked += without_rubric;
        }
        let source = |((endpoint, served), replies)| Source { endpoint, served, replies };
        Self { questions: kinds, tokens, answered_by: sources.into_iter().map(source).collect() }
    }
}

/// Counts items by field, and by label.
pub(crate) fn fields(found: &[Found], axes: &[Axis]) -> (BTreeMap<String, FieldCounts>, BTreeMap<String, usize>) {
    let (mut fields, mut labels): (BTreeMap<String, FieldCounts>, BTreeMap<String, usize>) = Default::default();
    let mut count = |name: &str, known: bool, without: bool| {
        let counts = fields.entry(name.into()).or_default();
        match (known, without) {
            (true, _) => counts.known += 1,
            (_, true) => counts.without_claims += 1,
            _ => counts.missing += 1,
        }
    };
    for item in found {
        let without = matches!(item.coverage, Some(super::labels::Coverage::Nothing));
        if let Some(coverage) = &item.coverage {
            count("coverage", coverage.share().is_some(), without);
        }
        if let Some(hedged) = &item.hedged {
            count("verbal", hedged.is_ok(), false);
        }
        if item.labels() {
            count("label", item.label().is_some(), without);
        }
        if let Some(label) = item.label() {
            *labels.entry(label.into()).or_default() += 1;
        }
        for (axis, score) in axes.iter().zip(&item.scores) {
            count(&format!("scores.{}", axis.name), score.is_ok(), false);
        }
    }
    (fields, labels)
}

impl JudgeReport {
    /// The report as tables for people to read.
    pub fn text(&self) -> String {
        let mut out = format!("{}, judged by {} at {}\n\n", count(self.items, "item"), self.model, self.endpoint);
        let mut asked = Table::of([Left("question")])
            .with([Right("asked"), Right("verdicts"), Right("refused")])
            .with([Right("unparsable"), Right("failed"), Right("not asked")]);
        for (kind, c) in &self.questions {
            let counts = [c.questions - c.unasked, c.verdicts, c.refused, c.unparsable, c.failed, c.unasked];
            asked.row(iter::once(kind.clone()).chain(counts.map(|n| n.to_string())));
        }
        let mut fields = Table::of([Left("field")]).with([Right("known"), Right("missing"), Right("without claims")]);
        for (field, c) in &self.fields {
            let counts = [c.known, c.missing, c.without_claims];
            fields.row(iter::once(field.clone()).chain(counts.map(|n| n.to_string())));
        }
        out += &format!("{asked}\n{fields}");
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(label, count)| format!("{label} {count}"));
            out += &format!("\nlabels: {}\n", labels.collect::<Vec<_>>().join(", "));
        }
        let tokens = match self.tokens_now as usize {
            0 => String::new(),
            n => format!(", {}", count(n, "token")),
        };
        let (requests, were) =
            (count(self.requests as usize, "request"), if self.cached == 1 { "was" } else { "were" });
        out + &format!("\n{requests}{tokens}; {} {were} there before\n", count(self.cached, "answer"))
    }
}
