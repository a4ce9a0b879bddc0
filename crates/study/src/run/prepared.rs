//! What is known of an experiment before anything is generated or written: its items, what judges them, and every reason to refuse it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::AtomicBool,
};

use headtemper_engine::{Encoded, Engine, HeadsWanted, Keep, MemoryPlan};
use headtemper_hook::HeadRef;

use super::{AttributeConfig, Experiment, JudgeConfig, SweepConfig};
use crate::{
    Arm, ArmsWanted, CaptureOptions, DispositionSpec, GoldRule, Grade, Grader, Item, ItemFacts, Parts, Result, Row,
    RunDir, StudyError, SweepOptions, Taken, TopHeads, arms,
    attribute::{STATISTICS, results::ATTRIBUTION_FILES},
    attribution::Attribution,
    capture::{encode, prompts, prompts_of_some},
    check_arms, check_head_set, head_set,
    heads::top,
    items::{GRADING, dispositions::LEAST, file::read_with_lines},
    store::{digest::digest, files::read_json, rows::rows_in, rundir::was_finished},
    sweep::{
        check_reach,
        wanted::{Wanted, wanted},
        work::{Work, check_memory},
    },
};

/// An experiment that can be run.
pub(crate) struct Prepared<'a> {
    engine: &'a Engine,
    experiment: &'a Experiment,
    pub(crate) items: Vec<Item>,
    /// How many of the file's items these are.
    pub(super) taken: Taken,
    /// Labels the items that have accepted answers; without it, items bring their own labels.
    pub(super) grader: Option<Grader>,
    /// What identifies its directory.
    pub(crate) parts: Parts,
    /// The arms of the sweep, if there is one. Where the attribution is yet to choose the heads, only their number is known, and these
    /// heads stand in for them.
    pub(super) arms: Option<Vec<Arm>>,
    /// The items as they are captured, and the memory that this takes.
    texts: (Vec<Encoded>, MemoryPlan),
}

/// What is left to do of an experiment, at most.
pub(crate) struct ToDo {
    /// How many rows have been generated, and how many are missing.
    pub(crate) rows: (usize, usize),
    /// For the missing rows: tokens of their prompts, and tokens to be generated.
    pub(crate) tokens: (usize, usize),
    /// The memory that the missing rows take; none if no row is missing.
    pub(crate) memory: Option<MemoryPlan>,
    /// Tokens that the attribution reads, and the memory that it takes; none if the attribution is finished.
    pub(crate) capture: Option<(usize, MemoryPlan)>,
}

/// What the files of an experiment hold, as far as no model is needed to know that it can be run.
struct Files {
    items: Vec<Item>,
    /// The items' lines as they stand in the file.
    lines: Vec<String>,
    taken: Taken,
    grader: Option<Grader>,
}

impl Files {
    fn read(experiment: &Experiment) -> Result<Self> {
        experiment.check()?;
        let (items, lines, taken) = read_with_lines(&experiment.items.path, &experiment.items.read_as())?;
        let read = |judge: &JudgeConfig| Grader::read(&judge.hedges).map(|read| read.with_gold(judge.gold));
        let grader = experiment.judge.as_ref().map(read).transpose()?;
        if grader.is_some() {
            let mut labelled = items.iter().filter(|item| !item.gold.is_empty());
            labelled.try_for_each(|item| item.check_text("[judge] labels it"))?;
        }
        let attribute = experiment.attribute.options(experiment.items.groups.as_deref())?;
        attribute.check_fields(None, &items.iter().map(ItemFacts::of).collect::<Vec<_>>())?;
        // Without a grader, labels are the items' own, and known before anything is generated.
        if grader.is_none() {
            let disposition = disposition_of(experiment)?;
            disposition.check_fields(&items)?;
            disposition.cohorts(&items, LEAST)?;
        } else {
            check_labels(experiment, &items)?;
        }
        if let Some(config) = &experiment.sweep {
            check_arms(&config.lambdas, config.random_sets)?;
            match top_of(config)? {
                Some(top) if top.count == 0 => return Err(no_such_heads(config, "that is none")),
                Some(_) => {}
                None => check_head_set(&config.heads)?,
            }
        }
        Ok(Self { items, lines, taken, grader })
    }
}

