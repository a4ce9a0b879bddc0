//! `temper attribute` as a user runs it: numbers by their definitions, and files that other commands read.

mod compat;
mod dispositions;

use std::fs;

use candle_core::{DType, IndexOp, Tensor};
use headtemper_tests::golden_dir;
use serde_json::{Value, json};

use crate::lab::{DIM, HEADS, LAYERS, Lab, array};

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
