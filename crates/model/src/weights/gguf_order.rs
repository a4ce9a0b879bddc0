//! What llama.cpp's converter does to tensors (`conversion/{llama,qwen,gemma}.py`), and how to undo it.
//!
//! In matrices it changes only the order of rows and columns, so their values can stay in the blocks they are stored in.

use candle_core::{Device, Tensor};

use super::GgufFile;
use crate::ModelError;

/// Where the rows and columns of a matrix are in the file; `None` if they are in order.
#[derive(Default)]
pub(super) struct Order {
    rows: Option<Vec<usize>>,
    columns: Option<Vec<usize>>,
}

impl Order {
    /// The order of a matrix of `rows` and `columns`, by its Hugging Face name.
    pub(super) fn of(file: &GgufFile, name: &str, rows: usize, columns: usize) -> Result<Self, ModelError> {
        let of_rows = |rows| Self { rows: Some(rows), columns: None };
        let order = match file.architecture() {
            "llama" if name.ends_with("self_attn.q_proj.weight") => {
                of_rows(halves(rows, file.size("llama.attention.head_count")?))
            }
            "llama" if name.ends_with("self_attn.k_proj.weight") => {
                of_rows(halves(rows, file.size("llama.attention.head_count_kv")?))
            }
            "qwen35" => {
                let heads = ValueHeads::of(file)?;
                if heads.keys == heads.values {
                    return Ok(Self::default());
                }
                match name.rsplit_once("linear_attn.").map_or(name, |(_, part)| part) {
                    "in_proj_a.weight" | "in_proj_b.weight" => of_rows(heads.grouped(0, 1)),
                    "in_proj_z.weight" => of_rows(heads.grouped(0, heads.dim)),
                    "in_proj_qkv.weight" => of_rows(heads.grouped(2 * heads.key_width, heads.dim)),
                    "out_proj.weight" => Self { rows: None, columns: Some(heads.grouped(0, heads.dim)) },
                    _ => Self::default(),
                }
            }
            _ => Self::default(),
        };
        order.checked(file, name, rows, columns)
    }

    /// Refuses an order that does not cover all rows or columns.
    fn checked(self, file: &GgufFile, name: &str, rows: usize, columns: usize) -> Result<Self, ModelError> {
        let wrong = |order: &Option<Vec<usize>>, count| order.as_ref().is_some_and(|order| order.len() != count);
        if wrong(&self.rows, rows) || wrong(&self.columns, columns) {
            let why = format!("tensor '{name}' is {rows} x {columns}, which does not fit the heads of the metadata");
            return Err(ModelError::Malformed { path: file.path().into(), kind: "GGUF file", why });
        }
        Ok(self)
    }

    /// The file's row that holds row `r`.
    pub(super) fn row(&self, r: usize) -> usize {
        self.rows.as_ref().map_or(r, |rows| rows[r])
    }

    /// For every column, the file's column that holds it; `None` if they are in order.
    pub(super) fn columns(&self) -> Option<&[usize]> {
        self.columns.as_deref()
    }

    /// Whether blocks of `size` columns would have to be split.
    pub(super) fn splits(&self, size: usize) -> bool {
        self.columns.is_some() && self.blocks(size).is_none()
    }

    /// The same for whole blocks of `size` columns; `None` if blocks would have to be split.
    pub(super) fn blocks(&self, size: usize) -> Option<Vec<usize>> {
        let whole = |block: &[usize]| {
            let first = block[0];
            let together = block.iter().zip(first..).all(|(&column, expected)| column == expected);
            (first.is_multiple_of(size) && together).then_some(first / size)
        };
        self.columns.as_ref()?.chunks(size).map(whole).collect()
    }
}

/// llama.cpp interleaves the two halves of each head's rotary dimensions, transformers puts them side by side: rows
/// `[head, dim / 2, 2]` become `[head, 2, dim / 2]`.
fn halves(rows: usize, heads: usize) -> Vec<usize> {
    let dim = rows / heads.max(1);
    let row = |r: usize| {
        let (head, half, i) = (r / dim, r % dim / (dim / 2), r % dim % (dim / 2));
        head * dim + 2 * i + half
    };
    // If the width is not a whole number of pairs, there is no such order, which `checked` refuses.
    if dim == 0 || dim % 2 == 1 || dim * heads != rows { Vec::new() } else { (0..rows).map(row).collect() }
}

/// The value heads of Qwen3.5's delta nets. If they outnumber key heads, value head `j` pairs with key head `j % keys` in the file
/// (tiled), but with `j / (values / keys)` in transformers (grouped).
struct ValueHeads {
    keys: usize,
    values: usize,
    dim: usize,
    key_width: usize,
}

impl ValueHeads {
    fn of(file: &GgufFile) -> Result<Self, ModelError> {
        let (keys, values) = (file.size("qwen35.ssm.group_count")?, file.size("qwen35.ssm.time_step_rank")?);
        let dim = file.size("qwen35.ssm.inner_size")? / values.max(1);
        Ok(Self { keys, values, dim, key_width: keys * file.size("qwen35.ssm.state_size")? })
    }

    /// Puts the rows from `from` on, `dim` per value head, from tiled into grouped order: `[values / keys, keys, dim]` becomes
    /// `[keys, values / keys, dim]`.
    fn grouped(&self, from: usize, dim: usize) -> Vec<usize> {
        let of_key = self.values / self.keys.max(1);
        let heads = (0..self.keys).flat_map(|key| (0..of_key).map(move |j| (key, j)));
        let tail = heads.flat_map(|(key, j)| (0..dim).map(move |i| from + (j * self.keys + key) * dim + i));
        (0..from).chain(tail).collect()
    }
}

/// Undoes what the converter does to a vector, or to the taps of a convolution. In Qwen3.5, norms hold `1 + w`, `ssm_a` is
/// `-exp(A_log)`, and value heads are tiled.
pub(super) fn undo(file: &GgufFile, name: &str, w: Tensor) -> Result<Tensor, ModelError> {
    if file.architecture() != "qwen35" {
        return Ok(w);
    }
    let heads = ValueHeads::of(file)?;
    let grouped = |w: &Tensor, from: usize, dim: usize| -> candle_core::Result<Tensor> {
        let order: Vec<u32> = heads.grouped(from, dim).into_iter().map(|row| row as u32).collect();
        let count = order.len();
        w.index_select(&Tensor::from_vec(order, count, &Device::Cpu)?, 0)
    };
    Ok(match name.rsplit_once("linear_attn.").map_or(name, |(_, part)| part) {
        "norm.weight" => w, // the gated norm is stored unchanged
        _ if name.ends_with("norm.weight") => (w - 1.0)?,
        "A_log" => grouped(&w.neg()?.log()?, 0, 1)?,
        "dt_bias" => grouped(&w, 0, 1)?,
        "conv1d.weight" => grouped(&w, 2 * heads.key_width, heads.dim)?.unsqueeze(1)?,
        _ => w,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_undo_the_converters_permutation() {
        // two heads of four rotary dimensions: transformers' order 0 1 2 3 is stored as 0 2 1 3
        assert_eq!(halves(8, 2), [0, 2, 1, 3, 4, 6, 5, 7]);
    }

    #[test]
    fn blocks_move_only_as_a_whole() {
        let heads = ValueHeads { keys: 2, values: 4, dim: 32, key_width: 0 };
        let order = Order { rows: None, columns: Some(heads.grouped(0, 32)) };
        assert_eq!(order.blocks(32), Some(vec![0, 2, 1, 3]));
        assert!(order.blocks(128).is_none() && order.splits(128) && !order.splits(32));
        assert!(!Order::default().splits(128));
    }
}
