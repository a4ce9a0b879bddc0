//! A whole experiment, stage by stage: answers, judgement, attribution, sweep, report. What is finished is not done twice.

mod config;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicBool,
};

use headtemper_engine::{Encoded, Engine, HeadsWanted};
use headtemper_hook::HeadRef;
use serde_json::json;

use crate::{
    Arm, ArmsWanted, CaptureOptions, DispositionSpec, GoldRule, Grade, Grader, Item, ItemFacts, Parts, Progress,
    Result, Row, RowLog, RunDir, RunSummary, StudyError, SweepOptions, arms,
    attribute::{
        Controls, STATISTICS,
        items::{AttributeItems, ReadItems},
        results::{ATTRIBUTION_FILES, heads_per_layer, write_attribution, write_lambda},
    },
    attribution::Attribution,
    capture::{encode, prompts},
    head_set,
    heads::top,
    items::{answer::gold_warning, dispositions::LEAST},
    read_items,
    run::report::{RunReport, Swept},
    store::{
        digest::digest,
        files::{read_json, write_text},
    },
    sweep::{Answered, check_memory, files::write_outcomes, sweep},
};

pub use config::{AttributeConfig, Experiment, GenerateConfig, ItemsConfig, JudgeConfig, ModelConfig, SweepConfig};

/// An experiment under way.
struct Study<'a> {
    engine: &'a Engine,
    experiment: &'a Experiment,
    run: RunDir,
    key: String,
    log: RowLog,
    grader: Option<Grader>,
    stop: Option<&'a AtomicBool>,
    warnings: Vec<String>,
}

/// What the first stages of a run are made from. Another sweep or attribution may follow in the same directory.
fn parts_of(engine: &Engine, experiment: &Experiment, items: &[Item], grader: Option<&Grader>) -> Result<Parts> {
    let path = &experiment.items.path;
    let text = std::fs::read_to_string(path).map_err(StudyError::read(path))?;
    // As they stand in the file, line by line.
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let named: Vec<_> = items.iter().zip(lines).map(|(item, line)| (&item.id, digest(&line))).collect();
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
    Ok(parts)
}

/// Runs an experiment in a directory, or what is left of it to do.
///
/// # Errors
/// If a stage cannot be run, the directory belongs to another run, or the run is stopped: what is finished stays.
pub fn run(
    engine: &Engine,
    experiment: &Experiment,
    dir: &std::path::Path,
    stop: Option<&AtomicBool>,
    progress: &mut dyn Progress,
) -> Result<RunSummary> {
    experiment.check()?;
    let mut items = read_items(&experiment.items.path, experiment.items.raw)?;
    items.truncate(experiment.items.limit.unwrap_or(usize::MAX));
    if let Some(system) = &experiment.items.system {
        for item in &mut items {
            item.with_system(system)?;
        }
    }
    let read = |judge: &JudgeConfig| Grader::read(&judge.hedges).map(|read| read.with_gold(judge.gold));
    let grader = experiment.judge.as_ref().map(read).transpose()?;
    let parts = parts_of(engine, experiment, &items, grader.as_ref())?;
    // Every refusal comes before the first file.
    prompts(engine, &items)?;
    check_stages(engine, experiment, &items)?;
    // Labels are the items' own then, and known before anything is generated.
    if grader.is_none() {
        disposition_of(experiment)?.cohorts(&items, LEAST)?;
    } else {
        check_labels(experiment, &items)?;
    }
    if let Some(config) = &experiment.sweep {
        let slots = engine.spec().slots();
        let heads = match top_of(config)? {
            // Which ones is not known yet, but how many.
            Some(count) if (1..=slots.len()).contains(&count) => slots[..count].to_vec(),
            Some(_) => return Err(no_such_heads(config, &format!("the model has {} heads", slots.len()))),
            None => head_set(&config.heads, engine.spec())?,
        };
        arms_of(config, heads, &slots)?;
    }
    let key = parts.key();
    let mut run = RunDir::open(dir, "run", &parts, None, progress)?;
    write_text(&run.file("config.toml"), &experiment.to_toml())?;
    run.note("identity", engine.identity())?;
    let log = run.rows(progress)?;
    let warnings = grader.as_ref().and_then(|_| gold_warning(&items)).into_iter().collect();
    let mut study = Study { engine, experiment, run, key, log, grader, stop, warnings };

    let base = study.generate(&mut items, progress)?;
    let answered = study.answered(&items)?;
    let attribution = study.attribute(&answered, &base, progress)?;
    // All of the items: which answers the reference leaves empty is an outcome of the sweep.
    let swept = study.sweep(&items, &attribution, progress)?;
    let Study { run, mut warnings, .. } = study;
    warnings.extend(swept.as_ref().and_then(|swept| brought_otherwise(&items, &base, &swept.rows[0])));
    let report = RunReport { engine, experiment, run: &run, items: &items, answered: &answered, attribution, swept };
    report.write(warnings)
}

