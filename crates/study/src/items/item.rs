//! Items: one JSON object a line, read strictly, every bad line reported with its number.

use std::collections::BTreeMap;

use headtemper_engine::{Input, Message};
use serde_json::{Map, Value, json};

use super::{answer::cut_off, unique::Unique};
use crate::{Result, StudyError, store::files::nan_is_none};

/// Who asks in a conversation, and who answers.
const USER: &str = "user";
const ASSISTANT: &str = "assistant";

/// One item of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Unique in its file; the line number where the file gives none.
    pub id: String,
    /// What the model reads; of a conversation, what stands before the answer.
    pub input: Input,
    /// The answer, if there is one: of a conversation, its last message where that is the assistant's.
    pub response: Option<String>,
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
    /// If the item is a conversation or token ids, where it would do nothing.
    pub(crate) fn with_system(&mut self, system: &str) -> Result<()> {
        let Input::Prompt(text) = &self.input else {
            return Err(StudyError::option(
                format!("the input of item '{}'", self.id),
                "messages or input_ids",
                "a prompt, since [items] system stands before it",
            ));
        };
        let system = Message { role: "system".into(), content: system.into() };
        self.input = Input::Messages(vec![system, Message::user(text)]);
        Ok(())
    }

    /// Whether its prompt is read as it stands, without the chat template.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.input, Input::Raw(_))
    }

    /// The names by which a condition may ask for its fields.
    pub(crate) fn field_names(&self) -> Vec<String> {
        let always = ["id", "prompt"].map(String::from).into_iter();
        let label = self.label.iter().map(|_| "label".into());
        let response = self.response.iter().map(|_| "response".into());
        let scores = self.scores.keys().map(|name| format!("scores.{name}"));
        let mut names: Vec<String> = always.chain(label).chain(response).chain(scores).collect();
        self.other.iter().for_each(|(name, value)| add_fields(name, value, &mut names));
        names
    }

    /// Whether the response was cut off, where the item says so: by `finish_reason` or by `truncated`.
    pub(crate) fn truncated(&self) -> Option<bool> {
        let reason = self.other.get("finish_reason").and_then(Value::as_str);
        reason.and_then(cut_off).or_else(|| self.other.get("truncated")?.as_bool())
    }

    /// The prompt by which items are told apart: its letters, digits and signs of arithmetic, whatever stands between them. Of
    /// a conversation it is what the user says: a system message before the same question makes no other question.
    pub(crate) fn prompt_key(&self) -> String {
        let text = match &self.input {
            Input::Prompt(text) | Input::Raw(text) => text.clone(),
            Input::Messages(messages) => asked(messages),
            // Nothing was asked where no id is the prompt.
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

    /// How many of these ids are the prompt.
    pub(crate) fn prompt_ids<'a>(&self, ids: &'a [u32]) -> &'a [u32] {
        &ids[..self.prompt_len.unwrap_or(ids.len())]
    }

    /// The prompt as text, for people to read: of a conversation, the last message of the user, or the last of all where the
    /// user says nothing.
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

    /// The item as a line of its file. A prompt that stands as it is (`raw`) is read back as one only with `raw`.
    pub(crate) fn to_json(&self) -> Value {
        let mut line = json!({"id": self.id});
        match &self.input {
            Input::Prompt(text) | Input::Raw(text) => line["prompt"] = json!(text),
            Input::Messages(messages) => line["messages"] = json!(messages),
            Input::Ids(ids) => line["input_ids"] = json!(ids),
        }
        let optional = [
            ("response", self.response.as_ref().map(|x| json!(x))),
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

    /// The same with its response as a field of its own, whose tokens then do not stand among the ids of the prompt.
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
        let mut fields = match serde_json::from_str(line) {
            Ok(Unique(Value::Object(fields))) => fields,
            Ok(Unique(other)) => return Err(format!("not a JSON object but {}", kind(&other))),
            Err(e) if e.is_data() => return Err(e.to_string()),
            Err(e) => return Err(format!("not JSON ({e}){}", nan_is_none(line))),
        };
        let id = match fields.remove("id") {
            None | Some(Value::Null) => number.to_string(),
            Some(Value::String(id)) if !id.is_empty() => id,
            Some(Value::Number(id)) => id.to_string(),
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
        if prompt_len.is_some() && response.is_some() {
            return Err("prompt_len says where input_ids become the response, so there can be no other response".into());
        }
        let label = match fields.remove("label") {
            Some(Value::Number(n)) => Some(n.to_string()),
            Some(Value::Bool(b)) => Some(b.to_string()),
            Some(value) => {
                fields.insert("label".into(), value);
                text(&mut fields, "label")?
            }
            None => None,
        };
        let parsed = |name: &str, e: serde_json::Error| format!("{name}: {e}");
        let scores = match fields.remove("scores") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(value) => {
                let scores: BTreeMap<String, Option<f64>> =
                    serde_json::from_value(value).map_err(|e| parsed("scores", e))?;
                // A score that nobody gave is none.
                scores.into_iter().filter_map(|(name, score)| Some((name, score?))).collect()
            }
        };
        let gold = match fields.remove("gold") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(value) => serde_json::from_value(value).map_err(|e| parsed("gold", e))?,
        };
        Ok(Self { id, input, response, prompt_len, label, scores, gold, other: fields })
    }
}

