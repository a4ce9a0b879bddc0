//! Features of items, before it is known which of them have a label: read once, for any number of questions.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use headtemper_stats::{FitError, check_finite, class_worth};

use super::{
    ColumnSource, FeatureSource, LabelSource, Likeness, MatchedBy, Origin, Place, ProbeSet,
    likeness::hash_numbers,
    read::{self, Cell, Column, Table},
};
use crate::{
    Result, StudyError,
    items::{contradict, either, units::joined},
    store::digest::hex,
    text::some_of,
};

/// Features as they were read, and which rows belong to a set: read once, for any number of questions.
pub(crate) struct FeatureRows {
    source: FeatureSource,
    table: Table,
    kept: Vec<bool>,
    groups: Option<Groups>,
}

/// A column that groups rows, and its value for each row.
struct Groups {
    column: ColumnSource,
    values: Vec<Option<String>>,
}

/// Whether a row belongs to a set, by its place and its id.
type Keep<'a> = &'a dyn Fn(usize, Option<&str>) -> Result<bool>;

impl FeatureRows {
    /// Reads features and keeps the rows that `keep` asks for, by their place and, where the file names its items, their id.
    ///
    /// # Errors
    /// If the file cannot be used, no row is kept, or what `keep` reports.
    pub(crate) fn read(source: &FeatureSource, keep: Keep<'_>) -> Result<Self> {
        let table = read::features(source)?;
        let n = table.values.len() / table.features;
        let id = |row: usize| table.ids.as_ref().map(|ids| ids[row].as_str());
        let kept = (0..n).map(|row| keep(row, id(row))).collect::<Result<Vec<bool>>>()?;
        if !kept.contains(&true) {
            let what = format!("the condition on the items of {source}");
            return Err(StudyError::option(what, format!("true of none of {n}"), "true of some of them"));
        }
        Ok(Self { source: source.clone(), table, kept, groups: None })
    }

    /// The same, but items with the same value of a column stay together.
    ///
    /// # Errors
    /// If the column cannot be read, or does not match the features as labels must.
    pub(crate) fn grouped(self, by: Option<&ColumnSource>) -> Result<Self> {
        let Some(by) = by else { return Ok(self) };
        let column = read::column(by)?;
        let (at, _) = self.matched(by, &column)?;
        let value = |at: Option<usize>| match &column.cells[at?] {
            Cell::Missing => None,
            Cell::Number(number) => Some(number.to_string()),
            Cell::Text(text) => Some(text.clone()),
        };
        let values = at.into_iter().map(value).collect();
        Ok(Self { groups: Some(Groups { column: by.clone(), values }), ..self })
    }

    /// The place of each row's value in a column, and how it was found.
    fn matched(&self, by: &ColumnSource, column: &Column) -> Result<(Vec<Option<usize>>, MatchedBy)> {
        let n = self.kept.len();
        match self.table.ids.as_ref().and_then(|ids| Some((ids, column.names_for(ids)?))) {
            Some((ids, names)) => Ok((by_id(&by.path, ids, column, names)?, MatchedBy::Id)),
            None if column.cells.len() == n => Ok(((0..n).map(Some).collect(), MatchedBy::Place)),
            None => Err(unmatched(by, column.cells.len(), &self.source, n)),
        }
    }

    /// How many rows the file has.
    pub(crate) fn total(&self) -> usize {
        self.kept.len()
    }

    /// The same under these names, if the file of features gives none.
    pub(crate) fn named(mut self, ids: impl Iterator<Item = String>) -> Self {
        if self.table.ids.is_none() {
            self.table.ids = Some(ids.collect());
        }
        self
    }

    /// The same with the hash of each row's prompt from another source, empty where that does not know it. Hashes in the file
    /// itself take precedence.
    pub(crate) fn asked(mut self, prompt: impl Fn(usize, Option<&str>) -> String) -> Self {
        let ids = self.table.ids.as_ref();
        let of = |row: usize| prompt(row, ids.map(|ids| ids[row].as_str()));
        let known = self.table.prompts.take().unwrap_or_else(|| (0..self.kept.len()).map(of).collect());
        self.table.prompts = Some(known);
        self
    }

    /// Refuses features that no probe fitted on these training items could read.
    ///
    /// # Errors
    /// If they are of another kind or number.
    pub(crate) fn check_like(&self, train: &ProbeSet) -> Result<()> {
        let Self { source, table, .. } = self;
        let here = Place { features: source, layers: &table.layers, meta: table.meta.as_ref() };
        if let Some(why) = train.origin.place().other_than(&here) {
            return Err(StudyError::content(&source.path, format!("holds something else: {why}")));
        }
        if table.features != train.features {
            return Err(other_width((source, table.features), (&train.origin.features, train.features)));
        }
        Ok(())
    }

