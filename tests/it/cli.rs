//! The program as a user runs it, on the tiny Llama: what it prints and writes, checked value by value.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use candle_core::{Device, Tensor, npy::NpzTensors};
use headtemper_tests::{Golden, golden_dir, temper, worst};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a value may differ from transformers' (measured: 2e-5 on logits).
const TOLERANCE: f32 = 1e-4;
/// Layers of the tiny Llama.
pub(crate) const LAYERS: usize = 4;
/// Heads of each layer.
pub(crate) const HEADS: usize = 6;
/// Width of a head.
pub(crate) const DIM: usize = 12;

/// A directory to run the program in; `M` in a command is the tiny Llama.
pub(crate) struct Lab(TempDir);

impl Lab {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn write_lines(&self, name: &str, lines: impl IntoIterator<Item = Value>) {
        let text: String = lines.into_iter().map(|line| line.to_string() + "\n").collect();
        self.write(name, text);
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// The lines of a log of rows, of which none may stand there twice.
    pub(crate) fn rows(&self, name: &str) -> BTreeSet<String> {
        let text = self.read(name);
        let rows: BTreeSet<String> = text.lines().map(String::from).collect();
        assert_eq!(rows.len(), text.lines().count(), "{name}: a row stands there twice");
        rows
    }

    /// Files of both directories are the same, byte for byte.
    pub(crate) fn same(&self, names: &[&str], a: &str, b: &str) {
        for name in names {
            let read = |dir: &str| fs::read(self.path(dir).join(name)).unwrap();
            assert!(read(a) == read(b), "{a}/{name} and {b}/{name} differ");
        }
    }

    pub(crate) fn modified(&self, name: &str) -> SystemTime {
        fs::metadata(self.path(name)).unwrap().modified().unwrap()
    }

    pub(crate) fn npz(&self, name: &str) -> NpzTensors {
        NpzTensors::new(self.path(name)).unwrap()
    }

    /// The program with the words of a line.
    pub(crate) fn command(&self, line: &str) -> Command {
        let model = golden_dir("llama").to_string_lossy().into_owned();
        let mut command = temper();
        command.args(line.split_whitespace().map(|word| if word == "M" { &model } else { word }));
        command.current_dir(self.0.path()).env("HF_HUB_OFFLINE", "1");
        command
    }

    /// Runs a line that must end with this code; returns stdout and stderr.
    pub(crate) fn ends(&self, code: i32, line: &str) -> (String, String) {
        let output = self.command(line).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{line}\n{err}");
        (out, err)
    }

