//! `model_type` gemma4 and gemma4_text.

use std::path::Path;

use serde_json::Value;

use super::{Keys, check_all_turn, check_heads, check_sizes, gguf_eos, malformed};
use crate::{GgufFile, ModelError};

/// Sizes and constants of a dense Gemma 4 decoder (transformers `Gemma4TextConfig`).
#[derive(Clone, Debug, PartialEq)]
pub struct Gemma4Config {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads of every layer.
    pub heads: usize,
    /// The layers of the decoder.
    pub layers: Vec<Gemma4Layer>,
    /// Tokens that a sliding layer sees.
    pub window: usize,
    /// Layers from this one on use the keys and values of an earlier layer.
    pub first_shared: usize,
    /// Whether full layers use the raw keys as values and have no value projection (the larger models).
    pub k_eq_v: bool,
    /// Width of each layer's own input embedding and its number of rows; `None` if there is none (the larger models).
    pub per_layer_input: Option<(usize, usize)>,
    /// Logits are `cap * tanh(logit / cap)`.
    pub softcap: Option<f64>,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies of sliding layers.
    pub sliding_theta: f64,
    /// Base of the rotary frequencies of full layers.
    pub full_theta: f64,
    /// How many of a full layer's frequencies are not 0.
    pub full_turning: usize,
    /// Whether the language-model head shares the embedding's weight.
    pub tied: bool,
    /// End-of-text tokens, as far as this file names them.
    pub eos: Vec<u32>,
    /// Tokens that hold the place of images, videos and sounds. Transformers (`Gemma4Model.forward`) reads padding there.
    pub placeholders: Vec<u32>,
}

/// One layer of a Gemma 4 decoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gemma4Layer {
    /// Whether it sees only a window of tokens.
    pub sliding: bool,
    /// Width of a head.
    pub head_dim: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
}

/// Texts of the tokens that hold the place of images, videos and sounds.
const PLACEHOLDERS: [&str; 3] = ["<|image|>", "<|video|>", "<|audio|>"];

/// What a layer may have of its own in `per_layer_config`. Transformers refuses the rest too, so far.
const OF_A_LAYER: [&str; 2] = ["head_dim", "num_key_value_heads"];

impl Gemma4Config {
    /// From the keys of the text decoder, and those around it in a multimodal checkpoint.
    pub(super) fn from_keys(keys: &Keys<'_>, around: Option<&Keys<'_>>) -> Result<Self, ModelError> {
        keys.only("hidden_activation", "gelu_pytorch_tanh")?;
        keys.only_if_there("attention_bias", false)?;
        keys.only("enable_moe_block", false)?;
        if keys.has("use_bidirectional_attention") {
            keys.only("use_bidirectional_attention", "vision")?; // no effect on text
        }
        let rope = keys.nested("rope_parameters")?;
        let (sliding, full) = (rope.nested("sliding_attention")?, rope.nested("full_attention")?);
        sliding.rope_type("default")?;
        full.rope_type("proportional")?;
        if full.has("factor") && full.number("factor")? != 1.0 {
            return Err(full.unsupported("factor", &Value::from(full.number("factor")?), "1"));
        }
        let width = keys.size("hidden_size_per_layer_input")?;
        let per_layer_input = if width > 0 { Some((width, keys.size("vocab_size_per_layer_input")?)) } else { None };
        let layers = Self::layers(keys)?;
        let full_dim = layers.iter().find(|layer| !layer.sliding).map_or(0, |layer| layer.head_dim);
        let full_turning = (full.number("partial_rotary_factor")? * full_dim as f64 / 2.0) as usize;
        let mut placeholders = Vec::new();
        for key in ["image_token_id", "video_token_id", "audio_token_id"] {
            if let Some(around) = around.filter(|around| around.has(key)) {
                placeholders.push(around.size(key)? as u32);
            }
        }
        Self {
            hidden_size: keys.size("hidden_size")?,
            heads: keys.size("num_attention_heads")?,
            first_shared: layers.len().saturating_sub(keys.size("num_kv_shared_layers")?),
            layers,
            window: keys.size("sliding_window")?,
            k_eq_v: keys.flag("attention_k_eq_v")?,
            per_layer_input,
            softcap: keys.number_or_null("final_logit_softcapping")?,
            vocab_size: keys.size("vocab_size")?,
            context: keys.size("max_position_embeddings")?,
            rms_norm_eps: keys.number("rms_norm_eps")?,
            sliding_theta: sliding.number("rope_theta")?,
            full_theta: full.number("rope_theta")?,
            full_turning,
            tied: keys.tied()?,
            eos: keys.eos()?,
            placeholders,
        }
        .checked(keys.path())
    }

