//! Generation: many rows together, each under its own plan. A finished row's slot is refilled at once.

mod admit;
mod plan;
mod played;
mod reading;
mod starts;
mod step;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
};

use headtemper_hook::{HeadPlan, HeadScale};
use headtemper_model::{Cache, Chosen, TextTokens};
use serde::{Deserialize, Serialize};

use crate::{CaptureRow, Engine, EngineError, Fired, Keep, Result, Sampling, StopRule, keep::Seen};
use admit::Work;
use plan::Planned;
use played::Player;
use reading::Reading;

/// One continuation to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt. Requests that differ in something else may share it.
    pub ids: Arc<[u32]>,
    /// Which plan tempers it: an index into the plans given to [`Engine::generate`].
    pub plan: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Names the sampling noise. Give an item the same number under every plan, so that the arms share their draws.
    pub noise: u64,
    /// The most tokens to generate, the stop token not counted.
    pub max_new_tokens: usize,
    /// Which tokens end it before that limit.
    pub stop: StopRule,
}

/// Why a generation ended. A truncated answer must never be read as a finished one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model wrote a stop token.
    Stop,
    /// It was cut off at the token limit, or at the end of the context.
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
    /// Head-tokens that its plan was applied to, as counted by the hooks. If they are not what the plan's heads and positions
    /// imply for the tokens that were read, the run fails.
    pub fired: u64,
    /// What was captured of prompt and `ids` during generation, if [`GenerateOptions::keep`] asks for it.
    pub kept: Option<CaptureRow>,
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
    /// The most memory to take in bytes, the model's included; by default what the machine has available.
    pub memory: Option<u64>,
    /// Prompt tokens that are read along with a decode step; longer prompts are read in pieces. By default 512, or 8192 where our
    /// kernels run on a GPU and this leaves memory for as many rows.
    pub prefill_tokens: Option<usize>,
    /// What to keep of each row at the last tokens of its answer, from the very passes that write it: the same as a capture of
    /// prompt and answer would keep. For this, a row that is cut off has its last token read by one more pass; an empty answer
    /// is read at the last token of its prompt alone.
    pub keep: Option<Keep>,
    /// Whether the requests are part of a larger run. Whoever joins the parts then checks that every planned head fired.
    pub partial: bool,
    /// Set from outside to stop after the current step; finished rows have been reported by then.
    pub stop: Option<&'a AtomicBool>,
}

impl Default for GenerateOptions<'_> {
    fn default() -> Self {
        Self { max_rows: 32, memory: None, prefill_tokens: None, keep: None, partial: false, stop: None }
    }
}

/// A row that is being generated.
struct Running {
    row: usize,
    slot: usize,
    /// Tokens that the cache holds.
    seen: usize,
    generated: Vec<u32>,
    /// The tokens of prompt and answer, kept only where they are penalised.
    text: TextTokens,
    sum_logprob: f64,
    reading: Option<Reading>,
    /// Why it ends, once that is known while its last token is still to be read.
    ending: Option<FinishReason>,
}

impl Running {
    /// The tokens that the model has not read yet: what is left of the prompt, or the last one generated.
    fn unread<'a>(&'a self, request: &'a Request) -> &'a [u32] {
        match self.generated.last() {
            None => &request.ids[self.seen..],
            Some(last) => std::slice::from_ref(last),
        }
    }

    /// Notes what the pass has shown at the row's newest token.
    fn see(&mut self, seen: Option<Seen>) {
        if let (Some(reading), Some(seen)) = (&mut self.reading, seen) {
            reading.see(seen, !self.generated.is_empty());
        }
    }
}

/// What a forward pass works on.
struct State {
    cache: Cache,
    scale: HeadScale,
}

impl State {
    /// Head-tokens of a row that has ended; an error if its plan was not applied to every token that it covers. Such a row is
    /// never reported, so reported rows need no further check, however long anyone keeps them.
    fn count(&self, run: &Running, request: &Request) -> Result<u64> {
        Ok(self.scale.check_slot(run.slot, request.plan, (run.seen, request.ids.len()))?)
    }
}

