//! Brings one commit into the cache: hf-hub downloads what is missing, and only verified files move into the cache.
//!
//! # What hf-hub 0.5.0 does, and how this module handles it
//!
//! `ApiRepo::download` asks for metadata (`Range: bytes=0-0`), appends to `blobs/<etag>.part`, renames that to
//! `blobs/<etag>`, links it into `snapshots/<commit>/` and writes `refs/<revision>`. Its source, `api/sync.rs` and
//! `lib.rs`, shows:
//!
//! - It never compares sizes: a body without `Content-Length` that ends early is installed as a whole file, and so is a
//!   resume from a server that ignores `Range`. So we let it download into a staging folder inside the repo's own, and
//!   move files on once they are verified.
//! - It writes `refs/<revision>`, in place, after the first file. In the staging folder nobody reads it.
//! - It resolves a branch anew for each file, so a push in between mixes two commits. We ask for the listing's commit by
//!   its hash.
//! - It downloads a blob that exists again, and again when another process has just done so. We look blobs up by hash,
//!   under a lock.
//! - A complete `.part` makes it ask for `bytes=<size>-`, which is answered with 416 for ever; a longer one is
//!   `InvalidResume` for ever. `resume` handles both.
//! - A link left by an earlier attempt makes it fail with `File exists` if it leads to another blob that is gone. We remove
//!   staged links.
//! - A retry whose first attempt wrote nothing asks from position 0 and appends to the `.part`. We turn retries off; a
//!   second run resumes.
//! - It does not escape file names in addresses, and its progress bar may cut a long name inside a character. We pass
//!   escaped names.
//! - An empty file has no `bytes=0-0`, so its metadata request fails. We create empty files ourselves.
//! - By itself it uses the cache of `$HF_HOME` only. We always pass the cache, the endpoint and the token.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiError, ApiRepo};

use super::disk::{io_error, is_whole, make_parent, remove, rename, sha256};
use super::files::{WEIGHTS, WEIGHTS_INDEX, is_weights, needed, sharded, shards};
use super::folder::link;
use super::listing::{Listing, Remote};
use super::names::{escape, is_name, is_sha256};
use super::target::Target;
use super::{HubError, Snapshot};
use crate::identity::GENERATION;

/// Downloads those files of the listed commit that the cache lacks.
pub(super) fn download(target: &Target, listing: &Listing, api: Api) -> Result<Snapshot, HubError> {
    let repo = api.repo(target.at(&listing.commit));
    Download { target, listing, api, repo, lock: None }.run()
}

struct Download<'a> {
    target: &'a Target<'a>,
    listing: &'a Listing,
    api: Api,
    /// The repo pinned to the listing's commit.
    repo: ApiRepo,
    /// Held from the first missing file on: one process downloads, the others wait and then find the file.
    lock: Option<File>,
}

impl<'a> Download<'a> {
    fn run(mut self) -> Result<Snapshot, HubError> {
        let (target, listing) = (self.target, self.listing);
        let has = |name: &str| listing.files.contains_key(name);
        if !has(WEIGHTS_INDEX) && !has(WEIGHTS) {
            // Checked before anything else that may be missing, because this error says most.
            let has = listing.files.keys().filter(|name| is_weights(name)).cloned().collect();
            return Err(HubError::NoWeights { id: target.id.to_owned(), has });
        }

        let dir = target.folder.snapshot(&listing.commit);
        let mut names = needed(has);
        self.ensure_all(&names)?;
        if sharded(&names) {
            let shards = shards(&dir.join(WEIGHTS_INDEX))?;
            self.ensure_all(&shards)?;
            names.extend(shards);
        }

        target.folder.record(target.revision, &listing.commit);
        if !has(GENERATION) {
            target.folder.record_absent(&listing.commit, GENERATION);
        }
        if self.lock.is_some() {
            remove(&target.folder.staging().cache, fs::remove_dir_all)?;
        }
        let files = names.iter().map(|name| dir.join(name)).collect();
        Ok(Snapshot { dir, commit: listing.commit.clone(), files, note: None })
    }

    /// Brings files into the snapshot. All are looked up before the first is downloaded.
    fn ensure_all(&mut self, names: &[String]) -> Result<(), HubError> {
        let remotes = names.iter().map(|name| self.listed(name)).collect::<Result<Vec<_>, _>>()?;
        names.iter().zip(remotes).try_for_each(|(name, remote)| self.ensure(name, remote))
    }

