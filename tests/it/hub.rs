//! Hub ids against a mock hub: what is downloaded, what is kept, what happens when network or hub misbehave.

mod mock;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use headtemper_engine::hub::{HubEnv, HubError, HubOptions, Offline, Snapshot, fetch_with};
use tempfile::TempDir;

use mock::{Fault, Files, Hub, ID, INDEX, OLD, Request, WEIGHTS, blob_id, files, sha256, sharded, single, weights};

const NEW: &str = "2222222222222222222222222222222222222222";
/// What is fetched of the model in one file.
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

    // The layout is huggingface_hub's: blobs by hash, relative links, a ref; and nothing of ours is left.
    let repo = cache.path().join("hub/models--tiny--model");
    let link = fs::read_link(snapshot.dir.join(WEIGHTS)).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(sha256(&weights(1))));
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), OLD);
    let mut left: Vec<_> = fs::read_dir(&repo).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["blobs", "refs", "snapshots"]);
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

#[test]
fn what_is_there_is_not_downloaded_again() {
    let (hub, cache) = (Hub::new(sharded()), TempDir::new().unwrap());
    let first = fetch(&env(&hub, &cache)).unwrap();
    assert_eq!(hub.bodies().len(), 6);
    assert_eq!(fetch(&env(&hub, &cache)).unwrap(), first);
    assert_eq!(hub.state().log.len(), 1, "one listing and nothing else");

    // A file that has the wrong size is no file.
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
fn an_interrupted_update_leaves_the_old_commit_usable() {
    let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
    fetch(&env(&hub, &cache)).unwrap();
    let mut newer = single();
    newer.insert(WEIGHTS.to_owned(), weights(7));
    hub.state().commits.insert(NEW.to_owned(), newer.clone());
    hub.state().refs.insert("main".to_owned(), NEW.to_owned());
    hub.fault(WEIGHTS, Fault::Cut(10));
    assert!(matches!(fetch(&env(&hub, &cache)), Err(HubError::Download { .. })));

    let old = fetch(&offline(&hub, &cache)).unwrap();
    assert_eq!(old.commit, OLD);
    assert_holds(&old, &single(), &SINGLE);
    let error = fetch_at(NEW, &offline(&hub, &cache)).unwrap_err();
    assert!(matches!(&error, HubError::NotComplete { file, .. } if file == WEIGHTS), "{error}");
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
    // hf-hub sends it along with the metadata request to the file's host too, but the file itself is asked for without.
    let file = |request: &&Request| request.path.starts_with("/cdn/") && request.range.as_deref() == Some("bytes=0-");
    assert!(hub.state().log.iter().filter(file).all(|request| request.authorization.is_none()));
}

/// A gated repo: everybody may list it, but not read it. It also holds how the status is read from hf-hub's error.
#[test]
fn a_gated_file_is_denied() {
    for status in [401, 403] {
        let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
        hub.fault("config.json", Fault::Status(status));
        let error = fetch(&env(&hub, &cache)).unwrap_err();
        assert!(matches!(error, HubError::Denied { status: got, .. } if got == status), "{error}");
    }
    let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
    hub.fault(WEIGHTS, Fault::Status(404));
    let error = fetch(&env(&hub, &cache)).unwrap_err();
    assert!(matches!(&error, HubError::NotInRepo { file, .. } if file == WEIGHTS), "{error}");
}

#[test]
fn a_repo_that_is_not_there() {
    let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
    let error = fetch_with("tiny/typo", &HubOptions::default(), &env(&hub, &cache)).unwrap_err();
    assert_eq!(error.to_string(), "the hub has no model `tiny/typo` with revision `main`");
    assert!(error.hint().unwrap().contains("spelling"));

    // The hub hides what one may not see behind 401 with this code.
    hub.state().listing = Some((401, "RepoNotFound"));
    assert!(matches!(fetch(&env(&hub, &cache)), Err(HubError::NotFound { .. })));
    hub.state().listing = Some((403, "GatedRepo"));
    assert!(matches!(fetch(&env(&hub, &cache)), Err(HubError::Denied { .. })));
    hub.state().listing = Some((400, ""));
    assert!(matches!(fetch(&env(&hub, &cache)), Err(HubError::Refused { status: 400, .. })));
    assert!(!cache.path().join("hub").exists());
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

#[test]
fn offline_names_the_file_that_is_missing() {
    let (hub, cache) = (Hub::new(sharded()), TempDir::new().unwrap());
    let error = fetch(&offline(&hub, &cache)).unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }), "{error}");

    let snapshot = fetch(&env(&hub, &cache)).unwrap();
    for name in ["sub/zwei-é?.safetensors", "tokenizer.json"] {
        // Once a link that leads nowhere, once no link.
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
    assert!(note.contains("refused"), "{note}");

    let empty = TempDir::new().unwrap();
    let error = fetch(&env(&hub, &empty)).unwrap_err();
    assert!(matches!(error, HubError::NotCached { offline: Offline::Unreachable { .. }, .. }), "{error}");
    assert!(error.hint().unwrap().contains("network"));
}

