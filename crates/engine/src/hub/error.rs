//! Why a hub id gave no model, and what the user can do about it.

use std::io;
use std::path::PathBuf;

use hf_hub::api::sync::ApiError;
use thiserror::Error;

use super::env::HUB;
use super::files::extension;
use crate::identity::TOKENIZER;

/// Why only the cache could be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Offline {
    /// The user asked for it.
    #[error("HF_HUB_OFFLINE is set")]
    Asked,
    /// The hub did not answer, or not in the way a hub does.
    #[error("the hub could not be reached ({reason})")]
    Unreachable {
        /// The hub's address and what went wrong there.
        reason: String,
    },
}

/// Why a hub id gave no model. [`HubError::hint`] says what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// The id is not `owner/name`.
    #[error("`{id}` is not a hub id: expected `owner/name`")]
    BadId {
        /// The id as given.
        id: String,
    },
    /// The revision cannot be the name of a branch, tag or commit.
    #[error("`{revision}` is not a revision: expected a branch, a tag or a commit hash")]
    BadRevision {
        /// The revision as given.
        revision: String,
    },
    /// Nothing says where the cache is.
    #[error("no place for the model cache: neither HF_HUB_CACHE nor a home directory is set")]
    NoHome,
    /// The hub has no such repo or revision.
    #[error("the hub has no model `{id}` with revision `{revision}`")]
    NotFound {
        /// The hub id.
        id: String,
        /// The revision asked for.
        revision: String,
    },
    /// The hub does not let us read the repo.
    #[error("the hub denies access to `{id}` (http status {status})")]
    Denied {
        /// The hub id.
        id: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        token: bool,
    },
    /// The hub answered, but with an error that is not the network's.
    #[error("the hub refused to list `{id}` at `{revision}` (http status {status})")]
    Refused {
        /// The hub id.
        id: String,
        /// The revision asked for.
        revision: String,
        /// The answer's status.
        status: u16,
    },
    /// The repo has no weights that can be read.
    #[error("`{id}` has no model.safetensors and no index of shards{}", instead(has))]
    NoWeights {
        /// The hub id.
        id: String,
        /// The weight files of other kinds that it has.
        has: Vec<String>,
    },
    /// The repo lacks a file that a model needs.
    #[error("`{id}` at commit {commit} has no {file}")]
    NotInRepo {
        /// The hub id.
        id: String,
        /// The commit.
        commit: String,
        /// The file's name.
        file: String,
    },
    /// The index of shards cannot be used.
    #[error("the index of shards `{}` is broken: {reason}", path.display())]
    BadIndex {
        /// The index on this disk.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The revision is not in the cache, and there is no network.
    #[error("`{id}` at `{revision}` is not in the cache `{}`, and {offline}", cache.display())]
    NotCached {
        /// The hub id.
        id: String,
        /// The revision asked for.
        revision: String,
        /// The cache that was searched.
        cache: PathBuf,
        /// Why it was not downloaded.
        offline: Offline,
    },
    /// The cached snapshot is not complete, and there is no network.
    #[error("the cached commit {commit} of `{id}` lacks {file}, and {offline}")]
    NotComplete {
        /// The hub id.
        id: String,
        /// The commit.
        commit: String,
        /// The missing file.
        file: String,
        /// Why it was not downloaded.
        offline: Offline,
    },
    /// A transfer broke off. The part of the weights that arrived is kept for the next attempt.
    #[error("the download of {file} of `{id}` failed")]
    Download {
        /// The hub id.
        id: String,
        /// The file's name.
        file: String,
        /// What hf-hub reports.
        #[source]
        source: Box<ApiError>,
    },
    /// A file arrived, but not as the hub announced it. It was thrown away.
    #[error("the download of {file} of `{id}` is damaged: expected {expected}, got {got}")]
    Damaged {
        /// The hub id.
        id: String,
        /// The file's name.
        file: String,
        /// Size or SHA-256 that the hub announced.
        expected: String,
        /// Size or SHA-256 of what came.
        got: String,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the connection to the hub")]
    Client(#[source] Box<ApiError>),
    /// The cache cannot be read or written.
    #[error("cannot read or write `{}`", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system reports.
        #[source]
        source: io::Error,
    },
}

impl HubError {
    /// What the user can do about it, in one sentence without a full stop.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::BadId { id } => match id.split_once("huggingface.co/") {
                Some((_, rest)) => format!("drop the address: `{}`", rest.trim_matches('/')),
                None => "for example `Qwen/Qwen3-0.6B`; for a local model give the path of its directory".into(),
            },
            Self::NoHome => "set HF_HOME to a directory with room for the models".into(),
            Self::NotFound { id, .. } => {
                format!("check the spelling at {HUB}/{id}; a private model needs HF_TOKEN, a local one its whole path")
            }
            Self::Denied { id, token: false, .. } => {
                format!("check the spelling; accept the licence at {HUB}/{id} and set HF_TOKEN to a token of yours")
            }
            Self::Denied { id, token: true, .. } => {
                let account = "with the account of your HF_TOKEN, which may also have expired";
                format!("accept the licence at {HUB}/{id} {account}; HF_HUB_OFFLINE=1 uses what is cached")
            }
            Self::NoWeights { has, .. } if has.is_empty() => {
                "is it a model? adapters and data sets cannot be run".into()
            }
            Self::NoWeights { id, has } => match has.iter().find(|file| extension(file) == "gguf") {
                Some(gguf) => format!("download a gguf file ({HUB}/{id}/resolve/main/{gguf}) and pass its path"),
                None => {
                    "look for the same model with safetensors, or convert it with transformers (save_pretrained)".into()
                }
            },
            Self::NotInRepo { file, .. } if file == TOKENIZER => {
                "convert the tokenizer with transformers (save_pretrained) and pass a local directory".into()
            }
            Self::NotCached { offline, .. } | Self::NotComplete { offline, .. } => match offline {
                Offline::Asked => "unset HF_HUB_OFFLINE once to download it".into(),
                Offline::Unreachable { .. } => "check the network, the proxy and HF_ENDPOINT, then run it again".into(),
            },
            Self::Download { .. } => "run it again: it goes on where it stopped".into(),
            Self::Damaged { .. } => "run it again: the file is downloaded anew".into(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room, or set HF_HUB_CACHE to another disk".into()
            }
            Self::BadRevision { .. }
            | Self::Refused { .. }
            | Self::NotInRepo { .. }
            | Self::BadIndex { .. }
            | Self::Client(_)
            | Self::Io { .. } => return None,
        })
    }
}

/// `; it has a, b, c and 4 more`
fn instead(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => String::new(),
        count if count > SHOWN => format!("; it has {shown} and {} more", count - SHOWN),
        _ => format!("; it has {shown}"),
    }
}
