//! The gated delta rule: linear attention that corrects its state when a key is seen again.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::{
    Level, Shared, Spans, StateSpan, gpu,
    place::{Place, stored, values},
    room::{Room, share},
    serving::{Serving, serving},
    simd::{self, Simd, dispatch},
    state::{check_spans, check_state, idle, update},
};

/// The gated delta rule on packed sequences (Gated DeltaNet, arXiv 2412.06464; transformers
/// `torch_recurrent_gated_delta_rule`).
///
/// For each token and head: `S <- e^g S`, `u = beta (v - Sᵀ k)`, `S <- S + k uᵀ`, and the result is `Sᵀ q`.
///
/// # Shapes
/// `q` and `k` `[n, key_heads, dk]`, normalised and `q` scaled; `v` `[n, value_heads, dv]`, or `[n, value_heads * dv]`, which
/// may be a column range of a wider tensor, read in place; `g` (the logarithm of the decay, at most 0) and `beta`
/// `[n, value_heads]`; `state` `[slots, value_heads, dk, dv]`; all f32, the tokens packed. Result `[n, value_heads, dv]`, 0 at
/// tokens of no span. Value head `j` reads key head `j / (value_heads / key_heads)`. The CUDA kernel also takes `q`, `k` and
/// `v` in bf16 and f16; the result has their type.
///
/// **`state` is changed in place**: every tensor that shares its storage sees the slots of `spans` advance.
///
/// # Errors
/// If the shapes do not fit each other, a span reaches outside the tokens or the slots, two spans name the same slot, or the
/// state is not contiguous or shares its storage with an input. The state is then unchanged.
pub fn delta_rule(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    g: &Tensor,
    beta: &Tensor,
    state: &Tensor,
    spans: &Spans<StateSpan>,
) -> Result<Tensor> {
    match serving(q.device()) {
        Serving::Cpu => recurrent(Level::best(), [q, k, v, g, beta], state, spans),
        Serving::Gpu => gpu::delta_rule([q, k, v, g, beta], state, spans),
        Serving::Plain => delta_rule_reference(q, k, v, g, beta, state, spans.still("delta_rule")?),
    }
}

/// The oracle of [`delta_rule`] in plain candle ops: the chunked form, 64 tokens at a time.
///
/// # Errors
/// As [`delta_rule`].
pub fn delta_rule_reference(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    g: &Tensor,
    beta: &Tensor,
    state: &Tensor,
    spans: &[StateSpan],
) -> Result<Tensor> {
    let size = Size::of([q, k, v, g, beta], state, spans)?;
    let group = (0..size.value_heads as u32).map(|j| j / size.group() as u32).collect::<Vec<_>>();
    let group = Tensor::from_vec(group, size.value_heads, q.device())?;
    // For narrower types the CUDA kernel rounds only the result.
    let (dtype, wide) = (v.dtype(), state.dtype());
    let (q, k, v) = (q.to_dtype(wide)?, k.to_dtype(wide)?, v.contiguous()?.to_dtype(wide)?);
    let v = v.reshape((size.n, size.value_heads, size.dv))?;
    let out = v.zeros_like()?;
    for span in spans.iter().filter(|span| span.len > 0) {
        let mut s = state.get(span.slot)?; // [h, dk, dv]
        if span.start == 0 {
            s = s.zeros_like()?;
        }
        for from in (0..span.len).step_by(CHUNK) {
            let (first, len) = (span.first + from, CHUNK.min(span.len - from));
            let take = |t: &Tensor| t.narrow(0, first, len)?.transpose(0, 1)?.contiguous(); // [heads, l, ..]
            let (q, k) = (take(&q)?.index_select(&group, 0)?, take(&k)?.index_select(&group, 0)?);
            let (z, next) = chunk(&q, &k, &take(&v)?, &take(g)?.unsqueeze(2)?, &take(beta)?.unsqueeze(2)?, &s)?;
            out.slice_set(&z.transpose(0, 1)?.contiguous()?, 0, first)?;
            s = next;
        }
        state.slice_set(&s.unsqueeze(0)?, 0, span.slot)?;
    }
    out.to_dtype(dtype)
}

