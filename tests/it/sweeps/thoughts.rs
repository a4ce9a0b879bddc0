//! Answers of models that think first.

use serde_json::{Value, json};

use crate::lab::{Lab, lines};

/// A model in `thinks` whose chat template ends a prompt in this way.
fn thinking_model(lab: &Lab, ending: &str) {
    std::fs::create_dir_all(lab.path("thinks")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let from = headtemper_tests::golden_dir("llama").join(file);
        lab.write(&format!("thinks/{file}"), std::fs::read(from).unwrap());
    }
    let template = format!("{{% for m in messages %}}{{{{ m.content }}}} {{% endfor %}}{ending}");
    lab.write("thinks/chat_template.jinja", template);
}

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
    let sweep = |ending: &str, out: &str| {
        thinking_model(&lab, ending);
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

/// The same answers say nothing to a judge, a gate and an experiment either, which say why.
#[test]
fn what_says_nothing_is_not_judged_gated_or_attributed() {
    let lab = Lab::new();
    thinking_model(&lab, "<think>\n");
    let item = |i: usize| json!({"id": format!("q{i}"), "prompt": format!("Is {i} even?"), "gold": ["a", "e"]});
    lab.write_lines("q.jsonl", (0..12).map(item));
    lab.write("hedges.txt", "perhaps\n");
    let generated = "--model thinks --items q.jsonl --max-new-tokens 6";

    lab.done(&format!("sweep {generated} --heads L0H1 --lambda 0.5 --out s"));
    let nobody = "--endpoint http://127.0.0.1:9 --judge-model mock";
    let (_, err) = lab.ends(2, &format!("judge --sweep s {nobody} --tasks delivery --out j"));
    assert!(err.contains("every answer of s/rows.jsonl is empty, or ends within a thought"), "{err}");

    lab.done(&format!("capture {generated} --generate --layers last --heads none --out f.npz"));
    lab.write("l.json", json!({"y": [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]}).to_string());
    lab.done("probe fit --features f.npz:h_last --labels l.json:y --cv 2 --shuffles 0 --out p");
    let (told, _) = lab.ends(0, &format!("gate {generated} --probe p --threshold 0.5 --hedges hedges.txt --out g"));
    assert!(told.contains("12 answers say nothing (they are empty, or end within a thought)"), "{told}");
    let gate = lab.json("g/gate.json");
    assert_eq!((&gate["items"], &gate["prefixed"], lab.read("g/gated.jsonl").as_str()), (&json!(0), &json!(0), ""));

    lab.write(
        "x.toml",
        "name = \"t\"\n[model]\npath = \"thinks\"\n[items]\npath = \"q.jsonl\"\n[generate]\nmax_new_tokens = 6\n\
         [judge]\nhedges = \"hedges.txt\"\n[attribute]\ndisposition = \"parity\"\na = \"cw\"\nb = \"cr\"\n",
    );
    let (_, err) = lab.ends(2, "run x.toml --out r");
    assert!(err.contains("labels in the data: none") && err.contains("cohort 'cw' has 0 items"), "{err}");
    assert!(err.contains("warning: 12 answers end within a thought and say nothing: allow more"), "{err}");
}

/// A switch is asked about of all prompts, also of those that are answered; where none goes through the template, it would say nothing.
#[test]
fn an_experiment_thinks_where_any_prompt_is_rendered() {
    let lab = Lab::new();
    thinking_model(&lab, "{% if enable_thinking %}Think. {% endif %}");
    let label = |i: usize| if i.is_multiple_of(2) { "x" } else { "y" };
    let ids = |i: usize| json!({"id": format!("i{i}"), "input_ids": [5, 6 + i, 7], "label": label(i)});
    let answered = |i: usize| json!({"id": format!("p{i}"), "prompt": format!("Is {i} even?"), "response": "so", "label": label(i)});
    lab.write(
        "x.toml",
        "name = \"t\"\n[model]\npath = \"thinks\"\nthinking = true\n[items]\npath = \"q.jsonl\"\n[generate]\nmax_new_tokens = 6\n\
         [attribute]\ndisposition = \"d\"\na = \"x\"\nb = \"y\"\nshuffles = 20\nmin_cohort = 2\n",
    );
    lab.write_lines("q.jsonl", (0..6).map(ids));
    let (_, err) = lab.ends(2, "run x.toml --out r");
    assert!(err.contains("--thinking, or thinking of [model], is on"), "{err}");
    lab.write_lines("q.jsonl", (0..6).map(ids).chain((0..6).map(answered)));
    lab.done("run x.toml --out r");
    let judged = lines(&lab.read("r/judged.jsonl"));
    assert_eq!(judged.iter().filter(|item| item["response"].is_string()).count(), 12, "{judged:?}");
}
