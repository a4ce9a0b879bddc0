//! Gemma 4 E2B, and other dense models with its configuration (transformers `modeling_gemma4.py`).
//!
//! Sliding and full attention have their own head sizes and rotary frequencies; scores are not scaled, and queries, keys and
//! values are normalised. The last layers read the keys of an earlier layer of their kind and have an MLP of twice the width.
//! Every block's output is normalised before it joins the residual stream, a third block adds each layer's own embedding of
//! the token, and the stream is scaled at the end of each layer.

use candle_core::{DType, Result, Tensor};
use headtemper_hook::{Batch, Heads, LayerSpec, Mixer, Site, Tap};
use headtemper_kernels::{AttentionSpan, Join, Matrix, Spans, add, attend, gelu_mul, gelu_mul_with, join};

use crate::{
    Branch, Cache, CausalLm, Gemma4Config, Loaded, Weights,
    layers::{Angles, End, Linear, Mlp, Outline, RmsNorm, Rope, Shell, Stream, heads_of},
    weights::Table,
};

/// What every layer of a forward pass needs besides the residual stream.
struct Pass<'a> {
    spans: Spans<AttentionSpan>,
    sliding: Angles,
    full: Angles,
    /// Each layer's own embedding of the tokens, `[n, width]`; empty if the model has none.
    inputs: Vec<Tensor>,
    cache: &'a mut Cache,
    tap: &'a mut dyn Tap,
}

/// The norms of keys and values, for a layer that computes its own.
struct KeysValues {
    k_norm: RmsNorm,
    v_norm: RmsNorm,
    /// Whether the raw keys serve as values.
    k_eq_v: bool,
}

struct Attention {
    layer: usize,
    heads: Heads,
    window: Option<usize>,
    /// queries | keys | values, as far as the layer has them
    qkv: Linear,
    q_norm: RmsNorm,
    own: Option<KeysValues>,
    o_proj: Linear,
}

impl Attention {
    fn load(config: &Gemma4Config, layer: usize, weights: &mut Weights) -> Loaded<Self> {
        let kind = config.layers[layer];
        let heads = Heads { count: config.heads, kv: kind.kv_heads, dim: kind.head_dim };
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}.weight");
        let (has_own, k_eq_v) = (config.keys_of(layer).is_none(), config.k_eq_v && !kind.sliding);
        let mut parts = vec![(name("q_proj"), heads.width())];
        if has_own {
            parts.push((name("k_proj"), heads.kv_width()));
        }
        if has_own && !k_eq_v {
            parts.push((name("v_proj"), heads.kv_width()));
        }
        let eps = config.rms_norm_eps;
        let own = if has_own {
            let k_norm = RmsNorm::load(weights, &name("k_norm"), heads.dim, eps)?;
            Some(KeysValues { k_norm, v_norm: RmsNorm::plain(weights, heads.dim, eps)?, k_eq_v })
        } else {
            None
        };
        Ok(Self {
            layer,
            heads,
            window: kind.sliding.then_some(config.window),
            qkv: Linear::fused(weights, &parts, config.hidden_size)?,
            q_norm: RmsNorm::load(weights, &name("q_norm"), heads.dim, eps)?,
            own,
            o_proj: Linear::load(weights, &name("o_proj"), config.hidden_size, heads.width())?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let Heads { count, kv, dim } = self.heads;
        let angles = if self.window.is_some() { &pass.sliding } else { &pass.full };
        let qkv = self.qkv.forward(x)?; // [n, (count + 2 kv) * dim], or fewer
        let q = heads_of(&qkv, 0, count, dim)?.normed(&self.q_norm).turned(angles);
        let q = match &self.own {
            Some(own) => {
                let (keys, values) = (count * dim, if own.k_eq_v { count * dim } else { (count + kv) * dim });
                let k = heads_of(&qkv, keys, kv, dim)?.normed(&own.k_norm).turned(angles); // [n, kv, dim]
                let v = heads_of(&qkv, values, kv, dim)?.normed(&own.v_norm);
                pass.cache.append(self.layer, [&q, &k, &v], &pass.spans)?
            }
            None => q.tensor()?,
        }; // [n, count, dim]
        let (keys, values) = pass.cache.keys_values(self.layer)?;
        let z = pass.tap.heads(Site::Z(self.layer), |lambda| {
            attend(&q, keys, values, &pass.spans, 1.0, self.window, lambda) // [n, count, dim]
        })?;
        self.o_proj.forward(&z.flatten_from(1)?)
    }
}

/// Adds a layer's own embedding of each token, gated by the residual stream.
struct PerLayerInput {
    gate: Linear,
    projection: Linear,
    post_norm: RmsNorm,
}

impl PerLayerInput {
    fn load(config: &Gemma4Config, layer: usize, width: usize, weights: &mut Weights) -> Loaded<Self> {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let hidden = config.hidden_size;
        Ok(Self {
            gate: Linear::load(weights, &name("per_layer_input_gate"), width, hidden)?,
            projection: Linear::load(weights, &name("per_layer_projection"), hidden, width)?,
            post_norm: RmsNorm::load(weights, &name("post_per_layer_input_norm"), hidden, config.rms_norm_eps)?,
        })
    }

