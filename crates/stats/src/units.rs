//! Units: items that may depend on each other, such as the answers to one prompt, and stay together.

use std::collections::{BTreeMap, BTreeSet};

/// The members of each unit by the groups that they belong to: units of group a alone, of both groups, of group b alone.
pub(crate) fn by_group(unit: &[usize], in_a: impl Fn(usize) -> bool) -> [Vec<Vec<usize>>; 3] {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    unit.iter().enumerate().for_each(|(at, &of)| members.entry(of).or_default().push(at));
    let mut kinds = [(); 3].map(|()| Vec::new());
    for members in members.into_values() {
        let of_a = members.iter().filter(|&&at| in_a(at)).count();
        let kind = if of_a == members.len() { 0 } else { 1 + usize::from(of_a == 0) };
        kinds[kind].push(members);
    }
    kinds
}

/// How many units of one size these are worth: `n² / Σ size²`, the number itself where they are of one size (Carter, Schnepel and
/// Steigerwald 2017). One that holds most items leaves little more than one.
pub fn effective_units(sizes: impl IntoIterator<Item = usize>) -> f64 {
    let sizes = sizes.into_iter().map(|size| size as f64);
    let (n, squares) = sizes.fold((0.0, 0.0), |(n, squares), size| (n + size, squares + size * size));
    n * n / squares
}

/// How many items each unit has, in the order of the units.
fn sizes(unit: &[usize]) -> impl Iterator<Item = usize> {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for &of in unit {
        *sizes.entry(of).or_default() += 1;
    }
    sizes.into_values()
}

/// How many units of one size those of either class are worth at least, counting the items that they have in it; NaN for no item of a class.
/// Panics unless there is one unit per label.
pub fn class_worth(labels: &[bool], unit: &[usize]) -> f64 {
    assert_eq!(labels.len(), unit.len(), "one unit a label");
    let of = |class: bool| {
        let own: Vec<usize> =
            unit.iter().zip(labels).filter(|&(_, &label)| label == class).map(|(&of, _)| of).collect();
        effective_units(sizes(&own))
    };
    let (one, other) = (of(true), of(false));
    if one.is_nan() || other.is_nan() { f64::NAN } else { one.min(other) }
}

/// The degrees of freedom of what compares two classes over units: one less than those of a class are worth. None below one: a class then
/// is in one unit, or nearly.
pub(crate) fn class_freedom(labels: &[bool], unit: &[usize]) -> Option<f64> {
    let freedom = class_worth(labels, unit) - 1.0;
    (freedom >= 1.0).then_some(freedom)
}

/// How many independent items a share over items of units is worth, so that p (1 - p) over it is the share's variance, the jackknife's
/// over units: a unit with many items pulls the share towards its own, so that its distance from it says too little. At most the number of
/// items and at least one; where the share has no spread to judge by, as many as the units are worth. Panics unless there is one unit per
/// item.
pub fn worth(holds: &[bool], unit: &[usize]) -> f64 {
    assert_eq!(holds.len(), unit.len(), "one unit an item");
    let n = holds.len() as f64;
    let share = holds.iter().filter(|&&holds| holds).count() as f64 / n;
    let mut units: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (&holds, &of) in holds.iter().zip(unit) {
        let (sum, size) = units.entry(of).or_default();
        (*sum, *size) = (*sum + f64::from(holds) - share, *size + 1.0);
    }
    let (of_item, count) = (share * (1.0 - share), units.len() as f64);
    if units.len() == holds.len() || units.len() < 2 || of_item == 0.0 {
        return effective_units(sizes(unit));
    }
    let without = |&(sum, size): &(f64, f64)| sum / (n - size);
    let variance = units.values().map(|unit| without(unit).powi(2)).sum::<f64>() * (count - 1.0) / count;
    (of_item / variance).clamp(1.0, n)
}

