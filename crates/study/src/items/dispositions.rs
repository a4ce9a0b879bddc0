//! Dispositions as data: what each means, and which items belong to its two cohorts.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use crate::{
    Item, Predicate, Result, StudyError,
    items::cohort::{labels, same_label, too_few},
    store::files::parse_toml,
};

/// The fewest items that a cohort may have: with fewer, no pooled variance exists.
pub(crate) const LEAST: usize = 2;

/// A behavioural axis with its two cohorts.
#[derive(Clone, Debug, PartialEq)]
pub struct DispositionSpec {
    /// Its name.
    pub name: String,
    /// What it means, in a sentence; empty if not given.
    pub means: String,
    /// Where its cohorts and thresholds come from; empty if not given.
    pub source: String,
    /// The first cohort; d > 0 means louder in it.
    pub a: CohortSpec,
    /// The second cohort.
    pub b: CohortSpec,
}

/// A cohort, and the condition for its items.
#[derive(Clone, Debug, PartialEq)]
pub struct CohortSpec {
    /// Its name.
    pub name: String,
    /// The condition that its items meet.
    pub holds: Predicate,
}

/// The items of two cohorts: indices, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cohorts {
    /// The first cohort.
    pub a: Vec<usize>,
    /// The second cohort.
    pub b: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    disposition: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    means: String,
    #[serde(default)]
    source: String,
    a: CohortEntry,
    b: CohortEntry,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CohortEntry {
    name: String,
    #[serde(rename = "where")]
    holds: String,
}

impl DispositionSpec {
    /// The disposition whose two cohorts are these labels.
    ///
    /// # Errors
    /// If the labels are the same.
    pub fn of_labels(name: &str, a: &str, b: &str) -> Result<Self> {
        if a == b {
            return Err(same_label(a));
        }
        let cohort = |label: &str| CohortSpec { name: label.into(), holds: Predicate::label(label) };
        Ok(Self { name: name.into(), means: String::new(), source: String::new(), a: cohort(a), b: cohort(b) })
    }

    /// Refuses conditions on fields that no item of a file has.
    ///
    /// # Errors
    /// The error names the field, and the fields that there are.
    pub fn check_fields(&self, items: &[Item]) -> Result<()> {
        let named = |cohort: &CohortSpec| format!("the condition of cohort '{}' of '{}'", cohort.name, self.name);
        [&self.a, &self.b].into_iter().try_for_each(|cohort| cohort.holds.check(|| named(cohort), items))
    }

    /// The items of both cohorts. They may be some of a file's, whose fields [`check_fields`](Self::check_fields) knows.
    ///
    /// # Errors
    /// If an item is in both cohorts, or if a cohort has fewer than `least` items.
    pub fn cohorts(&self, items: &[Item], least: usize) -> Result<Cohorts> {
        let pick = |cohort: &CohortSpec| -> Result<Vec<usize>> {
            let mut rows = Vec::new();
            for (row, item) in items.iter().enumerate() {
                if cohort.holds.holds(item)? {
                    rows.push(row);
                }
            }
            Ok(rows)
        };
        let (a, b) = (pick(&self.a)?, pick(&self.b)?);
        for (cohort, rows) in [(&self.a, &a), (&self.b, &b)] {
            if rows.len() < least {
                return Err(too_few((&cohort.name, &cohort.holds), rows.len(), least, &labels(items)));
            }
        }
        match a.iter().find(|row| b.binary_search(row).is_ok()) {
            Some(&row) => Err(StudyError::option(
                format!("item '{}' of disposition '{}'", items[row].id, self.name),
                format!("in both cohorts, {} and {}", self.a.name, self.b.name),
                "in one of them at most",
            )),
            None => Ok(Cohorts { a, b }),
        }
    }
}

/// Reads a file of dispositions, such as `configs/dispositions.toml`.
///
/// # Errors
/// If it cannot be read, has an unknown or missing key, a condition that cannot be read, two dispositions with one name, or cohorts with
/// one name.
pub fn read_dispositions(path: &Path) -> Result<Vec<DispositionSpec>> {
    let text = std::fs::read_to_string(path).map_err(StudyError::read(path))?;
    let file: File = parse_toml(path, &text)?;
    let mut names = BTreeSet::new();
    let mut specs = Vec::new();
    for entry in file.disposition {
        let wrong = |why: String| StudyError::content(path, format!("disposition '{}': {why}", entry.name));
        // Files are named after it.
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
        if entry.name.is_empty() || !entry.name.chars().all(plain) {
            return Err(wrong("its name must be letters, digits, - and _".into()));
        }
        if !names.insert(entry.name.to_lowercase()) {
            return Err(wrong("its name must be one of its own".into()));
        }
        if entry.a.name == entry.b.name {
            return Err(wrong(format!("both cohorts are called '{}'", entry.a.name)));
        }
        let cohort = |cohort: &CohortEntry| -> Result<CohortSpec> {
            let holds = Predicate::parse(&cohort.holds).map_err(|e| wrong(e.to_string()))?;
            Ok(CohortSpec { name: cohort.name.clone(), holds })
        };
        let (a, b) = (cohort(&entry.a)?, cohort(&entry.b)?);
        specs.push(DispositionSpec { name: entry.name, means: entry.means, source: entry.source, a, b });
    }
    if specs.is_empty() { Err(StudyError::content(path, "holds no disposition")) } else { Ok(specs) }
}

