//! Chat templates, rendered as transformers renders them. A template that fails is an error, never a fallback.

mod json;
mod python;

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
};

use headtemper_model::GgufFile;
use minijinja::{Environment, value::Serde};
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
    special: Special,
    path: PathBuf,
}

/// The special tokens that a template may name, such as `bos_token`. Those that a model lacks are undefined.
type Special = BTreeMap<&'static str, String>;

/// Keys of `tokenizer_config.json`, which are also the names in a template, and the GGUF keys that hold their ids.
const SPECIAL: [(&str, &str); 7] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("cls_token", "tokenizer.ggml.cls_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// The variable by which templates ask whether the model should think before it answers.
const SWITCH: &str = "enable_thinking";

impl ChatTemplate {
    /// The template of a model directory: `chat_template.jinja`, else the key of `tokenizer_config.json`, else
    /// `chat_template.json`; `None` if there is none.
    ///
    /// # Errors
    /// If a file is malformed or the template does not parse.
    pub fn from_directory(dir: &Path) -> Result<Option<Self>> {
        let config = tokenizer_config(dir)?;
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
        let special = SPECIAL.iter().filter_map(|&(name, _)| Some((name, token_text(&config[name])?))).collect();
        source.map(|text| Self::new(text, special, dir)).transpose()
    }

    /// The template in a GGUF file's metadata; `None` if there is none.
    ///
    /// # Errors
    /// If the template does not parse.
    pub fn from_gguf(file: &GgufFile) -> Result<Option<Self>> {
        let Ok(source) = file.text("tokenizer.chat_template") else { return Ok(None) };
        let tokens = file.texts("tokenizer.ggml.tokens")?;
        let token = |key: &str| file.size(key).ok().and_then(|id| tokens.get(id).cloned());
        let special = SPECIAL.iter().filter_map(|&(name, key)| Some((name, token(key)?))).collect();
        Self::new(source.into(), special, file.path()).map(Some)
    }

    fn new(source: String, special: Special, path: &Path) -> Result<Self> {
        let hash = sha256_text(&source);
        let mut environment = python::environment();
        environment
            .add_template_owned("chat", python::without_generation(&source).into_owned())
            .map_err(|e| EngineError::Template { path: path.into(), why: explain(&e) })?;
        Ok(Self { environment, source, hash, special, path: path.into() })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// SHA-256 of the template's text.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Whether the template has a switch for thinking before the answer.
    pub fn has_thinking_switch(&self) -> bool {
        self.source.contains(SWITCH)
    }

    /// Refuses a request for thinking that the template cannot express.
    ///
    /// # Errors
    /// If thinking is wanted and there is no switch for it. Without a switch, thinking is off anyway, or [`Self::render`] refuses.
    pub fn check_thinking(&self, thinking: Option<bool>) -> Result<()> {
        if thinking != Some(true) || self.has_thinking_switch() {
            return Ok(());
        }
        let why = format!("it has no thinking switch ('{SWITCH}'), so thinking must be off or left to the template");
        Err(EngineError::Template { path: self.path.clone(), why })
    }

    /// The prompt of a conversation, ending where the assistant's answer begins. `thinking` tells the template whether the
    /// model thinks first; with `None` its own default holds, which differs even between sizes of one model.
    ///
    /// # Errors
    /// If the template refuses the conversation, uses a feature that minijinja lacks, has no switch for the thinking that is wanted, or
    /// opens a thought although none is wanted.
    pub fn render(&self, messages: &[Message], thinking: Option<bool>) -> Result<String> {
        self.check_thinking(thinking)?;
        let wrong = |why: String| EngineError::Template { path: self.path.clone(), why };
        if messages.is_empty() {
            return Err(wrong("it is given no message, but must be given at least one".into()));
        }
        let fail = |e: minijinja::Error| wrong(explain(&e));
        let template = self.environment.get_template("chat").map_err(fail)?;
        let mut values: BTreeMap<&str, minijinja::Value> =
            self.special.iter().map(|(&name, token)| (name, token.into())).collect();
        values.insert("messages", Serde(messages).into());
        values.insert("add_generation_prompt", true.into());
        // Defined as none, as transformers passes them.
        values.insert("tools", ().into());
        values.insert("documents", ().into());
        values.extend(thinking.map(|on| (SWITCH, on.into())));
        // A template that reverses an empty list makes minijinja 3.0.5 panic: treat that as a failed template too.
        let text = std::panic::catch_unwind(AssertUnwindSafe(|| template.render(values)))
            .map_err(|_| wrong("minijinja panicked".into()))?
            .map_err(fail)?;
        if thinking == Some(false) && opens_thought(&text) {
            return Err(wrong("it opens a thought whatever it is told, so thinking cannot be off".into()));
        }
        Ok(text)
    }

    /// Like [`Self::render`], but refuses a message that the template leaves out, as those of roles that it does not know: answers without it
    /// would pass for answers to it. What the assistant said may be told otherwise, without its thoughts.
    ///
    /// # Errors
    /// As [`Self::render`], and if the prompt does not hold a message of another than the assistant.
    pub(crate) fn render_whole(&self, messages: &[Message], thinking: Option<bool>) -> Result<String> {
        let text = self.render(messages, thinking)?;
        // A template may write a message otherwise, as the result of a tool in JSON; and one that it leaves out may stand there by chance.
        let seen = |at: usize, message: &Message| match message.role.as_str() {
            "assistant" => true,
            "user" | "system" if text.contains(message.content.trim()) => true,
            _ => self.writes(messages, at, thinking),
        };
        match messages.iter().enumerate().position(|(at, message)| !seen(at, message)) {
            None => Ok(text),
            Some(at) => {
                let role = &messages[at].role;
                let why = format!("it leaves message {at} out (role '{role}'), which the model would not see");
                Err(EngineError::Template { path: self.path.clone(), why })
            }
        }
    }

    /// Whether the content of a message is in the prompt: another one of its own would be.
    fn writes(&self, messages: &[Message], at: usize, thinking: Option<bool>) -> bool {
        const MARK: &str = "x7Qk2vZp9m";
        let mut marked = messages.to_vec();
        marked[at].content = MARK.into();
        self.render(&marked, thinking).is_ok_and(|text| text.contains(MARK))
    }
}

/// What opens a thought and what ends it: in answers of Qwen3 and Qwen3.5, and of Gemma 4.
pub const THOUGHTS: [(&str, &str); 2] = [("<think>", "</think>"), ("<|channel>", "<channel|>")];

/// Whether a prompt ends within a thought, which the answer then goes on with.
pub fn opens_thought(prompt: &str) -> bool {
    THOUGHTS.iter().any(|(start, _)| prompt.trim_end().ends_with(start))
}

/// The text of a template: either a plain string, or the one named `default` in a list of named templates.
fn template_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            list.iter().find(|entry| entry["name"] == "default")?["template"].as_str().map(String::from)
        }
        _ => None,
    }
}

