//! The block types of ggml: small integers that share a scale; read, written and unpacked.

use std::fmt;

use candle_core::quantized::{GgmlDType, GgmlType, k_quants as ggml};
use half::f16;

/// A block type of ggml that weights may be held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blocks {
    /// 32 values of 8 bits and a scale.
    Q8_0,
    /// 32 values of 4 bits and a scale.
    Q4_0,
    /// 32 values of 4 bits, a scale and an offset.
    Q4_1,
    /// 32 values of 5 bits and a scale; held in 8 bits.
    Q5_0,
    /// 32 values of 5 bits, a scale and an offset; held in 8 bits.
    Q5_1,
    /// 256 values of 4 bits; every 32 have a scale and an offset of 6 bits.
    Q4K,
    /// 256 values of 5 bits; every 32 have a scale and an offset of 6 bits. Held in 8 bits.
    Q5K,
    /// 256 values of 6 bits; every 16 have a scale of 8 bits. Held in 8 bits.
    Q6K,
}

impl Blocks {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q4K, Self::Q5K, Self::Q6K];

    /// The block type for a ggml type, if weights may be held in it.
    pub fn of(kind: GgmlDType) -> Option<Self> {
        Self::ALL.into_iter().find(|blocks| blocks.ggml() == kind)
    }

    /// The type as candle names it.
    pub fn ggml(self) -> GgmlDType {
        match self {
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
        }
    }

    /// Features per block: rows must be whole blocks.
    pub fn features(self) -> usize {
        self.layout().features()
    }

    /// Bytes that `features` features take in a file.
    pub fn stored_bytes(self, features: usize) -> usize {
        features / self.features() * self.ggml().type_size()
    }

    /// The layout of its panels.
    pub(crate) const fn layout(self) -> Layout {
        let (halves, parts, nibbles) = match self {
            Self::Q4_0 => (1, 1, true),
            Self::Q4_1 => (2, 1, true),
            Self::Q8_0 | Self::Q5_0 => (1, 1, false),
            Self::Q5_1 => (2, 1, false),
            Self::Q4K => (2, 8, true),
            Self::Q5K => (2, 8, false),
            Self::Q6K => (1, 16, false),
        };
        Layout { halves, parts, nibbles }
    }

    /// Widens whole blocks as a file stores them, bit for bit as candle's `GgmlType::to_float` does.
    ///
    /// # Panics
    /// If the length of `out` is not that of the blocks.
    pub fn widen(self, stored: &[u8], out: &mut [f32]) {
        let (features, size) = (self.features(), self.ggml().type_size());
        assert_eq!(stored.len() / size * features, out.len(), "as many values as the blocks hold");
        let mut block = Block::EMPTY;
        for (stored, out) in stored.chunks_exact(size).zip(out.chunks_exact_mut(features)) {
            self.unpack(stored, &mut block);
            block.widen(self.layout(), out);
        }
    }

    /// The nearest blocks to a row, in file format; the row's length must be whole blocks. Uses candle's quantisers, which follow
    /// ggml's; their search for K-quants may differ from that of today's llama.cpp.
    pub fn quantise(self, row: &[f32]) -> Vec<u8> {
        match self {
            Self::Q8_0 => quantise::<ggml::BlockQ8_0>(row),
            Self::Q4_0 => quantise::<ggml::BlockQ4_0>(row),
            Self::Q4_1 => quantise::<ggml::BlockQ4_1>(row),
            Self::Q5_0 => quantise::<ggml::BlockQ5_0>(row),
            Self::Q5_1 => quantise::<ggml::BlockQ5_1>(row),
            Self::Q4K => quantise::<ggml::BlockQ4K>(row),
            Self::Q5K => quantise::<ggml::BlockQ5K>(row),
            Self::Q6K => quantise::<ggml::BlockQ6K>(row),
        }
    }

    /// Unpacks a stored block (the structs of `ggml-common.h`).
    pub(crate) fn unpack(self, stored: &[u8], to: &mut Block) {
        let half = |at: usize| f16::from_le_bytes([stored[at], stored[at + 1]]).to_f32();
        match self {
            Self::Q8_0 => {
                to.shared = [half(0), 0.0];
                let values = to.values.iter_mut().zip(&stored[2..34]);
                values.for_each(|(value, &byte)| *value = byte.cast_signed());
            }
            Self::Q4_0 => {
                to.shared = [half(0), 0.0];
                let (low, high) = to.values[..32].split_at_mut(16);
                for ((low, high), &byte) in low.iter_mut().zip(high).zip(&stored[2..18]) {
                    (*low, *high) = ((byte & 15).cast_signed() - 8, (byte >> 4).cast_signed() - 8);
                }
            }
            Self::Q4_1 => {
                to.shared = [half(0), half(2)];
                let (low, high) = to.values[..32].split_at_mut(16);
                for ((low, high), &byte) in low.iter_mut().zip(high).zip(&stored[4..20]) {
                    (*low, *high) = ((byte & 15).cast_signed(), (byte >> 4).cast_signed());
                }
            }
            Self::Q5_0 | Self::Q5_1 => {
                let (at, centre) = if self == Self::Q5_0 { (2, 16) } else { (4, 0) };
                to.shared = [half(0), if self == Self::Q5_0 { 0.0 } else { half(2) }];
                let fifth = u32::from_le_bytes([stored[at], stored[at + 1], stored[at + 2], stored[at + 3]]);
                for (j, &byte) in stored[at + 4..at + 20].iter().enumerate() {
                    let value = |bits: u8, j: usize| (bits | ((fifth >> j & 1) << 4) as u8).cast_signed() - centre;
                    (to.values[j], to.values[j + 16]) = (value(byte & 15, j), value(byte >> 4, j + 16));
                }
            }
            Self::Q4K | Self::Q5K => {
                to.shared = [half(0), half(2)];
                let packed = &stored[4..16];
                for part in 0..8 {
                    let [scale, offset] = six_bits(part, packed);
                    (to.own[0][part], to.own[1][part]) = (scale.cast_signed(), offset.cast_signed());
                }
                let (fifth, fourths) = stored[16..].split_at(if self == Self::Q5K { 32 } else { 0 });
                for (j, &byte) in fourths[..128].iter().enumerate() {
                    let (pair, l) = (j / 32, j % 32);
                    let high = |bit: usize| fifth.get(l).map_or(0, |bits| (bits >> bit & 1) << 4);
                    let at = 64 * pair + l;
                    to.values[at] = (byte & 15 | high(2 * pair)).cast_signed();
                    to.values[at + 32] = (byte >> 4 | high(2 * pair + 1)).cast_signed();
                }
            }
            Self::Q6K => {
                to.shared = [half(208), 0.0];
                let own = to.own[0].iter_mut().zip(&stored[192..208]);
                own.for_each(|(own, &byte)| *own = byte.cast_signed());
                for side in 0..2 {
                    let (low, high) = (&stored[64 * side..][..64], &stored[128 + 32 * side..][..32]);
                    for l in 0..32 {
                        let value = |four: u8, shift: u8| (four | (high[l] >> shift & 3) << 4).cast_signed() - 32;
                        let at = 128 * side + l;
                        to.values[at] = value(low[l] & 15, 0);
                        to.values[at + 32] = value(low[l + 32] & 15, 2);
                        to.values[at + 64] = value(low[l] >> 4, 4);
                        to.values[at + 96] = value(low[l + 32] >> 4, 6);
                    }
                }
            }
        }
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        })
    }
}

