//! The CPU path: chunks of the vocabulary pass over all rows, and each leaves only a few numbers per row.

use std::ops::Range;

use candle_core::Result;
use rayon::prelude::*;

use super::{HeadScore, SAME_SUM, not_finite, not_theirs};
use crate::{
    linear::{Job, multiply},
    matrix::Panels,
    simd::{self, Simd, dispatch},
};

/// Rows to score under a weight.
pub(super) struct Rows<'a> {
    pub(super) weight: &'a Panels,
    pub(super) hidden: &'a [f32],
    pub(super) targets: &'a [u32],
    pub(super) softcap: Option<f32>,
    pub(super) base: Option<Base<'a>>,
}

/// As [`super::BaseRows`], with the values as slices.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    pub(super) hidden: &'a [f32],
    pub(super) log_sum_exp: &'a [f64],
    pub(super) of: &'a [usize],
}

/// Approximate bytes of weight per chunk: they stay in the L2 cache while the rows pass over them.
const CHUNK_BYTES: usize = 512 * 1024;
/// Maximum columns per chunk, so that f32 sums within a chunk are short.
const COLUMNS: usize = 192;
/// Rows whose logits of a chunk are held at once: whole tiles of every level.
const TILE_ROWS: usize = 48;
/// Stretches of the vocabulary that are summed separately, to be shared by threads; more would cost memory.
const STRETCHES: usize = 128;
/// How far rounding may separate the two ways to compute `ln E[e^δ]`, relative to `1 + |it|`.
const AGREE: f64 = 1e-5;

/// What is known of one row after part of the vocabulary.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// The largest logit.
    top: f32,
    /// Its token, the first of equals.
    at: u32,
    /// `Σ e^{l - top}`, NaN if a logit was not finite.
    sum: f64,
    apart: Apart,
}

/// How far a row is from its base row, over part of the vocabulary: sums weighted with the base's probabilities p, where δ is
/// `l_row - l_base - shift`.
#[derive(Clone, Copy)]
struct Apart {
    /// `l_row - l_base` at the base's likeliest token, so that δ is small wherever the rows agree.
    shift: f64,
    /// `Σ p`
    mass: f64,
    /// `Σ p δ`
    line: f64,
    /// `Σ p (e^δ - 1 - δ)`
    above: f64,
}

impl Apart {
    const NONE: Self = Self { shift: 0.0, mass: 0.0, line: 0.0, above: 0.0 };

    /// The same with another shift. f32 rounding of the sums matters only where the shifts differ: an error of `line` is
    /// multiplied by `e^x - 1`, one of `mass` by `e^x - 1 - x`.
    fn shifted(self, shift: f64) -> Self {
        let x = self.shift - shift;
        let rise = x.exp_m1();
        let above = (rise + 1.0) * self.above + rise * self.line + (rise - x) * self.mass;
        Self { shift, mass: self.mass, line: self.line + x * self.mass, above }
    }

    /// Merges the sums over other tokens, with the shift of the side with more mass; an empty side has no shift of its own.
    fn join(&mut self, other: Self) {
        if self.mass == 0.0 {
            *self = other;
            return;
        }
        let shift = if other.mass > self.mass { other.shift } else { self.shift };
        let (own, other) = (self.shifted(shift), other.shifted(shift));
        let (mass, line, above) = (own.mass + other.mass, own.line + other.line, own.above + other.above);
        *self = Self { shift, mass, line, above };
    }

    /// `KL(base || row)`, given how far the row's log-sum-exp is above the base's.
    fn divergence(&self, rise: f64) -> f64 {
        let (line, above) = (self.line / self.mass, self.above / self.mass);
        let (close, direct) = ((above + line).ln_1p(), rise - self.shift);
        // NaN, from sums that overflow, does not count as close either.
        let alike = (close - direct).abs() <= AGREE * (1.0 + direct.abs());
        (if alike { close } else { direct }) - line
    }
}

impl Part {
    const NONE: Self = Self { top: f32::NEG_INFINITY, at: 0, sum: 0.0, apart: Apart::NONE };

    /// Merges the results of `later` tokens.
    fn join(&mut self, later: &Self) {
        if later.top > self.top {
            self.sum = self.sum * f64::from(self.top - later.top).exp() + later.sum;
            (self.top, self.at) = (later.top, later.at);
        } else {
            self.sum += later.sum * f64::from(later.top - self.top).exp();
        }
        if later.apart.mass > 0.0 {
            self.apart.join(later.apart);
        }
    }
}

