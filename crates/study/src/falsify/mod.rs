//! The five steps that a probe must survive: cross-validation, fresh items, every score, pooled layers, another model.
//!
//! Gates are declared in a file and hashed; the probe is frozen, and its hash written, before a fresh label is read; items that overlap are
//! refused; and sets that are too small to tell are reported as such. The protocol of arXiv 2604.11867, section 8, with the nulls and
//! baselines that it lacked.

mod axes;
mod baselines;
mod config;
mod earlier;
mod frozen;
mod gates;
mod other;
mod overlap;
mod result;
mod run;
mod side;
mod steps;
mod tested;
mod text;
mod view;

#[cfg(test)]
mod tests;

pub use config::{AxesConfig, ControlsConfig, GateFile, PooledConfig, ProbeConfig, ReplicationConfig, SetConfig};
pub(crate) use earlier::Earlier;
pub(crate) use frozen::FROZEN;
pub use gates::{FailedBy, Gates, StepName};
pub use result::{
    Axis, AxisPair, Baseline, BaselineName, Check, FailureMode, FailureName, Falsification, Frozen, Kind, Outcome,
    Overlap, Plane, Step, Transfer,
};
pub use run::falsify;
pub(crate) use steps::word;
pub use text::markdown;
