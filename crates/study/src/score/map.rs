//! The causal map: what tempering each head does to the responses, over items, each number beside its null.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_stats::{
    Columns, Interval, Shuffles, SignFlips, Tail, bootstrap_d, clustered_t, cohen_d, max_abs, max_p_values, mean,
    p_value, quantile, sign_flip_test,
};
use rayon::prelude::*;

use crate::{
    Cohort,
    attribute::AttributeOptions,
    confounds::{Dealt, LikeResponses, OUTCOMES, Truncation, says_the_label},
    items::units::{clustering, sizes, sums},
    score::{CellContrast, CellEffect, Confounds, Contrast, Flips, ScoreMap, Scores, plan::Beside, warnings::warnings},
    significance::LEVEL,
};

/// How the nulls are made.
#[derive(Clone, Copy)]
pub(crate) struct Nulls {
    /// How many sign flips and how many shuffles; 0 leaves both out.
    pub(crate) shuffles: usize,
    /// Their seed.
    pub(crate) seed: u64,
}

/// The map of what was scored; `units` are the items of each prompt, or of each group by a field.
pub(crate) fn map(
    scores: &Scores,
    (units, groups): (&[Vec<usize>], Option<&str>),
    model: &str,
    heads_per_layer: Vec<usize>,
    cohorts: Option<(&[Cohort; 2], Option<&Beside>)>,
    nulls: Nulls,
) -> ScoreMap {
    let flips = SignFlips::new(units.len(), nulls.shuffles, nulls.seed);
    let columns: Vec<Vec<f64>> = (0..scores.scored.len()).map(|cell| scores.per_token(&scores.delta, cell)).collect();
    let by_unit: Vec<Vec<f64>> = columns.iter().map(|column| sums(column, units)).collect();
    let sizes = sizes(units);
    let test = sign_flip_test(&rows(&by_unit, &(0..units.len()).collect::<Vec<_>>()), columns.len(), &flips);
    let cells = scores.cells().enumerate().map(|(cell, (at, lambda))| {
        let Interval { low, high, .. } = clustered_t(&by_unit[cell], &sizes);
        CellEffect {
            layer: at.layer,
            kind: at.kind,
            head: at.head,
            lambda,
            delta: mean(&columns[cell]),
            low,
            high,
            kl: mean(&scores.per_token(&scores.kl, cell)),
            agreement: mean(&scores.agreement(cell)),
            p: test.p[cell],
            p_max: test.p_max[cell],
        }
    });
    let base: Vec<f64> = scores.base.iter().zip(&scores.tokens).map(|(sum, &tokens)| sum / tokens as f64).collect();
    let mut map = ScoreMap {
        schema: "score/v1".into(),
        model: model.into(),
        items: scores.ids.len(),
        prompts: units.len(),
        groups: groups.map(String::from),
        tokens: scores.tokens.iter().sum(),
        base_logprob_per_token: mean(&base),
        lambdas: scores.lambdas.clone(),
        heads_per_layer,
        cells: cells.collect(),
        earlier: 0,
        flips: Flips {
            count: flips.count(),
            exact: flips.exact(),
            seed: nulls.seed,
            smallest_p: if flips.count() == 0 { f64::NAN } else { flips.smallest_p() },
        },
        contrast: cohorts.map(|cohorts| contrast(scores, &columns, units, cohorts, nulls)),
        warnings: Vec::new(),
    };
    map.warnings = warnings(&map, nulls);
    map
}

/// Columns as a row-major table of some items.
fn rows(columns: &[Vec<f64>], items: &[usize]) -> Vec<f64> {
    items.iter().flat_map(|&item| columns.iter().map(move |column| column[item])).collect()
}

