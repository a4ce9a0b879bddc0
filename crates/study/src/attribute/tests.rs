//! Planted stories, and what must hold where there is none.

mod prompts;
mod rounding;
mod told;
mod within;

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use headtemper_engine::EngineError;
use headtemper_hook::{HeadKind, HeadRef, Site};
use headtemper_stats::{Random, mean};

use super::*;
use crate::{attribution::Verdict, capture::features::HeadVectors};

/// How many sds long a head's common mean is: as in real models, most of z is the same for all items.
const COMMON: f64 = 15.0;

/// What is planted in a head.
#[derive(Clone, Copy)]
enum Story {
    /// a lies elsewhere, across the mean.
    Elsewhere,
    /// a is louder: all of its z is longer.
    Louder,
    /// Nothing.
    Nothing,
    /// The norm follows the length of the response.
    FollowsLength,
}

/// Features of `n` items in each cohort, a's first: a layer of 64 dimensions with one head per story, and a layer of 2 dimensions
/// with one head that has none. Responses in a are `longer` tokens longer.
fn planted(stories: &[Story], n: usize, longer: usize, seed: u64) -> Features {
    let mut random = Random::new(seed, 77);
    let lengths: Vec<usize> =
        (0..2 * n).map(|item| 40 + (12.0 * random.uniform()) as usize + if item < n { longer } else { 0 }).collect();
    let mut wide = Vec::new();
    let mut narrow = Vec::new();
    for (item, &length) in lengths.iter().enumerate() {
        let in_a = item < n;
        for story in stories {
            let scale = match story {
                Story::Louder if in_a => 1.15,
                Story::FollowsLength => 1.0 + 0.01 * (length as f64 - 40.0),
                _ => 1.0,
            };
            for k in 0..64 {
                let common = if k == 0 { COMMON } else { 0.0 };
                let shift = if matches!(story, Story::Elsewhere) && in_a && k == 3 { 2.5 } else { 0.0 };
                wide.push((scale * (common + shift + random.normal())) as f32);
            }
        }
        (0..2).for_each(|k| narrow.push((COMMON * f64::from(u8::from(k == 0)) + random.normal()) as f32));
    }
    let items = 2 * n;
    let norm = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    let heads = stories.len();
    let norms: Vec<f32> = (0..items)
        .flat_map(|item| {
            let of_item = &wide[item * heads * 64..(item + 1) * heads * 64];
            of_item.chunks(64).map(norm).chain([norm(&narrow[item * 2..item * 2 + 2])]).collect::<Vec<_>>()
        })
        .collect();
    let meta = serde_json::json!({
        "schema": "features/v1", "model": "planted", "architecture": "none", "weights_sha256": "", "dtype": "f32",
        "device": "cpu", "version": "0", "plan": [], "site": "", "layer_site": "", "last_n": 32,
    });
    Features {
        ids: (0..items).map(|item| item.to_string()).collect(),
        labels: vec![String::new(); items],
        prompt_len: vec![10; items],
        total_len: lengths.iter().map(|length| 10 + length).collect(),
        d_model: 1,
        h_last: vec![0.0; items],
        layers: Vec::new(),
        h_layers: Vec::new(),
        h_mean: Vec::new(),
        slots: (0..heads).map(|head| HeadRef::query(0, head)).chain([HeadRef::query(1, 0)]).collect(),
        head_norm: norms.clone(),
        head_norm_final: norms,
        head_vectors: vec![
            HeadVectors { site: Site::Z(0), heads, dim: 64, values: wide },
            HeadVectors { site: Site::Z(1), heads: 1, dim: 2, values: narrow },
        ],
        vocab: 0,
        logits: Vec::new(),
        columns: crate::Columns::default(),
        meta: serde_json::from_value(meta).unwrap(),
    }
}

fn facts(items: usize) -> Vec<ItemFacts> {
    let fact = |item: usize| ItemFacts { prompt: item.to_string(), truncated: Some(false), ..ItemFacts::default() };
    (0..items).map(fact).collect()
}

