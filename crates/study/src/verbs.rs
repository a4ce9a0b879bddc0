//! The verbs `attribute` and `sweep`: a stage alone, in a directory of its own.

use std::{path::Path, sync::atomic::AtomicBool};

use headtemper_engine::{Engine, HeadsWanted};
use serde::Serialize;
use serde_json::json;

use crate::{
    Arm, AttributeOptions, CaptureOptions, Item, Judge, Outcome, Progress, Result, RowLog, RunDir, StudyError,
    SweepOptions, attribute, capture,
    capture::{encode, prompts},
    cohort::{cohorts_of, label_counts, labels},
    digest::digest,
    files::{read_json, write_json, write_text},
    outcome::SweepTable,
    report::{self, Page},
    results::{ATTRIBUTION_FILES, attribution_of, write_attribution, write_lambda},
    sweep,
    sweep::{check_memory, is_default, tables_of},
    tables::heads_markdown,
};

/// What `temper attribute` is asked for.
pub struct AttributeRun<'a> {
    /// Where the items came from.
    pub items_path: &'a Path,
    /// Name of the disposition.
    pub name: &'a str,
    /// Label of the first cohort.
    pub a: &'a str,
    /// Label of the second cohort.
    pub b: &'a str,
    /// Heads are averaged over so many of the last response tokens.
    pub last_n: usize,
    /// How often labels are shuffled.
    pub shuffles: usize,
    /// Seed of the shuffles.
    pub seed: u64,
    /// Set from outside, stops after the current batch.
    pub stop: Option<&'a AtomicBool>,
}

/// Captures items that bring their responses and labels, ranks the heads and writes the report.
///
/// # Errors
/// If an item has no response, a cohort is too small, or the directory belongs to another run.
pub fn attribute_run(
    engine: &Engine,
    items: &[Item],
    settings: &AttributeRun<'_>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    let all = labels(items);
    let [a, b] = cohorts_of(&all, settings.a, settings.b, 2)?;
    let silent =
        |&&row: &&usize| items[row].response.is_none() && !matches!(items[row].input, headtemper_engine::Input::Ids(_));
    if let Some(&row) = a.rows.iter().chain(&b.rows).find(silent) {
        let why = format!("item '{}' has no response; attribution reads prompt and response", items[row].id);
        return Err(StudyError::content(settings.items_path, why));
    }
    // Items of other cohorts take no part; reading them would cost and tell nothing.
    let members: Vec<Item> =
        (0..items.len()).filter(|i| a.rows.contains(i) || b.rows.contains(i)).map(|i| items[i].clone()).collect();
    let AttributeRun { name, a, b, last_n, shuffles, seed, .. } = *settings;
    if last_n == 0 {
        let (what, found, allowed) = ("last_n".into(), "0".into(), "at least 1".into());
        return Err(StudyError::Option { what, found, allowed });
    }
    // Every refusal comes before the first file.
    let texts: Vec<_> = encode(engine, &members)?.into_iter().map(|e| (e.ids, e.prompt_len)).collect();
    let named: Vec<_> = members.iter().map(|item| (&item.id, &item.label)).collect();
    let key = digest(&(engine.identity(), texts, named, name, a, b, (last_n, shuffles, seed)));
    let mut run = RunDir::open(dir, "attribute", &key)?;
    let files: Vec<&str> = ["report.html"].into_iter().chain(ATTRIBUTION_FILES).collect();
    let attribution = if run.finished("attribute", &key, &files) {
        progress.note("attribute  nothing left to do");
        read_json(&run.file("attribution.json"))?
    } else {
        let options = CaptureOptions { heads: HeadsWanted::Vector, last_n, stop: settings.stop, ..Default::default() };
        let (features, _) = capture(engine, &members, &options, progress)?;
        let options = AttributeOptions { name, a, b, shuffles, seed, truncated: None };
        let attribution = attribution_of(attribute(&features, &options)?, &features, engine.spec());
        write_attribution(&run, &attribution, &features)?;
        run.note("identity", engine.identity())?;
        attribution
    };
    let counts: Vec<(String, usize)> = label_counts(&all).into_iter().collect();
    let disposition = &attribution.dispositions[0];
    let identity = engine.identity();
    let facts = [
        ("model", identity.model.clone()),
        ("weights (SHA-256)", identity.weights_sha256.clone()),
        ("held in", format!("{} on {}", identity.dtype, identity.device)),
        ("items", format!("{} of {}", items.len(), settings.items_path.display())),
        ("heads averaged over", format!("the last {last_n} response tokens")),
        ("labels shuffled", format!("{shuffles} times, seed {seed}")),
        ("version", format!("headtemper {}", identity.version)),
    ];
    let facts: Vec<(String, String)> = facts.into_iter().map(|(name, value)| (name.into(), value)).collect();
    let page = Page {
        title: &disposition.name,
        facts: &facts,
        counts: &counts,
        warnings: &[],
        attribution: &attribution,
        sweep: &[],
        examples: &[],
    };
    write_text(&run.file("report.html"), &report::render(&page))?;
    run.finish("attribute", &key, json!({"items": members.len()}))?;
    let text = heads_markdown(disposition, 10);
    let warnings = disposition.warnings.clone();
    let text = warnings.iter().fold(text, |text, warning| text + "warning: " + warning + "\n");
    Ok(Outcome { text, warnings, check_failed: false })
}

