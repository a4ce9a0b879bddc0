//! Safetensors: one file, or shards named by an index.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use headtemper_kernels::{Held, MatrixBuilder};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::{
    Table,
    mapped::{Mapped, map, release},
};
use crate::ModelError;

/// Approximate number of bytes copied at once.
const PIECE: usize = 16 << 20;
const READABLE: &str = "F32, F16, BF16";

/// The mapped shards of a checkpoint, and where each tensor is.
pub(super) struct Shards {
    maps: Vec<Arc<Mapped>>,
    tensors: BTreeMap<String, Entry>,
}

struct Entry {
    shard: usize,
    start: usize,
    end: usize,
    shape: Vec<usize>,
    dtype: Dtype,
}

/// The part of `model.safetensors.index.json` that we read: the shard of every tensor.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The weight files of a directory, in a fixed order.
pub(crate) fn shard_files(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    // As in transformers, a single file takes precedence over an index.
    let single = dir.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    if !index.exists() {
        return Err(ModelError::NoWeights { dir: dir.into() });
    }
    let text = fs::read_to_string(&index).map_err(|source| ModelError::Read { path: index.clone(), source })?;
    let parsed: Index = serde_json::from_str(&text).map_err(|e| ModelError::Malformed {
        path: index.clone(),
        kind: "safetensors index",
        why: e.to_string(),
    })?;
    let files: BTreeSet<String> = parsed.weight_map.into_values().collect();
    files
        .into_iter()
        .map(|name| {
            let file = dir.join(&name);
            let inside = !name.contains("..") && !Path::new(&name).is_absolute();
            if inside && file.exists() {
                Ok(file)
            } else {
                Err(ModelError::MissingShard { file, index: index.clone() })
            }
        })
        .collect()
}

/// A tensor as a safetensors file stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The range of bytes of its values in the file.
    pub bytes: std::ops::Range<usize>,
    /// The type of its values; `None` for a type we do not compute with.
    pub dtype: Option<DType>,
}

/// The tensors of one safetensors file, by name.
///
/// # Errors
/// If it cannot be read or is not a safetensors file.
pub fn stored_tensors(path: &Path) -> Result<Vec<StoredTensor>, ModelError> {
    let mut shards = Shards { maps: Vec::new(), tensors: BTreeMap::new() };
    shards.add(path)?;
    let stored = |(name, entry): (String, Entry)| StoredTensor {
        name,
        shape: entry.shape,
        bytes: entry.start..entry.end,
        dtype: readable(entry.dtype),
    };
    Ok(shards.tensors.into_iter().map(stored).collect())
}

impl Shards {
    pub(super) fn open(dir: &Path) -> Result<Self, ModelError> {
        let mut shards = Self { maps: Vec::new(), tensors: BTreeMap::new() };
        for path in shard_files(dir)? {
            shards.add(&path)?;
        }
        Ok(shards)
    }