/// Refuses a label that no judge gives, and too few items bring themselves.
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

/// How an experiment generates.
fn sweep_options<'a>(
    experiment: &Experiment,
    engine: &Engine,
    stop: Option<&'a AtomicBool>,
) -> Result<SweepOptions<'a>> {
    let generate = &experiment.generate;
    Ok(SweepOptions {
        max_new_tokens: generate.max_new_tokens,
        sampling: generate.sampling.clone(),
        seeds: vec![generate.sampling.seed],
        ends: headtemper_engine::StopRule::Model,
        max_rows: generate.max_rows.unwrap_or_else(|| engine.rows_at_once()),
        memory: generate.memory_bytes()?,
        stop,
    })
}

/// How an experiment captures.
fn capture_options<'a>(
    engine: &Engine,
    experiment: &Experiment,
    stop: Option<&'a AtomicBool>,
) -> Result<CaptureOptions<'a>> {
    Ok(CaptureOptions {
        layers: (0..engine.spec().layers.len()).collect(),
        heads: HeadsWanted::Vector,
        last_n: experiment.attribute.last_n,
        memory: experiment.generate.memory_bytes()?,
        stop,
        ..CaptureOptions::default()
    })
}

/// Refuses items that do not fit the model, or what the stages do with them the memory: answers count as long as they
/// may become.
fn check_stages(engine: &Engine, experiment: &Experiment, items: &[Item]) -> Result<()> {
    let attribute = experiment.attribute.options(experiment.items.groups.as_deref())?;
    attribute.heads.check(&engine.spec().slots())?;
    attribute.check_fields(None, &items.iter().map(ItemFacts::of).collect::<Vec<_>>())?;
    let options = sweep_options(experiment, engine, None)?;
    let mut encoded = encode(engine, items)?;
    for (encoded, item) in encoded.iter_mut().zip(items) {
        if item.response.is_none() {
            let most = encoded.ids.len().saturating_add(options.max_new_tokens).min(engine.spec().context);
            encoded.ids.resize(most, 0);
        }
    }
    capture_options(engine, experiment, None)?.plan(engine, items, &encoded)?;
    let generated = items.iter().filter(|item| experiment.sweep.is_some() || item.response.is_none());
    let generated: Vec<Item> = generated.cloned().collect();
    check_memory(engine, &generated, &prompts(engine, &generated)?, &options)
}

