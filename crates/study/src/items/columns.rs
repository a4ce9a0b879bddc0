//! What items bring besides their texts, as columns of a capture: scores and numbers, a hash of the prompt, answers.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_engine::{FinishReason, Input, Message};
use serde_json::{Value, json};

use super::item::key_of;
use crate::{
    Array, Item, Npz,
    store::digest::{digest, digest_text},
};

const SCORES: &str = "scores.";
const FIELDS: &str = "fields.";
/// The column that says whether responses that items brought were cut off, by whichever field said so.
pub(crate) const TRUNCATED: &str = "fields.truncated";
/// The array that says which prompts a capture is of, however they are spaced and capitalised.
pub(crate) const PROMPT_HASH: &str = "prompt_hash";
/// The same of responses.
pub(crate) const RESPONSE_HASH: &str = "response_hash";
/// The array that says which texts a capture is of.
pub(crate) const TEXT_HASH: &str = "text_hash";

/// The array of generated responses.
pub(crate) const RESPONSE: &str = "response";
/// The array that says how they ended.
pub(crate) const FINISH_REASON: &str = "finish_reason";

/// Columns of a capture, one row per item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// The first 32 hexadecimal digits of SHA-256 over each prompt, in lower case and without what stands between its words: equal if two
    /// data sets share a prompt.
    pub prompt_hash: Vec<String>,
    /// The same over each response; empty where an item has none, or has it as token ids.
    pub response_hash: Vec<String>,
    /// The same over prompt and response exactly as they stand, which shows that features are of these texts.
    pub text_hash: Vec<String>,
    /// `scores.NAME` and `fields.NAME`, with NaN where an item has none.
    pub numbers: Vec<(String, Vec<f64>)>,
    /// What the model answered, where it wrote the responses itself.
    pub answers: Option<Answers>,
}

/// Generated responses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// Their texts.
    pub texts: Vec<String>,
    /// Why each ended.
    pub reasons: Vec<FinishReason>,
}

impl Columns {
    /// The columns of items, answers left out.
    pub(crate) fn of(items: &[Item], names: &[String]) -> Self {
        let column = |name: &String| (name.clone(), items.iter().map(|item| number(item, name)).collect());
        Self {
            prompt_hash: items.iter().map(prompt_hash).collect(),
            response_hash: items.iter().map(|item| response_hash(item.response.as_deref())).collect(),
            text_hash: items.iter().map(|item| text_hash(item, item.response.as_deref())).collect(),
            numbers: names.iter().map(column).collect(),
            answers: None,
        }
    }

    /// Adds what the model answered to these items.
    pub(crate) fn answered(&mut self, items: &[Item], answers: Answers) {
        let texts = items.iter().zip(&answers.texts);
        self.text_hash = texts.map(|(item, text)| text_hash(item, Some(text))).collect();
        self.response_hash = answers.texts.iter().map(|text| response_hash(Some(text))).collect();
        self.answers = Some(answers);
    }

    /// Adds the columns to a file.
    pub(crate) fn add_to(self, npz: &mut Npz) {
        if !self.prompt_hash.is_empty() {
            npz.add(PROMPT_HASH, Array::Text(self.prompt_hash));
            npz.add(RESPONSE_HASH, Array::Text(self.response_hash));
            npz.add(TEXT_HASH, Array::Text(self.text_hash));
        }
        for (name, values) in self.numbers {
            npz.add(name, Array::floats(values));
        }
        if let Some(Answers { texts, reasons }) = self.answers {
            let reason = |reason: FinishReason| match reason {
                FinishReason::Stop => "stop".into(),
                FinishReason::Length => "length".into(),
            };
            npz.add(RESPONSE, Array::Text(texts));
            npz.add(FINISH_REASON, Array::Text(reasons.into_iter().map(reason).collect()));
        }
    }
}

/// The hash that identifies a prompt, however it is spaced and capitalised.
pub(crate) fn prompt_hash(item: &Item) -> String {
    let key = item.prompt_key();
    if key.is_empty() { key } else { digest_text(&key) }
}

/// The hash that identifies a response, however it is spaced and capitalised.
pub(crate) fn response_hash(response: Option<&str>) -> String {
    let key = response.map(key_of).unwrap_or_default();
    if key.is_empty() { key } else { digest_text(&key) }
}

/// The hash that identifies the texts of an item, letter by letter: its whole prompt, and this response or the one that its tokens hold,
/// with the tokens that the item brings for it.
pub(crate) fn text_hash(item: &Item, response: Option<&str>) -> String {
    let (prompt, tokens) = match &item.input {
        Input::Prompt(text) | Input::Raw(text) => (json!(text), &[][..]),
        Input::Messages(messages) => match &messages[..] {
            // A model reads this as it reads a plain prompt.
            [only] if *only == Message::user(&only.content) => (json!(only.content), &[][..]),
            _ => (json!(messages), &[][..]),
        },
        Input::Ids(ids) => {
            let prompt = item.prompt_ids(ids);
            (json!(prompt), &ids[prompt.len()..])
        }
    };
    let response = match response {
        None if !tokens.is_empty() => json!(tokens),
        response => json!(response.unwrap_or_default()),
    };
    match item.response_ids.as_ref().filter(|_| item.response.as_deref() == response.as_str()) {
        Some(ids) => digest(&(prompt, response, ids)),
        None => digest(&(prompt, response)),
    }
}

