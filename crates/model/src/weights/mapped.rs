//! Files mapped into memory, and releasing their pages.

use std::{
    fs::File,
    io,
    ops::Deref,
    path::{Path, PathBuf},
    time::SystemTime,
};

use memmap2::{Mmap, UncheckedAdvice};

use crate::ModelError;

/// Releases a range of a mapped file to the system after it was copied. Only an optimisation: a failure is no error.
pub(super) fn release(map: &Mmap, start: usize, len: usize) {
    #[cfg(unix)]
    {
        // SAFETY: the map is read-only and backed by the file, so dropped pages are read from it again when accessed.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, len) };
    }
    #[cfg(not(unix))]
    let _ = (map, start, len);
}

/// A file mapped into memory that can tell whether it has been modified since.
pub(super) struct Mapped {
    map: Mmap,
    file: File,
    path: PathBuf,
    stamp: Stamp,
}

/// The properties of a file that change when it is written to.
type Stamp = (u64, Option<SystemTime>);

fn stamp(file: &File) -> io::Result<Stamp> {
    let about = file.metadata()?;
    Ok((about.len(), about.modified().ok()))
}

impl Mapped {
    /// Refuses a file that was written to since it was mapped: its contents are no longer what was hashed. A new file that replaced it
    /// under the same name does not matter.
    ///
    /// # Errors
    /// Names the file.
    pub(super) fn check(&self) -> candle_core::Result<()> {
        if stamp(&self.file).is_ok_and(|stamp| stamp == self.stamp) {
            return Ok(());
        }
        candle_core::bail!(
            "{} was changed while it is in use: rows of it are read as they are needed",
            self.path.display()
        )
    }
}

impl Deref for Mapped {
    type Target = Mmap;

    fn deref(&self) -> &Mmap {
        &self.map
    }
}

/// Maps a file into memory.
pub(super) fn map(path: &Path) -> Result<Mapped, ModelError> {
    let read = |source| ModelError::Read { path: path.into(), source };
    let file = File::open(path).map_err(read)?;
    let stamp = stamp(&file).map_err(read)?;
    // SAFETY: as for every memory-mapped model, the file must not change while it is read; `Mapped::check` detects if it did.
    let map = unsafe { Mmap::map(&file) }.map_err(read)?;
    Ok(Mapped { map, file, path: path.into(), stamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_to_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        std::fs::write(&path, [1; 64]).unwrap();
        let mapped = map(&path).unwrap();
        mapped.check().unwrap();
        // A new file under the same name is not this one.
        std::fs::write(dir.path().join("n"), [2; 64]).unwrap();
        std::fs::rename(dir.path().join("n"), &path).unwrap();
        mapped.check().unwrap();
        assert_eq!(mapped[0], 1);
        let mapped = map(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(32).unwrap();
        let why = mapped.check().unwrap_err().to_string();
        assert!(why.contains("was changed while it is in use"), "{why}");
        let mapped = map(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        mapped.check().unwrap_err();
    }
}
