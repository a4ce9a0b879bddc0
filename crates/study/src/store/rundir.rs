//! Directories that belong to one run, and to one process at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use headtemper_engine::{EngineError, sha256_file};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Keyed, Parts, Progress, Result, RowLog, Shard, StudyError,
    store::{
        files::{is_aside, remove_if_there},
        manifest::{MANIFEST, Manifest},
    },
};

/// Locked while a process works in the directory; the empty file stays for the next one.
pub(crate) const LOCK: &str = ".lock";

/// A directory that belongs to one run, and says so in `manifest.json`.
pub struct RunDir {
    dir: PathBuf,
    manifest: Manifest,
    _lock: Option<File>,
}

impl RunDir {
    /// Takes a directory for the run that these parts determine, or for one shard of it: makes it, or continues the
    /// same run in it. What a killed process left half-written there is removed.
    ///
    /// # Errors
    /// If it belongs to another run, naming each part that differs; if another process works in it; or if it holds
    /// files of something else.
    pub fn open(
        dir: &Path,
        command: &str,
        parts: &Parts,
        shard: Option<Shard>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        fs::create_dir_all(dir).map_err(StudyError::write(dir))?;
        // Before anything is written, so that a directory of another run stays as it is.
        let existing = || Manifest::existing(dir, command, parts, shard);
        existing()?;
        let lock = lock(dir, &dir.join(LOCK), progress)?;
        remove_asides(dir)?;
        // Once more: another process may have taken the directory meanwhile.
        let found = existing()?;
        let (fresh, manifest) = (found.is_none(), found.unwrap_or_else(|| Manifest::new(command, parts, shard)));
        let run = Self { dir: dir.into(), manifest, _lock: lock };
        if fresh {
            run.save()?;
        }
        Ok(run)
    }

    /// Refuses what [`RunDir::open`] refuses, but writes nothing.
    ///
    /// # Errors
    /// If the directory belongs to another run, or holds files of something else.
    pub fn check(dir: &Path, command: &str, parts: &Parts, shard: Option<Shard>) -> Result<()> {
        if dir.exists() { Manifest::existing(dir, command, parts, shard).map(|_| ()) } else { Ok(()) }
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Removes these files of the run and the directory; if anything else lies in it, that and the directory stay.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub(crate) fn discard(self, files: &[PathBuf]) -> Result<()> {
        remove_asides(&self.dir)?;
        // The lock goes last: without it, the directory is free for anybody.
        let own = [self.file(MANIFEST), self.file(LOCK)];
        files.iter().chain(&own).try_for_each(|path| remove_if_there(path))?;
        let _ = fs::remove_dir(&self.dir); // somebody else's files keep it
        Ok(())
    }

    /// The rows of the run. Says so if a last line was cut off; its row is then made again.
    ///
    /// # Errors
    /// If the file cannot be opened, or a line before the last is not a row.
    pub fn rows<R: Keyed + Serialize + DeserializeOwned>(&self, progress: &mut dyn Progress) -> Result<RowLog<R>> {
        RowLog::open_and_tell(&self.file(R::FILE), progress)
    }

    /// Whether a stage was finished from the same inputs, and its files are there as it wrote them. Says which are not.
    pub fn finished(&self, stage: &str, key: &str, files: &[&str], progress: &mut dyn Progress) -> bool {
        if !self.manifest.finished(stage, key) {
            return false;
        }
        let other = self.manifest.not_as_written(&self.dir, stage, files);
        if !other.is_empty() {
            let names = other.join(", ");
            progress.note(&format!("note: missing, or not as it was written: {names}; {stage} makes its files again"));
        }
        other.is_empty()
    }

    /// Takes back a stage that this call does not have or is about to write, or what a killed call left of one: its files go, and the
    /// manifest forgets it. Returns the names of those that were there.
    ///
    /// # Errors
    /// If a file cannot be removed, or the manifest not be written.
    pub(crate) fn without<'a>(&mut self, stage: &str, files: &[&'a str]) -> Result<Vec<&'a str>> {
        let there = files.iter().copied().filter(|name| self.file(name).exists()).collect();
        files.iter().try_for_each(|name| remove_if_there(&self.file(name)))?;
        if self.manifest.forget(stage) {
            self.save()?;
        }
        Ok(there)
    }

    /// Notes that a stage was finished: what these files of it hold, by which [`RunDir::finished`] knows them, and what is worth keeping
    /// about it.
    ///
    /// # Errors
    /// If one of the files cannot be read, or the manifest not be written.
    pub fn finish(&mut self, stage: &str, key: &str, files: &[&str], notes: Value) -> Result<()> {
        let hash = |name: &&str| Ok((name.to_string(), sha256_file(&self.file(name)).map_err(EngineError::from)?));
        let hashes = files.iter().map(hash).collect::<Result<_>>()?;
        self.manifest.finish(stage, key, &hashes, notes);
        self.save()
    }

    /// Notes a fact about the whole run.
    ///
    /// # Errors
    /// If the manifest cannot be written.
    pub fn note(&mut self, name: &str, value: impl Serialize) -> Result<()> {
        self.manifest.note(name, value);
        self.save()
    }

    fn save(&self) -> Result<()> {
        self.manifest.save(&self.dir)
    }
}

/// Whether a stage of this key was finished in a directory and its files are as it wrote them: [`RunDir::finished`] without opening it.
pub(crate) fn was_finished(dir: &Path, stage: &str, key: &str, files: &[&str]) -> bool {
    Manifest::read(dir)
        .is_ok_and(|manifest| manifest.finished(stage, key) && manifest.not_as_written(dir, stage, files).is_empty())
}

