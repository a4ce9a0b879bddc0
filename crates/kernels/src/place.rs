//! Where heads are: in a tensor of their own or among the columns of a fused projection.

use candle_core::{CpuStorage, Layout, Result, Storage, StorageRef, bail};

/// Where the heads of each token are in a storage; offsets in elements.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    start: usize,
    token: usize,
    head: usize,
}

impl Place {
    /// The heads of a tensor `[n, heads, dim]` or `[n, heads * dim]`.
    pub(crate) fn of(name: &str, layout: &Layout, (n, heads, dim): (usize, usize, usize)) -> Result<Self> {
        let start = layout.start_offset();
        let (shape, last, place) = match (layout.dims(), layout.stride()) {
            (dims @ [_, _, _], &[token, head, last]) => (dims == [n, heads, dim], last, Self { start, token, head }),
            (dims @ [_, _], &[token, last]) => (dims == [n, heads * dim], last, Self { start, token, head: dim }),
            _ => (false, 1, Self { start, token: 0, head: 0 }),
        };
        if !shape || (last != 1 && dim > 1) {
            let (dims, stride) = (layout.dims(), layout.stride());
            bail!(
                "{name}: needs [{n}, {heads}, {dim}] or [{n}, {}] whose last dimension lies together, not {dims:?} with strides {stride:?}",
                heads * dim
            );
        }
        Ok(place)
    }

    /// Elements from one token to the next, and from one head to the next.
    pub(crate) fn strides(self) -> (usize, usize) {
        (self.token, self.head)
    }

    /// The offset of head `row`, counted over all tokens.
    #[inline(always)]
    pub(crate) fn at(self, row: usize, heads: usize) -> usize {
        self.head(row / heads, row % heads)
    }

    /// The offset of a head of a token.
    #[inline(always)]
    pub(crate) fn head(self, token: usize, head: usize) -> usize {
        self.start + token * self.token + head * self.head
    }
}

/// All values of a tensor's storage; its layout says where to read.
pub(crate) fn stored<'a>(name: &str, (storage, _): &'a (StorageRef<'_>, &Layout)) -> Result<&'a [f32]> {
    match &**storage {
        Storage::Cpu(CpuStorage::F32(values)) => Ok(values),
        _ => bail!("{name}: inputs must be f32 on the CPU"),
    }
}

/// The values of a contiguous tensor.
pub(crate) fn values<'a>(name: &str, guard: &'a (StorageRef<'_>, &Layout)) -> Result<&'a [f32]> {
    let Some((start, end)) = guard.1.contiguous_offsets() else {
        bail!("{name}: inputs must be contiguous, {:?} is not", guard.1);
    };
    let stored = stored(name, guard)?;
    Ok(if start == end { &[] } else { &stored[start..end] }) // an empty view may begin anywhere
}
