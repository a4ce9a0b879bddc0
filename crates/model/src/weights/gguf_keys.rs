//! What a GGUF file's metadata say, each key in the one type that is asked for.

use candle_core::quantized::gguf_file;

use super::GgufFile;
use crate::ModelError;

impl GgufFile {
    fn value(&self, key: &str) -> Result<&gguf_file::Value, ModelError> {
        let missing = || ModelError::MissingKey { path: self.path.clone(), key: key.into() };
        self.content.metadata.get(key).ok_or_else(missing)
    }

    fn wrong<E: std::fmt::Display>(&self, key: &str) -> impl Fn(E) -> ModelError {
        let (path, key) = (self.path.clone(), key.to_string());
        move |e| ModelError::Malformed { path: path.clone(), kind: "GGUF file", why: format!("key '{key}': {e}") }
    }

    /// A string from the metadata.
    ///
    /// # Errors
    /// If the key is missing or not a string.
    pub fn text(&self, key: &str) -> Result<&str, ModelError> {
        Ok(self.value(key)?.to_string().map_err(self.wrong(key))?)
    }

    /// An integer from the metadata, of any width.
    ///
    /// # Errors
    /// If the key is missing or not an integer.
    pub fn size(&self, key: &str) -> Result<usize, ModelError> {
        use gguf_file::Value as V;
        match *self.value(key)? {
            V::U8(v) => Ok(v as usize),
            V::U16(v) => Ok(v as usize),
            V::U32(v) => Ok(v as usize),
            V::U64(v) => Ok(v as usize),
            V::I8(v) if v >= 0 => Ok(v as usize),
            V::I16(v) if v >= 0 => Ok(v as usize),
            V::I32(v) if v >= 0 => Ok(v as usize),
            V::I64(v) if v >= 0 => Ok(v as usize),
            // One value a block, all of them the same.
            V::Array(ref list) => match &self.numbers(key)?[..] {
                [first, rest @ ..] if rest.iter().any(|other| other != first) => {
                    Err(self.wrong(key)("its numbers differ, where one is needed"))
                }
                [first, ..] if *first >= 0 && Some(list.len()) == self.block_count(key) => Ok(*first as usize),
                _ => Err(self.wrong(key)("a list must have a whole number for each block")),
            },
            ref other => Err(self.wrong(key)(format!("{other:?} is not a whole number"))),
        }
    }

    /// The number of blocks of the architecture that a key is of, where that is another key.
    fn block_count(&self, key: &str) -> Option<usize> {
        let blocks = format!("{}.block_count", key.split('.').next()?);
        if blocks == key { None } else { self.size(&blocks).ok() }
    }

