//! Register tiles: a few rows of activations times a few panels of a weight.

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

/// `M` rows from `row` on times all panels.
#[inline(always)]
unsafe fn strip<S: Simd, W: Form, const M: usize, const P: usize>(job: &Job, row: usize) {
    let (_, count, _) = job.panels;
    let mut panel = 0;
    // SAFETY: panels below `count`.
    unsafe {
        while panel + P <= count {
            tile::<S, W, M, P>(job, row, panel);
            panel += P;
        }
        // The remaining panels together, too: several panels are several streams from memory.
        if P > 3 && count - panel == 3 {
            tile::<S, W, M, 3>(job, row, panel);
            panel += 3;
        }
        if P > 2 && count - panel == 2 {
            tile::<S, W, M, 2>(job, row, panel);
            panel += 2;
        }
        while panel < count {
            tile::<S, W, M, 1>(job, row, panel);
            panel += 1;
        }
    }
}

/// `M` rows from `row` on times `P` panels from `panel` on.
#[inline(always)]
unsafe fn tile<S: Simd, W: Form, const M: usize, const P: usize>(job: &Job, row: usize, panel: usize) {
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
            let sums = run::<S, W, M, P>(w, x, k, end);
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
unsafe fn run<S: Simd, W: Form, const M: usize, const P: usize>(
    w: [*const u8; P],
    x: [*const f32; M],
    k: usize,
    end: usize,
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
            for pair in at / 2..stop / 2 {
                feature!(false, pair, blocks);
                feature!(true, pair, blocks);
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
