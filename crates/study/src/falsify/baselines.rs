//! Probes on inputs that are not hidden states: what they reach needs no model to explain it.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_stats::{ClassWeight, Logistic, Random, Relabelings, Target, auc, delong_difference, mean, sigmoid};

use super::{Baseline, BaselineName, GateFile, view::Texts};
use crate::{
    Item, Npz, Result, Silent, StudyError, capture,
    items::words::words,
    probe::{Ends, FitOptions, Probe, ProbeSet, fit},
};

/// Most words in a bag: the most frequent of the training texts.
const WORDS: usize = 4096;
/// How many training texts a word must occur in.
const IN_TEXTS: usize = 2;
/// How many fits are made on shuffled training labels.
const SHUFFLED_FITS: u64 = 20;
/// The first random stream of the random features.
const STREAM: u64 = 0xfea7_0000_0000;

/// The AUC of what knows nothing.
const CHANCE: f64 = 0.5;

/// How many tables of random numbers are drawn: the AUC of a single one on forty items is off by 0.09.
const DRAWS: u64 = 20;

/// Features of the training items and of the fresh ones.
type Sides = [Vec<f64>; 2];

/// A table of features, and what they are.
struct Features {
    name: BaselineName,
    what: String,
    sides: Sides,
    count: usize,
}

/// Runs every baseline that the files allow, each fitted like the probe, and notes why others are not run.
///
/// # Errors
/// If a file cannot be read or a fit does not converge.
pub(crate) fn run(
    file: &GateFile,
    (train, fresh): (&Texts<'_>, &Texts<'_>),
    p: &[f64],
    notes: &mut Vec<String>,
) -> Result<Vec<Ran>> {
    let mut all = Vec::new();
    if file.controls.length {
        match (lengths(train)?, lengths(fresh)?) {
            (Some((train, what)), Some((fresh, same))) if what == same => {
                all.push(Features { name: BaselineName::Length, what, count: LENGTHS, sides: [train, fresh] });
            }
            _ => notes.push("no length baseline: neither [train] and [fresh] items nor captures' token counts".into()),
        }
    }
    if file.controls.truncation {
        match truncation(&train.cut_off(), &fresh.cut_off()) {
            Ok(features) => all.extend(features),
            Err(why) => notes.push(format!("no truncation baseline: {why}")),
        }
    }
    if file.controls.bag_of_words {
        match (&train.items, &fresh.items) {
            (Some(of_train), Some(of_fresh)) => match bag_of_words(of_train, of_fresh) {
                Some(features) => all.push(features),
                None => notes.push("no bag-of-words baseline: no word occurs in two training texts".into()),
            },
            _ => notes.push("no bag-of-words baseline: [train] items and [fresh] items are not both given".into()),
        }
    }
    let options = FitOptions { shuffles: 0, ..file.fit_options(train.set) }.without_intervals();
    let sets = (train.set, fresh.set);
    let mut ran = Vec::new();
    if file.controls.random_features {
        let (d, seed) = (train.set.features, file.probe.seed.into());
        let what = format!("{d} normal random numbers an item, the mean of {DRAWS} draws");
        let draws = (0..DRAWS).map(|draw| random(sets, seed, draw));
        ran.push(baseline((BaselineName::RandomFeatures, what, d), draws, sets, &options, p)?);
    }
    for Features { name, what, sides, count } in all {
        ran.push(baseline((name, what, count), std::iter::once(sides), sets, &options, p)?);
    }
    Ok(ran)
}

/// A baseline and what the probe is compared with: its probabilities for the fresh items, for each table that it was fitted on, or equal ones
/// where it ranks worse than chance.
pub(crate) type Ran = (Baseline, Vec<Vec<f64>>);