fn compare(features: &Features, n: usize, options: &AttributeOptions) -> Disposition {
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..n).collect(), b: (n..2 * n).collect() };
    attribute(features, &spec, &cohorts, &facts(2 * n), options).unwrap()
}

fn quick(seed: u64) -> AttributeOptions {
    AttributeOptions { shuffles: 199, repeats: 3, resamples: 50, seed, ..AttributeOptions::default() }
}

#[test]
fn the_verdict_names_each_planted_story() {
    let stories = [Story::Elsewhere, Story::Louder, Story::Nothing];
    let wanted = [Verdict::Separable, Verdict::MagnitudeOnly, Verdict::VarianceArtefact, Verdict::NoEvidence];
    let mut right = [0; 4];
    let sets = 25;
    for set in 0..sets {
        let found = compare(&planted(&stories, 40, 0, set), 40, &quick(set));
        for (count, (head, wanted)) in right.iter_mut().zip(found.heads.iter().zip(wanted)) {
            *count += usize::from(head.verdict == wanted);
        }
    }
    println!("right of {sets}: {right:?}");
    // Each of the two questions is asked at 5 %, over all heads.
    assert!(right.iter().all(|&count| count >= sets as usize - 4), "{right:?}");
}

#[test]
fn a_small_cohort_that_spreads_further_is_warned_of() {
    let warned = |times: f32, b: std::ops::Range<usize>| {
        let mut features = planted(&[Story::Nothing; 3], 40, 0, 4);
        let slots = features.slots.len();
        for head in 0..slots {
            let center = features.head_norm[head];
            features
                .head_norm
                .iter_mut()
                .skip(head)
                .step_by(slots)
                .take(12)
                .for_each(|x| *x = center + times * (*x - center));
        }
        let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
        let cohorts = Cohorts { a: (0..12).collect(), b: b.collect() };
        let found = attribute(&features, &spec, &cohorts, &facts(80), &quick(1)).unwrap();
        found.warnings.iter().any(|warning| warning.contains("a, the smaller cohort (12 items beside 40), spread"))
    };
    assert!(warned(3.0, 40..80), "a small one that spreads");
    assert!(!warned(1.0, 40..80) && !warned(0.4, 40..80), "a small one that does not");
    assert!(!warned(3.0, 40..52), "cohorts of one size");
}

#[test]
fn without_signal_one_report_in_ten_names_a_head() {
    let sets = 150;
    let names = |set: u64| {
        let found = compare(&planted(&[Story::Nothing; 5], 20, 0, 1000 + set), 20, &quick(set));
        usize::from(found.heads.iter().any(|h| matches!(h.verdict, Verdict::Separable | Verdict::MagnitudeOnly)))
    };
    let share = (0..sets).map(names).sum::<usize>() as f64 / sets as f64;
    println!("named a head: {share}");
    assert!(share < 0.1 + 4.0 * (0.1 * 0.9 / sets as f64).sqrt(), "{share}");
}

#[test]
fn shuffled_labels_centre_the_held_out_d_and_not_the_naive_one() {
    let found = compare(&planted(&[Story::Nothing; 3], 25, 0, 5), 25, &quick(5));
    let shuffled = &found.shuffled;
    assert!(shuffled.mean_d_crossfit.abs() < 0.05, "{}", shuffled.mean_d_crossfit);
    assert!(shuffled.mean_d_naive > 1.0 && shuffled.d_crossfit_q05 < 0.0 && shuffled.d_crossfit_q95 > 0.0);
    for head in &found.heads {
        assert!(head.magnitude.q >= head.magnitude.p && head.magnitude.p_max >= head.magnitude.p);
        assert!(head.q_directional >= head.p_directional && head.p_max_directional >= head.p_directional);
        assert!(head.d_low <= head.magnitude.cohen_d && head.magnitude.cohen_d <= head.d_high);
        assert!((head.g_low / head.d_low - head.hedges_g / head.magnitude.cohen_d).abs() < 1e-9);
    }
}