fn quantise<T: GgmlType>(row: &[f32]) -> Vec<u8> {
    let mut blocks = vec![T::zeros(); row.len() / T::BLCK_SIZE];
    T::from_float(row, &mut blocks);
    // SAFETY: candle's blocks are `repr(C)` structs of integers and halves, and asserted to have no padding.
    unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast::<u8>(), size_of_val(&blocks[..])) }.to_vec()
}

/// The scale and the offset of a part of a K block, 6 bits each (`get_scale_min_k4`).
fn six_bits(part: usize, packed: &[u8]) -> [u8; 2] {
    if part < 4 {
        return [packed[part] & 63, packed[part + 4] & 63];
    }
    let fours = packed[part + 4];
    [fours & 15 | packed[part - 4] >> 6 << 4, fours >> 4 | packed[part] >> 6 << 4]
}

/// An unpacked block.
pub(crate) struct Block {
    /// The scale shared by the whole block, and its offset or 0: halves, widened.
    pub(crate) shared: [f32; 2],
    /// The scales and the offsets of its parts, if they have their own.
    pub(crate) own: [[i8; 16]; 2],
    /// The values: integers, centred on 0 if there is no offset.
    pub(crate) values: [i8; 256],
}

impl Block {
    pub(crate) const EMPTY: Self = Self { shared: [0.0; 2], own: [[0; 16]; 2], values: [0; 256] };

