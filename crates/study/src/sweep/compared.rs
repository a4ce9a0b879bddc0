//! The outcomes by which arms are compared, and a value for each of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Something for each outcome that arms are compared by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerOutcome<T> {
    /// For the share of correct answers.
    pub accuracy: T,
    /// For the share of answers without a hedge.
    pub assertion_rate: T,
    /// For the assertion asymmetry.
    pub assertion_asymmetry: T,
    /// For the length in tokens.
    pub mean_tokens: T,
    /// For the level along each axis; empty if no judge was asked for any.
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, T>,
}

/// An outcome that arms are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared<'a> {
    /// The share of correct answers.
    Accuracy,
    /// The share of answers without a hedge.
    AssertionRate,
    /// The assertion rate of wrong answers minus that of right ones.
    AssertionAsymmetry,
    /// The length in tokens.
    MeanTokens,
    /// The level along this axis, from 1 to 5, that a judge gave.
    Score(&'a str),
}

impl<'a> Compared<'a> {
    /// All of them: the four that every sweep has, and one for each axis.
    pub fn all(axes: &'a [String]) -> impl Iterator<Item = Self> {
        let always = [Self::Accuracy, Self::AssertionRate, Self::AssertionAsymmetry, Self::MeanTokens];
        always.into_iter().chain(axes.iter().map(|axis| Self::Score(axis)))
    }

    /// Its name in files.
    pub fn name(self) -> String {
        match self {
            Self::Accuracy => "accuracy".into(),
            Self::AssertionRate => "assertion_rate".into(),
            Self::AssertionAsymmetry => "assertion_asymmetry".into(),
            Self::MeanTokens => "mean_tokens".into(),
            Self::Score(axis) => format!("scores.{axis}"),
        }
    }

    /// Whether it is a share of answers, or a difference of two shares, and given in percent.
    pub fn is_share(self) -> bool {
        matches!(self, Self::Accuracy | Self::AssertionRate | Self::AssertionAsymmetry)
    }

    /// The largest difference that an item can have; none if there is no bound, or if single items have none.
    pub(crate) fn span(self) -> Option<f64> {
        match self {
            Self::Accuracy | Self::AssertionRate => Some(1.0),
            Self::AssertionAsymmetry | Self::MeanTokens => None,
            Self::Score(_) => Some(4.0),
        }
    }
}

impl<T> PerOutcome<T> {
    /// Makes one value per outcome.
    pub fn from_fn(axes: &[String], mut of: impl FnMut(Compared<'_>) -> T) -> Self {
        Self {
            accuracy: of(Compared::Accuracy),
            assertion_rate: of(Compared::AssertionRate),
            assertion_asymmetry: of(Compared::AssertionAsymmetry),
            mean_tokens: of(Compared::MeanTokens),
            scores: axes.iter().map(|axis| (axis.clone(), of(Compared::Score(axis)))).collect(),
        }
    }

    /// The value of an outcome; none for an axis that has none.
    pub fn get(&self, which: Compared<'_>) -> Option<&T> {
        match which {
            Compared::Accuracy => Some(&self.accuracy),
            Compared::AssertionRate => Some(&self.assertion_rate),
            Compared::AssertionAsymmetry => Some(&self.assertion_asymmetry),
            Compared::MeanTokens => Some(&self.mean_tokens),
            Compared::Score(axis) => self.scores.get(axis),
        }
    }

    /// Replaces the value of an outcome.
    pub fn set(&mut self, which: Compared<'_>, value: T) {
        match which {
            Compared::Accuracy => self.accuracy = value,
            Compared::AssertionRate => self.assertion_rate = value,
            Compared::AssertionAsymmetry => self.assertion_asymmetry = value,
            Compared::MeanTokens => self.mean_tokens = value,
            Compared::Score(axis) => drop(self.scores.insert(axis.into(), value)),
        }
    }
}

impl<T> PerOutcome<Option<T>> {
    /// The value of an outcome that may have none.
    pub fn of(&self, which: Compared<'_>) -> Option<&T> {
        self.get(which)?.as_ref()
    }
}
