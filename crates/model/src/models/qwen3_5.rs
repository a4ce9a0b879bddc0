//! Qwen3.5 dense: 0.8B, 2B, 4B and 9B (transformers `modeling_qwen3_5.py`).
//!
//! Three gated delta nets, then one gated full attention, and so on. Norms hold their difference from 1, except for the one
//! inside a delta net. A quarter of each attention head is rotated by position; attention's output passes a sigmoid gate. Text only:
//! the three rows of multimodal positions are equal for text, which leaves ordinary positions.

use candle_core::{D, Result, Tensor};
use headtemper_hook::{Batch, Heads, LayerSpec, Mixer, Site, Tap};
use headtemper_kernels::{
    AttentionSpan, DeltaNet, Matrix, Norm, Spans, StateSpan, attend, causal_conv, delta_net, sigmoid_gate, silu_mul,
};

use crate::{
    Branch, Cache, CausalLm, Loaded, Qwen35Config, Weights,
    layers::{Angles, End, HeadView, Linear, Mlp, Outline, RmsNorm, Rope, Shell, Stream, heads_of},
};

/// What every layer of a forward pass needs besides the residual stream.
struct Pass<'a> {
    spans: Spans<AttentionSpan>,
    states: Spans<StateSpan>,
    angles: Angles,
    cache: &'a mut Cache,
    tap: &'a mut dyn Tap,
}

/// Gated full attention (transformers `Qwen3_5Attention`).
struct Attention {
    layer: usize,
    heads: Heads,
    qkv: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    o_proj: Linear,
    scale: f32,
}

