//! The sequences of a packed batch, in the form that operations take them.

use std::{
    ops::{Deref, Range},
    sync::OnceLock,
};

use candle_core::{Device, Result, Tensor, bail};

use crate::{AttentionSpan, StateSpan};

/// One sequence's share of the packed tokens, as a row of a table.
pub trait SpanRow {
    /// The first packed token, the number of tokens, the position of the first, and the place of the sequence's state.
    fn row(&self) -> [usize; 4];
}

impl SpanRow for AttentionSpan {
    fn row(&self) -> [usize; 4] {
        [self.first, self.len, self.start, self.cache]
    }
}

impl SpanRow for StateSpan {
    fn row(&self) -> [usize; 4] {
        [self.first, self.len, self.start, self.slot]
    }
}

/// A range of packed tokens to read.
impl SpanRow for Range<usize> {
    fn row(&self) -> [usize; 4] {
        [self.start, self.len(), 0, 0]
    }
}

/// The spans of a forward pass and, on a GPU, their table, which is uploaded once for all layers.
#[derive(Debug)]
pub struct Spans<S> {
    list: Vec<S>,
    table: OnceLock<Tensor>,
    /// What an operation derived from the list for itself, and the number that identifies it.
    made: OnceLock<(usize, Tensor)>,
    /// Whether the table may change on the device.
    moves: bool,
}

impl<S> Spans<S> {
    /// The same spans with a table that is already on the device and may change there: a span may then have fewer tokens than the
    /// list says, and begin earlier.
    #[must_use]
    pub fn on_device(self, table: Tensor) -> Self {
        Self { table: OnceLock::from(table), moves: true, ..self }
    }

    /// The list, for an operation that uses it instead of the table.
    ///
    /// # Errors
    /// If the table may change on the device: the list then gives only bounds.
    pub(crate) fn still(&self, name: &str) -> Result<&[S]> {
        if self.moves {
            bail!("{name}: has no kernel for these shapes that could be recorded");
        }
        Ok(&self.list)
    }
}

impl<S: SpanRow> Spans<S> {
    /// The table, u32 `[spans, 4]`, on the device given in the first call.
    pub(crate) fn table(&self, device: &Device) -> Result<&Tensor> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let rows: Vec<u32> = self.list.iter().flat_map(|span| span.row().map(|value| value as u32)).collect();
        let table = Tensor::from_vec(rows, (self.list.len(), 4), device)?;
        Ok(self.table.get_or_init(|| table))
    }
}

impl<S> Spans<S> {
    /// What `make` derives from the list for one operation; the result depends only on `number`. The first caller's result is kept
    /// for all layers.
    pub(crate) fn once(&self, number: usize, make: impl FnOnce(&[S]) -> Result<Tensor>) -> Result<Tensor> {
        match self.made.get() {
            Some((kept, made)) if *kept == number => Ok(made.clone()),
            Some(_) => make(&self.list),
            None => {
                let made = make(&self.list)?;
                Ok(self.made.get_or_init(|| (number, made)).1.clone())
            }
        }
    }
}

impl<S> Deref for Spans<S> {
    type Target = [S];

    fn deref(&self) -> &[S] {
        &self.list
    }
}

impl<S> From<Vec<S>> for Spans<S> {
    fn from(list: Vec<S>) -> Self {
        Self { list, table: OnceLock::new(), made: OnceLock::new(), moves: false }
    }
}

impl<S: Clone> From<&[S]> for Spans<S> {
    fn from(list: &[S]) -> Self {
        Self::from(list.to_vec())
    }
}

impl<S> FromIterator<S> for Spans<S> {
    fn from_iter<I: IntoIterator<Item = S>>(spans: I) -> Self {
        Self::from(spans.into_iter().collect::<Vec<S>>())
    }
}
