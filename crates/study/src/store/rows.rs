//! `rows.jsonl`: generations, appended and flushed row by row, each named by what determines it.
//!
//! A line ends with the `check` of what stands before it: a row that was changed later is none, whichever of its fields it was. Lines of
//! earlier versions have no check.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
    fmt::Display,
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use headtemper_engine::FinishReason;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::digest::hex;
use crate::{Progress, Result, StudyError};

/// A line of a log, named by what determines it.
pub trait Keyed: PartialEq {
    /// The file of a run that holds such rows.
    const FILE: &str;

    /// Hash of everything that determines the row.
    fn key(&self) -> &str;

    /// What the row says that cannot all be true, where it does; no such row was ever written.
    fn contradiction(&self) -> Option<String> {
        None
    }
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Hash of everything that determines the row.
    pub key: String,
    /// The item.
    pub id: String,
    /// The arm, such as `base` or `top5@0.9`.
    pub variant: String,
    /// Seed of the sampling noise.
    pub seed: u64,
    /// The prompt, for people to read.
    pub prompt: String,
    /// What the model answered.
    pub response: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens of the response, the stop token not counted.
    pub n_tokens: usize,
    /// Sum of their log-probabilities in nats, under the model as tempered.
    pub sum_logprob: f64,
    /// The response's tokens: its text may be tokenised differently from how it was generated.
    pub response_ids: Vec<u32>,
    /// Whether the arm's positions hold any token that was read. If they hold none, the row is the untouched model's.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub touched: bool,
    /// Head-tokens that the arm's plan was applied to, as the hooks counted them. A row is written only if the count is exactly
    /// what its plan calls for. Rows of earlier versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<u64>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_yes(touched: &bool) -> bool {
    *touched
}

impl Keyed for Row {
    const FILE: &str = "rows.jsonl";

    fn key(&self) -> &str {
        &self.key
    }

    fn contradiction(&self) -> Option<String> {
        let (said, there) = (self.n_tokens, self.response_ids.len());
        (said != there).then(|| format!("n_tokens is {said}, but response_ids has {there}"))
    }
}

/// The rows of a run: those that are there, and a file to append to.
pub struct RowLog<R = Row> {
    path: PathBuf,
    file: File,
    rows: BTreeMap<String, R>,
    /// Bytes of whole lines.
    whole: u64,
    /// Bytes of a cut-off last line that were dropped on opening.
    dropped: usize,
}

impl<R: Keyed + Serialize + DeserializeOwned> RowLog<R> {
    /// Opens the log. A last line that was cut off when a run was killed is dropped.
    ///
    /// # Errors
    /// If the file cannot be opened, a line before the last is not a row, or two lines of one key differ.
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(StudyError::write(path))?;
        let Written { rows, whole, dropped } = read_rows(path)?;
        if dropped > 0 {
            file.set_len(whole as u64).map_err(StudyError::write(path))?;
        }
        file.seek(SeekFrom::End(0)).map_err(StudyError::write(path))?;
        Ok(Self { path: path.into(), file, rows, whole: whole as u64, dropped })
    }

    /// Opens the log. Says so if a last line was dropped; its row is then made again.
    ///
    /// # Errors
    /// As [`RowLog::open`].
    pub(crate) fn open_and_tell(path: &Path, progress: &mut dyn Progress) -> Result<Self> {
        let log = Self::open(path)?;
        if log.dropped > 0 {
            let (path, bytes) = (path.display(), log.dropped);
            progress.note(&format!(
                "note: the last line of {path} was cut off; its {bytes} bytes are dropped, and its row is made again"
            ));
        }
        Ok(log)
    }

    /// A row by its key.
    pub fn get(&self, key: &str) -> Option<&R> {
        self.rows.get(key)
    }

    /// All rows by their keys.
    pub(crate) fn rows(&self) -> &BTreeMap<String, R> {
        &self.rows
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Appends a row in one write, so that a line is either whole or cut off at the end of the file. If it cannot be written
    /// nothing of it stays, so that the next line does not follow half of it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, row: R) -> Result<()> {
        let line = with_check(&row);
        if let Err(e) = self.file.write_all(line.as_bytes()) {
            let back = self.file.set_len(self.whole).and_then(|()| self.file.seek(SeekFrom::Start(self.whole)));
            return Err(StudyError::write(&self.path)(back.err().unwrap_or(e)));
        }
        self.whole += line.len() as u64;
        self.rows.insert(row.key().into(), row);
        Ok(())
    }
}

