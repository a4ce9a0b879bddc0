//! The causal map: its laws on every family, its numbers beside an independent computation, and the program's files.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::npy::NpzTensors;
use headtemper_engine::{BaseScore, Cell, CellScore, Encoded, Engine, EngineError, ScoreEvent, ScoreRequest};
use headtemper_hook::{HeadPlan, HeadRef};
use headtemper_model::CausalLm;
use headtemper_tests::{FAMILIES, Golden, engine, farther, golden_dir, golden_model, read_through, temper};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Sums of f64 terms in another order, in nats. Measured worst case: 1.8e-13 (2026-11-21).
const TOLERANCE: f64 = 1e-10;

/// A long response, a text without a prompt, and a response of one token.
fn items(family: &str) -> Vec<Encoded> {
    let golden = Golden::read(family);
    let ids = |seq: usize| golden.ids(&format!("seq{seq}.input_ids"));
    let last = ids(1);
    let prompt_len = last.len() - 1;
    vec![
        Encoded { ids: ids(2), prompt_len: 3 },
        Encoded { ids: ids(0), prompt_len: 0 },
        Encoded { ids: last, prompt_len },
    ]
}

/// The first and the last head of the first, a middle and the last layer.
fn heads(model: &dyn CausalLm) -> Vec<HeadRef> {
    let last = model.spec().layers.len() - 1;
    let ends = |layer| {
        let heads: Vec<HeadRef> = model.spec().heads_of(layer).collect();
        [heads[0], heads[heads.len() - 1]]
    };
    [0, last / 2, last].into_iter().flat_map(ends).collect()
}

type Scored = (BTreeMap<usize, BaseScore>, BTreeMap<Cell, CellScore>);

fn score(engine: &Engine, items: &[Encoded], request: &ScoreRequest<'_>) -> Scored {
    let (mut bases, mut cells) = (BTreeMap::new(), BTreeMap::new());
    let fired = engine.score_plain(items, request, |event| {
        let twice = match event {
            ScoreEvent::Base { item, score } => bases.insert(item, score).is_some(),
            ScoreEvent::Cell { cell, score } => {
                assert!(bases.contains_key(&cell.item), "an item's base comes before its cells");
                cells.insert(cell, score).is_some()
            }
        };
        assert!(!twice, "{event:?} is reported twice");
        Ok(())
    });
    let mut tokens = BTreeMap::new();
    for cell in cells.keys() {
        *tokens.entry(request.heads[cell.head]).or_default() += items[cell.item].ids.len() as u64;
    }
    assert_eq!(fired.unwrap(), tokens, "every head was applied to every token of its cells");
    (bases, cells)
}

fn all<'a>(heads: &'a [HeadRef], lambdas: &'a [f32], batch_tokens: usize) -> ScoreRequest<'a> {
    ScoreRequest { heads, lambdas, wanted: &|_| true, batch_tokens, memory: None, kept: 0, stop: None }
}

/// λ = 1 changes exactly nothing, λ = 0 something, and a cell is the same bits in any batch.
#[test]
fn lambda_one_is_the_untempered_model_and_batches_do_not_matter() {
    for family in FAMILIES {
        let (engine, items) = (engine(family), items(family));
        let heads = heads(engine.model());
        let packed = score(&engine, &items, &all(&heads, &[1.0, 0.0], 2048));
        assert_eq!(packed.1.len(), heads.len() * 2 * items.len());
        for (cell, score) in &packed.1 {
            let base = packed.0[&cell.item];
            assert_eq!(base.tokens, items[cell.item].scored().len());
            if cell.lambda == 0 {
                let same = CellScore { sum_logprob: base.sum_logprob, kl: 0.0, agree: base.tokens };
                assert_eq!(*score, same, "{family} {cell:?}");
            } else {
                assert!(score.kl > 0.0 && score.sum_logprob != base.sum_logprob, "{family} {cell:?} does nothing");
            }
        }
        assert_eq!(score(&engine, &items, &all(&heads, &[1.0, 0.0], 1)), packed, "{family}: one at a time");
        // Half of the cells, beside other neighbours.
        let odd = |cell: Cell| (cell.item + cell.head + cell.lambda) % 2 == 1;
        let half = score(&engine, &items, &ScoreRequest { wanted: &odd, ..all(&heads, &[1.0, 0.0], 2048) });
        let expected: BTreeMap<_, _> = packed.1.into_iter().filter(|&(cell, _)| odd(cell)).collect();
        assert_eq!(half.1, expected, "{family}: what is not wanted is not computed");
    }
}

