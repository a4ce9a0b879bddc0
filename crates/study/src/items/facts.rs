//! What is known of an item besides its features: what it asks, what it answers, and its other fields.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{Item, Result, StudyError};

/// The name under which an item's answer can be used like a field.
pub(crate) const RESPONSE: &str = "response";

/// What is known of a captured item besides its features.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemFacts {
    /// The prompt by which items are told apart.
    pub prompt: String,
    /// The response by which items are told apart, if it is a text.
    pub response: Option<String>,
    /// Whether the response was cut off; none where this is unknown.
    pub truncated: Option<bool>,
    /// Its other fields whose value is a text, a number or a truth value; those of objects by dotted names, such as `meta.source`.
    pub fields: BTreeMap<String, String>,
}

impl ItemFacts {
    /// What an item says of itself.
    pub fn of(item: &Item) -> Self {
        let mut fields = BTreeMap::new();
        item.other.iter().for_each(|(name, value)| take(name.clone(), value, &mut fields));
        Self { prompt: item.prompt_key(), response: item.response_key(), truncated: item.truncated(), fields }
    }

    /// The prompt, if anything was asked: items do not share an empty prompt.
    pub(crate) fn asked(&self) -> Option<&str> {
        (!self.prompt.is_empty()).then_some(&self.prompt)
    }

    /// The value of a field; `response` is one too.
    pub(crate) fn value(&self, field: &str) -> Option<&str> {
        match field {
            RESPONSE => self.response.as_deref(),
            _ => self.fields.get(field).map(String::as_str),
        }
    }
}

/// Takes a field, or those inside it.
fn take(name: String, value: &Value, fields: &mut BTreeMap<String, String>) {
    if let Value::Object(inside) = value {
        inside.iter().for_each(|(own, value)| take(format!("{name}.{own}"), value, fields));
    } else if let Some(written) = written(value) {
        fields.entry(name).or_insert(written);
    }
}

/// A value as it is written, so that 5, 5.0 and "5" are one; none for what is no single value.
pub(super) fn written(value: &Value) -> Option<String> {
    match value {
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => {
            // Whole numbers of 64 bits have no f64; -0 is 0.
            let whole = || number.is_i64() || number.is_u64();
            let fraction = number.as_f64().filter(|_| !whole());
            Some(fraction.map_or_else(|| number.to_string(), |x| (x + 0.0).to_string()))
        }
        Value::String(text) => Some(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Why items cannot be grouped by a field; none if they can.
fn unusable(field: &str) -> Option<&'static str> {
    match field {
        "label" => Some("cohorts may follow from it"),
        _ if field == "scores" || field.starts_with("scores.") => Some("cohorts may follow from scores"),
        "id" => Some("it is another for every item"),
        "prompt" | "messages" | "input_ids" => Some("items of one prompt stay together as it is"),
        _ => None,
    }
}

/// Refuses a field that no item has, or that items cannot be grouped by; `option` is what it was given for.
///
/// # Errors
/// The error names the fields that there are.
pub(crate) fn check_field(option: &str, field: &str, facts: &[ItemFacts]) -> Result<()> {
    if facts.iter().any(|facts| facts.value(field).is_some()) {
        return Ok(());
    }
    let mut known: BTreeSet<&str> = facts.iter().flat_map(|facts| facts.fields.keys()).map(String::as_str).collect();
    known.extend(facts.iter().any(|facts| facts.response.is_some()).then_some(RESPONSE));
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    let (found, allowed) = match (unusable(field), known.is_empty()) {
        (Some(why), true) => (format!("'{field}' ({why})"), "another field, of which the items have none".into()),
        (Some(why), false) => (format!("'{field}' ({why})"), format!("another field that items have: {known}")),
        (None, true) => {
            (format!("'{field}', which no item has"), "a field of the items, which have none but their prompts".into())
        }
        (None, false) => (format!("'{field}', which no item has"), format!("a field that items have: {known}")),
    };
    Err(StudyError::option(option, found, allowed))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_one_however_its_json_writes_it() {
        let of = |value: Value| written(&value);
        assert!([json!(5), json!(5.0), json!("5")].into_iter().all(|five| of(five).as_deref() == Some("5")));
        assert_eq!(of(json!("true")), of(json!(true)));
        assert_eq!(of(json!(-0.0)), of(json!(0)));
        assert_ne!(of(json!("x")), of(json!("X")));
        // Names that no f64 tells apart.
        assert_ne!(of(json!(9_007_199_254_740_993_u64)), of(json!(9_007_199_254_740_992_u64)));
        assert_eq!((of(json!(0.5)).as_deref(), of(json!(null)), of(json!([1]))), (Some("0.5"), None, None));
    }

    #[test]
    fn fields_inside_others_have_dotted_names() {
        let mut fields = BTreeMap::new();
        take("meta".into(), &json!({"source": "A", "by": {"year": 1998}, "tags": ["p"]}), &mut fields);
        let wanted = [("meta.by.year", "1998"), ("meta.source", "A")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(fields, BTreeMap::from(wanted));
    }
}
