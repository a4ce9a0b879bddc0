//! What is fixed before a fresh label is read: what the directory belongs to, and the probe.

use std::io::Write;

use super::{Frozen, GateFile};
use crate::{
    Parts, Progress, Result, RunDir, StudyError,
    probe::{PROBE_FILE, Probe, ProbeSet},
    store::files::{read_json, write_json, write_whole},
};

pub(crate) const FROZEN: &str = "frozen.json";

/// What the directory belongs to: everything fixed before a fresh label is read.
pub(super) fn parts(file: &GateFile, train: &ProbeSet, items: Option<&str>) -> Parts {
    Parts::default()
        .with("gates", &file.gates)
        .with("probe", &file.probe)
        .with("controls", &file.controls)
        .with("axes", &file.axes)
        .with("pooled", &file.pooled)
        .with("replication", &file.replication)
        .with("fresh", &file.fresh)
        .with("train_features_sha256", &train.origin.features_sha256)
        .with("train_labels_sha256", &train.origin.labels_sha256)
        .with("train_items_sha256", items)
}

/// Writes the probe, and then what is fixed from here on. A directory that was frozen before must agree.
pub(super) fn freeze(run: &RunDir, probe: &Probe, gates_sha256: &str, progress: &mut dyn Progress) -> Result<Frozen> {
    let path = run.file(FROZEN);
    let (bytes, probe_sha256) = probe.bytes();
    let before: Option<Frozen> = if path.exists() { Some(read_json(&path)?) } else { None };
    let chosen = &probe.meta.results[probe.meta.chosen];
    let frozen = Frozen { probe_sha256, gates_sha256: gates_sha256.into(), c: chosen.c, threshold: chosen.cv.best_thr };
    if let Some(before) = before.filter(|before| *before != frozen) {
        let why = format!(
            "was frozen with the probe {}, which is now {}\nhint: if nothing was changed, another version froze it; give a new directory",
            before.probe_sha256, frozen.probe_sha256
        );
        return Err(StudyError::content(&path, why));
    }
    write_whole(&run.file(PROBE_FILE), |file| file.write_all(&bytes))?;
    write_json(&path, &frozen)?;
    let threshold = frozen.threshold.map_or("none".into(), |threshold| format!("{threshold:.2}"));
    progress.note(&format!("frozen     probe {}, C {}, threshold {threshold}", frozen.probe_sha256, frozen.c));
    Ok(frozen)
}
