//! What an attribution is made from: texts that a model reads now, or what a capture kept of them.

use std::path::Path;

use headtemper_engine::{Encoded, Engine, HeadsWanted, Identity, Keep};
use headtemper_hook::HeadRef;

use super::{Compat, dd, items::ReadItems};
use crate::{
    CaptureOptions, Features, Item, ItemFacts, Progress, Result,
    attribute::AttributeRun,
    capture::{Kept, encode, named_items},
    items::either,
    store::digest::digest,
};

/// Where an attribution gets its features from.
#[derive(Clone, Copy)]
pub enum AttributeSource<'a> {
    /// A model, which reads the texts.
    Model(&'a Engine),
    /// A file that `temper capture --heads vector` wrote from the texts.
    Capture(&'a Path),
}

/// A source that was opened.
pub(super) enum Source<'a> {
    Model(&'a Engine),
    Capture(Box<Kept>),
}

/// Chosen items as their source gives them.
pub(super) enum Texts<'a> {
    Encoded(&'a Engine, Vec<Encoded>),
    Kept(Box<Features>),
}

impl<'a> Source<'a> {
    pub(super) fn open(source: AttributeSource<'a>) -> Result<Self> {
        Ok(match source {
            AttributeSource::Model(engine) => Self::Model(engine),
            AttributeSource::Capture(path) => Self::Capture(Box::new(Kept::open(path)?)),
        })
    }

    /// The model that reads the texts, or has read them.
    pub(super) fn identity(&self) -> &Identity {
        match self {
            Self::Model(engine) => engine.identity(),
            Self::Capture(kept) => &kept.meta.identity,
        }
    }

    /// What the user should know about a capture, once some of its items are chosen.
    pub(super) fn told(&self, chosen: usize) -> Option<String> {
        let Self::Capture(kept) = self else { return None };
        let (path, identity, last_n) = (kept.path.display(), &kept.meta.identity, kept.meta.last_n);
        Some(format!(
            "features   {path}  {chosen} items read by {}, heads over their last {last_n} tokens",
            identity.model
        ))
    }

    /// Where the items were read, as an appendix; empty if this command reads them.
    pub(super) fn read_from(&self) -> String {
        match self {
            Self::Model(_) => String::new(),
            Self::Capture(kept) if kept.meta.raw => {
                format!(", as captured without the chat template in {}", kept.path.display())
            }
            Self::Capture(kept) => format!(", as captured in {}", kept.path.display()),
        }
    }

    /// How many of the last response tokens heads are averaged over: as asked for, or as captured.
    pub(super) fn last_n(&self, asked: usize) -> usize {
        match self {
            Self::Model(_) => asked,
            Self::Capture(kept) => kept.meta.last_n,
        }
    }

    /// The texts of some items.
    ///
    /// # Errors
    /// If one does not fit the model, or is not what was captured: the item is named.
    pub(super) fn texts(&self, items: &[Item], compat: Compat) -> Result<Texts<'a>> {
        Ok(match self {
            Self::Model(engine) if compat == Compat::Dd => Texts::Encoded(engine, encode_joined(engine, items)?),
            Self::Model(engine) => Texts::Encoded(engine, encode(engine, items)?),
            Self::Capture(kept) => Texts::Kept(Box::new(kept.features(items)?)),
        })
    }

    /// What is known of items besides their features: what they say themselves and, from a capture that wrote their responses, how
    /// these end.
    ///
    /// # Errors
    /// If the capture cannot be read.
    pub(super) fn facts(&self, items: &[Item]) -> Result<Vec<ItemFacts>> {
        let mut facts: Vec<ItemFacts> = items.iter().map(ItemFacts::of).collect();
        if let Self::Capture(kept) = self {
            for (facts, truncated) in facts.iter_mut().zip(kept.truncated(items)?) {
                facts.truncated = either([truncated, facts.truncated]);
            }
        }
        Ok(facts)
    }
}

impl Texts<'_> {
    /// The heads that can be compared.
    pub(super) fn slots(&self) -> Vec<HeadRef> {
        match self {
            Self::Encoded(engine, _) => engine.spec().slots(),
            Self::Kept(features) => features.slots.clone(),
        }
    }

    /// Every item's id with a hash of what is read of it.
    pub(super) fn named(&self, items: &[Item]) -> Vec<(String, String)> {
        match self {
            Self::Encoded(_, encoded) => named_items(items, encoded),
            Self::Kept(features) => {
                let lengths = features.prompt_len.iter().zip(&features.total_len);
                let norms = features.head_norm.chunks(features.slots.len());
                let read = lengths.zip(norms.zip(features.head_norm_final.chunks(features.slots.len())));
                items.iter().zip(read).map(|(item, read)| (item.id.clone(), digest(&read))).collect()
            }
        }
    }

    /// What is read of the items, and by random weights too if that is asked for.
    ///
    /// # Errors
    /// As a capture's.
    pub(super) fn read(
        self,
        items: &[Item],
        settings: &AttributeRun<'_>,
        progress: &mut dyn Progress,
    ) -> Result<ReadItems> {
        let (engine, encoded) = match self {
            Self::Kept(features) => return Ok(ReadItems { features: *features, untrained: None }),
            Self::Encoded(engine, encoded) => (engine, encoded),
        };
        let capture = CaptureOptions {
            keep: Keep { heads: HeadsWanted::Vector, last_n: settings.last_n, ..Keep::default() },
            stop: settings.stop,
            ..Default::default()
        };
        ReadItems::read(engine, (items, &encoded), &capture, settings.controls.random, progress)
    }
}

/// Items as the scripts tokenise them.
fn encode_joined(engine: &Engine, items: &[Item]) -> Result<Vec<Encoded>> {
    let encode = |item: &Item| {
        let response = item.response.as_deref().unwrap_or_default();
        Ok(engine.encode_joined(&format!("item '{}'", item.id), &item.input, response, dd::MAX_TOKENS)?)
    };
    items.iter().map(encode).collect()
}
