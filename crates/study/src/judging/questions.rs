//! Which questions the items raise: each is asked once, however many items raise it.

use std::collections::{BTreeMap, HashSet};

use headtemper_engine::Input;
use serde_json::Value;

use super::{
    Answer, Axis, JudgePrompts,
    cache::key,
    client::Asked,
    prompts::{Kind, Slot},
};
use crate::{Item, Result, StudyError, items::thought::Thoughts};

/// One question to the judge. Its text is written when it is asked: those of all questions together are many times the items.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) key: String,
    /// The first item that raises it.
    item: usize,
    about: About,
}

/// What of an item is asked.
#[derive(Clone, Debug)]
enum About {
    /// Whether the response makes this claim.
    Claim(usize),
    /// Whether it gives one of the accepted answers: one question for all, which are alternatives; an answer needs only one of them.
    Answers,
    /// How it is delivered.
    Delivery,
    /// What the levels of this axis are for the prompt.
    Rubric(usize),
    /// Where the response lies on this axis by this rubric.
    Score(usize, String),
}

impl Question {
    pub(crate) fn kind(&self) -> Kind {
        self.about.kind()
    }
}

impl About {
    fn kind(&self) -> Kind {
        match self {
            Self::Claim(_) => Kind::Coverage,
            Self::Answers => Kind::Accepted,
            Self::Delivery => Kind::Delivery,
            Self::Rubric(_) => Kind::Rubric,
            Self::Score(..) => Kind::Score,
        }
    }
}

/// The questions that one item raises, by their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raised {
    /// One on each claim, or one on its accepted answers: which of the two, and the keys.
    pub(crate) coverage: Option<(Kind, Vec<String>)>,
    pub(crate) delivery: Option<String>,
    /// One per axis.
    pub(crate) rubrics: Vec<String>,
    /// One per axis; none as long as its rubric is missing.
    pub(crate) scores: Vec<Option<String>>,
}

/// All questions.
pub(crate) struct Questions<'a> {
    items: &'a [Item],
    prompts: &'a JudgePrompts,
    asked: Asked<'a>,
    /// Each once, in the order in which items raise them.
    pub(crate) list: Vec<Question>,
    known: HashSet<String>,
    /// One per item.
    pub(crate) raised: Vec<Raised>,
}

impl<'a> Questions<'a> {
    /// The questions that do not depend on the answer to another.
    ///
    /// # Errors
    /// If an item has no response, no text, or claims that are not texts; or if coverage is asked for and no item has claims or accepted
    /// answers.
    pub(crate) fn new(items: &'a [Item], prompts: &'a JudgePrompts, asked: Asked<'a>) -> Result<Self> {
        check(items)?;
        let (list, known, raised) = (Vec::new(), HashSet::new(), Vec::new());
        let mut questions = Self { items, prompts, asked, list, known, raised };
        for item in 0..items.len() {
            let raised = questions.raise(item)?;
            questions.raised.push(raised);
        }
        if prompts.asks(Kind::Coverage) && questions.raised.iter().all(|raised| raised.coverage.is_none()) {
            return Err(wrong("coverage of these items", "asked for, but none has claims or gold", NEEDS_CLAIMS));
        }
        Ok(questions)
    }

    fn raise(&mut self, item: usize) -> Result<Raised> {
        let mut raised = Raised::default();
        if self.prompts.asks(Kind::Coverage) {
            let claims = claims(&self.items[item])?.len();
            if claims > 0 {
                let keys = (0..claims).map(|claim| self.add(item, About::Claim(claim))).collect();
                raised.coverage = Some((Kind::Coverage, keys));
            } else if !self.items[item].gold.is_empty() {
                raised.coverage = Some((Kind::Accepted, vec![self.add(item, About::Answers)]));
            }
        }
        if self.prompts.asks(Kind::Delivery) {
            raised.delivery = Some(self.add(item, About::Delivery));
        }
        raised.rubrics = (0..self.prompts.axes().len()).map(|axis| self.add(item, About::Rubric(axis))).collect();
        raised.scores = vec![None; raised.rubrics.len()];
        Ok(raised)
    }

    /// Adds the questions whose rubric has been answered by now; returns how many.
    pub(crate) fn add_scores(&mut self, answers: &BTreeMap<String, Answer>) -> usize {
        let before = self.list.len();
        for item in 0..self.items.len() {
            for axis in 0..self.prompts.axes().len() {
                let answer = answers.get(&self.raised[item].rubrics[axis]);
                let Some(Ok(rubric)) = answer.map(Answer::rubric) else { continue };
                let key = self.add(item, About::Score(axis, rubric));
                self.raised[item].scores[axis] = Some(key);
            }
        }
        self.list.len() - before
    }

