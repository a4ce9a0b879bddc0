//! `answers.jsonl`: what the judge said, verbatim, keyed by what it was asked.

use std::{fs::File, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    client::Asked,
    completion::Reply,
    prompts::Kind,
    reading::{self, Missing},
};
use crate::{
    Keyed, Progress, Result, RowLog,
    store::{digest::digest, files::followed, rundir},
};

/// One reply of the judge, verbatim, so that it can be read again, also by people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Hash of what determines it: the model's name, the temperature, the token limit and the messages.
    pub key: String,
    /// What kind of question it answers: `coverage`, `accepted`, `delivery`, `rubric` or `score`.
    pub kind: String,
    /// What the judge said; empty if it said nothing.
    pub reply: String,
    /// Whether the server says that the judge refused.
    pub refused: bool,
    /// Whether the reply was cut off at the token limit.
    pub cut_off: bool,
    /// The address of the server that was asked.
    pub endpoint: String,
    /// The model that the server says it is.
    pub served: Option<String>,
    /// Tokens that the server counted in the question.
    pub prompt_tokens: u64,
    /// Tokens that it counted in the reply.
    pub completion_tokens: u64,
}

impl Keyed for Answer {
    const FILE: &str = "answers.jsonl";

    fn key(&self) -> &str {
        &self.key
    }
}

impl Answer {
    pub(crate) fn new(key: &str, kind: Kind, endpoint: &str, reply: Reply) -> Self {
        Self {
            key: key.into(),
            kind: kind.name().into(),
            reply: reply.text,
            refused: reply.refused,
            cut_off: reply.cut_off,
            endpoint: endpoint.into(),
            served: reply.served,
            prompt_tokens: reply.prompt_tokens,
            completion_tokens: reply.completion_tokens,
        }
    }

    /// Its verdict, as `read` finds it. That of a reply which was cut off must not hang on how it would have gone on.
    pub(crate) fn verdict<T: PartialEq>(
        &self,
        read: impl Fn(&str) -> std::result::Result<T, Missing>,
    ) -> std::result::Result<T, Missing> {
        if self.refused {
            return Err(Missing::Refused);
        }
        let found = read(&self.reply)?;
        let holds =
            !self.cut_off || reading::relied_on(&self.reply).iter().all(|part| read(part).as_ref() == Ok(&found));
        if holds { Ok(found) } else { Err(Missing::Unparsable) }
    }

    /// The rubric that it describes: whole, or none.
    pub(crate) fn rubric(&self) -> std::result::Result<String, Missing> {
        match (self.refused, self.cut_off) {
            (true, _) => Err(Missing::Refused),
            (_, true) => Err(Missing::Unparsable),
            _ => reading::rubric(&self.reply),
        }
    }

    /// Why it has no verdict of its kind; none if it has one.
    pub(crate) fn missing(&self, kind: Kind) -> Option<Missing> {
        match kind {
            Kind::Coverage | Kind::Accepted => self.verdict(|text| reading::word(text, YES_NO)).err(),
            Kind::Delivery => self.verdict(|text| reading::word(text, ASSERT_HEDGE)).err(),
            Kind::Rubric => self.rubric().err(),
            Kind::Score => self.verdict(reading::level).err(),
        }
    }
}

/// The verdicts on a claim.
pub(crate) const YES_NO: [&str; 2] = ["yes", "no"];
/// The verdicts on delivery.
pub(crate) const ASSERT_HEDGE: [&str; 2] = ["assert", "hedge"];

/// The key of a question. The endpoint is not part of it: a server may move, but what it said remains said. Each answer notes who said it.
pub(crate) fn key(asked: Asked<'_>, text: &str) -> String {
    digest(&json!({
        "what": "chat/v1",
        "model": asked.model,
        "temperature": 0,
        "max_tokens": asked.max_tokens,
        "messages": [{"role": "user", "content": text}],
    }))
}

/// Opens a cache that runs share, and reserves it for this process as long as the returned file lives: two processes that append at once
/// would overwrite each other.
pub(crate) fn open(path: &Path, progress: &mut dyn Progress) -> Result<(RowLog<Answer>, Option<File>)> {
    // Whatever it is called: all names of one file share a lock.
    let path = &followed(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lock = rundir::lock(path, &path.with_file_name(format!(".{name}.lock")), progress)?;
    Ok((RowLog::open_and_tell(path, progress)?, lock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    #[test]
    fn a_key_is_made_of_all_that_is_asked() {
        let of = |model, max_tokens, text| key(Asked { model, max_tokens }, text);
        let one = of("m", 8, "text");
        assert_eq!(one, of("m", 8, "text"));
        assert!([of("n", 8, "text"), of("m", 9, "text"), of("m", 8, "texts")].iter().all(|other| *other != one));
    }

    #[test]
    fn a_reply_that_was_cut_off_counts_if_its_verdict_was_sure() {
        let reply = |text: &str, cut_off| Reply { text: text.into(), cut_off, ..Reply::default() };
        let missing = |kind, text: &str, cut_off| Answer::new("k", kind, "here", reply(text, cut_off)).missing(kind);
        let rubric = "1: a\n2: b\n3: c\n4: d\n5: the resp";
        for (kind, text, sure) in [
            (Kind::Accepted, "No", false),
            (Kind::Accepted, "No, the answer says Ly", true),
            (Kind::Score, "4", false),
            (Kind::Rubric, rubric, false),
        ] {
            assert_eq!(missing(kind, text, false), None, "{text}");
            assert_eq!(missing(kind, text, true), (!sure).then_some(Missing::Unparsable), "{text}");
        }
    }

    #[test]
    fn a_shared_cache_belongs_to_one_process_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("shared.jsonl");
        let (mut log, lock) = open(&path, &mut Silent).unwrap();
        log.append(Answer::new("k", Kind::Score, "http://x", Reply::default())).unwrap();
        let error = open(&path, &mut Silent).err().unwrap();
        assert!(error.to_string().contains("shared.jsonl is in use"), "{error}");
        drop(lock);
        assert_eq!(open(&path, &mut Silent).unwrap().0.len(), 1);
    }

    #[test]
    fn an_answer_is_read_by_its_kind() {
        let answer = |text: &str, refused| {
            let reply = Reply { text: text.into(), refused, ..Reply::default() };
            Answer::new("k", Kind::Coverage, "http://x", reply)
        };
        assert_eq!(answer("YES", false).missing(Kind::Coverage), None);
        assert_eq!(answer("YES", true).missing(Kind::Coverage), Some(Missing::Refused));
        assert_eq!(answer("YES", false).missing(Kind::Delivery), Some(Missing::Unparsable));
        assert_eq!(answer("3", false).missing(Kind::Score), None);
        assert_eq!(answer("3", false).missing(Kind::Rubric), Some(Missing::Unparsable));
    }
}
