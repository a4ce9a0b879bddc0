//! A checkpoint with a plan written into its weights, for engines without hooks.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use headtemper_hook::{HeadPlan, ModelSpec, PlanError};
use headtemper_model::{Checkpoint, ModelError, fold_file, folded_names};
use serde_json::{Value, json};

use crate::{EngineError, ModelChoice, Result, identity::sha256_files, locate::locate};

/// What an export wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// The tensors that λ was written into, by their names in the files.
    pub changed: Vec<String>,
    /// The largest relative error of a changed weight, from rounding to the type it is stored in.
    pub rounding: f64,
    /// The names of the files.
    pub files: Vec<String>,
}

/// The record of an export, beside the weights.
const RECORD: &str = "headtemper.json";
/// A file of a copy that is not finished, locked by the process that writes it.
const LOCK: &str = ".lock";
/// Extensions of files with weights in other forms. They are not copied: they would still be those of the untempered model.
const OTHER_WEIGHTS: [&str; 7] = ["safetensors", "gguf", "bin", "pt", "pth", "onnx", "msgpack"];

/// A model directory to export.
pub struct Original {
    dir: PathBuf,
    name: String,
    checkpoint: Checkpoint,
    spec: ModelSpec,
    note: Option<String>,
}

impl Original {
    /// Finds a model and accounts for its tensors; no weight is read.
    ///
    /// # Errors
    /// If it cannot be found, is not a directory in Hugging Face form, or its tensors are not those of its configuration.
    pub fn find(choice: &ModelChoice) -> Result<Self> {
        let located = locate(choice)?;
        let name = located.name(choice);
        match located.checkpoint {
            Checkpoint::Directory(dir) => {
                let checkpoint = Checkpoint::Directory(dir.clone());
                Ok(Self { dir, name, spec: checkpoint.spec()?, checkpoint, note: located.note })
            }
            Checkpoint::Gguf(path) | Checkpoint::Random { config: path, .. } => {
                Err(EngineError::Export { path, why: "only a directory with safetensors can be exported".into() })
            }
        }
    }

    /// What a user should know about how the model was found.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// SHA-256 over its weight files, as in an [`Identity`](crate::Identity).
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn weights_sha256(&self) -> Result<String> {
        Ok(sha256_files(&self.checkpoint.weight_files()?)?)
    }

    /// The geometry that a plan must fit.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Writes a copy of the directory in which every planned head's columns of the output projection are multiplied by its λ.
    /// The copy appears only when it is complete; what a killed process left of one is removed. `stop` may be set from outside to stop
    /// before the next file: nothing is left then.
    ///
    /// # Errors
    /// If the plan does not fit the model or names no head, or if `out` exists and is not empty, or is where a file system is mounted; if
    /// it is stopped.
    pub fn export(&self, plan: &HeadPlan, out: &Path, stop: Option<&AtomicBool>) -> Result<Exported> {
        plan.check(&self.spec)?;
        plan.check_foldable()?;
        if plan.is_empty() {
            return Err(PlanError::Empty.into());
        }
        // A link to a directory stays one: the copy takes the directory's place.
        let out = &match fs::read_link(out) {
            Ok(_) => fs::canonicalize(out).map_err(cannot(out))?,
            Err(_) => out.to_path_buf(),
        };
        if is_mounted(out) {
            let why = "a file system is mounted there, whose place no copy can take; give a directory in it";
            return Err(EngineError::Export { path: out.into(), why: why.into() });
        }
        let taken = fs::read_dir(out).is_ok_and(|mut files| files.next().is_some()) || out.is_file();
        if taken {
            return Err(EngineError::Export {
                path: out.into(),
                why: "it exists already\nhint: give another directory, or remove it".into(),
            });
        }
        let (aside, lock) = aside(out)?;
        let written = self.write(plan, &aside, stop).and_then(|exported| {
            let _ = fs::remove_dir(out); // an empty one
            fs::rename(&aside, out).map_err(cannot(out))?;
            fs::remove_file(out.join(LOCK)).map_err(cannot(out))?;
            Ok(exported)
        });
        if written.is_err() {
            let _ = fs::remove_dir_all(&aside);
        }
        drop(lock); // last, so that nobody takes for a leftover what is still here
        written
    }

