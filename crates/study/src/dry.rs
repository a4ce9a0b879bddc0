//! What there is to do, before anything is done or written.

use std::path::Path;

use headtemper_engine::{Engine, MemoryPlan, Speed};
use serde::Serialize;

use crate::{
    CaptureJob, Experiment, Item, Progress, Result, Row, RunDir, ScoreRun, SweepRun, capture, run,
    score::{self, ScoreRow},
    store::rows::rows_in,
    sweep::{wanted::Wanted, work::Work},
};

/// What a command would do. Times are upper bounds: a row counts as if it reached its limit of tokens, and a scored cell as if it
/// shared no start with another. The rows of a scoring are its cells.
#[derive(Clone, Debug, Serialize)]
pub struct DryRun {
    /// `dry-run/v1`.
    pub schema: String,
    /// The command.
    pub command: String,
    /// Rows that are there already.
    pub rows_done: usize,
    /// Rows that are missing.
    pub rows_new: usize,
    /// Tokens of the prompts or texts of the missing rows. For a scoring, those of its untempered passes are included; for an
    /// experiment, those of all texts that its attribution reads, at their longest.
    pub prompt_tokens: usize,
    /// The most tokens that are generated for them.
    pub new_tokens: usize,
    /// The memory they take; null if no row is missing.
    pub memory: Option<MemoryPlan>,
    /// How fast the model is on this machine, measured briefly; null if no row is missing.
    pub speed: Option<Speed>,
    /// The most seconds they take at that speed.
    pub seconds: f64,
}

impl DryRun {
    /// An estimate from what is missing, which `rows` and `tokens` count. The model is run briefly, at the rows and positions of
    /// the plan.
    ///
    /// # Errors
    /// If the model cannot be run.
    pub fn estimate(
        engine: &Engine,
        command: &str,
        (rows_done, rows_new): (usize, usize),
        (prompt_tokens, new_tokens): (usize, usize),
        memory: Option<MemoryPlan>,
    ) -> Result<Self> {
        let generates = new_tokens > 0;
        let position = (prompt_tokens + new_tokens / 2).checked_div(rows_new).unwrap_or(0);
        let speed = match &memory {
            None => None,
            Some(memory) => Some(engine.speed(if generates { memory.rows } else { 0 }, position)?),
        };
        let seconds = speed.as_ref().map_or(0.0, |speed| speed.seconds(prompt_tokens, new_tokens));
        let (schema, command) = ("dry-run/v1".into(), command.into());
        Ok(Self { schema, command, rows_done, rows_new, prompt_tokens, new_tokens, memory, speed, seconds })
    }

    /// For people to read.
    pub fn text(&self) -> String {
        let rows = if self.command == "score" { "cells" } else { "rows" };
        // Cells may share their start, and answers that an experiment reads again may end early.
        let at_most = matches!(&self.command[..], "score" | "run");
        let mut out = format!("{rows:<10} {} to do, {} done before\n", self.rows_new, self.rows_done);
        let bound = if at_most { "at most " } else { "" };
        out += &format!("tokens     {bound}{} to read", self.prompt_tokens);
        if self.new_tokens > 0 {
            out += &format!(", at most {} to write", self.new_tokens);
        }
        out.push('\n');
        if let Some(memory) = &self.memory {
            out += &format!("memory     {memory}\n");
        }
        if let Some(speed) = &self.speed {
            out += &format!("speed      {speed}\n");
        }
        // Texts that are only read are read to the end.
        let bound = if self.new_tokens > 0 || at_most { "at most about" } else { "about" };
        out + &format!("time       {bound} {}\n", duration(self.seconds))
    }
}

