//! Captures of data sets of any size: made in pieces, each written whole, and joined at the end.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use headtemper_engine::{CaptureRequest, Engine, EngineError, Fired, MemoryPlan};
use headtemper_hook::{HeadRef, check_fired};

use super::{
    Answering, CaptureOptions, GeneratedVsForced, WrittenAnswers,
    answers::write_answers,
    empty,
    generated::{READ_AGAIN, write_texts},
    pieces::{self, Pieces, WHOLE},
    prepared::{COMMAND, PART_ITEMS, Prepared, begun, held},
    read_texts,
};
use crate::{
    Array, FeatureMeta, ItemFile, Npz, Progress, Result, RunDir, Shard, StudyError,
    capture::{
        features::PieceMeta,
        join::{join, read_meta},
    },
    items::{answer::cut_off, columns::FINISH_REASON, thought::Thoughts},
    progress::Lengths,
    store::files::{followed, missing_dir, names_a_directory},
    text::count,
};

/// What is captured, and where it goes.
pub struct CaptureJob<'a> {
    /// The items.
    pub items: &'a ItemFile,
    /// What is kept of each item, and how much is read at once.
    pub options: &'a CaptureOptions<'a>,
    /// How the model answers, if it writes the responses itself: features are then read during those passes.
    pub answering: Option<Answering>,
    /// The part of the items to capture; all if none is given.
    pub shard: Option<Shard>,
    /// Items per piece; if none is given, so many that a piece takes little memory.
    pub part_items: Option<usize>,
    /// The `.npz` to write.
    pub out: &'a Path,
    /// A file of items to write as well: these, with the answers that the model wrote.
    pub answers: Option<&'a Path>,
}

impl CaptureJob<'_> {
    /// Refuses what no model could do, so that none has to be opened first.
    ///
    /// # Errors
    /// If a setting has no meaning, a file could not be written, or a shard would be empty.
    pub fn check(&self) -> Result<()> {
        self.options.keep.check_alone()?;
        self.answering.as_ref().map_or(Ok(()), Answering::check)?;
        if self.part_items == Some(0) {
            return Err(StudyError::option("--part-items", "0", "at least 1"));
        }
        if names_a_directory(self.out) {
            return Err(StudyError::option("--out", format!("{}, a directory", self.out.display()), "a .npz file"));
        }
        let file = followed(self.out);
        if file != self.out && missing_dir(self.out).is_some() {
            let found = format!("a link to {}, whose directory is not there", file.display());
            return Err(StudyError::option("--out", found, "a file that can be written"));
        }
        self.check_answers()?;
        self.range().map(drop)
    }

    /// The items that are captured: all, or those of the shard.
    pub(super) fn range(&self) -> Result<Range<usize>> {
        let n = self.items.len();
        self.shard.map_or(Ok(0..n), |shard| shard.range_of(n, "items"))
    }
}

/// A capture that is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Captured {
    /// Items in the file.
    pub items: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Layers of `h_layers`.
    pub layers: usize,
    /// How many tokens planned heads were applied to, summed over heads; `None` where the file was there already.
    pub fired_tokens: Option<u64>,
    /// How many responses that the model wrote were cut off at the limit of tokens.
    pub truncated: Option<usize>,
    /// What reading such responses again gives.
    pub generated_vs_forced: Option<GeneratedVsForced>,
    /// What the file of answers holds, if one was asked for.
    pub answers: Option<WrittenAnswers>,
}

