//! Hub ids: from `Qwen/Qwen3-0.6B` to a directory on this disk, downloading what is missing.
//!
//! [`fetch`] asks the hub once for the repo's commit and files, downloads those of the model's files that the cache
//! lacks, and returns the snapshot directory, which is in Hugging Face form (config.json, safetensors, tokenizer.json,
//! chat template). The cache is the one of Python's `huggingface_hub`, in the same layout, so the two share what either
//! has downloaded.
//!
//! Without a network, or with `HF_HUB_OFFLINE=1`, the cached snapshot of the revision serves if it is complete.
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HUB_CACHE` | the cache; else `$HF_HOME/hub` |
//! | `HF_HOME` | else `$XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface` |
//! | `HF_ENDPOINT` | the hub, or a mirror of it; else `https://huggingface.co` |
//! | `HF_TOKEN` | token for private and gated models; else the contents of `$HF_TOKEN_PATH` or `$HF_HOME/token` |
//! | `HF_HUB_OFFLINE` | `1`, `true`, `yes` or `on`: never touch the network |
//!
//! # What may be relied on
//!
//! A file enters `blobs/` and `snapshots/` only after its size was compared with what the hub announced, and its
//! SHA-256 where the hub gives one (weights and other LFS files). `refs/<revision>` moves to a new commit only when
//! every file of it is there, and weights come last: an update that was interrupted leaves the old snapshot usable
//! offline. Interrupted weights are resumed. A file that is there is not downloaded again, also when a new commit
//! shares it with an old one.
//!
//! # What hf-hub 0.5.0 does, and what is done about it here
//!
//! `ApiRepo::download` asks for metadata (`Range: bytes=0-0`), appends to `blobs/<etag>.part`, renames that to
//! `blobs/<etag>`, links it into `snapshots/<commit>/` and writes `refs/<revision>`. Read in its source, `api/sync.rs`,
//! and `lib.rs`:
//!
//! - It never compares sizes: a body without `Content-Length` that ends early is installed as a whole file, and so is a
//!   resume from a server that ignores `Range`. So it downloads into a staging folder inside the repo's own, and files
//!   move on when verified.
//! - It writes `refs/<revision>`, in place, after the first file. In the staging folder nobody reads it.
//! - It follows a branch per file, so a push in between mixes two commits. Here the commit of the listing is asked for
//!   by its hash.
//! - It downloads again a blob that exists, and again when another process just did. Here blobs are looked up by hash,
//!   under a lock.
//! - A complete `.part` makes it ask for `bytes=<size>-`, answered with 416 for ever; a longer one is `InvalidResume`
//!   for ever.
//! - A link left by an earlier attempt fails it with `File exists` where it leads to another blob that is gone.
//! - A retry whose first attempt wrote nothing asks from position 0 and appends to the `.part`. Retries are off; a
//!   second run resumes.
//! - It does not escape file names in addresses, and its progress bar may cut a long name inside a character. It gets
//!   escaped names.
//! - An empty file has no `bytes=0-0`, so its metadata fail. An empty file is made here.
//! - Its cache is that of `$HF_HOME` alone. It is always told the cache, the endpoint and the token.
//! - Its `RepoInfo` has no sizes, so the listing is parsed here (`?blobs=true`).
//! - Left as they are: a transfer that stalls has no time limit, and the token travels to the host that LFS files
//!   redirect to.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

const HUB: &str = "https://huggingface.co";
const MAIN: &str = "main";

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
const OPTIONAL: [&str; 5] = [
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];
/// File name extensions that tell what a repo without usable weights has instead.
const WEIGHT_EXTENSIONS: [&str; 6] = ["gguf", "bin", "safetensors", "pth", "pt", "onnx"];

/// Long enough for a slow line, short enough to fall back to the cache while the user still watches.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LISTING_TIMEOUT: Duration = Duration::from_mins(1);
const LISTING_LIMIT: u64 = 64 << 20;

/// Where a hub model lies on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshot directory, in Hugging Face form.
    pub dir: PathBuf,
    /// The commit hash of the snapshot.
    pub commit: String,
    /// The model's files, inside `dir`: config, tokenizer and templates first, weights last.
    pub files: Vec<PathBuf>,
    /// What the user should know: that the cache is used because the hub could not be reached.
    pub note: Option<String>,
}

