//! Files that appear whole.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use headtemper_hook::{Named, in_words};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Result, StudyError};

/// Links that are followed one after the other: as many as Linux follows.
const LINKS: usize = 40;

/// Writes a file aside and renames it into place, so that nobody ever sees half of it. A symbolic link stays: the file is written where
/// it points to.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let path = &followed(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let result = File::create(&aside).and_then(|mut file| {
        let _ = file.try_lock(); // says that somebody is writing it; where there are no locks, nothing says so
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    });
    result.map_err(|e| {
        let _ = fs::remove_file(&aside); // the first error is the one to report
        StudyError::write(path)(e)
    })
}

/// Which side of a copy failed.
pub(crate) enum Failed {
    Reading(StudyError),
    Writing(io::Error),
}

impl From<StudyError> for Failed {
    fn from(error: StudyError) -> Self {
        Self::Reading(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Writing(error)
    }
}

/// [`write_whole`] of what is read elsewhere meanwhile; an error of reading is no error of writing.
pub(crate) fn copy_whole<T>(path: &Path, copy: impl FnOnce(&mut File) -> std::result::Result<T, Failed>) -> Result<T> {
    let mut copied = None;
    let written = write_whole(path, |file| match copy(file) {
        Ok(value) => {
            copied = Some(Ok(value));
            Ok(())
        }
        Err(Failed::Writing(e)) => Err(e),
        Err(Failed::Reading(e)) => {
            copied = Some(Err(e));
            Err(io::Error::other("what is copied cannot be read"))
        }
    });
    match copied {
        Some(Err(unread)) => Err(unread),
        Some(Ok(value)) => written.map(|()| value),
        None => Err(written.expect_err("nothing was copied")),
    }
}

/// Removes what killed processes left of this file, beside it, where that is possible. In directories of runs, [`RunDir`](crate::RunDir)
/// does it for all that lies in them.
pub(crate) fn remove_left_of(path: &Path) {
    let path = &followed(path);
    let name = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for left in fs::read_dir(dir).into_iter().flatten().flatten() {
        let its = left
            .file_name()
            .to_string_lossy()
            .strip_prefix(&name)
            .is_some_and(|rest| rest.strip_suffix(".part").is_some_and(|pid| pid.parse::<u32>().is_ok()));
        // A file that somebody writes is locked, and one without locks is not touched.
        if its && File::open(left.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(left.path()); // somebody else's stays
        }
    }
}

/// Whether a path can only be a directory's, as it ends in a separator.
pub(crate) fn names_a_directory(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().last().is_some_and(|&last| std::path::is_separator(char::from(last)))
}

/// The directory of the file that a path leads to, where it is not there.
pub(crate) fn missing_dir(path: &Path) -> Option<PathBuf> {
    let file = followed(path);
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir());
    dir.map(Path::to_path_buf)
}

/// Where a path leads if it is a symbolic link, to a file or to nothing.
pub(crate) fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        let Ok(to) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    path
}

/// The absolute form of a path whose directory goes into files of text.
///
/// # Errors
/// If it has no form in UTF-8: those files could not name it.
pub(crate) fn named_in_utf8(path: &Path) -> Result<PathBuf> {
    let whole = std::path::absolute(path).map_err(StudyError::read(path))?;
    if whole.to_str().is_none() {
        return Err(StudyError::option("the path of the file", whole.display().to_string(), "in UTF-8"));
    }
    Ok(whole)
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
    parse_json(path, &text, "the JSON that belongs here")
}

/// What the text of a file of JSON holds; `what` says what would belong there.
pub(crate) fn parse_json<T: DeserializeOwned>(path: &Path, text: &str, what: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| {
        let why = in_words(&e.to_string(), Named::Object);
        StudyError::content(path, format!("is not {what} ({why}){}", nan_is_none(text)))
    })
}

/// What the text of a file of TOML holds.
pub(crate) fn parse_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|e| {
        // The lines before the message show where it is.
        let said = match e.message() {
            // Where the name of one of several things belongs.
            "wanted string or table" => "must be a text".into(),
            other => in_words(other, Named::Table),
        };
        let why = e.to_string().replace(e.message(), &said);
        StudyError::content(path, why.trim_end())
    })
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StudyError::write(path)(e)),
        _ => Ok(()),
    }
}

/// Whether two paths lead to the same existing file.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
}

/// What to say about text that is not JSON because Python wrote NaN or Infinity into it; empty where there is neither.
pub(crate) fn nan_is_none(text: &str) -> &'static str {
    let (mut inside, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            'N' | 'I' if !inside && (text[at..].starts_with("NaN") || text[at..].starts_with("Infinity")) => {
                return "; NaN and Infinity are not JSON: null stands for a number that is missing";
            }
            _ => {}
        }
    }
    ""
}

/// Text that should be UTF-8, by lines.
///
/// # Errors
/// If it cannot be read, or is not UTF-8: the line is named.
pub(crate) fn read_lines(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(StudyError::read(path))?;
    String::from_utf8(bytes).map_err(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = before.split(|&byte| byte == b'\n').count();
        StudyError::content(path, format!("line {line} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_told_from_the_word_in_a_text() {
        for text in [r#"{"a": NaN}"#, "[1, -Infinity]", r#"{"a\\": NaN}"#] {
            assert!(nan_is_none(text).contains("null stands for"), "{text}");
        }
        for text in [r#"{"a": "NaN", b}"#, r#"{"a\"NaN": 1"#, "{"] {
            assert_eq!(nan_is_none(text), "", "{text}");
        }
    }

    #[test]
    fn a_line_that_is_no_text_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"{}\n\n{\"a\": \"caf\xe9\"}\n").unwrap();
        assert!(read_lines(file.path()).unwrap_err().to_string().ends_with("line 3 is not UTF-8"));
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_another_writes_stays() {
        let temp = tempfile::tempdir().unwrap();
        let file = |name: &str| temp.path().join(name);
        let names = [".out.npz.1.part", ".out.npz.2.part", ".out.npz.x.part", ".other.npz.1.part"];
        for name in names {
            fs::write(file(name), "half").unwrap();
        }
        let writing = File::open(file(names[1])).unwrap();
        writing.lock().unwrap();
        remove_left_of(&file("out.npz"));
        assert_eq!(names.map(|name| file(name).exists()), [false, true, true, true]);
        remove_left_of(&file("no/out.npz")); // whoever writes says what is wrong
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_its_file_is_written() {
        use std::os::unix::fs::symlink;
        let temp = tempfile::tempdir().unwrap();
        let file = |name: &str| temp.path().join(name);
        // Where there is another file system, the link leads into it: nothing can be renamed from one to the other.
        let other = tempfile::tempdir_in("/dev/shm").ok();
        match &other {
            Some(other) => symlink(other.path(), file("scratch")).unwrap(),
            None => fs::create_dir(file("scratch")).unwrap(),
        }
        symlink("scratch/second", file("first")).unwrap();
        symlink("there", file("scratch/second")).unwrap();
        for text in ["to nothing yet", "to a file"] {
            write_text(&file("first"), text).unwrap();
            assert_eq!(fs::read_to_string(file("scratch/there")).unwrap(), text);
        }
        assert!(file("first").is_symlink() && file("scratch/second").is_symlink());
        let left = file("scratch/.there.7.part");
        fs::write(&left, "half").unwrap();
        remove_left_of(&file("first"));
        assert!(!left.exists());
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