fn contrast(
    scores: &Scores,
    columns: &[Vec<f64>],
    units: &[Vec<usize>],
    ([a, b], beside): (&[Cohort; 2], Option<&Beside>),
    nulls: Nulls,
) -> Contrast {
    let items: Vec<usize> = a.rows.iter().chain(&b.rows).copied().collect();
    let labels: Vec<bool> = (0..items.len()).map(|place| place < a.rows.len()).collect();
    let unit_of: BTreeMap<usize, usize> =
        units.iter().enumerate().flat_map(|(unit, of)| of.iter().map(move |&item| (item, unit))).collect();
    let prompt_of: Vec<usize> = items.iter().map(|item| unit_of[item]).collect();
    let values = rows(columns, &items);
    let table = Columns::new(&values, columns.len());
    let d = table.cohen_d(&labels);
    let resamples = AttributeOptions::RESAMPLES;
    let intervals = bootstrap_d(&values, columns.len(), &labels, &prompt_of, resamples, nulls.seed);
    let shuffles = Shuffles::whole(a.rows.len(), b.rows.len(), nulls.seed, &prompt_of, None);
    let (labelings, fixed) = (shuffles.labelings(), shuffles.fixed());
    let null: Vec<Vec<f64>> =
        (0..nulls.shuffles as u64).into_par_iter().map(|k| table.welch_d(&shuffles.labels(k))).collect();
    let mut largest: Vec<f64> = null.iter().map(|d| max_abs(d)).collect();
    let null_of = |cell: usize| null.iter().map(|d| d[cell]).collect::<Vec<f64>>();
    let tested = !largest.is_empty() && 1.0 / labelings <= LEVEL;
    let compared = table.welch_d(&labels);
    let p_max = if tested { max_p_values(&compared, &largest) } else { vec![f64::NAN; columns.len()] };
    let of = |values: &dyn Fn(usize) -> f64, rows: &[usize]| rows.iter().map(|&row| values(row)).collect::<Vec<_>>();
    let cells = scores.cells().enumerate().map(|(cell, (at, lambda))| CellContrast {
        layer: at.layer,
        kind: at.kind,
        head: at.head,
        lambda,
        mean_a: mean(&of(&|item| columns[cell][item], &a.rows)),
        mean_b: mean(&of(&|item| columns[cell][item], &b.rows)),
        cohen_d: d[cell],
        d_low: intervals[cell].low,
        d_high: intervals[cell].high,
        p: if tested { p_value(compared[cell], &null_of(cell), Tail::TwoSided) } else { f64::NAN },
        p_max: p_max[cell],
    });
    let cells = cells.collect();
    largest.sort_by(f64::total_cmp);
    let (tokens_a, tokens_b) =
        (of(&|item| scores.tokens[item] as f64, &a.rows), of(&|item| scores.tokens[item] as f64, &b.rows));
    let dealt = Dealt { n_a: a.rows.len(), items: items.len(), shuffles, count: nulls.shuffles };
    Contrast {
        a: a.name.clone(),
        b: b.name.clone(),
        n_a: a.rows.len(),
        n_b: b.rows.len(),
        tokens_a: mean(&tokens_a),
        tokens_b: mean(&tokens_b),
        tokens_d: cohen_d(&tokens_a, &tokens_b),
        tokens_p: dealt.p_of_lengths(&[&tokens_a[..], &tokens_b].concat()),
        confounds: beside.map(|beside| Confounds::of(beside, [&a.name, &b.name], &items, &prompt_of, &dealt)),
        clustering: clustering(&labels, &prompt_of, None),
        prompts: prompt_of.iter().collect::<BTreeSet<_>>().len(),
        labelings,
        fixed,
        shuffles: nulls.shuffles,
        seed: nulls.seed,
        resamples,
        max_abs_d_mean: mean(&largest),
        max_abs_d_q95: quantile(&largest, 0.95),
        cells,
    }
}

impl Confounds {
    fn of(beside: &Beside, labels: [&str; 2], rows: &[usize], units: &[usize], dealt: &Dealt) -> Self {
        let of = |row: &usize| beside.prompt_tokens[*row] as f64;
        let prompts: Vec<f64> = rows.iter().map(of).collect();
        let (a, b) = prompts.split_at(dealt.n_a);
        let cut: Vec<Option<bool>> = rows.iter().map(|&row| beside.truncated[row]).collect();
        let Truncation { cut: [truncated_a, truncated_b], known: [ends_known_a, ends_known_b] } =
            Truncation::of(&cut, dealt.n_a);
        let like = (!beside.responses.is_empty()).then(|| {
            let responses: Vec<Option<usize>> = rows.iter().map(|&row| beside.responses[row]).collect();
            LikeResponses::of(&dealt.labels(), units, &responses, None)
        });
        let fields: Vec<_> = rows.iter().map(|&row| Some(&beside.fields[row])).collect();
        // Cohorts are labels, and these are not among the fields; but verdicts say the same.
        let (fields, fields_checked) =
            dealt.fields(&fields, |field| OUTCOMES.contains(&field) || says_the_label(field, &labels));
        Self {
            prompt_tokens_a: mean(a),
            prompt_tokens_b: mean(b),
            prompt_tokens_d: cohen_d(a, b),
            prompt_tokens_p: dealt.p_of_lengths(&prompts),
            ends_known_a,
            ends_known_b,
            truncated_a,
            truncated_b,
            responses_clustering: like.map(|like| like.clustering),
            responses_repeated: like.map_or(0, |like| like.items),
            fields_checked,
            fields,
        }
    }
}