/// The text of a special token: either a plain string, or the content of an object.
pub(crate) fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(String::from)
}

/// `tokenizer_config.json` of a directory. One that lists no added tokens is of the time when special tokens stood in a file of their
/// own, which transformers lets decide then (`PreTrainedTokenizerBase._from_pretrained`).
pub(crate) fn tokenizer_config(dir: &Path) -> Result<Value> {
    let mut config = json_file(dir, "tokenizer_config.json")?;
    if !config["added_tokens_decoder"].is_null() {
        return Ok(config);
    }
    if let Value::Object(map) = json_file(dir, "special_tokens_map.json")? {
        for (name, token) in map {
            config[name] = token;
        }
    }
    Ok(config)
}

/// A JSON file of a directory, an object; `null` if it is absent.
pub(crate) fn json_file(dir: &Path, name: &str) -> Result<Value> {
    let path = dir.join(name);
    if !path.exists() {
        return Ok(Value::Null);
    }
    let fail = |why: String| EngineError::Tokenizer { path: dir.into(), why: format!("{name}: {why}") };
    let text = std::fs::read_to_string(&path).map_err(|e| fail(e.to_string()))?;
    match serde_json::from_str(&text).map_err(|e| fail(e.to_string()))? {
        object @ Value::Object(_) => Ok(object),
        _ => Err(fail("it is not a JSON object".into())),
    }
}