    /// The sizes of every layer. Hub files give one `global_head_dim` for all full layers; files saved by transformers have a
    /// `per_layer_config` for each layer.
    fn layers(keys: &Keys<'_>) -> Result<Vec<Gemma4Layer>, ModelError> {
        let count = keys.size("num_hidden_layers")?;
        let first_shared = count.saturating_sub(keys.size("num_kv_shared_layers")?);
        let (head_dim, kv_heads) = (keys.size("head_dim")?, keys.size("num_key_value_heads")?);
        let narrow = keys.size("intermediate_size")?;
        let wide = keys.flag("use_double_wide_mlp")?;
        let own = if keys.has("per_layer_config") { Some(keys.nested("per_layer_config")?) } else { None };
        let k_eq_v = keys.flag("attention_k_eq_v")?;
        let kinds = keys.texts("layer_types")?;
        if kinds.len() != count {
            return Err(malformed(keys.path(), format!("{} layer_types for {count} layers", kinds.len())));
        }
        let layer = |(index, kind): (usize, &str)| {
            let sliding = match kind {
                "sliding_attention" => index + 1 < count, // transformers always makes the last layer a full one
                "full_attention" => false,
                _ => {
                    let allowed = "sliding_attention or full_attention";
                    return Err(keys.unsupported("layer_types", &Value::from(kind), allowed));
                }
            };
            let (mut head_dim, mut kv_heads) = (head_dim, kv_heads);
            // Keys are numbers, padded with zeros if there are more than ten.
            let named = own.as_ref().and_then(|own| own.find(|key| key.parse() == Ok(index)).map(|key| (own, key)));
            match (&own, named) {
                (_, Some((own, key))) => {
                    let own = own.nested(key)?;
                    if let Some(other) = own.find(|key| !OF_A_LAYER.contains(&key)) {
                        return Err(keys.unsupported(
                            "per_layer_config",
                            &Value::from(other),
                            &OF_A_LAYER.join(" and "),
                        ));
                    }
                    head_dim = if own.has("head_dim") { own.size("head_dim")? } else { head_dim };
                    kv_heads = if own.has("num_key_value_heads") { own.size("num_key_value_heads")? } else { kv_heads };
                }
                (None, None) if !sliding => {
                    head_dim = keys.size("global_head_dim")?;
                    let global = "num_global_key_value_heads";
                    kv_heads = if k_eq_v && keys.has(global) { keys.size(global)? } else { kv_heads };
                }
                _ => {}
            }
            let intermediate_size = if wide && index >= first_shared { 2 * narrow } else { narrow };
            Ok(Gemma4Layer { sliding, head_dim, kv_heads, intermediate_size })
        };
        kinds.into_iter().enumerate().map(layer).collect()
    }

