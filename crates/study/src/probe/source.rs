//! Where features and labels lie, as a user writes it: `train.npz:h_layers[-4:]`, `judged.jsonl:scores.humble >= 4`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::StudyError;

/// The array that features are read from if none is named.
const H_LAST: &str = "h_last";

/// Features: an array of an `.npz`, one row per item.
///
/// `FILE.npz` (its `h_last`), `FILE.npz:KEY` for `[n, d]`, `FILE.npz:KEY[2]` for one place of the middle axis of `[n, k, d]`,
/// `FILE.npz:KEY[-4:]` for the mean over a range of places, counted as numpy does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FeatureSource {
    /// The file.
    pub path: PathBuf,
    /// The array.
    pub key: String,
    /// Which places of the middle axis are averaged.
    pub places: Option<Places>,
}

/// A range of places, negative ones counted from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// One.
    One(i64),
    /// From the first to before the second.
    Range(Option<i64>, Option<i64>),
}

/// A column: one value per item.
///
/// `FILE.npz:KEY`, `FILE.json:KEY` (an object that holds an array, or arrays of objects: `items.scores.humble`), or
/// `FILE.jsonl:FIELD` with dots into objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ColumnSource {
    /// The file.
    pub path: PathBuf,
    /// The array or field.
    pub key: String,
}

/// Labels: a column, and which of its values are positive.
///
/// Without a rule, values must be truth values, or 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelSource {
    /// The column.
    pub column: ColumnSource,
    /// What makes a value positive.
    pub rule: Option<Rule>,
}

/// A comparison with a number or a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// How it is compared.
    pub op: Op,
    /// With what.
    pub with: Operand,
}

/// How values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `<`
    Below,
    /// `==`
    Equal,
    /// `!=`
    Unequal,
}

/// What values are compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A number; true and false are 1 and 0.
    Number(f64),
    /// A text, for `==` and `!=`; or several, `cr|hr`.
    Text(String),
}

/// Operators; one that begins with another comes before it.
const OPS: [(&str, Op); 6] = [
    (">=", Op::AtLeast),
    ("<=", Op::AtMost),
    ("==", Op::Equal),
    ("!=", Op::Unequal),
    (">", Op::Above),
    ("<", Op::Below),
];

impl ColumnSource {
    /// Relative paths as seen from a directory.
    #[must_use]
    pub fn within(self, dir: &Path) -> Self {
        Self { path: dir.join(self.path), ..self }
    }
}

impl FeatureSource {
    /// Relative paths as seen from a directory.
    #[must_use]
    pub fn within(self, dir: &Path) -> Self {
        Self { path: dir.join(self.path), ..self }
    }
}

impl LabelSource {
    /// Relative paths as seen from a directory.
    #[must_use]
    pub fn within(self, dir: &Path) -> Self {
        Self { column: self.column.within(dir), ..self }
    }
}

impl FromStr for FeatureSource {
    type Err = StudyError;

    fn from_str(text: &str) -> Result<Self, StudyError> {
        let wrong = || {
            StudyError::option(
                "the source of features",
                format!("'{text}'"),
                "FILE.npz:KEY, FILE.npz:KEY[2] or FILE.npz:KEY[-4:]",
            )
        };
        let (path, key) = split_path(text, &["npz"]).ok_or_else(wrong)?;
        let (key, places) = match key.strip_suffix(']').map(|key| key.split_once('[')) {
            None => (key, None),
            Some(Some((key, places))) => (key, Some(parse_places(places).ok_or_else(wrong)?)),
            Some(None) => return Err(wrong()),
        };
        let key = if key.is_empty() { H_LAST } else { key };
        Ok(Self { path: path.into(), key: key.into(), places })
    }
}

impl FromStr for ColumnSource {
    type Err = StudyError;

    fn from_str(text: &str) -> Result<Self, StudyError> {
        let wrong = || {
            StudyError::option(
                "the source of a column",
                format!("'{text}'"),
                "FILE.npz:KEY, FILE.json:KEY or FILE.jsonl:FIELD",
            )
        };
        let (path, key) = split_path(text, &["npz", "json", "jsonl"]).ok_or_else(wrong)?;
        if key.is_empty() { Err(wrong()) } else { Ok(Self { path: path.into(), key: key.into() }) }
    }
}

impl FromStr for LabelSource {
    type Err = StudyError;

