//! What every decoder has around its layers: the embedding, the final norm and the head.

use candle_core::{DType, Device, Result, Tensor};
use headtemper_hook::{Batch, LayerSpec, ModelSpec, Site, Tap};
use headtemper_kernels::Matrix;

use super::{Linear, RmsNorm, Stream};
use crate::{Branch, Cache, Holding, Loaded, Weights};

/// A decoder's sizes and settings as a whole, from its configuration.
pub(crate) struct Outline {
    pub(crate) architecture: &'static str,
    pub(crate) layers: Vec<LayerSpec>,
    pub(crate) hidden_size: usize,
    pub(crate) vocab_size: usize,
    pub(crate) context: usize,
    pub(crate) tied: bool,
}

/// The embedding, the final norm and the head, with the geometry of everything between them.
pub struct Shell {
    pub(crate) spec: ModelSpec,
    embedding: Matrix,
    norm: RmsNorm,
    head: Linear,
    activations: DType,
    holding: Holding,
}

impl Shell {
    /// Reads the weights left after the layers, and ends loading: every tensor must be taken, or `unused`.
    pub(crate) fn load(
        outline: Outline,
        norm: RmsNorm,
        weights: &mut Weights,
        unused: impl Fn(&str) -> bool,
    ) -> Loaded<Self> {
        let Outline { architecture, layers, hidden_size, vocab_size, context, tied } = outline;
        // If a checkpoint stores a head that differs from its embedding, it is used, whatever the configuration says.
        let tied = tied && !weights.head_of_its_own()?;
        let embedding = weights.vocabulary("model.embed_tokens.weight", vocab_size, hidden_size)?;
        let head = if tied {
            Linear::of(embedding.clone())
        } else {
            Linear::of(weights.vocabulary("lm_head.weight", vocab_size, hidden_size)?)
        };
        // A tied checkpoint may store a copy of its head, and an old one the rotary frequencies.
        let unused =
            |name: &str| (tied && name == "lm_head.weight") || name.ends_with("rotary_emb.inv_freq") || unused(name);
        let spec = ModelSpec {
            architecture: architecture.into(),
            layers,
            d_model: hidden_size,
            vocab: vocab_size,
            context,
            parameters: weights.finish(unused)?,
            mapped_parameters: weights.mapped(),
        };
        let (activations, holding) = (weights.activations(), weights.holding().clone());
        Ok(Self { spec, embedding, norm, head, activations, holding })
    }

    /// The types the weights are held in.
    pub(crate) fn holding(&self) -> &Holding {
        &self.holding
    }

    /// The dtype of activations and cache.
    pub(crate) fn activations(&self) -> DType {
        self.activations
    }

    /// The weight of the language-model head, `[vocab, hidden]`.
    pub(crate) fn head(&self) -> &Matrix {
        self.head.weight()
    }

    pub(crate) fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// Begins a forward pass: makes room in the cache, notifies the tap, and returns the packed tokens' positions, u32 `[n]`.
    pub(crate) fn begin(
        &self,
        batch: &Batch,
        from: Option<&Branch<'_>>,
        cache: &mut Cache,
        tap: &mut dyn Tap,
    ) -> Result<Tensor> {
        let named = tap.named();
        if !named.is_empty() {
            let sites = self.spec.sites();
            if let Some(other) = named.into_iter().find(|site| !sites.contains(site)) {
                candle_core::bail!("a hook is for {other:?}, which {} does not have", self.spec.architecture);
            }
        }
        cache.begin(batch, from)?;
        tap.begin(batch)?;
        match batch.on_device() {
            Some(recorded) => Ok(recorded.positions.clone()),
            None => Tensor::from_vec(batch.positions(), batch.tokens(), self.device()),
        }
    }

    /// Embeds token ids u32 `[n]` as `[n, hidden]`.
    pub(crate) fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        self.embedding.gather(ids)?.to_dtype(self.activations)
    }

    /// The final norm.
    pub(crate) fn norm(&self) -> &RmsNorm {
        &self.norm
    }

    /// Applies the final norm to the stream after all layers, and visits its site.
    pub(crate) fn finish(&self, stream: Stream, tap: &mut dyn Tap) -> Result<Tensor> {
        tap.visit(Site::FinalNorm, stream.read(&self.norm)?.1)
    }

    /// `hidden` `[m, hidden]` to logits `[m, vocab]` f32.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        headtemper_kernels::logits(hidden, self.head())
    }
}
