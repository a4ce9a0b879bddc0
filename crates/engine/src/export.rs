//! A checkpoint with a plan written into its weights, for engines without hooks.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use headtemper_hook::{HeadPlan, ModelSpec, PlanError};
use headtemper_model::{Checkpoint, ModelError, fold_file, folded_names};
use serde_json::json;

use crate::{EngineError, ModelChoice, Result, locate::locate};

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
                Ok(Self { dir, name, spec: checkpoint.spec()?, checkpoint })
            }
            Checkpoint::Gguf(path) | Checkpoint::Random { config: path, .. } => {
                Err(EngineError::Export { path, why: "only a directory with safetensors can be exported".into() })
            }
        }
    }

    /// The geometry that a plan must fit.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Writes a copy of the directory in which every planned head's columns of the output projection are multiplied by its λ.
    /// The copy appears only when it is complete; what a killed process left of one is removed.
    ///
    /// # Errors
    /// If the plan does not fit the model or names no head, if `out` exists and is not empty, or if another process
    /// exports to it.
    pub fn export(&self, plan: &HeadPlan, out: &Path) -> Result<Exported> {
        plan.check(&self.spec)?;
        plan.check_foldable()?;
        if plan.is_empty() {
            return Err(PlanError::Empty.into());
        }
        let taken = fs::read_dir(out).is_ok_and(|mut files| files.next().is_some()) || out.is_file();
        if taken {
            return Err(EngineError::Export { path: out.into(), why: "it exists already".into() });
        }
        let (aside, lock) = aside(out)?;
        let written = self.write(plan, &aside).and_then(|exported| {
            let _ = fs::remove_dir(out); // an empty one
            fs::rename(&aside, out).map_err(cannot(out))?;
            // Only now: whoever waits for the copy's place must not take it for one that was left.
            fs::remove_file(out.join(LOCK)).map_err(cannot(out))?;
            Ok(exported)
        });
        drop(lock);
        if written.is_err() {
            let _ = fs::remove_dir_all(&aside);
        }
        written
    }

    fn write(&self, plan: &HeadPlan, to: &Path) -> Result<Exported> {
        let dir = &self.dir;
        let mut exported = Exported { changed: Vec::new(), rounding: 0.0, files: Vec::new() };
        let shards = self.checkpoint.weight_files()?;
        for shard in &shards {
            let name = shard.strip_prefix(dir).unwrap_or(shard);
            let target = to.join(name);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(cannot(parent))?;
            }
            let folded = fold_file(shard, &target, plan, &self.spec)?;
            exported.rounding = exported.rounding.max(folded.rounding);
            exported.changed.extend(folded.changed);
            exported.files.push(name.to_string_lossy().into_owned());
        }
        let expected = folded_names(plan, &self.spec);
        if exported.changed.len() != expected.len() {
            let name = format!("{} of the output projections {}", expected.len(), expected.join(", "));
            return Err(ModelError::MissingTensor { path: dir.clone(), name }.into());
        }
        for name in settings(dir)? {
            fs::copy(dir.join(&name), to.join(&name)).map_err(cannot(&to.join(&name)))?;
            exported.files.push(name);
        }
        let record = json!({
            "schema": "export/v1",
            "model": self.name,
            "plan": plan.to_string(),
            "changed": exported.changed,
            "version": env!("CARGO_PKG_VERSION"),
        });
        fs::write(to.join(RECORD), format!("{record:#}\n")).map_err(cannot(to))?;
        exported.files.push(RECORD.into());
        Ok(exported)
    }
}

/// A fresh directory beside `out`, in the same file system, and the lock that says that somebody writes it. Its name is always the
/// same, so that nothing of a killed process stays behind.
fn aside(out: &Path) -> Result<(PathBuf, File)> {
    let absolute = std::path::absolute(out).map_err(cannot(out))?;
    let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let aside = absolute.with_file_name(format!(".{name}.part"));
    if aside.exists() {
        locked(out, &aside)?;
        fs::remove_dir_all(&aside).map_err(cannot(&aside))?;
    }
    fs::create_dir(&aside).map_err(cannot(&aside))?;
    let lock = locked(out, &aside)?;
    Ok((aside, lock))
}

/// Takes the directory that is to become `out` for this process, until the file is closed.
fn locked(out: &Path, aside: &Path) -> Result<File> {
    let path = aside.join(LOCK);
    let file = File::create(&path).map_err(cannot(&path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(EngineError::Export { path: out.into(), why: "another process exports to it".into() })
        }
        // A file system without locks: as if nobody else were there.
        _ => Ok(file),
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
