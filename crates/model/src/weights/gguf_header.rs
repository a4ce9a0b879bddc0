//! What must hold of a GGUF file before its tensors are read, as in ggml's `gguf_init_from_file_impl`. Candle reads on where it does not
//! hold, and then reads other bytes as weights, or panics.

use std::{collections::BTreeSet, path::Path};

use candle_core::quantized::gguf_file::Content;

use crate::ModelError;

/// Bytes that tensors are aligned to where the file does not say.
const ALIGNMENT: u32 = 32;
const ALIGNMENT_KEY: &[u8] = b"general.alignment";

/// Types of metadata values, by their numbers in the file.
const U32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// The number of bytes that tensors of a file are aligned to.
///
/// # Errors
/// If the file gives no sensible one, or names a key or a tensor twice, of which only one would be read. A header that cannot be walked
/// through is left to candle, which says what is wrong with it.
pub(super) fn alignment(path: &Path, bytes: &[u8]) -> Result<u64, ModelError> {
    let wrong = |why| malformed(path, why);
    let Some(header) = Header::of(bytes) else { return Ok(ALIGNMENT.into()) };
    if let Some(twice) = repeated(&header.keys).or(repeated(&header.tensors)) {
        return Err(wrong(format!("'{}' stands there twice", String::from_utf8_lossy(twice))));
    }
    match header.alignment {
        Some(alignment) if alignment.is_power_of_two() => Ok(alignment.into()),
        Some(alignment) => Err(wrong(format!("general.alignment is {alignment}, but must be a power of two"))),
        None => Err(wrong("general.alignment must be a u32".into())),
    }
}

/// Checks that every tensor has whole blocks in its rows, that they follow one another without a gap or an overlap, and that they end
/// inside the file.
///
/// # Errors
/// Names the first tensor of which this is not so.
pub(super) fn check_layout(path: &Path, content: &Content, alignment: u64, len: usize) -> Result<(), ModelError> {
    let wrong = |why| malformed(path, why);
    let mut infos: Vec<_> = content.tensor_infos.iter().collect();
    infos.sort_unstable_by_key(|(name, _)| *name);
    let mut places = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        let (block, size) = (info.ggml_dtype.block_size(), info.ggml_dtype.type_size());
        let columns = info.shape.dims().last().copied().unwrap_or(1);
        if !columns.is_multiple_of(block) {
            return Err(wrong(format!("tensor '{name}' has rows of {columns} values, but blocks of {block}")));
        }
        let values = info.shape.dims().iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        let Some(bytes) = values.and_then(|values| (values / block).checked_mul(size)) else {
            return Err(wrong(format!("tensor '{name}' of {:?} is larger than any file", info.shape.dims())));
        };
        places.push((info.offset, bytes as u64, name));
    }
    places.sort_unstable();
    let mut end = 0u64;
    for (offset, bytes, name) in places {
        let start = end.next_multiple_of(alignment);
        if offset != start {
            return Err(wrong(format!(
                "tensor '{name}' begins at byte {offset} of the data, but must begin at {start}"
            )));
        }
        end = offset.saturating_add(bytes);
        let last = content.tensor_data_offset.saturating_add(end);
        if last > len as u64 {
            let why = format!("tensor '{name}' ends at byte {last}, the file at {len}");
            return Err(ModelError::Truncated { path: path.into(), why });
        }
    }
    Ok(())
}

fn malformed(path: &Path, why: String) -> ModelError {
    ModelError::Malformed { path: path.into(), kind: "GGUF file", why }
}

/// A name that stands there a second time.
fn repeated<'a>(names: &[&'a [u8]]) -> Option<&'a [u8]> {
    let mut seen = BTreeSet::new();
    names.iter().find(|name| !seen.insert(**name)).copied()
}

/// The names of a header.
struct Header<'a> {
    keys: Vec<&'a [u8]>,
    tensors: Vec<&'a [u8]>,
    /// The alignment of the file; none if what it gives is no u32.
    alignment: Option<u32>,
}

impl<'a> Header<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Rest { bytes, wide: true };
        (rest.take(4)? == b"GGUF").then_some(())?;
        rest.wide = rest.u32()? > 1;
        let (tensors, keys) = (rest.count()?, rest.count()?);
        let mut header = Self { keys: Vec::new(), tensors: Vec::new(), alignment: Some(ALIGNMENT) };
        for _ in 0..keys {
            let key = rest.text()?;
            let kind = rest.u32()?;
            let value = rest.value(kind)?;
            if key == ALIGNMENT_KEY {
                let four = value.try_into().ok().filter(|_| kind == U32);
                header.alignment = four.map(u32::from_le_bytes);
            }
            header.keys.push(key);
        }
        for _ in 0..tensors {
            header.tensors.push(rest.text()?);
            let dims = rest.u32()? as usize;
            rest.take(dims.checked_mul(if rest.wide { 8 } else { 4 })?)?;
            rest.take(4 + 8)?; // type and offset
        }
        Some(header)
    }
}

/// What is left of a header.
struct Rest<'a> {
    bytes: &'a [u8],
    /// Whether lengths are u64, as from version 2 on.
    wide: bool,
}

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn count(&mut self) -> Option<usize> {
        if !self.wide {
            return Some(self.u32()? as usize);
        }
        usize::try_from(u64::from_le_bytes(self.take(8)?.try_into().ok()?)).ok()
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.count()?;
        self.take(len)
    }

    /// The bytes of a value of this type, without the length of a text or list.
    fn value(&mut self, kind: u32) -> Option<&'a [u8]> {
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            STRING => return self.text(),
            ARRAY => {
                let (kind, count) = (self.u32()?, self.count()?);
                // A list of lists is in no file that we know.
                (kind != ARRAY).then_some(())?;
                for _ in 0..count {
                    self.value(kind)?;
                }
                return Some(&[]);
            }
            _ => return None,
        };
        self.take(size)
    }
}
