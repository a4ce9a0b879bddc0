//! Heads of a fused projection: read in place, normalised, rotated by position, and written to their destination.

use candle_core::{D, Result, Tensor, bail};

use crate::{
    AttentionSpan, Level, Norm, Spans, gpu,
    norm::{over_rms, rms_norm_reference},
    place::{Place, stored, values},
    room::{Room, for_rows},
    serving::{Serving, serving},
    simd::{self, Simd, dispatch},
    state::update,
};

/// What is done to each head, in this order.
#[derive(Clone, Copy, Default)]
pub struct HeadSteps<'a> {
    /// An RMS norm over the head, weight `[dim]`.
    pub norm: Option<Norm<'a>>,
    /// Cosines and sines of each token's angles, `[n, rotary / 2]` each: among the first `rotary` dimensions, dimension `i`
    /// rotates with `i + rotary / 2` (transformers `apply_rotary_pos_emb`); the others pass through.
    pub angles: Option<(&'a Tensor, &'a Tensor)>,
}

/// Some heads of a fused projection, read in place, and what is done to them.
#[derive(Clone, Copy)]
pub struct HeadsOf<'a> {
    /// `[n, count, dim]`, or `[n, count * dim]`: a view whose last dimension is contiguous, such as a column range.
    pub x: &'a Tensor,
    /// Heads per token.
    pub count: usize,
    /// Values per head.
    pub dim: usize,
    /// What is done to each head.
    pub steps: HeadSteps<'a>,
}

/// Heads as tensors of their own; on a GPU, one launch handles up to three kinds.
///
/// # Shapes
/// `x` of each view f32 `[n, count, dim]` or `[n, count * dim]`; its result `[n, count, dim]`. The CUDA kernel also takes bf16
/// and f16.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn heads<const N: usize>(views: [HeadsOf<'_>; N]) -> Result<[Tensor; N]> {
    const { assert!(N <= gpu::MOST_PARTS, "a launch takes no more kinds of heads") }
    if let Some(first) = views.first()
        && serving(first.x.device()) == Serving::Gpu
    {
        return gpu::heads(views);
    }
    each(views, |view| match serving(view.x.device()) {
        Serving::Plain => heads_reference(view),
        _ => heads_at(Level::best(), view),
    })
}

fn each<const N: usize>(views: [HeadsOf<'_>; N], make: impl Fn(HeadsOf<'_>) -> Result<Tensor>) -> Result<[Tensor; N]> {
    let made = views.into_iter().map(make).collect::<Result<Vec<_>>>()?;
    Ok(made.try_into().expect("one of each"))
}

/// The oracle of [`heads`] in candle's own ops: a copy, then one op per step.
///
/// # Errors
/// As [`heads`].
pub fn heads_reference(view: HeadsOf<'_>) -> Result<Tensor> {
    let HeadsOf { x, count, dim, steps } = view;
    let mut x = x.contiguous()?.reshape((x.dim(0)?, count, dim))?;
    if let Some(Norm { weight, eps }) = steps.norm {
        x = rms_norm_reference(&x, weight, eps)?;
    }
    let Some((cos, sin)) = steps.angles else { return Ok(x) };
    let rotary = 2 * cos.dim(1)?;
    let turned = x.narrow(D::Minus1, 0, rotary)?.unsqueeze(0)?.contiguous()?;
    let turned = candle_nn::rotary_emb::rope_thd(&turned, cos, sin)?.squeeze(0)?;
    if rotary == dim {
        return Ok(turned);
    }
    Tensor::cat(&[turned, x.narrow(D::Minus1, rotary, dim - rotary)?], D::Minus1)
}

