//! Scores of rows under the language-model head, on the GPU.

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

/// Logits in f32 that [`score_head`](crate::score_head) holds at once on a CUDA device, 256 MiB, but never fewer than two rows:
/// enough for the product to be compute-bound.
pub const LOGITS: usize = 1 << 26;
/// Threads in the block of a row.
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

/// The same with at most `most` rows of logits at once, base rows included, but at least two. Nothing is read back before the last
/// chunk is issued, so that the device does not wait for the host between chunks.
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
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    // Rows with the same base row are placed together, so that a chunk has few base rows.
    let mut order: Vec<usize> = (0..targets.len()).collect();
    if let Some(base) = base {
        order.sort_by_key(|&row| base.of[row]);
    }
    let chunks = chunks(&order, base, most);
    let bases: Vec<usize> = chunks.iter().flat_map(|chunk| &chunk.bases).copied().collect();
    let device = hidden.device();
    let rows_of = |count: usize| room_of(&[count, 4], DType::F64, device);
    let (scores, base_scores) = (rows_of(order.len())?, rows_of(bases.len())?);
    let targets = list(order.iter().map(|&row| targets[row]), device)?;
    let places = list(chunks.iter().flat_map(|chunk| chunk.places(base)), device)?;
    // Base rows have no target; any token will do.
    let most_bases = chunks.iter().map(|chunk| chunk.bases.len()).max().unwrap_or(0);
    let nothing = Tensor::zeros(most_bases.max(1), DType::U32, device)?;
    let cap = softcap.unwrap_or(0.0);
    let (mut row, mut base_row) = (0, 0);
    for chunk in &chunks {
        let (rows, count) = (chunk.rows.len(), chunk.bases.len());
        let logits = chunk.logits(hidden, weight, base)?;
        let own = logits.narrow(0, 0, rows)?;
        let against = if count > 0 {
            let (of_bases, sums) = (logits.narrow(0, rows, count)?, base_scores.narrow(0, base_row, count)?);
            score(&of_bases, &nothing, cap, None, &sums)?;
            Some((places.narrow(0, row, rows)?, of_bases, sums))
        } else {
            None
        };
        score(&own, &targets.narrow(0, row, rows)?, cap, against.as_ref(), &scores.narrow(0, row, rows)?)?;
        (row, base_row) = (row + rows, base_row + count);
    }
    if let Some(base) = base {
        for (&row, own) in bases.iter().zip(base_scores.to_vec2::<f64>()?) {
            let (given, own) = (base.log_sum_exp[row], own[0]);
            if !own.is_finite() {
                return not_finite("base row", row);
            }
            if !(-SAME_SUM..=SAME_SUM).contains(&(given - own)) {
                return not_theirs(row, given);
            }
        }
    }
    let mut finished = vec![HeadScore { log_sum_exp: 0.0, target_logprob: 0.0, argmax: 0, kl: 0.0 }; order.len()];
    for (&row, score) in order.iter().zip(scores.to_vec2()?) {
        finished[row] = checked(row, &score)?;
    }
    Ok(finished)
}

/// Rows whose logits are held at once.
struct Chunk<'a> {
    rows: &'a [usize],
    /// The base rows that they are compared with, in order.
    bases: Vec<usize>,
}

/// Splits the rows, in order, so that each chunk has at most `most` rows of logits including base rows, or one row and its base.
fn chunks<'a>(order: &'a [usize], base: Option<BaseRows<'_>>, most: usize) -> Vec<Chunk<'a>> {
    let (mut chunks, mut rest) = (Vec::new(), order);
    while !rest.is_empty() {
        let (mut count, mut bases) = (0, Vec::new());
        for &row in rest {
            let new = base.map(|base| base.of[row]).filter(|of| bases.last() != Some(of));
            if count > 0 && count + 1 + bases.len() + usize::from(new.is_some()) > most {
                break;
            }
            count += 1;
            bases.extend(new);
        }
        let (rows, behind) = rest.split_at(count);
        chunks.push(Chunk { rows, bases });
        rest = behind;
    }
    chunks
}

impl Chunk<'_> {
    /// For each row, the index of its base row among the chunk's.
    fn places(&self, base: Option<BaseRows<'_>>) -> impl Iterator<Item = u32> {
        let place = move |&row: &usize| {
            base.map_or(0, |base| self.bases.binary_search(&base.of[row]).expect("taken from there") as u32)
        };
        self.rows.iter().map(place)
    }

    /// Logits of the rows, followed by those of the base rows, f32 `[rows + base rows, vocab]`.
    fn logits(&self, hidden: &Tensor, weight: &Matrix, base: Option<BaseRows<'_>>) -> Result<Tensor> {
        let rows = picked(hidden, self.rows)?;
        match base {
            Some(base) => logits(&Tensor::cat(&[rows, picked(base.hidden, &self.bases)?], 0)?, weight),
            None => logits(&rows, weight),
        }
    }
}

/// Rows of a matrix, without a copy if they are consecutive.
fn picked(from: &Tensor, rows: &[usize]) -> Result<Tensor> {
    if rows.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
        return from.narrow(0, rows[0], rows.len());
    }
    from.index_select(&list(rows.iter().map(|&row| row as u32), from.device())?, 0)
}

fn list(values: impl Iterator<Item = u32>, device: &Device) -> Result<Tensor> {
    let values: Vec<u32> = values.collect();
    let count = values.len();
    Tensor::from_vec(values, count, device)
}

/// Writes the kernel's scores of rows of logits to `out`, f64 `[rows, 4]`. `against` gives the base rows, if there are any: each
/// row's index among them, their logits and their scores.
fn score(
    logits: &Tensor,
    targets: &Tensor,
    cap: f32,
    against: Option<&(Tensor, Tensor, Tensor)>,
    out: &Tensor,
) -> Result<()> {
    let name = "score_head";
    let (rows, vocab) = logits.dims2()?;
    let args = Args {
        logits: address(name, logits)?,
        targets: address(name, targets)?,
        of: address_of(name, against.map(|(of, _, _)| of))?,
        base: address_of(name, against.map(|(_, logits, _)| logits))?,
        of_base: address_of(name, against.map(|(_, _, scores)| scores))?,
        out: address(name, out)?,
        vocab: vocab as i32,
        cap,
    };
    let grid = Grid::row(rows, THREADS).shared(SHARE * THREADS as usize / 32);
    // SAFETY: `Args` is the kernel's struct; targets and base rows were checked, and each row has its own block.
    unsafe { launch(logits.device(), &SCORE, 0, grid, &args) }
}

/// A row's scores, if they are finite.
fn checked(row: usize, score: &[f64]) -> Result<HeadScore> {
    let &[log_sum_exp, target_logprob, kl, argmax] = score else { unreachable!("four numbers a row") };
    if !log_sum_exp.is_finite() || !kl.is_finite() {
        return not_finite("row", row);
    }
    // Only rounding makes it negative.
    Ok(HeadScore { log_sum_exp, target_logprob, argmax: argmax as u32, kl: kl.max(0.0) })
}
