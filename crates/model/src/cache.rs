//! All state of the sequences being read, in slots that are assigned and reused.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Result, Tensor, bail};
use headtemper_hook::{Batch, LayerSpec, Mixer, ModelSpec};
use headtemper_kernels::{AttentionSpan, Spans, StateSpan, attended_heads};

use crate::{Branch, layers::HeadView};

/// The state of every layer, for `slots` sequences of at most `capacity` tokens: keys and values of attention, and the
/// recurrent and the convolution state of delta nets.
///
/// A slot is reused by starting a sequence at position 0 in it. Memory is reserved up front and, on the CPU, taken from the
/// system only as it is written.
pub struct Cache {
    layers: Vec<LayerState>,
    lengths: Vec<usize>,
    /// For each slot, the layer at which its sequence branched off; the slot has no state of that layer and those below.
    branched: Vec<Option<usize>>,
    capacity: usize,
}

/// The state of one layer.
enum LayerState {
    /// `[slots * capacity, kv, dim]` each, keys already rotated.
    KeysValues { keys: Tensor, values: Tensor },
    /// The layer reads the keys and values of an earlier layer.
    KeysOf(usize),
    /// `conv` `[slots, kernel - 1, channels]`, the inputs that the convolution still needs; `state` `[slots, value head, key_dim,
    /// value_dim]` f32.
    Delta { conv: Tensor, state: Tensor },
}

/// Channels of a delta net's convolution: queries, keys and values side by side.
fn channels(layer: &LayerSpec, key_dim: usize) -> usize {
    2 * layer.heads.kv * key_dim + layer.heads.width()
}

impl LayerState {
    fn new(layer: &LayerSpec, slots: usize, capacity: usize, dtype: DType, device: &Device) -> Result<Self> {
        let heads = layer.heads;
        match (layer.keys_of, layer.mixer) {
            (Some(other), _) => Ok(Self::KeysOf(other)),
            (None, Mixer::Full | Mixer::Sliding { .. }) => {
                let shape = (slots * capacity, heads.kv, heads.dim);
                let zeros = || Tensor::zeros(shape, dtype, device);
                Ok(Self::KeysValues { keys: zeros()?, values: zeros()? })
            }
            (None, Mixer::Delta { key_dim, kernel }) => Ok(Self::Delta {
                conv: Tensor::zeros((slots, kernel - 1, channels(layer, key_dim)), dtype, device)?,
                state: Tensor::zeros((slots, heads.count, key_dim, heads.dim), DType::F32, device)?,
            }),
        }
    }
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// If the device has no room for it.
    pub fn new(spec: &ModelSpec, slots: usize, capacity: usize, dtype: DType, device: &Device) -> Result<Self> {
        let layers = spec.layers.iter().map(|layer| LayerState::new(layer, slots, capacity, dtype, device));
        let layers = layers.collect::<Result<_>>()?;
        Ok(Self { layers, lengths: vec![0; slots], branched: vec![None; slots], capacity })
    }

    /// Bytes that one token takes in all layers.
    pub fn bytes_per_token(spec: &ModelSpec, dtype: DType) -> usize {
        let own = |layer: &&LayerSpec| layer.keys_of.is_none() && !matches!(layer.mixer, Mixer::Delta { .. });
        spec.layers.iter().filter(own).map(|layer| 2 * layer.heads.kv_width() * dtype.size_in_bytes()).sum()
    }

    /// Bytes that one sequence takes in all layers whatever its length: the state of delta nets.
    pub fn bytes_per_sequence(spec: &ModelSpec, dtype: DType) -> usize {
        let bytes = |layer: &LayerSpec| match layer.mixer {
            Mixer::Full | Mixer::Sliding { .. } => 0,
            Mixer::Delta { key_dim, kernel } => {
                (kernel - 1) * channels(layer, key_dim) * dtype.size_in_bytes()
                    + layer.heads.width() * key_dim * DType::F32.size_in_bytes()
            }
        };
        spec.layers.iter().map(bytes).sum()
    }