/// The unit of each item if small strata stay whole as well: units that have items of one stratum are joined, strata with the
/// fewest items first, as long as no more than `most` items come together. Panics unless there is one unit and one stratum per
/// item.
pub fn with_small_strata(unit: &[usize], stratum: &[usize], most: usize) -> Vec<usize> {
    assert_eq!(unit.len(), stratum.len(), "one unit and one stratum an item");
    let mut joined = unit.to_vec();
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    stratum.iter().enumerate().for_each(|(item, &of)| members.entry(of).or_default().push(item));
    let mut strata: Vec<Vec<usize>> = members.into_values().collect();
    strata.sort_by_key(Vec::len);
    for items in strata.into_iter().take_while(|items| items.len() <= most) {
        let together: BTreeSet<usize> = items.iter().map(|&item| joined[item]).collect();
        let all: Vec<usize> = (0..unit.len()).filter(|&item| together.contains(&joined[item])).collect();
        if all.len() <= most {
            for item in all {
                joined[item] = joined[items[0]];
            }
        }
    }
    joined
}

/// The fewest units of a class for an interval by resampling: with two it would hold the truth in only two of three cases, with three in
/// four of five.
const LEAST_RESAMPLED: usize = 4;

/// Whether units of both classes are enough, and even enough, for an interval by resampling them.
pub(crate) fn can_resample(labels: &[bool], unit: &[usize]) -> bool {
    let of = |class: bool| {
        let own: BTreeSet<usize> =
            unit.iter().zip(labels).filter(|&(_, &label)| label == class).map(|(&of, _)| of).collect();
        own.len()
    };
    of(true).min(of(false)) >= LEAST_RESAMPLED && class_freedom(labels, unit).is_some()
}

/// Whether every item is a unit of its own.
pub(crate) fn are_alone(unit: &[usize]) -> bool {
    unit.iter().collect::<BTreeSet<_>>().len() == unit.len()
}

/// Every item a unit of its own.
pub(crate) fn alone(items: usize) -> Vec<usize> {
    (0..items).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_strata_join_units_until_too_many_are_together() {
        let joined = |unit: &[usize], stratum: &[usize], most: usize| {
            let joined = with_small_strata(unit, stratum, most);
            let first = |item: usize| joined.iter().position(|&of| of == joined[item]).unwrap();
            (0..unit.len()).map(first).collect::<Vec<_>>()
        };
        assert_eq!(joined(&alone(6), &[0, 1, 2, 0, 1, 2], 3), [0, 1, 2, 0, 1, 2], "pairs");
        assert_eq!(joined(&alone(6), &[0, 0, 0, 0, 1, 1], 3), [0, 1, 2, 3, 4, 4], "four are too many");
        assert_eq!(
            joined(&[0, 1, 1, 2, 3, 4], &[0, 0, 1, 1, 2, 2], 3),
            [0, 0, 0, 3, 4, 4],
            "what a unit ties is not joined further"
        );
        assert_eq!(joined(&[0, 1, 1, 2, 3, 4], &[0, 0, 1, 1, 2, 2], 4), [0, 0, 0, 0, 4, 4]);
    }

    #[test]
    fn a_share_is_worth_its_units_where_they_agree_and_its_items_where_they_do_not() {
        let unit: Vec<usize> = (0..40).map(|item| item / 4).collect();
        let agreeing: Vec<bool> = (0..40).map(|item| item / 4 % 2 == 0).collect();
        assert!((worth(&agreeing, &unit) - 9.0).abs() < 1e-9, "ten units, one taken by their mean");
        let apart: Vec<bool> = (0..40).map(|item| item % 4 < 2).collect();
        assert_eq!(worth(&apart, &unit), 40.0, "each unit has the share of all");
        assert_eq!((worth(&[true; 40], &unit), worth(&agreeing, &alone(40))), (10.0, 40.0));
        assert_eq!(worth(&[true, false], &[0, 0]), 1.0);
        // Eight of ten items in one unit: three units are worth little more than one.
        let large = [0, 0, 0, 0, 0, 0, 0, 0, 1, 2];
        assert!((worth(&[true; 10], &large) - 100.0 / 66.0).abs() < 1e-12);
        assert!(worth(&[true, true, true, true, true, true, true, true, false, true], &large) < 2.0);
    }
}
