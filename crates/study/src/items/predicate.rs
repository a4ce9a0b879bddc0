//! Which items belong to a cohort: `label == "cw"`, `scores.self_verification >= 4`, `!correct && verbal == "assert"`.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Item, Result, StudyError};

/// Fields that an item may have and no condition asks for: they are lists.
const UNASKED: [&str; 4] = ["gold", "messages", "input_ids", "response_ids"];

/// A condition on the fields of an item.
///
/// `==`, `!=`, `<`, `<=`, `>`, `>=` between a field and a text, number, `true`, `false`; a field by itself tests whether it is true; `!`,
/// `&&`, `||` and parentheses, binding in this order. A field is `id`, `label`, `prompt`, `response`, `scores.NAME`, or any other field of
/// the item, with dots into objects; a name with spaces or other signs stands in backticks. A text stands in double or single quotes, and
/// doubles those that it has within it.
///
/// An item that lacks a field is neither in nor out: `!correct` does not hold for an item that nobody judged. The logic is Kleene's:
/// `unknown || true` is true, `unknown && true` is unknown, and an item is in only if the condition is true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Predicate {
    text: String,
    root: Node,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    True(String),
    Compare(String, Op, Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Predicate> for String {
    fn from(predicate: Predicate) -> Self {
        predicate.text
    }
}

impl TryFrom<String> for Predicate {
    type Error = StudyError;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl Predicate {
    /// Reads a condition.
    ///
    /// # Errors
    /// If it cannot be read; the error says at which character, and what would be allowed there.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let wrong = |why: String| {
            StudyError::option(
                "the condition",
                format!("'{text}' ({why})"),
                "like label == \"cw\", scores.self_verification >= 4, or !correct && verbal == \"assert\"",
            )
        };
        let root = parser.any().map_err(&wrong)?;
        match parser.rest() {
            "" => Ok(Self { text: text.trim().into(), root }),
            rest => Err(wrong(format!("'{}' where && or || or the end was expected", first_word(rest)))),
        }
    }

    /// The condition that the label is this one.
    pub fn label(name: &str) -> Self {
        let text = format!("label == \"{}\"", name.replace('"', "\"\""));
        Self { text, root: Node::Compare("label".into(), Op::Equal, Value::String(name.into())) }
    }

    /// The fields that it uses.
    pub fn fields(&self) -> Vec<&str> {
        let mut fields = Vec::new();
        self.root.fields(&mut fields);
        fields
    }

    /// The texts that it compares a field with.
    pub(crate) fn texts_of(&self, field: &str) -> Vec<&str> {
        let mut texts = Vec::new();
        self.root.texts_of(field, &mut texts);
        texts
    }

    /// Refuses fields that no item has: a misspelt field would silently hold for no item.
    ///
    /// # Errors
    /// The error names the field, and the fields that there are; `what` names the condition.
    pub(crate) fn check(&self, what: impl FnOnce() -> String, items: &[Item]) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        self.check_among(what, &items.iter().flat_map(Item::field_names).collect())
    }

    /// The same for items whose fields have these names.
    pub(crate) fn check_among(&self, what: impl FnOnce() -> String, known: &BTreeSet<String>) -> Result<()> {
        // A missing `label` is reported later, with the labels that there are.
        match self.fields().into_iter().find(|field| *field != "label" && !known.contains(*field)) {
            None => Ok(()),
            Some(field) => Err(StudyError::option(
                what(),
                if UNASKED.contains(&field) {
                    format!("'{self}' (no condition can ask for {field})")
                } else {
                    format!("'{self}' (no item has {field})")
                },
                format!(
                    "on fields that items have: {}",
                    known.iter().map(|name| written(name)).collect::<Vec<_>>().join(", ")
                ),
            )),
        }
    }

    /// Whether the item is in.
    ///
    /// # Errors
    /// If a field is compared with something it cannot be compared with, such as a text with 4; the error names the item and field.
    pub fn holds(&self, item: &Item) -> Result<bool> {
        Ok(self.known(item)? == Some(true))
    }

    /// Whether the item is in; none if it lacks a field on which this depends.
    ///
    /// # Errors
    /// As [`Predicate::holds`].
    pub(crate) fn known(&self, item: &Item) -> Result<Option<bool>> {
        self.root.holds(item).map_err(|OtherKind { found, allowed }| {
            StudyError::option(format!("a field of item '{}' in the condition '{self}'", item.id), found, allowed)
        })
    }
}

