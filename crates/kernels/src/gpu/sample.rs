//! Chooses the next token of rows, on the GPU.

use candle_core::{DType, Result, Tensor, bail};

use super::{Grid, Kernel, address, address_of, kernel, launch, room_of};
use crate::{Choice, Chosen, Draw, Penalties};

const PEAKS: Kernel = kernel!(SAMPLE, only "sample_peaks");
const PENALTIES: Kernel = kernel!(SAMPLE, only "sample_penalties");
const CHOOSING_PEAKS: Kernel = kernel!(SAMPLE, only "sample_choosing_peaks");
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
    choosing: u64,
    rows: u64,
    bests: u64,
    tokens: u64,
    chosen: u64,
    penalties: u64,
    text: u64,
    kept: u64,
    newest: u64,
    vocab: i32,
    parts: i32,
    text_size: i32,
}

/// The largest vocabulary: this many probabilities in units of 2^-44 add up to a 64-bit number.
pub(crate) const MOST_TOKENS: usize = 1 << 19;
/// Logits per part, `SAMPLE_PART`.
const PART: usize = 8192;
/// Bytes of `SampleRoom`.
const ROOM: usize = 8 * (2048 + 3072 + 32 + 3) + 16 + 8;
/// Words in a row's draw, `DrawRow`.
pub(super) const DRAW: usize = 16;
/// The index of the lower half of the step among them.
pub(super) const STEP: usize = 10;
/// Words in a row's penalties, `PenaltyRow`.
pub(super) const PENALTY: usize = 4;

/// What rows' texts do to their logits, on the device. The kernels add each row's newest token to its text.
pub(super) struct Texts {
    /// u32 `[rows, PENALTY]`.
    pub(super) penalties: Tensor,
    /// u32 `[rows, size]`: the words of `TextTokens`, of which a row's penalties tell the number.
    pub(super) words: Tensor,
    /// u32 `[rows]`: a token that each row has written since, if there is one.
    pub(super) newest: Option<Tensor>,
}

/// Whether the kernels support these logits.
pub(crate) fn chooses(logits: &Tensor) -> bool {
    matches!(logits.dims(), [_, 1..=MOST_TOKENS]) && logits.dtype() == DType::F32
}

