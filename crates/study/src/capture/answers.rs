//! The answers that a capture's model wrote, as a file of items, for the verbs that read texts.
//!
//! The `.npz` holds the answers, so this file is made from it and from the items, once it is whole: a capture that is killed in between
//! makes it when it is called again.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    ops::Range,
    path::Path,
};

use serde_json::json;

use super::{CaptureJob, kept::texts_in};
use crate::{
    Item, Result, StudyError,
    items::{
        columns::{FINISH_REASON, RESPONSE},
        thought::Thoughts,
    },
    npz::join::each_text,
    store::files::{Failed, copy_whole, missing_dir, names_a_directory, remove_left_of},
};

/// Items that are read at once.
const CHUNK: usize = 1024;

/// What a file of answers holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrittenAnswers {
    /// Items with their answers.
    pub items: usize,
    /// Answers that say nothing, as they are empty or end within a thought: their items are left out.
    pub silent: usize,
}

impl CaptureJob<'_> {
    /// Refuses a file of answers that could not be written when there are answers.
    pub(super) fn check_answers(&self) -> Result<()> {
        let Some(path) = self.answers else { return Ok(()) };
        let refused = |found: String, allowed: &str| Err(StudyError::option("--answers", found, allowed));
        if self.answering.is_none() {
            return refused(path.display().to_string(), "left out where the model writes no answers (--generate)");
        }
        let (file, out) = (std::path::absolute(path), std::path::absolute(self.out));
        if file.map_err(StudyError::write(path))? == out.map_err(StudyError::write(self.out))? {
            return refused(format!("{}, like --out", path.display()), "another file");
        }
        if names_a_directory(path) {
            return refused(format!("{}, a directory", path.display()), "a file that can be written");
        }
        if let Some(dir) = missing_dir(path) {
            let found = format!("{}, but {} is no directory", path.display(), dir.display());
            return refused(found, "a file that can be written");
        }
        // What is there is of this capture only if the capture is there, too.
        if path.is_dir() || (path.exists() && !self.out.exists()) {
            return refused(
                format!("{}, which is there", path.display()),
                "a new file, or the one of these very answers",
            );
        }
        Ok(())
    }
}

/// Writes the items of a finished capture with their answers, or finds that this is what the file holds.
///
/// # Errors
/// If the file is there and holds something else, or cannot be written.
pub(super) fn write_answers(
    job: &CaptureJob<'_>,
    range: &Range<usize>,
    thoughts: Thoughts,
    path: &Path,
) -> Result<WrittenAnswers> {
    if path.exists() {
        return same_answers(job, range, thoughts, path);
    }
    remove_left_of(path);
    copy_whole(path, |file| {
        let mut out = BufWriter::new(file);
        let found = lines(job, range, thoughts, &mut |line| out.write_all(line.as_bytes()))?;
        out.flush()?;
        Ok(found)
    })
}

/// What a file of answers holds, if it is that of this capture.
fn same_answers(job: &CaptureJob<'_>, range: &Range<usize>, thoughts: Thoughts, path: &Path) -> Result<WrittenAnswers> {
    let mut there = BufReader::new(File::open(path).map_err(StudyError::read(path))?);
    let mut own = Vec::new();
    let mut compare = |line: &str| {
        own.resize(line.len(), 0);
        there.read_exact(&mut own)?;
        if own == line.as_bytes() { Ok(()) } else { Err(io::Error::other("another line")) }
    };
    let compared = lines(job, range, thoughts, &mut compare);
    match compared {
        Ok(found) if matches!(there.read(&mut [0]), Ok(0)) => Ok(found),
        Err(Failed::Reading(e)) => Err(e),
        _ => Err(StudyError::content(path, "is there and holds something else than the answers of this capture")),
    }
}

/// Hands the line of every item whose answer says something to `put`, in their order.
fn lines(
    job: &CaptureJob<'_>,
    range: &Range<usize>,
    thoughts: Thoughts,
    put: &mut dyn FnMut(&str) -> io::Result<()>,
) -> std::result::Result<WrittenAnswers, Failed> {
    let (ids, reasons) = (texts_in(job.out, "id")?, texts_in(job.out, FINISH_REASON)?);
    let wrong = |why: String| Failed::Reading(StudyError::content(job.out, why));
    if ids.len() != range.len() || reasons.len() != range.len() {
        return Err(wrong(format!(
            "holds {} items and {} answers, but there are {}",
            ids.len(),
            reasons.len(),
            range.len()
        )));
    }
    let (mut found, mut at, mut items) = (WrittenAnswers::default(), 0, Vec::new().into_iter());
    each_text(job.out, RESPONSE, |response| {
        if at % CHUNK == 0 {
            let from = range.start + at;
            items = job.items.read(from..range.end.min(from + CHUNK))?.into_iter();
        }
        let item: Item = items.next().ok_or_else(|| wrong(format!("has more than {} responses", range.len())))?;
        if item.id != ids[at] {
            return Err(wrong(format!("row {at} is of item '{}', but the item there is '{}'", ids[at], item.id)));
        }
        if thoughts.after(&item.input).says(&response) {
            found.items += 1;
            put(&(answered(item, response, &reasons[at]) + "\n"))?;
        } else {
            found.silent += 1;
        }
        at += 1;
        Ok(())
    })?;
    Ok(found)
}

/// The line of an item with its answer. What the item says of another answer is gone, as the model has not read it.
fn answered(item: Item, response: String, reason: &str) -> String {
    let mut item = Item { response: Some(response), ..item.unanswered() };
    item.other.insert(FINISH_REASON.into(), json!(reason));
    item.to_json().to_string()
}
