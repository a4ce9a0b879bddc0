//! What turns text into tokens and ends a generation, for every kind of checkpoint.

use headtemper_model::{Checkpoint, Config, GgufFile};

use crate::{ChatTemplate, Result, StopSet, TextTokenizer};

/// The text side of a model.
pub(crate) struct Texts {
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) stop: StopSet,
}

impl Texts {
    /// Reads it from a checkpoint. A configuration with random weights has none: its texts are token ids as numbers, and a
    /// generation stops only at its limit.
    pub(crate) fn of(checkpoint: &Checkpoint, config: &Config) -> Result<Self> {
        match checkpoint {
            Checkpoint::Directory(dir) => {
                let tokenizer = TextTokenizer::from_directory(dir)?;
                let stop = StopSet::from_directory(dir, config.eos(), &tokenizer)?;
                Ok(Self { tokenizer, template: ChatTemplate::from_directory(dir)?, stop })
            }
            Checkpoint::Gguf(path) => {
                let file = GgufFile::open(path)?;
                let tokenizer = TextTokenizer::from_gguf(&file)?;
                let stop = StopSet::from_gguf(&file, config.eos(), &tokenizer);
                Ok(Self { tokenizer, template: ChatTemplate::from_gguf(&file)?, stop })
            }
            Checkpoint::Random { config: path, .. } => {
                Ok(Self { tokenizer: TextTokenizer::numbers(path), template: None, stop: StopSet::of([]) })
            }
        }
    }
}