/// Fits a probe on each of these tables of `count` features; its AUCs are means over them.
fn baseline(
    (name, what, count): (BaselineName, String, usize),
    tables: impl Iterator<Item = Sides>,
    (train, fresh): (&ProbeSet, &ProbeSet),
    options: &FitOptions,
    p: &[f64],
) -> Result<Ran> {
    let (mut of_cv, mut of_fresh) = (Vec::new(), Vec::new());
    for [x, of] in tables {
        let set = ProbeSet { x, features: count, ..train.clone() };
        let fitted = fit(&set, options, name.as_str(), &mut Silent)?;
        let meta = &fitted.probe.meta;
        of_cv.push(meta.results[meta.chosen].cv.auc);
        of_fresh.push(fitted.probe.probabilities(meta.chosen, &of, count, name.as_str())?);
    }
    let fresh_auc = mean(&of_fresh.iter().map(|of| auc(of, &fresh.labels)).collect::<Vec<f64>>());
    // What ranks worse than chance is no easier to beat than what knows nothing.
    let rivals = if fresh_auc < CHANCE { vec![vec![CHANCE; p.len()]] } else { of_fresh };
    let gain = delong_difference(p, &rivals, &fresh.labels, &fresh.units);
    let found = Baseline {
        name,
        what,
        cv_auc: mean(&of_cv),
        fresh_auc,
        gain: gain.value,
        gain_range: gain.range.into(),
        to_beat: true,
        rival: name != BaselineName::RandomFeatures,
    };
    Ok((found, rivals))
}

/// The probe itself, fitted on shuffled training labels and applied to the fresh items: the mean over several fits.
///
/// # Errors
/// If a fit does not converge.
pub(crate) fn shuffled_labels(
    probe: &Probe,
    train: &ProbeSet,
    fresh: &ProbeSet,
    options: &FitOptions,
) -> Result<Baseline> {
    let c = probe.meta.results[probe.meta.chosen].c;
    let rows = |n: usize| (0..n).collect::<Vec<usize>>();
    let (items, d) = (train.labels.len(), train.features);
    let scaler = &probe.scaler;
    let (x, of_fresh) = (scaler.apply(&train.x, d, &rows(items)), scaler.apply(&fresh.x, d, &rows(fresh.labels.len())));
    let shuffles = Relabelings::new(&train.labels, options.measure.seed, &train.units, None);
    let one = |k: u64| -> Result<f64> {
        let labels = shuffles.labels(k);
        let weights = ClassWeight::from(options.class_weight).of(&labels);
        let fit = Logistic::fit(&x, d, Target { labels: &labels, weights: &weights, c })
            .map_err(|why| StudyError::fit("shuffled labels", why))?;
        let p: Vec<f64> = of_fresh.chunks_exact(d).map(|row| sigmoid(fit.log_odds(row))).collect();
        Ok(auc(&p, &fresh.labels))
    };
    let found = (0..SHUFFLED_FITS).map(one).collect::<Result<Vec<f64>>>()?;
    Ok(Baseline {
        name: BaselineName::ShuffledLabels,
        what: format!("the same features, {SHUFFLED_FITS} fits on training labels dealt out at random"),
        cv_auc: probe.meta.null.as_ref().map_or(f64::NAN, |null| null.mean),
        fresh_auc: mean(&found),
        gain: f64::NAN,
        gain_range: Ends::NONE,
        to_beat: false,
        rival: false,
    })
}

/// Normal random numbers of the same shape, another table for each `draw`.
fn random((train, fresh): (&ProbeSet, &ProbeSet), seed: u64, draw: u64) -> Sides {
    let table = |stream: u64, set: &ProbeSet| -> Vec<f64> {
        let mut random = Random::new(seed, STREAM + stream);
        (0..set.labels.len() * train.features).map(|_| random.normal()).collect()
    };
    [table(2 * draw, train), table(2 * draw + 1, fresh)]
}

/// Number of length features: one for the prompt, one for the response.
const LENGTHS: usize = 2;

