//! Whether items that are called fresh have been seen before.

use std::collections::{BTreeMap, BTreeSet};

use super::{Overlap, view::Texts};
use crate::{Result, StudyError, probe::ProbeSet, text::some_of};

/// Share of common word triples above which two prompts are nearly the same.
const NEAR: f64 = 0.8;
/// Words in a triple.
const TRIPLE: usize = 3;
/// Fewest characters of a text without spaces that is compared by triples of characters.
const UNSPACED: usize = 12;
/// Most examples that an error names.
const NAMED: usize = 3;

/// What identifies the items of a set: hashes of their features and, as far as prompts are known, their hashes and texts.
pub(crate) struct Prompts {
    rows: Vec<u64>,
    hashes: Option<Vec<String>>,
    groups: Option<Vec<Option<String>>>,
    texts: Option<Vec<String>>,
}

impl Prompts {
    /// From the set, with the texts of its items if there are any.
    pub(crate) fn of(of: &Texts<'_>) -> Self {
        let texts = of.items.as_ref().map(|items| items.iter().map(|item| item.prompt_key()).collect());
        Self { rows: of.set.row_hashes(), hashes: of.set.prompts.clone(), groups: of.set.groups.clone(), texts }
    }
}

/// Compares the sets in every way that their files allow.
///
/// # Errors
/// If a fresh item is, or nearly is, a training item; the error names some.
pub(crate) fn compare(train: &Prompts, (set, fresh): (&ProbeSet, &Prompts)) -> Result<Overlap> {
    let known: BTreeSet<&u64> = train.rows.iter().collect();
    let seen = set.ids.iter().zip(&fresh.rows).filter(|(_, row)| known.contains(row));
    let seen: Vec<String> = seen.map(|(id, _)| format!("'{id}'")).collect();
    refuse(set, &seen, "the very features of a training item")?;
    let by_prompt = match (&train.hashes, &fresh.hashes) {
        (Some(train), Some(fresh_hashes)) => {
            let known: BTreeSet<&String> = asked(train).collect();
            let seen = fresh_hashes.iter().enumerate().filter(|(_, hash)| known.contains(hash));
            let seen: Vec<String> = seen.map(|(at, _)| name((set, fresh), at)).collect();
            refuse(set, &seen, "the prompt of a training item")?;
            true
        }
        _ => false,
    };
    let by_group = match (&train.groups, &fresh.groups) {
        (Some(train), Some(groups)) => {
            let known: BTreeSet<&String> = train.iter().flatten().collect();
            let seen = groups.iter().enumerate().filter_map(|(at, group)| Some((at, group.as_ref()?)));
            let seen = seen.filter(|(_, group)| known.contains(group));
            let seen: Vec<String> = seen.map(|(at, group)| format!("{} ('{group}')", name((set, fresh), at))).collect();
            refuse(set, &seen, "the group of a training item")?;
            true
        }
        _ => false,
    };
    let by_text = match (&train.texts, &fresh.texts) {
        (Some(train), Some(texts)) => {
            let pairs = near(train, texts);
            let seen: Vec<String> =
                pairs.iter().map(|&(old, new)| format!("'{}' (beside '{}')", texts[new], train[old])).collect();
            refuse(set, &seen, "nearly the prompt of a training item")?;
            true
        }
        _ => false,
    };
    Ok(Overlap { by_features: true, by_prompt, by_group, by_text })
}

/// The prompt hashes of items that asked anything: an empty prompt is not shared.
fn asked(hashes: &[String]) -> impl Iterator<Item = &String> {
    hashes.iter().filter(|hash| !hash.is_empty())
}

/// An item by its prompt, else its id, else its row in the file of features.
fn name((set, prompts): (&ProbeSet, &Prompts), at: usize) -> String {
    match &prompts.texts {
        Some(texts) => format!("'{}'", texts[at]),
        None if set.named => format!("'{}'", set.ids[at]),
        None => format!("row {}", set.rows[at]),
    }
}

fn refuse(fresh: &ProbeSet, seen: &[String], what: &str) -> Result<()> {
    if seen.is_empty() {
        return Ok(());
    }
    Err(StudyError::Overlap {
        fresh: fresh.origin.features.to_string(),
        count: seen.len(),
        what: what.into(),
        examples: some_of(seen, NAMED),
    })
}

/// Pairs (training, fresh) of texts that share most of their word triples. Texts of fewer words than two triples are only compared whole,
/// elsewhere.
fn near(train: &[String], fresh: &[String]) -> Vec<(usize, usize)> {
    let triples = |text: &String| -> BTreeSet<String> {
        let words: Vec<&str> = text.split(' ').collect();
        let chars: Vec<char> = text.chars().collect();
        // Scripts without spaces have hardly any words, but their characters say as much.
        if words.len() == 1 && chars.len() >= UNSPACED {
            return chars.windows(TRIPLE).map(|w| w.iter().collect()).collect();
        }
        if words.len() < 2 * TRIPLE { BTreeSet::new() } else { words.windows(TRIPLE).map(|w| w.join(" ")).collect() }
    };
    let of_train: Vec<BTreeSet<String>> = train.iter().map(triples).collect();
    let mut holders: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (item, triples) in of_train.iter().enumerate() {
        for triple in triples {
            holders.entry(triple).or_default().push(item);
        }
    }
    let mut pairs = Vec::new();
    for (new, triples) in fresh.iter().map(triples).enumerate() {
        let mut shared: BTreeMap<usize, usize> = BTreeMap::new();
        for triple in &triples {
            for &old in holders.get(triple.as_str()).into_iter().flatten() {
                *shared.entry(old).or_default() += 1;
            }
        }
        let is_near =
            |&(old, both): &(usize, usize)| both as f64 >= NEAR * (triples.len() + of_train[old].len() - both) as f64;
        pairs.extend(shared.into_iter().filter(is_near).map(|(old, _)| (old, new)));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_differ_in_a_word_are_near_and_short_ones_are_not() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let train = texts(&[
            "please explain to me in simple words why the sky looks so very blue on a clear summer day in june",
            "what is the capital of france",
        ]);
        let fresh = texts(&[
            "please explain to me in simple words why the sky looks so very blue on a clear summer day in july",
            "what is the capital of japan",
            "please explain in a few words how bread is made at home without an oven and without any yeast",
        ]);
        assert_eq!(near(&train, &fresh), [(0, 0)]);
        let chinese = |last: &str| texts(&[&format!("请用简单的语言解释一下为什么天空在晴朗的夏天是{last}")]);
        assert_eq!(near(&chinese("蓝色"), &chinese("蓝的")), [(0, 0)]);
    }
}