    /// Runs a line that must succeed; returns stdout.
    pub(crate) fn done(&self, line: &str) -> String {
        self.ends(0, line).0
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// JSON lines by their `id`, of which none may stand there twice.
fn by_id(text: &str) -> BTreeMap<String, Value> {
    let lines = lines(text);
    let count = lines.len();
    let map: BTreeMap<_, _> = lines.into_iter().map(|line| (line["id"].as_str().unwrap().to_string(), line)).collect();
    assert_eq!(map.len(), count, "an id stands there twice");
    map
}

pub(crate) fn array(npz: &NpzTensors, name: &str) -> Tensor {
    npz.get(name).unwrap().unwrap_or_else(|| panic!("the file has no array '{name}'"))
}

fn counts(npz: &NpzTensors, name: &str) -> Vec<i64> {
    array(npz, name).to_vec1().unwrap()
}

fn same(what: &str, ours: &Tensor, theirs: &Tensor) {
    let worst = worst(ours, theirs);
    assert!(worst <= TOLERANCE, "{what}: off by {worst:e}");
}

/// The last row of a `[token, ..]` tensor.
fn last(x: &Tensor) -> Tensor {
    x.get(x.dim(0).unwrap() - 1).unwrap()
}

/// The first three golden sequences as items.
fn golden_items(lab: &Lab, golden: &Golden) {
    let item = |i: usize| json!({"id": format!("s{i}"), "input_ids": golden.ids(&format!("seq{i}.input_ids"))});
    lab.write_lines("g.jsonl", (0..3).map(item));
}

/// Prompts, some of which are not ASCII.
fn prompts(lab: &Lab, count: usize) {
    let prompt = |i: usize| json!({"id": format!("q{i}"), "prompt": format!("Qu'est-ce que {i} à {}?", i * i)});
    lab.write_lines("q.jsonl", (0..count).map(prompt));
}

/// The geometry, the sites and the stop tokens, from a directory and from a GGUF file alike.
#[test]
fn inspect_says_what_the_model_has() {
    let lab = Lab::new();
    let facts: Value = serde_json::from_str(&lab.done("inspect --model M --json")).unwrap();
    let layer = |i: usize| {
        json!({"layer": i, "mixer": "full", "heads": 6, "kv_heads": 2, "head_dim": 12, "first_head": format!("L{i}H0"),
               "last_head": format!("L{i}H5"), "site": format!("blocks.{i}.attn.hook_z")})
    };
    assert_eq!(facts["layers"], json!((0..LAYERS).map(layer).collect::<Vec<_>>()));
    let numbers = ["d_model", "vocab", "context", "slots", "parameters", "weight_bytes", "cache_bytes_per_token"];
    // 320 x 72 embedding, tied; a layer has 2 norms, q and o 72 x 72, k and v 24 x 72, three 72 x 128; a final norm
    let parameters = 320 * 72 + LAYERS * (2 * 72 + 2 * 72 * 72 + 2 * 24 * 72 + 3 * 72 * 128) + 72;
    let cache = LAYERS * 2 * 24 * 4;
    assert_eq!(
        numbers.map(|name| facts[name].as_u64().unwrap() as usize),
        [72, 320, 256, 24, parameters, 4 * parameters, cache]
    );
    assert_eq!(facts["stop_tokens"], json!([{"id": 5, "token": "<|im_end|>"}]));
    assert_eq!(facts["chat_template"], true);
    assert_eq!(facts["architecture"], "llama");
    assert_eq!(facts["weights_sha256"].as_str().unwrap().len(), 64);

    fs::copy(golden_dir("llama").join("model.f32.gguf"), lab.path("m.gguf")).unwrap();
    let gguf: Value = serde_json::from_str(&lab.done("inspect --model m.gguf --json")).unwrap();
    for name in ["layers", "d_model", "vocab", "context", "slots", "parameters", "sites"] {
        assert_eq!(gguf[name], facts[name], "{name}");
    }
    let text = lab.done("inspect --model M");
    assert!(
        text.contains("4: full attention, 6 heads x 12, 2 key/value heads (layers 0-3)")
            && text.contains("24 in all, L0H0 to L3H5"),
        "{text}"
    );
}

/// Layers by kind, delta-net heads and shared keys; from a configuration alone, too.
#[test]
fn inspect_tells_layers_by_kind() {
    let lab = Lab::new();
    let inspect = |model: &str| -> Value {
        let named = golden_dir(model).to_string_lossy().into_owned();
        serde_json::from_str(&lab.done(&format!("inspect {named} --json"))).unwrap()
    };
    let hybrid = inspect("qwen3_5_wrapper");
    assert_eq!(
        hybrid["layers"][2],
        json!({"layer": 2, "mixer": "delta", "heads": 4, "kv_heads": 2, "head_dim": 24, "first_head": "L2V0",
               "last_head": "L2V3", "site": "blocks.2.linear_attn.hook_z", "key_dim": 16, "kernel": 4})
    );
    assert_eq!((&hybrid["slots"], &hybrid["layers"][3]["last_head"]), (&json!(32), &json!("L3H3")));
    // 6 delta nets: 4 heads of 16 x 24 in f32, and 3 rows of 160 channels
    assert_eq!(hybrid["cache_bytes_per_sequence"], 6 * (4 * 16 * 24 * 4 + 3 * 160 * 4));
    let shared = inspect("gemma4");
    assert_eq!(
        shared["layers"][5],
        json!({"layer": 5, "mixer": "sliding", "heads": 4, "kv_heads": 1, "head_dim": 16, "first_head": "L5H0",
               "last_head": "L5H3", "site": "blocks.5.attn.hook_z", "window": 8, "keys_of": 3})
    );
    assert_eq!(shared["mapped_bytes"], 320 * 64 * 4);

    fs::copy(golden_dir("gemma4").join("config.json"), lab.path("config.json")).unwrap();
    let promised: Value = serde_json::from_str(&lab.done("inspect config.json --json")).unwrap();
    for name in ["layers", "parameters", "sites", "slots", "cache_bytes_per_token"] {
        assert_eq!(promised[name], shared[name], "{name}");
    }
    assert_eq!((&promised["weights_sha256"], &promised["stop_tokens"]), (&Value::Null, &Value::Null));
    assert!(lab.done("inspect config.json").contains("none here: this is what the configuration promises"));
}

/// A configuration alone runs on random weights: the same for the same seed, and numbers stand for its texts.
#[test]
fn random_weights_run_without_a_checkpoint() {
    let lab = Lab::new();
    fs::copy(golden_dir("qwen3_5").join("config.json"), lab.path("tiny.json")).unwrap();
    let generate = |seed: u64, plan: &str| {
        lab.done(&format!("generate --model tiny.json --random {seed} --raw 17 --max-new-tokens 6 {plan}"))
    };
    let text = generate(1, "");
    assert_eq!(text.split_whitespace().map(|id| id.parse::<u32>().unwrap()).filter(|&id| id < 320).count(), 6);
    assert_eq!((generate(1, ""), generate(1, "--plan L0V0:1")), (text.clone(), text.clone()));
    assert_ne!(generate(2, ""), text);
    let facts: Value =
        serde_json::from_str(&lab.done("bench --model tiny.json --random 1 --prompt-tokens 8 --new-tokens 4 --json"))
            .unwrap();
    assert_eq!(facts["model"], "tiny");
}

/// The same command says the same; a plan changes it, unless every λ is 1.
#[test]
fn generate_is_deterministic_and_follows_the_plan() {
    let lab = Lab::new();
    let generate = |rest: &str| -> Value {
        let out = lab.done(&format!("generate --model M Hello --max-new-tokens 24 --json {rest}"));
        assert_eq!(out.lines().count(), 1);
        serde_json::from_str(&out).unwrap()
    };
    let plain = generate("");
    assert_eq!(plain, generate(""));
    let said = |line: &Value| (line["response_ids"].clone(), line["response"].clone(), line["sum_logprob"].clone());
    let one = generate("--plan L0H1:1");
    assert_eq!(said(&one), said(&plain), "λ = 1 changes nothing");
    assert_eq!((&one["plan"], &plain["plan"]), (&json!("L0H1:1"), &json!("none")));
    assert_ne!(said(&generate("--plan L0H1:0.5,L2H4:0")), said(&plain));
    assert_eq!(generate("--plan L2H4,L0H1 --lambda 0.5"), generate("--plan {\"0\":[1],\"2\":[4]} --lambda 0.5"));
    assert_eq!(plain["n_tokens"], plain["response_ids"].as_array().unwrap().len());
    assert!(plain["sum_logprob"].as_f64().unwrap() < 0.0);

    let sampled = |seed: u64| said(&generate(&format!("--temperature 1 --seed {seed}")));
    assert_eq!(sampled(1), sampled(1));
    assert_ne!(sampled(1), sampled(2));
    assert_ne!(sampled(1), said(&plain));
}

/// What is streamed is the response that `--json` reports, characters of several tokens included.
#[test]
fn generate_streams_what_it_reports() {
    let lab = Lab::new();
    for seed in 0..8 {
        let line = format!("generate --model M Hello --max-new-tokens 60 --temperature 1.5 --seed {seed}");
        let (streamed, _) = lab.ends(0, &line);
        let reported: Value = serde_json::from_str(&lab.done(&format!("{line} --json"))).unwrap();
        assert_eq!(streamed, format!("{}\n", reported["response"].as_str().unwrap()), "seed {seed}");
    }
    let mut child = lab
        .command("generate --model M - --max-new-tokens 8 --json")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Hello").unwrap();
    let piped = texts(&child.wait_with_output().unwrap()).0;
    assert_eq!(piped, lab.done("generate --model M Hello --max-new-tokens 8 --json"), "`-` reads stdin");
    let chat = |rest: &str| lab.done(&format!("generate --model M Hello --max-new-tokens 8 --json {rest}"));
    let tokens = |text: &str| lines(text)[0]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&chat("--raw")) < tokens(&chat("")) && tokens(&chat("")) < tokens(&chat("--system Brief.")));
}

/// One line an item, the golden continuation for the golden ids, whatever runs beside it and on however many threads.
#[test]
fn generate_answers_every_item() {
    let (lab, golden) = (Lab::new(), Golden::read("llama"));
    golden_items(&lab, &golden);
    let generate = "generate --model M --items g.jsonl --max-new-tokens 16";
    let out = lab.done(generate);
    let plan = golden.plan("half").to_string();
    let tempered = lab.done(&format!("{generate} --plan {plan}"));
    for (text, key) in [(&out, "greedy"), (&tempered, "half.greedy")] {
        let answers = by_id(text);
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["s0", "s1", "s2"]);
        for i in 0..3 {
            let expected = golden.ids(&format!("seq{i}.{key}"));
            // transformers went on after the stop token
            let expected: Vec<u32> = expected.into_iter().take_while(|&id| id != 5).collect();
            assert_eq!(answers[&format!("s{i}")]["response_ids"], json!(expected), "seq{i} {key}");
            let reason = if expected.len() < 16 { "stop" } else { "length" };
            assert_eq!(answers[&format!("s{i}")]["finish_reason"], reason);
        }
    }
    prompts(&lab, 9);
    let sorted = |rest: &str| by_id(&lab.done(&format!("generate --model M --items q.jsonl --temperature 1 {rest}")));
    let together = sorted("--max-new-tokens 20");
    assert_eq!(together.len(), 9);
    assert_eq!(sorted("--max-new-tokens 20 --max-rows 1 --threads 2"), together);
}

