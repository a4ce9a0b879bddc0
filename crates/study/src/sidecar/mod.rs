//! The sidecar: a frozen probe reads a finished answer and, where it falls below its threshold, puts a hedge in front.
//!
//! Arc 3 of arXiv 2604.11867 as a tool. The answer's content never changes, so nothing is gained that the probe does not
//! know: what changes is which answers still stand as assertions.

mod result;
mod run;
mod site;

pub use result::{GateResult, GatedRow, Standing, sidecar_markdown};
pub use run::{Sidecar, sidecar};
