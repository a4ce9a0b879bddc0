//! Statistics of rows over ranges of tokens: norms and means, of all ranges at once.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::{
    Level, Spans,
    dot::dots,
    gpu,
    place::values,
    room::{Room, for_rows},
    serving::{Serving, serving},
    simd::{self, Simd, dispatch},
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
        Serving::Cpu => head_stats_at(Level::best(), z, ranges, vectors),
        Serving::Plain => head_stats_reference(z, ranges, vectors),
    }
}

/// The oracle of [`head_stats`] in candle's own ops, one range at a time.
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
        Serving::Cpu => range_means_at(Level::best(), x, ranges),
        Serving::Plain => range_means_reference(x, ranges),
    }
}

/// The oracle of [`range_means`] in candle's own ops.
///
/// # Errors
/// As [`range_means`].
pub fn range_means_reference(x: &Tensor, ranges: &[Range<usize>]) -> Result<Tensor> {
    check("range_means", ranges, x.dim(0)?)?;
    let mean = |range: &Range<usize>| x.narrow(0, range.start, range.len())?.to_dtype(DType::F32)?.mean(0);
    Tensor::stack(&ranges.iter().map(mean).collect::<Result<Vec<_>>>()?, 0)
}

fn head_stats_at(level: Level, z: &Tensor, ranges: &[Range<usize>], vectors: bool) -> Result<HeadStats> {
    let (n, heads, dim) = z.dims3()?;
    check("head_stats", ranges, n)?;
    let z = z.to_dtype(DType::F32)?.contiguous()?;
    let guard = z.storage_and_layout();
    let z = values("head_stats", &guard)?;
    let cells = ranges.len() * heads;
    let (mut norms, mut last_norms) = (Room::new(cells), Room::new(cells));
    let mut means = vectors.then(|| Room::new(cells * dim));
    let (norm, last) = (norms.start(), last_norms.start());
    let mean = means.as_mut().map(Room::start);
    let tokens: usize = ranges.iter().map(Range::len).sum();
    for_rows(cells, 2 * dim * tokens.div_ceil(ranges.len()), |cell| {
        let (range, head) = (&ranges[cell / heads], cell % heads);
        let rows = &z[(range.start * heads + head) * dim..];
        // SAFETY: a head's values at the tokens of a checked range, `heads * dim` apart, and the cell's own place in each result.
        unsafe {
            let (norm, last) = (norm.get().add(cell), last.get().add(cell));
            norms_of(level, dim, rows.as_ptr(), heads * dim, range.len(), norm, last);
            if let Some(mean) = &mean {
                mean_of(level, dim, rows.as_ptr(), heads * dim, range.len(), mean.get().add(cell * dim));
            }
        }
    });
    let (shape, device) = ((ranges.len(), heads), &Device::Cpu);
    // SAFETY: every cell was written.
    let (norms, last_norms, means) =
        unsafe { (norms.filled(), last_norms.filled(), means.map(|means| means.filled())) };
    let means = means.map(|means| Tensor::from_vec(means, (ranges.len(), heads, dim), device));
    Ok(HeadStats {
        norms: Tensor::from_vec(norms, shape, device)?,
        last_norms: Tensor::from_vec(last_norms, shape, device)?,
        vectors: means.transpose()?,
    })
}

/// Columns of a mean that one call sums.
const COLUMNS: usize = 256;

fn range_means_at(level: Level, x: &Tensor, ranges: &[Range<usize>]) -> Result<Tensor> {
    let (n, width) = x.dims2()?;
    check("range_means", ranges, n)?;
    let x = x.to_dtype(DType::F32)?.contiguous()?;
    let guard = x.storage_and_layout();
    let x = values("range_means", &guard)?;
    let mut means = Room::new(ranges.len() * width);
    let (mean, parts) = (means.start(), width.div_ceil(COLUMNS));
    let tokens: usize = ranges.iter().map(Range::len).sum();
    for_rows(ranges.len() * parts, COLUMNS * tokens.div_ceil(ranges.len()), |part| {
        let (index, from) = (part / parts, part % parts * COLUMNS);
        let (range, count) = (&ranges[index], COLUMNS.min(width - from));
        let rows = &x[range.start * width + from..];
        // SAFETY: columns of the rows of a checked range, and their own place in the result.
        unsafe { mean_of(level, count, rows.as_ptr(), width, range.len(), mean.get().add(index * width + from)) }
    });
    // SAFETY: every part was written.
    Tensor::from_vec(unsafe { means.filled() }, (ranges.len(), width), &Device::Cpu)
}

dispatch! {
    /// The mean norm of `rows` rows of `count` values, `stride` apart, and the norm of the last.
    unsafe fn norms_of(count: usize, x: *const f32, stride: usize, rows: usize, mean: *mut f32, last: *mut f32) = norms_generic;
}

