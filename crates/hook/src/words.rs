//! What serde says of a value that has the wrong form, in words of those who write files.

/// What a collection of named values is called in a file's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// In JSON.
    Object,
    /// In TOML.
    Table,
}

impl Named {
    fn word(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Table => "a table",
        }
    }
}

/// A message of serde without the names of Rust's types: `invalid type: string "x", expected usize at line 1 column 9` becomes
/// `found the text "x", but must be a whole number from 0 on at line 1 column 9`. Other messages stay as they are.
pub fn in_words(message: &str, named: Named) -> String {
    let rest = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = rest.and_then(|rest| rest.rsplit_once(", expected ")) else { return message.into() };
    let (expected, at) = match expected.find(" at line ") {
        Some(at) => expected.split_at(at),
        None => (expected, ""),
    };
    format!("found {}, but must be {}{at}", found_in_words(found, named), expected_in_words(expected, named))
}

fn found_in_words(found: &str, named: Named) -> String {
    let quoted = || found.split_once('`').and_then(|(_, value)| value.strip_suffix('`'));
    match found {
        "map" => named.word().into(),
        "sequence" => "a list".into(),
        "unit value" | "Option value" => "null".into(),
        _ if found.starts_with("string ") => format!("the text {}", &found["string ".len()..]),
        _ => quoted().unwrap_or(found).into(),
    }
}

fn expected_in_words(expected: &str, named: Named) -> String {
    let list_of =
        ["a tuple of size ", "an array of length "].into_iter().find_map(|start| expected.strip_prefix(start));
    match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number from 0 on".into(),
        "isize" | "i64" | "i32" | "i16" | "i8" => "a whole number".into(),
        "f64" | "f32" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a map" => named.word().into(),
        _ if expected.starts_with("struct ") => named.word().into(),
        _ if expected.ends_with("string") => "a text".into(),
        // An enum is written as the name of one of its variants.
        "string or table" | "string or map" => "a text".into(),
        _ if expected.starts_with("enum ") => "a text".into(),
        _ => list_of.map_or_else(|| expected.into(), |length| format!("a list of {length}")),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only their types count")]
    struct Read {
        count: usize,
        #[serde(default)]
        share: f64,
        #[serde(default)]
        on: bool,
        #[serde(default)]
        list: Vec<String>,
        inner: Option<Inner>,
        kind: Option<Kind>,
        pair: Option<(usize, usize)>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {}

    #[derive(Debug, Deserialize)]
    enum Kind {}

    #[test]
    fn types_are_named_as_files_name_them() {
        let said = |json: &str| in_words(&serde_json::from_str::<Read>(json).unwrap_err().to_string(), Named::Object);
        for (json, words) in [
            (
                r#"{"count": "x, expected y"}"#,
                r#"found the text "x, expected y", but must be a whole number from 0 on at line 1"#,
            ),
            (r#"{"count": -1}"#, "found -1, but must be a whole number from 0 on at"),
            (r#"{"count": 1.5}"#, "found 1.5, but must be a whole number from 0 on at"),
            (r#"{"count": null}"#, "found null, but must be"),
            (r#"{"count": [1]}"#, "found a list, but must be"),
            (r#"{"count": 1, "share": true}"#, "found true, but must be a number at"),
            (r#"{"count": 1, "on": 1}"#, "found 1, but must be true or false at"),
            (r#"{"count": 1, "list": {}}"#, "found an object, but must be a list at"),
            (r#"{"count": 1, "list": [1]}"#, "found 1, but must be a text at"),
            (r#"{"count": 1, "inner": "x"}"#, r#"found the text "x", but must be an object at"#),
            (r#"{"count": 1, "pair": 1}"#, "found 1, but must be a list of 2 at"),
            ("{}", "missing field `count`"),
            (r#"{"counts": 1}"#, "unknown field `counts`, expected one of `count`"),
        ] {
            assert!(said(json).starts_with(words), "{json}: {}", said(json));
        }
        assert!(said(r#"{"count": 1, "kind": "x"}"#).starts_with("unknown variant `x`"));
        let told = in_words("invalid type: map, expected struct Read", Named::Table);
        assert_eq!(told, "found a table, but must be a table");
    }
}