/// Prepares attention from a fused projection: queries go to a new tensor, keys and values to their caches, where the tokens of
/// a span follow what the caches already hold of its sequence. One launch on a GPU.
///
/// # Shapes
/// Queries, keys and values as in [`heads`], all with the same `dim`; the key and value caches `[cache rows, count, dim]` of the
/// same type, **changed in place**. Result `[n, count, dim]` of the queries.
///
/// # Errors
/// If the shapes do not fit each other, a span reaches outside the tokens or the caches, two spans write the same row, or
/// a cache is not contiguous or shares its storage with what is written to it.
pub fn attended_heads(
    q: HeadsOf<'_>,
    k: HeadsOf<'_>,
    v: HeadsOf<'_>,
    (keys, values): (&Tensor, &Tensor),
    spans: &Spans<AttentionSpan>,
) -> Result<Tensor> {
    match serving(q.x.device()) {
        Serving::Cpu => {
            for (view, cache) in [(k, keys), (v, values)] {
                into_at(Level::best(), view, cache, spans)?;
            }
            heads_at(Level::best(), q)
        }
        Serving::Gpu => gpu::attended_heads(q, k, v, (keys, values), spans),
        Serving::Plain => attended_heads_reference(q, k, v, (keys, values), spans.still("attended_heads")?),
    }
}

/// The oracle of [`attended_heads`] in candle's own ops.
///
/// # Errors
/// As [`attended_heads`].
pub fn attended_heads_reference(
    q: HeadsOf<'_>,
    k: HeadsOf<'_>,
    v: HeadsOf<'_>,
    (keys, values): (&Tensor, &Tensor),
    spans: &[AttentionSpan],
) -> Result<Tensor> {
    for (view, cache) in [(k, keys), (v, values)] {
        into_reference(view, cache, spans)?;
    }
    heads_reference(q)
}

fn into_reference(view: HeadsOf<'_>, cache: &Tensor, spans: &[AttentionSpan]) -> Result<()> {
    let new = heads_reference(view)?;
    for span in spans {
        cache.slice_set(&new.narrow(0, span.first, span.len)?, 0, span.cache + span.start)?;
    }
    Ok(())
}

/// Runs `work` with the number of tokens and with a function that writes head `row` of all `n * heads` to a given place.
fn reading<R>(
    level: Level,
    view: HeadsOf<'_>,
    work: impl FnOnce(usize, &(dyn Fn(usize, *mut f32) + Sync)) -> Result<R>,
) -> Result<R> {
    let HeadsOf { x, count: heads, dim, steps } = view;
    let n = x.dim(0)?;
    let place = Place::of("heads", x.layout(), (n, heads, dim))?;
    let norm = steps.norm.map(|Norm { weight, eps }| (weight.storage_and_layout(), eps));
    let angles = steps.angles.map(|(cos, sin)| (cos.storage_and_layout(), sin.storage_and_layout()));
    let x = x.storage_and_layout();
    let x = stored("heads", &x)?;
    let (weight, eps) = match &norm {
        Some((weight, _)) if weight.1.dims() != [dim] => {
            bail!("heads: heads of {dim} and a norm's weight {:?} do not fit", weight.1.shape());
        }
        Some((weight, eps)) => (Some(values("heads", weight)?), *eps),
        None => (None, 0.0),
    };
    let (cos, sin, half) = match &angles {
        Some((cos, sin)) => {
            let half = cos.1.dims().get(1).copied().unwrap_or(0);
            if cos.1.dims() != [n, half] || sin.1.dims() != cos.1.dims() || 2 * half > dim {
                let (cos, sin) = (cos.1.shape(), sin.1.shape());
                bail!("heads: {n} tokens, heads of {dim} and angles {cos:?} and {sin:?} do not fit");
            }
            (values("heads", cos)?, values("heads", sin)?, half)
        }
        None => ([].as_slice(), [].as_slice(), 0),
    };
    let write = |row: usize, out: *mut f32| {
        let at = place.at(row, heads);
        let angle = row / heads * half;
        let head = Head {
            dim,
            half,
            x: x[at..at + dim].as_ptr(),
            weight: weight.map(<[f32]>::as_ptr),
            eps,
            cos: cos[angle..angle + half].as_ptr(),
            sin: sin[angle..angle + half].as_ptr(),
        };
        // SAFETY: the slices above hold what the head reads, and the caller has `dim` writable values at `out`.
        unsafe { one_head(level, head, out) }
    };
    work(n, &write)
}

