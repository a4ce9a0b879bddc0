//! `model_type` llama.

use std::path::Path;

use super::{Keys, check_all_turn, check_heads, check_sizes, gguf_eos};
use crate::{GgufFile, ModelError};

/// Sizes and constants of a Llama decoder (transformers `LlamaConfig`).
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
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
    /// Width of a head.
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

impl LlamaConfig {
    pub(super) fn from_keys(keys: &Keys<'_>) -> Result<Self, ModelError> {
        let heads = keys.size("num_attention_heads")?;
        let hidden_size = keys.size("hidden_size")?;
        keys.only("hidden_act", "silu")?;
        for key in ["attention_bias", "mlp_bias", "rope_interleaved"] {
            keys.only_if_there(key, false)?;
        }
        Self {
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            layers: keys.size("num_hidden_layers")?,
            heads,
            kv_heads: keys.size("num_key_value_heads")?,
            // Missing in older files, where it is hidden_size / num_attention_heads by definition.
            head_dim: if keys.has("head_dim") { keys.size("head_dim")? } else { hidden_size / heads.max(1) },
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
        let (heads, hidden_size) = (file.size("llama.attention.head_count")?, file.size("llama.embedding_length")?);
        let head_dim = file.optional_size("llama.attention.key_length")?.unwrap_or(hidden_size / heads.max(1));
        check_all_turn(file, "llama.rope.dimension_count", head_dim)?;
        Self {
            hidden_size,
            intermediate_size: file.size("llama.feed_forward_length")?,
            layers: file.blocks("llama")?,
            heads,
            kv_heads: file.size("llama.attention.head_count_kv")?,
            head_dim,
            vocab_size: file.rows("token_embd.weight")?,
            context: file.size("llama.context_length")?,
            rms_norm_eps: file.number("llama.attention.layer_norm_rms_epsilon")?,
            rope_theta: file.number("llama.rope.freq_base")?,
            tied: !file.has("output.weight"),
            eos: gguf_eos(file)?,
        }
        .checked(file.path())
    }

    /// Refuses sizes that no checkpoint can have.
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

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    fn parse(edit: impl Fn(&mut Map<String, Value>)) -> Result<LlamaConfig, String> {
        let mut root: Map<String, Value> = serde_json::from_str(
            r#"{"model_type":"llama","hidden_act":"silu","hidden_size":576,"intermediate_size":1536,
                "num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,"vocab_size":49152,
                "max_position_embeddings":8192,"rms_norm_eps":1e-5,"rope_theta":100000,"rope_scaling":null,
                "tie_word_embeddings":true,"eos_token_id":2}"#,
        )
        .unwrap();
        edit(&mut root);
        LlamaConfig::from_keys(&Keys::of(Path::new("config.json"), &root)).map_err(|e| e.to_string())
    }

    #[test]
    fn both_spellings_are_one_configuration() {
        let old = parse(|_| ()).unwrap();
        assert_eq!((old.head_dim, old.rope_theta, &old.eos[..]), (64, 100_000.0, &[2][..]));
        let new = parse(|root| {
            root.remove("rope_theta");
            root.remove("rope_scaling");
            root.insert("head_dim".into(), 64.into());
            root.insert("rope_parameters".into(), serde_json::json!({"rope_type": "default", "rope_theta": 1e5}));
        });
        assert_eq!(new, Ok(old.clone()));
        // Less is said, and means the same.
        let theta = serde_json::json!({"rope_theta": 1e5});
        let with = |parameters: &Value, outside: bool| {
            parse(|root| {
                root.remove("rope_scaling");
                if !outside {
                    root.remove("rope_theta");
                }
                root.insert("rope_parameters".into(), parameters.clone());
            })
        };
        assert_eq!(with(&theta, false), Ok(old.clone()));
        assert_eq!(with(&serde_json::json!({"rope_type": "default"}), true), Ok(old.clone()));
        assert!(
            with(&serde_json::json!({"rope_type": "default"}), false)
                .unwrap_err()
                .contains("no key 'rope_parameters.rope_theta'")
        );
        assert!(with(&serde_json::json!({"rope_theta": 1e5, "rope_type": "yarn"}), false).is_err());
        let scaling = |theta: f64| {
            let scaling = serde_json::json!({"rope_type": "default", "rope_theta": theta});
            parse(|root| drop(root.insert("rope_scaling".into(), scaling.clone())))
        };
        assert_eq!(scaling(1e5), Ok(old));
        assert!(scaling(2e5).is_err());
    }

    #[test]
    fn a_missing_key_is_an_error_and_so_is_one_we_cannot_honour() {
        for key in ["rope_theta", "rms_norm_eps", "tie_word_embeddings", "num_key_value_heads", "hidden_act"] {
            let message = parse(|root| drop(root.remove(key))).unwrap_err();
            assert_eq!(message, format!("config.json has no key '{key}'"));
        }
        let message = parse(|root| drop(root.insert("hidden_act".into(), "gelu".into()))).unwrap_err();
        assert_eq!(message, "config.json: hidden_act is \"gelu\", but only \"silu\" is supported");
        let llama3 = serde_json::json!({"rope_type": "llama3", "factor": 8.0});
        assert!(parse(|root| drop(root.insert("rope_scaling".into(), llama3.clone()))).is_err());
        assert!(parse(|root| drop(root.insert("num_key_value_heads".into(), 4.into()))).is_err());
        assert!(parse(|root| drop(root.insert("attention_bias".into(), true.into()))).is_err());
    }
}
