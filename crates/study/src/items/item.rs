//! Items: one JSON object per line, read strictly; every bad line is reported with its number.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_engine::{Input, Message};
use serde_json::{Map, Value, json};
use unicode_normalization::UnicodeNormalization;

use super::{
    answer::{cut_off, truth_of},
    facts::written,
    fields::{as_form, kind, take_input, text},
    unique::Unique,
};
use crate::{Result, Row, StudyError, store::files::nan_is_none};

/// Fields about an answer, which say nothing of any other answer.
const OF_AN_ANSWER: [&str; 6] = ["finish_reason", "truncated", "coverage", "correct", "verbal", "judge"];

/// Who sets the scene of a conversation, who asks in it, and who answers.
const SYSTEM: &str = "system";
const USER: &str = "user";
const ASSISTANT: &str = "assistant";

/// The system messages of some items, as far as it takes to know whether they have one in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Systems(BTreeSet<Option<String>>);

impl Systems {
    pub(crate) fn of(items: &[Item]) -> Self {
        let mut systems = Self::default();
        systems.see(items);
        systems
    }

    /// Adds those of these items.
    pub(crate) fn see(&mut self, items: &[Item]) {
        for item in items {
            if self.0.len() > 1 {
                break;
            }
            self.0.insert(item.system().map(String::from));
        }
    }

    /// The message that all begin with; none if there is none, or not the same for all.
    pub(crate) fn common(&self) -> Option<&str> {
        self.0.first().filter(|_| self.0.len() == 1)?.as_deref()
    }
}

/// One item of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Unique in its file; the line number if the file gives none.
    pub id: String,
    /// What the model reads; in a conversation, everything before the answer.
    pub input: Input,
    /// The answer, if there is one: in a conversation, the last message if it is the assistant's.
    pub response: Option<String>,
    /// The tokens of the answer as a model wrote them, if the file has them. They are read where they decode to the response: its text may
    /// be tokenised differently, most of all where it was cut off.
    pub response_ids: Option<Vec<u32>>,
    /// With `input_ids`: how many of them are the prompt, if the file says so.
    pub prompt_len: Option<usize>,
    /// The cohort.
    pub label: Option<String>,
    /// Ratings by name.
    pub scores: BTreeMap<String, f64>,
    /// Accepted answers.
    pub gold: Vec<String>,
    /// Fields that travel along untouched.
    pub other: Map<String, Value>,
}

impl Item {
    /// Puts a system message before a plain prompt.
    ///
    /// # Errors
    /// If the item is a conversation or token ids, where it would have no effect.
    pub(crate) fn with_system(&mut self, system: &str) -> Result<()> {
        let Input::Prompt(text) = &self.input else {
            return Err(StudyError::option(
                format!("the input of item '{}'", self.id),
                "messages or input_ids",
                "a prompt, before which the system message that was asked for can stand",
            ));
        };
        let system = Message { role: SYSTEM.into(), content: system.into() };
        self.input = Input::Messages(vec![system, Message::user(text)]);
        Ok(())
    }

    /// The item with an answer that was generated. Whatever it says of another answer, its label and scores too, is gone.
    pub(crate) fn answered_by(&self, row: &Row) -> Self {
        let mut other = of_the_question(self.other.clone());
        other.insert("finish_reason".into(), json!(row.finish_reason));
        let (response, response_ids) = (Some(row.response.clone()), Some(row.response_ids.clone()));
        Self { response, response_ids, label: None, scores: BTreeMap::new(), other, ..self.clone() }
    }

    /// The system message that its conversation begins with.
    pub(crate) fn system(&self) -> Option<&str> {
        match &self.input {
            Input::Messages(messages) => {
                messages.first().filter(|first| first.role == SYSTEM).map(|first| &*first.content)
            }
            _ => None,
        }
    }

    /// Whether it has an answer, as a text or as the token ids after its prompt.
    pub(crate) fn is_answered(&self) -> bool {
        self.response.is_some() || self.prompt_len.is_some()
    }

    /// Whether its answer is right, as its fields `correct` and `coverage` (at least one half) say.
    pub(crate) fn told_right(&self) -> [Option<bool>; 2] {
        let field = |name: &str| self.other.get(name);
        let share = |value: &Value| match value {
            Value::String(text) => text.trim().parse().ok().filter(|share: &f64| share.is_finite()),
            value => value.as_f64().or_else(|| value.as_bool().map(f64::from)),
        };
        [field("correct").and_then(truth), field("coverage").and_then(share).map(|share| share >= 0.5)]
    }

