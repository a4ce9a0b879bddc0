//! Shared by the operations with a carried state: which slot a sequence continues, and writing in place.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

/// One sequence's share of the packed tokens, and the slot of the state that it continues.
#[derive(Clone, Copy, Debug)]
pub struct StateSpan {
    /// The first packed token of the sequence.
    pub first: usize,
    /// The number of its tokens in this call; a span without tokens leaves its slot unchanged.
    pub len: usize,
    /// The position of its first token. At 0 the state starts from zero, whatever the slot holds.
    pub start: usize,
    /// The slot of the state that holds what the earlier tokens left and is updated by these.
    pub slot: usize,
}

/// Refuses spans outside `n` tokens or `slots` slots, and two that would write the same token or slot.
pub(crate) fn check_spans(name: &str, spans: &[StateSpan], n: usize, slots: usize) -> Result<()> {
    let (mut end, mut taken) = (0, vec![false; slots]);
    for span in spans {
        let last = span.first.checked_add(span.len).filter(|&last| last <= n && span.slot < slots);
        let Some(last) = last.filter(|_| span.first >= end) else {
            bail!("{name}: {span:?} reaches outside {n} tokens or {slots} slots, or into the span before it");
        };
        if std::mem::replace(&mut taken[span.slot], true) {
            bail!("{name}: slot {} is continued by two spans", span.slot);
        }
        end = last;
    }
    Ok(())
}

/// The tokens that belong to no span; the spans must have been checked.
pub(crate) fn idle(spans: &[StateSpan], n: usize) -> impl Iterator<Item = usize> {
    let mut end = 0;
    let gaps = spans.iter().map(|span| (span.first, span.first + span.len)).chain([(n, n)]);
    gaps.flat_map(move |(first, last)| std::mem::replace(&mut end, last)..first)
}

/// Refuses a state that cannot be changed in place.
pub(crate) fn check_state(name: &str, state: &Tensor) -> Result<()> {
    if !state.is_contiguous() {
        bail!("{name}: the state is changed in place and must be contiguous, {:?} is not", state.layout());
    }
    Ok(())
}

/// Refuses inputs that share the state's storage.
pub(crate) fn check_apart(name: &str, state: &Tensor, inputs: &[&Tensor]) -> Result<()> {
    let place = |t: &Tensor| std::ptr::from_ref::<Storage>(&t.storage_and_layout().0);
    if inputs.iter().any(|input| std::ptr::eq(place(input), place(state))) {
        bail!("{name}: an input shares the storage of the state, which is changed in place");
    }
    Ok(())
}

/// Runs `work` on the values of the state, f32 and contiguous, which it changes in place. It may read `inputs` meanwhile.
pub(crate) fn update(
    name: &'static str,
    state: &Tensor,
    inputs: &[&Tensor],
    work: impl FnOnce(&mut [f32]),
) -> Result<()> {
    check_state(name, state)?;
    // Writing waits for every reader: an input within the state's own storage would deadlock.
    check_apart(name, state, inputs)?;
    state.inplace_op1(&Update { name, work: Cell::new(Some(work)) })
}

/// Wraps `work` for candle: an operation takes `&self`, though it is called once.
struct Update<F> {
    name: &'static str,
    work: Cell<Option<F>>,
}

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Update<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, state: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(state), Some((start, end))) = (state, layout.contiguous_offsets()) else {
            bail!("{}: the state must be contiguous f32", self.name);
        };
        let work = self.work.take().expect("candle runs an operation once");
        work(&mut state[start..end]);
        Ok(())
    }
}
