//! One step of a generation: the pass, and the choice of every row's next token.

use candle_core::Tensor;
use headtemper_hook::{Batch, HiddenCapture, Span, Tap, Tee};
use rayon::prelude::*;

use super::{Request, Running, State};
use crate::{
    Engine, EngineError, Keep, Noise, Result,
    keep::{Reader, spread},
    noise::largest,
    sample::sum_exp,
};

impl Engine {
    /// One forward pass over the next tokens of the running rows, so many of each: the next token of every row whose
    /// prompt is read, with its log-probability. What is to be kept of such a row is read on the way.
    pub(super) fn step(
        &self,
        running: &mut [Running],
        pieces: &[usize],
        requests: &[Request],
        keep: Option<&Keep>,
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
        let (device, spec) = (self.model.device(), self.spec());
        let last = if ready.is_empty() { None } else { Some(Tensor::new(&ready[..], device)?) };
        let mut reader = keep.zip(last.as_ref()).map(|(keep, last)| {
            let tokens = ready.iter().map(|&token| token as usize..token as usize + 1);
            keep.reader(HiddenCapture::new(last.clone(), keep.sites(spec)), tokens.collect())
        });
        // The plan comes first: what is read is what the output projection receives.
        let mut taps: Vec<&mut dyn Tap> = vec![&mut state.scale];
        taps.extend(reader.iter_mut().flat_map(Reader::taps));
        let ids = Tensor::new(&ids[..], device)?;
        let hidden = self.model.forward(&ids, &Batch::new(spans), &mut state.cache, &mut Tee(taps))?;
        let Some(last) = last else { return Ok(vec![None; running.len()]) };
        let logits = self.model.logits(&hidden.index_select(&last, 0)?)?; // [rows, vocab]
        let mut seen = reader.map(|reader| reader.seen(ready.len())).transpose()?;
        if let Some(seen) = seen.as_mut().filter(|_| keep.is_some_and(|keep| keep.logits)) {
            spread(&logits, seen, |seen, values| seen.logits = values)?;
        }
        let (mut logits, mut seen) = (logits.to_vec2::<f32>()?.into_iter(), seen.into_iter().flatten());
        let mut next = |(run, &len): (&mut Running, &usize)| {
            if len == 0 || len < run.unread(&requests[run.row]).len() {
                return None;
            }
            run.see(seen.next());
            logits.next()
        };
        let logits: Vec<Option<Vec<f32>>> = running.iter_mut().zip(pieces).map(&mut next).collect();
        let choose = |(run, logits): (&Running, Option<Vec<f32>>)| {
            logits.map(|mut logits| choose(run, &requests[run.row], &mut logits)).transpose()
        };
        running.iter().zip(logits).collect::<Vec<_>>().into_par_iter().map(choose).collect()
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
