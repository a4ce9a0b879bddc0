//! Calls into one directory: what each of them tried stands in the tables of the last.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::lab::{Lab, prompts};

/// Trying heads, λ and seeds one call at a time asks as many questions as asking them at once, and gives the same p.
#[test]
fn what_is_tried_one_by_one_is_one_family() {
    let lab = Lab::new();
    let gold = |i: usize| vec![["a", "e", "o"][i % 3]];
    let item = |i: usize| json!({"id": format!("q{i}"), "prompt": format!("Is {i} even?"), "gold": gold(i)});
    lab.write_lines("q.jsonl", (0..24).map(item));
    let sweep = |asked: &str, out: &str| {
        let (_, err) = lab.ends(
            0,
            &format!("sweep --model M --items q.jsonl --temperature 1 --max-new-tokens 6 {asked} --out {out}"),
        );
        err
    };
    // What the tables say about each arm, whatever its place.
    let told = |dir: &str| {
        let outcomes = lab.json(&format!("{dir}/sweep.json"));
        let arms = |table: &Value| table["arms"].as_array().unwrap().clone();
        let all = outcomes["tables"].as_array().unwrap().iter().flat_map(arms);
        let named: BTreeMap<String, Value> =
            all.map(|arm| (arm["variant"].as_str().unwrap().to_owned(), arm)).collect();
        (named, outcomes["flips"].clone(), outcomes.get("elsewhere").cloned())
    };
    sweep("--each --heads L0H1,L2H4,L3H0 --lambda 1,1,0.5,0 --seeds 1", "whole");
    sweep("--heads L0H1 --lambda 1,1,0.5,0 --seeds 1", "out");
    let alone = told("out").0["L0H1@0"]["difference"]["accuracy"]["p_max"].clone();
    let err = sweep("--heads L2H4 --lambda 1,1,0.5,0 --seeds 1", "out");
    assert!(err.contains("note: 2 arms of earlier calls stand in the tables as well"), "{err}");
    sweep("--heads L3H0 --lambda 1,1,0.5,0 --seeds 1", "out");
    assert_eq!(told("out"), told("whole"));
    let of = |dir: &str| told(dir).0["L0H1@0"]["difference"]["accuracy"]["p_max"].as_f64().unwrap();
    assert!(of("out") >= alone.as_f64().unwrap());
    assert_eq!(told("out").2, None, "nothing lies elsewhere");

    // Another seed joins if everything that is asked for now has it; otherwise its rows are reported as elsewhere.
    sweep("--each --heads L0H1,L2H4,L3H0 --lambda 1,1,0.5,0 --seeds 2", "out");
    sweep("--each --heads L0H1,L2H4,L3H0 --lambda 1,1,0.5,0 --seeds 1,2", "both");
    assert_eq!(lab.json("out/sweep.json")["seeds"], json!([2, 1]));
    let n = |dir: &str| told(dir).0["L2H4@0.5"]["n"].clone();
    assert_eq!((n("out"), n("out")), (json!(48), n("both")));
    sweep("--heads L1H1 --lambda 1,1,0 --seeds 3", "out");
    let (arms, _, elsewhere) = told("out");
    assert_eq!(arms.keys().collect::<Vec<_>>(), ["L1H1@0", "all@1", "base"]);
    let strays = elsewhere.unwrap();
    assert!(
        ["L0H1@0", "seed 1", "seed 2"].iter().all(|name| strays.as_array().unwrap().contains(&json!(name))),
        "{strays}"
    );
    assert!(lab.read("out/report.html").contains("rows that no table here holds"));

    // What a call could not show is not forgotten: it joins the tables of a later one that it fits.
    sweep("--heads L3H0 --lambda 1,1,0.5,0 --seeds 1", "out");
    let (arms, _, elsewhere) = told("out");
    assert_eq!(arms.len(), 2 + 3 * 2);
    assert_eq!(lab.json("out/sweep.json")["seeds"], json!([1, 2]));
    assert_eq!(elsewhere, Some(json!(["L1H1@0", "seed 3"])));
    sweep("--heads L1H1 --lambda 1,1,0 --seeds 3", "out");

    // Accepted answers are no part of what is generated, but all of what is right: other ones are told.
    let again = || sweep("--heads L1H1 --lambda 1,1,0 --seeds 3", "out");
    assert!(!again().contains("other than in the last call"));
    let other = |i: usize| json!({"id": format!("q{i}"), "prompt": format!("Is {i} even?"), "gold": ["zz"]});
    lab.write_lines("q.jsonl", (0..24).map(other));
    let err = again();
    assert!(
        err.contains("other than in the last call here: the items' fields (accepted answers, labels, others)"),
        "{err}"
    );
    assert_eq!(told("out").0["base"]["accuracy"], 0.0);
}

/// One directory, random sets of both kinds: each arm is compared with those that its own call drew.
#[test]
fn random_sets_of_both_kinds_stand_side_by_side() {
    const TWO: &str = "sweep --model M --items q.jsonl --max-new-tokens 12";
    let lab = Lab::new();
    prompts(&lab, 12);
    let sweep = |rest: &str, out: &str| lab.ends(0, &format!("{TWO} {rest} --out {out}"));
    let beside = |dir: &str, variant: &str| {
        let outcomes = lab.json(&format!("{dir}/sweep.json"));
        let tables = outcomes["tables"].as_array().unwrap().clone();
        let arms = tables.iter().flat_map(|table| table["arms"].as_array().unwrap().clone());
        let arm = arms.into_iter().find(|arm| arm["variant"] == variant).unwrap();
        (arm["difference"]["mean_tokens"]["random"].clone(), outcomes["random_from"].clone())
    };
    sweep("--heads L0H1,L2H4 --lambda 1,0.5 --random-sets 4", "both");
    let (alone, kind) = beside("both", "L0H1+L2H4@0.5");
    assert_eq!((&alone["sets"], kind), (&json!(4), json!("model")));
    let (out, _) = sweep("--heads L0H1 --lambda 1,0.2 --random-sets 3 --random-from layers", "both");
    assert!(!out.contains("no table here holds"), "{out}");
    let (kept, kind) = beside("both", "L0H1+L2H4@0.5");
    assert_eq!((&kept["sets"], &kept["p"], kind), (&alone["sets"], &alone["p"], Value::Null));
    assert_eq!(beside("both", "L0H1@0.2").0["sets"], 3);
    // A call without random sets leaves an arm those that it has.
    sweep("--heads L0H1 --lambda 1,0.2,0.1", "both");
    assert_eq!(
        (&beside("both", "L0H1@0.2").0["sets"], &beside("both", "L0H1+L2H4@0.5").0["sets"]),
        (&json!(3), &json!(4))
    );
    assert!(
        out.contains("lowest and highest of 3 to 4 random head sets of the same size, some from all layers"),
        "{out}"
    );
}
