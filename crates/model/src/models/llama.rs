//! Llama: SmolLM2 135M, 360M and 1.7B (transformers `modeling_llama.py`).
//!
//! Pre-norm blocks, grouped-query attention with rotary positions, SwiGLU, a tied or separate head, no biases.

use candle_core::{Result, Tensor};
use headtemper_hook::{Batch, Heads, LayerSpec, Site, Tap};
use headtemper_kernels::{AttentionSpan, Matrix, Spans, attend, silu_mul};

use crate::{
    Branch, Cache, CausalLm, LlamaConfig, Loaded, Weights,
    layers::{Angles, End, Linear, Mlp, Outline, RmsNorm, Rope, Shell, Stream, heads_of},
};

/// What every layer of a forward pass needs besides the residual stream.
struct Pass<'a> {
    spans: Spans<AttentionSpan>,
    angles: Angles,
    cache: &'a mut Cache,
    tap: &'a mut dyn Tap,
}

struct Attention {
    layer: usize,
    heads: Heads,
    qkv: Linear,
    o_proj: Linear,
    scale: f32,
}

impl Attention {
    fn load(config: &LlamaConfig, layer: usize, weights: &mut Weights) -> Loaded<Self> {
        let heads = Heads { count: config.heads, kv: config.kv_heads, dim: config.head_dim };
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}.weight");
        let (q, kv) = (heads.width(), heads.kv_width());
        let parts = [(name("q_proj"), q), (name("k_proj"), kv), (name("v_proj"), kv)];
        Ok(Self {
            layer,
            heads,
            qkv: Linear::fused(weights, &parts, config.hidden_size)?,
            o_proj: Linear::load(weights, &name("o_proj"), config.hidden_size, q)?,
            scale: 1.0 / (heads.dim as f32).sqrt(),
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let Heads { count, kv, dim } = self.heads;
        let qkv = self.qkv.forward(x)?; // [n, (count + 2 kv) * dim]
        let q = heads_of(&qkv, 0, count, dim)?.turned(&pass.angles); // [n, count, dim]
        let k = heads_of(&qkv, count * dim, kv, dim)?.turned(&pass.angles); // [n, kv, dim]
        let v = heads_of(&qkv, (count + kv) * dim, kv, dim)?;
        let q = pass.cache.append(self.layer, [&q, &k, &v], &pass.spans)?;
        let (keys, values) = pass.cache.keys_values(self.layer)?;
        let z = pass.tap.heads(Site::Z(self.layer), |lambda| {
            attend(&q, keys, values, &pass.spans, self.scale, None, lambda) // [n, count, dim]
        })?;
        self.o_proj.forward(&z.flatten_from(1)?)
    }
}

struct Layer {
    index: usize,
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    mlp: Mlp,
}

impl Layer {
    fn load(config: &LlamaConfig, index: usize, weights: &mut Weights) -> Loaded<Self> {
        let mut norm = |part: &str| {
            let name = format!("model.layers.{index}.{part}.weight");
            RmsNorm::load(weights, &name, config.hidden_size, config.rms_norm_eps)
        };
        Ok(Self {
            index,
            input_norm: norm("input_layernorm")?,
            post_attention_norm: norm("post_attention_layernorm")?,
            attention: Attention::load(config, index, weights)?,
            mlp: Mlp::load(weights, index, (config.hidden_size, config.intermediate_size), silu_mul)?,
        })
    }

    fn forward(&self, stream: Stream, next: &RmsNorm, pass: &mut Pass<'_>) -> Result<Stream> {
        let (x, normed) = stream.read(&self.input_norm)?;
        let mixed = self.attention.forward(&normed, pass)?;
        self.after(&x, &mixed, next, pass)
    }

    /// What follows the token mixer.
    fn after(&self, x: &Tensor, mixed: &Tensor, next: &RmsNorm, pass: &mut Pass<'_>) -> Result<Stream> {
        let (x, normed) = self.post_attention_norm.forward_sum(x, mixed)?;
        let end = End { site: Site::ResidPost(self.index), next };
        Stream::behind(&self.mlp, &normed, &x, &end, pass.tap)
    }
}

/// A Llama decoder.
pub(crate) struct Llama {
    shell: Shell,
    rope: Rope,
    layers: Vec<Layer>,
}

impl Llama {
    /// Reads the weights; `weights` must hold nothing else.
    pub(crate) fn load(config: &LlamaConfig, weights: &mut Weights) -> Loaded<Self> {
        let layers = (0..config.layers).map(|i| Layer::load(config, i, weights)).collect::<Loaded<Vec<_>>>()?;
        let norm = RmsNorm::load(weights, "model.norm.weight", config.hidden_size, config.rms_norm_eps)?;
        let outline = Outline {
            architecture: "llama",
            layers: layers.iter().map(|layer| LayerSpec::full(layer.attention.heads)).collect(),
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            context: config.context,
            tied: config.tied,
        };
        let shell = Shell::load(outline, norm, weights, |_| false)?;
        let rope = Rope::new(config.rope_theta, config.head_dim, shell.activations(), shell.device())?;
        Ok(Self { shell, rope, layers })
    }
}

impl CausalLm for Llama {
    fn shell(&self) -> &Shell {
        &self.shell
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
        let mut pass = Pass { spans: cache.spans(batch), angles: self.rope.at(&positions)?, cache, tap };
        // The norm that reads the stream after a layer.
        let next = |layer: usize| self.layers.get(layer + 1).map_or(self.shell.norm(), |layer| &layer.input_norm);
        let (mut stream, above) = match from {
            None => (self.embed(ids)?.into(), 0), // [n, hidden]
            Some(b) => (self.layers[b.layer].after(b.residual, b.mixed, next(b.layer), &mut pass)?, b.layer + 1),
        };
        for layer in &self.layers[above..] {
            stream = layer.forward(stream, next(layer.index), &mut pass)?;
        }
        self.shell.finish(stream, pass.tap)
    }
}
