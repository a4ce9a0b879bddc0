//! Causal attention of packed sequences of any length against their cache slots.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::{
    Level, Spans,
    dot::dots,
    gpu,
    lambda::{factors, scale as scaled},
    room::{Room, share},
    serving::{Serving, serving},
    simd::{self, MAX_LANES, Simd, dispatch},
};

/// One sequence's share of the packed queries, and where its keys are.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSpan {
    /// The first packed token of the sequence.
    pub first: usize,
    /// The number of its tokens in this call.
    pub len: usize,
    /// The position of its first token: query `i` sees the keys of positions `0..=start + i`.
    pub start: usize,
    /// The cache row that holds the key of position 0; later positions follow.
    pub cache: usize,
}

/// Causal attention with grouped key/value heads, in f32 (transformers `eager_attention_forward`).
///
/// # Shapes
/// `q` `[n, head, dim]` f32, packed; `k` and `v` `[cache rows, kv, dim]` f32, already holding the new tokens; result
/// `[n, head, dim]`, 0 at tokens of no span. Query head `h` reads key/value head `h / (heads / kv)`.
///
/// With a `window` (transformers `sliding_window`) the query at position `p` sees the last `window` keys, its own
/// included: `p - window < j <= p`. The work is then proportional to the window, not to the length.
///
/// `lambda` `[n, head]` f32 scales the result of each head at each token. In our kernels it enters where the softmax is
/// normalised and costs nothing: 1 gives the same bits as `None`, and 0 gives zeros.
///
/// # Errors
/// If the shapes do not fit each other, a span reaches outside the cache or the window is 0.
pub fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &Spans<AttentionSpan>,
    scale: f32,
    window: Option<usize>,
    lambda: Option<&Tensor>,
) -> Result<Tensor> {
    match serving(q.device()) {
        Serving::Cpu => {
            let lambda = factors("attend", lambda, q.dim(0)?, q.dim(1)?)?;
            let op = Attend { spans, scale, window, lambda: lambda.as_deref(), level: Level::best() };
            q.contiguous()?.apply_op3_no_bwd(k, v, &op)
        }
        Serving::Gpu => gpu::attend(q, k, v, spans, scale, window, lambda),
        Serving::Plain => attend_reference(q, k, v, spans.still("attend")?, scale, window, lambda),
    }
}

/// The oracle of [`attend`] in plain candle ops: full score matrices, one sequence at a time.
///
/// # Errors
/// If the shapes do not fit each other, a span reaches outside the cache or the window is 0.
pub fn attend_reference(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[AttentionSpan],
    scale: f32,
    window: Option<usize>,
    lambda: Option<&Tensor>,
) -> Result<Tensor> {
    let window = width_of(window)?;
    let (heads, kv) = (q.dim(1)?, k.dim(1)?);
    let group = (0..heads as u32).map(|h| h / (heads / kv) as u32).collect::<Vec<_>>();
    let group = Tensor::from_vec(group, heads, q.device())?;
    let mut out = Vec::with_capacity(spans.len());
    for span in spans {
        let keys = span.start + span.len;
        let take = |cache: &Tensor| cache.narrow(0, span.cache, keys)?.index_select(&group, 1)?.transpose(0, 1); // [h, keys, d]
        let q = q.narrow(0, span.first, span.len)?.transpose(0, 1)?.contiguous()?; // [h, len, d]
        let scores = (q.matmul(&take(k)?.t()?.contiguous()?)? * f64::from(scale))?.to_dtype(DType::F32)?; // [h, len, keys]
        let sees = |p: usize, j: usize| j <= p && p - j < window;
        let mask: Vec<f32> = (span.start..keys)
            .flat_map(|p| (0..keys).map(move |j| if sees(p, j) { 0.0 } else { f32::NEG_INFINITY }))
            .collect();
        let scores = scores.broadcast_add(&Tensor::from_vec(mask, (1, span.len, keys), q.device())?)?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?.to_dtype(v.dtype())?;
        out.push(weights.matmul(&take(v)?.contiguous()?)?.transpose(0, 1)?); // [len, h, d]
    }
    scaled("attend", Tensor::cat(&out, 0)?, lambda)
}

