//! The arithmetic and the files of the scripts of arXiv 2604.11867, quirks included, so that published numbers can be compared:
//! `--compat dd`.
//!
//! What they do differently from us: prompt and response are tokenised as one string, with the special tokens that the tokenizer
//! adds even where the chat template has written them; texts are cut at 2048 tokens; items with fewer than three response tokens
//! are dropped; heads are ranked by signed d; a pooled sd under 1e-8 gives a d of 0; lengths have 1e-8 added. What still differs
//! here: the scripts take norms in bf16 where their model is bf16, and means in f32.

use std::collections::BTreeMap;

use headtemper_stats::{dot, mean, norm, variance};
use serde_json::{Map, Value, json};

use crate::{
    Compat, RankBy, Result, StudyError,
    attribution::{Attribution, DdNames, Disposition, HeadEffect, text::ranked},
    store::files::write_json,
};

/// Texts are cut here.
pub(crate) const MAX_TOKENS: usize = 2048;
/// Items with fewer response tokens are dropped.
pub(crate) const LEAST_RESPONSE: usize = 3;
/// Their guard: a pooled sd below it gives a d of 0, and it is added to every length.
const GUARD: f64 = 1e-8;

/// Replaces a head's numbers by those that the scripts compute, from the `norms` of its items, a's `n_a` first, and its vectors.
pub(crate) fn recompute(head: &mut HeadEffect, norms: &[f64], (vectors, dim): &(Vec<f64>, usize), n_a: usize) {
    head.magnitude.cohen_d = guarded_d(&norms[..n_a], &norms[n_a..]);
    let mean_of = |rows: &[f64]| -> Vec<f64> {
        let n = (rows.len() / dim) as f64;
        (0..*dim).map(|k| rows.iter().skip(k).step_by(*dim).sum::<f64>() / n).collect()
    };
    let (a, b) = vectors.split_at(n_a * dim);
    let (mean_a, mean_b) = (mean_of(a), mean_of(b));
    let v: Vec<f64> = mean_a.iter().zip(&mean_b).map(|(a, b)| a - b).collect();
    let size = norm(&v) + GUARD;
    let along = |rows: &[f64]| rows.chunks_exact(*dim).map(|x| dot(x, &v) / size).collect::<Vec<_>>();
    head.d_naive = guarded_d(&along(a), &along(b));
    head.direction_norm = size;
    head.cos_means = dot(&mean_a, &mean_b) / ((norm(&mean_a) + GUARD) * (norm(&mean_b) + GUARD));
}

/// Cohen's d, 0 where the pooled sd is under their guard.
fn guarded_d(a: &[f64], b: &[f64]) -> f64 {
    let freedom = |x: &[f64]| x.len().saturating_sub(1) as f64;
    let within = freedom(a) * variance(a) + freedom(b) * variance(b);
    let sd = (within / (freedom(a) + freedom(b))).sqrt();
    if sd > GUARD { (mean(a) - mean(b)) / sd } else { 0.0 }
}

/// Gives every head the scripts' names for its numbers.
pub(crate) fn name(disposition: &mut Disposition) {
    let layers = layers(disposition);
    for head in &mut disposition.heads {
        head.dd = Some(DdNames {
            attn_layer_idx: layers.iter().position(|&layer| layer == head.layer).unwrap_or_default(),
            overconf_score: head.magnitude.delta,
            d_directional: head.d_naive,
            cos_cohort_means: head.cos_means,
        });
    }
}

