//! The items of two cohorts side by side, with what may be taken out of their numbers and what must stay together.

use headtemper_stats::{Covariates, Shuffles};

use super::{Adjust, AttributeOptions, strata};
use crate::{
    Features, ItemFacts, Result,
    items::{dispositions::Cohorts, units::unit_of},
};

/// The items of two cohorts in one table, a's first: what shuffles and folds call places.
pub(super) struct Table<'a> {
    pub(super) features: &'a Features,
    /// Rows of the features.
    pub(super) rows: Vec<usize>,
    pub(super) n_a: usize,
    /// Slots of the features that are ranked.
    pub(super) slots: Vec<usize>,
    /// Response tokens of each item, and their logarithm: what is taken out where length is adjusted for.
    pub(super) length: [Vec<f64>; 2],
    /// The stratum of each item, where labels are shuffled within strata.
    pub(super) strata: Option<Vec<usize>>,
    /// The unit of each item, its prompt unless something else was asked for. Items of a unit are not independent, so they are
    /// shuffled, folded and drawn together.
    pub(super) units: Vec<usize>,
    /// What is taken out of norms and vectors: strata, and length where that is asked for.
    pub(super) taken_out: Covariates,
    /// The same, but always with length.
    pub(super) taken_out_with_length: Covariates,
}

impl<'a> Table<'a> {
    pub(super) fn new(
        features: &'a Features,
        cohorts: &Cohorts,
        facts: &[ItemFacts],
        options: &AttributeOptions,
    ) -> Result<Self> {
        let rows: Vec<usize> = cohorts.a.iter().chain(&cohorts.b).copied().collect();
        let slots = Self::slots(features, options);
        let strata =
            options.within.as_ref().map(|field| strata::of(field, &rows, cohorts.a.len(), facts)).transpose()?;
        let length: Vec<f64> = rows.iter().map(|&row| features.span_len(row) as f64).collect();
        let logarithm = length.iter().map(|x| x.ln()).collect();
        let length = [length, logarithm];
        let units = unit_of(rows.iter().map(|&row| facts.get(row)), options.groups.as_deref());
        let of_strata: Vec<Vec<f64>> = strata.iter().flat_map(|strata| strata::indicators(strata)).collect();
        let taken_out_with_length = Covariates::beside(rows.len(), &of_strata, &length);
        let taken_out = match options.adjust {
            Adjust::Length => taken_out_with_length.clone(),
            Adjust::None => Covariates::beside(rows.len(), &of_strata, &[]),
        };
        let n_a = cohorts.a.len();
        Ok(Self { features, rows, n_a, slots, length, strata, units, taken_out, taken_out_with_length })
    }

    /// The slots of the heads that are compared.
    pub(super) fn slots(features: &Features, options: &AttributeOptions) -> Vec<usize> {
        (0..features.slots.len()).filter(|&slot| options.heads.has(features.slots[slot].kind)).collect()
    }

    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.n_a, self.n_b())
    }

    /// How many units there are.
    pub(super) fn unit_count(&self) -> usize {
        self.units.iter().max().map_or(0, |most| most + 1)
    }

    /// Shuffles of the labels, by whole units and within strata.
    pub(super) fn shuffles(&self, seed: u64) -> Shuffles {
        Shuffles::whole(self.n_a, self.n_b(), seed, &self.units, self.strata.as_deref())
    }

    pub(super) fn n_b(&self) -> usize {
        self.rows.len() - self.n_a
    }

    pub(super) fn labels(&self) -> Vec<bool> {
        (0..self.rows.len()).map(|place| place < self.n_a).collect()
    }

    /// The items in their own order.
    pub(super) fn order(&self) -> Vec<usize> {
        (0..self.rows.len()).collect()
    }

    /// One number of every slot, one row per item.
    pub(super) fn columns(&self, of: &[f32]) -> Vec<f64> {
        let width = self.features.slots.len();
        self.rows.iter().flat_map(|&row| self.slots.iter().map(move |slot| f64::from(of[row * width + slot]))).collect()
    }

    /// The mean z of one slot, one row per item, and its width.
    pub(super) fn vectors(&self, slot: usize) -> (Vec<f64>, usize) {
        let at = self.features.slots[slot];
        let layer = self.features.head_vectors.iter().find(|v| v.site.head_layer() == Some(at.layer));
        let layer = layer.expect("every slot's layer was captured");
        let values = self.rows.iter().flat_map(|&row| {
            let start = (row * layer.heads + at.head) * layer.dim;
            layer.values[start..start + layer.dim].iter().map(|&x| f64::from(x))
        });
        (values.collect(), layer.dim)
    }
}
