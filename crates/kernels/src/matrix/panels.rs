//! The layout of a weight on the CPU: panels of a few rows each, in the order in which the kernels read them.

use candle_core::{Result, bail};
use half::{bf16, f16};
use memmap2::MmapMut;
use rayon::prelude::*;

use super::{
    Held, Products,
    blocks::{Block, Blocks},
    form::{Form, WIDE, with_form},
};
use crate::{Level, simd};

/// A weight in panels. The rows of a panel lie side by side, feature by feature, so that one activation times one vector
/// of the panel contributes to as many outputs: every output is summed in the order of its features, whatever the number of
/// activation rows, and no sum across a vector is ever needed. The last panel is padded with zeros.
pub(crate) struct Panels {
    /// The level whose vector length determines the panels.
    level: Level,
    held: Held,
    products: Products,
    rows: usize,
    features: usize,
    bytes: Option<MmapMut>,
}

impl Panels {
    /// Allocates a weight of `rows` and `features`, all zeros.
    pub(super) fn new(level: Level, held: Held, rows: usize, features: usize) -> Result<Self> {
        if let Held::Blocks(blocks) = held
            && !features.is_multiple_of(blocks.features())
        {
            bail!("{blocks} holds rows of whole blocks of {}, not of {features} features", blocks.features());
        }
        let mut panels = Self { level, held, products: Products::F32, rows, features, bytes: None };
        let bytes = panels.panel_bytes() * panels.count();
        if bytes > 0 {
            let map = MmapMut::map_anon(bytes);
            let Ok(map) = map else { bail!("no memory for a weight of {bytes} bytes") };
            // Only for speed: a failure is no error.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            panels.bytes = Some(map);
        }
        Ok(panels)
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }

    pub(crate) fn held(&self) -> Held {
        self.held
    }

    pub(crate) fn products(&self) -> Products {
        self.products
    }

    pub(super) fn multiply_as(&mut self, products: Products) {
        self.products = products;
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn features(&self) -> usize {
        self.features
    }

    /// Rows per panel.
    pub(crate) fn width(&self) -> usize {
        WIDE * simd::lanes_of(self.level)
    }

    /// How many panels there are.
    pub(crate) fn count(&self) -> usize {
        self.rows.div_ceil(self.width())
    }

    /// Bytes per panel.
    pub(crate) fn panel_bytes(&self) -> usize {
        let (features, width) = (self.features.next_multiple_of(2), self.width());
        with_form!(self.held, W => W::bytes(features, width))
    }

    /// All panels.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }

    /// Fills rows `from..to`, each with what `row` writes, rounded to the held type.
    pub(super) fn fill(&mut self, from: usize, to: usize, row: impl Fn(usize, &mut [f32]) + Sync) {
        let (width, features, held) = (self.width(), self.features, self.held);
        self.fill_columns(
            (from, to),
            || vec![0f32; features],
            |values, r, panel| {
                row(r, values);
                encode(held, panel, width, r % width, values);
            },
        );
    }

    /// Fills rows `from..to` with blocks as a file stores them, which `row` returns: nothing is rounded.
    pub(super) fn fill_blocks<'a>(
        &mut self,
        blocks: Blocks,
        from: usize,
        to: usize,
        row: impl Fn(usize) -> std::borrow::Cow<'a, [u8]> + Sync,
    ) {
        let width = self.width();
        self.fill_columns((from, to), || (), |(), r, panel| encode_blocks(blocks, panel, width, r % width, &row(r)));
    }

    /// Calls `fill` to write rows `from..to`, each into its panel, with some scratch space.
    fn fill_columns<T>(
        &mut self,
        (from, to): (usize, usize),
        scratch: impl Fn() -> T + Sync + Send,
        fill: impl Fn(&mut T, usize, &mut [u8]) + Sync,
    ) {
        let (width, size) = (self.width(), self.panel_bytes().max(1));
        let Some(bytes) = &mut self.bytes else { return };
        let (first, last) = (from / width, to.div_ceil(width));
        let panels = bytes[first * size..last * size].par_chunks_mut(size).enumerate();
        panels.for_each_init(scratch, |scratch, (panel, bytes)| {
            let start = (first + panel) * width;
            for r in from.max(start)..to.min(start + width) {
                fill(scratch, r, bytes);
            }
        });
    }

    /// Row `r`, widened.
    pub(super) fn row(&self, r: usize, out: &mut [f32]) {
        let (width, size) = (self.width(), self.panel_bytes());
        let panel = &self.bytes()[r / width * size..][..size];
        let column = r % width;
        match self.held {
            Held::F32 => {
                let (values, _) = panel.as_chunks::<4>();
                let column = values.iter().skip(column).step_by(width);
                out.iter_mut().zip(column).for_each(|(out, &b)| *out = f32::from_ne_bytes(b));
            }
            Held::F16 => {
                let (values, _) = panel.as_chunks::<2>();
                let column = values.iter().skip(column).step_by(width);
                out.iter_mut().zip(column).for_each(|(out, &b)| *out = f16::from_ne_bytes(b).to_f32());
            }
            Held::Bf16 => {
                let (values, _) = panel.as_chunks::<2>();
                for (k, out) in out.iter_mut().enumerate() {
                    *out = bf16::from_ne_bytes(values[pair_place(k, width, column)]).to_f32();
                }
            }
            Held::Blocks(blocks) => {
                let (layout, mut block) = (blocks.layout(), Block::EMPTY);
                let stored = panel.chunks_exact(layout.bytes() * width);
                for (stored, out) in stored.zip(out.chunks_exact_mut(layout.features())) {
                    layout.take(stored, width, column, &mut block);
                    block.widen(layout, out);
                }
            }
        }
    }
}

/// The position of feature `k` of a column in a panel of pairs.
fn pair_place(k: usize, width: usize, column: usize) -> usize {
    (k / 2 * width + column) * 2 + k % 2
}

/// Writes one column of a panel.
fn encode(held: Held, panel: &mut [u8], width: usize, column: usize, values: &[f32]) {
    match held {
        Held::F32 => {
            let (places, _) = panel.as_chunks_mut::<4>();
            let column = places.iter_mut().skip(column).step_by(width);
            column.zip(values).for_each(|(place, v)| *place = v.to_ne_bytes());
        }
        Held::F16 => {
            let (places, _) = panel.as_chunks_mut::<2>();
            let column = places.iter_mut().skip(column).step_by(width);
            column.zip(values).for_each(|(place, &v)| *place = f16::from_f32(v).to_ne_bytes());
        }
        Held::Bf16 => {
            let (places, _) = panel.as_chunks_mut::<2>();
            for (k, &v) in values.iter().enumerate() {
                places[pair_place(k, width, column)] = bf16::from_f32(v).to_ne_bytes();
            }
        }
        Held::Blocks(blocks) => encode_blocks(blocks, panel, width, column, &blocks.quantise(values)),
    }
}

/// Writes one column of a panel, from blocks as a file stores them.
fn encode_blocks(blocks: Blocks, panel: &mut [u8], width: usize, column: usize, stored: &[u8]) {
    let (layout, mut block) = (blocks.layout(), Block::EMPTY);
    let places = panel.chunks_exact_mut(layout.bytes() * width);
    for (place, stored) in places.zip(stored.chunks_exact(blocks.ggml().type_size())) {
        blocks.unpack(stored, &mut block);
        layout.put(&block, place, width, column);
    }
}