/// The window in keys; without one, a number that no sequence reaches.
fn width_of(window: Option<usize>) -> Result<usize> {
    if window == Some(0) {
        bail!("attend: a window of 0 keys hides even the query's own");
    }
    Ok(window.unwrap_or(usize::MAX))
}

/// Refuses spans that reach outside `n` queries or `rows` cache rows, or that are out of order: no two may write the same
/// output.
pub(crate) fn within(spans: &[AttentionSpan], n: usize, rows: usize) -> Result<()> {
    let mut end = 0;
    for span in spans {
        let (queries, keys) = (span.first.checked_add(span.len), span.cache.checked_add(span.start));
        let keys = keys.and_then(|keys| keys.checked_add(span.len));
        let inside = queries.is_some_and(|queries| queries <= n) && keys.is_some_and(|keys| keys <= rows);
        if !inside || span.first < end {
            bail!("attend: {span:?} reaches outside {n} queries or {rows} cache rows, or into the span before it");
        }
        end = span.first + span.len;
    }
    Ok(())
}

struct Attend<'a> {
    spans: &'a [AttentionSpan],
    scale: f32,
    window: Option<usize>,
    /// `[n, heads]`, packed like the queries.
    lambda: Option<&'a [f32]>,
    level: Level,
}

/// Queries of one key/value head that are processed together.
const TILE: usize = 6;

/// One query: the offset of its head vector, and which keys of its tile it sees.
#[derive(Clone, Copy)]
struct Query {
    /// Offset of the head vector in `q` and `out`, in elements.
    at: usize,
    /// The first key it sees, relative to the tile's first key.
    from: usize,
    /// One past the last key it sees.
    to: usize,
    /// The factor on its result (λ).
    lambda: f32,
}

/// Where one tile of queries finds its data; offsets in elements.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// The queries, ordered by position.
    queries: [Query; TILE],
    count: usize,
    /// Offset of the tile's first key in the cache: position 0, or with a window the first visible key rounded down to whole vectors.
    keys: usize,
    /// Elements between one position's key and the next.
    stride: usize,
    dim: usize,
    scale: f32,
}

impl Tile {
    /// Multiply-adds.
    fn cost(&self) -> usize {
        2 * self.count * self.queries[self.count - 1].to * self.dim
    }
}

impl CustomOp3 for Attend<'_> {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((n, heads, dim), (rows, kv, kdim)) = (lq.shape().dims3()?, lk.shape().dims3()?);
        if kdim != dim || lk.shape() != lv.shape() || kv == 0 || heads % kv != 0 {
            bail!("attend: queries {:?}, keys {:?} and values {:?} do not fit", lq.shape(), lk.shape(), lv.shape());
        }
        let (Some((q0, q1)), Some((k0, k1)), Some((v0, v1))) =
            (lq.contiguous_offsets(), lk.contiguous_offsets(), lv.contiguous_offsets())
        else {
            bail!("attend: queries, keys and values must be contiguous");
        };
        let (q, k, v) = (&q.as_slice::<f32>()?[q0..q1], &k.as_slice::<f32>()?[k0..k1], &v.as_slice::<f32>()?[v0..v1]);
        within(self.spans, n, rows)?;
        let tiles = self.tiles(width_of(self.window)?, heads, kv, dim);
        let mut out = Room::new(n * heads * dim);
        let to = out.start();
        let cost = tiles.iter().map(Tile::cost).sum::<usize>() / tiles.len().max(1);
        tiles.par_iter().with_min_len(share(cost)).for_each_init(Vec::new, |scores, tile| {
            // SAFETY: the spans were checked to lie inside `q` and the cache and apart from each other, so that each
            // tile writes head vectors of its own.
            unsafe { attend_tile(self.level, tile, q.as_ptr(), k.as_ptr(), v.as_ptr(), to.get(), scores) }
        });
        let mut end = 0;
        for (first, last) in self.spans.iter().map(|span| (span.first, span.first + span.len)).chain([(n, n)]) {
            // SAFETY: the tokens between two spans are inside the result, and no tile has written them.
            unsafe { to.get().add(end * heads * dim).write_bytes(0, (first - end) * heads * dim) }
            end = last;
        }
        // SAFETY: every token was written: by its span, or by the zeroing of tokens without one.
        Ok((CpuStorage::F32(unsafe { out.filled() }), lq.shape().clone()))
    }
}

