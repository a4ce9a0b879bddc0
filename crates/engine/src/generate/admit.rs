//! Which waiting rows are admitted, what they begin with, and how much of their prompts a step reads.

use std::collections::VecDeque;

use candle_core::Tensor;
use headtemper_hook::{Batch, Span};
use headtemper_model::TextTokens;

use super::{Request, Running, State, reading::Reading, starts::SharedStarts};
use crate::{Engine, Keep, Result};

/// The requests of a run, and what their prompts share.
pub(super) struct Work<'a> {
    pub(super) requests: &'a [Request],
    /// Prompt tokens that are read in a step.
    pub(super) prefill: usize,
    pub(super) starts: SharedStarts,
    pub(super) queue: VecDeque<usize>,
    pub(super) free: Vec<usize>,
}

impl Work<'_> {
    /// How many tokens of each running row the next step reads: one for a row that is decoding; for prompts, in order,
    /// as many as the budget leaves.
    pub(super) fn pieces(&self, running: &[Running]) -> Vec<usize> {
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

impl Engine {
    /// Admits waiting rows while there are free slots and this step may read more prompt tokens.
    pub(super) fn admit(
        &self,
        work: &mut Work<'_>,
        rows: usize,
        keep: Option<&Keep>,
        running: &mut Vec<Running>,
        state: &mut State,
    ) -> Result<()> {
        let waiting =
            |run: &Running| if run.generated.is_empty() { run.unread(&work.requests[run.row]).len() } else { 0 };
        let mut budget = work.prefill.saturating_sub(running.iter().map(waiting).sum());
        while let (Some(&row), Some(&slot), true) = (work.queue.front(), work.free.last(), budget > 0) {
            work.queue.pop_front();
            work.free.pop();
            let seen = self.take_start(row, slot, rows, work, state)?;
            budget = budget.saturating_sub(work.requests[row].ids.len() - seen);
            let request = &work.requests[row];
            let text = if request.sampling.penalises() { TextTokens::of(&request.ids) } else { TextTokens::default() };
            let (reading, generated) = (keep.map(Reading::new), Vec::new());
            running.push(Running { row, slot, seen, generated, text, sum_logprob: 0.0, reading, ending: None });
        }
        Ok(())
    }

    /// Gives a new row the start that its plan's prompts share, which is read once for all of them. Returns its length in tokens.
    fn take_start(
        &self,
        row: usize,
        slot: usize,
        rows: usize,
        work: &mut Work<'_>,
        state: &mut State,
    ) -> Result<usize> {
        let request = &work.requests[row];
        let Some(start) = work.starts.of(request.plan) else {
            state.scale.take_slot(slot, None);
            return Ok(0);
        };
        let from = rows + start.slot;
        if let Some(applied) = &start.applied {
            // Each row is said to have been tempered at all of its tokens, however many it shares and with whom.
            state.scale.apply_again(request.plan, applied);
        } else {
            let before = state.scale.applied(request.plan);
            state.scale.take_slot(from, None);
            let mut seen = 0;
            for piece in request.ids[..start.len].chunks(work.prefill) {
                let span =
                    Span { slot: from, start: seen, len: piece.len(), row: request.plan, prompt: request.ids.len() };
                let ids = Tensor::new(piece, self.model.device())?;
                self.model.forward(&ids, &Batch::new(vec![span]), &mut state.cache, &mut state.scale)?;
                seen += piece.len();
            }
            let after = state.scale.applied(request.plan);
            start.applied = Some(after.iter().zip(&before).map(|(after, before)| after - before).collect());
        }
        state.cache.copy_slot(from, slot)?;
        state.scale.take_slot(slot, Some(from));
        Ok(start.len)
    }
}
