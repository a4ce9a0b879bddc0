//! Configurations: `config.json` in its old and new spelling, and the metadata of GGUF files.
//!
//! A missing key is an error, never a default: the defaults of transformers are wrong for these checkpoints.

use std::{fs, path::Path};

use serde_json::{Map, Value};

use crate::{GgufFile, ModelError};

/// The architectures we have, by their names in `config.json` (`model_type`).
pub(crate) const ARCHITECTURES: [&str; 1] = ["llama"];

/// The configuration of a text decoder.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// `LlamaForCausalLM`: SmolLM2 135M, 360M, 1.7B.
    Llama(LlamaConfig),
}

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
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Tokens that end a text, as far as this file says.
    pub eos: Vec<u32>,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// If it cannot be read, lacks a key, or names an architecture we do not have.
    pub fn from_json_file(path: &Path) -> Result<Self, ModelError> {
        let text = fs::read_to_string(path).map_err(|source| ModelError::Read { path: path.into(), source })?;
        let root: Map<String, Value> = serde_json::from_str(&text).map_err(|e| ModelError::Malformed {
            path: path.into(),
            kind: "config.json",
            why: e.to_string(),
        })?;
        let keys = Keys { path, root: &root };
        match keys.text("model_type")? {
            "llama" => Ok(Self::Llama(LlamaConfig::from_keys(&keys)?)),
            other => Err(ModelError::Architecture { path: path.into(), found: other.into() }),
        }
    }

    /// Reads the metadata of a GGUF file.
    ///
    /// # Errors
    /// If it lacks a key or names an architecture we do not have.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        match file.text("general.architecture")? {
            "llama" => Ok(Self::Llama(LlamaConfig::from_gguf(file)?)),
            other => Err(ModelError::Architecture { path: file.path().into(), found: other.into() }),
        }
    }

    /// Tokens that end a text, as far as the configuration says.
    pub fn eos(&self) -> &[u32] {
        match self {
            Self::Llama(config) => &config.eos,
        }
    }
}

impl LlamaConfig {
    fn from_keys(keys: &Keys<'_>) -> Result<Self, ModelError> {
        let heads = keys.size("num_attention_heads")?;
        let hidden_size = keys.size("hidden_size")?;
        keys.only("hidden_act", &Value::from("silu"))?;
        for (key, allowed) in [("attention_bias", false), ("mlp_bias", false), ("rope_interleaved", false)] {
            if keys.root.get(key).is_some_and(|v| !v.is_null()) {
                keys.only(key, &Value::from(allowed))?;
            }
        }
        Self {
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            layers: keys.size("num_hidden_layers")?,
            heads,
            kv_heads: keys.size("num_key_value_heads")?,
            // Absent in older files, where it is hidden_size / num_attention_heads by definition.
            head_dim: if keys.has("head_dim") { keys.size("head_dim")? } else { hidden_size / heads.max(1) },
            vocab_size: keys.size("vocab_size")?,
            context: keys.size("max_position_embeddings")?,
            rms_norm_eps: keys.number("rms_norm_eps")?,
            rope_theta: keys.rope_theta()?,
            tied: keys.flag("tie_word_embeddings")?,
            eos: keys.token_ids("eos_token_id")?,
        }
        .checked(keys.path)
    }

    fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        let (heads, hidden_size) = (file.size("llama.attention.head_count")?, file.size("llama.embedding_length")?);
        let head_dim = file.size("llama.attention.key_length").unwrap_or(hidden_size / heads.max(1));
        let unsupported = |key: &str, found: String, allowed: String| {
            Err(ModelError::Unsupported { path: file.path().into(), key: key.into(), found, allowed })
        };
        if let Ok(rotated) = file.size("llama.rope.dimension_count")
            && rotated != head_dim
        {
            return unsupported("llama.rope.dimension_count", rotated.to_string(), head_dim.to_string());
        }
        if let Ok(scaling) = file.text("llama.rope.scaling.type")
            && scaling != "none"
        {
            return unsupported("llama.rope.scaling.type", scaling.into(), "none".into());
        }
        Self {
            hidden_size,
            intermediate_size: file.size("llama.feed_forward_length")?,
            layers: file.size("llama.block_count")?,
            heads,
            kv_heads: file.size("llama.attention.head_count_kv")?,
            head_dim,
            vocab_size: file.rows("token_embd.weight")?,
            context: file.size("llama.context_length")?,
            rms_norm_eps: file.number("llama.attention.layer_norm_rms_epsilon")?,
            rope_theta: file.number("llama.rope.freq_base")?,
            tied: !file.has("output.weight"),
            eos: file.size("tokenizer.ggml.eos_token_id").map(|id| id as u32).into_iter().collect(),
        }
        .checked(file.path())
    }

    /// Refuses sizes that no checkpoint can have.
    fn checked(self, path: &Path) -> Result<Self, ModelError> {
        let sizes = [self.hidden_size, self.layers, self.heads, self.kv_heads, self.head_dim, self.vocab_size];
        let why = if sizes.contains(&0) {
            "a size is 0".to_string()
        } else if !self.heads.is_multiple_of(self.kv_heads) {
            format!("{} query heads cannot share {} key/value heads", self.heads, self.kv_heads)
        } else if !self.head_dim.is_multiple_of(2) {
            format!("rotary embeddings need an even head_dim, not {}", self.head_dim)
        } else {
            return Ok(self);
        };
        Err(ModelError::Malformed { path: path.into(), kind: "configuration", why })
    }
}

