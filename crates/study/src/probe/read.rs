//! Reading features and columns from files of our own and of others.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use super::{ColumnSource, FeatureSource, LabelSource, Operand};
use crate::{
    Array, FeatureMeta, Item, Npz, Result, StudyError,
    capture::join::read_meta,
    items::{
        answer::{cut_off, truth_of},
        columns::{PROMPT_HASH, RESPONSE_HASH, TRUNCATED, prompt_hash, response_hash},
        predicate::within,
        truncated,
        unique::Unique,
    },
    store::files::{nan_is_none, read_json, read_lines},
};

/// Features as they were read.
pub(crate) struct Table {
    /// Row-major `[n, d]`.
    pub(crate) values: Vec<f64>,
    pub(crate) features: usize,
    /// The items, where the file names them.
    pub(crate) ids: Option<Vec<String>>,
    /// The hashes of the items' prompts, where the file keeps them.
    pub(crate) prompts: Option<Vec<String>>,
    /// The same of their responses.
    pub(crate) responses: Option<Vec<String>>,
    /// Whether each response was cut off, where the file says so, as one does whose responses were written while it was made.
    pub(crate) cut_off: Option<Vec<Option<bool>>>,
    /// What the file says of itself, if it is a capture.
    pub(crate) meta: Option<FeatureMeta>,
    /// The layers that were averaged, where the file names them.
    pub(crate) layers: Vec<usize>,
}

impl Table {
    /// Whether a value of a column is known to be of another prompt or response than a row.
    pub(crate) fn differs(&self, row: usize, column: &Column, at: usize) -> bool {
        let Some([prompt, response]) = column.texts.get(at) else { return false };
        let other = |hashes: &Option<Vec<String>>, of_label: &String| {
            let own = hashes.as_ref().map(|hashes| &hashes[row]);
            own.is_some_and(|own| !own.is_empty() && !of_label.is_empty() && own != of_label)
        };
        other(&self.prompts, prompt) || other(&self.responses, response)
    }
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Number(f64),
    Text(String),
    /// Null, not there, or not a number.
    Missing,
}

/// A column as it was read.
pub(crate) struct Column {
    pub(crate) cells: Vec<Cell>,
    pub(crate) ids: Option<Vec<String>>,
    /// The names that items without an id have: the numbers of their lines; none in an `.npz`.
    numbers: Vec<String>,
    /// The hashes of the prompt and the response that each value is of, empty where unknown.
    pub(crate) texts: Vec<[String; 2]>,
    /// Whether the response that each value is of was cut off, where its item says so; empty in an `.npz`.
    pub(crate) cut_off: Vec<Option<bool>>,
}

impl Column {
    /// The names by which these items find their values: ids or, if no entry has one and the items follow each other under the numbers of
    /// its lines, these numbers. None where items can be matched by place alone.
    pub(crate) fn names_for(&self, items: &[String]) -> Option<&[String]> {
        let mut numbers = self.numbers.iter();
        // As a capture of such a file has them: some of the lines, in order.
        let mut follow = || items.iter().all(|item| numbers.any(|number| number == item));
        self.ids.as_deref().or_else(|| (!items.is_empty() && follow()).then_some(&self.numbers[..]))
    }
}