/// Every array of a capture against transformers.
#[test]
fn capture_is_transformers() {
    let (lab, golden) = (Lab::new(), Golden::read("llama"));
    golden_items(&lab, &golden);
    let summary = lab.done("capture --model M --items g.jsonl --out c.npz --layers all --heads vector --logits --json");
    let expected = json!({"out": "c.npz", "items": 3, "d_model": 72, "layers": 4, "fired_tokens": 0});
    assert_eq!(lines(&summary), [expected]);
    let npz = lab.npz("c.npz");
    let shape = |name: &str| array(&npz, name).dims().to_vec();
    assert_eq!((shape("h_last"), shape("h_layers")), (vec![3, 72], vec![3, LAYERS, 72]));
    assert_eq!((shape("head_norm"), shape("logits")), (vec![3, LAYERS * HEADS], vec![3, 320]));
    for i in 0..3 {
        let theirs = |name: &str| golden.get(&format!("seq{i}.{name}"));
        let ours = |name: &str| array(&npz, name).get(i).unwrap();
        let hidden = theirs("hidden_states");
        same("h_last", &ours("h_last"), &last(&hidden.get(LAYERS).unwrap()));
        same("logits", &ours("logits"), &last(theirs("logits")));
        same("the last layer", &ours("h_layers").get(LAYERS - 1).unwrap(), theirs("last_layer_out"));
        for layer in 0..LAYERS {
            if layer + 1 < LAYERS {
                same("h_layers", &ours("h_layers").get(layer).unwrap(), &last(&hidden.get(layer + 1).unwrap()));
            }
            let z = theirs(&format!("o_in.{layer}"));
            let tokens = z.dim(0).unwrap();
            let read = tokens.min(32);
            let z = z.narrow(0, tokens - read, read).unwrap().reshape((read, HEADS, DIM)).unwrap();
            let norms = z.sqr().unwrap().sum(2).unwrap().sqrt().unwrap().mean(0).unwrap();
            same("head_norm", &ours("head_norm").narrow(0, layer * HEADS, HEADS).unwrap(), &norms);
            let name = format!("blocks.{layer}.attn.hook_z");
            assert_eq!(shape(&name), [3, HEADS, DIM]);
            same(&name, &ours(&name), &z.mean(0).unwrap());
        }
    }
    let slots = |of: fn(i64) -> i64| (0..24).map(of).collect::<Vec<i64>>();
    assert_eq!((counts(&npz, "slot_layer"), counts(&npz, "slot_head")), (slots(|s| s / 6), slots(|s| s % 6)));
    assert_eq!(counts(&npz, "layers"), [0, 1, 2, 3]);
    assert_eq!((counts(&npz, "total_len"), counts(&npz, "token_index")), (vec![5, 17, 40], vec![4, 16, 39]));
    let bytes = fs::read(lab.path("c.npz")).unwrap();
    for part in ["s1", "\"schema\":\"features/v1\"", "\"site\":\"ln_final.hook_normalized\"", "\"plan\":[\"none\"]"] {
        let utf32: Vec<u8> = part.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert!(bytes.windows(utf32.len()).any(|window| window == utf32), "the file does not say {part}");
    }
}

