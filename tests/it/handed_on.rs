//! What one verb hands on to the next: answers, labels, instructions and names must still mean there what they meant here.

use serde_json::{Value, json};

use crate::lab::{Lab, array, by_id, lines, prompts};

/// Questions with an answer, a label of it, a rating of it, and a topic of their own.
fn answered(lab: &Lab, name: &str, answer: &str) {
    let item = |i: usize| {
        json!({
            "id": format!("q{i}"), "prompt": format!("Combien font {i} et {i}?"), "response": format!("{answer} {}.", 2 * i),
            "label": if i.is_multiple_of(2) { "cr" } else { "cw" }, "correct": i.is_multiple_of(2), "topic": i % 3,
            "scores": {"curiosity": i}
        })
    };
    lab.write_lines(name, (0..12).map(item));
}

pub(crate) fn texts(lab: &Lab, name: &str, key: &str) -> Vec<String> {
    match headtemper_study::Npz::read_array(&lab.path(name), key).unwrap() {
        headtemper_study::Array::Text(texts) => texts,
        other => panic!("{key} of {name} is no array of texts but {other:?}"),
    }
}

fn numbers(lab: &Lab, name: &str, key: &str) -> Vec<f64> {
    array(&lab.npz(name), key).to_vec1().unwrap()
}

/// Where the model answers anew, what was said of the old answer is gone; what is said of the question stays.
#[test]
fn a_new_answer_is_not_labelled_by_what_was_said_of_the_old_one() {
    let lab = Lab::new();
    answered(&lab, "i.jsonl", "Cela fait");
    lab.done("capture --model M --items i.jsonl --out read.npz");
    assert_eq!(texts(&lab, "read.npz", "label")[..2], ["cr", "cw"]);
    let (_, err) = lab.ends(0, "capture --model M --items i.jsonl --generate --max-new-tokens 4 --out written.npz");
    assert!(
        err.contains("12 items bring a response, which is not read, nor what is said of it (label, scores)"),
        "{err}"
    );
    assert!(texts(&lab, "written.npz", "label").iter().all(String::is_empty));
    for gone in ["scores.curiosity", "fields.correct"] {
        assert!(numbers(&lab, "written.npz", gone).iter().all(|x| x.is_nan()), "{gone}");
    }
    assert_eq!(numbers(&lab, "written.npz", "fields.topic"), numbers(&lab, "read.npz", "fields.topic"));
    let unlike = |key: &str| texts(&lab, "read.npz", key) != texts(&lab, "written.npz", key);
    assert!(unlike("response_hash") && !unlike("prompt_hash"));
    // A label of a question is one of no answer, and stays.
    let questions = lines(&lab.read("i.jsonl")).into_iter().map(|mut item| {
        item.as_object_mut().unwrap().remove("response");
        item
    });
    lab.write_lines("asked.jsonl", questions);
    lab.done("capture --model M --items asked.jsonl --generate --max-new-tokens 4 --out asked.npz");
    assert_eq!(texts(&lab, "asked.npz", "label")[..2], ["cr", "cw"]);
}

