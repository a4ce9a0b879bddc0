//! Teacher-forced scoring: what tempering one head does to the log-probability of recorded responses.
//!
//! A *cell* is one head at one λ on one item. Each cell reports three sums over the item's scored tokens: the
//! log-probability of the tokens, KL(untempered || tempered) of the next-token distributions, and how often the two
//! agree on the likeliest token. [`Engine::score`] branches every cell off one untempered pass; [`Engine::score_plain`] is
//! the plain way, and the oracle for the fast one.

mod branched;
mod cost;
mod memory;
mod plain;

use std::{ops::Range, sync::atomic::AtomicBool};

use headtemper_hook::{HeadRef, PlanError, check_lambda};

use crate::{Encoded, Engine, EngineError, Result};
pub use cost::ScoreCost;

/// Which cells to score, and how much at once.
#[derive(Clone, Copy)]
pub struct ScoreRequest<'a> {
    /// The heads, each tempered alone.
    pub heads: &'a [HeadRef],
    /// The factors that each head's z is scaled by, on prompt and response alike.
    pub lambdas: &'a [f32],
    /// Whether a cell is to be computed; cells that are not wanted cost nothing.
    pub wanted: &'a dyn Fn(Cell) -> bool,
    /// The most tokens that are read at once; fewer where memory is short. An item that is longer is read alone.
    pub batch_tokens: usize,
    /// The most memory to take in bytes, the model's included; by default what the machine has available.
    pub memory: Option<u64>,
    /// Bytes of reported results that the caller keeps until the end.
    pub kept: u64,
    /// Set from outside to stop after the current pass; what was reported by then is final.
    pub stop: Option<&'a AtomicBool>,
}

/// One head at one λ on one item, as indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Into the items.
    pub item: usize,
    /// Into [`ScoreRequest::heads`].
    pub head: usize,
    /// Into [`ScoreRequest::lambdas`].
    pub lambda: usize,
}

/// An item's score under the untempered model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BaseScore {
    /// Scored tokens: those of the response that have a predecessor.
    pub tokens: usize,
    /// Sum of their log-probabilities, in nats.
    pub sum_logprob: f64,
}

/// An item's score with one head tempered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CellScore {
    /// Sum of the scored tokens' log-probabilities under the tempered model, in nats.
    pub sum_logprob: f64,
    /// Sum over the scored tokens of KL(p_untempered || p_tempered) of the next-token distributions, in nats.
    pub kl: f64,
    /// Scored tokens at which both models have the same likeliest token.
    pub agree: usize,
    /// Tokens of prompt and response that the head was tempered on, as counted where it was done. It is all of them, or the run fails.
    pub fired: u64,
}

/// What is reported while cells are scored. An item's base comes before its cells; otherwise the order is not fixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScoreEvent {
    /// An item's score under the untempered model.
    Base {
        /// Index into the items.
        item: usize,
        /// Its score.
        score: BaseScore,
    },
    /// A wanted cell.
    Cell {
        /// Which one.
        cell: Cell,
        /// Its score.
        score: CellScore,
    },
}

impl Encoded {
    /// The tokens that can be scored: those of the response. Without a prompt, the first token is left out, since it has no
    /// predecessor to be predicted from.
    pub fn scored(&self) -> Range<usize> {
        let end = self.ids.len();
        self.prompt_len.max(1).min(end)..end
    }
}

impl ScoreRequest<'_> {
    /// Whether any cell of an item is wanted.
    pub(crate) fn wants(&self, item: usize) -> bool {
        self.cells().any(|(head, lambda)| (self.wanted)(Cell { item, head, lambda }))
    }

    /// Every head at every λ, as indices, by head and then by λ.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let lambdas = self.lambdas.len();
        (0..self.heads.len()).flat_map(move |head| (0..lambdas).map(move |lambda| (head, lambda)))
    }
}

/// Refuses a λ to score under that is listed twice.
///
/// # Errors
/// If there is one.
pub fn check_lambdas(lambdas: &[f32]) -> Result<()> {
    match lambdas.iter().enumerate().find(|&(index, lambda)| lambdas[..index].contains(lambda)) {
        None => Ok(()),
        Some((_, lambda)) => {
            let (found, allowed) = (format!("{lambda} twice"), "listed once: scoring draws nothing at random");
            Err(EngineError::Setting { name: "lambda", found, allowed })
        }
    }
}

impl Engine {
    /// Refuses what cannot be scored, before anything runs.
    ///
    /// # Errors
    /// If there is no head or no λ, one is listed twice, [`check_lambda`] refuses a λ, a head does not exist, no token may be read
    /// at once, or an item has no response tokens.
    pub fn check_score(&self, items: &[Encoded], request: &ScoreRequest<'_>) -> Result<()> {
        let wrong = |name, found: String, allowed| Err(EngineError::Setting { name, found, allowed });
        if request.heads.is_empty() {
            return wrong("the list of heads", "empty".into(), "at least one head");
        }
        if request.lambdas.is_empty() {
            return wrong("the list of lambda", "empty".into(), "at least one number");
        }
        if request.batch_tokens == 0 {
            return wrong("batch_tokens", "0".into(), "at least 1");
        }
        for (index, &at) in request.heads.iter().enumerate() {
            self.spec().check(at)?;
            if request.heads[..index].contains(&at) {
                return Err(PlanError::Twice(at).into());
            }
        }
        request.lambdas.iter().try_for_each(|&lambda| check_lambda(request.heads[0], lambda))?;
        check_lambdas(request.lambdas)?;
        for (at, item) in items.iter().enumerate() {
            self.of_vocabulary(|| format!("item {at}"), &item.ids)?;
        }
        match items.iter().position(|item| item.scored().is_empty()) {
            Some(item) => Err(EngineError::Empty(format!("the response of item {item}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_token_has_no_predecessor() {
        let scored = |len, prompt_len| Encoded { ids: vec![0; len], prompt_len }.scored();
        assert_eq!(scored(10, 7), 7..10);
        assert_eq!(scored(10, 0), 1..10);
        assert!(scored(10, 10).is_empty() && scored(1, 0).is_empty() && scored(0, 0).is_empty());
    }
}
