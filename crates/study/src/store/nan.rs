//! Numbers in JSON, which has no NaN.

use serde::Deserialize;

/// What is no number is written as null.
pub(crate) fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// A number that an older version did not write.
pub(crate) fn unwritten() -> f64 {
    f64::NAN
}
