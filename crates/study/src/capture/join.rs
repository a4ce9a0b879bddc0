//! Joining captures: the shards of one, and the pieces that each is made of, to the `.npz` of the whole.

use std::path::{Path, PathBuf};

use crate::{
    Array, FeatureMeta, Npz, Result, Shard, StudyError, npz,
    store::{
        files::remove_left_of,
        shards::{all_once, differ_in},
    },
};

/// Arrays about the model rather than the items: equal in all shards.
const SHARED: [&str; 4] = ["layers", "slot_layer", "slot_head", "slot_name"];
const META: &str = "meta";

/// What a capture says of itself.
///
/// # Errors
/// If the file cannot be read, or is not that of a capture.
pub(crate) fn read_meta(path: &Path) -> Result<FeatureMeta> {
    let none = || StudyError::content(path, "has no text 'meta', so `temper capture` did not write it");
    let Some(Array::Scalar(text)) = Npz::find_array(path, META)? else { return Err(none()) };
    serde_json::from_str(&text).map_err(|e| StudyError::content(path, e))
}

/// Joins the shards of a capture into `out`, a buffer at a time; returns how many items it holds.
///
/// # Errors
/// If a file is not a shard of a capture, if the shards belong to different captures (naming what differs), or if one is missing or
/// is given twice.
pub fn merge_features(out: &Path, shards: &[PathBuf]) -> Result<usize> {
    let mut files = Vec::new();
    for path in shards {
        let mut meta = read_meta(path)?;
        let Some(shard) = meta.shard.take() else {
            return Err(StudyError::merge(format!("{} holds a whole capture", path.display())));
        };
        files.push((shard.parse::<Shard>()?, path.as_path(), meta));
    }
    let Some((_, first_path, first)) = files.first() else { return Err(StudyError::merge("none was given")) };
    for (_, path, meta) in &files[1..] {
        let differ = match (&first.parts, &meta.parts) {
            (Some(was), Some(now)) => now.changes(was),
            _ => Vec::new(),
        };
        if !differ.is_empty() || meta.key != first.key || !same_but_measured(first, meta) {
            return Err(differ_in(first_path, path, &differ));
        }
    }
    all_once(&files.iter().map(|(shard, path, _)| (*shard, *path)).collect::<Vec<_>>())?;
    files.sort_by_key(|(shard, ..)| *shard);
    if out.exists() {
        let there = read_meta(out)?;
        if there.key.is_none() || there.key != files[0].2.key || there.shard.is_some() {
            let differ = match (&there.parts, &files[0].2.parts) {
                (Some(was), Some(now)) => now.changes(was).join("; "),
                _ => "it does not say what it was made from".into(),
            };
            let why = if differ.is_empty() { "it is a part of it".into() } else { differ };
            return Err(StudyError::content(out, format!("is there and holds something else: {why}")));
        }
    }
    let paths: Vec<PathBuf> = files.iter().map(|(_, path, _)| path.to_path_buf()).collect();
    let meta = files[1..].iter().fold(files[0].2.clone(), |whole, (.., meta)| whole.measured_with(meta));
    let idle: Vec<&str> =
        meta.fired.iter().flatten().filter(|(_, count)| **count == 0).map(|(at, _)| &at[..]).collect();
    if !idle.is_empty() {
        let why = format!("no shard has a token that the plan {} touches at {}", meta.plan.join(", "), idle.join(", "));
        return Err(StudyError::merge(why));
    }
    remove_left_of(out);
    join(out, &paths, &meta)
}

/// Joins files of one capture in their order; `meta` is what the whole says of itself.
///
/// # Errors
/// As [`npz::join::join`].
pub(crate) fn join(out: &Path, files: &[PathBuf], meta: &FeatureMeta) -> Result<usize> {
    let meta = serde_json::to_string(meta).expect("plain data has a JSON form");
    npz::join::join(out, files, &SHARED, (META, &meta))
}

/// Whether two metas say the same, but for what was measured on each one's own items.
fn same_but_measured(a: &FeatureMeta, b: &FeatureMeta) -> bool {
    FeatureMeta { generated_vs_forced: b.generated_vs_forced.clone(), fired: b.fired.clone(), ..a.clone() } == *b
}
