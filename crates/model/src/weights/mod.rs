//! Weights by their Hugging Face names, whatever file they come from. Every tensor is accounted for.

mod gguf;
mod safetensors;

use std::{collections::BTreeSet, path::PathBuf};

use candle_core::{DType, Device, Tensor};

pub use gguf::GgufFile;
pub(crate) use safetensors::shard_files;

use crate::{Checkpoint, ModelError};

/// The weights of a checkpoint while a model is being built from them.
///
/// The file is mapped into memory; a tensor is copied out once, in the dtype it is held in, and its pages are given
/// back at once, so that loading needs little more memory than the weights as held.
pub struct Weights {
    source: Source,
    path: PathBuf,
    held: DType,
    device: Device,
    taken: BTreeSet<String>,
    parameters: usize,
}

enum Source {
    Safetensors(safetensors::Shards),
    Gguf(GgufFile),
}

impl Weights {
    /// Opens a checkpoint. `dtype` is what matrices are held in; `None` keeps what the file has.
    ///
    /// # Errors
    /// If a file is missing, truncated or malformed.
    pub fn open(checkpoint: &Checkpoint, dtype: Option<DType>, device: &Device) -> Result<Self, ModelError> {
        let (source, path, native) = match checkpoint {
            Checkpoint::Directory(dir) => {
                let shards = safetensors::Shards::open(dir)?;
                let native = shards.dtype("model.embed_tokens.weight").unwrap_or(DType::F32);
                (Source::Safetensors(shards), dir.clone(), native)
            }
            Checkpoint::Gguf(path) => {
                let file = GgufFile::open(path)?;
                let native = file.native_dtype();
                (Source::Gguf(file), path.clone(), native)
            }
        };
        let held = dtype.unwrap_or(native);
        Ok(Self { source, path, held, device: device.clone(), taken: BTreeSet::new(), parameters: 0 })
    }

    /// Where the tensors go.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype of activations, norms and the cache: f32 on the CPU, elsewhere that of the weights.
    pub fn activations(&self) -> DType {
        if self.device.is_cpu() { DType::F32 } else { self.held }
    }

    /// A matrix `[rows, columns]`, held in the dtype of the weights.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Tensor, ModelError> {
        let tensor = self.take(name, &[rows, columns])?;
        Ok(tensor.to_dtype(self.held)?)
    }

    /// A vector of `width` values, in the dtype of the activations.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn vector(&mut self, name: &str, width: usize) -> Result<Tensor, ModelError> {
        let tensor = self.take(name, &[width])?;
        Ok(tensor.to_dtype(self.activations())?)
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let stored = match &self.source {
            Source::Safetensors(_) => name.to_string(),
            Source::Gguf(_) => GgufFile::stored_name(name),
        };
        let found = match &self.source {
            Source::Safetensors(shards) => shards.shape(&stored),
            Source::Gguf(file) => file.shape(&stored),
        };
        let Some(found) = found else {
            return Err(ModelError::MissingTensor { path: self.path.clone(), name: stored });
        };
        if found != shape {
            return Err(ModelError::Shape { name: stored, found, expected: shape.to_vec() });
        }
        let tensor = match &self.source {
            Source::Safetensors(shards) => shards.read(&stored, &self.device)?,
            Source::Gguf(file) => file.read(name, &stored, self.held, &self.device)?,
        };
        self.parameters += shape.iter().product::<usize>();
        self.taken.insert(stored);
        Ok(tensor)
    }

    /// Ends loading: whatever is left must be known to be unused. Returns how many parameters were taken.
    ///
    /// # Errors
    /// Names tensors that nobody asked for: the checkpoint is then of a variant we would get wrong.
    pub fn finish(&mut self, unused: impl Fn(&str) -> bool) -> Result<usize, ModelError> {
        let all = match &self.source {
            Source::Safetensors(shards) => shards.names(),
            Source::Gguf(file) => file.names(),
        };
        let mut names: Vec<String> = all.into_iter().filter(|n| !self.taken.contains(n) && !unused(n)).collect();
        if names.is_empty() {
            return Ok(self.parameters);
        }
        let more = names.len().saturating_sub(5);
        names.truncate(5);
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        Err(ModelError::UnknownTensors { path: self.path.clone(), names })
    }
}

/// Gives a range of a mapped file back to the system after it was copied. Only an optimisation: a failure is no error.
fn release(map: &memmap2::Mmap, start: usize, len: usize) {
    #[cfg(unix)]
    {
        // SAFETY: the map is read-only and backed by the file, so dropped pages are read from it again when touched.
        let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len) };
    }
    #[cfg(not(unix))]
    let _ = (map, start, len);
}

/// Maps a file into memory.
fn map(path: &std::path::Path) -> Result<memmap2::Mmap, ModelError> {
    let read = |source| ModelError::Read { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(read)?;
    // SAFETY: as for every memory-mapped model, the file must not be changed while it is loaded.
    unsafe { memmap2::Mmap::map(&file) }.map_err(read)
}
