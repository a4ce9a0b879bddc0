//! What is kept of rows over ranges of tokens: norms and means, of all ranges at once.

use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};

use crate::{
    Spans, gpu,
    serving::{Serving, serving},
};

/// What [`head_stats`] finds, a row a range.
pub struct HeadStats {
    /// Mean L2 norm of z over the range: `[ranges, heads]` f32.
    pub norms: Tensor,
    /// L2 norm of z at the range's last token: `[ranges, heads]` f32.
    pub last_norms: Tensor,
    /// Mean z: `[ranges, heads, dim]` f32, if vectors were asked for.
    pub vectors: Option<Tensor>,
}

/// Norms of heads over ranges of packed tokens, and if asked their mean.
///
/// A mean is summed token by token from 0 and multiplied by one over their number, in f32: it does not depend on what else is
/// read.
///
/// # Shapes
/// `z` `[n, heads, dim]`; the ranges are of the `n` tokens.
///
/// # Errors
/// If a range is empty or reaches beyond the tokens, or there is none.
pub fn head_stats(z: &Tensor, ranges: &Spans<Range<usize>>, vectors: bool) -> Result<HeadStats> {
    match serving(z.device()) {
        Serving::Gpu => gpu::head_stats(z, ranges, vectors),
        Serving::Cpu | Serving::Plain => head_stats_reference(z, ranges, vectors),
    }
}

/// The oracle of [`head_stats`] in candle's own ops, a range after the other; the CPU's way too.
///
/// # Errors
/// As [`head_stats`].
pub fn head_stats_reference(z: &Tensor, ranges: &[Range<usize>], vectors: bool) -> Result<HeadStats> {
    check("head_stats", ranges, z.dim(0)?)?;
    // Where every range is one token, as in a decode step, all are reduced at once: the numbers are the same.
    if ranges.iter().all(|range| range.len() == 1) {
        let tokens: Vec<u32> = ranges.iter().map(|range| range.start as u32).collect();
        let part = z.index_select(&Tensor::new(tokens, z.device())?, 0)?.to_dtype(DType::F32)?; // [ranges, heads, dim]
        let norms = part.sqr()?.sum(2)?.sqrt()?; // [ranges, heads]
        // A mean begins at 0, which makes a zero of any sign 0: so it does here.
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

/// The mean of rows over each of some ranges of packed tokens, summed as in [`head_stats`].
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

/// The oracle of [`range_means`] in candle's own ops; the CPU's way too.
///
/// # Errors
/// As [`range_means`].
pub fn range_means_reference(x: &Tensor, ranges: &[Range<usize>]) -> Result<Tensor> {
    check("range_means", ranges, x.dim(0)?)?;
    let mean = |range: &Range<usize>| x.narrow(0, range.start, range.len())?.to_dtype(DType::F32)?.mean(0);
    Tensor::stack(&ranges.iter().map(mean).collect::<Result<Vec<_>>>()?, 0)
}

/// Refuses ranges of no tokens, and those beyond them.
pub(crate) fn check(name: &str, ranges: &[Range<usize>], n: usize) -> Result<()> {
    if ranges.is_empty() {
        bail!("{name}: there is no range of tokens");
    }
    match ranges.iter().find(|range| range.is_empty() || range.end > n) {
        Some(range) => bail!("{name}: the range {range:?} is empty or reaches beyond {n} tokens"),
        None => Ok(()),
    }
}
