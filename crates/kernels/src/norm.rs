//! RMS norms over rows, and the residual additions before them.

use candle_core::{D, DType, Result, Tensor, bail};

use crate::{
    Level, gpu,
    place::values,
    room::{Room, for_rows},
    serving::{Serving, serving},
    simd::{self, Simd, dispatch},
};

/// `x / sqrt(mean(x²) + eps) * weight` over the last dimension (transformers `LlamaRMSNorm`).
///
/// # Shapes
/// `x` `[.., width]` f32, `weight` `[width]` f32; result as `x`.
///
/// # Errors
/// If the weight has another width, or the dtype is not f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    match serving(x.device()) {
        Serving::Cpu => norm_at(Level::best(), x, weight, eps),
        Serving::Gpu => gpu::rms_norm(x, weight, eps),
        Serving::Plain => rms_norm_reference(x, weight, eps),
    }
}

/// The oracle of [`rms_norm`]: candle's own, one launch on a GPU, but NaN if the sum of squares is not finite, where candle
/// gives zeros.
///
/// # Errors
/// If the weight has another width.
pub fn rms_norm_reference(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let normed = candle_nn::ops::rms_norm(&x.contiguous()?, weight, eps)?;
    let nothing = (x.to_dtype(DType::F32)?.sqr()?.sum_keepdim(D::Minus1)? * 0.0)?;
    normed.broadcast_add(&nothing.to_dtype(x.dtype())?)
}

/// Adds a block's output to the residual stream and computes the norm that the next block reads: `(x + y, rms_norm(x + y))`.
///
/// # Shapes
/// `x` and `y` `[.., width]` f32, `weight` `[width]` f32; both results as `x`.
///
/// # Errors
/// If the shapes do not fit, or the dtype is not f32.
pub fn add_rms_norm(x: &Tensor, y: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    match serving(x.device()) {
        Serving::Cpu => add_norm_at(Level::best(), x, y, weight, eps),
        Serving::Gpu => {
            let how = Join { before: None, scale: 1.0, next: Some(Norm { weight, eps }) };
            let (sum, normed) = gpu::join(x, y, &how)?;
            Ok((sum, normed.expect("a norm was asked for")))
        }
        Serving::Plain => add_rms_norm_reference(x, y, weight, eps),
    }
}

/// The oracle of [`add_rms_norm`] in candle's own ops.
///
/// # Errors
/// If the shapes do not fit.
pub fn add_rms_norm_reference(x: &Tensor, y: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    let sum = (x + y)?;
    let normed = rms_norm_reference(&sum, weight, eps)?;
    Ok((sum, normed))
}

/// A norm: its weight `[width]`, and the epsilon under its root.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// The weight.
    pub weight: &'a Tensor,
    /// Epsilon.
    pub eps: f32,
}

/// How a block's output joins the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct Join<'a> {
    /// The norm applied to the output before it joins (transformers `Gemma4DecoderLayer`, `post_*_norm`).
    pub before: Option<Norm<'a>>,
    /// The factor on the stream after that (`layer_scalar` there).
    pub scale: f64,
    /// The norm through which the next block reads the stream.
    pub next: Option<Norm<'a>>,
}

/// The residual stream `s = scale (x + before(y))`, and `next(s)` if a next norm is given: one launch on a GPU, with the same
/// rounding as the separate steps.
///
/// # Shapes
/// `x` and `y` `[.., width]` f32; both results as `x`.
///
/// # Errors
/// If the shapes do not fit, or the dtype is not f32.
pub fn join(x: &Tensor, y: &Tensor, how: &Join<'_>) -> Result<(Tensor, Option<Tensor>)> {
    match serving(x.device()) {
        Serving::Gpu => gpu::join(x, y, how),
        Serving::Cpu | Serving::Plain => join_in_steps(x, y, how),
    }
}