/// ln softmax of one row, by its definition.
fn log_softmax(row: &[f32]) -> Vec<f64> {
    let exps: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
    row.iter().map(|&x| f64::from(x) - exps.ln()).collect()
}

fn likeliest(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// Against all logits of a whole forward pass under the plan, and sums written out.
#[test]
fn scores_are_what_the_logits_say() {
    let mut worst = 0f64;
    for family in FAMILIES {
        let (engine, items, model) = (engine(family), items(family), golden_model(family));
        let (heads, lambdas) = (heads(&*model), [0.5, -1.0]);
        let (bases, cells) = score(&engine, &items, &all(&heads, &lambdas, 2048));
        for (index, item) in items.iter().enumerate() {
            let rows = |plan: Option<&HeadPlan>| -> Vec<Vec<f64>> {
                let (_, logits) = read_through(&*model, &item.ids, plan);
                logits.to_vec2::<f32>().unwrap().iter().map(|row| log_softmax(row)).collect()
            };
            let base = rows(None);
            // The token at `t` is predicted by the row before it.
            let scored: Vec<usize> = (item.prompt_len.max(1)..item.ids.len()).collect();
            let sum = |rows: &[Vec<f64>]| -> f64 { scored.iter().map(|&t| rows[t - 1][item.ids[t] as usize]).sum() };
            worst = farther(worst, (bases[&index].sum_logprob - sum(&base)).abs());
            for (head, &at) in heads.iter().enumerate() {
                for (lambda, &value) in lambdas.iter().enumerate() {
                    let tempered = rows(Some(&HeadPlan::uniform(&[at], value).unwrap()));
                    let kl = |&t: &usize| -> f64 {
                        base[t - 1].iter().zip(&tempered[t - 1]).map(|(p, q)| p.exp() * (p - q)).sum()
                    };
                    let found = cells[&Cell { item: index, head, lambda }];
                    worst = farther(worst, (found.sum_logprob - sum(&tempered)).abs());
                    worst = farther(worst, (found.kl - scored.iter().map(kl).sum::<f64>()).abs());
                    let agree = scored.iter().filter(|&&t| likeliest(&base[t - 1]) == likeliest(&tempered[t - 1]));
                    assert_eq!(found.agree, agree.count(), "{family} {at} {value}");
                }
            }
        }
    }
    println!("scores: {worst:e} of {TOLERANCE:e}");
    assert!(worst < TOLERANCE, "off by {worst:e}");
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let engine = engine("qwen3_5");
    let items = items("qwen3_5");
    let head = [engine.spec().slots()[0]];
    let refused = |items: &[Encoded], request: &ScoreRequest<'_>, part: &str| {
        let report = |event| panic!("{event:?} was computed");
        let message = engine.score_plain(items, request, report).err().unwrap().to_string();
        assert!(message.contains(part), "{message}");
    };
    refused(&items, &all(&[], &[0.0], 8), "list of heads is empty");
    refused(&items, &all(&head, &[], 8), "list of lambda is empty");
    refused(&items, &all(&head, &[0.0, -0.0], 8), "-0 twice");
    refused(&items, &all(&head, &[f32::NAN], 8), "is not a number from -1000000 to 1000000");
    refused(&items, &all(&[head[0], head[0]], &[0.0], 8), "listed twice");
    refused(&items, &all(&[HeadRef::value(99, 0)], &[0.0], 8), "does not exist");
    refused(&items, &all(&head, &[0.0], 0), "batch_tokens is 0");
    let silent = Encoded { ids: vec![1, 2, 3], prompt_len: 3 };
    refused(&[items[0].clone(), silent], &all(&head, &[0.0], 8), "the response of item 1 has no tokens");
    let stop = AtomicBool::new(true);
    refused(&items, &ScoreRequest { stop: Some(&stop), ..all(&head, &[0.0], 8) }, "interrupted");
    assert!(engine.score_plain(&[], &all(&head, &[0.0], 8), |_| Ok(())).unwrap().is_empty());
}

