//! Chooses the next token of rows whose logits are on a GPU: only the token and its log-probability are copied back.

use candle_core::{Result, Tensor, bail};

use crate::{
    gpu,
    serving::{Serving, serving},
};

/// How the next token of a row is chosen.
///
/// Cuts follow transformers, in its order: temperature, top-k, top-p, min-p; of equal logits the lower id counts as likelier.
/// Sampling among the remaining tokens uses the Gumbel-max trick: the token with the largest `logit / temperature + G` in f64
/// wins, where `G = -ln(-ln u)` and `1 - u` has 64 bits of ChaCha8: the stream's word at `step * 2^32 + id`, then the one at
/// `2^67 + step * 2^32 + id`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The ChaCha8 key.
    pub key: [u32; 8],
    /// The ChaCha8 stream.
    pub stream: u64,
    /// The number of tokens drawn before this one, below 2^35.
    pub step: u64,
    /// 0 takes the token with the largest logit, the first of equals.
    pub temperature: f32,
    /// Keep the k largest; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probabilities reach p; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens with at least this share of the largest probability; 0 keeps all.
    pub min_p: f32,
}

impl Default for Draw {
    /// Greedy decoding.
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

/// Whether [`choose`] supports these logits `[rows, vocab]`: f32, on a device other than the CPU that has our kernels.
pub fn chooses_on_device(logits: &Tensor) -> bool {
    serving(logits.device()) == Serving::Gpu && gpu::chooses(logits)
}

/// The next token of every row; `None` if a logit of the row is NaN or the largest is not finite.
///
/// A row's token depends only on its logits and its draw. Cuts are exact; probabilities are summed in whole units of 2^-44.
///
/// # Shapes
/// `logits` `[rows, vocab]` f32; one draw per row.
///
/// # Errors
/// If the device has no such kernel (see [`chooses_on_device`]), the vocabulary is larger than 2^19, or a draw has
/// meaningless settings.
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
