//! Ways to feed a model token ids: all at once, in pieces, many rows together, greedily.

use candle_core::{Result, Tensor};
use headtemper_hook::{Batch, HeadPlan, HeadScale, ModelSpec, Recorder, Span, Tap, Tee};
use headtemper_model::CausalLm;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// The most parameters of a model that is checked at full length; a larger one is checked so that it takes a minute or two.
const SMALL: usize = 200_000_000;

/// Whether a model is small enough to check everything.
pub(super) fn is_small(spec: &ModelSpec) -> bool {
    spec.parameters <= SMALL
}

/// How many tokens the laws read: more than a chunk of the delta rule if that is cheap.
pub(super) fn length(spec: &ModelSpec) -> usize {
    let tokens = if is_small(spec) { 70 } else { 20 };
    tokens.min(spec.context)
}

/// Random token ids of the vocabulary, the same for the same seed.
pub fn tokens(spec: &ModelSpec, count: usize, seed: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| (rng.next_u64() % spec.vocab as u64) as u32).collect()
}

/// Plans as a tap, one per row.
pub(super) fn scale(model: &dyn CausalLm, plans: &[HeadPlan]) -> Result<HeadScale> {
    HeadScale::compile(plans, model.spec(), model.device())
}

/// Feeds a sequence in pieces. Returns the final hidden states of all its tokens, `[n, d_model]`.
///
/// # Errors
/// What the model or the tap reports.
pub fn in_pieces(model: &dyn CausalLm, ids: &[u32], pieces: &[usize], tap: &mut dyn Tap) -> Result<Tensor> {
    let mut cache = model.new_cache(1, ids.len())?;
    let (mut start, mut out) = (0, Vec::new());
    for &len in pieces {
        let batch = Batch::new(vec![Span { slot: 0, start, len, row: 0, prompt: Span::ALL_PROMPT }]);
        let part = Tensor::new(&ids[start..start + len], model.device())?;
        out.push(model.forward(&part, &batch, &mut cache, tap)?);
        start += len;
    }
    Tensor::cat(&out, 0)
}

/// Feeds several sequences together, the last `decoded` tokens of each one by one. Each sequence comes with its row of the
/// λ table. Returns the final hidden states of each, `[n, d_model]`, in the order given.
pub(super) fn in_rows(
    model: &dyn CausalLm,
    sequences: &[(usize, &[u32])],
    decoded: usize,
    tap: &mut dyn Tap,
) -> Result<Vec<Tensor>> {
    let longest = sequences.iter().map(|(_, ids)| ids.len()).max().unwrap_or(1);
    let mut cache = model.new_cache(sequences.len(), longest)?;
    let mut out = vec![Vec::new(); sequences.len()];
    for step in 0..=decoded {
        let piece = |ids: &[u32]| match step {
            0 => 0..ids.len() - decoded,
            _ => ids.len() - decoded + step - 1..ids.len() - decoded + step,
        };
        let rows = sequences.iter().enumerate().map(|(slot, &(row, ids))| (slot, row, ids, piece(ids)));
        let span = |(slot, row, _, at): (_, _, _, std::ops::Range<usize>)| Span {
            slot,
            start: at.start,
            len: at.len(),
            row,
            prompt: Span::ALL_PROMPT,
        };
        let batch = Batch::new(rows.clone().map(span).collect());
        let ids: Vec<u32> = rows.flat_map(|(_, _, ids, at)| ids[at].to_vec()).collect();
        let hidden = model.forward(&Tensor::new(ids, model.device())?, &batch, &mut cache, tap)?;
        for ((span, range), _) in batch.ranges().zip(sequences) {
            out[span.slot].push(hidden.narrow(0, range.start, range.len())?);
        }
    }
    out.iter().map(|parts| Tensor::cat(parts, 0)).collect()
}

/// Reads a whole sequence at once. Returns what every site saw, and the logits of all positions.
///
/// # Errors
/// What the model reports, or if a planned head never fired.
pub fn read_through(model: &dyn CausalLm, ids: &[u32], plan: Option<&HeadPlan>) -> Result<(Recorder, Tensor)> {
    let (recorder, hidden) = recorded(model, ids, plan)?;
    Ok((recorder, model.logits(&hidden)?))
}

/// The same with the final hidden states, `[n, d_model]`, in place of logits: those of all positions may be a gigabyte.
pub(super) fn recorded(model: &dyn CausalLm, ids: &[u32], plan: Option<&HeadPlan>) -> Result<(Recorder, Tensor)> {
    let mut recorder = Recorder::default();
    let hidden = match plan {
        None => in_pieces(model, ids, &[ids.len()], &mut recorder)?,
        Some(plan) => {
            let mut scale = scale(model, std::slice::from_ref(plan))?;
            let hidden = in_pieces(model, ids, &[ids.len()], &mut Tee(vec![&mut scale, &mut recorder]))?;
            scale.check_fired().map_err(candle_core::Error::wrap)?;
            hidden
        }
    };
    Ok((recorder, hidden))
}

/// Decodes `n` tokens greedily, one by one with the cache, past any stop tokens.
///
/// # Errors
/// What the model or the tap reports.
pub fn greedy(model: &dyn CausalLm, ids: &[u32], n: usize, tap: &mut dyn Tap) -> Result<Vec<u32>> {
    let mut cache = model.new_cache(1, ids.len() + n)?;
    let (mut out, mut input, mut start) = (Vec::new(), ids.to_vec(), 0);
    while out.len() < n {
        let batch = Batch::new(vec![Span { slot: 0, start, len: input.len(), row: 0, prompt: Span::ALL_PROMPT }]);
        let hidden = model.forward(&Tensor::new(&input[..], model.device())?, &batch, &mut cache, tap)?;
        let next = model.logits(&hidden.narrow(0, input.len() - 1, 1)?)?.argmax(1)?.to_vec1::<u32>()?[0];
        start += input.len();
        input = vec![next];
        out.push(next);
    }
    Ok(out)
}
