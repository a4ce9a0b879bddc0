//! Which tokens of a sequence a plan touches.

use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::PlanError;

/// Which tokens of a sequence a plan touches. Positions are those of tokens that the model reads: touching the token at
/// position `p` can change what is written from `p + 1` on. In files they stand as they are written, such as `window:4..9`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Positions {
    /// Every token.
    #[default]
    All,
    /// The prompt's tokens.
    Prompt,
    /// The response's tokens, from the first one on.
    Response,
    /// Positions `first` to `last` of the sequence, counted from 0, both included.
    Window {
        /// The first position.
        first: usize,
        /// The last position.
        last: usize,
    },
}

impl Positions {
    /// Whether the token at `position` of a sequence with `prompt` prompt tokens is touched.
    pub fn cover(self, position: usize, prompt: usize) -> bool {
        match self {
            Self::All => true,
            Self::Prompt => position < prompt,
            Self::Response => position >= prompt,
            Self::Window { first, last } => (first..=last).contains(&position),
        }
    }

    /// Whether the tokens at these positions are either all touched or all untouched.
    pub fn all_or_none(self, positions: Range<usize>, prompt: usize) -> bool {
        // The touched positions are one range, so the answer changes at its two ends only.
        let Range { start, end } = positions;
        let (from, to) = match self {
            Self::All => return true,
            Self::Prompt | Self::Response => (prompt, usize::MAX),
            Self::Window { first, last } => (first, last.saturating_add(1)),
        };
        start >= end || [from, to].iter().all(|&edge| edge <= start || end <= edge)
    }

    /// Whether any token is touched in a sequence of `read` tokens that have been read, with `prompt` prompt tokens.
    pub fn touch(self, read: usize, prompt: usize) -> bool {
        self.count(read, prompt) > 0
    }

    /// How many tokens are touched in a sequence of `read` tokens that have been read, with `prompt` prompt tokens.
    pub fn count(self, read: usize, prompt: usize) -> usize {
        match self {
            Self::All => read,
            Self::Prompt => read.min(prompt),
            Self::Response => read.saturating_sub(prompt),
            Self::Window { first, last } => read.min(last.saturating_add(1)).saturating_sub(first),
        }
    }
}

impl fmt::Display for Positions {
    /// Writes what [`FromStr`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Prompt => f.write_str("prompt"),
            Self::Response => f.write_str("response"),
            Self::Window { first, last } => write!(f, "window:{first}..{last}"),
        }
    }
}

impl From<Positions> for String {
    fn from(positions: Positions) -> Self {
        positions.to_string()
    }
}

impl TryFrom<String> for Positions {
    type Error = PlanError;

    fn try_from(text: String) -> Result<Self, PlanError> {
        text.parse()
    }
}

impl FromStr for Positions {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let window = || {
            let (first, last) = text.strip_prefix("window:")?.split_once("..")?;
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last).then_some(Self::Window { first, last })
        };
        match text.trim() {
            "all" => Ok(Self::All),
            "prompt" => Ok(Self::Prompt),
            "response" => Ok(Self::Response),
            _ => window().ok_or_else(|| PlanError::Syntax {
                text: text.into(),
                expected: "positions: all, prompt, response, or a window such as window:4..9 (both included)".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for text in ["all", "prompt", "response", "window:4..9", "window:0..0"] {
            assert_eq!(text.parse::<Positions>().unwrap().to_string(), text);
        }
        for wrong in ["", "window", "window:9..4", "window:4", "window:-1..2", "answer"] {
            assert!(wrong.parse::<Positions>().unwrap_err().to_string().contains("window:4..9"), "{wrong}");
        }
    }

    #[test]
    fn all_or_none_is_what_each_token_says() {
        let windows = (0..8).flat_map(|first| (first..8).map(move |last| Positions::Window { first, last }));
        for positions in [Positions::All, Positions::Prompt, Positions::Response].into_iter().chain(windows) {
            for (from, to, prompt) in (0..9).flat_map(|x| (0..9).flat_map(move |y| (0..9).map(move |z| (x, y, z)))) {
                let each: Vec<bool> = (from..to).map(|position| positions.cover(position, prompt)).collect();
                let same = each.iter().all(|&covered| covered == each[0]);
                assert_eq!(positions.all_or_none(from..to, prompt), same, "{positions} {from}..{to} of {prompt}");
            }
        }
        assert!(Positions::Window { first: 3, last: usize::MAX }.all_or_none(5..9, 0));
    }

    #[test]
    fn touched_tokens_are_counted_as_each_of_them_says() {
        let windows = (0..8).flat_map(|first| (first..8).map(move |last| Positions::Window { first, last }));
        for positions in [Positions::All, Positions::Prompt, Positions::Response].into_iter().chain(windows) {
            for (read, prompt) in (0..9).flat_map(|x| (0..9).map(move |y| (x, y))) {
                let count = (0..read).filter(|&position| positions.cover(position, prompt)).count();
                assert_eq!(positions.count(read, prompt), count, "{positions} of {read}, {prompt} of the prompt");
                assert_eq!(positions.touch(read, prompt), count > 0);
            }
        }
        assert_eq!(Positions::Window { first: 3, last: usize::MAX }.count(5, 0), 2);
    }

    #[test]
    fn a_window_includes_both_ends_and_the_response_starts_after_the_prompt() {
        let covered = |positions: Positions| (0..6).filter(|&p| positions.cover(p, 3)).collect::<Vec<_>>();
        assert_eq!(covered(Positions::All), [0, 1, 2, 3, 4, 5]);
        assert_eq!(covered(Positions::Prompt), [0, 1, 2]);
        assert_eq!(covered(Positions::Response), [3, 4, 5]);
        assert_eq!(covered(Positions::Window { first: 2, last: 3 }), [2, 3]);
    }
}
