//! Tokenizers: `tokenizer.json`, or rebuilt from the metadata of a GGUF file.

use std::path::{Path, PathBuf};

use headtemper_model::GgufFile;
use serde_json::{Value, json};
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
        let fail = |why: String| EngineError::Tokenizer { path: file.path().into(), why };
        let document = document(file).map_err(|e| match e {
            EngineError::Model(e) => fail(e.to_string()),
            other => other,
        })?;
        let inner = Tokenizer::from_bytes(document.to_string().as_bytes()).map_err(|e| fail(e.to_string()))?;
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

/// Kinds of a GGUF token (`tokenizer.ggml.token_type`) that are matched as a whole in a text.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The pre-tokenizers we rebuild, by `tokenizer.ggml.pre` (llama.cpp `llama-vocab.cpp`).
fn pre_tokenizer(pre: &str) -> Option<Value> {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    match pre {
        "gpt-2" => Some(byte_level),
        // SmolLM2 splits every digit before GPT-2's pattern
        "smollm" => Some(json!({
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level],
        })),
        _ => None,
    }
}

/// What puts the BOS before a text, where the file asks for it.
fn post_processor(file: &GgufFile, tokens: &[String]) -> Result<Value> {
    if file.flag("tokenizer.ggml.add_bos_token") != Some(true) {
        return Ok(Value::Null);
    }
    let id = file.size("tokenizer.ggml.bos_token_id")?;
    let token = tokens.get(id).ok_or_else(|| EngineError::Tokenizer {
        path: file.path().into(),
        why: format!("its BOS id is {id}, but it has {} tokens", tokens.len()),
    })?;
    let bos = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    Ok(json!({
        "type": "TemplateProcessing",
        "single": [bos, text("A", 0)],
        "pair": [bos, text("A", 0), text("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }))
}

/// The `tokenizer.json` that the metadata of a GGUF file amounts to.
fn document(file: &GgufFile) -> Result<Value> {
    let fail = |why: String| EngineError::Tokenizer { path: file.path().into(), why };
    let model = file.text("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(fail(format!("tokenizer.ggml.model is '{model}', but only 'gpt2' (byte-level BPE) is supported")));
    }
    let pre = file.text("tokenizer.ggml.pre")?;
    let Some(pre_tokenizer) = pre_tokenizer(pre) else {
        return Err(fail(format!("tokenizer.ggml.pre is '{pre}', but only 'smollm' and 'gpt-2' are supported")));
    };
    let tokens = file.texts("tokenizer.ggml.tokens")?;
    let kinds = file.numbers("tokenizer.ggml.token_type")?;
    if kinds.len() != tokens.len() {
        return Err(fail(format!("{} tokens have {} types", tokens.len(), kinds.len())));
    }
    let added: Vec<Value> = tokens
        .iter()
        .zip(&kinds)
        .enumerate()
        .filter(|(_, (_, kind))| matches!(**kind, CONTROL | USER_DEFINED))
        .map(|(id, (token, kind))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": *kind == CONTROL})
        })
        .collect();
    // A merge is "left right"; the left part may itself begin with a space-like character.
    let merges: Vec<Value> = file
        .texts("tokenizer.ggml.merges")?
        .iter()
        .map(|merge| match merge.char_indices().skip(1).find(|&(_, c)| c == ' ') {
            Some((at, _)) => Ok(json!([merge[..at], merge[at + 1..]])),
            None => Err(fail(format!("merge '{merge}' has no two parts"))),
        })
        .collect::<Result<_>>()?;
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor(file, &tokens)?,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    }))
}
