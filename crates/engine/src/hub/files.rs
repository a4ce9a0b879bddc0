//! Which files of a repo make the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::HubError;
use super::disk::io_error;
use super::names::is_inside;
use crate::identity::{CONFIG, SETTINGS, TOKENIZER};

pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
/// File name extensions of weights: they tell what a repo without usable weights has instead.
const WEIGHT_EXTENSIONS: [&str; 6] = ["gguf", "bin", "safetensors", "pth", "pt", "onnx"];

/// The files that a model needs from a repo which `has` the given ones: config, templates, tokenizer, and last the weights
/// or the index that names their shards.
pub(super) fn needed(has: impl Fn(&str) -> bool) -> Vec<String> {
    // Everything that decides what a model says is fetched where it is there; two files must be.
    let optional = SETTINGS.into_iter().filter(|name| ![CONFIG, TOKENIZER].contains(name) && has(name));
    // A single file takes precedence over an index, as in transformers.
    let weights = if has(WEIGHTS) || !has(WEIGHTS_INDEX) { WEIGHTS } else { WEIGHTS_INDEX };
    [CONFIG].into_iter().chain(optional).chain([TOKENIZER, weights]).map(str::to_owned).collect()
}

/// Whether files that are [`needed`] have the weights in shards.
pub(super) fn sharded(needed: &[String]) -> bool {
    needed.iter().any(|name| name == WEIGHTS_INDEX)
}

/// The shards that an index names, sorted.
pub(super) fn shards(index: &Path) -> Result<Vec<String>, HubError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bad = |reason: String| HubError::BadIndex { path: index.to_owned(), reason };
    let text = fs::read(index).map_err(io_error(index))?;
    let Index { weight_map } = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let shards: BTreeSet<String> = weight_map.into_values().collect();
    if shards.is_empty() {
        return Err(bad("it names no shard".to_owned()));
    }
    match shards.iter().find(|shard| !is_inside(shard)) {
        Some(shard) => Err(bad(format!("the shard `{shard}` is not a path inside the repo"))),
        None => Ok(shards.into_iter().collect()),
    }
}

/// Whether a file of this name holds weights of some kind, usable or not.
pub(super) fn is_weights(name: &str) -> bool {
    WEIGHT_EXTENSIONS.contains(&extension(name))
}

pub(super) fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}
