//! `temper gate` as a user runs it: a sidecar that hedges what a probe doubts.

use serde_json::{Value, json};

use crate::lab::{Lab, array, by_id, lines, prompts};

/// A sidecar on the tiny model: what it reads is what a capture of the same answers holds.
#[test]
fn a_sidecar_hedges_what_the_probe_doubts() {
    let lab = Lab::new();
    prompts(&lab, 12);
    let answers = by_id(&lab.done("generate --model M --items q.jsonl --max-new-tokens 6 --json"));
    lab.done(
        "capture --model M --items q.jsonl --generate --max-new-tokens 6 --layers last:2 --heads none --out f.npz",
    );
    let labels: Vec<u8> = (0..12).map(|i| u8::from(i % 3 != 0)).collect();
    lab.write("l.json", json!({"y": labels}).to_string());
    lab.done("probe fit --features f.npz:h_last --labels l.json:y --cv 3 --shuffles 0 --out p");
    // What is right is what the model says; what an item says of an answer that is not there yet does not count.
    let item = |i: usize| {
        let id = format!("q{i}");
        let gold = if labels[i] == 1 { answers[&id]["response"].clone() } else { json!("nobody says this") };
        json!({"id": id, "prompt": format!("Qu'est-ce que {i} à {}?", i * i), "gold": gold, "coverage": 0.0})
    };
    lab.write_lines("items.jsonl", (0..12).map(item));
    let run = "gate --model M --items items.jsonl --probe p --threshold 0.5 --max-new-tokens 6 --out g";
    let (out, _) = lab.ends(0, run);
    let found = lab.json("g/gate.json");
    let rows = lines(&lab.read("g/gated.jsonl"));
    assert_eq!((rows.len(), found["items"].as_u64()), (24, Some(12)));
    // A probe with as many features as here tells its own items apart: it doubts the wrong ones.
    assert_eq!((found["auc"].as_f64(), found["prefixed"].as_u64()), (Some(1.0), Some(4)), "{out}");
    assert_eq!(found["auc_delong"], json!({"low": null, "high": null}), "without an error there is no interval");
    assert!(out.contains("12 of 12 answers were generated here, and without a lexicon (--hedges)"), "{out}");
    assert_eq!((&found["plain"]["asymmetry"], &found["gated"]["asymmetry"]), (&json!(0.0), &json!(-1.0)));
    assert_eq!(found["plain"]["coverage"], found["gated"]["coverage"]);
    assert!(found["seen_in_training"] == 12 && out.contains("fitted on 12 of these 12 answers"), "{out}");
    for pair in rows.chunks_exact(2) {
        let (plain, gated) = (pair[0]["response"].as_str().unwrap(), pair[1]["response"].as_str().unwrap());
        let prefix = if pair[1]["prefixed"] == true { "I'm not sure, but " } else { "" };
        assert_eq!(gated, format!("{prefix}{plain}"));
    }
    // Probabilities are those of the probe on the capture of the same tokens.
    let eval = "probe eval p --features f.npz:h_last --labels l.json:y --out e";
    lab.done(eval);
    let p = array(&lab.npz("e/predictions.npz"), "p").to_vec2::<f64>().unwrap();
    for (row, p) in rows.iter().step_by(2).zip(&p[0]) {
        assert!((row["p"].as_f64().unwrap() - p).abs() < 1e-6, "{row}");
    }
    let (again, err) = lab.ends(0, run);
    assert!(again == out && err.contains("nothing left to do"), "{err}");
    let (_, err) = lab.ends(2, &run.replace("--threshold 0.5", "--threshold 0.6"));
    assert!(err.contains("threshold was 0.5, is 0.6"), "{err}");
    let (_, err) = lab.ends(2, &format!("{run} --site 0"));
    assert!(err.contains("--site is 0, but must be left out, or final_norm, which the probe was fitted on"), "{err}");
    let mut blank = lab.command(&run.replace("--out g", "--out g6"));
    let blank = blank.args(["--prefix", " "]).output().unwrap();
    assert!(String::from_utf8_lossy(&blank.stderr).contains("--prefix is blank") && !lab.path("g6").exists());
    let (out, _) = lab.ends(0, &format!("{} --raw --dtype bf16", run.replace("--out g", "--out g7")));
    for other in
        ["weights in f32 there, weights in bf16 here", "prompts with it, and these are read without the chat template"]
    {
        assert!(out.contains(other), "{other}: {out}");
    }
    for (threshold, told) in [("nan", "NaN"), ("50", "50")] {
        let line = format!("gate --model M --items items.jsonl --probe p --threshold {threshold} --out g4");
        let (_, err) = lab.ends(2, &line);
        assert!(err.contains(&format!("the threshold is {told}, but must be a probability, from 0 to 1")), "{err}");
        assert!(!lab.path("g4").exists(), "refused before anything is generated");
    }
    // An answer that comes along without a label says nothing of its hedging either.
    let brought = |i: usize| {
        let label = if i < 3 { json!("cr") } else { Value::Null };
        json!({"id": format!("b{i}"), "prompt": format!("{i}?"), "response": "yes", "gold": "yes", "label": label})
    };
    lab.write_lines("brought.jsonl", (0..8).map(brought));
    let out = lab.done("gate --model M --items brought.jsonl --probe p --threshold 0.5 --out g5");
    assert!(out.contains("5 of 8 answers come without a label, and without a lexicon (--hedges)"), "{out}");
    lab.done("capture --model M --items q.jsonl --generate --max-new-tokens 6 --layers 0 --heads none --out other.npz");
    lab.done("probe fit --features other.npz:h_layers[0] --labels l.json:y --cv 3 --shuffles 0 --out layers");
    lab.done("gate --model M --items items.jsonl --probe layers --threshold 0.5 --max-new-tokens 6 --out g2");
    let (_, err) = lab.ends(2, "gate --model M --items items.jsonl --probe p --c 3 --out g3");
    assert!(err.contains("C is 3, but must be one that the probe was fitted with: 1"), "{err}");
}