/// Which revision of a model, and how to fetch it.
#[derive(Clone, Copy, Debug, Default)]
pub struct HubOptions<'a> {
    /// A branch, tag or commit hash; `main` if absent.
    pub revision: Option<&'a str>,
    /// Draw progress bars to stderr, if that is a terminal.
    pub progress: bool,
}

/// What the environment says about the hub. The module documentation lists the variables.
#[derive(Clone)]
pub struct HubEnv {
    /// The cache: the directory with the `models--owner--name` folders.
    pub cache: PathBuf,
    /// The hub's address if it is not `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// Access token for private and gated models.
    pub token: Option<String>,
    /// Never touch the network.
    pub offline: bool,
}

impl HubEnv {
    /// Reads the process environment.
    ///
    /// # Errors
    /// [`HubError::NoHome`] if no variable and no home directory says where the cache is.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_vars(|name| std::env::var_os(name))
    }

    /// Reads the environment through `var`, which gives the value of a variable. An empty value counts as none.
    ///
    /// # Errors
    /// As [`HubEnv::from_env`].
    pub fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let text = |name: &str| var(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| var(name).map(PathBuf::from);

        let home = || {
            let hugging_face = path("HF_HOME").or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")));
            hugging_face.or_else(|| Some(path("HOME").or_else(std::env::home_dir)?.join(".cache/huggingface")))
        };
        let cache = path("HF_HUB_CACHE").or_else(|| Some(home()?.join("hub"))).ok_or(HubError::NoHome)?;
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")));
        let clean = |token: String| Some(token.trim().to_owned()).filter(|token| !token.is_empty());
        Ok(Self {
            // hf-hub links relative to the cache, so the working directory must not matter.
            cache: std::path::absolute(&cache).map_err(io_error(&cache))?,
            endpoint: text("HF_ENDPOINT"),
            token: text("HF_TOKEN").and_then(clean).or_else(|| fs::read_to_string(token_file?).ok().and_then(clean)),
            offline: text("HF_HUB_OFFLINE")
                .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())),
        })
    }

    fn endpoint(&self) -> &str {
        self.endpoint.as_deref().unwrap_or(HUB).trim_end_matches('/')
    }
}

/// Shows whether there is a token, never the token.
impl fmt::Debug for HubEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubEnv")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("offline", &self.offline)
            .finish()
    }
}

/// Why only the cache could be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Offline {
    /// The user asked for it.
    #[error("HF_HUB_OFFLINE is set")]
    Asked,
    /// The hub did not answer, or not as a hub does.
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
    #[error("`{id}` has no model.safetensors and no index of shards{}", listed(has))]
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
    /// A transfer broke off. What arrived of the weights is kept aside for the next attempt.
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
            Self::NoWeights { id, has } => match has.iter().find(|file| extension(file) == "gguf") {
                Some(gguf) => format!("download a gguf file ({HUB}/{id}/resolve/main/{gguf}) and pass its path"),
                None if has.is_empty() => "is it a model? adapters and data sets cannot be run".into(),
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

/// Resolves a hub id to a snapshot on this disk, downloading what is missing; the environment says where and how.
///
/// # Errors
/// [`HubError`]: the id, the hub's answer, the repo's contents, the transfer or the disk.
pub fn fetch(id: &str, options: &HubOptions) -> Result<Snapshot, HubError> {
    fetch_with(id, options, &HubEnv::from_env()?)
}

/// As [`fetch`], with an explicit environment.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_with(id: &str, options: &HubOptions, env: &HubEnv) -> Result<Snapshot, HubError> {
    let target = Target::new(id, options, env)?;
    if env.offline {
        return target.cached(Offline::Asked);
    }
    let api = target.api()?;
    match target.list(&api)? {
        Answer::Listing(listing) => Fetcher::new(&target, &listing, api).run(),
        Answer::Unreachable(offline) => target.cached(offline),
    }
}

/// What is asked for, and where it belongs.
struct Target<'a> {
    id: &'a str,
    revision: &'a str,
    progress: bool,
    env: &'a HubEnv,
    /// `models--owner--name` in the cache.
    dir: PathBuf,
}

enum Answer {
    Listing(Listing),
    /// No hub, or none that works today.
    Unreachable(Offline),
}

