//! A matrix while it is put together: filled once, in the dtype that it will be held in, and never copied.

use candle_core::{DType, Device, Result, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

/// Values below which threads cost more than they bring.
const CHUNK: usize = 1 << 14;

/// Room for a matrix, and as many values as have been appended.
pub(super) enum Buffer {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

impl Buffer {
    /// Room for `count` values.
    pub(super) fn new(dtype: DType, count: usize) -> Result<Self> {
        match dtype {
            DType::F32 => Ok(Self::F32(Vec::with_capacity(count))),
            DType::BF16 => Ok(Self::Bf16(Vec::with_capacity(count))),
            DType::F16 => Ok(Self::F16(Vec::with_capacity(count))),
            other => bail!("weights are held in f32, bf16 or f16, not {other:?}"),
        }
    }

    /// Appends values as a file stores them. Those of the buffer's own type keep their bits.
    pub(super) fn append_stored(&mut self, bytes: &[u8], dtype: DType) -> Result<()> {
        match (&mut *self, dtype) {
            (Self::Bf16(values), DType::BF16) => values.par_extend(pieces(bytes).map(|&b| bf16::from_le_bytes(b))),
            (Self::F16(values), DType::F16) => values.par_extend(pieces(bytes).map(|&b| f16::from_le_bytes(b))),
            (_, DType::F32) => self.append_each(bytes, f32::from_le_bytes),
            (_, DType::BF16) => self.append_each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            (_, DType::F16) => self.append_each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            (_, other) => bail!("weights are stored as f32, bf16 or f16, not {other:?}"),
        }
        Ok(())
    }

    fn append_each<const N: usize>(&mut self, bytes: &[u8], value: fn([u8; N]) -> f32) {
        let stored = pieces::<N>(bytes);
        match self {
            Self::F32(values) => values.par_extend(stored.map(|&b| value(b))),
            Self::Bf16(values) => values.par_extend(stored.map(|&b| bf16::from_f32(value(b)))),
            Self::F16(values) => values.par_extend(stored.map(|&b| f16::from_f32(value(b)))),
        }
    }

    /// Appends `count` values, each from its place.
    pub(super) fn append(&mut self, count: usize, value: impl Fn(usize) -> f32 + Send + Sync) {
        let places = (0..count).into_par_iter().with_min_len(CHUNK);
        match self {
            Self::F32(values) => values.par_extend(places.map(value)),
            Self::Bf16(values) => values.par_extend(places.map(|i| bf16::from_f32(value(i)))),
            Self::F16(values) => values.par_extend(places.map(|i| f16::from_f32(value(i)))),
        }
    }

    /// The matrix.
    pub(super) fn into_tensor(self, shape: (usize, usize), device: &Device) -> Result<Tensor> {
        match self {
            Self::F32(values) => Tensor::from_vec(values, shape, device),
            Self::Bf16(values) => Tensor::from_vec(values, shape, device),
            Self::F16(values) => Tensor::from_vec(values, shape, device),
        }
    }
}

/// The stored values, `N` bytes each, for several threads.
fn pieces<const N: usize>(bytes: &[u8]) -> impl IndexedParallelIterator<Item = &[u8; N]> {
    bytes.as_chunks::<N>().0.par_iter().with_min_len(CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_as_they_are_stored() -> Result<()> {
        let values = [1.0f32, -0.5, 3.25, 1e-3];
        let stored = |dtype| -> Vec<u8> {
            match dtype {
                DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                DType::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            }
        };
        for file in [DType::F32, DType::BF16, DType::F16] {
            for held in [DType::F32, DType::BF16, DType::F16] {
                let mut buffer = Buffer::new(held, 8)?;
                buffer.append_stored(&stored(file), file)?;
                buffer.append(4, |i| i as f32);
                let ours = buffer.into_tensor((2, 4), &Device::Cpu)?;
                let first = Tensor::new(&values, &Device::Cpu)?.to_dtype(file)?.to_dtype(held)?;
                assert_eq!(ours.dtype(), held);
                let ours = ours.to_dtype(DType::F32)?.to_vec2::<f32>()?;
                assert_eq!(ours[0], first.to_dtype(DType::F32)?.to_vec1::<f32>()?, "{file:?} in {held:?}");
                assert_eq!(ours[1], [0., 1., 2., 3.]);
            }
        }
        assert!(Buffer::new(DType::U8, 1).is_err());
        Ok(())
    }
}