/// Refuses an experiment that no model could run, so that none has to be opened first: its own contradictions, and what is wrong with the
/// files that it names.
///
/// # Errors
/// The error names the key or the file.
pub fn check_experiment(experiment: &Experiment) -> Result<()> {
    Files::read(experiment).map(drop)
}

impl<'a> Prepared<'a> {
    /// Reads the files that an experiment names.
    ///
    /// # Errors
    /// If a file cannot be read, the experiment contradicts itself, its items or its model, or memory is short.
    pub(crate) fn new(engine: &'a Engine, experiment: &'a Experiment) -> Result<Self> {
        let Files { items, lines, taken, grader } = Files::read(experiment)?;
        let parts = parts_of(engine, experiment, (&items, &lines), grader.as_ref());
        let prompts = prompts(engine, &items)?;
        let texts = texts_of(engine, experiment, &items)?;
        check_stages(engine, experiment, &items)?;
        let arms = experiment.sweep.as_ref().map(|config| {
            let slots = engine.spec().slots();
            let heads = match top_of(config)? {
                Some(top) if (1..=slots.len()).contains(&top.count) => slots[..top.count].to_vec(),
                Some(_) => return Err(no_such_heads(config, &format!("the model has {} heads", slots.len()))),
                None => head_set(&config.heads, engine.spec())?,
            };
            arms_of(config, heads, &slots)
        });
        let arms = arms.transpose()?;
        if let Some(arms) = &arms {
            let options = sweep_options(experiment, None)?;
            check_reach(engine, arms, &wanted(engine, &items, &prompts, arms, &options))?;
        }
        Ok(Self { engine, experiment, items, taken, grader, parts, arms, texts })
    }

    /// Whether a directory holds a finished attribution of these settings and of the answers that are there.
    fn attributed(&self, dir: &Path, there: &BTreeMap<String, Row>) -> Result<bool> {
        let Self { engine, experiment, .. } = *self;
        let unanswered: Vec<Item> = self.items.iter().filter(|item| !item.is_answered()).cloned().collect();
        let options = answer_options(experiment, None)?;
        let rows = wanted(engine, &unanswered, &prompts_of_some(engine, &unanswered)?, &[Arm::base()], &options);
        let rows: Option<Vec<&Row>> = rows.iter().map(|row| there.get(&row.key)).collect();
        let Some(mut rows) = rows else { return Ok(false) };
        rows.sort_by(|one, other| one.id.cmp(&other.id));
        let key = attribution_key(&self.parts.key(), experiment, &rows);
        Ok(was_finished(dir, "attribute", &key, &ATTRIBUTED))
    }

    /// What is left to do in a directory. A finished attribution is not repeated, and its heads are those of the sweep.
    ///
    /// # Errors
    /// If the directory belongs to another run, or a file in it cannot be read.
    pub(crate) fn to_do(&self, dir: &Path) -> Result<ToDo> {
        let Self { engine, experiment, .. } = *self;
        RunDir::check(dir, "run", &self.parts, None)?;
        let attribution = dir.join("attribution.json");
        let there = rows_in::<Row>(dir)?;
        let attributed = self.attributed(dir, &there)?;
        let arms = match (&experiment.sweep, &self.arms) {
            (Some(config), Some(_)) if attributed => {
                let heads = swept(config, &read_json(&attribution)?, engine)?;
                arms_of(config, heads, &engine.spec().slots())?
            }
            (_, Some(arms)) => arms.clone(),
            _ => vec![Arm::base()],
        };
        let generated = self.items.iter().filter(|item| self.arms.is_some() || !item.is_answered());
        let generated: Vec<Item> = generated.cloned().collect();
        let options = sweep_options(experiment, None)?;
        let texts = prompts_of_some(engine, &generated)?;
        let mut all = wanted(engine, &generated, &texts, &arms, &options);
        // The answers that are attributed may be of another seed than those of the sweep.
        let swept: BTreeSet<String> = all.iter().map(|row| row.key.clone()).collect();
        let answers = wanted(engine, &generated, &texts, &[Arm::base()], &answer_options(experiment, None)?);
        let further = |row: &Wanted| !generated[row.item].is_answered() && !swept.contains(&row.key);
        all.extend(answers.into_iter().filter(further));
        let missing: Vec<_> = all.iter().filter(|row| !there.contains_key(&row.key)).collect();
        let work = Work::of(engine, &generated, &arms, &missing, &options)?;
        let prompt_tokens = work.requests.iter().map(|request| request.ids.len()).sum();
        let (texts, memory) = &self.texts;
        let read: usize = texts.iter().map(|text| text.ids.len()).sum();
        // The control with random weights reads them once more.
        let times = 1 + usize::from(experiment.attribute.controls().random.is_some());
        Ok(ToDo {
            rows: (all.len() - missing.len(), missing.len()),
            tokens: (prompt_tokens, work.most_new_tokens(engine)),
            memory: work.memory,
            capture: (!attributed).then(|| (times * read, memory.clone())),
        })
    }
}