impl<'a> Target<'a> {
    fn new(id: &'a str, options: &HubOptions<'a>, env: &'a HubEnv) -> Result<Self, HubError> {
        let revision = options.revision.unwrap_or(MAIN);
        if !is_id(id) {
            return Err(HubError::BadId { id: id.to_owned() });
        }
        if !is_inside(revision) {
            return Err(HubError::BadRevision { revision: revision.to_owned() });
        }
        let dir = env.cache.join(model_repo(id, revision).folder_name());
        Ok(Self { id, revision, progress: options.progress, env, dir })
    }

    /// hf-hub with everything said: nothing is left to its own reading of the environment.
    fn api(&self) -> Result<Api, HubError> {
        ApiBuilder::from_cache(Cache::new(self.staging()))
            .with_endpoint(self.env.endpoint().to_owned())
            .with_token(self.env.token.clone())
            .with_progress(self.progress)
            .with_user_agent("headtemper", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| HubError::Client(error.into()))
    }

    /// hf-hub's own cache, on the same file system as the real one and invisible to its readers.
    fn staging(&self) -> PathBuf {
        self.dir.join(".staging")
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    fn reference(&self) -> PathBuf {
        self.dir.join("refs").join(self.revision)
    }

    /// Asks the hub for the commit of the revision and its files.
    fn list(&self, api: &Api) -> Result<Answer, HubError> {
        let unreachable = |reason: String| {
            let reason = format!("{}: {reason}", self.env.endpoint());
            Ok(Answer::Unreachable(Offline::Unreachable { reason }))
        };
        let request = api.repo(model_repo(self.id, self.revision)).info_request().query("blobs", "true");
        let answer = request
            .config()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(LISTING_TIMEOUT))
            .build()
            .call();
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => return unreachable(error.to_string()),
        };
        let missing = response.headers().get("x-error-code").is_some_and(|code| code.as_bytes().ends_with(b"NotFound"));
        match response.status().as_u16() {
            200 => match response.body_mut().with_config().limit(LISTING_LIMIT).read_json::<RepoJson>() {
                Ok(json) if is_name(&json.sha) => Ok(Answer::Listing(json.into())),
                Ok(json) => unreachable(format!("it names the commit `{}`", json.sha)),
                // A portal's log-in page, for example.
                Err(error) => unreachable(format!("it sent no listing: {error}")),
            },
            status @ (401 | 403) if !missing => Err(self.denied(status)),
            401 | 403 | 404 => Err(HubError::NotFound { id: self.id.to_owned(), revision: self.revision.to_owned() }),
            status if status == 429 || status >= 500 => unreachable(format!("http status {status}")),
            status => Err(HubError::Refused { id: self.id.to_owned(), revision: self.revision.to_owned(), status }),
        }
    }

    fn denied(&self, status: u16) -> HubError {
        HubError::Denied { id: self.id.to_owned(), status, token: self.env.token.is_some() }
    }

    /// The snapshot in the cache, if it is complete.
    fn cached(&self, offline: Offline) -> Result<Snapshot, HubError> {
        let commit = match fs::read_to_string(self.reference()) {
            Ok(commit) => Some(commit.trim().to_owned()).filter(|commit| is_name(commit)),
            Err(_) => Some(self.revision.to_owned()).filter(|commit| is_name(commit)),
        };
        let Some(commit) = commit.filter(|commit| self.snapshot(commit).is_dir()) else {
            let (id, revision, cache) = (self.id.to_owned(), self.revision.to_owned(), self.env.cache.clone());
            return Err(HubError::NotCached { id, revision, cache, offline });
        };
        let dir = self.snapshot(&commit);
        let has = |name: &str| dir.join(name).is_file();

        let mut names: Vec<String> = std::iter::once(CONFIG)
            .chain(OPTIONAL.into_iter().filter(|name| has(name)))
            .chain([TOKENIZER])
            .map(str::to_owned)
            .collect();
        if has(WEIGHTS_INDEX) {
            names.push(WEIGHTS_INDEX.to_owned());
            names.extend(shards(&dir.join(WEIGHTS_INDEX))?);
        } else {
            names.push(WEIGHTS.to_owned());
        }
        if let Some(file) = names.iter().find(|name| !has(name)) {
            return Err(HubError::NotComplete { id: self.id.to_owned(), commit, file: file.clone(), offline });
        }
        let files = names.iter().map(|name| dir.join(name)).collect();
        let note = match offline {
            Offline::Asked => None,
            Offline::Unreachable { .. } => {
                Some(format!("{offline}; using commit {commit} of `{}` from the cache", self.id))
            }
        };
        Ok(Snapshot { dir, commit, files, note })
    }

    /// Records which commit the revision is. Only offline runs need it: a cache that cannot be written is no failure.
    fn record(&self, commit: &str) {
        let path = self.reference();
        if self.revision == commit || fs::read_to_string(&path).is_ok_and(|known| known.trim() == commit) {
            return;
        }
        let write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&self.dir))?;
            let aside = self.dir.join(format!(".ref-{}", std::process::id()));
            fs::write(&aside, commit)?;
            fs::rename(&aside, &path)
        };
        write().ok();
    }
}

