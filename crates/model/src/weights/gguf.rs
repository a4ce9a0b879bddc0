//! GGUF files: their tensors, with the converter's transforms undone. `gguf_keys` has what their metadata say.

use std::{
    borrow::Cow,
    io::Cursor,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{
    CpuStorage, DType, Device, Tensor,
    quantized::{GgmlDType, gguf_file},
};
use headtemper_kernels::{Blocks, Held, MatrixBuilder};

use super::{
    Table, gguf_header, gguf_names,
    gguf_order::{Order, undo},
    mapped::{Mapped, map, release},
    safetensors::widen,
};
use crate::ModelError;

const READABLE: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K";

/// A mapped GGUF file.
pub struct GgufFile {
    pub(super) path: PathBuf,
    map: Arc<Mapped>,
    pub(super) content: gguf_file::Content,
}

impl GgufFile {
    /// Opens a file and checks that every tensor lies inside it.
    ///
    /// # Errors
    /// If it is not GGUF, is truncated, one of several, or holds a tensor type that candle cannot read.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let map = map(path)?;
        let alignment = gguf_header::alignment(path, &map)?;
        let content = gguf_file::Content::read(&mut Cursor::new(&map[..])).map_err(|e| wrong_header(path, &e))?;
        // ggml's types for intermediate products: candle knows them, but reads no tensor in them.
        let of_products = content.tensor_infos.values().map(|info| info.ggml_dtype);
        if let Some(kind) =
            of_products.filter(|kind| matches!(kind, GgmlDType::Q8_1 | GgmlDType::Q8K)).min_by_key(|kind| *kind as u32)
        {
            return Err(ModelError::Ggml {
                path: path.into(),
                found: format!("ggml type {kind:?}"),
                allowed: READABLE,
            });
        }
        gguf_header::check_layout(path, &content, alignment, map.len())?;
        let file = Self { path: path.into(), map: Arc::new(map), content };
        match file.optional_size("split.count")? {
            // A file that was joined again keeps the key, with 0.
            None | Some(0 | 1) => Ok(file),
            Some(count) => Err(ModelError::Unsupported {
                path: path.into(),
                key: "split.count".into(),
                found: format!("{count}: the file is one of several"),
                allowed: "1 (llama-gguf-split --merge joins them)".into(),
            }),
        }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file holds a tensor.
    pub fn has(&self, tensor: &str) -> bool {
        self.content.tensor_infos.contains_key(tensor)
    }

    /// The first dimension of a tensor.
    ///
    /// # Errors
    /// If it is missing.
    pub fn rows(&self, tensor: &str) -> Result<usize, ModelError> {
        let missing = || ModelError::MissingTensor { path: self.path.clone(), name: tensor.into() };
        self.stored_shape(tensor).and_then(|shape| shape.first().copied()).ok_or_else(missing)
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.content.tensor_infos.keys().cloned().collect();
        names.sort();
        names
    }

    /// The shape a tensor has in Hugging Face's layout.
    pub(super) fn shape(&self, name: &str, stored: &str) -> Option<Vec<usize>> {
        let shape = self.stored_shape(stored)?;
        // The converter drops the middle dimension of a depthwise convolution.
        Some(if name.ends_with("conv1d.weight") && shape.len() == 2 { vec![shape[0], 1, shape[1]] } else { shape })
    }

    fn stored_shape(&self, stored: &str) -> Option<Vec<usize>> {
        self.content.tensor_infos.get(stored).map(|info| info.shape.dims().to_vec())
    }

    /// The type that matrices are held in by default: their own if all share a half-width type, otherwise f32. Quantised values fit
    /// no half-width type. The converter stores the taps of a convolution, which are no matrix, in f32 whatever the others are in.
    pub(super) fn native(&self) -> Held {
        let is_matrix = |name: &str| !name.ends_with("ssm_conv1d.weight") && !self.is_extra(name);
        let of_two = self.content.tensor_infos.iter().filter(|(_, info)| info.shape.rank() == 2);
        super::common(of_two.filter(|(name, _)| is_matrix(name)).map(|(_, info)| match info.ggml_dtype {
            GgmlDType::F16 => Held::F16,
            GgmlDType::BF16 => Held::Bf16,
            _ => Held::F32,
        }))
    }

    /// The type of a matrix that is held as stored: f32, which holds the same values, where undoing the converter's order would split its
    /// blocks.
    pub(super) fn stored_type(&self, name: &str, stored: &str) -> Result<Held, ModelError> {
        let info = &self.content.tensor_infos[stored];
        let kind = info.ggml_dtype;
        let held = match kind {
            GgmlDType::F32 => Some(Held::F32),
            GgmlDType::F16 => Some(Held::F16),
            GgmlDType::BF16 => Some(Held::Bf16),
            _ => Blocks::of(kind).map(Held::Blocks),
        };
        let found = || format!("{kind:?}").to_lowercase().replace('k', "_k");
        let held = held.ok_or_else(|| ModelError::NotHeld { name: stored.into(), found: found() })?;
        match (held, info.shape.dims()) {
            (Held::Blocks(blocks), &[rows, columns])
                if Order::of(self, name, rows, columns)?.splits(blocks.features()) =>
            {
                Ok(Held::F32)
            }
            _ => Ok(held),
        }
    }

    /// The first byte and the length of a tensor.
    fn range(&self, name: &str) -> (usize, usize) {
        let info = &self.content.tensor_infos[name];
        let blocks = info.shape.elem_count().div_ceil(info.ggml_dtype.block_size());
        let start = self.content.tensor_data_offset.saturating_add(info.offset) as usize;
        (start, blocks.saturating_mul(info.ggml_dtype.type_size()))
    }

    /// The architecture, which determines the names and transforms of the tensors.
    pub(super) fn architecture(&self) -> &str {
        self.text("general.architecture").map_or("", |name| name)
    }

    /// The name of a tensor in the file, from its Hugging Face name. A name without a counterpart is unchanged.
    pub(super) fn stored_name(&self, name: &str) -> String {
        gguf_names::stored(self.architecture(), name)
    }

    /// The Hugging Face name of a tensor of the file; the name itself if it has none.
    pub(super) fn text_name(&self, stored: &str) -> String {
        gguf_names::of_text(self.architecture(), stored)
    }

    /// Whether a tensor is not a weight of the decoder: Gemma's rotary divisors, which the configuration has read, and a final
    /// multi-token prediction block. Divisors of other architectures would scale positions, which we do not support.
    pub(super) fn is_extra(&self, stored: &str) -> bool {
        match self.architecture() {
            "gemma4" => stored == "rope_freqs.weight",
            "qwen35" => {
                let blocks = self.size("qwen35.block_count").unwrap_or(usize::MAX);
                let extra = self.size("qwen35.nextn_predict_layers").unwrap_or(0);
                let block = stored.strip_prefix("blk.").and_then(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
                let further = |block: usize| (blocks.saturating_sub(extra)..blocks).contains(&block);
                // The projection that a decoder's block has not.
                block.is_some_and(|block| further(block) && self.has(&format!("blk.{block}.nextn.eh_proj.weight")))
            }
            _ => false,
        }
    }

    /// A table that stays in its file.
    pub(super) fn table(&self, stored: &str, rows: usize, columns: usize) -> Table {
        let (map, start) = (Arc::clone(&self.map), self.range(stored).0);
        match self.content.tensor_infos[stored].ggml_dtype {
            GgmlDType::F32 => Table::values(map, start, DType::F32, rows, columns),
            GgmlDType::F16 => Table::values(map, start, DType::F16, rows, columns),
            GgmlDType::BF16 => Table::values(map, start, DType::BF16, rows, columns),
            kind => Table::blocks(map, start, kind, rows, columns),
        }
    }

    /// The values of a tensor, in f32.
    ///
    /// # Errors
    /// If it is missing.
    pub fn values(&self, tensor: &str) -> Result<Vec<f32>, ModelError> {
        if !self.has(tensor) {
            return Err(ModelError::MissingTensor { path: self.path.clone(), name: tensor.into() });
        }
        Ok(self.dequantized(tensor)?.flatten_all()?.to_vec1()?)
    }

    fn dequantized(&self, stored: &str) -> Result<Tensor, ModelError> {
        let info = &self.content.tensor_infos[stored];
        let (start, len) = self.range(stored);
        let mut values = vec![0f32; info.shape.elem_count().next_multiple_of(info.ggml_dtype.block_size())];
        decode(info.ggml_dtype, &self.map[start..start + len], &mut values);
        values.truncate(info.shape.elem_count());
        release(&self.map, start, len);
        Ok(Tensor::from_vec(values, info.shape.dims(), &Device::Cpu)?)
    }

    /// Reads a vector, or the taps of a convolution, in Hugging Face's layout: f32, with the converter's transform undone.
    pub(super) fn read(&self, name: &str, stored: &str) -> Result<Tensor, ModelError> {
        undo(self, name, self.dequantized(stored)?)
    }

    /// Appends the rows of a tensor to a matrix, each modified by `change`. If the matrix is held in the file's blocks, they are
    /// copied unchanged.
    pub(super) fn append(
        &self,
        (name, stored): (&str, &str),
        (rows, columns): (usize, usize),
        to: &mut MatrixBuilder,
        change: impl Fn(&mut [f32]) + Sync,
    ) -> Result<(), ModelError> {
        let kind = self.content.tensor_infos[stored].ggml_dtype;
        let (block, size) = (kind.block_size(), kind.type_size());
        let (start, len) = self.range(stored);
        let (bytes, row_bytes) = (&self.map[start..start + len], columns / block * size);
        let order = Order::of(self, name, rows, columns)?;
        let row = |r: usize| &bytes[order.row(r) * row_bytes..][..row_bytes];
        if Blocks::of(kind).is_some_and(|blocks| to.held() == Held::Blocks(blocks)) {
            let places = order.blocks(block);
            if order.splits(block) {
                return Err(ModelError::BlockOrder { name: stored.into(), held: to.held().to_string(), block });
            }
            to.fill_blocks(rows, |r| match &places {
                None => Cow::Borrowed(row(r)),
                Some(places) => {
                    Cow::Owned(places.iter().flat_map(|&at| &row(r)[at * size..][..size]).copied().collect())
                }
            })?;
        } else {
            to.fill(rows, |r, out| {
                decode(kind, row(r), out);
                if let Some(columns) = order.columns() {
                    let stored = out.to_vec();
                    out.iter_mut().zip(columns).for_each(|(out, &column)| *out = stored[column]);
                }
                change(out);
            })?;
        }
        release(&self.map, start, len);
        Ok(())
    }
}

/// Decodes whole blocks of any type that candle reads to f32.
fn decode(kind: GgmlDType, bytes: &[u8], out: &mut [f32]) {
    match (kind, Blocks::of(kind)) {
        (GgmlDType::F32, _) => widen(DType::F32, bytes, out),
        (GgmlDType::F16, _) => widen(DType::F16, bytes, out),
        (GgmlDType::BF16, _) => widen(DType::BF16, bytes, out),
        (_, Some(blocks)) => blocks.widen(bytes, out),
        // Q2_K and Q3_K; candle needs aligned blocks, hence the copy.
        (_, None) => match kind.from_data(Cow::Owned(bytes.to_vec())).dequantize(out.len()) {
            Ok(CpuStorage::F32(values)) => out.copy_from_slice(&values),
            _ => unreachable!("blocks are dequantised to f32"),
        },
    }
}

/// The name of a ggml type that candle does not read, from its number, so that the error uses the name its user knows.
fn unreadable_type(number: &str) -> String {
    let name = match number {
        "16" => "IQ2_XXS",
        "17" => "IQ2_XS",
        "18" => "IQ3_XXS",
        "19" => "IQ1_S",
        "20" => "IQ4_NL",
        "21" => "IQ3_S",
        "22" => "IQ2_S",
        "23" => "IQ4_XS",
        "29" => "IQ1_M",
        "34" => "TQ1_0",
        "35" => "TQ2_0",
        "39" => "MXFP4",
        "40" => "NVFP4",
        "41" => "Q1_0",
        _ => return format!("ggml type {number}"),
    };
    format!("ggml type {number} ({name})")
}

fn wrong_header(path: &Path, error: &candle_core::Error) -> ModelError {
    let first = headtemper_kernels::reason(error);
    if let Some((_, number)) = first.split_once("unknown dtype for tensor ") {
        let found = unreadable_type(number.trim());
        return ModelError::Ggml { path: path.into(), found, allowed: READABLE };
    }
    let path = path.into();
    if first.contains("failed to fill whole buffer") || first.contains("remaining") {
        return ModelError::Truncated { path, why: format!("its header is cut short ({first})") };
    }
    ModelError::Malformed { path, kind: "GGUF file", why: first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, HoldAs, Weights};

    /// Qwen3.5-4B has blocks of 256 columns and value heads of 128, which the converter puts in another order.
    #[test]
    fn blocks_that_would_be_split_are_held_in_f32() {
        let (dir, device) = (tempfile::tempdir().unwrap(), Device::Cpu);
        let path = dir.path().join("m.gguf");
        let numbers = ["ssm.group_count", "ssm.time_step_rank", "ssm.inner_size", "ssm.state_size"]
            .map(|key| format!("qwen35.{key}"));
        let numbers = numbers.iter().map(String::as_str).zip([2, 4, 512, 64].map(gguf_file::Value::U32));
        let mut metadata = vec![("general.architecture", gguf_file::Value::String("qwen35".into()))];
        metadata.extend(numbers);
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        let x = Tensor::arange(0f32, 1024.0, &device).unwrap().reshape((2, 512)).unwrap();
        let x = candle_core::quantized::QTensor::quantize(&x, GgmlDType::Q4K).unwrap();
        let names = ["blk.0.ssm_out.weight", "blk.0.ffn_down.weight"];
        gguf_file::write(&mut std::fs::File::create(&path).unwrap(), &metadata, &names.map(|name| (name, &x))).unwrap();
        let open = |hold: HoldAs| Weights::open(&Checkpoint::Gguf(path.clone()), hold, &device).unwrap();
        let (out, down) = ("model.layers.0.linear_attn.out_proj.weight", "model.layers.0.mlp.down_proj.weight");
        let mut weights = open(HoldAs::Stored);
        let held = weights.matrix(out, 2, 512).unwrap();
        weights.matrix(down, 2, 512).unwrap();
        let both = |held: &crate::Holding| held.to_string().contains("q4_k") && held.to_string().contains("f32");
        assert!(both(weights.holding()), "{}", weights.holding());
        // The values are those that all of f32 holds, in heads 0 2 1 3 of the file.
        let values = |matrix: &headtemper_kernels::Matrix| matrix.to_tensor().unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(values(&held), values(&open(HoldAs::All(Held::F32)).matrix(out, 2, 512).unwrap()));
        let stored = x.dequantize(&device).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!((values(&held)[1][128], values(&held)[1][300]), (stored[1][256], stored[1][172]));
        let error = open(HoldAs::All(Held::Blocks(Blocks::Q4K))).matrix(out, 2, 512).err().unwrap();
        let (why, hint) = (error.to_string(), error.hint().unwrap());
        assert!(why.contains("cannot be kept in q4_k") && hint.contains("--weights stored"), "{why}\n{hint}");
    }

    #[test]
    fn types_that_candle_cannot_read_are_named() {
        let error = candle_core::Error::Msg("unknown dtype for tensor 23".into());
        let message = wrong_header(Path::new("m.gguf"), &error).to_string();
        assert!(message.contains("ggml type 23 (IQ4_XS)") && message.contains("Q4_K"), "{message}");
    }
}
