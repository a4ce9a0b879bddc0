//! What turns text into tokens and ends a generation, for every kind of checkpoint.

use std::path::Path;

use headtemper_model::{Checkpoint, Config, GgufFile};
use serde_json::Value;

use crate::{ChatTemplate, Result, StopSet, TextTokenizer, chat::json_file};

/// The text side of a model.
pub(crate) struct Texts {
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) stop: StopSet,
    /// Tokens that hold the place of something else than text.
    pub(crate) placeholders: Vec<u32>,
    /// What a user should know about what the files ask for and is not done.
    pub(crate) note: Option<String>,
}

impl Texts {
    /// Reads it from a checkpoint. A configuration with random weights has none: its texts are token ids as numbers, and a
    /// generation stops only at its limit.
    pub(crate) fn of(checkpoint: &Checkpoint, config: &Config) -> Result<Self> {
        let placeholders = config.placeholders().to_vec();
        match checkpoint {
            Checkpoint::Directory(dir) => {
                let tokenizer = TextTokenizer::from_directory(dir)?;
                let stop = StopSet::from_directory(dir, config.eos(), &tokenizer)?;
                Ok(Self {
                    tokenizer,
                    template: ChatTemplate::from_directory(dir)?,
                    stop,
                    placeholders,
                    note: unapplied(dir)?,
                })
            }
            Checkpoint::Gguf(path) => {
                let file = GgufFile::open(path)?;
                let tokenizer = TextTokenizer::from_gguf(&file)?;
                let stop = StopSet::from_gguf(&file, config.eos(), &tokenizer)?;
                Ok(Self { tokenizer, template: ChatTemplate::from_gguf(&file)?, stop, placeholders, note: None })
            }
            Checkpoint::Random { config: path, .. } => {
                let (tokenizer, stop) = (TextTokenizer::numbers(path), StopSet::of([]));
                Ok(Self { tokenizer, template: None, stop, placeholders: Vec::new(), note: None })
            }
        }
    }
}

/// What changes even greedy answers of transformers' `generate` when `generation_config.json` has it, with the value that changes nothing.
const PROCESSORS: [(&str, f64); 11] = [
    ("suppress_tokens", 0.0),
    ("begin_suppress_tokens", 0.0),
    ("bad_words_ids", 0.0),
    ("sequence_bias", 0.0),
    // Every id is one, 0 as well.
    ("forced_bos_token_id", f64::NAN),
    ("forced_eos_token_id", f64::NAN),
    ("min_new_tokens", 0.0),
    ("min_length", 0.0),
    ("num_beams", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("repetition_penalty", 1.0),
];

/// What `generation_config.json` asks for and is not done here: answers are then other ones than transformers', which must be said.
fn unapplied(dir: &Path) -> Result<Option<String>> {
    let generation = json_file(dir, "generation_config.json")?;
    let asked = |&&(key, none): &&(&str, f64)| match &generation[key] {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        value => value.as_f64() != Some(none),
    };
    let keys: Vec<&str> = PROCESSORS.iter().filter(asked).map(|(key, _)| *key).collect();
    let text = "generation_config.json has {}, which transformers' generate applies and nothing here does unless an option asks for it";
    Ok((!keys.is_empty()).then(|| text.replace("{}", &keys.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_transformers_would_apply_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let told = |text: &str| {
            std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
            unapplied(dir.path()).unwrap()
        };
        assert_eq!(unapplied(dir.path()).unwrap(), None);
        assert_eq!(
            told(r#"{"do_sample": true, "temperature": 0.6, "repetition_penalty": 1.0, "suppress_tokens": []}"#),
            None
        );
        assert_eq!(told(r#"{"repetition_penalty": 1, "no_repeat_ngram_size": 0, "forced_eos_token_id": null}"#), None);
        assert_eq!(told(r#"{"min_length": 0, "num_beams": 1}"#), None);
        assert!(
            told(r#"{"forced_eos_token_id": 0, "min_length": 3}"#).unwrap().contains("forced_eos_token_id, min_length")
        );
        let why = told(r#"{"repetition_penalty": 1.3, "suppress_tokens": [258883, 258882]}"#).unwrap();
        assert!(why.starts_with("generation_config.json has suppress_tokens, repetition_penalty, which"), "{why}");
    }
}