/// The hub's answer to `/api/models/<id>/revision/<revision>?blobs=true`, as far as it is used.
#[derive(Deserialize)]
struct RepoJson {
    sha: String,
    siblings: Vec<FileJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileJson {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<LfsJson>,
}

#[derive(Deserialize)]
struct LfsJson {
    sha256: String,
    size: u64,
}

/// One commit of a repo: its files, each with what the hub tells of it.
struct Listing {
    commit: String,
    files: BTreeMap<String, Option<Remote>>,
}

/// A file on the hub.
#[derive(Clone)]
struct Remote {
    /// Its name in `blobs/`: SHA-256 for LFS files, git's hash for the others.
    blob: String,
    size: u64,
    sha256: Option<String>,
}

impl From<RepoJson> for Listing {
    fn from(json: RepoJson) -> Self {
        let files = json.siblings.into_iter().map(|file| {
            let remote = match (file.lfs, file.blob_id, file.size) {
                (Some(lfs), ..) => Some(Remote { blob: lfs.sha256.clone(), size: lfs.size, sha256: Some(lfs.sha256) }),
                (None, Some(blob), Some(size)) => Some(Remote { blob, size, sha256: None }),
                _ => None,
            };
            (file.rfilename, remote.filter(|remote| is_name(&remote.blob)))
        });
        Self { commit: json.sha, files: files.collect() }
    }
}

/// Brings one commit into the cache.
struct Fetcher<'a> {
    target: &'a Target<'a>,
    listing: &'a Listing,
    api: Api,
    /// The repo pinned to the listing's commit.
    repo: ApiRepo,
    /// Held from the first file that is missing: one process downloads, the others wait and find it.
    lock: Option<File>,
}

impl<'a> Fetcher<'a> {
    fn new(target: &'a Target<'a>, listing: &'a Listing, api: Api) -> Self {
        let repo = api.repo(model_repo(target.id, &listing.commit));
        Self { target, listing, api, repo, lock: None }
    }

    fn run(mut self) -> Result<Snapshot, HubError> {
        let index = self.listing.files.contains_key(WEIGHTS_INDEX);
        self.check(index)?;

        let optional = OPTIONAL.into_iter().filter(|name| self.listing.files.contains_key(*name));
        let small: Vec<_> = [CONFIG].into_iter().chain(optional).chain([TOKENIZER]).collect();
        let mut files = Vec::new();
        for name in small {
            files.push(self.ensure(name)?);
        }
        if index {
            let path = self.ensure(WEIGHTS_INDEX)?;
            let shards = shards(&path)?;
            files.push(path);
            // All of them are looked up before the first is downloaded.
            shards.iter().try_for_each(|shard| self.listed(shard).map(|_| ()))?;
            for shard in &shards {
                files.push(self.ensure(shard)?);
            }
        } else {
            files.push(self.ensure(WEIGHTS)?);
        }

        self.target.record(&self.listing.commit);
        if self.lock.is_some() {
            let staging = self.target.staging();
            remove(&staging, fs::remove_dir_all)?;
        }
        let commit = self.listing.commit.clone();
        Ok(Snapshot { dir: self.target.snapshot(&commit), commit, files, note: None })
    }

    /// Refuses a repo that is no model for us before anything is downloaded. Weights first: that error says most.
    fn check(&self, index: bool) -> Result<(), HubError> {
        if !index && !self.listing.files.contains_key(WEIGHTS) {
            let is_weight = |name: &&String| WEIGHT_EXTENSIONS.contains(&extension(name));
            let has = self.listing.files.keys().filter(is_weight).cloned().collect();
            return Err(HubError::NoWeights { id: self.target.id.to_owned(), has });
        }
        [CONFIG, TOKENIZER].iter().try_for_each(|name| self.listed(name).map(|_| ()))
    }

