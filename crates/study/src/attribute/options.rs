//! How heads are compared, and which settings have no meaning.

use headtemper_hook::{HeadKind, HeadRef};
use serde::{Deserialize, Serialize};

use super::strata;
use crate::{
    ItemFacts, Result, StudyError,
    items::{dispositions::Cohorts, facts::check_field},
    significance::check_count,
};

/// How often items are dealt into folds at most.
const MOST_REPEATS: usize = 1000;

/// Which heads are ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadChoice {
    /// All.
    #[default]
    All,
    /// Query heads of attention.
    Attn,
    /// Value heads of delta nets.
    Linear,
}

impl HeadChoice {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Attn => "attn",
            Self::Linear => "linear",
        }
    }

    /// Refuses a choice that leaves none of a model's heads.
    ///
    /// # Errors
    /// If no head is left.
    pub fn check(self, slots: &[HeadRef]) -> Result<()> {
        if slots.iter().any(|at| self.has(at.kind)) { Ok(()) } else { Err(self.none_left()) }
    }

    pub(super) fn none_left(self) -> StudyError {
        // "heads" is what both the flag and the field of a run's file are called.
        StudyError::option("heads", self.name(), "heads that this model has; `temper inspect` lists them")
    }

    pub(super) fn has(self, kind: HeadKind) -> bool {
        match self {
            Self::All => true,
            Self::Attn => kind == HeadKind::Query,
            Self::Linear => kind == HeadKind::Value,
        }
    }
}

/// What is taken out of norms and vectors before anything is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Adjust {
    /// Nothing.
    #[default]
    None,
    /// The length of the response and its logarithm.
    Length,
}

/// Whose arithmetic is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// Ours.
    #[default]
    None,
    /// For d and cosine that of the scripts of arXiv 2604.11867, with their guards; heads are ranked by signed d.
    Dd,
}

impl Compat {
    /// Whether heads are ranked by d itself, not by its size.
    pub(crate) fn signed(self) -> bool {
        self == Self::Dd
    }
}

/// How heads are compared; the `method` of `attribution.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeOptions {
    /// Which heads are ranked.
    pub heads: HeadChoice,
    /// What is taken out of norms and vectors before anything is compared.
    pub adjust: Adjust,
    /// A field of the items whose values are taken out of norms and vectors; labels are then shuffled only among items with the
    /// same value.
    #[serde(default)]
    pub within: Option<String>,
    /// A field of the items that groups them: items with the same value are no more independent than the answers to one prompt, so
    /// they stay together in every shuffle, fold, half and resample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
    /// Whose arithmetic is used.
    pub compat: Compat,
    /// How often labels are shuffled for the null; 0 leaves it out.
    pub shuffles: usize,
    /// Folds of the cross-fit; fewer where a cohort is small.
    pub folds: usize,
    /// How often the items are dealt into folds.
    pub repeats: usize,
    /// Resamples of the bootstrap intervals; 0 leaves them out.
    pub resamples: usize,
    /// Seed of shuffles, folds and resamples.
    pub seed: u64,
}

impl Default for AttributeOptions {
    fn default() -> Self {
        Self {
            heads: HeadChoice::All,
            adjust: Adjust::None,
            within: None,
            groups: None,
            compat: Compat::None,
            shuffles: Self::SHUFFLES,
            folds: Self::FOLDS,
            repeats: Self::REPEATS,
            resamples: Self::RESAMPLES,
            seed: 0,
        }
    }
}

impl AttributeOptions {
    /// Shuffles of the null, by default.
    pub const SHUFFLES: usize = 1000;
    /// Folds of the cross-fit, by default.
    pub const FOLDS: usize = 5;
    /// Dealings into folds, by default.
    pub const REPEATS: usize = 5;
    /// Resamples of the bootstrap, by default.
    pub const RESAMPLES: usize = 1000;

    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// Says what would have been allowed.
    pub fn check(&self) -> Result<()> {
        let refused =
            |what: &str, found: &dyn ToString, allowed: &str| Err(StudyError::option(what, found.to_string(), allowed));
        if self.compat == Compat::Dd {
            // The scripts take nothing out, and know only attention heads: half of each arithmetic would be neither.
            for (option, field) in [("--within", &self.within), ("--groups", &self.groups)] {
                if let Some(field) = field {
                    return refused(option, field, "left out with --compat dd");
                }
            }
            if self.adjust == Adjust::Length {
                return refused("--adjust", &"length", "left out with --compat dd");
            }
            if self.heads != HeadChoice::Attn {
                return refused("--heads", &self.heads.name(), "attn, or left out, with --compat dd");
            }
        }
        if let (Some(within), Some(groups)) = (&self.within, &self.groups)
            && within == groups
        {
            // Within a value of the field there is one group, and nothing to shuffle.
            return refused("--groups", groups, "another field than --within");
        }
        check_count("shuffles", self.shuffles)?;
        check_count("resamples", self.resamples)?;
        match (self.folds, self.repeats) {
            (_, repeats) if repeats > MOST_REPEATS => refused("repeats", &repeats, "at most 1000"),
            (0 | 1, _) => refused("folds", &self.folds, "at least 2"),
            (_, 0) => refused("repeats", &0, "at least 1"),
            (folds, _) if folds > usize::from(u16::MAX) => refused("folds", &folds, "at most 65535"),
            _ => Ok(()),
        }
    }

    /// Refuses fields that these items lack, or a field to stay within of which no two items of different cohorts share a value.
    ///
    /// # Errors
    /// Names the fields that they have.
    pub(crate) fn check_fields(&self, cohorts: Option<&Cohorts>, facts: &[ItemFacts]) -> Result<()> {
        self.groups.as_ref().map_or(Ok(()), |field| check_field("groups", field, facts))?;
        match (&self.within, cohorts) {
            (None, _) => Ok(()),
            (Some(field), None) => check_field("within", field, facts),
            (Some(field), Some(Cohorts { a, b })) => {
                strata::of(field, &[&a[..], &b[..]].concat(), a.len(), facts).map(|_| ())
            }
        }
    }
}