/// Stopped in the middle: what was reported is done, and nothing more is begun.
#[test]
fn a_stop_keeps_what_was_reported() {
    let (engine, items) = (engine("llama"), items("llama"));
    let (heads, stop) = (engine.spec().slots(), AtomicBool::new(false));
    let mut cells = 0;
    let request = ScoreRequest { stop: Some(&stop), ..all(&heads, &[0.0], 1) };
    let result = engine.score_plain(&items, &request, |event| {
        cells += usize::from(matches!(event, ScoreEvent::Cell { .. }));
        stop.store(cells == 5, Ordering::Relaxed);
        Ok(())
    });
    assert!(matches!(result, Err(EngineError::Interrupted)));
    assert_eq!(cells, 5);
}

/// A directory to run the program in; it holds `c.jsonl`, eight answered items, four of cohort `a` and four of `b`.
struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(TempDir::new().unwrap());
        let item = |i: usize| {
            let (label, word) = if i.is_multiple_of(2) { ("a", "yes, it is") } else { ("b", "no") };
            let response = format!("{word} {i}");
            json!({"id": format!("q{i}"), "prompt": format!("Is {i} even?"), "response": response, "label": label})
        };
        lab.write("c.jsonl", &(0..8).map(|i| item(i).to_string() + "\n").collect::<String>());
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// `temper score` on the tiny model of a family with the words of a line.
    fn score(&self, family: &str, line: &str) -> Output {
        let mut command = temper();
        command.args(["score", "--model", &golden_dir(family).to_string_lossy()]).args(line.split_whitespace());
        command.current_dir(self.0.path()).env("HF_HUB_OFFLINE", "1").output().unwrap()
    }

    /// Runs what must succeed; returns stdout and stderr.
    fn done(&self, line: &str) -> (String, String) {
        let output = self.score("llama", line);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let err = text(output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}\n{err}");
        (text(output.stdout), err)
    }

    fn values(&self, name: &str, array: &str) -> (Vec<usize>, Vec<f32>) {
        let tensor = NpzTensors::new(self.path(name)).unwrap().get(array).unwrap().expect(array);
        (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1().unwrap())
    }
}

#[test]
fn a_second_run_computes_only_what_is_missing() {
    let lab = Lab::new();
    let heads = "--items c.jsonl --heads L3H2,L0H1 --out s";
    lab.done(&format!("{heads} --lambda 0"));
    let first = lab.read("s/scores.jsonl");
    assert_eq!(first.lines().count(), 2 * 8);
    let (_, err) = lab.done(&format!("{heads} --lambda 0.5,0"));
    assert!(err.contains("16 of them done before"), "{err}");
    let both = lab.read("s/scores.jsonl");
    assert!(both.starts_with(&first) && both.lines().count() == 2 * 2 * 8);
    let npz = fs::read(lab.path("s/scores.npz")).unwrap();
    let scored = lab.values("s/scores.npz", "delta_logprob");
    // Killed inside a line: that cell alone is computed again, and the numbers are the same.
    fs::write(lab.path("s/scores.jsonl"), &both[..both.len() - 20]).unwrap();
    let (_, err) = lab.done(&format!("{heads} --lambda 0.5,0"));
    assert!(err.contains("31 of them done before") && err.contains("was cut off"), "{err}");
    assert_eq!(lab.read("s/scores.jsonl"), both);
    assert_eq!(fs::read(lab.path("s/scores.npz")).unwrap(), npz);
    let (_, err) = lab.done(&format!("{heads} --lambda 0.5,0 --a a --b b"));
    assert!(err.contains("nothing left to do"), "{err}");
    assert_eq!(lab.read("s/scores.jsonl"), both);
    assert_eq!(lab.values("s/scores.npz", "delta_logprob"), scored);
    assert_eq!(lab.values("s/scores.npz", "contrast_d").0, [2, 2]);
    // A further head costs its rows alone.
    lab.done("--items c.jsonl --heads L3H2,L0H1,L1H0 --lambda 0 --out s");
    assert_eq!(lab.read("s/scores.jsonl").lines().count(), 32 + 8);
    // In one go: the same rows, whatever the order.
    lab.done(&format!("{heads} --lambda 0.5,0 --batch-tokens 1").replace("--out s", "--out t"));
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&lab.read("t/scores.jsonl")), sorted(&both));
    assert_eq!(fs::read(lab.path("t/scores.npz")).unwrap(), npz);
}

