//! Generates, reads the finished answers, and gates them.

use std::{collections::BTreeSet, path::Path, sync::atomic::AtomicBool};

use headtemper_engine::{Encoded, Engine, HeadsWanted, Pool};
use headtemper_stats::auc;

use super::{GateResult, GatedRow, Standing, site::ProbeSite};
use crate::{
    Arm, CaptureOptions, Item, Judge, Parts, Progress, Result, Row, RunDir, StudyError, SweepOptions,
    capture::{capture_encoded, encode, named_items, prompts},
    files::{write_json, write_text},
    probe::{CrossTable, Probe},
    sweep,
};

/// What a sidecar is made of.
pub struct Sidecar<'a> {
    /// The frozen probe, and the SHA-256 of its file.
    pub probe: (&'a Probe, String),
    /// The C whose fit is used; the one that cross-validation chose if none is given.
    pub c: Option<f64>,
    /// The threshold; the one that the training items chose if none is given.
    pub threshold: Option<f64>,
    /// Where the probe reads, if its training file does not say.
    pub site: Option<&'a str>,
    /// What is put in front.
    pub prefix: &'a str,
    /// What counts as a hedge.
    pub hedges: Option<&'a Judge>,
    /// How answers are generated where items bring none.
    pub generate: SweepOptions<'a>,
    /// Set from outside, stops after the current step.
    pub stop: Option<&'a AtomicBool>,
}

/// Runs a sidecar over items, in a directory that keeps the generated rows, `gated.jsonl` and `gate.json`.
///
/// # Errors
/// If the probe does not fit the model, has no threshold, or the directory belongs to something else.
pub fn sidecar(
    engine: &Engine,
    items: &[Item],
    settings: &Sidecar<'_>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<GateResult> {
    let (probe, probe_sha256) = (settings.probe.0, &settings.probe.1);
    let fit = fit_of(probe, settings.c)?;
    let result = &probe.meta.results[fit];
    let (threshold, threshold_from) = match (settings.threshold, result.cv.best_thr) {
        (Some(asked), _) => (asked, "asked"),
        (None, Some(chosen)) => (chosen, "training"),
        (None, None) => {
            return Err(StudyError::Option {
                what: "the probe's threshold".into(),
                found: format!("none, since none kept p(assert | correct) at {}", result.cv.assert_correct),
                allowed: "given with --threshold".into(),
            });
        }
    };
    let site = ProbeSite::of(settings.site, &probe.meta.train, engine)?;
    // Whatever does not fit is refused before anything is generated.
    let source = format!("{}, at the site that the probe reads", engine.identity().model);
    probe.probabilities(fit, &vec![0.0; engine.spec().d_model], engine.spec().d_model, &source)?;
    settings.generate.check()?;
    prompts(engine, items)?;
    let parts = Parts::of(engine.identity())
        .with("items", named_items(items, &encode(engine, items)?))
        .with("probe", probe_sha256)
        .with("c", result.c)
        .with("threshold", threshold)
        .with("prefix", settings.prefix)
        .with("hedges", settings.hedges)
        .with("sampling", &settings.generate.sampling)
        .with("max_new_tokens", settings.generate.max_new_tokens);
    let run = RunDir::open(dir, "gate", &parts, None, progress)?;
    let mut log = run.rows::<Row>(progress)?;
    let unanswered: Vec<Item> = items.iter().filter(|item| item.response.is_none()).cloned().collect();
    let (mut rows, _) = sweep(engine, &unanswered, &[Arm::base()], &settings.generate, &mut log, progress)?;
    let rows = rows.remove(0);
    let (items, encoded, silent) = answered(engine, items, &rows)?;
    // Averaged over the tokens that the probe's own features were averaged over.
    let pool = probe.meta.train.meta.as_ref().map_or(Ok(Pool::Last), |meta| meta.pool.parse())?;
    let options = CaptureOptions {
        pool,
        layers: site.layers(),
        heads: HeadsWanted::None,
        memory: settings.generate.memory,
        stop: settings.stop,
        ..CaptureOptions::default()
    };
    let (features, _) = capture_encoded(engine, &items, &encoded, &options, progress)?;
    let x = site.features(&features);
    let p = probe.probabilities(fit, &x, engine.spec().d_model, &source)?;
    let seen = probe.seen(&x, engine.spec().d_model);
    let generated: BTreeSet<String> = unanswered.iter().map(|item| item.id.clone()).collect();
    let mut found = gate((&items, &generated), &p, settings, threshold);
    found.1.probe_sha256.clone_from(probe_sha256);
    (found.1.c, found.1.threshold_from) = (result.c, threshold_from.into());
    found.1.seen_in_training = seen;
    if seen > 0 {
        let of = items.len();
        found
            .1
            .warnings
            .push(format!("the probe was fitted on {seen} of these {of} answers: what it does to them is no test"));
    }
    if silent > 0 {
        found.1.warnings.push(format!("{silent} answers are empty and take no part"));
    }
    found.1.warnings.extend(other_model(probe, engine));
    let lines: String =
        found.0.iter().map(|row| serde_json::to_string(row).expect("a row has a JSON form") + "\n").collect();
    write_text(&run.file("gated.jsonl"), &lines)?;
    write_json(&run.file("gate.json"), &found.1)?;
    Ok(found.1)
}

