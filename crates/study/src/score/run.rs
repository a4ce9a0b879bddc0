//! A causal map in a directory of its own: what is there is not computed again.

use std::{path::Path, sync::atomic::AtomicBool};

use headtemper_engine::{BaseScore, Cell, Encoded, Engine, HeadTokens, ScoreEvent, ScoreRequest};
use headtemper_hook::HeadRef;
use serde_json::json;

use crate::{
    Cohort, Item, Outcome, Parts, Progress, Result, RowLog, RunDir, StudyError,
    capture::{encode, named_items},
    cohort::{cohorts_of, label_counts, labels},
    digest::digest,
    error::{back, through},
    files::{write_json, write_text},
    report::score,
    score::{
        ScoreMap, ScoreRow, Scores,
        map::{Nulls, map},
        row::ItemKey,
        score_markdown,
    },
};

/// What `temper score` is asked for.
pub struct ScoreRun<'a> {
    /// Where the items came from.
    pub items_path: &'a Path,
    /// The heads, each tempered alone.
    pub heads: &'a [HeadRef],
    /// The factors.
    pub lambdas: &'a [f32],
    /// Labels of two cohorts to compare, a and b.
    pub contrast: Option<(&'a str, &'a str)>,
    /// Whether every cell is a forward pass of its own: the oracle.
    pub plain: bool,
    /// How often signs are flipped and labels shuffled for the nulls; 0 leaves them out.
    pub shuffles: usize,
    /// Seed of flips and shuffles.
    pub seed: u64,
    /// Tokens that are read at once.
    pub batch_tokens: usize,
    /// Set from outside, stops after the current pass.
    pub stop: Option<&'a AtomicBool>,
}

/// The rows of a terminal's table.
const LISTED: usize = 10;

/// Scores what is missing of a causal map, and writes its numbers and its report.
///
/// # Errors
/// If an item has no response, a head does not exist, a cohort is too small, the directory belongs to another run, or
/// the run is stopped; what was computed until then is kept.
pub fn score_run(
    engine: &Engine,
    items: &[Item],
    settings: &ScoreRun<'_>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    // Every refusal comes before the first file.
    let encoded = responses(engine, items, settings.items_path)?;
    engine.check_score(&encoded, &settings.request(&|_| true))?;
    let all = labels(items);
    let cohorts = settings.contrast.map(|(a, b)| cohorts_of(&all, a, b, 2)).transpose()?;
    let parts = Parts::of(engine.identity()).with("items", named_items(items, &encoded)).with("plain", settings.plain);
    let mut run = RunDir::open(dir, "score", &parts, None, progress)?;
    run.note("identity", engine.identity())?;
    let mut log = run.rows(progress)?;
    let work = Work { engine, items, encoded: &encoded, settings };
    let (scores, fired) = work.scores(&mut log, progress)?;
    let map = work.map(&scores, cohorts.as_ref());
    scores.save(&run, &work.meta())?;
    write_json(&run.file("score.json"), &map)?;
    let counts: Vec<(String, usize)> = label_counts(&all).into_iter().collect();
    let page = score::Page { map: &map, scores: &scores, counts: &counts, facts: &work.facts() };
    write_text(&run.file("report.html"), &score::render(&page))?;
    let fired = fired.into_iter().map(|(at, tokens)| (at.to_string(), tokens)).collect();
    let notes = json!({"rows": log.len(), "lambdas": settings.lambdas, "fired": run.fired("score", &fired)});
    run.finish("score", &digest(&(settings.heads, settings.lambdas)), notes)?;
    let warnings = map.warnings.clone();
    let text = warnings.iter().fold(score_markdown(&map, LISTED), |text, warning| text + "warning: " + warning + "\n");
    Ok(Outcome { text, warnings, check_failed: false })
}

/// Items with their responses; one without is named.
fn responses(engine: &Engine, items: &[Item], path: &Path) -> Result<Vec<Encoded>> {
    let encoded = encode(engine, items)?;
    match encoded.iter().position(|encoded| encoded.scored().is_empty()) {
        None => Ok(encoded),
        Some(at) => {
            let why = "has no response to score: give response, or input_ids with prompt_len";
            Err(StudyError::content(path, format!("item '{}' {why}", items[at].id)))
        }
    }
}

impl ScoreRun<'_> {
    fn request<'a>(&'a self, wanted: &'a dyn Fn(Cell) -> bool) -> ScoreRequest<'a> {
        ScoreRequest {
            heads: self.heads,
            lambdas: self.lambdas,
            wanted,
            batch_tokens: self.batch_tokens,
            stop: self.stop,
        }
    }
}

/// What a map is made from.
struct Work<'a> {
    engine: &'a Engine,
    items: &'a [Item],
    encoded: &'a [Encoded],
    settings: &'a ScoreRun<'a>,
}