/// The dispositions that are named, in the order of the names; all if none is named.
///
/// # Errors
/// If a name is not among them.
pub fn named(specs: Vec<DispositionSpec>, names: &[String]) -> Result<Vec<DispositionSpec>> {
    if names.is_empty() {
        return Ok(specs);
    }
    let all = || specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ");
    let pick = |name: &String| {
        specs
            .iter()
            .find(|spec| spec.name == *name)
            .cloned()
            .ok_or_else(|| StudyError::option("--only", format!("'{name}'"), format!("among {}", all())))
    };
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(StudyError::option("--only", format!("'{}' twice", twice.1), "a list of different names"));
    }
    names.iter().map(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item> {
        let line = |i: usize| {
            let label = ["cw", "cr", "hr"][i % 3];
            format!(
                r#"{{"prompt":"p{i}","label":"{label}","scores":{{"depth":{}}},"correct":{}}}"#,
                i % 6,
                i.is_multiple_of(2)
            )
        };
        (0..12).map(|i| Item::parse(&line(i), i + 1, false).unwrap()).collect()
    }

    fn spec(a: &str, b: &str) -> DispositionSpec {
        let cohort = |name: &str, text: &str| CohortSpec { name: name.into(), holds: Predicate::parse(text).unwrap() };
        DispositionSpec {
            name: "deep".into(),
            means: String::new(),
            source: String::new(),
            a: cohort("high", a),
            b: cohort("low", b),
        }
    }

    #[test]
    fn conditions_make_cohorts() {
        let found = spec("scores.depth >= 4", "scores.depth <= 1").cohorts(&items(), LEAST).unwrap();
        assert_eq!((found.a, found.b), (vec![4, 5, 10, 11], vec![0, 1, 6, 7]));
        let labels = DispositionSpec::of_labels("x", "cw", "hr").unwrap().cohorts(&items(), LEAST).unwrap();
        assert_eq!((labels.a, labels.b), (vec![0, 3, 6, 9], vec![2, 5, 8, 11]));
    }

    #[test]
    fn what_makes_no_cohorts_says_why() {
        for (a, b, part) in [
            (
                "scores.dept >= 4",
                "scores.depth <= 1",
                "(no item has scores.dept), but must be on fields that items have",
            ),
            (
                "label == \"cw\" || lable == \"hw\"",
                "scores.depth <= 1",
                "the condition of cohort 'high' of 'deep' is 'label == \"cw\" || lable == \"hw\"' (no item has lable)",
            ),
            ("scores.depth >= 4", "correct", "item '5' of disposition 'deep' is in both cohorts, high and low"),
            (
                "label == \"x\"",
                "correct",
                "cohort 'high' has 0 items, but 2 are needed; its condition is label == \"x\"",
            ),
        ] {
            let spec = spec(a, b);
            let checked = spec.check_fields(&items()).and_then(|()| spec.cohorts(&items(), LEAST));
            let error = checked.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(
            DispositionSpec::of_labels("x", "cw", "cw")
                .unwrap_err()
                .to_string()
                .contains("cohort b is 'cw' like cohort a")
        );
    }

    fn read(text: &str) -> std::result::Result<Vec<DispositionSpec>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_dispositions(file.path()).map_err(|e| e.to_string())
    }

    const GOOD: &str = "[[disposition]]\nname = \"x\"\na = { name = \"p\", where = \"correct\" }\n\
                        b = { name = \"q\", where = \"!correct\" }\n";

    #[test]
    fn files_are_read_strictly() {
        let twice = format!("{GOOD}{}", GOOD.replace("\"x\"", "\"y\""));
        let specs = read(&twice).unwrap();
        assert_eq!(named(specs.clone(), &["y".into()]).unwrap()[0].name, "y");
        assert!(named(specs.clone(), &["z".into()]).unwrap_err().to_string().contains("among x, y"));
        assert!(named(specs.clone(), &["y".into(), "y".into()]).unwrap_err().to_string().contains("'y' twice"));
        assert_eq!(named(specs, &[]).unwrap().len(), 2);
        for (text, part) in [
            (GOOD.replace("\"!correct\"", "\"! correct =\""), "disposition 'x': the condition"),
            (GOOD.replace("\"q\"", "\"p\""), "both cohorts are called 'p'"),
            (format!("{GOOD}{GOOD}"), "its name must be one of its own"),
            (format!("{GOOD}{}", GOOD.replace("\"x\"", "\"X\"")), "its name must be one of its own"),
            (GOOD.replace("\"x\"", "\"../x\""), "letters, digits, - and _"),
            (GOOD.replace("where = \"correct\"", "when = \"correct\""), "unknown field `when`"),
            ("disposition = []".into(), "holds no disposition"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }

    /// The file that is shipped: the paper's seven.
    #[test]
    fn the_papers_seven_are_there() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/dispositions.toml");
        let specs = read_dispositions(&path).unwrap();
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let seven = ["eager", "deliberate", "adversarial-self", "curious", "self-improving", "humble", "persistent"];
        assert_eq!(names, seven);
        assert!(specs.iter().all(|spec| !spec.means.is_empty() && !spec.source.is_empty()));
        let text = |name: &str| {
            let spec = specs.iter().find(|spec| spec.name == name).unwrap();
            (spec.a.holds.to_string(), spec.b.holds.to_string())
        };
        assert_eq!(text("humble"), ("label == \"cw\"".into(), "label == \"cr\"".into()));
        let adversarial = ("scores.self_verification >= 4".into(), "scores.self_verification <= 2".into());
        assert_eq!(text("adversarial-self"), adversarial);
    }
}
