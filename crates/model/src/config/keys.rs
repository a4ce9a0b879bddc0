//! Keys of a `config.json`, each of them required if it is read.

use std::path::Path;

use serde_json::{Map, Value};

use crate::ModelError;

/// An object of a `config.json`, with its place in the file for error messages.
pub(super) struct Keys<'a> {
    path: &'a Path,
    prefix: String,
    object: &'a Map<String, Value>,
    /// The object around a `text_config`, which may hold keys that the latter leaves out.
    outer: Option<&'a Map<String, Value>>,
}

impl<'a> Keys<'a> {
    pub(super) fn of(path: &'a Path, root: &'a Map<String, Value>) -> Self {
        Self { path, prefix: String::new(), object: root, outer: None }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// The `text_config` of a multimodal checkpoint.
    pub(super) fn text_config(&self) -> Result<Self, ModelError> {
        let text = Self { outer: Some(self.object), ..self.nested("text_config")? };
        text.refuse_unread()?;
        Ok(text)
    }

    /// Refuses keys, of any architecture, that change what a model computes and that we do not read.
    pub(super) fn refuse_unread(&self) -> Result<(), ModelError> {
        self.only_if_there("is_causal", true)?;
        match self.object.get("quantization_config") {
            None | Some(Value::Null) => Ok(()),
            Some(other) => Err(self.unsupported("quantization_config", other, "null")),
        }
    }

    /// An object inside this one.
    pub(super) fn nested(&self, key: &str) -> Result<Self, ModelError> {
        let value = self.value(key)?;
        let object = value.as_object().ok_or_else(|| self.unsupported(key, value, "an object"))?;
        Ok(Self { path: self.path, prefix: format!("{}{key}.", self.prefix), object, outer: None })
    }

    fn value(&self, key: &str) -> Result<&'a Value, ModelError> {
        self.object
            .get(key)
            .ok_or_else(|| ModelError::MissingKey { path: self.path.into(), key: format!("{}{key}", self.prefix) })
    }

    /// The first key that satisfies a predicate.
    pub(super) fn find(&self, is: impl Fn(&str) -> bool) -> Option<&'a str> {
        self.object.keys().map(String::as_str).find(|key| is(key))
    }

    /// Whether a key is there and not null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(|v| !v.is_null())
    }

    fn get<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>, kind: &str) -> Result<T, ModelError> {
        let value = self.value(key)?;
        read(value).ok_or_else(|| self.unsupported(key, value, kind))
    }

    pub(super) fn unsupported(&self, key: &str, found: &Value, allowed: &str) -> ModelError {
        let key = format!("{}{key}", self.prefix);
        ModelError::Unsupported { path: self.path.into(), key, found: found.to_string(), allowed: allowed.into() }
    }

    pub(super) fn size(&self, key: &str) -> Result<usize, ModelError> {
        self.get(key, |v| Some(v.as_u64()? as usize), "a whole number")
    }

    pub(super) fn number(&self, key: &str) -> Result<f64, ModelError> {
        self.get(key, Value::as_f64, "a number")
    }

    /// A number, or `None` for null; the key must be there.
    pub(super) fn number_or_null(&self, key: &str) -> Result<Option<f64>, ModelError> {
        if self.value(key)?.is_null() { Ok(None) } else { Ok(Some(self.number(key)?)) }
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, ModelError> {
        self.get(key, Value::as_bool, "true or false")
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str, ModelError> {
        let value = self.value(key)?;
        value.as_str().ok_or_else(|| self.unsupported(key, value, "text"))
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>, ModelError> {
        let value = self.value(key)?;
        let texts = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.ok_or_else(|| self.unsupported(key, value, "a list of texts"))
    }

    /// Requires the one value we support; the key must be there.
    pub(super) fn only(&self, key: &str, allowed: impl Into<Value>) -> Result<(), ModelError> {
        let allowed = allowed.into();
        self.get(key, |v| (*v == allowed).then_some(()), &allowed.to_string())
    }

    /// Requires the one value we support, if the key is there at all.
    pub(super) fn only_if_there(&self, key: &str, allowed: impl Into<Value>) -> Result<(), ModelError> {
        if self.has(key) { self.only(key, allowed) } else { Ok(()) }
    }

    /// Whether the head shares the embedding's weight; a wrapper's value takes precedence, as in transformers.
    pub(super) fn tied(&self) -> Result<bool, ModelError> {
        match self.outer.and_then(|outer| outer.get("tie_word_embeddings")).and_then(Value::as_bool) {
            Some(tied) => Ok(tied),
            None => self.flag("tie_word_embeddings"),
        }
    }

    /// The end-of-text tokens of this object and of the one around it.
    pub(super) fn eos(&self) -> Result<Vec<u32>, ModelError> {
        let mut all = Vec::new();
        for object in [Some(self.object), self.outer].into_iter().flatten() {
            let value = object.get("eos_token_id");
            let ids = token_ids(value).ok_or_else(|| {
                self.unsupported("eos_token_id", value.unwrap_or(&Value::Null), "a token id or a list of them")
            })?;
            all.extend(ids);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// The object with the rotary settings: `rope_parameters` in files of transformers 5, otherwise this one, whose
    /// `rope_scaling` must then be absent or the default, with no other base than that of the object.
    pub(super) fn rope(&self) -> Result<Self, ModelError> {
        if self.has("rope_scaling") {
            // In transformers it would override `rope_parameters`, and its entries besides the type would matter.
            let scaling = &self.object["rope_scaling"];
            let plain = scaling.as_object().is_some_and(|scaling| {
                scaling.iter().all(|(key, value)| match &**key {
                    "rope_type" | "type" => value == "default",
                    "rope_theta" => value.as_f64() == self.object.get("rope_theta").and_then(Value::as_f64),
                    "mrope_section" | "mrope_interleaved" => true, // no effect on text
                    _ => false,
                })
            });
            if !plain || self.has("rope_parameters") {
                return Err(self.unsupported("rope_scaling", scaling, "null"));
            }
        }
        if self.has("rope_parameters") {
            return self.nested("rope_parameters");
        }
        Ok(Self { path: self.path, prefix: self.prefix.clone(), object: self.object, outer: None })
    }

    /// Base of the rotary frequencies, which must not be scaled.
    pub(super) fn rope_theta(&self) -> Result<f64, ModelError> {
        let rope = self.rope()?;
        if self.has("rope_parameters") {
            rope.rope_type("default")?;
        }
        // Transformers fills in what `rope_parameters` lacks from the object around them.
        let outside = !rope.has("rope_theta") && self.has("rope_theta");
        if outside { self } else { &rope }.number("rope_theta")
    }

    /// Refuses any other `rope_type`, which may be spelled `type`; without either it is the default.
    pub(super) fn rope_type(&self, allowed: &str) -> Result<(), ModelError> {
        match (self.has("rope_type"), self.has("type")) {
            (false, false) if allowed == "default" => Ok(()),
            (false, true) => self.only("type", allowed),
            _ => self.only("rope_type", allowed),
        }
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
