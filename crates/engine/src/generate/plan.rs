//! How many rows run at once, and how much of their prompts a step reads: planned before anything runs.

use headtemper_hook::HeadPlan;

use super::{GenerateOptions, Request, starts::SharedStarts};
use crate::{
    Engine, EngineError, MemoryPlan, Result, StopRule,
    memory::{Limit, Rows, plan_rows},
};

/// Prompt tokens that are read along with a decode step, by default: in general, and on a GPU that our kernels run on.
const PREFILL: usize = 512;
const PREFILL_ON_DEVICE: usize = 8192;

/// How a generation will run.
pub(super) struct Planned {
    pub(super) plan: MemoryPlan,
    pub(super) starts: SharedStarts,
    /// Prompt tokens that a step reads.
    pub(super) prefill: usize,
}

impl Engine {
    /// Plans the memory of a generation: how many rows run at once. `name` names a request by its index in errors.
    ///
    /// # Errors
    /// If a request is empty or too long, asks for a plan that is not there, or does not fit in memory even alone.
    pub fn plan_generation(
        &self,
        requests: &[Request],
        plans: usize,
        options: &GenerateOptions<'_>,
        name: &dyn Fn(usize) -> String,
    ) -> Result<MemoryPlan> {
        Ok(self.plan_with_starts(requests, plans, options, name)?.plan)
    }

    /// The memory plan, with the shared starts that have room in it, and the prompt tokens that a step reads. By default
    /// these are as many as suit the device, but never at the cost of rows.
    pub(super) fn plan_with_starts(
        &self,
        requests: &[Request],
        plans: usize,
        options: &GenerateOptions<'_>,
        name: &dyn Fn(usize) -> String,
    ) -> Result<Planned> {
        if options.max_rows == 0 {
            return Err(EngineError::Setting { name: "max_rows", found: "0".into(), allowed: "at least 1" });
        }
        if let Some(keep) = &options.keep {
            keep.check(self.spec())?;
        }
        requests.iter().enumerate().try_for_each(|(row, request)| self.check(row, request, plans))?;
        let tokens: Vec<usize> = requests.iter().map(|request| self.most_tokens(request)).collect();
        let cost = self.cost();
        let limit = Limit::of(options.memory, self.model.device(), cost.held);
        // A step never reads more than all prompts together.
        let prompts: usize = requests.iter().map(|request| request.ids.len()).sum();
        let bytes = |numbers: usize| (numbers as u64).saturating_mul(4);
        let written = tokens.iter().zip(requests).map(|(all, request)| all - request.ids.len()).max().unwrap_or(0);
        let (beside, kept) = options.keep.as_ref().map_or((0, 0), |keep| {
            (bytes(keep.rolling(self.spec(), written)), bytes(keep.numbers(self.spec()) * requests.len()))
        });
        // A recorded step holds the text of a row whose tokens are penalised: as it is, as it is uploaded, and as it was.
        let longest = tokens.iter().max().filter(|_| self.plays_steps());
        let longest = longest.filter(|_| requests.iter().any(|request| request.sampling.penalises()));
        let beside = beside + longest.map_or(0, |&longest| 3 * bytes(longest));
        let plan = |starts: &SharedStarts, prefill: usize| {
            let (starts, most) = (starts.lengths(), options.max_rows);
            let prefill = prefill.clamp(1, prompts.max(1));
            plan_rows(&cost, &Rows { tokens: &tokens, starts: &starts, most, prefill, beside, kept }, limit, name)
        };
        let none = || SharedStarts::none(plans);
        let asked = options.prefill_tokens.unwrap_or(PREFILL);
        let (mut prefill, mut without) = (asked, plan(&none(), asked)?);
        if options.prefill_tokens.is_none() && self.on_own_device_kernels() {
            let more = plan(&none(), PREFILL_ON_DEVICE).ok().filter(|more| more.rows >= without.rows);
            (prefill, without) = more.map_or((prefill, without), |more| (PREFILL_ON_DEVICE, more));
        }
        let starts = SharedStarts::find(requests, plans);
        // Reading a start only once saves less than running many more rows together would.
        let with = [prefill, asked].into_iter().find_map(|prefill| {
            let with = plan(&starts, prefill).ok().filter(|with| 2 * with.rows >= without.rows)?;
            Some((prefill, with))
        });
        let (prefill, plan, starts) = match with {
            Some((prefill, with)) => (prefill, with, starts),
            None => (prefill, without, none()),
        };
        Ok(Planned { plan, starts, prefill: prefill.max(1) })
    }

    /// The most tokens that a row can reach, prompt and answer.
    pub(super) fn most_tokens(&self, request: &Request) -> usize {
        request.ids.len().saturating_add(request.max_new_tokens).min(self.spec().context)
    }

    /// The most tokens of a row that are read: all but the last one that it writes, and that one as well where what it leads to is kept
    /// (`ending`).
    pub fn most_read(&self, prompt: usize, max_new_tokens: usize, ending: bool) -> usize {
        let all = prompt.saturating_add(max_new_tokens).min(self.spec().context);
        if ending { all } else { all.saturating_sub(1).max(prompt) }
    }

    /// Refuses a plan whose positions none of its rows can reach, however long they become: otherwise it would be known at the end only.
    pub(super) fn check_reach(&self, requests: &[Request], plans: &[HeadPlan], ending: bool) -> Result<()> {
        let mut reached = vec![None; plans.len()];
        for request in requests {
            let read = self.most_read(request.ids.len(), request.max_new_tokens, ending);
            let touched = plans[request.plan].positions().touch(read, request.ids.len());
            *reached[request.plan].get_or_insert(false) |= touched;
        }
        let idle = plans.iter().zip(reached).find(|(plan, reached)| !plan.is_empty() && *reached == Some(false));
        idle.map_or(Ok(()), |(plan, _)| Err(plan.never_fired().into()))
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
        self.of_vocabulary(|| what.clone(), &request.ids)?;
        // A request for exactly this many tokens gets them all, or is refused.
        if request.stop == StopRule::Never && tokens + request.max_new_tokens > context {
            let what = format!("{what} with the {} tokens to write", request.max_new_tokens);
            return Err(EngineError::TooLong { what, tokens: tokens + request.max_new_tokens, context });
        }
        if request.max_new_tokens == 0 {
            return Err(EngineError::Setting { name: "max_new_tokens", found: "0".into(), allowed: "at least 1" });
        }
        if request.plan >= plans {
            return Err(EngineError::NoSuchPlan { row, plan: request.plan, plans });
        }
        request.sampling.check()
    }
}
