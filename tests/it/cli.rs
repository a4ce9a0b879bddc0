//! The program as a user runs it, on the tiny Llama: what it prints and writes, checked value by value.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

use std::{fs, io::Write, process::Stdio};

use candle_core::{Device, Tensor};
use headtemper_study::{Array, Npz};
use headtemper_tests::{Golden, golden_dir, worst};
use serde_json::{Value, json};

use crate::lab::{DIM, HEADS, LAYERS, Lab, array, by_id, counts, lines, prompts, texts};

/// How far a value may be from transformers' (measured: 2e-5 on logits).
const TOLERANCE: f32 = 1e-4;

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

/// A path that hides a model of the hub's cache says that it is a path; one that hides nothing needs no note.
#[test]
fn a_path_that_hides_a_cached_model_is_told() {
    let lab = Lab::new();
    fs::create_dir(lab.path("models")).unwrap();
    std::os::unix::fs::symlink(golden_dir("llama"), lab.path("models/tiny")).unwrap();
    let note = "note: `models/tiny` is read from the path of this name, not from the hub's cache; write ./models/tiny to say so";
    let told = |line: &str| {
        let output = lab.command(line).env("HF_HUB_CACHE", lab.path("hub")).output().unwrap();
        let (_, err) = texts(&output);
        assert!(output.status.success(), "{line}: {err}");
        err.contains(note)
    };
    assert!(!told("inspect --model models/tiny"));
    fs::create_dir_all(lab.path("hub/models--models--tiny")).unwrap();
    for verb in ["inspect --model", "generate hi --max-new-tokens 1 --model", "export --plan L0H0:0.5 --out e --model"]
    {
        assert!(told(&format!("{verb} models/tiny")), "{verb}");
        fs::remove_dir_all(lab.path("e")).ok();
        assert!(!told(&format!("{verb} ./models/tiny")), "{verb}");
        fs::remove_dir_all(lab.path("e")).ok();
    }
}

/// Layers by kind, delta-net heads and shared keys; also from a configuration alone.
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

/// A configuration alone runs on random weights: the same for the same seed, and with token ids in place of text.
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

/// The streamed text is the response that `--json` reports, even where a character takes several tokens.
#[test]
fn generate_streams_what_it_reports() {
    let lab = Lab::new();
    for seed in 0..8 {
        let line = format!("generate --model M Hello --max-new-tokens 60 --temperature 1.5 --seed {seed}");
        let (streamed, _) = lab.ends(0, &line);
        let reported: Value = serde_json::from_str(&lab.done(&format!("{line} --json"))).unwrap();
        assert_eq!(streamed, format!("{}\n", reported["response"].as_str().unwrap()), "seed {seed}");
    }
    for typed in ["Hello", "Hello\n", "Hello\r\n"] {
        let mut child = lab
            .command("generate --model M - --max-new-tokens 8 --json")
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let piped = texts(&child.wait_with_output().unwrap()).0;
        assert_eq!(piped, lab.done("generate --model M Hello --max-new-tokens 8 --json"), "`-` reads {typed:?}");
    }
    let chat = |rest: &str| lab.done(&format!("generate --model M Hello --max-new-tokens 8 --json {rest}"));
    let tokens = |text: &str| lines(text)[0]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&chat("--raw")) < tokens(&chat("")) && tokens(&chat("")) < tokens(&chat("--system Brief.")));
}

/// One line per item, with the golden continuation for the golden ids, whatever runs beside it and on any number of threads.
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

