//! Architectures: packed token ids, a cache and a tap in; hidden states out.
//!
//! [`load`] reads a checkpoint (a directory in Hugging Face form, or a GGUF file) into a [`CausalLm`]. An architecture is
//! one file in `models/`, built from the small parts in `layers/`. What its layers share with another model's is repeated
//! on purpose, so that each file reads from top to bottom.

mod cache;
mod config;
mod error;
mod export;
mod layers;
mod models;
mod weights;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor};
use headtemper_hook::{Batch, HeadPlan, HeadRef, ModelSpec, Tap};

pub use cache::Cache;
pub use config::{Config, Gemma4Config, Gemma4Layer, LlamaConfig, Qwen3Config, Qwen35Config, token_ids};
pub use error::ModelError;
pub use export::{Folded, fold_file, folded_names};
pub use headtemper_kernels::{
    ATTEND_SPLIT, BaseRows, Blocks, Choice, Chosen, DecodeRow, DecodeRows, DecodeSize, Draw, GPU_LOGITS, HeadScore,
    Held, Kernels, Level, Matrix, Operations, Penalties, Products, Recording, SpoiltRow, TextTokens, add,
    attend_partial_bytes, choose, chooses_on_device, fastest, free_memory, is_out_of_memory, open_cuda, reason,
    spoilt_row,
};
#[doc(hidden)]
pub use layers::Shell;
pub use weights::{GgufFile, HoldAs, Holding, StoredTensor, Weights, stored_tensors};

/// The result of reading a checkpoint.
pub type Loaded<T> = std::result::Result<T, ModelError>;

/// Where a forward pass branches off an earlier one: everything below the output projection of `layer` is unchanged, but the
/// projection gives another result.
#[derive(Clone, Copy)]
pub struct Branch<'a> {
    /// The layer whose output projection gives another result.
    pub layer: usize,
    /// The unchanged residual stream that the layer reads, `[n, d_model]`.
    pub residual: &'a Tensor,
    /// The new output of the projection, `[n, d_model]`.
    pub mixed: &'a Tensor,
    /// The cache of the earlier pass, which has read the same tokens: later layers may read keys of earlier ones.
    pub cache: &'a Cache,
    /// For each span of the branch, the slot of the earlier pass that holds its sequence.
    pub slots: &'a [usize],
}

/// A decoder-only language model. All state of a sequence is in the [`Cache`], so the weights are shared by reference.
pub trait CausalLm: Send + Sync {
    /// The decoder's parts around its layers.
    #[doc(hidden)]
    fn shell(&self) -> &Shell;

    /// The geometry: layers, heads, widths.
    fn spec(&self) -> &ModelSpec {
        &self.shell().spec
    }

    /// The types the weights are held in. On the CPU, activations are f32 in any case.
    fn holding(&self) -> &Holding {
        self.shell().holding()
    }

    /// The dtype of activations and of the cache.
    fn activations(&self) -> DType {
        self.shell().activations()
    }

    /// The device that holds the weights.
    fn device(&self) -> &Device {
        self.shell().device()
    }

    /// An empty cache for `slots` sequences of at most `capacity` tokens.
    ///
    /// # Errors
    /// If the device has no room for it.
    fn new_cache(&self, slots: usize, capacity: usize) -> Result<Cache> {
        Cache::new(self.spec(), slots, capacity, self.activations(), self.device())
    }

    /// Reads packed tokens and returns the output of the final norm.
    ///
    /// # Shapes
    /// `ids` u32 `[n]`, packed as `batch` says; result `[n, d_model]`, which is `hidden_states[-1]` of transformers.
    ///
    /// # Errors
    /// If a span does not continue its cache slot, or a slot is full.
    fn forward(&self, ids: &Tensor, batch: &Batch, cache: &mut Cache, tap: &mut dyn Tap) -> Result<Tensor> {
        self.run(ids, None, batch, cache, tap)
    }

    /// Runs the rest of a forward pass, from the output projection of a layer on. The layers above run as in
    /// [`CausalLm::forward`]; sites at and below the branch do not fire, and a slot can be continued only by a branch at the
    /// same layer.
    ///
    /// # Errors
    /// As [`CausalLm::forward`], and if the layer does not exist.
    fn branch(
        &self,
        ids: &Tensor,
        from: &Branch<'_>,
        batch: &Batch,
        cache: &mut Cache,
        tap: &mut dyn Tap,
    ) -> Result<Tensor> {
        let layers = self.spec().layers.len();
        if from.layer >= layers {
            candle_core::bail!("cannot branch at layer {}; layers are 0 to {}", from.layer, layers - 1);
        }
        self.run(ids, Some(from), batch, cache, tap)
    }

