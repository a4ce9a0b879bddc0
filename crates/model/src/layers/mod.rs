//! Mathematics that architectures share: small structs and functions, no block to configure.

mod linear;
mod norm;
mod rope;

pub(crate) use linear::Linear;
pub(crate) use norm::RmsNorm;
pub(crate) use rope::Rope;