/// Reads features.
///
/// # Errors
/// If the file or array is not there, or the array is no table of floats.
pub(crate) fn features(source: &FeatureSource) -> Result<Table> {
    let path = &source.path;
    let wrong = |why: String| StudyError::content(path, format!("array '{}' {why}", source.key));
    let (shape, values) = match Npz::read_array(path, &source.key)? {
        Array::F32(shape, values) => (shape, values.into_iter().map(f64::from).collect::<Vec<_>>()),
        Array::F64(shape, values) => (shape, values),
        Array::I64(shape, values) => (shape, values.into_iter().map(|x| x as f64).collect()),
        Array::Text(_) | Array::Scalar(_) => return Err(wrong("holds texts, but features are numbers".into())),
    };
    if values.is_empty() {
        return Err(wrong(format!("is {shape:?}: it holds nothing")));
    }
    let (values, features, averaged) = match (&shape[..], source.places) {
        ([_, d], None) => (values, *d, None),
        ([_, k, d], Some(places)) => {
            let fits = format!("has the places 0 to {} on its middle axis, which {places} does not fit", k - 1);
            let range = places.of(*k).ok_or_else(|| wrong(fits))?;
            (average(&values, (*k, *d), range.clone()), *d, Some(range))
        }
        ([_, _, _], None) => {
            return Err(wrong(format!("is {shape:?}: say which place of the middle axis, such as {}[-1]", source.key)));
        }
        (_, Some(places)) => return Err(wrong(format!("is {shape:?}, which has no middle axis for {places}"))),
        _ => return Err(wrong(format!("is {shape:?}, but features are [items, features]"))),
    };
    let ids = ids_of(path)?;
    if let Some(ids) = ids.as_ref().filter(|ids| ids.len() != values.len() / features) {
        return Err(wrong(format!("has {} rows, but array 'id' {}", values.len() / features, ids.len())));
    }
    let mut seen = BTreeSet::new();
    if let Some(id) = ids.iter().flatten().find(|id| !seen.insert(id.as_str())) {
        return Err(StudyError::content(path, format!("id '{id}' stands there a second time")));
    }
    // Other files have no meta, or another one. What a capture says about single items is left out.
    let meta = read_meta(path).ok().map(|meta| FeatureMeta { parts: None, piece: None, ..meta });
    let layers = match averaged.filter(|_| source.key == "h_layers") {
        Some(range) => match Npz::find_array(path, "layers")? {
            Some(Array::I64(_, layers)) => {
                layers.get(range).into_iter().flatten().map(|&layer| layer as usize).collect()
            }
            _ => Vec::new(),
        },
        None => Vec::new(),
    };
    let rows = values.len() / features;
    let (prompts, responses) = (hashes(path, PROMPT_HASH, rows)?, hashes(path, RESPONSE_HASH, rows)?);
    let cut_off = match Npz::find_array(path, FINISH_REASON)? {
        Some(Array::Text(reasons)) if reasons.len() == rows => {
            Some(reasons.iter().map(|reason| cut_off(reason)).collect())
        }
        Some(_) => None,
        None => match Npz::find_array(path, TRUNCATED)? {
            Some(Array::F64(shape, ends)) if shape[..] == [rows] => Some(ends.into_iter().map(truth_of).collect()),
            _ => None,
        },
    };
    Ok(Table { values, features, ids, prompts, responses, cut_off, meta, layers })
}

/// The array, or field, that says how responses ended.
const FINISH_REASON: &str = "finish_reason";

/// The hashes of texts, one a row, where the file keeps them.
fn hashes(path: &Path, name: &str, rows: usize) -> Result<Option<Vec<String>>> {
    match Npz::find_array(path, name)? {
        None => Ok(None),
        Some(Array::Text(hashes)) if hashes.len() == rows => Ok(Some(hashes)),
        Some(Array::Text(hashes)) => {
            let why = format!("array '{name}' has {} rows, but must have {rows}", hashes.len());
            Err(StudyError::content(path, why))
        }
        Some(_) => Err(StudyError::content(path, format!("array '{name}' holds no texts"))),
    }
}

/// The mean over these places of the middle axis.
pub(crate) fn average(values: &[f64], (k, d): (usize, usize), range: std::ops::Range<usize>) -> Vec<f64> {
    let mut out = Vec::with_capacity(values.len() / k);
    for item in values.chunks_exact(k * d) {
        let places = &item[range.start * d..range.end * d];
        out.extend((0..d).map(|j| places.iter().skip(j).step_by(d).sum::<f64>() / range.len() as f64));
    }
    out
}

/// The names of the items, where the file has them.
fn ids_of(path: &Path) -> Result<Option<Vec<String>>> {
    Ok(match Npz::find_array(path, "id")? {
        None => None,
        Some(Array::Text(ids)) => Some(ids),
        Some(Array::I64(_, ids)) => Some(ids.iter().map(ToString::to_string).collect()),
        Some(_) => return Err(StudyError::content(path, "array 'id' holds neither texts nor integers")),
    })
}

/// Reads a column.
///
/// # Errors
/// If the file or column is not there, or holds something other than numbers, truth values and texts.
pub(crate) fn column(source: &ColumnSource) -> Result<Column> {
    match source.path.extension().and_then(|ending| ending.to_str()) {
        Some("npz") => npz_column(source),
        Some("json") => json_column(source),
        _ => jsonl_column(source),
    }
}