    fn add(&mut self, item: usize, about: About) -> String {
        let key = key(self.asked, &self.written(item, &about));
        if self.known.insert(key.clone()) {
            self.list.push(Question { key: key.clone(), item, about });
        }
        key
    }

    /// A question as the judge reads it.
    pub(crate) fn text(&self, question: &Question) -> String {
        self.written(question.item, &question.about)
    }

    fn written(&self, item: usize, about: &About) -> String {
        let item = &self.items[item];
        let prompt = conversation(&item.input);
        let response = item.response.as_deref().unwrap_or_default();
        let response = Thoughts::default().said(response).map_or(response, str::trim_start);
        let (prompt, response) = ((Slot::Prompt, &*prompt), (Slot::Response, response));
        let axis = |axis: &usize| said(&self.prompts.axes()[*axis]);
        let fill = |values: &[(Slot, &str)]| self.prompts.fill(about.kind(), values);
        match about {
            About::Claim(claim) => {
                let claims = claims(item).expect("they were read when the question was raised");
                fill(&[prompt, response, (Slot::Claim, &claims[*claim])])
            }
            About::Answers => fill(&[prompt, response, (Slot::Answers, &item.gold.join("\n"))]),
            About::Delivery => fill(&[prompt, response]),
            About::Rubric(at) => fill(&[prompt, (Slot::Axis, &axis(at))]),
            About::Score(at, rubric) => fill(&[prompt, response, (Slot::Axis, &axis(at)), (Slot::Rubric, rubric)]),
        }
    }

    /// How many scores lack their rubric: these are no questions yet, but count as missing.
    pub(crate) fn without_rubric(&self) -> usize {
        self.raised.iter().flat_map(|raised| &raised.scores).filter(|key| key.is_none()).count()
    }

    /// The items that the questions are about.
    pub(crate) fn items(&self) -> &'a [Item] {
        self.items
    }

    /// The axes that are rated.
    pub(crate) fn axes(&self) -> &'a [Axis] {
        self.prompts.axes()
    }
}

const NEEDS_CLAIMS: &str = "of items that have `claims` (a list of texts) or `gold` (accepted answers)";
/// Most items that an error names.
const NAMED: usize = 5;

fn check(items: &[Item]) -> Result<()> {
    let named = |wrong: &dyn Fn(&Item) -> bool| -> Option<String> {
        let ids: Vec<&str> = items.iter().filter(|item| wrong(item)).map(|item| item.id.as_str()).collect();
        let more = if ids.len() > NAMED { format!(" and {} more", ids.len() - NAMED) } else { String::new() };
        let shown = ids.iter().take(NAMED).map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
        (!ids.is_empty()).then(|| format!("{shown}{more}"))
    };
    if let Some(ids) = named(&|item| matches!(item.input, Input::Ids(_))) {
        return Err(wrong(&format!("the input of {ids}"), "token ids", "text: a prompt or messages"));
    }
    if let Some(ids) = named(&|item| item.response.is_none()) {
        return Err(wrong(&format!("the response of {ids}"), "missing", "there: it is what is judged"));
    }
    let silent = |item: &Item| !item.response.as_deref().is_some_and(|response| Thoughts::default().says(response));
    match named(&silent) {
        Some(ids) => Err(wrong(
            &format!("the response of {ids}"),
            "a thought without an answer",
            "an answer: leave such items out, or allow more new tokens",
        )),
        None => Ok(()),
    }
}

/// Whether there is anything for an answer to cover: claims, or accepted answers.
pub(crate) fn covers_something(item: &Item) -> bool {
    !item.gold.is_empty() || claims(item).is_ok_and(|claims| !claims.is_empty())
}

/// The item's claims; empty if it has no such field.
fn claims(item: &Item) -> Result<Vec<String>> {
    let Some(value) = item.other.get("claims").filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let text = |claim: &Value| claim.as_str().filter(|text| !text.trim().is_empty()).map(String::from);
    let texts: Option<Vec<String>> = value.as_array().and_then(|claims| claims.iter().map(text).collect());
    texts.ok_or_else(|| {
        wrong(&format!("`claims` of item '{}'", item.id), &value.to_string(), "a list of texts, none of them blank")
    })
}

