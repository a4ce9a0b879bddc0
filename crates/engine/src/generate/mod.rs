//! Generation: many rows at once, each under its own plan, a finished row's slot refilled at once.

mod starts;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::Tensor;
use headtemper_hook::{Batch, HeadPlan, HeadScale, Span};
use headtemper_model::Cache;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Engine, EngineError, Fired, MemoryPlan, Noise, Result, Sampling, StopRule,
    memory::{Limit, Rows, plan_rows},
    noise::largest,
    sample::sum_exp,
};
use starts::SharedStarts;

/// One continuation to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt.
    pub ids: Vec<u32>,
    /// Which plan tempers it: an index into the plans given to [`Engine::generate`].
    pub plan: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Names the sampling noise; give an item the same number under every plan, so that arms share their draws.
    pub noise: u64,
    /// The most tokens to generate, the stop token not counted.
    pub max_new_tokens: usize,
    /// Which tokens end it before that.
    pub stop: StopRule,
}

/// Why a generation ended. A truncated answer must never be read as a finished one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model wrote a stop token.
    Stop,
    /// It was cut off at the limit of tokens, or of the context.
    Length,
}

/// A finished continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The tokens, without the stop token.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Sum over `ids` of the log-probability under the model as tempered, before penalties and temperature, in nats.
    pub sum_logprob: f64,
}

/// What happens during a generation; rows are indices into the requests.
#[derive(Debug)]
pub enum Event<'a> {
    /// A row has one more token.
    Token {
        /// The row.
        row: usize,
        /// All its tokens so far.
        ids: &'a [u32],
    },
    /// A row is done.
    Done {
        /// The row.
        row: usize,
        /// Its result.
        result: &'a Generated,
    },
}

/// How much is done at once.
#[derive(Clone, Debug)]
pub struct GenerateOptions<'a> {
    /// The most rows that are decoded together; fewer where memory is short.
    pub max_rows: usize,
    /// The most memory to take in bytes, the model's included; what the machine has available if none is given.
    pub memory: Option<u64>,
    /// Prompt tokens that are read beside a decode step. Longer prompts are read in pieces.
    pub prefill_tokens: usize,
    /// Set from outside, stops after the current step; finished rows were reported.
    pub stop: Option<&'a AtomicBool>,
}

impl Default for GenerateOptions<'_> {
    fn default() -> Self {
        Self { max_rows: 32, memory: None, prefill_tokens: 512, stop: None }
    }
}

/// A row that is being generated.
struct Running {
    row: usize,
    slot: usize,
    /// Tokens that the cache holds.
    seen: usize,
    generated: Vec<u32>,
    sum_logprob: f64,
}

impl Running {
    /// The tokens that the model has not read: what is left of the prompt, or the last one generated.
    fn unread<'a>(&'a self, request: &'a Request) -> &'a [u32] {
        match self.generated.last() {
            None => &request.ids[self.seen..],
            Some(last) => std::slice::from_ref(last),
        }
    }
}

/// The requests of a run, and what their prompts share.
struct Work<'a> {
    requests: &'a [Request],
    /// Prompt tokens that are read in a step.
    prefill: usize,
    starts: SharedStarts,
    queue: VecDeque<usize>,
    free: Vec<usize>,
}

/// What a forward pass works on.
struct State {
    cache: Cache,
    scale: HeadScale,
}

impl Engine {
    /// Plans the memory of a generation: how many rows run at once. `name` names a request by its index in errors.
    ///
    /// # Errors
    /// If a request is empty or too long, asks for a plan that is not there, or does not fit the memory even alone.
    pub fn plan_generation(
        &self,
        requests: &[Request],
        plans: usize,
        options: &GenerateOptions<'_>,
        name: &dyn Fn(usize) -> String,
    ) -> Result<MemoryPlan> {
        Ok(self.plan_with_starts(requests, plans, options, name)?.0)
    }

    /// The plan, with the shared starts that have room in it.
    fn plan_with_starts(
        &self,
        requests: &[Request],
        plans: usize,
        options: &GenerateOptions<'_>,
        name: &dyn Fn(usize) -> String,
    ) -> Result<(MemoryPlan, SharedStarts)> {
        if options.max_rows == 0 {
            return Err(EngineError::Setting { name: "max_rows", found: "0".into(), allowed: "at least 1" });
        }
        requests.iter().enumerate().try_for_each(|(row, request)| self.check(row, request, plans))?;
        let tokens: Vec<usize> = requests.iter().map(|request| self.most_tokens(request)).collect();
        let (cost, limit) = (self.cost()?, Limit::of(options.memory, self.model.device().is_cpu()));
        // No step reads more than all prompts together.
        let prompts: usize = requests.iter().map(|request| request.ids.len()).sum();
        let plan = |starts: &SharedStarts| {
            let starts = starts.lengths();
            let (most, prefill) = (options.max_rows, options.prefill_tokens.clamp(1, prompts.max(1)));
            plan_rows(&cost, &Rows { tokens: &tokens, starts: &starts, most, prefill }, limit, name)
        };
        let starts = SharedStarts::find(requests, plans);
        let without = plan(&SharedStarts::none(plans))?;
        // A start that is read once saves little beside rows that would run together.
        match plan(&starts) {
            Ok(with) if 2 * with.rows >= without.rows => Ok((with, starts)),
            _ => Ok((without, SharedStarts::none(plans))),
        }
    }

