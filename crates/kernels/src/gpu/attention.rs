//! Attention on the GPU.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::{Grid, Kernel, address, address_of, alike, form, kernel, launch, room, room_of};
use crate::{AttentionSpan, Spans, attend_reference, attention::within, lambda};

/// Keys of a query that one block of attention reads; further keys go to other blocks. `ATTEND_SPLIT` of `cuda/attention.cuh`.
pub const SPLIT: usize = 512;

/// Warps per block in the decode form without tensor cores.
const WARPS: usize = 8;

/// The largest head size that any form supports.
const MOST: usize = 512;

/// Values of partial results per launch: longer batches take more launches. Tests take so few that theirs do.
const PARTIAL: usize = if cfg!(test) { 1 << 12 } else { 64 << 20 };

/// Queries whose partial results one launch holds, of `jobs` queries of `heads` heads.
fn per_launch(jobs: usize, heads: usize, dim: usize, splits: usize) -> usize {
    (PARTIAL / (heads * splits * dim).max(1)).clamp(1, jobs.max(1))
}

/// Bytes of partial results that [`attend`](crate::attend) holds on a GPU at most, for `tokens` queries of `heads` heads that see up to
/// `longest` keys: none if one block reads all keys of a query.
pub fn attend_partial_bytes(tokens: usize, (heads, dim): (usize, usize), longest: usize) -> usize {
    match longest.div_ceil(SPLIT) {
        0 | 1 => 0,
        // Sums, and a maximum and a total beside each.
        splits => 4 * per_launch(tokens, heads, dim, splits) * heads * splits * (dim + 2),
    }
}

/// The decode form for any type and size, one value at a time.
const ANY: Kernel = kernel!(ATTENTION, "attend_one");

/// The decode form for f32, by head size and by the number of query heads per warp.
static ONE: [(usize, &[Kernel]); 4] = [
    (
        64,
        &[
            kernel!(ATTENTION, only "attend_one_64_1_f32"),
            kernel!(ATTENTION, only "attend_one_64_2_f32"),
            kernel!(ATTENTION, only "attend_one_64_3_f32"),
            kernel!(ATTENTION, only "attend_one_64_4_f32"),
        ],
    ),
    (
        128,
        &[
            kernel!(ATTENTION, only "attend_one_128_1_f32"),
            kernel!(ATTENTION, only "attend_one_128_2_f32"),
            kernel!(ATTENTION, only "attend_one_128_3_f32"),
            kernel!(ATTENTION, only "attend_one_128_4_f32"),
        ],
    ),
    (
        256,
        &[
            kernel!(ATTENTION, only "attend_one_256_1_f32"),
            kernel!(ATTENTION, only "attend_one_256_2_f32"),
            kernel!(ATTENTION, only "attend_one_256_3_f32"),
            kernel!(ATTENTION, only "attend_one_256_4_f32"),
        ],
    ),
    (512, &[kernel!(ATTENTION, only "attend_one_512_1_f32"), kernel!(ATTENTION, only "attend_one_512_2_f32")]),
];

/// The kernels for bf16 and f16, by head size.
struct Halves {
    dim: usize,
    /// The decode form: all heads of a group at once.
    group: Kernel,
    /// The tiled form, for spans of several tokens.
    tile: Kernel,
}

static HALVES: [Halves; 4] = [
    Halves {
        dim: 64,
        group: kernel!(ATTENTION_GROUP, "attend_group_64"),
        tile: kernel!(ATTENTION_TILES, "attend_tile_64"),
    },
    Halves {
        dim: 128,
        group: kernel!(ATTENTION_GROUP, "attend_group_128"),
        tile: kernel!(ATTENTION_TILES, "attend_tile_128"),
    },
    Halves {
        dim: 256,
        group: kernel!(ATTENTION_GROUP, "attend_group_256"),
        tile: kernel!(ATTENTION_TILES, "attend_tile_256"),
    },
    Halves {
        dim: 512,
        group: kernel!(ATTENTION_GROUP, "attend_group_512"),
        tile: kernel!(ATTENTION_TILES, "attend_tile_512"),
    },
];

/// `ATTEND_HEADS` of `cuda/attention_group.cu`.
const HEADS: usize = 16;

const MERGE: Kernel = kernel!(ATTENTION, "attend_merge");

/// Rows per tile, a multiple of 16 for each of 4 warps: `attend_rows` of `cuda/attention_tiles.cu`.
fn rows_of(dim: usize) -> usize {
    if dim <= 128 { 128 } else { 64 }
}

/// `AttendArgs` of `cuda/attention.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    q: u64,
    k: u64,
    v: u64,
    spans: u64,
    lambda: u64,
    out: u64,
    sums: u64,
    tops: u64,
    heads: i32,
    kv: i32,
    dim: i32,
    window: i32,
    splits: i32,
    span_count: i32,
    first: i32,
    each: i32,
    stripes: i32,
    scale: f32,
}

