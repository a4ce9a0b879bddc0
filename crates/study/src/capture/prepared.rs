//! A capture before anything is written: every item looked at, memory planned, and existing files compared.

use std::{collections::BTreeMap, ops::Range, path::Path};

use headtemper_engine::{CaptureRequest, Engine, EngineError, GenerateOptions, MemoryPlan};
use headtemper_hook::{HeadPlan, check_fired};

use super::{
    Answering, CaptureJob, CaptureOptions, left_ids,
    pieces::{self, Pieces},
    survey::{Blocks, Survey},
};
use crate::{
    FeatureMeta, Npz, Parts, Progress, Result, RunDir, StudyError,
    capture::join::read_meta,
    items::columns::RESPONSE_HASH,
    store::manifest::{MANIFEST, Manifest, other_shard},
};

/// A capture whose items were looked at, and which can go ahead.
pub(crate) struct Prepared<'a> {
    pub(super) engine: &'a Engine,
    pub(super) job: &'a CaptureJob<'a>,
    pub(super) survey: Survey,
    /// What it is made from.
    pub(super) parts: Parts,
    /// The items of this shard.
    pub(super) range: Range<usize>,
    /// What the model held before anything ran, and what may be taken.
    pub(super) start: MemoryPlan,
}

impl<'a> Prepared<'a> {
    /// Looks at every item, and plans memory.
    ///
    /// # Errors
    /// If an option has no meaning for the model, an item does not fit it or the memory, or a shard would be empty.
    pub(crate) fn new(engine: &'a Engine, job: &'a CaptureJob<'a>, progress: &mut dyn Progress) -> Result<Self> {
        let options = job.options;
        engine.check_plans(&options.plans)?;
        held(engine, options)?; // refuses settings without meaning for the model
        job.check()?;
        let n = job.items.len();
        if ![1, n].contains(&options.plans.len()) {
            let (found, allowed) = (options.plans.len().to_string(), "1, or as many as there are items");
            return Err(StudyError::option("rows of the plan table", found, allowed));
        }
        let range = job.range()?;
        let survey = Survey::of(engine, job, progress)?;
        let parts = parts_of(engine, job, &survey);
        let mut prepared = Self { engine, job, survey, parts, range, start: held(engine, options)? };
        prepared.start.limit = options.memory.or(prepared.start.limit);
        // The longest item must fit even alone.
        let longest = prepared.survey.longest(prepared.range.clone());
        prepared.plan(longest..longest + 1)?;
        if job.answering.is_some() && prepared.survey.responses > 0 {
            let bring = match prepared.survey.responses {
                1 => "1 item brings".into(),
                n => format!("{n} items bring"),
            };
            progress.note(&format!(
                "note: {bring} a response, which is not read, nor what is said of it (label, scores): the model answers"
            ));
        }
        let Survey { prompts_alone, untouched, ids_left, .. } = prepared.survey;
        if prompts_alone > 0 {
            progress.note(&format!(
                "note: {prompts_alone} of {n} items have no response: what is read of them is their prompt"
            ));
        }
        if let Some(note) = left_ids(ids_left, n) {
            progress.note(&note);
        }
        if untouched == n && n > 0 {
            // Nothing needs to be read to know.
            let idle = vec![BTreeMap::new(); options.plans.len()];
            check_fired(&options.plans, &idle).map_err(EngineError::from)?;
        }
        if untouched > 0 {
            progress.note(&format!(
                "warning: {untouched} of {n} items have no token at the positions of their plan: they are read as if untouched"
            ));
        }
        Ok(prepared)
    }

    /// How many items are captured: all, or those of the shard.
    pub(crate) fn items(&self) -> usize {
        self.range.len()
    }

    /// The plans of some items: one for all, or one per item.
    fn plans(&self, piece: Range<usize>) -> Vec<HeadPlan> {
        let plans = &self.job.options.plans;
        if plans.len() == 1 { plans.clone() } else { plans[piece].to_vec() }
    }

