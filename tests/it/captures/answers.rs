//! Captures of answers as the model writes them, and of items that bring the tokens of theirs.

use std::fs;

use headtemper_study::{Array, Npz};
use headtemper_tests::engine;
use serde_json::{Value, json};

use super::{ANSWERS, items};
use crate::{
    lab::{Lab, counts, lines},
    states::SAME,
};

/// A file of generated answers holds the answers that `temper generate` writes and the states of those very tokens; it also says
/// how far reading them again differs.
#[test]
fn answers_are_captured_as_they_are_written() {
    let lab = Lab::new();
    items(&lab, 40);
    let (out, err) = lab.ends(0, &format!("{ANSWERS} --out g.npz --json --max-rows 5 --part-items 16"));
    assert!(err.contains("note: 40 items bring a response, which is not read"), "{err}");
    let said = err.lines().find(|line| line.starts_with("generated  read again")).unwrap_or_else(|| panic!("{err}"));
    let summary = &lines(&out)[0];
    assert_eq!((&summary["items"], &summary["layers"]), (&json!(40), &json!(2)));
    let npz = Npz::read(&lab.path("g.npz")).unwrap();
    let text = |name: &str| match npz.get(name) {
        Some(Array::Text(texts)) => texts.clone(),
        other => panic!("{name}: {other:?}"),
    };
    let answers = crate::lab::by_id(
        &lab.done("generate --model M --items i.jsonl --max-new-tokens 9 --temperature 1.3 --seed 4 --json"),
    );
    let cut = text("finish_reason").iter().filter(|reason| *reason == "length").count();
    assert!(cut > 0 && summary["truncated"] == cut, "{summary}");
    assert!(err.contains(&format!("warning: {cut} of 40 responses were cut off at the limit of tokens")), "{err}");
    let Some(Array::I64(_, lengths)) = npz.get("total_len") else { panic!("no total_len") };
    let mut differ = 0;
    let engine = engine("llama");
    for (i, id) in text("id").iter().enumerate() {
        let answer = &answers[id];
        assert_eq!(
            (&json!(text("response")[i]), &json!(text("finish_reason")[i])),
            (&answer["response"], &answer["finish_reason"])
        );
        let (tokens, prompt) = (answer["n_tokens"].as_i64().unwrap(), answer["prompt_tokens"].as_i64().unwrap());
        assert_eq!(lengths[i], tokens + prompt);
        let ids: Vec<u32> = serde_json::from_value(answer["response_ids"].clone()).unwrap();
        differ += usize::from(engine.tokenizer().encode(&text("response")[i], false).unwrap() != ids);
    }
    assert!(differ > 0 && differ < 40, "{differ} answers are tokenised otherwise: the test shows nothing");
    let Some(Array::Scalar(meta)) = npz.get("meta") else { panic!("no meta") };
    let meta: Value = serde_json::from_str(meta).unwrap();
    let measured = &meta["generated_vs_forced"];
    assert_eq!(measured, &summary["generated_vs_forced"]);
    println!("{measured}\n{said}");
    assert_eq!((&measured["items"], &measured["retokenised_of"]), (&json!(32), &json!(40)));
    assert_eq!(measured["retokenised_differs"], differ);
    assert!(measured["worst_abs"].as_f64().unwrap() <= f64::from(SAME), "{measured}");
    assert!(measured["smallest_cosine"].as_f64().unwrap() > 1.0 - 1e-6, "{measured}");
    assert!(measured["from_text"]["worst_abs"].as_f64().unwrap() > 0.1, "other tokens, the same states? {measured}");
    assert_eq!(meta["generated"]["sampling"]["temperature"], 1.3);

    // The same tokens read at once, from a file of items.
    let line = |id: &String| {
        let ids: Vec<u32> = serde_json::from_value(answers[id]["response_ids"].clone()).unwrap();
        let prompt =
            engine.encode("x", &headtemper_engine::Input::Prompt(format!("Qui est {}?", &id[1..])), None).unwrap();
        let prompt_len = prompt.ids.len();
        let input_ids = [prompt.ids, ids].concat();
        json!({"id": id, "input_ids": input_ids, "prompt_len": prompt_len})
    };
    lab.write_lines("again.jsonl", text("id").iter().map(line));
    lab.done("capture --model M --items again.jsonl --layers last:2 --pool response --out again.npz");
    let again = Npz::read(&lab.path("again.npz")).unwrap();
    for name in ["h_last", "h_layers", "head_norm", "head_norm_final", "total_len", "prompt_len", "token_index"] {
        assert_eq!(npz.get(name), again.get(name), "{name}");
    }

    // Items that bring their response's tokens are read by these, or by their text if the tokens are not the text's.
    let line = |id: &String, ids: &Value| {
        let prompt = format!("Qui est {}?", &id[1..]);
        json!({"id": id, "prompt": prompt, "response": answers[id]["response"], "response_ids": ids})
    };
    let kept = |id: &&String| answers[*id]["response"].as_str().is_some_and(|response| !response.trim().is_empty());
    let all = text("id");
    let ids: Vec<&String> = all.iter().filter(kept).collect();
    lab.write_lines("brought.jsonl", ids.iter().map(|id| line(id, &answers[*id]["response_ids"])));
    lab.write_lines("others.jsonl", ids.iter().map(|id| line(id, &json!([7, 8, 9]))));
    lab.write_lines("texts.jsonl", ids.iter().map(|id| line(id, &Value::Null)));
    let read = |name: &str| {
        lab.done(&format!("capture --model M --items {name}.jsonl --layers last:2 --pool response --out {name}.npz"));
        let npz = Npz::read(&lab.path(&format!("{name}.npz"))).unwrap();
        let [Some(Array::F32(shape, h)), Some(Array::I64(_, lengths))] =
            ["h_last", "total_len"].map(|name| npz.get(name))
        else {
            panic!("{name}")
        };
        (h.chunks(shape[1]).map(<[f32]>::to_vec).collect::<Vec<_>>(), lengths.clone())
    };
    let Some(Array::F32(shape, h)) = npz.get("h_last") else { panic!("no h_last") };
    let rows: Vec<Vec<f32>> = h.chunks(shape[1]).map(<[f32]>::to_vec).collect();
    let wanted: Vec<Vec<f32>> = all.iter().zip(rows).filter(|(id, _)| kept(id)).map(|(_, row)| row).collect();
    assert_eq!(read("brought").0, wanted);
    assert_eq!(read("others"), read("texts"));
    assert_ne!(read("texts").0, wanted, "or the tokens make no difference");
}

