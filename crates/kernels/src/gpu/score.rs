//! What the language-model head says of rows, on the GPU.

use candle_core::{DType, Device, Result, Tensor};

use super::{Grid, Kernel, address, address_of, alike, kernel, launch, logits, room_of};
use crate::{
    BaseRows, HeadScore, Matrix,
    score::{SAME_SUM, check, not_finite, not_theirs},
};

const SCORE: Kernel = kernel!(SCORE, only "score");

/// `ScoreArgs` of `cuda/score.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    logits: u64,
    targets: u64,
    of: u64,
    base: u64,
    of_base: u64,
    out: u64,
    vocab: i32,
    cap: f32,
}

/// Logits in f32 that [`score_head`](crate::score_head) holds at once on a CUDA device, 256 MiB or two rows: enough for the product
/// to be bound by arithmetic.
pub const LOGITS: usize = 1 << 26;
/// Threads of a row's block.
const THREADS: u32 = 512;
/// Bytes that each warp leaves for its block, `ScoreShare`.
const SHARE: usize = 40;

/// [`score_head`](crate::score_head).
pub(crate) fn score_head(
    hidden: &Tensor,
    weight: &Matrix,
    targets: &[u32],
    softcap: Option<f32>,
    base: Option<BaseRows<'_>>,
) -> Result<Vec<HeadScore>> {
    score_some(hidden, weight, targets, softcap, base, LOGITS / weight.rows().max(1))
}

/// The same with so many rows of logits at once, base rows among them, or two.
pub(super) fn score_some(
    hidden: &Tensor,
    weight: &Matrix,
    targets: &[u32],
    softcap: Option<f32>,
    base: Option<BaseRows<'_>>,
    most: usize,
) -> Result<Vec<HeadScore>> {
    check(hidden, (weight.rows(), weight.columns()), targets, softcap, base)?;
    if let Some(base) = base {
        alike("score_head", &[hidden, base.hidden])?;
    }
    // Rows of the same base row beside each other: then a chunk has few base rows.
    let mut order: Vec<usize> = (0..targets.len()).collect();
    if let Some(base) = base {
        order.sort_by_key(|&row| base.of[row]);
    }
    let mut scores = vec![HeadScore { log_sum_exp: 0.0, target_logprob: 0.0, argmax: 0, kl: 0.0 }; targets.len()];
    let mut rest = &order[..];
    while !rest.is_empty() {
        let (mut rows, mut bases) = (0, Vec::new());
        for &row in rest {
            let new = base.map(|base| base.of[row]).filter(|of| bases.last() != Some(of));
            if rows > 0 && rows + 1 + bases.len() + usize::from(new.is_some()) > most {
                break;
            }
            rows += 1;
            bases.extend(new);
        }
        let (chunk, behind) = rest.split_at(rows);
        rest = behind;
        let chunk = Chunk { hidden, weight, targets, softcap, base, rows: chunk, bases: &bases };
        for (&row, score) in chunk.rows.iter().zip(chunk.score()?) {
            scores[row] = score;
        }
    }
    Ok(scores)
}

/// Rows whose logits are held at once.
struct Chunk<'a> {
    hidden: &'a Tensor,
    weight: &'a Matrix,
    targets: &'a [u32],
    softcap: Option<f32>,
    base: Option<BaseRows<'a>>,
    rows: &'a [usize],
    /// The base rows that they are compared with, in order.
    bases: &'a [usize],
}

impl Chunk<'_> {
    fn score(&self) -> Result<Vec<HeadScore>> {
        let (count, device) = (self.rows.len(), self.hidden.device());
        let list = |values: Vec<u32>| {
            let count = values.len();
            Tensor::from_vec(values, count, device)
        };
        let pick = |from: &Tensor, rows: &[usize]| {
            if rows.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
                return from.narrow(0, rows[0], rows.len());
            }
            from.index_select(&list(rows.iter().map(|&row| row as u32).collect())?, 0)
        };
        let mut hidden = pick(self.hidden, self.rows)?;
        if let Some(base) = self.base {
            hidden = Tensor::cat(&[hidden, pick(base.hidden, self.bases)?], 0)?;
        }
        let logits = logits(&hidden, self.weight)?;
        let of_rows = logits.narrow(0, 0, count)?;
        let targets = list(self.rows.iter().map(|&row| self.targets[row]).collect())?;
        let Some(base) = self.base else {
            let scores = self.launch(&of_rows, &targets, None)?.to_vec2()?;
            return self.rows.iter().zip(&scores).map(|(&row, score)| finished(row, score)).collect();
        };
        let of_bases = logits.narrow(0, count, self.bases.len())?;
        let place = |&row: &usize| self.bases.binary_search(&base.of[row]).expect("taken from there") as u32;
        let places = list(self.rows.iter().map(place).collect())?;
        let nothing = Tensor::zeros(self.bases.len(), DType::U32, device)?;
        let base_scores = self.launch(&of_bases, &nothing, None)?;
        let scores = self.launch(&of_rows, &targets, Some((&places, &of_bases, &base_scores)))?.to_vec2()?;
        for (&row, own) in self.bases.iter().zip(base_scores.to_vec2::<f64>()?) {
            let (given, own) = (base.log_sum_exp[row], own[0]);
            if !own.is_finite() {
                return not_finite("base row", row);
            }
            if !(-SAME_SUM..=SAME_SUM).contains(&(given - own)) {
                return not_theirs(row, given);
            }
        }
        self.rows.iter().zip(&scores).map(|(&row, score)| finished(row, score)).collect()
    }

    /// What the kernel says of rows of logits, f64 `[rows, 4]`.
    fn launch(&self, logits: &Tensor, targets: &Tensor, base: Option<(&Tensor, &Tensor, &Tensor)>) -> Result<Tensor> {
        let name = "score_head";
        let (rows, vocab) = logits.dims2()?;
        let device: &Device = logits.device();
        let out = room_of(&[rows, 4], DType::F64, device)?;
        let args = Args {
            logits: address(name, logits)?,
            targets: address(name, targets)?,
            of: address_of(name, base.map(|(of, _, _)| of))?,
            base: address_of(name, base.map(|(_, logits, _)| logits))?,
            of_base: address_of(name, base.map(|(_, _, scores)| scores))?,
            out: address(name, &out)?,
            vocab: vocab as i32,
            cap: self.softcap.unwrap_or(0.0),
        };
        let grid = Grid::row(rows, THREADS).shared(SHARE * THREADS as usize / 32);
        // SAFETY: `Args` is the kernel's struct; targets and base rows were checked, and each row has its own block.
        unsafe { launch(device, &SCORE, 0, grid, &args)? };
        Ok(out)
    }
}

/// A row's numbers, if they are numbers.
fn finished(row: usize, score: &[f64]) -> Result<HeadScore> {
    let &[log_sum_exp, target_logprob, kl, argmax] = score else { unreachable!("four numbers a row") };
    if !log_sum_exp.is_finite() || !kl.is_finite() {
        return not_finite("row", row);
    }
    // Only rounding is below 0.
    Ok(HeadScore { log_sum_exp, target_logprob, argmax: argmax as u32, kl: kl.max(0.0) })
}