fn npz_column(source: &ColumnSource) -> Result<Column> {
    let path = &source.path;
    let number = |x: f64| if x.is_nan() { Cell::Missing } else { Cell::Number(x) };
    let (shape, cells): (_, Vec<Cell>) = match Npz::read_array(path, &source.key)? {
        Array::F32(shape, values) => (shape, values.into_iter().map(|x| number(x.into())).collect()),
        Array::F64(shape, values) => (shape, values.into_iter().map(number).collect()),
        Array::I64(shape, values) => (shape, values.into_iter().map(|x| number(x as f64)).collect()),
        // Our own files have an empty text where an item has no label.
        Array::Text(texts) => (vec![texts.len()], texts.into_iter().map(text_cell).collect()),
        Array::Scalar(_) => (Vec::new(), Vec::new()),
    };
    if !matches!(shape[..], [_] | [_, 1]) {
        let why = format!("array '{}' is {shape:?}, but a column is [items] or [items, 1]", source.key);
        return Err(StudyError::content(path, why));
    }
    let ids = ids_of(path)?;
    if let Some(ids) = ids.as_ref().filter(|ids| ids.len() != cells.len()) {
        let why = format!("array '{}' has {} values, but array 'id' {}", source.key, cells.len(), ids.len());
        return Err(StudyError::content(path, why));
    }
    let (prompts, responses) = (hashes(path, PROMPT_HASH, cells.len())?, hashes(path, RESPONSE_HASH, cells.len())?);
    let or_unknown = |hashes: Option<Vec<String>>| hashes.unwrap_or_else(|| vec![String::new(); cells.len()]);
    let (prompts, responses) = (or_unknown(prompts), or_unknown(responses));
    let texts = prompts.into_iter().zip(responses).map(<[String; 2]>::from).collect();
    Ok(Column { cells, ids, numbers: Vec::new(), texts, cut_off: Vec::new() })
}

fn text_cell(text: String) -> Cell {
    if text.trim().is_empty() { Cell::Missing } else { Cell::Text(text) }
}

fn json_column(source: &ColumnSource) -> Result<Column> {
    let root: Value = read_json(&source.path)?;
    let mut at = &root;
    let mut rest = source.key.split('.');
    // Walks down to the array; the rest of the key leads into each of its objects.
    while !at.is_array() {
        let Some(name) = rest.next() else { break };
        let names = || at.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
        at = at.get(name).ok_or_else(|| {
            StudyError::content(&source.path, format!("has no '{name}' of '{}'; it has {}", source.key, names()))
        })?;
    }
    let Some(values) = at.as_array() else {
        return Err(StudyError::content(&source.path, format!("'{}' is no array", source.key)));
    };
    let field: Vec<&str> = rest.collect();
    objects(source, &field.join("."), values.iter().enumerate().map(|(i, value)| (format!("[{i}]"), i + 1, value)))
}

fn jsonl_column(source: &ColumnSource) -> Result<Column> {
    let content = read_lines(&source.path)?;
    let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line): (usize, &str)| {
        let wrong =
            |e| StudyError::content(&source.path, format!("line {}: not JSON ({e}){}", index + 1, nan_is_none(line)));
        let line = line.trim_start_matches('\u{feff}');
        serde_json::from_str(line).map(|Unique(value)| (index + 1, value)).map_err(wrong)
    };
    let values = lines.map(parse).collect::<Result<Vec<_>>>()?;
    objects(source, &source.key, values.iter().map(|(number, value)| (format!("line {number}"), *number, value)))
}

/// The hashes of an entry's prompt and response, if it is an item, empty for what it lacks; and whether the response was cut off, as an entry
/// without texts may say, too.
fn texts_and_end(value: &Value, number: usize) -> ([String; 2], Option<bool>) {
    let item = value.as_object().and_then(|fields| Item::of(fields.clone(), number, false).ok());
    // A row of generated answers has its prompt for people to read: of a conversation the last message.
    let is_row = ["variant", "n_tokens"].iter().any(|name| value.get(name).is_some());
    let prompt = |item: &Item| if is_row { String::new() } else { prompt_hash(item) };
    let hashes = item.map(|item| [prompt(&item), response_hash(item.response.as_deref())]).unwrap_or_default();
    (hashes, value.as_object().and_then(truncated))
}