/// `AttendTilesArgs` of `cuda/attention_tiles.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct TilesArgs {
    q: u64,
    k: u64,
    v: u64,
    spans: u64,
    tiles: u64,
    lambda: u64,
    out: u64,
    heads: i32,
    kv: i32,
    window: i32,
    scale: f32,
}

/// [`attend`](crate::attend). Spans of one token take the decode form, and so do all spans where the type has no tensor cores or
/// the head size no tiles. Other spans take tiles, whose bits are the same in any batch but differ from those of the decode
/// form. Heads of more than 512 are left to the reference, which needs spans that cover all tokens.
pub(crate) fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &Spans<AttentionSpan>,
    scale: f32,
    window: Option<usize>,
    lambda: Option<&Tensor>,
) -> Result<Tensor> {
    let name = "attend";
    let ((n, heads, dim), (rows, kv, width)) = (q.dims3()?, k.dims3()?);
    if width != dim || k.dims() != v.dims() || kv == 0 || heads % kv != 0 {
        bail!("{name}: queries {:?}, keys {:?} and values {:?} do not fit", q.shape(), k.shape(), v.shape());
    }
    alike(name, &[q, k, v])?;
    within(spans, n, rows)?;
    if window == Some(0) {
        bail!("{name}: a window of 0 keys hides even the query's own");
    }
    if let Some(lambda) = lambda {
        lambda::check(name, lambda, n, heads)?;
        if !lambda.device().same_device(q.device()) {
            bail!("{name}: lambda on {:?} beside queries on {:?}", lambda.device().location(), q.device().location());
        }
    }
    if dim > MOST {
        return attend_reference(q, k, v, spans.still("attend")?, scale, window, lambda);
    }
    let covered = spans.iter().map(|span| span.len).sum::<usize>();
    let out = if covered < n { q.zeros_like()?.contiguous()? } else { room(q.dims(), q)? };
    if covered == 0 || heads * dim == 0 {
        return Ok(out);
    }
    let q = q.contiguous()?;
    let whole = [&q, k, v].into_iter().map(|x| address(name, x)).collect::<Result<Vec<_>>>()?;
    let aligned = whole.iter().all(|address| address % 16 == 0);
    let halves = HALVES.iter().find(|halves| halves.dim == dim && aligned && q.dtype() != DType::F32);
    let single = |span: &&AttentionSpan| halves.is_none() || span.len == 1;
    let longest = |span: &AttentionSpan| (span.start + span.len).min(window.unwrap_or(usize::MAX));
    let args = Args {
        q: whole[0],
        k: whole[1],
        v: whole[2],
        spans: address(name, spans.table(q.device())?)?,
        lambda: address_of(name, lambda)?,
        out: address(name, &out)?,
        sums: 0,
        tops: 0,
        heads: heads as i32,
        kv: kv as i32,
        dim: dim as i32,
        window: window.unwrap_or(0).min(i32::MAX as usize) as i32,
        splits: spans.iter().filter(single).map(longest).max().unwrap_or(0).div_ceil(SPLIT) as i32,
        span_count: spans.len() as i32,
        first: 0,
        each: spans.iter().filter(single).any(|span| span.len > 1).into(),
        stripes: 1,
        scale,
    };
    if args.splits > 0 {
        let jobs = if args.each == 1 { n } else { spans.len() };
        match halves {
            Some(halves) => in_groups(&q, args, &halves.group, jobs)?,
            None => one_by_one(&q, args, jobs, aligned)?,
        }
    }
    if let Some(halves) = halves {
        in_tiles(&q, args, &halves.tile, spans)?;
    }
    Ok(out)
}

/// The tiles of `rows` rows for groups of `group` heads, u32 `[tiles, 2]`: the span of each, and its first row.
fn tiles_of(spans: &[AttentionSpan], group: usize, rows: usize, device: &Device) -> Result<Tensor> {
    let mut tiles = Vec::new();
    for (i, span) in spans.iter().enumerate().filter(|(_, span)| span.len > 1) {
        tiles.extend((0..span.len * group).step_by(rows).map(|row| (span.start + row / group, [i as u32, row as u32])));
    }
    // Tiles that see the most keys start first, so that none runs alone at the end.
    tiles.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
    let count = tiles.len();
    Tensor::from_vec(tiles.into_iter().flat_map(|(_, tile)| tile).collect::<Vec<_>>(), (count, 2), device)
}

