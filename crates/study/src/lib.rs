//! Experiments: items and cohorts, captures and attribution, sweeps, reports, and the files of a run.
//!
//! A study is made of stages, each a function from files and an [`Engine`](headtemper_engine::Engine) to files:
//! [`capture_file`], [`attribute`], [`sweep`], [`score`]; [`run`] does all of an experiment from one TOML file, and skips what
//! is done.

mod across;
mod arms;
mod attribute;
mod attribute_items;
mod attribute_run;
pub mod attribution;
mod beside_random;
mod capture;
mod cohort;
mod columns;
mod compare;
mod config;
mod dd;
mod digest;
mod dispositions;
mod dry;
mod error;
mod examples;
pub mod falsify;
mod features;
mod features_join;
mod files;
mod heads;
mod item;
mod item_file;
mod judge;
pub mod judging;
mod npz;
mod npz_join;
mod npz_read;
pub mod outcome;
mod parts;
mod predicate;
pub mod probe;
mod progress;
pub mod report;
mod results;
mod rows;
mod run;
mod run_report;
mod rundir;
pub mod score;
mod shard;
mod shards;
pub mod sidecar;
mod sweep;
mod sweep_dir;
mod sweep_files;
mod sweep_tables;
mod tables;
mod units;

pub use arms::{ArmsWanted, arms};
pub use attribute::{AttributeOptions, HeadChoice, ItemFacts, attribute};
pub use attribute_items::Controls;
pub use attribute_run::{AttributeRun, attribute_run};
pub use capture::{
    Answering, CaptureJob, CaptureOptions, Captured, Difference, GeneratedVsForced, capture_file, parse_layers, prompts,
};
pub use cohort::{Cohort, cohorts_of};
pub use columns::{Answers, Columns};
pub use compare::outcomes_of;
pub use config::{AttributeConfig, Experiment, GenerateConfig, ItemsConfig, JudgeConfig, ModelConfig, SweepConfig};
pub use digest::noise_of;
pub use dispositions::{CohortSpec, Cohorts, DispositionSpec, named, read_dispositions};
pub use dry::{DryRun, dry_capture, dry_score, dry_sweep, duration};
pub use error::StudyError;
pub use features::{FeatureMeta, Features, GeneratedMeta, HeadVectors, PieceMeta};
pub use features_join::merge_features;
pub use heads::{PlanSource, head_set, plans};
pub use item::Item;
pub use item_file::{ItemFile, read_items};
pub use judge::{GoldRule, Judge, Verdict};
pub use judging::{ApiKey, Endpoint, JudgePrompts, JudgeReport, JudgeRun, JudgeTask, Patience, dry_judge, judge_run};
pub use npz::{Array, Npz};
pub use parts::Parts;
pub use predicate::Predicate;
pub use progress::{Progress, Silent};
pub use results::{write_attribution, write_lambda};
pub use rows::{Keyed, Row, RowLog};
pub use run::{Outcome, run};
pub use rundir::RunDir;
pub use score::{ScoreRun, Scored, merge_score, score_run};
pub use shard::Shard;
pub use shards::{Plan, Shards, made_by};
pub use sweep::{Arm, FiredByArm, Role, SweepOptions, sweep};
pub use sweep_dir::{SweepRun, Swept, merge_sweep, sweep_run};
pub use sweep_tables::sweep_markdown;
pub use tables::attribution_markdown;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, StudyError>;
