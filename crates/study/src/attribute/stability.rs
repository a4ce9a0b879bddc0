//! Whether a ranking comes out again with other items: split halves, beside the same under shuffled labels.

use headtemper_stats::{
    Adjustment, Columns, Folds, Halves, Projector, Tail, mean, spearman, split_half, with_small_strata,
};
use rayon::prelude::*;

use super::{AttributeOptions, LEVEL, Table, level};
use crate::{
    attribution::{Reliability, Stability},
    significance::permuted,
};

/// How many ways the items are halved.
const SPLITS: usize = 10;
/// The most shuffles for which this is done: its p need not be finer.
const SHUFFLES: usize = 100;
/// How many times a half is dealt into folds.
const REPEATS: usize = 2;
/// Folds within a half.
const FOLDS: usize = 5;

/// The item at each place, and what the covariates do to its d.
pub(super) type Labeling = (Vec<usize>, Adjustment);

/// d_crossfit of one head in halves of the items: observed first, then one entry per shuffle; each entry is `[split][half]`.
pub(super) type HalvesOfHead = Vec<Vec<[f64; 2]>>;

/// The ways to halve a table, with small strata kept in one half. An item less its stratum's mean holds a part of the stratum's
/// other items, with the sign turned; halves that each had some of a stratum would therefore be alike.
pub(super) fn halves(table: &Table<'_>, options: &AttributeOptions) -> Halves {
    let room_for_two = table.rows.len() / 4;
    let of_strata = table.strata.as_ref().map(|strata| with_small_strata(&table.units, strata, room_for_two));
    Halves::whole(table.sizes(), SPLITS, options.seed, of_strata.as_ref().unwrap_or(&table.units))
}

/// One head in all halves.
pub(super) fn of_head(projector: &Projector, halves: &Halves, labelings: &[Labeling]) -> HalvesOfHead {
    let folds: Vec<[Folds; 2]> = (0..halves.splits()).map(|split| halves.folds(split, FOLDS, REPEATS)).collect();
    let of = |order: &[usize]| -> Vec<[f64; 2]> {
        let of_half = |[a, b]: [Vec<usize>; 2], folds: &Folds| {
            let items = [a, b].concat();
            let places: Vec<usize> = (0..items.len()).collect();
            projector.of(&items).separation(&places, folds).crossfit
        };
        let of_split = |split: usize| {
            let [first, second] = halves.of(split, order);
            [of_half(first, &folds[split][0]), of_half(second, &folds[split][1])]
        };
        (0..halves.splits()).map(of_split).collect()
    };
    labelings.iter().take(1 + SHUFFLES).map(|(order, _)| of(order)).collect()
}

/// Both rankings: by the signed d of the norms, and by d_crossfit.
pub(super) fn of(norms: &[f64], of_heads: &[HalvesOfHead], table: &Table<'_>, options: &AttributeOptions) -> Stability {
    if table.taken_out.move_in_shuffles() {
        // Halves of residuals share what the fit on all items got wrong, the more so the more labels go with the covariate.
        let none = Reliability { rho: f64::NAN, null_mean: f64::NAN, null_q95: f64::NAN, p: f64::NAN, shuffles: 0 };
        return Stability { splits: SPLITS, magnitude: none, directional: none };
    }
    let halves = halves(table, options);
    let count = options.shuffles.min(SHUFFLES);
    let shuffles = table.shuffles(options.seed);
    let columns = table.slots.len();
    let rank = |a: &[usize], b: &[usize]| {
        let items = a.iter().chain(b).flat_map(|&place| norms[place * columns..(place + 1) * columns].iter().copied());
        let labels: Vec<bool> = (0..a.len() + b.len()).map(|place| place < a.len()).collect();
        Columns::new(&items.collect::<Vec<_>>(), columns).cohen_d(&labels)
    };
    let magnitude: Vec<f64> = (0..=count)
        .into_par_iter()
        .map(|at| {
            let order = if at == 0 { table.order() } else { shuffles.order(at as u64 - 1) };
            split_half(&halves, &order, rank)
        })
        .collect();
    let of_half = |at: usize, split: usize, half: usize| -> Vec<f64> {
        of_heads.iter().map(|head| head[at][split][half]).collect()
    };
    let directional: Vec<f64> = (0..=count)
        .map(|at| {
            let rho = (0..halves.splits()).map(|split| spearman(&of_half(at, split, 0), &of_half(at, split, 1)));
            mean(&rho.collect::<Vec<_>>())
        })
        .collect();
    Stability { splits: SPLITS, magnitude: reliability(&magnitude), directional: reliability(&directional) }
}

/// The observed correlation, and those under shuffled labels, which follow it.
fn reliability(all: &[f64]) -> Reliability {
    let (rho, null) = (all[0], &all[1..]);
    let known: Vec<f64> = null.iter().copied().filter(|x| !x.is_nan()).collect();
    Reliability {
        rho,
        null_mean: mean(&known),
        null_q95: level(&known, 1.0 - LEVEL),
        p: permuted(rho, null, Tail::Greater),
        shuffles: null.len(),
    }
}