    /// The values times their scales, plus their offsets. A half has 11 bits, the scale of a part 6 (7 in q6_k) and a
    /// value 5 (8 where parts have no scale, 5 and a sign in q6_k): products are exact in f32, and only an offset rounds, once.
    pub(crate) fn widen(&self, layout: Layout, out: &mut [f32]) {
        let parts = out.chunks_mut(layout.part_features()).zip(self.values.chunks(layout.part_features()));
        for (part, (out, values)) in parts.enumerate() {
            let [scale, offset] = self.of_part(layout, part);
            for (out, &value) in out.iter_mut().zip(values) {
                *out = f32::from(value) * scale;
                if layout.halves == 2 {
                    *out += offset;
                }
            }
        }
    }

    /// The scale and the offset of a part.
    fn of_part(&self, layout: Layout, part: usize) -> [f32; 2] {
        let [scale, offset] = self.shared;
        match layout.parts {
            1 => [scale, offset],
            // The offset of a K block is subtracted.
            _ => [scale * f32::from(self.own[0][part]), -(offset * f32::from(self.own[1][part]))],
        }
    }
}

/// How panels hold blocks, per column: first the halves shared by the whole block, then for each part its own scale and offset
/// (one byte each) and its values, one per byte or two packed in a byte with the even feature in the low bits.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// 1 for a scale, 2 for a scale and an offset.
    pub(crate) halves: usize,
    /// Parts with their own scales; 1 if a block has none.
    pub(crate) parts: usize,
    /// Whether values have 4 bits.
    pub(crate) nibbles: bool,
}

impl Layout {
    /// Features per block.
    pub(crate) const fn features(self) -> usize {
        if self.parts > 1 { 256 } else { 32 }
    }

    /// Features per part.
    pub(crate) const fn part_features(self) -> usize {
        self.features() / self.parts
    }

    /// Bytes before the values of a part, per column.
    pub(crate) const fn own(self) -> usize {
        if self.parts > 1 { self.halves } else { 0 }
    }

    /// Bytes of a part, per column.
    pub(crate) const fn part_bytes(self) -> usize {
        self.own() + if self.nibbles { self.part_features() / 2 } else { self.part_features() }
    }

    /// Bytes of a block, per column.
    pub(crate) const fn bytes(self) -> usize {
        2 * self.halves + self.parts * self.part_bytes()
    }

    /// What is added to 4-bit values so that they are never negative.
    pub(crate) const fn centre(self) -> i8 {
        if self.nibbles && self.halves == 1 { 8 } else { 0 }
    }

    /// Writes a block into column `column` of blocks with `width` columns.
    pub(crate) fn put(self, block: &Block, to: &mut [u8], width: usize, column: usize) {
        for (i, &half) in block.shared[..self.halves].iter().enumerate() {
            // Exact: the value was widened from a half.
            to[2 * (i * width + column)..][..2].copy_from_slice(&f16::from_f32(half).to_ne_bytes());
        }
        for part in 0..self.parts {
            let to = &mut to[(2 * self.halves + part * self.part_bytes()) * width..];
            for i in 0..self.own() {
                to[i * width + column] = block.own[i][part].cast_unsigned();
            }
            let to = &mut to[self.own() * width..];
            let values = &block.values[part * self.part_features()..][..self.part_features()];
            if self.nibbles {
                for (pair, &[even, odd]) in values.as_chunks::<2>().0.iter().enumerate() {
                    let nibble = |value: i8| (value + self.centre()).cast_unsigned();
                    to[pair * width + column] = nibble(even) | nibble(odd) << 4;
                }
            } else {
                for (k, value) in values.iter().enumerate() {
                    to[k * width + column] = value.cast_unsigned();
                }
            }
        }
    }

    /// Reads what [`Layout::put`] wrote.
    pub(crate) fn take(self, from: &[u8], width: usize, column: usize, block: &mut Block) {
        for i in 0..self.halves {
            let at = 2 * (i * width + column);
            block.shared[i] = f16::from_ne_bytes([from[at], from[at + 1]]).to_f32();
        }
        for part in 0..self.parts {
            let from = &from[(2 * self.halves + part * self.part_bytes()) * width..];
            for i in 0..self.own() {
                block.own[i][part] = from[i * width + column].cast_signed();
            }
            let from = &from[self.own() * width..];
            let values = &mut block.values[part * self.part_features()..][..self.part_features()];
            for (k, value) in values.iter_mut().enumerate() {
                *value = if self.nibbles {
                    (from[k / 2 * width + column] >> (4 * (k % 2)) & 15).cast_signed() - self.centre()
                } else {
                    from[k * width + column].cast_signed()
                };
            }
        }
    }
}
