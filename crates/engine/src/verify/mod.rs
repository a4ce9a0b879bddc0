//! Proof that this build computes what it should, on this model and this machine.
//!
//! A law is a function from a model to a [`Check`]: what was measured, and what would have been allowed. [`LAWS`] need only
//! the model; [`folded`] reads its weights once more; a [`Golden`] file says what transformers computes. [`tiny`] models
//! stand in where there is no checkpoint.

mod feed;
mod folded;
mod golden;
mod laws;
mod parity;
mod sites;
mod text;
mod tiny;

use candle_core::{DType, Result, Tensor};
use headtemper_model::{CausalLm, Kernels, reason};
use serde::Serialize;

pub use feed::{greedy, in_pieces, read_through, tokens};
pub use folded::{Hooked, folded, folded_skipped};
pub use golden::{Golden, tolerance};
pub use laws::{decoded, finite, packed, same_as, untouched};
pub use sites::{effects, fired, sites};
pub use tiny::{FAMILIES, tiny};

/// What a law found on a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// The law, in a few words.
    pub name: String,
    /// The worst that was found: a difference, or how many things were wrong. `None` if nothing could be measured;
    /// infinite (null in JSON) if something is not a number.
    pub measured: Option<f64>,
    /// The most that `measured` may be.
    pub allowed: f64,
    /// Whether the law holds; `None` if it was not tried.
    pub passed: Option<bool>,
    /// Where the worst was found, or what went wrong.
    pub note: String,
}

/// A law that needs nothing but a model.
pub type Law = fn(&dyn CausalLm) -> Check;

/// Every law that needs nothing but a model.
pub const LAWS: [Law; 7] = [untouched, packed, decoded, sites, fired, effects, finite];

/// What was measured, with a note.
type Found = (f64, String);

impl Check {
    /// The check of a measurement. If the measurement failed to run, the law does not hold.
    fn of(name: &str, allowed: f64, found: Result<Found>) -> Self {
        let (measured, note) = match found {
            Ok((measured, note)) => (Some(measured), note),
            Err(error) => (None, reason(&error)),
        };
        let passed = measured.is_some_and(|measured| measured <= allowed);
        Self { name: name.into(), measured, allowed, passed: Some(passed), note }
    }

    /// Whether the law was tried and does not hold.
    pub fn failed(&self) -> bool {
        self.passed == Some(false)
    }
}

/// How much a result may change when its batch changes, relative to its largest value. On the CPU 0: sums run in the
/// same order.
fn rounding(model: &dyn CausalLm) -> f64 {
    /// Sums in another order, in f32. Measured worst case for the tiny models on an H200 (2026-11-27): 2.5e-5 where delta nets
    /// read a prompt token by token; 5.9e-6 for all else.
    const F32: f64 = 1e-4;
    /// The same with 8 bits of mantissa. Measured worst case for Qwen3.5-0.8B with random weights on an H200 (2026-11-27): 2.2e-2
    /// where a prompt is read token by token; 0 for rows next to others.
    const HALF: f64 = 5e-2;
    match (model.device().is_cpu(), model.activations()) {
        (true, _) if Kernels::used() == Kernels::Own => 0.0,
        (_, DType::F32) => F32,
        _ => HALF,
    }
}

/// A share in readable form: 0.31, or 2.1e-4.
fn short(x: f64) -> String {
    if (0.01..1000.0).contains(&x) { format!("{x:.2}") } else { format!("{x:.1e}") }
}

fn values(x: &Tensor) -> Result<Vec<f32>> {
    x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// The largest absolute difference; 0 only if all bits agree, and infinite if the shapes differ or a value is not finite.
fn difference(ours: &Tensor, theirs: &Tensor) -> Result<f64> {
    if ours.dims() != theirs.dims() {
        return Ok(f64::INFINITY);
    }
    let gap = |(a, b): (f32, f32)| match (a.to_bits() == b.to_bits(), a - b) {
        _ if !a.is_finite() || !b.is_finite() => f64::INFINITY,
        (true, _) => 0.0,
        // 0 and -0 count as one step apart, like any two neighbours.
        (false, gap) => f64::from(gap.abs().max(f32::from_bits(1))),
    };
    Ok(values(ours)?.into_iter().zip(values(theirs)?).map(gap).fold(0.0, f64::max))
}

/// The largest absolute difference, relative to the largest value that should be there.
fn relative(ours: &Tensor, theirs: &Tensor) -> Result<f64> {
    let size = values(theirs)?.into_iter().fold(0f32, |size, x| size.max(x.abs()));
    match difference(ours, theirs)? {
        gap if size > 0.0 && gap.is_finite() => Ok(gap / f64::from(size)),
        // A value that is not a number; or nothing but zeros, which no model gives.
        _ => Ok(f64::INFINITY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn only_equal_bits_differ_by_nothing() -> Result<()> {
        let row = |values: &[f32]| Tensor::new(values, &Device::Cpu);
        let gap = |a: &[f32], b: &[f32]| difference(&row(a)?, &row(b)?);
        assert_eq!(gap(&[1., -2.], &[1., -2.])?, 0.0);
        assert_eq!(gap(&[1., -2.], &[1.5, -2.])?, 0.5);
        assert!(gap(&[0.], &[-0.])? > 0.0);
        assert_eq!(gap(&[f32::NAN], &[f32::NAN])?, f64::INFINITY);
        assert_eq!(gap(&[1.], &[1., 1.])?, f64::INFINITY);
        assert_eq!(relative(&row(&[1., 4.])?, &row(&[2., -4.])?)?, 2.0);
        assert_eq!(relative(&row(&[0.])?, &row(&[0.])?)?, f64::INFINITY);
        Ok(())
    }

    #[test]
    fn what_cannot_run_does_not_hold() {
        let check = Check::of("a law", 0.0, Err(candle_core::Error::Msg("no room".into())));
        assert!(check.failed() && check.note == "no room" && check.measured.is_none());
        assert!(Check::of("a law", 1e-5, Ok((f64::NAN, String::new()))).failed());
        assert!(!Check::of("a law", 0.0, Ok((0.0, String::new()))).failed());
    }
}