/// Under a plan, from a GGUF file, and held in bf16 (which the golden weights fit), h_last is transformers' too.
#[test]
fn capture_is_transformers_under_a_plan_and_from_other_files() {
    let (lab, golden) = (Lab::new(), Golden::read("llama"));
    golden_items(&lab, &golden);
    fs::copy(golden_dir("llama").join("model.f32.gguf"), lab.path("m.gguf")).unwrap();
    let plan = golden.plan("half").to_string();
    for (model, dtype) in [("M", "auto"), ("m.gguf", "auto"), ("M", "bf16")] {
        let capture = format!("capture --model {model} --dtype {dtype} --items g.jsonl --json --out");
        lab.done(&format!("{capture} plain.npz"));
        let summary = lab.done(&format!("{capture} half.npz --plan {plan}"));
        assert_eq!(lines(&summary)[0]["fired_tokens"], 3 * (5 + 17 + 40), "three heads at every token");
        let (plain, half) = (array(&lab.npz("plain.npz"), "h_last"), array(&lab.npz("half.npz"), "h_last"));
        for i in 0..3 {
            let hidden = golden.get(&format!("seq{i}.hidden_states"));
            same("h_last", &plain.get(i).unwrap(), &last(&hidden.get(LAYERS).unwrap()));
            same("half h_last", &half.get(i).unwrap(), golden.get(&format!("seq{i}.half.h_last")));
        }
    }
}

/// A λ table gives every item its own plan; a row of ones leaves its item alone.
#[test]
fn a_lambda_table_works_item_by_item() {
    let (lab, golden) = (Lab::new(), Golden::read("llama"));
    golden_items(&lab, &golden);
    let mut lambda = vec![1f32; 3 * LAYERS * HEADS];
    for (row, set) in [(1, "half"), (2, "mixed")] {
        for (at, value) in golden.plan(set).iter() {
            lambda[(row * LAYERS + at.layer) * HEADS + at.head] = value;
        }
    }
    let table = Tensor::from_vec(lambda, (3, LAYERS, HEADS), &Device::Cpu).unwrap();
    Tensor::write_npz(&[("lambda", table)], lab.path("t.npz")).unwrap();
    lab.done("capture --model M --items g.jsonl --plan t.npz --out c.npz");
    let h_last = array(&lab.npz("c.npz"), "h_last");
    same("row 0", &h_last.get(0).unwrap(), &last(&golden.get("seq0.hidden_states").get(LAYERS).unwrap()));
    same("row 1", &h_last.get(1).unwrap(), golden.get("seq1.half.h_last"));
    same("row 2", &h_last.get(2).unwrap(), golden.get("seq2.mixed.h_last"));

    let answers = by_id(&lab.done("generate --model M --items g.jsonl --plan t.npz --max-new-tokens 16"));
    for (id, key, plan) in [
        ("s0", "seq0.greedy", "none".to_string()),
        ("s1", "seq1.half.greedy", golden.plan("half").to_string()),
        ("s2", "seq2.mixed.greedy", golden.plan("mixed").to_string()),
    ] {
        let expected: Vec<u32> = golden.ids(key).into_iter().take_while(|&id| id != 5).collect();
        assert_eq!((&answers[id]["response_ids"], &answers[id]["plan"]), (&json!(expected), &json!(plan)), "{id}");
    }
}

/// Rows as (id, variant, seed, response): what a set of them must be, in whatever order they were made.
fn row_set(lab: &Lab, name: &str) -> BTreeSet<(String, String, u64, String)> {
    let rows = lines(&lab.read(name));
    let count = rows.len();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_string();
    let key =
        |row: Value| (text(&row, "id"), text(&row, "variant"), row["seed"].as_u64().unwrap(), text(&row, "response"));
    let set: BTreeSet<_> = rows.into_iter().map(key).collect();
    assert_eq!(set.len(), count, "{name} holds a row twice");
    set
}