/// A value that a condition cannot use.
struct OtherKind {
    found: String,
    allowed: String,
}

impl Node {
    fn fields<'a>(&'a self, out: &mut Vec<&'a str>) {
        match self {
            Self::Any(nodes) | Self::All(nodes) => nodes.iter().for_each(|node| node.fields(out)),
            Self::Not(node) => node.fields(out),
            Self::True(field) | Self::Compare(field, ..) if !out.contains(&field.as_str()) => out.push(field),
            Self::True(_) | Self::Compare(..) => {}
        }
    }

    fn texts_of<'a>(&'a self, field: &str, out: &mut Vec<&'a str>) {
        match self {
            Self::Any(nodes) | Self::All(nodes) => nodes.iter().for_each(|node| node.texts_of(field, out)),
            Self::Not(node) => node.texts_of(field, out),
            Self::Compare(name, _, Value::String(text)) if name == field => out.push(text),
            Self::True(_) | Self::Compare(..) => {}
        }
    }

    /// Whether it holds; none if a field that it depends on is missing.
    fn holds(&self, item: &Item) -> std::result::Result<Option<bool>, OtherKind> {
        let several = |nodes: &[Self], decides: bool| {
            let mut known = Some(!decides);
            for node in nodes {
                match node.holds(item)? {
                    Some(held) if held == decides => return Ok(Some(decides)),
                    Some(_) => {}
                    None => known = None,
                }
            }
            Ok(known)
        };
        match self {
            Self::Any(nodes) => several(nodes, true),
            Self::All(nodes) => several(nodes, false),
            Self::Not(node) => Ok(node.holds(item)?.map(|held| !held)),
            Self::True(field) => match value_of(item, field) {
                None => Ok(None),
                Some(Value::Bool(held)) => Ok(Some(held)),
                Some(other) => {
                    let found = format!("{field} = {other}, which is neither true nor false");
                    let compared = other.is_number() || other.is_string();
                    let allowed =
                        if compared { format!("compared, as in {field} == {other}") } else { "one of them".into() };
                    Err(OtherKind { found, allowed })
                }
            },
            Self::Compare(field, op, wanted) => {
                let Some(found) = value_of(item, field) else { return Ok(None) };
                compare(&found, *op, wanted).map(Some).ok_or_else(|| OtherKind {
                    found: format!("{field} = {found}, compared with {wanted}"),
                    allowed: "of the kind that it is compared with".into(),
                })
            }
        }
    }
}

/// A field of an item; none if it is missing or null.
fn value_of(item: &Item, field: &str) -> Option<Value> {
    let found = match field {
        "id" => Some(Value::String(item.id.clone())),
        "label" => item.label.clone().map(Value::String),
        "response" => item.response.clone().map(Value::String),
        "prompt" => Some(Value::String(item.prompt_text())),
        _ => {
            let score = field.strip_prefix("scores.").and_then(|name| item.scores.get(name));
            // The items of a table may have a field of that name.
            score.map(|&score| Value::from(score)).or_else(|| within(&item.other, field).cloned())
        }
    };
    found.filter(|value| !value.is_null())
}

/// A value by its name, which may be nested: `m.n` is the field of that name, or n in m.
pub(crate) fn within<'a>(fields: &'a serde_json::Map<String, Value>, name: &str) -> Option<&'a Value> {
    let nested = |at: usize| within(fields.get(&name[..at])?.as_object()?, &name[at + 1..]);
    fields.get(name).or_else(|| name.match_indices('.').find_map(|(at, _)| nested(at)))
}

/// Whether the comparison holds; none if the two are of different kinds, or have no order.
fn compare(found: &Value, op: Op, wanted: &Value) -> Option<bool> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (found, wanted) {
        (Value::Number(x), Value::Number(y)) => x.as_f64()?.partial_cmp(&y.as_f64()?)?,
        // A label is a text even where the file has a number there.
        (Value::String(x), Value::Number(y)) => x.parse::<f64>().ok()?.partial_cmp(&y.as_f64()?)?,
        (Value::String(x), Value::String(y)) if matches!(op, Op::Equal | Op::Unequal) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) if matches!(op, Op::Equal | Op::Unequal) => x.cmp(y),
        (Value::String(x), Value::Bool(y)) if matches!(op, Op::Equal | Op::Unequal) => x.parse::<bool>().ok()?.cmp(y),
        _ => return None,
    };
    Some(match op {
        Op::Equal => order == Equal,
        Op::Unequal => order != Equal,
        Op::Less => order == Less,
        Op::LessOrEqual => order != Greater,
        Op::Greater => order == Greater,
        Op::GreaterOrEqual => order != Less,
    })
}

