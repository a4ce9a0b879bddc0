//! The gated delta rule: linear attention that corrects its state where a key is seen again.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use crate::{
    Level, Shared, StateSpan,
    place::{Place, stored, values},
    room::{Room, share},
    simd::{self, Simd, dispatch},
    state::{check_spans, check_state, idle, update},
};

/// The gated delta rule on packed sequences (Gated DeltaNet, arXiv 2412.06464; transformers
/// `torch_recurrent_gated_delta_rule`).
///
/// Token by token, for each head: `S <- e^g S`, `u = beta (v - Sᵀ k)`, `S <- S + k uᵀ`, and the result is `Sᵀ q`.
///
/// # Shapes
/// `q` and `k` `[n, key_heads, dk]`, normalised and `q` scaled; `v` `[n, value_heads, dv]`, or `[n, value_heads * dv]`, where
/// some columns of a wider row are read where they are; `g` (the logarithm of the
/// decay, at most 0) and `beta` `[n, value_heads]`; `state` `[slots, value_heads, dk, dv]`; all f32, the tokens packed.
/// Result `[n, value_heads, dv]`, 0 at tokens of no span. Value head `j` reads key head `j / (value_heads / key_heads)`.
///
/// **`state` is changed in place**: every tensor that shares its storage sees the slots of `spans` move on.
///
/// # Errors
/// If the shapes do not fit each other, a span reaches outside the tokens or the slots, two spans name one slot, or the
/// state is not contiguous or is the storage of an input. The state is then as it was.
pub fn delta_rule(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    g: &Tensor,
    beta: &Tensor,
    state: &Tensor,
    spans: &[StateSpan],
) -> Result<Tensor> {
    if q.device().is_cpu() {
        recurrent(Level::best(), [q, k, v, g, beta], state, spans)
    } else {
        delta_rule_reference(q, k, v, g, beta, state, spans)
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
    let v = v.contiguous()?.reshape((size.n, size.value_heads, size.dv))?;
    let out = v.zeros_like()?;
    for span in spans.iter().filter(|span| span.len > 0) {
        let mut s = state.get(span.slot)?; // [h, dk, dv]
        if span.start == 0 {
            s = s.zeros_like()?;
        }
        for from in (0..span.len).step_by(CHUNK) {
            let (first, len) = (span.first + from, CHUNK.min(span.len - from));
            let take = |t: &Tensor| t.narrow(0, first, len)?.transpose(0, 1)?.contiguous(); // [heads, l, ..]
            let (q, k) = (take(q)?.index_select(&group, 0)?, take(k)?.index_select(&group, 0)?);
            let (z, next) = chunk(&q, &k, &take(&v)?, &take(g)?.unsqueeze(2)?, &take(beta)?.unsqueeze(2)?, &s)?;
            out.slice_set(&z.transpose(0, 1)?.contiguous()?, 0, first)?;
            s = next;
        }
        state.slice_set(&s.unsqueeze(0)?, 0, span.slot)?;
    }
    Ok(out)
}

/// Tokens that the oracle works on at once.
const CHUNK: usize = 64;

/// One chunk of `l` tokens, `[h, l, ..]` each, from state `s` `[h, dk, dv]`: the result and the state after it.
///
/// With `c` the running sum of `g`, token `i` writes `u_i = beta_i (v_i - e^{c_i} Sᵀ k_i) - Σ_{j<i} a_ij u_j`: a
/// triangular system, solved row by row for the parts with and without S.
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

/// The sizes of a delta rule whose arguments fit each other.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    n: usize,
    key_heads: usize,
    value_heads: usize,
    dk: usize,
    dv: usize,
    /// Where the values lie.
    values: Place,
}