/// The oracle of [`join`], one operation per step; also the CPU path.
///
/// # Errors
/// If the shapes do not fit.
pub fn join_in_steps(x: &Tensor, y: &Tensor, how: &Join<'_>) -> Result<(Tensor, Option<Tensor>)> {
    let y = how.before.map_or_else(|| Ok(y.clone()), |norm| rms_norm(y, norm.weight, norm.eps))?;
    if let (1.0, Some(norm)) = (how.scale, how.next) {
        let (sum, normed) = add_rms_norm(x, &y, norm.weight, norm.eps)?;
        return Ok((sum, Some(normed)));
    }
    let mut sum = add(x, &y)?;
    if how.scale != 1.0 {
        sum = (sum * how.scale)?;
    }
    let normed = how.next.map(|norm| rms_norm(&sum, norm.weight, norm.eps)).transpose()?;
    Ok((sum, normed))
}

/// `x + y`. Candle's own wakes a second thread pool from 65,536 values on, whose threads spin for work beside ours.
///
/// # Shapes
/// Inputs and result `[.., width]` f32.
///
/// # Errors
/// If the shapes differ, or the dtype is not f32.
pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    match serving(x.device()) {
        Serving::Cpu => add_at(Level::best(), x, y),
        Serving::Gpu => gpu::add(x, y),
        Serving::Plain => add_reference(x, y),
    }
}

/// The oracle of [`add`]: candle's own.
///
/// # Errors
/// If the shapes differ.
pub fn add_reference(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    x + y
}

/// Rows and width of `x`, which `weight` must fit.
fn rows_of(name: &str, x: &Tensor, weight: &Tensor) -> Result<(usize, usize)> {
    let width = x.dim(D::Minus1)?;
    if weight.dims() != [width] {
        bail!("{name}: rows of {width} and a weight {:?} do not fit", weight.shape());
    }
    Ok((x.elem_count() / width.max(1), width))
}

fn same(name: &str, x: &Tensor, y: &Tensor) -> Result<()> {
    if x.shape() != y.shape() {
        bail!("{name}: {:?} and {:?} differ", x.shape(), y.shape());
    }
    Ok(())
}

fn norm_at(level: Level, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let (rows, width) = rows_of("rms_norm", x, weight)?;
    let x = x.contiguous()?;
    let (from, by) = (x.storage_and_layout(), weight.storage_and_layout());
    let (from, by) = (values("rms_norm", &from)?, values("rms_norm", &by)?);
    let mut out = Room::new(rows * width);
    let normed = out.start();
    for_rows(rows, 4 * width, |row| {
        // SAFETY: row `row` of the input and of the result, `width` values each, which only this call writes.
        unsafe { norm_row(level, width, from[row * width..].as_ptr(), by.as_ptr(), eps, normed.get().add(row * width)) }
    });
    // SAFETY: every row was written.
    Tensor::from_vec(unsafe { out.filled() }, x.shape(), x.device())
}

fn add_norm_at(level: Level, x: &Tensor, y: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    let (rows, width) = rows_of("add_rms_norm", x, weight)?;
    same("add_rms_norm", x, y)?;
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    let guards = [x.storage_and_layout(), y.storage_and_layout(), weight.storage_and_layout()];
    let [from, and, by] = guards.each_ref().map(|guard| values("add_rms_norm", guard));
    let (from, and, by) = (from?, and?, by?);
    let (mut stream, mut out) = (Room::new(rows * width), Room::new(rows * width));
    let (sum, normed) = (stream.start(), out.start());
    for_rows(rows, 6 * width, |row| {
        let at = row * width;
        // SAFETY: row `row` of the inputs and of the results, `width` values each, which only this call writes.
        unsafe {
            let (sum, normed) = (sum.get().add(at), normed.get().add(at));
            add_norm_row(level, width, [from[at..].as_ptr(), and[at..].as_ptr(), by.as_ptr()], eps, sum, normed);
        }
    });
    // SAFETY: every row of both was written.
    let (stream, out) = unsafe { (stream.filled(), out.filled()) };
    Ok((Tensor::from_vec(stream, x.shape(), x.device())?, Tensor::from_vec(out, x.shape(), x.device())?))
}

/// Values added by one call.
const CHUNK: usize = 4096;