impl Engine {
    /// Generates a continuation of every request and reports each as it is done, in the order they finish.
    ///
    /// On the CPU the result of a row depends only on its own request and plan: not on the other rows, on `max_rows` or memory,
    /// nor on the number of threads. Returns how often each planned head fired. A head of a plan that some request has is an error if it
    /// never fired, unless the requests are part of a larger run; one that no row could reach is, before any row begins.
    ///
    /// # Errors
    /// If a plan does not fit the model, a request is empty or too long for the context or the memory, `on_event`
    /// fails, or the run is stopped.
    pub fn generate(
        &self,
        requests: &[Request],
        plans: &[HeadPlan],
        options: &GenerateOptions<'_>,
        on_event: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<Fired> {
        let scale = self.scale(plans)?;
        let name = |row: usize| format!("row {row}");
        let planned = self.plan_with_starts(requests, plans.len(), options, &name)?;
        if !options.partial {
            self.check_reach(requests, plans, options.keep.is_some())?;
        }
        let plan = planned.plan.clone();
        let done = self.generate_planned(requests, scale, planned, options, on_event);
        done.map_err(|error| error.of_planned(&plan))
    }

    /// [`Engine::generate`], given how much may run at once.
    fn generate_planned(
        &self,
        requests: &[Request],
        scale: HeadScale,
        Planned { plan, starts, prefill }: Planned,
        options: &GenerateOptions<'_>,
        mut on_event: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<Fired> {
        let Some(capacity) = requests.iter().map(|request| self.most_tokens(request)).max() else {
            return Ok(Fired::new());
        };
        let cache = self.model.new_cache(plan.rows + starts.lengths().len(), capacity)?;
        let mut work = Work {
            requests,
            prefill,
            starts,
            queue: (0..requests.len()).collect(),
            // Slots of rows come first, those of shared starts after them.
            free: (0..plan.rows).rev().collect(),
        };
        let mut state = State { cache, scale };
        let mut player = self.plays_steps().then(|| Player::new(plan.rows));
        let mut running: Vec<Running> = Vec::new();
        while !work.queue.is_empty() || !running.is_empty() {
            EngineError::if_stopped(options.stop)?;
            self.admit(&mut work, plan.rows, options.keep.as_ref(), &mut running, &mut state)?;
            let played = match &mut player {
                Some(player) => self.play(&running, requests, player, &mut state)?,
                None => None,
            };
            if let Some(written) = played {
                for (run, written) in running.iter_mut().zip(written) {
                    let mut ended = None;
                    for Chosen { token, logprob } in written {
                        if ended.is_some() {
                            return Err(EngineError::RowWentOn { row: run.row });
                        }
                        run.seen += 1;
                        ended = self.take(run, &requests[run.row], token, logprob, &mut on_event)?;
                    }
                    if let Some(finish_reason) = ended {
                        let fired = state.count(run, &requests[run.row])?;
                        self.finish(run, (finish_reason, fired), options.keep.as_ref(), &mut work, &mut on_event)?;
                    }
                }
                running.retain(|run| run.slot != DONE);
                continue;
            }
            let pieces = work.pieces(&running);
            let chosen = self.step(&mut running, &pieces, requests, options.keep.as_ref(), &mut state)?;
            for ((run, piece), chosen) in running.iter_mut().zip(pieces).zip(chosen) {
                run.seen += piece;
                let Some((token, logprob)) = chosen else { continue };
                let ended = match run.ending {
                    None => self.take(run, &requests[run.row], token, logprob, &mut on_event)?,
                    read => read,
                };
                let Some(finish_reason) = ended else { continue };
                if run.reading.is_some() && run.ending.is_none() && finish_reason == FinishReason::Length {
                    run.ending = ended; // its last token was chosen, but not read yet
                    continue;
                }
                let fired = state.count(run, &requests[run.row])?;
                self.finish(run, (finish_reason, fired), options.keep.as_ref(), &mut work, &mut on_event)?;
            }
            running.retain(|run| run.slot != DONE);
        }
        let used: BTreeSet<usize> = requests.iter().map(|r| r.plan).collect();
        let fired = state.scale.fired();
        if !options.partial {
            state.scale.check_fired_in(&used)?;
        }
        Ok(fired)
    }

    /// Reports a row that has ended, and frees its slot.
    fn finish(
        &self,
        run: &mut Running,
        (finish_reason, fired): (FinishReason, u64),
        keep: Option<&Keep>,
        work: &mut Work<'_>,
        on_event: &mut impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        let kept = run.reading.take().zip(keep).map(|(reading, keep)| reading.finish(keep, self.spec()));
        let ids = std::mem::take(&mut run.generated);
        let result = Generated { ids, finish_reason, sum_logprob: run.sum_logprob, fired, kept };
        on_event(Event::Done { row: run.row, result: &result })?;
        work.free.push(run.slot);
        run.slot = DONE;
        Ok(())
    }

    /// Gives a row its next token. Returns why the row ends, if it does.
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
        if request.sampling.penalises() {
            run.text.write(token);
        }
        run.sum_logprob += logprob;
        on_event(Event::Token { row: run.row, ids: &run.generated })?;
        let more = run.generated.len() < request.max_new_tokens && run.seen + 1 < self.spec().context;
        Ok(if more { None } else { Some(FinishReason::Length) })
    }
}

/// Marks, in place of a slot, a row that has ended.
const DONE: usize = usize::MAX;