impl Work<'_> {
    /// Computes the missing cells, each written down at once, and reads all of them.
    fn scores(&self, log: &mut RowLog<ScoreRow>, progress: &mut dyn Progress) -> Result<(Scores, HeadTokens)> {
        let (heads, lambdas, n) = (self.settings.heads, self.settings.lambdas, self.items.len());
        let place = |cell: Cell| (cell.head * lambdas.len() + cell.lambda) * n + cell.item;
        let item_keys: Vec<ItemKey> =
            self.encoded.iter().map(|e| ItemKey::new(self.engine.identity(), self.settings.plain, e)).collect();
        let pairs = heads.iter().flat_map(|&at| lambdas.iter().map(move |&lambda| (at, lambda)));
        let keys: Vec<String> =
            pairs.flat_map(|(at, lambda)| item_keys.iter().map(move |item| item.cell(at, lambda))).collect();
        let missing: Vec<bool> = keys.iter().map(|key| log.get(key).is_none()).collect();
        let done = missing.iter().filter(|&&missing| !missing).count();
        progress.begin("score", keys.len(), done);
        let mut bases: Vec<Option<BaseScore>> = vec![None; n];
        let wanted = |cell: Cell| missing[place(cell)];
        let fired = self.compute(&self.settings.request(&wanted), |event| {
            match event {
                ScoreEvent::Base { item, score } => bases[item] = Some(score),
                ScoreEvent::Cell { cell, score } => {
                    let base = bases[cell.item].expect("an item's base comes before its cells");
                    let planned = (heads[cell.head], lambdas[cell.lambda]);
                    let key = keys[place(cell)].clone();
                    log.append(ScoreRow::of(key, &self.items[cell.item].id, planned, base, score)).map_err(through)?;
                    progress.step();
                }
            }
            Ok(())
        });
        let fired = fired.map_err(back)?;
        progress.end();
        let rows: Vec<&ScoreRow> = keys.iter().map(|key| log.get(key).expect("every cell was scored")).collect();
        Ok((self.table(&rows), fired))
    }

    /// The one place that says how cells are computed.
    fn compute(
        &self,
        request: &ScoreRequest<'_>,
        on: impl FnMut(ScoreEvent) -> headtemper_engine::Result<()>,
    ) -> headtemper_engine::Result<HeadTokens> {
        if self.settings.plain {
            self.engine.score_plain(self.encoded, request, on)
        } else {
            self.engine.score(self.encoded, request, on)
        }
    }

    /// The rows as a table; Δ is taken within a row, so that both sides come from one run.
    fn table(&self, rows: &[&ScoreRow]) -> Scores {
        let n = self.items.len();
        Scores {
            heads: self.settings.heads.to_vec(),
            lambdas: self.settings.lambdas.to_vec(),
            ids: self.items.iter().map(|item| item.id.clone()).collect(),
            labels: self.items.iter().map(|item| item.label.clone().unwrap_or_default()).collect(),
            tokens: rows[..n].iter().map(|row| row.tokens).collect(),
            base: rows[..n].iter().map(|row| row.base_logprob).collect(),
            delta: rows.iter().map(|row| row.sum_logprob - row.base_logprob).collect(),
            kl: rows.iter().map(|row| row.kl).collect(),
            agree: rows.iter().map(|row| row.agree).collect(),
        }
    }

    fn map(&self, scores: &Scores, cohorts: Option<&[Cohort; 2]>) -> ScoreMap {
        let spec = self.engine.spec();
        let heads_per_layer = (0..spec.layers.len()).map(|layer| spec.head_count(layer)).collect();
        let nulls = Nulls { shuffles: self.settings.shuffles, seed: self.settings.seed };
        let mut map = map(scores, &self.engine.identity().model, heads_per_layer, cohorts, nulls);
        let first = self.encoded.iter().filter(|encoded| encoded.prompt_len == 0).count();
        if first > 0 {
            map.warnings.push(format!(
                "{first} of {} items have no prompt: their first token has nothing to be predicted from and is not scored",
                self.items.len()
            ));
        }
        map
    }

    fn way(&self) -> &'static str {
        if self.settings.plain {
            "plain: a forward pass for every head and λ"
        } else {
            "shared: as --plain, but faster"
        }
    }

    fn meta(&self) -> String {
        let meta = json!({
            "schema": "scores/v1",
            "sign": "delta_logprob is tempered minus untempered, in nats; kl is KL(untempered || tempered)",
            "plain": self.settings.plain,
        });
        let mut meta = meta.as_object().cloned().expect("it was written as an object");
        let identity = serde_json::to_value(self.engine.identity()).expect("plain data has a JSON form");
        meta.extend(identity.as_object().cloned().unwrap_or_default());
        serde_json::to_string(&meta).expect("plain data has a JSON form")
    }

    fn facts(&self) -> Vec<(String, String)> {
        let (identity, settings) = (self.engine.identity(), self.settings);
        let lambdas: Vec<String> = settings.lambdas.iter().map(ToString::to_string).collect();
        let file = settings.items_path.file_name().unwrap_or_default().to_string_lossy();
        let facts = [
            ("model", identity.model.clone()),
            ("weights (SHA-256)", identity.weights_sha256.clone()),
            ("held in", format!("{} on {}", identity.dtype, identity.device)),
            ("items", format!("{} of {file}", self.items.len())),
            ("tempered", format!("{} heads, one at a time, on prompt and response", settings.heads.len())),
            ("λ", lambdas.join(", ")),
            ("computed", self.way().into()),
            ("signs flipped, labels shuffled", format!("{} times at most, seed {}", settings.shuffles, settings.seed)),
            ("version", format!("headtemper {}", identity.version)),
        ];
        facts.into_iter().map(|(name, value)| (name.into(), value)).collect()
    }
}
