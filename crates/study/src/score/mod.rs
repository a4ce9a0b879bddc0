//! `temper score`, the causal map: Δ log-probability, KL and agreement of every head and λ on recorded responses.

mod map;
pub(crate) mod plan;
mod results;
mod row;
mod run;
mod scores;
mod text;
mod whole;
mod work;

pub use map::{CellContrast, CellEffect, Confounds, Contrast, Flips, ScoreMap};
#[cfg(test)]
pub(crate) use map::{Nulls, map};
pub use row::ScoreRow;
pub use run::{ScoreRun, Scored, merge_score, score_run};
pub use scores::Scores;
pub use text::score_markdown;
pub(crate) use text::{ranked, ranked_contrast};
pub(crate) use work::Work;
