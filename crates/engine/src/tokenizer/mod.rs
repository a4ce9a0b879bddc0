//! Tokenizers: `tokenizer.json`, or rebuilt from the metadata of a GGUF file.

mod byte_level;
mod gemma4;
mod gguf;

use std::path::{Path, PathBuf};

use headtemper_model::GgufFile;
use tokenizers::Tokenizer;

use crate::{EngineError, Result};

/// A tokenizer that says exactly when special tokens are added.
pub struct TextTokenizer {
    inner: Tokenizer,
    path: PathBuf,
}

impl TextTokenizer {
    /// Reads `tokenizer.json` of a model directory.
    ///
    /// # Errors
    /// If it is missing or malformed.
    pub fn from_directory(dir: &Path) -> Result<Self> {
        let file = dir.join("tokenizer.json");
        let fail = |why: String| EngineError::Tokenizer { path: dir.into(), why };
        if !file.exists() {
            return Err(fail("tokenizer.json is missing".into()));
        }
        let mut inner = Tokenizer::from_file(&file).map_err(|e| fail(format!("tokenizer.json: {e}")))?;
        // Some files carry the settings of a training run; a text is neither cut nor padded here.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| fail(e.to_string()))?;
        Ok(Self { inner, path: dir.into() })
    }

    /// Rebuilds the tokenizer from a GGUF file's own metadata.
    ///
    /// # Errors
    /// If the metadata is missing, or describes a kind of tokenizer we do not rebuild.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        let inner = gguf::rebuild(file)?;
        Ok(Self { inner, path: file.path().into() })
    }

    /// Token ids of a text. With `special`, what the tokenizer itself adds, such as a BOS: never for rendered chats,
    /// whose template writes its own.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, special)
            .map_err(|e| EngineError::Tokenizer { path: self.path.clone(), why: e.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens, special ones left out.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|e| EngineError::Tokenizer { path: self.path.clone(), why: e.to_string() })
    }

    /// The tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(false).map_err(|e| EngineError::Tokenizer { path: self.path.clone(), why: e.to_string() })
    }

    /// The id of a token by its text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The text of a token, as it stands in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}