/// The answers as items: what the model wrote beside each question, whole whenever the capture was cut, and never over something else.
#[test]
fn answers_are_written_as_items() {
    let lab = Lab::new();
    // Items that bring a response, and what they say of it; one that brings none keeps its label.
    let item = |i: usize| match i {
        0 => json!({"id": "q0", "prompt": "Qui est 0?", "label": "kept", "topic": "t"}),
        1 => {
            json!({"id": "q1", "messages": [{"role": "system", "content": "Court."}, {"role": "user", "content": "Qui?"}]})
        }
        _ => {
            json!({"id": format!("q{i}"), "prompt": format!("Qui est {i}?"), "response": "Lui.", "label": "gone", "correct": true, "topic": "t"})
        }
    };
    lab.write_lines("i.jsonl", (0..9).map(item));
    let capture =
        "capture --model M --items i.jsonl --heads vector --generate --max-new-tokens 7 --temperature 1.3 --seed 4";
    let (out, err) = lab.ends(0, &format!("{capture} --out g.npz --answers a.jsonl --part-items 2 --json"));
    let answers = lab.read("a.jsonl");
    let generated = crate::lab::by_id(
        &lab.done("generate --model M --items i.jsonl --max-new-tokens 7 --temperature 1.3 --seed 4 --json"),
    );
    let empty = generated.values().filter(|line| line["response"].as_str().unwrap().trim().is_empty()).count();
    assert_eq!(lines(&out)[0]["answers"], json!({"out": "a.jsonl", "items": 9 - empty, "silent": empty}));
    assert!(err.contains(&format!("answers    a.jsonl: {} items", 9 - empty)), "{err}");
    assert_eq!(lines(&answers).len(), 9 - empty);
    for line in lines(&answers) {
        let own = &generated[line["id"].as_str().unwrap()];
        for name in ["response", "finish_reason", "prompt", "messages"] {
            assert_eq!(line[name], own[name], "{name}");
        }
        let kept = if line["id"] == "q0" { json!("kept") } else { Value::Null };
        assert_eq!(
            (&line["label"], &line["correct"]),
            (&kept, &Value::Null),
            "what was said of another answer is gone"
        );
        assert_eq!(line["topic"], if line["id"] == "q1" { Value::Null } else { json!("t") });
    }
    // Verbs read them: as the texts that were captured, and as any other items.
    lab.done("score --model M --items a.jsonl --heads L0H1 --lambda 0 --shuffles 0 --out s");
    lab.done("capture --model M --items a.jsonl --out again.npz");
    let labelled = lines(&answers).into_iter().enumerate().map(|(i, mut line)| {
        line["label"] = json!(["x", "y"][i % 2]);
        line
    });
    lab.write_lines("l.jsonl", labelled);
    lab.done("attribute --features g.npz --items l.jsonl --a x --b y --shuffles 9 --out at");

    // A call that was killed before it wrote them, or after, makes them or leaves them.
    let written = lab.modified("g.npz");
    fs::remove_file(lab.path("a.jsonl")).unwrap();
    lab.done(&format!("{capture} --out g.npz --answers a.jsonl"));
    assert_eq!((lab.read("a.jsonl"), lab.modified("g.npz")), (answers.clone(), written));
    let again = lab.modified("a.jsonl");
    lab.done(&format!("{capture} --out g.npz --answers a.jsonl"));
    assert_eq!(lab.modified("a.jsonl"), again);
    lab.write("a.jsonl", "mine\n");
    let (_, err) = lab.ends(2, &format!("{capture} --out g.npz --answers a.jsonl"));
    assert!(err.contains("a.jsonl: is there and holds something else than the answers of this capture"), "{err}");
    lab.write("a.jsonl", answers.clone() + "more\n");
    lab.ends(2, &format!("{capture} --out g.npz --answers a.jsonl"));

    // Shards, one after the other, are the whole.
    for shard in [1, 2, 3] {
        lab.done(&format!("{capture} --out s{shard}.npz --answers s{shard}.jsonl --shard {shard}/3"));
    }
    assert_eq!([1, 2, 3].map(|shard| lab.read(&format!("s{shard}.jsonl"))).concat(), answers);
    lab.done("merge whole.npz s3.npz s1.npz s2.npz");
    lab.done(&format!("{capture} --out whole.npz --answers whole.jsonl"));
    assert_eq!(lab.read("whole.jsonl"), answers);
}