    fn listed(&self, name: &str) -> Result<Option<&Remote>, HubError> {
        self.listing.files.get(name).map(Option::as_ref).ok_or_else(|| self.not_in_repo(name))
    }

    fn not_in_repo(&self, name: &str) -> HubError {
        let (id, commit) = (self.target.id.to_owned(), self.listing.commit.clone());
        HubError::NotInRepo { id, commit, file: name.to_owned() }
    }

    /// The path of the file in the snapshot, which it is in afterwards.
    fn ensure(&mut self, name: &str) -> Result<PathBuf, HubError> {
        let remote = self.listed(name)?.cloned();
        let size = remote.as_ref().map(|remote| remote.size);
        let path = self.target.snapshot(&self.listing.commit).join(name);
        if is_whole(&path, size) {
            return Ok(path);
        }
        if self.lock.is_none() {
            self.lock = Some(self.lock()?);
            if is_whole(&path, size) {
                return Ok(path);
            }
        }
        let remote = remote.map_or_else(|| self.ask(name), Ok)?;
        let blob = self.target.dir.join("blobs").join(&remote.blob);
        if !is_whole(&blob, Some(remote.size)) {
            let staged = self.download(name, &remote)?;
            make_parent(&blob)?;
            fs::rename(&staged, &blob).map_err(io_error(&blob))?;
        }
        link(&blob, &path, name)?;
        Ok(path)
    }

    /// Where `huggingface_hub` has its locks too. The file stays: removed, it would let two processes hold one each.
    fn lock(&self) -> Result<File, HubError> {
        let folder = model_repo(self.target.id, MAIN).folder_name();
        let path = self.target.env.cache.join(".locks").join(folder).join("headtemper.lock");
        make_parent(&path)?;
        let file = File::create(&path).map_err(io_error(&path))?;
        file.lock().map_err(io_error(&path))?;
        Ok(file)
    }

    /// Asks for the size and hash of one file, which some mirrors leave out of the listing.
    fn ask(&self, name: &str) -> Result<Remote, HubError> {
        let metadata = self.api.metadata(&self.repo.url(&escape(name))).map_err(|error| self.failed(name, error))?;
        // A weak etag is `W/"hash"`, of which hf-hub has removed the quotes.
        let blob = metadata.etag().trim_start_matches("W/").to_owned();
        if is_name(&blob) {
            let sha256 = is_sha256(&blob).then(|| blob.clone());
            Ok(Remote { blob, size: metadata.size() as u64, sha256 })
        } else {
            Err(self.failed(name, ApiError::InvalidHeader("etag")))
        }
    }

    /// Downloads into the staging folder and verifies; gives the path there.
    fn download(&self, name: &str, remote: &Remote) -> Result<PathBuf, HubError> {
        let repo_folder = self.target.staging().join(model_repo(self.target.id, MAIN).folder_name());
        let staged = repo_folder.join("blobs").join(&remote.blob);
        make_parent(&staged)?;
        // A link of an earlier attempt may lead elsewhere, which hf-hub fails on.
        remove(&repo_folder.join("snapshots"), fs::remove_dir_all)?;
        sweep(&repo_folder.join("blobs")).map_err(io_error(&repo_folder))?;

        let staged = if remote.size == 0 {
            File::create(&staged).map_err(io_error(&staged))?;
            staged
        } else if resume(&staged, remote)? {
            staged
        } else {
            let pointer = self.repo.download(&escape(name)).map_err(|error| self.failed(name, error))?;
            fs::canonicalize(&pointer).map_err(io_error(&pointer))?
        };
        self.verify(&staged, name, remote)?;
        Ok(staged)
    }

    fn verify(&self, path: &Path, name: &str, remote: &Remote) -> Result<(), HubError> {
        let size = fs::metadata(path).map_err(io_error(path))?.len();
        let (expected, got) = match &remote.sha256 {
            _ if size != remote.size => (format!("{} bytes", remote.size), format!("{size} bytes")),
            Some(sha256) => (format!("sha256 {sha256}"), format!("sha256 {}", hash(path).map_err(io_error(path))?)),
            None => return Ok(()),
        };
        if expected.eq_ignore_ascii_case(&got) {
            return Ok(());
        }
        remove(path, fs::remove_file)?;
        Err(HubError::Damaged { id: self.target.id.to_owned(), file: name.to_owned(), expected, got })
    }

