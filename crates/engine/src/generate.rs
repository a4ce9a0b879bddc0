//! Generation: many rows at once, each under its own plan, a finished row's slot refilled at once.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::Tensor;
use headtemper_hook::{Batch, HeadPlan, HeadScale, Span};
use headtemper_model::Cache;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Engine, EngineError, Fired, Noise, Result, Sampling, noise::largest, sample::sum_exp};

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
    /// Rows that are decoded together.
    pub max_rows: usize,
    /// Prompt tokens that are read beside a decode step.
    pub prefill_tokens: usize,
    /// Set from outside, stops after the current step; finished rows were reported.
    pub stop: Option<&'a AtomicBool>,
}

impl Default for GenerateOptions<'_> {
    fn default() -> Self {
        Self { max_rows: 32, prefill_tokens: 512, stop: None }
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
    /// The tokens that the model reads next: what is left of the prompt, or the last one generated.
    fn input<'a>(&'a self, request: &'a Request) -> &'a [u32] {
        match self.generated.last() {
            None => &request.ids[self.seen..],
            Some(last) => std::slice::from_ref(last),
        }
    }
}

impl Engine {
    /// Generates a continuation of every request and reports each as it is done, in the order they finish.
    ///
    /// On the CPU the result of a row depends on nothing but its own request and plan: not on the other rows, on
    /// `max_rows`, nor on the number of threads. Returns how often each planned head fired; if every plan was used, one
    /// that never fired is an error.
    ///
    /// # Errors
    /// If a plan does not fit the model, a request is empty or too long, `on_event` fails, or the run is stopped.
    pub fn generate(
        &self,
        requests: &[Request],
        plans: &[HeadPlan],
        options: &GenerateOptions<'_>,
        mut on_event: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<Fired> {
        let mut scale = self.scale(plans)?;
        requests.iter().enumerate().try_for_each(|(row, request)| self.check(row, request, plans.len()))?;
        let context = self.spec().context;
        let Some(capacity) = requests.iter().map(|r| r.ids.len().saturating_add(r.max_new_tokens).min(context)).max()
        else {
            return Ok(Fired::new());
        };
        let slots = options.max_rows.clamp(1, requests.len());
        let mut shared = SharedStarts::find(requests, plans.len(), slots);
        let mut cache = self.model.new_cache(slots + shared.slots(), capacity)?;
        let mut free: Vec<usize> = (0..slots).rev().collect();
        let mut queue: VecDeque<usize> = (0..requests.len()).collect();
        let mut running: Vec<Running> = Vec::new();
        while !queue.is_empty() || !running.is_empty() {
            if options.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(EngineError::Interrupted);
            }
            for mut run in admit(&mut queue, &mut free, running.is_empty(), requests, &shared, options.prefill_tokens) {
                run.seen = self.take_start(&run, requests, &mut shared, &mut cache, &mut scale)?;
                running.push(run);
            }
            let chosen = self.step(&running, requests, &mut cache, &mut scale)?;
            let mut still = Vec::with_capacity(running.len());
            for (mut run, (token, logprob)) in running.drain(..).zip(chosen) {
                let request = &requests[run.row];
                run.seen += run.input(request).len();
                let stopped = self.stop.contains(token);
                if !stopped {
                    run.generated.push(token);
                    run.sum_logprob += logprob;
                    on_event(Event::Token { row: run.row, ids: &run.generated })?;
                }
                if !stopped && run.generated.len() < request.max_new_tokens && run.seen + 1 < context {
                    still.push(run);
                    continue;
                }
                let finish_reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
                let result = Generated { ids: run.generated, finish_reason, sum_logprob: run.sum_logprob };
                on_event(Event::Done { row: run.row, result: &result })?;
                free.push(run.slot);
            }
            running = still;
        }
        let used: std::collections::BTreeSet<usize> = requests.iter().map(|r| r.plan).collect();
        if used.len() == plans.len() {
            scale.check_fired()?;
        }
        Ok(scale.fired().to_vec())
    }

