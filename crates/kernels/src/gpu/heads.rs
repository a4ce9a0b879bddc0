//! Heads of a fused projection, on the GPU.

use candle_core::{DType, Result, Tensor, bail};

use super::{Grid, Held, Kernel, address, address_of, alike, form, kernel, launch, packed, room, room_of};
use crate::{AttentionSpan, HeadsOf, Norm, Spans, place::Place};

/// For heads of any size, one warp per head.
const HEADS: Kernel = kernel!(HEADS, "heads");
/// For heads of these sizes; a warp takes as many heads as a 32-bit word holds values.
const IN_ROWS: [(usize, Kernel); 4] = [
    (64, kernel!(HEADS, "heads_64")),
    (128, kernel!(HEADS, "heads_128")),
    (256, kernel!(HEADS, "heads_256")),
    (512, kernel!(HEADS, "heads_512")),
];
/// Values per row: one word per lane.
const ROW: usize = 32;
const ANGLES: Kernel = kernel!(HEADS, "angles");

/// Warps per block; a block handles heads of one token.
const WARPS: usize = 4;
/// Enough blocks to keep any card busy; beyond this number, warps take several heads one after another.
const BLOCKS: usize = 1024;
/// Threads per block, each with one angle.
const THREADS: usize = 256;

/// Kinds of heads that one launch can take.
pub(crate) const MOST_PARTS: usize = 3;

/// `HeadsPart` of `cuda/heads.cu`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Part {
    x: u64,
    weight: u64,
    out: u64,
    token: i64,
    head: i64,
    heads: i32,
    turned: i32,
    cached: i32,
    eps: f32,
}

/// `HeadsArgs` of `cuda/heads.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    parts: [Part; MOST_PARTS],
    cos: u64,
    sin: u64,
    spans: u64,
    heads: i32,
    dim: i32,
    half: i32,
    span_count: i32,
}

