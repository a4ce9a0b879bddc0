//! The cells of a causal map: which there are, which are wanted here, and how they are computed.

use std::ops::Range;

use headtemper_engine::{
    BaseScore, Cell, Encoded, Engine, EngineError, MemoryPlan, ScoreCost, ScoreEvent, ScoreRequest,
};

use crate::{
    Item, Parts, Plan, Progress, Result, RowLog,
    capture::{encode, leaves_ids, left_ids, named_items},
    error::{back, through},
    score::{ScoreRow, ScoreRun, plan::ScorePlan},
};

/// Bytes kept per cell until the end: its row, its key twice more, its numbers in tables, its line in a file.
const ROW: u64 = 1024;

/// What a map consists of, after every check that needs no file.
pub(crate) struct Work<'a> {
    engine: &'a Engine,
    items: &'a [Item],
    settings: &'a ScoreRun<'a>,
    encoded: Vec<Encoded>,
    /// What rows of one directory share: further heads and λ may join them, another model may not.
    pub(crate) parts: Parts,
    /// Of the whole map.
    pub(crate) plan: Plan<ScorePlan>,
    /// The cells that are computed here.
    pub(crate) part: Range<usize>,
}

/// What there is to do.
#[derive(Default)]
pub(crate) struct ToDo {
    pub(crate) cells: usize,
    /// Tokens of untempered passes and of cells.
    pub(crate) tokens: usize,
    /// What they cost, counted in tokens that all layers read.
    pub(crate) cost: f64,
}

impl<'a> Work<'a> {
    /// # Errors
    /// If an item has no response or does not fit the memory, a head does not exist, a cohort is too small, or a shard
    /// would be empty.
    pub(crate) fn new(engine: &'a Engine, items: &'a [Item], settings: &'a ScoreRun<'a>) -> Result<Self> {
        settings.check(items)?;
        let encoded = encode(engine, items)?;
        if let Some(at) = encoded.iter().position(|encoded| encoded.scored().is_empty()) {
            return Err(settings.silent(&items[at]));
        }
        engine.check_score(&encoded, &settings.request(engine, &|_| true, 0))?;
        let plan = ScorePlan::new(engine, items, &encoded, settings);
        plan.cohorts()?;
        let parts = Parts::of(engine.identity())
            .with_raw(items)
            .with("items", named_items(items, &encoded))
            .with("plain", settings.plain);
        let mut keys = Vec::with_capacity(items.len() * settings.heads.len() * settings.lambdas.len());
        for item in &plan.items {
            let pairs = settings.heads.iter().flat_map(|&at| settings.lambdas.iter().map(move |&lambda| (at, lambda)));
            keys.extend(pairs.map(|(at, lambda)| item.cell(at, lambda)));
        }
        let part = match settings.shard {
            None => 0..keys.len(),
            Some(shard) => shard.range_of(keys.len(), "cells")?,
        };
        let work = Self { engine, items, settings, encoded, parts, plan: Plan::new(keys, plan), part };
        let all: Vec<bool> = (0..work.plan.keys.len()).map(|place| work.part.contains(&place)).collect();
        work.memory(&all)?;
        Ok(work)
    }

    /// What the user should know of how the items are read.
    pub(crate) fn note(&self) -> Option<String> {
        let left = self.items.iter().zip(&self.encoded).filter(|(item, encoded)| leaves_ids(item, encoded)).count();
        left_ids(left, self.items.len())
    }

    /// Whether each cell of the whole map is wanted here and not there yet.
    pub(crate) fn missing(&self, there: impl Fn(&str) -> bool) -> Vec<bool> {
        let keys = self.plan.keys.iter().enumerate();
        keys.map(|(place, key)| self.part.contains(&place) && !there(key)).collect()
    }

    /// How many tokens are read at once, and the memory that takes.
    ///
    /// # Errors
    /// If an item does not fit the memory: it is named.
    pub(crate) fn memory(&self, missing: &[bool]) -> Result<MemoryPlan> {
        let wanted = |cell: Cell| missing[self.place(cell)];
        let request = self.settings.request(self.engine, &wanted, count(missing));
        let name = |item: usize| format!("item '{}'", self.items[item].id);
        Ok(self.engine.plan_score(&self.encoded, &request, self.settings.plain, &name)?)
    }

    /// What the missing cells amount to.
    pub(crate) fn to_do(&self, missing: &[bool]) -> ToDo {
        let (cost, mut sum) = (self.engine.score_cost(self.settings.plain), ToDo::default());
        let cells = self.settings.heads.len() * self.settings.lambdas.len();
        for (item, missing) in self.encoded.iter().zip(missing.chunks(cells)) {
            let wanted = missing.iter().enumerate().filter(|&(_, &missing)| missing);
            let heads = wanted.map(|(cell, _)| self.settings.heads[cell / self.settings.lambdas.len()]);
            let before = sum.cells;
            for at in heads {
                sum.cells += 1;
                sum.cost += cost.cell(item, at);
            }
            if sum.cells > before {
                sum.tokens += item.ids.len() * (1 + sum.cells - before);
                sum.cost += cost.base(item);
            }
        }
        sum
    }

