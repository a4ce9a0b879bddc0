//! The files that an attribution and a sweep leave beside the report.

use headtemper_hook::{HeadPlan, ModelSpec};

use crate::{
    Arm, Array, Features, Npz, Result, RunDir,
    attribution::{Attribution, Disposition, HeadEffect},
    files::{write_json, write_text},
    tables::heads_csv,
};

/// How many heads each layer has.
pub(crate) fn heads_per_layer(spec: &ModelSpec) -> Vec<usize> {
    (0..spec.layers.len()).map(|layer| spec.head_count(layer)).collect()
}

/// The files of [`write_attribution`].
pub(crate) const ATTRIBUTION_FILES: [&str; 3] = ["attribution.json", "attribution.csv", "attribution.npz"];

/// One disposition as `attribution/v1`.
pub fn attribution_of(disposition: Disposition, features: &Features, spec: &ModelSpec) -> Attribution {
    Attribution {
        schema: "attribution/v1".into(),
        model: features.meta.identity.model.clone(),
        last_n: features.meta.last_n,
        heads_per_layer: heads_per_layer(spec),
        dispositions: vec![disposition],
    }
}

/// Writes `attribution.json`, `.csv` and `.npz`: the numbers of every head, and the norms they were computed from.
///
/// # Errors
/// If a file cannot be written.
pub fn write_attribution(run: &RunDir, attribution: &Attribution, features: &Features) -> Result<()> {
    write_json(&run.file("attribution.json"), attribution)?;
    let mut csv = String::new();
    for disposition in &attribution.dispositions {
        let part = heads_csv(disposition);
        csv += if csv.is_empty() { &part } else { part.split_once('\n').map_or("", |(_, rows)| rows) };
    }
    write_text(&run.file("attribution.csv"), &csv)?;
    let mut npz = Npz::default();
    for (index, disposition) in attribution.dispositions.iter().enumerate() {
        // The first disposition's arrays carry plain names, the others' a number.
        let prefix = if index == 0 { String::new() } else { format!("{index}.") };
        add_heads(&mut npz, &prefix, &disposition.heads);
        npz.add(format!("{prefix}name"), Array::Scalar(disposition.name.clone()));
    }
    npz.add("head_norm", Array::F32(vec![features.ids.len(), features.slots.len()], features.head_norm.clone()));
    npz.add("id", Array::Text(features.ids.clone()));
    npz.add("label", Array::Text(features.labels.clone()));
    npz.add("meta", Array::Scalar(serde_json::to_string(&features.meta).expect("plain data has a JSON form")));
    npz.save(&run.file("attribution.npz"))
}

/// One number of a head.
type Column = fn(&HeadEffect) -> f64;

fn add_heads(npz: &mut Npz, prefix: &str, heads: &[HeadEffect]) {
    npz.add(format!("{prefix}slot_layer"), Array::counts(heads.iter().map(|h| h.layer)));
    npz.add(format!("{prefix}slot_head"), Array::counts(heads.iter().map(|h| h.head)));
    let columns: [(&str, Column); 12] = [
        ("mean_a", |h| h.mean_a),
        ("mean_b", |h| h.mean_b),
        ("delta", |h| h.delta),
        ("cohen_d", |h| h.cohen_d),
        ("p", |h| h.p),
        ("q", |h| h.q),
        ("p_max", |h| h.p_max),
        ("d_naive", |h| h.d_naive),
        ("p_directional", |h| h.p_directional),
        ("cos_means", |h| h.cos_means),
        ("direction_norm", |h| h.direction_norm),
        ("relative_norm", |h| h.relative_norm),
    ];
    for (name, of) in columns {
        npz.add(format!("{prefix}{name}"), Array::floats(heads.iter().map(of)));
    }
}

/// Writes `lambda.npz`: λ of every head in every arm, `[arm, layer, head]`; 1 where the arm or the model has none.
///
/// # Errors
/// If it cannot be written.
pub fn write_lambda(run: &RunDir, arms: &[Arm], heads_per_layer: &[usize]) -> Result<()> {
    let layers = heads_per_layer.len();
    let heads = heads_per_layer.iter().copied().max().unwrap_or(0);
    let mut lambda = vec![1f32; arms.len() * layers * heads];
    let place = |arm: usize, plan: &HeadPlan, lambda: &mut Vec<f32>| {
        for (at, value) in plan.iter() {
            lambda[(arm * layers + at.layer) * heads + at.head] = value;
        }
    };
    for (index, arm) in arms.iter().enumerate() {
        place(index, &arm.plan, &mut lambda);
    }
    let mut npz = Npz::default();
    npz.add("lambda", Array::F32(vec![arms.len(), layers, heads], lambda));
    npz.add("variant", Array::Text(arms.iter().map(|arm| arm.variant.clone()).collect()));
    npz.save(&run.file("lambda.npz"))
}