    fn from_str(text: &str) -> Result<Self, StudyError> {
        let Some((at, sign, op)) = OPS.iter().filter_map(|&(sign, op)| Some((text.find(sign)?, sign, op))).min_by_key(
            // Of two that begin at the same place, the longer one.
            |(at, sign, _)| (*at, std::cmp::Reverse(sign.len())),
        ) else {
            return Ok(Self { column: text.trim().parse()?, rule: None });
        };
        let column = text[..at].trim();
        if column.ends_with('=') {
            return Err(StudyError::option("the rule of labels", format!("'{text}'"), "written >= or <="));
        }
        let column = column.parse()?;
        let rule = Rule { op, with: Operand::parse(text[at + sign.len()..].trim()) };
        rule.check(text)?;
        Ok(Self { column, rule: Some(rule) })
    }
}

impl Rule {
    fn check(&self, text: &str) -> Result<(), StudyError> {
        let orders = !matches!(self.op, Op::Equal | Op::Unequal);
        match &self.with {
            Operand::Text(with) if with.is_empty() || orders => Err(StudyError::option(
                "the rule of labels",
                format!("'{text}'"),
                "a comparison with a number such as >=0.5, or == or != with a text",
            )),
            _ => Ok(()),
        }
    }

    /// Reads a rule without a column, such as `>=4`.
    ///
    /// # Errors
    /// If it is not a rule.
    pub fn parse(text: &str) -> Result<Self, StudyError> {
        let wrong = || StudyError::option("the rule of labels", format!("'{text}'"), "a comparison such as >=4");
        let of = |&(sign, op): &(&str, Op)| Some((op, text.trim().strip_prefix(sign)?.trim()));
        let (op, with) = OPS.iter().find_map(of).ok_or_else(wrong)?;
        let rule = Self { op, with: Operand::parse(with) };
        rule.check(text)?;
        Ok(rule)
    }

    /// Whether a number is positive.
    pub(crate) fn holds_of_number(&self, value: f64) -> Option<bool> {
        let Operand::Number(with) = self.with else { return None };
        Some(match self.op {
            Op::AtLeast => value >= with,
            Op::AtMost => value <= with,
            Op::Above => value > with,
            Op::Below => value < with,
            Op::Equal => value == with,
            Op::Unequal => value != with,
        })
    }

    /// Whether a text is positive.
    pub(crate) fn holds_of_text(&self, value: &str) -> Option<bool> {
        let Operand::Text(with) = &self.with else { return None };
        Some(with.split('|').any(|one| value == one.trim()) == (self.op == Op::Equal))
    }
}

impl Operand {
    fn parse(text: &str) -> Self {
        let bare = text.trim_matches(['"', '\'']);
        match (text, text.parse()) {
            ("true", _) => Self::Number(1.0),
            ("false", _) => Self::Number(0.0),
            (_, Ok(number)) if f64::is_finite(number) => Self::Number(number),
            _ => Self::Text(bare.into()),
        }
    }
}

/// Splits `FILE.ext:KEY` after one of these endings; the key is empty where there is none.
fn split_path<'a>(text: &'a str, endings: &[&str]) -> Option<(&'a str, &'a str)> {
    let text = text.trim();
    let ends = |path: &str| endings.iter().any(|ending| path.ends_with(&format!(".{ending}")));
    let at = text.match_indices(':').map(|(at, _)| at).rfind(|&at| ends(&text[..at]));
    match at {
        Some(at) => Some((&text[..at], text[at + 1..].trim())),
        None if ends(text) => Some((text, "")),
        None => None,
    }
}

fn parse_places(text: &str) -> Option<Places> {
    let number = |text: &str| text.trim().parse::<i64>().ok();
    let end = |text: &str| if text.trim().is_empty() { Some(None) } else { number(text).map(Some) };
    match text.split_once(':') {
        None => number(text).map(Places::One),
        Some((from, to)) => Some(Places::Range(end(from)?, end(to)?)),
    }
}

impl Places {
    /// The places of an axis of this length; none if there are none, or one lies outside.
    pub(crate) fn of(self, len: usize) -> Option<std::ops::Range<usize>> {
        let at = |place: i64| usize::try_from(if place < 0 { place + len as i64 } else { place }).ok();
        let range = match self {
            Self::One(place) => at(place)?..at(place)? + 1,
            Self::Range(from, to) => from.map_or(Some(0), at)?..to.map_or(Some(len), at)?,
        };
        (range.start < range.end && range.end <= len).then_some(range)
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end: &Option<i64>| end.map_or(String::new(), |end| end.to_string());
        match self {
            Self::One(place) => write!(f, "[{place}]"),
            Self::Range(from, to) => write!(f, "[{}:{}]", end(from), end(to)),
        }
    }
}

impl fmt::Display for FeatureSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.key)?;
        self.places.map_or(Ok(()), |places| places.fmt(f))
    }
}

