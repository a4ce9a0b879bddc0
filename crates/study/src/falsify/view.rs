//! A set of the gate file, with the items that it was captured from, if the file names them.

use std::collections::BTreeMap;

use super::SetConfig;
use crate::{
    Item, Predicate, ReadAs, Result, StudyError,
    items::{
        columns::{prompt_hash, response_hash},
        contradict, either,
    },
    probe::{ColumnSource, FeatureRows, FeatureSource, LabelSource, ProbeSet},
    read_items,
    store::digest::sha256_json,
};

/// The items behind a set's features, and which of them belong to it.
pub(crate) struct View {
    items: Option<Vec<Item>>,
    only: Option<Predicate>,
    groups: Option<ColumnSource>,
}

impl View {
    /// Reads the items, if there are any.
    ///
    /// # Errors
    /// If they cannot be read, or none has a field that the condition asks for.
    pub(crate) fn of(config: &SetConfig) -> Result<Self> {
        let items = config.items.as_deref().map(|path| read_items(path, &ReadAs::default())).transpose()?;
        if let (Some(only), Some(items)) = (&config.only, &items) {
            only.check(|| format!("the condition on the items of {}", config.features), items)?;
        }
        Ok(Self { items, only: config.only.clone(), groups: config.groups.clone() })
    }

    /// Features of the items that belong to the set, with their prompts and groups.
    ///
    /// # Errors
    /// If they cannot be read, a row has no item, the condition cannot be applied to it, or groups do not match.
    pub(crate) fn rows(&self, features: &FeatureSource) -> Result<FeatureRows> {
        let by_id = self.items.as_deref().map(by_id).unwrap_or_default();
        let item = |row: usize, id: Option<&str>| find(self.items.as_deref()?, &by_id, row, id);
        let keep = |row: usize, id: Option<&str>| match (&self.items, &self.only) {
            (Some(items), Some(only)) => only.holds(item(row, id).ok_or_else(|| no_item(items, features, row, id))?),
            _ => Ok(true),
        };
        let rows = FeatureRows::read(features, &keep)?;
        // Items in the features' order give them ids, by which labels and groups are then found.
        let rows = match &self.items {
            Some(items) if items.len() == rows.total() => rows.named(items.iter().map(|item| item.id.clone())),
            _ => rows,
        };
        let rows = rows.grouped(self.groups.as_ref())?;
        Ok(match self.items {
            None => rows,
            Some(_) => rows.asked(|row, id| item(row, id).map(prompt_hash).unwrap_or_default()),
        })
    }

    /// The same with their labels; labels of other items are not looked at.
    ///
    /// # Errors
    /// As [`View::rows`] and [`ProbeSet::read`].
    pub(crate) fn set(&self, features: &FeatureSource, labels: &LabelSource) -> Result<ProbeSet> {
        self.rows(features)?.labelled(labels)
    }

    /// A set with the items of its rows.
    ///
    /// # Errors
    /// If a row has no item.
    pub(crate) fn texts<'a>(&'a self, set: &'a ProbeSet) -> Result<Texts<'a>> {
        let Some(items) = &self.items else { return Ok(Texts { set, items: None }) };
        if !set.named && items.len() != set.total {
            return Err(StudyError::option(
                format!("the number of items beside {}", set.origin.features),
                items.len().to_string(),
                format!("{}, one for each row, since the features do not name theirs", set.total),
            ));
        }
        let by_id = by_id(items);
        let of = |at: usize| {
            let (row, id) = (set.rows[at], set.named.then(|| set.ids[at].as_str()));
            find(items, &by_id, row, id).ok_or_else(|| no_item(items, &set.origin.features, row, id))
        };
        let items = (0..set.labels.len()).map(of).collect::<Result<Vec<&Item>>>()?;
        check_texts(set, &items)?;
        Ok(Texts { set, items: Some(items) })
    }
}

/// A set with the items of its rows, if a file of items was given.
pub(crate) struct Texts<'a> {
    pub(crate) set: &'a ProbeSet,
    pub(crate) items: Option<Vec<&'a Item>>,
}

impl Texts<'_> {
    /// SHA-256 of all that the items say: baselines and warnings are made from it, so other texts are another test. None without items.
    pub(crate) fn sha256(&self) -> Option<String> {
        let items = self.items.as_ref()?;
        Some(sha256_json(&items.iter().map(|item| item.to_json()).collect::<Vec<_>>()))
    }

    /// Whether each response was cut off, as the features or the labels say, or the file of items.
    pub(crate) fn cut_off(&self) -> Vec<Option<bool>> {
        self.said_of_ends().map(either).collect()
    }

    /// Of how many responses these say otherwise whether they were cut off.
    pub(crate) fn contradicted_ends(&self) -> usize {
        self.said_of_ends().filter(|&said| contradict(said)).count()
    }

    /// What the features or the labels say of each end, and what the file of items says.
    fn said_of_ends(&self) -> impl Iterator<Item = [Option<bool>; 2]> {
        let of_items = |at: usize| self.items.as_ref().and_then(|items| items[at].truncated());
        self.set.cut_off.iter().enumerate().map(move |(at, own)| [*own, of_items(at)])
    }
}

/// If a capture kept the hashes of prompts and responses, the items must be those that it read: what is made of their texts stands beside
/// the features.
fn check_texts(set: &ProbeSet, items: &[&Item]) -> Result<()> {
    for (at, (id, item)) in set.ids.iter().zip(items).enumerate() {
        let kept = |hashes: &Option<Vec<String>>, own: &str| hashes.as_ref().is_none_or(|hashes| hashes[at] == own);
        let response = response_hash(item.response.as_deref());
        // An item without a response is the question alone, and a capture has no hash of a response of token ids.
        let unknown = response.is_empty() || set.responses.as_ref().is_none_or(|hashes| hashes[at].is_empty());
        let what = match (kept(&set.prompts, &prompt_hash(item)), unknown || kept(&set.responses, &response)) {
            (true, true) => continue,
            (false, _) => "prompt",
            (true, false) => "response",
        };
        let why = format!("row '{id}' was captured from another {what} than that of item '{}'", item.id);
        return Err(StudyError::content(&set.origin.features.path, why));
    }
    Ok(())
}

fn by_id(items: &[Item]) -> BTreeMap<&str, &Item> {
    items.iter().map(|item| (item.id.as_str(), item)).collect()
}

/// The item of a row: by id if the features name their items, otherwise by place.
fn find<'a>(items: &'a [Item], by_id: &BTreeMap<&str, &'a Item>, row: usize, id: Option<&str>) -> Option<&'a Item> {
    id.map_or_else(|| items.get(row), |id| by_id.get(id).copied())
}

fn no_item(items: &[Item], features: &FeatureSource, row: usize, id: Option<&str>) -> StudyError {
    StudyError::option(
        format!("the items beside {features}"),
        format!("{} without {}", items.len(), id.map_or_else(|| format!("row {row}"), |id| format!("'{id}'"))),
        if id.is_some() {
            "the items that the features were captured from, under the ids that these give them"
        } else {
            "the items that the features were captured from, in the same order"
        },
    )
}
