//! Statistics of rows over ranges of tokens: norms and means, of all ranges at once.

use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};

use crate::{
    Spans, gpu,
    serving::{Serving, serving},
};

/// The results of [`head_stats`], one row per range.
pub struct HeadStats {
    /// Mean L2 norm of z over the range: `[ranges, heads]` f32.
    pub norms: Tensor,
    /// L2 norm of z at the range's last token: `[ranges, heads]` f32.
    pub last_norms: Tensor,
    /// Mean z: `[ranges, heads, dim]` f32, if vectors were requested.
    pub vectors: Option<Tensor>,
}

/// Norms of heads over ranges of packed tokens and, on request, mean vectors.
///
/// A mean is summed token by token from 0 and multiplied by one over the number of tokens, in f32: it does not depend on what
/// else is computed.
///
/// # Shapes
/// `z` `[n, heads, dim]`; the ranges refer to the `n` tokens.
///
/// # Errors
/// If a range is empty or reaches beyond the tokens, or there are no ranges.
pub fn head_stats(z: &Tensor, ranges: &Spans<Range<usize>>, vectors: bool) -> Result<HeadStats> {
    match serving(z.device()) {
        Serving::Gpu => gpu::head_stats(z, ranges, vectors),
        Serving::Cpu | Serving::Plain => head_stats_reference(z, ranges, vectors),
    }
}

/// The oracle of [`head_stats`] in candle's own ops, one range at a time; also the CPU path.
///
/// # Errors
/// As [`head_stats`].
pub fn head_stats_reference(z: &Tensor, ranges: &[Range<usize>], vectors: bool) -> Result<HeadStats> {
    check("head_stats", ranges, z.dim(0)?)?;
    // If every range is one token, as in a decode step, all are reduced at once: the numbers are the same.
    if ranges.iter().all(|range| range.len() == 1) {
        let tokens: Vec<u32> = ranges.iter().map(|range| range.start as u32).collect();
        let part = z.index_select(&Tensor::new(tokens, z.device())?, 0)?.to_dtype(DType::F32)?; // [ranges, heads, dim]
        let norms = part.sqr()?.sum(2)?.sqrt()?; // [ranges, heads]
        // A mean is summed from 0, which turns -0 into 0: do the same here.
        let vectors = if vectors { Some(part.affine(1.0, 0.0)?) } else { None };
        return Ok(HeadStats { last_norms: norms.clone(), norms, vectors });
    }
    let (mut norms, mut last_norms, mut means) = (Vec::new(), Vec::new(), Vec::new());
    for range in ranges {
        let part = z.narrow(0, range.start, range.len())?.to_dtype(DType::F32)?; // [tokens, heads, dim]
        let of_tokens = part.sqr()?.sum(2)?.sqrt()?; // [tokens, heads]
        last_norms.push(of_tokens.get(range.len() - 1)?); // [heads]
        norms.push(of_tokens.mean(0)?); // [heads]
        if vectors {
            means.push(part.mean(0)?); // [heads, dim]
        }
    }
    let vectors = if vectors { Some(Tensor::stack(&means, 0)?) } else { None };
    Ok(HeadStats { norms: Tensor::stack(&norms, 0)?, last_norms: Tensor::stack(&last_norms, 0)?, vectors })
}

/// The means of rows over ranges of packed tokens, summed as in [`head_stats`].
///
/// # Shapes
/// `x` `[n, width]`; result `[ranges, width]` f32.
///
/// # Errors
/// As [`head_stats`].
pub fn range_means(x: &Tensor, ranges: &Spans<Range<usize>>) -> Result<Tensor> {
    match serving(x.device()) {
        Serving::Gpu => gpu::range_means(x, ranges),
        Serving::Cpu | Serving::Plain => range_means_reference(x, ranges),
    }
}

/// The oracle of [`range_means`] in candle's own ops; also the CPU path.
///
/// # Errors
/// As [`range_means`].
pub fn range_means_reference(x: &Tensor, ranges: &[Range<usize>]) -> Result<Tensor> {
    check("range_means", ranges, x.dim(0)?)?;
    let mean = |range: &Range<usize>| x.narrow(0, range.start, range.len())?.to_dtype(DType::F32)?.mean(0);
    Tensor::stack(&ranges.iter().map(mean).collect::<Result<Vec<_>>>()?, 0)
}

/// Refuses empty ranges, and ranges that reach beyond the tokens.
pub(crate) fn check(name: &str, ranges: &[Range<usize>], n: usize) -> Result<()> {
    if ranges.is_empty() {
        bail!("{name}: there is no range of tokens");
    }
    match ranges.iter().find(|range| range.is_empty() || range.end > n) {
        Some(range) => bail!("{name}: the range {range:?} is empty or reaches beyond {n} tokens"),
        None => Ok(()),
    }
}