    /// `x` `[n, hidden]`, not normalised; `input` `[n, width]`, this layer's own. The result still has to pass `post_norm`.
    fn forward(&self, x: &Tensor, input: &Tensor) -> Result<Tensor> {
        self.projection.forward(&gelu_mul_with(&self.gate.forward(x)?, input)?)
    }
}

struct Layer {
    index: usize,
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    pre_feedforward_norm: RmsNorm,
    mlp: Mlp,
    post_feedforward_norm: RmsNorm,
    per_layer_input: Option<PerLayerInput>,
    scalar: f64,
}

impl Layer {
    fn load(config: &Gemma4Config, index: usize, weights: &mut Weights) -> Loaded<Self> {
        let mut norm = |part: &str| {
            let name = format!("model.layers.{index}.{part}.weight");
            RmsNorm::load(weights, &name, config.hidden_size, config.rms_norm_eps)
        };
        Ok(Self {
            index,
            input_norm: norm("input_layernorm")?,
            post_attention_norm: norm("post_attention_layernorm")?,
            pre_feedforward_norm: norm("pre_feedforward_layernorm")?,
            post_feedforward_norm: norm("post_feedforward_layernorm")?,
            attention: Attention::load(config, index, weights)?,
            mlp: Mlp::load(weights, index, (config.hidden_size, config.layers[index].intermediate_size), gelu_mul)?,
            per_layer_input: match config.per_layer_input {
                Some((width, _)) => Some(PerLayerInput::load(config, index, width, weights)?),
                None => None,
            },
            scalar: weights.scalar(&format!("model.layers.{index}.layer_scalar"), 1.0)?,
        })
    }

    fn spec(&self, config: &Gemma4Config) -> LayerSpec {
        let mixer = match self.attention.window {
            Some(window) => Mixer::Sliding { window },
            None => Mixer::Full,
        };
        LayerSpec { mixer, heads: self.attention.heads, keys_of: config.keys_of(self.index) }
    }

    fn forward(&self, stream: Stream, next: &RmsNorm, pass: &mut Pass<'_>) -> Result<Stream> {
        let (x, normed) = stream.read(&self.input_norm)?;
        let mixed = self.attention.forward(&normed, pass)?;
        self.after(&x, &mixed, next, pass)
    }

    /// What follows the token mixer.
    fn after(&self, x: &Tensor, mixed: &Tensor, next: &RmsNorm, pass: &mut Pass<'_>) -> Result<Stream> {
        let join_with = |x: &Tensor, y: &Tensor, norm: &RmsNorm, next: Option<&RmsNorm>| {
            let how = Join { before: Some(norm.borrowed()), scale: 1.0, next: next.map(RmsNorm::borrowed) };
            join(x, y, &how)
        };
        let (x, normed) = join_with(x, mixed, &self.post_attention_norm, Some(&self.pre_feedforward_norm))?;
        let y = self.mlp.forward(&normed.expect("a norm was asked for"))?;
        let end = End { site: Site::ResidPost(self.index), next };
        match (&self.per_layer_input, pass.inputs.get(self.index)) {
            (Some(own), Some(input)) => {
                let (x, _) = join_with(&x, &y, &self.post_feedforward_norm, None)?;
                let y = own.forward(&x, input)?;
                Stream::joined(&x, (&y, &own.post_norm), self.scalar, &end, pass.tap)
            }
            _ => Stream::joined(&x, (&y, &self.post_feedforward_norm), self.scalar, &end, pass.tap),
        }
    }
}

/// Every layer's own embeddings of the tokens (transformers `project_per_layer_inputs`).
struct PerLayerEmbedding {
    table: Table,
    projection: Linear,
    norm: RmsNorm,
    width: usize,
    layers: usize,
    hidden_size: usize,
}

impl PerLayerEmbedding {
    fn load(config: &Gemma4Config, (width, rows): (usize, usize), weights: &mut Weights) -> Loaded<Self> {
        let (layers, hidden_size) = (config.layers.len(), config.hidden_size);
        let projection = "model.per_layer_model_projection.weight";
        Ok(Self {
            table: weights.table("model.embed_tokens_per_layer.weight", rows, layers * width)?,
            projection: Linear::load(weights, projection, layers * width, hidden_size)?,
            norm: RmsNorm::load(weights, "model.per_layer_projection_norm.weight", width, config.rms_norm_eps)?,
            width,
            layers,
            hidden_size,
        })
    }

