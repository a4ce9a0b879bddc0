//! Chooses the next token of rows whose logits are on a GPU: only the token and its log-probability are copied back.

use std::collections::HashMap;

use candle_core::{Result, Tensor, bail};

use crate::{
    gpu,
    serving::{Serving, serving},
};

/// How the next token of a row is drawn.
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

/// The different tokens of a text, which penalties are applied to. Each is there once, however often it stands in the text.
#[derive(Clone, Debug, Default)]
pub struct TextTokens {
    /// The tokens, those that were written with [`WRITTEN`], in the order in which they first came.
    words: Vec<u32>,
    /// The place of each token among them.
    places: HashMap<u32, usize>,
}

/// Marks a token that was written, not only read; `WRITTEN` of `cuda/sample.cu`. No vocabulary reaches it.
const WRITTEN: u32 = 1 << 31;

impl TextTokens {
    /// The tokens of a prompt, of which nothing was written.
    pub fn of(prompt: &[u32]) -> Self {
        let mut text = Self::default();
        for &token in prompt {
            text.place(token);
        }
        text
    }

    /// Takes in a token that was written.
    pub fn write(&mut self, token: u32) {
        let place = self.place(token);
        self.words[place] |= WRITTEN;
    }

    fn place(&mut self, token: u32) -> usize {
        *self.places.entry(token).or_insert_with(|| {
            self.words.push(token);
            self.words.len() - 1
        })
    }

    /// Each token, and whether it was written.
    pub fn tokens(&self) -> impl Iterator<Item = (u32, bool)> {
        self.words.iter().map(|word| (word & !WRITTEN, word & WRITTEN != 0))
    }

    /// The tokens as the kernels read them.
    pub(crate) fn words(&self) -> &[u32] {
        &self.words
    }
}

/// What is done to the logits of a text's tokens before one is chosen, as in transformers (`RepetitionPenaltyLogitsProcessor`).
#[derive(Clone, Copy, Debug)]
pub struct Penalties<'a> {
    /// Divides positive logits and multiplies others; 1 is off.
    pub repetition: f32,
    /// Subtracted before that from the logits of tokens that were written; 0 is off.
    pub presence: f32,
    /// The text so far.
    pub text: &'a TextTokens,
}

/// How the next token of a row is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// What comes before the draw, if anything.
    pub penalties: Option<Penalties<'a>>,
    /// How the token is drawn.
    pub draw: Draw,
}

impl From<Draw> for Choice<'_> {
    fn from(draw: Draw) -> Self {
        Self { penalties: None, draw }
    }
}

/// The token that was chosen for a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// Its log-probability under the softmax of the logits, before penalties, temperature and cuts.
    pub logprob: f64,
}

/// Whether [`choose`] supports these logits `[rows, vocab]`: f32, on a device other than the CPU that has our kernels.
pub fn chooses_on_device(logits: &Tensor) -> bool {
    serving(logits.device()) == Serving::Gpu && gpu::chooses(logits)
}

/// The next token of every row; `None` if a logit of the row is NaN or the largest is not finite.
///
/// A row's token depends only on its logits and its choice. Cuts are exact; probabilities are summed in whole units of 2^-44.
///
/// # Shapes
/// `logits` `[rows, vocab]` f32; one choice per row.
///
/// # Errors
/// If the device has no such kernel (see [`chooses_on_device`]), the vocabulary is larger than 2^19, a choice has
/// meaningless settings, or a text has tokens beyond the vocabulary.
pub fn choose(logits: &Tensor, choices: &[Choice<'_>]) -> Result<Vec<Option<Chosen>>> {
    if !gpu::chooses(logits) {
        bail!(
            "choose: logits must be f32 [rows, vocab] with a vocabulary of 1 to {}, not {:?} {:?}",
            gpu::MOST_TOKENS,
            logits.dtype(),
            logits.shape()
        );
    }
    gpu::choose(logits, choices)
}