    fn write(&self, plan: &HeadPlan, to: &Path, stop: Option<&AtomicBool>) -> Result<Exported> {
        let dir = &self.dir;
        let mut exported = Exported { changed: Vec::new(), rounding: 0.0, files: Vec::new() };
        let (shards, mut differs) = (self.checkpoint.weight_files()?, false);
        for shard in &shards {
            EngineError::if_stopped(stop)?;
            let name = shard.strip_prefix(dir).unwrap_or(shard);
            let target = to.join(name);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(cannot(parent))?;
            }
            let folded = fold_file(shard, &target, plan, &self.spec)?;
            differs |= folded.differs;
            exported.rounding = exported.rounding.max(folded.rounding);
            exported.changed.extend(folded.changed);
            exported.files.push(name.to_string_lossy().into_owned());
        }
        let expected = folded_names(plan, &self.spec);
        if exported.changed.len() != expected.len() {
            let name = format!("{} of the output projections {}", expected.len(), expected.join(", "));
            return Err(ModelError::MissingTensor { path: dir.clone(), name }.into());
        }
        if !differs && plan.iter().any(|(_, lambda)| lambda != 1.0) {
            let why = format!("the export would be a copy: its columns for {plan} are zero, or stay as they are");
            return Err(EngineError::Export { path: dir.clone(), why });
        }
        for name in settings(dir)? {
            fs::copy(dir.join(&name), to.join(&name)).map_err(cannot(&to.join(&name)))?;
            exported.files.push(name);
        }
        let mut record = json!({
            "schema": "export/v1",
            "model": self.name,
            "weights_sha256": self.weights_sha256()?,
            "plan": plan.to_string(),
            "changed": exported.changed,
            "version": env!("CARGO_PKG_VERSION"),
        });
        // An export of an export holds both plans.
        if let Ok(text) = fs::read_to_string(dir.join(RECORD)) {
            record["from"] = serde_json::from_str(&text).unwrap_or(Value::String(text));
        }
        fs::write(to.join(RECORD), format!("{record:#}\n")).map_err(cannot(to))?;
        exported.files.push(RECORD.into());
        EngineError::if_stopped(stop)?;
        Ok(exported)
    }
}

/// Whether another file system begins at a directory: it cannot be replaced, and what lies beside it cannot be renamed into it.
#[cfg(unix)]
fn is_mounted(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    let beside = std::path::absolute(dir).ok().and_then(|path| device(path.parent()?));
    device(dir).zip(beside).is_some_and(|(there, beside)| there != beside)
}

/// See above: elsewhere renaming says it, at the end.
#[cfg(not(unix))]
fn is_mounted(_: &Path) -> bool {
    false
}

/// A fresh directory beside `out`, in the same file system, and the lock that says that somebody writes it.
fn aside(out: &Path) -> Result<(PathBuf, File)> {
    let absolute = std::path::absolute(out).map_err(cannot(out))?;
    let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    remove_left(absolute.parent().unwrap_or(&absolute), &format!(".{name}."));
    let aside = absolute.with_file_name(format!(".{name}.{}.part", std::process::id()));
    if let Some(parent) = absolute.parent() {
        fs::create_dir_all(parent).map_err(cannot(out))?;
    }
    fs::create_dir(&aside).map_err(cannot(&aside))?;
    let path = aside.join(LOCK);
    let lock = File::create(&path).map_err(cannot(&path))?;
    let _ = lock.try_lock(); // where there are no locks, nothing is ever taken for a leftover
    Ok((aside, lock))
}

/// Removes the copies that killed processes left in a directory, under names that begin like this. Each has its lock, which nobody holds;
/// it is held here until all is gone, so that two who clean up do not meet.
fn remove_left(dir: &Path, begins: &str) {
    for left in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = left.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(begins).and_then(|rest| rest.strip_suffix(".part"));
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok())
            && let Ok(lock) = File::open(left.path().join(LOCK))
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(left.path()); // somebody else's stays
        }
    }
}

fn cannot(path: &Path) -> impl Fn(std::io::Error) -> EngineError {
    let path = path.to_path_buf();
    move |e| EngineError::Export { path: path.clone(), why: e.to_string() }
}

/// The files of a model directory that are not weights: configuration, tokenizer, template, licence, the index.
fn settings(dir: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(cannot(dir))? {
        let name = entry.map_err(cannot(dir))?.file_name().to_string_lossy().into_owned();
        let extension = Path::new(&name).extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        let plain = dir.join(&name).is_file() && !name.starts_with('.') && name != RECORD;
        if plain && !OTHER_WEIGHTS.contains(&&*extension) {
            names.insert(name);
        }
    }
    Ok(names)
}