/// [`heads`](crate::heads) of several projections.
pub(crate) fn heads<const N: usize>(views: [HeadsOf<'_>; N]) -> Result<[Tensor; N]> {
    let mut out = Vec::with_capacity(N);
    for view in &views {
        out.push(room(&[view.x.dim(0)?, view.count, view.dim], view.x)?);
    }
    let out: [Tensor; N] = out.try_into().expect("one of each");
    let parts: Vec<(HeadsOf<'_>, &Tensor)> = views.into_iter().zip(&out).collect();
    write(&parts, &[], None)?;
    Ok(out)
}

/// [`attended_heads`](crate::attended_heads).
pub(crate) fn attended_heads(
    q: HeadsOf<'_>,
    k: HeadsOf<'_>,
    v: HeadsOf<'_>,
    (keys, values): (&Tensor, &Tensor),
    spans: &Spans<AttentionSpan>,
) -> Result<Tensor> {
    let out = room(&[q.x.dim(0)?, q.count, q.dim], q.x)?;
    write(&[(q, &out)], &[(k, keys), (v, values)], Some(spans))?;
    Ok(out)
}

/// Writes heads to tensors of their own, and heads to their caches. All heads of a launch have the same size, and those that are
/// rotated use the same table of angles.
fn write(
    own: &[(HeadsOf<'_>, &Tensor)],
    cached: &[(HeadsOf<'_>, &Tensor)],
    spans: Option<&Spans<AttentionSpan>>,
) -> Result<()> {
    let name = "heads";
    let all = || own.iter().map(|part| (part, false)).chain(cached.iter().map(|part| (part, true)));
    let Some(((first, _), _)) = all().next() else { return Ok(()) };
    let (n, dim) = (first.x.dim(0)?, first.dim);
    let angles = all().find_map(|((view, _), _)| view.steps.angles);
    let half = match angles {
        Some((cos, sin)) => {
            alike(name, &[first.x, cos, sin])?;
            let half = cos.dims().get(1).copied().unwrap_or(0);
            if cos.dims() != [n, half] || sin.dims() != cos.dims() || 2 * half > dim {
                let (cos, sin) = (cos.shape(), sin.shape());
                bail!("{name}: {n} tokens, heads of {dim} and angles {cos:?} and {sin:?} do not fit");
            }
            half
        }
        None => 0,
    };
    let (size, mut places, mut counts) = (first.x.dtype().size_in_bytes(), vec![], vec![half]);
    let mut parts = [Part::default(); MOST_PARTS];
    for (part, ((view, out), cached)) in parts.iter_mut().zip(all()) {
        let HeadsOf { x, count, steps, .. } = *view;
        let place = Place::of(name, x.layout(), (n, count, view.dim))?;
        alike(name, &[first.x, x, out])?;
        let other =
            steps.angles.filter(|(cos, sin)| angles.is_some_and(|(c, s)| c.id() != cos.id() || s.id() != sin.id()));
        if view.dim != dim || other.is_some() {
            bail!("{name}: {count} heads of {} beside others of {dim}, or turned by other angles", view.dim);
        }
        if let Some(Norm { weight, .. }) = steps.norm {
            alike(name, &[x, weight])?;
            if weight.dims() != [dim] {
                bail!("{name}: heads of {dim} and a norm's weight {:?} do not fit", weight.shape());
            }
        }
        if cached {
            let rows = out.dim(0)?;
            if out.dims() != [rows, count, dim] {
                bail!("{name}: {count} heads of {dim} and a cache {:?} do not fit", out.shape());
            }
            crate::heads::destinations(spans.map_or(&[][..], |spans| spans), n, rows)?;
        }
        let (token, head) = place.strides();
        counts.extend([token, head]);
        *part = Part {
            x: Held::of(x).address()?,
            weight: address_of(name, steps.norm.map(|norm| norm.weight))?,
            out: address(name, out)?,
            token: token as i64,
            head: head as i64,
            heads: count as i32,
            turned: steps.angles.is_some().into(),
            cached: cached.into(),
            eps: steps.norm.map_or(0.0, |norm| norm.eps),
        };
        places.extend([part.x, part.weight, part.out].map(|at| (at, size)));
    }
    let heads = parts.iter().map(|part| part.heads).sum::<i32>();
    let table = spans.filter(|spans| !spans.is_empty()).map(|spans| spans.table(first.x.device())).transpose()?;
    let args = Args {
        parts,
        cos: address_of(name, angles.map(|(cos, _)| cos))?,
        sin: address_of(name, angles.map(|(_, sin)| sin))?,
        spans: address_of(name, table)?,
        heads,
        dim: dim as i32,
        half: half as i32,
        span_count: spans.map_or(0, |spans| spans.len() as i32),
    };
    places.extend([args.cos, args.sin].map(|at| (at, size)));
    let each = 4 / size;
    // Dimensions that rotate together must be a whole number of rows apart, and that number a power of two.
    let rows_apart = half == 0 || half.is_multiple_of(ROW) && (half / ROW).is_power_of_two();
    let fitting = IN_ROWS.iter().find(|(of, _)| *of == dim && rows_apart && packed(each, &places, &counts));
    let (of_warp, kernel) = fitting.map_or((1, &HEADS), |(_, kernel)| (each, kernel));
    let turns = parts.iter().map(|part| (part.heads as usize).div_ceil(of_warp)).sum::<usize>();
    let warps = turns.clamp(1, WARPS);
    let most = turns.div_ceil(warps);
    let blocks = if fitting.is_some() { BLOCKS.div_ceil(n.max(1)).clamp(1, most.max(1)) } else { most };
    let grid = Grid { blocks: [n as u32, blocks as u32, 1], threads: 32 * warps as u32, shared: 0 };
    // SAFETY: `Args` is the kernel's struct; every head has its own place in the result, and `destinations` has refused
    // spans that lead outside the cache or to the same row.
    unsafe { launch(first.x.device(), kernel, form(name, first.x.dtype())?, grid, &args) }
}

/// `AnglesArgs` of `cuda/heads.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct AnglesArgs {
    positions: u64,
    frequencies: u64,
    cos: u64,
    sin: u64,
    n: i32,
    half: i32,
}

/// [`angles`](crate::angles).
pub(crate) fn angles(positions: &Tensor, frequencies: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
    let (name, n, half) = ("angles", positions.dims1()?, frequencies.dims1()?);
    if (positions.dtype(), frequencies.dtype()) != (DType::U32, DType::F32)
        || !positions.device().same_device(frequencies.device())
    {
        bail!("{name}: positions are u32 and frequencies f32, on one device, not {positions:?} and {frequencies:?}");
    }
    let room = || room_of(&[n, half], dtype, positions.device());
    let (cos, sin) = (room()?, room()?);
    if n * half == 0 {
        return Ok((cos, sin));
    }
    let args = AnglesArgs {
        positions: address(name, positions)?,
        frequencies: address(name, frequencies)?,
        cos: address(name, &cos)?,
        sin: address(name, &sin)?,
        n: n as i32,
        half: half as i32,
    };
    let grid = Grid::row((n * half).div_ceil(THREADS), THREADS as u32);
    // SAFETY: `AnglesArgs` is the kernel's struct; every thread writes its own values.
    unsafe { launch(positions.device(), &ANGLES, form(name, dtype)?, grid, &args)? };
    Ok((cos, sin))
}