impl Size {
    fn of([q, k, v, g, beta]: [&Tensor; 5], state: &Tensor, spans: &[StateSpan]) -> Result<Self> {
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
/// Columns of the state in one task: with 128 rows they fill a first-level cache of 32 KiB.
const BLOCK: usize = 64;
/// Vectors of columns that are worked on together.
const WIDE: usize = 4;
/// Tokens from which a copy of the columns, side by side in the cache, is worth making.
const COPIED: usize = 4;

/// The tokens of one span on the columns of one value head from `from` on. Columns of S know nothing of each other.
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
            // a span have columns of their own.
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
    /// One task; `columns` is room for a copy of them.
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

/// The task's tokens on `width` columns, which `N` vectors hold.
///
/// The sums over `dk` run in an order of their own, whatever the number of tokens: two running sums (even and odd rows)
/// for `Sᵀ k`, where one would wait for its own last addition, and one for `Sᵀ q`.
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
mod tests {
    use super::*;
    use candle_core::{D, DType, Device};

    /// Largest difference between the two forms; values are of order 1. Measured worst case: 1.3e-6 (2026-11-21).
    const TOLERANCE: f32 = 1e-5;

    fn values(shape: &[usize], seed: u32) -> Result<Tensor> {
        let count = shape.iter().product::<usize>() as u32;
        let value = |i: u32| ((i ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
        Tensor::from_vec((0..count).map(value).collect::<Vec<_>>(), shape, &Device::Cpu)
    }

    fn normalised(x: &Tensor) -> Result<Tensor> {
        x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
    }

    /// (key heads, value heads, dk, dv)
    type Dims = (usize, usize, usize, usize);
    const DIMS: [Dims; 5] = [(2, 4, 16, 24), (3, 3, 21, 7), (1, 2, 5, 1), (1, 1, 128, 128), (1, 2, 32, 112)];

    /// q, k, v, g and beta of `n` tokens; the logarithms of the decays reach down to `-strength`.
    fn inputs(n: usize, (key_heads, value_heads, dk, dv): Dims, strength: f64) -> Result<[Tensor; 5]> {
        let q = (normalised(&values(&[n, key_heads, dk], 1)?)? / (dk as f64).sqrt())?;
        let k = normalised(&values(&[n, key_heads, dk], 2)?)?;
        // Cubed, so that strong and weak decays alternate.
        let g = values(&[n, value_heads], 4)?.affine(-0.5, -0.5)?.powf(3.0)?.affine(strength, 0.0)?;
        let beta = values(&[n, value_heads], 5)?.affine(0.5, 0.5)?;
        Ok([q, k, values(&[n, value_heads, dv], 3)?, g, beta])
    }

    fn states(slots: usize, (_, value_heads, dk, dv): Dims) -> Result<Tensor> {
        values(&[slots, value_heads, dk, dv], 6)
    }

    fn fast(level: Level, inputs: &[Tensor; 5], state: &Tensor, spans: &[StateSpan]) -> Result<Tensor> {
        recurrent(level, inputs.each_ref(), state, spans)
    }

    fn oracle([q, k, v, g, beta]: &[Tensor; 5], state: &Tensor, spans: &[StateSpan]) -> Result<Tensor> {
        delta_rule_reference(q, k, v, g, beta, state, spans)
    }

    /// Both forms on one sequence, from zero and from a carried state.
    fn check(inputs: &[Tensor; 5], dims: Dims, what: &str) -> Result<()> {
        let len = inputs[0].dim(0)?;
        for start in [0, 9] {
            let span = [StateSpan { first: 0, len, start, slot: 1 }];
            let expected_state = states(3, dims)?;
            let expected = oracle(inputs, &expected_state, &span)?;
            for level in Level::available() {
                let state = states(3, dims)?;
                let z = fast(level, inputs, &state, &span)?;
                let off = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
                let worst = off(&z, &expected)?.max(off(&state, &expected_state)?);
                println!("delta_rule {level:?} {what}: {worst:e} of {TOLERANCE:e}");
                assert!(worst < TOLERANCE, "{level:?} {what} of {len} tokens, {dims:?} from {start}: {worst:e}");
            }
        }
        Ok(())
    }

    #[test]
    fn recurrent_and_chunked_are_the_same_rule() -> Result<()> {
        for len in [1, 3, 4, 63, 64, 65, 130] {
            for dims in DIMS {
                for strength in [0.01, 1.0, 50.0] {
                    check(&inputs(len, dims, strength)?, dims, &format!("decay {strength}"))?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn repeated_keys_are_the_same_rule() -> Result<()> {
        for dims @ (key_heads, value_heads, dk, _) in DIMS {
            let [q, _, v, g, _] = inputs(130, dims, 0.01)?;
            let k = normalised(&values(&[1, key_heads, dk], 2)?)?.repeat((130, 1, 1))?;
            let beta = Tensor::ones((130, value_heads), DType::F32, &Device::Cpu)?;
            check(&[q, k, v, g, beta], dims, "one key")?;
        }
        Ok(())
    }

    /// Two tokens by hand, so that both forms are held to the rule and not only to each other.
    #[test]
    fn two_tokens_by_hand() -> Result<()> {
        let new = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
        let inputs = [
            new(&[1.0, 1.0, 0.0, 1.0], &[2, 1, 2])?,
            new(&[1.0, 0.0, 0.6, 0.8], &[2, 1, 2])?,
            new(&[2.0, 4.0, 1.0, 1.0], &[2, 1, 2])?,
            new(&[-3.0, 0.5f32.ln()], &[2, 1])?,
            new(&[0.5, 1.0], &[2, 1])?,
        ];
        let spans = [StateSpan { first: 0, len: 2, start: 0, slot: 0 }];
        for op in [oracle, |i: &_, state: &_, spans: &_| fast(Level::best(), i, state, spans)] {
            let state = Tensor::full(7f32, (1, 1, 2, 2), &Device::Cpu)?;
            let z = op(&inputs, &state, &spans)?.flatten_all()?.to_vec1::<f32>()?;
            // u = (1, 2); then half of it is left, Sᵀ k = (0.3, 0.6) and u = (0.7, 0.4).
            let s = state.flatten_all()?.to_vec1::<f32>()?;
            for (got, expected) in z.iter().chain(&s).zip([1.0, 2.0, 0.56, 0.32, 0.92, 1.24, 0.56, 0.32]) {
                assert!((got - expected).abs() < TOLERANCE, "{z:?} {s:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_sequence_is_the_same_bits_however_it_is_cut() -> Result<()> {
        let bits = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        for dims in DIMS {
            let packed = inputs(40, dims, 1.0)?;
            let spans = [
                StateSpan { first: 0, len: 6, start: 4, slot: 2 },
                StateSpan { first: 6, len: 31, start: 0, slot: 0 },
                StateSpan { first: 37, len: 3, start: 0, slot: 1 },
            ];
            for level in Level::available() {
                let whole = states(3, dims)?;
                let all = fast(level, &packed, &whole, &spans)?.narrow(0, 6, 31)?;
                for len in [1, 2, 5, 16] {
                    let carried = states(2, dims)?;
                    for start in (0..31).step_by(len) {
                        let len = len.min(31 - start);
                        let [q, k, v, g, beta] = packed.each_ref().map(|t| t.narrow(0, 6 + start, len));
                        let span = [StateSpan { first: 0, len, start, slot: 1 }];
                        let piece = fast(level, &[q?, k?, v?, g?, beta?], &carried, &span)?;
                        assert_eq!(bits(&piece)?, bits(&all.narrow(0, start, len)?)?, "{level:?} {dims:?} {span:?}");
                    }
                    assert_eq!(bits(&carried.get(1)?)?, bits(&whole.get(0)?)?, "{level:?} {dims:?} pieces of {len}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn tokens_and_slots_of_no_span_are_left_alone() -> Result<()> {
        let dims = DIMS[0];
        let inputs = inputs(6, dims, 1.0)?;
        let spans =
            [StateSpan { first: 1, len: 2, start: 0, slot: 2 }, StateSpan { first: 4, len: 0, start: 0, slot: 0 }];
        for op in [oracle, |i: &_, state: &_, spans: &_| fast(Level::best(), i, state, spans)] {
            let (before, state) = (states(3, dims)?, states(3, dims)?);
            let z = op(&inputs, &state, &spans)?.abs()?.sum((1, 2))?.to_vec1::<f32>()?;
            assert!(z[1] > 0.0 && z[2] > 0.0 && [z[0], z[3], z[4], z[5]] == [0.0; 4], "{z:?}");
            let change = (state - before)?.abs()?.sum((1, 2, 3))?.to_vec1::<f32>()?;
            assert!(change[2] > 0.0 && change[..2] == [0.0; 2], "{change:?}");
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() -> Result<()> {
        let dims = DIMS[0];
        let [q, k, v, g, beta] = inputs(4, dims, 1.0)?;
        let state = states(2, dims)?;
        let before = state.copy()?;
        let span = |len, slot| [StateSpan { first: 0, len, start: 1, slot }];
        let refused = |inputs: [&Tensor; 5], state: &Tensor, spans: &[StateSpan], why: &str| {
            let [q, k, v, g, beta] = inputs;
            for op in [delta_rule, delta_rule_reference] {
                let error = op(q, k, v, g, beta, state, spans).unwrap_err().to_string();
                assert!(error.contains(why), "'{error}' does not say '{why}'");
            }
        };
        refused([&q, &k, &v, &g, &v], &state, &span(4, 0), "do not fit");
        refused([&v, &v, &q, &g, &beta], &state, &span(4, 0), "do not fit");
        refused([&q, &k, &v, &g, &beta], &state, &span(5, 0), "outside 4 tokens or 2 slots");
        refused([&q, &k, &v, &g, &beta], &state, &span(4, 2), "outside 4 tokens or 2 slots");
        let scattered = states(2, (2, 4, 24, 16))?.transpose(2, 3)?;
        refused([&q, &k, &v, &g, &beta], &scattered, &span(4, 0), "must be contiguous");
        assert_eq!((state - before)?.abs()?.max_all()?.to_scalar::<f32>()?, 0.0);
        Ok(())
    }
}