/// What `temper sweep` is asked for.
pub struct SweepRun<'a> {
    /// The prompts.
    pub items: &'a [Item],
    /// The plans.
    pub arms: &'a [Arm],
    /// How to generate.
    pub options: &'a SweepOptions<'a>,
    /// How answers are judged, if they are.
    pub judge: Option<&'a Judge>,
}

/// What rows of one directory share: further λ and head sets may join them, another model or limit may not.
#[derive(Serialize)]
struct Shared<'a> {
    identity: &'a headtemper_engine::Identity,
    prompts: Vec<(&'a str, Vec<u32>)>,
    sampling: headtemper_engine::Sampling,
    max_new_tokens: usize,
    #[serde(skip_serializing_if = "is_default")]
    ends: &'a headtemper_engine::StopRule,
}

impl SweepRun<'_> {
    /// The name of all that the rows of one directory share.
    ///
    /// # Errors
    /// If a setting has no meaning, or an item does not fit the model or the memory.
    pub(crate) fn key(&self, engine: &Engine) -> Result<String> {
        self.options.check()?;
        let prompts = prompts(engine, self.items)?;
        check_memory(engine, self.items, self.options)?;
        Ok(digest(&Shared {
            identity: engine.identity(),
            prompts: self.items.iter().map(|item| item.id.as_str()).zip(prompts).collect(),
            sampling: headtemper_engine::Sampling { seed: 0, ..self.options.sampling.clone() },
            max_new_tokens: self.options.max_new_tokens,
            ends: &self.options.ends,
        }))
    }
}

/// Generates what is missing of a sweep, and writes its outcomes.
///
/// # Errors
/// If a plan or prompt does not fit the model, the directory belongs to another run, or the run is stopped.
pub fn sweep_run(
    engine: &Engine,
    settings: &SweepRun<'_>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<SweepTable>> {
    // Every refusal comes before the first file.
    let key = settings.key(engine)?;
    let mut run = RunDir::open(dir, "sweep", &key)?;
    run.note("identity", engine.identity())?;
    let mut log = RowLog::open(&run.file("rows.jsonl"))?;
    let (rows, fired) = sweep(engine, settings.items, settings.arms, settings.options, &mut log, progress)?;
    write_lambda(&run, settings.arms, engine.spec())?;
    let tables = tables_of(settings.items, settings.arms, &rows, settings.judge, settings.options.max_new_tokens);
    write_json(&run.file("sweep.json"), &json!({"schema": "sweep/v1", "tables": tables}))?;
    let variants: Vec<&str> = settings.arms.iter().map(|arm| arm.variant.as_str()).collect();
    let notes = json!({"rows": log.len(), "variants": variants, "fired": run.fired("sweep", &fired)});
    run.finish("sweep", &digest(&variants), notes)?;
    Ok(tables)
}