    pub(super) fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        let count = file.blocks("gemma4")?;
        let sliding = file.flags("gemma4.attention.sliding_window_pattern")?;
        let widths = file.sizes("gemma4.feed_forward_length", count)?;
        let kv_heads = file.sizes("gemma4.attention.head_count_kv", count)?;
        if sliding.len() != count {
            return Err(malformed(file.path(), format!("{} window flags for {count} layers", sliding.len())));
        }
        let (full_dim, sliding_dim) =
            (file.size("gemma4.attention.key_length")?, file.size("gemma4.attention.key_length_swa")?);
        let layers: Vec<Gemma4Layer> = (0..count)
            .map(|i| Gemma4Layer {
                sliding: sliding[i],
                head_dim: if sliding[i] { sliding_dim } else { full_dim },
                kv_heads: kv_heads[i],
                intermediate_size: widths[i],
            })
            .collect();
        check_all_turn(file, "gemma4.rope.dimension_count", full_dim)?;
        check_all_turn(file, "gemma4.rope.dimension_count_swa", sliding_dim)?;
        // The frequencies that do not rotate have huge divisors.
        let divisors = file.values("rope_freqs.weight")?;
        if divisors.len() != full_dim / 2 {
            let why = format!("rope_freqs.weight has {} values, but must have {}", divisors.len(), full_dim / 2);
            return Err(malformed(file.path(), why));
        }
        let turning = divisors.iter().take_while(|&&divisor| divisor == 1.0).count();
        if let Some(other) = divisors[turning..].iter().find(|&&divisor| divisor < 1e20) {
            return Err(malformed(
                file.path(),
                format!("rope_freqs.weight divides by {other}, not by 1 or by something huge"),
            ));
        }
        let width = file.size("gemma4.embedding_length_per_layer_input")?;
        let full = layers.iter().position(|layer| !layer.sliding).unwrap_or(0);
        Self {
            hidden_size: file.size("gemma4.embedding_length")?,
            heads: file.size("gemma4.attention.head_count")?,
            first_shared: count.saturating_sub(file.size("gemma4.attention.shared_kv_layers")?),
            layers,
            window: file.size("gemma4.attention.sliding_window")?,
            k_eq_v: !file.has(&format!("blk.{full}.attn_v.weight")),
            per_layer_input: if width > 0 { Some((width, file.rows("per_layer_token_embd.weight")?)) } else { None },
            // llama.cpp takes 0 for no cap.
            softcap: file.optional_number("gemma4.final_logit_softcapping")?.filter(|&cap| cap != 0.0),
            vocab_size: file.rows("token_embd.weight")?,
            context: file.size("gemma4.context_length")?,
            rms_norm_eps: file.number("gemma4.attention.layer_norm_rms_epsilon")?,
            sliding_theta: file.number("gemma4.rope.freq_base_swa")?,
            full_theta: file.number("gemma4.rope.freq_base")?,
            full_turning: turning,
            tied: !file.has("output.weight"),
            eos: gguf_eos(file)?,
            placeholders: Self::gguf_placeholders(file)?,
        }
        .checked(file.path())
    }

    /// Tokens that hold the place of images, videos and sounds, which a file names by nothing but their texts.
    fn gguf_placeholders(file: &GgufFile) -> Result<Vec<u32>, ModelError> {
        if !file.has_key("tokenizer.ggml.tokens") {
            return Ok(Vec::new());
        }
        let tokens = file.texts("tokenizer.ggml.tokens")?;
        let places = tokens.iter().enumerate().filter(|(_, token)| PLACEHOLDERS.contains(&token.as_str()));
        Ok(places.map(|(id, _)| id as u32).collect())
    }

    /// The layer whose keys and values a layer reads, if not its own: the last layer of its kind before the shared ones.
    pub fn keys_of(&self, layer: usize) -> Option<usize> {
        let kind = self.layers[layer].sliding;
        let own = (0..self.first_shared.min(layer + 1)).rev().find(|&l| self.layers[l].sliding == kind)?;
        (layer >= self.first_shared).then_some(own)
    }

    fn checked(self, path: &Path) -> Result<Self, ModelError> {
        check_sizes(
            path,
            &[
                ("hidden_size", self.hidden_size),
                ("num_attention_heads", self.heads),
                ("num_hidden_layers", self.layers.len()),
                ("sliding_window", self.window),
                ("vocab_size", self.vocab_size),
                ("max_position_embeddings", self.context),
            ],
        )?;
        // Every layer looks up each token in a table of its own.
        if let Some((_, rows)) = self.per_layer_input.filter(|&(_, rows)| rows < self.vocab_size) {
            let why = format!(
                "its layers have embeddings for {rows} tokens (vocab_size_per_layer_input), but the vocabulary has {}",
                self.vocab_size
            );
            return Err(malformed(path, why));
        }
        // One rotation serves all layers of a kind.
        for sliding in [true, false] {
            let mut of_kind = self.layers.iter().filter(|layer| layer.sliding == sliding).map(|layer| layer.head_dim);
            let first = of_kind.next();
            if let Some(other) = of_kind.find(|dim| Some(*dim) != first) {
                let kind = if sliding { "sliding" } else { "full" };
                let (first, other) = (first.unwrap_or_default(), other);
                let why =
                    format!("{kind} attention layers have heads of {first} and of {other}, but must have one head_dim");
                return Err(malformed(path, why));
            }
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let sizes = [
                ("head_dim", layer.head_dim),
                ("num_key_value_heads", layer.kv_heads),
                ("intermediate_size", layer.intermediate_size),
            ];
            check_sizes(path, &sizes)?;
            check_heads(path, self.heads, layer.kv_heads, layer.head_dim)?;
            if index >= self.first_shared {
                let shared = self.keys_of(index).map(|own| self.layers[own]);
                if shared.is_none_or(|own| (own.head_dim, own.kv_heads) != (layer.head_dim, layer.kv_heads)) {
                    return Err(malformed(path, format!("layer {index} has no earlier layer to share keys with")));
                }
            }
        }
        Ok(self)
    }
}
