//! Tokenizers: `tokenizer.json`, or rebuilt from the metadata of a GGUF file.

mod byte_level;
mod gemma4;
mod gguf;
mod pipeline;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use headtemper_model::GgufFile;
use tokenizers::Tokenizer;

use crate::{EngineError, Result, chat::THOUGHTS};

/// A tokenizer whose caller says exactly when special tokens are added.
pub struct TextTokenizer {
    /// If there is none, tokens are written as numbers.
    inner: Option<Tokenizer>,
    /// Special tokens that a text does not show.
    unseen: HashSet<u32>,
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
        // The library assumes that some parts are valid JSON, and panics on a truncated file.
        let text = std::fs::read(&file).map_err(|e| fail(format!("tokenizer.json: {e}")))?;
        serde_json::from_slice::<serde::de::IgnoredAny>(&text).map_err(|e| fail(format!("tokenizer.json: {e}")))?;
        let mut inner = Tokenizer::from_bytes(&text).map_err(|e| fail(format!("tokenizer.json: {e}")))?;
        // Some files carry padding and truncation settings from training; we neither cut nor pad a text.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| fail(e.to_string()))?;
        Ok(Self::new(inner, dir))
    }

    /// Rebuilds the tokenizer from a GGUF file's own metadata.
    ///
    /// # Errors
    /// If the metadata is missing, or describes a kind of tokenizer that we cannot rebuild.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        let inner = gguf::rebuild(file)?;
        Ok(Self::new(inner, file.path()))
    }

    fn new(inner: Tokenizer, path: &Path) -> Self {
        // Gemma 4's checkpoints call the tokens around a thought special, those of other families and GGUF files do not. Without them,
        // a thought would pass for the answer.
        let thought = |text: &str| THOUGHTS.iter().any(|&(start, end)| text == start || text == end);
        let added = inner.get_added_tokens_decoder();
        let unseen = added.iter().filter(|(_, token)| token.special && !thought(&token.content)).map(|(&id, _)| id);
        let unseen = unseen.collect();
        Self { inner: Some(inner), unseen, path: path.into() }
    }

    /// A stand-in for a configuration without a tokenizer: a text is token ids separated by spaces.
    pub(crate) fn numbers(path: &Path) -> Self {
        Self { inner: None, unseen: HashSet::new(), path: path.into() }
    }

    fn fail(&self, why: impl std::fmt::Display) -> EngineError {
        EngineError::Tokenizer { path: self.path.clone(), why: why.to_string() }
    }

    /// Token ids of a text. With `special`, they include what the tokenizer itself adds, such as a BOS. Never use it for
    /// rendered chats, whose template writes its own.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        match &self.inner {
            Some(inner) => Ok(inner.encode_fast(text, special).map_err(|e| self.fail(e))?.get_ids().to_vec()),
            None => text.split_whitespace().map(|id| id.parse().map_err(|_| self.fail(no_number(id)))).collect(),
        }
    }

    /// The text of tokens, without special ones other than those around a thought ([`THOUGHTS`]).
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        match &self.inner {
            Some(inner) => {
                let seen: Vec<u32> = ids.iter().copied().filter(|id| !self.unseen.contains(id)).collect();
                inner.decode(&seen, false).map_err(|e| self.fail(e))
            }
            None => Ok(ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        }
    }

    /// The tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// If there is none, or it fails.
    pub fn to_json(&self) -> Result<String> {
        let inner = self.inner.as_ref().ok_or_else(|| self.fail("it has none"))?;
        inner.to_string(false).map_err(|e| self.fail(e))
    }

    /// The id of a token by its text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.as_ref()?.token_to_id(token)
    }

    /// Whether a token is matched as a whole before anything else: ordinary words of a vocabulary are not, whatever their text.
    pub fn is_whole(&self, id: u32) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.get_added_tokens_decoder().contains_key(&id))
    }

    /// The text of a token, as it is in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.as_ref()?.id_to_token(id)
    }
}

fn no_number(text: &str) -> String {
    format!("a configuration alone has none, and reads token ids such as '17 4 99', not '{text}'")
}
