//! A table of which each token needs one row: on the CPU it stays mapped, and rows are gathered from it.

use std::{borrow::Cow, sync::Arc};

use super::{Random, mapped::Mapped};
use candle_core::{
    DType, Device, Result, Tensor,
    quantized::{GgmlDType, QStorage, QTensor},
};
use headtemper_kernels::free_memory;

/// A matrix from which single rows are read. Gemma 4's per-layer embeddings take 4.7 GB, of which a token needs 18 KB.
pub(crate) struct Table {
    rows: usize,
    columns: usize,
    source: Source,
    /// The whole table, on a device that has room.
    held: Option<Tensor>,
}

enum Source {
    /// Plain values in a mapped file.
    Values { map: Arc<Mapped>, start: usize, dtype: DType },
    /// Blocks of a GGUF type; a row is a whole number of blocks.
    Blocks { map: Arc<Mapped>, start: usize, kind: GgmlDType },
    /// Values computed on request.
    Random { random: Random, name: String },
}

/// Rows uploaded to a device at once.
const ROWS: usize = 8192;

impl Table {
    pub(super) fn values(map: Arc<Mapped>, start: usize, dtype: DType, rows: usize, columns: usize) -> Self {
        Self { rows, columns, source: Source::Values { map, start, dtype }, held: None }
    }

    pub(super) fn blocks(map: Arc<Mapped>, start: usize, kind: GgmlDType, rows: usize, columns: usize) -> Self {
        Self { rows, columns, source: Source::Blocks { map, start, kind }, held: None }
    }

    pub(super) fn random(random: Random, name: &str, rows: usize, columns: usize) -> Self {
        Self { rows, columns, source: Source::Random { random, name: name.into() }, held: None }
    }

    /// Bytes that the table takes in its file.
    pub(super) fn mapped_bytes(&self) -> usize {
        let values = self.rows * self.columns;
        match &self.source {
            Source::Values { dtype, .. } => values * dtype.size_in_bytes(),
            Source::Blocks { kind, .. } => values / kind.block_size() * kind.type_size(),
            Source::Random { .. } => 0,
        }
    }

    /// Moves the table to a device, where a row need not come from the host. Returns it unchanged if it would take more than half of the
    /// device's free memory, or if that is unknown: other weights and the cache need room too.
    ///
    /// # Errors
    /// If rows cannot be read or written.
    pub(super) fn on_device(self, dtype: DType, device: &Device) -> Result<Self> {
        let (rows, columns) = (self.rows, self.columns);
        let bytes = (rows * columns * dtype.size_in_bytes()) as u64;
        // A CPU that stands in for a device, as in the tests of its kernels, has the room.
        if !device.is_cpu() && free_memory(device).is_none_or(|free| bytes > free / 2) {
            return Ok(self);
        }
        let all = Tensor::zeros((rows, columns), dtype, device)?;
        for first in (0..rows).step_by(ROWS) {
            let ids: Vec<u32> = (first..rows.min(first + ROWS)).map(|id| id as u32).collect();
            all.slice_set(&self.gather(&ids)?.to_dtype(dtype)?.to_device(device)?, 0, first)?;
        }
        Ok(Self { held: Some(all), ..self })
    }

    /// Whether the table is on a device.
    pub(crate) fn is_on_device(&self) -> bool {
        self.held.is_some()
    }

    /// The rows `ids`, u32 `[n]`, as `[n, columns]` of this dtype, on the device of `ids`.
    ///
    /// # Errors
    /// If an id is beyond the table, or its file was changed.
    pub(crate) fn rows_of(&self, ids: &Tensor, dtype: DType) -> Result<Tensor> {
        match &self.held {
            Some(all) => all.index_select(ids, 0)?.to_dtype(dtype),
            None => self.gather(&ids.to_vec1::<u32>()?)?.to_device(ids.device())?.to_dtype(dtype),
        }
    }

    /// The rows `ids`, `[ids, columns]` f32 on the CPU.
    ///
    /// # Errors
    /// If an id is beyond the table, or its file was changed.
    fn gather(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.rows) {
            candle_core::bail!("row {id} of an embedding table that has {}", self.rows);
        }
        let shape = (ids.len(), self.columns);
        let copy = |map: &Mapped, start: usize, bytes: usize| -> Result<Vec<u8>> {
            // Checked before, since pages that are gone cannot be read, and after, for anything written meanwhile.
            map.check()?;
            let mut data = Vec::with_capacity(ids.len() * bytes);
            for &id in ids {
                data.extend_from_slice(&map[start + id as usize * bytes..][..bytes]);
            }
            map.check()?;
            Ok(data)
        };
        match &self.source {
            Source::Values { map, start, dtype } => {
                let data = copy(map, *start, self.columns * dtype.size_in_bytes())?;
                Tensor::from_raw_buffer(&data, *dtype, &[shape.0, shape.1], &Device::Cpu)?.to_dtype(DType::F32)
            }
            Source::Blocks { map, start, kind } => {
                let data = copy(map, *start, self.columns / kind.block_size() * kind.type_size())?;
                let storage = QStorage::from_data(Cow::Owned(data), &Device::Cpu, *kind)?;
                QTensor::new(storage, shape)?.dequantize(&Device::Cpu)
            }
            Source::Random { random, name } => {
                Tensor::from_vec(random.gather(name, ids, self.columns), shape, &Device::Cpu)
            }
        }
    }
}
