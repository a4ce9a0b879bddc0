//! Hub ids against a mock hub: what is downloaded, what is kept, and what works offline.

mod faults;
mod mock;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use headtemper_engine::hub::{HubEnv, HubError, HubOptions, Offline, Snapshot, fetch_with};
use tempfile::TempDir;

use mock::{Files, Hub, ID, INDEX, OLD, Request, WEIGHTS, indexed, sha256, sharded, single, weights};

const NEW: &str = "2222222222222222222222222222222222222222";
/// The files that are fetched for the model in one file.
const SINGLE: [&str; 5] = ["config.json", "special_tokens_map.json", "chat_template.jinja", "tokenizer.json", WEIGHTS];

fn env(hub: &Hub, cache: &TempDir) -> HubEnv {
    let endpoint = Some(format!("http://{}/", hub.address));
    HubEnv { cache: cache.path().join("hub"), endpoint, token: None, offline: false }
}

fn offline(hub: &Hub, cache: &TempDir) -> HubEnv {
    HubEnv { offline: true, ..env(hub, cache) }
}

fn fetch(env: &HubEnv) -> Result<Snapshot, HubError> {
    fetch_with(ID, &HubOptions::default(), env)
}

fn fetch_at(revision: &str, env: &HubEnv) -> Result<Snapshot, HubError> {
    fetch_with(ID, &HubOptions { revision: Some(revision), progress: false }, env)
}

fn assert_holds(snapshot: &Snapshot, expected: &Files, names: &[&str]) {
    let paths: Vec<PathBuf> = names.iter().map(|name| snapshot.dir.join(name)).collect();
    assert_eq!(snapshot.files, paths);
    for name in names {
        assert!(fs::read(snapshot.dir.join(name)).unwrap() == expected[*name], "{name} differs");
    }
}

#[test]
fn a_model_in_one_file() {
    let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
    let snapshot = fetch(&env(&hub, &cache)).unwrap();
    assert_eq!(snapshot.dir, cache.path().join("hub/models--tiny--model/snapshots").join(OLD));
    assert_eq!(snapshot.commit, OLD);
    assert_eq!(snapshot.note, None);
    assert_holds(&snapshot, &single(), &SINGLE);
    assert!(!snapshot.dir.join("README.md").exists());

    // The layout is huggingface_hub's: blobs by hash, relative links, a ref; and none of our temporary files are left.
    let repo = cache.path().join("hub/models--tiny--model");
    let link = fs::read_link(snapshot.dir.join(WEIGHTS)).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(sha256(&weights(1))));
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), OLD);
    let mut left: Vec<_> = fs::read_dir(&repo).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".no_exist", "blobs", "refs", "snapshots"]);
}

#[test]
fn shards_come_from_the_index_whatever_their_names() {
    let (hub, cache) = (Hub::new(sharded()), TempDir::new().unwrap());
    let options = HubOptions { revision: None, progress: true };
    let snapshot = fetch_with(ID, &options, &env(&hub, &cache)).unwrap();
    let shards = ["50%25.safetensors", "part one #1.safetensors", "sub/zwei-é?.safetensors"];
    assert_holds(&snapshot, &sharded(), &[&["config.json", "tokenizer.json", INDEX], &shards[..]].concat());
    assert!(!snapshot.dir.join("consolidated.safetensors").exists());
}

/// As in transformers, a single file takes precedence: an index beside it, even one that another program left in the cache, is not read.
#[test]
fn an_index_beside_a_single_file_counts_for_nothing() {
    let (hub, cache) = (Hub::new(indexed()), TempDir::new().unwrap());
    let first = fetch(&env(&hub, &cache)).unwrap();
    assert_holds(&first, &single(), &SINGLE);
    fs::write(first.dir.join(INDEX), indexed().get(INDEX).unwrap()).unwrap();
    let offline = HubEnv { offline: true, ..env(&hub, &cache) };
    assert_holds(&fetch(&offline).unwrap(), &single(), &SINGLE);
}

