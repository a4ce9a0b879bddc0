//! Features and labels of the same items, row by row.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ColumnSource, FeatureRows, FeatureSource, LabelSource, MatchedBy, Origin,
    likeness::{NAMING, row_hashes},
    read,
};
use crate::{Result, confounds::Truncation, text::count};

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
    /// What was noticed while features and labels were put side by side.
    pub noticed: Vec<String>,
    /// The group of each row, where items were grouped by a column and the row has a value.
    pub groups: Option<Vec<Option<String>>>,
    /// The unit of each row. Items that share their prompt, all their features or a group are no more independent than seeds of one
    /// answer, so they stay together in folds, shuffles and resamples.
    pub units: Vec<usize>,
    /// Where all this came from.
    pub origin: Origin,
}

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
        out.extend(self.noticed.iter().cloned());
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
