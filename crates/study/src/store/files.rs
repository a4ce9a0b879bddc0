//! Files that appear whole.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

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

/// Whether a name is that of a file on its way into place, or of what a killed process left of one.
pub(crate) fn is_aside(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".part")
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
    serde_json::from_str(&text)
        .map_err(|e| StudyError::content(path, format!("is not the JSON that belongs here ({e})")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