    /// Whether it is a question alone: it has no response, and no token ids, which may hold one.
    pub(crate) fn is_silent(&self) -> bool {
        self.response.is_none() && !matches!(self.input, Input::Ids(_))
    }

    /// Refuses an answer that is token ids.
    ///
    /// # Errors
    /// The error says what needs a text.
    pub(crate) fn check_text(&self, needs: &str) -> Result<()> {
        if self.prompt_len.is_none() {
            return Ok(());
        }
        let answer = format!("the answer of item '{}'", self.id);
        Err(StudyError::option(answer, "token ids", format!("a text, as its response: {needs}")))
    }

    /// The question alone, for another answer. If there was an answer, whatever the item says of it, its label and scores too, is gone.
    pub(crate) fn unanswered(self) -> Self {
        if !self.is_answered() {
            return self;
        }
        let input = match self.input {
            Input::Ids(ref ids) => Input::Ids(self.prompt_ids(ids).to_vec()),
            input => input,
        };
        let (label, scores, other) = (None, BTreeMap::new(), of_the_question(self.other));
        Self { input, prompt_len: None, response: None, response_ids: None, label, scores, other, ..self }
    }

    /// Whether its prompt is read as it stands, without the chat template.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.input, Input::Raw(_))
    }

    /// The names of its fields that a condition may use.
    pub(crate) fn field_names(&self) -> Vec<String> {
        let always = ["id", "prompt"].map(String::from).into_iter();
        let label = self.label.iter().map(|_| "label".into());
        let response = self.response.iter().map(|_| "response".into());
        let scores = self.scores.keys().map(|name| format!("scores.{name}"));
        let mut names: Vec<String> = always.chain(label).chain(response).chain(scores).collect();
        self.other.iter().for_each(|(name, value)| add_fields(name, value, &mut names));
        names
    }

    /// Whether the response was cut off, where the item says so.
    pub(crate) fn truncated(&self) -> Option<bool> {
        truncated(&self.other)
    }

    /// The prompt by which items are told apart: its letters, digits and arithmetic signs, whatever is between them. In a conversation it
    /// is what the user says: the same question after another system message is still the same.
    pub(crate) fn prompt_key(&self) -> String {
        let text = match &self.input {
            Input::Prompt(text) | Input::Raw(text) => text.clone(),
            Input::Messages(messages) => asked(messages),
            // If none of the ids is the prompt, nothing was asked.
            Input::Ids(ids) => match self.prompt_ids(ids) {
                [] => return String::new(),
                ids => return format!("{ids:?}"),
            },
        };
        key_of(&text)
    }

    /// The response by which items are told apart, as prompts are.
    pub(crate) fn response_key(&self) -> Option<String> {
        self.response.as_deref().map(key_of)
    }

    /// Those of these ids that are the prompt.
    pub(crate) fn prompt_ids<'a>(&self, ids: &'a [u32]) -> &'a [u32] {
        &ids[..self.prompt_len.unwrap_or(ids.len())]
    }

    /// The prompt as text, for people to read: in a conversation, the user's last message, or the last message of all if the user says
    /// nothing.
    pub fn prompt_text(&self) -> String {
        match &self.input {
            Input::Prompt(text) | Input::Raw(text) => text.clone(),
            Input::Messages(messages) => {
                let of_user = messages.iter().rfind(|message| message.role == USER);
                of_user.or(messages.last()).map(|message| message.content.clone()).unwrap_or_default()
            }
            Input::Ids(ids) => format!("{} token ids", ids.len()),
        }
    }

    /// The item as a line of its file. A raw prompt is read back as one only with `raw`.
    pub(crate) fn to_json(&self) -> Value {
        let mut line = json!({"id": self.id});
        let (name, input) = input_json(&self.input);
        line[name] = input;
        let optional = [
            ("response", self.response.as_ref().map(|x| json!(x))),
            ("response_ids", self.response_ids.as_ref().map(|x| json!(x))),
            ("prompt_len", self.prompt_len.map(|x| json!(x))),
            ("label", self.label.as_ref().map(|x| json!(x))),
            ("gold", (!self.gold.is_empty()).then(|| json!(self.gold))),
            ("scores", (!self.scores.is_empty()).then(|| json!(self.scores))),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                line[name] = value;
            }
        }
        for (name, value) in &self.other {
            line[name] = value.clone();
        }
        line
    }

    /// What it asks, without an answer: the field of its file that has it, and its value.
    pub fn asked_json(&self) -> (&'static str, Value) {
        match &self.input {
            Input::Ids(ids) => input_json(&Input::Ids(self.prompt_ids(ids).to_vec())),
            input => input_json(input),
        }
    }

    /// The same with its response as a field of its own; the prompt's ids then leave out the response's tokens.
    pub(crate) fn answered_json(&self) -> Value {
        match &self.input {
            Input::Ids(ids) => {
                let input = Input::Ids(self.prompt_ids(ids).to_vec());
                Self { input, prompt_len: None, ..self.clone() }.to_json()
            }
            _ => self.to_json(),
        }
    }

    pub(crate) fn parse(line: &str, number: usize, raw: bool) -> std::result::Result<Self, String> {
        // A byte order mark, which editors on Windows put before the first line.
        let line = line.trim_start_matches('\u{feff}');
        match serde_json::from_str(line) {
            Ok(Unique(Value::Object(fields))) => Self::of(fields, number, raw),
            Ok(Unique(other)) => Err(format!("not a JSON object but {}", kind(&other))),
            Err(e) if e.is_data() => Err(e.to_string()),
            Err(e) => Err(format!("not JSON ({e}){}", nan_is_none(line))),
        }
    }

    /// An item of these fields; `number` names it if they do not.
    pub(crate) fn of(mut fields: Map<String, Value>, number: usize, raw: bool) -> std::result::Result<Self, String> {
        let id = match fields.remove("id") {
            None | Some(Value::Null) => number.to_string(),
            Some(Value::String(id)) if !id.is_empty() => id,
            Some(Value::Number(id)) => id.to_string(),
            Some(Value::String(_)) => return Err("id is empty, but must be a text or number, or left out".into()),
            Some(other) => return Err(format!("id is {}, not a text or number", kind(&other))),
        };
        if id.chars().any(char::is_control) {
            let id = id.escape_debug();
            return Err(format!("id '{id}' holds a control character, but must be of printable characters"));
        }
        let mut input = take_input(&mut fields, raw)?;
        let prompt_len = match (fields.remove("prompt_len"), &input) {
            (None | Some(Value::Null), _) => None,
            (Some(value), Input::Ids(ids)) => match value.as_u64().map(|n| n as usize) {
                Some(n) if n < ids.len() => Some(n),
                _ => return Err(format!("prompt_len is {value}, but must be less than {} ids", ids.len())),
            },
            (Some(_), _) => return Err("prompt_len goes with input_ids only".into()),
        };
        let mut response = text(&mut fields, "response")?;
        if let Input::Messages(messages) = &mut input {
            response = answer_of(messages, response)?;
        }
        if response.as_ref().is_some_and(|response| response.trim().is_empty()) {
            return Err("the response is empty".into());
        }
        let response_ids = match fields.remove("response_ids") {
            Some(value) if response.is_some() => as_form(value, "response_ids", "a list of token ids, such as [5, 7]")?,
            // Dropping them would read the prompt in the place of the response.
            Some(Value::Array(ids)) if !ids.is_empty() => {
                let of_ids = "append the ids to input_ids and say by prompt_len where they begin";
                return Err(format!("response_ids are there without their text, response; without a text, {of_ids}"));
            }
            _ => None,
        };
        if prompt_len.is_some() && response.is_some() {
            return Err("prompt_len says where input_ids become the response, so there can be no other response".into());
        }
        let label = match fields.remove("label") {
            Some(value @ (Value::Number(_) | Value::Bool(_))) => written(&value),
            Some(value) => {
                fields.insert("label".into(), value);
                text(&mut fields, "label")?
            }
            None => None,
        };
        let scores = match fields.remove("scores") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(value) => {
                let scores: BTreeMap<String, Option<f64>> =
                    as_form(value, "scores", "an object of numbers, such as {\"curious\": 4}")?;
                // A score of null is no score.
                scores.into_iter().filter_map(|(name, score)| Some((name, score?))).collect()
            }
        };
        let gold = match fields.remove("gold") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(value) => as_form(value, "gold", "a text or a list of texts")?,
        };
        // Tables without an answer in some cell are written so. A blank text is no accepted answer: it would make every answer wrong.
        let gold = gold.into_iter().filter(|one| !one.trim().is_empty()).collect();
        Ok(Self { id, input, response, response_ids, prompt_len, label, scores, gold, other: fields })
    }
}

