//! What an attribution says: the numbers of `attribution.json`, schema `attribution/v1`.

mod across;
mod checks;
mod head;
mod kind;
pub(crate) mod text;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{AttributeOptions, Result, significance::level_holds, store::files::read_json};

pub use across::{Across, Beside, Pair, Recurring};
pub use checks::{
    Control, Controlled, FieldCheck, GroupCheck, LengthCheck, PromptCheck, Reliability, ShuffledLabels, Stability,
    Summary,
};
pub use head::{DdNames, HeadEffect, Magnitude, Verdict};
pub(crate) use kind::{KindWords, kind_word};
pub use text::attribution_markdown;

/// The heads of a model, ranked between two cohorts, for one or more dispositions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// `attribution/v1`.
    pub schema: String,
    /// The model's name.
    pub model: String,
    /// SHA-256 of its weights.
    #[serde(default)]
    pub weights_sha256: String,
    /// Over how many of the last response tokens a head was averaged.
    pub last_n: usize,
    /// How many heads each layer has.
    pub heads_per_layer: Vec<usize>,
    /// How everything was computed.
    pub method: AttributeOptions,
    /// One entry a disposition.
    pub dispositions: Vec<Disposition>,
    /// Dispositions that were asked for and could not be attributed on these items.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// The same computation where there is nothing to find.
    #[serde(default)]
    pub controls: Vec<Control>,
    /// How alike the rankings of the dispositions are, and those of other models.
    #[serde(default)]
    pub across: Across,
    /// What a reader must know of all dispositions; each has its own warnings beside these.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Attribution {
    /// Reads an `attribution.json`.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self> {
        read_json(path)
    }
}

/// The heads between two cohorts. Differences are a minus b: d > 0 means louder in a.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disposition {
    /// Its name.
    pub name: String,
    /// What it means, in a sentence; empty if nobody said.
    #[serde(default)]
    pub means: String,
    /// Where its cohorts and thresholds come from; empty if nobody said.
    #[serde(default)]
    pub source: String,
    /// Name of the first cohort.
    pub a: String,
    /// Name of the second cohort.
    pub b: String,
    /// Which items the first cohort has.
    #[serde(default)]
    pub a_where: String,
    /// Which items the second cohort has.
    #[serde(default)]
    pub b_where: String,
    /// Items in a.
    pub n_a: usize,
    /// Items in b.
    pub n_b: usize,
    /// What the numbers say, in one plain sentence.
    pub sentence: String,
    /// The numbers in a row: what stands beside the controls.
    pub summary: Summary,
    /// Every head, in slot order.
    pub heads: Vec<HeadEffect>,
    /// What the same computation gives when the labels are shuffled.
    pub shuffled: ShuffledLabels,
    /// Whether the ranking comes out again in another half of the items.
    pub stability: Stability,
    /// Whether the cohorts differ in length already.
    pub length: LengthCheck,
    /// Whether the cohorts differ in their prompts already.
    pub prompts: PromptCheck,
    /// The groups that stayed together, where items were grouped by a field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupCheck>,
    /// How many other fields of the items were looked at: those that did not choose the cohorts, and do not name items.
    #[serde(default)]
    pub fields_checked: usize,
    /// Those that go with the cohorts, the closest first.
    #[serde(default)]
    pub fields: Vec<FieldCheck>,
    /// What a reader must know before any number.
    pub warnings: Vec<String>,
}

impl Disposition {
    /// Whether what the largest |d| reaches under shuffled labels may stand beside the heads' d as a level ([`level_holds`]).
    pub(crate) fn has_level_of_d(&self) -> bool {
        let heads = self.heads.iter().map(|head| (head.magnitude.cohen_d.abs(), head.magnitude.p_max));
        level_holds(self.shuffled.max_abs_d_q95, self.shuffled.shuffles, heads)
    }

    /// The same of d on held-out items.
    pub(crate) fn has_level_of_direction(&self) -> bool {
        let heads = self.heads.iter().map(|head| (head.d_crossfit, head.p_max_directional));
        level_holds(self.shuffled.max_d_crossfit_q95, self.shuffled.shuffles, heads)
    }
}

/// A disposition that could not be attributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why not.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    /// Removes these fields of an object, wherever it lies in a document; returns how many there were.
    fn remove(from: &mut serde_json::Value, names: &[&str]) -> usize {
        match from {
            serde_json::Value::Object(fields) => {
                let removed = names.iter().filter(|&&name| fields.remove(name).is_some()).count();
                fields.values_mut().map(|field| remove(field, names)).sum::<usize>() + removed
            }
            serde_json::Value::Array(all) => all.iter_mut().map(|one| remove(one, names)).sum(),
            _ => 0,
        }
    }

    #[test]
    fn what_an_older_version_wrote_is_read() {
        let mut written = fixture::attribution(&[3]);
        let (rho_d, rho_crossfit, p) = (0.5, 0.4, 0.1);
        let (first, second, model, name) = ("x".into(), "y".into(), "other".into(), "x".into());
        let (shared_items, label_correlation, shared_top, expected_top) = (4, 0.0, 1, 0.5);
        written.across.pairs = vec![Pair {
            first,
            second,
            rho_d,
            p_rho_d: p,
            rho_crossfit,
            p_rho_crossfit: p,
            shared_items,
            label_correlation,
            shared_top,
            expected_top,
        }];
        let (heads, incomparable) = (3, None);
        written.across.beside = vec![Beside { model, name, heads, rho_d, rho_crossfit, incomparable }];
        let mut older = serde_json::to_value(&written).unwrap();
        assert_eq!(
            remove(
                &mut older,
                &["ranking_r", "ranking_p", "p_rho_d", "p_rho_crossfit", "clustering", "fields_checked"]
            ),
            2 + 2 + 2
        );
        let read: Attribution = serde_json::from_value(older).unwrap();
        let (pair, beside, length) = (&read.across.pairs[0], &read.across.beside[0], &read.dispositions[0].length);
        let missing = [pair.p_rho_d, pair.p_rho_crossfit];
        assert!(missing.iter().chain([&length.ranking_r, &length.ranking_p]).all(|number| number.is_nan()));
        assert_eq!((pair.rho_d, beside.rho_crossfit, length.p), (0.5, 0.4, written.dispositions[0].length.p));
    }
}