fn add_at(level: Level, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    same("add", x, y)?;
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    let (from, and) = (x.storage_and_layout(), y.storage_and_layout());
    let (from, and) = (values("add", &from)?, values("add", &and)?);
    let count = from.len();
    let mut out = Room::new(count);
    let sum = out.start();
    for_rows(count.div_ceil(CHUNK), 2 * CHUNK, |chunk| {
        let at = chunk * CHUNK;
        let (x, y) = (&from[at..], &and[at..]);
        // SAFETY: the chunk's values of the inputs and of the result, which only this call writes.
        unsafe { add_row(level, CHUNK.min(count - at), x.as_ptr(), y.as_ptr(), sum.get().add(at)) }
    });
    // SAFETY: every chunk was written.
    Tensor::from_vec(unsafe { out.filled() }, x.shape(), x.device())
}

dispatch! {
    /// `x / rms(x) * weight` of one row.
    unsafe fn norm_row(width: usize, x: *const f32, weight: *const f32, eps: f32, out: *mut f32) = norm_row_generic;
}

#[inline(always)]
unsafe fn norm_row_generic<S: Simd>(width: usize, x: *const f32, weight: *const f32, eps: f32, out: *mut f32) {
    // SAFETY: `count` values from `i` on lie below `width`.
    unsafe {
        let factor = S::splat(over_rms::<S>(width, x, eps));
        for i in (0..width).step_by(S::LANES) {
            let count = S::LANES.min(width - i);
            let normed = S::mul(simd::load_some::<S>(x.add(i), count), factor);
            simd::store_some::<S>(out.add(i), S::mul(normed, simd::load_some::<S>(weight.add(i), count)), count);
        }
    }
}

/// `1 / sqrt(mean(x²) + eps)` of one row. NaN if the sum of squares is not finite: 0 would turn finite values into zeros, and
/// a model that then gives all tokens the same probability would look like a finding.
#[inline(always)]
pub(crate) unsafe fn over_rms<S: Simd>(width: usize, x: *const f32, eps: f32) -> f32 {
    // SAFETY: `count` values from `i` on lie below `width`; missing lanes add zeros to the squares.
    unsafe {
        let mut squares = S::splat(0.0);
        for i in (0..width).step_by(S::LANES) {
            let x = simd::load_some::<S>(x.add(i), S::LANES.min(width - i));
            squares = S::fma(x, x, squares);
        }
        let mean = S::sum(squares) / width as f32;
        (1.0 + 0.0 * mean) / (mean + eps).sqrt()
    }
}

dispatch! {
    /// `x + y` of one row, and its norm; the inputs are x, y and the weight.
    unsafe fn add_norm_row(
        width: usize, inputs: [*const f32; 3], eps: f32, sum: *mut f32, normed: *mut f32,
    ) = add_norm_row_generic;
}

#[inline(always)]
unsafe fn add_norm_row_generic<S: Simd>(
    width: usize,
    [x, y, weight]: [*const f32; 3],
    eps: f32,
    sum: *mut f32,
    normed: *mut f32,
) {
    // SAFETY: the caller's contract, passed on. The row of the sum is still in the first-level cache.
    unsafe {
        add_row_generic::<S>(width, x, y, sum);
        norm_row_generic::<S>(width, sum, weight, eps, normed);
    }
}

dispatch! {
    /// `x + y` of `count` values.
    unsafe fn add_row(count: usize, x: *const f32, y: *const f32, out: *mut f32) = add_row_generic;
}

