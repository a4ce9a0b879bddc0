//! Scores rows under the language-model head, without ever holding `[rows, vocab]`.

mod stream;
#[cfg(test)]
pub(crate) mod tests;

use candle_core::{CpuStorage, D, DType, Device, Layout, Result, Storage, StorageRef, Tensor, bail};

use crate::{
    Matrix, gpu, linear_reference,
    matrix::Panels,
    serving::{Serving, serving},
    softcap_reference,
};

/// The scores of one row under the language-model head. Logarithms are natural.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadScore {
    /// `ln Σ_v e^{l_v}` over the logits.
    pub log_sum_exp: f64,
    /// The log-probability of the row's target.
    pub target_logprob: f64,
    /// The token with the largest logit, the first of equals.
    pub argmax: u32,
    /// `KL(base || row)` in nats: never negative, 0 if there is no base.
    pub kl: f64,
}

/// The rows that others are compared with.
#[derive(Clone, Copy, Debug)]
pub struct BaseRows<'a> {
    /// `[b, d]`, the final hidden states of the base rows.
    pub hidden: &'a Tensor,
    /// `b` values: the log-sum-exps that an earlier [`score_head`] of these rows returned.
    pub log_sum_exp: &'a [f64],
    /// For each row, the index of the base row to compare it with. Logits of a base row are computed once for all its rows.
    pub of: &'a [usize],
}

/// Log-probabilities of `targets`, argmax and divergence from base rows, streamed over the vocabulary.
///
/// A thread holds a few hundred logits of some tens of rows, and as many of every base row. A row's results depend only on the
/// row, its base row and its target, bit for bit. On CUDA, full logits of some hundred rows at a time are computed and read once,
/// with f64 sums. On Metal, full logits are computed as in the oracle, with f32 sums: there a KL is accurate to about 1e-6, not
/// to its last digits.
///
/// # Shapes
/// `hidden` `[m, d]`, the final norm's output, f32 on the CPU; `weight` `[vocab, d]`; `targets` `m` tokens.
/// `softcap` makes each logit `cap * tanh(l / cap)` (transformers `final_logit_softcapping`).
///
/// # Divergence
/// With `δ = l_row - l_base - c` for any `c`, and means over the base distribution, `KL = ln(1 + E[e^δ - 1]) - E[δ]` and
/// `E[e^δ - 1] = E[e^δ - 1 - δ] + E[δ]`. The first mean has no negative term, so a KL of 1e-9 keeps its digits, whereas
/// `E[l_base - l_row]` and the two log-sum-exps would cancel to their rounding, 1e-7. If the two ways to compute `ln E[e^δ]`
/// disagree by more than rounding, the row has mass where the base has none in f32, and the log-sum-exps are used.
///
/// # Errors
/// If shapes, targets or indices do not fit, the softcap is not positive, a row has a logit that is not finite (the error names
/// the row), or `log_sum_exp` does not belong to the base rows.
pub fn score_head(
    hidden: &Tensor,
    weight: &Matrix,
    targets: &[u32],
    softcap: Option<f32>,
    base: Option<BaseRows<'_>>,
) -> Result<Vec<HeadScore>> {
    match (serving(hidden.device()), weight.panels()) {
        (Serving::Cpu, Some([panels])) => on_cpu(hidden, panels, targets, softcap, base),
        (Serving::Gpu, _) => gpu::score_head(hidden, weight, targets, softcap, base),
        _ => {
            let sums = if hidden.device().is_metal() { DType::F32 } else { DType::F64 };
            plain(hidden, &weight.to_tensor()?, targets, softcap, base, sums)
        }
    }
}

/// The oracle of [`score_head`] in plain candle ops: full logits of a few rows at a time, log-softmax in f64.
///
/// # Errors
/// As [`score_head`].
pub fn score_head_reference(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    softcap: Option<f32>,
    base: Option<BaseRows<'_>>,
) -> Result<Vec<HeadScore>> {
    plain(hidden, weight, targets, softcap, base, DType::F64)
}

