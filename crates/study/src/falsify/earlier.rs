//! What an earlier falsification left in a directory, and that a frozen probe is tested once. Only what is asked about it is read, so that
//! other versions' files can be.

use std::path::Path;

use serde::Deserialize;

use super::{Outcome, StepName};
use crate::{
    Result, RunDir, StudyError,
    probe::{Origin, ProbeSet},
    store::files::read_json,
};

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
    fn transferred(&self, step: StepName, (train, fresh): (&Origin, &Origin)) -> bool {
        let earlier = if step == StepName::Pooled { &self.pooled } else { &self.replication };
        earlier.as_ref().is_none_or(|was| was.train.are(train) && was.fresh.are(fresh))
    }

    /// Whether it was on these fresh items; `items` is the hash of what they say, where they are given.
    fn tested_on(&self, fresh: &Origin, items: Option<&str>) -> bool {
        self.fresh.are(fresh) && self.fresh_items_sha256.as_deref() == items
    }
}

impl FreshItems {
    fn are(&self, now: &Origin) -> bool {
        (&self.features_sha256, &self.labels_sha256) == (&now.features_sha256, &now.labels_sha256)
    }
}

/// A frozen probe is tested once: other fresh items under the same gates would be a second try.
pub(super) fn tested_once(run: &RunDir, fresh: &ProbeSet, items: Option<&str>) -> Result<()> {
    match Earlier::of(run.dir())? {
        Some(earlier) if !earlier.tested_on(&fresh.origin, items) => {
            let why = "this probe was tested on other fresh items before; a second test needs an --out of its own";
            Err(StudyError::content(&run.file(FOUND), why))
        }
        _ => Ok(()),
    }
}

/// The same for steps 4 and 5, whose sets may be of other files.
pub(super) fn transferred_once(run: &RunDir, step: StepName, (train, fresh): (&ProbeSet, &ProbeSet)) -> Result<()> {
    match Earlier::of(run.dir())? {
        Some(earlier) if !earlier.transferred(step, (&train.origin, &fresh.origin)) => {
            let why = format!("the step {step} was on other items before; a second test needs an --out of its own");
            Err(StudyError::content(&run.file(FOUND), why))
        }
        _ => Ok(()),
    }
}
