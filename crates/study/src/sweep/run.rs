//! The verb `sweep`: a directory with a plan, the rows, and the tables made from both; whole, in shards, or merged.

use std::path::{Path, PathBuf};

use headtemper_engine::{Encoded, Engine, Identity, Sampling};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Arm, Grader, HookCounts, Item, ItemsFrom, Joined, JudgedAnswers, Parts, Plan, Predicate, Progress, Result, Row,
    RowLog, RunDir, Shard, Sharded, Shards, StudyError, SweepOptions,
    capture::{named_items, prompts},
    items::{answer::gold_warning, thought::Thoughts, units::check_groups},
    store::digest::digest,
    sweep::{
        Answered, check_reach,
        earlier::{Cell, remember, with_earlier},
        files::{RESULTS, write_lambda, write_outcomes, write_report},
        fired_by_arm, fired_of,
        outcome::Outcomes,
        wanted::{Wanted, is_default, wanted},
        work::{by_arm, check_memory, fill},
    },
    text::count,
};

/// What `temper sweep` is asked for.
pub struct SweepRun<'a> {
    /// The prompts.
    pub items: &'a [Item],
    /// Where they came from.
    pub from: ItemsFrom<'a>,
    /// The field whose values group items into units of a comparison, besides their prompts.
    pub groups: Option<&'a str>,
    /// The plans.
    pub arms: &'a [Arm],
    /// How to generate.
    pub options: &'a SweepOptions<'a>,
    /// How answers are judged, if they are.
    pub grader: Option<&'a Grader>,
    /// Which part of the rows is generated here; all rows if none is named.
    pub shard: Option<Shard>,
}

impl SweepRun<'_> {
    /// Every row of the whole sweep, and what rows of one directory share.
    ///
    /// # Errors
    /// If a setting is invalid, or an item does not fit the model or the memory.
    pub(crate) fn rows(&self, engine: &Engine) -> Result<(Vec<Wanted>, Parts)> {
        self.options.check()?;
        check_groups(self.items, self.groups)?;
        let prompts = prompts(engine, self.items)?;
        check_memory(engine, self.items, &prompts, self.options)?;
        let all = wanted(engine, self.items, &prompts, self.arms, self.options);
        check_reach(engine, self.arms, &all)?;
        Ok((all, parts_of(engine, self, &prompts)))
    }

    /// The rows that are generated here.
    ///
    /// # Errors
    /// If a shard would be empty.
    pub(crate) fn part<'w>(&self, all: &'w [Wanted]) -> Result<&'w [Wanted]> {
        self.shard.map_or(Ok(all), |shard| shard.part(all, "rows"))
    }
}

/// What the tables of a sweep are made from, besides its rows: the `plan` of its `plan.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SweepPlan {
    /// The name of the items' file; none in a plan of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// The condition by which they were chosen from it.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub(super) only: Option<Predicate>,
    /// The items, as in their file.
    pub(super) items: Vec<Value>,
    /// The field that they are grouped by.
    #[serde(default)]
    pub(super) groups: Option<String>,
    /// Whether prompts were read without the chat template.
    raw: bool,
    pub(crate) arms: Vec<Arm>,
    pub(super) seeds: Vec<u64>,
    pub(super) sampling: Sampling,
    pub(super) max_new_tokens: usize,
    pub(super) hedges: Option<Grader>,
    pub(super) heads_per_layer: Vec<usize>,
    /// Whether the chat template ends a prompt within a thought.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) prompts_open_thought: bool,
    /// What earlier calls in the directory asked for besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) elsewhere: Vec<Cell>,
}

impl SweepPlan {
    pub(crate) fn new(engine: &Engine, settings: &SweepRun<'_>) -> Self {
        // A run's items have answers by now. Some may be empty, which those in a file of items may not be.
        let asked = |item: &Item| match &item.response {
            Some(response) if response.trim().is_empty() => Item { response: None, ..item.clone() }.to_json(),
            _ => item.to_json(),
        };
        Self {
            file: Some(settings.from.file()),
            only: settings.from.only.cloned(),
            items: settings.items.iter().map(asked).collect(),
            groups: settings.groups.map(String::from),
            raw: settings.items.iter().any(Item::is_raw),
            arms: settings.arms.to_vec(),
            seeds: settings.options.seeds.clone(),
            sampling: settings.options.sampling.clone(),
            max_new_tokens: settings.options.max_new_tokens,
            hedges: settings.grader.cloned(),
            heads_per_layer: engine.spec().heads_per_layer(),
            prompts_open_thought: Thoughts::of(engine).by_prompt,
            elsewhere: Vec::new(),
        }
    }