/// The logarithms of prompt and response length: in tokens if a capture has them, otherwise in words.
fn lengths(texts: &Texts<'_>) -> Result<Option<(Vec<f64>, String)>> {
    let path = &texts.set.origin.features.path;
    let [prompt, total] = capture::LENGTHS.map(|name| Npz::find_array(path, name));
    if let (Some(prompt), Some(total)) = (prompt?, total?) {
        let (rows, name) = (&texts.set.rows, |place: usize| format!("row {}", texts.set.rows[place]));
        let tokens = capture::lengths(path, [prompt, total], (texts.set.total, rows), name)?;
        let of = |[prompt, total]: [usize; 2]| [prompt, total - prompt].map(|tokens| (tokens as f64).ln_1p());
        return Ok(Some((tokens.into_iter().flat_map(of).collect(), "log tokens of prompt and response".into())));
    }
    let Some(items) = &texts.items else { return Ok(None) };
    let length = |text: &str| (words(text).len() as f64).ln_1p();
    let of = |item: &&Item| [length(&item.prompt_text()), length(item.response.as_deref().unwrap_or_default())];
    Ok(Some((items.iter().flat_map(of).collect(), "log words of prompt and response".into())))
}

/// Whether each response was cut off at a limit of tokens, and whether that is known; none where all responses ended alike, and an error,
/// which says why, where a baseline cannot be made of it.
fn truncation(train: &[Option<bool>], fresh: &[Option<bool>]) -> std::result::Result<Option<Features>, &'static str> {
    let unknown = |ends: &[Option<bool>]| ends.iter().all(Option::is_none);
    let alike = |ends: &[Option<bool>]| ends.windows(2).all(|pair| pair[0] == pair[1]);
    if unknown(train) || unknown(fresh) {
        return Err("whether responses were cut off is not known");
    }
    if alike(train) {
        let same = alike(fresh) && train.first() == fresh.first();
        return if same { Ok(None) } else { Err("all training responses ended alike, and fresh ones did not") };
    }
    let number = |is: bool| f64::from(u8::from(is));
    let table = |ends: &[Option<bool>]| -> Vec<f64> {
        ends.iter().flat_map(|end| [number(*end == Some(true)), number(end.is_none())]).collect()
    };
    Ok(Some(Features {
        name: BaselineName::Truncation,
        what: "whether the response was cut off at a limit of tokens, if that is known".into(),
        sides: [table(train), table(fresh)],
        count: 2,
    }))
}

/// How often each word of the training texts occurs in prompt and response.
fn bag_of_words(train: &[&Item], fresh: &[&Item]) -> Option<Features> {
    let bags = |items: &[&Item]| items.iter().map(|item| bag(item)).collect::<Vec<_>>();
    let (of_train, of_fresh) = (bags(train), bags(fresh));
    let mut in_texts: BTreeMap<&str, usize> = BTreeMap::new();
    of_train.iter().flat_map(BTreeMap::keys).for_each(|word| *in_texts.entry(word).or_default() += 1);
    let mut words: Vec<(&str, usize)> = in_texts.into_iter().filter(|(_, texts)| *texts >= IN_TEXTS).collect();
    words.sort_by_key(|&(word, texts)| (std::cmp::Reverse(texts), word));
    words.truncate(WORDS);
    let words: BTreeSet<&str> = words.into_iter().map(|(word, _)| word).collect();
    if words.is_empty() {
        return None;
    }
    let table = |bags: &[BTreeMap<String, usize>]| {
        let count = |bag: &BTreeMap<String, usize>, word: &str| (*bag.get(word).unwrap_or(&0) as f64).ln_1p();
        bags.iter().flat_map(|bag| words.iter().map(move |word| count(bag, word))).collect::<Vec<f64>>()
    };
    let what = format!("log counts of {} words of prompt and response", words.len());
    Some(Features {
        name: BaselineName::BagOfWords,
        what,
        sides: [table(&of_train), table(&of_fresh)],
        count: words.len(),
    })
}

/// The words of an item; those of the prompt are distinct from those of the response.
fn bag(item: &Item) -> BTreeMap<String, usize> {
    let mut bag = BTreeMap::new();
    for (side, text) in [("prompt", item.prompt_text()), ("response", item.response.clone().unwrap_or_default())] {
        for word in words(&text) {
            *bag.entry(format!("{side} {word}")).or_default() += 1;
        }
    }
    bag
}
