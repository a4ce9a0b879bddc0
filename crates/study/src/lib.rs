//! Experiments: items and cohorts, captures and attribution, sweeps, reports, and the files of a run.
//!
//! A study is made of stages, each a function from files and an [`Engine`](headtemper_engine::Engine) to files:
//! [`capture`], [`attribute`], [`sweep`]; [`run`] does all of an experiment from one TOML file, and skips what is done.

mod attribute;
pub mod attribution;
mod capture;
mod cohort;
mod config;
mod digest;
mod dry;
mod error;
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
mod sweep;
mod tables;
mod verbs;

pub use attribute::{AttributeOptions, attribute};
pub use capture::{CaptureOptions, capture, parse_layers, prompts};
pub use cohort::{Cohort, cohorts_of};
pub use config::{AttributeConfig, Experiment, GenerateConfig, ItemsConfig, JudgeConfig, ModelConfig, SweepConfig};
pub use digest::noise_of;
pub use dry::{DryRun, dry_capture, dry_sweep, duration};
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
pub use sweep::{Arm, FiredByArm, SweepOptions, arms, sweep, tables_of};
pub use tables::{heads_markdown, sweep_markdown};
pub use verbs::{AttributeRun, SweepRun, attribute_run, sweep_run};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, StudyError>;
