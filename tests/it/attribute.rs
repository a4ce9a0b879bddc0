//! `temper attribute` as a user runs it: numbers by their definitions, dispositions as data, the scripts' arithmetic on the
//! real model, controls, and files that other commands read.

use std::fs;

use candle_core::{DType, IndexOp, Tensor};
use headtemper_tests::{farther, golden_dir};
use serde_json::{Value, json};

use crate::{
    handed_on::texts,
    lab::{DIM, HEADS, LAYERS, Lab, array},
    real::gguf_path,
};

/// An answered item; the first thirteen belong to one of two cohorts.
pub(crate) fn item(i: usize) -> Value {
    let words = ["yes", "no", "it is so", "I doubt it", "seven of them"];
    let response = format!("{} {}", words[i % words.len()], words[(i * i + 1) % words.len()]);
    let mut item = json!({"id": format!("i{i}"), "prompt": format!("Is {} even?", 7 * i), "response": response});
    if i < 13 {
        item["label"] = if i.is_multiple_of(2) { "even" } else { "odd" }.into();
    }
    item
}

/// Thirteen items of the two cohorts, and two of neither.
fn write_cohorts(lab: &Lab) {
    lab.write_lines("c.jsonl", (0..15).map(item));
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// Cohen's d by its definition, pooled over n - 1.
fn cohen_d(a: &[f64], b: &[f64]) -> f64 {
    let squares = |x: &[f64]| x.iter().map(|v| (v - mean(x)).powi(2)).sum::<f64>();
    (mean(a) - mean(b)) / ((squares(a) + squares(b)) / (a.len() + b.len() - 2) as f64).sqrt()
}

fn near(what: &str, ours: &Value, expected: f64) {
    let ours = ours.as_f64().unwrap_or_else(|| panic!("{what} is {ours}"));
    assert!((ours - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{what}: {ours} is not {expected}");
}

/// Recomputes every number of a ranking that what `temper capture` writes about the same items allows.
#[test]
fn attribute_ranks_what_capture_reads() {
    let lab = Lab::new();
    write_cohorts(&lab);
    lab.done("attribute --model M --items c.jsonl --a even --b odd --out out --name parity --last-n 8 --shuffles 200");
    lab.done("capture --model M --items c.jsonl --out c.npz --heads vector --last-n 8");
    let report = lab.json("out/attribution.json");
    assert_eq!((&report["schema"], &report["last_n"]), (&json!("attribution/v1"), &json!(8)));
    assert_eq!(report["heads_per_layer"], json!(vec![HEADS; LAYERS]));
    let disposition = &report["dispositions"][0];
    for (key, value) in [("name", json!("parity")), ("a", json!("even")), ("b", json!("odd"))] {
        assert_eq!(disposition[key], value);
    }
    assert_eq!((&disposition["n_a"], &disposition["n_b"]), (&json!(7), &json!(6)));
    let heads = disposition["heads"].as_array().unwrap();
    assert_eq!(heads.len(), LAYERS * HEADS);
    let npz = lab.npz("c.npz");
    let norms = array(&npz, "head_norm").to_dtype(DType::F64).unwrap();
    let finals = array(&npz, "head_norm_final").to_dtype(DType::F64).unwrap();
    let cohort = |x: &[f64], odd: usize| (0..13).filter(|i| i % 2 == odd).map(|i| x[i]).collect::<Vec<f64>>();
    for (slot, head) in heads.iter().enumerate() {
        let (layer, index) = (slot / HEADS, slot % HEADS);
        assert_eq!((&head["layer"], &head["head"], &head["kind"]), (&json!(layer), &json!(index), &json!("attn")));
        let norm: Vec<f64> = norms.i((.., slot)).unwrap().to_vec1().unwrap();
        let (a, b) = (cohort(&norm, 0), cohort(&norm, 1));
        near("mean_a", &head["mean_a"], mean(&a));
        near("mean_b", &head["mean_b"], mean(&b));
        near("delta", &head["delta"], mean(&a) - mean(&b));
        near("cohen_d", &head["cohen_d"], cohen_d(&a, &b));
        directional(head, &array(&npz, &format!("blocks.{layer}.attn.hook_z")).i((.., index)).unwrap());
        let last: Vec<f64> = finals.i((.., slot)).unwrap().to_vec1().unwrap();
        near("final token", &head["final_token"]["cohen_d"], cohen_d(&cohort(&last, 0), &cohort(&last, 1)));
        let p = |name: &str| head[name].as_f64().unwrap_or_else(|| panic!("{name} is {}", head[name]));
        for name in ["p", "p_naive", "p_directional", "p_across", "p_max", "p_max_directional", "p_max_across"] {
            assert!((1.0 / 201.0..=1.0).contains(&p(name)), "{name}: {head}");
        }
        assert!(p("q") >= p("p") && p("q") <= 1.0 && p("p_max") >= p("p"), "{head}");
        assert!(p("q_directional") >= p("p_directional") && p("d_low") <= p("cohen_d") && p("cohen_d") <= p("d_high"));
        assert!((-1.0..=1.0).contains(&p("cos_centered")) && p("d_crossfit") < p("d_naive"), "{head}");
    }
    assert_eq!(disposition["shuffled"]["shuffles"], 200);
    let of_file = lab.npz("out/attribution.npz");
    let d: Vec<f64> = array(&of_file, "cohen_d").to_vec1().unwrap();
    assert_eq!(json!(d), json!(heads.iter().map(|head| head["cohen_d"].clone()).collect::<Vec<_>>()));
    assert_eq!(array(&of_file, "head_norm").dims(), [13, LAYERS * HEADS]);
}

/// The numbers of one head's mean vectors `[item, dim]`, by their definitions.
fn directional(head: &Value, z: &Tensor) {
    let z: Vec<Vec<f64>> = z.to_dtype(DType::F64).unwrap().to_vec2().unwrap();
    let of = |odd: usize| -> Vec<f64> {
        (0..DIM).map(|k| mean(&(0..13).filter(|i| i % 2 == odd).map(|i| z[i][k]).collect::<Vec<_>>())).collect()
    };
    let (a, b) = (of(0), of(1));
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let direction: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    near("cos_means", &head["cos_means"], dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt());
    near("direction_norm", &head["direction_norm"], dot(&direction, &direction).sqrt());
    let along = |odd: usize| (0..13).filter(|i| i % 2 == odd).map(|i| dot(&z[i], &direction)).collect::<Vec<_>>();
    near("d_naive", &head["d_naive"], cohen_d(&along(0), &along(1)));
}

/// The files of an attribution agree, need nothing from outside, and are not made twice.
#[test]
fn attribute_writes_its_files_once() {
    let lab = Lab::new();
    write_cohorts(&lab);
    let attribute = "attribute --model M --items c.jsonl --a even --b odd --out out --shuffles 50";
    let table = lab.done(attribute);
    let text = lab.read("out/attribution.json");
    let report: Value = serde_json::from_str(&text).unwrap();
    let heads = report["dispositions"][0]["heads"].as_array().unwrap();
    let csv = lab.read("out/attribution.csv");
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 1 + heads.len());
    for (row, head) in rows[1..].iter().zip(heads) {
        for (column, cell) in rows[0].iter().zip(row) {
            let of_head = match column.strip_prefix("final_") {
                Some(name) => &head["final_token"][name],
                None => &head[*column],
            };
            match of_head {
                Value::Number(number) => assert_eq!(cell.parse::<f64>().unwrap(), number.as_f64().unwrap(), "{column}"),
                Value::String(text) => assert_eq!(cell, text),
                Value::Null => assert_eq!((*column, *cell), ("disposition", "even against odd")),
                other => panic!("{column} is {other}"),
            }
        }
    }
    let page = lab.read("out/report.html");
    assert!(page.contains("even against odd") && !page.contains("://") && !page.contains("src="));

    let mut ranked: Vec<&Value> = heads.iter().collect();
    ranked.sort_by(|x, y| y["cohen_d"].as_f64().unwrap().abs().total_cmp(&x["cohen_d"].as_f64().unwrap().abs()));
    let name = |head: &Value| format!("L{}H{}", head["layer"], head["head"]);
    let shown: Vec<&str> = table.lines().filter(|line| line.starts_with("| L")).map(|line| line[2..7].trim()).collect();
    assert_eq!(shown[..10], ranked[..10].iter().map(|head| name(head)).collect::<Vec<_>>());
    let (_, said) =
        lab.ends(0, "generate --model M Hi --max-new-tokens 1 --plan top:2@out/attribution.json --lambda 0.5");
    assert!(ranked[..2].iter().all(|head| said.contains(&format!("{}:0.5", name(head)))), "{said}");
    let mut apart: Vec<&Value> = heads.iter().collect();
    apart.sort_by(|x, y| y["d_crossfit"].as_f64().unwrap().total_cmp(&x["d_crossfit"].as_f64().unwrap()));
    let (loudest, farthest) = (ranked[..2].to_vec(), apart[..2].to_vec());
    assert_ne!(name(loudest[0]), name(farthest[0]), "else the next line shows nothing");
    let plan = "--plan top:2:direction@out/attribution.json --lambda 0.5";
    let (_, said) = lab.ends(0, &format!("generate --model M Hi --max-new-tokens 1 {plan}"));
    assert!(farthest.iter().all(|head| said.contains(&format!("{}:0.5", name(head)))), "{said}");
    // A ranking of other weights, or one that found nothing, is used with a warning; one of another geometry is refused.
    let other =
        text.replace(report["weights_sha256"].as_str().unwrap(), "0").replace("\"separable\"", "\"no evidence\"");
    lab.write("other.json", other.replace("\"magnitude only\"", "\"no evidence\""));
    let top = "generate --model M Hi --max-new-tokens 1 --lambda 0.5 --plan top:2@other.json";
    let (_, said) = lab.ends(0, top);
    assert!(
        said.contains("whose weights are others") && said.contains("it found nothing in 2 of these 2 heads"),
        "{said}"
    );
    // A list and a table also say which model they are of.
    let line = "generate --model M Hi --max-new-tokens 1 --lambda 0.5 --plan";
    let list = lab.read("out/heads.json");
    assert!(!lab.ends(0, &format!("{line} out/heads.json")).1.contains("weights are others"));
    lab.write("heads.json", list.replace(report["weights_sha256"].as_str().unwrap(), "0"));
    let (_, said) = lab.ends(0, &format!("{line} heads.json"));
    assert!(said.contains("heads.json: it is of llama, whose weights are others"), "{said}");
    let mut nameless: Value = serde_json::from_str(&list).unwrap();
    nameless.as_object_mut().unwrap().remove("weights_sha256").unwrap();
    lab.write("heads.json", nameless.to_string());
    let (_, said) = lab.ends(0, &format!("{line} heads.json"));
    assert!(said.contains("heads.json: it is of llama, and has no weights_sha256"), "{said}");
    let mut wider = report.clone();
    wider["heads_per_layer"] = json!([9, 9]);
    lab.write("other.json", wider.to_string());
    assert!(lab.ends(2, top).1.contains("it ranks 18 heads in 2 layers of"), "{}", lab.ends(2, top).1);

    let before = ["out/attribution.json", "out/attribution.csv", "out/attribution.npz"].map(|name| lab.modified(name));
    fs::remove_file(lab.path("out/heads.json")).unwrap();
    let (again, said) = lab.ends(0, attribute);
    assert!(said.contains("nothing left to do") && lab.path("out/heads.json").exists(), "{said}");
    assert_eq!((again, lab.read("out/attribution.json")), (table, text.clone()));
    let after = ["out/attribution.json", "out/attribution.csv", "out/attribution.npz"].map(|name| lab.modified(name));
    assert_eq!(after, before);
    assert_eq!(lab.done(&format!("{attribute} --json")), text);
    lab.done(&format!("{} --threads 1", attribute.replace("--out out", "--out other")));
    assert_eq!(lab.read("other/attribution.json"), text, "the same in another directory, on one thread");
}

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
    lab.write("d.toml", without("brave"));
    let out = lab.done(attribute);
    assert!(out.contains("not attributed: brave") && !out.contains("calm"), "{out}");
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

/// The same model, texts and definitions as transformers with hooks (`scripts/golden/attribution.py`): per-item norms, both
/// means, d, and the directional numbers. Measured worst: 9e-6 of a norm, 5e-6 of a mean, 9e-4 of a d (numpy's f32 against our
/// f64 arithmetic, 2026-11-26).
const NORM: f64 = 2e-4;
const EFFECT: f64 = 4e-3;

#[test]
fn compat_dd_is_what_the_scripts_compute_on_the_real_model() {
    let Some(model) = gguf_path() else { return };
    let lab = Lab::new();
    let dir = golden_dir("attribution");
    let golden: Value = serde_json::from_str(&fs::read_to_string(dir.join("golden.json")).unwrap()).unwrap();
    fs::copy(dir.join("items.jsonl"), lab.path("items.jsonl")).unwrap();
    let (model, options) = (model.display().to_string(), "--compat dd --shuffles 20 --resamples 0");
    let run = format!("attribute --model {model} --dtype f32 --items items.jsonl --a cw --b cr --out out {options}");
    let table = lab.done(&run);
    assert!(table.contains("2 items with fewer than 3 response tokens were dropped"), "{table}");
    let report = lab.json("out/attribution.json");
    let npz = lab.npz("out/attribution.npz");
    let ids: Vec<String> = golden["items"].as_object().unwrap().keys().cloned().collect();
    let norms: Vec<Vec<f64>> = array(&npz, "head_norm").to_dtype(DType::F64).unwrap().to_vec2().unwrap();
    assert_eq!((norms.len(), golden["dropped"].as_array().unwrap().len()), (ids.len(), 2));
    let mut worst = 0f64;
    for (id, ours) in ids.iter().zip(&norms) {
        let theirs = golden["items"][id]["norms"].as_array().unwrap();
        for (ours, theirs) in ours.iter().zip(theirs) {
            worst = farther(worst, (ours - theirs.as_f64().unwrap()).abs());
        }
    }
    println!("norms: {worst:e}");
    assert!(worst <= NORM, "{worst:e}");

    let ours = |name: &str, list: &str| lab.json(&format!("out/{name}"))[list].as_array().unwrap().clone();
    let magnitude = ours("path_b_attribution_cw_against_cr.json", "all_heads_ranked_by_cohen_d");
    let directional = ours("path_b_attribution_cw_against_cr_directional.json", "all_heads_ranked");
    let heads = report["dispositions"][0]["heads"].as_array().unwrap();
    let mut worst = [0f64; 2];
    for (list, wanted) in [(&magnitude, "magnitude"), (&directional, "directional")] {
        let wanted = golden[wanted].as_array().unwrap();
        assert_eq!(list.len(), wanted.len());
        for wanted in wanted {
            let same = |head: &&Value| head["layer"] == wanted["layer"] && head["head"] == wanted["head"];
            let found = list.iter().find(same).unwrap();
            let of_report = heads.iter().find(same).unwrap();
            for (key, value) in
                wanted.as_object().unwrap().iter().filter(|(key, _)| !["layer", "head"].contains(&key.as_str()))
            {
                let off = (found[key].as_f64().unwrap() - value.as_f64().unwrap()).abs();
                let effect = key.starts_with("d_") || key == "cohen_d";
                worst[usize::from(effect)] = worst[usize::from(effect)].max(off);
                assert!(off <= if effect { EFFECT } else { NORM }, "{key} of {wanted}: {off:e}");
                if !key.starts_with("mean_") {
                    assert_eq!(of_report[key], found[key], "the same under the scripts' names");
                }
            }
        }
    }
    println!("means: {:e}, effects: {:e}", worst[0], worst[1]);
    // The ranking is by signed d.
    let d: Vec<f64> = magnitude.iter().map(|head| head["cohen_d"].as_f64().unwrap()).collect();
    assert!(d.is_sorted_by(|x, y| x >= y) && d[0] > 0.0 && d[d.len() - 1] < 0.0);
    let place = |head: &Value| (head["layer"].clone(), head["head"].clone());
    assert_eq!(place(&magnitude[0]), place(&golden["magnitude"][0]));
    assert_eq!(place(&directional[0]), place(&golden["directional"][0]));
}

/// Value heads of delta nets are ranked beside attention heads and marked as such; the scripts could not see them.
#[test]
fn delta_net_heads_are_ranked_too() {
    let lab = Lab::new();
    write_cohorts(&lab);
    let hybrid = golden_dir("qwen3_5").display().to_string();
    let run = |out: &str, options: &str| {
        let shape = "--items c.jsonl --a even --b odd --shuffles 20 --repeats 1 --resamples 0";
        lab.done(&format!("attribute --model {hybrid} {shape} --out {out} {options}"));
        let report = lab.json(&format!("{out}/attribution.json"));
        let heads = report["dispositions"][0]["heads"].as_array().unwrap().clone();
        heads.iter().map(|head| head["kind"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let all = run("all", "");
    let (attn, linear) = (run("attn", "--heads attn"), run("linear", "--heads linear --top 2 --lambda 0"));
    assert!(attn.iter().all(|kind| kind == "attn") && linear.iter().all(|kind| kind == "linear"));
    assert!(!attn.is_empty() && !linear.is_empty() && all.len() == attn.len() + linear.len());
    assert_eq!(run("dd", "--compat dd"), attn);
    let (_, said) = lab.ends(0, &format!("generate --model {hybrid} Hi --max-new-tokens 1 --plan linear/heads.json"));
    assert_eq!(said.matches('V').count(), 2, "{said}");
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
