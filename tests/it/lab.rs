//! A directory in which the program runs as a user would run it, and helpers that read back what it leaves there.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::SystemTime,
};

use candle_core::{Tensor, npy::NpzTensors};
use headtemper_tests::{golden_dir, temper};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Layers of the tiny Llama.
pub(crate) const LAYERS: usize = 4;
/// Heads of each layer.
pub(crate) const HEADS: usize = 6;
/// Width of a head.
pub(crate) const DIM: usize = 12;

/// A directory to run the program in; `M` in a command stands for the tiny Llama.
pub(crate) struct Lab(TempDir);

impl Lab {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn write_lines(&self, name: &str, lines: impl IntoIterator<Item = Value>) {
        let text: String = lines.into_iter().map(|line| line.to_string() + "\n").collect();
        self.write(name, text);
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// The lines of a log of rows; no row may be there twice.
    pub(crate) fn rows(&self, name: &str) -> BTreeSet<String> {
        let text = self.read(name);
        let rows: BTreeSet<String> = text.lines().map(String::from).collect();
        assert_eq!(rows.len(), text.lines().count(), "{name}: a row stands there twice");
        rows
    }

    /// Checks that files of both directories are the same, byte for byte.
    pub(crate) fn same(&self, names: &[&str], a: &str, b: &str) {
        for name in names {
            let read = |dir: &str| fs::read(self.path(dir).join(name)).unwrap();
            assert!(read(a) == read(b), "{a}/{name} and {b}/{name} differ");
        }
    }

    pub(crate) fn modified(&self, name: &str) -> SystemTime {
        fs::metadata(self.path(name)).unwrap().modified().unwrap()
    }

    pub(crate) fn npz(&self, name: &str) -> NpzTensors {
        NpzTensors::new(self.path(name)).unwrap()
    }

    /// The program with the words of a line as arguments.
    pub(crate) fn command(&self, line: &str) -> Command {
        let model = golden_dir("llama").to_string_lossy().into_owned();
        let mut command = temper();
        command.args(line.split_whitespace().map(|word| if word == "M" { &model } else { word }));
        command.current_dir(self.0.path()).env("HF_HUB_OFFLINE", "1");
        command
    }

    /// Runs a line that must end with this code; returns stdout and stderr.
    pub(crate) fn ends(&self, code: i32, line: &str) -> (String, String) {
        let output = self.command(line).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{line}\n{err}");
        (out, err)
    }

    /// Runs a line that must end with one of these codes; returns stdout.
    pub(crate) fn done_or(&self, codes: &[i32], line: &str) -> String {
        let output = self.command(line).output().unwrap();
        let (out, err) = texts(&output);
        assert!(codes.contains(&output.status.code().unwrap()), "{line}\n{err}");
        out
    }

    /// Runs a line that must succeed; returns stdout.
    pub(crate) fn done(&self, line: &str) -> String {
        self.ends(0, line).0
    }
}

pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// A text with one space where there are several, as between the columns of a table.
pub(crate) fn squeezed(text: &str) -> String {
    text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Rows without the checks of their lines, as earlier versions wrote them: what they say can be changed.
pub(crate) fn unchecked(text: &str) -> Vec<Value> {
    let mut rows = lines(text);
    for row in &mut rows {
        assert!(row.as_object_mut().unwrap().shift_remove("check").is_some(), "{row} has no check");
    }
    rows
}

/// JSON lines by their `id`; no id may be there twice.
pub(crate) fn by_id(text: &str) -> BTreeMap<String, Value> {
    let lines = lines(text);
    let count = lines.len();
    let map: BTreeMap<_, _> = lines.into_iter().map(|line| (line["id"].as_str().unwrap().to_string(), line)).collect();
    assert_eq!(map.len(), count, "an id stands there twice");
    map
}

pub(crate) fn array(npz: &NpzTensors, name: &str) -> Tensor {
    npz.get(name).unwrap().unwrap_or_else(|| panic!("the file has no array '{name}'"))
}

pub(crate) fn counts(npz: &NpzTensors, name: &str) -> Vec<i64> {
    array(npz, name).to_vec1().unwrap()
}

/// Writes prompts that are not all ASCII.
pub(crate) fn prompts(lab: &Lab, count: usize) {
    let prompt = |i: usize| json!({"id": format!("q{i}"), "prompt": format!("Qu'est-ce que {i} à {}?", i * i)});
    lab.write_lines("q.jsonl", (0..count).map(prompt));
}

/// Rows as a set of (id, variant, seed, response), independent of the order in which they were made.
pub(crate) fn row_set(lab: &Lab, name: &str) -> BTreeSet<(String, String, u64, String)> {
    let rows = lines(&lab.read(name));
    let count = rows.len();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_string();
    let key =
        |row: Value| (text(&row, "id"), text(&row, "variant"), row["seed"].as_u64().unwrap(), text(&row, "response"));
    let set: BTreeSet<_> = rows.into_iter().map(key).collect();
    assert_eq!(set.len(), count, "{name} holds a row twice");
    set
}
