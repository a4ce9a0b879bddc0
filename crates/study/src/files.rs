//! Files that appear whole, and directories that belong to one run.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{Result, StudyError};

/// Writes a file aside and renames it into place, so that nobody ever sees half of it.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let result = File::create(&aside).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    });
    result.map_err(|e| {
        let _ = fs::remove_file(&aside); // the first error is the one to report
        StudyError::write(path)(e)
    })
}

/// Writes text; the file appears whole.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    write_whole(path, |file| file.write_all(text.as_bytes()))
}

/// Writes indented JSON; the file appears whole.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain data has a JSON form");
    write_text(path, &(text + "\n"))
}

/// Reads JSON.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(StudyError::read(path))?;
    serde_json::from_str(&text).map_err(|e| StudyError::content(path, e))
}

/// A directory that belongs to one run, and says so in `manifest.json`.
pub struct RunDir {
    dir: PathBuf,
    manifest: Map<String, Value>,
}

const MANIFEST: &str = "manifest.json";

impl RunDir {
    /// Takes a directory for the run named `key`: makes it, or continues the same run in it.
    ///
    /// # Errors
    /// If it belongs to another run, or holds files of something else.
    pub fn open(dir: &Path, command: &str, key: &str) -> Result<Self> {
        fs::create_dir_all(dir).map_err(StudyError::write(dir))?;
        let path = dir.join(MANIFEST);
        if path.exists() {
            let manifest: Map<String, Value> = read_json(&path)?;
            let was = |name: &str| manifest.get(name).and_then(Value::as_str).unwrap_or("unknown").to_string();
            if was("command") != command {
                let why = format!("it was made by `temper {}`", was("command"));
                return Err(StudyError::OtherRun { dir: dir.into(), why });
            }
            if was("key") != key {
                let why = "the model, the items or the settings of its first stage differ".into();
                return Err(StudyError::OtherRun { dir: dir.into(), why });
            }
            return Ok(Self { dir: dir.into(), manifest });
        }
        for entry in fs::read_dir(dir).map_err(StudyError::read(dir))? {
            let name = entry.map_err(StudyError::read(dir))?.file_name().to_string_lossy().into_owned();
            // What a run leaves that was killed while it wrote its first file.
            if name.starts_with('.') && name.ends_with(".part") {
                continue;
            }
            let why = format!("it holds {name} and no {MANIFEST}");
            return Err(StudyError::OtherRun { dir: dir.into(), why });
        }
        let manifest = json!({"schema": "run/v1", "command": command, "key": key, "stages": {}});
        let Value::Object(manifest) = manifest else { unreachable!("it was written as an object") };
        let run = Self { dir: dir.into(), manifest };
        run.save()?;
        Ok(run)
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether a stage was finished from the same inputs, and all its files are there.
    pub fn finished(&self, stage: &str, key: &str, files: &[&str]) -> bool {
        self.manifest["stages"][stage]["key"] == key && files.iter().all(|name| self.file(name).exists())
    }

    /// Notes that a stage was finished, with what is worth keeping about it.
    ///
    /// # Errors
    /// If the manifest cannot be written.
    pub fn finish(&mut self, stage: &str, key: &str, mut notes: Value) -> Result<()> {
        notes["key"] = key.into();
        self.manifest["stages"][stage] = notes;
        self.save()
    }

    /// How often the hooks of each arm have fired in all calls that finished: the earlier ones and this one.
    pub(crate) fn fired(&self, stage: &str, now: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let mut fired: BTreeMap<String, u64> =
            serde_json::from_value(self.manifest["stages"][stage]["fired"].clone()).unwrap_or_default();
        for (arm, tokens) in now {
            *fired.entry(arm.clone()).or_default() += tokens;
        }
        fired
    }

    /// Notes a fact about the whole run.
    ///
    /// # Errors
    /// If the manifest cannot be written.
    pub fn note(&mut self, name: &str, value: impl Serialize) -> Result<()> {
        let value = serde_json::to_value(value).expect("plain data has a JSON form");
        self.manifest.insert(name.into(), value);
        self.save()
    }

    fn save(&self) -> Result<()> {
        write_json(&self.file(MANIFEST), &self.manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_belongs_to_one_run() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("run");
        let mut run = RunDir::open(&dir, "sweep", "k1").unwrap();
        run.finish("rows", "s1", json!({"n": 3})).unwrap();
        let again = RunDir::open(&dir, "sweep", "k1").unwrap();
        assert!(again.finished("rows", "s1", &[MANIFEST]) && !again.finished("rows", "s2", &[]));
        assert!(!again.finished("rows", "s1", &["gone.npz"]));
        for (command, key) in [("sweep", "k2"), ("capture", "k1")] {
            let error = RunDir::open(&dir, command, key).err().unwrap();
            assert!(error.to_string().contains("belongs to another run"), "{error}");
        }
        fs::write(temp.path().join("x.txt"), "x").unwrap();
        assert!(RunDir::open(temp.path(), "sweep", "k1").is_err(), "a directory with other files");
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("out.json");
        let full = |_: &mut File| Err(io::Error::from(io::ErrorKind::StorageFull));
        let error = write_whole(&path, full).unwrap_err();
        assert!(error.to_string().contains("cannot write") && error.hint().unwrap().contains("free some space"));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
