//! The files that an attribution leaves beside the report.

use headtemper_hook::{HeadKind, HeadList};
use serde_json::json;

use crate::{
    Array, Features, Npz, Result, RunDir, StudyError, TopHeads,
    attribution::text::{COLUMNS, heads_csv, ranked},
    attribution::{Attribution, HeadEffect},
    heads::table::lambda_table,
    store::files::{write_json, write_text},
    text::as_written,
};

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
/// If no head has the number that ranks, or a file cannot be written.
pub(crate) fn write_heads(run: &RunDir, attribution: &Attribution, top: TopHeads, lambda: Option<f32>) -> Result<()> {
    let several = attribution.dispositions.len() > 1;
    for disposition in &attribution.dispositions {
        // Several dispositions come from a file, which has plain names only.
        let name = |stem: &str, extension: &str| {
            if several { format!("{stem}-{}.{extension}", disposition.name) } else { format!("{stem}.{extension}") }
        };
        let heads = ranked(disposition, attribution.method.compat, top.by);
        // Without the number that ranks, a head has no place: the first of the model would pass for the top.
        let ranks = |head: &&HeadEffect| {
            top.by.of(head.magnitude.cohen_d, head.d_crossfit, attribution.method.compat).is_finite()
        };
        let heads: Vec<&HeadEffect> = heads.into_iter().filter(ranks).take(top.count).collect();
        if heads.is_empty() {
            let found = format!("'{top}' (no head of '{}' has that number)", disposition.name);
            return Err(StudyError::option("what --top ranks by", found, "a number that was computed"));
        }
        let entry = |head: &&HeadEffect| {
            let mut entry = json!({"layer": head.layer, "head": head.head});
            if head.at().kind == HeadKind::Value {
                entry["kind"] = json!("value");
            }
            if let Some(lambda) = lambda {
                entry["lambda"] = json!(as_written(lambda));
            }
            entry
        };
        let list = json!({
            "schema": "heads/v1", "model": attribution.model, "weights_sha256": attribution.weights_sha256,
            "heads": heads.iter().map(entry).collect::<Vec<_>>(),
        });
        write_json(&run.file(&name("heads", "json")), &list)?;
        if let Some(lambda) = lambda {
            let plan = HeadList::of(heads.iter().map(|head| (head.at(), None)).collect())?.plan(Some(lambda))?;
            let of = (&*attribution.model, &*attribution.weights_sha256);
            let npz = lambda_table(&[&plan], &attribution.heads_per_layer, of);
            npz.save(&run.file(&name("lambda", "npz")))?;
        }
    }
    Ok(())
}
