//! The rows of a decode step that is played back from a recording, on the device.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::{
    Grid, Kernel, address, kernel, launch,
    sample::{self, Texts},
};
use crate::{Choice, Chosen};

const ADVANCE: Kernel = kernel!(ADVANCE, only "advance");

/// `AdvanceArgs` of `cuda/advance.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    tokens: u64,
    chosen: u64,
    stops: u64,
    ids: u64,
    positions: u64,
    attention: u64,
    states: u64,
    left: u64,
    draws: u64,
    written: u64,
    out: u64,
    out_logprobs: u64,
    n: i32,
    stop_count: i32,
    draw_size: i32,
    draw_step: i32,
    room: i32,
}

/// A row as set by the host.
#[derive(Clone, Debug)]
pub struct DecodeRow<'a> {
    /// The token to read next.
    pub id: u32,
    /// Its position.
    pub position: usize,
    /// Its row in the λ table.
    pub lambda: usize,
    /// The cache slot of its sequence.
    pub slot: usize,
    /// Tokens that it may still generate; at least 1.
    pub left: usize,
    /// Its stop tokens.
    pub stops: Vec<u32>,
    /// How its tokens are chosen, including the number of its next draw. What it writes joins the text that is penalised.
    pub choice: Choice<'a>,
}

/// How much [`DecodeRows`] have room for.
#[derive(Clone, Copy, Debug)]
pub struct DecodeSize {
    /// Rows.
    pub rows: usize,
    /// Stop tokens of a row.
    pub stops: usize,
    /// Different tokens of a text that is penalised; 0 if none is.
    pub text: usize,
    /// Tokens that a row generates between two reads by the host.
    pub room: usize,
    /// Positions of a cache slot.
    pub capacity: usize,
}

/// The inputs and outputs of decode steps, at fixed addresses in device memory.
pub struct DecodeRows {
    /// All inputs, u32, one part after another.
    all: Tensor,
    parts: Parts,
    out: Tensor,
    out_logprobs: Tensor,
    size: DecodeSize,
}

struct Parts {
    ids: Tensor,
    positions: Tensor,
    lambda: Tensor,
    attention: Tensor,
    states: Tensor,
    left: Tensor,
    stops: Tensor,
    draws: Tensor,
    written: Tensor,
    texts: Option<Texts>,
}

/// Written by the device if a logit is NaN or the largest is not finite, and used as padding if a row has fewer stop tokens than
/// another: no vocabulary is that large.
const NO_TOKEN: u32 = u32::MAX;

impl DecodeRows {
    /// Allocates the rows, all idle.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn new(size: DecodeSize, device: &Device) -> Result<Self> {
        let DecodeSize { rows: n, stops, text, room, .. } = size;
        let penalties = if text > 0 { sample::PENALTY } else { 0 };
        // Tables come first: kernels load their 16-byte rows in one instruction, which needs aligned addresses.
        let shapes: [&[usize]; 11] = [
            &[n, 4],
            &[n, 4],
            &[n],
            &[n],
            &[n],
            &[n],
            &[n, stops],
            &[n, sample::DRAW],
            &[n],
            &[n, penalties],
            &[n, text],
        ];
        let total = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum::<usize>();
        let all = Tensor::zeros(total, DType::U32, device)?;
        let mut end = 0;
        let mut part = |shape: &[usize]| {
            let from = end;
            end += shape.iter().product::<usize>();
            all.narrow(0, from, end - from)?.reshape(shape)
        };
        let [attention, states, ids, positions, lambda, left, stops, draws, written, penalties, words] =
            shapes.map(&mut part);
        let ids = ids?;
        let texts = Texts { penalties: penalties?, words: words?, newest: Some(ids.clone()) };
        let parts = Parts {
            ids,
            positions: positions?,
            lambda: lambda?,
            attention: attention?,
            states: states?,
            left: left?,
            stops: stops?,
            draws: draws?,
            written: written?,
            texts: (text > 0).then_some(texts),
        };
        let out = Tensor::zeros((n, room), DType::U32, device)?;
        let out_logprobs = Tensor::zeros((n, room), DType::F64, device)?;
        Ok(Self { all, parts, out, out_logprobs, size })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.size.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token ids, u32 `[n]`.
    pub fn ids(&self) -> &Tensor {
        &self.parts.ids
    }

    /// The positions, u32 `[n]`.
    pub fn positions(&self) -> &Tensor {
        &self.parts.positions
    }

    /// Rows of the λ table, u32 `[n]`.
    pub fn lambda(&self) -> &Tensor {
        &self.parts.lambda
    }

    /// The span table for attention, u32 `[n, 4]`.
    pub fn attention(&self) -> &Tensor {
        &self.parts.attention
    }

    /// The span table for carried states, u32 `[n, 4]`.
    pub fn states(&self) -> &Tensor {
        &self.parts.states
    }