/// An item's number in a column; NaN if it has none.
pub(crate) fn number(item: &Item, name: &str) -> f64 {
    if name == TRUNCATED {
        return item.truncated().map_or(f64::NAN, |cut| f64::from(u8::from(cut)));
    }
    let score = name.strip_prefix(SCORES).and_then(|name| item.scores.get(name).copied());
    let field = || match item.other.get(name.strip_prefix(FIELDS)?)? {
        Value::Bool(value) => Some(f64::from(*value)),
        Value::Number(value) => value.as_f64(),
        _ => None,
    };
    score.or_else(field).unwrap_or(f64::NAN)
}

/// Finds the column names of items, one item after the other.
#[derive(Default)]
pub(crate) struct ColumnNames {
    scores: BTreeSet<String>,
    /// Other fields, and whether each has held only numbers and truth values so far.
    fields: BTreeMap<String, bool>,
    /// Whether any item says how its response ended.
    ends: bool,
}

impl ColumnNames {
    pub(crate) fn of(items: &[Item]) -> Vec<String> {
        let mut names = Self::default();
        for item in items {
            names.see(item);
        }
        names.names()
    }

    pub(crate) fn see(&mut self, item: &Item) {
        for name in item.scores.keys() {
            if !self.scores.contains(name) {
                self.scores.insert(name.clone());
            }
        }
        self.ends |= item.truncated().is_some();
        for (name, value) in item.other.iter().filter(|(_, value)| !value.is_null()) {
            let is_number = value.is_number() || value.is_boolean();
            match self.fields.get_mut(name) {
                Some(numbers) => *numbers &= is_number,
                None => {
                    self.fields.insert(name.clone(), is_number);
                }
            }
        }
    }

    /// How many scores and other fields there are, of whatever kind.
    pub(crate) fn count(&self) -> usize {
        self.scores.len() + self.fields.len()
    }

    /// Scores, then fields of numbers, each in the order of their names.
    pub(crate) fn names(&self) -> Vec<String> {
        let scores = self.scores.iter().map(|name| format!("{SCORES}{name}"));
        let fields = self.fields.iter().filter(|&(_, &numbers)| numbers).map(|(name, _)| format!("{FIELDS}{name}"));
        // However items say it, in a form that numbers have.
        let fields: BTreeSet<String> = fields.chain(self.ends.then(|| TRUNCATED.into())).collect();
        scores.chain(fields).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(lines: &[&str]) -> Vec<Item> {
        lines.iter().enumerate().map(|(i, line)| Item::parse(line, i + 1, false).unwrap()).collect()
    }

    #[test]
    fn one_text_has_one_hash_however_it_is_written() {
        let hashes = |lines: &[&str]| Columns::of(&items(lines), &[]);
        let asked = hashes(&[
            r#"{"prompt":"a","response":"b"}"#,
            r#"{"messages":[{"role":"user","content":"a"}],"response":"b"}"#,
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"c"}]}"#,
            r#"{"messages":[{"role":"system","content":"a"}],"response":"b"}"#,
        ]);
        assert!(asked.text_hash[1..3].iter().all(|hash| *hash == asked.text_hash[0]), "{:?}", asked.text_hash);
        assert!(asked.text_hash[3..].iter().all(|hash| *hash != asked.text_hash[0]), "{:?}", asked.text_hash);
        assert!(asked.prompt_hash.iter().all(|hash| *hash == asked.prompt_hash[0]));
        let told = hashes(&[
            r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}],"response":"b"}"#,
            r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
        ]);
        assert_eq!(told.text_hash[0], told.text_hash[1]);
        assert_ne!(told.text_hash[0], asked.text_hash[0]);
    }

    #[test]
    fn numbers_and_truth_values_become_columns() {
        let items = items(&[
            r#"{"prompt":"a","scores":{"hedging":2,"x":0.5},"correct":true,"coverage":0.25,"topic":"t","mixed":1}"#,
            r#"{"prompt":"b","scores":{"hedging":3},"correct":null,"mixed":"one","only":7,"gone":null}"#,
            r#"{"prompt":"A! ","correct":false,"topic":null,"deep":{"n":1}}"#,
        ]);
        let names = ColumnNames::of(&items);
        assert_eq!(names, ["scores.hedging", "scores.x", "fields.correct", "fields.coverage", "fields.only"]);
        let columns = Columns::of(&items, &names);
        let bits = |values: [f64; 3]| values.map(f64::to_bits).to_vec();
        let expected = [
            bits([2.0, 3.0, f64::NAN]),
            bits([0.5, f64::NAN, f64::NAN]),
            bits([1.0, f64::NAN, 0.0]),
            bits([0.25, f64::NAN, f64::NAN]),
            bits([f64::NAN, 7.0, f64::NAN]),
        ];
        let found: Vec<Vec<u64>> =
            columns.numbers.iter().map(|(_, values)| values.iter().map(|x| x.to_bits()).collect()).collect();
        assert_eq!(found, expected);
        // printf a | sha256sum
        assert_eq!(columns.prompt_hash[0], "ca978112ca1bbdcafac231b39a23dc4d");
        assert_eq!(columns.prompt_hash[2], columns.prompt_hash[0], "spelling does not matter");
        assert_ne!(columns.prompt_hash[1], columns.prompt_hash[0]);
    }
}
