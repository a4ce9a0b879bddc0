//! From features to a ranking of heads between two cohorts, by magnitude and by direction.
//!
//! What is computed here is what the paper's text defines, each number beside what shuffled labels give for it.

use headtemper_stats::{
    Columns, Projector, Shuffles, Tail, benjamini_hochberg, cohen_d, max_abs, max_p_values, mean, naive_direction,
    p_value, quantile,
};

use crate::{
    Features, Result, StudyError,
    attribution::{Disposition, HeadEffect, LengthCheck, ShuffledLabels, kind_name},
    cohort::cohorts_of,
};

/// What to compare, and how often to shuffle.
pub struct AttributeOptions<'a> {
    /// Name of the disposition.
    pub name: &'a str,
    /// Label of the first cohort; d > 0 means louder in it.
    pub a: &'a str,
    /// Label of the second cohort.
    pub b: &'a str,
    /// How often labels are shuffled for the null; 0 leaves it out.
    pub shuffles: usize,
    /// Seed of the shuffles.
    pub seed: u64,
    /// Which responses were cut off, by item, where that is known.
    pub truncated: Option<&'a [bool]>,
}

/// The fewest items a cohort may have: below, no pooled variance exists.
const LEAST: usize = 2;
/// Cohorts below this are called tiny.
const TINY: usize = 15;
/// |d| of the response length above which a ranking is confounded with length.
const LENGTH_D: f64 = 0.5;

/// The compared items' numbers, a row an item.
struct Table {
    labels: Vec<bool>,
    rows: Vec<usize>,
}

/// Ranks every head of captured features between two labels.
///
/// # Errors
/// If a cohort is too small, or the features hold no head vectors.
pub fn attribute(features: &Features, options: &AttributeOptions<'_>) -> Result<Disposition> {
    if features.head_vectors.is_empty() {
        return Err(StudyError::Option {
            what: "what was captured of the heads".into(),
            found: "not their vectors".into(),
            allowed: "vectors".into(),
        });
    }
    let labels: Vec<Option<String>> =
        features.labels.iter().map(|label| (!label.is_empty()).then(|| label.clone())).collect();
    let [a, b] = cohorts_of(&labels, options.a, options.b, LEAST)?;
    let mut members: Vec<(usize, bool)> = a.rows.iter().map(|&row| (row, true)).collect();
    members.extend(b.rows.iter().map(|&row| (row, false)));
    members.sort_unstable();
    let table = Table {
        labels: members.iter().map(|&(_, in_a)| in_a).collect(),
        rows: members.iter().map(|&(row, _)| row).collect(),
    };
    let length = length_check(features, &table, options.truncated);
    let (heads, shuffled) = effects(features, &table, options);
    let mut disposition = Disposition {
        name: options.name.into(),
        a: options.a.into(),
        b: options.b.into(),
        n_a: a.rows.len(),
        n_b: b.rows.len(),
        heads,
        shuffled,
        length,
        warnings: Vec::new(),
    };
    disposition.warnings = warnings(&disposition, features, &table);
    Ok(disposition)
}

