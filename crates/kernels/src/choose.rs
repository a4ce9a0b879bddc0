//! The next token of rows whose logits lie on a GPU: only the token and its log-probability come back.

use candle_core::{Result, Tensor, bail};

use crate::{
    gpu,
    serving::{Serving, serving},
};

/// How the next token of a row is chosen.
///
/// Cuts are those of transformers, in its order: temperature, top-k, top-p, min-p; of equal logits the lower id is the likelier.
/// What they leave is drawn from by the Gumbel-max form: the token with the largest `logit / temperature + G` in f64, where
/// `G = -ln(-ln u)` and `1 - u` has 64 bits of ChaCha8: the word `step * 2^32 + id` of the stream, then that at
/// `2^67 + step * 2^32 + id`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The key of ChaCha8.
    pub key: [u32; 8],
    /// Its stream.
    pub stream: u64,
    /// Tokens before this one, below 2^35.
    pub step: u64,
    /// 0 takes the first of the largest.
    pub temperature: f32,
    /// Keep the k largest; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probabilities reach p; 1 keeps all.
    pub top_p: f32,
    /// Keep what has at least this share of the largest probability; 0 keeps all.
    pub min_p: f32,
}

impl Default for Draw {
    /// Greedy.
    fn default() -> Self {
        Self { key: [0; 8], stream: 0, step: 0, temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

/// The token that was chosen for a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// Its log-probability under the softmax of the logits, before temperature and cuts.
    pub logprob: f64,
}

/// Whether [`choose`] serves these logits `[rows, vocab]`: f32 on a device with kernels of ours other than the CPU.
pub fn chooses_on_device(logits: &Tensor) -> bool {
    serving(logits.device()) == Serving::Gpu && gpu::chooses(logits)
}

/// The next token of every row, none where the row's logits are no numbers or its largest is not finite.
///
/// A row's token depends on its logits and its draw alone. Cuts are exact; sums of probabilities are of whole units of 2^-44.
///
/// # Shapes
/// `logits` `[rows, vocab]` f32, and as many draws as rows.
///
/// # Errors
/// If the device has no such kernel (see [`chooses_on_device`]), the vocabulary is larger than 2^19, or a draw has settings
/// without meaning.
pub fn choose(logits: &Tensor, draws: &[Draw]) -> Result<Vec<Option<Chosen>>> {
    if !gpu::chooses(logits) {
        bail!(
            "choose: logits must be f32 [rows, vocab] with a vocabulary of 1 to {}, not {:?} {:?}",
            gpu::MOST_TOKENS,
            logits.dtype(),
            logits.shape()
        );
    }
    gpu::choose(logits, draws)
}
