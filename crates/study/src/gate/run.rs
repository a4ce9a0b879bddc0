//! Generates, reads the finished answers, and gates them.

use std::path::Path;

use headtemper_engine::{Engine, HeadsWanted, Keep, Pool};
use headtemper_stats::{Delong, clustered_delong};

use super::{
    Changes, Contradicted, CutOff, GateResult, GatedRow, Standing, ThresholdFrom,
    answers::{Answers, Contradicts, known},
    frozen::FrozenProbe,
    site::ProbeSite,
    warnings::{never_dealt, no_grade, other_regime, warnings},
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

impl GateRun<'_> {
    /// Refuses settings and items that no model could be gated with, so that none has to be opened first.
    ///
    /// # Errors
    /// If the probe has no fit of this C, no threshold or one that is no probability, a setting has no meaning, or an item's answer is
    /// token ids.
    pub fn check(&self, items: &[Item]) -> Result<()> {
        self.fit()?;
        self.generate.check()?;
        self.site.map_or(Ok(()), ProbeSite::check)?;
        if self.prefix.trim().is_empty() {
            // A blank prefix would change no answer, but count as a hedge.
            return Err(StudyError::option("--prefix", "blank", "words that an answer is hedged with"));
        }
        items.iter().try_for_each(|item| item.check_text("the gate writes it"))
    }

    /// The place of the fit among the probe's, the threshold, and where that comes from.
    fn fit(&self) -> Result<(usize, f64, ThresholdFrom)> {
        let probe = &self.probe.probe;
        let fit = fit_of(probe, self.c)?;
        let (threshold, threshold_from) = threshold_of(self.threshold, &probe.meta.results[fit])?;
        Ok((fit, threshold, threshold_from))
    }
}

/// What the user should know of the items before a model reads them, which may take long: that nothing tells whether an answer is right.
pub fn gate_remarks(items: &[Item]) -> Vec<String> {
    let tells =
        |item: &Item| !item.gold.is_empty() || (item.is_answered() && known(item, None, None).correct.is_some());
    let told = || format!("nothing says of any answer whether it is right: {}", no_grade(items));
    items.iter().all(|item| !tells(item)).then(told).into_iter().collect()
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
    // Anything that does not fit is refused before anything is generated.
    settings.check(items)?;
    let gate = Gate::of(settings, engine)?;
    prompts(engine, items)?;
    let run = RunDir::open(dir, "gate", &gate.parts(engine, items)?, None, progress)?;
    let mut log = run.rows::<Row>(progress)?;
    let unanswered: Vec<Item> = items.iter().filter(|item| !item.is_answered()).cloned().collect();
    let (mut rows, _) = sweep(engine, &unanswered, &[Arm::base()], &settings.generate, &mut log, progress)?;
    let answers = Answers::of(engine, items, &rows.remove(0), settings.hedges)?;
    let (p, seen) = gate.read(engine, &answers, progress)?;
    let rows = answers.gated(&p, &seen, settings.prefix, gate.threshold);
    let mut found = gate.measured(&answers, &rows);
    found.warnings.extend(other_regime(gate.probe, engine, items));
    let lines: String =
        rows.iter().map(|row| serde_json::to_string(row).expect("a row has a JSON form") + "\n").collect();
    write_text(&run.file("gated.jsonl"), &lines)?;
    write_json(&run.file("gate.json"), &found)?;
    Ok(found)
}

/// A gate that fits its model: which fit of the probe reads where, and what it lets through.
struct Gate<'a> {
    settings: &'a GateRun<'a>,
    probe: &'a Probe,
    /// The place of its fit among the probe's.
    fit: usize,
    c: f64,
    threshold: f64,
    threshold_from: ThresholdFrom,
    site: ProbeSite,
    /// What it reads, for errors.
    source: String,
}

impl<'a> Gate<'a> {
    fn of(settings: &'a GateRun<'a>, engine: &Engine) -> Result<Self> {
        let probe = &settings.probe.probe;
        let (fit, threshold, threshold_from) = settings.fit()?;
        let c = probe.meta.results[fit].c;
        let site = ProbeSite::of(settings.site, &probe.meta.train, engine)?;
        let source = format!("{}, at the site that the probe reads", engine.identity().model);
        probe.probabilities(fit, &vec![0.0; engine.spec().d_model], engine.spec().d_model, &source)?;
        Ok(Self { settings, probe, fit, c, threshold, threshold_from, site, source })
    }

