//! A table too large to hold: it stays mapped on the host, and rows are gathered from it.

use std::{borrow::Cow, sync::Arc};

use candle_core::{
    DType, Device, Result, Tensor,
    quantized::{GgmlDType, QStorage, QTensor},
};
use memmap2::Mmap;

use super::Random;

/// A matrix of which single rows are read. Gemma 4's per-layer embeddings take 4.7 GB, of which a token needs 18 KB.
pub(crate) struct Table {
    rows: usize,
    columns: usize,
    source: Source,
}

enum Source {
    /// Plain values in a mapped file.
    Values { map: Arc<Mmap>, start: usize, dtype: DType },
    /// Blocks of a GGUF type; a row is a whole number of them.
    Blocks { map: Arc<Mmap>, start: usize, kind: GgmlDType },
    /// Values that are computed when asked for.
    Random { random: Random, name: String },
}

impl Table {
    pub(super) fn values(map: Arc<Mmap>, start: usize, dtype: DType, rows: usize, columns: usize) -> Self {
        Self { rows, columns, source: Source::Values { map, start, dtype } }
    }

    pub(super) fn blocks(map: Arc<Mmap>, start: usize, kind: GgmlDType, rows: usize, columns: usize) -> Self {
        Self { rows, columns, source: Source::Blocks { map, start, kind } }
    }

    pub(super) fn random(random: Random, name: &str, rows: usize, columns: usize) -> Self {
        Self { rows, columns, source: Source::Random { random, name: name.into() } }
    }

    /// Bytes that it takes in its file.
    pub(super) fn mapped_bytes(&self) -> usize {
        let values = self.rows * self.columns;
        match &self.source {
            Source::Values { dtype, .. } => values * dtype.size_in_bytes(),
            Source::Blocks { kind, .. } => values / kind.block_size() * kind.type_size(),
            Source::Random { .. } => 0,
        }
    }

    /// The rows `ids`, `[ids, columns]` f32 on the CPU.
    ///
    /// # Errors
    /// If an id is beyond the table.
    pub(crate) fn gather(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.rows) {
            candle_core::bail!("row {id} of an embedding table that has {}", self.rows);
        }
        let shape = (ids.len(), self.columns);
        let copy = |map: &Mmap, start: usize, bytes: usize| -> Vec<u8> {
            ids.iter().flat_map(|&id| &map[start + id as usize * bytes..][..bytes]).copied().collect()
        };
        match &self.source {
            Source::Values { map, start, dtype } => {
                let data = copy(map, *start, self.columns * dtype.size_in_bytes());
                Tensor::from_raw_buffer(&data, *dtype, &[shape.0, shape.1], &Device::Cpu)?.to_dtype(DType::F32)
            }
            Source::Blocks { map, start, kind } => {
                let data = copy(map, *start, self.columns / kind.block_size() * kind.type_size());
                let storage = QStorage::from_data(Cow::Owned(data), &Device::Cpu, *kind)?;
                QTensor::new(storage, shape)?.dequantize(&Device::Cpu)
            }
            Source::Random { random, name } => {
                Tensor::from_vec(random.gather(name, ids, self.columns), shape, &Device::Cpu)
            }
        }
    }
}
