//! Linear probes: features and labels from files, fitted with scikit-learn's objective, measured with their nulls.

mod cross_table;
mod eval;
mod file;
mod fit;
mod likeness;
mod measure;
mod origin;
mod read;
mod rows;
mod set;
mod source;
mod text;
mod write;

pub use cross_table::{CrossTable, LabelIntervals, LabelTable};
pub(crate) use eval::other_labels;
pub use eval::{EvalResult, Evaluation, evaluate};
pub use file::PROBE_FILE;
#[cfg(test)]
pub(crate) use file::PROBE_SHA256;
pub(crate) use fit::folds_of;
pub use fit::{FitOptions, FitResult, Fitted, LEAST_SHUFFLES, Null, Probe, ProbeMeta, Weighting, fit, usual_shuffles};
pub use likeness::Likeness;
pub use measure::{ASSERT_CORRECT, CalibrationBin, Ends, MeasureOptions, Measured, OperatingPoint};
pub(crate) use origin::Place;
pub use origin::{MatchedBy, Origin};
pub use read::unmet;
pub(crate) use read::{Column, average, column};
pub(crate) use rows::{FeatureRows, told_ends};
pub use set::ProbeSet;
pub use source::{ColumnSource, FeatureSource, LabelSource, Op, Operand, Places, Rule};
pub use text::{eval_markdown, fit_markdown};
pub(crate) use write::prediction_npz;
pub use write::{check_eval, check_fit, write_eval, write_fit};
