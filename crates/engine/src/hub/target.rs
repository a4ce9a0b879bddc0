//! What is asked for: a checked id and revision, and which hub to ask.

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

use super::folder::Folder;
use super::names::{escape, is_id, is_inside};
use super::{HubEnv, HubError};

pub(super) struct Target<'a> {
    pub(super) id: &'a str,
    pub(super) revision: &'a str,
    pub(super) env: &'a HubEnv,
    /// The repo's folder in the cache.
    pub(super) folder: Folder,
}

impl<'a> Target<'a> {
    pub(super) fn new(id: &'a str, revision: &'a str, env: &'a HubEnv) -> Result<Self, HubError> {
        if !is_id(id) {
            return Err(HubError::BadId { id: id.to_owned() });
        }
        if !is_inside(revision) {
            return Err(HubError::BadRevision { revision: revision.to_owned() });
        }
        Ok(Self { id, revision, env, folder: Folder::new(&env.cache, id) })
    }

    /// hf-hub with every setting given, so that it takes none from the environment.
    pub(super) fn api(&self, progress: bool) -> Result<Api, HubError> {
        ApiBuilder::from_cache(Cache::new(self.folder.staging().cache))
            .with_endpoint(self.env.endpoint().to_owned())
            .with_token(self.env.token.clone())
            .with_progress(progress)
            .with_user_agent("headtemper", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| HubError::Client(error.into()))
    }

    /// The repo as hf-hub names it, at the revision or pinned to a commit.
    pub(super) fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.to_owned(), RepoType::Model, escape(revision))
    }

    pub(super) fn denied(&self, status: u16) -> HubError {
        HubError::Denied { id: self.id.to_owned(), status, token: self.env.token.is_some() }
    }
}
