//! Generates, reads the finished answers, and gates them.

use std::path::Path;

use headtemper_engine::{Encoded, Engine, HeadsWanted, Pool};
use headtemper_stats::clustered_delong;
use serde_json::Value;

use super::{GateResult, GatedRow, Standing, site::ProbeSite};
use crate::{
    Arm, CaptureOptions, GoldRule, Item, Judge, Parts, Progress, Result, Row, RunDir, StudyError, SweepOptions,
    Verdict,
    capture::{capture_encoded, encode, named_items, prompts},
    items::{answer::gold_warning, columns::prompt_hash, facts::ItemFacts, units::unit_of},
    probe::{FitResult, Probe},
    store::files::{write_json, write_text},
    sweep,
};

/// An answer as it was.
const PLAIN: &str = "plain";
/// The same behind the gate.
const GATED: &str = "gated";

/// What a sidecar is made of.
pub struct Sidecar<'a> {
    /// The frozen probe, and the SHA-256 of its file.
    pub probe: (&'a Probe, String),
    /// The C whose fit is used; the one that cross-validation chose if none is given.
    pub c: Option<f64>,
    /// The threshold; the one that the training items chose if none is given.
    pub threshold: Option<f64>,
    /// Where the probe reads; what its training file says if none is given.
    pub site: Option<&'a str>,
    /// What is put in front.
    pub prefix: &'a str,
    /// What counts as a hedge.
    pub hedges: Option<&'a Judge>,
    /// How answers are generated where items bring none, and what stops it all.
    pub generate: SweepOptions<'a>,
}

/// Runs a sidecar over items, in a directory that keeps the generated rows, `gated.jsonl` and `gate.json`.
///
/// # Errors
/// If the probe does not fit the model, has no threshold or one that is no probability, or the directory belongs to something
/// else.
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
    let (threshold, threshold_from) = threshold_of(settings.threshold, result)?;
    let site = ProbeSite::of(settings.site, &probe.meta.train, engine)?;
    // Whatever does not fit is refused before anything is generated.
    let source = format!("{}, at the site that the probe reads", engine.identity().model);
    probe.probabilities(fit, &vec![0.0; engine.spec().d_model], engine.spec().d_model, &source)?;
    settings.generate.check()?;
    if settings.prefix.trim().is_empty() {
        // It would change no answer, and count as a hedge.
        return Err(StudyError::option("--prefix", "blank", "words that an answer is hedged with"));
    }
    prompts(engine, items)?;
    let parts = Parts::of(engine.identity())
        .with("items", named_items(items, &encode(engine, items)?))
        .with("probe", probe_sha256)
        .with("c", result.c)
        .with("threshold", threshold)
        .with("site", settings.site)
        .with("prefix", settings.prefix)
        .with("hedges", settings.hedges)
        .with("sampling", &settings.generate.sampling)
        .with("max_new_tokens", settings.generate.max_new_tokens);
    let run = RunDir::open(dir, "gate", &parts, None, progress)?;
    let mut log = run.rows::<Row>(progress)?;
    let unanswered: Vec<Item> = items.iter().filter(|item| item.response.is_none()).cloned().collect();
    let (mut rows, _) = sweep(engine, &unanswered, &[Arm::base()], &settings.generate, &mut log, progress)?;
    let answers = answered(engine, items, &rows.remove(0))?;
    // Averaged over the tokens that the probe's own features were averaged over.
    let pool = probe.meta.train.meta.as_ref().map_or(Ok(Pool::Last), |meta| meta.pool.parse())?;
    let options = CaptureOptions {
        pool,
        layers: site.layers(),
        heads: HeadsWanted::None,
        memory: settings.generate.memory,
        stop: settings.generate.stop,
        ..CaptureOptions::default()
    };
    let (features, _) = capture_encoded(engine, &answers.items, &answers.encoded, &options, progress)?;
    let x = site.features(&features);
    let p = probe.probabilities(fit, &x, engine.spec().d_model, &source)?;
    let rows = gated(&answers, &p, settings, threshold);
    let asked: Vec<String> = answers.items.iter().map(prompt_hash).collect();
    let seen_in_training = probe.seen(&x, engine.spec().d_model, Some(&asked));
    let units = units_of(&answers.items);
    let of = |variant: &'static str| rows.iter().filter(move |row| row.variant == variant);
    let known =
        |(row, &unit): (&GatedRow, &usize)| Some((row.p, (Verdict::of_label(row.label.as_deref()?)?.correct, unit)));
    let (known_p, known): (Vec<f64>, Vec<(bool, usize)>) = of(PLAIN).zip(&units).filter_map(known).unzip();
    let (known, units): (Vec<bool>, Vec<usize>) = known.into_iter().unzip();
    let mut warnings = warnings(&answers, settings, seen_in_training, known.len());
    warnings.extend(other_regime(probe, engine, items));
    let ranked = clustered_delong(&known_p, &known, &units);
    let found = GateResult {
        schema: "gate/v1".into(),
        probe_sha256: probe_sha256.clone(),
        c: result.c,
        threshold,
        threshold_from: threshold_from.into(),
        prefix: settings.prefix.into(),
        items: answers.items.len(),
        prefixed: of(GATED).filter(|row| row.prefixed).count(),
        seen_in_training,
        auc: ranked.value,
        auc_delong: ranked.range.into(),
        plain: Standing::of(of(PLAIN)),
        gated: Standing::of(of(GATED)),
        warnings,
    };
    let lines: String =
        rows.iter().map(|row| serde_json::to_string(row).expect("a row has a JSON form") + "\n").collect();
    write_text(&run.file("gated.jsonl"), &lines)?;
    write_json(&run.file("gate.json"), &found)?;
    Ok(found)
}

