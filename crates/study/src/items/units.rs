//! The units of a comparison: items that are no more independent of each other than the answers to one prompt, or than several
//! seeds of one answer.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use super::facts::{ItemFacts, check_field};
use crate::{Item, Result};

/// Refuses a field that no item has.
///
/// # Errors
/// The error names the fields that there are.
pub fn check_groups(items: &[Item], groups: Option<&str>) -> Result<()> {
    let facts = || items.iter().map(ItemFacts::of).collect::<Vec<_>>();
    groups.map_or(Ok(()), |field| check_field("groups", field, &facts()))
}

/// The items of each unit ([`unit_of`]), in the order of the items.
pub(crate) fn units(items: &[Item], groups: Option<&str>) -> Vec<Vec<usize>> {
    let facts: Vec<ItemFacts> = items.iter().map(ItemFacts::of).collect();
    let mut units: Vec<Vec<usize>> = Vec::new();
    for (index, unit) in unit_of(facts.iter().map(Some), groups).into_iter().enumerate() {
        if unit == units.len() {
            units.push(Vec::new());
        }
        units[unit].push(index);
    }
    units
}

/// The unit of each item, numbered in order of first appearance. Items of one prompt ([`Item::prompt_key`]) are in one unit; so are, if a
/// field is named, items with one value of it; and units that share an item are joined. An item that nothing is known of, or that asks
/// nothing, is a unit of its own; one without the field is in its prompt's.
pub(crate) fn unit_of<'a>(facts: impl Iterator<Item = Option<&'a ItemFacts>>, groups: Option<&str>) -> Vec<usize> {
    joined(facts.map(|facts| {
        let value = facts.zip(groups).and_then(|(facts, field)| facts.value(field));
        [facts.and_then(ItemFacts::asked).map(|prompt| (false, prompt)), value.map(|value| (true, value))]
    }))
}

/// A number for each item's response, the same for those that are word for word alike; none for no response.
pub(crate) fn response_of<'a>(facts: impl Iterator<Item = Option<&'a ItemFacts>>) -> Vec<Option<usize>> {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let number = |facts: Option<&'a ItemFacts>| {
        let next = numbers.len();
        Some(*numbers.entry(facts?.response.as_deref()?).or_insert(next))
    };
    facts.map(number).collect()
}

/// The unit of each item, from its keys: items that share a key are in one unit. Numbered in order of first appearance.
pub(crate) fn joined<K: Hash + Eq, const N: usize>(keys: impl Iterator<Item = [Option<K>; N]>) -> Vec<usize> {
    let mut first: HashMap<K, usize> = HashMap::new();
    let mut joined_to: Vec<usize> = Vec::new();
    for (item, keys) in keys.enumerate() {
        joined_to.push(item);
        for key in keys.into_iter().flatten() {
            let other = root(&joined_to, *first.entry(key).or_insert(item));
            let own = root(&joined_to, item);
            // Each item points to itself or an earlier one, so a root is the first of its unit.
            joined_to[own.max(other)] = own.min(other);
        }
    }
    let mut numbers = HashMap::new();
    let number = |item: usize| {
        let next = numbers.len();
        *numbers.entry(root(&joined_to, item)).or_insert(next)
    };
    (0..joined_to.len()).map(number).collect()
}

/// The first item in an item's unit, where each points to itself or an earlier one of it.
pub(crate) fn root(joined_to: &[usize], mut item: usize) -> usize {
    while joined_to[item] != item {
        item = joined_to[item];
    }
    item
}

/// What units are called, in the plural.
pub(crate) fn called(groups: Option<&str>) -> String {
    groups.map_or("prompts".into(), |field| format!("groups by {field}"))
}

/// This many units, with what they are called.
pub(crate) fn counted(count: usize, groups: Option<&str>) -> String {
    let one = groups.map_or("prompt".into(), |field| format!("group by {field}"));
    if count == 1 { format!("1 {one}") } else { format!("{count} {}", called(groups)) }
}

/// The sum of each unit's values.
pub(crate) fn sums(values: &[f64], units: &[Vec<usize>]) -> Vec<f64> {
    units.iter().map(|of| of.iter().map(|&item| values[item]).sum()).collect()
}

/// How many items each unit has.
pub(crate) fn sizes(units: &[Vec<usize>]) -> Vec<usize> {
    units.iter().map(Vec::len).collect()
}

