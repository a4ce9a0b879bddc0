//! Which items a verb reads, and what stands before their prompts.

use serde_json::{Value, json};

use crate::lab::{Lab, array, by_id, lines};

/// Eight questions of two topics, four of them judged.
fn items(lab: &Lab) {
    let item = |i: usize| {
        let mut item =
            json!({"id": format!("q{i}"), "prompt": format!("What is {i}?"), "response": format!("It is {i}.")});
        item["topic"] = json!(if i < 4 { "small" } else { "large" });
        if i.is_multiple_of(2) {
            item["scores"] = json!({"curiosity": i});
        }
        item
    };
    lab.write_lines("i.jsonl", (0..8).map(item));
}

fn file(lab: &Lab, name: &str) -> Vec<u8> {
    std::fs::read(lab.path(name)).unwrap()
}

/// A condition takes the items that are as they would be in a file of their own, whatever verb reads them.
#[test]
fn a_condition_takes_the_items_that_it_holds_for() {
    let lab = Lab::new();
    items(&lab);
    let chosen = |item: &Value| item["topic"] == "large" && item["scores"]["curiosity"].as_u64() > Some(4);
    lab.write_lines("few.jsonl", lines(&lab.read("i.jsonl")).into_iter().filter(chosen).collect::<Vec<_>>());
    assert_eq!(by_id(&lab.read("few.jsonl")).len(), 1);
    let run = |items: &[&str], out: &str| {
        let model = headtemper_tests::golden_dir("llama");
        let mut capture = lab.command("capture --heads none --model");
        let done = capture.arg(model).arg("--out").arg(out).arg("--items").args(items).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    run(&["few.jsonl"], "few.npz");
    run(&["i.jsonl", "--where", "topic == \"large\" && scores.curiosity > 4"], "where.npz");
    assert!(file(&lab, "few.npz") == file(&lab, "where.npz"));
    // Of those for which it holds, the first.
    run(&["i.jsonl", "--where", "scores.curiosity >= 2", "--limit", "2"], "two.npz");
    assert_eq!(array(&lab.npz("two.npz"), "h_last").dims()[0], 2);
    for (condition, why) in [
        ("topic==\"none\"", "holds no item for which topic==\"none\" holds"),
        ("tpoic", "no item has tpoic"),
        ("topic>", "the condition"),
    ] {
        let (_, err) = lab.ends(2, &format!("capture --model M --items i.jsonl --out x.npz --where {condition}"));
        assert!(err.contains(why), "{condition}: {err}");
    }
    let (_, err) = lab.ends(2, "judge --sweep s --where topic --endpoint http://127.0.0.1:1 --judge-model m --out j");
    assert!(err.contains("cannot be used with"), "{err}");
}

/// A system message is read as if it stood in the items, by every verb.
#[test]
fn a_system_message_stands_before_every_prompt() {
    let lab = Lab::new();
    items(&lab);
    let spelt = |mut item: Value| {
        item["messages"] =
            json!([{"role": "system", "content": "Brief!"}, {"role": "user", "content": item["prompt"]}]);
        item.as_object_mut().unwrap().remove("prompt");
        item
    };
    lab.write_lines("spelt.jsonl", lines(&lab.read("i.jsonl")).into_iter().map(spelt).collect::<Vec<_>>());
    lab.done("capture --model M --items spelt.jsonl --out spelt.npz");
    lab.done("capture --model M --items i.jsonl --system Brief! --out system.npz");
    lab.done("capture --model M --items i.jsonl --out without.npz");
    let h_last = |name: &str| array(&lab.npz(name), "h_last").flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(h_last("spelt.npz") == h_last("system.npz") && h_last("without.npz") != h_last("system.npz"));
    let answer = "generate --model M --max-new-tokens 4 --items";
    let (spelt, system) =
        (lab.done(&format!("{answer} spelt.jsonl")), lab.done(&format!("{answer} i.jsonl --system Brief!")));
    assert_eq!(by_id(&spelt), by_id(&system));
    let (_, err) = lab.ends(2, "sweep --model M --items spelt.jsonl --system Brief! --heads L0H1 --lambda 1,0 --out s");
    assert!(err.contains("line 1: the input of item 'q0' is messages or input_ids"), "{err}");
    let (_, err) =
        lab.ends(2, "sweep --model M --items i.jsonl --raw --system Brief! --heads L0H1 --lambda 1,0 --out s");
    assert!(err.contains("cannot be used with"), "{err}");
}

/// A capture has one λ for all its heads; a list gets told what takes several.
#[test]
fn several_lambdas_of_one_capture_are_refused_with_the_way_out() {
    let lab = Lab::new();
    items(&lab);
    let (_, err) = lab.ends(2, "capture --model M --items i.jsonl --plan L0H1 --lambda 1,0.5 --out c.npz");
    assert!(
        err.contains("(in f32, where nothing else may become 1); several λ take a call each, or temper sweep"),
        "{err}"
    );
}