impl Attend<'_> {
    fn tiles(&self, window: usize, heads: usize, kv: usize, dim: usize) -> Vec<Tile> {
        let group = heads / kv;
        let mut tiles = Vec::new();
        for span in self.spans {
            for head in 0..kv {
                // The queries of a key/value head: for each token, all heads of the group, ordered by position.
                let query = |i: usize, base: usize| {
                    let (token, h) = (i / group, head * group + i % group);
                    let to = span.start + token + 1;
                    let row = (span.first + token) * heads + h;
                    let lambda = self.lambda.map_or(1.0, |lambda| lambda[row]);
                    Query { at: row * dim, from: to.saturating_sub(window) - base, to: to - base, lambda }
                };
                for from in (0..span.len * group).step_by(TILE) {
                    let count = TILE.min(span.len * group - from);
                    // The base is a multiple of every level's vector length, counted from position 0. Where a tile starts depends on its
                    // neighbours, but a position is always in the same lane of the softmax's sum, and hidden keys add exact zeros.
                    let base = query(from, 0).from / MAX_LANES * MAX_LANES;
                    tiles.push(Tile {
                        queries: std::array::from_fn(|i| query(from + i.min(count - 1), base)),
                        count,
                        keys: ((span.cache + base) * kv + head) * dim,
                        stride: kv * dim,
                        dim,
                        scale: self.scale,
                    });
                }
            }
        }
        tiles
    }
}

dispatch! {
    /// One tile of queries against all the keys they see.
    unsafe fn attend_tile(
        tile: &Tile, q: *const f32, k: *const f32, v: *const f32, out: *mut f32, scores: &mut Vec<f32>,
    ) = tile_generic;
}

#[inline(always)]
unsafe fn tile_generic<S: Simd>(
    tile: &Tile,
    q: *const f32,
    k: *const f32,
    v: *const f32,
    out: *mut f32,
    scores: &mut Vec<f32>,
) {
    let seen = tile.queries[tile.count - 1].to; // the last query of a tile sees the most keys
    let width = seen.next_multiple_of(S::LANES);
    scores.resize(tile.count * width, 0.0);
    /// Runs `$body` with the tile's number of queries as a constant.
    macro_rules! by_count {
        ($m:ident => $body:expr) => {
            match tile.count {
                1 => {
                    const $m: usize = 1;
                    $body
                }
                2 => {
                    const $m: usize = 2;
                    $body
                }
                3 => {
                    const $m: usize = 3;
                    $body
                }
                4 => {
                    const $m: usize = 4;
                    $body
                }
                5 => {
                    const $m: usize = 5;
                    $body
                }
                _ => {
                    const $m: usize = 6;
                    $body
                }
            }
        };
    }
    // SAFETY: the caller's contract, passed on; `scores` holds `count` rows of `width`.
    unsafe {
        by_count!(M => score::<S, M>(tile, q, k.add(tile.keys), scores.as_mut_ptr(), seen, width));
        for i in 0..tile.count {
            softmax::<S>(scores.as_mut_ptr().add(i * width), tile.queries[i], width);
        }
        by_count!(M => mix::<S, M>(tile, scores.as_ptr(), v.add(tile.keys), out, seen, width));
    }
}

/// `scores[i][j] = scale * q_i · k_j` for the first `seen` keys.
#[inline(always)]
unsafe fn score<S: Simd, const M: usize>(
    tile: &Tile,
    q: *const f32,
    k: *const f32,
    scores: *mut f32,
    seen: usize,
    width: usize,
) {
    // SAFETY: the caller's contract, passed on.
    unsafe {
        let queries: [*const f32; M] = std::array::from_fn(|i| q.add(tile.queries[i].at));
        let mut j = 0;
        while j + 4 <= seen {
            let d = dots::<S, 4, M>(tile.dim, k.add(j * tile.stride), tile.stride, queries);
            for i in 0..M {
                for r in 0..4 {
                    *scores.add(i * width + j + r) = d[r][i] * tile.scale;
                }
            }
            j += 4;
        }
        while j < seen {
            let d = dots::<S, 1, M>(tile.dim, k.add(j * tile.stride), tile.stride, queries);
            for i in 0..M {
                *scores.add(i * width + j) = d[0][i] * tile.scale;
            }
            j += 1;
        }
    }
}