/// The place of a C among the probe's fits.
fn fit_of(probe: &Probe, c: Option<f64>) -> Result<usize> {
    let Some(c) = c else { return Ok(probe.meta.chosen) };
    let all: Vec<String> = probe.meta.results.iter().map(|result| result.c.to_string()).collect();
    probe.meta.results.iter().position(|result| result.c == c).ok_or_else(|| StudyError::Option {
        what: "C".into(),
        found: c.to_string(),
        allowed: format!("one that the probe was fitted with: {}", all.join(", ")),
    })
}

/// The items with their answers, those generated here as the very tokens; answers without a text are left out and counted.
fn answered(engine: &Engine, items: &[Item], rows: &[Row]) -> Result<(Vec<Item>, Vec<Encoded>, usize)> {
    let mut rows = rows.iter();
    let (mut out, mut encoded, mut silent) = (Vec::new(), Vec::new(), 0);
    for item in items {
        if item.response.is_some() {
            encoded.extend(encode(engine, std::slice::from_ref(item))?);
            out.push(item.clone());
            continue;
        }
        let row = rows.next().expect("every item without an answer was given one");
        if row.response.trim().is_empty() || row.response_ids.is_empty() {
            silent += 1;
            continue;
        }
        let mut of_prompt = encode(engine, std::slice::from_ref(item))?.remove(0);
        of_prompt.ids.truncate(of_prompt.prompt_len);
        of_prompt.ids.extend(&row.response_ids);
        encoded.push(of_prompt);
        out.push(Item { response: Some(row.response.clone()), ..item.clone() });
    }
    Ok((out, encoded, silent))
}

/// Every answer with and without the gate, and how they stand.
fn gate(
    (items, generated): (&[Item], &BTreeSet<String>),
    p: &[f64],
    settings: &Sidecar<'_>,
    threshold: f64,
) -> (Vec<GatedRow>, GateResult) {
    let (mut rows, mut tables) = (Vec::new(), [CrossTable::default(); 2]);
    let (mut known_p, mut known, mut prefixed_all) = (Vec::new(), Vec::new(), 0);
    for (item, &p) in items.iter().zip(p) {
        let response = item.response.clone().unwrap_or_default();
        let (correct, hedged) = judged(item, &response, generated.contains(&item.id), settings.hedges);
        if let Some(correct) = correct {
            known_p.push(p);
            known.push(correct);
        }
        let below = p < threshold;
        prefixed_all += usize::from(below);
        for (variant, table) in ["plain", "gated"].into_iter().zip(&mut tables) {
            let prefixed = below && variant == "gated";
            let label = correct.map(|correct| crate::Verdict { correct, hedged: hedged || prefixed }.label());
            table.count(label);
            rows.push(GatedRow {
                id: item.id.clone(),
                variant: variant.into(),
                prompt: item.prompt_text(),
                response: if prefixed { format!("{}{response}", settings.prefix) } else { response.clone() },
                p,
                prefixed,
                label: label.map(Into::into),
            });
        }
    }
    let mut warnings = Vec::new();
    if known.is_empty() {
        warnings.push("no answer is known to be right or wrong: give items gold answers, coverage, or labels".into());
    }
    if settings.hedges.is_some_and(|judge| !judge.judge(settings.prefix, &[]).hedged) {
        warnings.push(format!(
            "the lexicon does not know the prefix '{}' as a hedge; here it counts as one",
            settings.prefix.trim()
        ));
    }
    let result = GateResult {
        schema: "gate/v1".into(),
        probe_sha256: String::new(),
        c: f64::NAN,
        threshold,
        threshold_from: String::new(),
        prefix: settings.prefix.into(),
        items: items.len(),
        prefixed: prefixed_all,
        seen_in_training: 0,
        auc: auc(&known_p, &known),
        plain: Standing::of(tables[0]),
        gated: Standing::of(tables[1]),
        warnings,
    };
    (rows, result)
}

/// Whether an answer is right, where that is known, and whether it hedges: by accepted answers and the lexicon, else by what the
/// item says of itself (`correct`, `coverage` of at least one half, or its label); of an answer that was written just now it
/// can have said nothing.
fn judged(item: &Item, response: &str, generated: bool, lexicon: Option<&Judge>) -> (Option<bool>, bool) {
    let by_lexicon = lexicon.map(|judge| judge.judge(response, &item.gold));
    let label = item.label.as_deref();
    let of_label =
        |first: &str| label.filter(|label| ["cr", "cw", "hr", "hw"].contains(label)).map(|l| l.starts_with(first));
    let hedged = by_lexicon.map_or_else(|| !generated && of_label("h").unwrap_or(false), |verdict| verdict.hedged);
    let said = item.other.get("correct").and_then(serde_json::Value::as_bool);
    let covered = item.other.get("coverage").and_then(serde_json::Value::as_f64).map(|share| share >= 0.5);
    let by_gold = (!item.gold.is_empty()).then(|| Judge::new(std::iter::empty()).judge(response, &item.gold).correct);
    let right = label.filter(|label| ["cr", "cw", "hr", "hw"].contains(label)).map(|label| label.ends_with('r'));
    let said = if generated { None } else { said.or(covered).or(right) };
    (by_gold.or(said), hedged)
}

fn other_model(probe: &Probe, engine: &Engine) -> Option<String> {
    let of = &probe.meta.train.meta.as_ref()?.identity;
    let now = engine.identity();
    (of.weights_sha256 != now.weights_sha256)
        .then(|| format!("the probe was fitted on {}, whose weights are others than those of {}", of.model, now.model))
}
