//! Right or wrong, asserted or hedged: the 2 x 2 table of labelled items.

use headtemper_stats::{Interval, difference, share};
use serde::{Deserialize, Serialize};

use super::Ends;
use crate::{
    Grade, Item, Result, StudyError,
    items::units::{counted, units},
    text::{
        count, interval, short, signed,
        table::{
            Column::{Left, Right},
            Table,
        },
    },
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
        *match label.and_then(Grade::of_label) {
            Some(Grade { hedged: false, correct: true }) => &mut self.cr,
            Some(Grade { hedged: false, correct: false }) => &mut self.cw,
            Some(Grade { hedged: true, correct: true }) => &mut self.hr,
            Some(Grade { hedged: true, correct: false }) => &mut self.hw,
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
}

/// The table of items, with 95 % intervals of its shares over prompts: answers to one prompt are one unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LabelTable {
    /// The counts.
    #[serde(flatten)]
    pub table: CrossTable,
    /// How many prompts the counted items have.
    pub prompts: usize,
    /// Counted items whose `correct` or `coverage` says the opposite of their label.
    pub contradicted: usize,
    /// p(assert | correct); null for no right answers.
    pub p_assert_correct: f64,
    /// p(assert | wrong); null for no wrong answers.
    pub p_assert_wrong: f64,
    /// Their difference, wrong minus correct.
    pub asymmetry: f64,
    /// The intervals of these.
    pub intervals: LabelIntervals,
}

/// 95 % intervals of a [`LabelTable`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LabelIntervals {
    /// Of p(assert | correct): Wilson's.
    pub p_assert_correct: Ends,
    /// Of p(assert | wrong).
    pub p_assert_wrong: Ends,
    /// Of the asymmetry: Newcombe's, from these two.
    pub asymmetry: Ends,
}

impl LabelTable {
    /// Counts the labels of items.
    ///
    /// # Errors
    /// If no item has such a label.
    pub fn of(items: &[Item]) -> Result<Self> {
        let table = CrossTable::of_items(items)?;
        let verdict = |item: usize| Grade::of_label(items[item].label.as_deref()?);
        let units = units(items, None);
        let rate = |class: bool| -> Interval {
            let of_unit = |(unit, of): (usize, &Vec<usize>)| {
                let of_class = of.iter().filter_map(|&item| verdict(item)).filter(|verdict| verdict.correct == class);
                of_class.map(|verdict| (!verdict.hedged, unit)).collect::<Vec<_>>()
            };
            let (asserted, unit): (Vec<bool>, Vec<usize>) = units.iter().enumerate().flat_map(of_unit).unzip();
            share(&asserted, &unit)
        };
        let contradicts = |item: &&Item| {
            let label = item.label.as_deref().and_then(Grade::of_label);
            label.is_some_and(|label| item.told_right().into_iter().flatten().any(|told| told != label.correct))
        };
        let (right, wrong) = (rate(true), rate(false));
        let ends = |Interval { low, high, .. }: Interval| Ends { low, high };
        Ok(Self {
            table,
            prompts: units.iter().filter(|of| of.iter().any(|&item| verdict(item).is_some())).count(),
            contradicted: items.iter().filter(contradicts).count(),
            p_assert_correct: table.assert_correct(),
            p_assert_wrong: table.assert_wrong(),
            asymmetry: table.asymmetry(),
            intervals: LabelIntervals {
                p_assert_correct: ends(right),
                p_assert_wrong: ends(wrong),
                asymmetry: ends(difference(wrong, right)),
            },
        })
    }

    /// What a reader must know of it.
    pub fn warnings(&self) -> Vec<String> {
        let told = || {
            let items = count(self.contradicted, "item");
            format!("{items} had a correct or coverage that the label contradicts: the label counts")
        };
        (self.contradicted > 0).then(told).into_iter().collect()
    }

    /// The table as Markdown, with shares.
    pub fn markdown(&self) -> String {
        let CrossTable { cr, cw, hr, hw, missing } = self.table;
        let of = |Ends { low, high }: Ends| interval(low, high, 3);
        let mut table =
            Table::of([Left("")]).with([Right("assert"), Right("hedge"), Right("p(assert)"), Right("95 %")]);
        let (right, wrong) = (self.intervals.p_assert_correct, self.intervals.p_assert_wrong);
        for (name, (assert, hedge), p, ends) in
            [("correct", (cr, hr), self.p_assert_correct, right), ("wrong", (cw, hw), self.p_assert_wrong, wrong)]
        {
            table.row([name.into(), assert.to_string(), hedge.to_string(), short(p), of(ends)]);
        }
        format!(
            "{table}\n\
             assertion asymmetry p(assert | wrong) - p(assert | correct)  {} ({})\n\
             intervals are over {}{}\n{}",
            signed(self.asymmetry, 3),
            of(self.intervals.asymmetry),
            counted(self.prompts, None),
            if (right.low.is_nan() && self.p_assert_correct.is_finite())
                || (wrong.low.is_nan() && self.p_assert_wrong.is_finite())
            {
                ": there is none where one has nearly all answers of a class"
            } else {
                ""
            },
            if missing > 0 { format!("{} without such a label\n", count(missing, "item")) } else { String::new() },
        )
    }
}
