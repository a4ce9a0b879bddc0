//! Item files of any size: read once to check every line, then piece by piece.

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{
    Item, Predicate, Result, StudyError, items::columns::ColumnNames, store::digest::digest_bits, text::file_name,
};

/// Most problems that are listed; the rest is only counted.
const LISTED: usize = 10;

/// Most columns that a file of features may have: with more, the names are data.
const MOST_COLUMNS: usize = 1024;

/// The position of a line.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Its first byte.
    offset: u64,
    /// Its number, from 1.
    line: usize,
}

/// Where items came from: a file, and what holds for all of them.
#[derive(Clone, Copy, Debug)]
pub struct ItemsFrom<'a> {
    /// The file.
    pub path: &'a Path,
    /// The condition by which they were chosen from it, if there was one.
    pub only: Option<&'a Predicate>,
}

impl ItemsFrom<'_> {
    /// The name of the file.
    pub(crate) fn file(&self) -> String {
        file_name(self.path)
    }
}

/// How many items a file has, and for how many of them a condition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// All of the file.
    pub all: usize,
    /// Those for which it holds, before a limit.
    pub held: usize,
    /// Those that lack a field on which it depends: it neither holds nor fails for them.
    pub unknown: usize,
}

impl Taken {
    /// What a reader must know of a condition: for how many items it holds, and how many do not say.
    pub fn told(&self, only: &Predicate) -> String {
        let Self { all, held, unknown } = *self;
        let lack = match unknown {
            0 => String::new(),
            1 => "; 1 of the others lacks a field on which this depends".into(),
            more => format!("; {more} of the others lack a field on which this depends"),
        };
        format!("{only} holds for {held} of {all} items{lack}")
    }
}

/// How the items of a file are read, and which of them; by default all, as they stand there.
#[derive(Clone, Debug, Default)]
pub struct ReadAs {
    /// Prompts are plain text, not chat messages.
    pub raw: bool,
    /// A system message before every prompt.
    pub system: Option<String>,
    /// Only items for which this holds.
    pub only: Option<Predicate>,
    /// Only so many of those, from the start of the file.
    pub limit: Option<usize>,
}

impl ReadAs {
    /// Plain text, or chat messages.
    pub fn raw(raw: bool) -> Self {
        Self { raw, ..Self::default() }
    }

    /// The item of a line; the error says why it is none.
    fn item(&self, line: &str, number: usize) -> std::result::Result<Item, String> {
        let mut item = Item::parse(line, number, self.raw)?;
        if let Some(system) = &self.system {
            item.with_system(system).map_err(|e| e.to_string())?;
        }
        Ok(item)
    }
}

/// Reads lines one after the other, strictly; every bad line is reported with its number. `on_item` is given the items that were asked for,
/// and their lines; lines after the last of these are checked as well.
///
/// # Errors
/// If the lines cannot be read, cannot be used, or hold no item that was asked for.
fn scan(reader: impl Read, path: &Path, read_as: &ReadAs, mut on_item: impl FnMut(Place, &str, Item)) -> Result<Taken> {
    let mut reader = BufReader::with_capacity(1 << 18, reader);
    let (mut bytes, mut ids, mut problems, mut more) = (Vec::new(), HashSet::new(), Vec::new(), 0);
    let mut place = Place { offset: 0, line: 0 };
    let (mut known, mut taken, limit) = (BTreeSet::new(), Taken::default(), read_as.limit.unwrap_or(usize::MAX));
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes).map_err(StudyError::read(path))?;
        if read == 0 {
            break;
        }
        place.line += 1;
        let text = std::str::from_utf8(&bytes).map_err(|e| format!("not UTF-8 from byte {} on", e.valid_up_to() + 1));
        let blank = matches!(text, Ok(text) if text.trim().is_empty());
        if !blank {
            let item = text.clone().and_then(|text| read_as.item(text.trim_end(), place.line));
            let why = match item {
                // The hashes of a million ids take as much memory as a few thousand texts.
                Ok(item) if !ids.insert(digest_bits(&item.id)) => {
                    Some(format!("id '{}' stands there a second time", item.id))
                }
                Ok(item) => {
                    let asked = match &read_as.only {
                        None => Some(true),
                        Some(condition) => {
                            known.extend(item.field_names());
                            condition.known(&item)?
                        }
                    };
                    taken.all += 1;
                    taken.unknown += usize::from(asked.is_none());
                    taken.held += usize::from(asked == Some(true));
                    if asked == Some(true) && taken.held <= limit {
                        on_item(place, text.unwrap_or_default().trim_end_matches(['\n', '\r']), item);
                    }
                    None
                }
                Err(why) => Some(why),
            };
            match why {
                Some(why) if problems.len() < LISTED => problems.push(format!("  line {}: {why}", place.line)),
                Some(_) => more += 1,
                None => {}
            }
        }
        place.offset += read as u64;
    }
    if more > 0 {
        problems.push(format!("  and {more} more"));
    }
    match (problems.is_empty(), ids.is_empty()) {
        (false, _) => Err(StudyError::Items { path: path.into(), problems }),
        (true, true) => Err(StudyError::content(path, "holds no items")),
        (true, false) => {
            let Some(condition) = &read_as.only else { return Ok(taken) };
            condition.check_among(|| format!("the condition on the items of {}", path.display()), &known)?;
            let none = || StudyError::content(path, format!("holds no item for which {condition} holds"));
            if taken.held == 0 { Err(none()) } else { Ok(taken) }
        }
    }
}