impl Attention {
    fn load(config: &Qwen35Config, layer: usize, weights: &mut Weights) -> Loaded<Self> {
        let heads = Heads { count: config.heads, kv: config.kv_heads, dim: config.head_dim };
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}.weight");
        let (q, kv) = (heads.width(), heads.kv_width());
        let parts = [(name("q_proj"), 2 * q), (name("k_proj"), kv), (name("v_proj"), kv)];
        Ok(Self {
            layer,
            heads,
            qkv: Linear::fused(weights, &parts, config.hidden_size)?,
            q_norm: RmsNorm::load_from_one(weights, &name("q_norm"), heads.dim, config.rms_norm_eps)?,
            k_norm: RmsNorm::load_from_one(weights, &name("k_norm"), heads.dim, config.rms_norm_eps)?,
            o_proj: Linear::load(weights, &name("o_proj"), config.hidden_size, q)?,
            scale: 1.0 / (heads.dim as f32).sqrt(),
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let Heads { count, kv, dim } = self.heads;
        let qkv = self.qkv.forward(x)?; // [n, (2 count + 2 kv) * dim]
        // In each head, the query is followed by its gate; keys and values pair up into heads of the same double width.
        let q_gate = qkv.reshape((x.dim(0)?, count + kv, 2 * dim))?.narrow(1, 0, count)?;
        let (q, gate) = (q_gate.narrow(D::Minus1, 0, dim)?, q_gate.narrow(D::Minus1, dim, dim)?); // views
        let q = HeadView::of(q)?.normed(&self.q_norm).turned(&pass.angles); // [n, count, dim]
        let k = heads_of(&qkv, 2 * count * dim, kv, dim)?.normed(&self.k_norm).turned(&pass.angles); // [n, kv, dim]
        let v = heads_of(&qkv, (2 * count + kv) * dim, kv, dim)?;
        let q = pass.cache.append(self.layer, [&q, &k, &v], &pass.spans)?;
        let (keys, values) = pass.cache.keys_values(self.layer)?;
        let z = pass.tap.heads(Site::Z(self.layer), |lambda| {
            let z = attend(&q, keys, values, &pass.spans, self.scale, None, lambda)?;
            sigmoid_gate(&z, &gate) // [n, count, dim]
        })?;
        self.o_proj.forward(&z.flatten_from(1)?)
    }
}

/// A gated delta net (transformers `Qwen3_5GatedDeltaNet`; arXiv 2412.06464).
struct GatedDeltaNet {
    layer: usize,
    /// Value heads, key heads, width of a value head.
    heads: Heads,
    key_dim: usize,
    /// queries | keys | values | gate z | b | a
    in_proj: Linear,
    conv: Tensor,
    /// `-exp(A_log)`, `[count]` f32.
    decay: Tensor,
    dt_bias: Tensor,
    /// Normalises to unit length, and scales by 1 / √key_dim.
    q_norm: RmsNorm,
    /// Normalises to unit length.
    k_norm: RmsNorm,
    /// The weight of the norm over each head, `[dim]` f32.
    norm: Tensor,
    eps: f32,
    out_proj: Linear,
}

impl GatedDeltaNet {
    fn load(config: &Qwen35Config, layer: usize, weights: &mut Weights) -> Loaded<Self> {
        let heads = Heads { count: config.value_heads, kv: config.key_heads, dim: config.value_dim };
        let key_dim = config.key_dim;
        let name = |part: &str| format!("model.layers.{layer}.linear_attn.{part}");
        let channels = 2 * heads.kv * key_dim + heads.width();
        let parts = [
            (name("in_proj_qkv.weight"), channels),
            (name("in_proj_z.weight"), heads.width()),
            (name("in_proj_b.weight"), heads.count),
            (name("in_proj_a.weight"), heads.count),
        ];
        Ok(Self {
            layer,
            heads,
            key_dim,
            in_proj: Linear::fused(weights, &parts, config.hidden_size)?,
            conv: weights.taps(&name("conv1d.weight"), channels, config.kernel)?,
            decay: weights.vector_f32(&name("A_log"), heads.count, 0.0)?.exp()?.neg()?,
            dt_bias: weights.vector_f32(&name("dt_bias"), heads.count, 1.0)?,
            q_norm: RmsNorm::l2(weights, key_dim, 1.0 / (key_dim as f64).sqrt())?,
            k_norm: RmsNorm::l2(weights, key_dim, 1.0)?,
            norm: weights.vector_f32(&name("norm.weight"), heads.dim, 1.0)?,
            eps: config.rms_norm_eps as f32,
            out_proj: Linear::load(weights, &name("out_proj.weight"), config.hidden_size, heads.width())?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let Heads { count, kv, .. } = self.heads;
        let (key_width, width) = (kv * self.key_dim, self.heads.width());
        let channels = 2 * key_width + width;
        let all = self.in_proj.forward(x)?;
        let part = |from: usize, features: usize| all.narrow(1, from, features); // views
        let (qkv, gate) = (part(0, channels)?, part(channels, width)?);
        let (b, a) = (part(channels + width, count)?, part(channels + width + count, count)?);
        let (conv, state) = pass.cache.delta(self.layer)?;
        let qkv = causal_conv(&qkv, &self.conv, conv, &pass.states)?; // [n, channels]
        let net = DeltaNet {
            qkv: &qkv,
            b: &b,
            a: &a,
            gate: &gate,
            decay: &self.decay,
            bias: &self.dt_bias,
            q_norm: self.q_norm.borrowed(),
            k_norm: self.k_norm.borrowed(),
            norm: Norm { weight: &self.norm, eps: self.eps },
            key_heads: kv,
        };
        let z = pass.tap.heads(Site::LinearZ(self.layer), |lambda| {
            delta_net(&net, state, &pass.states, lambda) // [n, count, dim]
        })?;
        self.out_proj.forward(&z.flatten_from(1)?)
    }
}

/// The token mixer of a layer.
enum Mix {
    Attention(Attention),
    DeltaNet(GatedDeltaNet),
}

struct Layer {
    index: usize,
    input_norm: RmsNorm,
    mix: Mix,
    post_attention_norm: RmsNorm,
    mlp: Mlp,
}

impl Layer {
    fn load(config: &Qwen35Config, index: usize, weights: &mut Weights) -> Loaded<Self> {
        let mut norm = |part: &str| {
            let name = format!("model.layers.{index}.{part}.weight");
            RmsNorm::load_from_one(weights, &name, config.hidden_size, config.rms_norm_eps)
        };
        Ok(Self {
            index,
            input_norm: norm("input_layernorm")?,
            post_attention_norm: norm("post_attention_layernorm")?,
            mix: if config.full[index] {
                Mix::Attention(Attention::load(config, index, weights)?)
            } else {
                Mix::DeltaNet(GatedDeltaNet::load(config, index, weights)?)
            },
            mlp: Mlp::load(weights, index, (config.hidden_size, config.intermediate_size), silu_mul)?,
        })
    }

    fn spec(&self, config: &Qwen35Config) -> LayerSpec {
        match &self.mix {
            Mix::Attention(attention) => LayerSpec::full(attention.heads),
            Mix::DeltaNet(net) => {
                let mixer = Mixer::Delta { key_dim: net.key_dim, kernel: config.kernel };
                LayerSpec { mixer, heads: net.heads, keys_of: None }
            }
        }
    }

    fn forward(&self, stream: Stream, next: &RmsNorm, pass: &mut Pass<'_>) -> Result<Stream> {
        let (x, normed) = stream.read(&self.input_norm)?;
        let mixed = match &self.mix {
            Mix::Attention(attention) => attention.forward(&normed, pass)?,
            Mix::DeltaNet(net) => net.forward(&normed, pass)?,
        };
        self.after(&x, &mixed, next, pass)
    }

    /// What follows the token mixer.
    fn after(&self, x: &Tensor, mixed: &Tensor, next: &RmsNorm, pass: &mut Pass<'_>) -> Result<Stream> {
        let (x, normed) = self.post_attention_norm.forward_sum(x, mixed)?;
        let end = End { site: Site::ResidPost(self.index), next };
        Stream::behind(&self.mlp, &normed, &x, &end, pass.tap)
    }
}

/// A Qwen3.5 decoder.
pub(crate) struct Qwen35 {
    shell: Shell,
    rope: Rope,
    layers: Vec<Layer>,
}

impl Qwen35 {
    /// Reads the weights; `weights` must hold nothing else except parts that text does not use.
    pub(crate) fn load(config: &Qwen35Config, weights: &mut Weights) -> Loaded<Self> {
        let layers = (0..config.full.len()).map(|i| Layer::load(config, i, weights)).collect::<Loaded<Vec<_>>>()?;
        let norm = RmsNorm::load_from_one(weights, "model.norm.weight", config.hidden_size, config.rms_norm_eps)?;
        let outline = Outline {
            architecture: "qwen3_5",
            layers: layers.iter().map(|layer| layer.spec(config)).collect(),
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            context: config.context,
            tied: config.tied,
        };
        // The vision tower, and the multi-token prediction block.
        let other = |name: &str| ["model.visual.", "visual.", "mtp."].iter().any(|part| name.starts_with(part));
        let shell = Shell::load(outline, norm, weights, other)?;
        let rope = Rope::new(config.rope_theta, config.rotary_dim, shell.activations(), shell.device())?;
        Ok(Self { shell, rope, layers })
    }
}

impl CausalLm for Qwen35 {
    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn output_projection(&self, layer: usize) -> &Matrix {
        match &self.layers[layer].mix {
            Mix::Attention(attention) => attention.o_proj.weight(),
            Mix::DeltaNet(net) => net.out_proj.weight(),
        }
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
        let (spans, states) = (cache.spans(batch), Cache::state_spans(batch));
        let mut pass = Pass { spans, states, angles: self.rope.at(&positions)?, cache, tap };
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