const SWEEP: &str = "sweep --model M --items q.jsonl --heads L0H1,L2H4 --max-new-tokens 12 --out out";

/// A row for every item and arm; the control arm is the λ = 1 arm, which is the untouched model.
#[test]
fn sweep_writes_a_row_for_every_item_and_arm() {
    let lab = Lab::new();
    prompts(&lab, 7);
    let out = lab.done(&format!("{SWEEP} --lambda 1,1,0.5 --json"));
    let rows = lines(&lab.read("out/rows.jsonl"));
    assert_eq!(rows.len(), 3 * 7);
    let untouched = by_id(&lab.done("generate --model M --items q.jsonl --max-new-tokens 12"));
    let tempered = by_id(&lab.done("generate --model M --items q.jsonl --max-new-tokens 12 --plan L0H1:0.5,L2H4:0.5"));
    let mut arms: BTreeMap<&str, usize> = BTreeMap::new();
    let shared = ["id", "seed", "prompt", "response", "finish_reason", "n_tokens", "sum_logprob", "response_ids"];
    for row in &rows {
        let variant = row["variant"].as_str().unwrap();
        *arms.entry(variant).or_default() += 1;
        let expected = if variant == "L0H1+L2H4@0.5" { &tempered } else { &untouched };
        let expected = &expected[row["id"].as_str().unwrap()];
        for key in shared {
            assert_eq!(row[key], expected[key], "{variant} {key}");
        }
        assert_eq!(row["key"].as_str().unwrap().len(), 32);
        assert_eq!(row.as_object().unwrap().len(), shared.len() + 2, "a row has no other fields");
    }
    let names = ["base", "all@1", "L0H1+L2H4@0.5"];
    assert_eq!(arms, names.map(|name| (name, 7)).into());

    let document = lab.json("out/sweep.json");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), document);
    let table = &document["tables"][0];
    assert_eq!((&document["schema"], &table["set"]), (&json!("sweep/v1"), &json!("L0H1 L2H4")));
    let differ = tempered.iter().filter(|(id, line)| line["response_ids"] != untouched[*id]["response_ids"]).count();
    assert!(differ > 0);
    for (arm, (name, changed)) in table["arms"].as_array().unwrap().iter().zip(names.into_iter().zip([0, 0, differ])) {
        assert_eq!((&arm["variant"], &arm["n"]), (&json!(name), &json!(7)));
        assert_eq!(arm["changed"].as_f64().unwrap(), changed as f64 / 7.0);
    }
    let roles: Vec<&Value> = table["arms"].as_array().unwrap().iter().map(|arm| &arm["role"]).collect();
    assert_eq!(roles, ["reference", "control", "tempered"]);
    // The control went through the hook of every head, and the reference through none.
    let fired = &lab.json("out/manifest.json")["stages"]["sweep"]["fired"];
    let (control, tempered) = (fired["all@1"].as_u64().unwrap(), fired["L0H1+L2H4@0.5"].as_u64().unwrap());
    assert!(fired["base"] == 0 && tempered > 0 && control > tempered, "{fired}");
    let lambda = array(&lab.npz("out/lambda.npz"), "lambda");
    assert_eq!(lambda.dims(), [3, LAYERS, HEADS]);
    let lambda: Vec<f32> = lambda.flatten_all().unwrap().to_vec1().unwrap();
    let half = 2 * LAYERS * HEADS;
    let expected = |at: usize| if at == half + 1 || at == half + 2 * HEADS + 4 { 0.5 } else { 1.0 };
    assert_eq!(lambda, (0..3 * LAYERS * HEADS).map(expected).collect::<Vec<f32>>());
}

/// Random sets and a reference that all heads share; files for people and programs; what comes later touches no row.
#[test]
fn sweep_says_what_it_found() {
    let lab = Lab::new();
    prompts(&lab, 6);
    lab.write("hedges.txt", "perhaps\n");
    let line = "sweep --model M --items q.jsonl --heads L0H1,L2H4 --hedges hedges.txt --max-new-tokens 8 --out out";
    let out = lab.done(&format!("{line} --lambda 1,1,0.5 --random-sets 2"));
    assert!(out.contains("| 1 (control) |") && out.contains("| 0.5, random |") && out.contains("p max"), "{out}");
    assert!(out.lines().all(|line| line.starts_with("warning") || line.chars().count() <= 120), "{out}");
    let document = lab.json("out/sweep.json");
    let random = document["random"].as_array().unwrap();
    assert!(random.len() == 2 && random.iter().all(|arm| arm["variant"].as_str().unwrap().contains("-of-2H-")));
    let tempered = &document["tables"][0]["arms"][2];
    let difference = &tempered["difference"]["assertion_rate"];
    assert_eq!(
        (&difference["items"], &difference["differing"], &difference["p_max"]),
        (&json!(6), &json!(0), &json!(1.0))
    );
    let (low, high) = (difference["low"].as_f64().unwrap(), difference["high"].as_f64().unwrap());
    assert!(low < -0.3 && high > 0.3, "six items that do not differ are no certainty: {low} to {high}");
    assert_eq!((&tempered["difference"]["accuracy"], &document["flips"]["family"]), (&Value::Null, &json!(1)));
    let csv = lab.read("out/sweep.csv");
    assert_eq!(csv.lines().count(), 1 + (3 + 2) * 7, "a line an arm and outcome");
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == columns), "{csv}");
    let page = lab.read("out/report.html");
    assert!(page.contains("Assertion rate") && !page.contains("://") && !page.contains("src="));

    let rows = lab.read("out/rows.jsonl");
    assert_eq!(rows.lines().count(), (3 + 2) * 6);
    lab.done(&format!("{line} --lambda 1,1,0.5 --random-sets 4"));
    assert!(lab.read("out/rows.jsonl").starts_with(&rows), "further random sets leave the first");
    assert_eq!(lab.read("out/rows.jsonl").lines().count(), (3 + 4) * 6);

    let each = "sweep --model M --items q.jsonl --heads all --each --lambda 1,1,0 --max-new-tokens 8 --out each";
    let out = lab.done(each);
    assert!(out.contains("24 head sets; 6 items") && out.contains("in any of 24 arms"), "{out}");
    assert_eq!(lab.read("each/rows.jsonl").lines().count(), (1 + 1 + 24) * 6, "one reference for all heads");
    assert!(lab.read("each/report.html").contains("Heat map of Length by head"));
}

