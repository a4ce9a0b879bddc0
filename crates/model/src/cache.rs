//! All state of the sequences that are being read, in slots which they take and give back.

use candle_core::{DType, Device, Result, Tensor, bail};
use headtemper_hook::{Batch, Heads, ModelSpec};
use headtemper_kernels::AttentionSpan;

/// Keys and values of every layer, `slots` sequences of at most `capacity` tokens.
///
/// A slot is reused by starting a sequence at position 0 in it. Memory is reserved at once and, on the CPU, taken from
/// the system only as it is written.
pub struct Cache {
    layers: Vec<Option<KeyValue>>,
    lengths: Vec<usize>,
    capacity: usize,
}

/// The keys and values of one layer: `[slots * capacity, kv, dim]` each, keys already rotated.
struct KeyValue {
    keys: Tensor,
    values: Tensor,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// If the device has no room for it.
    pub fn new(spec: &ModelSpec, slots: usize, capacity: usize, dtype: DType, device: &Device) -> Result<Self> {
        let make = |heads: &Heads| -> Result<KeyValue> {
            let shape = (slots * capacity, heads.kv, heads.dim);
            Ok(KeyValue { keys: Tensor::zeros(shape, dtype, device)?, values: Tensor::zeros(shape, dtype, device)? })
        };
        let layers = spec.layers.iter().map(|heads| heads.as_ref().map(make).transpose()).collect::<Result<_>>()?;
        Ok(Self { layers, lengths: vec![0; slots], capacity })
    }

    /// Bytes that one token takes in all layers.
    pub fn bytes_per_token(spec: &ModelSpec, dtype: DType) -> usize {
        spec.layers.iter().flatten().map(|heads| 2 * heads.kv * heads.dim * dtype.size_in_bytes()).sum()
    }

    /// The longest sequence a slot can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.lengths.len()
    }

    /// Makes room for a batch: called by a model at the start of its forward pass.
    ///
    /// # Errors
    /// If a span continues another position than its slot has reached, or reaches beyond the capacity.
    pub(crate) fn begin(&mut self, batch: &Batch) -> Result<()> {
        for span in batch.spans() {
            let Some(&length) = self.lengths.get(span.slot) else {
                bail!("cache slot {} does not exist; there are {}", span.slot, self.lengths.len());
            };
            if span.start != 0 && span.start != length {
                bail!("cache slot {} holds {length} tokens, but the batch continues at {}", span.slot, span.start);
            }
            if span.start + span.len > self.capacity {
                bail!("a sequence of {} tokens exceeds the cache's {}", span.start + span.len, self.capacity);
            }
        }
        for span in batch.spans() {
            self.lengths[span.slot] = span.start + span.len;
        }
        Ok(())
    }

    /// Starts the sequence of slot `to` with the first `len` tokens of slot `from`, as if it had read them itself.
    ///
    /// # Errors
    /// If a slot does not exist, or `from` holds fewer tokens.
    pub fn copy_start(&mut self, from: usize, to: usize, len: usize) -> Result<()> {
        match (self.lengths.get(from), self.lengths.get(to)) {
            (Some(&held), Some(_)) if held >= len && from != to => {}
            _ => {
                bail!("cannot copy {len} tokens from cache slot {from} to {to}: {:?} are held", self.lengths.get(from))
            }
        }
        for layer in self.layers.iter().flatten() {
            for tensor in [&layer.keys, &layer.values] {
                // Its own memory first: a tensor cannot be written from itself.
                let start = tensor.narrow(0, from * self.capacity, len)?.copy()?;
                tensor.slice_set(&start, 0, to * self.capacity)?;
            }
        }
        self.lengths[to] = len;
        Ok(())
    }

    /// Where each span of a batch finds its keys.
    pub(crate) fn spans(&self, batch: &Batch) -> Vec<AttentionSpan> {
        batch
            .ranges()
            .map(|(span, range)| AttentionSpan {
                first: range.start,
                len: span.len,
                start: span.start,
                cache: span.slot * self.capacity,
            })
            .collect()
    }

    /// Stores the new keys and values of a layer, `[n, kv, dim]`, and returns all of them.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
        spans: &[AttentionSpan],
    ) -> Result<(&Tensor, &Tensor)> {
        let Some(Some(cache)) = self.layers.get(layer) else { bail!("layer {layer} keeps no keys and values") };
        for span in spans {
            let at = span.cache + span.start;
            cache.keys.slice_set(&keys.narrow(0, span.first, span.len)?, 0, at)?;
            cache.values.slice_set(&values.narrow(0, span.first, span.len)?, 0, at)?;
        }
        Ok((&cache.keys, &cache.values))
    }
}
