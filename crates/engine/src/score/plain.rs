//! The plain way to score: an ordinary forward pass under every plan, with nothing shared between cells.

use std::ops::Range;

use candle_core::Tensor;
use headtemper_hook::{Batch, HeadPlan, HeadRef, Span};
use rayon::prelude::*;

use crate::{
    Encoded, Engine, EngineError, Result,
    score::{BaseScore, Cell, CellScore, ScoreEvent, ScoreRequest},
};

/// Logits of the untempered model that are held at once, and as many of the tempered one: 64 MiB each.
pub(super) const LOGITS: usize = 1 << 24;

impl Engine {
    /// Scores every wanted cell the plain way: for each head and λ an ordinary forward pass under that plan over packed
    /// items, with log-softmax in f64. Cells share nothing but the untempered hidden states that they are compared with.
    ///
    /// On the CPU λ = 1 gives the untempered model's numbers bit for bit. Every head must have fired.
    ///
    /// # Errors
    /// As [`Engine::plan_score`]; if a logit is not a number, `on` fails, or the run is stopped.
    pub fn score_plain(
        &self,
        items: &[Encoded],
        request: &ScoreRequest<'_>,
        mut on: impl FnMut(ScoreEvent) -> Result<()>,
    ) -> Result<()> {
        let memory = self.plan_score(items, request, true, &|item| format!("item {item}"))?;
        let request = &ScoreRequest { batch_tokens: memory.step_tokens, ..*request };
        let mut next = 0;
        while next < items.len() {
            let count = fitting(&items[next..], request.batch_tokens);
            let group: Vec<usize> = (next..next + count).filter(|&item| request.wants(item)).collect();
            next += count;
            if !group.is_empty() {
                let scored = self.score_group(items, &group, request, &mut on);
                scored.map_err(|error| error.of_planned(&memory))?;
            }
        }
        Ok(())
    }

    fn score_group(
        &self,
        items: &[Encoded],
        group: &[usize],
        request: &ScoreRequest<'_>,
        on: &mut impl FnMut(ScoreEvent) -> Result<()>,
    ) -> Result<()> {
        let untempered = self.predictions(items, group, None, request)?;
        for (&item, (hidden, _)) in group.iter().zip(&untempered) {
            let score = self.base_score(&items[item], hidden).map_err(|e| named(e, item, None))?;
            on(ScoreEvent::Base { item, score })?;
        }
        for (head, lambda) in request.cells() {
            let cell = |item| Cell { item, head, lambda };
            let places: Vec<usize> = (0..group.len()).filter(|&i| (request.wanted)(cell(group[i]))).collect();
            if places.is_empty() {
                continue;
            }
            let (at, value) = (request.heads[head], request.lambdas[lambda]);
            let chosen: Vec<usize> = places.iter().map(|&i| group[i]).collect();
            let tempered = self.predictions(items, &chosen, Some((at, value)), request)?;
            for ((&place, &item), tempered) in places.iter().zip(&chosen).zip(&tempered) {
                let score = self.cell_score(&items[item], &untempered[place].0, tempered);
                let score = score.map_err(|e| named(e, item, Some((at, value))))?;
                on(ScoreEvent::Cell { cell: cell(item), score })?;
            }
        }
        Ok(())
    }

    /// The final norm's output from which each item's scored tokens are predicted, `[scored, d_model]` per item: that of
    /// the tokens just before them; and how many of its tokens the head was tempered on.
    fn predictions(
        &self,
        items: &[Encoded],
        chosen: &[usize],
        tempered: Option<(HeadRef, f32)>,
        request: &ScoreRequest<'_>,
    ) -> Result<Vec<(Tensor, u64)>> {
        EngineError::if_stopped(request.stop)?;
        let lengths = chosen.iter().map(|&item| items[item].ids.len());
        let capacity = lengths.clone().max().unwrap_or(1);
        let span = |(slot, len)| Span { slot, start: 0, len, row: 0, prompt: items[chosen[slot]].prompt_len };
        let spans = lengths.enumerate().map(span);
        let batch = Batch::new(spans.collect());
        let ids: Vec<u32> = chosen.iter().flat_map(|&item| items[item].ids.iter().copied()).collect();
        let ids = Tensor::from_vec(ids, batch.tokens(), self.model.device())?;
        let mut cache = self.model.new_cache(chosen.len(), capacity)?;
        let plan = match tempered {
            None => HeadPlan::none(),
            Some((at, lambda)) => HeadPlan::uniform(&[at], lambda)?,
        };
        let mut scale = self.scale(&[plan])?;
        let hidden = self.model.forward(&ids, &batch, &mut cache, &mut scale)?;
        let ranges = batch.ranges().zip(chosen).enumerate().map(|(slot, ((_, packed), &item))| {
            let (encoded, scored) = (&items[item], items[item].scored());
            // A token that the hook missed would look like one at which the head does nothing.
            let fired = scale.check_slot(slot, 0, (encoded.ids.len(), encoded.prompt_len))?;
            Ok((hidden.narrow(0, packed.start + scored.start - 1, scored.len())?.contiguous()?, fired))
        });
        ranges.collect()
    }