/// Tokens that the oracle processes at once.
const CHUNK: usize = 64;

/// One chunk of `l` tokens, `[h, l, ..]` each, from state `s` `[h, dk, dv]`: the result and the state after it.
///
/// With `c` the running sum of `g`, token `i` writes `u_i = beta_i (v_i - e^{c_i} Sᵀ k_i) - Σ_{j<i} a_ij u_j`: a
/// triangular system, solved row by row, separately for the parts with and without S.
fn chunk(q: &Tensor, k: &Tensor, v: &Tensor, g: &Tensor, beta: &Tensor, s: &Tensor) -> Result<(Tensor, Tensor)> {
    let (l, dv) = (v.dim(1)?, v.dim(2)?);
    let table = |cell: fn(usize, usize) -> f32| {
        let cells = (0..l).flat_map(|i| (0..l).map(move |j| cell(i, j))).collect::<Vec<_>>();
        Tensor::from_vec(cells, (1, l, l), q.device())
    };
    let before = table(|i, j| if j < i { 1.0 } else { 0.0 })?;
    let until = table(|i, j| if j <= i { 1.0 } else { 0.0 })?;
    let hidden = table(|i, j| if j <= i { 0.0 } else { f32::NEG_INFINITY })?;
    // e^{c_i - c_j} for j <= i. The exponent is summed from j + 1 to i: a difference of two long sums would cancel.
    let decay = until.broadcast_matmul(&g.broadcast_mul(&before)?)?.broadcast_add(&hidden)?.exp()?; // [h, l, l]
    let since = decay.narrow(2, 0, 1)?.broadcast_mul(&g.narrow(1, 0, 1)?.exp()?)?; // e^{c_i} [h, l, 1]
    let to_end = decay.narrow(1, l - 1, 1)?.transpose(1, 2)?; // e^{c_last - c_j} [h, l, 1]

    let kt = k.transpose(1, 2)?.contiguous()?; // [h, dk, l]
    let a = (k.matmul(&kt)? * &decay)?.broadcast_mul(&before)?.broadcast_mul(beta)?; // [h, l, l]
    let rows = Tensor::cat(&[v, &k.broadcast_mul(&since)?], 2)?.broadcast_mul(beta)?; // [h, l, dv + dk]
    for i in 1..l {
        let known = a.narrow(1, i, 1)?.narrow(2, 0, i)?.contiguous()?.matmul(&rows.narrow(1, 0, i)?.contiguous()?)?;
        rows.slice_set(&(rows.narrow(1, i, 1)? - known)?, 1, i)?;
    }
    let w = rows.narrow(2, dv, rows.dim(2)? - dv)?.contiguous()?;
    let u = (rows.narrow(2, 0, dv)? - w.matmul(s)?)?; // [h, l, dv]
    let z = (q.broadcast_mul(&since)?.matmul(s)? + (q.matmul(&kt)? * &decay)?.matmul(&u)?)?;
    let written = k.broadcast_mul(&to_end)?.transpose(1, 2)?.contiguous()?.matmul(&u)?;
    Ok((z, (s.broadcast_mul(&since.narrow(1, l - 1, 1)?)? + written)?))
}

/// The sizes of a delta rule whose arguments were checked to fit each other.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) n: usize,
    pub(crate) key_heads: usize,
    pub(crate) value_heads: usize,
    pub(crate) dk: usize,
    pub(crate) dv: usize,
    /// Where the values are.
    pub(crate) values: Place,
}

impl Size {
    pub(crate) fn of([q, k, v, g, beta]: [&Tensor; 5], state: &Tensor, spans: &[StateSpan]) -> Result<Self> {
        let ((n, key_heads, dk), (slots, value_heads, _, dv)) = (q.dims3()?, state.dims4()?);
        let fit = k.dims() == q.dims()
            && v.dim(0)? == n
            && v.elem_count() == n * value_heads * dv
            && g.dims() == [n, value_heads]
            && beta.dims() == g.dims()
            && state.dims() == [slots, value_heads, dk, dv]
            && key_heads > 0
            && value_heads % key_heads == 0;
        if !fit {
            let [q, k, v, g, beta, state] = [q, k, v, g, beta, state].map(Tensor::shape);
            bail!("delta_rule: q {q:?}, k {k:?}, v {v:?}, g {g:?}, beta {beta:?} and state {state:?} do not fit");
        }
        check_state(NAME, state)?;
        check_spans(NAME, spans, n, slots)?;
        let values = Place::of(NAME, v.layout(), (n, value_heads, dv))?;
        Ok(Self { n, key_heads, value_heads, dk, dv, values })
    }

