//! `--compat dd`: the arithmetic of the paper's scripts, on the real model.

use std::fs;

use candle_core::DType;
use headtemper_tests::{farther, golden_dir};
use serde_json::Value;

use crate::{
    lab::{Lab, array},
    real::gguf_path,
};

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