/// h_last is also transformers' under a plan, from a GGUF file, and with weights in bf16 (which holds the golden weights exactly).
#[test]
fn capture_is_transformers_under_a_plan_and_from_other_files() {
    let (lab, golden) = (Lab::new(), Golden::read("llama"));
    golden_items(&lab, &golden);
    fs::copy(golden_dir("llama").join("model.f32.gguf"), lab.path("m.gguf")).unwrap();
    let plan = golden.plan("half").to_string();
    for (model, dtype) in [("M", "auto"), ("m.gguf", "auto"), ("M", "bf16")] {
        for name in ["plain.npz", "half.npz"] {
            let _ = fs::remove_file(lab.path(name)); // a file of another model is not overwritten
        }
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

/// A λ table that names its rows fits only those items, in that order.
#[test]
fn a_lambda_table_knows_its_items() {
    let (lab, golden) = (Lab::new(), Golden::read("llama"));
    golden_items(&lab, &golden);
    let table = |ids: [&str; 3]| {
        let mut npz = Npz::default();
        npz.add("lambda", Array::F32(vec![3, LAYERS, HEADS], vec![0.5; 3 * LAYERS * HEADS]));
        npz.add("id", Array::Text(ids.map(String::from).to_vec()));
        npz.save(&lab.path("t.npz")).unwrap();
    };
    for line in ["generate --max-new-tokens 2", "capture --out c.npz"] {
        let line = format!("{line} --model M --items g.jsonl --plan t.npz");
        table(["s0", "s2", "s1"]);
        let (_, err) = lab.ends(2, &line);
        assert!(err.contains("row 1 is of item 's2', but the item there is 's1'"), "{err}");
        table(["s0", "s1", "s2"]);
        lab.done(&line);
    }
    // Whole numbers can name items too, a single row may belong to one item, and a row says which tokens it touches.
    let line = "capture --model M --items n.jsonl --plan t.npz --out n.npz";
    let item = |i: usize| json!({"id": i, "prompt": "Qui", "response": "Moi"});
    lab.write_lines("n.jsonl", (0..3).map(item));
    let write = |rows: usize, more: &[(&str, Array)]| {
        let mut npz = Npz::default();
        npz.add("lambda", Array::F32(vec![rows, LAYERS, HEADS], vec![0.5; rows * LAYERS * HEADS]));
        for (name, array) in more {
            npz.add(*name, array.clone());
        }
        npz.save(&lab.path("t.npz")).unwrap();
    };
    let text = |words: &[&str]| Array::Text(words.iter().map(ToString::to_string).collect());
    for (rows, more, part) in [
        (3, vec![("id", Array::I64(vec![3], vec![2, 1, 0]))], "row 0 is of item '2', but the item there is '0'"),
        (1, vec![("id", text(&["1"]))], "has 1 row by its array 'id', but there are 3 items"),
        (3, vec![("id", text(&["0", "1"]))], "has 2 rows by its array 'id', but 3 of λ"),
        (1, vec![("id", text(&["0", "1", "2"]))], "has 3 rows by its array 'id', but 1 of λ"),
        (1, vec![("positions", text(&["answer"]))], "window:4..9"),
        (3, vec![("positions", text(&["all"]))], "array 'positions' is texts [1], but must be 3 texts"),
    ] {
        write(rows, &more);
        let (_, err) = lab.ends(2, line);
        assert!(err.contains(part), "{part} is not in {err}");
    }
    for (rows, name) in [(1, "one.npz"), (3, "three.npz")] {
        write(rows, &[("positions", text(&vec!["response"; rows]))]);
        lab.done(&line.replace("n.npz", name));
    }
    lab.done("capture --model M --items n.jsonl --plan L0H0:0.5 --positions response --out list.npz");
    let meta = |name: &str| match Npz::read(&lab.path(name)).unwrap().get("meta") {
        Some(Array::Scalar(meta)) => serde_json::from_str::<Value>(meta).unwrap(),
        other => panic!("{other:?}"),
    };
    for name in ["one.npz", "three.npz"] {
        let plan = meta(name)["plan"][0].as_str().unwrap().to_owned();
        assert!(plan.ends_with(" at response"), "{plan}");
    }
}

/// `temper bench` measures the speed of what was asked.
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
    let whole = "bench --model M --prompt-tokens 12 --new-tokens 3 --rows 4 --repeat 1 --whole --json --shared-tokens";
    for shared in [0, 11] {
        let result: Value = serde_json::from_str(&lab.done(&format!("{whole} {shared}"))).unwrap();
        assert_eq!(result["decode"][0]["shared_tokens"], json!(shared));
    }
    let (_, err) = lab.ends(2, &format!("{whole} 12"));
    assert!(err.contains("--shared-tokens 12 is not less than the 12 tokens of a prompt"), "{err}");
}

/// A shell that sources what `temper completions` prints completes verbs and options.
#[test]
fn a_shell_completes_what_is_typed() {
    let lab = Lab::new();
    lab.write("temper.bash", lab.done("completions bash"));
    let asked = |words: &str| {
        // As bash calls it: the function gets the command, the word before the cursor, and the one before that.
        let script = format!(
            "source temper.bash; COMP_WORDS=(temper {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _temper temper \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[*]}}\""
        );
        let output =
            std::process::Command::new("bash").args(["-c", &script]).current_dir(lab.path(".")).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(err, "", "{words}");
        out.trim().to_owned()
    };
    assert_eq!(asked("sw"), "sweep");
    assert_eq!(asked("sweep --random-f"), "--random-from");
    assert_eq!(asked("sweep --random-from ''"), "model layers");
    assert!(lab.done("completions fish").contains("complete -c temper"));
    let (_, why) = lab.ends(2, "completions tcsh");
    assert!(why.contains("bash, elvish, fish, powershell, zsh"), "{why}");
}