/// Files of answers that could not be written are refused before the model is opened.
/// The prompts share their system message, which is read once in each part: what the hooks are said to have touched, and all bytes of
/// the file, do not depend on how the work is cut.
#[test]
fn hooks_are_counted_the_same_however_the_work_is_cut() {
    let lab = Lab::new();
    lab.write_lines("i.jsonl", (0..6).map(|i| json!({"id": format!("q{i}"), "prompt": format!("Qui est {i}?")})));
    let capture =
        "capture --model M --items i.jsonl --generate --max-new-tokens 5 --system Bref,gentil,exact --plan L1H2:0.5";
    for (plan, of_prompts) in [("", false), (" --positions window:2..5", true)] {
        let capture = format!("{capture}{plan}");
        let whole = |parts: usize| {
            lab.done(&format!("{capture} --part-items {parts} --out {parts}.npz"));
            fs::read(lab.path(&format!("{parts}.npz"))).unwrap()
        };
        let (one, six) = (whole(1), whole(6));
        let npz = Npz::read(&lab.path("6.npz")).unwrap();
        let Some(Array::Scalar(meta)) = npz.get("meta") else { panic!("no meta") };
        let fired = serde_json::from_str::<Value>(meta).unwrap()["fired"]["L1H2"].clone();
        let total: i64 = counts(&lab.npz("6.npz"), "total_len").iter().sum();
        assert_eq!(fired, json!(if of_prompts { 6 * 4 } else { total }), "{plan}");
        assert!(one == six, "{plan}: the files differ");
        for shard in 1..=3 {
            lab.done(&format!("{capture} --shard {shard}/3 --out s{shard}.npz"));
        }
        lab.done("merge m.npz s1.npz s2.npz s3.npz");
        assert!(fs::read(lab.path("m.npz")).unwrap() == six, "{plan}: the merged file differs");
        for file in ["1.npz", "6.npz", "m.npz", "s1.npz", "s2.npz", "s3.npz"] {
            fs::remove_file(lab.path(file)).unwrap();
        }
    }
}

#[test]
fn answers_need_a_place_and_a_model_that_writes_them() {
    let lab = Lab::new();
    items(&lab, 3);
    fs::create_dir(lab.path("dir")).unwrap();
    let capture = "capture --model ./gone --items i.jsonl --out g.npz --answers";
    for (line, part) in [
        (format!("{capture} a.jsonl"), "--generate"),
        (format!("{capture} i.jsonl --generate"), "--answers is i.jsonl, which is there, but must be a new file"),
        (format!("{capture} ./g.npz --generate"), "--answers is ./g.npz, like --out"),
        (format!("{capture} dir --generate"), "--answers is dir, which is there"),
        (format!("{capture} no/a.jsonl --generate"), "no is no directory"),
        (format!("{capture} no/ --generate"), "--answers is no/, a directory"),
    ] {
        let (_, err) = lab.ends(2, &line);
        assert!(err.contains(part) && !err.contains("gone"), "{line}: {err}");
    }
    assert!(lab.ends(2, &format!("{capture} a.jsonl --generate")).1.contains("'./gone'"));
}
