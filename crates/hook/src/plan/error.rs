//! What can be wrong with a plan, and what would have been allowed.

use std::fmt;

use super::LAMBDAS;
use crate::{HeadRef, Positions};

/// What can be wrong with a plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The text is not a plan.
    #[error("cannot read '{text}' as {expected}")]
    Syntax {
        /// The part that could not be read.
        text: String,
        /// What would have been allowed.
        expected: String,
    },
    /// One plan names a head twice.
    #[error("head {0} is listed twice in one plan")]
    Twice(HeadRef),
    /// λ is outside [`LAMBDAS`].
    #[error("lambda {lambda} of head {at} is not {LAMBDAS}")]
    LambdaOutOfRange {
        /// The head.
        at: HeadRef,
        /// Its λ.
        lambda: f64,
    },
    /// A head has no λ where one is needed.
    #[error("head {0} has no lambda")]
    NoLambda(HeadRef),
    /// The model has no such layer.
    #[error("layer {} of head {at} does not exist; layers are 0 to {}", at.layer, layers - 1)]
    NoSuchLayer {
        /// The head asked for.
        at: HeadRef,
        /// How many layers there are.
        layers: usize,
    },
    /// The layer's heads are of the other kind: value heads of a delta net instead of query heads of attention, or the reverse.
    #[error(
        "head {at} does not exist; the heads of layer {} are {} to {last}, and layers with {} heads are {}",
        at.layer, HeadRef { head: 0, ..*last }, at.kind.letter(), listed(valid)
    )]
    OtherKind {
        /// The head asked for.
        at: HeadRef,
        /// The last head of the layer.
        last: HeadRef,
        /// The layers that have heads of the kind asked for.
        valid: Vec<usize>,
    },
    /// The layer has fewer heads.
    #[error(
        "head {at} does not exist; layer {} has {} to {}",
        at.layer, HeadRef { head: 0, ..*at }, HeadRef { head: heads - 1, ..*at }
    )]
    NoSuchHead {
        /// The head asked for.
        at: HeadRef,
        /// How many heads the layer has.
        heads: usize,
    },
    /// The plan names no head: it would run and look like a null result.
    #[error("the plan names no head, so it would change nothing")]
    Empty,
    /// The plan touches some positions only, where it must touch all.
    #[error("the plan touches the positions '{0}' only, but weights act at every position")]
    SomePositions(Positions),
    /// Positions are given twice.
    #[error("the plan has its positions, '{own}', and '{given}' is asked for")]
    PositionsTwice {
        /// The plan's.
        own: Positions,
        /// Those asked for.
        given: Positions,
    },
    /// A planned edit never happened.
    #[error(
        "the plan names {}{} but the hook never fired there, so the result would be a false null",
        first(heads), at(*positions)
    )]
    NeverFired {
        /// Its heads.
        heads: Vec<HeadRef>,
        /// The positions that the plan touches.
        positions: Positions,
    },
    /// A planned edit missed some of its tokens, or happened twice.
    #[error(
        "the plan touches {heads} heads at {} positions, but the hook was applied to {applied} of {planned} head-tokens",
        positions
    )]
    Missed {
        /// Heads of the plan.
        heads: usize,
        /// The positions that the plan touches.
        positions: Positions,
        /// Head-tokens that were counted.
        applied: u64,
        /// Head-tokens of the sequence that the plan covers: what should have been counted.
        planned: u64,
    },
}

impl PlanError {
    /// Advice that goes with the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Syntax { .. } => Some(
                "plans are written L7H6:0.5,L23H1:0.5 or as JSON {\"schema\":\"heads/v1\",\"heads\":\
                 [{\"layer\":7,\"head\":6,\"lambda\":0.5}]}, {\"7\":[6],\"23\":[1]} or [[7,6],[23,1]]; positions follow as in \
                 'L7H6:0.5 at response'"
                    .into(),
            ),
            Self::NoLambda(at) => Some(format!("write {at}:0.5, or give --lambda")),
            Self::NoSuchLayer { .. } | Self::OtherKind { .. } | Self::NoSuchHead { .. } => {
                Some("layers and heads count from 0; `temper inspect` shows what the model has".into())
            }
            Self::SomePositions(_) => Some("leave the positions out, or use the plan as a hook".into()),
            Self::PositionsTwice { .. } => Some("leave one of the two out".into()),
            Self::Empty => Some("list at least one head, or leave the plan out".into()),
            Self::LambdaOutOfRange { lambda, .. } if (lambda - 1.0).abs() < 1.0 => {
                Some("write 1, or a number that f32 tells from it, such as 0.999999".into())
            }
            Self::LambdaOutOfRange { lambda, .. } if lambda.is_finite() => {
                Some("norms square what they read, and f32 overflows there".into())
            }
            Self::NeverFired { positions: Positions::Window { .. }, .. } => Some(
                "nothing that is read reaches the window; its positions count from 0 at the first token of the prompt".into(),
            ),
            Self::NeverFired { positions: Positions::Response, .. } => {
                Some("nothing of any response is read: the last token that is written is not".into())
            }
            Self::Missed { .. } => Some("this is a defect of headtemper; `temper verify` says of which model".into()),
            Self::Twice(_) | Self::LambdaOutOfRange { .. } | Self::NeverFired { .. } => None,
        }
    }
}

fn listed<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".into();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Heads that an error names before it counts the others.
const NAMED: usize = 5;

/// The first few of these heads.
fn first(heads: &[HeadRef]) -> String {
    match heads.len().saturating_sub(NAMED) {
        0 => listed(heads),
        more => format!("{} and {more} more", listed(&heads[..NAMED])),
    }
}

/// Where a plan touches tokens, if not everywhere.
fn at(positions: Positions) -> String {
    if positions == Positions::All { String::new() } else { format!(" at {positions}") }
}
