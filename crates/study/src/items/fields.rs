//! What a field of an item may hold, and what is said of one that holds something else.

use headtemper_engine::{Input, Message};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::store::parts::short;

/// The prompt of an item, in the one form that it has.
pub(super) fn take_input(fields: &mut Map<String, Value>, raw: bool) -> Result<Input, String> {
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
    match key {
        "prompt" => match text(&mut Map::from_iter([("prompt".to_string(), value)]), "prompt")? {
            Some(text) if text.is_empty() => Err("the prompt is empty".into()),
            Some(text) if raw => Ok(Input::Raw(text)),
            Some(text) => Ok(Input::Prompt(text)),
            None => Err("no prompt".into()),
        },
        "messages" if raw => Err("messages need the chat template, which --raw leaves out".into()),
        "messages" => {
            let messages = messages(value)?;
            if messages.is_empty() { Err("messages is empty".into()) } else { Ok(Input::Messages(messages)) }
        }
        _ => {
            let ids: Vec<u32> = as_form(value, key, "a list of token ids, such as [5, 7]")?;
            if ids.is_empty() { Err("input_ids is empty".into()) } else { Ok(Input::Ids(ids)) }
        }
    }
}

/// What messages look like.
const MESSAGES: &str = "a list such as [{\"role\": \"user\", \"content\": \"...\"}]";

/// The messages of a conversation.
fn messages(value: Value) -> Result<Vec<Message>, String> {
    let Value::Array(turns) = value else {
        return Err(format!("messages is {}, but must be {MESSAGES}", kind(&value)));
    };
    turns.into_iter().enumerate().map(|(at, turn)| message(at, turn)).collect()
}

/// One message, the `at`-th from 0.
fn message(at: usize, turn: Value) -> Result<Message, String> {
    let Value::Object(mut fields) = turn else {
        return Err(format!("messages[{at}] is {}, but messages must be {MESSAGES}", kind(&turn)));
    };
    let mut text = |key: &str| match fields.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("messages[{at}].{key} is {}, but must be a text", kind(&other))),
        None => Err(format!("messages[{at}] has no {key}, but must have role and content")),
    };
    let (role, content) = (text("role")?, text("content")?);
    match fields.keys().next() {
        None => Ok(Message { role, content }),
        Some(other) => Err(format!("messages[{at}] has the field '{other}', but must have role and content alone")),
    }
}

/// A text, if the item has one of this name.
pub(super) fn text(fields: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key} is {}, not a text", kind(&other))),
    }
}

/// A value of this form, or what would have been one.
pub(super) fn as_form<T: DeserializeOwned>(value: Value, name: &str, allowed: &str) -> Result<T, String> {
    let found = short(&value);
    serde_json::from_value(value).map_err(|_| format!("{name} is {found}, but must be {allowed}"))
}

/// What a value is called in messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