    /// Gives a new row the start that its plan's prompts share, reading it once for all of them.
    fn take_start(
        &self,
        run: &Running,
        requests: &[Request],
        shared: &mut SharedStarts,
        cache: &mut Cache,
        scale: &mut HeadScale,
    ) -> Result<usize> {
        let request = &requests[run.row];
        let Some(start) = &mut shared.0[request.plan] else { return Ok(0) };
        if !start.read {
            let batch = Batch::new(vec![Span { slot: start.slot, start: 0, len: start.len, row: request.plan }]);
            let ids = Tensor::new(&request.ids[..start.len], self.model.device())?;
            self.model.forward(&ids, &batch, cache, scale)?;
            start.read = true;
        }
        cache.copy_slot(start.slot, run.slot)?;
        Ok(start.len)
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
        assert!(request.plan < plans, "row {row} asks for plan {} of {plans}", request.plan);
        request.sampling.check()
    }

    /// One forward pass of all running rows: the next token of each, with its log-probability.
    fn step(
        &self,
        running: &[Running],
        requests: &[Request],
        cache: &mut Cache,
        scale: &mut HeadScale,
    ) -> Result<Vec<(u32, f64)>> {
        let mut ids: Vec<u32> = Vec::new();
        let spans = running.iter().map(|run| {
            let request = &requests[run.row];
            let new = run.input(request);
            ids.extend(new);
            Span { slot: run.slot, start: run.seen, len: new.len(), row: request.plan }
        });
        let batch = Batch::new(spans.collect());
        let device = self.model.device();
        let ids = Tensor::new(&ids[..], device)?;
        let hidden = self.model.forward(&ids, &batch, cache, scale)?;
        let last = Tensor::from_vec(batch.last_tokens(), running.len(), device)?;
        let logits = self.model.logits(&hidden.index_select(&last, 0)?)?; // [rows, vocab]
        let mut logits = logits.to_vec2::<f32>()?;
        running.par_iter().zip(&mut logits).map(|(run, logits)| choose(run, &requests[run.row], logits)).collect()
    }
}

/// Takes as many waiting rows as there are free slots and prompt tokens in the budget; one at least if nothing runs.
fn admit(
    queue: &mut VecDeque<usize>,
    free: &mut Vec<usize>,
    idle: bool,
    requests: &[Request],
    shared: &SharedStarts,
    mut budget: usize,
) -> Vec<Running> {
    let mut admitted = Vec::new();
    while let (Some(&row), false) = (queue.front(), free.is_empty()) {
        let request = &requests[row];
        let tokens = request.ids.len() - shared.0[request.plan].as_ref().map_or(0, |start| start.len);
        if tokens > budget && !(idle && admitted.is_empty()) {
            break;
        }
        budget = budget.saturating_sub(tokens);
        queue.pop_front();
        let slot = free.pop().expect("checked above");
        admitted.push(Running { row, slot, seen: 0, generated: Vec::new(), sum_logprob: 0.0 });
    }
    admitted
}

/// What all prompts under one plan begin with, such as the template's system message: read once, then copied.
struct SharedStarts(Vec<Option<SharedStart>>);

struct SharedStart {
    slot: usize,
    len: usize,
    /// Whether the cache holds it yet.
    read: bool,
}

impl SharedStarts {
    /// Below this a copy saves nothing.
    const SHORTEST: usize = 8;
    /// Plans that get a slot of their own; those beyond read every prompt whole.
    const MOST: usize = 128;

    /// Finds the common start of each plan's prompts. At least one token of every prompt stays its own.
    fn find(requests: &[Request], plans: usize, first_slot: usize) -> Self {
        let mut common: Vec<Option<(&[u32], usize)>> = vec![None; plans];
        for request in requests {
            let ids = &request.ids[..request.ids.len() - 1];
            common[request.plan] = Some(match common[request.plan] {
                None => (ids, 1),
                Some((start, count)) => {
                    let same = start.iter().zip(ids).take_while(|(a, b)| a == b).count();
                    (&start[..same], count + 1)
                }
            });
        }
        let mut slot = first_slot;
        let starts = common.into_iter().map(|common| {
            let (start, count) = common?;
            if count < 2 || start.len() < Self::SHORTEST || slot - first_slot >= Self::MOST {
                return None;
            }
            slot += 1;
            Some(SharedStart { slot: slot - 1, len: start.len(), read: false })
        });
        Self(starts.collect())
    }

    fn slots(&self) -> usize {
        self.0.iter().flatten().count()
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
