//! A look at every item of a file before anything is computed: whether it fits, how long it is, and a hash of all items.

use std::{ops::Range, path::Path};

use headtemper_engine::{Encoded, Engine, EngineError};
use headtemper_hook::HeadPlan;
use serde::Serialize;

use super::{
    CaptureJob, check_thinking, encode_one, in_order, is_rendered,
    kept::{find_texts, texts_in},
    leaves_ids, prompt,
};
use crate::{
    Item, Progress, Result,
    items::{
        Systems,
        columns::{Columns, TEXT_HASH},
    },
    store::digest::{digest, digest_bits},
};

/// Items that are held and looked at together.
const AT_ONCE: usize = 1024;

/// Entries of a list that says what a capture was made from. Up to this many items are named one by one, more in blocks.
const ENTRIES: usize = 64;

/// The number of items from which the look takes long enough to show its progress.
const LONG: usize = 10_000;

/// What is remembered of an item.
struct Fact {
    /// Tokens that are read of it: prompt and response, or only the prompt where it is to be answered.
    tokens: u32,
    /// A hash of its id.
    id: u64,
    /// A hash of all that is used of it.
    content: u64,
    /// A hash of its texts letter by letter, which may be others of the same tokens; 0 where it is to be answered.
    texts: u64,
}

/// What is known of the items of a file.
pub(super) struct Survey {
    facts: Vec<Fact>,
    /// Names and hashes of what is read, by item or by block.
    pub(super) items: Vec<(String, String)>,
    /// The same for what else goes into the file.
    pub(super) labels: Vec<(String, String)>,
    /// Whether prompts are read as they stand.
    pub(super) raw: bool,
    /// The system messages that they begin with.
    pub(super) systems: Systems,
    /// Items that bring a response, and what is said of it.
    pub(super) responses: usize,
    /// Items that are read and have nothing after their prompt.
    pub(super) prompts_alone: usize,
    /// Items that are read and have no token at the positions of their plan.
    pub(super) untouched: usize,
    /// Items that are not read by the tokens of their response that they bring.
    pub(super) ids_left: usize,
}

/// Some items as they are read, and how many of them bring a response. Where they are to be answered, it is gone, and what is said of it.
fn items_of(job: &CaptureJob<'_>, range: Range<usize>) -> Result<(Vec<Item>, usize)> {
    let items = job.items.read(range)?;
    let answered = items.iter().filter(|item| item.is_answered()).count();
    match job.answering {
        None => Ok((items, answered)),
        Some(_) => Ok((items.into_iter().map(Item::unanswered).collect(), answered)),
    }
}

/// What is read of an item: prompt and response, or only the prompt where it is to be answered.
pub(super) fn text_of(engine: &Engine, job: &CaptureJob<'_>, item: &Item) -> Result<Encoded> {
    if job.answering.is_some() {
        let ids = prompt(engine, item)?;
        return Ok(Encoded { prompt_len: ids.len(), ids });
    }
    let encoded = encode_one(engine, item, item.response.as_deref())?;
    match job.options.keep.pool.of(&encoded) {
        Some(_) => Ok(encoded),
        None => Err(EngineError::NoResponse(format!("item '{}'", item.id)).into()),
    }
}

/// What is read of some items, in parallel; if several cannot be read, the error names the first.
fn texts_of(engine: &Engine, job: &CaptureJob<'_>, items: &[Item]) -> Result<Vec<Encoded>> {
    in_order(items, |item| text_of(engine, job, item))
}

/// Hashes of an item.
struct Hashes {
    /// Of what is read of it.
    text: String,
    /// Of what else goes into the file.
    labels: String,
    /// As [`Fact::texts`].
    letters: u64,
}

fn hashes(job: &CaptureJob<'_>, item: &Item, text: &Encoded) -> Hashes {
    let columns = Columns::of(std::slice::from_ref(item), job.items.columns());
    Hashes {
        text: digest(&(&text.ids, text.prompt_len)),
        labels: digest(&(&item.label, columns.prompt_hash, columns.numbers)),
        letters: if job.answering.is_some() { 0 } else { digest_bits(&columns.text_hash[0]) as u64 },
    }
}

