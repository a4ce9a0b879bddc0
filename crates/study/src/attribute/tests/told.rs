//! What a reader is told before any number: each warning where it belongs, and nowhere else.

use super::*;

#[test]
fn prompts_and_truncation_are_told() {
    let features = planted(&[Story::Nothing], 20, 0, 4);
    let mut facts = facts(40);
    (0..8).for_each(|item| facts[item].prompt = "the same".into());
    (20..26).for_each(|item| facts[item].truncated = Some(true));
    facts[30].prompt = "the same".into();
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..20).collect(), b: (20..40).collect() };
    let found = attribute(&features, &spec, &cohorts, &facts, &quick(0)).unwrap();
    let prompts = &found.prompts;
    assert_eq!((prompts.distinct_a, prompts.distinct_b, prompts.shared, prompts.repeated), (13, 20, 1, 9));
    assert!(prompts.clustering > 1.1, "{}", prompts.clustering);
    assert!(found.heads.iter().all(|head| head.welch_p.is_nan()), "Welch's test knows of no prompts");
    assert!(found.warnings.iter().any(|warning| warning.contains("cohort a has 20 items, but only 13 prompts")));
    assert!((found.length.ends_known_a, found.length.ends_known_b, found.length.truncated_b) == (20, 20, 6));
    let text = found.warnings.join("\n");
    assert!(
        text.contains("9 of 40 items share their prompt") && text.contains("by whole prompts, of which there are 32")
    );
    assert!(text.contains("their last tokens are not comparable"));
}

#[test]
fn lengths_without_spread_are_told() {
    let features = planted(&[Story::Nothing], 20, 0, 4);
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..20).collect(), b: (20..40).collect() };
    let told = |features: &Features| attribute(features, &spec, &cohorts, &facts(40), &quick(0)).unwrap();
    // All responses of a cohort have one length, which differs between the two: d is 0, though they differ as far as anything can.
    let mut features = features;
    (0..40).for_each(|item| features.total_len[item] = features.prompt_len[item] + if item < 20 { 23 } else { 41 });
    let found = told(&features);
    assert_eq!(found.length.cohen_d, 0.0);
    let text = found.warnings.join("\n");
    assert!(text.contains("responses in a and b differ in length (23 and 41 tokens in every item)"), "{text}");
    (0..40).for_each(|item| features.total_len[item] = features.prompt_len[item] + 23);
    assert!(!told(&features).warnings.iter().any(|warning| warning.contains("differ in length")));
}

#[test]
fn a_response_of_unknown_end_is_no_whole_one() {
    let features = planted(&[Story::Nothing], 20, 0, 4);
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..20).collect(), b: (20..40).collect() };
    let found = |of_item: &dyn Fn(usize) -> Option<bool>| {
        let mut facts = facts(40);
        facts.iter_mut().enumerate().for_each(|(item, facts)| facts.truncated = of_item(item));
        attribute(&features, &spec, &cohorts, &facts, &quick(0)).unwrap()
    };
    // Two of the four known ones in a, and two of twenty in b: 10 % of each, had the unknown ones been counted as whole.
    let some = found(&|item| (!(4..20).contains(&item)).then_some(matches!(item, 0 | 1 | 20 | 21)));
    let text = some.warnings.join("\n");
    let told = [
        "2 of 4 responses in a and 2 of 20 in b were cut off at the limit of tokens: their last tokens are not comparable",
        "whether 16 of 20 responses in a and 0 of 20 in b were cut off is not known: items say it by a field finish_reason",
    ];
    assert!(told.iter().all(|told| text.contains(told)), "{text}");
    assert!(no_ends(std::slice::from_ref(&some)).is_none());
    let none = found(&|_| None);
    assert!(!none.warnings.iter().any(|warning| warning.contains("cut off")), "{:?}", none.warnings);
    assert!(no_ends(std::slice::from_ref(&none)).unwrap().starts_with("whether responses were cut off"));
    let other = Disposition { name: "other".into(), ..none };
    assert!(no_ends(&[other, some]).unwrap().starts_with("whether responses of other were cut off is not known"));
}

