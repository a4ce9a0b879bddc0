//! Heads out of a fused projection, on the GPU.

use candle_core::{Result, Tensor, bail};

use super::{Grid, Held, Kernel, address, address_of, alike, form, kernel, launch, room};
use crate::{AttentionSpan, HeadSteps, Spans, place::Place};

const HEADS: Kernel = kernel!(HEADS, "heads");

/// Warps of a block, each with a head of its own.
const WARPS: usize = 4;

/// `HeadsArgs` of `cuda/heads.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    x: u64,
    weight: u64,
    cos: u64,
    sin: u64,
    spans: u64,
    out: u64,
    token: i64,
    head: i64,
    n: i32,
    heads: i32,
    dim: i32,
    half: i32,
    span_count: i32,
    eps: f32,
}

/// [`heads`](crate::heads).
pub(crate) fn heads(x: &Tensor, (heads, dim): (usize, usize), steps: HeadSteps<'_>) -> Result<Tensor> {
    let out = room(&[x.dim(0)?, heads, dim], x)?;
    write(x, (heads, dim), steps, None, &out)?;
    Ok(out)
}

/// [`heads_into`](crate::heads_into).
pub(crate) fn heads_into(
    x: &Tensor,
    (heads, dim): (usize, usize),
    steps: HeadSteps<'_>,
    cache: &Tensor,
    spans: &Spans<AttentionSpan>,
) -> Result<()> {
    let rows = cache.dim(0)?;
    if cache.dims() != [rows, heads, dim] {
        bail!("heads_into: {heads} heads of {dim} and a cache {:?} do not fit", cache.shape());
    }
    crate::heads::destinations(spans, x.dim(0)?, rows)?;
    write(x, (heads, dim), steps, Some(spans), cache)
}

fn write(
    x: &Tensor,
    (heads, dim): (usize, usize),
    steps: HeadSteps<'_>,
    spans: Option<&Spans<AttentionSpan>>,
    out: &Tensor,
) -> Result<()> {
    let (name, n) = ("heads", x.dim(0)?);
    let place = Place::of(name, x.layout(), (n, heads, dim))?;
    alike(name, &[x, out])?;
    if let Some((weight, _)) = steps.norm {
        alike(name, &[x, weight])?;
        if weight.dims() != [dim] {
            bail!("{name}: heads of {dim} and a norm's weight {:?} do not fit", weight.shape());
        }
    }
    let mut half = 0;
    if let Some((cos, sin)) = steps.angles {
        alike(name, &[x, cos, sin])?;
        half = cos.dims().get(1).copied().unwrap_or(0);
        if cos.dims() != [n, half] || sin.dims() != cos.dims() || 2 * half > dim {
            let (cos, sin) = (cos.shape(), sin.shape());
            bail!("{name}: {n} tokens, heads of {dim} and angles {cos:?} and {sin:?} do not fit");
        }
    }
    let table = spans.map(|spans| spans.table(x.device())).transpose()?;
    let (token, head) = place.strides();
    let args = Args {
        x: Held::of(x).address()?,
        weight: address_of(name, steps.norm.map(|(weight, _)| weight))?,
        cos: address_of(name, steps.angles.map(|(cos, _)| cos))?,
        sin: address_of(name, steps.angles.map(|(_, sin)| sin))?,
        spans: address_of(name, table)?,
        out: address(name, out)?,
        token: token as i64,
        head: head as i64,
        n: n as i32,
        heads: heads as i32,
        dim: dim as i32,
        half: half as i32,
        span_count: spans.map_or(0, |spans| spans.len() as i32),
        eps: steps.norm.map_or(0.0, |(_, eps)| eps),
    };
    let grid = Grid::row((n * heads).div_ceil(WARPS), 32 * WARPS as u32);
    // SAFETY: `Args` is the kernel's struct; every head has a place of its own in the result, and `destinations` has refused
    // spans that lead outside the cache or to the same row.
    unsafe { launch(x.device(), &HEADS, form(name, x.dtype())?, grid, &args) }
}
