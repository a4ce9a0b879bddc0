//! What is measured of every head between two cohorts, and what becomes of it in a file.

use headtemper_stats::{Columns, Folds, Range, Welch, bootstrap_d, hedges_correction, welch_t};

use super::{AttributeOptions, Compat, Directions, Magnitudes, Table, confounds, dd};
use crate::{
    Result,
    attribution::{HeadEffect, Verdict},
    watch::Watch,
};

/// What is measured of all heads, one column per head.
pub(super) struct Measured<'a> {
    table: &'a Table<'a>,
    /// Mean norms as captured, one row per item.
    raw: Vec<f64>,
    /// How loud heads are.
    pub(super) magnitudes: Magnitudes,
    /// The same at the last token alone.
    final_token: Magnitudes,
    /// The same, with length taken out.
    pub(super) without_length: Magnitudes,
    /// Where heads lie.
    pub(super) directions: Directions,
    /// Intervals of Cohen's d.
    intervals: Vec<Range>,
}

impl<'a> Measured<'a> {
    /// Measures the heads of a table.
    ///
    /// # Errors
    /// If it is stopped from outside, between two heads.
    pub(super) fn of(
        table: &'a Table<'a>,
        folds: &Folds,
        options: &AttributeOptions,
        watch: &Watch<'_>,
    ) -> Result<Self> {
        let raw = table.columns(&table.features.head_norm);
        let magnitudes = Magnitudes::of((&raw, &table.taken_out), table, options);
        let finals = table.columns(&table.features.head_norm_final);
        let final_token = Magnitudes::of((&finals, &table.taken_out), table, options);
        let directions = Directions::of(table, folds, options, watch)?;
        let without_length = Magnitudes::of((&raw, &table.taken_out_with_length), table, options);
        let intervals = intervals(&magnitudes.norms, table, options);
        Ok(Self { table, raw, magnitudes, final_token, without_length, directions, intervals })
    }

    /// The numbers of every head; nothing is judged yet.
    pub(super) fn effects(&self, options: &AttributeOptions) -> impl Iterator<Item = HeadEffect> {
        (0..self.table.slots.len()).map(|column| self.effect(column, options))
    }

    fn effect(&self, column: usize, options: &AttributeOptions) -> HeadEffect {
        let (table, columns) = (self.table, self.table.slots.len());
        let slot = table.slots[column];
        let at = table.features.slots[slot];
        let values: Vec<f64> = self.magnitudes.norms.iter().skip(column).step_by(columns).copied().collect();
        let (a, b) = values.split_at(table.n_a);
        // Welch's test allows for neither units nor covariates.
        let plain = table.unit_count() == table.rows.len() && table.taken_out.count() == 0;
        let welch = if plain { welch_t(a, b) } else { Welch::NONE };
        let magnitude = self.magnitudes.heads[column];
        let direction = &self.directions.heads[column];
        let Range { low, high } = self.intervals[column];
        let j = hedges_correction((table.rows.len() - 2).saturating_sub(table.taken_out.count()));
        let mut effect = HeadEffect {
            layer: at.layer,
            kind: at.kind,
            head: at.head,
            magnitude,
            hedges_g: magnitude.cohen_d * j,
            d_low: low,
            d_high: high,
            g_low: low * j,
            g_high: high * j,
            welch_t: welch.t,
            welch_df: welch.df,
            welch_p: welch.p,
            r_length: confounds::r_length(&self.raw, columns, column, table),
            d_length_adjusted: self.without_length.heads[column].cohen_d,
            final_token: self.final_token.heads[column],
            d_naive: direction.naive.d_naive,
            p_naive: direction.p_naive,
            d_crossfit: direction.d_crossfit,
            p_directional: direction.p,
            q_directional: direction.q,
            p_max_directional: direction.p_max,
            d_across: direction.d_across,
            p_across: direction.p_across,
            q_across: direction.q_across,
            p_max_across: direction.p_max_across,
            cos_means: direction.naive.cos_means,
            cos_centered: direction.cos_centred,
            direction_norm: direction.naive.norm,
            relative_norm: direction.naive.relative_norm,
            verdict: Verdict::Untested,
            dd: None,
        };
        if options.compat == Compat::Dd {
            dd::recompute(&mut effect, &values, &table.vectors(slot), table.n_a);
        }
        effect
    }
}

/// Intervals of Cohen's d of norms with the covariates taken out: as wide as those of resamples, which are in units of their own
/// spread, but around the d that the covariates leave ([`headtemper_stats::Covariates::correction`]).
fn intervals(norms: &[f64], table: &Table<'_>, options: &AttributeOptions) -> Vec<Range> {
    let (columns, labels) = (table.slots.len(), table.labels());
    let correction = table.taken_out.correction(&labels);
    let raw = Columns::new(norms, columns).cohen_d(&labels);
    let found = bootstrap_d(norms, columns, &labels, &table.units, options.resamples, options.seed);
    let moved = |(range, d): (Range, f64)| {
        let by = correction.of(d) - d;
        Range { low: range.low + by, high: range.high + by }
    };
    found.into_iter().zip(raw).map(moved).collect()
}