#[test]
fn a_truncated_download_is_an_error_and_a_repeat_works() {
    for name in [WEIGHTS, "tokenizer.json"] {
        for fault in [Fault::Cut(5), Fault::CutSilently(5)] {
            let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
            hub.fault(name, fault);
            let error = fetch(&env(&hub, &cache)).unwrap_err();
            match fault {
                Fault::Cut(_) => assert!(matches!(&error, HubError::Download { file, .. } if file == name), "{error}"),
                _ => assert!(matches!(&error, HubError::Damaged { file, .. } if file == name), "{error}"),
            }
            assert!(error.hint().unwrap().contains("again"));
            let repo = cache.path().join("hub/models--tiny--model");
            assert!(!repo.join("snapshots").join(OLD).join(name).exists() && !repo.join("refs").exists());
            let blobs = fs::read_dir(repo.join("blobs")).unwrap().map(|entry| entry.unwrap().file_name());
            let hashes: Vec<_> = single().values().map(|bytes| blob_id(bytes).into()).collect::<Vec<OsString>>();
            assert!(blobs.into_iter().all(|blob| hashes.contains(&blob)), "only whole small files");
            assert!(fetch(&offline(&hub, &cache)).is_err());

            hub.state().faults.clear();
            hub.bodies();
            assert_holds(&fetch(&env(&hub, &cache)).unwrap(), &single(), &SINGLE);
            // What has a checksum and was kept is resumed.
            let start = if name == WEIGHTS && fault == Fault::Cut(5) { 5 } else { 0 };
            assert_eq!(hub.bodies()[0], format!("{name}@{start}"));
        }
    }
}

#[test]
fn a_damaged_download_is_thrown_away() {
    let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
    hub.fault(WEIGHTS, Fault::Flip);
    let error = fetch(&env(&hub, &cache)).unwrap_err();
    assert!(matches!(&error, HubError::Damaged { expected, .. } if expected.starts_with("sha256")), "{error}");

    // A server that ignores the range of a resumed download: its first bytes would be there twice.
    hub.fault(WEIGHTS, Fault::Cut(5));
    assert!(matches!(fetch(&env(&hub, &cache)), Err(HubError::Download { .. })));
    hub.fault(WEIGHTS, Fault::IgnoreRange);
    let error = fetch(&env(&hub, &cache)).unwrap_err();
    assert!(matches!(&error, HubError::Damaged { got, .. } if got == "100005 bytes"), "{error}");
    assert_holds(&fetch(&env(&hub, &cache)).unwrap(), &single(), &SINGLE);
}

