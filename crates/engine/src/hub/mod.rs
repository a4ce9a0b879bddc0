//! Hub ids: from `Qwen/Qwen3-0.6B` to a directory on this disk, downloading what is missing.
//!
//! [`fetch`] asks the hub once for the repo's commit and files, downloads those of the model's files that the cache
//! lacks, and returns the snapshot directory, which is in Hugging Face form (config.json, safetensors, tokenizer.json,
//! chat template). The cache is that of Python's `huggingface_hub`, in the same layout, so each can use what the other
//! has downloaded.
//!
//! Without a network, or with `HF_HUB_OFFLINE=1`, the cached snapshot of the revision is used if it is complete.
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HUB_CACHE` | the cache; else `$HF_HOME/hub` |
//! | `HF_HOME` | else `$XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface` |
//! | `HF_ENDPOINT` | the hub, or a mirror of it; else `https://huggingface.co` |
//! | `HF_TOKEN` | token for private and gated models; else the contents of `$HF_TOKEN_PATH` or `$HF_HOME/token` |
//! | `HF_HUB_OFFLINE` | `1`, `true`, `yes` or `on`: never touch the network |
//!
//! # Guarantees
//!
//! A file enters `blobs/` and `snapshots/` only after its size was compared with what the hub announced, and its
//! SHA-256 too if the hub gives one (weights and other LFS files). `refs/<revision>` moves to a new commit only when
//! every file of it is there, and weights come last: an interrupted update leaves the old snapshot usable offline.
//! Interrupted weights are resumed. A file that is there is not downloaded again, even if it came with an older
//! commit. `download.rs` explains what this takes on top of hf-hub.
//!
//! Two things are left as hf-hub does them: a transfer that stalls has no time limit, and the token is sent to the host
//! that LFS files redirect to.

mod cache;
mod disk;
mod download;
mod env;
mod error;
mod files;
mod folder;
mod listing;
mod names;
mod target;

use std::path::PathBuf;

pub use env::HubEnv;
pub use error::{HubError, Offline};

use cache::cached;
use download::download;
use folder::Folder;
use listing::Answer;
use names::is_id;
use target::Target;

/// Where a hub model lies on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshot directory, in Hugging Face form.
    pub dir: PathBuf,
    /// The commit hash of the snapshot.
    pub commit: String,
    /// The model's files, inside `dir`: config, tokenizer and templates first, weights last.
    pub files: Vec<PathBuf>,
    /// What the user should know: that the cache was used because the hub could not be reached, or may lack a file that changes answers.
    pub note: Option<String>,
}

/// Which revision of a model, and how to fetch it.
#[derive(Clone, Copy, Debug, Default)]
pub struct HubOptions<'a> {
    /// A branch, tag or commit hash; `main` if absent.
    pub revision: Option<&'a str>,
    /// Draw progress bars on stderr, if that is a terminal.
    pub progress: bool,
}

/// Resolves a hub id to a snapshot on this disk, downloading what is missing; the environment says where and how.
///
/// # Errors
/// [`HubError`]: the id, the hub's answer, the repo's contents, the transfer or the disk.
pub fn fetch(id: &str, options: &HubOptions) -> Result<Snapshot, HubError> {
    fetch_with(id, options, &HubEnv::from_env()?)
}

/// Whether the cache has something of a model of this id.
pub(crate) fn holds(id: &str) -> bool {
    is_id(id) && HubEnv::from_env().is_ok_and(|env| Folder::new(&env.cache, id).dir().is_dir())
}

/// As [`fetch`], with an explicit environment.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_with(id: &str, options: &HubOptions, env: &HubEnv) -> Result<Snapshot, HubError> {
    let target = Target::new(id, options.revision.unwrap_or("main"), env)?;
    if env.offline {
        return cached(&target, Offline::Asked);
    }
    let api = target.api(options.progress)?;
    match listing::ask(&target, &api)? {
        Answer::Listing(listing) => download(&target, &listing, api),
        Answer::Unreachable(offline) => cached(&target, offline),
    }
}
