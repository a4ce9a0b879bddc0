//! Which heads get which λ, and at which positions: plain data that knows no model.
//!
//! [`list`] reads what a user writes, and [`error`] says what is wrong with it.

mod error;
mod list;

use std::{collections::BTreeMap, fmt};

use crate::{HeadRef, ModelSpec, Positions};

pub use error::PlanError;
pub use list::{HeadList, MadeFor};

/// Which heads get which λ for one row of a batch, and at which positions. 1 leaves a head untouched, 0 ablates it.
///
/// A head listed at λ = 1 is part of the plan: the hook fires for it and changes nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadPlan {
    heads: BTreeMap<HeadRef, f32>,
    positions: Positions,
}

/// The values that λ may take, in words.
pub const LAMBDAS: &str = "a number from -1000000 to 1000000 (in f32, where nothing else may become 1)";

/// Whether `lambda` is one of [`LAMBDAS`]. Norms square their inputs in f32, and from about 1e17 on those squares have no finite sum.
pub fn is_lambda(lambda: f32) -> bool {
    lambda.abs() <= 1e6 // not true of NaN
}

/// The λ that is written as this number, if it is one. f32 must not make 1 of another: that head would be left untouched in silence.
pub fn lambda_of(number: f64) -> Option<f32> {
    let lambda = number as f32;
    let becomes_one = lambda == 1.0 && (number - 1.0).abs() > F64_SUM;
    (is_lambda(lambda) && !becomes_one).then_some(lambda)
}

/// A sum such as 0.7 + 0.2 + 0.1 is off by less than this from the 1 that is meant.
const F64_SUM: f64 = 1e-12;

/// Refuses a number that is not a λ ([`is_lambda`]).
///
/// # Errors
/// Names the head and λ.
pub fn check_lambda(at: HeadRef, lambda: f32) -> Result<(), PlanError> {
    if is_lambda(lambda) { Ok(()) } else { Err(PlanError::LambdaOutOfRange { at, lambda: lambda.into() }) }
}

impl HeadPlan {
    /// The plan that touches nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// A plan of these heads.
    ///
    /// # Errors
    /// If a head is listed twice, or [`check_lambda`] refuses a λ.
    pub fn new(entries: impl IntoIterator<Item = (HeadRef, f32)>) -> Result<Self, PlanError> {
        let mut plan = BTreeMap::new();
        for (at, lambda) in entries {
            check_lambda(at, lambda)?;
            if plan.insert(at, lambda).is_some() {
                return Err(PlanError::Twice(at));
            }
        }
        Ok(Self { heads: plan, positions: Positions::All })
    }

    /// The plan at these positions only.
    #[must_use]
    pub fn at(self, positions: Positions) -> Self {
        Self { positions, ..self }
    }

    /// The plan at these positions only, if any are given. It must not have positions of its own then.
    ///
    /// # Errors
    /// If it has.
    pub fn limited(self, given: Option<Positions>) -> Result<Self, PlanError> {
        match (self.positions, given) {
            (_, None) => Ok(self),
            (Positions::All, Some(given)) => Ok(self.at(given)),
            (own, Some(given)) => Err(PlanError::PositionsTwice { own, given }),
        }
    }

    /// Refuses a plan that cannot be folded into weights, which act at every position.
    ///
    /// # Errors
    /// If the plan does not touch every position.
    pub fn check_foldable(&self) -> Result<(), PlanError> {
        if self.positions == Positions::All { Ok(()) } else { Err(PlanError::SomePositions(self.positions)) }
    }

    /// The error for a run in which none of its heads was applied anywhere, or could be.
    pub fn never_fired(&self) -> PlanError {
        PlanError::NeverFired { heads: self.heads.keys().copied().collect(), positions: self.positions }
    }

    /// The positions that it touches.
    pub fn positions(&self) -> Positions {
        self.positions
    }

    /// All these heads at one λ.
    ///
    /// # Errors
    /// If a head is listed twice, or `lambda` is not a λ ([`is_lambda`]).
    pub fn uniform(heads: &[HeadRef], lambda: f32) -> Result<Self, PlanError> {
        Self::new(heads.iter().map(|&at| (at, lambda)))
    }

    /// The heads with their λ, by layer and head.
    pub fn iter(&self) -> impl Iterator<Item = (HeadRef, f32)> + '_ {
        self.heads.iter().map(|(&at, &lambda)| (at, lambda))
    }

    /// Whether the plan names no head at all.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Refuses heads that the model does not have.
    ///
    /// # Errors
    /// Names the layers or heads that exist.
    pub fn check(&self, spec: &ModelSpec) -> Result<(), PlanError> {
        self.heads.keys().try_for_each(|&at| spec.check(at))
    }
}

impl fmt::Display for HeadPlan {
    /// Writes what [`HeadList::parse`] reads, e.g. `L7H6:0.5,L23H1:0.5`, or `none` if the plan names no head. If it does not
    /// touch every position, ` at ` and the positions follow: `L7H6:0.5 at response`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (i, (at, lambda)) in self.iter().enumerate() {
            write!(f, "{}{at}:{lambda}", if i > 0 { "," } else { "" })?;
        }
        if self.positions == Positions::All { Ok(()) } else { write!(f, " at {}", self.positions) }
    }
}