/// A λ that joins a sweep adds its rows and touches none; what is there already is not made again.
#[test]
fn sweep_does_only_what_is_missing() {
    let lab = Lab::new();
    prompts(&lab, 5);
    lab.done(&format!("{SWEEP} --lambda 1,0.5"));
    let first = lab.read("out/rows.jsonl");
    lab.done(&format!("{SWEEP} --lambda 1,0.5,0"));
    let second = lab.read("out/rows.jsonl");
    assert!(second.starts_with(&first) && second.lines().count() == 15);
    let (_, said) = lab.ends(0, &format!("{SWEEP} --lambda 0,0.5"));
    assert!(said.contains("nothing left to do") && lab.read("out/rows.jsonl") == second, "{said}");
    lab.done(&format!("{SWEEP} --lambda 1 --heads L3H5"));
    assert!(lab.read("out/rows.jsonl").starts_with(&second));
    let each = lab.done("sweep --model M --items q.jsonl --heads L0H1,L2H4 --each --lambda 0 --seeds 3,4 --temperature 1 --max-new-tokens 4 --out each --json");
    let each: Value = serde_json::from_str(&each).unwrap();
    let sets: Vec<&Value> = each["tables"].as_array().unwrap().iter().map(|table| &table["set"]).collect();
    assert_eq!(sets, ["L0H1", "L2H4"]);
    let rows = row_set(&lab, "each/rows.jsonl");
    assert_eq!(rows.len(), (1 + 2) * 2 * 5, "one reference for both sets");
    assert_eq!(rows.iter().map(|row| row.2).collect::<BTreeSet<_>>(), [3, 4].into());
}

/// Cuts `rows.jsonl` at a byte, as a killed run leaves it, and runs the sweep again.
fn heals(at: impl FnOnce(&str) -> usize) {
    let lab = Lab::new();
    prompts(&lab, 5);
    lab.done(&format!("{SWEEP} --lambda 1,0.5"));
    let (text, rows) = (lab.read("out/rows.jsonl"), row_set(&lab, "out/rows.jsonl"));
    let cut = at(&text);
    lab.write("out/rows.jsonl", &text.as_bytes()[..cut]);
    lab.done(&format!("{SWEEP} --lambda 1,0.5"));
    assert_eq!(row_set(&lab, "out/rows.jsonl"), rows);
    let kept = text[..text.floor_char_boundary(cut)].rfind('\n').map_or(0, |at| at + 1);
    assert!(lab.read("out/rows.jsonl").starts_with(&text[..kept]), "whole lines stay");
}

/// A row that was cut off when a run was killed is made again, and no other.
#[test]
fn a_row_cut_off_is_made_again() {
    let last_line = |text: &str| text.trim_end().rfind('\n').unwrap() + 1;
    heals(|text| text.floor_char_boundary(last_line(text).midpoint(text.len())));
    heals(|text| text.len() - 1); // the line is whole, its end is not
    heals(|_| 0);
}

/// The cut may fall inside a character.
#[test]
fn a_row_cut_off_inside_a_character_is_made_again() {
    heals(|text| text.rfind('à').unwrap() + 1);
}

/// The files of a run directory.
const RUN_FILES: [&str; 14] = [
    "config.toml",
    "manifest.json",
    "rows.jsonl",
    "judged.jsonl",
    "features.npz",
    "lambda.npz",
    "attribution.json",
    "attribution.csv",
    "attribution.npz",
    "sweep.json",
    "sweep.csv",
    "report.html",
    "report.json",
    "report.md",
];