/// A duration for people to read: `40 s`, `12 min`, `3.4 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 99.5 * 60.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// What a sweep, or its shard, would do in a directory, after all checks that it makes.
///
/// # Errors
/// As [`sweep_run`](crate::sweep_run), before it generates.
pub fn dry_sweep(engine: &Engine, run: &SweepRun<'_>, dir: &Path) -> Result<DryRun> {
    let (all, parts) = run.rows(engine)?;
    let wanted = run.part(&all)?;
    RunDir::check(dir, "sweep", &parts, run.shard)?;
    let done = rows_in::<Row>(dir)?;
    let missing: Vec<&Wanted> = wanted.iter().filter(|w| !done.contains_key(&w.key)).collect();
    let work = Work::of(engine, run.items, run.arms, &missing, run.options)?;
    engine.check_plans(&work.plans)?;
    let prompt_tokens = work.requests.iter().map(|request| request.ids.len()).sum();
    let counts = (wanted.len() - missing.len(), missing.len());
    let tokens = (prompt_tokens, work.most_new_tokens(engine));
    DryRun::estimate(engine, "sweep", counts, tokens, work.memory)
}

/// What a capture, or its shard, would do, after all checks that it makes.
///
/// # Errors
/// As [`capture_file`](crate::capture_file), before it writes.
pub fn dry_capture(engine: &Engine, job: &CaptureJob<'_>, progress: &mut dyn Progress) -> Result<DryRun> {
    let prepared = capture::Prepared::new(engine, job, progress)?;
    let capture::ToDo { done, tokens, new_tokens, memory } = prepared.to_do()?;
    let counts = (done, prepared.items() - done);
    DryRun::estimate(engine, "capture", counts, (tokens, new_tokens), memory)
}

/// What a scoring, or its shard, would do in a directory, after all checks that it makes. A cell takes the time of the layers from
/// its head's layer on.
///
/// # Errors
/// As [`score_run`](crate::score_run), before it scores.
pub fn dry_score(engine: &Engine, items: &[Item], run: &ScoreRun<'_>, dir: &Path) -> Result<DryRun> {
    let work = score::Work::new(engine, items, run)?;
    RunDir::check(dir, "score", &work.parts, run.shard)?;
    let there = rows_in::<ScoreRow>(dir)?;
    let missing = work.missing(|key| there.contains_key(key));
    let to_do = work.to_do(&missing);
    let memory = if to_do.cells > 0 { Some(work.memory(&missing)?) } else { None };
    let counts = (work.part.len() - to_do.cells, to_do.cells);
    let dry = DryRun::estimate(engine, "score", counts, (to_do.tokens, 0), memory)?;
    let seconds = dry.speed.as_ref().map_or(0.0, |speed| speed.seconds(to_do.cost.ceil() as usize, 0));
    Ok(DryRun { seconds, ..dry })
}

/// What a whole experiment would do in a directory, after all checks that it makes. Where the attribution is to choose the heads to
/// sweep, but is not there yet, other heads count in their place.
///
/// # Errors
/// As [`run`](crate::run), before it generates.
pub fn dry_run(engine: &Engine, experiment: &Experiment, dir: &Path) -> Result<DryRun> {
    let run::ToDo { rows, tokens, memory, capture } = run::Prepared::new(engine, experiment)?.to_do(dir)?;
    let (read, of_capture) = capture.map_or((0, None), |(read, memory)| (read, Some(memory)));
    let decoded = memory.clone().or_else(|| of_capture.clone());
    let dry = DryRun::estimate(engine, "run", rows, tokens, decoded)?;
    let prompt_tokens = tokens.0 + read;
    let seconds = dry.speed.as_ref().map_or(0.0, |speed| speed.seconds(prompt_tokens, tokens.1));
    // They run one after the other.
    let memory = memory.into_iter().chain(of_capture).max_by_key(|memory| memory.total);
    Ok(DryRun { prompt_tokens, memory, seconds, ..dry })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_the_unit_that_fits() {
        assert_eq!([4.2, 99.0, 120.0, 5400.0, 12_240.0].map(duration), ["4 s", "99 s", "2 min", "90 min", "3.4 h"]);
    }
}