/// Reads conditions from left to right.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Parsed<T> = std::result::Result<T, String>;

impl<'a> Parser<'a> {
    const DEEPEST: usize = 100;

    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        &self.text[self.at..]
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn any(&mut self) -> Parsed<Node> {
        let mut nodes = vec![self.all()?];
        while self.take("||") {
            nodes.push(self.all()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Any(nodes) })
    }

    fn all(&mut self) -> Parsed<Node> {
        let mut nodes = vec![self.one()?];
        while self.take("&&") {
            nodes.push(self.one()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::All(nodes) })
    }

    /// A condition within another, down to a depth that nobody needs.
    fn within<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == Self::DEEPEST {
            return Err(format!("more than {} conditions within each other", Self::DEEPEST));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn one(&mut self) -> Parsed<Node> {
        if self.take("!") {
            return Ok(Node::Not(Box::new(self.within(Self::one)?)));
        }
        if self.take("(") {
            let node = self.within(Self::any)?;
            return if self.take(")") { Ok(node) } else { Err("a parenthesis is not closed".into()) };
        }
        let field = self.field()?;
        // The longer ones first: <= begins with <.
        let ops = [
            ("==", Op::Equal),
            ("!=", Op::Unequal),
            ("<=", Op::LessOrEqual),
            (">=", Op::GreaterOrEqual),
            ("<", Op::Less),
            (">", Op::Greater),
        ];
        match ops.into_iter().find(|(token, _)| self.take(token)) {
            Some((_, op)) => Ok(Node::Compare(field, op, self.value(op)?)),
            None if self.rest().starts_with('=') => Err("'=' where == (is equal to) was expected".into()),
            None => Ok(Node::True(field)),
        }
    }

    fn field(&mut self) -> Parsed<String> {
        let rest = self.rest();
        if rest.starts_with('`') {
            return match self.quoted('`').ok_or("a field's name in backticks is not closed")? {
                name if name.is_empty() => Err("'``' where a field's name was expected".into()),
                name => Ok(name),
            };
        }
        let len = rest.find(|c: char| !of_name(c)).unwrap_or(rest.len());
        let name = &rest[..len];
        if !is_plain(name) {
            let found = if rest.is_empty() { "the end".into() } else { format!("'{}'", first_word(rest)) };
            return Err(format!("{found} where a field's name was expected"));
        }
        self.at += len;
        Ok(name.into())
    }

    /// The inside of the quotes that the rest begins with, of which two stand for one; none if they are not closed.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut inside = String::new();
        let mut at = self.at + quote.len_utf8();
        loop {
            let end = at + self.text[at..].find(quote)?;
            inside.push_str(&self.text[at..end]);
            at = end + quote.len_utf8();
            if !self.text[at..].starts_with(quote) {
                self.at = at;
                return Some(inside);
            }
            inside.push(quote);
            at += quote.len_utf8();
        }
    }

    fn value(&mut self, op: Op) -> Parsed<Value> {
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let text = self.quoted(quote).ok_or("a text is not closed")?;
            return match op {
                Op::Equal | Op::Unequal => Ok(Value::String(text)),
                _ => Err("texts have no order; == and != go with them".into()),
            };
        }
        let len = rest.find(|c: char| c.is_whitespace() || matches!(c, '&' | '|' | ')')).unwrap_or(rest.len());
        let word = &rest[..len];
        let value = match word {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => {
                let number = word.parse::<f64>().ok().filter(|x| x.is_finite());
                number
                    .map(Value::from)
                    .ok_or_else(|| format!("'{word}' where a number, true, false or a text in quotes was expected"))?
            }
        };
        if value.is_boolean() && !matches!(op, Op::Equal | Op::Unequal) {
            return Err("true and false have no order; == and != go with them".into());
        }
        self.at += len;
        Ok(value)
    }
}

/// Characters of a name that needs no backticks.
fn of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-')
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(of_name)
}

/// A field's name as a condition writes it.
fn written(name: &str) -> String {
    if is_plain(name) { name.into() } else { format!("`{}`", name.replace('`', "``")) }
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
