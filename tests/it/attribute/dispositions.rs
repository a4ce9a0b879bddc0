//! Dispositions as data: from a file or two labels, one pass for all, with controls, and what cannot be attributed.

use headtemper_tests::golden_dir;
use serde_json::json;

use crate::{
    handed_on::texts,
    lab::{HEADS, LAYERS, Lab},
};

/// Items with ratings: self_verification from 1 to 5, completeness on some, and a flag.
fn write_rated(lab: &Lab) {
    let item = |i: usize| {
        let words = ["yes", "no", "it is so", "I doubt it", "seven of them"];
        let response = format!("{} {}", words[i % words.len()], words[(i * i + 1) % words.len()]);
        let mut scores = json!({"self_verification": 1 + i % 5});
        if i.is_multiple_of(3) {
            scores["completeness"] = json!(1 + i % 4);
        }
        json!({
            "id": format!("i{i}"), "prompt": format!("Is {} even?", i), "response": response, "scores": scores,
            "label": if i.is_multiple_of(2) { "cw" } else { "cr" }, "correct": i.is_multiple_of(4),
            "finish_reason": if i < 3 { "length" } else { "stop" },
        })
    };
    lab.write_lines("r.jsonl", (0..24).map(item));
}

const OWN: &str = "[[disposition]]\nname = \"checks\"\nmeans = \"checks itself\"\n\
    a = { name = \"high\", where = \"scores.self_verification >= 4\" }\n\
    b = { name = \"low\", where = \"scores.self_verification <= 2 && !correct\" }\n";

/// The paper's seven dispositions from one pass: those that the items have scores for are attributed, the others named with the
/// reason.
#[test]
fn many_dispositions_come_from_one_pass() {
    let lab = Lab::new();
    write_rated(&lab);
    let shipped = golden_dir("..").join("../configs/dispositions.toml");
    let (table, said) = lab.ends(
        0,
        &format!("attribute --model M --items r.jsonl --dispositions {} --out out --shuffles 40", shipped.display()),
    );
    let report = lab.json("out/attribution.json");
    let names: Vec<&str> =
        report["dispositions"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["adversarial-self", "humble", "persistent"]);
    let sizes = |at: usize| (&report["dispositions"][at]["n_a"], &report["dispositions"][at]["n_b"]);
    assert_eq!((sizes(0), sizes(1)), ((&json!(9), &json!(10)), (&json!(12), &json!(12))));
    let skipped = report["skipped"].as_array().unwrap();
    assert_eq!(skipped.len(), 4);
    assert!(skipped[0]["why"].as_str().unwrap().contains("no item has scores.eagerness"), "{skipped:?}");
    assert!(table.contains("not attributed: curious") && table.contains("without any signal 0.3 of the 6"), "{table}");
    assert_eq!(said.matches("capture ").count(), 2, "one pass over the texts: {said}");
    let humble = &report["dispositions"][1];
    assert_eq!((&humble["length"]["ends_known_a"], &humble["length"]["ends_known_b"]), (&json!(12), &json!(12)));
    assert_eq!((&humble["length"]["truncated_a"], &humble["length"]["truncated_b"]), (&json!(2), &json!(1)));
    assert_eq!(report["across"]["pairs"].as_array().unwrap().len(), 3);

    // There is a list of every disposition, and each can be chosen by its name.
    let top = |name: &str| lab.json(&format!("out/heads-{name}.json"))["heads"].as_array().unwrap().len();
    assert_eq!((top("humble"), top("persistent"), top("adversarial-self")), (5, 5, 5));
    let plan = "generate --model M Hi --max-new-tokens 1 --lambda 0.5 --plan";
    lab.done(&format!("{plan} top:3@out/attribution.json#persistent"));
    let (_, why) = lab.ends(2, &format!("{plan} top:3@out/attribution.json#eager"));
    assert!(why.contains("it has no disposition 'eager', but adversarial-self, humble, persistent"), "{why}");

    // A disposition that was asked for by name may not be skipped.
    let only = format!("attribute --model M --items r.jsonl --dispositions {} --out other", shipped.display());
    let (_, why) = lab.ends(2, &format!("{only} --only humble,eager"));
    assert!(why.contains("no item has scores.eagerness"), "{why}");
    assert!(!lab.path("other").exists());
}

