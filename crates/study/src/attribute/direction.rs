//! Elsewhere in one cohort: the vectors of each head between the two, in-sample and on held-out items.

use headtemper_stats::{
    Direction, Folds, Halves, Projector, Tail, across_the_mean, benjamini_hochberg, centred_cosine, longest,
    naive_direction,
};
use rayon::prelude::*;

use super::{
    AttributeOptions, Table,
    stability::{self, HalvesOfHead, Labeling},
};
use crate::{Result, significance::permuted, watch::Watch};

/// Values of z are kept in single precision. A spread below this share of the longest z, before anything is taken out of it, is their
/// rounding; and rounding of vectors of few lengths goes with the lengths, and so with the labels.
const PRECISION: f64 = f32::EPSILON as f64;

/// The vectors of all heads between the cohorts, and what shuffled labels give.
pub(super) struct Directions {
    /// In the order of the table's slots.
    pub(super) heads: Vec<HeadDirection>,
    /// What shuffled labels give, one entry per head.
    pub(super) nulls: Vec<Null>,
    /// The largest d_naive of each shuffle.
    pub(super) largest_naive: Vec<f64>,
    /// The largest d of each shuffle, by the spread that shuffles are compared by (`crossfit_welch` of `headtemper_stats::Separation`).
    pub(super) largest: Vec<f64>,
    /// d_crossfit in halves of the items, one entry per head.
    pub(super) halves: Vec<HalvesOfHead>,
}

/// One head's vectors between the cohorts.
pub(super) struct HeadDirection {
    pub(super) naive: Direction,
    pub(super) p_naive: f64,
    pub(super) d_crossfit: f64,
    /// What p is of: `crossfit_welch` of `headtemper_stats::Separation`, of the vectors and across the mean.
    compared: f64,
    compared_across: f64,
    pub(super) cos_centred: f64,
    /// Permutation p, q and family-wise p of the cross-fitted d.
    pub(super) p: f64,
    pub(super) q: f64,
    pub(super) p_max: f64,
    /// Cross-fitted d across the mean, with its p and family-wise p.
    pub(super) d_across: f64,
    pub(super) p_across: f64,
    pub(super) q_across: f64,
    pub(super) p_max_across: f64,
}

/// What shuffled labels give for one head.
pub(super) struct Null {
    pub(super) naive: Vec<f64>,
    pub(super) crossfit: Vec<f64>,
    compared: Vec<f64>,
    compared_across: Vec<f64>,
}

/// The largest of every shuffle over all heads; NaN where no head has any.
fn largest<'a>(nulls: &'a [Null], of: impl Fn(&'a Null) -> &'a [f64], shuffles: usize) -> Vec<f64> {
    (0..shuffles).map(|k| nulls.iter().map(|null| of(null)[k]).fold(f64::NAN, f64::max)).collect()
}