    /// What the rows of its directory are made from.
    fn parts(&self, engine: &Engine, items: &[Item]) -> Result<Parts> {
        let GateRun { generate, prefix, hedges, .. } = self.settings;
        Ok(Parts::of(engine.identity())
            .with("items", named_items(items, &encode(engine, items)?))
            .with("probe", &self.settings.probe.sha256)
            .with("c", self.c)
            .with("threshold", self.threshold)
            .with("site", self.site.to_string())
            .with("prefix", prefix)
            .with("hedges", hedges)
            .with("sampling", &generate.sampling)
            .with("max_new_tokens", generate.max_new_tokens))
    }

    /// The probe's probability for each answer, and whether it was fitted on it or on another answer to its prompt.
    fn read(&self, engine: &Engine, answers: &Answers, progress: &mut dyn Progress) -> Result<(Vec<f64>, Vec<bool>)> {
        let (probe, generate) = (self.probe, &self.settings.generate);
        // Averaged over the same tokens as the probe's own features.
        let pool = probe.meta.train.meta.as_ref().map_or(Ok(Pool::Last), |meta| meta.pool.parse())?;
        let options = CaptureOptions {
            keep: Keep { pool, layers: self.site.layers(), heads: HeadsWanted::None, ..Keep::default() },
            memory: generate.memory,
            stop: generate.stop,
            ..CaptureOptions::default()
        };
        let (features, _) = capture_encoded(engine, &answers.items, &answers.encoded, &options, progress)?;
        let (x, width) = (self.site.features(&features), engine.spec().d_model);
        let asked: Vec<String> = answers.items.iter().map(prompt_hash).collect();
        Ok((probe.probabilities(self.fit, &x, width, &self.source)?, probe.seen(&x, width, Some(&asked))))
    }

    /// What the gate does to its answers.
    fn measured(&self, answers: &Answers, rows: &[GatedRow]) -> GateResult {
        let seen_in_training = rows.iter().filter(|row| row.seen_in_training).count();
        // A probe ranks the answers that it was fitted on however little it knows: the numbers are of the others, if there are any.
        let in_sample = seen_in_training == rows.len();
        let (of_rows, of_items): (Vec<GatedRow>, Vec<Item>) = rows
            .iter()
            .zip(&answers.items)
            .filter(|(row, _)| in_sample || !row.seen_in_training)
            .map(|(row, item)| (row.clone(), item.clone()))
            .unzip();
        let units = units(&of_items, None);
        let ranked = ranked(&of_rows, &units);
        let cut_off = CutOff::of(&of_rows);
        let contradicted = Contradicted {
            by_gold: answers.count(|known| known.contradicts == Some(Contradicts::Gold)),
            by_itself: answers.count(|known| known.contradicts == Some(Contradicts::Itself)),
            by_lexicon: answers.count(|known| known.lexicon_contradicts),
        };
        let change = Changes::of(&of_rows, &units);
        let mut warnings = warnings(answers, self.settings, (seen_in_training, &of_rows), &cut_off, contradicted);
        warnings.extend(change.at_random.and_then(|random| never_dealt(&random)));
        GateResult {
            schema: "gate/v1".into(),
            probe_sha256: self.settings.probe.sha256.clone(),
            c: self.c,
            threshold: self.threshold,
            threshold_from: self.threshold_from,
            prefix: self.settings.prefix.into(),
            items: answers.items.len(),
            prefixed: rows.iter().filter(|row| row.prefixed).count(),
            seen_in_training,
            measured: of_rows.len(),
            cut_off,
            contradicted,
            auc: ranked.value,
            auc_delong: ranked.range.into(),
            plain: Standing::of(of_rows.iter().map(|row| row.plain_label.as_deref())),
            gated: Standing::of(of_rows.iter().map(|row| row.label.as_deref())),
            change,
            warnings,
        }
    }
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
fn threshold_of(asked: Option<f64>, result: &FitResult) -> Result<(f64, ThresholdFrom)> {
    match (asked, result.cv.best_thr) {
        (Some(asked), _) if (0.0..=1.0).contains(&asked) => Ok((asked, ThresholdFrom::Asked)),
        (Some(asked), _) => Err(StudyError::option("the threshold", asked.to_string(), "a probability, from 0 to 1")),
        (None, Some(chosen)) => Ok((chosen, ThresholdFrom::Training)),
        (None, None) => Err(StudyError::option(
            "the probe's threshold",
            format!("none, since none kept p(assert | correct) at {}", result.cv.assert_correct),
            "given with --threshold",
        )),
    }
}
