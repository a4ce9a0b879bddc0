//! What counts as found, wherever something is said to be.

/// The level at which each question is asked, by p, family-wise p or q: one in twenty finds something where there is nothing.
pub(crate) const LEVEL: f64 = 0.05;

/// What a reader must know where some of the items keep their label in every shuffle; `like` names what others lack.
pub(crate) fn told_fixed(fixed: usize, items: usize, like: &str) -> Option<String> {
    (fixed > 0).then(|| {
        format!(
            "{fixed} of {items} items keep their label in every shuffle, as nothing with {like} has another label: what sets them apart \
             is in the null as well, and no p shows it"
        )
    })
}
