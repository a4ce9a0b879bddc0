//! What a server says: a chat completion, or why there is none.

use std::time::Duration;

use serde_json::Value;

/// A chat completion, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reply {
    /// What the judge said; empty if it said nothing.
    pub(crate) text: String,
    /// Whether the server says that the judge refused.
    pub(crate) refused: bool,
    /// Whether it was cut off at the token limit.
    pub(crate) cut_off: bool,
    /// The model that the server says it is.
    pub(crate) served: Option<String>,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
}

/// Why a request returned no completion.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// It may work later; the server may say when.
    Later(String, Option<Duration>),
    /// Asking this again now would not help.
    Now(String),
    /// This one question is too long for the model; others may be answered.
    TooLong(String),
    /// No other question would do better: the address, the key, the model or the request is wrong.
    Always(Option<u16>, String),
}

/// Most characters of a server's message that are shown.
const SHOWN: usize = 300;

/// Phrases which say that this one question is too long for the model.
const TOO_LONG: [&str; 6] =
    ["context length", "context_length", "context size", "context window", "too many tokens", "too long"];

/// Reads a response, with `status` and `retry_after` (seconds) from its head.
pub(crate) fn read(status: u16, retry_after: Option<f64>, kind: &str, body: &[u8]) -> Result<Reply, Failure> {
    let json = serde_json::from_slice::<Value>(body).ok();
    if (200..300).contains(&status) {
        return match json {
            Some(json) => completion(&json),
            None => Err(Failure::Now(format!("answered with {} instead of JSON", what(kind, body)))),
        };
    }
    let error = json.as_ref().map(error_of).unwrap_or_default();
    let said = if error.message.is_empty() { what(kind, body) } else { format!("\"{}\"", short(&error.message)) };
    let why = format!("answered with status {status}: {said}");
    let wait = retry_after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match status {
        429 if error.code == "insufficient_quota" => Err(Failure::Always(Some(status), why)),
        408 | 425 | 429 | 500..=599 => Err(Failure::Later(why, wait)),
        413 => Err(Failure::TooLong(why)),
        400 | 403 | 422 if matches!(error.code.as_str(), "content_filter" | "content_policy_violation") => {
            Ok(Reply { text: error.message, refused: true, ..Reply::default() })
        }
        400 | 422 if too_long(&error) => Err(Failure::TooLong(why)),
        _ => Err(Failure::Always(Some(status), why)),
    }
}

fn completion(json: &Value) -> Result<Reply, Failure> {
    let choice = &json["choices"][0];
    let Some(message) = choice["message"].as_object() else {
        let error = error_of(json);
        let said = if error.message.is_empty() { &json.to_string() } else { &error.message };
        return Err(Failure::Now(format!("answered with JSON that is no chat completion: {}", short(said))));
    };
    let refusal = message.get("refusal").and_then(Value::as_str).filter(|text| !text.is_empty());
    let finish = choice["finish_reason"].as_str().unwrap_or_default();
    let tokens = |name: &str| json["usage"][name].as_u64().unwrap_or(0);
    let content = message.get("content").map(text_of).unwrap_or_default();
    Ok(Reply {
        text: refusal.map_or(content, String::from),
        refused: refusal.is_some() || finish == "content_filter",
        cut_off: finish == "length",
        served: json["model"].as_str().map(short),
        prompt_tokens: tokens("prompt_tokens"),
        completion_tokens: tokens("completion_tokens"),
    })
}

/// A content is a text, or a list of parts with texts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

#[derive(Default)]
struct ServerError {
    code: String,
    message: String,
}

/// `{"error": {"code": .., "message": ..}}`, `{"error": ".."}`, `{"message": ".."}` or `{"detail": ".."}`.
fn error_of(json: &Value) -> ServerError {
    let error = &json["error"];
    let texts = [&error["message"], error, &json["message"], &json["detail"]];
    let message = texts.into_iter().find_map(Value::as_str).unwrap_or_default();
    let code = error["code"].as_str().or(error["type"].as_str()).unwrap_or_default();
    ServerError { code: code.into(), message: message.into() }
}

