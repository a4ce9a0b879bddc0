//! Items that may change labels with each other: those that share the value of a field.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ItemFacts, Result, StudyError, items::facts::check_field};

/// The stratum of each item, by the value of a field; items without it are a stratum of their own.
///
/// # Errors
/// If no item has the field, or none shares its value with an item of the other cohort.
pub(super) fn of(field: &str, rows: &[usize], n_a: usize, facts: &[ItemFacts]) -> Result<Vec<usize>> {
    check_field("within", field, facts)?;
    let value = |&row: &usize| facts.get(row).and_then(|facts| facts.value(field));
    let values: Vec<Option<&str>> = rows.iter().map(value).collect();
    let distinct: BTreeSet<Option<&str>> = values.iter().copied().collect();
    let number: BTreeMap<Option<&str>, usize> = distinct.into_iter().zip(0..).collect();
    let strata: Vec<usize> = values.iter().map(|value| number[value]).collect();
    if mixed(&strata, n_a) == 0 {
        let found = format!("'{field}', which no two items of different cohorts share");
        let allowed = "one that items of both cohorts have";
        return Err(StudyError::option("within", found, allowed));
    }
    Ok(strata)
}

/// How many items have an item of the other cohort in their stratum: only these can tell anything.
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
