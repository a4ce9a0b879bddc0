//! The text side of a checkpoint: its tokens, chats and stop tokens, compared with those of transformers in a golden file.

use std::{collections::BTreeSet, fmt::Debug};

use headtemper_model::Checkpoint;
use serde::Deserialize;

use super::{Check, Golden};
use crate::{Engine, Message, Result};

/// The section `text` of a golden file; `scripts/golden/make_checkpoint.py` describes it.
#[derive(Deserialize)]
struct Section {
    texts: Vec<Case>,
    decodes: Vec<Decode>,
    chats: Vec<Chat>,
    stop: BTreeSet<u32>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    special: Vec<u32>,
    decoded: String,
}

#[derive(Deserialize)]
struct Decode {
    ids: Vec<u32>,
    text: String,
}

#[derive(Deserialize)]
struct Chat {
    name: String,
    messages: Vec<Message>,
    thinking: Option<bool>,
    render: Option<String>,
    ids: Option<Vec<u32>>,
}

impl Golden {
    /// Compares the tokenizer, the chat template and the stop tokens of a model with what the file says about them. There are no
    /// checks if the file has no section `text`.
    ///
    /// # Errors
    /// If the section is malformed.
    pub fn text_checks(&self, engine: &Engine) -> Result<Vec<Check>> {
        if self.meta["text"].is_null() {
            return Ok(Vec::new());
        }
        let section = Section::deserialize(&self.meta["text"])
            .map_err(|e| self.wrong(format!("the section 'text' of its .json: {e}")))?;
        let mut checks = vec![section.tokens(engine), section.decoded(engine)];
        if !section.chats.is_empty() {
            checks.push(check("golden chats", "chats", section.chats.iter().map(|chat| chat.differs(engine))));
        }
        checks.push(section.stop(engine));
        Ok(checks)
    }
}

impl Section {
    fn tokens(&self, engine: &Engine) -> Check {
        let differ = |text: &str, special: bool, theirs: &[u32]| {
            let told = if special { ", special tokens added" } else { "" };
            let how = differs(engine.tokenizer().encode(text, special), theirs)?;
            Some(format!("{}{told}: {how}", shown(text)))
        };
        let found = self
            .texts
            .iter()
            .flat_map(|case| [differ(&case.text, false, &case.ids), differ(&case.text, true, &case.special)]);
        check("golden tokens", "texts, with and without special tokens", found)
    }

    fn decoded(&self, engine: &Engine) -> Check {
        let differ = |ids: &[u32], theirs: &str| {
            let ours = engine.tokenizer().decode(ids).map(|text| text.chars().collect());
            let theirs: Vec<char> = theirs.chars().collect();
            Some(format!("of {}: {}", shown(&theirs.iter().collect::<String>()), differs(ours, &theirs)?))
        };
        let texts = self.texts.iter().map(|case| differ(&case.special, &case.decoded));
        let drawn = self.decodes.iter().map(|case| differ(&case.ids, &case.text));
        check("golden decoded text", "texts", texts.chain(drawn))
    }

    fn stop(&self, engine: &Engine) -> Check {
        let ours: BTreeSet<u32> = engine.stop().ids().collect();
        // A GGUF file stores one stop token; with those known by name there are more than transformers stops at.
        let named = matches!(engine.checkpoint(), Checkpoint::Gguf(_));
        let missing = self.stop.difference(&ours).map(|id| format!("{id} does not end a generation"));
        let added = ours.difference(&self.stop).filter(|_| !named).map(|id| format!("{id} ends one too"));
        let wrong: Vec<_> = missing.chain(added).collect();
        let note =
            wrong.first().map_or_else(|| format!("{ours:?}"), |first| format!("{first}; in the file {:?}", self.stop));
        Check::of("golden stop tokens", 0.0, Ok((wrong.len() as f64, note)))
    }
}

impl Chat {
    /// How the rendered chat or its tokens differ. A chat that transformers' template refuses must be refused here too.
    fn differs(&self, engine: &Engine) -> Option<String> {
        let thinking = match self.thinking {
            Some(true) => ", thinking",
            Some(false) => ", not thinking",
            None => "",
        };
        let ours = engine.template().map(|template| template.render(&self.messages, self.thinking));
        let how = match (ours, &self.render) {
            (None, _) => "the model has no template".into(),
            (Some(Err(_)), None) => return None,
            (Some(Ok(_)), None) => "refused in the file".into(),
            (Some(Err(error)), Some(_)) => error.to_string(),
            (Some(Ok(ours)), Some(theirs)) => {
                let theirs: Vec<char> = theirs.chars().collect();
                let rendered = differs(Ok(ours.chars().collect()), &theirs);
                let ids = || differs(engine.tokenizer().encode(&ours, false), self.ids.as_deref().unwrap_or_default());
                rendered.or_else(ids)?
            }
        };
        Some(format!("'{}'{thinking}: {how}", self.name))
    }
}

/// One check over many things, each of which is `Some` description if it differs.
fn check(name: &str, things: &str, differ: impl Iterator<Item = Option<String>>) -> Check {
    let all: Vec<Option<String>> = differ.collect();
    let wrong: Vec<&String> = all.iter().flatten().collect();
    let note = match wrong.first() {
        None => format!("{} {things}", all.len()),
        Some(first) => format!("{} of {} differ: {first}", wrong.len(), all.len()),
    };
    Check::of(name, 0.0, Ok((wrong.len() as f64, note)))
}

/// Where ours and theirs first differ.
fn differs<T: PartialEq + Debug>(ours: Result<Vec<T>>, theirs: &[T]) -> Option<String> {
    let ours = match ours {
        Ok(ours) if ours == theirs => return None,
        Ok(ours) => ours,
        Err(error) => return Some(error.to_string()),
    };
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let told = |all: &[T]| all.get(at).map_or("the end".into(), |thing| format!("{thing:?}"));
    Some(format!("{} at {at}, in the file {}", told(&ours), told(theirs)))
}

/// The beginning of a text, in quotes.
fn shown(text: &str) -> String {
    const LONGEST: usize = 30;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