/// Hash of what an attribution is made from: the run, its settings, the answers generated for it, ordered by item id, and the rules by
/// which they are graded and compared. A row that was made again, on a device that rounds otherwise beside other rows, may be another answer.
pub(super) fn attribution_key(run: &str, experiment: &Experiment, rows: &[&Row]) -> String {
    // How large cohorts must be for the experiment to count is asked of the attribution, and no part of it.
    let attribute = AttributeConfig { min_cohort: 0, ..experiment.attribute.clone() };
    let rows: Vec<_> = rows.iter().map(|row| (&row.key, &row.response_ids, row.finish_reason)).collect();
    digest(&(run, &attribute, &experiment.items.groups, rows, STATISTICS, GRADING))
}

/// The files that a finished attribution leaves.
pub(super) const ATTRIBUTED: [&str; 4] =
    [ATTRIBUTION_FILES[0], ATTRIBUTION_FILES[1], ATTRIBUTION_FILES[2], "features.npz"];

/// What the first stages of a run are made from: of the items, their lines as they stand in the file. Another sweep or attribution may
/// follow in the same directory.
fn parts_of(
    engine: &Engine,
    experiment: &Experiment,
    (items, lines): (&[Item], &[String]),
    grader: Option<&Grader>,
) -> Parts {
    let named: Vec<_> = items.iter().zip(lines).map(|(item, line)| (&item.id, digest(line))).collect();
    let mut parts = Parts::of(engine.identity())
        .with("items", named)
        .with("raw", experiment.items.raw)
        .with("sampling", &experiment.generate.sampling)
        .with("max_new_tokens", experiment.generate.max_new_tokens);
    if let Some(system) = &experiment.items.system {
        parts = parts.with("system", system);
    }
    if let Some(grader) = grader {
        parts = parts.with("hedges", grader);
        let gold = experiment.judge.as_ref().map(|config| config.gold).unwrap_or_default();
        if gold != GoldRule::default() {
            parts = parts.with("gold", gold);
        }
    }
    parts
}

/// Refuses a cohort label that too few items can have, whether a judge gives it or the items bring it.
fn check_labels(experiment: &Experiment, items: &[Item]) -> Result<()> {
    let attribute = &experiment.attribute;
    for (key, label) in [("a", &attribute.a), ("b", &attribute.b)] {
        let judged = Grade::of_label(label).is_some();
        let may_be = |item: &&Item| if item.gold.is_empty() { item.label.as_ref() == Some(label) } else { judged };
        let found = items.iter().filter(may_be).count();
        if found < LEAST {
            let brought: BTreeSet<&str> =
                items.iter().filter(|item| item.gold.is_empty()).filter_map(|item| item.label.as_deref()).collect();
            let own: String = brought.iter().map(|label| format!(", {label}")).collect();
            return Err(StudyError::option(
                format!("[attribute] {key}"),
                format!("'{label}', which {found} of {} items can come to have, where {LEAST} are needed", items.len()),
                format!("a label of judged answers (cr, cw, hr, hw; of items with gold) or of items without gold{own}"),
            ));
        }
    }
    Ok(())
}

/// The texts of the items as they are captured, and the memory that this takes. Items without a response count as long as they may become.
///
/// # Errors
/// If an item does not fit the model, or its stages do not fit the memory; the error names the item.
fn texts_of(engine: &Engine, experiment: &Experiment, items: &[Item]) -> Result<(Vec<Encoded>, MemoryPlan)> {
    let most_new_tokens = experiment.generate.max_new_tokens;
    let mut encoded = encode(engine, items)?;
    for (encoded, item) in encoded.iter_mut().zip(items) {
        if !item.is_answered() {
            let most = encoded.ids.len().saturating_add(most_new_tokens).min(engine.spec().context);
            encoded.ids.resize(most, 0);
        }
    }
    let memory = capture_options(engine, experiment, None)?.plan(engine, items, &encoded)?;
    Ok((encoded, memory))
}