/// Operations per value, used to share work between threads.
const COST: usize = 4;

fn heads_at(level: Level, view: HeadsOf<'_>) -> Result<Tensor> {
    let HeadsOf { x, count, dim, .. } = view;
    let out = reading(level, view, |n, write| {
        let mut out = Room::new(n * count * dim);
        let to = out.start();
        // SAFETY: each head has its own place in the result.
        for_rows(n * count, COST * dim, |row| write(row, unsafe { to.get().add(row * dim) }));
        // SAFETY: every head was written.
        Ok(unsafe { out.filled() })
    })?;
    Tensor::from_vec(out, (x.dim(0)?, count, dim), x.device())
}

fn into_at(level: Level, view: HeadsOf<'_>, cache: &Tensor, spans: &[AttentionSpan]) -> Result<()> {
    let HeadsOf { x, count, dim, .. } = view;
    let rows = cache.dim(0)?;
    if cache.dims() != [rows, count, dim] {
        bail!("heads: {count} heads of {dim} and a cache {:?} do not fit", cache.shape());
    }
    reading(level, view, |n, write| {
        let tokens = destinations(spans, n, rows)?;
        update("heads", cache, &[x], |cache| {
            let cache = crate::Shared(cache.as_mut_ptr());
            for_rows(tokens.len() * count, COST * dim, |row| {
                let ((token, to), head) = (tokens[row / count], row % count);
                // SAFETY: the row is inside the cache, and no other token is written there.
                write(token * count + head, unsafe { cache.get().add((to * count + head) * dim) });
            });
        })
    })
}

/// Each token of the spans and the cache row it is written to.
pub(crate) fn destinations(spans: &[AttentionSpan], n: usize, rows: usize) -> Result<Vec<(usize, usize)>> {
    let mut taken = Vec::with_capacity(spans.len());
    for span in spans {
        let to = span.cache.checked_add(span.start).and_then(|to| Some((to, to.checked_add(span.len)?)));
        let token = span.first.checked_add(span.len).is_some_and(|last| last <= n);
        let Some(to) = to.filter(|&(_, end)| token && end <= rows) else {
            bail!("heads: {span:?} reaches outside {n} tokens or {rows} cache rows");
        };
        taken.push(to);
    }
    taken.sort_unstable();
    if taken.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        bail!("heads: two spans write the same cache row");
    }
    Ok(spans.iter().flat_map(|span| (0..span.len).map(|i| (span.first + i, span.cache + span.start + i))).collect())
}

/// One head: `dim` values at `x`, `half` angles.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    dim: usize,
    half: usize,
    x: *const f32,
    weight: Option<*const f32>,
    eps: f32,
    cos: *const f32,
    sin: *const f32,
}

dispatch! {
    /// Writes one head to `out`, normalised and rotated as its steps say.
    unsafe fn one_head(head: Head, out: *mut f32) = one_head_generic;
}

#[inline(always)]
unsafe fn one_head_generic<S: Simd>(head: Head, out: *mut f32) {
    let Head { dim, half, x, weight, eps, cos, sin } = head;
    // SAFETY: the caller's contract: `dim` values at `x`, at the weight and at `out`, `half` at `cos` and `sin`.
    unsafe {
        let factor = S::splat(if weight.is_some() { over_rms::<S>(dim, x, eps) } else { 1.0 });
        for i in (0..half).step_by(S::LANES) {
            let count = S::LANES.min(half - i);
            let (a, b) = (normed::<S>(head, factor, i, count), normed::<S>(head, factor, half + i, count));
            let (cos, sin) = (simd::load_some::<S>(cos.add(i), count), simd::load_some::<S>(sin.add(i), count));
            let back = S::mul(b, S::mul(sin, S::splat(-1.0)));
            simd::store_some::<S>(out.add(i), S::fma(a, cos, back), count);
            simd::store_some::<S>(out.add(half + i), S::fma(b, cos, S::mul(a, sin)), count);
        }
        for i in (2 * half..dim).step_by(S::LANES) {
            let count = S::LANES.min(dim - i);
            simd::store_some::<S>(out.add(i), normed::<S>(head, factor, i, count), count);
        }
    }
}