    /// From the ids and the scaled embeddings `x` `[n, hidden]`: one `[n, width]` a layer.
    fn forward(&self, ids: &Tensor, x: &Tensor) -> Result<Vec<Tensor>> {
        let shape = (x.dim(0)?, self.layers, self.width);
        let token = self.table.rows_of(ids, x.dtype())?;
        let token = (token.reshape(shape)? * (self.width as f64).sqrt())?;
        let context = (self.projection.forward(x)? * (1.0 / (self.hidden_size as f64).sqrt()))?;
        let context = self.norm.forward(&context.reshape(shape)?)?;
        let all = (add(&context, &token)? * std::f64::consts::FRAC_1_SQRT_2)?; // [n, layers, width]
        (0..self.layers).map(|layer| all.narrow(1, layer, 1)?.squeeze(1)).collect()
    }
}

/// A Gemma 4 decoder.
pub(crate) struct Gemma4 {
    shell: Shell,
    /// The factor on embeddings: √hidden, as represented in the dtype of activations.
    scale: f64,
    per_layer: Option<PerLayerEmbedding>,
    sliding: Rope,
    full: Rope,
    layers: Vec<Layer>,
    softcap: Option<f32>,
}

impl Gemma4 {
    /// Reads the weights; `weights` must hold nothing else except parts that text does not use.
    pub(crate) fn load(config: &Gemma4Config, weights: &mut Weights) -> Loaded<Self> {
        let layers = (0..config.layers.len()).map(|i| Layer::load(config, i, weights)).collect::<Loaded<Vec<_>>>()?;
        let per_layer = match config.per_layer_input {
            Some(sizes) => Some(PerLayerEmbedding::load(config, sizes, weights)?),
            None => None,
        };
        let norm = RmsNorm::load(weights, "model.norm.weight", config.hidden_size, config.rms_norm_eps)?;
        let outline = Outline {
            architecture: "gemma4",
            layers: layers.iter().map(|layer| layer.spec(config)).collect(),
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            context: config.context,
            tied: config.tied,
        };
        // Checkpoints hold the projections that layers with shared keys would have, but these are unused.
        let shared = |name: &str| {
            let rest = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once(".self_attn."));
            rest.is_some_and(|(layer, part)| {
                layer.parse::<usize>().is_ok_and(|layer| layer >= config.first_shared)
                    && ["k_proj.weight", "v_proj.weight", "k_norm.weight"].contains(&part)
            })
        };
        let towers = ["vision_tower.", "audio_tower.", "embed_vision.", "embed_audio."];
        let unused = |name: &str| {
            let part = name.strip_prefix("model.").unwrap_or(name);
            shared(name) || towers.iter().any(|tower| part.starts_with(tower))
        };
        let shell = Shell::load(outline, norm, weights, unused)?;
        let (dtype, device) = (shell.activations(), shell.device().clone());
        let dim_of = |sliding: bool| config.layers.iter().find(|l| l.sliding == sliding).map_or(2, |l| l.head_dim);
        let full_dim = dim_of(false);
        Ok(Self {
            scale: rounded((config.hidden_size as f64).sqrt(), dtype),
            per_layer,
            sliding: Rope::new(config.sliding_theta, dim_of(true), dtype, &device)?,
            full: Rope::proportional(config.full_theta, full_dim, config.full_turning, dtype, &device)?,
            layers,
            softcap: config.softcap.map(|cap| cap as f32),
            shell,
        })
    }
}

/// A number rounded to a dtype.
fn rounded(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => half::bf16::from_f64(x).to_f64(),
        DType::F16 => half::f16::from_f64(x).to_f64(),
        _ => f64::from(x as f32),
    }
}

impl CausalLm for Gemma4 {
    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        self.shell.embed(ids)? * self.scale
    }

    fn output_projection(&self, layer: usize) -> &Matrix {
        self.layers[layer].attention.o_proj.weight()
    }

    fn run(
        &self,
        ids: &Tensor,
        from: Option<&Branch<'_>>,
        batch: &Batch,
        cache: &mut Cache,
        tap: &mut dyn Tap,
    ) -> Result<Tensor> {
        let positions = self.shell.begin(batch, from, cache, tap)?;
        let (sliding, full) = (self.sliding.at(&positions)?, self.full.at(&positions)?);
        let embedded = self.embed(ids)?; // [n, hidden]
        let inputs = self.per_layer.as_ref().map_or(Ok(Vec::new()), |own| own.forward(ids, &embedded))?;
        let mut pass = Pass { spans: cache.spans(batch), sliding, full, inputs, cache, tap };
        // The norm that reads the stream after a layer.
        let next = |layer: usize| self.layers.get(layer + 1).map_or(self.shell.norm(), |layer| &layer.input_norm);
        let (mut stream, above) = match from {
            None => (embedded.into(), 0),
            Some(b) => (self.layers[b.layer].after(b.residual, b.mixed, next(b.layer), &mut pass)?, b.layer + 1),
        };
        for layer in &self.layers[above..] {
            stream = layer.forward(stream, next(layer.index), &mut pass)?;
        }
        self.shell.finish(stream, pass.tap)
    }

    fn steps_stay_on_device(&self) -> bool {
        self.per_layer.as_ref().is_none_or(|own| own.table.is_on_device())
    }

    fn softcap(&self) -> Option<f32> {
        self.softcap
    }
}