/// What a file of rows holds.
pub(crate) struct Written<R> {
    /// The rows by their keys.
    pub(crate) rows: BTreeMap<String, R>,
    /// Bytes of whole lines.
    whole: usize,
    /// Bytes of a last line that was cut off.
    dropped: usize,
}

/// Reads rows without changing anything.
///
/// A last line is cut off if it has no end, as a killed process leaves it, or holds a NUL byte, as a power loss may:
/// JSON has none.
pub(crate) fn read_rows<R: Keyed + DeserializeOwned>(path: &Path) -> Result<Written<R>> {
    // Bytes, not text: a line may be cut off inside a character.
    let text = std::fs::read(path).map_err(StudyError::read(path))?;
    let (mut rows, mut whole) = (BTreeMap::new(), 0);
    for (index, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if whole + line.len() == text.len() && (!line.ends_with(b"\n") || line.contains(&0)) {
            break;
        }
        let no_row = |why: &dyn Display| {
            let why = format!("line {} is no row: {why}; without that line, the row is made again", index + 1);
            StudyError::content(path, why)
        };
        let line_of_row = without_check(line).map_err(|why| no_row(&why))?;
        let row: R = serde_json::from_slice(&line_of_row).map_err(|e| no_row(&e))?;
        if let Some(why) = row.contradiction() {
            return Err(no_row(&why));
        }
        // The same line twice, as after joining copies by hand, says nothing new. Of two that differ, none is known to be the right one.
        match rows.entry(row.key().to_owned()) {
            Entry::Vacant(free) => drop(free.insert(row)),
            Entry::Occupied(taken) if *taken.get() == row => {}
            Entry::Occupied(taken) => {
                let why = format!(
                    "line {} says something else than an earlier line with its key ({}), but a key stands for one result; without both \
                     lines, the row is made again",
                    index + 1,
                    taken.key()
                );
                return Err(StudyError::content(path, why));
            }
        }
        whole += line.len();
    }
    Ok(Written { rows, whole, dropped: text.len() - whole })
}

const CHECK: &[u8] = b",\"check\":\"";
/// Hexadecimal digits of a check.
const DIGITS: usize = 16;

/// A row as its line, with the line's end.
fn with_check(row: &impl Serialize) -> String {
    let mut line = serde_json::to_string(row).expect("a row has a JSON form");
    line.pop(); // the brace
    let check = check_of(line.as_bytes());
    line + std::str::from_utf8(CHECK).expect("it is text") + &check + "\"}\n"
}

/// A row as its line says it.
#[cfg(test)]
pub(crate) fn line_of(row: &impl Serialize) -> serde_json::Value {
    serde_json::from_str(&with_check(row)).expect("a line is JSON")
}

fn check_of(fields: &[u8]) -> String {
    hex(&Sha256::digest(fields)[..DIGITS / 2])
}

/// A line without its check, if it has one.
fn without_check(line: &[u8]) -> std::result::Result<Cow<'_, [u8]>, String> {
    let parts = || {
        let checked = line.trim_ascii_end().strip_suffix(b"\"}")?;
        let (rest, check) = checked.split_at_checked(checked.len().checked_sub(DIGITS)?)?;
        Some((rest.strip_suffix(CHECK)?, check))
    };
    let Some((fields, check)) = parts() else { return Ok(Cow::Borrowed(line)) };
    if check_of(fields).as_bytes() != check {
        return Err("it was changed after it was written, as its check says".into());
    }
    Ok(Cow::Owned([fields, b"}"].concat()))
}