/// Labels that stand beside other answers than the ones that were read are told; texts for the baselines of a falsification must be the
/// ones that were read.
#[test]
fn labels_of_other_answers_are_told() {
    let lab = Lab::new();
    answered(&lab, "one.jsonl", "Cela fait");
    answered(&lab, "other.jsonl", "Peut-être");
    lab.done("capture --model M --items one.jsonl --heads none --out one.npz");
    lab.done("capture --model M --items other.jsonl --heads none --out other.npz");
    let fit = "probe fit --features one.npz:h_last --cv 3 --shuffles 0 --labels";
    for (labels, others) in [
        ("one.jsonl:correct", 0),
        ("other.jsonl:correct", 12),
        ("one.npz:fields.correct", 0),
        ("other.npz:fields.correct", 12),
    ] {
        let out = labels.replace(['.', ':'], "-");
        let (_, err) = lab.ends(0, &format!("{fit} {labels} --out {out}"));
        let told = format!("the labels of {others} of 12 items stand beside another prompt or response");
        assert_eq!(err.contains(&told), others > 0, "{labels}: {err}");
        let origin = &lab.json(&format!("{out}/fit.json"))["train"];
        assert_eq!(origin["other_texts"].as_u64().unwrap_or_default(), others, "{labels}");
    }
    // Of a file without texts, nothing is known.
    lab.write_lines("bare.jsonl", (0..12).map(|i| json!({"id": format!("q{i}"), "y": i % 2})));
    let (_, err) = lab.ends(0, &format!("{fit} bare.jsonl:y --out bare"));
    assert!(!err.contains("stand beside"), "{err}");

    let fresh = lines(&lab.read("one.jsonl")).into_iter().map(|mut item| {
        item["prompt"] = json!(item["prompt"].as_str().unwrap().replace("font", "feraient"));
        item
    });
    lab.write_lines("fresh.jsonl", fresh);
    lab.done("capture --model M --items fresh.jsonl --heads none --out fresh.npz");
    let gates = |items: &str| {
        format!(
            "name = \"t\"\n[train]\nfeatures = \"one.npz:h_last\"\nlabels = \"{items}:correct\"\nitems = \"{items}\"\n[fresh]\n\
             features = \"fresh.npz:h_last\"\nlabels = \"fresh.jsonl:correct\"\nitems = \"fresh.jsonl\"\n[probe]\ncv = 3\n[gates]\nfresh_auc = 0.6\n"
        )
    };
    lab.write("other.toml", gates("other.jsonl"));
    let (_, err) = lab.ends(2, "falsify other.toml --out other");
    assert!(err.contains("row 'q0' was captured from another response than that of item 'q0'"), "{err}");

    // The labels of axes, of pooled features and of another model may be of other answers although those of step 2 are not.
    lab.write(
        "scored.toml",
        gates("one.jsonl") + "[axes]\ncolumns = [\"scores.curiosity>=6\"]\ntrain = \"other.jsonl\"\n",
    );
    let out = lab.done_or(&[0, 3, 4], "falsify scored.toml --out scored");
    let told = "warning: [axes] scores.curiosity>=6: training: the labels of 12 of 12 items stand beside another prompt or response";
    assert!(out.contains(told), "{out}");
    assert!(!out.contains("warning: training: the labels"), "those of step 2 are of these answers: {out}");
    lab.write("same.toml", gates("one.jsonl") + "[axes]\ncolumns = [\"scores.curiosity>=6\"]\n");
    let out = lab.done_or(&[0, 3, 4], "falsify same.toml --out same");
    assert!(!out.contains("[axes] scores"), "{out}");
}

/// Answers that are token ids are answers.
#[test]
fn answers_of_token_ids_are_read_and_not_replaced() {
    let lab = Lab::new();
    let item = |i: usize| {
        let ids: Vec<usize> = (0..14).map(|at| 5 + (7 * i + 3 * at) % 90).collect();
        json!({"id": format!("q{i}"), "input_ids": ids, "prompt_len": 4, "label": if i.is_multiple_of(2) { "a" } else { "b" }})
    };
    lab.write_lines("ids.jsonl", (0..12).map(item));
    lab.write("hedges.txt", "perhaps\n");
    let config = |judge: &str, items: &str| {
        format!(
            "name = \"t\"\n[model]\npath = \"{}\"\n[items]\npath = \"{items}\"\n[generate]\nmax_new_tokens = 4\n{judge}[attribute]\n\
             disposition = \"d\"\na = \"a\"\nb = \"b\"\nlast_n = 10\nshuffles = 20\nmin_cohort = 2\n",
            headtemper_tests::golden_dir("llama").display()
        )
    };
    lab.write("x.toml", config("", "ids.jsonl"));
    lab.done("run x.toml --out out");
    assert_eq!(lab.read("out/rows.jsonl"), "", "nothing is answered again");
    lab.done("attribute --model M --items ids.jsonl --a a --b b --last-n 10 --shuffles 20 --out again");
    let heads = |dir: &str| lab.json(&format!("{dir}/attribution.json"))["dispositions"][0]["heads"].clone();
    assert_eq!(heads("out"), heads("again"));
    // What reads words says so.
    let with_gold = lines(&lab.read("ids.jsonl")).into_iter().map(|mut item| {
        item["gold"] = json!("dix");
        item
    });
    lab.write_lines("gold.jsonl", with_gold);
    lab.write("judged.toml", config("[judge]\nhedges = \"hedges.txt\"\n", "gold.jsonl"));
    let (_, err) = lab.ends(2, "run judged.toml --out judged");
    assert!(err.contains("the answer of item 'q0' is token ids") && err.contains("[judge] labels it"), "{err}");
}

