//! Experiments: items and cohorts, captures and attribution, sweeps, reports, and the files of a run.
//!
//! A study is made of stages, each a function from files and an [`Engine`](headtemper_engine::Engine) to files:
//! [`capture`], [`attribute`], [`sweep`], [`score`]; [`run`] does all of an experiment from one TOML file, and skips what
//! is done.

mod arms;
mod attribute;
pub mod attribution;
mod capture;
mod cohort;
mod compare;
mod config;
mod digest;
mod error;
mod examples;
mod features;
mod files;
mod heads;
mod item;
mod judge;
mod npz;
pub mod outcome;
mod progress;
pub mod report;
mod results;
mod rows;
mod run;
pub mod score;
mod sweep;
mod sweep_files;
mod sweep_tables;
mod tables;
mod verbs;

pub use arms::{ArmsWanted, arms};
pub use attribute::{AttributeOptions, attribute};
pub use capture::{CaptureOptions, capture, parse_layers, prompts};
pub use cohort::{Cohort, cohorts_of};
pub use compare::outcomes_of;
pub use config::{AttributeConfig, Experiment, GenerateConfig, ItemsConfig, JudgeConfig, ModelConfig, SweepConfig};
pub use digest::noise_of;
pub use error::StudyError;
pub use features::{FeatureMeta, Features};
pub use files::RunDir;
pub use heads::{PlanSource, head_set, plans};
pub use item::{Item, read_items};
pub use judge::{Judge, Verdict};
pub use npz::{Array, Npz};
pub use progress::{Progress, Silent};
pub use results::{attribution_of, write_attribution, write_lambda};
pub use rows::{Keyed, Row, RowLog};
pub use run::{Outcome, run};
pub use score::{ScoreRun, score_run};
pub use sweep::{Arm, FiredByArm, Role, SweepOptions, sweep};
pub use sweep_tables::sweep_markdown;
pub use tables::heads_markdown;
pub use verbs::{AttributeRun, SweepRun, attribute_run, sweep_run};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, StudyError>;