/// Refuses arguments that do not fit each other.
pub(crate) fn check(
    hidden: &Tensor,
    (vocab, width): (usize, usize),
    targets: &[u32],
    softcap: Option<f32>,
    base: Option<BaseRows<'_>>,
) -> Result<()> {
    let (m, d) = hidden.dims2()?;
    if d != width || d == 0 || vocab == 0 || u32::try_from(vocab).is_err() {
        bail!("score_head: hidden states {:?} and a weight [{vocab}, {width}] do not fit", hidden.shape());
    }
    if targets.len() != m {
        bail!("score_head: {m} rows need as many targets, not {}", targets.len());
    }
    if let Some((row, target)) = targets.iter().enumerate().find(|&(_, &target)| target as usize >= vocab) {
        bail!("score_head: the target {target} of row {row} is not among the {vocab} tokens");
    }
    if softcap.is_some_and(|cap| !(cap.is_finite() && cap > 0.0)) {
        bail!("score_head: a softcap must be positive and finite, not {}", softcap.unwrap_or_default());
    }
    let Some(base) = base else { return Ok(()) };
    let (b, width) = base.hidden.dims2()?;
    if width != d || base.log_sum_exp.len() != b || base.of.len() != m {
        let (sums, of) = (base.log_sum_exp.len(), base.of.len());
        bail!(
            "score_head: {b} base rows of {width} features with {sums} log-sum-exps do not fit {m} rows of {d}, {of} of which name one"
        );
    }
    if let Some((row, of)) = base.of.iter().enumerate().find(|&(_, &of)| of >= b) {
        bail!("score_head: row {row} is compared with base row {of} of {b}");
    }
    Ok(())
}

/// The error for a row or base row whose results cannot be trusted; [`spoilt_row`] parses it.
pub(crate) fn not_finite<T>(kind: &str, row: usize) -> Result<T> {
    bail!("score_head: {kind} {row}{NOT_FINITE}");
}

const NOT_FINITE: &str = " has logits that are not finite";

/// A row that [`score_head`] refused because its logits are not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoiltRow {
    /// A row being scored.
    Row(usize),
    /// A base row.
    Base(usize),
}

/// The row that an error of [`score_head`] names for logits that are not finite, if it is such an error: candle's errors hold only text.
pub fn spoilt_row(error: &candle_core::Error) -> Option<SpoiltRow> {
    let text = error.to_string();
    let named = text.split_once(NOT_FINITE)?.0.rsplit_once("score_head: ")?.1;
    match named.strip_prefix("base row ") {
        Some(row) => row.parse().ok().map(SpoiltRow::Base),
        None => named.strip_prefix("row ")?.parse().ok().map(SpoiltRow::Row),
    }
}

/// How far the given log-sum-exp of a base row may be from the computed one: rounding is below 1e-5, other logits differ by more.
pub(crate) const SAME_SUM: f64 = 1e-3;

/// The error for base rows whose `log_sum_exp` belongs to other rows.
pub(crate) fn not_theirs<T>(row: usize, given: f64) -> Result<T> {
    bail!("score_head: {given} is not the log-sum-exp of base row {row} under this weight and softcap");
}

fn on_cpu(
    hidden: &Tensor,
    weight: &Panels,
    targets: &[u32],
    softcap: Option<f32>,
    base: Option<BaseRows<'_>>,
) -> Result<Vec<HeadScore>> {
    check(hidden, (weight.rows(), weight.features()), targets, softcap, base)?;
    let hidden = hidden.contiguous()?;
    let of_base = base.map(|base| base.hidden.contiguous()).transpose()?;
    let (hidden, of_base) = (hidden.storage_and_layout(), of_base.as_ref().map(Tensor::storage_and_layout));
    let base = match (base, &of_base) {
        (Some(BaseRows { log_sum_exp, of, .. }), Some(hidden)) => {
            Some(stream::Base { hidden: f32s(hidden)?, log_sum_exp, of })
        }
        _ => None,
    };
    stream::Rows { weight, hidden: f32s(&hidden)?, targets, softcap, base }.score()
}