/// How strongly labels follow units such as prompts: a ratio of two variances. The first is what an effect common to all answers to one
/// prompt adds to the variance of the difference of the groups' means, `Σ (a/n_a - b/n_b)²` over prompts with `a` items in one group and
/// `b` in the other. The second is its average over labels that are shuffled item by item, within strata if there are some. 1 if no prompt
/// is repeated, 0 if every prompt has its share of both groups. Above 1, a null that shuffles items would be too narrow, below 1 too wide:
/// that is why prompts are shuffled whole.
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
    // If no shuffle changes anything, every shuffle gives what the actual labels give.
    if expected > 1e-12 * found { found / expected } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(prompt: &str, topic: Option<&str>) -> ItemFacts {
        let fields = topic.map(|topic| ("topic".to_string(), topic.to_string())).into_iter().collect();
        ItemFacts { prompt: prompt.into(), fields, ..Default::default() }
    }

    #[test]
    fn items_of_a_prompt_or_of_a_group_are_one_unit() {
        let facts = [
            fact("a", Some("x")),
            fact("b", Some("y")),
            fact("b", None),
            fact("c", None),
            fact("d", Some("x")),
            fact("d", Some("z")),
            fact("e", Some("z")),
        ];
        let of = |groups: Option<&str>| unit_of(facts.iter().map(Some), groups);
        assert_eq!(of(None), [0, 1, 1, 2, 3, 3, 4]);
        assert_eq!(of(Some("topic")), [0, 1, 1, 2, 0, 0, 0], "d joins x and z");
        assert_eq!(unit_of([None, Some(&facts[0]), None].into_iter(), None), [0, 1, 2]);
        // The last item joins two units, the later of which already has two items.
        let chain = [fact("a", Some("x")), fact("b", Some("y")), fact("b", None), fact("a", Some("y"))];
        assert_eq!(unit_of(chain.iter().map(Some), Some("topic")), [0, 0, 0, 0]);
    }

    #[test]
    fn a_field_that_no_item_has_is_refused() {
        let items = |line: &str| vec![Item::parse(line, 1, false).unwrap()];
        let plain = items(r#"{"prompt":"a"}"#);
        let why = check_groups(&plain, Some("topic")).unwrap_err().to_string();
        assert!(why.contains("'topic', which no item has") && why.contains("none but their prompts"), "{why}");
        let answered = items(r#"{"prompt":"a","response":"b","topic":"t","n":[1]}"#);
        let why = check_groups(&answered, Some("n")).unwrap_err().to_string();
        assert!(why.ends_with("a field that items have: response, topic"), "{why}");
        let labelled = items(r#"{"prompt":"a","response":"b","label":"l","topic":"t"}"#);
        let why = check_groups(&labelled, Some("label")).unwrap_err().to_string();
        let true_of_it = "groups is 'label' (cohorts may follow from it), but must be another field that items have: response, topic";
        assert_eq!(why, true_of_it);
        assert!(check_groups(&answered, Some("response")).is_ok() && check_groups(&plain, None).is_ok());
    }

    fn of(pairs: &[(bool, usize)], strata: Option<&[usize]>) -> f64 {
        let (labels, prompts): (Vec<bool>, Vec<usize>) = pairs.iter().copied().unzip();
        clustering(&labels, &prompts, strata)
    }

    #[test]
    fn labels_that_follow_prompts_are_told_from_those_that_do_not() {
        let single: Vec<(bool, usize)> = (0..82).map(|i| (i < 18, i)).collect();
        assert!((of(&single, None) - 1.0).abs() < 1e-12);
        // Eight items of the small group answer one question.
        let eight: Vec<(bool, usize)> = (0..82).map(|i| (i < 18, if i < 8 { 0 } else { i })).collect();
        assert!((of(&eight, None) - 3.46).abs() < 0.01, "{}", of(&eight, None));
        let pair: Vec<(bool, usize)> = (0..82).map(|i| (i < 18, i.max(1))).collect();
        assert!(of(&pair, None) > 1.0 && of(&pair, None) < 1.1);
        // Each question twice in one group and once in the other: its effect is the same in both means.
        let balanced: Vec<(bool, usize)> = (0..90).map(|i| (i % 3 > 0, i / 3)).collect();
        assert!(of(&balanced, None) < 1e-12);
        // Five answers per question, all in one group; within questions there is nothing left to shuffle.
        let nested: Vec<(bool, usize)> = (0..80).map(|i| (i < 40, i / 5)).collect();
        assert!(of(&nested, None) > 4.0);
        // Uneven questions, shuffled within each.
        let uneven: Vec<(bool, usize)> = (0..80).map(|i| (i % 10 < 3 + i / 40, i / 5)).collect();
        let strata: Vec<usize> = (0..80).map(|i| i / 5).collect();
        assert!((of(&uneven, Some(&strata)) - 1.0).abs() < 1e-12);
    }
}
