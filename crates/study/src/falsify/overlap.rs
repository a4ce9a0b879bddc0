//! Whether items that are called fresh have been seen before.

use std::collections::{BTreeMap, BTreeSet};

use super::{Overlap, view::Texts};
use crate::{
    Result, StudyError,
    probe::{Likeness, ProbeSet},
    text::some_of,
};

/// Share of common word triples above which two prompts are nearly the same.
const NEAR: f64 = 0.8;
/// Words in a triple.
const TRIPLE: usize = 3;
/// Fewest characters of a text without spaces that is compared by triples of characters.
const UNSPACED: usize = 12;
/// Most examples that an error names.
const NAMED: usize = 3;

/// What identifies the items of a set: their features and, as far as prompts are known, their hashes and texts.
pub(crate) struct Prompts {
    rows: Vec<u64>,
    likeness: Option<Likeness>,
    hashes: Option<Vec<String>>,
    groups: Option<Vec<Option<String>>>,
    texts: Option<Vec<String>>,
}

impl Prompts {
    /// From the set, with the texts of its items if there are any.
    pub(crate) fn of(of: &Texts<'_>) -> Self {
        let texts = of.items.as_ref().map(|items| items.iter().map(|item| item.prompt_key()).collect());
        let likeness = Likeness::of(&of.set.x, of.set.features);
        Self {
            rows: of.set.row_hashes(),
            likeness,
            hashes: of.set.prompts.clone(),
            groups: of.set.groups.clone(),
            texts,
        }
    }
}

/// Compares the sets in every way that their files allow.
///
/// # Errors
/// If a fresh item is, or nearly is, a training item; the error names some.
pub(crate) fn compare(train: &Prompts, (set, fresh): (&ProbeSet, &Prompts)) -> Result<Overlap> {
    let known: BTreeSet<&u64> = train.rows.iter().collect();
    let named = |held: Vec<bool>| -> Vec<String> {
        (0..held.len()).filter(|&at| held[at]).map(|at| format!("'{}'", set.ids[at])).collect()
    };
    let seen = fresh.rows.iter().map(|row| known.contains(row)).collect();
    refuse(set, &named(seen), "the very features of a training item")?;
    // A row of another width fits no probe, which is said elsewhere.
    if let Some(likeness) = train.likeness.as_ref().filter(|likeness| likeness.features() == set.features) {
        refuse(set, &named(likeness.holds(&set.x)), "the features of a training item, but for rounding")?;
    }
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
            let told = |(old, new): (usize, usize)| format!("'{}' (beside '{}')", texts[new], train[old]);
            let seen: Vec<String> = near(train, texts).into_iter().map(told).collect();
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

/// Fresh texts that share most of their word triples with a training text, as pairs (training, fresh): one of the training texts for each.
/// Texts of fewer words than two triples are only compared whole, elsewhere.
///
/// Two near texts share one of the [`first`] triples of both, wherever triples stand in one order. The rarest come first in it, so that
/// what many prompts have in common, such as an instruction, makes no candidates.
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
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    of_train.iter().flatten().for_each(|triple| *held.entry(triple).or_default() += 1);
    let mut order: Vec<(usize, &str)> = held.into_iter().map(|(triple, held)| (held, triple)).collect();
    order.sort_unstable();
    let place: BTreeMap<&str, usize> = order.iter().enumerate().map(|(place, (_, triple))| (*triple, place)).collect();
    // The places of those triples that some training text has.
    let places = |triples: &BTreeSet<String>| -> Vec<usize> {
        let mut places: Vec<usize> = triples.iter().filter_map(|triple| place.get(triple.as_str()).copied()).collect();
        places.sort_unstable();
        places
    };
    let of_train: Vec<Vec<usize>> = of_train.iter().map(places).collect();
    let mut holders = vec![Vec::new(); order.len()];
    for (old, places) in of_train.iter().enumerate() {
        places.iter().take(first(places.len())).for_each(|&place| holders[place].push(old));
    }
    let mut compared = vec![None; train.len()];
    let near_one = |(new, triples): (usize, BTreeSet<String>)| {
        let known = places(&triples);
        // Those that no training text has are the rarest.
        let unknown = triples.len() - known.len();
        let rare = known.iter().take(first(triples.len()).saturating_sub(unknown));
        let mut candidates = rare.flat_map(|&place| &holders[place]);
        let old = candidates.find(|&&old| {
            if compared[old].replace(new) == Some(new) {
                return false;
            }
            let both = in_both(&known, &of_train[old]);
            both as f64 >= NEAR * (triples.len() + of_train[old].len() - both) as f64
        });
        old.map(|&old| (old, new))
    };
    fresh.iter().map(triples).enumerate().filter_map(near_one).collect()
}

/// How many of a text's triples, in any order, hold one that every near text has among as many of its own: at least [`NEAR`] of them are in
/// both.
fn first(triples: usize) -> usize {
    // What the product is off by may make it no larger.
    triples - ((NEAR * triples as f64 - 1e-9).ceil() as usize).min(triples) + usize::from(triples > 0)
}

/// How many values two ascending lists have in common.
fn in_both(a: &[usize], b: &[usize]) -> usize {
    let (mut i, mut j, mut both) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let order = a[i].cmp(&b[j]);
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
        both += usize::from(order.is_eq());
    }
    both
}

#[cfg(test)]
mod tests {
    use headtemper_stats::Random;

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

    /// Texts of few words, so that many are near, some behind an instruction that all have: as comparing every pair finds them.
    #[test]
    fn candidates_miss_no_near_text() {
        let mut random = Random::new(1, 0);
        let mut text = |most: usize| {
            let words = 6 + random.below(most);
            let start =
                if random.below(2) == 0 { "answer the next question in one short sentence and say why " } else { "" };
            start.to_string()
                + &(0..words).map(|at| format!("w{at}{}", random.below(8) / 7)).collect::<Vec<_>>().join(" ")
        };
        for most in [3, 10, 30] {
            let (train, fresh): (Vec<_>, Vec<_>) = (0..80).map(|_| (text(most), text(most))).unzip();
            let triples = |text: &str| -> BTreeSet<String> {
                text.split(' ').collect::<Vec<_>>().windows(3).map(|words| words.join(" ")).collect()
            };
            let is_near = |old: &String, new: &String| {
                let (old, new) = (triples(old), triples(new));
                old.intersection(&new).count() as f64 >= NEAR * old.union(&new).count() as f64
            };
            let expected: Vec<usize> =
                (0..80).filter(|&new| train.iter().any(|old| is_near(old, &fresh[new]))).collect();
            let found = near(&train, &fresh);
            assert!(found.iter().all(|&(old, new)| is_near(&train[old], &fresh[new])));
            assert_eq!(found.iter().map(|&(_, new)| new).collect::<Vec<_>>(), expected, "up to {most} more words");
            assert!((5..75).contains(&expected.len()), "{} of 80 show little", expected.len());
        }
    }
}