/// What stands beside the numbers is of this call: dispositions that were passed over, and the items' labels.
#[test]
fn what_was_passed_over_is_told_anew() {
    let lab = Lab::new();
    write_rated(&lab);
    let without = |name: &str| format!("{OWN}{}", OWN.replace("checks", name).replace(">= 4", ">= 40"));
    lab.write("d.toml", without("calm"));
    let attribute = "attribute --model M --items r.jsonl --dispositions d.toml --out out --shuffles 19 --resamples 20";
    assert!(lab.done(attribute).contains("not attributed: calm"));
    assert!(lab.ends(0, attribute).1.contains("nothing left to do"));
    // Nothing is computed anew for that.
    let before = lab.modified("out/attribution.npz");
    lab.write("d.toml", without("brave"));
    let (out, said) = lab.ends(0, attribute);
    assert!(out.contains("not attributed: brave") && !out.contains("calm"), "{out}");
    assert!(said.contains("nothing left to do") && lab.modified("out/attribution.npz") == before, "{said}");
    assert!(lab.ends(0, attribute).1.contains("nothing left to do"));
    assert_eq!(lab.json("out/attribution.json")["skipped"][0]["name"], "brave");
    lab.write("r.jsonl", lab.read("r.jsonl").replace(r#""label":"cw""#, r#""label":"wrong""#));
    lab.done(attribute);
    let labels = texts(&lab, "out/attribution.npz", "label");
    assert!(labels.contains(&"wrong".to_string()) && !labels.contains(&"cw".to_string()), "{labels:?}");
}

/// Conditions choose cohorts, controls run the same analysis where there is nothing to find, and other commands read the lists.
#[test]
fn a_disposition_of_ones_own_with_controls() {
    let lab = Lab::new();
    write_rated(&lab);
    lab.write("own.toml", OWN);
    let attribute = "attribute --model M --items r.jsonl --dispositions own.toml --out out --shuffles 20 \
                     --repeats 1 --resamples 20 --control shuffled,random --top 3 --lambda 0.25 --last-n 4";
    let table = lab.done(attribute);
    let report = lab.json("out/attribution.json");
    let disposition = &report["dispositions"][0];
    assert_eq!((&disposition["n_a"], &disposition["n_b"]), (&json!(9), &json!(7)));
    assert_eq!(disposition["a_where"], "scores.self_verification >= 4");
    assert!(table.contains("| - shuffled labels") && table.contains("| - random weights"), "{table}");
    let controls = report["controls"].as_array().unwrap();
    assert_eq!(controls.len(), 2);
    for control in controls {
        let found = &control["dispositions"][0]["summary"];
        assert_eq!(found["heads"], LAYERS * HEADS);
        assert_ne!(found["largest_d"], disposition["summary"]["largest_d"], "{control}");
    }
    for plan in ["out/heads.json", "out/lambda.npz"] {
        let (_, said) = lab.ends(0, &format!("generate --model M Hi --max-new-tokens 1 --plan {plan}"));
        assert_eq!(said.matches(":0.25").count(), 3, "{said}");
    }
    let document = lab.json("out/report.json");
    assert_eq!(document["attribution"], report);
    let text = lab.read("out/report.md");
    assert!(text.contains("Variance artefact") && text.contains("checks itself") && text.contains("control"));

    // Compared with itself, a ranking is the same; compared with another geometry there is nothing to say.
    lab.done(&attribute.replace("--out out", "--out twin --beside out/attribution.json"));
    let beside = &lab.json("twin/attribution.json")["across"]["beside"][0];
    assert_eq!((&beside["rho_d"], &beside["rho_crossfit"]), (&json!(1.0), &json!(1.0)));
    let mut other = report.clone();
    other["dispositions"][0]["heads"].as_array_mut().unwrap().truncate(7);
    lab.write("small.json", other.to_string());
    lab.done(&attribute.replace("--out out", "--out beside --beside small.json"));
    let beside = &lab.json("beside/attribution.json")["across"]["beside"][0];
    assert!(beside["incomparable"].as_str().unwrap().contains("7 ranked there, 24 here"), "{beside}");

    // The fields that confounds are read from identify a run too, even if no token and no cohort changes.
    lab.write(
        "r2.jsonl",
        lab.read("r.jsonl").replacen("\"finish_reason\":\"stop\"", "\"finish_reason\":\"length\"", 1),
    );
    let (_, why) = lab.ends(2, &attribute.replace("r.jsonl", "r2.jsonl"));
    assert!(why.contains("items differ; the first that differs is 'i3'"), "{why}");

    // Adjusting for length is another run, and the message says so.
    let (_, why) = lab.ends(2, &format!("{attribute} --adjust length"));
    assert!(why.contains("method.adjust was none, is length"), "{why}");
    lab.done(&format!("{} --adjust length", attribute.replace("--out out", "--out adjusted")));
    let head = &lab.json("adjusted/attribution.json")["dispositions"][0]["heads"][0];
    assert_eq!(head["cohen_d"], head["d_length_adjusted"]);
}

/// Wrong dispositions and options are refused before anything is written.
#[test]
fn what_cannot_be_attributed_is_refused() {
    let lab = Lab::new();
    write_rated(&lab);
    lab.write("own.toml", OWN);
    let attribute = "attribute --model M --items r.jsonl --out out";
    for (change, parts) in [
        ("--dispositions nowhere.toml", &["cannot read nowhere.toml"][..]),
        ("--dispositions own.toml --only x", &["--only is 'x'", "among checks"]),
        ("--dispositions own.toml --a cw --b cr", &["cannot be used with"]),
        ("--a cw", &["--b"]),
        ("", &["--a"]),
        ("--a cw --b cr --heads linear", &["heads is linear", "heads that this model has"]),
        ("--a cw --b cr --within topic", &["within is 'topic', which no item has", "correct, finish_reason"]),
        (
            "--a cw --b cr --within label",
            &["within is 'label' (cohorts may follow from it)", "another field", "finish_reason"],
        ),
        ("--a cw --b cr --folds 1", &["folds is 1", "at least 2"]),
        ("--a cw --b cr --repeats 0", &["repeats is 0", "at least 1"]),
        ("--a cw --b cr --top 0", &["top is 0", "at least 1"]),
        ("--a cw --b cr --compat dd --last-n 5", &["cannot be used with"]),
        ("--a cw --b cr --compat dd --adjust length", &["--adjust is length", "left out with --compat dd"]),
        ("--a cw --b cr --compat dd --within label", &["--within is label", "left out with --compat dd"]),
        ("--a cw --b cr --compat dd --heads all", &["--heads is all", "attn, or left out, with --compat dd"]),
        ("--a cw --b cr --lambda nan", &["--lambda is NaN", "a number from -1000000 to 1000000"]),
        ("--a cw --b cr --lambda 1e20", &["--lambda is 100000000000000000000", "to 1000000"]),
        ("--a cw --b cr --beside r.jsonl", &["r.jsonl"]),
    ] {
        let (_, why) = lab.ends(2, &format!("{attribute} {change}"));
        assert!(parts.iter().all(|part| why.contains(part)), "{change}: {why}");
        assert!(!lab.path("out").exists(), "{change}");
    }
    lab.write("few.toml", OWN.replace(">= 4", ">= 40"));
    let (_, why) = lab.ends(2, &format!("{attribute} --dispositions few.toml"));
    let told = "error: disposition 'checks' has no cohorts in these items: cohort 'high' has 0 items, but 2 are needed";
    assert!(why.contains(told), "{why}");
    lab.write("bad.toml", OWN.replace(">= 4", "=> 4"));
    let (_, why) = lab.ends(2, &format!("{attribute} --dispositions bad.toml"));
    assert!(why.contains("bad.toml: disposition 'checks'") && why.contains("=>"), "{why}");
}