    /// Refuses labels that do not match these features. No label is looked at.
    ///
    /// # Errors
    /// If the column cannot be read, or matches the features neither by id nor by place.
    pub(crate) fn check_labels(&self, labels: &LabelSource) -> Result<()> {
        self.matched(&labels.column, &read::column(&labels.column)?).map(drop)
    }

    /// The rows that have a label, as a set.
    ///
    /// # Errors
    /// As [`ProbeSet::read`], but for reading features.
    pub(crate) fn labelled(&self, labels: &LabelSource) -> Result<ProbeSet> {
        self.labelled_by(labels, &read::column(&labels.column)?)
    }

    /// The same, with a column of labels that was read before.
    ///
    /// # Errors
    /// As [`FeatureRows::labelled`].
    pub(crate) fn labelled_by(&self, labels: &LabelSource, column: &Column) -> Result<ProbeSet> {
        let Self { source, table, kept, .. } = self;
        let n = kept.len();
        let (of_row, matched_by) = self.matched(&labels.column, column)?;
        let mut rows: Vec<(usize, bool)> = Vec::new();
        for (row, at) in of_row.iter().enumerate().filter(|(row, _)| kept[*row]) {
            let label = at.map_or(Ok(None), |at| read::label(labels, column, at))?;
            rows.extend(label.map(|label| (row, label)));
        }
        if rows.is_empty() {
            return Err(StudyError::content(&labels.column.path, format!("no item of {source} has a label")));
        }
        let (rows, labels_of): (Vec<usize>, Vec<bool>) = rows.into_iter().unzip();
        let mut x = Vec::with_capacity(rows.len() * table.features);
        for &row in &rows {
            x.extend(&table.values[row * table.features..(row + 1) * table.features]);
        }
        let ids: Vec<String> = match &table.ids {
            Some(ids) => rows.iter().map(|&row| ids[row].clone()).collect(),
            None => rows.iter().map(ToString::to_string).collect(),
        };
        check_finite(&x, table.features).map_err(|why| StudyError::fit(source.to_string(), in_file(why, &rows)))?;
        let prompts: Option<Vec<String>> =
            table.prompts.as_ref().map(|prompts| rows.iter().map(|&row| prompts[row].clone()).collect());
        let responses: Option<Vec<String>> =
            table.responses.as_ref().map(|responses| rows.iter().map(|&row| responses[row].clone()).collect());
        let first = Likeness::of(&x, table.features).map(|likeness| likeness.first(&x)).unwrap_or_default();
        let groups: Option<Vec<Option<String>>> =
            self.groups.as_ref().map(|groups| rows.iter().map(|&row| groups.values[row].clone()).collect());
        if let (Some(Groups { column, .. }), Some(values)) = (&self.groups, &groups)
            && values.iter().all(Option::is_none)
        {
            return Err(StudyError::content(&column.path, format!("no item of {source} has {}", column.key)));
        }
        let keys = |at: usize| {
            let prompt = prompts.as_ref().map(|prompts| &prompts[at]).filter(|prompt| !prompt.is_empty());
            [
                first.get(at).map(|first| (0, first.to_string())),
                prompt.map(|prompt| (1, prompt.clone())),
                groups.as_ref().and_then(|groups| groups[at].clone()).map(|group| (2, group)),
            ]
        };
        let units = joined((0..rows.len()).map(keys));
        let count = units.iter().max().map_or(0, |last| last + 1);
        // A file of labels may be of other answers.
        let of_labels = |row: usize| {
            let at = of_row[row].filter(|&at| !table.differs(row, column, at));
            at.and_then(|at| column.cut_off.get(at).copied().flatten())
        };
        let own = |row: usize| table.cut_off.as_ref().and_then(|own| own[row]);
        let said: Vec<[Option<bool>; 2]> = rows.iter().map(|&row| [own(row), of_labels(row)]).collect();
        let cut_off = said.iter().copied().map(either).collect();
        let contradicted = said.iter().filter(|&&said| contradict(said)).count();
        let mut noticed: Vec<String> = told_ends(contradicted, rows.len(), "the labels").into_iter().collect();
        noticed
            .extend(told_doubtful(labels, read::doubtful(labels, column, rows.iter().filter_map(|&row| of_row[row]))));
        let differs = |row: &&usize| of_row[**row].is_some_and(|at| table.differs(**row, column, at));
        let other_texts = rows.iter().filter(differs).count();
        let origin = Origin {
            units: (count < rows.len()).then_some(count),
            class_units: (count < rows.len()).then(|| least_units(&units, &labels_of)),
            class_worth: (count < rows.len())
                .then(|| class_worth(&labels_of, &units))
                .filter(|worth| worth.is_finite()),
            groups: self.groups.as_ref().map(|groups| groups.column.clone()),
            features: source.clone(),
            labels: labels.clone(),
            items: rows.len(),
            positives: labels_of.iter().filter(|&&label| label).count(),
            unlabelled: kept.iter().filter(|&&kept| kept).count() - rows.len(),
            matched_by,
            other_texts: (other_texts > 0).then_some(other_texts),
            features_sha256: hex(&hash_numbers(&x)),
            labels_sha256: crate::store::digest::sha256_json(&ids.iter().zip(&labels_of).collect::<Vec<_>>()),
            layers: table.layers.clone(),
            meta: table.meta.clone(),
        };
        let (named, labels_named) = (table.ids.is_some(), column.ids.is_some());
        Ok(ProbeSet {
            x,
            features: table.features,
            labels: labels_of,
            ids,
            named,
            labels_named,
            rows,
            total: n,
            prompts,
            responses,
            cut_off,
            noticed,
            groups,
            units,
            origin,
        })
    }
}