#[test]
fn a_planted_length_confound_is_flagged_and_taken_out() {
    let features = planted(&[Story::FollowsLength, Story::Nothing], 40, 10, 3);
    let found = compare(&features, 40, &quick(3));
    let head = &found.heads[0];
    assert!(head.magnitude.p_max <= LEVEL && head.r_length > 0.5, "{head:?}");
    assert!(head.d_length_adjusted.abs() < 0.5, "{}", head.d_length_adjusted);
    assert_eq!(found.length.only_by_length, 1);
    assert!(found.length.ranking_r > 0.9 && found.length.ranking_p > 0.0, "{:?}", found.length);
    assert!(found.length.cohen_d > 1.0 && found.length.p <= 0.01);
    assert!(found.warnings.iter().any(|warning| warning.contains("differ in length")), "{:?}", found.warnings);
    assert!(found.sentence.contains("differ in response length (d = +2"), "{}", found.sentence);
    let adjusted = compare(&features, 40, &AttributeOptions { adjust: Adjust::Length, ..quick(3) });
    assert!(adjusted.heads[0].magnitude.p_max > LEVEL, "{:?}", adjusted.heads[0]);
    assert_eq!(adjusted.heads[0].magnitude.cohen_d, head.d_length_adjusted);
    assert!(!matches!(adjusted.heads[0].verdict, Verdict::Separable | Verdict::MagnitudeOnly));
}

/// Nothing is left of cohorts that their lengths tell apart: that is no null.
#[test]
fn cohorts_that_follow_from_length_are_no_test_beside_it() {
    let mut features = planted(&[Story::Louder], 40, 0, 3);
    features.total_len = (0..80).map(|item| if item < 40 { 23 } else { 51 }).collect();
    assert!(compare(&features, 40, &quick(3)).heads[0].magnitude.p_max <= LEVEL);
    let adjusted = AttributeOptions { adjust: Adjust::Length, ..quick(3) };
    let found = compare(&features, 40, &adjusted);
    assert!(found.heads.iter().all(|head| head.verdict == Verdict::Untested), "{:?}", found.heads);
    let why = "No verdict: the length of the responses tells the cohorts apart in every item";
    assert!(found.sentence.starts_with(why), "{}", found.sentence);
    features.total_len[0] = 51;
    assert!(compare(&features, 40, &adjusted).heads[0].verdict != Verdict::Untested, "one item is enough to look at");
}

#[test]
fn few_labelings_are_no_test() {
    let small = |n: usize| compare(&planted(&[Story::Elsewhere], n, 0, 5), n, &quick(0));
    let found = small(3);
    assert!(found.heads.iter().all(|head| head.verdict == Verdict::Untested), "{:?}", found.heads);
    assert!(found.sentence.starts_with("No verdict: 3 and 3 items can be labelled in 10 ways"), "{}", found.sentence);
    assert!(found.warnings.iter().any(|warning| warning.contains("cross-fitted over 2 folds, not 5")));
    assert!(small(4).heads.iter().all(|head| head.verdict != Verdict::Untested));
}

/// Items whose z follows a topic that goes with the cohorts, and nothing else.
fn by_topic(seed: u64) -> (Features, Vec<ItemFacts>) {
    let mut features = planted(&[Story::Nothing, Story::Nothing], 30, 0, seed);
    let mut facts = facts(60);
    for (item, facts) in facts.iter_mut().enumerate() {
        let sums = (item < 30) == (item % 4 > 0);
        facts.fields = BTreeMap::from([("topic".to_string(), if sums { "sums" } else { "capitals" }.to_string())]);
        if sums {
            features.head_vectors[0].values[item * 2 * 64 + 7] += 5.0;
        }
    }
    (features, facts)
}

#[test]
fn within_a_topic_what_followed_the_topic_is_gone() {
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..30).collect(), b: (30..60).collect() };
    let found = |set: u64, within: Option<&str>| {
        let (features, facts) = by_topic(set);
        let options = AttributeOptions { within: within.map(String::from), ..quick(set) };
        attribute(&features, &spec, &cohorts, &facts, &options).map(|found| found.heads[0].clone())
    };
    let sets = 40;
    let named = |within: Option<&str>| {
        (0..sets).filter(|&set| found(set, within).unwrap().verdict == Verdict::Separable).count()
    };
    let (without, within) = (named(None), named(Some("topic")));
    println!("separable: {without} without, {within} within, of {sets}");
    assert!(without > 35 && within < 7, "{without}, {within}");
    let error = found(0, Some("level")).unwrap_err().to_string();
    assert!(error.contains("'level', which no item has, but must be a field that items have: topic"), "{error}");
}

