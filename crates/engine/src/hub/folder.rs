//! One repo's folder in the cache, in `huggingface_hub`'s layout.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::Repo;

use super::HubError;
use super::disk::{io_error, make_parent, remove, rename};
use super::names::is_name;

pub(super) struct Folder {
    pub(super) cache: PathBuf,
    /// `models--owner--name`
    name: String,
}

impl Folder {
    pub(super) fn new(cache: &Path, id: &str) -> Self {
        Self { cache: cache.to_owned(), name: Repo::model(id.to_owned()).folder_name() }
    }

    /// The same repo in a cache for hf-hub alone, on the same file system as the real one and invisible to the real one's readers.
    pub(super) fn staging(&self) -> Self {
        Self { cache: self.dir().join(".staging"), name: self.name.clone() }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.cache.join(&self.name)
    }

    pub(super) fn blob(&self, hash: &str) -> PathBuf {
        self.dir().join("blobs").join(hash)
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir().join("snapshots").join(commit)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.dir().join("refs").join(revision)
    }

    /// The commit that was last recorded for the revision, or the revision itself if none was; `None` if its snapshot is not there.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        let recorded = fs::read_to_string(self.reference(revision));
        let commit = recorded.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
        (is_name(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// Records which commit the revision is. Only offline runs need that, so failing to write it is not an error.
    pub(super) fn record(&self, revision: &str, commit: &str) {
        let path = self.reference(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known.trim() == commit) {
            return;
        }
        // Renamed into place: a reader sees the old commit or the new one.
        let aside = self.dir().join(format!(".ref-{}", std::process::id()));
        let write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(&aside, commit)?;
            fs::rename(&aside, &path)
        };
        if write().is_err() {
            fs::remove_file(&aside).ok();
        }
    }

    /// Where `huggingface_hub` notes, by an empty file, that a commit has no file of this name.
    pub(super) fn absent(&self, commit: &str, name: &str) -> PathBuf {
        self.dir().join(".no_exist").join(commit).join(name)
    }

    /// Records that a commit has no file of this name. Only the note of offline runs needs that, so failing to write it is not an error.
    pub(super) fn record_absent(&self, commit: &str, name: &str) {
        let path = self.absent(commit, name);
        if make_parent(&path).is_ok() {
            File::create(path).ok();
        }
    }

    /// Waits for other processes that download this repo. Held until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, HubError> {
        // huggingface_hub keeps its locks there too. The file is never removed: otherwise two processes could hold one lock each.
        let path = self.cache.join(".locks").join(&self.name).join("headtemper.lock");
        make_parent(&path)?;
        let file = File::create(&path).map_err(io_error(&path))?;
        file.lock().map_err(io_error(&path))?;
        Ok(file)
    }
}

/// Links `path`, which is `name` in a snapshot, to the blob, replacing what was there.
pub(super) fn link(blob: &Path, path: &Path, name: &str) -> Result<(), HubError> {
    make_parent(path)?;
    remove(path, fs::remove_file)?;
    #[cfg(unix)]
    {
        let blobs = "../".repeat(1 + Path::new(name).components().count()) + "blobs";
        let relative = Path::new(&blobs).join(blob.file_name().unwrap_or_default());
        if std::os::unix::fs::symlink(relative, path).is_ok() {
            return Ok(());
        }
    }
    // Where links are not available (Windows, some network disks) the file itself moves, as in huggingface_hub.
    rename(blob, path)
}
