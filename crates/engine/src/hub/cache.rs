//! A model that is in the cache already, for when there is no hub to ask.

use super::disk::is_whole;
use super::files::{WEIGHTS_INDEX, needed, sharded, shards};
use super::target::Target;
use super::{HubError, Offline, Snapshot};
use crate::{device::noted, identity::GENERATION};

/// The snapshot in the cache, if it is complete.
pub(super) fn cached(target: &Target, offline: Offline) -> Result<Snapshot, HubError> {
    let id = target.id.to_owned();
    let Some(commit) = target.folder.commit(target.revision) else {
        let (revision, cache) = (target.revision.to_owned(), target.env.cache.clone());
        return Err(HubError::NotCached { id, revision, cache, offline });
    };
    let dir = target.folder.snapshot(&commit);
    let has = |name: &str| is_whole(&dir.join(name), None);

    let mut names = needed(has);
    if sharded(&names) {
        names.extend(shards(&dir.join(WEIGHTS_INDEX))?);
    }
    if let Some(file) = names.iter().find(|name| !has(name)) {
        return Err(HubError::NotComplete { id, commit, file: file.clone(), offline });
    }
    let from_cache = match offline {
        Offline::Asked => None,
        Offline::Unreachable { .. } => Some(format!("{offline}; using commit {commit} of `{id}` from the cache")),
    };
    // Another program may have cached the repo without it.
    let unknown = !has(GENERATION) && !target.folder.absent(&commit, GENERATION).exists();
    let without = unknown.then(|| {
        format!("the cache has no {GENERATION} of `{id}`: if the hub has one, answers end without the stop tokens that it names")
    });
    let note = noted(from_cache, without);
    Ok(Snapshot { files: names.iter().map(|name| dir.join(name)).collect(), dir, commit, note })
}
