//! Small file operations whose errors name the path.

use std::{fs, io, path::Path};

use super::HubError;
use crate::identity::sha256_of;

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_owned();
    |source| HubError::Io { path, source }
}

pub(super) fn make_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(io_error(parent))
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), HubError> {
    fs::rename(from, to).map_err(io_error(to))
}

/// Removes a file or directory that may not exist.
pub(super) fn remove<'a>(path: &'a Path, how: impl FnOnce(&'a Path) -> io::Result<()>) -> Result<(), HubError> {
    match how(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}

/// Whether there is a file, of this size if one is known.
pub(super) fn is_whole(path: &Path, size: Option<u64>) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && size.is_none_or(|size| file.len() == size))
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn sha256(path: &Path) -> Result<String, HubError> {
    sha256_of(path).map_err(io_error(path))
}