    /// The tokens that a row can come to.
    fn most_tokens(&self, request: &Request) -> usize {
        request.ids.len().saturating_add(request.max_new_tokens).min(self.spec().context)
    }

    /// Generates a continuation of every request and reports each as it is done, in the order they finish.
    ///
    /// On the CPU the result of a row depends on nothing but its own request and plan: not on the other rows, on
    /// `max_rows` or memory, nor on the number of threads. Returns how often each planned head fired; if every plan was
    /// used, one that never fired is an error.
    ///
    /// # Errors
    /// If a plan does not fit the model, a request is empty or too long for the context or the memory, `on_event`
    /// fails, or the run is stopped.
    pub fn generate(
        &self,
        requests: &[Request],
        plans: &[HeadPlan],
        options: &GenerateOptions<'_>,
        mut on_event: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<Fired> {
        let scale = self.scale(plans)?;
        let name = |row: usize| format!("row {row}");
        let (plan, starts) = self.plan_with_starts(requests, plans.len(), options, &name)?;
        let Some(capacity) = requests.iter().map(|request| self.most_tokens(request)).max() else {
            return Ok(Fired::new());
        };
        let cache = self.model.new_cache(plan.rows + starts.lengths().len(), capacity)?;
        let mut work = Work {
            requests,
            prefill: options.prefill_tokens.max(1),
            starts,
            queue: (0..requests.len()).collect(),
            // Slots of rows first, those of shared starts behind them.
            free: (0..plan.rows).rev().collect(),
        };
        let mut state = State { cache, scale };
        let mut running: Vec<Running> = Vec::new();
        while !work.queue.is_empty() || !running.is_empty() {
            if options.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(EngineError::Interrupted);
            }
            self.admit(&mut work, plan.rows, &mut running, &mut state)?;
            let pieces = work.pieces(&running);
            let chosen = self.step(&running, &pieces, requests, &mut state)?;
            for ((run, piece), chosen) in running.iter_mut().zip(pieces).zip(chosen) {
                run.seen += piece;
                let Some((token, logprob)) = chosen else { continue };
                if let Some(finish_reason) = self.take(run, &requests[run.row], token, logprob, &mut on_event)? {
                    let ids = std::mem::take(&mut run.generated);
                    let result = Generated { ids, finish_reason, sum_logprob: run.sum_logprob };
                    on_event(Event::Done { row: run.row, result: &result })?;
                    work.free.push(run.slot);
                    run.slot = DONE;
                }
            }
            running.retain(|run| run.slot != DONE);
        }
        let used: BTreeSet<usize> = requests.iter().map(|r| r.plan).collect();
        if used.len() == plans.len() {
            state.scale.check_fired()?;
        }
        Ok(state.scale.fired())
    }

