//! How many rows run at once and how much of their prompts is read beside them, planned before anything runs.

use super::{GenerateOptions, Request, starts::SharedStarts};
use crate::{
    Engine, EngineError, MemoryPlan, Result, StopRule,
    memory::{Limit, Rows, plan_rows},
};

/// Prompt tokens that are read beside a decode step where nobody says, and on a device that waits for no host.
const PREFILL: usize = 512;
const PREFILL_ON_DEVICE: usize = 8192;

/// How a generation goes.
pub(super) struct Planned {
    pub(super) plan: MemoryPlan,
    pub(super) starts: SharedStarts,
    /// Prompt tokens of a step.
    pub(super) prefill: usize,
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
        Ok(self.plan_with_starts(requests, plans, options, name)?.plan)
    }

    /// The plan, with the shared starts that have room in it and the prompt tokens that are read in a step: as many as suit the
    /// device where nobody says, but not at the cost of rows.
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
        let cost = self.cost()?;
        let limit = Limit::of(options.memory, self.model.device(), cost.held);
        // No step reads more than all prompts together.
        let prompts: usize = requests.iter().map(|request| request.ids.len()).sum();
        let bytes = |numbers: usize| (numbers as u64).saturating_mul(4);
        let (beside, kept) = options.keep.as_ref().map_or((0, 0), |keep| {
            (bytes(keep.rolling(self.spec())), bytes(keep.numbers(self.spec()) * requests.len()))
        });
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
        // A start that is read once saves little beside rows that would run together.
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

    /// The tokens that a row can come to.
    pub(super) fn most_tokens(&self, request: &Request) -> usize {
        request.ids.len().saturating_add(request.max_new_tokens).min(self.spec().context)
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
        // Who asks for so many tokens gets as many, or nothing.
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
