//! What is studied: items, what is known of each, and the cohorts that they are compared in.

pub(crate) mod answer;
pub(crate) mod cohort;
pub(crate) mod columns;
pub(crate) mod dispositions;
pub(crate) mod facts;
mod fields;
pub(crate) mod file;
mod grade;
mod item;
pub(crate) mod predicate;
mod sign;
pub(crate) mod thought;
pub(crate) mod unique;
pub(crate) mod units;
pub(crate) mod words;

pub use cohort::{Cohort, cohorts_of};
pub use columns::{Answers, Columns};
pub use dispositions::{CohortSpec, Cohorts, DispositionSpec, named, read_dispositions};
pub use facts::ItemFacts;
pub use file::{ItemFile, ItemsFrom, ReadAs, Taken, read_items, read_taken};
pub(crate) use grade::GRADING;
pub use grade::{GoldRule, Grade, Grader};
pub use item::Item;
pub(crate) use item::{Systems, contradict, either, truncated};
pub use predicate::Predicate;
pub use units::check_groups;
