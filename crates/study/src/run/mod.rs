//! A whole experiment, stage by stage: answers, judgement, attribution, sweep, report. Finished work is not repeated.

mod config;
mod prepared;
mod report;

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use headtemper_engine::{Encoded, Engine};
use serde_json::json;

use crate::{
    Arm, Grader, Item, ItemFacts, Plan, Progress, Result, Row, RowLog, RunDir, RunSummary,
    attribute::{
        Controls,
        items::{AttributeItems, ReadItems},
        results::write_attribution,
    },
    attribution::Attribution,
    capture::{encode_answered, encode_one},
    head_remarks,
    heads::top_remarks,
    items::{
        answer::gold_warning,
        dispositions::LEAST,
        thought::{Thoughts, told_thoughts},
    },
    run::{
        prepared::{
            ATTRIBUTED, answer_options, arms_of, attribution_key, capture_options, disposition_of, sweep_options,
            swept, top_of,
        },
        report::{REPORTS, RunReport, Swept},
    },
    store::{
        digest::digest,
        files::{read_json, write_text},
    },
    sweep::{
        SweepRun,
        files::{SWEEP_FILES, write_lambda, write_outcomes},
        run::SweepPlan,
        sweep,
    },
};

pub use config::{AttributeConfig, Experiment, GenerateConfig, ItemsConfig, JudgeConfig, ModelConfig, SweepConfig};
pub use prepared::check_experiment;
pub(crate) use prepared::{Prepared, ToDo};

/// An experiment under way.
struct Study<'a> {
    engine: &'a Engine,
    experiment: &'a Experiment,
    /// The arms of the sweep, where the attribution has no part in choosing its heads.
    arms: Option<Vec<Arm>>,
    run: RunDir,
    key: String,
    log: RowLog,
    grader: Option<Grader>,
    stop: Option<&'a AtomicBool>,
    /// How thoughts stand in the answers that are generated.
    thoughts: Thoughts,
    warnings: Vec<String>,
}

/// The experiment as it was resolved.
const CONFIG: &str = "config.toml";

/// Takes back what an earlier call left under another file, and says so: whatever stands beside `config.toml` must be of it, also where
/// this call fails or is killed. Answers stay, and so does an attribution that the other file does not change.
fn take_back_others(
    run: &mut RunDir,
    key: &str,
    (experiment, arms): (&Experiment, Option<&[Arm]>),
    progress: &mut dyn Progress,
) -> Result<()> {
    let earlier = std::fs::read_to_string(run.file(CONFIG)).unwrap_or_default();
    // A file may name another, which lists other heads than it did.
    let swept = Plan::<SweepPlan>::of(run.dir());
    let swept_otherwise = arms.zip(swept).is_some_and(|(arms, swept)| swept.plan.arms != arms);
    let rewritten = !earlier.is_empty() && earlier != experiment.to_toml();
    let other = rewritten || swept_otherwise;
    let of = |experiment: &Experiment| attribution_key(key, experiment, &[]);
    let attributes_otherwise = || !toml::from_str(&earlier).is_ok_and(|earlier| of(&earlier) == of(experiment));
    let stages: [(&str, &[&str], bool); 3] = [
        ("report", &REPORTS, other),
        ("sweep", &SWEEP_FILES, other || experiment.sweep.is_none()),
        ("attribute", &ATTRIBUTED, rewritten && attributes_otherwise()),
    ];
    let mut gone = Vec::new();
    for (stage, files, _) in stages.into_iter().filter(|(.., goes)| *goes) {
        gone.extend(run.without(stage, files)?);
    }
    if !gone.is_empty() {
        let gone = gone.join(", ");
        progress
            .note(&format!("note: not of the settings of this call, and removed: {gone}; answers stay in rows.jsonl"));
    }
    Ok(())
}