/// The tiled form, for the spans of more than one token.
fn in_tiles(q: &Tensor, args: Args, kernel: &Kernel, spans: &Spans<AttentionSpan>) -> Result<()> {
    if spans.iter().all(|span| span.len <= 1) {
        return Ok(());
    }
    let (kv, dim) = (args.kv as usize, args.dim as usize);
    let group = args.heads as usize / kv;
    let rows = rows_of(dim);
    let list = spans.once(2 * group + usize::from(rows == 128), |spans| tiles_of(spans, group, rows, q.device()))?;
    let count = list.dim(0)?;
    let Args { q: queries, k, v, spans: table, lambda, out, heads, window, scale, .. } = args;
    let args = TilesArgs {
        q: queries,
        k,
        v,
        spans: table,
        tiles: address("attend", &list)?,
        lambda,
        out,
        heads,
        kv: args.kv,
        window,
        scale,
    };
    // A block uses at most 99 KiB, which every card has.
    let (keys, columns) = (
        if dim >= 512 {
            16
        } else if dim >= 256 {
            32
        } else {
            64
        },
        dim.min(256),
    );
    let shared = 2 * ((rows + keys) * (dim + 8) + keys * (columns + 8));
    let grid =
        Grid { blocks: [count as u32, kv as u32, (dim / columns) as u32], threads: 128, shared: 0 }.shared(shared);
    // SAFETY: `TilesArgs` is the kernel's struct; otherwise as in `decode`, and each row of a span is in exactly one tile.
    unsafe { launch(q.device(), kernel, form("attend", q.dtype())?, grid, &args) }
}

/// The decode form on tensor cores.
fn in_groups(q: &Tensor, args: Args, kernel: &Kernel, jobs: usize) -> Result<()> {
    let (kv, dim) = (args.kv as usize, args.dim as usize);
    let chunks = (args.heads as usize / kv).div_ceil(HEADS);
    let keys = if dim >= 512 { 16 } else { 32 };
    // Queries, two tiles each of keys and values, and scores: 85 KiB at most.
    let shared = 2 * (HEADS + 2 * 2 * keys) * (dim + 8) + 4 * (32 / keys) * HEADS * (keys + 8);
    decode(q, args, kernel, jobs, kv * chunks, Grid::row(0, 128).shared(shared))
}

/// The decode form for f32, and for whatever has no form of its own.
fn one_by_one(q: &Tensor, args: Args, jobs: usize, aligned: bool) -> Result<()> {
    let (heads, kv, dim) = (args.heads as usize, args.kv as usize, args.dim as usize);
    let fitting = ONE.iter().find(|(size, _)| *size == dim && aligned && q.dtype() == DType::F32);
    let kernels = fitting.map_or(std::slice::from_ref(&ANY), |(_, kernels)| *kernels);
    // As many warps per group as its heads need, loaded as evenly as possible; the remaining warps of a block share the keys.
    let group = heads / kv;
    let chunks = group.div_ceil(kernels.len());
    let own = group.div_ceil(chunks);
    let stripes = (WARPS / chunks).max(1);
    let warps = stripes * chunks.min(WARPS);
    let args = Args { stripes: stripes as i32, ..args };
    let grid = Grid::row(0, 32 * warps as u32).shared(4 * warps * own * (dim + 2));
    decode(q, args, &kernels[own - 1], jobs, kv, grid)
}

/// Launches a decode form, `across` blocks per query and split, and then the merger if a query has more than one split.
fn decode(q: &Tensor, args: Args, kernel: &Kernel, jobs: usize, across: usize, grid: Grid) -> Result<()> {
    let form = form("attend", q.dtype())?;
    let (heads, dim, splits) = (args.heads as usize, args.dim as usize, args.splits as usize);
    let per_launch = if splits == 1 { jobs } else { per_launch(jobs, heads, dim, splits) };
    let mut args = args;
    // Held until everything is launched.
    let partial = if splits == 1 {
        None
    } else {
        let of = |width: usize| room_of(&[per_launch * heads * splits * width], DType::F32, q.device());
        Some((of(dim)?, of(2)?))
    };
    if let Some((sums, tops)) = &partial {
        (args.sums, args.tops) = (address("attend", sums)?, address("attend", tops)?);
    }
    for first in (0..jobs).step_by(per_launch) {
        let count = per_launch.min(jobs - first) as u32;
        args.first = first as i32;
        let grid = Grid { blocks: [count, across as u32, splits as u32], ..grid };
        // SAFETY: `Args` is the kernel's struct; `within` has refused spans that lead outside the cache or into each other,
        // so every head has its own place in the result, and every split its own in the partial results.
        unsafe { launch(q.device(), kernel, form, grid, &args)? };
        if splits > 1 {
            let grid = Grid { blocks: [count, heads as u32, 1], threads: 128, shared: 0 };
            // SAFETY: as above.
            unsafe { launch(q.device(), &MERGE, form, grid, &args)? };
        }
    }
    Ok(())
}