#[test]
fn what_is_there_is_not_downloaded_again() {
    let (hub, cache) = (Hub::new(sharded()), TempDir::new().unwrap());
    let first = fetch(&env(&hub, &cache)).unwrap();
    assert_eq!(hub.bodies().len(), 6);
    assert_eq!(fetch(&env(&hub, &cache)).unwrap(), first);
    assert_eq!(hub.state().log.len(), 1, "one listing and nothing else");

    // A file of the wrong size counts as missing.
    hub.bodies();
    fs::write(fs::canonicalize(first.dir.join("50%25.safetensors")).unwrap(), b"short").unwrap();
    assert_holds(&fetch(&env(&hub, &cache)).unwrap(), &sharded(), &relative(&first));
    assert_eq!(hub.bodies(), ["50%2525.safetensors@0"]);
}

fn relative(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.files.iter().map(|path| path.strip_prefix(&snapshot.dir).unwrap().to_str().unwrap()).collect()
}

#[test]
fn two_at_once_download_once() {
    let (hub, cache) = (Hub::new(sharded()), TempDir::new().unwrap());
    let env = env(&hub, &cache);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| fetch(&env).unwrap())).collect();
        assert!(threads.into_iter().all(|thread| thread.join().is_ok()));
    });
    assert_eq!(hub.bodies().len(), 6);
}

