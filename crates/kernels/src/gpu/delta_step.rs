//! A delta net's step of one token per sequence, in one launch.

use candle_core::{Error, Result, Tensor};

use super::{Grid, Held, Kernel, address, address_of, form, kernel, launch, room, wide};
use crate::{
    DeltaNet, Spans, StateSpan,
    delta_net::Size,
    place::Place,
    state::{check_spans, check_state},
};

const NAME: &str = "delta_net";

/// The kernels: the longest keys that each can hold, and the columns of the state per warp.
const STEP: [(usize, usize, Kernel); 3] = [
    (32, 64, kernel!(DELTA_STEP, "delta_step_32")),
    (128, 16, kernel!(DELTA_STEP, "delta_step_128")),
    (256, 8, kernel!(DELTA_STEP, "delta_step_256")),
];

/// Warps per block; a block has all columns of a head.
const MOST_WARPS: usize = 8;
/// Bytes of a warp's share of the state, the same in all kernels.
const TILE: usize = 8 << 10;

/// `DeltaStepArgs` of `cuda/delta_step.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    qkv: u64,
    b: u64,
    a: u64,
    gate: u64,
    q_weight: u64,
    k_weight: u64,
    decay: u64,
    bias: u64,
    weight: u64,
    lambda: u64,
    state: u64,
    spans: u64,
    out: u64,
    token: i64,
    b_token: i64,
    a_token: i64,
    gate_token: i64,
    span_count: i32,
    key_heads: i32,
    heads: i32,
    dk: i32,
    dv: i32,
    wide: i32,
    q_eps: f32,
    k_eps: f32,
    eps: f32,
}

/// [`delta_net`](crate::delta_net) if no sequence has more than one token; `None` if one has, or if the heads are wider than a
/// block can hold.
pub(crate) fn delta_step(
    net: &DeltaNet<'_>,
    state: &Tensor,
    spans: &Spans<StateSpan>,
    lambda: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let Size { heads, dk, values, .. } = net.size(state, lambda)?;
    let (n, dv, slots) = (net.qkv.dim(0)?, state.dim(3)?, state.dim(0)?);
    let fitting = STEP.iter().find(|(most, columns, _)| dk <= *most && dv.div_ceil(*columns) <= MOST_WARPS);
    let Some((most, columns, kernel)) = fitting.filter(|_| spans.iter().all(|span| span.len <= 1)) else {
        return Ok(None);
    };
    check_state(NAME, state)?;
    check_spans(NAME, spans, n, slots)?;
    let out = room(&[n, heads, dv], net.qkv)?;
    if out.elem_count() == 0 {
        return Ok(Some(out));
    }
    let token = |t: &Tensor, width| Ok::<_, Error>(Place::of(NAME, t.layout(), (n, 1, width))?.strides().0);
    let (qkv_token, gate_token) = (token(net.qkv, net.qkv.dim(1)?)?, token(net.gate, values)?);
    let table = if spans.is_empty() { None } else { Some(spans.table(net.qkv.device())?) };
    let [qkv_at, b_at, a_at, gate_at] = [net.qkv, net.b, net.a, net.gate].map(|t| Held::of(t).address());
    let (qkv_at, gate_at) = (qkv_at?, gate_at?);
    let (state_at, weight_at, out_at) = (address(NAME, state)?, address(NAME, net.norm.weight)?, address(NAME, &out)?);
    let size = net.qkv.dtype().size_in_bytes();
    let places = [(qkv_at, size), (gate_at, size), (out_at, size), (state_at, 4), (weight_at, 4)];
    let args = Args {
        qkv: qkv_at,
        b: b_at?,
        a: a_at?,
        gate: gate_at,
        q_weight: address(NAME, net.q_norm.weight)?,
        k_weight: address(NAME, net.k_norm.weight)?,
        decay: address(NAME, net.decay)?,
        bias: address(NAME, net.bias)?,
        weight: weight_at,
        lambda: address_of(NAME, lambda)?,
        state: state_at,
        spans: address_of(NAME, table)?,
        out: out_at,
        token: qkv_token as i64,
        b_token: token(net.b, heads)? as i64,
        a_token: token(net.a, heads)? as i64,
        gate_token: gate_token as i64,
        span_count: spans.len() as i32,
        key_heads: net.key_heads as i32,
        heads: heads as i32,
        dk: dk as i32,
        dv: dv as i32,
        wide: wide(&places, &[dk, dv, qkv_token, gate_token]).into(),
        q_eps: net.q_norm.eps,
        k_eps: net.k_norm.eps,
        eps: net.norm.eps,
    };
    let warps = dv.div_ceil(*columns);
    // The state, the key and the query, and the output of the rule.
    let shared = warps * TILE + 2 * most * 4 + dv * size;
    let grid = Grid::row(n * heads, 32 * warps as u32).shared(shared);
    // SAFETY: `Args` is the kernel's struct; spans were checked to have their own tokens and slots inside the tensors, and
    // each block has one head of one of them.
    unsafe { launch(net.qkv.device(), kernel, form(NAME, net.qkv.dtype())?, grid, &args)? };
    Ok(Some(out))
}
