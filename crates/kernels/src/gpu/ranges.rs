//! Statistics of rows over ranges of tokens, on the GPU.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::{Grid, Kernel, address, address_of, form, kernel, launch, room_of};
use crate::{HeadStats, Spans, ranges::check};

const RANGES: Kernel = kernel!(RANGES, "over_ranges");

/// Threads per block, and columns of a mean that a block sums.
const THREADS: usize = 128;
/// `RANGES_NORMS` of `cuda/ranges.cu`.
const NORMS: usize = 128;

/// `RangesArgs` of `cuda/ranges.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    x: u64,
    ranges: u64,
    norms: u64,
    last_norms: u64,
    means: u64,
    heads: i32,
    dim: i32,
}

/// [`head_stats`](crate::head_stats).
pub(crate) fn head_stats(z: &Tensor, ranges: &Spans<Range<usize>>, vectors: bool) -> Result<HeadStats> {
    let (_, heads, dim) = z.dims3()?;
    let norms = || room_of(&[ranges.len(), heads], DType::F32, z.device());
    let (norms, last_norms) = (norms()?, norms()?);
    let vectors = if vectors { Some(room_of(&[ranges.len(), heads, dim], DType::F32, z.device())?) } else { None };
    over("head_stats", z, ranges, Some((&norms, &last_norms)), vectors.as_ref())?;
    Ok(HeadStats { norms, last_norms, vectors })
}

/// [`range_means`](crate::range_means).
pub(crate) fn range_means(x: &Tensor, ranges: &Spans<Range<usize>>) -> Result<Tensor> {
    let out = room_of(&[ranges.len(), x.dim(1)?], DType::F32, x.device())?;
    over("range_means", &x.unsqueeze(1)?, ranges, None, Some(&out))?;
    Ok(out)
}

fn over(
    name: &str,
    x: &Tensor,
    ranges: &Spans<Range<usize>>,
    norms: Option<(&Tensor, &Tensor)>,
    means: Option<&Tensor>,
) -> Result<()> {
    let (n, heads, dim) = x.dims3()?;
    check(name, ranges, n)?;
    let x = x.contiguous()?;
    let args = Args {
        x: address(name, &x)?,
        ranges: address(name, ranges.table(x.device())?)?,
        norms: address_of(name, norms.map(|(norms, _)| norms))?,
        last_norms: address_of(name, norms.map(|(_, last)| last))?,
        means: address_of(name, means)?,
        heads: heads as i32,
        dim: dim as i32,
    };
    let columns = if means.is_some() { dim.div_ceil(THREADS) } else { 1 };
    let blocks = [ranges.len() as u32, heads as u32, columns as u32];
    let grid = Grid { blocks, threads: THREADS as u32, shared: 0 }.shared(4 * NORMS);
    // SAFETY: `Args` is the kernel's struct; the ranges were checked against the tokens, and each block has its own results.
    unsafe { launch(x.device(), &RANGES, form(name, x.dtype())?, grid, &args) }
}
