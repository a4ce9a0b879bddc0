//! Several answers to one prompt: what they have in common is no evidence, and what sets prompts apart is found.

use super::*;

/// Five answers to each of `questions` questions, of which the first half are a's; what answers to one have in common is three
/// times the noise of a single one.
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

/// Every head that tells questions apart tells the cohorts apart, and means nothing.
#[test]
fn answers_to_one_question_are_no_evidence() {
    let sets = 120;
    let (mut named, mut of_items) = (0, 0);
    for set in 0..sets {
        let mut data = of_questions(&[Story::Nothing; 4], 16, 3000 + set);
        let found = compare_questions(&data, &quick(set));
        assert!(found.heads.iter().all(|head| head.verdict != Verdict::Untested) && found.prompts.clustering > 4.0);
        let names = |found: &Disposition| {
            usize::from(found.heads.iter().any(|h| matches!(h.verdict, Verdict::Separable | Verdict::MagnitudeOnly)))
        };
        named += names(&found);
        if set < 10 {
            // As if nobody knew of the questions.
            data.1.iter_mut().enumerate().for_each(|(item, facts)| facts.prompt = item.to_string());
            of_items += names(&compare_questions(&data, &quick(set)));
        }
    }
    let share = named as f64 / sets as f64;
    println!("named a head: {share} by questions, {of_items} of 10 by items");
    assert!(share < 0.1 + 4.0 * (0.1 * 0.9 / sets as f64).sqrt(), "{share}");
    assert!(of_items > 8, "{of_items}");
}

#[test]
fn what_sets_questions_apart_is_found_among_their_answers() {
    let mut data = of_questions(&[Story::Nothing, Story::Nothing], 40, 5);
    // The second head's vectors of a's questions, beyond what these differ by.
    for item in 0..100 {
        data.0.head_vectors[0].values[(item * 2 + 1) * 64..][..8].iter_mut().for_each(|x| *x += 6.0);
    }
    let found = compare_questions(&data, &quick(1));
    assert_eq!(found.heads[0].verdict, Verdict::VarianceArtefact, "{:?}", found.heads[0]);
    assert_eq!(found.heads[1].verdict, Verdict::Separable, "{:?}", found.heads[1]);
}

/// The same questions in both cohorts are no reason why these differ, and one question in each is no comparison.
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
