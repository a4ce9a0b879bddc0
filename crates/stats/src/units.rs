//! Units: items that are no more independent of each other than the answers to one prompt, and stay together.

use std::collections::BTreeMap;

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

/// Every item a unit of its own.
pub(crate) fn alone(items: usize) -> Vec<usize> {
    (0..items).collect()
}