/// Writes an experiment over `count` questions, half of those whose answer holds a word having it as accepted answer.
/// Returns the answers of the untouched model, and how many are right.
fn write_experiment(lab: &Lab, count: usize, new_tokens: usize) -> (BTreeMap<String, Value>, usize) {
    prompts(lab, count);
    let answers = by_id(&lab.done(&format!("generate --model M --items q.jsonl --max-new-tokens {new_tokens}")));
    let word = |text: &str| text.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty()).map(String::from);
    let mut right = 0;
    let items: Vec<Value> = lines(&lab.read("q.jsonl"))
        .into_iter()
        .enumerate()
        .map(|(i, mut item)| {
            let word = word(answers[item["id"].as_str().unwrap()]["response"].as_str().unwrap());
            item["gold"] = match word.filter(|_| i.is_multiple_of(2)) {
                Some(word) => json!(["nothing of the kind", word]),
                None => json!("nothing of the kind"),
            };
            right += usize::from(item["gold"].is_array());
            item
        })
        .collect();
    lab.write_lines("q.jsonl", items);
    lab.write("hedges.txt", "# none of them occurs\nperhaps\nI am not sure\n");
    lab.write(
        "x.toml",
        format!(
            "name = \"t\"\n[model]\npath = \"{}\"\n[items]\npath = \"q.jsonl\"\n[generate]\nmax_new_tokens = {new_tokens}\n\
             max_rows = 2\n[judge]\nhedges = \"hedges.txt\"\n[attribute]\ndisposition = \"parity\"\na = \"cw\"\nb = \"cr\"\n\
             shuffles = 20\nmin_cohort = 2\n[sweep]\nheads = \"top:2\"\nlambdas = [1, 1, 0.5]\n",
            golden_dir("llama").display()
        ),
    );
    (answers, right)
}

/// A whole experiment: every file is there, and each says what the stage before it found.
#[test]
fn run_does_a_whole_experiment() {
    let lab = Lab::new();
    let (answers, right) = write_experiment(&lab, 24, 12);
    assert!((2..=22).contains(&right), "{right} right answers make no two cohorts");
    let out = lab.done("run x.toml --out out");
    let mut there: Vec<String> =
        fs::read_dir(lab.path("out")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    let mut expected: Vec<&str> = RUN_FILES.into_iter().chain([".lock"]).collect();
    expected.sort_unstable();
    assert_eq!(there, expected, "all files and no other");

    let judged = by_id(&lab.read("out/judged.jsonl"));
    let questions = by_id(&lab.read("q.jsonl"));
    for (id, item) in &judged {
        assert_eq!(item["response"], answers[id]["response"], "{id}");
        assert_eq!(item["label"], if questions[id]["gold"].is_array() { "cr" } else { "cw" }, "{id}");
    }
    assert_eq!(judged.len(), 24);
    let report = lab.json("out/report.json");
    assert_eq!(report["cohorts"], json!({"cr": right, "cw": 24 - right}));
    let attribution = lab.json("out/attribution.json");
    assert_eq!(report["attribution"], attribution);
    let disposition = &attribution["dispositions"][0];
    assert_eq!((&disposition["n_a"], &disposition["n_b"]), (&json!(24 - right), &json!(right)));
    assert_eq!(report["sweep"], lab.json("out/sweep.json"));
    let arms = report["sweep"]["tables"][0]["arms"].as_array().unwrap();
    assert_eq!(arms[0]["accuracy"], right as f64 / 24.0);
    assert_eq!((&arms[1]["accuracy"], &arms[1]["changed"]), (&arms[0]["accuracy"], &json!(0.0)));
    let variants = row_set(&lab, "out/rows.jsonl").into_iter().fold(BTreeMap::new(), |mut counts, row| {
        *counts.entry(row.1).or_insert(0) += 1;
        counts
    });
    assert_eq!((variants["base"], variants.len(), variants.values().sum::<usize>()), (24, 3, 3 * 24));

    let npz = lab.npz("out/features.npz");
    assert_eq!(array(&npz, "h_layers").dims(), [24, LAYERS, 72]);
    let lengths: Vec<i64> =
        counts(&npz, "total_len").iter().zip(counts(&npz, "prompt_len")).map(|(t, p)| t - p).collect();
    let generated: Vec<i64> = (0..24).map(|i| answers[&format!("q{i}")]["n_tokens"].as_i64().unwrap()).collect();
    assert_eq!(lengths, generated, "the very tokens that were generated");
    assert_eq!(array(&lab.npz("out/lambda.npz"), "lambda").dims(), [3, LAYERS, HEADS]);
    let page = lab.read("out/report.html");
    assert!(page.contains("parity") && !page.contains("://") && !page.contains("src="));
    assert_eq!(lab.read("out/report.md").trim_end(), out.trim_end());
    assert!(lab.read("out/config.toml").contains("min_cohort = 2"));
}

/// A run that is complete does nothing again; another attribution may follow in it, and its check may fail.
#[test]
fn run_goes_on_where_it_stopped() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    let first = lab.done("run x.toml --out out");
    let contents = |lab: &Lab| RUN_FILES.map(|name| fs::read(lab.path("out").join(name)).unwrap());
    let (before, features) = (contents(&lab), lab.modified("out/features.npz"));
    let (second, said) = lab.ends(0, "run x.toml --out out");
    assert!(said.contains("nothing left to do"), "{said}");
    assert_eq!((second, lab.modified("out/features.npz")), (first, features));
    for ((name, before), after) in RUN_FILES.iter().zip(before).zip(contents(&lab)) {
        assert!(before == after, "{name} has changed");
    }
    fs::remove_file(lab.path("out/attribution.npz")).unwrap();
    lab.done("run x.toml --out out");
    assert!(lab.path("out/attribution.npz").exists(), "a file that is gone is made again");

    let rows = lab.read("out/rows.jsonl");
    lab.write("x.toml", lab.read("x.toml").replace("min_cohort = 2", "min_cohort = 100"));
    let (out, _) = lab.ends(1, "run x.toml --out out");
    assert!(out.contains("the experiment asks for 100"), "{out}");
    lab.write("x.toml", lab.read("x.toml").replace("0.5]", "0.5, 0]"));
    lab.ends(1, "run x.toml --out out");
    assert!(lab.read("out/rows.jsonl").starts_with(&rows) && lab.read("out/rows.jsonl").lines().count() == 4 * 24);
    let (out, _) = lab.ends(1, "run x.toml --out out --json");
    assert_eq!(out, lab.read("out/report.json"));
}

