//! `model_type` qwen3.

use std::path::Path;

use serde_json::Value;

use super::{Keys, check_all_turn, check_heads, check_sizes, gguf_eos, malformed};
use crate::{GgufFile, ModelError};

/// Sizes and constants of a dense Qwen3 decoder (transformers `Qwen3Config`).
#[derive(Clone, Debug, PartialEq)]
pub struct Qwen3Config {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a head; not `hidden_size / heads`.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether the language-model head shares the embedding's weight.
    pub tied: bool,
    /// End-of-text tokens, as far as this file names them.
    pub eos: Vec<u32>,
}

impl Qwen3Config {
    pub(super) fn from_keys(keys: &Keys<'_>) -> Result<Self, ModelError> {
        keys.only("hidden_act", "silu")?;
        keys.only_if_there("attention_bias", false)?;
        keys.only_if_there("use_sliding_window", false)?;
        if keys.has("layer_types") {
            let kinds = keys.texts("layer_types")?;
            if kinds.len() != keys.size("num_hidden_layers")? {
                return Err(malformed(
                    keys.path(),
                    format!("{} layer_types for another number of layers", kinds.len()),
                ));
            }
            if let Some(other) = kinds.iter().find(|kind| **kind != "full_attention") {
                return Err(keys.unsupported("layer_types", &Value::from(*other), "full_attention"));
            }
        }
        Self {
            hidden_size: keys.size("hidden_size")?,
            intermediate_size: keys.size("intermediate_size")?,
            layers: keys.size("num_hidden_layers")?,
            heads: keys.size("num_attention_heads")?,
            kv_heads: keys.size("num_key_value_heads")?,
            head_dim: keys.size("head_dim")?,
            vocab_size: keys.size("vocab_size")?,
            context: keys.size("max_position_embeddings")?,
            rms_norm_eps: keys.number("rms_norm_eps")?,
            rope_theta: keys.rope_theta()?,
            tied: keys.tied()?,
            eos: keys.eos()?,
        }
        .checked(keys.path())
    }

    pub(super) fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        let head_dim = file.size("qwen3.attention.key_length")?;
        check_all_turn(file, "qwen3.rope.dimension_count", head_dim)?;
        Self {
            hidden_size: file.size("qwen3.embedding_length")?,
            intermediate_size: file.size("qwen3.feed_forward_length")?,
            layers: file.blocks("qwen3")?,
            heads: file.size("qwen3.attention.head_count")?,
            kv_heads: file.size("qwen3.attention.head_count_kv")?,
            head_dim,
            vocab_size: file.rows("token_embd.weight")?,
            context: file.size("qwen3.context_length")?,
            rms_norm_eps: file.number("qwen3.attention.layer_norm_rms_epsilon")?,
            rope_theta: file.number("qwen3.rope.freq_base")?,
            tied: !file.has("output.weight"),
            eos: gguf_eos(file)?,
        }
        .checked(file.path())
    }

    fn checked(self, path: &Path) -> Result<Self, ModelError> {
        check_sizes(
            path,
            &[
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("num_hidden_layers", self.layers),
                ("num_attention_heads", self.heads),
                ("num_key_value_heads", self.kv_heads),
                ("head_dim", self.head_dim),
                ("vocab_size", self.vocab_size),
                ("max_position_embeddings", self.context),
            ],
        )?;
        check_heads(path, self.heads, self.kv_heads, self.head_dim)?;
        Ok(self)
    }
}
