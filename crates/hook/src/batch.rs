//! The packed layout of a forward pass.

use std::ops::Range;

use candle_core::Tensor;

/// One sequence's share of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The cache slot that holds the sequence's state.
    pub slot: usize,
    /// Position of the span's first token in its sequence: 0 for a prompt, the length so far for a decode step.
    pub start: usize,
    /// Tokens in this forward pass.
    pub len: usize,
    /// The row of the λ table that tempers this sequence (see [`HeadScale`](crate::HeadScale)).
    pub row: usize,
    /// How many of the sequence's first tokens are its prompt; the others are its response (see
    /// [`Positions`](crate::Positions)). [`Span::ALL_PROMPT`] where it makes no difference.
    pub prompt: usize,
}

impl Span {
    /// Every token counts as prompt.
    pub const ALL_PROMPT: usize = usize::MAX;

    /// The position of every token of the span in its sequence.
    pub fn positions(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// The layout of a run of tokens `[n]`, packed end to end and never padded.
///
/// Prefill and teacher-forced scoring are spans of many tokens, decode is spans of one: one layout serves all three.
#[derive(Clone, Debug)]
pub struct Batch {
    spans: Vec<Span>,
    tokens: usize,
    recorded: Option<Recorded>,
}

/// The layout of a decode step as u32 tensors on the device. They change in place from step to step, so a pass that was
/// recorded once finds the new layout there each time it is played back.
///
/// The spans of such a batch hold one token each and only bound how far each sequence may reach; these tensors hold the actual
/// layout of a step. A span of no tokens is an idle row.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The position of every token, `[n]`.
    pub positions: Tensor,
    /// The row of the λ table of every token, `[n]`; see [`HeadScale::row_of`](crate::HeadScale::row_of).
    pub rows: Tensor,
    /// Of each span: first token, number of tokens, start, and the cache row of position 0, `[n, 4]`.
    pub attention: Tensor,
    /// Of each span: first token, number of tokens, start, and the slot of the state, `[n, 4]`.
    pub states: Tensor,
}

impl Batch {
    /// A batch of these spans, packed in this order.
    ///
    /// # Panics
    /// If a span is empty or two spans share a cache slot: a sequence may appear once in a forward pass.
    pub fn new(spans: Vec<Span>) -> Self {
        assert!(spans.iter().all(|span| span.len > 0), "a span must hold at least one token");
        let mut slots: Vec<_> = spans.iter().map(|span| span.slot).collect();
        slots.sort_unstable();
        assert!(slots.windows(2).all(|pair| pair[0] != pair[1]), "two spans of a batch share a cache slot");
        let tokens = spans.iter().map(|span| span.len).sum();
        Self { spans, tokens, recorded: None }
    }

    /// A batch of one whole sequence from its start, in slot 0, under row 0.
    pub fn single(len: usize) -> Self {
        Self::new(vec![Span { slot: 0, start: 0, len, row: 0, prompt: Span::ALL_PROMPT }])
    }

    /// A decode step whose layout changes on the device. Each of `spans` holds one token, at the last position that its slot may
    /// reach.
    ///
    /// # Panics
    /// As [`Batch::new`].
    pub fn recorded(spans: Vec<Span>, recorded: Recorded) -> Self {
        Self { recorded: Some(recorded), ..Self::new(spans) }
    }

    /// The layout on the device, for a batch made by [`Batch::recorded`].
    pub fn on_device(&self) -> Option<&Recorded> {
        self.recorded.as_ref()
    }

    /// How many tokens the batch holds in all.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The spans, in packed order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Each span with the range of packed tokens it covers.
    pub fn ranges(&self) -> impl Iterator<Item = (&Span, Range<usize>)> {
        let mut end = 0;
        self.spans.iter().map(move |span| {
            let start = end;
            end += span.len;
            (span, start..end)
        })
    }

    /// The position of every token in its own sequence, `[n]`.
    pub fn positions(&self) -> Vec<u32> {
        self.spans.iter().flat_map(|span| span.positions().map(|position| position as u32)).collect()
    }

    /// The packed index of each span's last token, `[spans]`.
    pub fn last_tokens(&self) -> Vec<u32> {
        self.ranges().map(|(_, range)| range.end as u32 - 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_know_their_place() {
        let span = |slot, start, len, row| Span { slot, start, len, row, prompt: 2 };
        let batch = Batch::new(vec![span(3, 0, 3, 1), span(0, 9, 1, 0)]);
        assert_eq!(batch.tokens(), 4);
        assert_eq!(batch.positions(), [0, 1, 2, 9]);
        assert_eq!(batch.last_tokens(), [2, 3]);
    }

    #[test]
    #[should_panic(expected = "share a cache slot")]
    fn a_sequence_appears_once() {
        let span = Span { slot: 1, start: 0, len: 1, row: 0, prompt: 1 };
        let _ = Batch::new(vec![span, span]);
    }
}