/// The unit of each item: its prompt.
fn units_of(items: &[Item]) -> Vec<usize> {
    let facts: Vec<ItemFacts> = items.iter().map(ItemFacts::of).collect();
    unit_of(facts.iter().map(Some), None)
}

/// The place of a C among the probe's fits.
fn fit_of(probe: &Probe, c: Option<f64>) -> Result<usize> {
    let Some(c) = c else { return Ok(probe.meta.chosen) };
    let all: Vec<String> = probe.meta.results.iter().map(|result| result.c.to_string()).collect();
    probe.meta.results.iter().position(|result| result.c == c).ok_or_else(|| {
        StudyError::option("C", c.to_string(), format!("one that the probe was fitted with: {}", all.join(", ")))
    })
}

/// The threshold, and where it comes from.
fn threshold_of(asked: Option<f64>, result: &FitResult) -> Result<(f64, &'static str)> {
    match (asked, result.cv.best_thr) {
        (Some(asked), _) if (0.0..=1.0).contains(&asked) => Ok((asked, "asked")),
        (Some(asked), _) => Err(StudyError::option("the threshold", asked.to_string(), "a probability, from 0 to 1")),
        (None, Some(chosen)) => Ok((chosen, "training")),
        (None, None) => Err(StudyError::option(
            "the probe's threshold",
            format!("none, since none kept p(assert | correct) at {}", result.cv.assert_correct),
            "given with --threshold",
        )),
    }
}

/// Items with their answers, and the tokens of both.
struct Answers {
    items: Vec<Item>,
    encoded: Vec<Encoded>,
    /// Which of the answers were generated here.
    generated: Vec<bool>,
    /// Answers without a text, which are left out.
    silent: usize,
}

/// The items with their answers, those generated here as the very tokens.
fn answered(engine: &Engine, items: &[Item], rows: &[Row]) -> Result<Answers> {
    let mut rows = rows.iter();
    let mut out = Answers { items: Vec::new(), encoded: Vec::new(), generated: Vec::new(), silent: 0 };
    for item in items {
        let mut encoded = encode(engine, std::slice::from_ref(item))?.remove(0);
        let mut item = item.clone();
        let generated = item.response.is_none();
        if generated {
            let row = rows.next().expect("every item without an answer was given one");
            if row.response.trim().is_empty() || row.response_ids.is_empty() {
                out.silent += 1;
                continue;
            }
            encoded.ids.truncate(encoded.prompt_len);
            encoded.ids.extend(&row.response_ids);
            item.response = Some(row.response.clone());
        }
        out.items.push(item);
        out.encoded.push(encoded);
        out.generated.push(generated);
    }
    Ok(out)
}