/// Whoever tries one head a call has tried them all: the map, and its p max, are over every complete cell of the directory.
#[test]
fn heads_tried_in_several_calls_are_one_map() {
    let lab = Lab::new();
    let score = "--items c.jsonl --lambda 0 --a a --b b --shuffles 99 --json";
    let map = |line: &str| -> Value { serde_json::from_str(&lab.done(line).0).unwrap() };
    let number = |value: &Value| value.as_f64().unwrap();
    let alone = map(&format!("{score} --heads L1H0 --out alone"));
    assert!(alone.get("earlier").is_none());
    lab.done(&format!("{score} --heads L1H0,L2H5 --out once"));
    lab.done(&format!("{score} --heads L2H5 --out s"));
    let (dry, _) = lab.done(&format!("{score} --heads L1H0 --out s --dry-run"));
    assert_eq!(serde_json::from_str::<Value>(&dry).unwrap()["rows_new"], 8, "only what is missing");
    let both = map(&format!("{score} --heads L1H0 --out s"));
    // One call that asks for both leaves the same numbers; the files know no calls otherwise.
    let once: Value = serde_json::from_str(&lab.read("once/score.json")).unwrap();
    assert_eq!((&both["earlier"], &both["cells"]), (&json!(1), &once["cells"]));
    assert_eq!(both["contrast"], once["contrast"]);
    assert_eq!(both["warnings"], once["warnings"]);
    for file in ["scores.npz", "scores.csv"] {
        assert!(
            fs::read(lab.path(&format!("s/{file}"))).unwrap() == fs::read(lab.path(&format!("once/{file}"))).unwrap()
        );
    }
    for of in ["cells", "contrast"] {
        let p = |map: &Value| {
            let cells = if of == "cells" { &map["cells"] } else { &map["contrast"]["cells"] };
            (number(&cells[0]["p"]), number(&cells[0]["p_max"]))
        };
        assert_eq!(p(&alone).0, p(&both).0, "{of}: of the cell alone");
        assert!(p(&alone).1 <= p(&both).1, "{of}: a p over two heads is no smaller than over one");
    }
    let plan: Value = serde_json::from_str(&lab.read("s/plan.json")).unwrap();
    assert_eq!((&plan["plan"]["heads"], plan["keys"].as_array().unwrap().len()), (&json!(["L1H0", "L2H5"]), 16));
    // Other heads at another λ: not every head is there at each.
    let (text, _) = lab.done("--items c.jsonl --lambda 0.5 --heads L0H1 --out s --shuffles 99");
    assert!(text.contains("scored by earlier calls in this directory: 2 of 3 cells"), "{text}");
    let (shape, delta) = lab.values("s/scores.npz", "delta_logprob");
    assert_eq!(shape, [3, 2, 8]);
    let there: Vec<bool> = delta.chunks(8).map(|items| items.iter().all(|x| x.is_finite())).collect();
    assert_eq!(there, [true, false, false, true, false, true], "L0H1 at 0.5, L1H0 and L2H5 at 0");
    assert_eq!(lab.read("s/scores.csv").lines().count(), 1 + 3 * 8);
    assert!(lab.read("s/report.html").contains("2 of 3 cells (a head at a λ)"));
    // A cell that lacks items is in no table, and is named.
    let rows = lab.read("s/scores.jsonl");
    let short: Vec<&str> = rows.lines().filter(|row| !(row.contains("L2H5") && row.contains("\"q3\""))).collect();
    lab.write("s/scores.jsonl", &(short.join("\n") + "\n"));
    let map = map("--items c.jsonl --lambda 0.5 --heads L0H1 --out s --shuffles 99 --json");
    assert_eq!(map["cells"].as_array().unwrap().len(), 2);
    let warnings = map["warnings"].to_string();
    assert!(warnings.contains("unfinished cells") && warnings.contains("(L2H5:0 with 7 of 8 items)"), "{warnings}");
}

