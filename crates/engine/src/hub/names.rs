//! Names from outside: which are safe as an id, a path or a file name, and how they are written in an address.

use std::path::{Component, Path};

/// The rule of `huggingface_hub`'s `validate_repo_id`, with the owner required.
pub(crate) fn is_id(id: &str) -> bool {
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
pub(super) fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a hash can be a file's name.
pub(super) fn is_name(hash: &str) -> bool {
    !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

pub(super) fn is_sha256(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Percent-encodes characters that may not appear in an address, and keeps `/`.
pub(super) fn escape(path: &str) -> String {
    path.bytes().fold(String::with_capacity(path.len()), |text, byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
            text + char::from(byte).encode_utf8(&mut [0])
        }
        _ => text + &format!("%{byte:02X}"),
    })
}