    /// A forward pass, from the embedding or from a branch on.
    #[doc(hidden)]
    fn run(
        &self,
        ids: &Tensor,
        from: Option<&Branch<'_>>,
        batch: &Batch,
        cache: &mut Cache,
        tap: &mut dyn Tap,
    ) -> Result<Tensor>;

    /// Embeds tokens into the residual stream that the first layer reads: `ids` u32 `[n]` to `[n, d_model]`.
    ///
    /// # Errors
    /// If an id is beyond the vocabulary.
    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        self.shell().embed(ids)
    }

    /// The weight of a layer's output projection, `[d_model, heads * dim]`: its input columns are the heads side by side.
    ///
    /// # Panics
    /// If the layer does not exist.
    fn output_projection(&self, layer: usize) -> &Matrix;

    /// Applies a layer's output projection, without what follows it (Gemma 4's norm).
    ///
    /// # Shapes
    /// `z` `[n, heads * dim]`; result `[n, d_model]`.
    ///
    /// # Errors
    /// If `z` has another shape.
    ///
    /// # Panics
    /// If the layer does not exist.
    fn project(&self, layer: usize, z: &Tensor) -> Result<Tensor> {
        headtemper_kernels::linear(z, self.output_projection(layer))
    }

    /// What a head adds to the output of its layer's output projection, which is the sum over the heads.
    ///
    /// # Shapes
    /// `z` `[n, dim]`; result `[n, d_model]`.
    ///
    /// # Errors
    /// If the model has no such head, or `z` has another shape.
    fn head_output(&self, at: HeadRef, z: &Tensor) -> Result<Tensor> {
        self.spec().check(at).map_err(candle_core::Error::wrap)?;
        let dim = self.spec().layers[at.layer].heads.dim;
        let columns = at.head * dim..(at.head + 1) * dim;
        headtemper_kernels::linear_columns(z, self.output_projection(at.layer), columns)
    }

    /// Applies the language-model head, separate from [`CausalLm::forward`] so that attribution never pays for the vocabulary.
    ///
    /// # Shapes
    /// `hidden` `[m, d_model]`, after the final norm; result `[m, vocab]` f32.
    ///
    /// # Errors
    /// If `hidden` has another shape.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = self.shell().logits(hidden)?;
        match self.softcap() {
            Some(cap) => headtemper_kernels::softcap(&logits, cap),
            None => Ok(logits),
        }
    }

    /// Whether a forward pass needs nothing from the host, so that it can be recorded and played back.
    fn steps_stay_on_device(&self) -> bool {
        true
    }

    /// The soft cap of logits, if there is one: `cap * tanh(logit / cap)`.
    fn softcap(&self) -> Option<f32> {
        None
    }

    /// Scores each row under the language-model head, with streamed logits: see [`score_head`](headtemper_kernels::score_head).
    ///
    /// # Shapes
    /// `hidden` `[m, d_model]`, after the final norm; `targets` `m` tokens.
    ///
    /// # Errors
    /// If shapes do not fit, or a logit is not finite.
    fn score(&self, hidden: &Tensor, targets: &[u32], base: Option<BaseRows<'_>>) -> Result<Vec<HeadScore>> {
        headtemper_kernels::score_head(hidden, self.shell().head(), targets, self.softcap(), base)
    }
}

/// A checkpoint on the local disk.
#[derive(Clone, Debug)]
pub enum Checkpoint {
    /// A directory with `config.json` and safetensors.
    Directory(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A `config.json` alone, with weights from a seeded generator: a model of real size for benchmarks and tests.
    Random {
        /// The file, or the directory that contains it.
        config: PathBuf,
        /// Seed of the weights.
        seed: u64,
    },
}

impl Checkpoint {
    /// The checkpoint at a path.
    ///
    /// # Errors
    /// If there is nothing, or neither a directory nor a `.gguf` file.
    pub fn at(path: &Path) -> Loaded<Self> {
        match std::fs::metadata(path) {
            Err(source) => Err(ModelError::Read { path: path.into(), source }),
            Ok(meta) if meta.is_dir() => Ok(Self::Directory(path.into())),
            Ok(_) if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) => Ok(Self::Gguf(path.into())),
            Ok(_) => Err(ModelError::NotAModel { path: path.into() }),
        }
    }