/// [`choose`](crate::choose) of supported logits.
pub(crate) fn choose(logits: &Tensor, choices: &[Choice<'_>]) -> Result<Vec<Option<Chosen>>> {
    let (rows, vocab) = logits.dims2()?;
    if choices.len() != rows {
        bail!("choose: {rows} rows need as many choices, not {}", choices.len());
    }
    for (row, choice) in choices.iter().enumerate() {
        check("choose", row, choice)?;
        let tokens = choice.penalties.iter().flat_map(|penalties| penalties.text.tokens());
        if let Some((token, _)) = tokens.into_iter().find(|&(token, _)| token as usize >= vocab) {
            bail!("choose: the text of row {row} has token {token}, but the vocabulary has {vocab}");
        }
    }
    let on_device = |words: Vec<u32>, width| Tensor::from_vec(words, (rows, width), logits.device());
    let table = on_device(choices.iter().flat_map(|choice| words(&choice.draw)).collect(), DRAW)?;
    let sizes = choices.iter().filter_map(|choice| Some(choice.penalties?.text.words().len()));
    let texts = match sizes.max().unwrap_or(0) {
        0 => None,
        size => Some(Texts {
            penalties: on_device(choices.iter().flat_map(|choice| penalty_words(choice.penalties)).collect(), PENALTY)?,
            words: on_device(choices.iter().flat_map(|choice| text_words(choice.penalties, size)).collect(), size)?,
            newest: None,
        }),
    };
    let (_, chosen) = choose_by(logits, &table, texts.as_ref())?;
    let chosen = chosen.to_vec2::<f64>()?;
    Ok(chosen.iter().map(|row| row[0].is_finite().then(|| Chosen { token: row[0] as u32, logprob: row[1] })).collect())
}

/// Refuses settings that the kernels would not treat as documented.
pub(super) fn check(name: &str, row: usize, choice: &Choice<'_>) -> Result<()> {
    let Draw { temperature, top_p, min_p, step, .. } = choice.draw;
    let rule = |ok: bool, what: &str, found: String, allowed: &str| {
        if ok { Ok(()) } else { bail!("{name}: {what} of row {row} is {found}, but must be {allowed}") }
    };
    rule(temperature.is_finite() && temperature >= 0.0, "temperature", temperature.to_string(), "0 or above")?;
    rule(top_p > 0.0 && top_p <= 1.0, "top_p", top_p.to_string(), "above 0 and at most 1")?;
    rule((0.0..=1.0).contains(&min_p), "min_p", min_p.to_string(), "from 0 to 1")?;
    rule(step < 1 << 35, "step", step.to_string(), "below 2^35")?;
    let Some(Penalties { repetition, presence, .. }) = choice.penalties else { return Ok(()) };
    let possible = repetition.is_finite() && repetition > 0.0;
    rule(possible, "repetition penalty", repetition.to_string(), "above 0 and finite")?;
    rule(presence.is_finite(), "presence penalty", presence.to_string(), "finite")
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

/// A row of the table of penalties that the kernels read, `PenaltyRow`.
pub(super) fn penalty_words(penalties: Option<Penalties<'_>>) -> [u32; PENALTY] {
    let of = |it: Penalties<'_>| [it.text.words().len() as u32, it.repetition.to_bits(), it.presence.to_bits(), 0];
    penalties.map_or([0; PENALTY], of)
}

/// A row of the table of texts, filled up to `size` words.
pub(super) fn text_words(penalties: Option<Penalties<'_>>, size: usize) -> impl Iterator<Item = u32> {
    let words = penalties.map_or(&[][..], |penalties| penalties.text.words());
    words.iter().copied().chain(std::iter::repeat(0)).take(size)
}

/// The tokens, u32 `[rows]`, and each token with its log-probability, f64 `[rows, 2]`, from tables on the device. The host reads
/// nothing. Logits of texts' tokens are replaced meanwhile and put back in the end.
pub(super) fn choose_by(logits: &Tensor, table: &Tensor, texts: Option<&Texts>) -> Result<(Tensor, Tensor)> {
    let name = "choose";
    let (rows, vocab) = logits.dims2()?;
    let (logits, device) = (logits.contiguous()?, logits.device());
    let parts = vocab.div_ceil(PART);
    let [peaks, bests] = [(); 2].map(|()| room_of(&[rows, parts, 2], DType::F64, device));
    let (peaks, bests) = (peaks?, bests?);
    let [states, chosen] = [5, 2].map(|numbers| room_of(&[rows, numbers], DType::F64, device));
    let (states, chosen) = (states?, chosen?);
    let tokens = room_of(&[rows], DType::U32, device)?;
    let text_size = texts.map_or(Ok(0), |texts| texts.words.dim(1))?;
    let again = texts.map(|_| room_of(&[rows, parts, 2], DType::F64, device)).transpose()?;
    let kept = texts.map(|_| room_of(&[rows, text_size], DType::F32, device)).transpose()?;
    let args = Args {
        logits: address(name, &logits)?,
        draws: address(name, table)?,
        peaks: address(name, &peaks)?,
        choosing: address(name, again.as_ref().unwrap_or(&peaks))?,
        rows: address(name, &states)?,
        bests: address(name, &bests)?,
        tokens: address(name, &tokens)?,
        chosen: address(name, &chosen)?,
        penalties: address_of(name, texts.map(|texts| &texts.penalties))?,
        text: address_of(name, texts.map(|texts| &texts.words))?,
        kept: address_of(name, kept.as_ref())?,
        newest: address_of(name, texts.and_then(|texts| texts.newest.as_ref()))?,
        vocab: vocab as i32,
        parts: parts as i32,
        text_size: text_size as i32,
    };
    // What the eight warps exchange: a peak and its logit, or the best of each. Rows are in x, because there may be at most
    // 65,535 blocks in y.
    let by_part = Grid { blocks: [rows as u32, parts as u32, 1], threads: 256, shared: 8 * (16 + 4) };
    let by_row = |threads| Grid::row(rows, threads);
    // SAFETY: `Args` is the struct of all six kernels, each reads what those before it wrote, and every row has its own memory. The
    // logits are as they were when the last has run.
    unsafe {
        launch(device, &PEAKS, 0, by_part, &args)?;
        if texts.is_some() {
            launch(device, &PENALTIES, 0, by_row(256).shared(16), &args)?;
            launch(device, &CHOOSING_PEAKS, 0, by_part, &args)?;
        }
        launch(device, &CUTS, 0, by_row(1024).shared(ROOM), &args)?;
        launch(device, &DRAWS, 0, by_part, &args)?;
        launch(device, &ENDS, 0, by_row(32), &args)?;
    }
    Ok((tokens, chosen))
}
