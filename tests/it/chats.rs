//! Conversations that end in an answer, like most chat data: what is asked, what is answered, and what verbs do with both.

use std::{collections::BTreeSet, fs};

use headtemper_study::{Array, Npz};
use serde_json::{Value, json};

use crate::lab::{Lab, by_id, lines};

const ITEMS: usize = 6;

/// The same conversations in two forms: with the answer as their last message, and as a field of its own.
fn write_chats(lab: &Lab) {
    let before = |i: usize| {
        let said = |role: &str, content: String| json!({"role": role, "content": content});
        let mut messages = vec![said("user", format!("Qui est {i}?"))];
        if i.is_multiple_of(2) {
            messages.extend([said("assistant", format!("{i} est un nombre.")), said("user", format!("Et {}?", i + 1))]);
        }
        messages
    };
    let answer = |i: usize| format!("Je ne sais pas {i}.");
    let label = |i: usize| if i < ITEMS / 2 { "x" } else { "y" };
    lab.write_lines(
        "chats.jsonl",
        (0..ITEMS).map(|i| {
            let mut messages = before(i);
            messages.push(json!({"role": "assistant", "content": answer(i)}));
            json!({"id": format!("c{i}"), "messages": messages, "label": label(i)})
        }),
    );
    let split =
        |i: usize| json!({"id": format!("c{i}"), "messages": before(i), "response": answer(i), "label": label(i)});
    lab.write_lines("split.jsonl", (0..ITEMS).map(split));
}

/// Verbs that read responses read the last message of such a conversation; verbs that generate answer what comes before it.
#[test]
fn a_conversation_may_hold_its_answer() {
    let lab = Lab::new();
    write_chats(&lab);
    for name in ["chats", "split"] {
        lab.done(&format!("score --model M --items {name}.jsonl --heads L0H1 --lambda 0 --out {name}-score"));
        lab.done(&format!("capture --model M --items {name}.jsonl --pool response --heads vector --out {name}.npz"));
        lab.done(&format!(
            "sweep --model M --items {name}.jsonl --heads L0H1 --lambda 0 --max-new-tokens 3 --out {name}-sweep"
        ));
        lab.done(&format!("attribute --model M --items {name}.jsonl --a x --b y --shuffles 19 --out {name}-heads"));
    }
    lab.same(&["scores.npz", "scores.csv", "score.json"], "chats-score", "split-score");
    lab.same(&["attribution.json", "attribution.csv", "heads.json"], "chats-heads", "split-heads");
    assert_eq!(lab.rows("chats-score/scores.jsonl"), lab.rows("split-score/scores.jsonl"));
    assert!(fs::read(lab.path("chats.npz")).unwrap() == fs::read(lab.path("split.npz")).unwrap(), "captures differ");
    assert_eq!(lab.rows("chats-sweep/rows.jsonl"), lab.rows("split-sweep/rows.jsonl"));
    // What was read in one form is recognised in the other.
    lab.done("attribute --features chats.npz --items split.jsonl --a x --b y --shuffles 19 --out known");
    // The response is exactly the answer's tokens: no header of a second answer comes before it.
    let npz = Npz::read(&lab.path("chats.npz")).unwrap();
    let Some(Array::I64(_, prompt_len)) = npz.get("prompt_len") else { panic!("no prompt_len") };
    let Some(Array::I64(_, total_len)) = npz.get("total_len") else { panic!("no total_len") };
    assert!(prompt_len.iter().zip(total_len).all(|(prompt, total)| prompt < total));
    // A row's prompt is the last question; a line of generate has all of the conversation.
    let answers = by_id(&lab.done("generate --model M --items chats.jsonl --max-new-tokens 3"));
    for row in lines(&lab.read("chats-sweep/rows.jsonl")) {
        let i: usize = row["id"].as_str().unwrap()[1..].parse().unwrap();
        let asked = if i.is_multiple_of(2) { format!("Et {}?", i + 1) } else { format!("Qui est {i}?") };
        assert_eq!(row["prompt"], json!(asked));
        let messages = &answers[row["id"].as_str().unwrap()]["messages"];
        assert_eq!(messages.as_array().unwrap().last().unwrap(), &json!({"role": "user", "content": asked}));
    }
    // Every line with two answers, or with nothing to read, is named.
    let said = |role: &str, content: &str| json!({"role": role, "content": content});
    let (asked, answer) = (said("user", "Hi"), said("assistant", "Ho"));
    lab.write_lines(
        "bad.jsonl",
        [
            json!({"messages": [asked, answer], "response": "Ho"}),
            json!({"messages": [asked, said("assistant", "")]}),
            json!({"messages": [asked, answer, answer]}),
            json!({"messages": [answer]}),
        ],
    );
    let (_, why) = lab.ends(2, "sweep --model M --items bad.jsonl --heads L0H1 --lambda 0 --out bad");
    for part in [
        "line 1: messages end in an answer of the assistant and there is a response too",
        "line 2: the last of messages, the assistant's, is empty",
        "line 3: messages end in two answers of the assistant",
        "line 4: messages hold an answer of the assistant alone",
    ] {
        assert!(why.contains(part), "{part} is not in:\n{why}");
    }
    plans_are_documented(&lab);
}

/// The plans of both runs have exactly the fields that docs/files.md names; some only where there is something to say.
fn plans_are_documented(lab: &Lab) {
    let docs = include_str!("../../docs/files.md");
    for (dir, heading) in [("chats-sweep", "### plan.json: of a sweep"), ("chats-score", "### plan.json: of a map")] {
        let plan: Value = lab.json(&format!("{dir}/plan.json"))["plan"].clone();
        let written: BTreeSet<&str> = plan.as_object().unwrap().keys().map(String::as_str).collect();
        let table = docs.split(heading).nth(1).unwrap().split("\n#").next().unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let (optional, always): (Vec<&str>, Vec<&str>) = rows.partition(|row| row.contains("absent"));
        let names = |rows: Vec<&'static str>| -> BTreeSet<&str> {
            rows.into_iter().flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect()
        };
        let (optional, always) = (names(optional), names(always));
        assert_eq!(always, written.difference(&optional).copied().collect(), "{heading}");
        assert!(written.contains("file"), "{heading}");
    }
}
