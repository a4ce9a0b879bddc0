//! Right or wrong, asserted or hedged: the 2 x 2 table of labelled items.

use serde::{Deserialize, Serialize};

use crate::{Item, Result, StudyError};

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
            return Err(StudyError::Option {
                what: "the label of every item".into(),
                found: "none of cr, cw, hr, hw".into(),
                allowed:
                    "cr, cw, hr or hw: confident or hedged, right or wrong, as `temper run` and `temper judge` write"
                        .into(),
            });
        }
        Ok(table)
    }

    /// Counts one item.
    pub fn count(&mut self, label: Option<&str>) {
        *match label {
            Some("cr") => &mut self.cr,
            Some("cw") => &mut self.cw,
            Some("hr") => &mut self.hr,
            Some("hw") => &mut self.hw,
            _ => &mut self.missing,
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
        let share = |x: f64| if x.is_finite() { format!("{x:.3}") } else { "–".into() };
        format!(
            "|         | assert | hedge | p(assert) |\n|---------|-------:|------:|----------:|\n\
             | correct | {:6} | {:5} | {:>9} |\n| wrong   | {:6} | {:5} | {:>9} |\n\n\
             assertion asymmetry p(assert | wrong) - p(assert | correct)  {}\n{}",
            self.cr,
            self.hr,
            share(self.assert_correct()),
            self.cw,
            self.hw,
            share(self.assert_wrong()),
            if self.asymmetry().is_finite() { format!("{:+.3}", self.asymmetry()) } else { "–".into() },
            if self.missing > 0 { format!("{} items without such a label\n", self.missing) } else { String::new() },
        )
    }
}
