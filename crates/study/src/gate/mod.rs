//! The gate: a frozen probe reads a finished answer and, if its probability is below the threshold, puts a hedge in front.
//!
//! The sidecar of arc 3 of arXiv 2604.11867, as a tool. The answer's content never changes, so the gate adds nothing that the probe does
//! not know: it only changes which answers still stand as assertions.

mod answers;
mod change;
mod frozen;
mod result;
mod run;
mod site;
mod text;
mod warnings;

pub use frozen::FrozenProbe;
pub use result::{
    AtRandom, Change, Changes, Contradicted, CutOff, Dealt, GateResult, GatedRow, Standing, ThresholdFrom,
};
pub use run::{GateRun, gate_remarks, gate_run};
pub use text::gate_markdown;
