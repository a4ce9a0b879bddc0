//! Configurations: `config.json` in its old and new spelling, and the metadata of GGUF files; one file per architecture.
//!
//! A missing key is an error, never a default: the defaults of transformers are wrong for these checkpoints.

mod gemma4;
mod keys;
mod llama;
mod qwen3;
mod qwen3_5;

use std::{fs, path::Path};

use serde_json::{Map, Value};

pub use gemma4::{Gemma4Config, Gemma4Layer};
use keys::Keys;
pub use keys::token_ids;
pub use llama::LlamaConfig;
pub use qwen3::Qwen3Config;
pub use qwen3_5::Qwen35Config;

use crate::{GgufFile, ModelError};

/// The supported values of `model_type` in a `config.json`. For a multimodal checkpoint, only the text decoder is read.
const MODEL_TYPES: &str = "llama, qwen3, qwen3_5, qwen3_5_text, gemma4, gemma4_text";
/// The supported values of `general.architecture` in a GGUF file.
const GGUF_ARCHITECTURES: &str = "llama, qwen3, qwen35, gemma4";

/// The configuration of a text decoder.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// `LlamaForCausalLM`: SmolLM2 135M, 360M, 1.7B.
    Llama(LlamaConfig),
    /// `Qwen3ForCausalLM`: Qwen3 0.6B, 1.7B, 4B, 8B.
    Qwen3(Qwen3Config),
    /// `Qwen3_5ForCausalLM`, also inside `Qwen3_5ForConditionalGeneration`: Qwen3.5 0.8B, 2B, 4B, 9B.
    Qwen35(Qwen35Config),
    /// `Gemma4ForCausalLM`, also inside `Gemma4ForConditionalGeneration`: Gemma 4 E2B.
    Gemma4(Gemma4Config),
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// If it cannot be read, lacks a key, or names an unsupported architecture.
    pub fn from_json_file(path: &Path) -> Result<Self, ModelError> {
        let text = fs::read_to_string(path).map_err(|source| ModelError::Read { path: path.into(), source })?;
        Self::from_json(&text, path)
    }

    /// Parses the text of a `config.json`; `path` names it in errors.
    ///
    /// # Errors
    /// If it is not a JSON object, lacks a key, or names an unsupported architecture.
    pub fn from_json(text: &str, path: &Path) -> Result<Self, ModelError> {
        let root: Map<String, Value> = serde_json::from_str(text).map_err(|e| ModelError::Malformed {
            path: path.into(),
            kind: "config.json",
            why: e.to_string(),
        })?;
        Self::from_keys(&Keys::of(path, &root))
    }

    fn from_keys(root: &Keys<'_>) -> Result<Self, ModelError> {
        root.refuse_unread()?;
        match root.text("model_type")? {
            "llama" => Ok(Self::Llama(LlamaConfig::from_keys(root)?)),
            "qwen3" => Ok(Self::Qwen3(Qwen3Config::from_keys(root)?)),
            "qwen3_5" => Ok(Self::Qwen35(Qwen35Config::from_keys(&root.text_config()?)?)),
            "qwen3_5_text" => Ok(Self::Qwen35(Qwen35Config::from_keys(root)?)),
            "gemma4" => Ok(Self::Gemma4(Gemma4Config::from_keys(&root.text_config()?, Some(root))?)),
            "gemma4_text" => Ok(Self::Gemma4(Gemma4Config::from_keys(root, None)?)),
            other => {
                Err(ModelError::Architecture { path: root.path().into(), found: other.into(), supported: MODEL_TYPES })
            }
        }
    }

    /// Reads the metadata of a GGUF file.
    ///
    /// # Errors
    /// If it lacks a key or names an unsupported architecture.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        let architecture = file.text("general.architecture")?;
        file.refuse_unread(architecture)?;
        match architecture {
            "llama" => Ok(Self::Llama(LlamaConfig::from_gguf(file)?)),
            "qwen3" => Ok(Self::Qwen3(Qwen3Config::from_gguf(file)?)),
            "qwen35" => Ok(Self::Qwen35(Qwen35Config::from_gguf(file)?)),
            "gemma4" => Ok(Self::Gemma4(Gemma4Config::from_gguf(file)?)),
            other => Err(ModelError::Architecture {
                path: file.path().into(),
                found: other.into(),
                supported: GGUF_ARCHITECTURES,
            }),
        }
    }

    /// Tokens that hold the place of something else than text: what a model computes there is not what transformers does.
    pub fn placeholders(&self) -> &[u32] {
        match self {
            Self::Gemma4(config) => &config.placeholders,
            Self::Llama(_) | Self::Qwen3(_) | Self::Qwen35(_) => &[],
        }
    }

    /// End-of-text tokens, as far as the configuration names them.
    pub fn eos(&self) -> &[u32] {
        match self {
            Self::Llama(config) => &config.eos,
            Self::Qwen3(config) => &config.eos,
            Self::Qwen35(config) => &config.eos,
            Self::Gemma4(config) => &config.eos,
        }
    }
}

/// Refuses sizes that no checkpoint can have: each must be above 0.
fn check_sizes(path: &Path, sizes: &[(&str, usize)]) -> Result<(), ModelError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => Err(malformed(path, format!("{name} is 0"))),
        None => Ok(()),
    }
}

/// Refuses a number of query heads that is not a multiple of the key heads, and an odd rotary width.
fn check_heads(path: &Path, heads: usize, kv_heads: usize, rotary: usize) -> Result<(), ModelError> {
    if !heads.is_multiple_of(kv_heads) {
        return Err(malformed(path, format!("{heads} query heads cannot share {kv_heads} key/value heads")));
    }
    if !rotary.is_multiple_of(2) {
        return Err(malformed(path, format!("rotary embeddings need an even width, not {rotary}")));
    }
    Ok(())
}

fn malformed(path: &Path, why: String) -> ModelError {
    ModelError::Malformed { path: path.into(), kind: "configuration", why }
}

/// Refuses a GGUF file in which only part of each head is rotated.
fn check_all_turn(file: &GgufFile, key: &str, head_dim: usize) -> Result<(), ModelError> {
    match file.optional_size(key)? {
        Some(turning) if turning != head_dim => Err(ModelError::Unsupported {
            path: file.path().into(),
            key: key.into(),
            found: turning.to_string(),
            allowed: head_dim.to_string(),
        }),
        _ => Ok(()),
    }
}

/// The one end-of-text token that a GGUF file stores.
fn gguf_eos(file: &GgufFile) -> Result<Vec<u32>, ModelError> {
    Ok(file.token_id("tokenizer.ggml.eos_token_id")?.into_iter().collect())
}