fn too_long(error: &ServerError) -> bool {
    let said = format!("{} {}", error.code, error.message).to_lowercase();
    TOO_LONG.iter().any(|part| said.contains(part))
}

/// What came in place of JSON: `text/html "<html>.."`, or `nothing`.
fn what(kind: &str, body: &[u8]) -> String {
    let text = short(&String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN)]));
    match (text.is_empty(), kind.is_empty()) {
        (true, _) => "nothing".into(),
        (false, true) => format!("\"{text}\""),
        (false, false) => format!("{} \"{text}\"", short(kind)),
    }
}

/// A text in one line, short enough to be shown, and without characters that would control a terminal.
fn short(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN { line } else { line.chars().take(SHOWN).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: u16, body: &Value) -> Result<Reply, Failure> {
        read(status, None, "application/json", body.to_string().as_bytes())
    }

    #[test]
    fn completions_are_read() {
        let plain = json!({"model": "m-1", "choices": [{"message": {"content": "YES"}, "finish_reason": "stop"}],
                           "usage": {"prompt_tokens": 7, "completion_tokens": 1}});
        let expected = Reply {
            text: "YES".into(),
            served: Some("m-1".into()),
            prompt_tokens: 7,
            completion_tokens: 1,
            ..Reply::default()
        };
        assert_eq!(of(200, &plain), Ok(expected));
        let one = |message: Value, finish: &str| {
            of(200, &json!({"choices": [{"message": message, "finish_reason": finish}]}))
        };
        let parts =
            one(json!({"content": [{"type": "text", "text": "N"}, {"type": "text", "text": "O"}]}), "stop").unwrap();
        assert_eq!(parts.text, "NO");
        let empty = one(json!({"content": null, "reasoning_content": "YES"}), "length").unwrap();
        assert_eq!((empty.text.as_str(), empty.cut_off, empty.refused), ("", true, false));
        let refused = one(json!({"content": null, "refusal": "I will not."}), "stop").unwrap();
        assert_eq!((refused.text.as_str(), refused.refused), ("I will not.", true));
        assert!(one(json!({"content": "YES"}), "content_filter").unwrap().refused);
    }

    #[test]
    fn what_is_no_completion_is_sorted_by_what_helps() {
        let message = |code: &str, text: &str| json!({"error": {"code": code, "message": text}});
        for (status, body, kind) in [
            (200, json!({"choices": []}), "now"),
            (200, json!({"error": "model is loading"}), "now"),
            (200, json!(["x"]), "now"),
            (429, message("rate_limit_exceeded", "slow down"), "later"),
            (429, message("insufficient_quota", "pay"), "always"),
            (500, json!({}), "later"),
            (503, json!({}), "later"),
            (408, json!({}), "later"),
            (400, message("context_length_exceeded", "x"), "too long"),
            (400, json!({"error": {"message": "This model's maximum context length is 8 tokens"}}), "too long"),
            (413, json!({}), "too long"),
            (400, message("bad", "unknown field"), "always"),
            (401, message("invalid_api_key", "no"), "always"),
            (403, json!({}), "always"),
            (404, json!({"detail": "Not Found"}), "always"),
            (307, json!({}), "always"),
            (400, message("content_filter", "filtered"), "refused"),
        ] {
            let found = match of(status, &body) {
                Err(Failure::Later(..)) => "later",
                Err(Failure::Now(_)) => "now",
                Err(Failure::TooLong(_)) => "too long",
                Err(Failure::Always(code, _)) => {
                    assert_eq!(code, Some(status));
                    "always"
                }
                Ok(reply) if reply.refused => "refused",
                Ok(_) => "reply",
            };
            assert_eq!(found, kind, "{status} {body}");
        }
        let page = read(200, None, "text/html", b"<html>\x1b[31m\n  hello</html>").unwrap_err();
        assert_eq!(page, Failure::Now("answered with text/html \"<html> [31m hello</html>\" instead of JSON".into()));
        assert_eq!(
            read(503, Some(1.5), "", b"").unwrap_err(),
            Failure::Later("answered with status 503: nothing".into(), Some(Duration::from_millis(1500)))
        );
        assert!(matches!(read(503, Some(-1.0), "", b""), Err(Failure::Later(_, None))));
    }
}