    /// Value heads that read one key head.
    fn group(&self) -> usize {
        self.value_heads / self.key_heads
    }
}

const NAME: &str = "delta_rule";
/// Columns of the state in one task: with 128 rows they fill a 32 KiB L1 cache.
const BLOCK: usize = 64;
/// Vectors of columns that are processed together.
const WIDE: usize = 4;
/// The number of tokens from which it pays to copy the columns next to each other in the cache.
const COPIED: usize = 4;

/// The tokens of one span on a block of columns of one value head, starting at `from`. Columns of S are independent.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    span: StateSpan,
    head: usize,
    from: usize,
}

fn recurrent(level: Level, inputs: [&Tensor; 5], state: &Tensor, spans: &[StateSpan]) -> Result<Tensor> {
    let size @ Size { n, value_heads, dv, .. } = Size::of(inputs, state, spans)?;
    let mut tasks = Vec::new();
    for &span in spans.iter().filter(|span| span.len > 0) {
        for head in 0..value_heads {
            tasks.extend((0..dv).step_by(BLOCK).map(|from| Task { span, head, from }));
        }
    }
    let [q, k, v, g, beta] = inputs;
    let [q, k, g, beta] = [q, k, g, beta].map(Tensor::contiguous);
    let inputs = [&q?, &k?, v, &g?, &beta?];
    let guards = inputs.map(Tensor::storage_and_layout);
    let [q, k, _, g, beta] = guards.each_ref().map(|guard| values(NAME, guard));
    let slices = [q?, k?, stored(NAME, &guards[2])?, g?, beta?];
    let mut out = Room::new(n * value_heads * dv);
    let to = out.start();
    let tokens = spans.iter().map(|span| span.len).sum::<usize>();
    let share = share(3 * tokens * value_heads * size.dk * dv / tasks.len().max(1));
    update(NAME, state, &inputs, |state| {
        let state = Shared(state.as_mut_ptr());
        tasks.par_iter().with_min_len(share).for_each_init(Vec::new, |columns, &task| {
            // SAFETY: the shapes and spans were checked to fit, no two spans share tokens or a slot, and the tasks of
            // a span have their own columns.
            unsafe { walk(level, size, task, slices.map(<[f32]>::as_ptr), state.get(), to.get(), columns) }
        });
    })?;
    for token in idle(spans, n) {
        // SAFETY: the token's row of the result, which no span has written.
        unsafe { to.get().add(token * value_heads * dv).write_bytes(0, value_heads * dv) }
    }
    // SAFETY: every token is of a span or idle.
    Tensor::from_vec(unsafe { out.filled() }, (n, value_heads, dv), state.device())
}

dispatch! {
    /// Runs one task; `columns` is scratch space for a copy of its columns.
    unsafe fn walk(
        size: Size, task: Task, inputs: [*const f32; 5], state: *mut f32, out: *mut f32, columns: &mut Vec<f32>,
    ) = walk_generic;
}

#[inline(always)]
unsafe fn walk_generic<S: Simd>(
    size: Size,
    task: Task,
    inputs: [*const f32; 5],
    state: *mut f32,
    out: *mut f32,
    columns: &mut Vec<f32>,
) {
    let to = (task.from + BLOCK).min(size.dv);
    let mut from = task.from;
    // SAFETY: the caller's contract, passed on: columns below `dv`.
    unsafe {
        while from + WIDE * S::LANES <= to {
            let task = Task { from, ..task };
            strip::<S, WIDE>(size, task, WIDE * S::LANES, inputs, state, out, columns);
            from += WIDE * S::LANES;
        }
        while from < to {
            let width = S::LANES.min(to - from);
            strip::<S, 1>(size, Task { from, ..task }, width, inputs, state, out, columns);
            from += width;
        }
    }
}

