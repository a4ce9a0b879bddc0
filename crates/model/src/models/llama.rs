//! Llama: SmolLM2 135M, 360M and 1.7B (transformers `modeling_llama.py`).
//!
//! Pre-norm blocks, grouped-query attention with rotary positions, SwiGLU, a tied or separate head, no biases.

use candle_core::{DType, Device, Result, Tensor};
use headtemper_hook::{Batch, Heads, ModelSpec, Site, Tap};
use headtemper_kernels::{AttentionSpan, attend, silu_mul};

use crate::{
    Cache, CausalLm, LlamaConfig, Loaded, Weights,
    layers::{Linear, RmsNorm, Rope},
};

/// What every layer of one forward pass needs beside the residual stream.
struct Pass<'a> {
    spans: Vec<AttentionSpan>,
    rope: Rope,
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
        let (q, kv) = (heads.count * heads.dim, heads.kv * heads.dim);
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
        let n = x.dim(0)?;
        let qkv = self.qkv.forward(x)?; // [n, (count + 2 kv) * dim]
        let part =
            |from: usize, heads: usize| qkv.narrow(1, from * dim, heads * dim)?.contiguous()?.reshape((n, heads, dim));
        let q = pass.rope.apply(&part(0, count)?)?; // [n, count, dim]
        let k = pass.rope.apply(&part(count, kv)?)?; // [n, kv, dim]
        let v = part(count + kv, kv)?;
        let (keys, values) = pass.cache.append(self.layer, &k, &v, &pass.spans)?;
        let z = attend(&q, keys, values, &pass.spans, self.scale)?; // [n, count, dim]
        let z = pass.tap.visit(Site::Z(self.layer), z)?;
        self.o_proj.forward(&z.flatten_from(1)?)
    }
}

struct Mlp {
    gate_up: Linear,
    down: Linear,
}

impl Mlp {
    fn load(config: &LlamaConfig, layer: usize, weights: &mut Weights) -> Loaded<Self> {
        let name = |part: &str| format!("model.layers.{layer}.mlp.{part}.weight");
        let (width, hidden) = (config.intermediate_size, config.hidden_size);
        Ok(Self {
            gate_up: Linear::fused(weights, &[(name("gate_proj"), width), (name("up_proj"), width)], hidden)?,
            down: Linear::load(weights, &name("down_proj"), hidden, width)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&silu_mul(&self.gate_up.forward(x)?)?)
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
            mlp: Mlp::load(config, index, weights)?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let x = (x + self.attention.forward(&self.input_norm.forward(x)?, pass)?)?;
        let x = (&x + self.mlp.forward(&self.post_attention_norm.forward(&x)?)?)?;
        pass.tap.visit(Site::ResidPost(self.index), x)
    }
}

/// A Llama decoder.
pub(crate) struct Llama {
    spec: ModelSpec,
    embedding: Tensor,
    rope: Rope,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    activations: DType,
}

impl Llama {
    /// Reads the weights; `weights` must hold nothing else.
    pub(crate) fn load(config: &LlamaConfig, weights: &mut Weights) -> Loaded<Self> {
        let hidden = config.hidden_size;
        let embedding = weights.matrix("model.embed_tokens.weight", config.vocab_size, hidden)?;
        let layers = (0..config.layers).map(|i| Layer::load(config, i, weights)).collect::<Loaded<Vec<_>>>()?;
        let norm = RmsNorm::load(weights, "model.norm.weight", hidden, config.rms_norm_eps)?;
        let head = if config.tied {
            Linear::of(embedding.clone())
        } else {
            Linear::load(weights, "lm_head.weight", config.vocab_size, hidden)?
        };
        // A tied checkpoint may carry a copy of its head, an old one the rotary frequencies.
        let unused = |name: &str| (config.tied && name == "lm_head.weight") || name.ends_with("rotary_emb.inv_freq");
        let parameters = weights.finish(unused)?;
        let activations = weights.activations();
        let heads = Heads { count: config.heads, kv: config.kv_heads, dim: config.head_dim };
        let rope = Rope::new(config.rope_theta, config.head_dim, config.context, activations, weights.device())?;
        let spec = ModelSpec {
            architecture: "llama".into(),
            layers: vec![Some(heads); config.layers],
            d_model: hidden,
            vocab: config.vocab_size,
            context: config.context,
            parameters,
        };
        Ok(Self { spec, embedding, rope, layers, norm, head, activations })
    }
}

impl CausalLm for Llama {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn dtype(&self) -> DType {
        self.embedding.dtype()
    }

    fn device(&self) -> &Device {
        self.embedding.device()
    }

    fn new_cache(&self, slots: usize, capacity: usize) -> Result<Cache> {
        Cache::new(&self.spec, slots, capacity, self.activations, self.device())
    }

    fn forward(&self, ids: &Tensor, batch: &Batch, cache: &mut Cache, tap: &mut dyn Tap) -> Result<Tensor> {
        cache.begin(batch)?;
        tap.begin(batch)?;
        let positions = Tensor::from_vec(batch.positions(), batch.tokens(), self.device())?;
        let mut pass = Pass { spans: cache.spans(batch), rope: self.rope.at(&positions)?, cache, tap };
        let mut x = self.embedding.index_select(ids, 0)?.to_dtype(self.activations)?; // [n, hidden]
        for layer in &self.layers {
            x = layer.forward(&x, &mut pass)?;
        }
        pass.tap.visit(Site::FinalNorm, self.norm.forward(&x)?)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.forward(hidden)?.to_dtype(DType::F32)
    }
}