#[test]
fn labels_that_no_shuffle_changes_are_told() {
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..20).collect(), b: (20..40).collect() };
    // A document of eight answers, which no other has, and then documents of two.
    let doc = |item: usize| if item < 8 { "long".into() } else { format!("d{}", item / 2) };
    let topic = |item: usize| if item < 4 { "rare" } else { "common" };
    let mut facts = facts(40);
    for (item, facts) in facts.iter_mut().enumerate() {
        facts.fields = BTreeMap::from([("doc".to_string(), doc(item)), ("topic".to_string(), topic(item).to_string())]);
    }
    let told = |groups: Option<&str>, within: Option<&str>| {
        let options =
            AttributeOptions { groups: groups.map(String::from), within: within.map(String::from), ..quick(1) };
        let found = attribute(&planted(&[Story::Nothing], 20, 0, 1), &spec, &cohorts, &facts, &options).unwrap();
        found.warnings.into_iter().filter(|warning| warning.contains("in every shuffle,")).collect::<Vec<_>>()
    };
    let [grouped] = &told(Some("doc"), None)[..] else { panic!("one warning") };
    assert!(grouped.starts_with("8 of 40 items keep their label in every shuffle"), "{grouped}");
    assert!(grouped.contains("as nothing with as many items of the same doc has another label"), "{grouped}");
    let [strata] = &told(Some("doc"), Some("topic"))[..] else { panic!("one warning") };
    assert!(strata.starts_with("8 of 40") && strata.contains("same doc in every stratum"), "{strata}");
    // What strata of one cohort tell has a warning of its own.
    assert!(told(None, Some("topic")).is_empty() && told(None, None).is_empty());
}

#[test]
fn who_stops_it_does_not_wait_for_every_head() {
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..30).collect(), b: (30..60).collect() };
    let (features, facts) = by_topic(1);
    let stopped = AtomicBool::new(true);
    let found = attribute_with_nulls(&features, &spec, &cohorts, &facts, (&quick(1), &Watch::new(Some(&stopped))));
    assert!(matches!(found, Err(StudyError::Engine(EngineError::Interrupted))));
}

#[test]
fn threads_change_no_number() {
    let features = planted(&[Story::Elsewhere, Story::Nothing, Story::Louder], 15, 0, 6);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        serde_json::to_string(&pool.install(|| compare(&features, 15, &quick(6)))).unwrap()
    };
    let one = with(1);
    assert_eq!(one, with(4));
    assert_eq!(one, with(7));
    assert_ne!(one, serde_json::to_string(&compare(&features, 15, &quick(7))).unwrap());
}

#[test]
fn too_little_data_is_no_verdict_and_no_shuffles_no_p() {
    let features = planted(&[Story::Nothing], 2, 0, 8);
    let found = compare(&features, 2, &quick(0));
    assert!(found.heads.iter().all(|head| head.d_crossfit.is_nan() && head.verdict == Verdict::Untested));
    assert!(found.sentence.starts_with("No verdict"), "{}", found.sentence);
    let features = planted(&[Story::Elsewhere], 20, 0, 8);
    let told = |shuffles: usize| {
        let found = compare(&features, 20, &AttributeOptions { shuffles, ..quick(0) });
        found.warnings.into_iter().find(|warning| warning.starts_with("labels were shuffled only"))
    };
    let coarse = told(19).unwrap();
    assert!(coarse.contains("no p is below 0.050, and q names a head only where 2 of 2 or more"), "{coarse}");
    assert!(told(99).is_none() && told(18).is_none(), "below nineteen there is no verdict at all");
    let found = compare(&features, 20, &AttributeOptions { shuffles: 0, resamples: 0, ..quick(0) });
    let head = &found.heads[0];
    assert!(head.magnitude.p.is_nan() && head.p_max_directional.is_nan() && head.d_low.is_nan());
    assert!(head.d_crossfit > 1.0 && head.verdict == Verdict::Untested);
    // Nineteen shuffles can just reach the level, eighteen cannot.
    let few = |shuffles: usize| compare(&features, 20, &AttributeOptions { shuffles, ..quick(0) }).heads[0].verdict;
    assert_eq!((few(19), few(18)), (Verdict::Separable, Verdict::Untested));
}

