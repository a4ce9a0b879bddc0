//! Weights as the kernels need them: in the type of the file, in panels on the CPU.

mod blocks;
pub(crate) mod form;
mod panels;

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

pub use blocks::Blocks;
pub(crate) use panels::Panels;

use crate::Level;

/// The type in which a weight's values are held.
///
/// ggml blocks are widened to f32 in registers, or a few panels at a time, bit for bit as candle's dequantiser does: a linear
/// layer gives the same bits as on the dequantised weight in f32. Activations stay f32, unlike in the quantised products of
/// candle and llama.cpp, which round them to 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// The upper half of a 32-bit float.
    Bf16,
    /// ggml blocks, on the CPU only.
    Blocks(Blocks),
}

impl Held {
    /// The plain type for a dtype, if weights can be held in it.
    pub fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32),
            DType::F16 => Some(Self::F16),
            DType::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Bytes that `count` values take.
    pub fn bytes(self, count: usize) -> usize {
        match self {
            Self::Blocks(blocks) => {
                let layout = blocks.layout();
                (count * layout.bytes()).div_ceil(layout.features())
            }
            _ => count * self.dtype().size_in_bytes(),
        }
    }

    /// The dtype of a tensor of such values: f32 for blocks, which no tensor can hold.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Blocks(_) => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks(blocks) => blocks.fmt(f),
            _ => f.write_str(self.dtype().as_str()),
        }
    }
}

/// What a linear layer multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Products {
    /// f32 activations and the stored values: f32 arithmetic.
    #[default]
    F32,
    /// Activations rounded to bf16 and the stored values, summed in f32: fast with AVX512-BF16, and less exact.
    Bf16,
}

impl Products {
    /// All that can be asked for.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// Whether this machine's kernels multiply bf16 in one instruction; elsewhere activations are first rounded and then
    /// multiplied as f32, which costs time and gains nothing.
    pub fn bf16_in_hardware() -> bool {
        Level::best().multiplies_bf16()
    }
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Products {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|products| products.to_string() == name);
        found.ok_or_else(|| format!("products is '{name}', but must be f32 or bf16"))
    }
}

/// A weight `[rows, columns]`, from `columns` features to `rows` (PyTorch's order). Clones share their values.
#[derive(Clone)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    held: Held,
    device: Device,
    values: Values,
}

#[derive(Clone)]
enum Values {
    /// On the CPU, stacked by rows; several if they are held in different types.
    Panels(Vec<Arc<Panels>>),
    /// `[rows, columns]`, on other devices.
    Tensor(Tensor),
    /// For a weight that is only accounted for.
    None,
}