/// Warns of responses of which features and another file say otherwise whether they were cut off.
pub(crate) fn told_ends(contradicted: usize, items: usize, others: &str) -> Option<String> {
    (contradicted > 0).then(|| {
        format!(
            "of {contradicted} of {items} responses, features and {others} say otherwise whether they were cut off: they count as cut off"
        )
    })
}

/// Warns of texts that a rule does not name, and perhaps should.
fn told_doubtful(labels: &LabelSource, [near, nothing]: [Vec<&str>; 2]) -> Vec<String> {
    let list = |texts: &[&str]| some_of(&texts.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>(), NAMED);
    let told = |texts: &[&str], why: &str| {
        (!texts.is_empty()).then(|| format!("labels {} {why}: {labels} takes them for other texts", list(texts)))
    };
    [told(&near, "are those of the rule but for case and blanks"), told(&nothing, "may stand for no label")]
        .into_iter()
        .flatten()
        .collect()
}

/// How many texts a warning names.
const NAMED: usize = 5;

/// The error for features of another number than those that a probe was fitted on.
pub(super) fn other_width(
    (source, found): (&impl std::fmt::Display, usize),
    (train, features): (&FeatureSource, usize),
) -> StudyError {
    let allowed = format!("{features}, as the probe was fitted on {train}");
    StudyError::option(format!("the number of features in {source}"), found.to_string(), allowed)
}

/// The error with the item's place in the file, where it has its place among those that were taken.
fn in_file(why: FitError, rows: &[usize]) -> FitError {
    match why {
        FitError::NotFinite { item, feature, value } => FitError::NotFinite { item: rows[item], feature, value },
        other => other,
    }
}

/// How many units the class with fewer of them has.
fn least_units(units: &[usize], labels: &[bool]) -> usize {
    let of = |class: bool| {
        let items = units.iter().zip(labels).filter(|(_, label)| **label == class);
        items.map(|(unit, _)| unit).collect::<BTreeSet<_>>().len()
    };
    of(true).min(of(false))
}

/// The error for a column that differs in length from the features, and cannot be matched by place.
fn unmatched(column: &ColumnSource, found: usize, features: &FeatureSource, rows: usize) -> StudyError {
    StudyError::option(
        format!("the number of values in {column}"),
        found.to_string(),
        format!("{rows}, one for each row of {features}, unless both files name their items by id"),
    )
}

/// The place of each row's value.
fn by_id(path: &Path, ids: &[String], column: &Column, of_labels: &[String]) -> Result<Vec<Option<usize>>> {
    let mut places = BTreeMap::new();
    for (place, id) in of_labels.iter().enumerate().take(column.cells.len()) {
        if places.insert(id.as_str(), place).is_some() {
            return Err(StudyError::content(path, format!("id '{id}' stands there a second time")));
        }
    }
    let found: Vec<Option<usize>> = ids.iter().map(|id| places.get(id.as_str()).copied()).collect();
    if found.iter().all(Option::is_none) {
        let why = format!("names none of the items that have features, such as '{}'", ids[0]);
        return Err(StudyError::content(path, why));
    }
    Ok(found)
}
