//! Chooses the next token of rows, on the GPU.

use candle_core::{DType, Result, Tensor, bail};

use super::{Grid, Kernel, address, kernel, launch, room_of};
use crate::{Chosen, Draw};

const PEAKS: Kernel = kernel!(SAMPLE, only "sample_peaks");
const CUTS: Kernel = kernel!(SAMPLE, only "sample_cuts");
const DRAWS: Kernel = kernel!(SAMPLE, only "sample_draws");
const ENDS: Kernel = kernel!(SAMPLE, only "sample_ends");

/// `SampleArgs` of `cuda/sample.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    logits: u64,
    draws: u64,
    peaks: u64,
    rows: u64,
    bests: u64,
    tokens: u64,
    chosen: u64,
    vocab: i32,
    parts: i32,
}

/// The largest vocabulary: this many probabilities in units of 2^-44 add up to a 64-bit number.
pub(crate) const MOST_TOKENS: usize = 1 << 19;
/// Logits per part, `SAMPLE_PART`.
const PART: usize = 8192;
/// Bytes of `SampleRoom`.
const ROOM: usize = 8 * (2048 + 3072 + 32 + 2) + 16 + 8;
/// Words in a row's draw, `DrawRow`.
pub(super) const DRAW: usize = 16;
/// The index of the lower half of the step among them.
pub(super) const STEP: usize = 10;

/// Whether the kernels support these logits.
pub(crate) fn chooses(logits: &Tensor) -> bool {
    matches!(logits.dims(), [_, 1..=MOST_TOKENS]) && logits.dtype() == DType::F32
}

/// [`choose`](crate::choose) of supported logits.
pub(crate) fn choose(logits: &Tensor, draws: &[Draw]) -> Result<Vec<Option<Chosen>>> {
    let rows = logits.dim(0)?;
    if draws.len() != rows {
        bail!("choose: {rows} rows need as many draws, not {}", draws.len());
    }
    for (row, draw) in draws.iter().enumerate() {
        check("choose", row, draw)?;
    }
    let table: Vec<u32> = draws.iter().flat_map(words).collect();
    let table = Tensor::from_vec(table, (rows, DRAW), logits.device())?;
    let (_, chosen) = choose_by(logits, &table)?;
    let chosen = chosen.to_vec2::<f64>()?;
    Ok(chosen.iter().map(|row| row[0].is_finite().then(|| Chosen { token: row[0] as u32, logprob: row[1] })).collect())
}

/// Refuses a draw whose settings the kernels would not treat as documented.
pub(super) fn check(name: &str, row: usize, draw: &Draw) -> Result<()> {
    let Draw { temperature, top_p, min_p, step, .. } = *draw;
    let rule = |ok: bool, what: &str, found: String, allowed: &str| {
        if ok { Ok(()) } else { bail!("{name}: {what} of row {row} is {found}, but must be {allowed}") }
    };
    rule(temperature.is_finite() && temperature >= 0.0, "temperature", temperature.to_string(), "0 or above")?;
    rule(top_p > 0.0 && top_p <= 1.0, "top_p", top_p.to_string(), "above 0 and at most 1")?;
    rule((0.0..=1.0).contains(&min_p), "min_p", min_p.to_string(), "from 0 to 1")?;
    rule(step < 1 << 35, "step", step.to_string(), "below 2^35")
}

/// A row of the table of draws that the kernels read, `DrawRow`.
pub(super) fn words(draw: &Draw) -> [u32; DRAW] {
    let halves = |x: u64| [x as u32, (x >> 32) as u32];
    let mut words = [0; DRAW];
    words[..8].copy_from_slice(&draw.key);
    words[8..10].copy_from_slice(&halves(draw.stream));
    words[10..12].copy_from_slice(&halves(draw.step));
    words[12] = draw.temperature.to_bits();
    words[13] = u32::try_from(draw.top_k).unwrap_or(u32::MAX);
    words[14] = draw.top_p.to_bits();
    words[15] = draw.min_p.to_bits();
    words
}

/// The tokens, u32 `[rows]`, and each token with its log-probability, f64 `[rows, 2]`, from a table of draws on the device. The host
/// reads nothing.
pub(super) fn choose_by(logits: &Tensor, table: &Tensor) -> Result<(Tensor, Tensor)> {
    let name = "choose";
    let (rows, vocab) = logits.dims2()?;
    let (logits, device) = (logits.contiguous()?, logits.device());
    let parts = vocab.div_ceil(PART);
    let [peaks, bests] = [(); 2].map(|()| room_of(&[rows, parts, 2], DType::F64, device));
    let (peaks, bests) = (peaks?, bests?);
    let [states, chosen] = [5, 2].map(|numbers| room_of(&[rows, numbers], DType::F64, device));
    let (states, chosen) = (states?, chosen?);
    let tokens = room_of(&[rows], DType::U32, device)?;
    let args = Args {
        logits: address(name, &logits)?,
        draws: address(name, table)?,
        peaks: address(name, &peaks)?,
        rows: address(name, &states)?,
        bests: address(name, &bests)?,
        tokens: address(name, &tokens)?,
        chosen: address(name, &chosen)?,
        vocab: vocab as i32,
        parts: parts as i32,
    };
    // What the eight warps exchange: a peak and its logit, or the best of each. Rows are in x, because there may be at most
    // 65,535 blocks in y.
    let by_part = Grid { blocks: [rows as u32, parts as u32, 1], threads: 256, shared: 8 * (16 + 4) };
    let by_row = |threads| Grid::row(rows, threads);
    // SAFETY: `Args` is the struct of all four kernels, each reads what the one before it wrote, and every row has its own memory.
    unsafe {
        launch(device, &PEAKS, 0, by_part, &args)?;
        launch(device, &CUTS, 0, by_row(1024).shared(ROOM), &args)?;
        launch(device, &DRAWS, 0, by_part, &args)?;
        launch(device, &ENDS, 0, by_row(32), &args)?;
    }
    Ok((tokens, chosen))
}
