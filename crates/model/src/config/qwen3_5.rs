//! `model_type` qwen3_5 and qwen3_5_text.

use std::path::Path;

use serde_json::Value;

use super::{Keys, check_heads, check_sizes, gguf_eos, malformed};
use crate::{GgufFile, ModelError};

/// Sizes and constants of a dense Qwen3.5 decoder (transformers `Qwen3_5TextConfig`).
#[derive(Clone, Debug, PartialEq)]
pub struct Qwen35Config {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// For each decoder layer, whether it is full attention; the others are gated delta nets.
    pub full: Vec<bool>,
    /// Query heads of full attention.
    pub heads: usize,
    /// Key/value heads of full attention.
    pub kv_heads: usize,
    /// Width of a head of full attention.
    pub head_dim: usize,
    /// Dimensions of a head that are rotated by position; the others pass through.
    pub rotary_dim: usize,
    /// Key heads of a delta net.
    pub key_heads: usize,
    /// Width of a key head.
    pub key_dim: usize,
    /// Value heads of a delta net.
    pub value_heads: usize,
    /// Width of a value head.
    pub value_dim: usize,
    /// Taps of the causal convolution.
    pub kernel: usize,
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

impl Qwen35Config {
    pub(super) fn from_keys(keys: &Keys<'_>) -> Result<Self, ModelError> {
        keys.only("hidden_act", "silu")?;
        keys.only_if_there("attention_bias", false)?;
        keys.only_if_there("attn_output_gate", true)?;
        // `output_gate_type`, which the 27B has ("swish"), is read by nothing in transformers 5.17: attention's gate is a sigmoid and the
        // delta net's a silu, whatever it says.
        let rope = keys.rope()?;
        // Some files put the factor outside `rope_parameters`; it is never missing from both places.
        let factor = if rope.has("partial_rotary_factor") { &rope } else { keys }.number("partial_rotary_factor")?;
        let head_dim = keys.size("head_dim")?;
        Self {
            hidden_size: keys.size("hidden_size")?,
            intermediate_size: keys.size("intermediate_size")?,
            full: Self::layer_kinds(keys)?,
            heads: keys.size("num_attention_heads")?,
            kv_heads: keys.size("num_key_value_heads")?,
            head_dim,
            rotary_dim: (head_dim as f64 * factor) as usize,
            key_heads: keys.size("linear_num_key_heads")?,
            key_dim: keys.size("linear_key_head_dim")?,
            value_heads: keys.size("linear_num_value_heads")?,
            value_dim: keys.size("linear_value_head_dim")?,
            kernel: keys.size("linear_conv_kernel_dim")?,
            vocab_size: keys.size("vocab_size")?,
            context: keys.size("max_position_embeddings")?,
            rms_norm_eps: keys.number("rms_norm_eps")?,
            rope_theta: keys.rope_theta()?,
            tied: keys.tied()?,
            eos: keys.eos()?,
        }
        .checked(keys.path())
    }

    /// `layer_types`, or otherwise every `full_attention_interval`-th layer.
    fn layer_kinds(keys: &Keys<'_>) -> Result<Vec<bool>, ModelError> {
        let layers = keys.size("num_hidden_layers")?;
        if !keys.has("layer_types") {
            let interval = keys.size("full_attention_interval")?.max(1);
            return Ok((1..=layers).map(|layer| layer.is_multiple_of(interval)).collect());
        }
        let kinds = keys.texts("layer_types")?;
        if kinds.len() != layers {
            return Err(malformed(keys.path(), format!("{} layer_types for {layers} layers", kinds.len())));
        }
        kinds
            .into_iter()
            .map(|kind| match kind {
                "full_attention" => Ok(true),
                "linear_attention" => Ok(false),
                _ => Err(keys.unsupported("layer_types", &Value::from(kind), "full_attention or linear_attention")),
            })
            .collect()
    }

    /// Which layers have full attention: newer converters say it block by block, older ones give the interval.
    fn gguf_kinds(file: &GgufFile, layers: usize) -> Result<Vec<bool>, ModelError> {
        let key = "qwen35.attention.recurrent_layers";
        if !file.has_key(key) {
            let interval = file.size("qwen35.full_attention_interval")?.max(1);
            return Ok((1..=layers).map(|layer| layer.is_multiple_of(interval)).collect());
        }
        let recurrent = file.flags(key)?;
        if recurrent.len() < layers {
            return Err(malformed(file.path(), format!("{key} has {} values for {layers} layers", recurrent.len())));
        }
        Ok(recurrent[..layers].iter().map(|recurrent| !recurrent).collect())
    }

    pub(super) fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        // Newer converters append a multi-token prediction block, which is not a decoder layer.
        let (blocks, extra) = (file.blocks("qwen35")?, file.optional_size("qwen35.nextn_predict_layers")?.unwrap_or(0));
        let layers = blocks.saturating_sub(extra);
        let value_heads = file.size("qwen35.ssm.time_step_rank")?;
        Self {
            hidden_size: file.size("qwen35.embedding_length")?,
            intermediate_size: file.size("qwen35.feed_forward_length")?,
            full: Self::gguf_kinds(file, layers)?,
            heads: file.size("qwen35.attention.head_count")?,
            kv_heads: file.size("qwen35.attention.head_count_kv")?,
            head_dim: file.size("qwen35.attention.key_length")?,
            rotary_dim: file.size("qwen35.rope.dimension_count")?,
            key_heads: file.size("qwen35.ssm.group_count")?,
            key_dim: file.size("qwen35.ssm.state_size")?,
            value_heads,
            value_dim: file.size("qwen35.ssm.inner_size")? / value_heads.max(1),
            kernel: file.size("qwen35.ssm.conv_kernel")?,
            vocab_size: file.rows("token_embd.weight")?,
            context: file.size("qwen35.context_length")?,
            rms_norm_eps: file.number("qwen35.attention.layer_norm_rms_epsilon")?,
            rope_theta: file.number("qwen35.rope.freq_base")?,
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
                ("num_hidden_layers", self.full.len()),
                ("num_attention_heads", self.heads),
                ("num_key_value_heads", self.kv_heads),
                ("head_dim", self.head_dim),
                ("the rotary width", self.rotary_dim),
                ("linear_num_key_heads", self.key_heads),
                ("linear_key_head_dim", self.key_dim),
                ("linear_num_value_heads", self.value_heads),
                ("linear_value_head_dim", self.value_dim),
                ("vocab_size", self.vocab_size),
                ("max_position_embeddings", self.context),
            ],
        )?;
        if self.kernel < 2 || self.rotary_dim > self.head_dim {
            let why = format!("{} taps and {} rotary dimensions of {}", self.kernel, self.rotary_dim, self.head_dim);
            return Err(malformed(path, why));
        }
        check_heads(path, self.heads, self.kv_heads, self.rotary_dim)?;
        if !self.value_heads.is_multiple_of(self.key_heads) {
            let why = format!("{} value heads cannot share {} key heads", self.value_heads, self.key_heads);
            return Err(malformed(path, why));
        }
        Ok(self)
    }
}