    /// Sets the rows; any left over are idle.
    ///
    /// # Errors
    /// If there are too many rows, stop tokens or tokens of a text, a choice has meaningless settings, or the device fails.
    pub fn set(&self, rows: &[DecodeRow<'_>]) -> Result<()> {
        let DecodeSize { rows: n, stops, text, capacity, .. } = self.size;
        if rows.len() > n || rows.iter().any(|row| row.stops.len() > stops || row.left == 0) {
            bail!(
                "decode rows: {} rows do not fit {n}, with {stops} stop tokens and something left to write each",
                rows.len()
            );
        }
        for (i, row) in rows.iter().enumerate() {
            sample::check("decode rows", i, &row.choice)?;
            let different = row.choice.penalties.map_or(0, |penalties| penalties.text.words().len());
            if different > text {
                bail!(
                    "decode rows: the text of row {i} has {different} different tokens, but there is room for {text}"
                );
            }
        }
        let of = |what: &dyn Fn(&DecodeRow<'_>) -> u32| {
            let given = rows.iter().map(what);
            given.chain(std::iter::repeat(0)).take(n).collect::<Vec<u32>>()
        };
        let table = |state: &dyn Fn(&DecodeRow<'_>) -> usize| {
            let row = |i: usize| match rows.get(i) {
                Some(row) => [i as u32, 1, row.position as u32, state(row) as u32],
                None => [i as u32, 0, 0, 0],
            };
            (0..n).flat_map(row).collect::<Vec<u32>>()
        };
        let mut all = table(&|row| row.slot * capacity);
        all.extend(table(&|row| row.slot));
        all.extend(of(&|row| row.id));
        all.extend(of(&|row| row.position as u32));
        all.extend(of(&|row| row.lambda as u32));
        all.extend(of(&|row| row.left as u32));
        for i in 0..n {
            let own = rows.get(i).map_or(&[][..], |row| &row.stops);
            all.extend(own.iter().copied().chain(std::iter::repeat(NO_TOKEN)).take(stops));
        }
        for i in 0..n {
            all.extend(rows.get(i).map_or([0; sample::DRAW], |row| sample::words(&row.choice.draw)));
        }
        all.extend(of(&|_| 0));
        if text > 0 {
            let penalties = |i: usize| rows.get(i).and_then(|row| row.choice.penalties);
            all.extend((0..n).flat_map(|i| sample::penalty_words(penalties(i))));
            all.extend((0..n).flat_map(|i| sample::text_words(penalties(i), text)));
        }
        let len = all.len();
        self.all.slice_set(&Tensor::from_vec(all, len, self.all.device())?, 0, 0)
    }

    /// Ends a step: chooses every row's next token from its logits `[n, vocab]`, records it, and makes it the row's next input, or
    /// makes the row idle if it ends there.
    ///
    /// # Errors
    /// If the logits do not fit, or the device fails.
    pub fn advance(&self, logits: &Tensor) -> Result<()> {
        let name = "advance";
        if logits.dim(0)? != self.len() {
            bail!("{name}: logits {:?} are not those of {} rows", logits.shape(), self.len());
        }
        if !sample::chooses(logits) {
            let (dtype, shape) = (logits.dtype(), logits.shape());
            bail!(
                "{name}: logits must be f32 [n, vocab] with at most {} tokens, not {dtype:?} {shape:?}",
                sample::MOST_TOKENS
            );
        }
        let (tokens, chosen) = sample::choose_by(logits, &self.parts.draws, self.parts.texts.as_ref())?;
        let Parts { ids, positions, attention, states, left, stops, draws, written, .. } = &self.parts;
        let at = |tensor: &Tensor| address(name, tensor);
        let args = Args {
            tokens: at(&tokens)?,
            chosen: at(&chosen)?,
            stops: at(stops)?,
            ids: at(ids)?,
            positions: at(positions)?,
            attention: at(attention)?,
            states: at(states)?,
            left: at(left)?,
            draws: at(draws)?,
            written: at(written)?,
            out: at(&self.out)?,
            out_logprobs: at(&self.out_logprobs)?,
            n: self.len() as i32,
            stop_count: self.size.stops as i32,
            draw_size: sample::DRAW as i32,
            draw_step: sample::STEP as i32,
            room: self.size.room as i32,
        };
        // SAFETY: `Args` is the kernel's struct; every row writes only its own values.
        unsafe { launch(logits.device(), &ADVANCE, 0, Grid::row(self.len().div_ceil(128), 128), &args) }
    }

    /// The tokens that every row has generated since the last [`DecodeRows::set`]; `None` where `choose` would give none.
    ///
    /// # Errors
    /// If the device fails.
    pub fn written(&self) -> Result<Vec<Vec<Option<Chosen>>>> {
        // In memory of their own: otherwise all that the parts share would be read, texts included.
        let counts = self.parts.written.force_contiguous()?.to_vec1::<u32>()?;
        let (tokens, logprobs) = (self.out.to_vec2::<u32>()?, self.out_logprobs.to_vec2::<f64>()?);
        let row = |((tokens, logprobs), &count): ((&Vec<u32>, &Vec<f64>), &u32)| {
            let both = tokens.iter().zip(logprobs).take(count as usize);
            both.map(|(&token, &logprob)| (token != NO_TOKEN).then_some(Chosen { token, logprob })).collect()
        };
        Ok(tokens.iter().zip(&logprobs).zip(&counts).map(row).collect())
    }
}
