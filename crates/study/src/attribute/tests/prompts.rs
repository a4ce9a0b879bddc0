//! Several answers to one prompt: what they have in common is no evidence, and what sets prompts apart is found.

use super::*;

/// Five answers to each of `questions` questions, the first half of which are a's. What the answers to one question have in common
/// is three times the noise of a single answer.
fn of_questions(stories: &[Story], questions: usize, seed: u64) -> (Features, Vec<ItemFacts>) {
    let n = 5 * questions;
    let mut features = planted(stories, n / 2, 0, seed);
    let mut facts = facts(n);
    for (item, facts) in facts.iter_mut().enumerate() {
        facts.prompt = (item / 5).to_string();
        let mut of_question = Random::new(seed, 4000 + item as u64 / 5);
        let loud = 1.0 + 0.3 * (of_question.uniform() - 0.5);
        let (heads, width) = (stories.len() + 1, stories.len() * 64);
        features.head_norm[item * heads..][..heads].iter_mut().for_each(|norm| *norm *= loud as f32);
        for x in &mut features.head_vectors[0].values[item * width..][..width] {
            *x += 3.0 * of_question.normal() as f32;
        }
    }
    (features, facts)
}

fn compare_questions((features, facts): &(Features, Vec<ItemFacts>), options: &AttributeOptions) -> Disposition {
    let n = features.ids.len();
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..n / 2).collect(), b: (n / 2..n).collect() };
    attribute(features, &spec, &cohorts, facts, options).unwrap()
}

/// 1 if a report names a head.
fn names(found: &Disposition) -> usize {
    usize::from(found.heads.iter().any(|h| matches!(h.verdict, Verdict::Separable | Verdict::MagnitudeOnly)))
}

/// A head that tells questions apart also tells the cohorts apart, but that means nothing.
#[test]
fn answers_to_one_question_are_no_evidence() {
    let sets = 120;
    let (mut named, mut of_items) = (0, 0);
    for set in 0..sets {
        let mut data = of_questions(&[Story::Nothing; 4], 16, 3000 + set);
        let found = compare_questions(&data, &quick(set));
        assert!(found.heads.iter().all(|head| head.verdict != Verdict::Untested) && found.prompts.clustering > 4.0);
        named += names(&found);
        if set < 10 {
            // As if the questions were not known.
            data.1.iter_mut().enumerate().for_each(|(item, facts)| facts.prompt = item.to_string());
            of_items += names(&compare_questions(&data, &quick(set)));
        }
    }
    let share = named as f64 / sets as f64;
    println!("named a head: {share} by questions, {of_items} of 10 by items");
    assert!(share < 0.1 + 4.0 * (0.1 * 0.9 / sets as f64).sqrt(), "{share}");
    assert!(of_items > 8, "{of_items}");
}

/// With numbers in them, the same questions look like many; grouped by what they ask, they count as the few that they are.
#[test]
fn groups_stay_together_as_prompts_do() {
    let sets = 60;
    let (mut named, mut alone) = (0, 0);
    for set in 0..sets {
        let mut data = of_questions(&[Story::Nothing; 4], 16, 6000 + set);
        let by_prompt = (set < 3).then(|| compare_questions(&data, &quick(set)));
        for (item, facts) in data.1.iter_mut().enumerate() {
            facts.fields.insert("question".into(), facts.prompt.clone());
            facts.prompt = format!("{item}. {}", facts.prompt);
        }
        let options = AttributeOptions { groups: Some("question".into()), ..quick(set) };
        let found = compare_questions(&data, &options);
        named += names(&found);
        if let Some(by_prompt) = by_prompt {
            let groups = found.groups.as_ref().unwrap();
            assert_eq!((groups.groups, groups.groups_a, groups.groups_b, groups.items_without), (16, 8, 8, 0));
            assert_eq!(format!("{:?}", by_prompt.heads), format!("{:?}", found.heads));
            assert_eq!(by_prompt.prompts.clustering, found.prompts.clustering);
            assert!(found.warnings.iter().any(|w| w.starts_with("items of one group stay together")), "{found:?}");
            assert!(found.warnings.iter().any(|w| w.contains("40 items, but only 8 groups by question")), "{found:?}");
            alone += names(&compare_questions(&data, &quick(set)));
        }
    }
    println!("named a head: {named} of {sets} by groups, {alone} of 3 without");
    assert!(named as f64 / sets as f64 <= 0.1 + 4.0 * (0.1 * 0.9 / sets as f64).sqrt(), "{named}");
    assert_eq!(alone, 3);
}

/// Sixteen refusals in one cohort, word for word alike whatever was asked: a warning says so, and grouped by response they are one.
#[test]
fn responses_word_for_word_alike_are_told() {
    let (features, mut facts) = (planted(&[Story::Nothing; 2], 40, 0, 8), facts(80));
    for (item, facts) in facts.iter_mut().enumerate() {
        facts.response = Some(if item < 16 { "i do not know".into() } else { format!("answer {item}") });
    }
    let found = compare_questions(&(features.clone(), facts.clone()), &quick(0));
    let told =
        |found: &Disposition| found.warnings.iter().filter(|w| w.contains("compare with --groups response")).count();
    assert!(
        found.warnings.iter().any(|w| w.starts_with("16 responses are word for word those to other prompts")),
        "{found:?}"
    );
    let options = AttributeOptions { groups: Some("response".into()), ..quick(0) };
    let grouped = compare_questions(&(features.clone(), facts.clone()), &options);
    assert_eq!((told(&found), told(&grouped), grouped.groups.unwrap().groups_a), (1, 0, 25));
    // If both cohorts have equally many, these are no reason for a difference.
    facts.iter_mut().enumerate().for_each(|(item, facts)| facts.response = Some(format!("answer {}", item % 5)));
    assert_eq!(told(&compare_questions(&(features, facts), &quick(0))), 0);
}

#[test]
fn what_sets_questions_apart_is_found_among_their_answers() {
    let mut data = of_questions(&[Story::Nothing, Story::Nothing], 40, 5);
    // Shifts the second head's vectors for a's questions by more than questions differ.
    for item in 0..100 {
        data.0.head_vectors[0].values[(item * 2 + 1) * 64..][..8].iter_mut().for_each(|x| *x += 6.0);
    }
    let found = compare_questions(&data, &quick(1));
    assert_eq!(found.heads[0].verdict, Verdict::VarianceArtefact, "{:?}", found.heads[0]);
    assert_eq!(found.heads[1].verdict, Verdict::Separable, "{:?}", found.heads[1]);
}

/// The same questions in both cohorts are no reason for a difference, and one question in each is no comparison.
#[test]
fn questions_of_both_cohorts_and_of_one_each() {
    let (features, mut facts) = of_questions(&[Story::Nothing; 2], 16, 7);
    facts.iter_mut().enumerate().for_each(|(item, facts)| facts.prompt = (item % 40).to_string());
    let paired = compare_questions(&(features.clone(), facts.clone()), &quick(0));
    assert!(paired.prompts.repeated == 80 && paired.prompts.clustering < 1e-12);
    assert!(paired.heads.iter().all(|head| head.verdict != Verdict::Untested && head.d_low < head.d_high));
    facts.iter_mut().enumerate().for_each(|(item, facts)| facts.prompt = (item / 40).to_string());
    let two = compare_questions(&(features, facts), &quick(0));
    let why = "No verdict: 40 and 40 items of 2 prompts, which stay whole, can be labelled in no other way";
    assert!(two.sentence.starts_with(why), "{}", two.sentence);
    assert!(two.heads.iter().all(|head| head.d_crossfit.is_nan() && head.d_low.is_nan()));
}
