//! Causal attention of packed sequences of any lengths against their cache slots.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::{
    Level, Shared,
    dot::dots,
    simd::{self, Simd, dispatch},
};

/// One sequence's share of the packed queries, and where its keys lie.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSpan {
    /// The first packed token of the sequence.
    pub first: usize,
    /// Its tokens in this call.
    pub len: usize,
    /// The position of the first of them: query `i` sees the keys of positions `0..=start + i`.
    pub start: usize,
    /// The cache row that holds the key of position 0; later positions follow.
    pub cache: usize,
}

/// Causal attention with grouped key/value heads, in f32 (transformers `eager_attention_forward`).
///
/// # Shapes
/// `q` `[n, head, dim]` f32, packed; `k` and `v` `[cache rows, kv, dim]` f32, already holding the new tokens; result
/// `[n, head, dim]`. Query head `h` reads key/value head `h / (heads / kv)`.
///
/// # Errors
/// If the shapes do not fit each other or a span reaches outside the cache.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, spans: &[AttentionSpan], scale: f32) -> Result<Tensor> {
    if q.device().is_cpu() {
        let op = Attend { spans, scale, level: Level::best() };
        q.contiguous()?.apply_op3_no_bwd(k, v, &op)
    } else {
        attend_reference(q, k, v, spans, scale)
    }
}

/// The oracle of [`attend`] in plain candle ops: whole score matrices, sequence by sequence.
///
/// # Errors
/// If the shapes do not fit each other or a span reaches outside the cache.
pub fn attend_reference(q: &Tensor, k: &Tensor, v: &Tensor, spans: &[AttentionSpan], scale: f32) -> Result<Tensor> {
    let (heads, kv) = (q.dim(1)?, k.dim(1)?);
    let group = (0..heads as u32).map(|h| h / (heads / kv) as u32).collect::<Vec<_>>();
    let group = Tensor::from_vec(group, heads, q.device())?;
    let mut out = Vec::with_capacity(spans.len());
    for span in spans {
        let keys = span.start + span.len;
        let take = |cache: &Tensor| cache.narrow(0, span.cache, keys)?.index_select(&group, 1)?.transpose(0, 1); // [h, keys, d]
        let q = q.narrow(0, span.first, span.len)?.transpose(0, 1)?.contiguous()?; // [h, len, d]
        let scores = (q.matmul(&take(k)?.t()?.contiguous()?)? * f64::from(scale))?.to_dtype(DType::F32)?; // [h, len, keys]
        let mask: Vec<f32> = (0..span.len)
            .flat_map(|i| (0..keys).map(move |j| if j <= span.start + i { 0.0 } else { f32::NEG_INFINITY }))
            .collect();
        let scores = scores.broadcast_add(&Tensor::from_vec(mask, (1, span.len, keys), q.device())?)?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?.to_dtype(v.dtype())?;
        out.push(weights.matmul(&take(v)?.contiguous()?)?.transpose(0, 1)?); // [len, h, d]
    }
    Tensor::cat(&out, 0)
}

struct Attend<'a> {
    spans: &'a [AttentionSpan],
    scale: f32,
    level: Level,
}

/// Queries of one key/value head that are worked on together.
const TILE: usize = 6;

/// Where one tile of queries finds its data; offsets in elements.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// The queries: (offset of the head vector in q and out, keys it sees).
    queries: [(usize, usize); TILE],
    count: usize,
    /// Offset of the first key of this key/value head in the cache.
    keys: usize,
    /// Elements between one position's key and the next.
    stride: usize,
    dim: usize,
    scale: f32,
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
        let mut end = 0;
        for span in self.spans {
            let (queries, keys) = (span.first.checked_add(span.len), span.cache.checked_add(span.start));
            let keys = keys.and_then(|keys| keys.checked_add(span.len));
            let inside = queries.is_some_and(|queries| queries <= n) && keys.is_some_and(|keys| keys <= rows);
            // In order, so that no two spans write the same output.
            if !inside || span.first < end {
                bail!("attend: {span:?} reaches outside {n} queries or {rows} cache rows, or into the span before it");
            }
            end = span.first + span.len;
        }
        let tiles = self.tiles(heads, kv, dim);
        let mut out = vec![0f32; n * heads * dim];
        let shared = Shared(out.as_mut_ptr());
        tiles.par_iter().with_min_len(4).for_each_init(Vec::new, |scores, tile| {
            // SAFETY: the spans were checked to lie inside `q` and the cache and apart from each other, so that each
            // tile writes head vectors of its own.
            unsafe { attend_tile(self.level, tile, q.as_ptr(), k.as_ptr(), v.as_ptr(), shared.get(), scores) }
        });
        Ok((CpuStorage::F32(out), lq.shape().clone()))
    }
}