    fn base_score(&self, item: &Encoded, hidden: &Tensor) -> Result<BaseScore> {
        let targets = &item.ids[item.scored()];
        let mut sum_logprob = 0.0;
        for rows in self.chunks(targets.len()) {
            let logits = self.logits_of(hidden, &rows)?;
            let logprobs: Result<Vec<f64>> =
                logits.par_iter().zip(&targets[rows]).map(|(row, &id)| Ok(softmax(row)?.logprob(row, id))).collect();
            sum_logprob += logprobs?.iter().sum::<f64>();
        }
        Ok(BaseScore { tokens: targets.len(), sum_logprob })
    }

    fn cell_score(&self, item: &Encoded, untempered: &Tensor, (tempered, fired): &(Tensor, u64)) -> Result<CellScore> {
        let targets = &item.ids[item.scored()];
        let mut sum = CellScore { sum_logprob: 0.0, kl: 0.0, agree: 0, fired: *fired };
        // `[scored, vocab]` never exists: rows are taken a few at a time.
        for rows in self.chunks(targets.len()) {
            let (base, logits) = (self.logits_of(untempered, &rows)?, self.logits_of(tempered, &rows)?);
            let token = |((base, row), &id): ((&Vec<f32>, &Vec<f32>), &u32)| {
                let (p, q) = (softmax(base)?, softmax(row)?);
                Ok((q.logprob(row, id), divergence(base, &p, row, &q), p.argmax == q.argmax))
            };
            let tokens: Result<Vec<_>> = base.par_iter().zip(&logits).zip(&targets[rows]).map(token).collect();
            // Summed in the same order as the base, so that equal rows have equal sums.
            let tokens = tokens?;
            sum.sum_logprob += tokens.iter().map(|token| token.0).sum::<f64>();
            sum.kl += tokens.iter().map(|token| token.1).sum::<f64>();
            sum.agree += tokens.iter().filter(|token| token.2).count();
        }
        // Not finite if the tempered model gives probability 0 where the untempered one does not: then there is no sum.
        if sum.kl.is_finite() && sum.sum_logprob.is_finite() { Ok(sum) } else { Err(not_a_number()) }
    }

    /// Ranges of rows whose logits fit at once.
    fn chunks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let step = (LOGITS / self.spec().vocab).max(1);
        (0..rows).step_by(step).map(move |start| start..rows.min(start + step))
    }

    fn logits_of(&self, hidden: &Tensor, rows: &Range<usize>) -> Result<Vec<Vec<f32>>> {
        Ok(self.model.logits(&hidden.narrow(0, rows.start, rows.len())?)?.to_vec2()?)
    }
}

/// How many of the next items may be read at once; at least one.
pub(super) fn fitting(items: &[Encoded], tokens: usize) -> usize {
    let mut sum = 0;
    let fits = items.iter().take_while(|item| {
        sum += item.ids.len();
        sum <= tokens
    });
    fits.count().max(1)
}

/// Adds to an error about a value that is not a number which item gave it, and under which tempering.
fn named(error: EngineError, item: usize, at: Option<(HeadRef, f32)>) -> EngineError {
    match error {
        EngineError::NotANumber { .. } => EngineError::SpoiltScore { item, tempered: at },
        other => other,
    }
}

/// What turns a row of logits into log-probabilities; and the likeliest token, the first of equals.
struct Softmax {
    log_sum: f64,
    argmax: usize,
}

impl Softmax {
    fn logprob(&self, logits: &[f32], id: u32) -> f64 {
        f64::from(logits[id as usize]) - self.log_sum
    }
}

fn softmax(logits: &[f32]) -> Result<Softmax> {
    let first = (0, f32::NEG_INFINITY);
    let (argmax, top) = logits.iter().enumerate().fold(first, |best, (i, &x)| if x > best.1 { (i, x) } else { best });
    let top = f64::from(top);
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - top).exp()).sum();
    if sum.is_finite() { Ok(Softmax { log_sum: top + sum.ln(), argmax }) } else { Err(not_a_number()) }
}

/// Σ p (ln p - ln q) over the vocabulary, in nats; a result that rounding puts below 0 becomes 0.
fn divergence(base: &[f32], p: &Softmax, row: &[f32], q: &Softmax) -> f64 {
    let shift = q.log_sum - p.log_sum;
    let terms = base.iter().zip(row).map(|(&a, &b)| {
        let (a, b) = (f64::from(a), f64::from(b));
        // A token of probability 0 adds nothing, whatever its logits.
        if a == f64::NEG_INFINITY { 0.0 } else { (a - p.log_sum).exp() * (a - b + shift) }
    });
    terms.sum::<f64>().max(0.0)
}

fn not_a_number() -> EngineError {
    EngineError::NotANumber { what: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_of_known_distributions() {
        // p = (1/2, 1/2), q = (1/5, 4/5): KL = ln 5/2 / 2 + ln 5/8 / 2 = ln 1.25 by hand: 0.2231435513142097.
        let (a, b) = ([3.0f32, 3.0], [0f32, 4f32.ln()]);
        let (p, q) = (softmax(&a).unwrap(), softmax(&b).unwrap());
        assert!((divergence(&a, &p, &b, &q) - 0.223_143_551_314_209_7).abs() < 1e-7);
        assert_eq!(divergence(&a, &p, &a, &p), 0.0);
        assert_eq!((p.argmax, q.argmax), (0, 1));
        assert!((q.logprob(&b, 1) - 0.8f64.ln()).abs() < 1e-7);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for row in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            assert!(softmax(&row).is_err(), "{row:?}");
        }
        assert!(softmax(&[f32::NEG_INFINITY, 0.0]).is_ok());
    }
}