#[inline(always)]
unsafe fn add_row_generic<S: Simd>(count: usize, x: *const f32, y: *const f32, out: *mut f32) {
    // SAFETY: `some` values from `i` on lie below `count`.
    unsafe {
        for i in (0..count).step_by(S::LANES) {
            let some = S::LANES.min(count - i);
            let sum = S::add(simd::load_some::<S>(x.add(i), some), simd::load_some::<S>(y.add(i), some));
            simd::store_some::<S>(out.add(i), sum, some);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{flat, values, worst_relative};
    use candle_core::Device;
    use proptest::prelude::*;

    /// Largest difference from candle's norm, relative to max(1, |y|). Measured worst case: 1.4e-6 (2026-11-25).
    const TOLERANCE: f32 = 4e-6;

    /// Values from -4 to 4.
    fn random(shape: &[usize], seed: u32) -> Tensor {
        values(shape, seed).and_then(|x| x * 4.0).expect("as many values")
    }

    fn close(fast: &Tensor, oracle: &Tensor, what: &str) {
        let worst = worst_relative(fast, oracle);
        println!("{what}: {worst:e} of {TOLERANCE:e}");
        assert!(worst < TOLERANCE, "{what}: {worst:e}");
    }

    fn check(n: usize, width: usize) -> Result<()> {
        let (x, y, weight) = (random(&[n, width], 1), random(&[n, width], 2), random(&[width], 3));
        let oracle = rms_norm_reference(&x, &weight, 1e-5)?;
        let (sum, normed) = add_rms_norm_reference(&x, &y, &weight, 1e-5)?;
        for level in Level::available() {
            close(&norm_at(level, &x, &weight, 1e-5)?, &oracle, &format!("rms_norm {level:?}"));
            let (stream, out) = add_norm_at(level, &x, &y, &weight, 1e-5)?;
            close(&out, &normed, &format!("add_rms_norm {level:?}"));
            for stream in [stream, add_at(level, &x, &y)?] {
                assert_eq!(flat(&stream), flat(&sum), "{level:?}");
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_level_is_the_oracle_on_odd_shapes(n in 0usize..9, width in 1usize..200) {
            check(n, width).unwrap();
        }
    }

    #[test]
    fn every_level_is_the_oracle_where_threads_share_the_rows() -> Result<()> {
        check(300, 576)
    }

    /// A model that overflows must not produce zeros, which look like valid numbers.
    #[test]
    fn squares_without_a_finite_sum_are_nan_and_no_zeros() -> Result<()> {
        let weight = random(&[20], 3);
        let rows = random(&[3, 20], 1).broadcast_mul(&Tensor::new(&[[1f32], [1e20], [1e17]], &Device::Cpu)?)?;
        let nothing = rows.zeros_like()?;
        let mut all = vec![rms_norm_reference(&rows, &weight, 1e-6)?];
        for level in Level::available() {
            all.push(norm_at(level, &rows, &weight, 1e-6)?);
            all.push(add_norm_at(level, &rows, &nothing, &weight, 1e-6)?.1);
        }
        for (i, normed) in all.iter().enumerate() {
            let normed = normed.to_vec2::<f32>()?;
            assert!(normed[1].iter().all(|x| x.is_nan()), "{i}: {:?}", normed[1]);
            assert!([0, 2].iter().all(|&row: &usize| normed[row].iter().all(|x| x.is_finite() && *x != 0.0)), "{i}");
        }
        Ok(())
    }

    #[test]
    fn a_row_is_the_same_bits_in_any_batch() -> Result<()> {
        let (x, y, weight) = (random(&[200, 579], 1), random(&[200, 579], 2), random(&[579], 3));
        for level in Level::available() {
            let (stream, normed) = add_norm_at(level, &x, &y, &weight, 1e-6)?;
            // The norm of the sum must be the same, fused or not.
            assert_eq!(flat(&norm_at(level, &stream, &weight, 1e-6)?), flat(&normed), "{level:?}");
            for row in [0, 1, 99, 199] {
                let of = |t: &Tensor| t.narrow(0, row, 1);
                let (_, alone) = add_norm_at(level, &of(&x)?, &of(&y)?, &weight, 1e-6)?;
                assert_eq!(flat(&alone), flat(&of(&normed)?), "{level:?} row {row}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (x, weight) = (random(&[2, 8], 1), random(&[7], 2));
        let error = rms_norm(&x, &weight, 1e-6).unwrap_err().to_string();
        assert!(error.contains("rows of 8 and a weight [7] do not fit"), "{error}");
        let error = add(&x, &random(&[8, 2], 1)).unwrap_err().to_string();
        assert!(error.contains("[2, 8] and [8, 2] differ"), "{error}");
        let half = x.to_dtype(DType::BF16).expect("a dtype");
        let error = rms_norm(&half, &random(&[8], 2), 1e-6).unwrap_err().to_string();
        assert!(error.contains("must be f32"), "{error}");
    }
}