    /// The options for some items.
    pub(super) fn options(&self, piece: Range<usize>) -> CaptureOptions<'a> {
        let options = self.job.options;
        CaptureOptions { plans: self.plans(piece), keep: options.keep.clone(), ..*options }
    }

    /// The engine's settings for writing answers.
    pub(super) fn settings(&self, memory: Option<u64>, max_rows: usize) -> GenerateOptions<'a> {
        let options = self.job.options;
        let (keep, partial, stop) = (Some(options.keep.clone()), options.plans.len() == 1, options.stop);
        GenerateOptions { max_rows, memory, keep, partial, stop, ..GenerateOptions::default() }
    }

    /// The memory that some items take.
    ///
    /// # Errors
    /// If one does not fit: it is named.
    fn plan(&self, piece: Range<usize>) -> Result<MemoryPlan> {
        let (items, encoded) = self.survey.read(self.engine, self.job, piece.clone())?;
        let options = self.options(piece);
        let Some(answering) = &self.job.answering else { return options.plan(self.engine, &items, &encoded) };
        let name = |item: usize| format!("item '{}'", items[item].id);
        let requests = answering.requests(&items, &encoded, options.plans.len());
        let settings = self.settings(options.memory, options.max_rows.min(items.len()));
        Ok(self.engine.plan_generation(&requests, options.plans.len(), &settings, &name)?)
    }

    /// How the items are cut if nothing was begun yet.
    fn pieces(&self) -> Pieces {
        let bytes = 4 * self.job.options.keep.clone().numbers(self.engine.spec()) as u64;
        let room = self.start.limit.map(|limit| limit.saturating_sub(self.start.held));
        Pieces::new(self.range.clone(), self.job.part_items, bytes, room)
    }

    /// The memory of the missing piece with the longest item: the others take about as much.
    pub(super) fn plan_longest(&self, missing: &[Range<usize>]) -> Result<Option<MemoryPlan>> {
        let length = |piece: &&Range<usize>| self.survey.tokens(longest_of(&self.survey, piece));
        missing.iter().max_by_key(length).map(|piece| self.plan(piece.clone())).transpose()
    }

    /// What the file says of itself, except what is measured.
    pub(super) fn meta(&self, meta: FeatureMeta) -> FeatureMeta {
        FeatureMeta {
            plan: self.job.options.plan_names(),
            raw: self.survey.raw,
            system: Some(self.survey.systems.common().unwrap_or_default().into()),
            generated: self.job.answering.as_ref().map(Answering::meta),
            key: Some(self.parts.key()),
            parts: Some(self.parts.clone()),
            shard: self.job.shard.map(|shard| shard.to_string()),
            piece: None,
            ..meta
        }
    }

    /// The meta of the file, if it is there already and holds exactly this.
    ///
    /// # Errors
    /// If it holds something else, naming what differs, or is damaged.
    pub(super) fn existing(&self) -> Result<Option<FeatureMeta>> {
        let out = self.job.out;
        if !out.exists() {
            return Ok(None);
        }
        let other = |why: String| Err(StudyError::OtherRun { dir: out.into(), why });
        let meta = match read_meta(out) {
            Err(StudyError::Content { .. }) => {
                return other("it was not made by `temper capture`, or is damaged".into());
            }
            meta => meta?,
        };
        let mut changes = match &meta.parts {
            Some(was) => self.parts.changes(was),
            None => vec!["it does not say what it was made from".into()],
        };
        changes.extend(other_shard(meta.shard.as_deref(), self.job.shard));
        if changes.is_empty() {
            changes.extend(self.survey.others_in(self.range.clone(), out)?);
        }
        if !changes.is_empty() {
            return other(changes.join("; "));
        }
        Npz::check_whole(out).map_err(|e| match e {
            StudyError::Content { path, why } => {
                StudyError::Content { path, why: why + "; remove it, and the same command makes it again" }
            }
            e => e,
        })?;
        Ok(Some(meta))
    }

    /// What is left to do: missing pieces, and items that are done.
    ///
    /// # Errors
    /// If the file or the directory of its pieces belongs to another capture.
    pub(crate) fn to_do(&self) -> Result<ToDo> {
        if self.existing()?.is_some() {
            return Ok(ToDo { done: self.range.len(), tokens: 0, new_tokens: 0, memory: None });
        }
        let dir = pieces::dir_of(self.job.out);
        RunDir::check(&dir, COMMAND, &self.parts, self.job.shard)?;
        let missing = self.missing(&self.begun_pieces(begun(&dir)?), &dir);
        let sum = |of: &dyn Fn(Range<usize>) -> usize| missing.iter().map(|piece| of(piece.clone())).sum::<usize>();
        let new_tokens = self.job.answering.as_ref().map_or(0, |answering| {
            let context = self.engine.spec().context;
            sum(&|piece| self.survey.room(piece, answering.max_new_tokens, context))
        });
        Ok(ToDo {
            done: self.range.len() - sum(&|piece| piece.len()),
            tokens: sum(&|piece| self.survey.tokens(piece)),
            new_tokens,
            memory: self.plan_longest(&missing)?,
        })
    }

    /// The pieces whose files are missing or cannot be read, such as truncated ones, are of other texts than the items have now, or lack
    /// what an earlier version did not write: these are made again.
    pub(super) fn missing(&self, pieces: &Pieces, dir: &Path) -> Vec<Range<usize>> {
        let whole = |piece: &Range<usize>| {
            let path = pieces::file(dir, piece);
            Npz::names_in(&path).is_ok_and(|names| names.iter().any(|name| name == RESPONSE_HASH))
                && self.survey.others_in(piece.clone(), &path).is_ok_and(|others| others.is_none())
        };
        pieces.iter().filter(|piece| !whole(piece)).collect()
    }

    /// How the items are cut: as they were when the capture was begun.
    pub(super) fn begun_pieces(&self, begun: Option<usize>) -> Pieces {
        match begun {
            Some(size) => Pieces::new(self.range.clone(), Some(size.max(1)), 0, None),
            None => self.pieces(),
        }
    }
}

