//! Features and labels of the same items, row by row.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use headtemper_stats::{FitError, check_finite, class_worth};
use sha2::{Digest, Sha256};

use super::{
    ColumnSource, FeatureSource, LabelSource, Likeness, MatchedBy, Origin, Place,
    likeness::NAMING,
    read::{self, Cell, Column, Table},
};
use crate::{Result, StudyError, confounds::Truncation, items::units::joined, store::digest::hex, text::count};

/// Below this many items of a class, an AUC says little.
const FEW: usize = 10;

/// Items with features and a label.
#[derive(Clone, Debug)]
pub struct ProbeSet {
    /// Row-major features `[n, d]`.
    pub x: Vec<f64>,
    /// How many features there are.
    pub features: usize,
    /// The label of each row.
    pub labels: Vec<bool>,
    /// The items' names; where the file names none, their places in it.
    pub ids: Vec<String>,
    /// Whether the file names its items.
    pub named: bool,
    /// Whether the file of the labels names its items.
    pub labels_named: bool,
    /// The place of each row in the file of features.
    pub rows: Vec<usize>,
    /// How many rows the file has.
    pub total: usize,
    /// The hashes of the items' prompts, where they are known.
    pub prompts: Option<Vec<String>>,
    /// The same of their responses; empty where an item has none.
    pub responses: Option<Vec<String>>,
    /// Whether the response of each row was cut off at a limit of tokens, where the features or the labels say so.
    pub cut_off: Vec<Option<bool>>,
    /// The group of each row, where items were grouped by a column and the row has a value.
    pub groups: Option<Vec<Option<String>>>,
    /// The unit of each row. Items that share their prompt, all their features or a group are no more independent than seeds of one
    /// answer, so they stay together in folds, shuffles and resamples.
    pub units: Vec<usize>,
    /// Where all this came from.
    pub origin: Origin,
}

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

impl ProbeSet {
    /// Reads both and matches them: by id where both files have ids, else by place. Items with the same value of `groups` are one
    /// unit, together with whatever shares a unit with them.
    ///
    /// # Errors
    /// If a file cannot be used, lengths differ where there are no ids, an id is there twice or has no features, a number is not
    /// finite, or no item has a label or, where groups are asked for, a group.
    pub fn read(features: &FeatureSource, labels: &LabelSource, groups: Option<&ColumnSource>) -> Result<Self> {
        // Before the features, which may be large.
        let column = read::column(&labels.column)?;
        groups.map_or(Ok(()), |by| read::column(by).map(drop))?;
        FeatureRows::read(features, &|_, _| Ok(true))?.grouped(groups)?.labelled_by(labels, &column)
    }

    /// What a reader must know about how the set came about.
    pub fn warnings(&self) -> Vec<String> {
        let mut out = self.label_warnings();
        out.extend(self.truncation(&self.cut_off));
        let shared = self.shared();
        if shared > 0 {
            let by = self.origin.groups.as_ref().map_or(" or all their features".into(), |groups| {
                format!(", all their features or a value of {groups}")
            });
            let units = self.unit_count();
            out.push(format!(
                "{shared} of {} items share their prompt{by} with another: they stay together in folds, shuffles and intervals, which \
                 are those of {}",
                self.labels.len(),
                count(units, "unit")
            ));
        }
        let again = self.again();
        if 2 * again > self.labels.len() {
            out.push(format!(
                "{again} of {} items have the very features of another; with fewer than {NAMING} features they are taken for items of \
                 their own: if they are copies of one item, name it by --groups, since everything here then takes them for too many",
                self.labels.len()
            ));
        }
        out
    }

    /// How many items have the features of one in another unit, as far as these are too few to name an item and yet no numbers of something,
    /// such as lengths, which may well be equal.
    fn again(&self) -> usize {
        let are_counts = || self.x.iter().all(|x| x.fract() == 0.0);
        if self.features >= NAMING || are_counts() {
            return 0;
        }
        let names = self.row_hashes();
        let mut units: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
        for (&name, &unit) in names.iter().zip(&self.units) {
            units.entry(name).or_default().insert(unit);
        }
        names.iter().filter(|name| units[name].len() > 1).count()
    }