    /// The path of the checkpoint.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Gguf(path) | Self::Random { config: path, .. } => path,
        }
    }

    /// The files that hold the weights, in a fixed order; empty if the weights are random.
    ///
    /// # Errors
    /// If a file that the index names is missing.
    pub fn weight_files(&self) -> Loaded<Vec<PathBuf>> {
        match self {
            Self::Directory(dir) => weights::shard_files(dir),
            Self::Gguf(path) => Ok(vec![path.clone()]),
            Self::Random { .. } => Ok(Vec::new()),
        }
    }

    /// The configuration, from either kind of file.
    ///
    /// # Errors
    /// If it is missing, incomplete, or of an unsupported architecture.
    pub fn config(&self) -> Loaded<Config> {
        match self {
            Self::Directory(dir) => Config::from_json_file(&dir.join("config.json")),
            Self::Random { config, .. } if config.is_dir() => Config::from_json_file(&config.join("config.json")),
            Self::Random { config, .. } => Config::from_json_file(config),
            Self::Gguf(path) => Config::from_gguf(&GgufFile::open(path)?),
        }
    }

    /// The geometry. No weight is read, but every one is accounted for: names and shapes must be right.
    ///
    /// # Errors
    /// As [`load`].
    pub fn spec(&self) -> Loaded<ModelSpec> {
        Ok(self.accounted(HoldAs::Native, &Device::Cpu)?.0)
    }

    /// The geometry, the types the weights would be held in, and the dtype of activations. No weight is read, but every one is
    /// accounted for.
    ///
    /// # Errors
    /// As [`load`].
    pub fn accounted(&self, hold: HoldAs, device: &Device) -> Loaded<(ModelSpec, Holding, DType)> {
        let model = build(&self.config()?, &mut Weights::accounted(self, hold, device)?)?;
        Ok((model.spec().clone(), model.holding().clone(), model.activations()))
    }

    /// The geometry that the configuration alone promises, the types the weights would be held in (in a file they would be bf16, as
    /// on the hub), and the dtype of activations; the weights need not exist.
    ///
    /// # Errors
    /// As [`Checkpoint::config`], and if weights of this shape cannot be held in the requested type.
    pub fn promised(&self, hold: HoldAs, device: &Device) -> Loaded<(ModelSpec, Holding, DType)> {
        let model = build(&self.config()?, &mut Weights::imagined(self, hold, device))?;
        Ok((model.spec().clone(), model.holding().clone(), model.activations()))
    }
}

/// How weights are held, and which products linear layers use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precision {
    /// The requested type of the weights.
    pub hold: HoldAs,
    /// The products of linear layers. The language-model head always multiplies f32: logits are not rounded.
    pub products: Products,
}

impl<T: Into<HoldAs>> From<T> for Precision {
    /// Exact products.
    fn from(hold: T) -> Self {
        Self { hold: hold.into(), products: Products::F32 }
    }
}

/// Loads a checkpoint.
///
/// `precision.hold` is the requested type of the weights; by default it is that of the file, or f32 for quantised GGUF files, whose
/// values no half-width type can hold. Every tensor that the architecture needs must exist with the right shape, and any other
/// tensor in the file is an error, unless it is known to be unused.
///
/// # Errors
/// Names the file, the key or the tensor, and what would have been right.
pub fn load(checkpoint: &Checkpoint, precision: impl Into<Precision>, device: &Device) -> Loaded<Box<dyn CausalLm>> {
    let Precision { hold, products } = precision.into();
    let mut weights = Weights::open(checkpoint, hold, device)?;
    weights.multiply_as(products)?;
    build(&checkpoint.config()?, &mut weights)
}

/// Builds a model from a configuration, with f32 weights from a seeded generator. It reads no files: the model has the geometry
/// without anything learnt.
///
/// # Errors
/// If the device has no room for it.
pub fn load_random(config: &Config, seed: u64, device: &Device) -> Loaded<Box<dyn CausalLm>> {
    build(config, &mut Weights::random(seed, device))
}

/// Loads a checkpoint with a plan folded into the columns of its output projections: the reference that a hook under the same
/// plan must agree with. In f32, because a half-width weight times λ would be rounded.
///
/// # Errors
/// As [`load`], or if the plan names heads that the model does not have, or does not apply at every position.
pub fn load_folded(checkpoint: &Checkpoint, plan: &HeadPlan, device: &Device) -> Loaded<Box<dyn CausalLm>> {
    let spec = checkpoint.spec()?;
    plan.check(&spec)?;
    plan.check_foldable()?;
    let mut weights = Weights::open(checkpoint, Some(Held::F32), device)?;
    weights.fold(plan, &spec);
    build(&checkpoint.config()?, &mut weights)
}

fn build(config: &Config, weights: &mut Weights) -> Loaded<Box<dyn CausalLm>> {
    let mut built = || -> Loaded<Box<dyn CausalLm>> {
        Ok(match config {
            Config::Llama(config) => Box::new(models::llama::Llama::load(config, weights)?),
            Config::Qwen3(config) => Box::new(models::qwen3::Qwen3::load(config, weights)?),
            Config::Qwen35(config) => Box::new(models::qwen3_5::Qwen35::load(config, weights)?),
            Config::Gemma4(config) => Box::new(models::gemma4::Gemma4::load(config, weights)?),
        })
    };
    built().map_err(ModelError::of_loading)
}
