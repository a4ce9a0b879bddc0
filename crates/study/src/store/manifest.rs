//! `manifest.json`: what a directory says of the run that it belongs to.

use std::{collections::BTreeMap, fs, path::Path};

use headtemper_engine::{Identity, sha256_file};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Parts, Result, Shard, StudyError,
    store::{
        files::{is_aside, read_json, write_json},
        rundir::LOCK,
    },
};

pub(crate) const MANIFEST: &str = "manifest.json";
const SCHEMA: &str = "run/v1";

/// What `manifest.json` says.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    schema: String,
    /// The verb that made the directory.
    #[serde(default = "unknown")]
    pub(crate) command: String,
    /// Hash of the parts.
    #[serde(default)]
    key: String,
    /// The shard, if the directory does not hold the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shard: Option<String>,
    /// What the run was made from; the first versions did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parts: Option<Parts>,
    /// By stage, the key of what it was made from, and notes.
    #[serde(default)]
    stages: Map<String, Value>,
    /// Facts about the whole run, such as the model.
    #[serde(flatten)]
    facts: Map<String, Value>,
}

fn unknown() -> String {
    "unknown".into()
}

impl Manifest {
    /// Of a run that these parts determine, or of one shard of it.
    pub(crate) fn new(command: &str, parts: &Parts, shard: Option<Shard>) -> Self {
        Self {
            schema: SCHEMA.into(),
            command: command.into(),
            key: parts.key(),
            shard: shard.map(|shard| shard.to_string()),
            parts: Some(parts.clone()),
            stages: Map::new(),
            facts: Map::new(),
        }
    }

    /// Reads the manifest of a directory that should have one.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        if dir.is_dir() && !dir.join(MANIFEST).exists() {
            let hint =
                "hint: `temper` writes one into every directory that it is given as --out; give such a directory";
            return Err(StudyError::content(dir, format!("has no {MANIFEST}\n{hint}")));
        }
        read_json(&dir.join(MANIFEST))
    }

    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(MANIFEST), self)
    }

    /// The manifest of a directory that continues this run, or none if the directory is fresh.
    ///
    /// # Errors
    /// If it belongs to another run, naming each part that differs, or holds files of something else.
    pub(crate) fn existing(dir: &Path, command: &str, parts: &Parts, shard: Option<Shard>) -> Result<Option<Self>> {
        let other = |why: String| Err(StudyError::OtherRun { dir: dir.into(), why });
        let there = || dir.join(MANIFEST).exists();
        if !there() {
            match foreign(dir)? {
                None => return Ok(None),
                // Another process may have taken the directory between the two looks.
                Some(_) if there() => {}
                Some(name) => return other(format!("it holds {name} and no {MANIFEST}")),
            }
        }
        let manifest = Self::read(dir)?;
        if manifest.schema != SCHEMA {
            return other(format!("its {MANIFEST} is not one of `temper`"));
        }
        if manifest.command != command {
            return other(format!("it was made by `temper {}`", manifest.command));
        }
        let mut changes = match &manifest.parts {
            Some(was) => parts.changes(was),
            None if manifest.key == parts.key() => Vec::new(),
            None => vec!["it was made by a version that did not note what it was made from".into()],
        };
        changes.extend(other_shard(manifest.shard.as_deref(), shard));
        if changes.is_empty() { Ok(Some(manifest)) } else { other(changes.join("; ")) }
    }

    /// What the run of another directory was made from differently; none if it is the same run.
    pub(crate) fn other_than(&self, reference: &Self) -> Option<Vec<String>> {
        if reference.command != self.command {
            return Some(vec![format!(
                "one was made by `temper {}`, one by `temper {}`",
                reference.command, self.command
            )]);
        }
        let differ = match (&reference.parts, &self.parts) {
            (Some(was), Some(now)) => now.changes(was),
            _ => Vec::new(),
        };
        (!differ.is_empty() || reference.key != self.key).then_some(differ)
    }

    /// Whether a stage was finished from these inputs.
    pub(crate) fn finished(&self, stage: &str, key: &str) -> bool {
        self.stages.get(stage).is_some_and(|stage| stage["key"] == key)
    }

    /// Those files of a stage in its directory that are not there, or not what it wrote. Earlier versions noted no hashes.
    pub(crate) fn not_as_written<'a>(&self, dir: &Path, stage: &str, files: &[&'a str]) -> Vec<&'a str> {
        let other = |name: &&str| {
            let path = dir.join(name);
            match self.stages.get(stage).and_then(|stage| stage["files"][*name].as_str()) {
                Some(hash) => sha256_file(&path).map_or(true, |found| found != hash),
                None => !path.exists(),
            }
        };
        files.iter().copied().filter(other).collect()
    }

    /// Notes that a stage was finished, with the hashes of its files by name, and what is worth keeping about it.
    pub(crate) fn finish(&mut self, stage: &str, key: &str, hashes: &BTreeMap<String, String>, mut notes: Value) {
        notes["key"] = key.into();
        if !hashes.is_empty() {
            notes["files"] = json!(hashes);
        }
        self.stages.insert(stage.into(), notes);
    }

    /// Forgets a stage; false if there was none.
    pub(crate) fn forget(&mut self, stage: &str) -> bool {
        self.stages.shift_remove(stage).is_some()
    }

    /// A fact about the whole run.
    pub(crate) fn fact(&self, name: &str) -> Option<&Value> {
        self.facts.get(name)
    }

    /// Notes a fact about the whole run.
    pub(crate) fn note(&mut self, name: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).expect("plain data has a JSON form");
        self.facts.insert(name.into(), value);
    }

    /// The model that ran; the error says why it is not known.
    pub(crate) fn identity(&self) -> std::result::Result<Identity, String> {
        let noted = self.fact("identity").cloned().unwrap_or_default();
        serde_json::from_value(noted).map_err(|e| format!("does not say which model ran: {e}"))
    }
}

/// What to say where a directory holds another part than the one asked for.
pub(crate) fn other_shard(was: Option<&str>, now: Option<Shard>) -> Option<String> {
    let now = now.map(|shard| shard.to_string());
    let said = |shard: Option<&str>| shard.map_or("the whole run".into(), |shard| format!("shard {shard}"));
    (was != now.as_deref()).then(|| format!("it holds {}, asked for is {}", said(was), said(now.as_deref())))
}

/// A file that cannot come from a run that was killed before it wrote its first file.
fn foreign(dir: &Path) -> Result<Option<String>> {
    for entry in fs::read_dir(dir).map_err(StudyError::read(dir))? {
        let name = entry.map_err(StudyError::read(dir))?.file_name().to_string_lossy().into_owned();
        if name != LOCK && !is_aside(&name) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