    fn failed(&self, name: &str, error: ApiError) -> HubError {
        match status(&error) {
            Some(status @ (401 | 403)) => self.target.denied(status),
            Some(404) => self.not_in_repo(name),
            _ => HubError::Download { id: self.target.id.to_owned(), file: name.to_owned(), source: error.into() },
        }
    }
}

/// Removes what earlier attempts left, except files named by their SHA-256: only what can be verified is resumed.
fn sweep(blobs: &Path) -> io::Result<()> {
    for entry in fs::read_dir(blobs)? {
        let path = entry?.path();
        if !path.file_stem().is_some_and(|stem| is_sha256(&stem.to_string_lossy())) {
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
    }
    Ok(())
}

/// Prepares what an earlier attempt left of this file for hf-hub to go on with; true if nothing is left to download.
fn resume(staged: &Path, remote: &Remote) -> Result<bool, HubError> {
    let part = staged.with_extension("part");
    if staged.exists() {
        fs::rename(staged, &part).map_err(io_error(staged))?;
    }
    let have = fs::metadata(&part).map_or(0, |metadata| metadata.len());
    if remote.sha256.is_none() || have > remote.size {
        remove(&part, fs::remove_file)?;
        return Ok(false);
    }
    let complete = have == remote.size;
    if complete {
        fs::rename(&part, staged).map_err(io_error(&part))?;
    }
    Ok(complete)
}

/// The HTTP status behind an error of hf-hub. Its ureq is no dependency of ours, so the text is read; a test holds it.
fn status(error: &ApiError) -> Option<u16> {
    let ApiError::RequestError(error) = error else { return None };
    error.to_string().strip_prefix("http status: ")?.parse().ok()
}

fn model_repo(id: &str, revision: &str) -> Repo {
    Repo::with_revision(id.to_owned(), RepoType::Model, escape(revision))
}

/// The shards that an index names, sorted.
fn shards(path: &Path) -> Result<BTreeSet<String>, HubError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bad = |reason: String| HubError::BadIndex { path: path.to_owned(), reason };
    let text = fs::read(path).map_err(io_error(path))?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    if shards.is_empty() {
        return Err(bad("it names no shard".to_owned()));
    }
    match shards.iter().find(|shard| !is_inside(shard)) {
        Some(shard) => Err(bad(format!("the shard `{shard}` is not a path inside the repo"))),
        None => Ok(shards),
    }
}

/// The rule of `huggingface_hub`'s `validate_repo_id`, with the owner required.
fn is_id(id: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
    };
    let parts = id.split_once('/');
    parts.is_some_and(|(owner, name)| is_part(owner) && is_part(name)) && !id.contains("--") && !id.contains("..")
}

/// Whether a path stays inside the directory that it is joined to.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a hash can be a file's name.
fn is_name(hash: &str) -> bool {
    !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn is_sha256(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_whole(path: &Path, size: Option<u64>) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && size.is_none_or(|size| file.len() == size))
}

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// `; it has a, b, c and 4 more`
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => String::new(),
        count if count > SHOWN => format!("; it has {shown} and {} more", count - SHOWN),
        _ => format!("; it has {shown}"),
    }
}

/// Percent-encodes what may not stand in an address, and keeps `/`.
fn escape(path: &str) -> String {
    path.bytes().fold(String::with_capacity(path.len()), |text, byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
            text + char::from(byte).encode_utf8(&mut [0])
        }
        _ => text + &format!("%{byte:02X}"),
    })
}

/// SHA-256 in hexadecimal.
fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Makes `path`, which is `name` in a snapshot, stand for the blob, replacing what was there.
fn link(blob: &Path, path: &Path, name: &str) -> Result<(), HubError> {
    make_parent(path)?;
    remove(path, fs::remove_file)?;
    #[cfg(unix)]
    {
        let blobs = "../".repeat(1 + Path::new(name).components().count()) + "blobs";
        let relative = Path::new(&blobs).join(blob.file_name().unwrap_or_default());
        if std::os::unix::fs::symlink(relative, path).is_ok() {
            return Ok(());
        }
    }
    // Where links are not to be had (Windows, some network disks) the file itself moves, as with huggingface_hub.
    fs::rename(blob, path).map_err(io_error(path))
}

fn make_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(io_error(parent))
}

/// Removes what may not be there.
fn remove<'a>(path: &'a Path, how: impl FnOnce(&'a Path) -> io::Result<()>) -> Result<(), HubError> {
    match how(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_owned();
    |source| HubError::Io { path, source }
}