/// The values of contiguous hidden states.
fn f32s<'a>((storage, layout): &'a (StorageRef<'_>, &Layout)) -> Result<&'a [f32]> {
    match (&**storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("score_head: hidden states and base rows must be f32 on one device"),
    }
}

/// Logits that the plain path holds at once, 64 MiB in f32.
const PLAIN_LOGITS: usize = 1 << 24;

fn plain(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    softcap: Option<f32>,
    base: Option<BaseRows<'_>>,
    sums: DType,
) -> Result<Vec<HeadScore>> {
    check(hidden, weight.dims2()?, targets, softcap, base)?;
    let head = Plain { weight: weight.to_dtype(DType::F32)?, softcap, sums };
    let mut scores = Vec::with_capacity(targets.len());
    for targets in targets.chunks((PLAIN_LOGITS / weight.dim(0)?).max(1)) {
        let first = scores.len();
        let (log_p, sums) = head.log_softmax(&hidden.narrow(0, first, targets.len())?, "row", |row| first + row)?;
        let target = Tensor::new(targets, hidden.device())?.unsqueeze(1)?;
        let target = doubles(&log_p.gather(&target, 1)?.squeeze(1)?)?;
        let argmax = log_p.argmax(D::Minus1)?.to_vec1::<u32>()?;
        let kl = match base {
            Some(base) => head.divergence(&log_p, base, &base.of[first..first + targets.len()])?,
            None => vec![0.0; targets.len()],
        };
        scores.extend((0..targets.len()).map(|row| HeadScore {
            log_sum_exp: sums[row],
            target_logprob: target[row],
            argmax: argmax[row],
            kl: kl[row].max(0.0),
        }));
    }
    Ok(scores)
}

/// The head in plain candle ops.
struct Plain {
    /// f32
    weight: Tensor,
    softcap: Option<f32>,
    /// The dtype in which probabilities are summed.
    sums: DType,
}

impl Plain {
    /// Log-probabilities `[r, vocab]` and log-sum-exps of a few rows; `name` maps an index to the row number used in errors.
    fn log_softmax(&self, hidden: &Tensor, kind: &str, name: impl Fn(usize) -> usize) -> Result<(Tensor, Vec<f64>)> {
        let logits = linear_reference(&hidden.to_dtype(DType::F32)?, &self.weight)?;
        // 0 unless a logit is not finite, which a softcap would hide.
        let spoilt = (&logits * 0.0)?.sum(D::Minus1)?.to_vec1::<f32>()?;
        if let Some(row) = spoilt.iter().position(|&spoilt| spoilt != 0.0) {
            return not_finite(kind, name(row));
        }
        let logits = match self.softcap {
            Some(cap) => softcap_reference(&logits, cap)?,
            None => logits,
        };
        let logits = logits.to_dtype(self.sums)?;
        let top = logits.max_keepdim(D::Minus1)?;
        let sum = (logits.broadcast_sub(&top)?.exp()?.sum_keepdim(D::Minus1)?.log()? + top)?;
        Ok((logits.broadcast_sub(&sum)?, doubles(&sum.squeeze(1)?)?))
    }

    /// `KL(base || row)` of the rows with `log_p`, each compared with its base row in `of`.
    fn divergence(&self, log_p: &Tensor, base: BaseRows<'_>, of: &[usize]) -> Result<Vec<f64>> {
        let mut used = of.to_vec();
        used.sort_unstable();
        used.dedup();
        let place = |of: &usize| used.binary_search(of).expect("taken from the same list") as u32;
        let places = Tensor::from_iter(of.iter().map(place), log_p.device())?;
        let rows = Tensor::from_iter(used.iter().map(|&row| row as u32), log_p.device())?;
        let (log_base, sums) = self.log_softmax(&base.hidden.index_select(&rows, 0)?, "base row", |row| used[row])?;
        for (&row, sum) in used.iter().zip(sums) {
            let given = base.log_sum_exp[row];
            if !(-SAME_SUM..=SAME_SUM).contains(&(given - sum)) {
                return not_theirs(row, given);
            }
        }
        let log_base = log_base.index_select(&places, 0)?;
        doubles(&(log_base.exp()? * (log_base - log_p)?)?.sum(D::Minus1)?)
    }
}

fn doubles(values: &Tensor) -> Result<Vec<f64>> {
    // Converted on the CPU, since Metal has no f64.
    values.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()
}
