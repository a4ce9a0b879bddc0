//! The probe of a gate, as its file has it, and what is known of it.

use std::path::Path;

use headtemper_engine::{EngineError, sha256_file};

use crate::{
    Result,
    falsify::{Earlier, Outcome},
    probe::Probe,
};

/// A probe that is no longer fitted.
pub struct FrozenProbe {
    /// The probe.
    pub probe: Probe,
    /// SHA-256 of its file.
    pub sha256: String,
    /// What `temper falsify` found of this very probe, if it left that beside the file.
    pub verdict: Option<Outcome>,
}

impl FrozenProbe {
    /// Reads a probe's file, or the one in a directory, and the verdict beside it.
    ///
    /// # Errors
    /// If one of them cannot be read, or the file holds no probe.
    pub fn open(path: &Path) -> Result<Self> {
        let (probe, path) = Probe::read(path)?;
        let sha256 = sha256_file(&path).map_err(EngineError::from)?;
        let beside = Earlier::of(path.parent().unwrap_or(Path::new("")))?;
        let verdict = beside.and_then(|earlier| earlier.verdict_of(&sha256));
        Ok(Self { probe, sha256, verdict })
    }
}