    /// Computes the missing cells and writes each down at once.
    ///
    /// # Errors
    /// If a row cannot be written, or the run is stopped; what was computed until then is kept.
    pub(crate) fn fill(&self, log: &mut RowLog<ScoreRow>, progress: &mut dyn Progress) -> Result<()> {
        let missing = self.missing(|key| log.get(key).is_some());
        let to_do = self.to_do(&missing);
        let memory = if to_do.cells > 0 { Some(self.memory(&missing)?) } else { None };
        if let Some(memory) = &memory {
            progress.note(&format!("memory     {memory}"));
        }
        progress.begin("score", self.part.len(), self.part.len() - to_do.cells);
        if let Some(memory) = memory {
            progress.expect(to_do.tokens);
            self.compute(&missing, &memory, log, &mut Meter::new(self, &to_do, progress))?;
        }
        progress.end();
        Ok(())
    }

    fn compute(
        &self,
        missing: &[bool],
        memory: &MemoryPlan,
        log: &mut RowLog<ScoreRow>,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let wanted = |cell: Cell| missing[self.place(cell)];
        let request = ScoreRequest {
            batch_tokens: memory.step_tokens,
            memory: memory.limit,
            ..self.settings.request(self.engine, &wanted, count(missing))
        };
        let mut bases: Vec<Option<BaseScore>> = vec![None; self.items.len()];
        let on = |event| {
            match event {
                ScoreEvent::Base { item, score } => {
                    bases[item] = Some(score);
                    meter.base(&self.encoded[item]);
                }
                ScoreEvent::Cell { cell, score } => {
                    let base = bases[cell.item].expect("an item's base comes before its cells");
                    let planned = (self.settings.heads[cell.head], self.settings.lambdas[cell.lambda]);
                    let key = self.plan.keys[self.place(cell)].clone();
                    log.append(ScoreRow::of(key, &self.items[cell.item].id, planned, base, score)).map_err(through)?;
                    meter.cell(&self.encoded[cell.item], planned.0);
                }
            }
            Ok(())
        };
        let scored = if self.settings.plain {
            self.engine.score_plain(&self.encoded, &request, on)
        } else {
            self.engine.score(&self.encoded, &request, on)
        };
        scored.map_err(|error| back(self.named(error)))
    }

    /// Names the item in an error that knows it only by its place.
    fn named(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::SpoiltScore { item, tempered } => {
                let under = match tempered {
                    None => "untempered".into(),
                    Some((at, lambda)) => format!("under {at}:{lambda}"),
                };
                EngineError::NotANumber { what: format!("item '{}' {under}", self.items[item].id) }
            }
            other => other,
        }
    }

    fn place(&self, cell: Cell) -> usize {
        (cell.item * self.settings.heads.len() + cell.head) * self.settings.lambdas.len() + cell.lambda
    }
}

impl ScoreRun<'_> {
    /// The request for the engine, with the number of cells that are kept.
    fn request<'a>(&'a self, engine: &Engine, wanted: &'a dyn Fn(Cell) -> bool, cells: usize) -> ScoreRequest<'a> {
        ScoreRequest {
            heads: self.heads,
            lambdas: self.lambdas,
            wanted,
            batch_tokens: self.batch_tokens.unwrap_or_else(|| engine.tokens_at_once()),
            memory: self.memory,
            kept: cells as u64 * ROW,
            stop: self.stop,
        }
    }
}

fn count(missing: &[bool]) -> usize {
    missing.iter().filter(|&&missing| missing).count()
}

/// Reports how far the cells are. Their costs differ: those of the last layers, which come first, cost the least.
struct Meter<'a> {
    cost: ScoreCost,
    done: f64,
    all: f64,
    progress: &'a mut dyn Progress,
}

impl<'a> Meter<'a> {
    fn new(work: &Work<'_>, to_do: &ToDo, progress: &'a mut dyn Progress) -> Self {
        let cost = work.engine.score_cost(work.settings.plain);
        Self { cost, done: 0.0, all: to_do.cost, progress }
    }

    fn base(&mut self, item: &Encoded) {
        self.add(item, self.cost.base(item));
    }

    fn cell(&mut self, item: &Encoded, at: headtemper_hook::HeadRef) {
        self.add(item, self.cost.cell(item, at));
        self.progress.step();
    }

    fn add(&mut self, item: &Encoded, cost: f64) {
        self.done += cost;
        self.progress.share(self.done / self.all);
        self.progress.tokens(item.ids.len());
    }
}