    /// How many responses of either class were cut off, as far as that is known of any: a probe may read the end of an answer where it
    /// should read the answer.
    pub(crate) fn truncation(&self, cut_off: &[Option<bool>]) -> Vec<String> {
        if cut_off.iter().all(Option::is_none) {
            return Vec::new();
        }
        let of = |class: bool| self.labels.iter().zip(cut_off).filter(move |(label, _)| **label == class);
        let ends: Vec<Option<bool>> = of(true).chain(of(false)).map(|(_, cut)| *cut).collect();
        let n = of(true).count();
        let so = "; the classes were not cut off alike, so that what tells them apart may be truncation";
        Truncation::of(&ends, n).told(["the positive class", "the negative class"], [n, ends.len() - n], so)
    }

    /// The part of it that says whether the labels are labels of these features at all, and of how many.
    pub(crate) fn label_warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.origin.unlabelled > 0 {
            out.push(format!("left out for want of a label: {}", count(self.origin.unlabelled, "item")));
        }
        if let Some(others) = self.origin.other_texts {
            out.push(format!(
                "the labels of {others} of {} items stand beside another prompt or response than the one that was captured: they say \
                 something of these features only if it is true of any answer",
                self.labels.len()
            ));
        }
        if self.origin.matched_by == MatchedBy::Place && self.named != self.labels_named {
            let (one, other) = if self.named { ("features", "labels") } else { ("labels", "features") };
            out.push(format!(
                "labels were matched by place: the {one} name their items and the {other} do not, so whether they belong together is \
                 not known"
            ));
        }
        out
    }

    /// How many units there are.
    pub fn unit_count(&self) -> usize {
        self.units.iter().max().map_or(0, |last| last + 1)
    }

    /// How many items share their unit with another.
    pub fn shared(&self) -> usize {
        repeated(&self.units)
    }

    /// Items and those of them that are positive.
    pub fn sizes(&self) -> (usize, usize) {
        (self.labels.len(), self.origin.positives)
    }

    /// What must be known of a class of few items.
    pub(crate) fn few_in_a_class(&self) -> Option<String> {
        let (smaller, n) = (self.smaller_class(), self.labels.len());
        (1..FEW)
            .contains(&smaller)
            .then(|| format!("the smaller class has {smaller} of {n} items: too few for an AUC to mean much"))
    }

    /// How many items the smaller class has.
    pub fn smaller_class(&self) -> usize {
        self.origin.smaller_class()
    }

    /// A name for each row's features: equal rows have the same name.
    pub(crate) fn row_hashes(&self) -> Vec<u64> {
        row_hashes(&self.x, self.features)
    }
}

/// How many of the values occur more than once.
fn repeated<T: Ord>(values: &[T]) -> usize {
    let mut counts: BTreeMap<&T, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_values().filter(|&count| count > 1).sum()
}

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
        // What was written while the features were read is about them; a file of labels may be of other answers.
        let cut_off = rows.iter().map(|&row| match (&table.cut_off, of_row[row]) {
            (Some(own), _) => own[row],
            (None, Some(at)) if !table.differs(row, column, at) => column.cut_off.get(at).copied().flatten(),
            _ => None,
        });
        let cut_off = cut_off.collect();
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
            groups,
            units,
            origin,
        })
    }
}

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

/// A name for each row of row-major features: rows that are equal in f32 have the same name.
pub(crate) fn row_hashes(x: &[f64], features: usize) -> Vec<u64> {
    let of = |row: &[f64]| {
        let stored: Vec<f64> = row.iter().map(|&x| f64::from(x as f32)).collect();
        u64::from_le_bytes(hash_numbers(&stored)[..8].try_into().expect("a hash has 32 bytes"))
    };
    x.chunks_exact(features).map(of).collect()
}

fn hash_numbers(values: &[f64]) -> [u8; 32] {
    let mut hash = Sha256::new();
    // -0 and 0 are the same number.
    for x in values {
        hash.update((x + 0.0).to_le_bytes());
    }
    hash.finalize().into()
}