    /// The longest sequence a slot can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.lengths.len()
    }

    /// Records that a slot has read more tokens in played-back passes.
    ///
    /// # Errors
    /// If the slot does not exist, or has no room for them.
    pub fn advance(&mut self, slot: usize, tokens: usize) -> Result<()> {
        let slots = self.lengths.len();
        match self.lengths.get_mut(slot) {
            Some(length) if *length + tokens <= self.capacity => *length += tokens,
            Some(_) => bail!("cache slot {slot} has no room for {tokens} more of at most {} tokens", self.capacity),
            None => bail!("cache slot {slot} does not exist; there are {slots}"),
        }
        Ok(())
    }

    /// Makes room for a batch: called by a model at the start of its forward pass.
    ///
    /// # Errors
    /// If a span does not continue where its slot ended, or continues a slot of another branch, or exceeds the
    /// capacity.
    pub(crate) fn begin(&mut self, batch: &Batch, from: Option<&Branch<'_>>) -> Result<()> {
        if batch.on_device().is_some() {
            return Ok(()); // the caller that plays it back reports the new lengths: see `advance`
        }
        let layer = from.map(|branch| branch.layer);
        for span in batch.spans() {
            let Some(&length) = self.lengths.get(span.slot) else {
                bail!("cache slot {} does not exist; there are {}", span.slot, self.lengths.len());
            };
            if span.start != 0 && span.start != length {
                bail!("cache slot {} holds {length} tokens, but the batch continues at {}", span.slot, span.start);
            }
            if span.start != 0 && self.branched[span.slot] != layer {
                bail!("cache slot {} holds a sequence that branched off at another layer", span.slot);
            }
            if span.start + span.len > self.capacity {
                bail!("a sequence of {} tokens exceeds the cache's {}", span.start + span.len, self.capacity);
            }
        }
        for span in batch.spans() {
            self.lengths[span.slot] = span.start + span.len;
            self.branched[span.slot] = layer;
        }
        from.map_or(Ok(()), |branch| self.inherit(branch, batch))
    }

    /// Copies the keys and values of layers at and below the branch that layers above it read.
    fn inherit(&mut self, from: &Branch<'_>, batch: &Batch) -> Result<()> {
        let spans = batch.spans();
        if from.slots.len() != spans.len() {
            bail!("a branch of {} spans names {} slots that they come from", spans.len(), from.slots.len());
        }
        let read = |state: &LayerState| match state {
            LayerState::KeysOf(other) if *other <= from.layer => Some(*other),
            _ => None,
        };
        let shared: BTreeSet<usize> = self.layers[from.layer + 1..].iter().filter_map(read).collect();
        for layer in shared {
            let (keys, values) = from.cache.keys_values(layer)?;
            let (own_keys, own_values) = self.keys_values(layer)?;
            for (span, &slot) in spans.iter().zip(from.slots) {
                let (there, here) = (slot * from.cache.capacity + span.start, span.slot * self.capacity + span.start);
                own_keys.slice_set(&keys.narrow(0, there, span.len)?, 0, here)?;
                own_values.slice_set(&values.narrow(0, there, span.len)?, 0, here)?;
            }
        }
        Ok(())
    }

    /// Starts the sequence of slot `to` with everything that slot `from` has read, as if it had read it itself. Only the whole
    /// prefix can be copied: the state of a delta net does not run backwards. Of the layers at and below a branch, only keys that
    /// layers above it read are there to be copied.
    ///
    /// # Errors
    /// If a slot does not exist, or both are the same.
    pub fn copy_slot(&mut self, from: usize, to: usize) -> Result<()> {
        let (Some(&len), Some(_), true) = (self.lengths.get(from), self.lengths.get(to), from != to) else {
            bail!("cannot copy cache slot {from} to {to}; there are {}", self.lengths.len());
        };
        let above = self.branched[from].map_or(0, |layer| layer + 1);
        let read =
            |layer: usize| self.layers[above..].iter().any(|of| matches!(of, LayerState::KeysOf(own) if *own == layer));
        for (index, layer) in self.layers.iter().enumerate() {
            let (tensors, rows, len) = match layer {
                LayerState::KeysOf(_) => continue,
                _ if index < above && !read(index) => continue,
                LayerState::KeysValues { keys, values } => ([keys, values], self.capacity, len),
                LayerState::Delta { conv, state } => ([conv, state], 1, 1),
            };
            for tensor in tensors {
                tensor.slice_set(&own_rows(tensor, from * rows, len)?, 0, to * rows)?;
            }
        }
        (self.lengths[to], self.branched[to]) = (len, self.branched[from]);
        Ok(())
    }

    /// For each span of a batch, where its keys are.
    pub(crate) fn spans(&self, batch: &Batch) -> Spans<AttentionSpan> {
        let spans: Spans<AttentionSpan> = batch
            .ranges()
            .map(|(span, range)| AttentionSpan {
                first: range.start,
                len: span.len,
                start: span.start,
                cache: span.slot * self.capacity,
            })
            .collect();
        match batch.on_device() {
            Some(recorded) => spans.on_device(recorded.attention.clone()),
            None => spans,
        }
    }

    /// For each span of a batch, where its recurrent state is.
    pub(crate) fn state_spans(batch: &Batch) -> Spans<StateSpan> {
        let spans: Spans<StateSpan> = batch
            .ranges()
            .map(|(span, range)| StateSpan { first: range.start, len: span.len, start: span.start, slot: span.slot })
            .collect();
        match batch.on_device() {
            Some(recorded) => spans.on_device(recorded.states.clone()),
            None => spans,
        }
    }

    /// Stores the new keys and values of a layer, `[n, kv, dim]`, after those of each span, and returns its queries `[n, heads,
    /// dim]`: all three are computed together.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        [q, k, v]: [&HeadView<'_>; 3],
        spans: &Spans<AttentionSpan>,
    ) -> Result<Tensor> {
        let Some(LayerState::KeysValues { keys, values }) = self.layers.get(layer) else {
            bail!("layer {layer} keeps no keys and values of its own");
        };
        attended_heads(q.view(), k.view(), v.view(), (keys, values), spans)
    }

    /// The keys and values that a layer attends to, `[slots * capacity, kv, dim]`: its own, or those it shares.
    pub(crate) fn keys_values(&self, layer: usize) -> Result<(&Tensor, &Tensor)> {
        match self.layers.get(layer) {
            Some(LayerState::KeysValues { keys, values }) => Ok((keys, values)),
            Some(LayerState::KeysOf(other)) => self.keys_values(*other),
            _ => bail!("layer {layer} attends to no keys"),
        }
    }

    /// The convolution and the recurrent state of a delta net, both changed in place by its kernels.
    pub(crate) fn delta(&mut self, layer: usize) -> Result<(&Tensor, &Tensor)> {
        match self.layers.get(layer) {
            Some(LayerState::Delta { conv, state }) => Ok((conv, state)),
            _ => bail!("layer {layer} is no delta net"),
        }
    }
}

/// Some rows of a tensor in memory of their own: a tensor cannot be written from itself. `Tensor::copy` would copy all of the tensor that
/// these are rows of.
fn own_rows(tensor: &Tensor, first: usize, len: usize) -> Result<Tensor> {
    tensor.narrow(0, first, len)?.force_contiguous()
}

#[cfg(test)]
mod tests {
    use candle_core::{CpuStorage, Device, Storage};

    use super::*;

    #[test]
    fn rows_are_copied_without_those_beside_them() -> Result<()> {
        let all = Tensor::arange(0f32, 60., &Device::Cpu)?.reshape((20, 3))?;
        let own = own_rows(&all, 4, 2)?;
        assert_eq!(own.to_vec2::<f32>()?, [[12., 13., 14.], [15., 16., 17.]]);
        let (storage, layout) = own.storage_and_layout();
        let Storage::Cpu(CpuStorage::F32(held)) = &*storage else { bail!("the tensor is on the CPU, in f32") };
        assert_eq!((held.len(), layout.start_offset()), (6, 0));
        Ok(())
    }
}
