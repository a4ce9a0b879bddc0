//! The units of a comparison: the items of one prompt, whose answers are no more independent than those of several seeds.

use std::collections::HashMap;

use crate::Item;

/// The items of each prompt, in the order of the items.
pub(crate) fn units(items: &[Item]) -> Vec<Vec<usize>> {
    let mut units: Vec<Vec<usize>> = Vec::new();
    let mut place = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let at = *place.entry(item.prompt_key()).or_insert(units.len());
        if at == units.len() {
            units.push(Vec::new());
        }
        units[at].push(index);
    }
    units
}

/// What each unit adds to the mean of its items' values, times the units: the mean over units is that over items.
pub(crate) fn per_unit(values: &[f64], units: &[Vec<usize>]) -> Vec<f64> {
    let items: usize = units.iter().map(Vec::len).sum();
    let scale = units.len() as f64 / items as f64;
    units.iter().map(|of| of.iter().map(|&item| values[item]).sum::<f64>() * scale).collect()
}
