//! `probe.safetensors`: a probe, and everything that says what it is.
//!
//! Tensors in f64: `mean`, `scale` `[d]`, `coef` `[C, d]`, `intercept` and `c` `[C]`. In u64: `rows` `[n]`, names of the rows that
//! it was fitted on, and, where they are known, `prompts` `[n]`, names of their prompts. Of at least eight features also, in f64, what rows
//! are recognised by after rounding: `centre`, `spread` `[d]`, `sketches`, `halves` `[n, 8]`. Coefficients are for scaled features:
//! `p = 1 / (1 + exp(-(coef · (x - mean) / scale + intercept)))`. The metadata holds `probe`, [`ProbeMeta`] as JSON.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use headtemper_stats::{Logistic, Scaler, sigmoid};
use safetensors::{Dtype, SafeTensors, View};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Likeness, Probe, ProbeMeta,
    likeness::{SUMS, Sketch, row_hashes},
    rows::other_width,
};
use crate::{
    Result, StudyError,
    falsify::FROZEN,
    store::{
        digest::hex,
        files::{read_json, write_whole},
        manifest::{MANIFEST, Manifest},
        parts::short,
    },
};

/// The file's name in a directory.
pub const PROBE_FILE: &str = "probe.safetensors";
const META: &str = "probe";
/// What the manifest of a directory that holds one, or [`FROZEN`] in it, calls its hash.
pub(crate) const PROBE_SHA256: &str = "probe_sha256";

/// Names of prompts, from their hashes; None where nothing was asked, which is not a prompt.
pub(super) fn prompt_names(hashes: Option<&[String]>) -> Vec<Option<u64>> {
    let name = |hash: &String| {
        let digest = Sha256::digest(hash.as_bytes());
        (!hash.is_empty()).then(|| u64::from_le_bytes(digest[..8].try_into().expect("a hash has 32 bytes")))
    };
    hashes.unwrap_or_default().iter().map(name).collect()
}

/// Refuses a probe that was changed where it was frozen.
fn check_frozen(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.file_name().is_none_or(|name| name != PROBE_FILE) {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new(""));
    let (file, named) = if dir.join(FROZEN).exists() {
        (FROZEN, read_json::<Value>(&dir.join(FROZEN))?.get(PROBE_SHA256).cloned())
    } else {
        (MANIFEST, Manifest::read(dir).ok().and_then(|manifest| manifest.fact(PROBE_SHA256).cloned()))
    };
    let named = named.and_then(|named| named.as_str().map(str::to_owned));
    let is = hex(&Sha256::digest(bytes));
    match named.filter(|named| *named != is) {
        None => Ok(()),
        Some(named) => Err(StudyError::content(
            path,
            format!(
                "is not the probe that was fitted here: its SHA-256 is {}, in {file} it is {}\nhint: fit it again",
                short(&is.into()),
                short(&named.into())
            ),
        )),
    }
}

struct Numbers(Dtype, Vec<usize>, Vec<u8>);

impl View for Numbers {
    fn dtype(&self) -> Dtype {
        self.0
    }
    fn shape(&self) -> &[usize] {
        &self.1
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.2)
    }
    fn data_len(&self) -> usize {
        self.2.len()
    }
}

