//! Items that may change labels with each other: those that share the value of a field.

use std::collections::{BTreeMap, BTreeSet};

use super::ItemFacts;
use crate::{Result, StudyError};

/// The stratum of each item, by the value of a field; items without it are a stratum of their own.
///
/// # Errors
/// If no item has the field, or none shares its value with an item of the other cohort.
pub(super) fn of(field: &str, rows: &[usize], n_a: usize, facts: &[ItemFacts]) -> Result<Vec<usize>> {
    check(field, facts)?;
    let value = |&row: &usize| facts.get(row).and_then(|facts| facts.fields.get(field));
    let values: Vec<Option<&String>> = rows.iter().map(value).collect();
    let distinct: BTreeSet<Option<&String>> = values.iter().copied().collect();
    let number: BTreeMap<Option<&String>, usize> = distinct.into_iter().zip(0..).collect();
    let strata: Vec<usize> = values.iter().map(|value| number[value]).collect();
    if mixed(&strata, n_a) == 0 {
        let found = "which no two items of different cohorts share";
        return Err(refused(field, found, "one that items of both cohorts have".into()));
    }
    Ok(strata)
}

/// Refuses a field that no item has.
pub(super) fn check(field: &str, facts: &[ItemFacts]) -> Result<()> {
    if facts.iter().any(|facts| facts.fields.contains_key(field)) {
        return Ok(());
    }
    let known: BTreeSet<&str> = facts.iter().flat_map(|facts| facts.fields.keys()).map(String::as_str).collect();
    let known: Vec<&str> = known.into_iter().collect();
    Err(refused(field, "which no item has", format!("a field that items have: {}", known.join(", "))))
}

fn refused(field: &str, why: &str, allowed: String) -> StudyError {
    StudyError::Option { what: "within".into(), found: format!("'{field}', {why}"), allowed }
}

/// How many items have one of the other cohort in their stratum: only these can tell anything.
pub(super) fn mixed(strata: &[usize], n_a: usize) -> usize {
    let of = |places: &[usize]| places.iter().copied().collect::<BTreeSet<usize>>();
    let both: BTreeSet<usize> = of(&strata[..n_a]).intersection(&of(&strata[n_a..])).copied().collect();
    strata.iter().filter(|stratum| both.contains(stratum)).count()
}

/// A column of ones and zeros for each stratum but the first.
pub(super) fn indicators(strata: &[usize]) -> Vec<Vec<f64>> {
    let count = strata.iter().max().map_or(0, |most| most + 1);
    (1..count).map(|one| strata.iter().map(|&of| f64::from(u8::from(of == one))).collect()).collect()
}
