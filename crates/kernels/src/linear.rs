//! Linear layers on weights in their stored type, with f32 arithmetic.

mod rounded;
mod tile;

use std::{cell::RefCell, ops::Range, sync::Arc};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

pub(crate) use tile::Job;

use crate::{
    Held, Matrix, Products, gpu,
    matrix::{
        Panels,
        form::{F32, Form, widen, with_form},
    },
    room::Room,
    serving::{Serving, serving},
};

/// `x Wᵀ` in f32 on a weight in its stored type.
///
/// # Shapes
/// `x` `[m, k]` f32, `weight` `[n, k]`; result `[m, n]` f32. On the CPU the stored weight is widened in registers, or for
/// many rows a few panels at a time, with the same bits.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Matrix) -> Result<Tensor> {
    linear_columns(x, weight, 0..weight.columns())
}

/// [`linear`] on a range of the weight's columns, with the others taken as 0: what one head adds through an output projection.
///
/// # Shapes
/// `x` `[m, columns]` f32; result `[m, n]` f32.
///
/// # Errors
/// If the shapes do not fit, or the columns do not exist.
pub fn linear_columns(x: &Tensor, weight: &Matrix, columns: Range<usize>) -> Result<Tensor> {
    match weight.panels() {
        Some(panels) => x.contiguous()?.apply_op1_no_bwd(&Linear { panels, columns }),
        // On devices candle multiplies only whole rows; for all columns this makes no copy.
        None => linear_reference(x, &weight.to_tensor()?.narrow(1, columns.start, columns.len())?.contiguous()?),
    }
}

/// `hidden Wᵀ` in f32, whatever type the weight is held in: logits can differ by less than a half-width type resolves.
///
/// # Shapes
/// `hidden` `[m, d]`, `weight` `[vocab, d]`; result `[m, vocab]` f32. On the CPU and on CUDA, sums are f32 without intermediate
/// rounding; elsewhere the result is first rounded to the type of `hidden`.
///
/// # Errors
/// If the shapes do not fit.
pub fn logits(hidden: &Tensor, weight: &Matrix) -> Result<Tensor> {
    match serving(hidden.device()) {
        Serving::Gpu => gpu::logits(hidden, weight),
        _ => linear(hidden, weight)?.to_dtype(DType::F32),
    }
}

/// `y + x Wᵀ`, without a separate pass for the sum; bit for bit the same as [`linear`] followed by an addition.
///
/// # Shapes
/// As [`linear`]; `y` `[m, n]` f32.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear_add(x: &Tensor, weight: &Matrix, y: &Tensor) -> Result<Tensor> {
    match weight.panels() {
        Some(panels) => {
            let op = Linear { panels, columns: 0..weight.columns() };
            x.contiguous()?.apply_op2_no_bwd(&y.contiguous()?, &op)
        }
        None => y + linear(x, weight)?,
    }
}

/// The oracle of [`linear`] in plain candle ops: widens the whole weight `[n, k]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear_reference(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.matmul(&weight.to_dtype(x.dtype())?.t()?)
}

struct Linear<'a> {
    panels: &'a [Arc<Panels>],
    columns: Range<usize>,
}

impl Linear<'_> {
    fn forward(&self, x: &CpuStorage, lx: &Layout, add: Option<(&CpuStorage, &Layout)>) -> Result<(CpuStorage, Shape)> {
        let (m, k) = lx.shape().dims2()?;
        let (n, features) = (self.panels.iter().map(|p| p.rows()).sum(), self.panels[0].features());
        if self.columns.end > features {
            bail!("linear: there are no features {:?}, the weight has {features}", self.columns);
        }
        if k != self.columns.len() {
            bail!("linear: activations have {k} features, the weight has {}", self.columns.len());
        }
        let x = slice("activations", x, lx)?;
        let add = match add {
            Some((_, layout)) if layout.dims() != [m, n] => {
                bail!("linear: what is added must be [{m}, {n}], not {:?}", layout.shape())
            }
            Some((y, layout)) => Some(slice("what is added", y, layout)?),
            None => None,
        };
        let out = run(self.panels, n, self.columns.clone(), x, m, add);
        Ok((CpuStorage::F32(out), Shape::from((m, n))))
    }
}

fn slice<'a>(what: &str, values: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("linear: {what} must be contiguous") };
    // An empty slice may start beyond the end of the storage.
    Ok(if start == end { &[] } else { &values.as_slice::<f32>()?[start..end] })
}

impl CustomOp1 for Linear<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(x, layout, None)
    }
}

impl CustomOp2 for Linear<'_> {
    fn name(&self) -> &'static str {
        "linear_add"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, y: &CpuStorage, ly: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(x, lx, Some((y, ly)))
    }
}

/// Bytes of panels per task, and of those widened together: these stay in the L2 cache until they are used, and stored ones while strips
/// of activations pass over all of them in turn. Where all rows pass a panel before the next (with AVX2, `panel_by_panel`), only that
/// one has to stay.
const TASK_BYTES: usize = 256 * 1024;
/// Rows of activations that pass over panels together, at most.
const STRIP: usize = 6;
/// Bytes of activations that pass over a task's panels: they stay in the L3 cache.
const ROW_BYTES: usize = 4 << 20;
/// Multiply-adds below which threads cost more than they gain.
const SERIAL: usize = 64 * 1024;

/// The activations, in the form that the products need.
enum Activations<'a> {
    Exact(&'a [f32]),
    Rounded(Vec<f32>),
    Pairs(Vec<u32>),
}

