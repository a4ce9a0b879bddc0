//! The qualities that answers are rated by, as data: `configs/judge/axes.toml`.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use crate::{Result, StudyError, store::files::parse_toml};

/// One quality, rated from 1 to 5.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// The field that it fills, `scores.NAME`.
    pub name: String,
    /// The disposition whose cohorts it defines.
    pub disposition: String,
    /// What is rated, in the words that the judge reads.
    pub means: String,
}

/// The axes of a file, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axes(Vec<Axis>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    axis: Vec<Axis>,
}

impl Axes {
    /// Reads the text of an axes file; `path` is the name that errors use.
    ///
    /// # Errors
    /// If it is not a TOML file of axes, or has an unknown or missing key, an empty text, a name that is not a plain word, or two axes with
    /// one name.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let file: File = parse_toml(path, text)?;
        let mut names = BTreeSet::new();
        for axis in &file.axis {
            let wrong = |why: &str| Err(StudyError::content(path, format!("axis '{}': {why}", axis.name)));
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
            if axis.name.is_empty() || !axis.name.chars().all(plain) {
                return wrong("its name must be letters, digits, - and _");
            }
            if !names.insert(&axis.name) {
                return wrong("its name must be one of its own");
            }
            if axis.means.trim().is_empty() {
                return wrong("it must say what it means");
            }
        }
        if file.axis.is_empty() {
            return Err(StudyError::content(path, "holds no axis"));
        }
        Ok(Self(file.axis))
    }

    /// The axes with these names, each the name of an axis or of a disposition; all if none is named.
    ///
    /// # Errors
    /// If a name is neither.
    pub fn named(&self, names: &[String]) -> Result<Vec<Axis>> {
        let is = |axis: &Axis, name: &str| axis.name == name || axis.disposition == name;
        for name in names {
            if !self.0.iter().any(|axis| is(axis, name)) {
                let known = self.0.iter().map(|axis| format!("{} ({})", axis.name, axis.disposition));
                return Err(StudyError::option(
                    "an axis",
                    format!("'{name}'"),
                    format!("one of {}", known.collect::<Vec<_>>().join(", ")),
                ));
            }
        }
        let wanted = |axis: &&Axis| names.is_empty() || names.iter().any(|name| is(axis, name));
        Ok(self.0.iter().filter(wanted).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::result::Result<Axes, String> {
        Axes::parse(text, Path::new("axes.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn axes_are_named_by_themselves_or_by_their_disposition() {
        let axes = parse(concat!(
            "[[axis]]\nname = \"a\"\ndisposition = \"x\"\nmeans = \"m\"\n",
            "[[axis]]\nname = \"b\"\ndisposition = \"y\"\nmeans = \"m\"\n",
            "[[axis]]\nname = \"c\"\ndisposition = \"x\"\nmeans = \"m\"\n",
        ))
        .unwrap();
        let named = |names: &[&str]| -> Vec<String> {
            let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
            axes.named(&names).unwrap().into_iter().map(|axis| axis.name).collect()
        };
        assert_eq!((named(&[]), named(&["b", "x"])), (named(&["a", "b", "c"]), named(&["c", "b", "a"])));
        assert_eq!((named(&["x"]), named(&["b"])), (vec!["a".into(), "c".into()], vec!["b".to_string()]));
        let error = axes.named(&["z".into()]).unwrap_err().to_string();
        assert!(error.contains("'z'") && error.contains("a (x), b (y), c (x)"), "{error}");
    }

    #[test]
    fn a_file_of_axes_is_read_strictly() {
        for (text, why) in [
            ("", "missing field"),
            ("axis = []", "holds no axis"),
            ("[[axis]]\nname = \"a\"\ndisposition = \"x\"", "missing field `means`"),
            ("[[axis]]\nname = \"a\"\ndisposition = \"x\"\nmeans = \" \"", "must say what it means"),
            ("[[axis]]\nname = \"a b\"\ndisposition = \"x\"\nmeans = \"m\"", "letters, digits"),
            ("[[axis]]\nname = \"a\"\ndisposition = \"x\"\nmeans = \"m\"\nscale = 5", "unknown field"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why) && error.contains("axes.toml"), "{text}: {error}");
        }
    }
}