/// Refuses what the stages cannot do with these items.
fn check_stages(engine: &Engine, experiment: &Experiment, items: &[Item]) -> Result<()> {
    experiment.attribute.heads.check(&engine.spec().slots())?;
    let options = sweep_options(experiment, None)?;
    let generated = items.iter().filter(|item| experiment.sweep.is_some() || !item.is_answered());
    let generated: Vec<Item> = generated.cloned().collect();
    check_memory(engine, &generated, &prompts_of_some(engine, &generated)?, &options)
}

/// How the arms of an experiment's sweep answer.
pub(super) fn sweep_options<'a>(experiment: &Experiment, stop: Option<&'a AtomicBool>) -> Result<SweepOptions<'a>> {
    let options = answer_options(experiment, stop)?;
    match &experiment.sweep {
        Some(sweep) if !sweep.seeds.is_empty() => Ok(SweepOptions { seeds: sweep.seeds.clone(), ..options }),
        _ => Ok(options),
    }
}

/// How the answers that an experiment attributes are generated.
pub(super) fn answer_options<'a>(experiment: &Experiment, stop: Option<&'a AtomicBool>) -> Result<SweepOptions<'a>> {
    let generate = &experiment.generate;
    Ok(SweepOptions {
        max_new_tokens: generate.max_new_tokens,
        sampling: generate.sampling.clone(),
        seeds: vec![generate.sampling.seed],
        ends: headtemper_engine::StopRule::Model,
        max_rows: generate.max_rows,
        memory: generate.memory_bytes()?,
        stop,
    })
}

/// How an experiment captures.
pub(super) fn capture_options<'a>(
    engine: &Engine,
    experiment: &Experiment,
    stop: Option<&'a AtomicBool>,
) -> Result<CaptureOptions<'a>> {
    Ok(CaptureOptions {
        keep: Keep {
            layers: (0..engine.spec().layers.len()).collect(),
            heads: HeadsWanted::Vector,
            last_n: experiment.attribute.last_n,
            ..Keep::default()
        },
        memory: experiment.generate.memory_bytes()?,
        stop,
        ..CaptureOptions::default()
    })
}

/// The disposition of an experiment.
pub(super) fn disposition_of(experiment: &Experiment) -> Result<DispositionSpec> {
    let config = &experiment.attribute;
    DispositionSpec::of_labels(&config.disposition, &config.a, &config.b)
}

/// Which of the run's own top heads are swept, if the sweep is over those; `top:k@file` names another run's.
pub(super) fn top_of(config: &SweepConfig) -> Result<Option<TopHeads>> {
    match config.heads.strip_prefix("top:") {
        Some(top) if !top.contains('@') => top.parse().map(Some).map_err(|why: String| no_such_heads(config, &why)),
        _ => Ok(None),
    }
}

/// The heads of a sweep: those that it names, or the top ones of an attribution.
///
/// # Errors
/// If the attribution has fewer heads, or the model has no such heads.
pub(super) fn swept(config: &SweepConfig, attribution: &Attribution, engine: &Engine) -> Result<Vec<HeadRef>> {
    match top_of(config)? {
        Some(heads) => top(attribution, heads).map_err(|why| no_such_heads(config, &why)),
        None => head_set(&config.heads, engine.spec()),
    }
}

pub(super) fn arms_of(config: &SweepConfig, heads: Vec<HeadRef>, slots: &[HeadRef]) -> Result<Vec<Arm>> {
    let sets: Vec<Vec<HeadRef>> =
        if config.each { heads.into_iter().map(|at| vec![at]).collect() } else { vec![heads] };
    let SweepConfig { random_sets, random_seed, random_from, positions, .. } = *config;
    let lambdas = &config.lambdas[..];
    arms(&ArmsWanted { sets: &sets, lambdas, random_sets, random_seed, random_from, positions }, slots)
}

fn no_such_heads(config: &SweepConfig, why: &str) -> StudyError {
    StudyError::option(
        "[sweep] heads",
        format!("'{}' ({why})", config.heads),
        "top:k, top:k:direction, all, or a head list such as L7H6,L23H1",
    )
}
