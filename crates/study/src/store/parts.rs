//! What the results of a run depend on, by name, so that two runs can say how they differ.

use headtemper_engine::Identity;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Item, store::digest::digest};

/// Everything that the results of one directory share, by name. Its hash is the run's key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parts(Map<String, Value>);

impl Parts {
    /// The part that says whether prompts are read as they stand.
    pub(crate) const RAW: &str = "raw";

    /// The model, its weights, its settings and where it runs.
    pub fn of(identity: &Identity) -> Self {
        match plain(identity) {
            Value::Object(fields) => Self(fields),
            other => unreachable!("an identity is an object, not {other}"),
        }
    }

    /// Adds a part. Entries of a list are best given as pairs that begin with a name, such as an item's id.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.0.insert(name.into(), plain(&value));
        self
    }

    /// Notes that prompts are read as they stand, if they are; with the chat template there is no such part.
    #[must_use]
    pub(crate) fn with_raw(self, items: &[Item]) -> Self {
        if items.iter().any(Item::is_raw) { self.with(Self::RAW, true) } else { self }
    }

    /// Hash of all parts.
    pub fn key(&self) -> String {
        digest(self)
    }

    /// What differs between an earlier run and this one, one line each; empty if nothing does.
    pub fn changes(&self, was: &Self) -> Vec<String> {
        let raw = |of: &Self| of.0.get(Self::RAW) == Some(&Value::Bool(true));
        let (raw_was, raw_is) = (raw(was), raw(self));
        let mut out = Vec::new();
        let without = |of: &Self, left_out: &[&str]| -> Map<String, Value> {
            let fields = of.0.iter().filter(|(name, _)| !left_out.contains(&name.as_str()));
            fields.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        if raw_was == raw_is {
            // What is kept of items differs wherever they do.
            let kept: &[&str] = if was.0.get(ITEMS) == self.0.get(ITEMS) { &[] } else { &[LABELS] };
            compare_fields("", &without(was, kept), &without(self, kept), &mut out);
            return out;
        }
        let noted = [was, self].iter().all(|of| of.0.contains_key(Self::RAW));
        let same_items = was.0.get(ITEMS) == self.0.get(ITEMS) && !noted;
        if same_items {
            // Token for token the same: earlier versions did not note whether prompts were raw. A run always notes it, and its items
            // are lines of a file, which do not tell.
            compare_fields("", &without(was, &[Self::RAW]), &without(self, &[Self::RAW]), &mut out);
            return out;
        }
        // Whatever else differs in the items, this alone changes every one of them.
        let said = |raw: bool| if raw { "read as they stand (--raw)" } else { "put through the chat template" };
        out.push(format!("prompts were {}, are {}", said(raw_was), said(raw_is)));
        compare_fields("", &without(was, &[Self::RAW, ITEMS]), &without(self, &[Self::RAW, ITEMS]), &mut out);
        out
    }
}

/// The part that names the items, with what is read of each.
const ITEMS: &str = "items";
/// That of a capture which names what it keeps of them besides the text: labels, prompts, numbers.
const LABELS: &str = "labels";

/// A part's name in messages: with the option that it comes from, where the name alone does not say it.
fn told(name: &str) -> &str {
    match name {
        "ends" => "ends (--ignore-eos)",
        "generated.stop" => "generated.stop (--ignore-eos)",
        _ => name,
    }
}

/// Goes through text, so that an f32 keeps the digits that it was written with.
fn plain(value: &impl Serialize) -> Value {
    let text = serde_json::to_string(value).expect("plain data has a JSON form");
    serde_json::from_str(&text).expect("it was written just now")
}

/// What differs between two values, one line each.
pub(crate) fn changes(name: &str, was: &Value, now: &Value) -> Vec<String> {
    let mut out = Vec::new();
    compare(name, was, now, &mut out);
    out
}

fn compare_fields(prefix: &str, was: &Map<String, Value>, now: &Map<String, Value>, out: &mut Vec<String>) {
    let added = now.keys().filter(|name| !was.contains_key(*name));
    for name in was.keys().chain(added) {
        let of = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or(Value::Null);
        compare(told(&format!("{prefix}{name}")), &of(was), &of(now), out);
    }
}