/// Processes the task's tokens on `width` columns, held in `N` vectors.
///
/// The sums over `dk` run in a fixed order, whatever the number of tokens: two running sums (even and odd rows) for
/// `Sᵀ k`, since a single one would wait for its own last addition, and one for `Sᵀ q`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn strip<S: Simd, const N: usize>(
    size: Size,
    task: Task,
    width: usize,
    [q, k, v, g, beta]: [*const f32; 5],
    state: *mut f32,
    out: *mut f32,
    columns: &mut Vec<f32>,
) {
    let (Task { span, head, from }, Size { key_heads, value_heads, dk, dv, .. }) = (task, size);
    // SAFETY: rows of S below `dk` and columns `from..from + width` of it, of v and of out; a copy has whole vectors.
    unsafe {
        let held = state.add((span.slot * value_heads + head) * dk * dv + from);
        let copied = span.len >= COPIED || width < N * S::LANES;
        if span.start == 0 {
            for i in 0..dk {
                held.add(i * dv).write_bytes(0, width);
            }
        }
        let (s, stride) = if copied {
            columns.clear();
            columns.resize(dk * N * S::LANES, 0.0);
            (columns.as_mut_ptr(), N * S::LANES)
        } else {
            (held, dv)
        };
        if copied {
            for i in 0..dk {
                s.add(i * stride).copy_from_nonoverlapping(held.add(i * dv), width);
            }
        }
        for token in span.first..span.first + span.len {
            let key = (token * key_heads + head / size.group()) * dk;
            let (q, k) = (q.add(key), k.add(key));
            let gate = token * value_heads + head;
            let (decay, beta) = ((*g.add(gate)).exp(), *beta.add(gate));
            let value = v.add(size.values.head(token, head) + from);
            let out = out.add(gate * dv + from);

            let mut sums = [[S::splat(0.0); N]; 2];
            for i in (0..dk - dk % 2).step_by(2) {
                add_row::<S, N>(&mut sums[0], *k.add(i), s.add(i * stride));
                add_row::<S, N>(&mut sums[1], *k.add(i + 1), s.add((i + 1) * stride));
            }
            if dk % 2 == 1 {
                add_row::<S, N>(&mut sums[0], *k.add(dk - 1), s.add((dk - 1) * stride));
            }
            let mut u = [S::splat(0.0); N];
            for c in 0..N {
                let at = value.add(c * S::LANES);
                let v = if width < S::LANES { simd::load_part::<S>(at, width) } else { S::load(at) };
                let seen = S::add(sums[0][c], sums[1][c]);
                u[c] = S::mul(S::splat(beta), S::fma(S::splat(-decay), seen, v));
            }
            let decay = S::splat(decay);
            let mut z = [S::splat(0.0); N];
            for i in 0..dk {
                let (key, query) = (S::splat(*k.add(i)), S::splat(*q.add(i)));
                for c in 0..N {
                    let at = s.add(i * stride + c * S::LANES);
                    let row = S::fma(key, u[c], S::mul(decay, S::load(at)));
                    S::store(at, row);
                    z[c] = S::fma(query, row, z[c]);
                }
            }
            for c in 0..N {
                let at = out.add(c * S::LANES);
                if width < S::LANES { simd::store_part::<S>(at, z[c], width) } else { S::store(at, z[c]) }
            }
        }
        if copied {
            for i in 0..dk {
                held.add(i * dv).copy_from_nonoverlapping(s.add(i * stride), width);
            }
        }
    }
}

/// `sums += key * row`
#[inline(always)]
unsafe fn add_row<S: Simd, const N: usize>(sums: &mut [S::F; N], key: f32, row: *const f32) {
    // SAFETY: the caller has `N` vectors at `row`.
    unsafe {
        for c in 0..N {
            sums[c] = S::fma(S::splat(key), S::load(row.add(c * S::LANES)), sums[c]);
        }
    }
}

#[cfg(test)]
mod tests;
