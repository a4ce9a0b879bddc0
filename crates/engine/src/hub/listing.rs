//! The one question to the hub: which commit is the revision, and what are its files?
//!
//! hf-hub's own answer, `RepoInfo`, has no sizes, so hf-hub makes the request and we parse the response.

use std::collections::BTreeMap;
use std::time::Duration;

use hf_hub::api::sync::Api;
use serde::Deserialize;

use super::names::is_name;
use super::target::Target;
use super::{HubError, Offline};

/// Long enough for a slow line, short enough to fall back to the cache while the user still watches.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LISTING_TIMEOUT: Duration = Duration::from_mins(1);
const LISTING_LIMIT: u64 = 64 << 20;

/// One commit of a repo.
pub(super) struct Listing {
    pub(super) commit: String,
    /// Each file with what the hub says about it, which on some mirrors is nothing.
    pub(super) files: BTreeMap<String, Option<Remote>>,
}

/// A file on the hub.
#[derive(Clone)]
pub(super) struct Remote {
    /// Its name in `blobs/`: SHA-256 for LFS files, git's hash for the others.
    pub(super) blob: String,
    pub(super) size: u64,
    pub(super) sha256: Option<String>,
}

pub(super) enum Answer {
    Listing(Listing),
    /// There is no hub, or it does not work at the moment.
    Unreachable(Offline),
}

/// Asks the hub for the commit of the revision and its files.
pub(super) fn ask(target: &Target, api: &Api) -> Result<Answer, HubError> {
    let unreachable = |reason: String| {
        let reason = format!("{}: {reason}", target.env.endpoint());
        Ok(Answer::Unreachable(Offline::Unreachable { reason }))
    };
    let request = api.repo(target.at(target.revision)).info_request().query("blobs", "true");
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
    let (id, revision) = (target.id.to_owned(), target.revision.to_owned());
    let missing = response.headers().get("x-error-code").is_some_and(|code| code.as_bytes().ends_with(b"NotFound"));
    match response.status().as_u16() {
        200 => match response.body_mut().with_config().limit(LISTING_LIMIT).read_json::<RepoJson>() {
            Ok(json) if is_name(&json.sha) => Ok(Answer::Listing(json.into())),
            Ok(json) => unreachable(format!("it names the commit `{}`", json.sha)),
            // For example a captive portal's log-in page.
            Err(error) => unreachable(format!("it sent no listing: {error}")),
        },
        // The hub answers like this for missing repos too; only the header tells that a repo or revision does not exist.
        status @ (401 | 403) if !missing => Err(target.denied(status)),
        401 | 403 | 404 => Err(HubError::NotFound { id, revision }),
        status if status == 429 || status >= 500 => unreachable(format!("http status {status}")),
        status => Err(HubError::Refused { id, revision, status }),
    }
}

/// The parts that we use of the hub's answer to `/api/models/<id>/revision/<revision>?blobs=true`.
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