/// A text's letters, digits and signs of arithmetic, whatever stands between them.
fn key_of(text: &str) -> String {
    let mut key = String::new();
    for (at, c) in text.char_indices() {
        // `3 + 7` is another question than `3 * 7`; a hyphen is minus where a digit follows.
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
    // Signs alone are told apart by what they are.
    if key.is_empty() { text.trim().into() } else { key }
}

/// The answer to a conversation: its last message where that is the assistant's, which is taken off, or else the response.
/// A model answers what it reads: before an answer that stayed in the conversation, it would write a second one.
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

/// A field of an object, or the fields inside it.
fn add_fields(name: &str, value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(inner, value)| add_fields(&format!("{name}.{inner}"), value, names));
        }
        _ => names.push(name.into()),
    }
}

fn take_input(fields: &mut Map<String, Value>, raw: bool) -> std::result::Result<Input, String> {
    let given: Vec<&str> = ["prompt", "messages", "input_ids"]
        .into_iter()
        .filter(|key| fields.get(*key).is_some_and(|value| !value.is_null()))
        .collect();
    let [key] = given[..] else {
        return Err(if given.is_empty() {
            "no prompt (prompt, messages or input_ids)".into()
        } else {
            format!("{} exclude each other", given.join(" and "))
        });
    };
    let value = fields.remove(key).expect("it was found above");
    let wrong = |e: serde_json::Error| format!("{key}: {e}");
    match key {
        "prompt" => match text(&mut Map::from_iter([("prompt".to_string(), value)]), "prompt")? {
            Some(text) if text.is_empty() => Err("the prompt is empty".into()),
            Some(text) if raw => Ok(Input::Raw(text)),
            Some(text) => Ok(Input::Prompt(text)),
            None => Err("no prompt".into()),
        },
        "messages" if raw => Err("messages need the chat template, which --raw leaves out".into()),
        "messages" => {
            let messages: Vec<Message> = serde_json::from_value(value).map_err(wrong)?;
            if messages.is_empty() { Err("messages is empty".into()) } else { Ok(Input::Messages(messages)) }
        }
        _ => {
            let ids: Vec<u32> = serde_json::from_value(value).map_err(wrong)?;
            if ids.is_empty() { Err("input_ids is empty".into()) } else { Ok(Input::Ids(ids)) }
        }
    }
}