fn effects(features: &Features, table: &Table, options: &AttributeOptions<'_>) -> (Vec<HeadEffect>, ShuffledLabels) {
    let slots = features.slots.len();
    let norms: Vec<f64> = table
        .rows
        .iter()
        .flat_map(|&row| features.head_norm[row * slots..(row + 1) * slots].iter().map(|&x| f64::from(x)))
        .collect();
    let columns = Columns::new(&norms, slots);
    let d = columns.cohen_d(&table.labels);
    let vectors: Vec<(Vec<f64>, usize)> = (0..slots).map(|slot| head_vectors(features, table, slot)).collect();
    let projectors: Vec<Projector> = vectors.iter().map(|(values, dim)| Projector::new(values, *dim)).collect();

    let shuffles = Shuffles::of(&table.labels, options.seed);
    let (mut null_d, mut null_direction) = (vec![Vec::new(); slots], vec![Vec::new(); slots]);
    let (mut largest_d, mut largest_direction) = (Vec::new(), Vec::new());
    for labels in shuffles.iter().take(options.shuffles) {
        let d = columns.cohen_d(&labels);
        let direction: Vec<f64> = projectors.iter().map(|projector| projector.d_naive(&labels)).collect();
        largest_d.push(max_abs(&d));
        largest_direction.push(max_abs(&direction));
        for slot in 0..slots {
            null_d[slot].push(d[slot]);
            null_direction[slot].push(direction[slot]);
        }
    }
    let p: Vec<f64> = d.iter().zip(&null_d).map(|(&d, null)| permuted(d, null, Tail::TwoSided)).collect();
    let q = benjamini_hochberg(&p);
    let p_max = if largest_d.is_empty() { vec![f64::NAN; slots] } else { max_p_values(&d, &largest_d) };
    let heads = (0..slots).map(|slot| {
        let at = features.slots[slot];
        let of = |in_a: bool| -> f64 {
            let values = table.labels.iter().enumerate().filter(|&(_, &l)| l == in_a);
            mean(&values.map(|(i, _)| norms[i * slots + slot]).collect::<Vec<_>>())
        };
        let (mean_a, mean_b) = (of(true), of(false));
        let direction = naive_direction(&vectors[slot].0, vectors[slot].1, &table.labels);
        HeadEffect {
            layer: at.layer,
            kind: kind_name(at.kind).into(),
            head: at.head,
            mean_a,
            mean_b,
            delta: mean_a - mean_b,
            cohen_d: d[slot],
            p: p[slot],
            q: q[slot],
            p_max: p_max[slot],
            d_naive: direction.d_naive,
            // Against the fast path's own value: observed and null must come from the same arithmetic.
            p_directional: permuted(projectors[slot].d_naive(&table.labels), &null_direction[slot], Tail::Greater),
            cos_means: direction.cos_means,
            direction_norm: direction.norm,
            relative_norm: direction.relative_norm,
        }
    });
    let heads = heads.collect();
    let abs = |nulls: &[Vec<f64>]| mean(&nulls.iter().flatten().map(|x| x.abs()).collect::<Vec<_>>());
    let level = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        (mean(&values), if values.is_empty() { f64::NAN } else { quantile(&values, 0.95) })
    };
    let ((max_abs_d_mean, max_abs_d_q95), (max_d_naive_mean, max_d_naive_q95)) =
        (level(largest_d), level(largest_direction));
    let shuffled = ShuffledLabels {
        shuffles: options.shuffles,
        seed: options.seed,
        mean_abs_d: abs(&null_d),
        max_abs_d_mean,
        max_abs_d_q95,
        mean_d_naive: abs(&null_direction),
        max_d_naive_mean,
        max_d_naive_q95,
    };
    (heads, shuffled)
}

/// A permutation p, or none without shuffles: a p of 1 would claim that the null was looked at.
fn permuted(observed: f64, null: &[f64], tail: Tail) -> f64 {
    if null.is_empty() { f64::NAN } else { p_value(observed, null, tail) }
}

/// The compared items' mean z of one head, row-major, and its width.
fn head_vectors(features: &Features, table: &Table, slot: usize) -> (Vec<f64>, usize) {
    let at = features.slots[slot];
    let layer = features
        .head_vectors
        .iter()
        .find(|v| v.site.head_layer() == Some(at.layer))
        .expect("every slot's layer was captured");
    let values = table.rows.iter().flat_map(|&row| {
        let start = (row * layer.heads + at.head) * layer.dim;
        layer.values[start..start + layer.dim].iter().map(|&x| f64::from(x))
    });
    (values.collect(), layer.dim)
}

fn length_check(features: &Features, table: &Table, truncated: Option<&[bool]>) -> LengthCheck {
    let lengths = |in_a: bool| -> Vec<f64> {
        let members = table.rows.iter().zip(&table.labels).filter(|&(_, &l)| l == in_a);
        members.map(|(&row, _)| features.span_len(row) as f64).collect()
    };
    let cut = |in_a: bool| {
        let members = table.rows.iter().zip(&table.labels).filter(|&(_, &l)| l == in_a);
        truncated.map_or(0, |truncated| members.filter(|&(&row, _)| truncated[row]).count())
    };
    let (a, b) = (lengths(true), lengths(false));
    LengthCheck {
        mean_a: mean(&a),
        mean_b: mean(&b),
        cohen_d: cohen_d(&a, &b),
        truncated_a: cut(true),
        truncated_b: cut(false),
    }
}

fn warnings(disposition: &Disposition, features: &Features, table: &Table) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, n) in [(&disposition.a, disposition.n_a), (&disposition.b, disposition.n_b)] {
        if n < TINY {
            warnings.push(format!("cohort {name} has only {n} items; below {TINY} every effect size is a guess"));
        }
    }
    if disposition.length.cohen_d.abs() > LENGTH_D {
        warnings.push(format!(
            "responses in {} and {} differ in length (d = {:.2}): a head that tracks length ranks high",
            disposition.a, disposition.b, disposition.length.cohen_d
        ));
    }
    let (cut_a, cut_b) = (disposition.length.truncated_a, disposition.length.truncated_b);
    if cut_a + cut_b > 0 {
        warnings.push(format!(
            "{cut_a} of {} responses in {} and {cut_b} of {} in {} were cut off at the limit of tokens",
            disposition.n_a, disposition.a, disposition.n_b, disposition.b
        ));
    }
    let short = table.rows.iter().filter(|&&row| features.span_len(row) < features.meta.last_n).count();
    if short > 0 {
        warnings.push(format!(
            "{short} of {} responses have fewer than {} tokens; their heads are averaged over what there is",
            table.rows.len(),
            features.meta.last_n
        ));
    }
    warnings
}