/// What asks a model once more asks the same: a line of generate is an item.
#[test]
fn a_line_of_generate_asks_what_its_item_asked() {
    let lab = Lab::new();
    let talk = json!([{"role": "system", "content": "Sois bref."}, {"role": "user", "content": "Qui es-tu?"},
        {"role": "assistant", "content": "Personne."}, {"role": "user", "content": "Et moi?"}]);
    let items = [
        json!({"id": "talk", "messages": talk}),
        json!({"id": "ids", "input_ids": [9, 8, 7, 6]}),
        json!({"id": "plain", "prompt": "Qui es-tu?"}),
    ];
    lab.write_lines("i.jsonl", items.clone());
    let out = lab.done("generate --model M --items i.jsonl --max-new-tokens 3");
    let asked = by_id(&out);
    for item in items {
        let field = item.as_object().unwrap().keys().find(|key| *key != "id").unwrap().clone();
        assert_eq!(asked[item["id"].as_str().unwrap()][&field], item[&field]);
    }
    lab.write("again.jsonl", &out);
    let lengths = |items: &str| {
        let answers = by_id(&lab.done(&format!("generate --model M --items {items} --max-new-tokens 3")));
        answers
            .into_iter()
            .map(|(id, line)| (id, line["prompt_tokens"].clone(), line["response_ids"].clone()))
            .collect::<Vec<_>>()
    };
    let stripped = lines(&out).into_iter().map(|mut line| {
        line.as_object_mut()
            .unwrap()
            .retain(|name, _| ["id", "prompt", "messages", "input_ids"].contains(&name.as_str()));
        line
    });
    lab.write_lines("stripped.jsonl", stripped);
    assert_eq!(lengths("i.jsonl"), lengths("stripped.jsonl"));
}

/// A λ is the number that was written, wherever it is handed on: 0.9 is not below 0.9.
#[test]
fn a_lambda_stays_the_number_that_was_written() {
    let lab = Lab::new();
    answered(&lab, "i.jsonl", "Cela fait");
    lab.done("attribute --model M --items i.jsonl --a cr --b cw --shuffles 20 --top 2 --lambda 0.9 --out a");
    let list = lab.read("a/heads.json");
    assert!(list.contains("0.9") && !list.contains("0.89"), "{list}");
    assert_eq!(lab.json("a/heads.json")["heads"][0]["lambda"].as_f64(), Some(0.9));
}