/// The results of one stretch of the vocabulary.
struct Stretch {
    /// One per row.
    parts: Vec<Part>,
    /// `Σ p` of every base row.
    masses: Vec<f64>,
}

/// Buffers for the logits of one chunk; `stride` columns per row.
#[derive(Default)]
struct Room {
    logits: Vec<f32>,
    base_logits: Vec<f32>,
    base_p: Vec<f32>,
    marks: Vec<Mark>,
}

impl Rows<'_> {
    /// Scores the rows. The order of all sums is determined by the weight's shape alone.
    pub(super) fn score(&self) -> Result<Vec<HeadScore>> {
        let panels = self.weight.count();
        let chunk = (CHUNK_BYTES / self.weight.panel_bytes()).clamp(1, COLUMNS / self.weight.width());
        let stretch = panels.div_ceil(chunk).div_ceil(STRETCHES) * chunk;
        let stretches: Vec<Stretch> = (0..panels.div_ceil(stretch))
            .into_par_iter()
            .map_init(Room::default, |room, i| {
                let mut out = Stretch {
                    parts: vec![Part::NONE; self.targets.len()],
                    masses: vec![0.0; self.base.map_or(0, |base| base.log_sum_exp.len())],
                };
                let last = panels.min((i + 1) * stretch);
                for first in (i * stretch..last).step_by(chunk) {
                    self.chunk(first..last.min(first + chunk), room, &mut out);
                }
                out
            })
            .collect();
        self.check_masses(&stretches)?;
        let finish = |row: usize| {
            let mut whole = Part::NONE;
            for stretch in &stretches {
                whole.join(&stretch.parts[row]);
            }
            self.finish(row, &whole)
        };
        (0..self.targets.len()).into_par_iter().map(finish).collect::<Vec<_>>().into_iter().collect()
    }

    /// The tokens of some panels; their logits take whole vectors of every level.
    fn columns(&self, panels: &Range<usize>) -> Columns {
        let (width, vocab) = (self.weight.width(), self.weight.rows());
        let count = vocab.min(panels.end * width) - panels.start * width;
        Columns { count, stride: panels.len() * width, cap: self.softcap.unwrap_or(0.0) }
    }

    /// The features `[width]` of each of `rows`.
    fn rows<'a>(&self, hidden: &'a [f32], rows: Range<usize>) -> &'a [f32] {
        let width = self.weight.features();
        &hidden[rows.start * width..rows.end * width]
    }

    /// Processes one chunk of the vocabulary, for all rows.
    fn chunk(&self, panels: Range<usize>, room: &mut Room, out: &mut Stretch) {
        let (level, first) = (self.weight.level(), panels.start * self.weight.width());
        let size = self.columns(&panels);
        let stride = size.stride;
        if let Some(base) = self.base {
            let b = base.log_sum_exp.len();
            room.base_p.resize(b * stride, 0.0);
            room.marks.resize(b, Mark { mass: 0.0, peak: 0 });
            self.logits(base.hidden, &panels, size, &mut room.base_logits);
            let rows = room.base_logits.chunks_exact_mut(stride).zip(room.base_p.chunks_exact_mut(stride));
            for (row, ((logits, p), mark)) in rows.zip(&mut room.marks).enumerate() {
                let sum = base.log_sum_exp[row] as f32;
                // SAFETY: both hold `stride` values, whole vectors of every level.
                unsafe { weigh(level, size, sum, logits.as_mut_ptr(), p.as_mut_ptr(), mark) }
                out.masses[row] += f64::from(mark.mass);
            }
        }
        for from in (0..self.targets.len()).step_by(TILE_ROWS) {
            let to = self.targets.len().min(from + TILE_ROWS);
            self.logits(self.rows(self.hidden, from..to), &panels, size, &mut room.logits);
            for (row, logits) in (from..to).zip(room.logits.chunks_exact_mut(stride)) {
                let beside = self.base.map(|base| {
                    let at = base.of[row] * stride;
                    Beside {
                        logits: room.base_logits[at..at + stride].as_ptr(),
                        p: room.base_p[at..at + stride].as_ptr(),
                        mark: room.marks[base.of[row]],
                    }
                });
                let mut part = Part::NONE;
                // SAFETY: `logits` and `beside` hold `stride` values, whole vectors of every level.
                unsafe { fold(level, size, logits.as_mut_ptr(), beside, &mut part) }
                part.at += first as u32;
                out.parts[row].join(&part);
            }
        }
    }

    /// Computes the logits of the tokens of some panels for the rows in `hidden`; the padding after them is unspecified.
    fn logits(
        &self,
        hidden: &[f32],
        panels: &Range<usize>,
        Columns { count, stride, .. }: Columns,
        out: &mut Vec<f32>,
    ) {
        let (features, size) = (self.weight.features(), self.weight.panel_bytes());
        let rows = hidden.len() / features;
        out.resize(rows * stride, 0.0);
        let job = Job {
            rows,
            features: (0, features),
            x: (hidden.as_ptr(), features),
            panels: (self.weight.bytes()[panels.start * size..].as_ptr(), panels.len(), size),
            out: (out.as_mut_ptr(), stride, count),
            add: std::ptr::null(),
        };
        // SAFETY: `hidden` holds whole rows, the panels exist, and `out` has `rows` of `stride >= count`.
        unsafe { multiply(self.weight, &job) };
    }
}

