//! One step of a generation: the pass, and the choice of every row's next token.

use candle_core::{DType, Device, Storage, Tensor};
use headtemper_hook::{Batch, HiddenCapture, Span, Tap, Tee};
use headtemper_model::{Choice, Chosen, chooses_on_device};
use rayon::prelude::*;

use super::{Request, Running, State};
use crate::{
    Engine, EngineError, Keep, Noise, Result,
    keep::{Reader, spread},
    noise::largest,
    sample::{argmax, sum_exp},
};

impl Engine {
    /// Runs one forward pass over the next `pieces` tokens of each running row. Returns the next token of every row whose
    /// prompt has been read, with its log-probability. What `keep` asks for is captured from such rows on the way.
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
        // The plan comes first: what is captured is what the output projection receives.
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
        let mut seen = seen.into_iter().flatten();
        let mut whole = |(run, &len): (&mut Running, &usize)| {
            let whole = len > 0 && len == run.unread(&requests[run.row]).len();
            if whole {
                run.see(seen.next());
            }
            whole
        };
        let whole: Vec<bool> = running.iter_mut().zip(pieces).map(&mut whole).collect();
        let rows: Vec<&Running> = running.iter().zip(&whole).filter(|&(_, &whole)| whole).map(|(run, _)| run).collect();
        let mut chosen = choose_all(&rows, requests, &logits)?.into_iter();
        Ok(whole.iter().map(|&whole| if whole { chosen.next() } else { None }).collect())
    }
}

/// The next token of each row of logits `[rows, vocab]`, with its log-probability.
fn choose_all(rows: &[&Running], requests: &[Request], logits: &Tensor) -> Result<Vec<(u32, f64)>> {
    if !chooses_on_device(logits) {
        let vocab = logits.dim(1)?;
        let logits = logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
        let (storage, layout) = logits.storage_and_layout();
        let (Storage::Cpu(values), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
            unreachable!("the logits were brought here in one piece")
        };
        // A row is copied only where it is changed, and by the thread that changes it.
        let choose =
            |room: &mut Vec<f32>, (run, logits): (&&Running, &[f32])| choose(run, &requests[run.row], logits, room);
        let logits = values.as_slice::<f32>()?[start..end].par_chunks(vocab);
        return rows.par_iter().zip(logits).map_init(Vec::new, choose).collect();
    }
    let choices: Vec<Choice<'_>> = rows.iter().map(|run| choice(run, &requests[run.row])).collect();
    let chosen = headtemper_model::choose(logits, &choices)?;
    let number = |(run, chosen): (&&Running, Option<Chosen>)| match chosen {
        Some(Chosen { token, logprob }) => Ok((token, logprob)),
        None => Err(not_a_number(run)),
    };
    rows.iter().zip(chosen).map(number).collect()
}

/// Chooses a token by a row of logits, with `room` for a copy of them.
fn choose(run: &Running, request: &Request, logits: &[f32], room: &mut Vec<f32>) -> Result<(u32, f64)> {
    let top = largest(logits);
    let sum = sum_exp(logits, top, 1.0);
    if !sum.is_finite() || !top.is_finite() {
        return Err(not_a_number(run));
    }
    let log_sum = f64::from(top) + sum.ln();
    let token = if request.sampling.is_argmax() {
        argmax(logits)
    } else {
        room.clear();
        room.extend_from_slice(logits);
        request.sampling.next(room, &run.text, noise(run, request))
    };
    Ok((token, f64::from(logits[token as usize]) - log_sum))
}

/// How a device chooses a row's next token.
pub(super) fn choice<'a>(run: &'a Running, request: &Request) -> Choice<'a> {
    request.sampling.on_device(&run.text, noise(run, request))
}

/// The address of a row's next draw.
fn noise(run: &Running, request: &Request) -> Noise {
    Noise { item: request.noise, step: run.generated.len() as u64 }
}

pub(super) fn not_a_number(run: &Running) -> EngineError {
    EngineError::NotANumber { what: format!("row {}", run.row) }
}
