//! Register tiles: a few rows of activations times a few panels of a weight.

use super::STRIP;
use crate::{
    matrix::form::{Form, WIDE},
    simd::{Simd, dispatch},
};

/// Features per partial sum: f32 sums stay short, and a row's result is the sum of a few of them, in order.
pub(super) const RUN: usize = 256;

/// Rows of activations times consecutive panels. `X` holds one feature of a row, or a pair of them.
#[derive(Clone, Copy)]
pub(crate) struct Job<X = f32> {
    /// Rows of activations.
    pub(crate) rows: usize,
    /// The features of the weight to use: the first, and one past the last.
    pub(crate) features: (usize, usize),
    /// The activations, which have only those features, and the elements between two of their rows.
    pub(crate) x: (*const X, usize),
    /// The first panel, how many there are, and their size in bytes.
    pub(crate) panels: (*const u8, usize, usize),
    /// Where the first output goes, the elements between two output rows, and how many columns are needed.
    pub(crate) out: (*mut f32, usize, usize),
    /// What is added to the output at the same place; null for nothing.
    pub(crate) add: *const f32,
}

impl<X> Job<X> {
    /// The same job on other activations, whose rows are `stride` elements apart.
    pub(super) fn on<Y>(self, x: &[Y], stride: usize) -> Job<Y> {
        let Self { rows, features, panels, out, add, .. } = self;
        Job { rows, features, x: (x.as_ptr(), stride), panels, out, add }
    }
}

dispatch! {
    /// Runs a job.
    ///
    /// Every output is summed in the order of its features, [`RUN`] at a time, whatever is computed beside it.
    ///
    /// # Safety
    /// Activations, panels and outputs must exist, and the panels must be of this form and level.
    unsafe fn multiply<W: Form>(job: &Job) = multiply_generic;
}

#[inline(always)]
unsafe fn multiply_generic<S: Simd, W: Form>(job: &Job) {
    // SAFETY: the caller's contract, passed on.
    unsafe {
        if S::REGISTERS == 16 && job.rows > STRIP {
            panel_by_panel::<S, W>(job);
        } else {
            in_turn::<S, W>(job);
        }
    }
}

/// Every strip of rows times all panels, then the next.
#[inline(always)]
unsafe fn in_turn<S: Simd, W: Form>(job: &Job) {
    let mut row = 0;
    /// Strips of `$m` rows, as long as enough rows are left.
    macro_rules! strips {
        ($m:literal x $p:literal) => {
            while job.rows - row >= $m {
                // SAFETY: the rows exist; the rest is the caller's contract.
                unsafe { strip::<S, W, $m, $p>(job, row) };
                row += $m;
            }
        };
    }
    // Many rows: as many sums as fit in registers beside a feature of the panels. Few rows: enough panels that sums do not
    // wait for one another.
    if S::REGISTERS >= 32 {
        strips!(6 x 2);
        strips!(4 x 3);
        strips!(2 x 4);
        strips!(1 x 4);
    } else if S::REGISTERS >= 16 {
        strips!(6 x 1);
        strips!(4 x 1);
        strips!(2 x 2);
        strips!(1 x 4);
    } else {
        strips!(2 x 1);
        strips!(1 x 2);
    }
}

/// All rows times a panel, then the next panel, which is asked for meanwhile: else the first strip of rows would wait for it.
///
/// Measured with AVX2 alone, on Zen 3 (`benches/roofline.rs`). With AVX-512, asking ahead in another way won nothing.
#[inline(always)]
unsafe fn panel_by_panel<S: Simd, W: Form>(job: &Job) {
    let (first, count, size) = job.panels;
    // Those of six rows, and of four, two and one for the rest.
    let strips = job.rows / STRIP + [0, 1, 1, 2, 1, 2][job.rows % STRIP];
    let (from, to) = (job.features.0 / 2, job.features.1 / 2);
    let pairs = (to - from).max(1);
    // Each strip asks for its share of the next panel, wherever in it the features are.
    let step = size.div_ceil(strips * pairs);
    for panel in 0..count {
        let mut row = 0;
        let mut ahead = Ahead { at: first.wrapping_add((panel + 1) * size).wrapping_sub(from * step), step };
        /// Strips of `$m` rows, as long as enough rows are left.
        macro_rules! strips {
            ($m:literal) => {
                while job.rows - row >= $m {
                    // SAFETY: the rows and the panel exist; the rest is the caller's contract.
                    unsafe { tile::<S, W, $m, 1, true>(job, row, panel, ahead) };
                    ahead.at = ahead.at.wrapping_add(step * pairs);
                    row += $m;
                }
            };
        }
        strips!(6);
        strips!(4);
        strips!(2);
        strips!(1);
    }
}

/// What a tile asks for while it computes; only addresses, which need not be readable.
#[derive(Clone, Copy)]
struct Ahead {
    /// Asked for with pair 0.
    at: *const u8,
    /// Bytes per pair of features.
    step: usize,
}

/// Pairs of features between two times that something is asked for: within the innermost loop, AVX2 runs out of registers.
const PAIRS: usize = 16;

impl Ahead {
    const NOTHING: Self = Self { at: std::ptr::null(), step: 0 };
}

