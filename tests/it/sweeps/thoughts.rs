//! Answers of models that think first.

use serde_json::{Value, json};

use crate::lab::{Lab, lines};

/// Where the chat template opens a thought, an answer that does not end it says nothing.
#[test]
fn an_answer_within_a_thought_that_the_prompt_opened_says_nothing() {
    let lab = Lab::new();
    let asked = |gold: &dyn Fn(usize) -> String| {
        let item = |i: usize| json!({"id": format!("q{i}"), "prompt": format!("Is {i} even?"), "gold": gold(i)});
        lab.write_lines("q.jsonl", (0..12).map(item));
    };
    asked(&|_| "yes".into());
    lab.write("hedges.txt", "perhaps\n");
    std::fs::create_dir(lab.path("thinks")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let from = headtemper_tests::golden_dir("llama").join(file);
        lab.write(&format!("thinks/{file}"), std::fs::read(from).unwrap());
    }
    let sweep = |ending: &str, out: &str| {
        let template = format!("{{% for m in messages %}}{{{{ m.content }}}} {{% endfor %}}{ending}");
        lab.write("thinks/chat_template.jinja", template);
        let of = "--model thinks --items q.jsonl --hedges hedges.txt --heads L0H1 --lambda 1,0.5 --max-new-tokens 12";
        let (told, _) = lab.ends(0, &format!("sweep {of} --out {out}"));
        (told, lab.json(&format!("{out}/sweep.json")))
    };
    let base = |outcomes: &Value, name: &str| outcomes["tables"][0]["arms"][0][name].clone();
    let (_, plain) = sweep("", "plain");
    assert_eq!((&plain["within_thought"], base(&plain, "assertion_rate")), (&json!(0), json!(1.0)));
    sweep("<think>\n", "within");
    // Even an answer that is an accepted one, word for word.
    let rows = lines(&lab.read("within/rows.jsonl"));
    let said = |i: usize| rows.iter().find(|row| row["variant"] == "base" && row["id"] == format!("q{i}")).unwrap();
    asked(&|i| said(i)["response"].as_str().unwrap().to_owned());
    let (told, within) = sweep("<think>\n", "within");
    assert_eq!((&within["within_thought"], base(&within, "assertion_rate")), (&json!(24), Value::Null));
    assert_eq!(base(&within, "accuracy"), 0.0);
    assert!(told.contains("24 answers end within a thought and say nothing"), "{told}");
    assert_eq!(lab.json("within/plan.json")["plan"]["prompts_open_thought"], true);
}
