//! What `temper falsify` takes.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `temper falsify`
#[derive(ClapArgs)]
pub(crate) struct Falsify {
    /// A file that says what is tested and what counts as passing, such as configs/falsify.toml
    pub(crate) file: PathBuf,
    /// The directory to write; runs/NAME by default
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// falsify.json on stdout instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}