/// The layers that have ranked heads, ascending.
fn layers(disposition: &Disposition) -> Vec<usize> {
    let mut layers: Vec<usize> = disposition.heads.iter().map(|head| head.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    layers
}

/// What the scripts make of a name for the names of files.
fn tag(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// Refuses dispositions whose files would have one name.
///
/// # Errors
/// Names two of them.
pub(crate) fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in names {
        if let Some(other) = seen.insert(tag(name), name) {
            let found = format!("of the same files as '{other}' with --compat dd");
            return Err(StudyError::option(
                format!("the disposition '{name}'"),
                found,
                "different in letters or digits",
            ));
        }
    }
    Ok(())
}

/// The two files that the scripts write for one disposition, with what their names begin with.
pub(crate) fn files(attribution: &Attribution, disposition: &Disposition) -> [(String, Value); 2] {
    let tag = tag(&disposition.name);
    let layers = layers(disposition);
    let heads_of = |layer: usize| disposition.heads.iter().filter(|head| head.layer == layer).count();
    let arch = json!({
        "n_attn_layers": layers.len(),
        "n_heads": layers.iter().map(|&layer| heads_of(layer)).max().unwrap_or(0),
        "orig_layer_indices": layers,
    });
    let (a, b) = (&disposition.a, &disposition.b);
    let cohorts = Map::from_iter([(b.clone(), json!(disposition.n_b)), (a.clone(), json!(disposition.n_a))]);
    let place = |head: &HeadEffect| {
        let index = layers.iter().position(|&layer| layer == head.layer);
        json!({"layer": head.layer, "attn_layer_idx": index, "head": head.head})
    };
    let magnitude = |head: &HeadEffect| {
        let mut entry = place(head);
        entry[format!("mean_{a}")] = json!(head.magnitude.mean_a);
        entry[format!("mean_{b}")] = json!(head.magnitude.mean_b);
        entry["overconf_score"] = json!(head.magnitude.delta);
        entry["cohen_d"] = json!(head.magnitude.cohen_d);
        entry
    };
    let directional = |head: &HeadEffect| {
        let mut entry = place(head);
        entry["d_directional"] = json!(head.d_naive);
        entry["cos_cohort_means"] = json!(head.cos_means);
        entry["direction_norm"] = json!(head.direction_norm);
        entry
    };
    let signed: Vec<Value> = ranked(disposition, Compat::Dd, RankBy::Magnitude).into_iter().map(magnitude).collect();
    let mut by_direction: Vec<&HeadEffect> = disposition.heads.iter().collect();
    by_direction.sort_by(|x, y| y.d_naive.abs().total_cmp(&x.d_naive.abs()));
    let by_direction: Vec<Value> = by_direction.into_iter().map(directional).collect();
    let first = |all: &[Value], count: usize| all[..count.min(all.len())].to_vec();
    let common = |rest: Value| {
        let mut file = json!({"model_id": attribution.model, "tag": tag, "arch": arch, "cohorts": cohorts});
        if let (Value::Object(file), Value::Object(rest)) = (&mut file, rest) {
            file.extend(rest);
        }
        file
    };
    let magnitudes = common(json!({
        "last_n_tokens": attribution.last_n,
        "top20_overconf_heads": first(&signed, 20),
        "bottom5_overconf_heads": signed[signed.len().saturating_sub(5)..],
        "all_heads_ranked_by_cohen_d": signed,
    }));
    let directions = common(json!({
        "method": "directional_projection_cohen_d",
        "top20_by_abs_d": first(&by_direction, 20),
        "all_heads_ranked": by_direction,
    }));
    [
        (format!("path_b_attribution_{tag}.json"), magnitudes),
        (format!("path_b_attribution_{tag}_directional.json"), directions),
    ]
}

/// Writes those files.
///
/// # Errors
/// If one cannot be written.
pub(crate) fn write(run: &crate::RunDir, attribution: &Attribution) -> Result<()> {
    for disposition in &attribution.dispositions {
        for (name, content) in files(attribution, disposition) {
            write_json(&run.file(&name), &content)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispositions_of_the_same_files_are_refused() {
        check_names(["self-improving", "curious"].into_iter()).unwrap();
        let error = check_names(["self-improving", "Self_improving"].into_iter()).unwrap_err().to_string();
        assert!(error.contains("'Self_improving' is of the same files as 'self-improving'"), "{error}");
    }
}
