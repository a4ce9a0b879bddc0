//! `--groups`: items that are as dependent as answers to one prompt count as one unit, whatever is compared.

use serde_json::{Value, json};

use crate::lab::Lab;

/// `g.jsonl`: twenty-four answered items of eight topics, which the labels follow; the last item has no topic.
fn lab() -> Lab {
    let lab = Lab::new();
    let item = |i: usize| {
        let label = if i < 12 { "a" } else { "b" };
        let mut item = json!({"id": format!("q{i}"), "prompt": format!("Qui est {i}, {}?", i * i), "response": "né ".repeat(1 + i % 3),
            "label": label, "topic": format!("t{}", i / 3)});
        if i == 23 {
            item.as_object_mut().unwrap().remove("topic");
        }
        item
    };
    lab.write_lines("g.jsonl", (0..24).map(item));
    lab
}

const SCORE: &str = "score --model M --items g.jsonl --heads L0H1,L3H0 --lambda 0 --a a --b b --shuffles 99";
const SWEEP: &str = "sweep --model M --items g.jsonl --heads L0H1 --lambda 1,1,0 --max-new-tokens 3";

#[test]
fn a_causal_map_counts_groups() {
    let lab = lab();
    lab.done(&format!("{SCORE} --out items"));
    lab.done(&format!("{SCORE} --out topics --groups topic"));
    let (items, topics) = (lab.json("items/score.json"), lab.json("topics/score.json"));
    assert_eq!((&items["prompts"], &topics["prompts"], &topics["groups"]), (&json!(24), &json!(9), &json!("topic")));
    assert!(items.get("groups").is_none());
    assert_eq!(topics["contrast"]["prompts"], 9);
    assert_eq!(topics["cells"][0]["delta"], items["cells"][0]["delta"], "the numbers themselves are the items'");
    assert_ne!(topics["cells"][0]["low"], items["cells"][0]["low"]);
    let warned = topics["warnings"].to_string();
    assert!(warned.contains("the 24 items have 9 groups by topic; those that share one count as one"), "{warned}");
    assert!(lab.read("topics/report.html").contains("9 groups by topic"));
    // Two items of the last topic, and the one without a topic, have no group of their size to change labels with.
    assert_eq!((&topics["contrast"]["fixed"], &items["contrast"]["fixed"]), (&json!(3), &json!(0)));
    assert!(
        warned.contains(
            "3 of 24 items keep their label in every shuffle, as nothing with as many items of the same topic"
        )
    );
    assert!(!items["warnings"].to_string().contains("in every shuffle,"));
    // Shards agree on what a group is, and merge into the whole.
    for part in 1..=2 {
        lab.done(&format!("{SCORE} --groups topic --shard {part}/2 --out s{part}"));
    }
    lab.done("merge merged s1 s2");
    lab.same(&["score.json", "plan.json", "report.html"], "topics", "merged");
    lab.done(&format!("{SCORE} --shard 2/2 --out other"));
    let (_, why) = lab.ends(2, "merge mixed s1 other");
    assert!(why.contains("plan"), "{why}");
    // The same rows under another grouping: nothing is scored again.
    let rows = lab.read("items/scores.jsonl");
    lab.done(&format!("{SCORE} --out items --groups response"));
    assert_eq!((lab.read("items/scores.jsonl"), &lab.json("items/score.json")["prompts"]), (rows, &json!(3)));
}

#[test]
fn a_sweep_counts_groups() {
    let lab = lab();
    let printed = lab.done(&format!("{SWEEP} --groups topic --out out"));
    assert!(printed.contains("the 24 items have 9 groups by topic"), "{printed}");
    let found = lab.json("out/sweep.json");
    assert_eq!((&found["items"], &found["prompts"], &found["groups"]), (&json!(24), &json!(9), &json!("topic")));
    assert!(lab.read("out/report.html").contains("9 groups by topic"));
    for part in 1..=2 {
        lab.done(&format!("{SWEEP} --groups topic --shard {part}/2 --out s{part}"));
    }
    lab.done("merge merged s1 s2");
    lab.same(&["sweep.json", "plan.json"], "out", "merged");
}