/// The rows that a directory holds, by their keys; none if it has no log.
pub(crate) fn rows_in<R: Keyed + DeserializeOwned>(dir: &Path) -> Result<BTreeMap<String, R>> {
    let path = dir.join(R::FILE);
    if path.exists() { Ok(read_rows(&path)?.rows) } else { Ok(BTreeMap::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str) -> Row {
        Row {
            key: key.into(),
            id: "a".into(),
            variant: "base".into(),
            seed: 0,
            prompt: "p".into(),
            response: "réponse 你好".into(),
            finish_reason: FinishReason::Stop,
            n_tokens: 1,
            sum_logprob: -0.5,
            response_ids: vec![3],
            touched: true,
            fired: Some(2),
        }
    }

    #[test]
    fn a_killed_run_loses_the_cut_off_line_only() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("rows.jsonl");
        let mut log = RowLog::open(&path).unwrap();
        log.append(row("k1")).unwrap();
        log.append(row("k2")).unwrap();
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        let inside_a_character = text.rfind('好').unwrap() + 1;
        for cut in [inside_a_character, text.len() - 1, text.len() - 10] {
            std::fs::write(&path, &text.as_bytes()[..cut]).unwrap();
            let log = RowLog::<Row>::open(&path).unwrap();
            assert!(log.get("k1").is_some() && log.get("k2").is_none());
            assert_eq!(log.dropped, cut - text.find('\n').unwrap() - 1);
        }
        let mut log = RowLog::open(&path).unwrap();
        log.append(row("k2")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let first = text.find('\n').unwrap() + 1;
        for (lost, what) in [("\0\0\0", "as after a power loss"), ("{\"key\":\0\0\"}\n", "lost in the middle")] {
            std::fs::write(&path, format!("{}{lost}", &text[..first])).unwrap();
            let log = RowLog::<Row>::open(&path).unwrap();
            assert_eq!((log.len(), log.dropped), (1, lost.len()), "{what}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text[..first], "{what}");
        }
    }

    #[test]
    fn a_key_stands_for_one_result() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("rows.jsonl");
        let line = |row: &Row| serde_json::to_string(row).unwrap() + "\n";
        let (one, other) = (row("k1"), row("k2"));
        std::fs::write(&path, line(&one) + &line(&other) + &line(&one)).unwrap();
        assert_eq!(RowLog::<Row>::open(&path).unwrap().len(), 2, "the same line twice is one row");
        for differs in [
            Row { response: "another".into(), ..one.clone() },
            Row { sum_logprob: -0.25, ..one.clone() },
            Row { fired: None, ..one.clone() },
        ] {
            std::fs::write(&path, line(&one) + &line(&other) + &line(&differs)).unwrap();
            let error = RowLog::<Row>::open(&path).err().unwrap().to_string();
            assert!(error.contains("line 3 says something else than an earlier line with its key (k1)"), "{error}");
        }
    }

    #[test]
    fn a_row_that_was_changed_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("rows.jsonl");
        RowLog::open(&path).unwrap().append(row("k1")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to) in
            [("你好", "你"), ("stop", "length"), ("-0.5", "-0.25"), ("[3]", "[4]"), ("\"check\":\"", "\"check\":\"0")]
        {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = RowLog::<Row>::open(&path).err().unwrap().to_string();
            assert!(error.contains("line 1 is no row: "), "{error}");
        }
        let without = serde_json::to_string(&row("k1")).unwrap() + "\n";
        for whole in [text.replace('\n', "\r\n"), without] {
            std::fs::write(&path, whole).unwrap();
            assert_eq!(RowLog::<Row>::open(&path).unwrap().get("k1"), Some(&row("k1")));
        }
    }

    #[test]
    fn a_row_that_contradicts_itself_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("rows.jsonl");
        for (n_tokens, response_ids) in [(2, vec![3]), (0, vec![3]), (1, vec![])] {
            let there = response_ids.len();
            let text = serde_json::to_string(&Row { n_tokens, response_ids, ..row("k1") }).unwrap();
            std::fs::write(&path, text + "\n").unwrap();
            let error = RowLog::<Row>::open(&path).err().unwrap().to_string();
            let why = format!("line 1 is no row: n_tokens is {n_tokens}, but response_ids has {there}");
            assert!(error.contains(&why), "{error}");
        }
    }

    #[test]
    fn a_bad_line_that_is_not_the_last_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("rows.jsonl");
        let line = serde_json::to_string(&row("k1")).unwrap();
        for (text, number) in [
            (format!("nonsense\n{line}\n"), "line 1"),
            (format!("{line}\n\0\0\n{line}\n"), "line 2"),
            (format!("{line}\n{{}}\n"), "line 2"),
            (format!("{line}\n\n{line}"), "line 2"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = RowLog::<Row>::open(&path).err().unwrap().to_string();
            assert!(error.contains(number) && error.contains("rows.jsonl"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "a refused file stays as it is");
        }
    }
}
