//! What exactly was run: the weights' hash, and where they came from.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use headtemper_model::ModelError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Everything about a model that decides its numbers. It is written into every file we make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name under which it was asked for: a file name, a directory name, or a hub id.
    pub model: String,
    /// `model_type`.
    pub architecture: String,
    /// The commit, for a hub model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Seed of random weights, if there is no checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<u64>,
    /// SHA-256 over the weight files, in order.
    pub weights_sha256: String,
    /// SHA-256 over the names and contents of the settings files beside the weights: configuration, tokenizer, template. A GGUF
    /// file holds its own settings, and `weights_sha256` covers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_sha256: Option<String>,
    /// SHA-256 of the chat template, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_sha256: Option<String>,
    /// Whether the model was told to think before it answers, or not to; absent if its template decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<bool>,
    /// What the weights are held in.
    pub dtype: String,
    /// What linear layers multiply, if not f32: `bf16` for activations rounded to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<String>,
    /// Where it runs.
    pub device: String,
    /// The version of this program.
    pub version: String,
}

impl Identity {
    /// What the weights are held in, on which device, and what activations are rounded to, if they are.
    pub fn held_in(&self) -> String {
        format!("{} on {}{}", self.dtype, self.device, self.rounded())
    }

    /// The same without the device: two runs with the same arithmetic differ only by the order of their sums.
    pub fn arithmetic(&self) -> String {
        format!("weights in {}{}", self.dtype, self.rounded())
    }

    fn rounded(&self) -> String {
        self.products.as_ref().map_or_else(String::new, |to| format!(", activations rounded to {to}"))
    }
}

/// SHA-256 of one file, as hexadecimal digits.
///
/// # Errors
/// If it cannot be read.
pub fn sha256_file(path: &Path) -> Result<String, ModelError> {
    sha256_files(std::slice::from_ref(&path.to_path_buf()))
}

/// SHA-256 of the concatenation of some files.
pub(crate) fn sha256_files(paths: &[PathBuf]) -> Result<String, ModelError> {
    let mut hasher = Sha256::new();
    for path in paths {
        take(&mut hasher, path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
    }
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 of one file, for callers with errors of their own.
pub(crate) fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    take(&mut hasher, path)?;
    Ok(hex(&hasher.finalize()))
}

pub(crate) const CONFIG: &str = "config.json";
/// What a model's answers end with, besides what its tokenizer says.
pub(crate) const GENERATION: &str = "generation_config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// The files of a model directory that decide what the model says, besides its weights: those that are hashed, and fetched from a hub.
pub(crate) const SETTINGS: [&str; 7] = [
    CONFIG,
    GENERATION,
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// SHA-256 over the names and contents of those [`SETTINGS`] that exist.
pub(crate) fn sha256_settings(dir: &Path) -> Result<String, ModelError> {
    let mut hasher = Sha256::new();
    for name in SETTINGS {
        let path = dir.join(name);
        if path.exists() {
            let content = std::fs::read(&path).map_err(|source| ModelError::Read { path, source })?;
            hasher.update(format!("{name} {}\n", content.len()));
            hasher.update(&content);
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// Feeds a file to a hash, one mebibyte at a time.
fn take(hasher: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// SHA-256 of a text.
pub(crate) fn sha256_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