#[test]
fn what_is_not_a_number_spoils_its_own_head_only() {
    let mut features = planted(&[Story::Nothing, Story::Elsewhere], 20, 0, 11);
    let sound = compare(&features, 20, &quick(1));
    features.head_norm[3] = f32::NAN; // head 0 of item 1
    features.head_vectors[0].values[2 * 64 + 5] = f32::NAN; // head 0 of item 1
    let found = compare(&features, 20, &quick(1));
    let head = &found.heads[0];
    assert!(
        head.magnitude.cohen_d.is_nan() && head.d_crossfit.is_nan() && head.d_naive.is_nan() && head.d_low.is_nan()
    );
    assert_eq!(head.verdict, Verdict::Untested);
    for (found, sound) in found.heads.iter().zip(&sound.heads).skip(1) {
        assert_eq!((found.d_crossfit, found.magnitude.cohen_d), (sound.d_crossfit, sound.magnitude.cohen_d));
        assert!(found.p_max_directional <= sound.p_max_directional, "one rival less");
    }
    assert_eq!(found.heads[1].verdict, Verdict::Separable);
}

#[test]
fn equal_items_are_no_finding() {
    let mut features = planted(&[Story::Nothing], 10, 0, 9);
    features.head_norm.fill(3.0);
    features.head_norm_final.fill(3.0);
    features.head_vectors.iter_mut().for_each(|layer| layer.values.fill(0.5));
    let found = compare(&features, 10, &quick(0));
    for head in &found.heads {
        assert_eq!((head.magnitude.cohen_d, head.d_naive, head.d_crossfit, head.d_across), (0.0, 0.0, 0.0, 0.0));
        assert_eq!((head.magnitude.p, head.p_directional, head.verdict), (1.0, 1.0, Verdict::NoEvidence));
    }
}

#[test]
fn only_the_heads_that_were_asked_for_are_ranked() {
    let mut features = planted(&[Story::Nothing], 10, 0, 9);
    features.slots[1] = HeadRef { kind: HeadKind::Value, ..features.slots[1] };
    features.head_vectors[1].site = Site::LinearZ(1);
    let ranked = |heads: HeadChoice| {
        compare(&features, 10, &AttributeOptions { heads, ..quick(0) })
            .heads
            .iter()
            .map(HeadEffect::at)
            .collect::<Vec<_>>()
    };
    assert_eq!(ranked(HeadChoice::All), features.slots);
    assert_eq!(ranked(HeadChoice::Attn), features.slots[..1]);
    assert_eq!(ranked(HeadChoice::Linear), features.slots[1..]);
    features.slots.truncate(1);
    features.head_norm = features.head_norm.iter().step_by(2).copied().collect();
    features.head_norm_final.clone_from(&features.head_norm);
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..10).collect(), b: (10..20).collect() };
    let options = AttributeOptions { heads: HeadChoice::Linear, ..quick(0) };
    let error = attribute(&features, &spec, &cohorts, &facts(20), &options).unwrap_err().to_string();
    assert!(error.contains("heads is linear, but must be heads that this model has"), "{error}");
}

#[test]
fn stable_rankings_come_out_again() {
    let stories =
        [Story::Louder, Story::Nothing, Story::Nothing, Story::FollowsLength, Story::Elsewhere, Story::Nothing];
    let (mut observed, mut null) = (Vec::new(), Vec::new());
    for set in 0..6 {
        let found = compare(&planted(&stories, 40, 10, 400 + set), 40, &quick(set));
        observed.push(found.stability.magnitude.rho);
        null.push(found.stability.magnitude.null_mean);
    }
    assert!(mean(&observed) > 0.5 && mean(&null).abs() < 0.2, "{observed:?} {null:?}");
}