/// What a killed process can leave in the staging folder, of which hf-hub alone would not recover.
#[test]
fn leftovers_of_a_killed_process() {
    let staged = format!("hub/models--tiny--model/.staging/models--tiny--model/blobs/{}", sha256(&weights(1)));
    let longer = [weights(1), vec![0]].concat();
    let flipped: Vec<u8> = weights(1).iter().map(|byte| byte ^ 1).collect();
    for (leftover, extension, works) in [
        (weights(1), "", true),
        (weights(1), ".part", true),
        (weights(1)[..99].to_vec(), "", true),
        (longer, ".part", true),
        (flipped, ".part", false),
    ] {
        let (hub, cache) = (Hub::new(single()), TempDir::new().unwrap());
        let path = cache.path().join(format!("{staged}{extension}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &leftover).unwrap();
        assert_eq!(fetch(&env(&hub, &cache)).is_ok(), works, "{} bytes in `{extension}`", leftover.len());
        assert_holds(&fetch(&env(&hub, &cache)).unwrap(), &single(), &SINGLE);
        let bodies = hub.bodies().into_iter().find(|body| body.starts_with(WEIGHTS));
        match leftover.len() {
            100_000 if works => assert_eq!(bodies, None, "complete: nothing to download"),
            99 => assert_eq!(bodies.unwrap(), format!("{WEIGHTS}@99")),
            _ => assert_eq!(bodies.unwrap(), format!("{WEIGHTS}@0")),
        }
    }
}

#[test]
fn a_mirror_that_tells_no_sizes() {
    let mut model = single();
    model.remove("special_tokens_map.json"); // an empty file has no metadata in hf-hub
    let (hub, cache) = (Hub::new(model.clone()), TempDir::new().unwrap());
    hub.state().sizes = false;
    let names = ["config.json", "chat_template.jinja", "tokenizer.json", WEIGHTS];
    assert_holds(&fetch(&env(&hub, &cache)).unwrap(), &model, &names);
    hub.state().log.clear();
    fetch(&env(&hub, &cache)).unwrap();
    assert_eq!(hub.state().log.len(), 1);

    let again = TempDir::new().unwrap();
    hub.fault(WEIGHTS, Fault::CutSilently(5));
    assert!(matches!(fetch(&env(&hub, &again)), Err(HubError::Damaged { .. })));
}

#[test]
fn repos_that_are_no_models_for_us() {
    let error_of = |list: &[(&str, &[u8])]| {
        let (hub, cache) = (Hub::new(files(list)), TempDir::new().unwrap());
        let error = fetch(&env(&hub, &cache)).unwrap_err();
        assert!(hub.bodies().is_empty() || matches!(error, HubError::BadIndex { .. } | HubError::NotInRepo { .. }));
        error
    };
    let error = error_of(&[("q4.gguf", b""), ("q8.gguf", b""), ("README.md", b"")]);
    assert_eq!(
        error.to_string(),
        "`tiny/model` has no model.safetensors and no index of shards; it has q4.gguf, q8.gguf"
    );
    assert!(error.hint().unwrap().contains("pass its path"));
    let error = error_of(&[("config.json", b"{}"), ("pytorch_model.bin", b"")]);
    assert!(error.to_string().contains("it has pytorch_model.bin"), "{error}");
    assert!(error.hint().unwrap().contains("save_pretrained"));

    let error = error_of(&[("config.json", b"{}"), (WEIGHTS, b"w"), ("tokenizer.model", b"")]);
    assert!(matches!(&error, HubError::NotInRepo { file, .. } if file == "tokenizer.json"), "{error}");

    let index = |text: &[u8]| error_of(&[("config.json", b"{}"), ("tokenizer.json", b"{}"), (INDEX, text)]);
    let error = index(br#"{"weight_map": {"a": "gone.safetensors"}}"#);
    assert!(matches!(&error, HubError::NotInRepo { file, .. } if file == "gone.safetensors"), "{error}");
    for text in [
        r#"{"weight_map": {"a": "../../../../etc/passwd"}}"#,
        r#"{"weight_map": {"a": "/etc/passwd"}}"#,
        r#"{"weight_map": {"a": "a/../../b"}}"#,
        r#"{"weight_map": {"a": ""}}"#,
        r#"{"weight_map": {"a": 1}}"#,
        r#"{"weight_map": {}}"#,
        "{}",
        "<html>",
    ] {
        let error = index(text.as_bytes());
        assert!(matches!(error, HubError::BadIndex { .. }), "{text}: {error}");
    }
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
    assert_eq!(with(&[hf_home, token_path, ("HF_TOKEN", " given ")]).token.unwrap(), "given");
}