/// What says the label again is no other reason for a difference between the labels.
#[test]
fn verdicts_do_not_confound_the_labels_made_of_them() {
    let lab = Lab::new();
    answered(&lab, "i.jsonl", "Cela fait");
    let attribute = "attribute --model M --items i.jsonl --shuffles 200 --out";
    lab.done(&format!("{attribute} label --a cr --b cw"));
    let fields = |dir: &str| {
        let found = lab.json(&format!("{dir}/attribution.json"))["dispositions"][0]["fields"].clone();
        found
            .as_array()
            .into_iter()
            .flatten()
            .map(|field| field["field"].as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert!(!fields("label").contains(&"correct".into()));
    let renamed = lab.read("i.jsonl").replace("\"cr\"", "\"yes\"").replace("\"cw\"", "\"no\"");
    lab.write("i.jsonl", renamed);
    lab.done(&format!("{attribute} other --a yes --b no"));
    assert!(fields("other").contains(&"correct".into()), "of any other label, it is one");
}

/// A condition tells for how many items it holds, and how many cannot say.
#[test]
fn a_condition_tells_how_many_items_cannot_say() {
    let lab = Lab::new();
    let item = |i: usize| {
        let mut item = json!({"id": format!("q{i}"), "prompt": format!("Combien font {i}?"), "response": "Trois."});
        if i < 6 {
            item["flagged"] = json!(i < 2);
        }
        item
    };
    lab.write_lines("i.jsonl", (0..10).map(item));
    for verb in [
        "capture --model M --heads none --out c.npz",
        "sweep --model M --heads L0H1 --lambda 1,0 --max-new-tokens 2 --out s",
    ] {
        let (_, err) = lab.ends(0, &format!("{verb} --items i.jsonl --where !flagged"));
        assert!(
            err.contains("!flagged holds for 4 of 10 items; 4 of the others lack a field on which this depends"),
            "{err}"
        );
    }
    let page = lab.read("s/report.html");
    assert!(page.contains("<dt>items</dt><dd>4 of i.jsonl, those where !flagged</dd>"), "{page}");
    // A table may have the name of a score as the name of a field.
    lab.write_lines(
        "flat.jsonl",
        (0..4).map(|i| json!({"id": i, "prompt": "Qui?", "response": "Moi.", "scores.x": i})),
    );
    let (_, err) = lab.ends(0, "capture --model M --heads none --out f.npz --items flat.jsonl --where scores.x>=2");
    assert!(err.contains("scores.x>=2 holds for 2 of 4 items") && !err.contains("lack"), "{err}");
}

/// A probe that learnt under a system message is not one for answers without it.
#[test]
fn a_system_message_is_part_of_what_a_probe_was_fitted_on() {
    let lab = Lab::new();
    answered(&lab, "i.jsonl", "Cela fait");
    lab.done("capture --model M --items i.jsonl --heads none --system Bref! --out brief.npz");
    lab.done("capture --model M --items i.jsonl --heads none --out plain.npz");
    let meta = |name: &str| -> Value { serde_json::from_str(&texts_of_meta(&lab, name)).unwrap() };
    assert_eq!((&meta("brief.npz")["system"], &meta("plain.npz")["system"]), (&json!("Bref!"), &json!("")));
    lab.done("probe fit --features brief.npz:h_last --labels i.jsonl:correct --cv 3 --shuffles 0 --out p");
    let (_, err) = lab.ends(0, "probe eval p --features plain.npz:h_last --labels i.jsonl:correct");
    assert!(err.contains("after the system message 'Bref!'"), "{err}");
    prompts(&lab, 4);
    let gate = "gate --model M --items q.jsonl --probe p --threshold 0.5 --max-new-tokens 2 --out";
    let told = "the probe was fitted on answers after the system message 'Bref!'";
    let (out, err) = lab.ends(0, &format!("{gate} without"));
    assert!(format!("{out}{err}").contains(told), "{out}{err}");
    let (out, err) = lab.ends(0, &format!("{gate} with --system Bref!"));
    assert!(!format!("{out}{err}").contains(told), "{out}{err}");
    for (verb, page) in [
        ("attribute --model M --items i.jsonl --system Bref! --a cr --b cw --shuffles 20 --out a", "a"),
        ("score --model M --items i.jsonl --system Bref! --heads L0H1 --lambda 0 --shuffles 20 --out m", "m"),
        ("sweep --model M --items q.jsonl --system Bref! --heads L0H1 --lambda 1,0 --max-new-tokens 2 --out s", "s"),
    ] {
        lab.done(verb);
        assert!(lab.read(&format!("{page}/report.html")).contains("<dt>system message</dt><dd>Bref!</dd>"), "{verb}");
    }
}

fn texts_of_meta(lab: &Lab, name: &str) -> String {
    match headtemper_study::Npz::read_array(&lab.path(name), "meta").unwrap() {
        headtemper_study::Array::Scalar(text) => text,
        other => panic!("{other:?}"),
    }
}

/// Features and labels that cannot belong together are refused; ids that some lines lack are those of a file of items.
#[test]
fn columns_that_do_not_fit_their_ids_are_refused() {
    let lab = Lab::new();
    answered(&lab, "i.jsonl", "Cela fait");
    lab.done("capture --model M --items i.jsonl --heads none --out f.npz");
    let read = |name: &str, key: &str| headtemper_study::Npz::read_array(&lab.path(name), key).unwrap();
    let write = |name: &str, ids: Vec<String>, labels: Vec<f64>| {
        let mut npz = headtemper_study::Npz::default();
        npz.add("id", headtemper_study::Array::Text(ids));
        npz.add("y", headtemper_study::Array::floats(labels));
        npz.save(&lab.path(name)).unwrap();
    };
    let ids = |n: usize| (0..n).map(|i| format!("q{i}")).collect::<Vec<_>>();
    let labels = |n: usize| (0..n).map(|i| (i % 2) as f64).collect::<Vec<_>>();
    write("short.npz", ids(12), labels(8));
    write("long.npz", ids(8), labels(12));
    let fit = "probe fit --features f.npz:h_last --cv 3 --shuffles 0 --out p --labels";
    for (name, values, names) in [("short.npz", 8, 12), ("long.npz", 12, 8)] {
        let (_, err) = lab.ends(2, &format!("{fit} {name}:y"));
        assert!(err.contains(&format!("array 'y' has {values} values, but array 'id' {names}")), "{err}");
    }
    let mut twice = headtemper_study::Npz::default();
    twice.add("id", headtemper_study::Array::Text(ids(11).into_iter().chain(["q0".to_string()]).collect()));
    twice.add("h_last", read("f.npz", "h_last"));
    twice.save(&lab.path("twice.npz")).unwrap();
    let (_, err) =
        lab.ends(2, "probe fit --features twice.npz:h_last --labels i.jsonl:correct --cv 3 --shuffles 0 --out p");
    assert!(err.contains("id 'q0' stands there a second time"), "{err}");

    // Twelve lines in another order, one of which has no id: its number is its id, as it is for the capture.
    let mut some = lines(&lab.read("i.jsonl"));
    some[4].as_object_mut().unwrap().remove("id");
    lab.write_lines("some.jsonl", some.clone());
    lab.done("capture --model M --items some.jsonl --heads none --out some.npz");
    let fitted = |labels: &str, out: &str| {
        lab.done(&format!("probe fit --features some.npz:h_last --labels {labels} --cv 3 --shuffles 0 --out {out}"));
        lab.json(&format!("{out}/fit.json"))["train"].clone()
    };
    let by_line = fitted("some.jsonl:correct", "same");
    assert_eq!((&by_line["matched_by"], &by_line["items"]), (&json!("id"), &json!(12)));
    // Where no line has one, all have their numbers: also for a capture of some of them, but not for ids that happen to be numbers.
    for item in &mut some {
        item.as_object_mut().unwrap().remove("id");
    }
    lab.write_lines("none.jsonl", some.clone());
    lab.done("capture --model M --items none.jsonl --heads none --where topic!=1 --out none.npz");
    let fit_none = "probe fit --features none.npz:h_last --labels none.jsonl:correct --cv 3 --shuffles 0 --out none";
    let (_, err) = lab.ends(0, fit_none);
    assert!(!err.contains("by place") && lab.json("none/fit.json")["train"]["matched_by"] == "id", "{err}");
    assert_eq!(lab.json("none/fit.json")["train"]["items"], 8);
    let reversed = some.into_iter().enumerate().map(|(i, mut item)| {
        item["id"] = json!(12 - i);
        item
    });
    lab.write_lines("reversed.jsonl", reversed);
    lab.done("capture --model M --items reversed.jsonl --heads none --out reversed.npz");
    let (_, err) = lab.ends(
        0,
        "probe fit --features reversed.npz:h_last --labels none.jsonl:correct --cv 3 --shuffles 0 --out reversed",
    );
    assert!(err.contains("labels were matched by place"), "{err}");
    // A key that stands twice has no value.
    lab.write("double.jsonl", "{\"id\":\"q0\",\"y\":1,\"y\":0}\n");
    let (_, err) = lab.ends(2, &format!("{fit} double.jsonl:y"));
    assert!(err.contains("'y' stands there twice"), "{err}");
    let marked = lab.read("i.jsonl");
    lab.write("marked.jsonl", format!("\u{feff}{marked}"));
    lab.done(&format!("{fit} marked.jsonl:correct"));
}
