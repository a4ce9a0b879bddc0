//! Numbers in JSON, which has no NaN.

use serde::Deserialize;

/// Reads a number; null, which is written for NaN, is read as NaN.
pub(crate) fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// The value of a number that an older version did not write.
pub(crate) fn unwritten() -> f64 {
    f64::NAN
}
