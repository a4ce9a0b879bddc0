//! Accounting: every requested tensor must exist with the right shape, and every other tensor must be known to be unused.

use super::{Source, Weights};
use crate::ModelError;

/// Where the text decoder's tensors may be in a file: in a causal model, where multimodal checkpoints wrap it, and where a base model
/// without its head was saved, wrapped or not.
pub(super) const PREFIXES: [&str; 5] =
    ["model.", "model.language_model.", "language_model.model.", "language_model.", ""];

impl Weights {
    /// The name that a tensor has in the file.
    pub(super) fn stored_name(&self, name: &str) -> String {
        match (&self.source, name.strip_prefix(PREFIXES[0])) {
            (Source::Safetensors(_), Some(rest)) => format!("{}{rest}", self.prefix),
            (Source::Gguf(file), _) => file.stored_name(name),
            _ => name.to_string(),
        }
    }

    /// Accounts for a tensor: it must exist with this shape.
    pub(super) fn expect(&mut self, name: &str, shape: &[usize]) -> Result<(), ModelError> {
        let stored = self.stored_name(name);
        let found = match &self.source {
            Source::Safetensors(shards) => shards.shape(&stored),
            Source::Gguf(file) => file.shape(name, &stored),
            Source::Random(_) | Source::None => Some(shape.to_vec()),
        };
        let Some(found) = found else {
            return Err(ModelError::MissingTensor { path: self.path.clone(), name: stored });
        };
        if found != shape {
            return Err(ModelError::Shape { name: stored, found, expected: shape.to_vec() });
        }
        if let Source::Safetensors(shards) = &self.source {
            shards.readable(&stored)?;
        }
        self.taken.insert(stored);
        self.parameters += shape.iter().product::<usize>();
        Ok(())
    }

    /// Ends loading: every remaining tensor must be known to be unused. Returns how many parameters were taken.
    ///
    /// `unused` is called with names as the text decoder has them, under `model.`.
    ///
    /// # Errors
    /// Names tensors that nobody requested: the checkpoint is then a variant we would compute incorrectly.
    pub fn finish(&mut self, unused: impl Fn(&str) -> bool) -> Result<usize, ModelError> {
        let left: Vec<String> = match &self.source {
            Source::Safetensors(shards) => {
                let text_name = |name: &str| match name.strip_prefix(self.prefix) {
                    Some(rest) => format!("{}{rest}", PREFIXES[0]),
                    None => name.to_string(),
                };
                let known = |name: &str| unused(name) || unused(&text_name(name));
                shards.names().into_iter().filter(|n| !self.taken.contains(n) && !known(n)).collect()
            }
            Source::Gguf(file) => {
                let known = |name: &str| file.is_extra(name) || unused(&file.text_name(name));
                file.names().into_iter().filter(|n| !self.taken.contains(n) && !known(n)).collect()
            }
            Source::Random(_) | Source::None => Vec::new(),
        };
        if left.is_empty() {
            return Ok(self.parameters);
        }
        let more = left.len().saturating_sub(5);
        let mut names: Vec<String> = left.into_iter().take(5).collect();
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        Err(ModelError::UnknownTensors { path: self.path.clone(), names })
    }
}

/// The name that a causal model of text has for a tensor in a layer of its decoder, wherever a safetensors file has it; none for others.
pub(crate) fn name_in_layer(stored: &str) -> Option<String> {
    let of_layer = |prefix| stored.strip_prefix(prefix).filter(|rest| rest.starts_with("layers."));
    PREFIXES.into_iter().find_map(of_layer).map(|rest| format!("{}{rest}", PREFIXES[0]))
}