#[test]
fn revisions_and_updates() {
    let (mut hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
    let mut newer = single();
    newer.insert("config.json".to_owned(), b"{\"new\":true}".to_vec());
    hub.state().commits.insert(NEW.to_owned(), newer.clone());
    hub.state().refs.insert("refs/pr/1".to_owned(), NEW.to_owned());

    assert_eq!(fetch(&env(&hub, &cache)).unwrap().commit, OLD);
    hub.bodies();
    let request = fetch_at("refs/pr/1", &env(&hub, &cache)).unwrap();
    assert_eq!(request.commit, NEW);
    assert_holds(&request, &newer, &SINGLE);
    assert_eq!(hub.bodies(), ["config.json@0"], "the other files are shared");
    assert_eq!(fetch_at(OLD, &env(&hub, &cache)).unwrap().commit, OLD);

    let error = fetch_at("nowhere", &env(&hub, &cache)).unwrap_err();
    assert!(matches!(&error, HubError::NotFound { revision, .. } if revision == "nowhere"), "{error}");

    // Offline, by name and by hash.
    hub.stop();
    let offline = offline(&hub, &cache);
    assert_eq!(fetch(&offline).unwrap().commit, OLD);
    assert_eq!(fetch_at("refs/pr/1", &offline).unwrap().commit, NEW);
    assert_eq!(fetch_at(NEW, &offline).unwrap().commit, NEW);
    let error = fetch_at("nowhere", &offline).unwrap_err();
    assert!(matches!(error, HubError::NotCached { offline: Offline::Asked, .. }), "{error}");
}

#[test]
fn the_token_is_sent() {
    let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
    hub.state().token = Some("hf_secret".to_owned());
    let error = fetch(&env(&hub, &cache)).unwrap_err();
    assert!(matches!(error, HubError::Denied { status: 401, token: false, .. }), "{error}");
    assert!(error.to_string().contains(ID) && error.hint().unwrap().contains("HF_TOKEN"));
    assert!(error.hint().unwrap().contains("licence"));

    let env = HubEnv { token: Some("hf_secret".to_owned()), ..env(&hub, &cache) };
    assert!(!format!("{env:?}").contains("secret"));
    hub.state().log.clear();
    assert_holds(&fetch(&env).unwrap(), &single(), &SINGLE);
    let hub_requests = |request: &&Request| !request.path.starts_with("/cdn/");
    assert!(hub.state().log.iter().filter(hub_requests).all(|request| request.authorization.is_some()));
    // hf-hub also sends the token with the metadata request to the file's host, but requests the file itself without it.
    let file = |request: &&Request| request.path.starts_with("/cdn/") && request.range.as_deref() == Some("bytes=0-");
    assert!(hub.state().log.iter().filter(file).all(|request| request.authorization.is_none()));
}

#[test]
fn offline_serves_what_was_fetched() {
    for model in [single(), sharded()] {
        let (mut hub, cache) = (Hub::new(model), TempDir::new().unwrap());
        let online = fetch(&env(&hub, &cache)).unwrap();
        hub.stop();
        assert_eq!(fetch(&offline(&hub, &cache)).unwrap(), online);
    }
}

/// Another program may have cached a repo without the file that names stop tokens. Where it is known that the repo has none, and where it is
/// there, nothing is said.
#[test]
fn a_cache_without_the_generation_config_is_told() {
    const GENERATION: &str = "generation_config.json";
    let mut with = single();
    with.insert(GENERATION.to_owned(), b"{}".to_vec());
    let (hub, cache) = (Hub::new(with), TempDir::new().unwrap());
    let online = fetch(&env(&hub, &cache)).unwrap();
    assert_eq!(fetch(&offline(&hub, &cache)).unwrap().note, None);
    fs::remove_file(online.dir.join(GENERATION)).unwrap();
    let note = fetch(&offline(&hub, &cache)).unwrap().note.unwrap();
    assert!(note.contains(&format!("the cache has no {GENERATION} of `{ID}`")), "{note}");

    let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
    let known = fetch(&env(&hub, &cache)).unwrap();
    assert_eq!(fetch(&offline(&hub, &cache)).unwrap().note, None);
    fs::remove_dir_all(cache.path().join("hub/models--tiny--model/.no_exist")).unwrap();
    assert!(fetch(&offline(&hub, &cache)).unwrap().note.is_some());
    fetch(&env(&hub, &cache)).unwrap();
    assert_eq!(fetch(&offline(&hub, &cache)).unwrap(), known, "it is known again");
}

#[test]
fn offline_names_the_file_that_is_missing() {
    let (hub, cache) = (Hub::new(sharded()), TempDir::new().unwrap());
    let error = fetch(&offline(&hub, &cache)).unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }), "{error}");

    let snapshot = fetch(&env(&hub, &cache)).unwrap();
    for name in ["sub/zwei-é?.safetensors", "tokenizer.json"] {
        // First with a dangling link, then without a link.
        fs::remove_file(fs::canonicalize(snapshot.dir.join(name)).unwrap()).unwrap();
        for _ in 0..2 {
            let error = fetch(&offline(&hub, &cache)).unwrap_err();
            assert!(matches!(&error, HubError::NotComplete { file, .. } if file == name), "{error}");
            assert!(error.to_string().contains("HF_HUB_OFFLINE") && error.hint().unwrap().contains("HF_HUB_OFFLINE"));
            fs::remove_file(snapshot.dir.join(name)).ok();
        }
        assert_eq!(fetch(&env(&hub, &cache)).unwrap(), snapshot);
    }
}

