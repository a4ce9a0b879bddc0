//! The kind of a head as the files of attributions and causal maps call it.

use headtemper_hook::HeadKind;
use serde::{Deserialize, Serialize};

/// The words for it in JSON. Any other is an error, so that a head of another kind is not taken for this one.
#[derive(Serialize, Deserialize)]
#[serde(remote = "HeadKind")]
pub(crate) enum KindWords {
    #[serde(rename = "attn")]
    Query,
    #[serde(rename = "linear")]
    Value,
}

/// The word by itself.
pub(crate) fn kind_word(kind: HeadKind) -> &'static str {
    match kind {
        HeadKind::Query => "attn",
        HeadKind::Value => "linear",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_in_json_and_by_themselves() {
        #[derive(Serialize, Deserialize)]
        struct Head(#[serde(with = "KindWords")] HeadKind);
        for kind in [HeadKind::Query, HeadKind::Value] {
            let json = serde_json::to_string(&Head(kind)).unwrap();
            assert_eq!(json, format!("\"{}\"", kind_word(kind)));
            assert_eq!(serde_json::from_str::<Head>(&json).unwrap().0, kind);
        }
        assert!(serde_json::from_str::<Head>("\"query\"").is_err());
    }
}