impl Directions {
    /// Compares the vectors of every slot of `table`, slots in parallel; the numbers do not depend on the threads.
    ///
    /// # Errors
    /// If it is stopped from outside.
    pub(super) fn of(table: &Table<'_>, folds: &Folds, options: &AttributeOptions, watch: &Watch<'_>) -> Result<Self> {
        let shuffles = table.shuffles(options.seed);
        let orders = std::iter::once(table.order()).chain((0..options.shuffles as u64).map(|k| shuffles.order(k)));
        let adjusted = |order: Vec<usize>| -> Labeling {
            let adjustment = table.taken_out.adjustment(&order, folds);
            (order, adjustment)
        };
        let labelings: Vec<Labeling> = orders.map(adjusted).collect();
        let halves = stability::halves(table, options);
        let one = |&slot: &usize| {
            watch.take(|| {
                let (vectors, dim) = table.vectors(slot);
                let floor = PRECISION * longest(&vectors, dim);
                let vectors = table.taken_out.residuals(&vectors, dim);
                head((&vectors, dim, floor), table, folds, &labelings, &halves)
            })
        };
        let all: Vec<(HeadDirection, Null, HalvesOfHead)> = table.slots.par_iter().map(one).collect::<Result<_>>()?;
        let mut heads = Vec::new();
        let (mut nulls, mut of_halves) = (Vec::new(), Vec::new());
        for (head, null, halves) in all {
            heads.push(head);
            nulls.push(null);
            of_halves.push(halves);
        }
        let q = benjamini_hochberg(&heads.iter().map(|head| head.p).collect::<Vec<_>>());
        let q_across = benjamini_hochberg(&heads.iter().map(|head| head.p_across).collect::<Vec<_>>());
        let largest_of = largest(&nulls, |null| &null.compared, options.shuffles);
        let largest_across = largest(&nulls, |null| &null.compared_across, options.shuffles);
        for (head, (q, q_across)) in heads.iter_mut().zip(q.into_iter().zip(q_across)) {
            (head.q, head.q_across) = (q, q_across);
            head.p_max = permuted(head.compared, &largest_of, Tail::Greater);
            head.p_max_across = permuted(head.compared_across, &largest_across, Tail::Greater);
        }
        let largest_naive = largest(&nulls, |null| &null.naive, options.shuffles);
        Ok(Self { heads, nulls, largest_naive, largest: largest_of, halves: of_halves })
    }
}

/// One head: the observed numbers and their null, from the same arithmetic. A spread that is not above `floor` is none.
fn head(
    (vectors, dim, floor): (&[f64], usize, f64),
    table: &Table<'_>,
    folds: &Folds,
    labelings: &[Labeling],
    halves: &Halves,
) -> (HeadDirection, Null, HalvesOfHead) {
    let whole = Projector::above(vectors, dim, floor);
    let across = Projector::above(&across_the_mean(vectors, dim), dim, floor);
    let along =
        |projector: &Projector, (order, adjustment): &Labeling| projector.separation_beside(order, folds, adjustment);
    let (as_they_are, shuffled) = labelings.split_first().expect("the labels as they are");
    let observed = along(&whole, as_they_are);
    let observed_across = along(&across, as_they_are);
    let mut null = Null { naive: Vec::new(), crossfit: Vec::new(), compared: Vec::new(), compared_across: Vec::new() };
    let exchange = table.taken_out.move_in_shuffles();
    let as_shuffled = |projector: &Projector, labeling: &Labeling| {
        if exchange {
            along(&projector.exchanged(&labeling.0, &table.taken_out), as_they_are)
        } else {
            along(projector, labeling)
        }
    };
    for labeling in shuffled {
        let found = as_shuffled(&whole, labeling);
        null.naive.push(found.naive);
        null.crossfit.push(found.crossfit);
        null.compared.push(found.crossfit_welch);
        null.compared_across.push(as_shuffled(&across, labeling).crossfit_welch);
    }
    let (order, _) = as_they_are;
    let naive = naive_direction(vectors, dim, &table.labels());
    let direction = HeadDirection {
        naive: Direction { d_naive: observed.naive, ..naive },
        p_naive: permuted(observed.naive, &null.naive, Tail::Greater),
        d_crossfit: observed.crossfit,
        // Halves of residuals share what the fit on all items got wrong.
        cos_centred: if exchange { f64::NAN } else { centred_cosine(vectors, dim, order, halves) },
        compared: observed.crossfit_welch,
        compared_across: observed_across.crossfit_welch,
        p: permuted(observed.crossfit_welch, &null.compared, Tail::Greater),
        q: f64::NAN,
        p_max: f64::NAN,
        d_across: observed_across.crossfit,
        p_across: permuted(observed_across.crossfit_welch, &null.compared_across, Tail::Greater),
        q_across: f64::NAN,
        p_max_across: f64::NAN,
    };
    let of_halves = if exchange { Vec::new() } else { stability::of_head(&whole, halves, labelings) };
    (direction, null, of_halves)
}
