//! The gated delta rule on the GPU.

use candle_core::{DType, Result, Tensor, bail};

use super::{Grid, Held, Kernel, address, address_of, alike, form, kernel, launch, packed, room, wide};
use crate::{
    Spans, StateSpan,
    delta::{Size, delta_rule_reference},
    state::check_apart,
};

const NAME: &str = "delta_rule";

/// The kernels: the longest keys that each can hold, and the columns of the state per warp.
const DELTA: [(usize, usize, Kernel); 3] = [
    (32, 64, kernel!(DELTA, "delta_32")),
    (128, 16, kernel!(DELTA, "delta_128")),
    (256, 8, kernel!(DELTA, "delta_256")),
];

/// Warps per block if there are many; they do not wait for each other.
const WARPS: usize = 4;
/// Up to this many warps get a block each: they then spread over all multiprocessors, and a single sequence finishes sooner.
const FEW: usize = 512;

/// `DeltaArgs` of `cuda/delta.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    q: u64,
    k: u64,
    v: u64,
    g: u64,
    beta: u64,
    state: u64,
    spans: u64,
    out: u64,
    token: i64,
    head: i64,
    n: i32,
    span_count: i32,
    key_heads: i32,
    heads: i32,
    dk: i32,
    dv: i32,
    wide: i32,
    chunked: i32,
}

/// The chunked form, by type; there is none for f32.
const CHUNKED: Kernel = kernel!(DELTA_CHUNK, "delta_chunk");

/// `CHUNK_KEY` and `CHUNK_COLUMNS` of `cuda/delta_chunk.cu`.
const CHUNK_KEY: usize = 128;
const CHUNK_COLUMNS: usize = 64;
/// The size of `ChunkRoom`.
const CHUNK_ROOM: usize = 86_528;
/// Tokens from which a span goes in chunks. A chunk is estimated, not measured, to take as long as 16 tokens one after another,
/// however many it has.
const CHUNKED_FROM: usize = 32;

/// [`delta_rule`](crate::delta_rule) of q, k, v, g and beta. Keys of more than 256 values go to the reference. Long spans of bf16
/// and f16 go in chunks if keys have 128 values, as in all known models; the others go token by token.
pub(crate) fn delta_rule(inputs: [&Tensor; 5], state: &Tensor, spans: &Spans<StateSpan>) -> Result<Tensor> {
    let Size { n, key_heads, value_heads, dk, dv, values } = Size::of(inputs, state, spans)?;
    let [q, k, v, g, beta] = inputs;
    alike(NAME, &[q, k, v])?;
    if [g, beta, state].iter().any(|t| t.dtype() != DType::F32 || !t.device().same_device(q.device())) {
        bail!("{NAME}: g, beta and the state are f32, where q, k and v are");
    }
    check_apart(NAME, state, &inputs)?;
    let Some((most, columns, kernel)) = DELTA.iter().find(|(most, ..)| dk <= *most) else {
        let [q, k, v] = [q, k, v].map(|t| t.to_dtype(DType::F32));
        return delta_rule_reference(&q?, &k?, &v?, g, beta, state, spans.still("delta_rule")?)?
            .to_dtype(inputs[0].dtype());
    };
    let out = room(&[n, value_heads, dv], q)?;
    if out.elem_count() == 0 {
        return Ok(out);
    }
    let [q, k, g, beta] = [q, k, g, beta].map(Tensor::contiguous);
    let (q, k, g, beta) = (q?, k?, g?, beta?);
    let table = if spans.is_empty() { None } else { Some(spans.table(q.device())?) };
    let ((token, head), size) = (values.strides(), q.dtype().size_in_bytes());
    let (q_at, k_at, v_at) = (address(NAME, &q)?, address(NAME, &k)?, Held::of(v).address()?);
    let (state_at, out_at) = (address(NAME, state)?, address(NAME, &out)?);
    let places = [(q_at, size), (k_at, size), (v_at, size), (out_at, size), (state_at, 4)];
    let fits = q.dtype() != DType::F32 && dk == CHUNK_KEY && dv % CHUNK_COLUMNS == 0;
    let fits = fits && packed(8, &[(q_at, size), (k_at, size), (v_at, size), (out_at, size)], &[token, head]);
    let long = |span: &&StateSpan| fits && span.len >= CHUNKED_FROM;
    let args = Args {
        q: q_at,
        k: k_at,
        v: v_at,
        g: address(NAME, &g)?,
        beta: address(NAME, &beta)?,
        state: state_at,
        spans: address_of(NAME, table)?,
        out: out_at,
        token: token as i64,
        head: head as i64,
        n: n as i32,
        span_count: spans.len() as i32,
        key_heads: key_heads as i32,
        heads: value_heads as i32,
        dk: dk as i32,
        dv: dv as i32,
        wide: wide(&places, &[dk, dv, token, head]).into(),
        chunked: if fits { CHUNKED_FROM as i32 } else { i32::MAX },
    };
    if spans.iter().any(|span| long(&span)) {
        let blocks = spans.len() * value_heads * (dv / CHUNK_COLUMNS);
        // SAFETY: `Args` is the kernel's struct; as below, and its addresses and strides are multiples of whole packs.
        unsafe {
            launch(q.device(), &CHUNKED, form(NAME, q.dtype())?, Grid::row(blocks, 128).shared(CHUNK_ROOM), &args)?;
        }
    }
    // The rest: other spans, and tokens of no span, which the kernel zeroes.
    if spans.iter().filter(long).map(|span| span.len).sum::<usize>() == n {
        return Ok(out);
    }
    // After the spans comes an empty one, which zeroes the tokens after them.
    let jobs = (spans.len() + 1) * value_heads * dv.div_ceil(*columns);
    let warps = if jobs <= FEW { 1 } else { WARPS };
    // A warp has room for keys and queries of two tokens.
    let grid = Grid::row(jobs.div_ceil(warps), 32 * warps as u32).shared(warps * 4 * most * 4);
    // SAFETY: `Args` is the kernel's struct; spans were checked to have their own tokens and slots inside the tensors, and
    // each warp has its own columns of them.
    unsafe { launch(q.device(), kernel, form(NAME, q.dtype())?, grid, &args)? };
    Ok(out)
}
