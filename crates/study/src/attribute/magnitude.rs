//! Louder in one cohort: one norm of each head and item between the two.

use headtemper_stats::{Columns, Covariates, Tail, benjamini_hochberg, max_abs, max_p_values, mean};
use rayon::prelude::*;

use super::{AttributeOptions, Table};
use crate::{attribution::Magnitude, significance::permuted};

/// The norms of all heads between the cohorts, and what shuffled labels give.
pub(super) struct Magnitudes {
    /// The norms without the covariates, one row per item.
    pub(super) norms: Vec<f64>,
    /// In the order of the table's slots.
    pub(super) heads: Vec<Magnitude>,
    /// Cohen's d of every head, one row per shuffle.
    pub(super) null: Vec<Vec<f64>>,
    /// The largest |`welch_d`| of each shuffle.
    pub(super) largest: Vec<f64>,
}

impl Magnitudes {
    /// Compares a table of norms with the covariates taken out: one row per item of `table`, one column per slot.
    pub(super) fn of(
        (norms, covariates): (&[f64], &Covariates),
        table: &Table<'_>,
        options: &AttributeOptions,
    ) -> Self {
        let slots = table.slots.len();
        let values = covariates.residuals(norms, slots);
        let columns = Columns::new(&values, slots);
        // Cohen's d, and the d that shuffles are compared by.
        let of_labels = |labels: &[bool]| -> (Vec<f64>, Vec<f64>) {
            let correction = covariates.correction(labels);
            let (pooled, welch) = (columns.cohen_d(labels), columns.welch_d(labels));
            let compared = welch.into_iter().zip(&pooled).map(|(d, pooled)| correction.beside(d, *pooled)).collect();
            (pooled.into_iter().map(|d| correction.of(d)).collect(), compared)
        };
        let (d, compared) = of_labels(&table.labels());
        let shuffles = table.shuffles(options.seed);
        let (null, compared_null): (Vec<Vec<f64>>, Vec<Vec<f64>>) =
            (0..options.shuffles as u64).into_par_iter().map(|k| of_labels(&shuffles.labels(k))).unzip();
        let largest: Vec<f64> = compared_null.iter().map(|d| max_abs(d)).collect();
        let p: Vec<f64> = (0..slots)
            .into_par_iter()
            .map(|slot| {
                let of_slot: Vec<f64> = compared_null.iter().map(|d| d[slot]).collect();
                permuted(compared[slot], &of_slot, Tail::TwoSided)
            })
            .collect();
        let q = benjamini_hochberg(&p);
        let p_max = if largest.is_empty() { vec![f64::NAN; slots] } else { max_p_values(&compared, &largest) };
        let heads = (0..slots).map(|slot| {
            let of = |places: std::ops::Range<usize>| {
                mean(&places.map(|place| values[place * slots + slot]).collect::<Vec<_>>())
            };
            let (mean_a, mean_b) = (of(0..table.n_a), of(table.n_a..table.rows.len()));
            let (cohen_d, delta) = (d[slot], mean_a - mean_b);
            Magnitude { mean_a, mean_b, delta, cohen_d, p: p[slot], q: q[slot], p_max: p_max[slot] }
        });
        let heads = heads.collect();
        Self { norms: values, heads, null, largest }
    }
}
