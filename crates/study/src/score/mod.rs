//! `temper score`, the causal map: Δ log-probability, KL and agreement of every head and λ on recorded responses.

mod map;
mod outcome;
pub(crate) mod plan;
mod results;
mod row;
mod run;
mod scores;
mod text;
mod warnings;
mod whole;
mod work;

#[cfg(test)]
pub(crate) use map::{Nulls, map};
pub use outcome::{CellContrast, CellEffect, Confounds, Contrast, Flips, ScoreMap};
pub use row::ScoreRow;
pub use run::{ScoreRun, merge_score, score_run};
pub use scores::Scores;
pub use text::score_markdown;
pub(crate) use text::{ranked, ranked_contrast};
pub(crate) use work::Work;