    /// The same; `None` if the key is missing.
    ///
    /// # Errors
    /// If it is not an integer.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.has_key(key).then(|| self.size(key)).transpose()
    }

    /// The id of a token from the metadata; `None` if the key is missing.
    ///
    /// # Errors
    /// If it is no id of the vocabulary.
    pub fn token_id(&self, key: &str) -> Result<Option<u32>, ModelError> {
        // The largest u32 stands for none.
        let Some(id) = self.optional_size(key)?.filter(|&id| id != u32::MAX as usize) else { return Ok(None) };
        let vocab = self.rows("token_embd.weight")?;
        if id >= vocab {
            return Err(self.wrong(key)(format!("{id} is no id of the {vocab} tokens")));
        }
        Ok(Some(id as u32))
    }

    /// The number of blocks of an architecture.
    ///
    /// # Errors
    /// If the key is missing, not an integer, or there are more blocks than tensors.
    pub fn blocks(&self, architecture: &str) -> Result<usize, ModelError> {
        let key = format!("{architecture}.block_count");
        let (blocks, tensors) = (self.size(&key)?, self.content.tensor_infos.len());
        if blocks > tensors {
            return Err(self.wrong(&key)(format!("{blocks} blocks cannot be made of {tensors} tensors")));
        }
        Ok(blocks)
    }

    /// A number from the metadata; `None` if the key is missing.
    ///
    /// # Errors
    /// If it is not a number.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.has_key(key).then(|| self.number(key)).transpose()
    }

    /// A number from the metadata.
    ///
    /// # Errors
    /// If the key is missing or not a number.
    pub fn number(&self, key: &str) -> Result<f64, ModelError> {
        match *self.value(key)? {
            gguf_file::Value::F32(v) => Ok(f64::from(v)),
            gguf_file::Value::F64(v) => Ok(v),
            ref other => self
                .size(key)
                .map(|size| size as f64)
                .map_err(|_| self.wrong(key)(format!("{other:?} is not a number"))),
        }
    }

    /// A boolean from the metadata; `None` if the key is missing.
    ///
    /// # Errors
    /// If it is not a boolean.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.content.metadata.get(key).map(|v| v.to_bool().map_err(self.wrong(key))).transpose()
    }

    /// Whether the metadata have a key.
    pub fn has_key(&self, key: &str) -> bool {
        self.content.metadata.contains_key(key)
    }

    /// A list of strings from the metadata.
    ///
    /// # Errors
    /// If the key is missing or not a list of strings.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, ModelError> {
        let list = self.value(key)?.to_vec().map_err(self.wrong(key))?;
        list.iter().map(|v| v.to_string().cloned().map_err(self.wrong(key))).collect()
    }

    /// A list of integers from the metadata.
    ///
    /// # Errors
    /// If the key is missing or not a list of integers.
    pub fn numbers(&self, key: &str) -> Result<Vec<i64>, ModelError> {
        use gguf_file::Value as V;
        // Candle's conversions are not tried in turn: a failed one is slow, and a vocabulary has a type for every token.
        let number = |v: &V| match *v {
            V::I64(v) => Ok(v),
            V::I32(v) => Ok(i64::from(v)),
            V::U32(v) => Ok(i64::from(v)),
            V::I16(v) => Ok(i64::from(v)),
            V::U16(v) => Ok(i64::from(v)),
            V::I8(v) => Ok(i64::from(v)),
            V::U8(v) => Ok(i64::from(v)),
            ref other => Err(self.wrong(key)(format!("{other:?} is not a whole number"))),
        };
        self.value(key)?.to_vec().map_err(self.wrong(key))?.iter().map(number).collect()
    }

    /// A list of booleans from the metadata.
    ///
    /// # Errors
    /// If the key is missing or not a list of booleans.
    pub fn flags(&self, key: &str) -> Result<Vec<bool>, ModelError> {
        let list = self.value(key)?.to_vec().map_err(self.wrong(key))?;
        list.iter().map(|v| v.to_bool().map_err(self.wrong(key))).collect()
    }

    /// Integers from the metadata, one for each of `count` layers; a single one stands for all.
    ///
    /// # Errors
    /// If the key is missing, or its list has another length.
    pub fn sizes(&self, key: &str, count: usize) -> Result<Vec<usize>, ModelError> {
        if !matches!(self.value(key)?, gguf_file::Value::Array(_)) {
            return Ok(vec![self.size(key)?; count]);
        }
        let sizes: Option<Vec<usize>> = self.numbers(key)?.iter().map(|&n| usize::try_from(n).ok()).collect();
        sizes
            .filter(|sizes| sizes.len() == count)
            .ok_or_else(|| self.wrong(key)(format!("needs {count} whole numbers, one a layer")))
    }

    /// Refuses metadata keys that change what a model computes and that we do not read.
    ///
    /// # Errors
    /// Names the key, its value and the value that would be allowed.
    pub(crate) fn refuse_unread(&self, architecture: &str) -> Result<(), ModelError> {
        use gguf_file::Value as V;
        self.refuse_scaled_positions(architecture)?;
        for (key, allowed) in [
            ("rope.scaling.attn_factor", "1"),
            ("rope.scale_linear", "1"),
            ("attention.causal", "true"),
            ("attention.scale", "nothing"),
            ("logit_scale", "nothing"),
            ("expert_count", "0"),
        ] {
            let key = format!("{architecture}.{key}");
            let Some(value) = self.content.metadata.get(&key) else { continue };
            let found = match value {
                V::String(text) => text.clone(),
                V::Bool(flag) => flag.to_string(),
                V::F32(number) => number.to_string(),
                _ => self.size(&key).map_or_else(|_| format!("{value:?}"), |size| size.to_string()),
            };
            if found != allowed {
                let (path, allowed) = (self.path.clone(), allowed.into());
                return Err(ModelError::Unsupported { path, key, found, allowed });
            }
        }
        Ok(())
    }

    /// Refuses rotary scaling. Without a type it is linear, and without a factor, or with 0, it changes nothing, as in llama.cpp.
    fn refuse_scaled_positions(&self, architecture: &str) -> Result<(), ModelError> {
        let [kind_key, factor_key] = ["type", "factor"].map(|key| format!("{architecture}.rope.scaling.{key}"));
        let kind = if self.has_key(&kind_key) { self.text(&kind_key)? } else { "linear" };
        let factor = self.optional_number(&factor_key)?.filter(|&factor| factor != 0.0).unwrap_or(1.0);
        let refused = |key, found, allowed: &str| {
            Err(ModelError::Unsupported { path: self.path.clone(), key, found, allowed: allowed.into() })
        };
        match (kind, factor) {
            ("none", _) | ("linear", 1.0) => Ok(()),
            ("linear", factor) => refused(factor_key, factor.to_string(), "1"),
            (other, _) => refused(kind_key, other.into(), "none"),
        }
    }
}
