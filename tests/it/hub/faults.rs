//! Networks, hubs, repositories and killed processes that misbehave.

use std::{ffi::OsString, fs};

use headtemper_engine::hub::{HubError, HubOptions, fetch_with};
use tempfile::TempDir;

use super::{
    NEW, SINGLE, assert_holds, env, fetch, fetch_at,
    mock::{Fault, Hub, INDEX, OLD, WEIGHTS, blob_id, files, sha256, single, weights},
    offline,
};

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

/// A gated repo, which everybody may list but not read. Also checks how the status is read from hf-hub's error.
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

    // The hub answers 401 with this code for what one may not see.
    hub.state().listing = Some((401, "RepoNotFound"));
    assert!(matches!(fetch(&env(&hub, &cache)), Err(HubError::NotFound { .. })));
    hub.state().listing = Some((403, "GatedRepo"));
    assert!(matches!(fetch(&env(&hub, &cache)), Err(HubError::Denied { .. })));
    hub.state().listing = Some((400, ""));
    assert!(matches!(fetch(&env(&hub, &cache)), Err(HubError::Refused { status: 400, .. })));
    assert!(!cache.path().join("hub").exists());
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
            // A kept download that has a checksum is resumed.
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

    // A server that ignores the range of a resumed download: the first bytes would be there twice.
    hub.fault(WEIGHTS, Fault::Cut(5));
    assert!(matches!(fetch(&env(&hub, &cache)), Err(HubError::Download { .. })));
    hub.fault(WEIGHTS, Fault::IgnoreRange);
    let error = fetch(&env(&hub, &cache)).unwrap_err();
    assert!(matches!(&error, HubError::Damaged { got, .. } if got == "100005 bytes"), "{error}");
    assert_holds(&fetch(&env(&hub, &cache)).unwrap(), &single(), &SINGLE);
}

/// What a killed process can leave in the staging folder, and hf-hub alone would not recover from.
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