fn explain(error: &minijinja::Error) -> String {
    let at = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    format!("{}{at}", error.detail().map_or_else(|| error.to_string(), String::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_of_older_checkpoints_stand_in_a_file_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let bos = || token_text(&tokenizer_config(dir.path()).unwrap()["bos_token"]);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(bos(), None);
        write("special_tokens_map.json", r#"{"bos_token": {"content": "<s>"}}"#);
        assert_eq!(bos().as_deref(), Some("<s>"), "without any other file");
        write("tokenizer_config.json", r#"{"bos_token": "<b>"}"#);
        assert_eq!(bos().as_deref(), Some("<s>"), "it decides, as in transformers");
        write("tokenizer_config.json", r#"{"bos_token": "<b>", "added_tokens_decoder": {}}"#);
        assert_eq!(bos().as_deref(), Some("<b>"), "a newer one has them all");
    }

    fn render(source: &str) -> std::result::Result<String, String> {
        think(source, None)
    }

    fn think(source: &str, thinking: Option<bool>) -> std::result::Result<String, String> {
        ChatTemplate::new(source.into(), Special::from([("bos_token", "<s>".into())]), Path::new("m"))
            .and_then(|t| t.render(&[Message::user(" Hi ")], thinking))
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
    fn a_system_message_that_the_template_leaves_out_is_an_error() {
        let under = |source: &str| {
            let system = Message { role: "system".into(), content: " Be brief. ".into() };
            ChatTemplate::new(source.into(), Special::default(), Path::new("m"))
                .and_then(|t| t.render_whole(&[system, Message::user("Hi")], None))
                .map_err(|e| e.to_string())
        };
        let all = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}";
        assert_eq!(under(all), Ok("[Be brief.][Hi]".into()));
        let why = under("{{ messages[-1].content }}").unwrap_err();
        assert!(why.contains("it leaves message 0 out (role 'system')"), "{why}");
        // A role that nobody knows, as a typo is.
        let roles =
            "{% for m in messages %}{% if m.role in ['user', 'system'] %}[{{ m.content }}]{% endif %}{% endfor %}";
        let of = |role: &str| {
            let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
            ChatTemplate::new(roles.into(), Special::default(), Path::new("m"))
                .and_then(|t| t.render_whole(&[message("user", "Hi"), message(role, "Who?")], None))
                .map_err(|e| e.to_string())
        };
        assert_eq!(of("assistant"), Ok("[Hi]".into()), "a template may tell what it said otherwise");
        assert!(of("human").unwrap_err().contains("it leaves message 1 out (role 'human')"));
        let of_tool = |content: &str, template: &str| {
            let tool = Message { role: "tool".into(), content: content.into() };
            ChatTemplate::new(template.into(), Special::default(), Path::new("m"))
                .and_then(|t| t.render_whole(&[Message::user("Hi"), tool], None))
                .map_err(|e| e.to_string())
        };
        let json = "{% for m in messages %}[{{ m.content | tojson if m.role == 'tool' else m.content }}]{% endfor %}";
        assert_eq!(of_tool("a \"b\"", json), Ok(r#"[Hi]["a \"b\""]"#.into()));
        assert!(of_tool("Hi", roles).unwrap_err().contains("it leaves message 1 out"), "although there is a Hi");
    }

    #[test]
    fn a_template_that_always_thinks_cannot_be_told_not_to() {
        let always = "{{ messages[0].content }}<think>\n";
        let with = |thinking| {
            ChatTemplate::new(always.into(), Special::default(), Path::new("m"))
                .and_then(|t| t.render(&[Message::user("Hi")], thinking))
                .map_err(|e| e.to_string())
        };
        assert_eq!(with(None), Ok("Hi<think>".into()));
        assert!(with(Some(false)).unwrap_err().contains("it opens a thought whatever it is told"));
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("special_tokens_map.json"), r#"{"bos_token": "<s>"}"#).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), "[]").unwrap();
        let error = tokenizer_config(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json: it is not a JSON object"), "{error}");
    }

    #[test]
    fn a_template_that_fails_is_an_error() {
        let message = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(message.contains("roles must alternate"), "{message}");
        assert!(render("{{ messages[0].content.no_such_method() }}").is_err());
        assert!(render("{% for m in messages[1:][::-1] %}x{% endfor %}").unwrap_err().contains("panicked"));
        assert!(render("{% if %}").unwrap_err().contains("chat template of m"));
    }

    #[test]
    fn thinking_is_said_only_where_it_is_chosen() {
        let source = "{{ enable_thinking is defined }} {{ enable_thinking | default('unset') }}";
        assert_eq!(think(source, None), Ok("False unset".into()));
        assert_eq!(think(source, Some(true)), Ok("True True".into()));
        assert_eq!(think(source, Some(false)), Ok("True False".into()));
    }

    #[test]
    fn a_template_without_a_switch_cannot_be_made_to_think() {
        assert_eq!(think("x", Some(false)), Ok("x".into()));
        let message = think("x", Some(true)).unwrap_err();
        assert!(message.contains("chat template of m") && message.contains("no thinking switch"), "{message}");
    }

    #[test]
    fn what_a_model_lacks_is_as_in_transformers() {
        assert_eq!(
            render("{{ tools is none }} {{ documents is none }} {{ eos_token is defined }}"),
            Ok("True True False".into())
        );
    }
}