impl fmt::Display for ColumnSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.key)
    }
}

impl fmt::Display for LabelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.column.fmt(f)?;
        self.rule.as_ref().map_or(Ok(()), |rule| rule.fmt(f))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPS.iter().find(|(_, op)| *op == self.op).map_or("", |(sign, _)| sign);
        match &self.with {
            Operand::Number(number) => write!(f, "{sign}{number}"),
            Operand::Text(text) => write!(f, "{sign}\"{text}\""),
        }
    }
}

/// Both ways between a source and its text, for files.
macro_rules! as_text {
    ($($source:ty),*) => {$(
        impl TryFrom<String> for $source {
            type Error = StudyError;
            fn try_from(text: String) -> Result<Self, StudyError> {
                text.parse()
            }
        }
        impl From<$source> for String {
            fn from(source: $source) -> Self {
                source.to_string()
            }
        }
    )*};
}
as_text!(FeatureSource, ColumnSource, LabelSource);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_they_are_written() {
        for (text, path, key, places) in [
            ("a/train.npz:X", "a/train.npz", "X", None),
            ("train.npz", "train.npz", "h_last", None),
            ("C:/x.npz:h_layers[-4:]", "C:/x.npz", "h_layers", Some(Places::Range(Some(-4), None))),
            ("x.npz:h_layers[2]", "x.npz", "h_layers", Some(Places::One(2))),
            ("x.npz:h[1:3]", "x.npz", "h", Some(Places::Range(Some(1), Some(3)))),
        ] {
            let source: FeatureSource = text.parse().unwrap();
            assert_eq!((source.path.to_str().unwrap(), source.key.as_str(), source.places), (path, key, places));
            assert_eq!(source.to_string().parse::<FeatureSource>().unwrap(), source);
        }
        for text in ["x.json:X", "x", "x.npz:h[a]", "x.npz:h]", ""] {
            assert!(text.parse::<FeatureSource>().unwrap_err().to_string().contains("FILE.npz:KEY"), "{text}");
        }
    }

    #[test]
    fn labels_have_a_rule_or_none() {
        let source = |text: &str| text.parse::<LabelSource>();
        let coverage = source("train.npz:coverage >= 0.5").unwrap();
        assert_eq!(coverage, source("train.npz:coverage>=0.5").unwrap());
        assert_eq!(coverage.column.key, "coverage");
        assert_eq!(coverage.rule, Some(Rule { op: Op::AtLeast, with: Operand::Number(0.5) }));
        assert_eq!(source("x.json:labels").unwrap().rule, None);
        let text = source("j.jsonl:label == cw").unwrap().rule.unwrap();
        assert_eq!((text.holds_of_text("cw"), text.holds_of_text("cr")), (Some(true), Some(false)));
        assert_eq!(text.holds_of_number(1.0), None);
        let right = source("j.jsonl:label==cr|hr").unwrap().rule.unwrap();
        assert_eq!((right.holds_of_text("hr"), right.holds_of_text("cw")), (Some(true), Some(false)));
        let truth = source("j.jsonl:correct==true").unwrap().rule.unwrap();
        assert_eq!(truth.holds_of_number(1.0), Some(true));
        let unknown = source("j.jsonl:label!=<unk>").unwrap().rule.unwrap();
        assert_eq!((unknown.holds_of_text("<unk>"), unknown.holds_of_text("a=>b")), (Some(false), Some(true)));
        for text in
            ["j.jsonl:label=<4", "j.jsonl:label=>4", "j.jsonl:label>=cw", "j.jsonl:label==", "j.jsonl", "j.csv:x"]
        {
            assert!(source(text).is_err(), "{text}");
        }
        for (text, value, holds) in [("<2", 1.0, true), (">2", 2.0, false), ("<=2", 2.0, true), ("!=2", 2.0, false)] {
            assert_eq!(Rule::parse(text).unwrap().holds_of_number(value), Some(holds), "{text}");
        }
        assert!(Rule::parse("4").is_err() && Rule::parse(">=x").is_err());
    }

    #[test]
    fn places_are_counted_as_numpy_does() {
        assert_eq!(Places::Range(Some(-4), None).of(30), Some(26..30));
        assert_eq!(Places::Range(None, Some(-1)).of(3), Some(0..2));
        assert_eq!(Places::One(-1).of(3), Some(2..3));
        for (places, len) in [(Places::One(3), 3), (Places::One(-4), 3), (Places::Range(Some(2), Some(2)), 3)] {
            assert_eq!(places.of(len), None, "{places}");
        }
        assert_eq!(Places::Range(Some(-4), None).of(3), None, "fewer than are asked for");
    }
}