/// A field of each value, or the values themselves where no field is named.
fn objects<'a>(
    source: &ColumnSource,
    field: &str,
    values: impl Iterator<Item = (String, usize, &'a Value)>,
) -> Result<Column> {
    let path = &source.path;
    let (mut cells, mut ids, mut known, mut named) = (Vec::new(), Vec::new(), false, false);
    let (mut fields, mut texts): (Vec<String>, Vec<[String; 2]>) = (Vec::new(), Vec::new());
    let mut cut_off = Vec::new();
    for (at, number, value) in values {
        if cells.is_empty() {
            fields_of("", value, &mut fields);
        }
        let of_field = || value.as_object().and_then(|fields| within(fields, field)).unwrap_or(&Value::Null);
        let found = if field.is_empty() { value } else { of_field() };
        known |= !found.is_null();
        let (hashes, cut) = texts_and_end(value, number);
        texts.push(hashes);
        cut_off.push(cut);
        cells.push(match found {
            Value::Null => Cell::Missing,
            Value::Bool(truth) => Cell::Number(f64::from(*truth)),
            Value::Number(number) => Cell::Number(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => text_cell(text.clone()),
            Value::Array(_) | Value::Object(_) => {
                let what = if field.is_empty() { "a value" } else { field };
                let why = format!("{at}: {what} is neither a number, a truth value nor a text");
                return Err(StudyError::content(path, why));
            }
        });
        match value.get("id") {
            Some(Value::String(id)) => ids.push(id.clone()),
            Some(Value::Number(id)) => ids.push(id.to_string()),
            // As in a file of items.
            _ => {
                ids.push(number.to_string());
                continue;
            }
        }
        named = true;
    }
    if !known && fields.is_empty() && !cells.is_empty() {
        let why = if path.extension().is_some_and(|ending| ending == "json") {
            format!(
                "is a list whose entries have no field '{}', but must be a list of objects that have it, or hold the list under a \
                 name, as in {{\"labels\": [0, 1]}} for FILE.json:labels",
                source.key
            )
        } else {
            format!(
                "has no objects in its lines, and so no field '{0}', but must hold lines such as {{\"{0}\": 1}}",
                source.key
            )
        };
        return Err(StudyError::content(path, why));
    }
    if cells.is_empty() {
        return Err(StudyError::content(path, "holds no items"));
    }
    if !known {
        let why = format!("has no column '{}': no item has it; the first has {}", source.key, fields.join(", "));
        return Err(StudyError::content(path, why));
    }
    let (ids, numbers) = if named { (Some(ids), Vec::new()) } else { (None, ids) };
    Ok(Column { cells, ids, numbers, texts, cut_off })
}

/// The fields of an object, with dots into inner objects.
fn fields_of(prefix: &str, value: &Value, out: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => fields_of(&format!("{prefix}{name}."), value, out),
            _ => out.push(format!("{prefix}{name}")),
        }
    }
}

/// The texts that a rule names but no item has, such as misspelt ones.
///
/// # Errors
/// If the column cannot be read.
pub fn unmet(source: &LabelSource) -> Result<Vec<String>> {
    let Some(Operand::Text(with)) = source.rule.as_ref().map(|rule| &rule.with) else { return Ok(Vec::new()) };
    let column = column(&source.column)?;
    let nowhere = |one: &&str| !column.cells.contains(&Cell::Text((*one).to_string()));
    Ok(with.split('|').map(str::trim).filter(nowhere).map(String::from).collect())
}

/// What a text may say that says nothing.
const NOTHING: [&str; 8] = ["none", "null", "nan", "n/a", "na", "unknown", "?", "-"];

/// Texts at these places of a column that a rule tells from those that it names: such as are these but for case and blanks, and such as may
/// stand for no label; each once.
pub(crate) fn doubtful<'a>(
    source: &LabelSource,
    column: &'a Column,
    places: impl Iterator<Item = usize>,
) -> [Vec<&'a str>; 2] {
    let Some(Operand::Text(with)) = source.rule.as_ref().map(|rule| &rule.with) else { return Default::default() };
    let named: BTreeSet<&str> = with.split('|').map(str::trim).collect();
    let plain = |text: &str| text.trim().to_lowercase();
    let names: BTreeSet<String> = named.iter().map(|one| plain(one)).collect();
    let texts: BTreeSet<&str> = places
        .filter_map(|at| match &column.cells[at] {
            Cell::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .filter(|text| !named.contains(text))
        .collect();
    let (near, others): (Vec<&str>, Vec<&str>) = texts.into_iter().partition(|text| names.contains(&plain(text)));
    [near, others.into_iter().filter(|text| NOTHING.contains(&&*plain(text))).collect()]
}

/// Whether the item at this place is positive; None if it has no value.
///
/// # Errors
/// If the value cannot be compared or, without a rule, is not a label.
pub(crate) fn label(source: &LabelSource, column: &Column, at: usize) -> Result<Option<bool>> {
    let cell = &column.cells[at];
    let held = match (cell, &source.rule) {
        (Cell::Missing, _) => return Ok(None),
        (Cell::Number(value), Some(rule)) => rule.holds_of_number(*value),
        (Cell::Text(value), Some(rule)) => rule.holds_of_text(value),
        (Cell::Number(value), None) if *value == 0.0 || *value == 1.0 => Some(*value == 1.0),
        (_, None) => None,
    };
    held.map(Some).ok_or_else(|| {
        StudyError::option(
            format!("value {at} of {}", source.column),
            match cell {
                Cell::Number(value) => value.to_string(),
                Cell::Text(value) => format!("'{value}'"),
                Cell::Missing => "missing".into(),
            },
            match &source.rule {
                Some(rule) => format!("of the kind that {rule} compares it with"),
                None => match cell {
                    Cell::Text(value) => {
                        // A rule without quotes compares with a number.
                        let quote = if value.parse::<f64>().is_ok() { "\"" } else { "" };
                        format!("0, 1, true or false; or give a rule such as {}=={quote}{value}{quote}", source.column)
                    }
                    _ => format!("0, 1, true or false; or give a rule such as {}>=0.5", source.column),
                },
            },
        )
    })
}