impl Rows<'_> {
    /// The logit of one token, the same bits as in its chunk.
    fn logit(&self, hidden: &[f32], token: usize) -> f32 {
        let panel = token / self.weight.width();
        let (panels, mut out, mut part) = (panel..panel + 1, Vec::new(), Part::NONE);
        let size = self.columns(&panels);
        self.logits(hidden, &panels, size, &mut out);
        // SAFETY: `out` holds `stride` values.
        unsafe { fold(self.weight.level(), size, out.as_mut_ptr(), None, &mut part) }
        out[token % self.weight.width()]
    }

    /// Refuses base rows whose probabilities do not add up to 1.
    fn check_masses(&self, stretches: &[Stretch]) -> Result<()> {
        let Some(base) = self.base else { return Ok(()) };
        for (row, &given) in base.log_sum_exp.iter().enumerate() {
            let mass: f64 = stretches.iter().map(|stretch| stretch.masses[row]).sum();
            if mass.is_nan() && given.is_finite() {
                return not_finite("base row", row);
            }
            if !(-SAME_SUM..=SAME_SUM).contains(&(mass - 1.0)) {
                return not_theirs(row, given);
            }
        }
        Ok(())
    }

    fn finish(&self, row: usize, whole: &Part) -> Result<HeadScore> {
        let log_sum_exp = f64::from(whole.top) + whole.sum.ln();
        let kl = self.base.map_or(0.0, |base| whole.apart.divergence(log_sum_exp - base.log_sum_exp[base.of[row]]));
        if !log_sum_exp.is_finite() || !kl.is_finite() {
            return not_finite("row", row);
        }
        let target = self.logit(self.rows(self.hidden, row..row + 1), self.targets[row] as usize);
        // Only rounding is below 0.
        let (target_logprob, kl) = (f64::from(target) - log_sum_exp, kl.max(0.0));
        Ok(HeadScore { log_sum_exp, target_logprob, argmax: whole.at, kl })
    }
}

/// The columns of a chunk.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    count: usize,
    /// Elements between rows: `count`, padded to whole vectors of every level.
    stride: usize,
    /// The softcap, 0 for none.
    cap: f32,
}

/// The base row that a row is compared with.
#[derive(Clone, Copy)]
pub(crate) struct Beside {
    logits: *const f32,
    p: *const f32,
    mark: Mark,
}

/// A base row's results within a chunk.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    /// `Σ p`, NaN if a logit was not finite.
    mass: f32,
    /// Its likeliest token, relative to the chunk's first.
    peak: u32,
}

dispatch! {
    /// Caps the logits of a base row and stores `p = e^{l - sum}`. Both become 0 in the padding.
    unsafe fn weigh(size: Columns, sum: f32, logits: *mut f32, p: *mut f32, mark: &mut Mark) = weigh_generic;
}

#[inline(always)]
unsafe fn weigh_generic<S: Simd>(size: Columns, sum: f32, logits: *mut f32, p: *mut f32, mark: &mut Mark) {
    // SAFETY: `stride` values at both, whole vectors.
    unsafe {
        let spoilt = ready::<S>(size, logits);
        mark.peak = first_of::<S>(logits, largest::<S>(size, logits), size.count);
        let (mut total, sum) = (S::splat(0.0), S::splat(-sum));
        for j in (0..size.stride).step_by(S::LANES) {
            // Above 0 only by rounding, unless the sum belongs to another row.
            let e = simd::exp::<S>(simd::min::<S>(S::add(S::load(logits.add(j)), sum), 80.0));
            S::store(p.add(j), e);
        }
        for j in size.count..size.stride {
            *logits.add(j) = 0.0;
            *p.add(j) = 0.0;
        }
        for j in (0..size.stride).step_by(S::LANES) {
            total = S::add(total, S::load(p.add(j)));
        }
        mark.mass = S::sum(total) + spoilt;
    }
}