impl Survey {
    /// Looks at every item.
    ///
    /// # Errors
    /// If an item cannot be read by the model, or has no response where one is needed: it is named. If the run is stopped.
    pub(super) fn of(engine: &Engine, job: &CaptureJob<'_>, progress: &mut dyn Progress) -> Result<Self> {
        let n = job.items.len();
        let mut survey = Self {
            facts: Vec::with_capacity(n),
            items: Vec::new(),
            labels: Vec::new(),
            raw: false,
            systems: Systems::default(),
            responses: 0,
            prompts_alone: 0,
            untouched: 0,
            ids_left: 0,
        };
        let plans = &job.options.plans;
        let (mut items, mut labels) = (Blocks::of(n), Blocks::of(n));
        let (shown, mut rendered) = (n >= LONG, n == 0);
        if shown {
            progress.begin("items", n, 0);
        }
        for from in (0..n).step_by(AT_ONCE) {
            EngineError::if_stopped(job.options.stop)?;
            let (piece, answered) = items_of(job, from..n.min(from + AT_ONCE))?;
            survey.responses += answered;
            let texts = texts_of(engine, job, &piece)?;
            rendered |= piece.iter().any(is_rendered);
            survey.raw |= piece.iter().any(Item::is_raw);
            survey.systems.see(&piece);
            for (item, text) in piece.iter().zip(&texts) {
                let hashes = hashes(job, item, text);
                survey.facts.push(Fact::of(item, text, &hashes));
                if job.answering.is_none() {
                    survey.prompts_alone += usize::from(text.ids.len() == text.prompt_len);
                    survey.ids_left += usize::from(leaves_ids(item, text));
                }
                let most = job.answering.as_ref().map_or(0, |how| how.max_new_tokens);
                let most = engine.most_read(text.ids.len(), most, true);
                let plan = plans.get(if plans.len() == 1 { 0 } else { survey.facts.len() - 1 });
                let touches = |plan: &HeadPlan| plan.positions().touch(most, text.prompt_len);
                survey.untouched += usize::from(plan.is_some_and(|plan| !plan.is_empty() && !touches(plan)));
                items.add(&item.id, hashes.text);
                labels.add(&item.id, hashes.labels);
                if shown {
                    progress.step();
                }
            }
        }
        if shown {
            progress.end();
        }
        check_thinking(engine, rendered)?;
        (survey.items, survey.labels) = (items.finish(), labels.finish());
        Ok(survey)
    }

    /// Reads some items again, and refuses them if they are no longer those that were looked at.
    pub(super) fn read(
        &self,
        engine: &Engine,
        job: &CaptureJob<'_>,
        range: Range<usize>,
    ) -> Result<(Vec<Item>, Vec<Encoded>)> {
        let (items, _) = items_of(job, range.clone())?;
        let texts = texts_of(engine, job, &items)?;
        for (index, (item, text)) in range.zip(items.iter().zip(&texts)) {
            if Fact::of(item, text, &hashes(job, item, text)).content != self.facts[index].content {
                return Err(job.items.changed(job.items.line(index)));
            }
        }
        Ok((items, texts))
    }

    /// Tokens of some items together.
    pub(super) fn tokens(&self, range: Range<usize>) -> usize {
        self.facts[range].iter().map(|fact| fact.tokens as usize).sum()
    }

    /// The most tokens that may be written after the prompts of some items.
    pub(super) fn room(&self, range: Range<usize>, most: usize, context: usize) -> usize {
        self.facts[range].iter().map(|fact| most.min(context - fact.tokens as usize)).sum()
    }

    /// The first of the longest of some items.
    pub(super) fn longest(&self, range: Range<usize>) -> usize {
        let longer = |best: usize, i: usize| if self.facts[i].tokens > self.facts[best].tokens { i } else { best };
        range.clone().fold(range.start, longer)
    }

