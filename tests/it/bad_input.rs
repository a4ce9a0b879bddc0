//! Impossible requests are refused: exit code 2, nothing on stdout, a message that names the object and what would be
//! right, and nothing left on the disk.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

mod asked;
mod early;
mod models;
mod places;
mod texts;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use headtemper_tests::{golden_dir, temper};
use serde_json::json;
use tempfile::TempDir;

/// The files of a model directory.
const MODEL: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
];

/// A directory to run the program in. It holds `q.jsonl` with three prompts and `c.jsonl` with six answered items, three
/// of cohort `a` and three of `b`; `M` in a command stands for the tiny Llama.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(TempDir::new().unwrap());
        bench.write(
            "q.jsonl",
            "{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"b\",\"prompt\":\"y\"}\n{\"id\":\"c\",\"prompt\":\"z\"}\n",
        );
        let item = |i: usize| {
            let (label, word) = if i.is_multiple_of(2) { ("a", "yes") } else { ("b", "no") };
            json!({"id": i, "prompt": format!("Is {i} even?"), "response": format!("{word} {i}"), "label": label})
        };
        bench.write("c.jsonl", (0..6).map(|i| item(i).to_string() + "\n").collect::<String>());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Makes a copy of the tiny Llama, to be spoilt.
    fn copy_model(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        for file in MODEL {
            fs::copy(golden_dir("llama").join(file), dir.join(file)).unwrap();
        }
        dir
    }

    fn run(&self, line: &str) -> Output {
        self.run_in(temper(), line)
    }

    /// Runs a line, split at spaces.
    fn run_in(&self, mut program: Command, line: &str) -> Output {
        let model = golden_dir("llama").to_string_lossy().into_owned();
        let words = line.split_whitespace().map(|word| if word == "M" { &model } else { word });
        program.args(words).current_dir(self.0.path()).env("HF_HUB_OFFLINE", "1").output().unwrap()
    }

    /// Runs a line that must succeed.
    fn done(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(0), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a line that must be refused with these parts in the message, and must leave every file as it was.
    fn refused(&self, line: &str, parts: &[&str]) {
        let before = files(self.0.path());
        let output = self.run(line);
        assert_refused(line, &output, parts);
        let after = files(self.0.path());
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&after), names(&before), "{line}");
        assert!(after == before, "{line}: a file has changed");
    }
}

fn assert_refused(line: &str, output: &Output, parts: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{line}\n{message}");
    assert!(output.stdout.is_empty(), "{line} wrote to stdout: {}", String::from_utf8_lossy(&output.stdout));
    for part in parts {
        assert!(message.contains(part), "{line}\n'{part}' is not in:\n{message}");
    }
}

/// Every file and directory below `dir`, with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            // It may lead nowhere.
            let to = fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes();
            all.insert(path, to);
        } else if path.is_dir() {
            all.insert(path.clone(), Vec::new());
            all.append(&mut files(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// An experiment as `temper run` reads it, on the tiny Llama.
fn experiment() -> String {
    format!(
        "name = \"t\"\nmodel = {{ path = \"{}\" }}\nitems = {{ path = \"c.jsonl\" }}\n\
         generate = {{ max_new_tokens = 4 }}\nattribute = {{ disposition = \"x\", a = \"a\", b = \"b\", min_cohort = 2 }}\n\
         sweep = {{ heads = \"top:2\", lambdas = [1, 0.5] }}\n",
        golden_dir("llama").display()
    )
}
