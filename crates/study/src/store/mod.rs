//! Where results lie: directories that belong to one run, rows by the names of what determines them, shards, whole files.

pub(crate) mod digest;
pub(crate) mod files;
pub(crate) mod manifest;
pub(crate) mod nan;
pub(crate) mod parts;
pub(crate) mod rows;
pub(crate) mod rundir;
mod shard;
pub(crate) mod shards;

pub use digest::noise_of;
pub use parts::Parts;
pub use rows::{Keyed, Row, RowLog};
pub use rundir::RunDir;
pub use shard::{Shard, Sharded};
pub use shards::{Joined, Plan, Shards, made_by};