pub(super) const COMMAND: &str = "capture";
pub(super) const PART_ITEMS: &str = "part_items";

/// What a capture still has to do.
pub(crate) struct ToDo {
    /// Items that are done.
    pub(crate) done: usize,
    /// Tokens of the others.
    pub(crate) tokens: usize,
    /// The most tokens that are generated after them.
    pub(crate) new_tokens: usize,
    /// The memory that this takes, if there is anything to do.
    pub(crate) memory: Option<MemoryPlan>,
}

fn longest_of(survey: &Survey, piece: &Range<usize>) -> Range<usize> {
    let longest = survey.longest(piece.clone());
    longest..longest + 1
}

/// What the model holds now. Refuses settings without meaning.
pub(super) fn held(engine: &Engine, options: &CaptureOptions<'_>) -> Result<MemoryPlan> {
    let request = CaptureRequest { plans: vec![HeadPlan::none()], memory: None, ..options.request() };
    Ok(engine.plan_capture(&[], &request, &|_| String::new())?)
}

/// The number of items per piece in a directory, if it was begun.
pub(super) fn begun(dir: &Path) -> Result<Option<usize>> {
    if !dir.join(MANIFEST).exists() {
        return Ok(None);
    }
    let size = Manifest::read(dir)?.fact(PART_ITEMS).and_then(serde_json::Value::as_u64);
    Ok(size.map(|size| size as usize))
}

/// What the numbers of a capture are made from.
fn parts_of(engine: &Engine, job: &CaptureJob<'_>, survey: &Survey) -> Parts {
    let options = job.options;
    let parts = Parts::of(engine.identity());
    // With many items, their number says more than the blocks that name them.
    let parts = if job.items.len() > survey.items.len() { parts.with("item_count", job.items.len()) } else { parts };
    let parts = if survey.raw { parts.with(Parts::RAW, true) } else { parts };
    let parts = parts
        .with("items", &survey.items)
        .with("labels", &survey.labels)
        .with("columns", job.items.columns())
        .with("plan", Blocks::list(&options.plan_names(), |_, name| name.clone()))
        .with("layers", &options.keep.layers)
        .with("heads", options.keep.heads.name())
        .with("last_n", options.keep.last_n)
        .with("logits", options.keep.logits)
        .with("pool", options.keep.pool.to_string());
    let parts = match options.keep.mean_layers {
        Some(k) => parts.with("mean_layers", k),
        None => parts,
    };
    match &job.answering {
        Some(answering) => parts.with("generated", answering.meta()),
        None => parts,
    }
}
