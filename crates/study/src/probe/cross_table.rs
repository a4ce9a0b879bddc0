//! Right or wrong, asserted or hedged: the 2 x 2 table of labelled items.

use serde::{Deserialize, Serialize};

use crate::{
    Item, Result, StudyError, Verdict,
    text::{short, signed},
};

/// Items by cr, cw, hr and hw: confident or hedged, right or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CrossTable {
    /// Asserted and right.
    pub cr: usize,
    /// Asserted and wrong.
    pub cw: usize,
    /// Hedged and right.
    pub hr: usize,
    /// Hedged and wrong.
    pub hw: usize,
    /// Items that are none of these, or not known to be.
    pub missing: usize,
}

impl CrossTable {
    /// Counts labels.
    ///
    /// # Errors
    /// If no item has such a label.
    pub fn of_items(items: &[Item]) -> Result<Self> {
        let mut table = Self::default();
        for item in items {
            table.count(item.label.as_deref());
        }
        if table.missing == items.len() {
            return Err(StudyError::option(
                "the label of every item",
                "none of cr, cw, hr, hw",
                "cr, cw, hr or hw: confident or hedged, right or wrong, as `temper run` and `temper judge` write",
            ));
        }
        Ok(table)
    }

    /// Counts one item.
    pub fn count(&mut self, label: Option<&str>) {
        *match label.and_then(Verdict::of_label) {
            Some(Verdict { hedged: false, correct: true }) => &mut self.cr,
            Some(Verdict { hedged: false, correct: false }) => &mut self.cw,
            Some(Verdict { hedged: true, correct: true }) => &mut self.hr,
            Some(Verdict { hedged: true, correct: false }) => &mut self.hw,
            None => &mut self.missing,
        } += 1;
    }

    /// p(assert | correct); NaN for no right answers.
    pub fn assert_correct(&self) -> f64 {
        self.cr as f64 / (self.cr + self.hr) as f64
    }

    /// p(assert | wrong); NaN for no wrong answers.
    pub fn assert_wrong(&self) -> f64 {
        self.cw as f64 / (self.cw + self.hw) as f64
    }

    /// Assertion asymmetry p(assert | wrong) - p(assert | correct).
    pub fn asymmetry(&self) -> f64 {
        self.assert_wrong() - self.assert_correct()
    }

    /// The table as Markdown, with shares.
    pub fn markdown(&self) -> String {
        format!(
            "|         | assert | hedge | p(assert) |\n|---------|-------:|------:|----------:|\n\
             | correct | {:6} | {:5} | {:>9} |\n| wrong   | {:6} | {:5} | {:>9} |\n\n\
             assertion asymmetry p(assert | wrong) - p(assert | correct)  {}\n{}",
            self.cr,
            self.hr,
            short(self.assert_correct()),
            self.cw,
            self.hw,
            short(self.assert_wrong()),
            signed(self.asymmetry(), 3),
            if self.missing > 0 { format!("{} items without such a label\n", self.missing) } else { String::new() },
        )
    }
}
