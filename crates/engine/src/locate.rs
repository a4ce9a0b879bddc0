//! Where a model is stored.

use std::path::{Path, PathBuf};

use headtemper_model::Checkpoint;

use crate::{
    EngineError, ModelChoice, Result,
    hub::{self, HubOptions},
    identity::{sha256_file, sha256_files, sha256_text},
};

/// Where a model is stored, once found.
pub(crate) struct Located {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) path: PathBuf,
    pub(crate) revision: Option<String>,
    pub(crate) note: Option<String>,
}

impl Located {
    /// The model's name in the files we write.
    pub(crate) fn name(&self, choice: &ModelChoice) -> String {
        let file = match &self.checkpoint {
            Checkpoint::Random { .. } => self.path.file_stem(),
            Checkpoint::Directory(_) | Checkpoint::Gguf(_) => self.path.file_name(),
        };
        match file {
            Some(name) if self.revision.is_none() => name.to_string_lossy().into_owned(),
            _ => choice.model.clone(),
        }
    }

    /// SHA-256 over the weight files. For random weights, over what they are derived from: the seed and the configuration.
    pub(crate) fn weights_sha256(&self) -> Result<String> {
        match &self.checkpoint {
            Checkpoint::Random { config, seed } => {
                let config = if config.is_dir() { config.join("config.json") } else { config.clone() };
                Ok(sha256_text(&format!("random {seed} {}", sha256_file(&config)?)))
            }
            files => Ok(sha256_files(&files.weight_files()?)?),
        }
    }
}

/// Finds a model. A hub id is downloaded if it is not there yet.
pub(crate) fn locate(choice: &ModelChoice) -> Result<Located> {
    let path = Path::new(&choice.model);
    if let Some(seed) = choice.random {
        return match (path.exists(), &choice.revision) {
            (true, None) => {
                let checkpoint = Checkpoint::Random { config: path.into(), seed };
                Ok(Located { checkpoint, path: path.into(), revision: None, note: None })
            }
            _ => Err(EngineError::NoSuchConfig(choice.model.clone())),
        };
    }
    let looks_local = choice.model.starts_with(['.', '/', '~']) || choice.model.ends_with(".gguf");
    if path.exists() || looks_local || choice.model.matches('/').count() != 1 {
        if !path.exists() {
            return Err(EngineError::NoSuchModel(choice.model.clone()));
        }
        if let Some(revision) = &choice.revision {
            return Err(EngineError::Setting {
                name: "revision",
                found: revision.clone(),
                allowed: "left out for a local path; it chooses among the commits of a hub id",
            });
        }
        let note = shadowed(choice);
        return Ok(Located { checkpoint: Checkpoint::at(path)?, path: path.into(), revision: None, note });
    }
    let options = HubOptions { revision: choice.revision.as_deref(), progress: choice.progress };
    let snapshot = hub::fetch(&choice.model, &options)?;
    let checkpoint = Checkpoint::Directory(snapshot.dir.clone());
    Ok(Located { checkpoint, path: snapshot.dir, revision: Some(snapshot.commit), note: snapshot.note })
}

/// What is said of a path that is the id of a model in the hub's cache as well.
fn shadowed(choice: &ModelChoice) -> Option<String> {
    let model = &choice.model;
    hub::holds(model).then(|| {
        format!("`{model}` is read from the path of this name, not from the hub's cache; write ./{model} to say so")
    })
}
