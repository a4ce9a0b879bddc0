//! `scores.jsonl`: one cell per line, named by what determines it.

use headtemper_engine::{BaseScore, CellScore, Encoded, Identity};
use headtemper_hook::HeadRef;
use serde::{Deserialize, Serialize};

use crate::{HookCounts, Keyed, hooks::counted, store::digest::digest};

/// One head at one λ on one item, beside the untempered model in the same pass over the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreRow {
    /// Hash of everything that determines the row.
    pub key: String,
    /// The item.
    pub id: String,
    /// The head, written `L7H6`.
    #[serde(with = "head_name")]
    pub head: HeadRef,
    /// Its λ.
    pub lambda: f32,
    /// Scored response tokens.
    pub tokens: usize,
    /// Sum of their log-probabilities under the untempered model, in nats.
    pub base_logprob: f64,
    /// The same under the tempered model.
    pub sum_logprob: f64,
    /// Sum over the tokens of KL(untempered || tempered), in nats.
    pub kl: f64,
    /// Tokens at which both have the same likeliest token.
    pub agree: usize,
    /// Tokens of prompt and response that the head was tempered on, as its hook counted: all of them, or the row was not written.
    /// Rows of earlier versions do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<u64>,
}

/// A head in writing: the letter says which kind it is of.
mod head_name {
    use headtemper_hook::HeadRef;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(head: &HeadRef, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(head)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<HeadRef, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Keyed for ScoreRow {
    const FILE: &str = "scores.jsonl";

    fn key(&self) -> &str {
        &self.key
    }

    fn contradiction(&self) -> Option<String> {
        let (agree, tokens) = (self.agree, self.tokens);
        (agree > tokens).then(|| format!("agree is {agree}, but only {tokens} tokens were scored"))
    }
}

/// How many tokens each head of these rows was tempered on.
pub(crate) fn fired_of<'a>(rows: impl Iterator<Item = &'a ScoreRow>) -> HookCounts {
    counted(rows.map(|row| (row.head.to_string(), row.fired)))
}

impl ScoreRow {
    /// The row of a cell.
    pub(crate) fn of(key: String, id: &str, (at, lambda): (HeadRef, f32), base: BaseScore, cell: CellScore) -> Self {
        Self {
            key,
            id: id.into(),
            head: at,
            lambda,
            tokens: base.tokens,
            base_logprob: base.sum_logprob,
            sum_logprob: cell.sum_logprob,
            kl: cell.kl,
            agree: cell.agree,
            fired: Some(cell.fired),
        }
    }
}

/// The names of an item's rows. Its tokens are hashed once, not for every cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ItemKey(String);

impl ItemKey {
    /// For an item under a model, scored the plain way or not. Items with the same text still have different rows.
    pub(crate) fn new(identity: &Identity, plain: bool, id: &str, item: &Encoded) -> Self {
        Self(digest(&("score/v2", identity, plain, id, &item.ids, item.prompt_len)))
    }

    /// Of a name of its own, for tests.
    #[cfg(test)]
    pub(crate) fn of(name: &str) -> Self {
        Self(name.into())
    }

    /// The key of a cell.
    pub(crate) fn cell(&self, at: HeadRef, lambda: f32) -> String {
        digest(&(&self.0, at, lambda))
    }
}
