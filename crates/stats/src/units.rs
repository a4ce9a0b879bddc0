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

/// How many independent items a share over items of units is worth, so that p (1 - p) over it is the share's variance. This is the
/// number of items over Kish's design effect, at most the number of items and at least one; where the share has no spread to judge
/// by, it is the number of units. Panics unless there is one unit per item.
pub fn worth(holds: &[bool], unit: &[usize]) -> f64 {
    assert_eq!(holds.len(), unit.len(), "one unit an item");
    let n = holds.len() as f64;
    let share = holds.iter().filter(|&&holds| holds).count() as f64 / n;
    let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
    for (&holds, &of) in holds.iter().zip(unit) {
        *sums.entry(of).or_default() += f64::from(holds) - share;
    }
    let units = sums.len() as f64;
    let of_items = n * share * (1.0 - share);
    if sums.len() == holds.len() || sums.len() < 2 || of_items == 0.0 {
        return units;
    }
    let of_units = sums.values().map(|sum| sum * sum).sum::<f64>() * units / (units - 1.0);
    (n * of_items / of_units).clamp(1.0, n)
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
    }
}
