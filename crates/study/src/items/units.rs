//! The units of a comparison: the items of one prompt, whose answers are no more independent than those of several seeds.

use std::collections::{BTreeMap, HashMap};

use crate::Item;

/// The items of each prompt ([`Item::prompt_key`]), in the order of the items.
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

/// The sum of each unit's values.
pub(crate) fn sums(values: &[f64], units: &[Vec<usize>]) -> Vec<f64> {
    units.iter().map(|of| of.iter().map(|&item| values[item]).sum()).collect()
}

/// How many items each unit has.
pub(crate) fn sizes(units: &[Vec<usize>]) -> Vec<usize> {
    units.iter().map(Vec::len).collect()
}

/// How far labels follow prompts: the variance that whatever the answers to one prompt have in common gives the difference of the
/// groups' means, `Σ (a/n_a - b/n_b)²` over prompts with `a` items in one group and `b` in the other, over what labels give of it on
/// average that are shuffled item by item, within strata if there are some. 1 where no prompt is repeated, 0 where every prompt has
/// its share of both groups; above 1 a null of items would be too narrow, below 1 too wide, which is why prompts are shuffled whole.
pub(crate) fn clustering(labels: &[bool], prompt_of: &[usize], strata: Option<&[usize]>) -> f64 {
    let n_a = labels.iter().filter(|&&label| label).count() as f64;
    let n_b = labels.len() as f64 - n_a;
    let stratum = |place: usize| strata.map_or(0, |strata| strata[place]);
    let mut of_stratum: BTreeMap<usize, [f64; 2]> = BTreeMap::new();
    let mut of_prompt: BTreeMap<usize, ([f64; 2], BTreeMap<usize, f64>)> = BTreeMap::new();
    for (place, (&label, &prompt)) in labels.iter().zip(prompt_of).enumerate() {
        of_stratum.entry(stratum(place)).or_default()[usize::from(!label)] += 1.0;
        let (counts, strata) = of_prompt.entry(prompt).or_default();
        counts[usize::from(!label)] += 1.0;
        *strata.entry(stratum(place)).or_default() += 1.0;
    }
    let (mut found, mut expected) = (0.0, 0.0);
    for ([a, b], strata) in of_prompt.values() {
        found += (a / n_a - b / n_b).powi(2);
        let (mut mean, mut variance) = (0.0, 0.0);
        for (stratum, m) in strata {
            let [in_a, in_b] = of_stratum[stratum];
            let n = in_a + in_b;
            mean += m * in_a / n;
            variance += if n > 1.0 { m * in_a * in_b * (n - m) / (n * n * (n - 1.0)) } else { 0.0 };
        }
        let both = 1.0 / n_a + 1.0 / n_b;
        expected += variance * both * both + (mean * both - (a + b) / n_b).powi(2);
    }
    // Where no shuffle moves anything, the labels as they are say what each says.
    if expected > 1e-12 * found { found / expected } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(bool, usize)], strata: Option<&[usize]>) -> f64 {
        let (labels, prompts): (Vec<bool>, Vec<usize>) = pairs.iter().copied().unzip();
        clustering(&labels, &prompts, strata)
    }

    #[test]
    fn labels_that_follow_prompts_are_told_from_those_that_do_not() {
        let single: Vec<(bool, usize)> = (0..82).map(|i| (i < 18, i)).collect();
        assert!((of(&single, None) - 1.0).abs() < 1e-12);
        // Eight of the small group answer one question.
        let eight: Vec<(bool, usize)> = (0..82).map(|i| (i < 18, if i < 8 { 0 } else { i })).collect();
        assert!((of(&eight, None) - 3.46).abs() < 0.01, "{}", of(&eight, None));
        let pair: Vec<(bool, usize)> = (0..82).map(|i| (i < 18, i.max(1))).collect();
        assert!(of(&pair, None) > 1.0 && of(&pair, None) < 1.1);
        // Each question twice in one group and once in the other: its effect is the same in both means.
        let balanced: Vec<(bool, usize)> = (0..90).map(|i| (i % 3 > 0, i / 3)).collect();
        assert!(of(&balanced, None) < 1e-12);
        // Five answers a question, all of one group; within questions there is nothing left to shuffle.
        let nested: Vec<(bool, usize)> = (0..80).map(|i| (i < 40, i / 5)).collect();
        assert!(of(&nested, None) > 4.0);
        // Uneven questions, shuffled within each.
        let uneven: Vec<(bool, usize)> = (0..80).map(|i| (i % 10 < 3 + i / 40, i / 5)).collect();
        let strata: Vec<usize> = (0..80).map(|i| i / 5).collect();
        assert!((of(&uneven, Some(&strata)) - 1.0).abs() < 1e-12);
    }
}
