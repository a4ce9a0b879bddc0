//! Generates, reads the finished answers, and gates them.

use std::path::Path;

use headtemper_engine::{Engine, HeadsWanted, Keep, Pool};
use headtemper_stats::{Delong, clustered_delong};

use super::{
    Changes, Contradicted, CutOff, GateResult, GatedRow, Standing,
    answers::Answers,
    frozen::FrozenProbe,
    site::ProbeSite,
    warnings::{never_dealt, other_regime, warnings},
};
use crate::{
    Arm, CaptureOptions, Grader, Item, Parts, Progress, Result, Row, RunDir, StudyError, SweepOptions,
    capture::{capture_encoded, encode, named_items, prompts},
    items::{columns::prompt_hash, units::units},
    probe::{FitResult, Probe},
    store::files::{write_json, write_text},
    sweep,
};

/// What `temper gate` is asked for.
pub struct GateRun<'a> {
    /// The frozen probe.
    pub probe: &'a FrozenProbe,
    /// The C whose fit is used; the one that cross-validation chose if none is given.
    pub c: Option<f64>,
    /// The threshold; the one that the training items chose if none is given.
    pub threshold: Option<f64>,
    /// Where the probe reads; by default what its training file says.
    pub site: Option<&'a str>,
    /// What is put in front.
    pub prefix: &'a str,
    /// What counts as a hedge.
    pub hedges: Option<&'a Grader>,
    /// How answers are generated for items that bring none, and what stops the run.
    pub generate: SweepOptions<'a>,
}

/// Runs a gate over items, in a directory that keeps the generated rows, `gated.jsonl` and `gate.json`.
///
/// # Errors
/// If the probe does not fit the model, has no threshold or one that is no probability, or the directory belongs to something
/// else.
pub fn gate_run(
    engine: &Engine,
    items: &[Item],
    settings: &GateRun<'_>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<GateResult> {
    let FrozenProbe { probe, sha256: probe_sha256, .. } = settings.probe;
    let fit = fit_of(probe, settings.c)?;
    let result = &probe.meta.results[fit];
    let (threshold, threshold_from) = threshold_of(settings.threshold, result)?;
    let site = ProbeSite::of(settings.site, &probe.meta.train, engine)?;
    // Anything that does not fit is refused before anything is generated.
    let source = format!("{}, at the site that the probe reads", engine.identity().model);
    probe.probabilities(fit, &vec![0.0; engine.spec().d_model], engine.spec().d_model, &source)?;
    settings.generate.check()?;
    if settings.prefix.trim().is_empty() {
        // A blank prefix would change no answer, but count as a hedge.
        return Err(StudyError::option("--prefix", "blank", "words that an answer is hedged with"));
    }
    items.iter().try_for_each(|item| item.check_text("the gate writes it"))?;
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
    let unanswered: Vec<Item> = items.iter().filter(|item| !item.is_answered()).cloned().collect();
    let (mut rows, _) = sweep(engine, &unanswered, &[Arm::base()], &settings.generate, &mut log, progress)?;
    let answers = Answers::of(engine, items, &rows.remove(0), settings.hedges)?;
    // Averaged over the same tokens as the probe's own features.
    let pool = probe.meta.train.meta.as_ref().map_or(Ok(Pool::Last), |meta| meta.pool.parse())?;
    let options = CaptureOptions {
        keep: Keep { pool, layers: site.layers(), heads: HeadsWanted::None, ..Keep::default() },
        memory: settings.generate.memory,
        stop: settings.generate.stop,
        ..CaptureOptions::default()
    };
    let (features, _) = capture_encoded(engine, &answers.items, &answers.encoded, &options, progress)?;
    let x = site.features(&features);
    let p = probe.probabilities(fit, &x, engine.spec().d_model, &source)?;
    let asked: Vec<String> = answers.items.iter().map(prompt_hash).collect();
    let seen = probe.seen(&x, engine.spec().d_model, Some(&asked));
    let seen_in_training = seen.iter().filter(|&&seen| seen).count();
    let rows = answers.gated(&p, &seen, settings.prefix, threshold);
    // A probe ranks the answers that it was fitted on however little it knows: the numbers are of the others, if there are any.
    let in_sample = seen_in_training == rows.len();
    let measured: Vec<usize> = (0..rows.len()).filter(|&row| in_sample || !seen[row]).collect();
    let of_items: Vec<Item> = measured.iter().map(|&row| answers.items[row].clone()).collect();
    let of_rows: Vec<GatedRow> = measured.iter().map(|&row| rows[row].clone()).collect();
    let units = units(&of_items, None);
    let ranked = ranked(&of_rows, &units);
    let plain = Standing::of(of_rows.iter().map(|row| row.plain_label.as_deref()));
    let cut_off = CutOff::of(&of_rows);
    let contradicted = Contradicted {
        by_gold: answers.count(|known| known.gold_contradicts),
        by_lexicon: answers.count(|known| known.lexicon_contradicts),
    };
    let mut warnings = warnings(&answers, settings, (seen_in_training, &of_rows), &cut_off, contradicted);
    warnings.extend(other_regime(probe, engine, items));
    let change = Changes::of(&of_rows, &units);
    warnings.extend(change.at_random.and_then(|random| never_dealt(&random)));
    let found = GateResult {
        schema: "gate/v1".into(),
        probe_sha256: probe_sha256.clone(),
        c: result.c,
        threshold,
        threshold_from: threshold_from.into(),
        prefix: settings.prefix.into(),
        items: answers.items.len(),
        prefixed: rows.iter().filter(|row| row.prefixed).count(),
        seen_in_training,
        measured: of_rows.len(),
        cut_off,
        contradicted,
        auc: ranked.value,
        auc_delong: ranked.range.into(),
        plain,
        gated: Standing::of(of_rows.iter().map(|row| row.label.as_deref())),
        change,
        warnings,
    };
    let lines: String =
        rows.iter().map(|row| serde_json::to_string(row).expect("a row has a JSON form") + "\n").collect();
    write_text(&run.file("gated.jsonl"), &lines)?;
    write_json(&run.file("gate.json"), &found)?;
    Ok(found)
}

/// How the probe ranks the answers that are known to be right or wrong.
fn ranked(rows: &[GatedRow], units: &[Vec<usize>]) -> Delong {
    let (mut p, mut correct, mut of) = (Vec::new(), Vec::new(), Vec::new());
    for (unit, rows_of) in units.iter().enumerate() {
        for row in rows_of.iter().map(|&row| &rows[row]) {
            if let Some(right) = row.correct {
                p.push(row.p);
                correct.push(right);
                of.push(unit);
            }
        }
    }
    clustered_delong(&p, &correct, &of)
}

/// The index of a C among the probe's fits.
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