/// Reads a file of items.
///
/// # Errors
/// If the file cannot be read, holds no item that was asked for, or has lines that cannot be used; each is reported with its number.
pub fn read_items(path: &Path, read_as: &ReadAs) -> Result<Vec<Item>> {
    Ok(read_taken(path, read_as)?.0)
}

/// The same, with how many were taken of how many.
///
/// # Errors
/// As [`read_items`].
pub fn read_taken(path: &Path, read_as: &ReadAs) -> Result<(Vec<Item>, Taken)> {
    let file = File::open(path).map_err(StudyError::read(path))?;
    let mut items = Vec::new();
    let taken = scan(file, path, read_as, |_, _, item| items.push(item))?;
    Ok((items, taken))
}

/// The same, with the lines of the items as they stand there.
///
/// # Errors
/// As [`read_items`].
pub(crate) fn read_with_lines(path: &Path, read_as: &ReadAs) -> Result<(Vec<Item>, Vec<String>, Taken)> {
    let file = File::open(path).map_err(StudyError::read(path))?;
    let (mut items, mut lines) = (Vec::new(), Vec::new());
    let taken = scan(file, path, read_as, |_, line, item| {
        items.push(item);
        lines.push(line.to_string());
    })?;
    Ok((items, lines, taken))
}

/// A file of items that are not all held in memory: every line is checked once, and read again when it is needed.
#[derive(Debug)]
pub struct ItemFile {
    path: PathBuf,
    read_as: ReadAs,
    places: Vec<Place>,
    taken: Taken,
    columns: Vec<String>,
    /// The content of a file that can be read only once, such as a pipe.
    held: Option<Vec<u8>>,
}

