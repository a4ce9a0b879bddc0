//! Chat templates, rendered as transformers renders them. A template that fails is an error, never a fallback.

use std::path::{Path, PathBuf};

use headtemper_model::GgufFile;
use minijinja::{Environment, ErrorKind, context, syntax::SyntaxConfig, value::Serde};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{EngineError, Result, identity::sha256_text};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A user's turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }
}

/// A model's own chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    hash: String,
    bos: String,
    eos: String,
    path: PathBuf,
}

impl ChatTemplate {
    /// The template of a model directory: `chat_template.jinja`, else the key of `tokenizer_config.json`, else
    /// `chat_template.json`; `None` if there is none.
    ///
    /// # Errors
    /// If a file is malformed or the template does not parse.
    pub fn from_directory(dir: &Path) -> Result<Option<Self>> {
        let config = json_file(dir, "tokenizer_config.json")?;
        let jinja = dir.join("chat_template.jinja");
        let source = if jinja.exists() {
            let text = std::fs::read_to_string(&jinja)
                .map_err(|e| EngineError::Template { path: dir.into(), why: e.to_string() })?;
            Some(text)
        } else {
            match template_text(&config["chat_template"]) {
                Some(text) => Some(text),
                None => template_text(&json_file(dir, "chat_template.json")?["chat_template"]),
            }
        };
        let special = |key: &str| token_text(&config[key]).unwrap_or_default();
        source.map(|text| Self::new(text, special("bos_token"), special("eos_token"), dir)).transpose()
    }

    /// The template in a GGUF file's metadata; `None` if there is none.
    ///
    /// # Errors
    /// If the template does not parse.
    pub fn from_gguf(file: &GgufFile) -> Result<Option<Self>> {
        let Ok(source) = file.text("tokenizer.chat_template") else { return Ok(None) };
        let tokens = file.texts("tokenizer.ggml.tokens")?;
        let special = |key: &str| file.size(key).ok().and_then(|id| tokens.get(id).cloned()).unwrap_or_default();
        let (bos, eos) = (special("tokenizer.ggml.bos_token_id"), special("tokenizer.ggml.eos_token_id"));
        Self::new(source.into(), bos, eos, file.path()).map(Some)
    }

    fn new(source: String, bos: String, eos: String, path: &Path) -> Result<Self> {
        let hash = sha256_text(&source);
        let mut environment = Environment::new();
        // As transformers sets up jinja2.
        let whitespace = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(whitespace.expect("the delimiters are the usual ones"));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> std::result::Result<(), minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .add_template_owned("chat", source.clone())
            .map_err(|e| EngineError::Template { path: path.into(), why: explain(&e) })?;
        Ok(Self { environment, source, hash, bos, eos, path: path.into() })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// SHA-256 of the template's text.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The prompt of a conversation, ending where the assistant's answer begins.
    ///
    /// # Errors
    /// If the template refuses the conversation, or uses what minijinja does not have.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        let fail = |e: minijinja::Error| EngineError::Template { path: self.path.clone(), why: explain(&e) };
        let template = self.environment.get_template("chat").map_err(fail)?;
        let values = context! {
            messages => minijinja::Value::from(Serde(messages)),
            add_generation_prompt => true,
            bos_token => &self.bos,
            eos_token => &self.eos,
        };
        template.render(values).map_err(fail)
    }
}

/// A template stands as text, or in a list of named ones of which `default` is ours.
fn template_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            list.iter().find(|entry| entry["name"] == "default")?["template"].as_str().map(String::from)
        }
        _ => None,
    }
}

/// A special token stands as text, or as an object with its content.
pub(crate) fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(String::from)
}

/// A JSON file of a directory; `null` if it is absent.
pub(crate) fn json_file(dir: &Path, name: &str) -> Result<Value> {
    let path = dir.join(name);
    if !path.exists() {
        return Ok(Value::Null);
    }
    let fail = |why: String| EngineError::Tokenizer { path: dir.into(), why: format!("{name}: {why}") };
    let text = std::fs::read_to_string(&path).map_err(|e| fail(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| fail(e.to_string()))
}

fn explain(error: &minijinja::Error) -> String {
    let at = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    format!("{}{at}", error.detail().map_or_else(|| error.to_string(), String::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> std::result::Result<String, String> {
        ChatTemplate::new(source.into(), "<s>".into(), "</s>".into(), Path::new("m"))
            .and_then(|t| t.render(&[Message::user(" Hi ")]))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn templates_of_python_run() {
        assert_eq!(render("{{ bos_token }}{{ messages[0]['content'].strip() }}"), Ok("<s>Hi".into()));
        let blocks =
            "{% for m in messages %}\n{% if m.role.startswith('u') %}\n[{{ m.role|upper }}]\n{% endif %}\n{% endfor %}";
        assert_eq!(render(blocks), Ok("[USER]\n".into()));
        assert_eq!(render("{%- if add_generation_prompt %}>{% endif %}{{ undefined_name }}"), Ok(">".into()));
    }

    #[test]
    fn a_template_that_fails_is_an_error() {
        let message = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(message.contains("roles must alternate"), "{message}");
        assert!(render("{{ messages[0].content.no_such_method() }}").is_err());
        assert!(render("{% if %}").unwrap_err().contains("chat template of m"));
    }
}
