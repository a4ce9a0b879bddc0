//! A causal map in a directory of its own: what is there is not computed again; whole, in shards, or merged.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use headtemper_engine::{Engine, check_lambdas};
use headtemper_hook::HeadRef;

use crate::{
    Item, ItemsFrom, Joined, Plan, Progress, Result, RunDir, RunSummary, Shard, Sharded, Shards, StudyError,
    cohorts_of,
    items::{cohort::labels, dispositions::LEAST, units::check_groups},
    score::{
        ScoreRow,
        plan::ScorePlan,
        results::{finish, write_results},
        row::fired_of,
        whole::Whole,
        work::Work,
    },
    significance::check_count,
};

/// What `temper score` is asked for.
pub struct ScoreRun<'a> {
    /// Where the items came from.
    pub from: ItemsFrom<'a>,
    /// A field that groups items: those with the same value are one unit of a comparison, as those of one prompt are.
    pub groups: Option<&'a str>,
    /// The heads, each tempered alone.
    pub heads: &'a [HeadRef],
    /// The factors.
    pub lambdas: &'a [f32],
    /// Labels of two cohorts to compare, a and b.
    pub contrast: Option<(&'a str, &'a str)>,
    /// Whether every cell is a forward pass of its own: the oracle.
    pub plain: bool,
    /// How often signs are flipped and labels shuffled for the nulls; 0 leaves them out.
    pub shuffles: usize,
    /// Seed of flips and shuffles.
    pub seed: u64,
    /// The most tokens that are read at once; fewer where memory is short. By default, what suits the device.
    pub batch_tokens: Option<usize>,
    /// The most memory to take in bytes; what the machine has available if none is given.
    pub memory: Option<u64>,
    /// Which part of the cells is computed here; all if none is given.
    pub shard: Option<Shard>,
    /// Set from outside, stops after the current pass.
    pub stop: Option<&'a AtomicBool>,
}

impl ScoreRun<'_> {
    /// Refuses settings and items that no heads of any model could be scored with, so that none has to be opened first.
    ///
    /// # Errors
    /// If a λ is listed twice, a number is 0, no item has the field that groups them, a cohort is too small, or an item has no response.
    pub fn check(&self, items: &[Item]) -> Result<()> {
        check_lambdas(self.lambdas)?;
        if self.batch_tokens == Some(0) {
            return Err(StudyError::option("batch_tokens", "0", "at least 1"));
        }
        check_count("shuffles", self.shuffles)?;
        check_groups(items, self.groups)?;
        if let Some((a, b)) = self.contrast {
            cohorts_of(&labels(items), a, b, LEAST)?;
        }
        items.iter().find(|item| item.is_silent()).map_or(Ok(()), |item| Err(self.silent(item)))
    }

    /// The error for an item without a response.
    pub(super) fn silent(&self, item: &Item) -> StudyError {
        let why = "has no response to score: give response, or input_ids with prompt_len";
        StudyError::content(self.from.path, format!("item '{}' {why}", item.id))
    }
}

/// Scores what is missing of a causal map or of its shard, and writes the numbers and the report of the whole. The whole is every
/// complete cell of the directory, whichever call scored it, so that p max is over all that was tried there.
///
/// # Errors
/// If an item has no response or does not fit the memory, a head does not exist, a cohort is too small, a shard would be
/// empty, the directory belongs to another run or is in use, or the run is stopped; what was computed until then is kept.
pub fn score_run(
    engine: &Engine,
    items: &[Item],
    settings: &ScoreRun<'_>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Sharded<RunSummary>> {
    // Every refusal comes before the first file.
    let work = Work::new(engine, items, settings)?;
    if let Some(note) = work.note() {
        progress.note(&note);
    }
    let mut run = RunDir::open(dir, "score", &work.parts, settings.shard, progress)?;
    run.note("identity", engine.identity())?;
    let mut log = run.rows::<ScoreRow>(progress)?;
    if settings.shard.is_some() {
        work.plan.save(&run)?;
        work.fill(&mut log, progress)?;
        let part = work.plan.keys[work.part.clone()].iter().filter_map(|key| log.get(key));
        finish(&mut run, &work.plan.plan, work.part.len(), &fired_of(part))?;
        return Ok(Sharded::Part { rows: work.part.len(), of: work.plan.keys.len() });
    }
    // What earlier calls left complete belongs to the map: it was looked at too.
    tell_others(Plan::of(dir), &work.plan, progress);
    let whole = Whole::of(&work.plan, &log);
    whole.plan.save(&run)?;
    work.fill(&mut log, progress)?;
    Ok(Sharded::Whole(write_results(&mut run, engine.identity(), &whole, &log)?))
}

/// Joins the shards of a causal map into the directory that the whole would have left, except for the order of its rows. Cells of
/// other calls, in the shards or already in the directory, are part of the map where they are complete.
///
/// # Errors
/// If they do not make up one map, or the directory belongs to another.
pub fn merge_score(out: &Path, shards: &[PathBuf], progress: &mut dyn Progress) -> Result<RunSummary> {
    let shards = Shards::open(shards)?;
    let Joined { plan, mut rows, others } = shards.join::<ScorePlan, ScoreRow>()?;
    plan.plan.check(plan.keys.len()).map_err(|why| StudyError::merge(format!("their plan: {why}")))?;
    rows.extend(others);
    let earlier = Plan::of(out);
    let (mut run, log, identity) = shards.gather(out, &plan, rows, progress)?;
    tell_others(earlier, &plan, progress);
    let whole = Whole::of(&plan, &log);
    whole.plan.save(&run)?;
    write_results(&mut run, &identity, &whole, &log)
}

/// Says if the last call in a directory had other labels: scores do not depend on them, but the contrast does.
fn tell_others(earlier: Option<Plan<ScorePlan>>, plan: &Plan<ScorePlan>, progress: &mut dyn Progress) {
    if earlier.is_some_and(|earlier| earlier.plan.labels != plan.plan.labels) {
        progress.note("note: other than in the last call here: the items' labels; all tables are made by those of now");
    }
}
