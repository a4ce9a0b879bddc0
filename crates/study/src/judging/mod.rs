//! Labels from a judge: a language model behind an OpenAI-compatible endpoint is asked about answers, one small question
//! at a time, and what it does not answer stays missing.
//!
//! [`judge_run`] goes from items to items with `coverage`, `correct`, `verbal`, `label` and `scores`. Its modules: `endpoint` (the address
//! and the key), `prompts` and `axes` (what is asked, as data), `questions` (which questions the items raise), `cache` (what was answered
//! already), `client` and `completion` (one request and what comes back), `pool` (many requests: threads, budgets, retries), `reading`
//! (from a reply to a verdict), `labels` (from verdicts to fields), `report` (the counts).

mod axes;
mod cache;
mod client;
mod completion;
mod endpoint;
mod labels;
mod pool;
mod prompts;
mod questions;
mod reading;
mod report;
mod run;

pub use axes::{Axes, Axis};
pub use cache::Answer;
pub use endpoint::{ApiKey, Endpoint};
pub use pool::Patience;
pub use prompts::{JudgePrompts, JudgeTask};
pub use report::{Counts, FieldCounts, JudgeReport, Source, Tokens};
pub use run::{DryCounts, DryJudge, JudgeDone, JudgeRun, dry_judge, judge_run};