/// The panels are stacked along the output dimension and give `n` outputs a row.
fn run(parts: &[Arc<Panels>], n: usize, features: Range<usize>, x: &[f32], m: usize, add: Option<&[f32]>) -> Vec<f32> {
    let k = features.len();
    let x = match parts[0].products() {
        Products::F32 => Activations::Exact(x),
        Products::Bf16
            if parts.iter().all(|panels| panels.held() == Held::Bf16 && panels.level().multiplies_bf16())
                && features.start.is_multiple_of(2) =>
        {
            Activations::Pairs(rounded::pairs(x, k))
        }
        Products::Bf16 => Activations::Rounded(rounded::rounded(x)),
    };
    let mut out = Room::new(m * n);
    let to = out.start();
    let rows = (ROW_BYTES / (k * 4).max(1)).clamp(48, 6144) / 12 * 12;
    let mut column = 0;
    for panels in parts {
        // Tasks for the threads: small enough for load balance, large enough for the caches.
        let size = if widens(panels, m.min(rows)) { widened_bytes(panels) } else { panels.panel_bytes() };
        // A single strip reads its panels once: the caches do not matter then, and several panels are several memory streams.
        let most = if m <= STRIP { usize::MAX } else { (TASK_BYTES / size.max(1)).max(1) };
        let fair = panels.count().div_ceil(4 * rayon::current_num_threads());
        let per_task = most.min(fair).max(1);
        let (chunks, tasks) = (m.div_ceil(rows), panels.count().div_ceil(per_task));
        let task = |i: usize| {
            let (row, panel) = (i / tasks * rows, i % tasks * per_task);
            let (count, size) = (per_task.min(panels.count() - panel), panels.panel_bytes());
            let at = row * n + column + panel * panels.width();
            let job = Job {
                rows: rows.min(m - row),
                features: (features.start, features.end),
                x: (std::ptr::null::<f32>(), 0),
                panels: (panels.bytes()[panel * size..].as_ptr(), count, size),
                // SAFETY: inside the room for `m * n` outputs, of which only this task writes these.
                out: (unsafe { to.get().add(at) }, n, panels.rows() - panel * panels.width()),
                add: add.map_or(std::ptr::null(), |add| add[at..].as_ptr()),
            };
            // SAFETY: the panels and rows are inside the slices; the outputs and the addends are `[m, n]`.
            unsafe {
                match &x {
                    Activations::Exact(x) => multiply(panels, &job.on(&x[row * k..], k)),
                    Activations::Rounded(x) => multiply(panels, &job.on(&x[row * k..], k)),
                    Activations::Pairs(x) => rounded::multiply(&job.on(&x[row * k.div_ceil(2)..], k.div_ceil(2))),
                }
            }
        };
        if m * panels.rows() * k < SERIAL || chunks * tasks == 1 {
            (0..chunks * tasks).for_each(task);
        } else {
            (0..chunks * tasks).into_par_iter().for_each(task);
        }
        column += panels.rows();
    }
    // SAFETY: every output was written.
    unsafe { out.filled() }
}

/// The number of activation rows from which block panels are widened once instead of for every strip of rows. Measured on
/// Zen 4: for 24 rows both cost the same in q8_0, for 256 this saves a fifth of the time; in f16 and bf16 it never saves any.
const MANY: usize = 24;

/// Whether panels are widened in memory for this many rows of activations.
fn widens(panels: &Panels, rows: usize) -> bool {
    rows >= MANY && matches!(panels.held(), Held::Blocks(_))
}

/// Bytes of a widened panel.
fn widened_bytes(panels: &Panels) -> usize {
    F32::bytes(panels.features().next_multiple_of(2), panels.width())
}

/// Runs a job on panels in their own form.
///
/// # Safety
/// As for the tiles: the job's activations, panels and outputs must exist, and its panels must belong to `panels`.
pub(crate) unsafe fn multiply(panels: &Panels, job: &Job) {
    // SAFETY: the caller's contract, passed on; the form is that of the panels.
    unsafe {
        if widens(panels, job.rows) {
            multiply_widened(panels, job);
        } else {
            with_form!(panels.held(), W => tile::multiply::<W>(panels.level(), job));
        }
    }
}

/// The same on panels that are first widened, a few at a time: the same values, in the same order.
///
/// # Safety
/// As [`multiply`].
unsafe fn multiply_widened(panels: &Panels, job: &Job) {
    thread_local! {
        static ROOM: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    let (first, count, size) = job.panels;
    let (from, to) = job.features;
    let (out, stride, columns) = job.out;
    let wide = widened_bytes(panels);
    let most = (TASK_BYTES / wide.max(1)).max(1);
    ROOM.with_borrow_mut(|room| {
        room.resize(room.len().max(most.min(count) * wide / 4), 0.0);
        for panel in (0..count).step_by(most) {
            let some = most.min(count - panel);
            let column = panel * panels.width();
            // SAFETY: the caller has these panels, and there is room for `most` widened ones; outputs and addends of later panels
            // follow those of earlier ones.
            unsafe {
                for i in 0..some {
                    let (stored, room) = (first.add((panel + i) * size), room[i * wide / 4..].as_mut_ptr());
                    with_form!(panels.held(), W => widen::<W>(panels.level(), stored, from, to, room));
                }
                let job = Job {
                    panels: (room.as_ptr().cast(), some, wide),
                    out: (out.add(column), stride, columns - column),
                    add: if job.add.is_null() { job.add } else { job.add.add(column) },
                    ..*job
                };
                tile::multiply::<F32>(panels.level(), &job);
            }
        }
    });
}

#[cfg(test)]
mod tests;
