//! Dependencies run downward only, as CONTRIBUTING.md draws them.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// Each crate, and the crates of this workspace that it may use.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("kernels", &[]),
    ("hook", &["kernels"]),
    ("stats", &[]),
    ("model", &["hook", "kernels"]),
    ("engine", &["model", "hook"]),
    ("study", &["engine", "stats", "hook"]),
    ("cli", &["study", "engine", "model", "hook"]),
    (ALL, &["study", "stats", "engine", "model", "hook"]),
];

/// The crate that bundles the others, for users who want a single one.
const ALL: &str = "headtemper";

#[test]
fn dependencies_run_downward() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let ours = |name: &str| {
        let part = (name == ALL).then_some(name);
        part.or_else(|| name.strip_prefix("headtemper-")).map(String::from)
    };
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("a list of packages") {
        let Some(name) = package["name"].as_str().and_then(ours).filter(|name| name != "tests") else { continue };
        let (_, allowed) =
            ALLOWED.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("crate '{name}' has no place"));
        for dependency in package["dependencies"].as_array().expect("a list of dependencies") {
            if let Some(used) = dependency["name"].as_str().and_then(ours) {
                assert!(allowed.contains(&used.as_str()), "{name} must not depend on {used}");
            }
        }
        seen.insert(name);
    }
    assert_eq!(seen.len(), ALLOWED.len(), "a crate that the table names is gone");
}