/// These fields without those about an answer.
fn of_the_question(mut fields: Map<String, Value>) -> Map<String, Value> {
    for name in OF_AN_ANSWER {
        fields.shift_remove(name);
    }
    fields
}

/// The field of a file that holds such an input, and its value.
fn input_json(input: &Input) -> (&'static str, Value) {
    match input {
        Input::Prompt(text) | Input::Raw(text) => ("prompt", json!(text)),
        Input::Messages(messages) => ("messages", json!(messages)),
        Input::Ids(ids) => ("input_ids", json!(ids)),
    }
}

/// A text's letters, digits and arithmetic signs, whatever is between them.
pub(super) fn key_of(text: &str) -> String {
    let mut key = String::new();
    let text: String = text.nfc().collect();
    for (at, c) in text.char_indices() {
        // `3 + 7` and `3 * 7` are different questions; a hyphen is a minus if a digit follows.
        let minus =
            matches!(c, '-' | '−') && text[at..].chars().skip(1).find(|c| *c != ' ').is_some_and(char::is_numeric);
        match c {
            c if c.is_alphanumeric() => key.extend(c.to_lowercase()),
            '+' | '*' | '/' | '×' | '÷' | '^' | '=' | '<' | '>' | '%' => key.extend([' ', c, ' ']),
            _ if minus => key.push_str(" - "),
            _ => key.push(' '),
        }
    }
    let key = key.split_whitespace().collect::<Vec<_>>().join(" ");
    // A text of other signs alone stays as it is.
    if key.is_empty() { text.trim().into() } else { key }
}