    /// The same plan with other arms and seeds, and other ones elsewhere.
    pub(super) fn of(&self, arms: Vec<Arm>, seeds: Vec<u64>, elsewhere: Vec<Cell>) -> Self {
        Self { arms, seeds, elsewhere, ..self.clone() }
    }

    /// The items; an error if they are not valid items, or cannot have this many rows.
    pub(super) fn items(&self, rows: usize) -> std::result::Result<Vec<Item>, String> {
        let planned = self.arms.len() * self.seeds.len() * self.items.len();
        if planned != rows || rows == 0 {
            return Err(format!("its arms, seeds and items make {planned} rows, but it lists {rows}"));
        }
        let item = |(index, value): (usize, &Value)| match value {
            Value::Object(fields) => Item::of(fields.clone(), index + 1, self.raw),
            other => Err(format!("item {} is {other}, not an object", index + 1)),
        };
        self.items.iter().enumerate().map(item).collect()
    }

    /// The answers of the planned arms, `rows` arm by arm, to its items as they were parsed.
    pub(crate) fn answered<'a>(
        &'a self,
        items: &'a [Item],
        rows: &'a [Vec<Row>],
        judged: Option<&'a JudgedAnswers>,
    ) -> Answered<'a> {
        Answered {
            items,
            groups: self.groups.as_deref(),
            arms: &self.arms,
            rows,
            grader: self.hedges.as_ref(),
            judged,
            max_new_tokens: self.max_new_tokens,
            temperature: self.sampling.temperature,
            prompts_open_thought: self.prompts_open_thought,
        }
    }
}

/// What rows of one directory share: further λ and head sets may join them, another model or limit may not.
fn parts_of(engine: &Engine, settings: &SweepRun<'_>, prompts: &[Vec<u32>]) -> Parts {
    let encoded: Vec<Encoded> = prompts.iter().map(|ids| Encoded { ids: ids.clone(), prompt_len: ids.len() }).collect();
    let parts = Parts::of(engine.identity())
        .with_raw(settings.items)
        .with("items", named_items(settings.items, &encoded))
        .with("sampling", Sampling { seed: 0, ..settings.options.sampling.clone() })
        .with("max_new_tokens", settings.options.max_new_tokens);
    if is_default(&settings.options.ends) { parts } else { parts.with("ends", &settings.options.ends) }
}

/// Generates what is missing of a sweep or of its shard; a whole sweep also writes its outcomes.
///
/// # Errors
/// If a plan or prompt does not fit the model, a shard would be empty, the directory belongs to another run or is in
/// use, or the run is stopped.
pub fn sweep_run(
    engine: &Engine,
    settings: &SweepRun<'_>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Sharded<Outcomes>> {
    // Whatever must be refused is refused before the first file is written.
    let SweepRun { items, arms, options, shard, .. } = *settings;
    let (all, parts) = settings.rows(engine)?;
    let part = settings.part(&all)?;
    if let Some(warning) = gold_warning(items) {
        progress.note(&format!("warning: {warning}"));
    }
    let mut run = RunDir::open(dir, "sweep", &parts, shard, progress)?;
    run.note("identity", engine.identity())?;
    let mut log = run.rows(progress)?;
    let mut plan = Plan::new(all.iter().map(|w| w.key.clone()).collect(), SweepPlan::new(engine, settings));
    recall(&mut plan, dir, progress);
    if shard.is_none() {
        plan = joined(&plan, &log, progress);
    }
    plan.save(&run)?;
    fill(engine, (items, arms), part, options, &mut log, progress)?;
    if shard.is_some() {
        let fired = fired_of(part.iter().filter_map(|w| log.get(&w.key)));
        finish(&mut run, &plan.plan, part.len(), &fired)?;
        return Ok(Sharded::Part { rows: part.len(), of: all.len() });
    }
    Ok(Sharded::Whole(outcomes(&mut run, engine.identity(), (&plan, items), &log)?))
}