#[inline(always)]
unsafe fn norms_generic<S: Simd>(
    count: usize,
    x: *const f32,
    stride: usize,
    rows: usize,
    mean: *mut f32,
    last: *mut f32,
) {
    let (mut sum, mut norm) = (0.0, 0.0);
    for row in 0..rows {
        // SAFETY: the caller has `count` values at every row.
        let [[squares]] = unsafe { dots::<S, 1, 1>(count, x.add(row * stride), 0, [x.add(row * stride)]) };
        norm = squares.sqrt();
        sum += norm;
    }
    // SAFETY: the caller has a place for either.
    unsafe { (*mean, *last) = (sum * (1.0 / rows as f32), norm) };
}

dispatch! {
    /// The mean of `rows` rows of `count` values, `stride` apart.
    unsafe fn mean_of(count: usize, x: *const f32, stride: usize, rows: usize, mean: *mut f32) = mean_generic;
}

/// Vectors of columns that are summed side by side.
const ABREAST: usize = 4;

#[inline(always)]
unsafe fn mean_generic<S: Simd>(count: usize, x: *const f32, stride: usize, rows: usize, mean: *mut f32) {
    // SAFETY: `some` values from `at` on lie below `count`, which the caller has at every row and for the mean.
    unsafe {
        let share = S::splat(1.0 / rows as f32);
        let mut from = 0;
        while from + ABREAST * S::LANES <= count {
            let mut sums = [S::splat(0.0); ABREAST];
            for row in 0..rows {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::add(*sum, S::load(x.add(row * stride + from + i * S::LANES)));
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                S::store(mean.add(from + i * S::LANES), S::mul(sum, share));
            }
            from += ABREAST * S::LANES;
        }
        for at in (from..count).step_by(S::LANES) {
            let some = S::LANES.min(count - at);
            let mut sum = S::splat(0.0);
            for row in 0..rows {
                sum = S::add(sum, simd::load_some::<S>(x.add(row * stride + at), some));
            }
            simd::store_some::<S>(mean.add(at), S::mul(sum, share), some);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bits, values, worst_relative};

    /// Largest difference from candle's sums, relative to max(1, |y|). Measured worst case: 2.1e-7 (2026-11-30).
    const TOLERANCE: f32 = 2e-6;

    /// Ragged ranges that overlap, of one token and of many.
    fn ragged() -> Vec<Range<usize>> {
        vec![0..1, 3..40, 39..40, 5..7, 0..40]
    }

    #[test]
    fn ranges_are_reduced_as_by_candle() -> Result<()> {
        let mut largest = 0f32;
        for (heads, dim) in [(1, 1), (3, 5), (2, 64), (9, 64), (4, 130), (2, 256)] {
            let z = values(&[40, heads, dim], 7)?;
            let oracle = head_stats_reference(&z, &ragged(), true)?;
            let rows = z.flatten_from(1)?;
            let means = range_means_reference(&rows, &ragged())?;
            for level in Level::available() {
                let found = head_stats_at(level, &z, &ragged(), true)?;
                let vectors = [found.vectors, oracle.vectors.clone()].map(|vectors| vectors.expect("asked for"));
                for (fast, slow) in [
                    (&found.norms, &oracle.norms),
                    (&found.last_norms, &oracle.last_norms),
                    (&vectors[0], &vectors[1]),
                    (&range_means_at(level, &rows, &ragged())?, &means),
                ] {
                    largest = largest.max(worst_relative(fast, slow));
                }
                assert!(head_stats_at(level, &z, &ragged(), false)?.vectors.is_none());
                // A range is what it is alone, whatever is reduced beside it.
                for (index, range) in ragged().into_iter().enumerate() {
                    let alone = head_stats_at(level, &z, std::slice::from_ref(&range), true)?;
                    assert_eq!(bits(&alone.norms), bits(&found.norms.narrow(0, index, 1)?));
                    let mean = range_means_at(level, &rows, &[range])?;
                    assert_eq!(bits(&mean), bits(&vectors[0].narrow(0, index, 1)?.flatten_from(1)?), "{heads} {dim}");
                }
            }
        }
        println!("ranges: {largest:e} of {TOLERANCE:e}");
        assert!(largest < TOLERANCE, "{largest:e}");
        Ok(())
    }

    #[test]
    fn what_is_no_number_stays_none_and_a_mean_is_summed_from_zero() -> Result<()> {
        let z = Tensor::from_slice(&[-0.0f32, f32::NAN, 1.0, f32::INFINITY], (1, 2, 2), &Device::Cpu)?;
        let one = std::slice::from_ref(&(0..1));
        for level in Level::available() {
            let found = head_stats_at(level, &z, one, true)?;
            let norms = found.norms.flatten_all()?.to_vec1::<f32>()?;
            assert!(norms[0].is_nan() && norms[1] == f32::INFINITY, "{norms:?}");
            assert_eq!(bits(&found.vectors.expect("asked for"))[0], 0, "-0 becomes 0");
        }
        for wrong in [None, Some(0..0), Some(0..2)] {
            let wrong: Vec<Range<usize>> = wrong.into_iter().collect();
            assert!(
                head_stats_at(Level::best(), &z, &wrong, false).is_err()
                    && range_means_at(Level::best(), &z.flatten_from(1)?, &wrong).is_err()
            );
        }
        Ok(())
    }
}
