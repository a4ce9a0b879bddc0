//! The memory that a model's forward passes take.

use headtemper_hook::{Heads, LayerSpec, Mixer};
use headtemper_model::{Cache, Config, Kernels, attend_partial_bytes};

use crate::{Engine, memory::machine};

/// The program itself and the tokenizer's tables, if the system does not tell what they take.
const PROGRAM: u64 = 64 << 20;

/// What the program takes besides everything that is counted here: stacks and buffers of threads, texts, finished rows.
const SPARE: u64 = 8 << 20;

/// A factor on activations for what the allocator keeps beyond what is asked of it.
pub(crate) const ALLOCATOR: f64 = 1.25;

/// Bytes, grouped by what they grow with.
#[derive(Clone, Debug)]
pub(crate) struct Cost {
    /// For the loaded model and the program.
    pub(crate) held: u64,
    /// For the cache, per token.
    pub(crate) cache_token: u64,
    /// For the cache, per sequence of any length.
    pub(crate) cache_sequence: u64,
    /// For the cache's largest tensor, per token.
    pub(crate) cache_widest: u64,
    /// For activations, per token of a step.
    pub(crate) token: u64,
    /// The widest heads of attention, if it holds partial results of long rows: on a GPU.
    pub(crate) split: Option<Heads>,
    /// For logits and what is computed from them, per row.
    pub(crate) logits: u64,
    /// For the choice of tokens, on all threads together.
    pub(crate) choice: u64,
    /// Whether a cache takes memory only for what is written to it, not for what is reserved.
    pub(crate) lazy: bool,
}

impl Cost {
    /// For partial results of attention, in a step of `tokens` tokens that see up to `longest`.
    pub(crate) fn partial(&self, tokens: usize, longest: usize) -> u64 {
        self.split.map_or(0, |heads| attend_partial_bytes(tokens, (heads.count, heads.dim), longest) as u64)
    }
}

impl Engine {
    /// Whether a cache takes memory as it is written, and not as it is reserved.
    pub(crate) fn reserves_lazily(&self) -> bool {
        self.model().device().is_cpu() && machine::lazy()
    }

    /// What the model takes. The widths of MLPs are read from its configuration.
    pub(crate) fn cost(&self) -> Cost {
        let (spec, model) = (self.spec(), self.model());
        let (cpu, activations) = (model.device().is_cpu(), model.activations());
        let weights = model.holding().bytes() as u64;
        let attention = || spec.layers.iter().filter(|l| !matches!(l.mixer, Mixer::Delta { .. })).map(|l| l.heads);
        let on_gpu = Kernels::serve_gpu(model.device());
        let (vocab, size) = (spec.vocab as u64, activations.size_in_bytes());
        // candle's own operations widen some narrower numbers to 4 bytes.
        let number = if on_gpu { size } else { size.max(4) };
        let floats = floats(&spec.layers, spec.d_model, self.config());
        Cost {
            held: match machine::held() {
                Some(held) if cpu => held.max(weights) + SPARE,
                _ => weights + PROGRAM + SPARE,
            },
            cache_token: Cache::bytes_per_token(spec, activations) as u64,
            cache_sequence: Cache::bytes_per_sequence(spec, activations) as u64,
            cache_widest: (attention().map(|heads| heads.kv_width()).max().unwrap_or(0) * size) as u64,
            // The second term is λ of every head.
            token: (ALLOCATOR * (number * floats + 4 * spec.slots().len()) as f64) as u64,
            split: attention().filter(|_| on_gpu).max_by_key(|heads| heads.width() + 2 * heads.count),
            // Logits as the LM head gives them, plus a copy if they are capped; all twice, for rows on the host or for a recorded step.
            logits: 2 * (1 + u64::from(model.softcap().is_some())) * 4 * vocab,
            // A copy before penalties, and the list that a cut (top-k, top-p) sorts.
            choice: rayon::current_num_threads() as u64 * vocab * (4 + 8),
            lazy: self.reserves_lazily(),
        }
    }
}

/// The most numbers that one token takes at any point of a forward pass.
///
/// In an MLP, gate and up, their product and the output are alive at once: three widths. In a mixer, these are the fused
/// projection, its parts as they are normalised and rotated, z, its gate and its tempered copy: at most eight times z
/// plus six times the keys, or for a delta net plus three times its convolution's channels. Four residual streams
/// are added to either. Gemma 4 also holds each layer's own embedding, and four more like it while they are made.
fn floats(layers: &[LayerSpec], d_model: usize, config: &Config) -> usize {
    let (mlp, own) = match config {
        Config::Llama(config) => (config.intermediate_size, 0),
        Config::Qwen3(config) => (config.intermediate_size, 0),
        Config::Qwen35(config) => (config.intermediate_size, 0),
        Config::Gemma4(config) => {
            let widest = config.layers.iter().map(|layer| layer.intermediate_size).max();
            (widest.unwrap_or(0), config.per_layer_input.map_or(0, |(width, _)| width * config.layers.len()))
        }
    };
    let mixer = layers.iter().map(|layer| match layer.mixer {
        Mixer::Full | Mixer::Sliding { .. } => 8 * layer.heads.width() + 6 * layer.heads.kv_width(),
        Mixer::Delta { key_dim, .. } => {
            8 * layer.heads.width() + 3 * (2 * layer.heads.kv * key_dim + layer.heads.width())
        }
    });
    let layer = mixer.max().unwrap_or(0).max(3 * mlp) + own;
    layer.max(5 * own) + 4 * d_model
}