/// Captures the items of a file, or of its shard, piece by piece: the memory does not grow with their number.
///
/// Pieces lie in `OUT.npz.parts` until all are there, and are then joined to `OUT.npz`. A capture that was stopped or killed goes
/// on with the first missing piece. Where the file is there already, made from the same inputs, nothing is done.
///
/// # Errors
/// If an item or a plan does not fit the model, or memory is short: before anything is written. If the file or the
/// directory of pieces belongs to another capture, naming what differs. If a planned head never fired, activations are
/// not numbers, files cannot be written, or the run is stopped.
pub fn capture_file(engine: &Engine, job: &CaptureJob<'_>, progress: &mut dyn Progress) -> Result<Captured> {
    let prepared = Prepared::new(engine, job, progress)?;
    let dir = pieces::dir_of(job.out);
    let done = |fired_tokens, generated_vs_forced| -> Result<Captured> {
        let (d_model, layers) = (engine.spec().d_model, job.options.keep.layers.len());
        let truncated = truncated(job.out)?;
        let thoughts = Thoughts::of(engine);
        let answers = job.answers.map(|path| write_answers(job, &prepared.range, thoughts, path)).transpose()?;
        let items = prepared.range.len();
        Ok(Captured { items, d_model, layers, fired_tokens, truncated, generated_vs_forced, answers })
    };
    if let Some(meta) = prepared.existing()? {
        progress.begin(COMMAND, prepared.items(), prepared.items());
        progress.end();
        if dir.exists() {
            // Left by a run that was killed between its last two steps.
            let run = RunDir::open(&dir, COMMAND, &prepared.parts, job.shard, progress)?;
            run.discard(&prepared.begun_pieces(begun(&dir)?).files(&dir))?;
        }
        return done(None, meta.generated_vs_forced);
    }
    RunDir::check(&dir, COMMAND, &prepared.parts, job.shard)?;
    let missing = prepared.missing(&prepared.begun_pieces(begun(&dir)?), &dir);
    // Every refusal comes before the first file.
    let memory = prepared.plan_longest(&missing)?;
    let mut run = RunDir::open(&dir, COMMAND, &prepared.parts, job.shard, progress)?;
    let pieces = begin(&mut run, &dir, &prepared, progress)?;
    let files = pieces.files(&dir);
    let own: Vec<PathBuf> = files.iter().cloned().chain([run.file(WHOLE)]).collect();
    match fill(&prepared, &pieces, &dir, memory.as_ref(), progress) {
        Ok(()) => {}
        Err(e) => {
            let kept: usize =
                prepared.items() - prepared.missing(&pieces, &dir).iter().map(ExactSizeIterator::len).sum::<usize>();
            if !files.iter().any(|file| file.exists()) {
                let _ = run.discard(&own); // the first error is the one to report
            } else if kept > 0 {
                let (of, dir) = (prepared.items(), dir.display());
                progress.note(&format!("note: {kept} of {of} items are kept in {dir}; the same command goes on"));
            }
            return Err(e);
        }
    }
    let (meta, fired) = match prepared.check(&pieces, &files) {
        Err(e @ StudyError::Engine(_)) => {
            let _ = run.discard(&own); // a planned head never fired: nothing here can become a result
            return Err(e);
        }
        checked => checked.inspect_err(|e| give_up_damaged(e, &files, &dir, progress))?,
    };
    let whole = run.file(WHOLE);
    let joined = join(&whole, &files, &meta).inspect_err(|e| give_up_damaged(e, &files, &dir, progress))?;
    if joined != prepared.items() {
        return Err(StudyError::content(&whole, format!("holds {joined} of {} items", prepared.items())));
    }
    std::fs::rename(&whole, followed(job.out)).map_err(StudyError::write(job.out))?;
    run.discard(&own)?;
    done(Some(fired), meta.generated_vs_forced)
}

/// How the items of a directory are cut into pieces: as when it was begun, or as asked for now.
fn begin(run: &mut RunDir, dir: &Path, prepared: &Prepared<'_>, progress: &mut dyn Progress) -> Result<Pieces> {
    let begun = begun(dir)?;
    let pieces = prepared.begun_pieces(begun);
    match (begun, prepared.job.part_items) {
        (None, _) => run.note(PART_ITEMS, pieces.size())?,
        (Some(size), Some(asked)) if size != asked => {
            progress.note(&format!("note: it goes on in parts of {size} items, as it was begun"));
        }
        _ => {}
    }
    Ok(pieces)
}

/// Makes every piece that is missing.
fn fill(
    prepared: &Prepared<'_>,
    pieces: &Pieces,
    dir: &Path,
    memory: Option<&MemoryPlan>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let missing = prepared.missing(pieces, dir);
    let again = missing.iter().filter(|piece| pieces::file(dir, piece).exists()).count();
    if again > 0 {
        let parts = count(again, "part");
        progress.note(&format!("note: {parts} made again: damaged, or of other texts than the items have now"));
    }
    let left: usize = missing.iter().map(ExactSizeIterator::len).sum();
    if let Some(memory) = memory {
        progress.note(&format!("memory     {memory}"));
    }
    progress.begin(COMMAND, prepared.items(), prepared.items() - left);
    let to_do = |of: &dyn Fn(Range<usize>) -> usize| missing.iter().map(|piece| of(piece.clone())).sum::<usize>();
    let mut lengths = Lengths::up_to(0, 0);
    match &prepared.job.answering {
        None => progress.expect(to_do(&|piece| prepared.survey.tokens(piece))),
        Some(answering) => {
            let context = prepared.engine.spec().context;
            let most = to_do(&|piece| prepared.survey.room(piece, answering.max_new_tokens, context));
            lengths = Lengths::up_to(left, most);
            lengths.tell(progress);
        }
    }
    if let Some(memory) = memory {
        for piece in &missing {
            prepared.make(piece, &pieces::file(dir, piece), memory, &mut lengths, progress)?;
        }
    }
    progress.end();
    Ok(())
}