    /// What a file with the features of some items says of others: another number, other ids, or other texts.
    ///
    /// # Errors
    /// If it cannot be read, or has no ids.
    pub(super) fn others_in(&self, range: Range<usize>, path: &Path) -> Result<Option<String>> {
        let ids = texts_in(path, "id")?;
        let facts = &self.facts[range];
        if ids.len() != facts.len() {
            return Ok(Some(format!("it holds {} items instead of {}", ids.len(), facts.len())));
        }
        if let Some((_, id)) = facts.iter().zip(&ids).find(|(fact, id)| fact.id != digest_bits(id) as u64) {
            return Ok(Some(format!("it holds '{id}' where another item belongs")));
        }
        // Earlier versions did not write them.
        let Some(hashes) = find_texts(path, TEXT_HASH)? else { return Ok(None) };
        let mut rows = facts.iter().zip(ids.iter().zip(&hashes));
        let other = rows.find(|(fact, (_, hash))| fact.texts != 0 && fact.texts != digest_bits(hash) as u64);
        Ok(other.map(|(_, (id, _))| format!("item '{id}' has another text now, though its tokens are the same")))
    }
}

impl Fact {
    fn of(item: &Item, text: &Encoded, hashes: &Hashes) -> Self {
        let content = digest_bits(&format!("{} {} {}", item.id, hashes.text, hashes.labels)) as u64;
        Self { tokens: text.ids.len() as u32, id: digest_bits(&item.id) as u64, content, texts: hashes.letters }
    }
}

/// A list of names and hashes that stays short: one entry per item, or one per block of items.
pub(super) struct Blocks {
    size: usize,
    done: Vec<(String, String)>,
    first: String,
    last: String,
    hashes: Vec<String>,
}

impl Blocks {
    fn of(n: usize) -> Self {
        let size = n.div_ceil(ENTRIES).max(1);
        Self { size, done: Vec::new(), first: String::new(), last: String::new(), hashes: Vec::new() }
    }

    /// The list for things that are all there already.
    pub(super) fn list<T: Serialize>(things: &[T], name: impl Fn(usize, &T) -> String) -> Vec<(String, String)> {
        let mut blocks = Self::of(things.len());
        things.iter().enumerate().for_each(|(index, thing)| blocks.add(&name(index, thing), digest(thing)));
        blocks.finish()
    }

    fn add(&mut self, name: &str, hash: String) {
        if self.hashes.is_empty() {
            self.first = name.into();
        }
        self.last = name.into();
        self.hashes.push(hash);
        if self.hashes.len() == self.size {
            self.close();
        }
    }

    fn close(&mut self) {
        let entry = match &self.hashes[..] {
            [] => return,
            [one] => (self.first.clone(), one.clone()),
            many => (format!("{} to {}", self.first, self.last), digest(&many)),
        };
        self.done.push(entry);
        self.hashes.clear();
    }

    fn finish(mut self) -> Vec<(String, String)> {
        self.close();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_things_are_named_one_by_one_and_many_in_blocks() {
        let list = |n: usize| Blocks::list(&(0..n).collect::<Vec<_>>(), |i, _| format!("q{i}"));
        assert_eq!((list(3).len(), list(3)[1].0.as_str(), list(0).len()), (3, "q1", 0));
        assert_eq!((list(64).len(), list(65).len()), (64, 33));
        assert_eq!((list(65)[0].0.as_str(), list(65)[32].0.as_str()), ("q0 to q1", "q64"));
        let mut other: Vec<usize> = (0..1000).collect();
        other[500] = 7;
        let other = Blocks::list(&other, |i, _| format!("q{i}"));
        let differ: Vec<String> =
            list(1000).into_iter().zip(other).filter(|(a, b)| a != b).map(|((name, _), _)| name).collect();
        assert_eq!(differ, ["q496 to q511"]);
    }
}