fn text(fields: &mut Map<String, Value>, key: &str) -> std::result::Result<Option<String>, String> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key} is {}, not a text", kind(&other))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_items;

    fn read(content: &str) -> std::result::Result<Vec<Item>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        read_items(file.path(), false).map_err(|e| e.to_string())
    }

    #[test]
    fn every_form_of_an_item_is_read() {
        let items = read(concat!(
            r#"{"id":"a","prompt":"Hi","response":"Hello","label":"cw","scores":{"x":4},"gold":"Hello","topic":"t"}"#,
            "\n\n",
            r#"{"id":7,"messages":[{"role":"user","content":"Hi"}],"gold":["a","b"],"label":null}"#,
            "\n",
            r#"{"input_ids":[1,2,3],"prompt_len":2,"label":1}"#,
        ))
        .unwrap();
        assert_eq!(items[0].input, Input::Prompt("Hi".into()));
        assert_eq!((items[0].scores["x"], &items[0].gold[..]), (4.0, &["Hello".to_string()][..]));
        assert_eq!(items[0].other["topic"], "t");
        let lines: String = items.iter().map(|item| item.to_json().to_string() + "\n").collect();
        assert_eq!(read(&lines), Ok(items.clone()));
        assert_eq!((items[1].id.as_str(), items[1].gold.len(), &items[1].label), ("7", 2, &None));
        assert_eq!((items[2].id.as_str(), items[2].prompt_len, items[2].label.as_deref()), ("4", Some(2), Some("1")));
    }

    #[test]
    fn items_tell_what_conditions_and_confounds_ask_for() {
        let items = read(concat!(
            r#"{"prompt":"Why,  THOUGH?","response":"x","scores":{"a":1},"m":{"n":{"o":2}},"finish_reason":"length"}"#,
            "\n",
            r#"{"prompt":"why though","truncated":false,"gone":null}"#,
            "\n",
            r#"{"messages":[{"role":"user","content":"why though"}]}"#,
        ))
        .unwrap();
        let mut names = items[0].field_names();
        names.sort();
        assert_eq!(names, ["finish_reason", "id", "m.n.o", "prompt", "response", "scores.a"]);
        assert_eq!(items[1].field_names(), ["id", "prompt", "truncated"]);
        let truncated: Vec<_> = items.iter().map(Item::truncated).collect();
        assert_eq!(truncated, [Some(true), Some(false), None]);
        let ended = |fields: Value| Item::parse(&fields.to_string(), 1, false).unwrap().truncated();
        let by = |reason: &str| ended(json!({"prompt": "p", "response": "r", "finish_reason": reason}));
        assert_eq!(["max_tokens", "MAX_TOKENS", "end_turn"].map(by), [Some(true), Some(true), Some(false)]);
        assert_eq!(by("content_filter"), None, "it says nothing of a limit");
        let scored = Item::parse(r#"{"prompt":"p","scores":{"a":null,"b":1}}"#, 1, false).unwrap();
        assert_eq!(scored.scores, [("b".to_string(), 1.0)].into(), "null is a score that nobody gave");
        assert_eq!(ended(json!({"prompt": "p", "finish_reason": null, "truncated": true})), Some(true));
        assert_eq!(items[0].prompt_key(), "why though");
        assert_eq!(items[1].prompt_key(), items[0].prompt_key());
        assert_eq!(items[2].prompt_key(), "why though");
        let key = |prompt: &str| Item::parse(&json!({"prompt": prompt}).to_string(), 1, false).unwrap().prompt_key();
        assert_eq!((key("What is 3+7?"), key("what is 3 - 7")), ("what is 3 + 7".into(), "what is 3 - 7".into()));
        assert_eq!(key("New-York, 100%"), "new york 100 %");
    }

    #[test]
    fn a_conversation_that_ends_in_an_answer_has_it_as_its_response() {
        let said = |role: &str, content: &str| json!({"role": role, "content": content});
        let one = |value: Value| Item::parse(&value.to_string(), 1, false);
        let (system, first, answer) = (said("system", "Be brief."), said("user", "Hi"), said("assistant", "Hello."));
        let (again, last) = (said("user", "Why?"), said("assistant", " So. "));
        let chat = one(json!({"id": "a", "messages": [system, first, answer, again, last]})).unwrap();
        let before = json!([system, first, answer, again]);
        assert_eq!(chat, one(json!({"id": "a", "messages": before, "response": " So. "})).unwrap());
        assert_eq!(one(chat.to_json()).unwrap(), chat, "it is written in that form");
        assert_eq!(chat.field_names(), ["id", "prompt", "response"]);
        // What is asked is what the user says, whatever was answered, and whoever speaks last.
        assert_eq!((chat.prompt_text().as_str(), chat.prompt_key().as_str()), ("Why?", "hi why"));
        let unanswered = one(json!({"messages": before})).unwrap();
        assert_eq!((unanswered.response, unanswered.input), (None, chat.input));
        let used = one(json!({"messages": [first, said("tool", "3")]})).unwrap();
        assert_eq!((used.prompt_text().as_str(), &used.response), ("Hi", &None));
        assert_eq!(one(json!({"messages": [system]})).unwrap().prompt_text(), "Be brief.");
        // Turns of the assistant further ahead are part of what is answered.
        let twice = one(json!({"messages": [first, answer, answer, again]})).unwrap();
        assert_eq!((&twice.response, twice.prompt_text().as_str()), (&None, "Why?"));
        for (bad, why) in [
            (json!({"messages": [first, answer], "response": "Hello."}), "and there is a response too"),
            (json!({"messages": [first, said("assistant", " ")]}), "the last of messages, the assistant's, is empty"),
            (json!({"messages": [first, said("assistant", "")], "response": "x"}), "and there is a response too"),
            (json!({"messages": [answer]}), "an answer of the assistant alone"),
            (json!({"messages": [first, answer, answer]}), "messages end in two answers of the assistant"),
        ] {
            let found = one(bad).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
        assert!(one(json!({"messages": [first, answer], "response": null})).is_ok());
    }

    #[test]
    fn every_bad_line_is_named() {
        let message = read(concat!(
            "not json\n",
            "[1]\n",
            r#"{"id":"a"}"#,
            "\n",
            r#"{"id":"b","prompt":"x","response":" "}"#,
            "\n",
            r#"{"id":"c","prompt":"x"}"#,
            "\n",
            r#"{"id":"c","prompt":"y"}"#,
            "\n",
            r#"{"id":"d","prompt":"x","input_ids":[1]}"#,
            "\n",
            r#"{"id":"e","prompt":3}"#,
            "\n",
            r#"{"id":"f\u0000","prompt":"x"}"#,
            "\n",
            r#"{"id":"g","prompt":"x","scores":{"a":NaN}}"#,
            "\n",
            r#"{"id":"h","prompt":"x","prompt":"y"}"#,
        ))
        .unwrap_err();
        for part in [
            "line 1: not JSON",
            "line 2: not a JSON object but a list",
            "line 3: no prompt",
            "line 4: the response is empty",
            "line 6: id 'c' stands there a second time",
            "line 7: prompt and input_ids exclude each other",
            "line 11: 'prompt' stands there twice",
            "line 8: prompt is a number, not a text",
            "line 9: id 'f\\0' holds a control character, but must be of printable characters",
            "line 10: not JSON (expected value at line 1 column 38); NaN and Infinity are not JSON: null stands for",
        ] {
            assert!(message.contains(part), "{part} is not in:\n{message}");
        }
        assert!(read("\n").unwrap_err().contains("holds no items"));
    }
}