/// Joins the shards of a sweep into the directory that the whole sweep would have left, except for the order of its rows. Rows that earlier
/// calls left in the shards go with them, so that arms which were tried there are told.
///
/// # Errors
/// If they do not make up one run, or the directory belongs to another.
pub fn merge_sweep(out: &Path, shards: &[PathBuf], progress: &mut dyn Progress) -> Result<Outcomes> {
    let shards = Shards::open(shards)?;
    let Joined { mut plan, mut rows, others } = shards.join::<SweepPlan, Row>()?;
    // What else was tried in the shards.
    rows.extend(others);
    for dir in shards.dirs() {
        if let Some(shard) = Plan::of(dir) {
            remember(&mut plan, &shard);
        }
    }
    let items = plan.plan.items(plan.keys.len()).map_err(|why| StudyError::merge(format!("their plan: {why}")))?;
    recall(&mut plan, out, progress);
    let (mut run, log, identity) = shards.gather(out, &plan, rows, progress)?;
    let plan = joined(&plan, &log, progress);
    plan.save(&run)?;
    outcomes(&mut run, &identity, (&plan, &items), &log)
}

/// Keeps in a plan what earlier calls in its directory asked for, and tells what the tables will be made with that the last one did otherwise.
fn recall(plan: &mut Plan<SweepPlan>, dir: &Path, progress: &mut dyn Progress) {
    let Some(earlier) = Plan::<SweepPlan>::of(dir) else { return };
    let told = [
        (earlier.plan.items != plan.plan.items, "the items' fields (accepted answers, labels, others)"),
        (earlier.plan.hedges != plan.plan.hedges, "the lexicon"),
    ];
    for (_, what) in told.into_iter().filter(|(other, _)| *other) {
        progress.note(&format!("note: other than in the last call here: {what}; all tables are made by those of now"));
    }
    remember(plan, &earlier);
}

/// A plan together with what earlier calls have tried in its directory.
fn joined(plan: &Plan<SweepPlan>, log: &RowLog, progress: &mut dyn Progress) -> Plan<SweepPlan> {
    let (arms, seeds) = (plan.plan.arms.len(), plan.plan.seeds.len());
    let joined = with_earlier(plan, log);
    let more = [(joined.plan.arms.len() - arms, "arm"), (joined.plan.seeds.len() - seeds, "seed")];
    let told: Vec<String> = more.iter().filter(|(n, _)| *n > 0).map(|&(n, one)| count(n, one)).collect();
    if !told.is_empty() {
        progress.note(&format!(
            "note: {} of earlier calls stand in the tables as well: p max is over all that was tried in this directory",
            told.join(" and ")
        ));
    }
    joined
}

/// Writes what a sweep leaves besides its rows.
fn outcomes(
    run: &mut RunDir,
    identity: &Identity,
    (plan, items): (&Plan<SweepPlan>, &[Item]),
    log: &RowLog,
) -> Result<Outcomes> {
    let Plan { keys, plan, .. } = plan;
    let rows = by_arm(log, keys, plan.arms.len());
    let fired = fired_by_arm((items, &plan.seeds), &plan.arms, &rows)?;
    // Those of an earlier call must not stand beside these, also if this call is killed in between.
    run.without("sweep", &RESULTS)?;
    write_lambda(run, &plan.arms, &plan.heads_per_layer, identity)?;
    let answered = plan.answered(items, &rows, None);
    let outcomes = write_outcomes(run, &answered, log.rows().values())?;
    finish(run, plan, log.len(), &fired)?;
    write_report(run, identity, plan, (&answered, &outcomes), &fired, None)?;
    Ok(outcomes)
}

fn finish(run: &mut RunDir, plan: &SweepPlan, rows: usize, fired: &HookCounts) -> Result<()> {
    let variants: Vec<&str> = plan.arms.iter().map(|arm| arm.variant.as_str()).collect();
    let notes = json!({"rows": rows, "variants": variants, "fired": fired});
    run.finish("sweep", &digest(&variants), &[], notes)
}
