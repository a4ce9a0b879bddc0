//! Which tokens end a generation.

use std::{collections::BTreeSet, path::Path};

use headtemper_model::{GgufFile, token_ids};
use serde::Serialize;

use crate::{
    EngineError, Result, TextTokenizer,
    chat::{json_file, token_text, tokenizer_config},
};

/// The tokens that end a generation: the union of what all files of the model say, since one file alone is often wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StopSet(BTreeSet<u32>);

/// Which tokens end a row before its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopRule {
    /// The model's own stop tokens.
    #[default]
    Model,
    /// The model's own and these.
    Also(StopSet),
    /// None: a row has exactly as many tokens as it may have, for benchmarks of equal work. A stop token is then
    /// an ordinary token.
    Never,
}

impl StopRule {
    /// Whether a token ends a row; `model` are the model's own stop tokens.
    pub fn ends(&self, model: &StopSet, id: u32) -> bool {
        match self {
            Self::Model => model.contains(id),
            Self::Also(others) => model.contains(id) || others.contains(id),
            Self::Never => false,
        }
    }
}

/// Stop tokens that llama.cpp adds by name, since a GGUF file stores only one id.
const BY_NAME: [&str; 7] = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<turn|>", "<eos>", "</s>"];
/// Gemma 4 ends with this after it has called a tool. In other models this could be ordinary text.
const GEMMA4: &str = "<|tool_response>";

impl StopSet {
    /// The stop tokens of a model directory: those of `config.json` (`config`) and `generation_config.json`, and the tokenizer's
    /// `eos_token`.
    ///
    /// # Errors
    /// If a file is malformed.
    pub fn from_directory(dir: &Path, config: &[u32], tokenizer: &TextTokenizer) -> Result<Self> {
        let mut ids: BTreeSet<u32> = config.iter().copied().collect();
        let generation = json_file(dir, "generation_config.json")?;
        let ends = token_ids(generation.get("eos_token_id")).ok_or_else(|| EngineError::Tokenizer {
            path: dir.into(),
            why: format!(
                "generation_config.json: eos_token_id is {}, not a token id or a list",
                generation["eos_token_id"]
            ),
        })?;
        ids.extend(ends);
        let eos = token_text(&tokenizer_config(dir)?["eos_token"]);
        ids.extend(eos.and_then(|token| tokenizer.id(&token)));
        Ok(Self(ids))
    }

    /// The stop tokens of a GGUF file: its one id, as `config` gives it, and the tokens known by name.
    ///
    /// # Errors
    /// If an id is no token.
    pub fn from_gguf(file: &GgufFile, config: &[u32], tokenizer: &TextTokenizer) -> Result<Self> {
        let mut ids: BTreeSet<u32> = config.iter().copied().collect();
        for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
            ids.extend(file.token_id(key)?);
        }
        // In Gemma's vocabulary, `</s>` is struck-through text as any other tag. Of the other names, llama.cpp takes none for a word.
        let named = |name: &&str| tokenizer.id(name).filter(|&id| **name != *"</s>" || tokenizer.is_whole(id));
        ids.extend(BY_NAME.iter().filter_map(named));
        if file.text("tokenizer.ggml.model").is_ok_and(|model| model == "gemma4") {
            ids.extend(tokenizer.id(GEMMA4));
        }
        Ok(Self(ids))
    }

    /// A set of these ids.
    pub fn of(ids: impl IntoIterator<Item = u32>) -> Self {
        Self(ids.into_iter().collect())
    }

    /// Whether a token ends the generation.
    pub fn contains(&self, id: u32) -> bool {
        self.0.contains(&id)
    }

    /// The ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}