    fn listed(&self, name: &str) -> Result<Option<&'a Remote>, HubError> {
        self.listing.files.get(name).map(Option::as_ref).ok_or_else(|| self.not_in_repo(name))
    }

    fn ensure(&mut self, name: &str, remote: Option<&Remote>) -> Result<(), HubError> {
        let folder = &self.target.folder;
        let path = folder.snapshot(&self.listing.commit).join(name);
        if is_whole(&path, remote.map(|remote| remote.size)) {
            return Ok(());
        }
        if self.lock.is_none() {
            self.lock = Some(folder.lock()?);
            // The process that held the lock may have brought the file.
            return self.ensure(name, remote);
        }
        let remote = remote.cloned().map_or_else(|| self.ask(name), Ok)?;
        let blob = folder.blob(&remote.blob);
        if !is_whole(&blob, Some(remote.size)) {
            let staged = self.stage(name, &remote)?;
            self.verify(&staged, name, &remote)?;
            make_parent(&blob)?;
            rename(&staged, &blob)?;
        }
        link(&blob, &path, name)
    }

    /// Asks for the size and hash of one file, which some mirrors leave out of the listing.
    fn ask(&self, name: &str) -> Result<Remote, HubError> {
        let metadata = self.api.metadata(&self.repo.url(&escape(name))).map_err(|error| self.failed(name, error))?;
        // A weak etag is `W/"hash"`; hf-hub has removed the quotes.
        let blob = metadata.etag().trim_start_matches("W/").to_owned();
        if !is_name(&blob) {
            return Err(self.failed(name, ApiError::InvalidHeader("etag")));
        }
        let sha256 = is_sha256(&blob).then(|| blob.clone());
        Ok(Remote { blob, size: metadata.size() as u64, sha256 })
    }

    /// Downloads into the staging folder; returns the path there.
    fn stage(&self, name: &str, remote: &Remote) -> Result<PathBuf, HubError> {
        let staging = self.target.folder.staging();
        let staged = staging.blob(&remote.blob);
        make_parent(&staged)?;
        remove(&staging.dir().join("snapshots"), fs::remove_dir_all)?;
        sweep(&staging.dir().join("blobs")).map_err(io_error(&staging.dir()))?;

        if remote.size == 0 {
            File::create(&staged).map_err(io_error(&staged))?;
        } else if !resume(&staged, remote)? {
            let pointer = self.repo.download(&escape(name)).map_err(|error| self.failed(name, error))?;
            // This is not `staged` if the file's etag differs from the hash in the listing.
            return fs::canonicalize(&pointer).map_err(io_error(&pointer));
        }
        Ok(staged)
    }

    /// Compares a staged file with what the hub announced, and throws it away if they differ.
    fn verify(&self, staged: &Path, name: &str, remote: &Remote) -> Result<(), HubError> {
        let size = fs::metadata(staged).map_err(io_error(staged))?.len();
        let (expected, got) = match &remote.sha256 {
            _ if size != remote.size => (format!("{} bytes", remote.size), format!("{size} bytes")),
            Some(announced) => (format!("sha256 {announced}"), format!("sha256 {}", sha256(staged)?)),
            None => return Ok(()),
        };
        if expected.eq_ignore_ascii_case(&got) {
            return Ok(());
        }
        remove(staged, fs::remove_file)?;
        Err(HubError::Damaged { id: self.target.id.to_owned(), file: name.to_owned(), expected, got })
    }

    fn failed(&self, name: &str, error: ApiError) -> HubError {
        match status(&error) {
            Some(status @ (401 | 403)) => self.target.denied(status),
            Some(404) => self.not_in_repo(name),
            _ => HubError::Download { id: self.target.id.to_owned(), file: name.to_owned(), source: error.into() },
        }
    }

    fn not_in_repo(&self, name: &str) -> HubError {
        let (id, commit) = (self.target.id.to_owned(), self.listing.commit.clone());
        HubError::NotInRepo { id, commit, file: name.to_owned() }
    }
}

/// Removes what earlier attempts left, except files named by their SHA-256: only files that can be verified are resumed.
fn sweep(blobs: &Path) -> io::Result<()> {
    for entry in fs::read_dir(blobs)? {
        let path = entry?.path();
        if !path.file_stem().is_some_and(|stem| is_sha256(&stem.to_string_lossy())) {
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
    }
    Ok(())
}

/// Prepares what an earlier attempt left of this file, so that hf-hub resumes it; true if nothing is left to download.
fn resume(staged: &Path, remote: &Remote) -> Result<bool, HubError> {
    let part = staged.with_extension("part");
    if staged.exists() {
        rename(staged, &part)?;
    }
    let have = fs::metadata(&part).map_or(0, |metadata| metadata.len());
    if remote.sha256.is_none() || have > remote.size {
        remove(&part, fs::remove_file)?;
        return Ok(false);
    }
    let complete = have == remote.size;
    if complete {
        rename(&part, staged)?;
    }
    Ok(complete)
}

/// The HTTP status behind an error of hf-hub. Its ureq is not a dependency of ours, so we parse the message; a test guards it.
fn status(error: &ApiError) -> Option<u16> {
    let ApiError::RequestError(error) = error else { return None };
    error.to_string().strip_prefix("http status: ")?.parse().ok()
}