impl Matrix {
    /// The values of a tensor `[rows, columns]` in f32, f16 or bf16, held unchanged.
    ///
    /// # Errors
    /// If the tensor has another rank or type, or there is no memory for it.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        Self::at(Level::best(), tensor)
    }

    /// The same for the kernels of a given level.
    pub(crate) fn at(level: Level, tensor: &Tensor) -> Result<Self> {
        let (rows, columns) = tensor.dims2()?;
        let Some(held) = Held::of(tensor.dtype()) else {
            bail!("weights are held in f32, bf16 or f16, not {:?}", tensor.dtype());
        };
        let mut matrix = MatrixBuilder::at(level, held, rows, columns, tensor.device())?;
        if tensor.device().is_cpu() {
            let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            matrix.fill(rows, |r, out| out.copy_from_slice(&values[r * columns..][..columns]))?;
            matrix.finish()
        } else {
            Ok(Self { rows, columns, held, device: tensor.device().clone(), values: Values::Tensor(tensor.clone()) })
        }
    }

    /// A weight that has a shape but no values.
    pub fn imagined(held: Held, rows: usize, columns: usize, device: &Device) -> Self {
        Self { rows, columns, held, device: device.clone(), values: Values::None }
    }

    /// The number of output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of input features.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The type the values are held in; the first if the parts differ.
    pub fn held(&self) -> Held {
        self.held
    }

    /// Where the values are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The panels, on the CPU: one set for all rows, or several stacked by rows.
    pub(crate) fn panels(&self) -> Option<&[Arc<Panels>]> {
        match &self.values {
            Values::Panels(panels) => Some(panels),
            _ => None,
        }
    }

    /// Stacks matrices of the same width by rows, each held in its own type.
    ///
    /// # Errors
    /// If their widths or devices differ, or the list is empty.
    pub fn stacked(parts: &[Self]) -> Result<Self> {
        let Some(first) = parts.first() else { bail!("no matrices to stack") };
        if let [only] = parts {
            return Ok(only.clone());
        }
        let (columns, held, device) = (first.columns, first.held, first.device.clone());
        if let Some(other) = parts.iter().find(|part| part.columns != columns) {
            bail!("matrices of {columns} and {} columns do not stack", other.columns);
        }
        let rows = parts.iter().map(|part| part.rows).sum();
        let (mut panels, mut tensors) = (Vec::new(), Vec::new());
        for part in parts {
            match &part.values {
                Values::Panels(own) => panels.extend(own.iter().cloned()),
                Values::Tensor(tensor) => tensors.push(tensor.to_dtype(held.dtype())?),
                Values::None => return Ok(Self::imagined(held, rows, columns, &device)),
            }
        }
        let values =
            if tensors.is_empty() { Values::Panels(panels) } else { Values::Tensor(Tensor::cat(&tensors, 0)?) };
        Ok(Self { rows, columns, held, device, values })
    }

    /// The values `[rows, columns]` in the type they are held in, or in f32 for blocks and for parts of different types. A copy on
    /// the CPU only.
    ///
    /// # Errors
    /// If there is no memory for it, or the weight is only accounted for.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match &self.values {
            Values::Panels(parts) => {
                let all: Vec<u32> = (0..self.rows as u32).collect();
                let same = parts.iter().all(|part| part.held() == self.held);
                self.gathered(&all)?.to_dtype(if same { self.held.dtype() } else { DType::F32 })
            }
            Values::Tensor(tensor) => Ok(tensor.clone()),
            Values::None => bail!("a weight that is only accounted for has no values"),
        }
    }

    /// Looks up the rows `ids` as an embedding: u32 `[n]` to `[n, columns]`, f32 on the CPU and in the held type elsewhere.
    ///
    /// # Errors
    /// If a row does not exist.
    pub fn gather(&self, ids: &Tensor) -> Result<Tensor> {
        match &self.values {
            Values::Panels(_) => self.gathered(&ids.to_vec1::<u32>()?),
            Values::Tensor(tensor) => tensor.index_select(ids, 0),
            Values::None => bail!("a weight that is only accounted for has no values"),
        }
    }

    fn gathered(&self, ids: &[u32]) -> Result<Tensor> {
        let Some(panels) = self.panels() else { bail!("only panels are gathered from") };
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.rows) {
            bail!("there is no row {id} in a matrix of {}", self.rows);
        }
        let mut out = vec![0f32; ids.len() * self.columns];
        let rows = out.par_chunks_mut(self.columns.max(1)).with_min_len(8).zip(ids);
        rows.for_each(|(out, &id)| {
            let mut r = id as usize;
            for panels in panels {
                if r < panels.rows() {
                    return panels.row(r, out);
                }
                r -= panels.rows();
            }
        });
        Tensor::from_vec(out, (ids.len(), self.columns), &self.device)
    }
}

/// Builds a weight row by row, without copying it again.
pub struct MatrixBuilder {
    matrix: Matrix,
    room: Room,
    filled: usize,
}

enum Room {
    Panels(Panels),
    Rows(Vec<f32>),
}