/// `count` values of a head from `i` on, times `factor` and the weight if there is one. A function, because a closure would be
/// compiled without the instruction set.
#[inline(always)]
unsafe fn normed<S: Simd>(head: Head, factor: S::F, i: usize, count: usize) -> S::F {
    // SAFETY: the caller's contract: `count` values from `i` on lie below `dim`.
    unsafe {
        let value = simd::load_some::<S>(head.x.add(i), count);
        match head.weight {
            Some(weight) => S::mul(S::mul(value, factor), simd::load_some::<S>(weight.add(i), count)),
            None => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{flat, values, worst_relative};
    use candle_core::{DType, Device};
    use proptest::prelude::*;

    /// Largest difference from the oracle, relative to max(1, |y|). Measured worst case: 8.4e-7 (2026-11-25).
    const TOLERANCE: f32 = 3e-6;

    /// Values from -4 to 4.
    fn random(shape: &[usize], seed: u32) -> Tensor {
        values(shape, seed).and_then(|x| x * 4.0).expect("as many values")
    }

    fn close(fast: &Tensor, oracle: &Tensor, what: &str) {
        let worst = worst_relative(fast, oracle);
        println!("{what}: {worst:e} of {TOLERANCE:e}");
        assert!(worst < TOLERANCE, "{what}: {worst:e}");
    }

    /// Weight, cosines and sines.
    fn steps(n: usize, dim: usize, half: usize) -> Result<[Tensor; 3]> {
        let angles = random(&[n, half], 5);
        Ok([random(&[dim], 4), angles.cos()?, angles.sin()?])
    }

    /// The same heads as columns of a wider row and as `[n, heads, dim]` with gates beside them.
    fn views(n: usize, heads: usize, dim: usize) -> Result<[Tensor; 2]> {
        let columns = random(&[n, heads * dim + 5], 1).narrow(1, 3, heads * dim)?;
        let paired = random(&[n, heads + 1, 2 * dim], 2).narrow(1, 1, heads)?.narrow(2, 0, dim)?;
        Ok([columns, paired])
    }

    fn check(n: usize, heads: usize, dim: usize, half: usize) -> Result<()> {
        let [weight, cos, sin] = steps(n, dim, half)?;
        for x in views(n, heads, dim)? {
            for norm in [None, Some(Norm { weight: &weight, eps: 1e-6 })] {
                for angles in [None, Some((&cos, &sin)).filter(|_| half > 0)] {
                    let steps = HeadSteps { norm, angles };
                    let view = HeadsOf { x: &x, count: heads, dim, steps };
                    let oracle = heads_reference(view)?;
                    for level in Level::available() {
                        let what = format!("heads {level:?} {heads} of {dim}, {half} angles");
                        close(&heads_at(level, view)?, &oracle, &what);
                    }
                }
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_level_is_the_oracle_on_views(
            n in 1usize..7, heads in 1usize..4, dim in prop::sample::select(vec![2usize, 20, 64, 80, 128, 256]), part in 0usize..5,
        ) {
            check(n, heads, dim, dim / 2 * part / 4).unwrap();
        }
    }

    #[test]
    fn every_level_is_the_oracle_where_threads_share_the_heads() -> Result<()> {
        check(200, 9, 64, 32)
    }

    #[test]
    fn no_tokens_are_no_heads() -> Result<()> {
        let [none] = heads([HeadsOf { x: &random(&[0, 24], 1), count: 3, dim: 8, steps: HeadSteps::default() }])?;
        assert_eq!(none.dims(), [0, 3, 8]);
        Ok(())
    }

    #[test]
    fn a_head_is_the_same_bits_in_any_batch() -> Result<()> {
        let [weight, cos, sin] = steps(200, 20, 7)?;
        let x = &views(200, 9, 20)?[0];
        for level in Level::available() {
            let at = |from: usize, n: usize| {
                let (cos, sin) = (cos.narrow(0, from, n)?, sin.narrow(0, from, n)?);
                let steps = HeadSteps { norm: Some(Norm { weight: &weight, eps: 1e-6 }), angles: Some((&cos, &sin)) };
                heads_at(level, HeadsOf { x: &x.narrow(0, from, n)?, count: 9, dim: 20, steps })
            };
            let all = at(0, 200)?;
            for row in [0, 1, 77, 199] {
                assert_eq!(flat(&at(row, 1)?), flat(&all.narrow(0, row, 1)?), "{level:?} row {row}");
            }
        }
        Ok(())
    }

    #[test]
    fn heads_reach_their_cache_rows_and_no_others() -> Result<()> {
        let [_, cos, sin] = steps(6, 20, 4)?;
        let steps = HeadSteps { norm: None, angles: Some((&cos, &sin)) };
        let span = |first, len, start, cache| AttentionSpan { first, len, start, cache };
        let spans = [span(0, 2, 3, 10), span(2, 0, 0, 0), span(3, 3, 0, 1)];
        for x in views(6, 2, 20)? {
            let untouched = || Tensor::full(7f32, (16, 2, 20), &Device::Cpu);
            let oracle = untouched()?;
            let view = HeadsOf { x: &x, count: 2, dim: 20, steps };
            into_reference(view, &oracle, &spans)?;
            for level in Level::available() {
                let cache = untouched()?;
                into_at(level, view, &cache, &spans)?;
                close(&cache, &oracle, &format!("into a cache {level:?}"));
                assert_eq!(cache.narrow(0, 4, 9)?.sum_all()?.to_scalar::<f32>()?, 7.0 * 9.0 * 40.0, "{level:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() -> Result<()> {
        let says = |refused: Result<()>, why: &str| {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(why), "'{error}' does not say '{why}'");
        };
        let ([weight, cos, sin], x) = (steps(4, 8, 4)?, random(&[4, 24], 1));
        let (narrow, short) = (weight.narrow(0, 0, 7)?, sin.narrow(0, 0, 3)?);
        let norm = |weight| HeadSteps { norm: Some(Norm { weight, eps: 1e-6 }), angles: None };
        let turn = |cos, sin| HeadSteps { norm: None, angles: Some((cos, sin)) };
        let tensor = |(count, dim), steps| heads([HeadsOf { x: &x, count, dim, steps }]).map(drop);
        says(tensor((2, 8), HeadSteps::default()), "needs [4, 2, 8] or [4, 16]");
        says(tensor((3, 8), norm(&narrow)), "a norm's weight [7] do not fit");
        says(tensor((3, 8), turn(&cos, &short)), "do not fit");
        says(tensor((6, 4), turn(&cos, &sin)), "heads of 4 and angles");
        let cache = Tensor::zeros((9, 3, 8), DType::F32, &Device::Cpu)?;
        let into = |cache: &Tensor, spans: &[AttentionSpan]| {
            let view = HeadsOf { x: &x, count: 3, dim: 8, steps: HeadSteps::default() };
            attended_heads(view, view, view, (cache, cache), &spans.into()).map(drop)
        };
        let span = |first, len, start, cache| AttentionSpan { first, len, start, cache };
        says(into(&cache.narrow(1, 0, 2)?, &[]), "do not fit");
        says(into(&cache, &[span(0, 4, 6, 0)]), "outside 4 tokens or 9 cache rows");
        says(into(&cache, &[span(1, 4, 0, 0)]), "outside 4 tokens or 9 cache rows");
        says(into(&cache, &[span(0, 2, 0, 3), span(2, 2, 1, 3)]), "the same cache row");
        let own = x.reshape((4, 3, 8))?;
        says(into(&own, &[span(0, 1, 0, 0)]), "shares the storage");
        Ok(())
    }
}
