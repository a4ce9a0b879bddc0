//! What an earlier falsification left in a directory. Only what is asked about it is read, so that other versions' files can be.

use std::path::Path;

use serde::Deserialize;

use super::{Outcome, StepName, Transfer};
use crate::{Result, probe::Origin, store::files::read_json};

/// The file of a falsification.
pub(super) const FOUND: &str = "falsify.json";

/// An earlier falsification.
#[derive(Deserialize)]
pub(crate) struct Earlier {
    verdict: Outcome,
    frozen: FrozenProbe,
    #[serde(default)]
    fresh: FreshItems,
    #[serde(default)]
    fresh_items_sha256: Option<String>,
    #[serde(default)]
    pooled: Option<EarlierTransfer>,
    #[serde(default)]
    replication: Option<EarlierTransfer>,
}

/// The sets of step 4 or 5.
#[derive(Deserialize)]
struct EarlierTransfer {
    train: FreshItems,
    fresh: FreshItems,
}

#[derive(Deserialize)]
struct FrozenProbe {
    probe_sha256: String,
}

#[derive(Deserialize, Default)]
struct FreshItems {
    #[serde(default)]
    features_sha256: String,
    #[serde(default)]
    labels_sha256: String,
}

impl Earlier {
    /// The one in a directory, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn of(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FOUND);
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    }

    /// Its verdict, if it is about this probe.
    pub(crate) fn verdict_of(&self, probe_sha256: &str) -> Option<Outcome> {
        (self.frozen.probe_sha256 == probe_sha256).then_some(self.verdict)
    }

    /// Whether step 4 or 5 was on these sets; true where it was not run.
    pub(super) fn transferred(&self, step: StepName, now: &Transfer) -> bool {
        let earlier = if step == StepName::Pooled { &self.pooled } else { &self.replication };
        let same = |was: &FreshItems, now: &Origin| {
            (&was.features_sha256, &was.labels_sha256) == (&now.features_sha256, &now.labels_sha256)
        };
        earlier.as_ref().is_none_or(|was| same(&was.train, &now.train) && same(&was.fresh, &now.fresh))
    }

    /// Whether it was on these fresh items; `items` is the hash of what they say, where they are given.
    pub(super) fn tested_on(&self, features_sha256: &str, labels_sha256: &str, items: Option<&str>) -> bool {
        let fresh = (self.fresh.features_sha256.as_str(), self.fresh.labels_sha256.as_str());
        fresh == (features_sha256, labels_sha256) && self.fresh_items_sha256.as_deref() == items
    }
}
