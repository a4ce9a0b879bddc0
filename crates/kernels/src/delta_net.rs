//! A gated delta net between its convolution and its output projection.

use candle_core::{DType, Result, Tensor, bail};

use crate::{
    HeadSteps, HeadsOf, Norm, Spans, StateSpan, delta_gates, delta_rule, gated_norm, gpu, heads, lambda,
    place::Place,
    serving::{Serving, serving},
    state::check_apart,
};

/// The inputs of a gated delta net (transformers `Qwen3_5GatedDeltaNet`, between `causal_conv1d` and `out_proj`).
///
/// The projections may be column ranges of a wider tensor, read in place. On the CPU everything is f32; the CUDA kernels
/// also take the first four in bf16 and f16.
#[derive(Clone, Copy)]
pub struct DeltaNet<'a> {
    /// Queries, keys and values after the convolution, `[n, 2 * key_heads * dk + heads * dv]`.
    pub qkv: &'a Tensor,
    /// Input of the write gate (beta), `[n, heads]`.
    pub b: &'a Tensor,
    /// Input of the decay gate, `[n, heads]`.
    pub a: &'a Tensor,
    /// The output gate, `[n, heads * dv]`.
    pub gate: &'a Tensor,
    /// `-exp(A_log)`, `[heads]` f32.
    pub decay: &'a Tensor,
    /// `dt_bias`, `[heads]` f32.
    pub bias: &'a Tensor,
    /// The norm of a query, `[dk]`.
    pub q_norm: Norm<'a>,
    /// The norm of a key, `[dk]`.
    pub k_norm: Norm<'a>,
    /// The norm of a head, `[dv]` f32.
    pub norm: Norm<'a>,
    /// Query heads; there are as many key heads.
    pub key_heads: usize,
}

/// The heads z that the output projection reads, `[n, heads, dv]`: [`delta_gates`], the norms of queries and keys, [`delta_rule`],
/// then [`gated_norm`], which applies λ. One launch on a GPU if every sequence advances by one token, with the same bits.
///
/// # Shapes
/// Those of [`DeltaNet`]; `state` `[slots, heads, dk, dv]` f32; `lambda` `[n, heads]` f32. z is 0 at tokens of no span.
///
/// **`state` is changed in place**, as by [`delta_rule`].
///
/// # Errors
/// Those of the operations above, and if types, shapes or devices do not fit each other. The state is then unchanged.
pub fn delta_net(
    net: &DeltaNet<'_>,
    state: &Tensor,
    spans: &Spans<StateSpan>,
    lambda: Option<&Tensor>,
) -> Result<Tensor> {
    if serving(net.qkv.device()) == Serving::Gpu
        && let Some(z) = gpu::delta_step(net, state, spans, lambda)?
    {
        return Ok(z);
    }
    delta_net_in_steps(net, state, spans, lambda)
}

/// The oracle of [`delta_net`]: its operations, one after another.
///
/// # Errors
/// As [`delta_net`].
pub fn delta_net_in_steps(
    net: &DeltaNet<'_>,
    state: &Tensor,
    spans: &Spans<StateSpan>,
    lambda: Option<&Tensor>,
) -> Result<Tensor> {
    let Size { dk, keys, values, .. } = net.size(state, lambda)?;
    let (beta, g) = delta_gates(net.b, net.a, net.decay, net.bias)?; // [n, heads]
    let part = |from: usize, width: usize| net.qkv.narrow(1, from, width); // views
    let (q, k, v) = (part(0, keys)?, part(keys, keys)?, part(2 * keys, values)?);
    let view =
        |x, norm| HeadsOf { x, count: net.key_heads, dim: dk, steps: HeadSteps { norm: Some(norm), angles: None } };
    let [q, k] = heads([view(&q, net.q_norm), view(&k, net.k_norm)])?; // [n, key_heads, dk]
    let o = delta_rule(&q, &k, &v, &g, &beta, state, spans)?; // [n, heads, dv]
    gated_norm(&o, net.gate, net.norm.weight, net.norm.eps, lambda)
}

/// The sizes of a net whose parts were checked to fit each other.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) heads: usize,
    pub(crate) dk: usize,
    /// Columns of the queries; the keys have as many.
    pub(crate) keys: usize,
    /// Columns of the values.
    pub(crate) values: usize,
}

impl DeltaNet<'_> {
    /// Refuses whatever any of the operations would refuse, except for spans, before the first of them changes the state.
    pub(crate) fn size(&self, state: &Tensor, lambda: Option<&Tensor>) -> Result<Size> {
        let ((n, columns), (_, heads, dk, dv)) = (self.qkv.dims2()?, state.dims4()?);
        let (keys, values) = (self.key_heads * dk, heads * dv);
        let held = [self.qkv, self.b, self.a, self.gate, self.q_norm.weight, self.k_norm.weight];
        let exact = [state, self.decay, self.bias, self.norm.weight];
        let fit = columns == 2 * keys + values
            && self.key_heads > 0
            && heads % self.key_heads == 0
            && [self.b, self.a].iter().all(|t| t.dims() == [n, heads])
            && self.gate.dims() == [n, values]
            && [self.q_norm, self.k_norm].iter().all(|norm| norm.weight.dims() == [dk])
            && [self.decay, self.bias].iter().all(|t| t.dims() == [heads])
            && self.norm.weight.dims() == [dv];
        if !fit {
            let shapes = [&held[..], &exact[1..]].concat().into_iter().map(Tensor::shape).collect::<Vec<_>>();
            bail!(
                "delta_net: qkv, b, a, gate, the norms of q and k, decay, bias and norm {shapes:?} do not fit {} key heads and a state {:?}",
                self.key_heads,
                state.shape()
            );
        }
        let device = self.qkv.device();
        let like = |tensors: &[&Tensor], dtype: DType| {
            tensors.iter().all(|t| t.dtype() == dtype && t.device().same_device(device))
        };
        if !like(&held, self.qkv.dtype())
            || !like(&exact, DType::F32)
            || lambda.is_some_and(|l| !like(&[l], DType::F32))
        {
            let types = [&held[..], &exact[1..]].concat().into_iter().map(Tensor::dtype).collect::<Vec<_>>();
            bail!(
                "delta_net: qkv, b, a, gate and the norms of q and k are of one type, decay, bias, norm, λ and the state f32, all on one device, not {types:?}"
            );
        }
        for (t, width) in [(self.qkv, columns), (self.b, heads), (self.a, heads), (self.gate, values)] {
            Place::of("delta_net", t.layout(), (n, 1, width))?;
        }
        for t in [self.q_norm.weight, self.k_norm.weight, self.decay, self.bias, self.norm.weight] {
            if !t.is_contiguous() {
                bail!("delta_net: norms, decay and bias must be contiguous, {:?} is not", t.layout());
            }
        }
        check_apart("delta_net", state, &[&held[..], &exact[1..]].concat())?;
        if let Some(lambda) = lambda {
            lambda::check("delta_net", lambda, n, heads)?;
            check_apart("delta_net", state, &[lambda])?;
        }
        Ok(Size { heads, dk, keys, values })
    }
}