#[test]
fn the_files_hold_the_same_numbers() {
    let lab = Lab::new();
    let (out, _) = lab.done("--items c.jsonl --heads L2H5,L0H1 --lambda 1,0 --out s --a a --b b --shuffles 99 --json");
    let map: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(out, lab.read("s/score.json"));
    let rows: Vec<Value> = lab.read("s/scores.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (shape, delta) = lab.values("s/scores.npz", "delta_logprob");
    assert_eq!(shape, [2, 2, 8], "head, lambda, item: only what was asked for");
    let (_, per_token) = lab.values("s/scores.npz", "delta_logprob_per_token");
    let (_, kl) = lab.values("s/scores.npz", "kl");
    let (_, kl_per_token) = lab.values("s/scores.npz", "kl_per_token");
    let (_, agreement) = lab.values("s/scores.npz", "agreement");
    let (_, base) = lab.values("s/scores.npz", "base_logprob");
    let csv = lab.read("s/scores.csv");
    let csv: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let number = |value: &Value| value.as_f64().unwrap();
    for (h, head) in ["L0H1", "L2H5"].into_iter().enumerate() {
        for (l, lambda) in [1.0, 0.0].into_iter().enumerate() {
            let mut mean = 0.0;
            for (item, &base) in base.iter().enumerate() {
                let place = (h * 2 + l) * 8 + item;
                let named = |row: &&Value| row["head"] == head && row["id"] == format!("q{item}");
                let row = rows.iter().find(|row| named(row) && number(&row["lambda"]) == lambda).unwrap();
                let tokens = number(&row["tokens"]);
                let expected = number(&row["sum_logprob"]) - number(&row["base_logprob"]);
                assert_eq!(delta[place], expected as f32);
                assert_eq!(per_token[place], (expected / tokens) as f32);
                assert_eq!(kl[place], number(&row["kl"]) as f32);
                assert_eq!(kl_per_token[place], (number(&row["kl"]) / tokens) as f32);
                assert_eq!(agreement[place], (number(&row["agree"]) / tokens) as f32);
                assert_eq!(base, number(&row["base_logprob"]) as f32);
                assert_eq!(csv[place][..1], [head]);
                assert_eq!(csv[place][8].parse::<f64>().unwrap(), expected);
                assert_eq!(expected == 0.0, lambda == 1.0, "{row}");
                mean += expected / tokens / 8.0;
            }
            let cell = &map["cells"][h * 2 + l];
            assert!((number(&cell["delta"]) - mean).abs() < 1e-12);
            assert_eq!(number(&cell["lambda"]), lambda);
            let same = lambda == 1.0;
            assert_eq!(number(&cell["p_max"]) == 1.0 && number(&cell["kl"]) == 0.0, same, "{cell}");
            if same {
                assert!(cell["low"].is_null() && cell["high"].is_null(), "no item differs: there is no interval");
            } else {
                assert!(number(&cell["low"]) < mean && mean < number(&cell["high"]));
            }
        }
    }
    let npz = NpzTensors::new(lab.path("s/scores.npz")).unwrap();
    let layers: Vec<i64> = npz.get("head_layer").unwrap().unwrap().to_vec1().unwrap();
    let index: Vec<i64> = npz.get("head_index").unwrap().unwrap().to_vec1().unwrap();
    assert_eq!((layers, index), (vec![0, 2], vec![1, 5]));
    assert_eq!(map["flips"]["exact"], false);
    assert_eq!(map["flips"]["count"], 99);
    assert_eq!(map["contrast"]["cells"].as_array().unwrap().len(), 4);
    assert_eq!(number(&map["contrast"]["cells"][0]["cohen_d"]), 0.0, "lambda 1 tells nothing apart");
    // The interval of d is the same in every file, and around d.
    let cell = &map["contrast"]["cells"][3];
    let [low, d, high] = ["d_low", "cohen_d", "d_high"].map(|name| number(&cell[name]));
    assert!(low < d && d < high, "{cell}");
    for (array, value) in [("contrast_d", d), ("contrast_d_low", low), ("contrast_d_high", high)] {
        let (shape, values) = lab.values("s/scores.npz", array);
        assert_eq!((shape, values[3]), (vec![2, 2], value as f32), "{array}");
    }
    let (text, _) = lab.done("--items c.jsonl --heads L2H5,L0H1 --lambda 1,0 --out s --a a --b b --shuffles 99");
    assert!(text.contains(&format!("{low:.3} to {high:.3}")), "{text}");
    // `yes, it is 4` is longer than `no 5`, always by as much; and four items are few.
    let warnings = map["warnings"].to_string();
    assert!(warnings.contains("differ in length") && warnings.contains("only 4 items"), "{warnings}");
    let report = lab.read("s/report.html");
    for part in ["Heat map of mean Δ", "Heat map of KL", "Heat map of Cohen's d", ">L2H5<", "<title>q7: "] {
        assert!(report.contains(part), "{part}");
    }
    assert!(!report.replace("isNaN", "").contains("NaN") && !report.contains("://"));
}

/// A field that tells the cohorts apart, their prompts' length and unequal truncation are warned about as an attribution does.
#[test]
fn what_else_the_cohorts_differ_in_is_said() {
    let lab = Lab::new();
    let item = |i: usize| {
        let in_a = i.is_multiple_of(2);
        let (label, topic) = if in_a { ("a", "sums") } else { ("b", "towns") };
        let asked = if in_a { "Is it so?" } else { "Is it so, and if it is, why would anybody say that it is?" };
        json!({
            "id": format!("q{i}"), "prompt": format!("{i} {asked}"), "response": format!("yes {}", i % 5), "label": label,
            "topic": topic, "year": 1990 + i % 3, "finish_reason": if in_a { "length" } else { "stop" },
        })
    };
    lab.write("t.jsonl", &(0..24).map(|i| item(i).to_string() + "\n").collect::<String>());
    let line = "--items t.jsonl --lambda 0 --heads L0H1 --shuffles 199 --json";
    let map: Value = serde_json::from_str(&lab.done(&format!("{line} --a a --b b --out s")).0).unwrap();
    let warnings = map["warnings"].to_string();
    for part in [
        "the field 'topic' goes with the cohorts (Cramér's V 1.00, p 0.005)",
        "looks like one that tells the cohorts apart",
        "prompts in a and b differ in length",
        "12 of 12 responses in a and 0 of 12 in b were cut off at the limit of tokens: ",
    ] {
        assert!(warnings.contains(part), "{part}\n{warnings}");
    }
    assert!(!warnings.contains("'year'") && !warnings.contains("'finish_reason'"), "{warnings}");
    let found = &map["contrast"]["confounds"];
    assert_eq!((&found["fields_checked"], &found["truncated_a"]), (&json!(2), &json!(12)));
    assert!(lab.read("s/report.html").contains("the field &#39;topic&#39; goes with the cohorts"));
    // Its shards know it too, and where nothing is compared nothing of it is written.
    for i in 1..=2 {
        lab.done(&format!("{} --a a --b b --out s{i} --shard {i}/2", line.replace(" --json", "")));
    }
    let mut merge = temper();
    merge.args(["merge", "m", "s1", "s2"]).current_dir(lab.0.path());
    assert_eq!(merge.output().unwrap().status.code(), Some(0));
    assert_eq!(lab.read("m/score.json"), lab.read("s/score.json"));
    lab.done(&format!("{line} --out alone"));
    assert!(!lab.read("alone/plan.json").contains("topic"));
}

#[test]
fn every_family_has_a_map() {
    let lab = Lab::new();
    for family in FAMILIES {
        let output =
            lab.score(family, &format!("--items c.jsonl --lambda 0 --limit 2 --shuffles 9 --out {family} --json"));
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{family}: {err}");
        let map: Value = serde_json::from_slice(&output.stdout).unwrap();
        let heads = golden_model(family).spec().slots().len();
        assert_eq!(map["cells"].as_array().unwrap().len(), heads, "{family}");
        assert!(map["warnings"].to_string().contains("6 are the least"), "{family}");
        let report = lab.read(&format!("{family}/report.html"));
        assert!(report.contains("No verdict: with 2 prompts"), "{family}");
        assert_eq!(report.contains("Underlined: gated delta nets"), family == "qwen3_5");
    }
}

#[test]
fn plain_is_never_read_from_what_was_shared() {
    let lab = Lab::new();
    let line = "--items c.jsonl --heads L0H1 --lambda 0 --out s";
    lab.done(line);
    let output = lab.score("llama", &format!("{line} --plain"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("belongs to another run"));
}

#[test]
fn what_the_program_cannot_score_it_refuses() {
    let lab = Lab::new();
    lab.write(
        "silent.jsonl",
        "{\"id\":\"a1\",\"prompt\":\"x\",\"response\":\"y\"}\n{\"id\":\"a2\",\"prompt\":\"x\"}\n",
    );
    lab.write("ids.jsonl", "{\"id\":\"a3\",\"input_ids\":[1,2,3]}\n");
    lab.write("none.jsonl", "");
    for (line, part) in [
        ("--items silent.jsonl --lambda 0", "item 'a2' has no response"),
        ("--items ids.jsonl --lambda 0", "input_ids with prompt_len"),
        ("--items none.jsonl --lambda 0", "none.jsonl"),
        ("--items c.jsonl --lambda 0,0.5,0", "0 twice"),
        ("--items c.jsonl --lambda inf", "lambda inf of head L0H0 is not a number from -1000000 to 1000000"),
        ("--items c.jsonl --lambda 1e20", "norms square what they read"),
        ("--items c.jsonl", "--lambda"),
        ("--items c.jsonl --lambda 0 --heads L9H0", "layer 9 of head L9H0 does not exist"),
        ("--items c.jsonl --lambda 0 --heads L0H6", "head L0H6 does not exist"),
        ("--items c.jsonl --lambda 0 --heads L0H1:0.5", "without a lambda"),
        ("--items c.jsonl --lambda 0 --heads top:3@none.json", "none.json"),
        ("--items c.jsonl --lambda 0 --a a --b c", "labels in the data: a 4, b 4"),
        ("--items c.jsonl --lambda 0 --a a --b a", "cohort b is 'a' like cohort a, but must be another label"),
        ("--items c.jsonl --lambda 0 --a a", "--b"),
        ("--items c.jsonl --lambda 0 --batch-tokens 0", "batch_tokens is 0"),
    ] {
        let output = lab.score("llama", &format!("{line} --out s"));
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}\n{err}");
        assert!(err.contains(part), "{line}\n{err}");
        assert!(output.stdout.is_empty() && !lab.path("s").exists(), "{line}: something was left");
    }
    lab.done("--items c.jsonl --lambda 0 --heads L0H1 --out s");
    let output = lab.score("llama", "--items c.jsonl --limit 7 --lambda 0 --heads L0H1 --out s");
    assert!(String::from_utf8_lossy(&output.stderr).contains("belongs to another run"));
}
