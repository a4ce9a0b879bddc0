//! A gated delta net between its convolution and its output projection.

use candle_core::{Result, Tensor, bail};

use crate::{
    HeadSteps, HeadsOf, Norm, Spans, StateSpan, delta_gates, delta_rule, gated_norm, gpu, heads, lambda,
    serving::{Serving, serving},
};

/// What a gated delta net makes its heads of (transformers `Qwen3_5GatedDeltaNet`, between `causal_conv1d` and `out_proj`).
///
/// The projections may be some columns of a wider tensor, and are read where they are. On the CPU all is f32; the kernels for CUDA
/// take the first four in bf16 and f16 too.
#[derive(Clone, Copy)]
pub struct DeltaNet<'a> {
    /// Queries, keys and values behind the convolution, `[n, 2 * key_heads * dk + heads * dv]`.
    pub qkv: &'a Tensor,
    /// Of how much is written, `[n, heads]`.
    pub b: &'a Tensor,
    /// Of how much is kept, `[n, heads]`.
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
    /// Heads of queries, and as many of keys.
    pub key_heads: usize,
}

/// The heads z that the output projection reads, `[n, heads, dv]`: [`delta_gates`], the norms of queries and keys, [`delta_rule`],
/// then [`gated_norm`], which has λ. One launch on a GPU where every sequence goes on by one token, with the same bits.
///
/// # Shapes
/// Those of [`DeltaNet`]; `state` `[slots, heads, dk, dv]` f32; `lambda` `[n, heads]` f32. z is 0 at tokens of no span.
///
/// **`state` is changed in place**, as by [`delta_rule`].
///
/// # Errors
/// As those operations, or if the columns of `qkv` are not those of the state. The state is then as it was.
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

/// The oracle of [`delta_net`]: its operations, one after the other.
///
/// # Errors
/// As [`delta_net`].
pub fn delta_net_in_steps(
    net: &DeltaNet<'_>,
    state: &Tensor,
    spans: &Spans<StateSpan>,
    lambda: Option<&Tensor>,
) -> Result<Tensor> {
    let Size { heads: _, dk, keys, values } = net.size(state, lambda)?;
    let (beta, g) = delta_gates(net.b, net.a, net.decay, net.bias)?; // [n, heads]
    let part = |from: usize, width: usize| net.qkv.narrow(1, from, width); // views
    let (q, k, v) = (part(0, keys)?, part(keys, keys)?, part(2 * keys, values)?);
    let view =
        |x, norm| HeadsOf { x, count: net.key_heads, dim: dk, steps: HeadSteps { norm: Some(norm), angles: None } };
    let [q, k] = heads([view(&q, net.q_norm), view(&k, net.k_norm)])?; // [n, key_heads, dk]
    let o = delta_rule(&q, &k, &v, &g, &beta, state, spans)?; // [n, heads, dv]
    gated_norm(&o, net.gate, net.norm.weight, net.norm.eps, lambda)
}

/// The sizes of a net whose parts fit each other.
pub(crate) struct Size {
    pub(crate) heads: usize,
    pub(crate) dk: usize,
    /// Columns of the queries, and as many of the keys.
    pub(crate) keys: usize,
    /// Columns of the values.
    pub(crate) values: usize,
}

impl DeltaNet<'_> {
    /// What each operation would refuse, before the first of them has changed the state.
    pub(crate) fn size(&self, state: &Tensor, lambda: Option<&Tensor>) -> Result<Size> {
        let ((n, columns), (_, heads, dk, dv)) = (self.qkv.dims2()?, state.dims4()?);
        let (keys, values) = (self.key_heads * dk, heads * dv);
        let fit = columns == 2 * keys + values
            && self.b.dims() == [n, heads]
            && self.a.dims() == [n, heads]
            && self.gate.dims() == [n, values]
            && [self.q_norm, self.k_norm].iter().all(|norm| norm.weight.dims() == [dk])
            && self.norm.weight.dims() == [dv];
        if !fit {
            let parts = [self.qkv, self.b, self.a, self.gate, self.q_norm.weight, self.k_norm.weight, self.norm.weight];
            let [qkv, b, a, gate, q, k, norm] = parts.map(Tensor::shape);
            bail!(
                "delta_net: qkv {qkv:?}, b {b:?}, a {a:?}, gate {gate:?} and norms {q:?}, {k:?} and {norm:?} do not fit a state {:?}",
                state.shape()
            );
        }
        if let Some(lambda) = lambda {
            lambda::check("delta_net", lambda, n, heads)?;
        }
        Ok(Size { heads, dk, keys, values })
    }
}
