//! The program on Qwen3.5 and Gemma 4: captures, plans and sweeps over heads of every kind; and what is peculiar to their computation.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{Device, Tensor, npy::NpzTensors};
use headtemper_hook::Site;
use headtemper_model::{Checkpoint, Held, load};
use headtemper_tests::{Golden, golden_dir, golden_model, in_pieces, read_through, temper, worst};
use serde_json::{Value, json};

use crate::lab::Lab;

/// Averages of z and its norms against transformers'. Measured worst case: 1.6e-5 (2026-11-21).
const MEANS: f32 = 1e-4;

fn done(lab: &Path, line: &str) -> String {
    let output = temper().args(line.split_whitespace()).current_dir(lab).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(lab: &Path, line: &str) -> String {
    let output = temper().args(line.split_whitespace()).current_dir(lab).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
    stderr
}

fn items(lab: &Path, golden: &Golden) {
    let item = |i: usize| {
        let label = if i == 0 { "a" } else { "b" };
        json!({"id": format!("s{i}"), "label": label, "input_ids": golden.ids(&format!("seq{i}.input_ids"))})
            .to_string()
    };
    fs::write(lab.join("items.jsonl"), (0..3).map(item).collect::<Vec<_>>().join("\n")).unwrap();
}

/// Every head's mean z and mean norm, in the arrays for its kind of layer, are transformers'.
#[test]
fn captures_hold_the_heads_of_every_kind() {
    for name in ["qwen3_5", "gemma4"] {
        let (golden, model, lab) = (Golden::read(name), golden_model(name), tempfile::tempdir().unwrap());
        items(lab.path(), &golden);
        let dir = golden_dir(name).display().to_string();
        done(lab.path(), &format!("capture --model {dir} --items items.jsonl --out c.npz --layers all --heads vector"));
        let npz = NpzTensors::new(lab.path().join("c.npz")).unwrap();
        let array = |name: &str| npz.get(name).unwrap().unwrap_or_else(|| panic!("no array '{name}'"));
        let spec = model.spec();
        for i in 0..3 {
            for (layer, l) in spec.layers.iter().enumerate() {
                let z = golden.get(&format!("seq{i}.o_in.{layer}"));
                let (tokens, heads) = (z.dim(0).unwrap(), l.heads);
                let read = tokens.min(32);
                let z = z.narrow(0, tokens - read, read).unwrap().reshape((read, heads.count, heads.dim)).unwrap();
                let site = spec.head_site(layer).to_string();
                let off = worst(&array(&site).get(i).unwrap(), &z.mean(0).unwrap());
                let norms = z.sqr().unwrap().sum(2).unwrap().sqrt().unwrap().mean(0).unwrap();
                let slots = spec.layer_slots(layer);
                let ours = array("head_norm").get(i).unwrap().narrow(0, slots.start, slots.len()).unwrap();
                let off = off.max(worst(&ours, &norms));
                println!("{name} seq{i} {site}: {off:e} of {MEANS:e}");
                assert!(off <= MEANS, "{name} seq{i} {site}: {off:e}");
            }
        }
    }
}

/// Value heads are written `V`, in plans, λ tables, attributions and sweeps; the wrong letter is refused.
#[test]
fn value_heads_are_named_in_every_verb() {
    let (golden, lab) = (Golden::read("qwen3_5"), tempfile::tempdir().unwrap());
    let (lab, model) = (lab.path(), golden_dir("qwen3_5").display().to_string());
    items(lab, &golden);
    let generate = |plan: &str| -> BTreeMap<String, Value> {
        let out = done(lab, &format!("generate --model {model} --items items.jsonl --max-new-tokens 16 --plan {plan}"));
        let line = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
        out.lines().map(line).map(|row| (row["id"].as_str().unwrap().to_string(), row)).collect()
    };
    let plan = golden.plan("lin_half");
    assert_eq!(plan.iter().filter(|(at, _)| at.to_string().contains('V')).count(), 2, "{plan}");
    for i in 0..3 {
        let expected = golden.ids(&format!("seq{i}.lin_half.greedy")).into_iter().take_while(|&id| id != 5);
        assert_eq!(
            generate(&plan.to_string())[&format!("s{i}")]["response_ids"],
            json!(expected.collect::<Vec<u32>>()),
            "s{i}"
        );
    }
    // The same as a λ table, in which the layer alone says which kind of heads it has.
    let mut lambda = vec![1f32; 3 * 8 * 4];
    for row in 0..3 {
        for (at, value) in plan.iter() {
            lambda[(row * 8 + at.layer) * 4 + at.head] = value;
        }
    }
    let table = Tensor::from_vec(lambda, (3, 8, 4), &Device::Cpu).unwrap();
    Tensor::write_npz(&[("lambda", table)], lab.join("t.npz")).unwrap();
    assert_eq!(generate("t.npz")["s1"]["response_ids"], generate(&plan.to_string())["s1"]["response_ids"]);

    let wrong = refused(lab, &format!("generate --model {model} --items items.jsonl --plan L0H0:0.5"));
    assert!(wrong.contains("the heads of layer 0 are L0V0 to L0V3, and layers with H heads are 3, 7"), "{wrong}");

    let sweep = format!("sweep --model {model} --items items.jsonl --heads all --each --lambda 1,0 --max-new-tokens 2");
    done(lab, &format!("{sweep} --out sweep"));
    let rows = fs::read_to_string(lab.join("sweep/rows.jsonl")).unwrap();
    assert!(rows.contains("L2V3") && rows.contains("L7H0"), "every head of every kind has its arm");
}

/// Gemma 4: a sliding layer sees as many tokens as its window is long, the token itself included.
#[test]
fn a_window_of_eight_is_eight_tokens() {
    let model = golden_model("gemma4");
    let ids: Vec<u32> = (20..40).collect();
    let z_of = |ids: &[u32]| {
        let (record, _) = read_through(&*model, ids, None);
        record.0.iter().find(|(site, _)| *site == Site::Z(0)).unwrap().1.get(19).unwrap()
    };
    let base = z_of(&ids);
    for (position, seen) in [(10, false), (11, false), (12, true), (18, true)] {
        let mut other = ids.clone();
        other[position] = 77;
        assert_eq!(worst(&z_of(&other), &base) > 0.0, seen, "query 19 and key {position} under a window of 8");
    }
}

/// Gemma 4: layers that share keys have none of their own, and use those of the last layer of their kind that has.
#[test]
fn shared_keys_are_those_of_their_kind() {
    let lab = tempfile::tempdir().unwrap();
    let dir = golden_dir("gemma4_wrapper");
    fs::copy(dir.join("config.json"), lab.path().join("config.json")).unwrap();
    let whole = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let ids = Golden::read("gemma4").ids("seq1.input_ids");
    // The layers whose heads change when one layer's keys are zeroed.
    let changed = |layer: usize| -> Vec<usize> {
        let z_of = |zeroed: bool| -> BTreeMap<Site, Tensor> {
            let mut tensors = whole.clone();
            if zeroed {
                let name = format!("model.language_model.layers.{layer}.self_attn.k_proj.weight");
                let zeros = tensors[&name].zeros_like().unwrap();
                tensors.insert(name, zeros);
            }
            candle_core::safetensors::save(&tensors, lab.path().join("model.safetensors")).unwrap();
            let checkpoint = Checkpoint::Directory(lab.path().into());
            let model = load(&checkpoint, Some(Held::F32), &Device::Cpu).unwrap();
            read_through(&*model, &ids, None).0.0.into_iter().collect()
        };
        let (base, zeroed) = (z_of(false), z_of(true));
        (0..8).filter(|&l| worst(&base[&Site::Z(l)], &zeroed[&Site::Z(l)]) > 0.0).collect()
    };
    // Layers 5 and 6 slide and read layer 3's keys, layer 7 is full and reads layer 4's.
    assert_eq!(changed(6), [0usize; 0], "a layer that shares has keys of its own in the file, and nobody reads them");
    assert_eq!(changed(3), [3, 4, 5, 6, 7]);
    assert_eq!(changed(4), [4, 5, 6, 7], "through the residual stream, too");
}

/// Gemma 4 reads padding where an image would be (transformers `Gemma4Model.forward`), which is nothing that a text says: such tokens are
/// refused in texts, whatever brings them, and what generation would do to answers beyond us is told.
#[test]
fn tokens_that_stand_for_images_are_refused_in_texts() {
    let lab = Lab::new();
    let dir = golden_dir("gemma4_wrapper");
    let item = |id: &str, ids: [u32; 3]| json!({"id": id, "input_ids": ids}).to_string() + "\n";
    let capture = |lines: String| {
        lab.write("i.jsonl", lines);
        lab.command(&format!("capture --model {} --items i.jsonl --out c.npz", dir.display())).output().unwrap()
    };
    for token in [312, 313, 314] {
        let output = capture(item("plain", [5, 6, 7]) + &item("pictured", [5, token, 7]));
        let said = String::from_utf8(output.stderr).unwrap();
        let why = format!("item 'pictured' holds token id {token}, which stands for an image, a video or a sound");
        assert!(output.status.code() == Some(2) && said.contains(&why), "{said}");
    }
    assert!(capture(item("plain", [5, 6, 7]) + &item("others", [5, 311, 315])).status.success());
    // The decoder by itself knows of no images.
    lab.write("i.jsonl", item("plain", [5, 312, 7]));
    lab.done(&format!("capture --model {} --items i.jsonl --out text.npz", golden_dir("gemma4").display()));

    let model = lab.path("m");
    fs::create_dir(&model).unwrap();
    for file in fs::read_dir(golden_dir("llama")).unwrap().map(|file| file.unwrap().path()) {
        fs::copy(&file, model.join(file.file_name().unwrap())).unwrap();
    }
    fs::write(model.join("generation_config.json"), json!({"repetition_penalty": 1.3}).to_string()).unwrap();
    let (_, said) = lab.ends(0, "generate --model m Hi --max-new-tokens 1");
    assert!(
        said.contains("note: generation_config.json has repetition_penalty, which transformers' generate applies"),
        "{said}"
    );
}

/// Gemma 4 with the published window of 512: reading in pieces that do not divide it equals reading at once, and a query
/// sees 512 keys.
#[test]
fn pieces_cross_the_published_window() {
    let lab = tempfile::tempdir().unwrap();
    let config = lab.path().join("config.json");
    let text = fs::read_to_string(golden_dir("gemma4").join("config.json")).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["sliding_window"] = json!(512);
    value["max_position_embeddings"] = json!(1024);
    fs::write(&config, value.to_string()).unwrap();
    let model = load(&Checkpoint::Random { config, seed: 3 }, None, &Device::Cpu).unwrap();
    let ids: Vec<u32> = (0..640u32).map(|i| i.wrapping_mul(7919) % 300).collect();
    let bits = |x: &Tensor| -> Vec<u32> {
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    };
    let whole = in_pieces(&*model, &ids, &[640], &mut ());
    for pieces in [vec![333, 200, 104, 1, 1, 1], vec![511, 1, 1, 127], vec![100; 6].into_iter().chain([40]).collect()] {
        assert_eq!(bits(&in_pieces(&*model, &ids, &pieces, &mut ())), bits(&whole), "in pieces {pieces:?}");
    }
    let z_of = |ids: &[u32]| {
        let (record, _) = read_through(&*model, ids, None);
        record.0.iter().find(|(site, _)| *site == Site::Z(0)).unwrap().1.get(599).unwrap()
    };
    for (position, seen) in [(87, false), (88, true)] {
        let mut other = ids[..600].to_vec();
        other[position] = 301;
        assert_eq!(worst(&z_of(&other), &z_of(&ids[..600])) > 0.0, seen, "query 599 and key {position}");
    }
}
