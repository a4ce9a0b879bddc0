//! Where features and labels came from, and how far those of two sets are of one kind.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ColumnSource, FeatureSource, LabelSource};
use crate::FeatureMeta;

/// How features and labels found each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchedBy {
    /// Both files name their items.
    Id,
    /// Not both do: the first label is of the first row of features, and so on.
    Place,
}

impl fmt::Display for MatchedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "id",
            Self::Place => "place",
        })
    }
}

/// Where a set came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The source of the features.
    pub features: FeatureSource,
    /// The source of the labels.
    pub labels: LabelSource,
    /// Items that were used.
    pub items: usize,
    /// Those of them that are positive.
    pub positives: usize,
    /// Items that were left out, since they have no label.
    pub unlabelled: usize,
    /// How features and labels found each other.
    pub matched_by: MatchedBy,
    /// Items whose labels stand beside another prompt or response than the one that was captured, as far as both files have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_texts: Option<usize>,
    /// How many prompts or groups the items have, if there are fewer than items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<usize>,
    /// The same for the class with fewer of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_units: Option<usize>,
    /// How many of one size those of either class are worth at least (`n² / Σ size²`, over the items that they have in it): one prompt with
    /// most items leaves little more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_worth: Option<f64>,
    /// The column by which items were grouped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<ColumnSource>,
    /// SHA-256 of the used features, in f64.
    pub features_sha256: String,
    /// SHA-256 of the used labels with their ids.
    pub labels_sha256: String,
    /// The layers that were averaged, where the file names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<usize>,
    /// What the file of features says of itself, where it is a capture: model, revision, weights, site, pooling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<FeatureMeta>,
}

impl Origin {
    /// How many items the smaller class has.
    pub(crate) fn smaller_class(&self) -> usize {
        self.positives.min(self.items.saturating_sub(self.positives))
    }

    /// How many independent things the smaller class has: items or, where items share them, prompts or groups.
    pub(crate) fn smaller_of_units(&self) -> usize {
        self.class_units.unwrap_or(self.smaller_class())
    }

    /// The same, where prompts or groups count for as many of one size as they are worth.
    pub(crate) fn smaller_worth(&self) -> usize {
        // Equal ones are worth their number, but for rounding.
        self.class_worth.map_or(self.smaller_of_units(), |worth| (worth + 1e-9) as usize)
    }

    /// Where in a model its features were read, as far as the file says.
    pub(crate) fn place(&self) -> Place<'_> {
        Place { features: &self.features, layers: &self.layers, meta: self.meta.as_ref() }
    }

    /// How these features differ in kind from the other ones: [`Place::other_than`].
    pub(crate) fn other_site(&self, other: &Self) -> Option<String> {
        self.place().other_than(&other.place())
    }

    /// How these labels were made otherwise than the other ones: by another rule, or from a column of another name. None if they were made
    /// alike, whatever the files.
    pub(crate) fn other_labels(&self, other: &Self) -> Option<String> {
        let made = |LabelSource { column, rule }: &LabelSource| {
            format!("{}{}", column.key, rule.as_ref().map(ToString::to_string).unwrap_or_default())
        };
        let (there, here) = (made(&self.labels), made(&other.labels));
        (there != here).then(|| format!("{there} there, {here} here"))
    }

    /// How the arithmetic of these features differs from that of the other ones, as far as both files say.
    pub(crate) fn other_arithmetic(&self, other: &Self) -> Option<String> {
        let of = |origin: &Self| origin.meta.as_ref().map(|meta| meta.identity.arithmetic());
        let (here, there) = (of(self)?, of(other)?);
        (here != there).then(|| format!("{here} there, {there} here"))
    }

    /// Whether both were captured with the same weights; none if a file does not say.
    pub(crate) fn same_weights(&self, other: &Self) -> Option<bool> {
        let sha256 = |origin: &Self| origin.meta.as_ref().map(|meta| meta.identity.weights_sha256.clone());
        Some(sha256(self)? == sha256(other)?)
    }
}

/// Where in a model features were read, as far as their file says.
pub(crate) struct Place<'a> {
    pub(crate) features: &'a FeatureSource,
    pub(crate) layers: &'a [usize],
    pub(crate) meta: Option<&'a FeatureMeta>,
}

impl Place<'_> {
    /// How these features differ in kind from the other ones, as far as both files say: a probe means nothing at another site,
    /// layer or pool, under another plan, or with another template. None if they are of one kind, or the files do not say.
    pub(crate) fn other_than(&self, other: &Self) -> Option<String> {
        let (a, b) = (self.meta?, other.meta?);
        // Captures of earlier versions do not say.
        let both_say = a.system.is_some() && b.system.is_some();
        let (here, there) = (self.told(a, both_say), other.told(b, both_say));
        (here != there).then(|| format!("{} is {here}; {} is {there}", self.features, other.features))
    }

    /// All that makes features of one kind, in words.
    fn told(&self, meta: &FeatureMeta, both_say: bool) -> String {
        let layers: Vec<String> = self.layers.iter().map(ToString::to_string).collect();
        let layers = match (layers.is_empty(), meta.mean_layers, self.features.key.as_str()) {
            (false, ..) => format!(" of layers {}", layers.join(", ")),
            (true, Some(last), "h_mean") => format!(" of the last {last} layers"),
            _ => String::new(),
        };
        let plan = match &meta.plan[..] {
            [none] if none == "none" => String::new(),
            [one] => format!(", under {one}"),
            _ => ", under a plan an item".into(),
        };
        let template = if meta.raw { ", without the chat template" } else { "" };
        let thinking = match meta.identity.thinking {
            None => "",
            Some(true) => ", told to think",
            Some(false) => ", told not to think",
        };
        let system = meta.system.as_ref().filter(|text| both_say && !text.is_empty());
        let system = system.map(|text| format!(", after the system message '{text}'")).unwrap_or_default();
        format!("{}{layers}, pooled over {}{plan}{template}{thinking}{system}", self.features.key, meta.pool)
    }
}