/// `M` rows from `row` on times all panels.
#[inline(always)]
unsafe fn strip<S: Simd, W: Form, const M: usize, const P: usize>(job: &Job, row: usize) {
    let (_, count, _) = job.panels;
    let mut panel = 0;
    // SAFETY: panels below `count`.
    unsafe {
        while panel + P <= count {
            tile::<S, W, M, P, false>(job, row, panel, Ahead::NOTHING);
            panel += P;
        }
        // The remaining panels together, too: several panels are several streams from memory.
        if P > 3 && count - panel == 3 {
            tile::<S, W, M, 3, false>(job, row, panel, Ahead::NOTHING);
            panel += 3;
        }
        if P > 2 && count - panel == 2 {
            tile::<S, W, M, 2, false>(job, row, panel, Ahead::NOTHING);
            panel += 2;
        }
        while panel < count {
            tile::<S, W, M, 1, false>(job, row, panel, Ahead::NOTHING);
            panel += 1;
        }
    }
}

/// `M` rows from `row` on times `P` panels from `panel` on.
#[inline(always)]
unsafe fn tile<S: Simd, W: Form, const M: usize, const P: usize, const AHEAD: bool>(
    job: &Job,
    row: usize,
    panel: usize,
    ahead: Ahead,
) {
    // SAFETY: the caller has these rows and panels.
    unsafe {
        let (first, _, size) = job.panels;
        let w: [*const u8; P] = std::array::from_fn(|p| first.add((panel + p) * size));
        let (from, to) = job.features;
        // Offset by the first feature, so that one index serves both activations and weight.
        let x: [*const f32; M] = std::array::from_fn(|r| job.x.0.add((row + r) * job.x.1).wrapping_sub(from));
        let mut total = [[[S::splat(0.0); WIDE]; P]; M];
        let mut k = from;
        while k < to {
            let end = to.min(k + RUN);
            let sums = run::<S, W, M, P, AHEAD>(w, x, k, end, ahead);
            for r in 0..M {
                for p in 0..P {
                    for v in 0..WIDE {
                        total[r][p][v] = S::add(total[r][p][v], sums[r][p][v]);
                    }
                }
            }
            k = end;
        }
        for r in 0..M {
            for p in 0..P {
                put::<S, f32>(job, row + r, panel + p, total[r][p]);
            }
        }
    }
}

/// The sums over features `k..end`.
#[inline(always)]
unsafe fn run<S: Simd, W: Form, const M: usize, const P: usize, const AHEAD: bool>(
    w: [*const u8; P],
    x: [*const f32; M],
    k: usize,
    end: usize,
    ahead: Ahead,
) -> [[[S::F; WIDE]; P]; M] {
    // SAFETY: arithmetic on vectors; the caller vouches for the instruction set.
    let zero = unsafe { S::splat(0.0) };
    let mut sums = [[[zero; WIDE]; P]; M];
    /// Adds one feature.
    macro_rules! feature {
        ($odd:literal, $pair:expr, $blocks:expr) => {
            // Loops instead of closures, which are not always inlined.
            let mut values = [[zero; WIDE]; P];
            for p in 0..P {
                values[p] = W::feature::<S, $odd>(w[p], $pair, $blocks[p]);
            }
            for r in 0..M {
                let x = S::splat(*x[r].wrapping_add(2 * $pair + usize::from($odd)));
                for p in 0..P {
                    for v in 0..WIDE {
                        sums[r][p][v] = S::fma(values[p][v], x, sums[r][p][v]);
                    }
                }
            }
        };
    }
    // SAFETY: features below `end`, which exist by the caller's contract.
    unsafe {
        let mut at = k;
        while at < end {
            let block = at / W::BLOCK;
            let stop = end.min(block.saturating_add(1).saturating_mul(W::BLOCK));
            let mut blocks = [W::block::<S>(w[0], block); P];
            for p in 1..P {
                blocks[p] = W::block::<S>(w[p], block);
            }
            if at % 2 == 1 {
                feature!(true, at / 2, blocks);
                at += 1;
            }
            let (mut pair, pairs) = (at / 2, stop / 2);
            while pair < pairs {
                let mut last = pairs;
                if AHEAD {
                    last = pairs.min(pair + PAIRS);
                    for byte in (pair * ahead.step..last * ahead.step).step_by(64) {
                        S::prefetch(ahead.at.wrapping_add(byte));
                    }
                }
                for pair in pair..last {
                    feature!(false, pair, blocks);
                    feature!(true, pair, blocks);
                }
                pair = last;
            }
            if stop % 2 == 1 && at < stop {
                feature!(false, stop / 2, blocks);
            }
            at = stop;
        }
    }
    sums
}

/// Writes the outputs of a row and a panel, up to the needed columns.
#[inline(always)]
pub(super) unsafe fn put<S: Simd, X>(job: &Job<X>, row: usize, panel: usize, sums: [S::F; WIDE]) {
    let (out, stride, columns) = job.out;
    // SAFETY: the needed columns exist, and the addends are laid out like the outputs.
    unsafe {
        for (v, sum) in sums.into_iter().enumerate() {
            let column = (panel * WIDE + v) * S::LANES;
            let at = row * stride + column;
            if column + S::LANES <= columns {
                let sum = if job.add.is_null() { sum } else { S::add(sum, S::load(job.add.add(at))) };
                S::store(out.add(at), sum);
            } else if column < columns {
                let rest = columns - column;
                let add =
                    if job.add.is_null() { S::splat(0.0) } else { crate::simd::load_part::<S>(job.add.add(at), rest) };
                crate::simd::store_part::<S>(out.add(at), S::add(sum, add), rest);
            }
        }
    }
}