    fn add(&mut self, path: &Path) -> Result<(), ModelError> {
        let map = map(path)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| wrong(path, &map, &e))?;
        let data = header + 8; // an 8-byte length precedes the header
        for (name, info) in metadata.tensors().into_iter().collect::<BTreeMap<_, _>>() {
            let (start, end) = (data + info.data_offsets.0, data + info.data_offsets.1);
            let entry = Entry { shard: self.maps.len(), start, end, shape: info.shape.clone(), dtype: info.dtype };
            let same = |other: &Entry| {
                let theirs = self.maps.get(other.shard).map(|of| &of[other.start..other.end]);
                (&other.shape, other.dtype) == (&entry.shape, entry.dtype) && theirs == Some(&map[start..end])
            };
            if let Some(other) = self.tensors.get(&name).filter(|other| !same(other)) {
                let why = format!("'{name}' has other values than in shard {}", other.shard + 1);
                return Err(ModelError::Malformed { path: path.into(), kind: "shard of a checkpoint", why });
            }
            self.tensors.insert(name, entry);
        }
        self.maps.push(Arc::new(map));
        Ok(())
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|entry| entry.shape.clone())
    }

    /// The type in which the decoder's matrices are stored.
    pub(super) fn native(&self, prefix: &str) -> Held {
        let of_text = |name: &str| name.starts_with(prefix) || name == "lm_head.weight";
        let matrices = self.tensors.iter().filter(|(name, entry)| of_text(name) && entry.shape.len() == 2);
        super::common(matrices.filter_map(|(_, entry)| Held::of(readable(entry.dtype)?)))
    }

    /// Whether a tensor exists and its values differ from another's.
    pub(super) fn differ(&self, name: &str, other: &str) -> Result<bool, ModelError> {
        let (Some(a), Some(b)) = (self.tensors.get(name), self.tensors.get(other)) else { return Ok(false) };
        if a.shape != b.shape {
            return Ok(true);
        }
        if a.dtype != b.dtype {
            let wide = |name| -> Result<Tensor, ModelError> {
                Ok(self.read(name, &Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?)
            };
            let same = wide(name)?.eq(&wide(other)?)?.min_all()?.to_scalar::<u8>()?;
            return Ok(same == 0);
        }
        let (mut from, len) = (0, a.end - a.start);
        while from < len {
            let piece = PIECE.min(len - from);
            let bytes = |entry: &Entry| &self.maps[entry.shard][entry.start + from..][..piece];
            if bytes(a) != bytes(b) {
                return Ok(true);
            }
            for entry in [a, b] {
                release(&self.maps[entry.shard], entry.start + from, piece);
            }
            from += piece;
        }
        Ok(false)
    }

    /// A table that stays in its file.
    pub(super) fn table(&self, name: &str, rows: usize, columns: usize) -> Result<Table, ModelError> {
        let entry = &self.tensors[name];
        let dtype = self.readable(name)?;
        Ok(Table::values(Arc::clone(&self.maps[entry.shard]), entry.start, dtype, rows, columns))
    }

    /// Refuses a tensor of a type we do not read.
    pub(super) fn readable(&self, name: &str) -> Result<DType, ModelError> {
        let found = self.tensors[name].dtype;
        readable(found).ok_or_else(|| ModelError::Dtype {
            name: name.into(),
            found: format!("{found:?}"),
            allowed: READABLE,
        })
    }

    /// Appends the rows of a tensor to a matrix, each modified by `change`.
    pub(super) fn append(
        &self,
        name: &str,
        columns: usize,
        to: &mut MatrixBuilder,
        change: impl Fn(&mut [f32]) + Sync,
    ) -> Result<(), ModelError> {
        let entry = &self.tensors[name];
        let map = &self.maps[entry.shard];
        let dtype = self.readable(name)?;
        let row_bytes = columns * dtype.size_in_bytes();
        // Piece by piece, so that at most one piece of the map takes memory beside the copy.
        let piece = (PIECE / row_bytes.max(1)).max(1) * row_bytes;
        let mut start = entry.start;
        while start < entry.end {
            let end = entry.end.min(start + piece);
            let bytes = &map[start..end];
            to.fill(bytes.len() / row_bytes, |r, out| {
                widen(dtype, &bytes[r * row_bytes..][..row_bytes], out);
                change(out);
            })?;
            release(map, start, end - start);
            start = end;
        }
        Ok(())
    }

    pub(super) fn read(&self, name: &str, device: &Device) -> Result<Tensor, ModelError> {
        let entry = &self.tensors[name];
        let dtype = self.readable(name)?;
        let map = &self.maps[entry.shard];
        let tensor = Tensor::from_raw_buffer(&map[entry.start..entry.end], dtype, &entry.shape, device)?;
        release(map, entry.start, entry.end - entry.start);
        Ok(tensor)
    }
}

/// Widens stored values to f32.
pub(super) fn widen(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::BF16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        DType::F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        _ => each(bytes, out, f32::from_le_bytes),
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = value(bytes);
    }
}

fn readable(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// The error for a file that does not parse: truncated, or not safetensors at all.
fn wrong(path: &Path, map: &Mmap, error: &safetensors::SafeTensorError) -> ModelError {
    use safetensors::SafeTensorError as E;
    let path = path.into();
    match error {
        E::MetadataIncompleteBuffer | E::HeaderTooSmall | E::InvalidHeaderLength => {
            ModelError::Truncated { path, why: format!("it has {} bytes, and its header promises more", map.len()) }
        }
        other => ModelError::Malformed { path, kind: "safetensors file", why: other.to_string() },
    }
}
