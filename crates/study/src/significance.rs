//! What counts as found, wherever something is said to be.

/// The level at which each question is asked, by p, family-wise p or q: one in twenty finds something where there is nothing.
pub(crate) const LEVEL: f64 = 0.05;