impl Attend<'_> {
    fn tiles(&self, heads: usize, kv: usize, dim: usize) -> Vec<Tile> {
        let group = heads / kv;
        let mut tiles = Vec::new();
        for span in self.spans {
            for head in 0..kv {
                // The queries of a key/value head: every token's heads of the group, by position.
                let query = |i: usize| {
                    let (token, h) = (i / group, head * group + i % group);
                    (((span.first + token) * heads + h) * dim, span.start + token + 1)
                };
                for from in (0..span.len * group).step_by(TILE) {
                    let count = TILE.min(span.len * group - from);
                    tiles.push(Tile {
                        queries: std::array::from_fn(|i| query(from + i.min(count - 1))),
                        count,
                        keys: (span.cache * kv + head) * dim,
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
    let seen = tile.queries[tile.count - 1].1; // the last query of a tile sees most
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
            softmax::<S>(scores.as_mut_ptr().add(i * width), tile.queries[i].1, width);
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
        let queries: [*const f32; M] = std::array::from_fn(|i| q.add(tile.queries[i].0));
        let mut j = 0;
        while j + 4 <= seen {
            let d = dots::<S, f32, 4, M>(tile.dim, k.add(j * tile.stride), tile.stride, queries);
            for i in 0..M {
                for r in 0..4 {
                    *scores.add(i * width + j + r) = d[r][i] * tile.scale;
                }
            }
            j += 4;
        }
        while j < seen {
            let d = dots::<S, f32, 1, M>(tile.dim, k.add(j * tile.stride), tile.stride, queries);
            for i in 0..M {
                *scores.add(i * width + j) = d[0][i] * tile.scale;
            }
            j += 1;
        }
    }
}

/// Softmax over the first `seen` of a row of `width` scores; what lies beyond becomes 0.
#[inline(always)]
unsafe fn softmax<S: Simd>(row: *mut f32, seen: usize, width: usize) {
    // SAFETY: `row` holds `width` values, a whole number of vectors.
    unsafe {
        for j in seen..width {
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
            if j + S::LANES > seen {
                for i in seen.max(j)..j + S::LANES {
                    *row.add(i) = 0.0;
                }
            }
            sum = S::add(sum, S::load(row.add(j)));
        }
        let scale = S::splat(1.0 / S::sum(sum));
        for j in (0..width).step_by(S::LANES) {
            S::store(row.add(j), S::mul(S::load(row.add(j)), scale));
        }
    }
}

/// `out_i = Σ_j weights[i][j] v_j`, in order of position.
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
        let whole = tile.dim - tile.dim % S::LANES;
        let mut c = 0;
        while c < whole {
            let mut acc = [S::splat(0.0); M];
            for j in 0..seen {
                let value = S::load(v.add(j * tile.stride + c));
                for i in 0..M {
                    acc[i] = S::fma(S::splat(*weights.add(i * width + j)), value, acc[i]);
                }
            }
            for i in 0..M {
                S::store(out.add(tile.queries[i].0 + c), acc[i]);
            }
            c += S::LANES;
        }
        while c < tile.dim {
            for i in 0..M {
                let mut acc = 0f32;
                for j in 0..seen {
                    acc += *weights.add(i * width + j) * *v.add(j * tile.stride + c);
                }
                *out.add(tile.queries[i].0 + c) = acc;
            }
            c += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use proptest::prelude::*;

    /// Largest difference to the oracle; values are of order 1. Measured worst case: 1.7e-6 (2026-11-21).
    const TOLERANCE: f32 = 1e-5;

    fn values(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 4_194_304.0 - 2.0).collect()
    }

    /// Packed queries for spans (start, len), their caches end to end.
    fn inputs(
        spans: &[(usize, usize)],
        heads: usize,
        kv: usize,
        dim: usize,
    ) -> Result<(Tensor, Tensor, Tensor, Vec<AttentionSpan>)> {
        let (mut first, mut cache, mut list) = (0, 0, Vec::new());
        for &(start, len) in spans {
            list.push(AttentionSpan { first, len, start, cache });
            first += len;
            cache += start + len;
        }
        let make =
            |rows, heads, seed| Tensor::from_vec(values(rows * heads * dim, seed), (rows, heads, dim), &Device::Cpu);
        Ok((make(first, heads, 3)?, make(cache, kv, 5)?, make(cache, kv, 11)?, list))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_level_is_the_oracle(
            spans in prop::collection::vec((0usize..40, 1usize..20), 1..4), kv in 1usize..3, group in 1usize..4, dim in 1usize..40,
        ) {
            let (q, k, v, list) = inputs(&spans, kv * group, kv, dim).unwrap();
            let oracle = attend_reference(&q, &k, &v, &list, 0.3).unwrap();
            for level in Level::available() {
                let fast = q.apply_op3_no_bwd(&k, &v, &Attend { spans: &list, scale: 0.3, level }).unwrap();
                let worst = (fast - &oracle).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                println!("attend {level:?}: {worst:e} of {TOLERANCE:e}");
                prop_assert!(worst < TOLERANCE, "{level:?} {spans:?} kv {kv} group {group} dim {dim}: {worst:e}");
            }
        }
    }

    #[test]
    fn prefill_and_decode_are_the_same_bits() -> Result<()> {
        let (q, k, v, list) = inputs(&[(0, 23)], 6, 2, 20)?;
        for level in Level::available() {
            let all = q.apply_op3_no_bwd(&k, &v, &Attend { spans: &list, scale: 0.2, level })?;
            for i in 0..23 {
                let one = [AttentionSpan { first: 0, len: 1, start: i, cache: 0 }];
                let step = q.narrow(0, i, 1)?.contiguous()?;
                let step = step.apply_op3_no_bwd(&k, &v, &Attend { spans: &one, scale: 0.2, level })?;
                assert_eq!(step.to_vec3::<f32>()?, all.narrow(0, i, 1)?.to_vec3::<f32>()?, "{level:?} token {i}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_span_outside_the_cache_is_refused() -> Result<()> {
        let (q, k, v, mut list) = inputs(&[(0, 4)], 2, 1, 8)?;
        list[0].start = 1;
        assert!(attend(&q, &k, &v, &list, 1.0).unwrap_err().to_string().contains("outside"));
        Ok(())
    }
}