dispatch! {
    /// Caps the logits of a row and sums them up in `part`; `at` is relative to the chunk's first token.
    unsafe fn fold(size: Columns, logits: *mut f32, beside: Option<Beside>, part: &mut Part) = fold_generic;
}

#[inline(always)]
unsafe fn fold_generic<S: Simd>(size: Columns, logits: *mut f32, beside: Option<Beside>, part: &mut Part) {
    // SAFETY: `stride` values at each pointer, whole vectors.
    unsafe {
        let spoilt = ready::<S>(size, logits);
        part.top = largest::<S>(size, logits);
        part.at = first_of::<S>(logits, part.top, size.count);
        let (mut sum, top) = (S::splat(0.0), S::splat(-part.top));
        for j in (0..size.stride).step_by(S::LANES) {
            sum = S::add(sum, simd::exp::<S>(S::add(S::load(logits.add(j)), top)));
        }
        part.sum = f64::from(S::sum(sum) + spoilt);
        if let Some(Beside { logits: base, p, mark }) = beside {
            let shift = *logits.add(mark.peak as usize) - *base.add(mark.peak as usize);
            let (mut above, mut line, back) = (S::splat(0.0), S::splat(0.0), S::splat(-shift));
            for j in (0..size.stride).step_by(S::LANES) {
                let delta = S::fma(S::load(base.add(j)), S::splat(-1.0), S::load(logits.add(j)));
                let (delta, p) = (S::add(delta, back), S::load(p.add(j)));
                line = S::fma(p, delta, line);
                above = S::fma(p, simd::exp_above_tangent::<S>(delta), above);
            }
            let [shift, mass, line, above] = [shift, mark.mass, S::sum(line), S::sum(above)].map(f64::from);
            part.apart = Apart { shift, mass, line, above };
        }
    }
}

/// The largest of the logits and their padding.
#[inline(always)]
unsafe fn largest<S: Simd>(size: Columns, logits: *const f32) -> f32 {
    // SAFETY: the caller has `stride` values, whole vectors.
    unsafe {
        let mut top = S::splat(f32::NEG_INFINITY);
        for j in (0..size.stride).step_by(S::LANES) {
            top = S::max(top, S::load(logits.add(j)));
        }
        S::largest(top)
    }
}

/// Caps the logits and fills the padding with the lowest number. Returns 0, or NaN if a logit was not finite, which the cap, the
/// maximum and the exponential could hide.
#[inline(always)]
unsafe fn ready<S: Simd>(size: Columns, logits: *mut f32) -> f32 {
    // SAFETY: the caller has `stride` values, whole vectors.
    unsafe {
        for j in size.count..size.stride {
            *logits.add(j) = 0.0;
        }
        let (mut spoilt, zero) = (S::splat(0.0), S::splat(0.0));
        for j in (0..size.stride).step_by(S::LANES) {
            spoilt = S::fma(S::load(logits.add(j)), zero, spoilt);
        }
        if size.cap > 0.0 {
            let (cap, inverse) = (S::splat(size.cap), S::splat(1.0 / size.cap));
            for j in (0..size.stride).step_by(S::LANES) {
                let capped = S::mul(cap, simd::tanh::<S>(S::mul(S::load(logits.add(j)), inverse)));
                S::store(logits.add(j), capped);
            }
        }
        for j in size.count..size.stride {
            *logits.add(j) = f32::MIN;
        }
        S::sum(spoilt)
    }
}

/// The first of `count` values that equals `top`.
#[inline(always)]
unsafe fn first_of<S: Simd>(values: *const f32, top: f32, count: usize) -> u32 {
    // SAFETY: the caller has `count` values, padded to whole vectors.
    unsafe {
        let mut from = 0;
        while from < count && !(0..S::LANES).fold(false, |found, i| found | (*values.add(from + i) == top)) {
            from += S::LANES;
        }
        (from..count).find(|&i| *values.add(i) == top).unwrap_or(0) as u32
    }
}
