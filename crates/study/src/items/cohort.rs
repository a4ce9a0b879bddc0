//! Cohorts: named sets of items that are compared.

use std::collections::BTreeMap;

use crate::{Item, Predicate, Result, StudyError};

/// A named set of items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cohort {
    /// The label that its members carry.
    pub name: String,
    /// Indices into the items, ascending.
    pub rows: Vec<usize>,
}

/// How many items carry each label; those without one are counted under `unlabelled`.
pub(crate) fn label_counts(labels: &[Option<String>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for label in labels {
        *counts.entry(label.clone().unwrap_or_else(|| "unlabelled".into())).or_default() += 1;
    }
    counts
}

/// The error for two cohorts of the same label.
pub(crate) fn same_label(label: &str) -> StudyError {
    StudyError::option("cohort b", format!("'{label}' like cohort a"), "another label")
}

/// The error for a cohort, by its name and condition, with too few members; says which labels there are.
pub(crate) fn too_few(
    (name, holds): (&str, &Predicate),
    found: usize,
    needed: usize,
    labels: &[Option<String>],
) -> StudyError {
    let counts = label_counts(labels).into_iter().map(|(label, n)| format!("{label} {n}"));
    let labels = if labels.is_empty() { "none".into() } else { counts.collect::<Vec<_>>().join(", ") };
    StudyError::Cohort { name: name.into(), condition: holds.to_string(), found, needed, labels }
}

/// The two cohorts of these labels.
///
/// # Errors
/// If the labels are the same, or a cohort has fewer than `needed` members; the error names the existing labels.
pub fn cohorts_of(labels: &[Option<String>], a: &str, b: &str, needed: usize) -> Result<[Cohort; 2]> {
    if a == b {
        return Err(same_label(a));
    }
    let pick = |name: &str| -> Result<Cohort> {
        let rows: Vec<usize> = (0..labels.len()).filter(|&i| labels[i].as_deref() == Some(name)).collect();
        if rows.len() >= needed {
            return Ok(Cohort { name: name.into(), rows });
        }
        Err(too_few((name, &Predicate::label(name)), rows.len(), needed, labels))
    };
    Ok([pick(a)?, pick(b)?])
}

/// The labels of items.
pub(crate) fn labels(items: &[Item]) -> Vec<Option<String>> {
    items.iter().map(|item| item.label.clone()).collect()
}