    /// Gives a row its next token, and says why it ends if it does.
    fn take(
        &self,
        run: &mut Running,
        request: &Request,
        token: u32,
        logprob: f64,
        on_event: &mut impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<Option<FinishReason>> {
        if request.stop.ends(&self.stop, token) {
            return Ok(Some(FinishReason::Stop));
        }
        run.generated.push(token);
        run.sum_logprob += logprob;
        on_event(Event::Token { row: run.row, ids: &run.generated })?;
        let more = run.generated.len() < request.max_new_tokens && run.seen + 1 < self.spec().context;
        Ok(if more { None } else { Some(FinishReason::Length) })
    }

    fn check(&self, row: usize, request: &Request, plans: usize) -> Result<()> {
        let (tokens, context) = (request.ids.len(), self.spec().context);
        let what = format!("the prompt of row {row}");
        if tokens == 0 {
            return Err(EngineError::Empty(what));
        }
        if tokens >= context {
            return Err(EngineError::TooLong { what, tokens, context });
        }
        if request.max_new_tokens == 0 {
            return Err(EngineError::Setting { name: "max_new_tokens", found: "0".into(), allowed: "at least 1" });
        }
        if request.plan >= plans {
            return Err(EngineError::NoSuchPlan { row, plan: request.plan, plans });
        }
        request.sampling.check()
    }

    /// Takes as many waiting rows as there are free slots and prompt tokens to read in this step.
    fn admit(&self, work: &mut Work<'_>, rows: usize, running: &mut Vec<Running>, state: &mut State) -> Result<()> {
        let waiting =
            |run: &Running| if run.generated.is_empty() { run.unread(&work.requests[run.row]).len() } else { 0 };
        let mut budget = work.prefill.saturating_sub(running.iter().map(waiting).sum());
        while let (Some(&row), Some(&slot), true) = (work.queue.front(), work.free.last(), budget > 0) {
            work.queue.pop_front();
            work.free.pop();
            let seen = self.take_start(row, slot, rows, work, state)?;
            budget = budget.saturating_sub(work.requests[row].ids.len() - seen);
            running.push(Running { row, slot, seen, generated: Vec::new(), sum_logprob: 0.0 });
        }
        Ok(())
    }

    /// Gives a new row the start that its plan's prompts share, reading it once for all of them: how long that is.
    fn take_start(
        &self,
        row: usize,
        slot: usize,
        rows: usize,
        work: &mut Work<'_>,
        state: &mut State,
    ) -> Result<usize> {
        let request = &work.requests[row];
        let Some(start) = work.starts.of(request.plan) else { return Ok(0) };
        let from = rows + start.slot;
        if !start.read {
            let mut seen = 0;
            for piece in request.ids[..start.len].chunks(work.prefill) {
                let span =
                    Span { slot: from, start: seen, len: piece.len(), row: request.plan, prompt: request.ids.len() };
                let ids = Tensor::new(piece, self.model.device())?;
                self.model.forward(&ids, &Batch::new(vec![span]), &mut state.cache, &mut state.scale)?;
                seen += piece.len();
            }
            start.read = true;
        }
        state.cache.copy_slot(from, slot)?;
        Ok(start.len)
    }

    /// One forward pass over the next tokens of the running rows, so many of each: the next token of every row whose
    /// prompt is read, with its log-probability.
    fn step(
        &self,
        running: &[Running],
        pieces: &[usize],
        requests: &[Request],
        state: &mut State,
    ) -> Result<Vec<Option<(u32, f64)>>> {
        let (mut ids, mut spans, mut ready) = (Vec::<u32>::new(), Vec::new(), Vec::new());
        for (run, &len) in running.iter().zip(pieces).filter(|&(_, &len)| len > 0) {
            let request = &requests[run.row];
            let unread = run.unread(request);
            ids.extend(&unread[..len]);
            spans.push(Span { slot: run.slot, start: run.seen, len, row: request.plan, prompt: request.ids.len() });
            if len == unread.len() {
                ready.push(ids.len() as u32 - 1);
            }
        }
        let device = self.model.device();
        let hidden = self.model.forward(
            &Tensor::new(&ids[..], device)?,
            &Batch::new(spans),
            &mut state.cache,
            &mut state.scale,
        )?;
        if ready.is_empty() {
            return Ok(vec![None; running.len()]);
        }
        let last = Tensor::new(&ready[..], device)?;
        let logits = self.model.logits(&hidden.index_select(&last, 0)?)?; // [rows, vocab]
        let mut logits = logits.to_vec2::<f32>()?.into_iter();
        let is_ready = |(run, &len): (&Running, &usize)| len > 0 && len == run.unread(&requests[run.row]).len();
        let rows: Vec<(&Running, Option<Vec<f32>>)> = running
            .iter()
            .zip(pieces)
            .map(|(run, len)| (run, if is_ready((run, len)) { logits.next() } else { None }))
            .collect();
        let choose = |(run, logits): (&Running, Option<Vec<f32>>)| {
            logits.map(|mut logits| choose(run, &requests[run.row], &mut logits)).transpose()
        };
        rows.into_par_iter().map(choose).collect()
    }
}

/// The slot of a row that has ended.
const DONE: usize = usize::MAX;

impl Work<'_> {
    /// How many tokens of each running row the next step reads: one of those that are decoded, and of prompts in
    /// their order what the budget leaves.
    fn pieces(&self, running: &[Running]) -> Vec<usize> {
        let mut budget = self.prefill;
        let piece = |run: &Running| {
            if !run.generated.is_empty() {
                return 1;
            }
            let len = run.unread(&self.requests[run.row]).len().min(budget);
            budget -= len;
            len
        };
        running.iter().map(piece).collect()
    }
}

fn choose(run: &Running, request: &Request, logits: &mut [f32]) -> Result<(u32, f64)> {
    let top = largest(logits);
    let sum = sum_exp(logits, top, 1.0);
    if !sum.is_finite() || !top.is_finite() {
        return Err(EngineError::NotANumber { what: format!("row {}", run.row) });
    }
    let log_sum = f64::from(top) + sum.ln();
    let raw = if request.sampling.repetition_penalty == 1.0 && request.sampling.presence_penalty == 0.0 {
        None
    } else {
        Some(logits.to_vec())
    };
    let noise = Noise { item: request.noise, step: run.generated.len() as u64 };
    let token = request.sampling.next(logits, &request.ids, &run.generated, noise);
    let logit = raw.as_deref().unwrap_or(logits)[token as usize];
    Ok((token, f64::from(logit) - log_sum))
}