#[test]
fn fields_of_many_values_are_looked_at_too() {
    let features = planted(&[Story::Nothing], 20, 0, 4);
    let mut facts = facts(40);
    for (item, facts) in facts.iter_mut().enumerate() {
        // A subject for every two items and, except for one item, a number of its own: both tell the cohort.
        let fields = [("subject", format!("\"{}\"", item / 2)), ("difficulty", format!("{}", item as f32 / 3.0))];
        facts.fields = fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        if item == 11 {
            facts.fields.remove("difficulty");
        }
    }
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..20).collect(), b: (20..40).collect() };
    let found = attribute(&features, &spec, &cohorts, &facts, &quick(0)).unwrap();
    let told: Vec<(&str, usize)> = found.fields.iter().map(|field| (field.field.as_str(), field.values)).collect();
    assert_eq!((told, found.fields_checked), (vec![("subject", 20), ("difficulty", 6)], 2));
    let none = attribute(&features, &spec, &cohorts, &facts, &AttributeOptions { shuffles: 0, ..quick(0) }).unwrap();
    assert_eq!((none.fields.len(), none.fields_checked), (0, 0), "without shuffles nothing is known");
}

#[test]
fn fields_that_go_with_the_cohorts_are_told() {
    let features = planted(&[Story::Elsewhere], 20, 0, 4);
    let mut facts = facts(40);
    for (item, facts) in facts.iter_mut().enumerate() {
        let topic = if (item < 20) == (item % 5 > 0) { "sums" } else { "capitals" };
        let fields = [("topic", topic.to_string()), ("parity", (item % 2).to_string()), ("id", item.to_string())];
        facts.fields = fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    }
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..20).collect(), b: (20..40).collect() };
    let found = attribute(&features, &spec, &cohorts, &facts, &quick(0)).unwrap();
    // A field with a value of its own for every item tells nothing, nor does one that is spread evenly.
    let names: Vec<&str> = found.fields.iter().map(|field| field.field.as_str()).collect();
    assert_eq!(names, ["topic"]);
    assert!((found.fields[0].cramers_v - 0.6).abs() < 1e-12 && found.fields[0].values == 2);
    assert!(found.warnings.iter().any(|warning| warning.contains("the field 'topic' goes with the cohorts")));
    assert!(found.sentence.contains("differ in topic (Cramér's V 0.60) too"), "{}", found.sentence);
}

#[test]
fn strata_that_cannot_tell_are_refused_or_told() {
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..30).collect(), b: (30..60).collect() };
    let (features, mut facts) = by_topic(1);
    let options = AttributeOptions { within: Some("topic".into()), ..quick(1) };
    (0..60).for_each(|item| facts[item].fields = BTreeMap::from([("topic".into(), (item < 30).to_string())]));
    let error = attribute(&features, &spec, &cohorts, &facts, &options).unwrap_err().to_string();
    assert!(error.contains("which no two items of different cohorts share"), "{error}");
    (0..5).for_each(|item| facts[item].fields = BTreeMap::from([("topic".into(), "false".into())]));
    let found = attribute(&features, &spec, &cohorts, &facts, &options).unwrap();
    assert!(found.warnings.iter().any(|warning| warning.starts_with("25 of 60 items share their stratum with no")));
    assert!(found.fields.is_empty(), "the field itself is taken out");
    assert!(!found.warnings.iter().any(|warning| warning.contains("have no topic")));
    for item in [0, 1, 40] {
        facts[item].fields.clear();
    }
    let found = attribute(&features, &spec, &cohorts, &facts, &options).unwrap();
    assert!(found.warnings.iter().any(|warning| warning.starts_with("3 of 60 items have no topic: they are compared")));
}