fn compare(name: &str, was: &Value, now: &Value, out: &mut Vec<String>) {
    match (was, now) {
        _ if was == now => {}
        (Value::Object(was), Value::Object(now)) => compare_fields(&format!("{name}."), was, now, out),
        (Value::Array(was), Value::Array(now)) if was.iter().chain(now).any(|x| !x.is_number()) => {
            let at = was.iter().zip(now).take_while(|(a, b)| a == b).count();
            let count = if was.len() == now.len() {
                format!("{name} differ")
            } else {
                format!("{name} were {}, are {}", was.len(), now.len())
            };
            let entry = |list: &[Value]| list.get(at).map_or("none".into(), label);
            out.push(match (entry(was), entry(now)) {
                (was, now) if was == now && name == ITEMS => {
                    format!("{count}; the first that differs is {was}, in its text or what is made of it (system message, template)")
                }
                (was, now) if was == now => format!("{count}; the first that differs is {was}"),
                (was, now) => format!("{count}; the first that differs was {was}, is {now}"),
            });
        }
        _ => out.push(format!("{name} was {}, is {}", short(was), short(now))),
    }
}

/// What an entry of a list is called: its first text.
fn label(entry: &Value) -> String {
    let text = match entry {
        Value::Array(values) => values.iter().find_map(Value::as_str),
        Value::Object(fields) => fields.values().find_map(Value::as_str),
        other => other.as_str(),
    };
    text.map_or_else(|| short(entry), |text| format!("'{text}'"))
}

/// How many characters of a value are shown; of a hash, the first suffice.
const SHOWN: usize = 40;

/// A value for a message.
pub(crate) fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let hash = text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let shown = if hash { 12 } else { SHOWN };
    if text.chars().count() <= shown { text } else { text.chars().take(shown).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parts() -> Parts {
        let Value::Object(fields) = json!({"weights_sha256": "ab".repeat(32), "dtype": "f32"}) else { unreachable!() };
        let sampling = headtemper_engine::Sampling { temperature: 0.7, ..Default::default() };
        Parts(fields).with("sampling", sampling).with("items", [("a", "1"), ("b", "2")]).with("seeds", [1, 2])
    }

    #[test]
    fn raw_prompts_are_named_before_the_items_that_they_change() {
        let raw = || parts().with(Parts::RAW, true).with("items", [("a", "3"), ("b", "4")]);
        let named = "prompts were put through the chat template, are read as they stand (--raw)";
        assert_eq!(raw().changes(&parts()), [named]);
        let back = parts().with("thinking", true).changes(&raw());
        assert!(back[0].starts_with("prompts were read as they stand (--raw), are put through"), "{back:?}");
        assert_eq!(back[1..], ["thinking was none, is true"]);
        // An earlier version did not note it, and the tokens are the same.
        assert!(parts().with(Parts::RAW, true).changes(&parts()).is_empty());
        let noted = |raw: bool| parts().with(Parts::RAW, raw);
        assert_eq!(noted(true).changes(&noted(false)), [named]);
        assert_eq!(noted(false).changes(&noted(true)).len(), 1);
    }

    #[test]
    fn every_part_that_differs_is_named() {
        let was = parts();
        let read: Parts = serde_json::from_str(&serde_json::to_string(&was).unwrap()).unwrap();
        assert_eq!((read.changes(&was), read.key()), (vec![], was.key()));
        let hotter = headtemper_engine::Sampling { temperature: 0.9, ..Default::default() };
        let now = parts()
            .with("weights_sha256", "cd".repeat(32))
            .with("sampling", hotter)
            .with("items", [("a", "1"), ("c", "2"), ("d", "3")])
            .with("seeds", [1, 2, 3])
            .with("thinking", true);
        let named = now.changes(&was);
        assert_eq!(
            named,
            [
                "weights_sha256 was abababababab…, is cdcdcdcdcdcd…",
                "sampling.temperature was 0.7, is 0.9",
                "items were 2, are 3; the first that differs was 'b', is 'c'",
                "seeds was [1,2], is [1,2,3]",
                "thinking was none, is true",
            ]
        );
        assert_ne!(now.key(), was.key());
        assert_eq!(parts().with("ends", "never").changes(&was), ["ends (--ignore-eos) was none, is never"]);
        assert_eq!(
            parts().with("items", [("a", "1"), ("b", "x")]).changes(&was),
            [
                "items differ; the first that differs is 'b', in its text or what is made of it (system message, template)"
            ]
        );
    }
}