impl Study<'_> {
    /// Answers where items bring none, and their labels. Returns the generated rows by item id.
    fn generate(&mut self, items: &mut [Item], progress: &mut dyn Progress) -> Result<BTreeMap<String, Row>> {
        let unanswered: Vec<Item> = items.iter().filter(|item| item.response.is_none()).cloned().collect();
        let options = sweep_options(self.experiment, self.engine, self.stop)?;
        let (mut rows, _) = sweep(self.engine, &unanswered, &[Arm::base()], &options, &mut self.log, progress)?;
        let rows: BTreeMap<String, Row> = rows.remove(0).into_iter().map(|row| (row.id.clone(), row)).collect();
        for item in items.iter_mut() {
            if let Some(row) = rows.get(&item.id) {
                item.response = Some(row.response.clone());
                item.other.insert("finish_reason".into(), json!(row.finish_reason));
            }
        }
        self.grade(items);
        Ok(rows)
    }

    /// Labels the answers of items with accepted answers, whatever label these bring.
    fn grade(&mut self, items: &mut [Item]) {
        let Some(grader) = &self.grader else { return };
        let (mut brought, mut replaced) = (0, 0);
        for item in items.iter_mut().filter(|item| !item.gold.is_empty()) {
            let Some(response) = &item.response else { continue };
            let label = grader.grade(response, &item.gold).label();
            let old = item.label.replace(label.into());
            brought += usize::from(old.is_some());
            replaced += usize::from(old.is_some_and(|old| old != label));
        }
        if replaced > 0 {
            self.warnings.push(format!(
                "{replaced} of {brought} labels that items with accepted answers bring are replaced by others: [judge] labels these \
                 items; without it, their own labels are kept"
            ));
        }
    }

    /// The items with something to read in their answers, which are written down as judged.
    fn answered(&mut self, items: &[Item]) -> Result<Vec<Item>> {
        let empty = |item: &&Item| item.response.as_ref().is_some_and(|response| response.trim().is_empty());
        let silent = items.iter().filter(empty).count();
        if silent > 0 {
            let none = if silent == 1 {
                "1 answer is empty and takes".into()
            } else {
                format!("{silent} answers are empty and take")
            };
            self.warnings.push(format!("{none} no part in the attribution"));
        }
        let answered: Vec<Item> = items.iter().filter(|item| !empty(item)).cloned().collect();
        write_text(&self.run.file("judged.jsonl"), &judged(&answered))?;
        Ok(answered)
    }

    /// Captures every answer and ranks the heads.
    fn attribute(
        &mut self,
        items: &[Item],
        base: &BTreeMap<String, Row>,
        progress: &mut dyn Progress,
    ) -> Result<Attribution> {
        let config = &self.experiment.attribute;
        let rows: Vec<&str> = base.values().map(|row| row.key.as_str()).collect();
        let key = digest(&(&self.key, config, &self.experiment.items.groups, rows, STATISTICS));
        let files: Vec<&str> = ["features.npz"].into_iter().chain(ATTRIBUTION_FILES).collect();
        if self.run.finished("attribute", &key, &files) {
            return read_json(&self.run.file("attribution.json"));
        }
        // An answer generated here is known by its tokens: only its prompt is encoded.
        let bare = |item: &Item| match base.get(&item.id) {
            Some(_) => Item { response: None, ..item.clone() },
            None => item.clone(),
        };
        let mut encoded = encode(self.engine, &items.iter().map(bare).collect::<Vec<_>>())?;
        for (i, item) in items.iter().enumerate() {
            if let Some(row) = base.get(&item.id) {
                // The very tokens, not what their text would be tokenised to.
                let mut ids = encoded[i].ids[..encoded[i].prompt_len].to_vec();
                ids.extend(&row.response_ids);
                encoded[i] = Encoded { ids, prompt_len: encoded[i].prompt_len };
            }
        }
        let options = capture_options(self.engine, self.experiment, self.stop)?;
        let spec = disposition_of(self.experiment)?;
        let cohorts = spec.cohorts(items, LEAST)?;
        let Controls { shuffled, random } = config.controls();
        let read = ReadItems::read(self.engine, (items, &encoded), &options, random, progress)?;
        let facts: Vec<ItemFacts> = items.iter().map(ItemFacts::of).collect();
        let work = AttributeItems {
            read: &read,
            facts: &facts,
            specs: std::slice::from_ref(&spec),
            cohorts: std::slice::from_ref(&cohorts),
            options: config.options(self.experiment.items.groups.as_deref())?,
            shuffled,
            stop: self.stop,
        };
        let attribution = work.attribute(&[], progress)?;
        write_attribution(&self.run, &attribution, &read.features)?;
        read.features.save(&self.run.file("features.npz"))?;
        self.run.finish("attribute", &key, json!({"items": items.len()}))?;
        Ok(attribution)
    }

    /// Generates under every arm.
    fn sweep(
        &mut self,
        items: &[Item],
        attribution: &Attribution,
        progress: &mut dyn Progress,
    ) -> Result<Option<Swept>> {
        let Some(config) = &self.experiment.sweep else { return Ok(None) };
        let arms = arms_of(config, self.swept(config, attribution)?, &self.engine.spec().slots())?;
        let options = sweep_options(self.experiment, self.engine, self.stop)?;
        let (rows, fired) = sweep(self.engine, items, &arms, &options, &mut self.log, progress)?;
        write_lambda(&self.run, &arms, &heads_per_layer(&self.engine.spec().slots()))?;
        let (grader, max_new_tokens) = (self.grader.as_ref(), options.max_new_tokens);
        let answered = Answered {
            items,
            groups: self.experiment.items.groups.as_deref(),
            arms: &arms,
            rows: &rows,
            grader,
            max_new_tokens,
        };
        let outcomes = write_outcomes(&self.run, &answered, &self.log)?;
        let key = digest(&(&self.key, config, &rows.iter().flatten().map(|row| &row.key).collect::<Vec<_>>()));
        self.run.finish("sweep", &key, json!({"rows": rows.iter().map(Vec::len).sum::<usize>(), "fired": fired}))?;
        Ok(Some(Swept { outcomes, arms, rows, fired }))
    }

    fn swept(&self, config: &SweepConfig, attribution: &Attribution) -> Result<Vec<HeadRef>> {
        match top_of(config)? {
            Some(count) => top(attribution, count).map_err(|why| no_such_heads(config, &why)),
            None => head_set(&config.heads, self.engine.spec()),
        }
    }
}