fn wrong(what: &str, found: &str, allowed: &str) -> StudyError {
    StudyError::option(what, found, allowed)
}

/// A prompt as it stands; a conversation in full, each message under the role of its speaker.
fn conversation(input: &Input) -> String {
    match input {
        Input::Prompt(text) | Input::Raw(text) => text.clone(),
        Input::Messages(messages) => match &messages[..] {
            [one] if one.role == "user" => one.content.clone(),
            many => many.iter().map(|m| format!("[{}]\n{}", m.role, m.content)).collect::<Vec<_>>().join("\n\n"),
        },
        Input::Ids(_) => unreachable!("items of token ids are refused"),
    }
}

/// An axis as the judge reads it.
fn said(axis: &Axis) -> String {
    format!("{}: {}", axis.name.replace(['_', '-'], " "), axis.means.trim())
}

#[cfg(test)]
mod tests {
    use super::{super::JudgeTask, *};

    fn items(lines: &[&str]) -> Vec<Item> {
        lines.iter().enumerate().map(|(at, line)| Item::parse(line, at + 1, false).unwrap()).collect()
    }

    const ASKED: Asked<'static> = Asked { model: "m", max_tokens: 64 };

    #[test]
    fn what_items_share_is_asked_once() {
        let items = items(&[
            r#"{"prompt":"Capital?","response":"Paris","gold":["Paris","paris"]}"#,
            r#"{"prompt":"Capital?","response":"Lyon","claims":["It is Paris.","It is in France."],"gold":"x"}"#,
            r#"{"messages":[{"role":"user","content":"Capital?"}],"response":"Paris"}"#,
            r#"{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Capital?"}],"response":"?"}"#,
        ]);
        let tasks = [JudgeTask::Coverage, JudgeTask::Delivery, JudgeTask::Rubric];
        let prompts = JudgePrompts::read(None, &tasks, &["curious".into(), "eager".into()]).unwrap();
        let questions = Questions::new(&items, &prompts, ASKED).unwrap();
        let kinds = |kind: Kind| questions.list.iter().filter(|question| question.kind() == kind).count();
        // One for all accepted answers, one per claim. For delivery, items 1 and 3 ask the same; a rubric belongs to the prompt, whatever
        // was answered.
        assert_eq!(Kind::ALL.map(kinds), [2, 1, 3, 4, 0]);
        assert_eq!(questions.raised[0].delivery, questions.raised[2].delivery);
        assert!(questions.raised[2].coverage.is_none());
        let rubric = questions.list.iter().find(|question| question.kind() == Kind::Rubric).unwrap();
        let rubric = questions.text(rubric);
        assert!(rubric.contains("Capital?") && !rubric.contains("Paris"), "{rubric}");
        let told = questions.text(questions.list.last().unwrap());
        assert!(told.contains("[system]\nBe brief.\n\n[user]\nCapital?\nEND PROMPT"), "{told}");
    }

    #[test]
    fn items_that_cannot_be_judged_are_named() {
        let error = |tasks: &[JudgeTask], lines: &[&str]| {
            let prompts = JudgePrompts::read(None, tasks, &[]).unwrap();
            Questions::new(&items(lines), &prompts, ASKED).err().unwrap().to_string()
        };
        let (delivery, coverage) = ([JudgeTask::Delivery], [JudgeTask::Coverage]);
        let text = error(&delivery, &[r#"{"id":"a","prompt":"x"}"#, r#"{"id":"b","prompt":"x","response":"y"}"#]);
        assert!(text.contains("the response of 'a' is missing"), "{text}");
        let within = [r#"{"id":"a","prompt":"x","response":"<think>y"}"#, r#"{"id":"b","prompt":"x","response":"y"}"#];
        let text = error(&delivery, &within);
        assert!(text.contains("the response of 'a' is a thought without an answer, but must be an answer"), "{text}");
        let text = error(&delivery, &[r#"{"id":"a","input_ids":[1,2],"response":"y"}"#]);
        assert!(text.contains("the input of 'a' is token ids"), "{text}");
        let text = error(&coverage, &[r#"{"id":"a","prompt":"x","response":"y"}"#]);
        assert!(text.contains("none has claims or gold"), "{text}");
        for claims in ["[1]", "\"one\"", "[\" \"]", "{}"] {
            let line = format!(r#"{{"id":"a","prompt":"x","response":"y","claims":{claims}}}"#);
            let text = error(&coverage, &[&line]);
            assert!(text.contains("`claims` of item 'a'") && text.contains("a list of texts"), "{text}");
        }
    }
}