/// Runs an experiment in a directory, or whatever is left of it to do.
///
/// # Errors
/// If a stage cannot be run, the directory belongs to another run, or the run is stopped. Finished work stays.
pub fn run(
    engine: &Engine,
    experiment: &Experiment,
    dir: &std::path::Path,
    stop: Option<&AtomicBool>,
    progress: &mut dyn Progress,
) -> Result<RunSummary> {
    // Whatever must be refused is refused before the first file is written.
    let Prepared { mut items, taken, grader, parts, arms, .. } = Prepared::new(engine, experiment)?;
    let key = parts.key();
    let mut run = RunDir::open(dir, "run", &parts, None, progress)?;
    // Where the attribution is yet to choose the heads, others stand in for them.
    let named = experiment.sweep.as_ref().map(top_of).transpose()?.is_some_and(|top| top.is_none());
    let arms = arms.filter(|_| named);
    take_back_others(&mut run, &key, (experiment, arms.as_deref()), progress)?;
    write_text(&run.file(CONFIG), &experiment.to_toml())?;
    run.note("identity", engine.identity())?;
    let log = run.rows(progress)?;
    let mut warnings: Vec<String> = grader.as_ref().and_then(|_| gold_warning(&items)).into_iter().collect();
    if let Some(only) = experiment.items.only.as_ref().filter(|_| taken.unknown > 0) {
        warnings.push(format!("[items] where: {}", taken.told(only)));
    }
    if let Some(config) = experiment.sweep.as_ref().filter(|_| named) {
        warnings.extend(head_remarks(&config.heads, &engine.identity().weights_sha256)?);
    }
    let thoughts = Thoughts::of(engine);
    let mut study = Study { engine, experiment, arms, run, key, log, grader, stop, thoughts, warnings };

    let base = study.generate(&mut items, progress)?;
    let attributed = study.attributed(&base, progress)?;
    let answered = study.answered(&items, &base)?;
    let attribution = study.attribute(&answered, &base, attributed, progress).inspect_err(|_| {
        // No report will hold them, and they may be why: answers that say nothing have no label.
        study.warnings.iter().for_each(|warning| progress.note(&format!("warning: {warning}")));
    })?;
    // All items, including those with an empty answer: which answers are empty is an outcome of the sweep.
    let swept = study.sweep(&items, &attribution, progress)?;
    let Study { run, mut warnings, .. } = study;
    warnings.extend(swept.as_ref().and_then(|swept| brought_otherwise(&items, &base, &swept.rows[0])));
    let (run, items, answered, generated) = (&run, &items[..], &answered[..], base.len());
    let report = RunReport { engine, experiment, run, items, answered, generated, attribution, swept };
    report.write(warnings)
}