/// That responses which the items bring are not what the model answers in the sweep: the attribution reads those, and the sweep
/// compares with these.
fn brought_otherwise(items: &[Item], generated: &BTreeMap<String, Row>, reference: &[Row]) -> Option<String> {
    let answers: BTreeMap<&str, &str> = reference.iter().map(|row| (row.id.as_str(), row.response.as_str())).collect();
    let brought = items.iter().filter(|item| !generated.contains_key(&item.id));
    let brought: Vec<(&str, &str)> =
        brought.filter_map(|item| Some((answers.get(item.id.as_str()).copied()?, item.response.as_deref()?))).collect();
    let other = brought.iter().filter(|(answer, response)| answer.trim() != response.trim()).count();
    (other > 0).then(|| {
        format!(
            "{other} of {} responses that items bring are not what the model answers: the attribution is of those, and the sweep \
             of the model's own",
            brought.len()
        )
    })
}

/// The disposition of an experiment.
fn disposition_of(experiment: &Experiment) -> Result<DispositionSpec> {
    let config = &experiment.attribute;
    DispositionSpec::of_labels(&config.disposition, &config.a, &config.b)
}

/// How many of the run's own top heads are swept, if it is those; `top:k@file` names another run's.
fn top_of(config: &SweepConfig) -> Result<Option<usize>> {
    match config.heads.strip_prefix("top:") {
        Some(count) if !count.contains('@') => {
            count.parse().map(Some).map_err(|_| no_such_heads(config, "k is no number"))
        }
        _ => Ok(None),
    }
}

fn arms_of(config: &SweepConfig, heads: Vec<HeadRef>, slots: &[HeadRef]) -> Result<Vec<Arm>> {
    let sets: Vec<Vec<HeadRef>> =
        if config.each { heads.into_iter().map(|at| vec![at]).collect() } else { vec![heads] };
    let SweepConfig { random_sets, random_seed, random_from, .. } = *config;
    let positions = config.positions.parse()?;
    let lambdas = &config.lambdas[..];
    arms(&ArmsWanted { sets: &sets, lambdas, random_sets, random_seed, random_from, positions }, slots)
}

fn no_such_heads(config: &SweepConfig, why: &str) -> StudyError {
    StudyError::option(
        "[sweep] heads",
        format!("'{}' ({why})", config.heads),
        "top:k, all, or a head list such as L7H6,L23H1",
    )
}

/// Items with their answers and labels, as `temper attribute` reads them.
fn judged(items: &[Item]) -> String {
    items.iter().map(|item| item.answered_json().to_string() + "\n").collect()
}
