//! The verb `attribute`: the stage alone, in a directory of its own.

use std::{path::Path, sync::atomic::AtomicBool};

use headtemper_engine::{Engine, HeadsWanted};
use serde_json::json;

use crate::{
    AttributeOptions, CaptureOptions, Item, Outcome, Parts, Progress, Result, RunDir, StudyError, attribute, capture,
    capture::{encode, named_items, named_labels},
    cohort::{cohorts_of, label_counts, labels},
    files::{read_json, write_text},
    report::{self, Page},
    results::{ATTRIBUTION_FILES, attribution_of, write_attribution},
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
    let encoded = encode(engine, &members)?;
    let parts = Parts::of(engine.identity())
        .with("items", named_items(&members, &encoded))
        .with("labels", named_labels(&members))
        .with("name", name)
        .with("a", a)
        .with("b", b)
        .with("last_n", last_n)
        .with("shuffles", shuffles)
        .with("seed", seed);
    let key = parts.key();
    let mut run = RunDir::open(dir, "attribute", &parts, None, progress)?;
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
        ("held in", identity.held_in()),
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
        model: &attribution.model,
        heads_per_layer: &attribution.heads_per_layer,
        attribution: Some(&attribution),
        sweep: None,
        examples: &[],
    };
    write_text(&run.file("report.html"), &report::render(&page))?;
    run.finish("attribute", &key, json!({"items": members.len()}))?;
    let text = heads_markdown(disposition, 10);
    let warnings = disposition.warnings.clone();
    let text = warnings.iter().fold(text, |text, warning| text + "warning: " + warning + "\n");
    Ok(Outcome { text, warnings, check_failed: false })
}