#[test]
fn without_a_hub_the_cache_serves_with_a_note() {
    let (mut hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
    let online = fetch(&env(&hub, &cache)).unwrap();

    let check = |reason: &str| {
        let snapshot = fetch(&env(&hub, &cache)).unwrap();
        assert_eq!((&snapshot.dir, &snapshot.commit, &snapshot.files), (&online.dir, &online.commit, &online.files));
        let note = snapshot.note.unwrap();
        assert!(note.contains("could not be reached") && note.contains(OLD) && note.contains(reason), "{note}");
    };
    hub.state().listing = Some((503, ""));
    check("503");
    // A portal's page.
    hub.state().listing = Some((200, ""));
    check("no listing");
    hub.state().listing = None;

    hub.stop();
    let snapshot = fetch(&env(&hub, &cache)).unwrap();
    assert_eq!(snapshot.files, online.files);
    let note = snapshot.note.unwrap();
    // Another test's server may have got the port; it closes the connection at once.
    assert!(note.contains("refused") || note.contains("reset"), "{note}");

    let empty = TempDir::new().unwrap();
    let error = fetch(&env(&hub, &empty)).unwrap_err();
    assert!(matches!(error, HubError::NotCached { offline: Offline::Unreachable { .. }, .. }), "{error}");
    assert!(error.hint().unwrap().contains("network"));
}

#[test]
fn ids_and_revisions_are_checked() {
    let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
    for id in [
        "gpt2",
        "",
        "/",
        "a/",
        "/b",
        "a/b/c",
        "../b",
        "a/..",
        "a/b c",
        "a--b/c",
        "a/.b",
        "./model",
        "https://huggingface.co/a/b",
    ] {
        let error = fetch_with(id, &HubOptions::default(), &env(&hub, &cache)).unwrap_err();
        assert!(matches!(error, HubError::BadId { .. }), "{id}: {error}");
        assert!(error.to_string().contains("owner/name") && error.hint().is_some());
    }
    let error = fetch_with("https://huggingface.co/a/b/", &HubOptions::default(), &env(&hub, &cache)).unwrap_err();
    assert_eq!(error.hint().unwrap(), "drop the address: `a/b`");
    for revision in ["", "..", "a/../b", "/main"] {
        let error = fetch_at(revision, &env(&hub, &cache)).unwrap_err();
        assert!(matches!(error, HubError::BadRevision { .. }), "{revision}: {error}");
    }
    assert!(hub.state().log.is_empty());
}

#[test]
fn the_environment() {
    let with = |list: &[(&str, &str)]| {
        let vars: HashMap<_, _> =
            list.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        HubEnv::from_vars(|name| vars.get(name).cloned()).unwrap()
    };
    let home = ("HOME", "/h");
    assert_eq!(with(&[home]).cache, Path::new("/h/.cache/huggingface/hub"));
    let xdg = ("XDG_CACHE_HOME", "/x");
    assert_eq!(with(&[home, xdg]).cache, Path::new("/x/huggingface/hub"));
    assert_eq!(with(&[home, xdg, ("HF_HOME", "/f")]).cache, Path::new("/f/hub"));
    assert_eq!(with(&[home, xdg, ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
    assert_eq!(with(&[home, ("HF_HOME", "~/f")]).cache, Path::new("/h/f/hub"), "as huggingface_hub expands it");
    assert_eq!(with(&[home, ("HF_HOME", "")]).cache, Path::new("/h/.cache/huggingface/hub"));
    assert!(with(&[("HF_HOME", "here")]).cache.is_absolute());

    let plain = with(&[home]);
    assert!(plain.endpoint.is_none() && plain.token.is_none() && !plain.offline);
    assert_eq!(with(&[home, ("HF_ENDPOINT", "http://m")]).endpoint.unwrap(), "http://m");
    for (value, offline) in
        [("1", true), ("TRUE", true), ("yes", true), ("On", true), ("0", false), ("", false), ("2", false)]
    {
        assert_eq!(with(&[home, ("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
    }

    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("token"), "from-home\n").unwrap();
    fs::write(dir.path().join("other"), " from-path ").unwrap();
    let other = dir.path().join("other");
    let (hf_home, token_path) = (("HF_HOME", dir.path().to_str().unwrap()), ("HF_TOKEN_PATH", other.to_str().unwrap()));
    assert_eq!(with(&[hf_home]).token.unwrap(), "from-home");
    assert_eq!(with(&[hf_home, ("HF_HUB_CACHE", "/c")]).token.unwrap(), "from-home");
    assert_eq!(with(&[hf_home, token_path]).token.unwrap(), "from-path");
    assert_eq!(with(&[hf_home, token_path, ("HF_TOKEN", " gi\r\nven ")]).token.unwrap(), "given");
}