impl ItemFile {
    /// Reads and checks every line; keeps the positions of the items that were asked for.
    ///
    /// # Errors
    /// As [`read_items`]; and if the items bring more score names and fields than a file can sensibly have as columns.
    pub fn open(path: &Path, read_as: ReadAs) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Err(StudyError::option("the file of items", "-", "a path; /dev/stdin is what is piped in"));
        }
        let mut file = File::open(path).map_err(StudyError::read(path))?;
        let regular = file.metadata().map_err(StudyError::read(path))?.is_file();
        let held = if regular {
            None
        } else {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(StudyError::read(path))?;
            Some(bytes)
        };
        let (mut places, mut names) = (Vec::new(), ColumnNames::default());
        let mut on_item = |place: Place, _: &str, item: Item| {
            places.push(place);
            if names.count() <= MOST_COLUMNS {
                names.see(&item);
            }
        };
        let taken = match &held {
            None => scan(file, path, &read_as, &mut on_item)?,
            Some(bytes) => scan(Cursor::new(bytes), path, &read_as, &mut on_item)?,
        };
        if names.count() > MOST_COLUMNS {
            let why = format!("its items have more than {MOST_COLUMNS} different score names and fields");
            return Err(StudyError::content(path, why));
        }
        Ok(Self { path: path.into(), read_as, places, taken, columns: names.names(), held })
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none, as with a limit of 0.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many were taken of how many.
    pub fn taken(&self) -> Taken {
        self.taken
    }

    /// The columns that its items bring.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Reads some of the items.
    ///
    /// # Errors
    /// If the file cannot be read, or has changed meanwhile so that its lines are not items.
    ///
    /// # Panics
    /// If the range goes beyond the items.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<Item>> {
        match &self.held {
            Some(bytes) => self.read_from(Cursor::new(bytes), range),
            None => self.read_from(File::open(&self.path).map_err(StudyError::read(&self.path))?, range),
        }
    }

    fn read_from(&self, mut file: impl Read + Seek, range: Range<usize>) -> Result<Vec<Item>> {
        let places = &self.places[range];
        let Some(first) = places.first() else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(first.offset)).map_err(StudyError::read(&self.path))?;
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let (mut at, mut text, mut items) = (*first, String::new(), Vec::with_capacity(places.len()));
        for place in places {
            // There may be empty lines between two items.
            loop {
                text.clear();
                let read = reader.read_line(&mut text).map_err(StudyError::read(&self.path))?;
                let here = at.line == place.line;
                at = Place { offset: at.offset + read as u64, line: at.line + 1 };
                if here {
                    break;
                }
                if read == 0 || at.line > place.line {
                    return Err(self.changed(place.line));
                }
            }
            items.push(self.read_as.item(text.trim_end(), place.line).map_err(|_| self.changed(place.line))?);
        }
        Ok(items)
    }

    /// The error for a file that has changed since it was checked.
    pub(crate) fn changed(&self, line: usize) -> StudyError {
        StudyError::content(&self.path, format!("line {line} changed while the items were read"))
    }

    /// The line number of an item.
    pub(crate) fn line(&self, item: usize) -> usize {
        self.places[item].line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        "{\"id\":\"a\",\"prompt\":\"é\"}\n",
        "\n  \n",
        "{\"prompt\":\"你好\",\"scores\":{\"x\":1}}\r\n",
        "{\"id\":\"c\",\"prompt\":\"z\",\"n\":3}",
    );

    #[test]
    fn pieces_of_a_file_are_what_reading_it_whole_gives() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), LINES).unwrap();
        let whole = read_items(file.path(), &ReadAs::raw(true)).unwrap();
        let pieces = ItemFile::open(file.path(), ReadAs::raw(true)).unwrap();
        assert_eq!((pieces.len(), whole.len(), pieces.columns()), (3, 3, &["scores.x".into(), "fields.n".into()][..]));
        for from in 0..=3 {
            for to in from..=3 {
                assert_eq!(pieces.read(from..to).unwrap(), whole[from..to]);
            }
        }
        assert_eq!(pieces.read(1..2).unwrap()[0].id, "4", "an item without an id is named by its line");
        let few = ItemFile::open(file.path(), ReadAs { limit: Some(2), ..ReadAs::raw(true) }).unwrap();
        assert_eq!((few.len(), few.columns()), (2, &["scores.x".into()][..]));
        std::fs::write(file.path(), "{}\n").unwrap();
        let error = pieces.read(0..1).unwrap_err().to_string();
        assert!(error.contains("line 1 changed while the items were read"), "{error}");
        assert!(pieces.read(2..3).is_err());
    }

    #[test]
    fn a_line_that_is_no_text_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"{\"prompt\":\"x\"}\n{\"prompt\":\"caf\xe9\"}\n").unwrap();
        for error in [
            read_items(file.path(), &ReadAs::default()).unwrap_err(),
            ItemFile::open(file.path(), ReadAs::default()).unwrap_err(),
        ] {
            assert!(error.to_string().ends_with("\n  line 2: not UTF-8 from byte 15 on"), "{error}");
        }
    }

    #[test]
    fn names_that_are_data_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines: String = (0..2000).map(|i| format!("{{\"prompt\":\"x\",\"n{i}\":1}}\n")).collect();
        std::fs::write(file.path(), lines).unwrap();
        let error = ItemFile::open(file.path(), ReadAs::default()).unwrap_err().to_string();
        assert!(error.contains("more than 1024 different score names and fields"), "{error}");
        assert!(ItemFile::open(file.path(), ReadAs { limit: Some(1000), ..ReadAs::default() }).is_ok());
    }

    #[test]
    fn only_what_was_asked_for_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line =
            |i: usize| format!("{{\"id\":\"{i}\",\"prompt\":\"p{i}\",\"n\":{i},\"even\":{}}}\n\n", i.is_multiple_of(2));
        std::fs::write(file.path(), (0..9).map(line).collect::<String>()).unwrap();
        let asked = |text: &str, limit: Option<usize>| ReadAs {
            only: Some(Predicate::parse(text).unwrap()),
            system: Some("Be brief.".into()),
            limit,
            ..ReadAs::default()
        };
        for (condition, limit, ids) in [
            ("even", None, &["0", "2", "4", "6", "8"][..]),
            ("even && n > 2", Some(2), &["4", "6"]),
            ("n != 3", Some(4), &["0", "1", "2", "4"]),
        ] {
            let read_as = asked(condition, limit);
            let whole = read_items(file.path(), &read_as).unwrap();
            assert_eq!(whole.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ids, "{condition}");
            let pieces = ItemFile::open(file.path(), read_as).unwrap();
            assert_eq!(pieces.read(0..pieces.len()).unwrap(), whole);
            assert_eq!(pieces.read(1..2).unwrap(), whole[1..2]);
            let headtemper_engine::Input::Messages(messages) = &whole[0].input else { panic!("a system message") };
            assert_eq!((messages[0].role.as_str(), messages[0].content.as_str()), ("system", "Be brief."));
        }
        let refused = |text: &str| read_items(file.path(), &asked(text, None)).unwrap_err().to_string();
        assert!(refused("n > 8").ends_with("holds no item for which n > 8 holds"), "{}", refused("n > 8"));
        assert!(
            refused("odd").contains("(no item has odd), but must be on fields that items have: even, id, n, prompt")
        );
        assert!(refused("n == \"3\"").contains("a field of item '0' in the condition"));
        std::fs::write(file.path(), "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}\n").unwrap();
        let system = ReadAs { system: Some("Be brief.".into()), ..ReadAs::default() };
        let why = read_items(file.path(), &system).unwrap_err().to_string();
        assert!(why.contains("line 1: the input of item '1' is messages or input_ids"), "{why}");
    }
}
