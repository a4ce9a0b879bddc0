//! Mathematics shared by architectures: small structs and functions, no configurable block.

mod heads;
mod linear;
mod mlp;
mod norm;
mod rope;
mod shell;
mod stream;

pub(crate) use heads::{HeadView, heads_of};
pub(crate) use linear::Linear;
pub(crate) use mlp::Mlp;
pub(crate) use norm::RmsNorm;
pub(crate) use rope::{Angles, Rope};
pub(crate) use shell::Outline;
pub use shell::Shell;
pub(crate) use stream::{End, Stream};