/// Takes a directory or a file for this process until the lock is closed, however the process ends. `None`, with a note, where the
/// file system has no locks.
pub(crate) fn lock(of: &Path, path: &Path, progress: &mut dyn Progress) -> Result<Option<File>> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(path).map_err(StudyError::write(path))?;
    let lock = taken(of, path, file.try_lock())?.then_some(file);
    if lock.is_none() {
        let of = of.display();
        progress.note(&format!("note: the file system of {of} has no locks; let no second process use it meanwhile"));
    }
    Ok(lock)
}

/// Locks without waiting: an error if a process works in the directory. For those who only read.
pub(crate) fn lock_to_read(dir: &Path) -> Result<Option<File>> {
    let path = dir.join(LOCK);
    match File::open(&path) {
        Ok(file) => Ok(taken(dir, &path, file.try_lock_shared())?.then_some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StudyError::read(&path)(e)),
    }
}

/// Whether the lock is held; false where the file system has no locks.
fn taken(of: &Path, path: &Path, locked: std::result::Result<(), TryLockError>) -> Result<bool> {
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Err(StudyError::InUse { dir: of.into() }),
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(false),
        Err(TryLockError::Error(e)) => Err(StudyError::write(path)(e)),
    }
}

/// Removes what killed processes were writing; the lock guarantees that no process is writing now.
fn remove_asides(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(StudyError::read(dir))? {
        let path = entry.map_err(StudyError::read(dir))?.path();
        if path.file_name().is_some_and(|name| is_aside(&name.to_string_lossy())) {
            fs::remove_file(&path).map_err(StudyError::write(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Row, Silent};

    fn parts(n: usize) -> Parts {
        Parts::default().with("n", n)
    }

    fn open(dir: &Path, command: &str, n: usize, shard: Option<&str>) -> std::result::Result<RunDir, String> {
        let shard = shard.map(|shard| shard.parse().unwrap());
        RunDir::open(dir, command, &parts(n), shard, &mut Silent).map_err(|e| e.to_string())
    }

    #[test]
    fn a_directory_belongs_to_one_run() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("run");
        let mut run = open(&dir, "sweep", 1, None).unwrap();
        fs::write(run.file("a.csv"), "head,d\n").unwrap();
        run.finish("rows", "s1", &["a.csv"], json!({"n": 3})).unwrap();
        drop(run);
        fs::write(dir.join(".sweep.json.17.part"), "half").unwrap();
        let again = open(&dir, "sweep", 1, None).unwrap();
        assert!(!dir.join(".sweep.json.17.part").exists());
        let finished = |key: &str, files: &[&str]| again.finished("rows", key, files, &mut Silent);
        // What the stage hashed, and what an earlier version left without a hash.
        assert!(finished("s1", &["a.csv", MANIFEST]) && !finished("s2", &[]));
        assert!(!finished("s1", &["gone.npz"]));
        fs::write(again.file("a.csv"), "head,D\n").unwrap();
        assert!(!finished("s1", &["a.csv"]) && !was_finished(&dir, "rows", "s1", &["a.csv"]));
        for (command, n, shard, why) in [
            ("sweep", 2, None, "n was 1, is 2"),
            ("capture", 1, None, "made by `temper sweep`"),
            ("sweep", 1, Some("1/2"), "it holds the whole run, asked for is shard 1/2"),
        ] {
            let error = open(&dir, command, n, shard).err().unwrap();
            assert!(error.contains("belongs to another run") && error.contains(why), "{error}");
        }
        let other = temp.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(MANIFEST), r#"{"name": "a web app"}"#).unwrap();
        let error = open(&other, "sweep", 1, None).err().unwrap();
        assert!(error.contains("belongs to another run") && error.contains("is not one of `temper`"), "{error}");
        fs::write(temp.path().join("x.txt"), "x").unwrap();
        assert!(open(temp.path(), "sweep", 1, None).is_err(), "a directory with other files");
        let error = Manifest::read(temp.path()).err().unwrap().to_string();
        assert!(error.contains("has no manifest.json\nhint: `temper` writes one"), "{error}");
    }

    #[test]
    fn a_directory_belongs_to_one_process() {
        let temp = tempfile::tempdir().unwrap();
        let run = open(temp.path(), "sweep", 1, Some("1/2")).unwrap();
        let error = open(temp.path(), "sweep", 1, Some("1/2")).err().unwrap();
        assert!(error.contains("in use by another process"), "{error}");
        assert!(lock_to_read(temp.path()).is_err());
        drop(run);
        let reading = lock_to_read(temp.path()).unwrap();
        assert!(reading.is_some() && open(temp.path(), "sweep", 1, Some("1/2")).is_err());
        drop(reading);
        assert!(open(temp.path(), "sweep", 1, Some("2/2")).err().unwrap().contains("it holds shard 1/2"));
        open(temp.path(), "sweep", 1, Some("1/2")).unwrap();
    }

    #[test]
    fn what_was_cut_off_is_said() {
        struct Said(Vec<String>);
        impl Progress for Said {
            fn begin(&mut self, _: &str, _: usize, _: usize) {}
            fn step(&mut self) {}
            fn end(&mut self) {}
            fn note(&mut self, text: &str) {
                self.0.push(text.into());
            }
        }
        let temp = tempfile::tempdir().unwrap();
        let run = open(temp.path(), "sweep", 1, None).unwrap();
        fs::write(run.file(Row::FILE), "{\"key").unwrap();
        let mut said = Said(Vec::new());
        assert!(run.rows::<Row>(&mut said).unwrap().is_empty());
        assert!(said.0[0].contains("rows.jsonl was cut off; its 5 bytes are dropped"), "{:?}", said.0);
    }
}
