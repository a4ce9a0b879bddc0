//! Experiments: items and cohorts, captures and attribution, sweeps, reports, and the files of a run.
//!
//! A study is made of stages, each a function from files and an [`Engine`](headtemper_engine::Engine) to files:
//! [`capture_file`], [`attribute`], [`sweep`], [`score`]; [`run`] does all of an experiment from one TOML file, and skips what
//! is done.

mod attribute;
pub mod attribution;
mod capture;
mod confounds;
#[cfg(test)]
mod documented;
mod dry;
mod error;
pub mod falsify;
pub mod gate;
mod heads;
mod hooks;
mod items;
pub mod judging;
mod npz;
pub mod probe;
mod progress;
pub mod report;
mod run;
pub mod score;
mod significance;
mod store;
mod summary;
mod sweep;
mod text;
mod watch;

pub use attribute::{
    Adjust, AttributeOptions, AttributeRun, AttributeSource, Compat, Controls, HeadChoice, attribute, attribute_run,
    write_attribution,
};
pub use attribution::attribution_markdown;
pub use capture::{
    Answering, CaptureJob, CaptureOptions, Captured, Difference, FeatureMeta, Features, GeneratedMeta,
    GeneratedVsForced, HeadVectors, PieceMeta, WrittenAnswers, capture_file, check_layers, merge_features,
    parse_layers, prompts,
};
pub use dry::{DryRun, dry_capture, dry_run, dry_score, dry_sweep, duration};
pub use error::StudyError;
pub use heads::{PlanSource, RankBy, TopHeads, check_head_set, check_plan, check_rows, head_remarks, head_set, plans};
pub use hooks::HookCounts;
pub use items::{
    Answers, Cohort, CohortSpec, Cohorts, Columns, DispositionSpec, GoldRule, Grade, Grader, Item, ItemFacts, ItemFile,
    ItemsFrom, Predicate, ReadAs, Taken, check_groups, cohorts_of, named, read_dispositions, read_items, read_taken,
};
pub use judging::{
    ApiKey, Endpoint, JudgeDone, JudgePrompts, JudgeReport, JudgeRun, JudgeTask, Patience, dry_judge, judge_run,
};
pub use npz::{Array, Npz};
pub use progress::{Progress, Silent};
pub use run::{
    AttributeConfig, Experiment, GenerateConfig, ItemsConfig, JudgeConfig, ModelConfig, SweepConfig, check_experiment,
    run,
};
pub use score::{ScoreRun, merge_score, score_run};
pub use store::{Joined, Keyed, Parts, Plan, Row, RowLog, RunDir, Shard, Sharded, Shards, made_by, noise_of};
pub use summary::RunSummary;
pub use sweep::{
    Answered, Arm, ArmsWanted, JudgedAnswers, Mark, RandomFrom, Role, SweepOptions, SweepRun, SweptAnswers, arms,
    check_arms, compared, merge_sweep, outcome, outcomes_of, sweep, sweep_markdown, sweep_run,
};
pub use text::count;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, StudyError>;