/// Every answer as it was and, after it, behind the gate.
fn gated(answers: &Answers, p: &[f64], settings: &Sidecar<'_>, threshold: f64) -> Vec<GatedRow> {
    let mut rows = Vec::new();
    for ((item, &generated), &p) in answers.items.iter().zip(&answers.generated).zip(p) {
        let response = item.response.clone().unwrap_or_default();
        let (correct, hedged) = judged(item, &response, generated, settings.hedges);
        let hedged = hedged.unwrap_or(false);
        for variant in [PLAIN, GATED] {
            let prefixed = p < threshold && variant == GATED;
            let label = correct.map(|correct| Verdict { correct, hedged: hedged || prefixed }.label());
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
    rows
}

/// What a reader must know before any number.
fn warnings(answers: &Answers, settings: &Sidecar<'_>, seen: usize, known: usize) -> Vec<String> {
    let (all, generated) = (answers.items.len(), answers.generated.iter().filter(|&&generated| generated).count());
    let unsaid = |(item, &generated): (&Item, &bool)| judged(item, "", generated, settings.hedges).1.is_none();
    let brought =
        answers.items.iter().zip(&answers.generated).filter(|&of| unsaid(of)).count().saturating_sub(generated);
    let mut out: Vec<String> = gold_warning(&answers.items).into_iter().collect();
    if known == 0 {
        out.push("no answer is known to be right or wrong: give items gold answers, coverage, or labels".into());
    }
    match settings.hedges {
        Some(judge) if !judge.judge(settings.prefix, &[]).hedged => out.push(format!(
            "the lexicon does not know the prefix '{}' as a hedge; here it counts as one",
            settings.prefix.trim()
        )),
        None if generated > 0 => out.push(format!(
            "{generated} of {all} answers were generated here, and without a lexicon (--hedges) all of these count as asserted"
        )),
        _ => {}
    }
    if settings.hedges.is_none() && brought > 0 {
        out.push(format!(
            "{brought} of {all} answers come without a label, and without a lexicon (--hedges) all of these count as asserted"
        ));
    }
    if seen > 0 {
        out.push(format!("the probe was fitted on {seen} of these {all} answers, or on answers to their prompts: what it does to them is no test"));
    }
    if answers.silent > 0 {
        out.push(format!("{} answers are empty and take no part", answers.silent));
    }
    out
}

/// Whether an answer is right and whether it hedges, where that is known: by accepted answers and the lexicon, else by what the
/// item says of itself (`correct`, `coverage` of at least one half, or its label); of an answer that was written just now it
/// can have said nothing.
fn judged(item: &Item, response: &str, generated: bool, lexicon: Option<&Judge>) -> (Option<bool>, Option<bool>) {
    let none = Judge::by_gold(GoldRule::default());
    let verdict = lexicon.unwrap_or(&none).judge(response, &item.gold);
    let label = item.label.as_deref().filter(|_| !generated).and_then(Verdict::of_label);
    let field = |name: &str| item.other.get(name).filter(|_| !generated);
    let said = field("correct").and_then(Value::as_bool);
    let covered = field("coverage").and_then(Value::as_f64).map(|share| share >= 0.5);
    let said = said.or(covered).or(label.map(|label| label.correct));
    let correct = if item.gold.is_empty() { said } else { Some(verdict.correct) };
    let hedged = if lexicon.is_some() { Some(verdict.hedged) } else { label.map(|label| label.hedged) };
    (correct, hedged)
}

/// How answers are read here otherwise than those were that the probe was fitted on, as far as its training file says.
fn other_regime(probe: &Probe, engine: &Engine, items: &[Item]) -> Vec<String> {
    let Some(of) = &probe.meta.train.meta else { return Vec::new() };
    let (was, now) = (&of.identity, engine.identity());
    let mut out = Vec::new();
    if was.weights_sha256 != now.weights_sha256 {
        out.push(format!(
            "the probe was fitted on {}, whose weights are others than those of {}",
            was.model, now.model
        ));
    }
    let (held, holds) = (was.arithmetic(), now.arithmetic());
    if held != holds {
        out.push(format!("the probe was fitted on features of another arithmetic: {held} there, {holds} here"));
    }
    if of.plan.iter().any(|plan| plan != "none") {
        out.push(format!("the probe was fitted under {}, and nothing is tempered here", of.plan[0]));
    }
    let raw = items.iter().any(Item::is_raw);
    if raw != of.raw || was.thinking != now.thinking {
        let read = |raw: bool, thinking: Option<bool>| match (raw, thinking) {
            (true, _) => "without the chat template",
            (false, None) => "with it",
            (false, Some(true)) => "with it, told to think",
            (false, Some(false)) => "with it, told not to think",
        };
        let (was, now) = (read(of.raw, was.thinking), read(raw, now.thinking));
        out.push(format!("the probe was fitted on prompts {was}, and these are read {now}"));
    }
    out
}