impl Prepared<'_> {
    /// Reads the items of one piece, or lets the model answer them, and writes its file.
    fn make(
        &self,
        piece: &Range<usize>,
        path: &Path,
        first: &MemoryPlan,
        lengths: &mut Lengths,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let (items, encoded) = self.survey.read(self.engine, self.job, piece.clone())?;
        let options = self.options(piece.clone());
        // What the allocator keeps of earlier pieces is used again, so it must not count twice.
        let kept = held(self.engine, &options)?.held.saturating_sub(self.start.held);
        let memory = first.limit.map(|limit| limit + kept);
        let mut features = empty(self.engine, &items, &encoded, &options, self.job.items.columns());
        let (fired, measured) = match &self.job.answering {
            None => {
                let partial = options.plans.len() == 1;
                let request =
                    CaptureRequest { batch_tokens: Some(first.step_tokens), memory, partial, ..options.request() };
                (read_texts(self.engine, &items, &encoded, &request, &mut features, progress)?, None)
            }
            Some(answering) => {
                let again = READ_AGAIN.saturating_sub(piece.start).min(items.len());
                let settings = self.settings(memory, first.rows.max(1));
                let (texts, how) = ((&items[..], &encoded[..]), (answering, &options));
                let told = (lengths, progress);
                let (fired, measured) = write_texts(self.engine, texts, how, &settings, again, &mut features, told)?;
                (fired, Some(measured))
            }
        };
        features.meta.plan = Vec::new(); // it is the whole capture's, and the joined file has it
        features.meta.generated_vs_forced = measured;
        features.meta.piece = Some(PieceMeta {
            from: piece.start,
            to: piece.end,
            fired: if options.plans.len() == 1 { by_name(&fired) } else { BTreeMap::new() },
            fired_tokens: fired.iter().flat_map(BTreeMap::values).sum(),
        });
        features.save(path)
    }

    /// What the whole file says of itself, after a check that each piece holds its items, and how often planned heads fired in all
    /// of them.
    fn check(&self, pieces: &Pieces, files: &[PathBuf]) -> Result<(FeatureMeta, u64)> {
        let (mut whole, mut fired, mut tokens): (Option<FeatureMeta>, BTreeMap<String, u64>, u64) = Default::default();
        for (piece, path) in pieces.iter().zip(files) {
            let meta = read_meta(path)?;
            let own = meta.piece.clone().filter(|own| (own.from, own.to) == (piece.start, piece.end));
            let others = self.survey.others_in(piece.clone(), path)?;
            let Some(own) = own.filter(|_| others.is_none()) else {
                let why = others.unwrap_or_else(|| "it holds other items than its name says".into());
                return Err(StudyError::content(path, format!("{why}; remove it, and run the same command again")));
            };
            for (at, count) in own.fired {
                *fired.entry(at).or_default() += count;
            }
            tokens += own.fired_tokens;
            whole = Some(match whole {
                None => self.meta(meta),
                Some(whole) => whole.measured_with(&meta),
            });
        }
        let mut whole = whole.expect("a capture has a piece at least");
        whole.fired = None;
        if let [plan] = &self.job.options.plans[..]
            && !plan.is_empty()
        {
            let fired: Vec<(HeadRef, u64)> =
                plan.iter().map(|(at, _)| (at, fired.get(&at.to_string()).copied().unwrap_or(0))).collect();
            whole.fired = Some(fired.iter().map(|(at, count)| (at.to_string(), *count)).collect());
            // A shard may hold no token that the plan touches; merging all shards checks again.
            if self.job.shard.is_none() {
                check_fired(std::slice::from_ref(plan), &[fired.into_iter().collect()]).map_err(EngineError::from)?;
            }
        }
        Ok((whole, tokens))
    }
}

/// Removes the pieces that cannot be read, if what they hold is what went wrong: the same command makes them again. An error that compares
/// two pieces does not say which of them is to blame, so every one is read.
fn give_up_damaged(e: &StudyError, files: &[PathBuf], dir: &Path, progress: &mut dyn Progress) {
    if !matches!(e, StudyError::Content { .. }) {
        return;
    }
    let damaged = |file: &&PathBuf| matches!(Npz::check_whole(file), Err(StudyError::Content { .. }));
    let removed = files.iter().filter(damaged).filter(|file| std::fs::remove_file(file).is_ok()).count();
    if removed > 0 {
        progress.note(&format!(
            "note: {} removed; the same command makes what is missing again",
            count(removed, "damaged part")
        ));
    } else {
        progress
            .note(&format!("note: no part is damaged by itself; without {} the capture begins anew", dir.display()));
    }
}

/// How many responses of a capture were cut off, if the model wrote them.
fn truncated(path: &Path) -> Result<Option<usize>> {
    Ok(match Npz::find_array(path, FINISH_REASON)? {
        Some(Array::Text(reasons)) => Some(reasons.iter().filter(|reason| cut_off(reason) == Some(true)).count()),
        _ => None,
    })
}

fn by_name(fired: &Fired) -> BTreeMap<String, u64> {
    fired.iter().flatten().map(|(at, &count)| (at.to_string(), count)).collect()
}