/// Token ids of a configuration: a number, a list, null or absent; `None` if it is anything else.
pub fn token_ids(value: Option<&Value>) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(ids)) => ids.iter().map(id).collect(),
        Some(value) => Some(vec![id(value)?]),
    }
}

/// Keys of a `config.json`, each of them required when asked for.
struct Keys<'a> {
    path: &'a Path,
    root: &'a Map<String, Value>,
}

impl Keys<'_> {
    fn has(&self, key: &str) -> bool {
        self.root.get(key).is_some_and(|v| !v.is_null())
    }

    fn get<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>, kind: &str) -> Result<T, ModelError> {
        let value =
            self.root.get(key).ok_or_else(|| ModelError::MissingKey { path: self.path.into(), key: key.into() })?;
        read(value).ok_or_else(|| self.unsupported(key, value, kind))
    }

    fn unsupported(&self, key: &str, found: &Value, allowed: &str) -> ModelError {
        let (key, found, allowed) = (key.into(), found.to_string(), allowed.into());
        ModelError::Unsupported { path: self.path.into(), key, found, allowed }
    }

    fn size(&self, key: &str) -> Result<usize, ModelError> {
        self.get(key, |v| Some(v.as_u64()? as usize), "a whole number")
    }

    fn number(&self, key: &str) -> Result<f64, ModelError> {
        self.get(key, Value::as_f64, "a number")
    }

    fn token_ids(&self, key: &str) -> Result<Vec<u32>, ModelError> {
        let value = self.root.get(key);
        token_ids(value)
            .ok_or_else(|| self.unsupported(key, value.unwrap_or(&Value::Null), "a token id or a list of them"))
    }

    fn flag(&self, key: &str) -> Result<bool, ModelError> {
        self.get(key, Value::as_bool, "true or false")
    }

    fn text(&self, key: &str) -> Result<&str, ModelError> {
        let value =
            self.root.get(key).ok_or_else(|| ModelError::MissingKey { path: self.path.into(), key: key.into() })?;
        value.as_str().ok_or_else(|| self.unsupported(key, value, "text"))
    }

    fn only(&self, key: &str, allowed: &Value) -> Result<(), ModelError> {
        self.get(key, |v| (v == allowed).then_some(()), &allowed.to_string())
    }

    /// `rope_theta` beside `rope_scaling` in older files, `rope_parameters` in those of transformers 5.
    fn rope_theta(&self) -> Result<f64, ModelError> {
        let Some(Value::Object(rope)) = self.root.get("rope_parameters") else {
            if self.has("rope_scaling") {
                let kind = &self.root["rope_scaling"];
                let name = kind.get("rope_type").or_else(|| kind.get("type")).and_then(Value::as_str);
                if name != Some("default") {
                    return Err(self.unsupported("rope_scaling", kind, "null"));
                }
            }
            return self.number("rope_theta");
        };
        let keys = Keys { path: self.path, root: rope };
        let kind = if keys.has("rope_type") { "rope_type" } else { "type" };
        keys.only(kind, &Value::from("default"))?;
        keys.number("rope_theta")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(edit: impl Fn(&mut Map<String, Value>)) -> Result<LlamaConfig, String> {
        let mut root = serde_json::from_str(
            r#"{"model_type":"llama","hidden_act":"silu","hidden_size":576,"intermediate_size":1536,
                "num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,"vocab_size":49152,
                "max_position_embeddings":8192,"rms_norm_eps":1e-5,"rope_theta":100000,"rope_scaling":null,
                "tie_word_embeddings":true,"eos_token_id":2}"#,
        )
        .unwrap();
        edit(&mut root);
        let keys = Keys { path: Path::new("config.json"), root: &root };
        LlamaConfig::from_keys(&keys).map_err(|e| e.to_string())
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
        assert_eq!(new, Ok(old));
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