impl Probe {
    /// Writes the file, which appears whole, and returns its SHA-256; the same probe has the same.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<String> {
        let (bytes, sha256) = self.bytes();
        write_whole(path, |file| file.write_all(&bytes))?;
        Ok(sha256)
    }

    /// What the file holds, and its SHA-256.
    pub(crate) fn bytes(&self) -> (Vec<u8>, String) {
        let (d, count) = (self.scaler.mean.len(), self.fits.len());
        let floats = |shape: Vec<usize>, values: &mut dyn Iterator<Item = f64>| {
            Numbers(Dtype::F64, shape, values.flat_map(f64::to_le_bytes).collect())
        };
        let names = |names: &[u64]| {
            Numbers(Dtype::U64, vec![names.len()], names.iter().flat_map(|name| name.to_le_bytes()).collect())
        };
        let mut tensors = vec![
            ("mean", floats(vec![d], &mut self.scaler.mean.iter().copied())),
            ("scale", floats(vec![d], &mut self.scaler.scale.iter().copied())),
            ("coef", floats(vec![count, d], &mut self.fits.iter().flat_map(|fit| fit.coef.iter().copied()))),
            ("intercept", floats(vec![count], &mut self.fits.iter().map(|fit| fit.intercept))),
            ("c", floats(vec![count], &mut self.meta.results.iter().map(|result| result.c))),
            ("rows", names(&self.row_hashes)),
        ];
        if !self.prompt_names.is_empty() {
            tensors.push(("prompts", names(&self.prompt_names)));
        }
        if let Some(of) = &self.likeness {
            let rows = |name, sketches: &[Sketch]| {
                (name, floats(vec![sketches.len(), SUMS], &mut sketches.iter().flatten().copied()))
            };
            tensors.push(("centre", floats(vec![d], &mut of.centre.iter().copied())));
            tensors.push(("spread", floats(vec![d], &mut of.spread.iter().copied())));
            tensors.extend([rows("sketches", &of.sketches), rows("halves", &of.halves)]);
        }
        let meta = serde_json::to_string(&self.meta).expect("plain data has a JSON form");
        let metadata = HashMap::from([(META.to_string(), meta)]);
        let bytes = safetensors::serialize(tensors, Some(metadata)).expect("the shapes hold the values");
        let sha256 = hex(&Sha256::digest(&bytes));
        (bytes, sha256)
    }

    /// Reads the file, or the one in a directory.
    ///
    /// # Errors
    /// If it cannot be read, is not a probe of ours, or is another than the manifest of its directory names.
    pub fn read(path: &Path) -> Result<(Self, PathBuf)> {
        let path = if path.is_dir() { path.join(PROBE_FILE) } else { path.to_path_buf() };
        let bytes = fs::read(&path).map_err(StudyError::read(&path))?;
        check_frozen(&path, &bytes)?;
        let wrong = |why: String| StudyError::content(&path, format!("is no probe: {why}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(e.to_string()))?;
        let text = header.metadata().as_ref().and_then(|fields| fields.get(META));
        let text = text.ok_or_else(|| wrong("its metadata has no 'probe'".into()))?;
        let meta: ProbeMeta = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        if meta.schema != "probe/v1" {
            return Err(wrong(format!("its schema is {}, but must be probe/v1", meta.schema)));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
        let raw = |name: &str, dtype: Dtype| {
            let tensor = tensors.tensor(name).map_err(|e| wrong(e.to_string()))?;
            if tensor.dtype() != dtype {
                return Err(wrong(format!("'{name}' is {:?}, but must be {dtype:?}", tensor.dtype())));
            }
            let eight = |chunk: &[u8]| <[u8; 8]>::try_from(chunk).expect("a chunk of eight bytes");
            Ok(tensor.data().chunks_exact(8).map(eight).collect::<Vec<_>>())
        };
        let floats = |name: &str| -> Result<Vec<f64>> {
            Ok(raw(name, Dtype::F64)?.into_iter().map(f64::from_le_bytes).collect())
        };
        let (mean, scale, coef) = (floats("mean")?, floats("scale")?, floats("coef")?);
        let (intercept, d) = (floats("intercept")?, mean.len());
        let fits = meta.results.len();
        if d == 0 || scale.len() != d || coef.len() != fits * d || intercept.len() != fits || meta.chosen >= fits {
            return Err(wrong("its shapes do not fit each other".into()));
        }
        let of =
            |((coef, &intercept), steps): ((&[f64], &f64), usize)| Logistic { coef: coef.into(), intercept, steps };
        let steps = meta.results.iter().map(|result| result.steps);
        let fits = coef.chunks_exact(d).zip(&intercept).zip(steps).map(of).collect();
        let names = |name: &str| -> Result<Vec<u64>> {
            Ok(raw(name, Dtype::U64)?.into_iter().map(u64::from_le_bytes).collect())
        };
        let row_hashes = names("rows")?;
        let prompt_names = if tensors.tensor("prompts").is_ok() { names("prompts")? } else { Vec::new() };
        let likeness = if tensors.tensor("sketches").is_ok() {
            let rows = |name: &str| -> Result<Vec<Sketch>> {
                Ok(floats(name)?.chunks_exact(SUMS).map(|row| row.try_into().expect("a row of sums")).collect())
            };
            let (centre, spread) = (floats("centre")?, floats("spread")?);
            let of = Likeness { centre, spread, sketches: rows("sketches")?, halves: rows("halves")? };
            if [of.centre.len(), of.spread.len()] != [d; 2] || of.sketches.len() != of.halves.len() {
                return Err(wrong("its shapes do not fit each other".into()));
            }
            Some(of)
        } else {
            None
        };
        Ok((Self { scaler: Scaler { mean, scale }, fits, row_hashes, likeness, prompt_names, meta }, path))
    }

    /// Which of these rows it was fitted on, by their features or, as far as they are known, the hashes of their prompts.
    pub(crate) fn seen(&self, x: &[f64], features: usize, prompts: Option<&[String]>) -> Vec<bool> {
        let set = |names: &[u64]| names.iter().copied().collect::<BTreeSet<u64>>();
        let (rows, asked) = (set(&self.row_hashes), set(&self.prompt_names));
        let prompts = prompt_names(prompts);
        let answered = |at: usize| prompts.get(at).is_some_and(|name| name.is_some_and(|name| asked.contains(&name)));
        let alike = self.likeness.as_ref().map(|likeness| likeness.holds(x)).unwrap_or_default();
        let is_alike = |at: usize| alike.get(at).copied().unwrap_or_default();
        let known = |(at, name): (usize, &u64)| rows.contains(name) || is_alike(at) || answered(at);
        row_hashes(x, features).iter().enumerate().map(known).collect()
    }

    /// Probabilities of the positive class under the fit at this place.
    ///
    /// # Errors
    /// If the number of features is not the one that it was fitted on.
    pub fn probabilities(&self, fit: usize, x: &[f64], features: usize, source: &str) -> Result<Vec<f64>> {
        if features != self.scaler.mean.len() {
            return Err(other_width((&source, features), (&self.meta.train.features, self.scaler.mean.len())));
        }
        let rows: Vec<usize> = (0..x.len() / features).collect();
        let scaled = self.scaler.apply(x, features, &rows);
        Ok(scaled.chunks_exact(features).map(|row| sigmoid(self.fits[fit].log_odds(row))).collect())
    }
}