#[test]
fn an_attribution_keeps_groups_together() {
    let lab = lab();
    let line =
        "attribute --model M --items g.jsonl --a a --b b --shuffles 39 --repeats 1 --resamples 20 --groups topic";
    lab.done(&format!("{line} --control shuffled --out out"));
    let found = lab.json("out/attribution.json");
    let disposition = &found["dispositions"][0];
    let expected = json!({"field": "topic", "groups": 9, "groups_a": 4, "groups_b": 5, "items_without": 1});
    assert_eq!((&disposition["groups"], &found["method"]["groups"]), (&expected, &json!("topic")));
    assert!(disposition["prompts"]["clustering"].as_f64().unwrap() > 2.0);
    let warned = disposition["warnings"].to_string();
    assert!(warned.contains("1 of 24 items have no topic; those of one group stay together"), "{warned}");
    assert!(warned.contains("cohort a has only 12 items"), "{warned}");
    assert_eq!(disposition["heads"][0]["welch_p"], Value::Null, "Welch's test knows of no groups");
    assert!(found["controls"][0]["how"].as_str().unwrap().contains("shuffled once, as for the null"));
    assert!(lab.read("out/report.html").contains("items of one value stay together"));
    // If every group is a stratum of its own, nothing is left to shuffle.
    let (_, why) = lab.ends(2, &format!("{line} --within topic --out no"));
    assert!(why.contains("--groups is topic, but must be another field than --within"), "{why}");
}

#[test]
fn groups_that_no_item_has_are_refused() {
    let lab = lab();
    lab.write(
        "x.toml",
        format!(
            "name = \"t\"\nmodel = {{ path = \"{}\" }}\nitems = {{ path = \"g.jsonl\", groups = \"level\" }}\n\
             attribute = {{ disposition = \"x\", a = \"a\", b = \"b\" }}\n",
            headtemper_tests::golden_dir("llama").display()
        ),
    );
    let attribute = "attribute --model M --items g.jsonl --a a --b b --groups level";
    for line in [&format!("{SCORE} --groups level"), &format!("{SWEEP} --groups level"), attribute, "run x.toml"] {
        let (_, why) = lab.ends(2, &format!("{line} --out out"));
        assert!(
            why.contains("groups is 'level', which no item has, but must be a field that items have: response, topic"),
            "{why}"
        );
        assert!(!lab.path("out").exists(), "{line}");
    }
}

/// An experiment attributes and sweeps by the groups of its items; other groups are another attribution of the same rows.
#[test]
fn an_experiment_has_groups() {
    let lab = lab();
    let write = |groups: &str| {
        lab.write(
            "x.toml",
            format!(
                "name = \"t\"\nmodel = {{ path = \"{}\" }}\nitems = {{ path = \"g.jsonl\"{groups} }}\n\
                 generate = {{ max_new_tokens = 3 }}\nattribute = {{ disposition = \"x\", a = \"a\", b = \"b\", shuffles = 39, \
                 repeats = 1, resamples = 20, min_cohort = 2 }}\nsweep = {{ heads = \"top:1\", lambdas = [1, 1, 0] }}\n",
                headtemper_tests::golden_dir("llama").display()
            ),
        );
        lab.done("run x.toml --out out");
        let of = |file: &str, at: &str| lab.json(&format!("out/{file}")).pointer(at).cloned();
        (of("attribution.json", "/dispositions/0/groups/groups"), of("sweep.json", "/prompts").unwrap())
    };
    assert_eq!(write(""), (None, json!(24)));
    assert_eq!(write(", groups = \"topic\""), (Some(json!(9)), json!(9)));
    assert!(lab.read("out/config.toml").contains("groups = \"topic\""));
}
