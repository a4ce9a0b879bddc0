//! From an item's text to token ids, with the response's range known exactly.

use std::ops::Range;

use crate::{ChatTemplate, EngineError, Message, Result, TextTokenizer};

/// What a model is given to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A user's message, put through the chat template.
    Prompt(String),
    /// A conversation, put through the chat template.
    Messages(Vec<Message>),
    /// A text as it stands, with the special tokens that the tokenizer itself adds.
    Raw(String),
    /// Token ids as they stand.
    Ids(Vec<u32>),
}

/// Token ids, and which of them are the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Prompt and response.
    pub ids: Vec<u32>,
    /// Where the prompt ends and the response begins.
    pub prompt_len: usize,
}

impl Encoded {
    /// The tokens that statistics are taken over: the response, or everything where there is none.
    pub fn span(&self) -> Range<usize> {
        if self.prompt_len < self.ids.len() { self.prompt_len..self.ids.len() } else { 0..self.ids.len() }
    }

    /// The last `n` tokens of [`Encoded::span`].
    pub fn last(&self, n: usize) -> Range<usize> {
        let span = self.span();
        span.end.saturating_sub(n).max(span.start)..span.end
    }
}

/// Encodes an input and its response. The two are tokenised apart: this is what a model sees that generated the
/// response itself, and no token straddles the border. A rendered chat is encoded without the special tokens that the
/// tokenizer itself adds: its template has written them.
pub(crate) fn encode(
    tokenizer: &TextTokenizer,
    template: Option<&ChatTemplate>,
    thinking: Option<bool>,
    input: &Input,
    response: Option<&str>,
    path: &std::path::Path,
) -> Result<Encoded> {
    let render = |messages: &[Message]| match template {
        Some(template) => tokenizer.encode(&template.render(messages, thinking)?, false),
        None => Err(EngineError::NoTemplate { path: path.into() }),
    };
    let mut ids = match input {
        Input::Prompt(text) => render(&[Message::user(text)])?,
        Input::Messages(messages) => render(messages)?,
        Input::Raw(text) => tokenizer.encode(text, true)?,
        Input::Ids(ids) => ids.clone(),
    };
    let prompt_len = ids.len();
    if let Some(response) = response {
        ids.extend(tokenizer.encode(response, false)?);
    }
    Ok(Encoded { ids, prompt_len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_run_over_the_response_or_over_everything() {
        let with = Encoded { ids: vec![0; 10], prompt_len: 7 };
        assert_eq!((with.span(), with.last(2), with.last(32)), (7..10, 8..10, 7..10));
        let without = Encoded { ids: vec![0; 10], prompt_len: 10 };
        assert_eq!((without.span(), without.last(4)), (0..10, 6..10));
    }
}
