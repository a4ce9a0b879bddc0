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
    /// The tokens that statistics are taken over: the response, or everything if there is no response.
    pub fn span(&self) -> Range<usize> {
        if self.prompt_len < self.ids.len() { self.prompt_len..self.ids.len() } else { 0..self.ids.len() }
    }

    /// The last `n` tokens of [`Encoded::span`].
    pub fn last(&self, n: usize) -> Range<usize> {
        let span = self.span();
        span.end.saturating_sub(n).max(span.start)..span.end
    }
}

/// What turns a model's texts into token ids.
pub(crate) struct Written<'a> {
    pub(crate) tokenizer: &'a TextTokenizer,
    pub(crate) template: Option<&'a ChatTemplate>,
    pub(crate) thinking: Option<bool>,
    pub(crate) path: &'a std::path::Path,
}

impl Written<'_> {
    fn render(&self, messages: &[Message]) -> Result<String> {
        match self.template {
            Some(template) => template.render_whole(messages, self.thinking),
            None => Err(EngineError::NoTemplate { path: self.path.into() }),
        }
    }
}

/// Encodes an input and its response as one text, cut at `most` tokens. Special tokens are added even to a rendered chat.
pub(crate) fn encode_joined(written: &Written<'_>, input: &Input, response: &str, most: usize) -> Result<Encoded> {
    let prompt = match input {
        Input::Prompt(text) => written.render(&[Message::user(text)])?,
        Input::Messages(messages) => written.render(messages)?,
        Input::Raw(text) => text.clone(),
        Input::Ids(_) => {
            let (name, found) = ("an input that is tokenised with its response", "input_ids".into());
            return Err(EngineError::Setting { name, found, allowed: "a prompt or messages" });
        }
    };
    let encode = |text: &str| -> Result<Vec<u32>> {
        let mut ids = written.tokenizer.encode(text, true)?;
        ids.truncate(most);
        Ok(ids)
    };
    let ids = encode(&(prompt.clone() + response))?;
    let prompt_len = encode(&prompt)?.len().min(ids.len());
    Ok(Encoded { ids, prompt_len })
}

/// Encodes an input and its response. The two are tokenised separately: this is what a model sees when it generates the
/// response itself, and no token straddles the border. A rendered chat is encoded without the special tokens that the
/// tokenizer adds, because its template has written them already.
pub(crate) fn encode(written: &Written<'_>, input: &Input, response: Option<&str>) -> Result<Encoded> {
    let tokenizer = written.tokenizer;
    let mut ids = match input {
        Input::Prompt(text) => tokenizer.encode(&written.render(&[Message::user(text)])?, false)?,
        Input::Messages(messages) => tokenizer.encode(&written.render(messages)?, false)?,
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