/// The answer to a conversation: its last message if it is the assistant's, which is then removed, or else the response. A model answers
/// what it reads: if its answer stayed in the conversation, it would write a second one.
fn answer_of(messages: &mut Vec<Message>, response: Option<String>) -> std::result::Result<Option<String>, String> {
    let Some(answer) = messages.pop_if(|message| message.role == ASSISTANT) else { return Ok(response) };
    if response.is_some() {
        return Err(
            "messages end in an answer of the assistant and there is a response too, but only one of them can be the \
                    answer"
                .into(),
        );
    }
    if answer.content.trim().is_empty() {
        return Err("the last of messages, the assistant's, is empty: leave it out where the model is to answer".into());
    }
    match messages.last() {
        None => Err("messages hold an answer of the assistant alone, but must say what it answers".into()),
        Some(before) if before.role == ASSISTANT => {
            Err("messages end in two answers of the assistant, but must end in one, or in what is to be answered"
                .into())
        }
        Some(_) => Ok(Some(answer.content)),
    }
}

/// What the user says in a conversation; all of it if the user says nothing.
fn asked(messages: &[Message]) -> String {
    let all = || messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>();
    let of_user: Vec<&str> =
        messages.iter().filter(|message| message.role == USER).map(|message| message.content.as_str()).collect();
    if of_user.is_empty() { all() } else { of_user }.join("\n")
}

/// Adds the name of a field or, if it is an object, the names of the fields inside it.
fn add_fields(name: &str, value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(inner, value)| add_fields(&format!("{name}.{inner}"), value, names));
        }
        _ => names.push(name.into()),
    }
}

/// A truth value as files have it: also as 1 and 0, or as a text.
fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => truth_of(number.as_f64()?),
        Value::String(text) => text.trim().to_lowercase().parse().ok(),
        _ => None,
    }
}

/// Whether a response was cut off, where the fields beside it say so: by `finish_reason` or by `truncated`. It was if either says that it was.
pub(crate) fn truncated(fields: &Map<String, Value>) -> Option<bool> {
    let reason = fields.get("finish_reason").and_then(Value::as_str);
    either([reason.and_then(cut_off), fields.get("truncated").and_then(truth)])
}

/// Whether a response was cut off, as two say of it: it was if either says that it was.
pub(crate) fn either(said: [Option<bool>; 2]) -> Option<bool> {
    said.into_iter().flatten().reduce(|one, other| one || other)
}

/// Whether they say the opposite.
pub(crate) fn contradict([one, other]: [Option<bool>; 2]) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

#[cfg(test)]
mod tests;
