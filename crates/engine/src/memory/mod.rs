//! Memory, planned before anything runs: how many rows fit beside the weights.

mod bytes;
mod cost;
mod machine;
mod plan;

pub use bytes::{format_bytes, parse_bytes};
pub(crate) use cost::{ALLOCATOR, Cost};
pub use machine::{available_memory, peak_memory};
pub use plan::MemoryPlan;
pub(crate) use plan::{Limit, Rows, Texts, plan_capture, plan_rows};
