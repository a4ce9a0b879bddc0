//! The files that an attribution and a sweep leave beside the report.

use headtemper_engine::Identity;
use headtemper_hook::{HeadKind, HeadPlan, HeadRef};
use serde_json::json;

use crate::{
    Arm, Array, Features, Npz, Result, RunDir, TopHeads,
    attribution::text::{COLUMNS, heads_csv, ranked},
    attribution::{Attribution, HeadEffect},
    heads::table::{MODEL, WEIGHTS},
    store::files::{write_json, write_text},
};

/// How many heads each layer has, of all heads of a model.
pub(crate) fn heads_per_layer(slots: &[HeadRef]) -> Vec<usize> {
    let mut heads = vec![0; slots.iter().map(|at| at.layer + 1).max().unwrap_or(0)];
    for at in slots {
        heads[at.layer] += 1;
    }
    heads
}

/// The files of [`write_attribution`].
pub(crate) const ATTRIBUTION_FILES: [&str; 3] = ["attribution.json", "attribution.csv", "attribution.npz"];

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
    let shape = || vec![features.ids.len(), features.slots.len()];
    npz.add("head_norm", Array::F32(shape(), features.head_norm.clone()));
    npz.add("head_norm_final", Array::F32(shape(), features.head_norm_final.clone()));
    npz.add("id", Array::Text(features.ids.clone()));
    npz.add("label", Array::Text(features.labels.clone()));
    npz.add("meta", Array::Scalar(serde_json::to_string(&features.meta).expect("plain data has a JSON form")));
    npz.save(&run.file("attribution.npz"))
}

fn add_heads(npz: &mut Npz, prefix: &str, heads: &[HeadEffect]) {
    npz.add(format!("{prefix}slot_layer"), Array::counts(heads.iter().map(|h| h.layer)));
    npz.add(format!("{prefix}slot_head"), Array::counts(heads.iter().map(|h| h.head)));
    npz.add(format!("{prefix}slot_name"), Array::Text(heads.iter().map(|h| h.at().to_string()).collect()));
    npz.add(format!("{prefix}verdict"), Array::Text(heads.iter().map(|h| h.verdict.to_string()).collect()));
    for (name, of) in COLUMNS {
        npz.add(format!("{prefix}{name}"), Array::floats(heads.iter().map(of)));
    }
}

/// Writes the heads at the top of each disposition, or all where there are fewer, as lists that every command reads:
/// `heads.json` and, with a λ, `lambda.npz` `[1, layer, head]`. With several dispositions, the file names hold the disposition's
/// name.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn write_heads(run: &RunDir, attribution: &Attribution, top: TopHeads, lambda: Option<f32>) -> Result<()> {
    let several = attribution.dispositions.len() > 1;
    for disposition in &attribution.dispositions {
        // Several dispositions come from a file, which has plain names only.
        let name = |stem: &str, extension: &str| {
            if several { format!("{stem}-{}.{extension}", disposition.name) } else { format!("{stem}.{extension}") }
        };
        let heads = ranked(disposition, attribution.method.compat, top.by);
        let heads: Vec<&HeadEffect> = heads.into_iter().take(top.count).collect();
        let entry = |head: &&HeadEffect| {
            let mut entry = json!({"layer": head.layer, "head": head.head});
            if head.at().kind == HeadKind::Value {
                entry["kind"] = json!("value");
            }
            if let Some(lambda) = lambda {
                entry["lambda"] = json!(lambda);
            }
            entry
        };
        let list = json!({
            "schema": "heads/v1", "model": attribution.model, "weights_sha256": attribution.weights_sha256,
            "heads": heads.iter().map(entry).collect::<Vec<_>>(),
        });
        write_json(&run.file(&name("heads", "json")), &list)?;
        if let Some(lambda) = lambda {
            let per_layer = &attribution.heads_per_layer;
            let most = per_layer.iter().copied().max().unwrap_or(0);
            let mut table = vec![1f32; per_layer.len() * most];
            for head in &heads {
                table[head.layer * most + head.head] = lambda;
            }
            let mut npz = Npz::default();
            npz.add("lambda", Array::F32(vec![1, per_layer.len(), most], table));
            add_model(&mut npz, (&attribution.model, &attribution.weights_sha256));
            npz.save(&run.file(&name("lambda", "npz")))?;
        }
    }
    Ok(())
}

/// Notes in a λ table which model it is for.
fn add_model(npz: &mut Npz, (model, weights_sha256): (&str, &str)) {
    npz.add(MODEL, Array::Scalar(model.into()));
    npz.add(WEIGHTS, Array::Scalar(weights_sha256.into()));
}

/// Writes `lambda.npz`: λ of every head in every arm, `[arm, layer, head]`; 1 where the arm or the model has none.
///
/// # Errors
/// If it cannot be written.
pub fn write_lambda(run: &RunDir, arms: &[Arm], heads_per_layer: &[usize], identity: &Identity) -> Result<()> {
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
    npz.add("positions", Array::Text(arms.iter().map(|arm| arm.plan.positions().to_string()).collect()));
    add_model(&mut npz, (&identity.model, &identity.weights_sha256));
    npz.save(&run.file("lambda.npz"))
}