impl Study<'_> {
    /// Generates answers for the items that bring none, then grades. Returns the generated rows by item id.
    fn generate(&mut self, items: &mut [Item], progress: &mut dyn Progress) -> Result<BTreeMap<String, Row>> {
        let unanswered: Vec<Item> = items.iter().filter(|item| !item.is_answered()).cloned().collect();
        let options = answer_options(self.experiment, self.stop)?;
        let (mut rows, _) = sweep(self.engine, &unanswered, &[Arm::base()], &options, &mut self.log, progress)?;
        let rows: BTreeMap<String, Row> = rows.remove(0).into_iter().map(|row| (row.id.clone(), row)).collect();
        for item in items.iter_mut() {
            if let Some(row) = rows.get(&item.id) {
                // Label and scores may be the item's own, as those of a cohort of questions; the rest was about another answer.
                let (label, scores) = (item.label.take(), std::mem::take(&mut item.scores));
                *item = Item { label, scores, ..item.answered_by(row) };
            }
        }
        self.grade(items, &rows);
        Ok(rows)
    }

    /// How thoughts stand in an item's answer.
    fn thoughts(&self, item: &Item, generated: &BTreeMap<String, Row>) -> Thoughts {
        if generated.contains_key(&item.id) { self.thoughts.after(&item.input) } else { Thoughts::default() }
    }

    /// Labels the answers of items with accepted answers, replacing any label that these items bring.
    fn grade(&mut self, items: &mut [Item], generated: &BTreeMap<String, Row>) {
        let ends_within = |item: &&Item| {
            item.response.as_ref().is_some_and(|response| self.thoughts(item, generated).holds(response))
        };
        let within = items.iter().filter(ends_within).count();
        self.warnings.extend(told_thoughts(within));
        let Some(grader) = &self.grader else { return };
        let (mut brought, mut replaced) = (0, 0);
        for item in items.iter_mut().filter(|item| !item.gold.is_empty()) {
            let Some(response) = &item.response else { continue };
            let thoughts = self.thoughts(item, generated);
            let label = grader.grade(thoughts.said(response).unwrap_or_default(), &item.gold).label();
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

    /// The items whose answers say something; writes them down as judged.
    fn answered(&mut self, items: &[Item], generated: &BTreeMap<String, Row>) -> Result<Vec<Item>> {
        let says = |item: &&Item| match &item.response {
            Some(response) => self.thoughts(item, generated).says(response),
            None => true,
        };
        let answered: Vec<Item> = items.iter().filter(says).cloned().collect();
        let silent = items.len() - answered.len();
        if silent > 0 {
            let none = if silent == 1 {
                "1 answer says nothing and takes".into()
            } else {
                format!("{silent} answers say nothing and take")
            };
            self.warnings.push(format!("{none} no part in the attribution"));
        }
        write_text(&self.run.file("judged.jsonl"), &judged(&answered))?;
        Ok(answered)
    }

    /// The attribution's key, and whether it is finished. If not, what an earlier call found with other answers goes, before these are
    /// written down as judged.
    fn attributed(&mut self, base: &BTreeMap<String, Row>, progress: &mut dyn Progress) -> Result<(String, bool)> {
        let rows: Vec<&Row> = base.values().collect();
        let key = attribution_key(&self.key, self.experiment, &rows);
        let finished = self.run.finished("attribute", &key, &ATTRIBUTED, progress);
        if !finished {
            self.withdraw_sweep()?;
            self.run.without("attribute", &ATTRIBUTED)?;
        }
        Ok((key, finished))
    }

    /// Takes back what an earlier call found with another attribution or other rows.
    fn withdraw_sweep(&mut self) -> Result<()> {
        self.run.without("report", &REPORTS)?;
        self.run.without("sweep", &SWEEP_FILES).map(drop)
    }

    /// Captures every answer and ranks the heads.
    fn attribute(
        &mut self,
        items: &[Item],
        base: &BTreeMap<String, Row>,
        (key, finished): (String, bool),
        progress: &mut dyn Progress,
    ) -> Result<Attribution> {
        let config = &self.experiment.attribute;
        if finished {
            return read_json(&self.run.file("attribution.json"));
        }
        let encode = |item: &Item| match base.get(&item.id) {
            Some(row) => encode_answered(self.engine, item, &row.response_ids),
            None => encode_one(self.engine, item, item.response.as_deref()),
        };
        let encoded = items.iter().map(encode).collect::<Result<Vec<Encoded>>>()?;
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
        self.run.finish("attribute", &key, &ATTRIBUTED, json!({"items": items.len()}))?;
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
        // What is to be said of heads that the file names, or takes from another attribution, is known before.
        let arms = if let Some(arms) = self.arms.take() {
            arms
        } else {
            let heads = swept(config, attribution, self.engine)?;
            let remark = top_remarks(attribution, &heads);
            self.warnings.extend(remark.map(|remark| format!("[sweep] heads = \"{}\": {remark}", config.heads)));
            arms_of(config, heads, &self.engine.spec().slots())?
        };
        let options = sweep_options(self.experiment, self.stop)?;
        let (rows, fired) = sweep(self.engine, items, &arms, &options, &mut self.log, progress)?;
        self.withdraw_sweep()?;
        let (groups, from) = (self.experiment.items.groups.as_deref(), self.experiment.items.from());
        let grader = self.grader.as_ref();
        let settings = SweepRun { items, from, groups, arms: &arms, options: &options, grader, shard: None };
        let keys = rows.iter().flatten().map(|row| row.key.clone()).collect();
        let plan = Plan::new(keys, SweepPlan::new(self.engine, &settings));
        plan.save(&self.run)?;
        write_lambda(&self.run, &arms, &self.engine.spec().heads_per_layer(), self.engine.identity())?;
        let outcomes = write_outcomes(&self.run, &plan.plan.answered(items, &rows, None), self.log.rows().values())?;
        let key = digest(&(&self.key, config, &rows.iter().flatten().map(|row| &row.key).collect::<Vec<_>>()));
        self.run.finish(
            "sweep",
            &key,
            &[],
            json!({"rows": rows.iter().map(Vec::len).sum::<usize>(), "fired": fired}),
        )?;
        Ok(Some(Swept { outcomes, arms, rows, fired }))
    }
}

/// Warns if responses that the items bring are not what the model answers in the sweep: the attribution reads the former, the sweep
/// compares with the latter.
fn brought_otherwise(items: &[Item], generated: &BTreeMap<String, Row>, reference: &[Row]) -> Option<String> {
    let mut answers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in reference {
        answers.entry(row.id.as_str()).or_default().push(row.response.trim());
    }
    let brought = items.iter().filter(|item| !generated.contains_key(&item.id));
    let brought: Vec<(&Vec<&str>, &str)> =
        brought.filter_map(|item| Some((answers.get(item.id.as_str())?, item.response.as_deref()?))).collect();
    let other = brought.iter().filter(|(answers, response)| !answers.contains(&response.trim())).count();
    (other > 0).then(|| {
        format!(
            "{other} of {} responses that items bring are not what the model answers in the sweep: the attribution is of those, and \
             the sweep of the model's own",
            brought.len()
        )
    })
}

/// Items with their answers and labels, as `temper attribute` reads them.
fn judged(items: &[Item]) -> String {
    items.iter().map(|item| item.answered_json().to_string() + "\n").collect()
}