/// A second run with nothing to add leaves `rows.jsonl` as it is, its time of change included.
#[test]
fn rows_that_are_complete_are_not_touched() {
    let lab = Lab::new();
    prompts(&lab, 2);
    lab.done(&format!("{SWEEP} --lambda 1"));
    let before = lab.modified("out/rows.jsonl");
    lab.done(&format!("{SWEEP} --lambda 1"));
    assert_eq!(lab.modified("out/rows.jsonl"), before);
}

/// `config.toml` is the experiment as it was resolved: it can be run from where it lies.
#[test]
fn a_resolved_experiment_can_be_run_again() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    lab.done("run x.toml --out out");
    let (_, said) = lab.ends(0, "run out/config.toml --out out");
    assert!(said.contains("nothing left to do"), "{said}");
}

/// Starts a line, interrupts it once rows are there, and checks that it ends as it should, with work left to do.
fn interrupted(lab: &Lab, line: &str, rows: &str, all: usize) {
    let mut child = lab.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !fs::read(lab.path(rows)).is_ok_and(|bytes| bytes.contains(&b'\n')) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        thread::sleep(Duration::from_millis(2));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let (out, said) = texts(&output);
    assert_eq!((output.status.code(), out.as_str()), (Some(2), ""), "{said}");
    assert!(said.contains("what is finished stays"), "{said}");
    let done = lab.read(rows).lines().count();
    assert!(done > 0 && done < all, "{done} of {all} rows were done");
}

/// An interrupted sweep and an interrupted run keep their rows, and end as if they had not been interrupted.
#[test]
fn what_was_interrupted_goes_on() {
    let lab = Lab::new();
    write_experiment(&lab, 60, 60);
    let sweep =
        "sweep --model M --items q.jsonl --heads L0H1,L2H4 --lambda 1,1,0.5 --max-rows 2 --max-new-tokens 60 --out";
    for (line, all) in [(sweep, 3 * 60), ("run x.toml --out", 3 * 60)] {
        let name = &line[..3];
        let (stopped, straight) = (format!("{name}-stopped"), format!("{name}-straight"));
        let rows = format!("{stopped}/rows.jsonl");
        interrupted(&lab, &format!("{line} {stopped}"), &rows, all);
        let kept = lab.read(&rows);
        let resumed = lab.done(&format!("{line} {stopped}"));
        assert!(lab.read(&rows).starts_with(&kept));
        assert_eq!(lab.done(&format!("{line} {straight}")), resumed);
        let set = row_set(&lab, &rows);
        assert_eq!(set.len(), all);
        assert_eq!(set, row_set(&lab, &format!("{straight}/rows.jsonl")));
    }
    for name in ["attribution.json", "attribution.npz", "features.npz", "lambda.npz", "sweep.json", "report.md"] {
        let of = |dir: &str| fs::read(lab.path(dir).join(name)).unwrap();
        assert!(of("run-stopped") == of("run-straight"), "{name} differs");
    }
}

/// An answer is read as the tokens it was generated as: up to the end of the context, and even if its text would take
/// more tokens than fit.
#[test]
fn run_reads_the_tokens_that_were_generated() {
    let lab = Lab::new();
    let (answers, _) = write_experiment(&lab, 24, 1000);
    lab.done("run x.toml --out out");
    let npz = lab.npz("out/features.npz");
    let (total, prompt) = (counts(&npz, "total_len"), counts(&npz, "prompt_len"));
    for (i, (total, prompt)) in total.into_iter().zip(prompt).enumerate() {
        assert_eq!(json!(total - prompt), answers[&format!("q{i}")]["n_tokens"], "q{i}");
        assert!(total <= 256, "q{i} has {total} tokens, but the context is 256");
    }
}

/// Speed is measured for what was asked.
#[test]
fn bench_measures() {
    let lab = Lab::new();
    let out = lab.done("bench --model M --prompt-tokens 8 --new-tokens 3 --rows 1,2 --repeat 2 --plan L0H1:0.5 --json");
    let result: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&result["model"], &result["plan"]), (&json!("llama"), &json!("L0H1:0.5")));
    assert_eq!(result["prefill"]["tokens_per_s"].as_array().unwrap().len(), 2);
    let rows: Vec<_> = result["decode"].as_array().unwrap().iter().map(|d| d["rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, [1, 2]);
    assert!(result["decode"].as_array().unwrap().iter().all(|d| d["step_ms"].as_array().unwrap().len() == 3));
}