/// λ times the softmax of a row of `width` scores over the keys that `query` sees; the other scores become 0.
#[inline(always)]
unsafe fn softmax<S: Simd>(row: *mut f32, query: Query, width: usize) {
    let Query { from, to, lambda, .. } = query;
    // SAFETY: `row` holds `width` values, a whole number of vectors.
    unsafe {
        for j in (0..from).chain(to..width) {
            *row.add(j) = f32::NEG_INFINITY;
        }
        let mut top = S::splat(f32::NEG_INFINITY);
        for j in (0..width).step_by(S::LANES) {
            top = S::max(top, S::load(row.add(j)));
        }
        let top = S::splat(-S::largest(top));
        let mut sum = S::splat(0.0);
        for j in (0..width).step_by(S::LANES) {
            let e = simd::exp::<S>(S::add(S::load(row.add(j)), top));
            S::store(row.add(j), e);
            if j < from || j + S::LANES > to {
                for i in (j..j + S::LANES).filter(|i| !(from..to).contains(i)) {
                    *row.add(i) = 0.0;
                }
            }
            sum = S::add(sum, S::load(row.add(j)));
        }
        let scale = S::splat(lambda / S::sum(sum));
        for j in (0..width).step_by(S::LANES) {
            S::store(row.add(j), S::mul(S::load(row.add(j)), scale));
        }
    }
}

/// `out_i = Σ_j weights[i][j] v_j`, summed in order of position.
#[inline(always)]
unsafe fn mix<S: Simd, const M: usize>(
    tile: &Tile,
    weights: *const f32,
    v: *const f32,
    out: *mut f32,
    seen: usize,
    width: usize,
) {
    // SAFETY: whole vectors below `dim`, then single values; keys below `seen`.
    unsafe {
        let mut c = 0;
        while c + WIDE * S::LANES <= tile.dim {
            mix_columns::<S, M, WIDE>(tile, weights, v.add(c), out.add(c), seen, width);
            c += WIDE * S::LANES;
        }
        while c + S::LANES <= tile.dim {
            mix_columns::<S, M, 1>(tile, weights, v.add(c), out.add(c), seen, width);
            c += S::LANES;
        }
        while c < tile.dim {
            for i in 0..M {
                let mut acc = 0f32;
                for j in 0..seen {
                    acc += *weights.add(i * width + j) * *v.add(j * tile.stride + c);
                }
                *out.add(tile.queries[i].at + c) = acc;
            }
            c += 1;
        }
    }
}

/// Vectors of a value that are mixed together: each weight is broadcast once for all of them.
const WIDE: usize = 2;

/// [`mix`] on the columns of `N` vectors. Each element has a single running sum, whatever M and N are.
#[inline(always)]
unsafe fn mix_columns<S: Simd, const M: usize, const N: usize>(
    tile: &Tile,
    weights: *const f32,
    v: *const f32,
    out: *mut f32,
    seen: usize,
    width: usize,
) {
    // SAFETY: the caller's contract: `N` vectors at every value and at every query's result.
    unsafe {
        let mut acc = [[S::splat(0.0); N]; M];
        for j in 0..seen {
            let row = v.add(j * tile.stride);
            let mut value = [S::splat(0.0); N];
            for c in 0..N {
                value[c] = S::load(row.add(c * S::LANES));
            }
            for i in 0..M {
                let weight = S::splat(*weights.add(i * width + j));
                for c in 0..N {
                    acc[i][c] = S::fma(weight, value[c], acc[i][c]);
                }
            }
        }
        for i in 0..M {
            for c in 0..N {
                S::store(out.add(tile.queries[i].at + c * S::LANES), acc[i][c]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