impl MatrixBuilder {
    /// Allocates a weight.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(held: Held, rows: usize, columns: usize, device: &Device) -> Result<Self> {
        Self::at(Level::best(), held, rows, columns, device)
    }

    /// The same for the kernels of a given level.
    pub(crate) fn at(level: Level, held: Held, rows: usize, columns: usize, device: &Device) -> Result<Self> {
        if matches!(held, Held::Blocks(_)) && !device.is_cpu() {
            bail!("weights are held in {held} on the CPU alone");
        }
        let room = if device.is_cpu() {
            Room::Panels(Panels::new(level, held, rows, columns)?)
        } else {
            Room::Rows(Vec::with_capacity(rows * columns))
        };
        Ok(Self { matrix: Matrix::imagined(held, rows, columns, device), room, filled: 0 })
    }

    /// The type the values are held in.
    pub fn held(&self) -> Held {
        self.matrix.held
    }

    /// Sets the products that linear layers use with this weight; has an effect on the CPU only.
    #[must_use]
    pub fn with_products(mut self, products: Products) -> Self {
        if let Room::Panels(panels) = &mut self.room {
            panels.multiply_as(products);
        }
        self
    }

    /// Fills the next `count` rows: `row` receives the index of each, from 0 in every call, and writes its values, which are
    /// rounded to the type that the weight is held in.
    ///
    /// # Errors
    /// If fewer rows are left.
    pub fn fill(&mut self, count: usize, row: impl Fn(usize, &mut [f32]) + Sync) -> Result<()> {
        let (from, to) = self.next(count)?;
        match &mut self.room {
            Room::Panels(panels) => panels.fill(from, to, |r, out| row(r - from, out)),
            Room::Rows(values) => {
                let columns = self.matrix.columns;
                values.resize(to * columns, 0.0);
                let new = values[from * columns..].par_chunks_mut(columns.max(1)).enumerate();
                new.for_each(|(r, out)| row(r, out));
            }
        }
        self.filled = to;
        Ok(())
    }

    /// Fills the next `count` rows of a weight held in blocks with blocks as a file stores them. `row` returns them for the index
    /// of each row, from 0 in every call; nothing is rounded.
    ///
    /// # Errors
    /// If fewer rows are left, or the weight is not held in blocks.
    ///
    /// # Panics
    /// If a row has the wrong length.
    pub fn fill_blocks<'a>(&mut self, count: usize, row: impl Fn(usize) -> Cow<'a, [u8]> + Sync) -> Result<()> {
        let (from, to) = self.next(count)?;
        let (Room::Panels(panels), Held::Blocks(blocks)) = (&mut self.room, self.matrix.held) else {
            bail!("a weight that is held in {} takes no blocks", self.matrix.held);
        };
        let bytes = blocks.stored_bytes(self.matrix.columns);
        panels.fill_blocks(blocks, from, to, |r| {
            let row = row(r - from);
            assert_eq!(row.len(), bytes, "a row of {blocks}");
            row
        });
        self.filled = to;
        Ok(())
    }

    /// The next `count` rows: the first, and one past the last.
    fn next(&self, count: usize) -> Result<(usize, usize)> {
        let (from, to) = (self.filled, self.filled + count);
        if to > self.matrix.rows {
            bail!("a weight of {} rows has no room for {to}", self.matrix.rows);
        }
        Ok((from, to))
    }

    /// Returns the finished weight.
    ///
    /// # Errors
    /// If rows are missing, or the device has no room for it.
    pub fn finish(self) -> Result<Matrix> {
        let Self { matrix, room, filled } = self;
        if filled != matrix.rows {
            bail!("a weight of {} rows was filled with {filled}", matrix.rows);
        }
        let values = match room {
            Room::Panels(panels) => Values::Panels(vec![Arc::new(panels)]),
            Room::Rows(values) => {
                let values = Tensor::from_vec(values, (matrix.rows, matrix.columns), &Device::Cpu)?;
                Values::Tensor(values.to_dtype(matrix.held.dtype())?.to_device(&matrix.device)?)
            }
        };
        Ok(Matrix { values, ..matrix })
    }
}

#[cfg(test)]
mod tests;
