//! `temper gate` as a user runs it: it hedges the answers that a probe doubts.

use serde_json::{Value, json};

use crate::lab::{Lab, array, by_id, lines, prompts};

/// A gate on the tiny model: the states that it reads are those in a capture of the same answers.
#[test]
fn a_gate_hedges_what_the_probe_doubts() {
    let lab = Lab::new();
    prompts(&lab, 12);
    let answers = by_id(&lab.done("generate --model M --items q.jsonl --max-new-tokens 6 --json"));
    lab.done(
        "capture --model M --items q.jsonl --generate --max-new-tokens 6 --layers last:2 --heads none --out f.npz",
    );
    let labels: Vec<u8> = (0..12).map(|i| u8::from(i % 3 != 0)).collect();
    lab.write("l.json", json!({"y": labels}).to_string());
    lab.done("probe fit --features f.npz:h_last --labels l.json:y --cv 3 --shuffles 0 --out p");
    // Right answers are what the model says; an item's own `coverage` does not count, since its answer is not there yet.
    let item = |i: usize| {
        let id = format!("q{i}");
        let gold = if labels[i] == 1 { answers[&id]["response"].clone() } else { json!("nobody says this") };
        json!({"id": id, "prompt": format!("Qu'est-ce que {i} à {}?", i * i), "gold": gold, "coverage": 0.0})
    };
    lab.write_lines("items.jsonl", (0..12).map(item));
    let run = "gate --model M --items items.jsonl --probe p --threshold 0.5 --max-new-tokens 6 --out g";
    let (out, _) = lab.ends(0, run);
    let found = lab.json("g/gate.json");
    let rows = lines(&lab.read("g/gated.jsonl"));
    assert_eq!((rows.len(), found["items"].as_u64()), (12, Some(12)));
    // A probe with this many features separates its own items: it doubts exactly the wrong ones.
    assert_eq!((found["auc"].as_f64(), found["prefixed"].as_u64()), (Some(1.0), Some(4)), "{out}");
    // Without an error, the bound of four disjoint pairs that are all in order.
    let low = found["auc_delong"]["low"].as_f64().unwrap();
    assert!((low.powi(4) - 0.025).abs() < 1e-9 && found["auc_delong"]["high"] == 1.0, "{found}");
    assert!(out.contains("12 of 12 answers were generated here, and without a lexicon (--hedges)"), "{out}");
    assert_eq!((&found["plain"]["asymmetry"], &found["gated"]["asymmetry"]), (&json!(0.0), &json!(-1.0)));
    assert_eq!(found["plain"]["coverage"], found["gated"]["coverage"]);
    assert!(found["seen_in_training"] == 12 && out.contains("fitted on 12 of these 12 answers"), "{out}");
    for row in &rows {
        let (plain, gated) = (row["plain_response"].as_str().unwrap(), row["response"].as_str().unwrap());
        let (prefix, label) = if row["prefixed"] == true { ("I'm not sure, but ", "hw") } else { ("", "cr") };
        assert_eq!((gated, &row["label"]), (format!("{prefix}{plain}").as_str(), &json!(label)));
        assert!(row.get("coverage").is_none(), "what was said of another answer is gone: {row}");
    }
    // Random prefixes also hedge right answers; four wrong ones are too few for an interval.
    let (change, random) = (&found["change"], &found["change"]["at_random"]);
    assert_eq!((&change["asymmetry"]["difference"], &change["asymmetry"]["low"]), (&json!(-1.0), &Value::Null));
    assert!(change["p_assert_wrong"]["high"].as_f64().unwrap() < -0.4, "{change}");
    assert_eq!((&random["answers"], &random["prefixed"], &random["draws"]), (&json!(12), &json!(4), &json!(1000)));
    assert!(
        random["asymmetry"]["p"].as_f64().unwrap() < 0.02 && random["asymmetry"]["mean"].as_f64().unwrap() > -0.2,
        "{random}"
    );
    assert!(
        out.contains("what becomes of 4 prefixes over the 12 answers")
            && out.contains("no interval where fewer than 10"),
        "{out}"
    );
    // Every answer is cut off at the limit, and that is said.
    assert_eq!((&found["cut_off"]["answers"], &found["cut_off"]["table"]["cw"]), (&json!(12), &json!(4)), "{out}");
    let cut = "12 of 12 answers (100.0 %) were cut off at a limit of tokens, 8 of 8 right and 4 of 4 wrong ones: a cut-off answer can look";
    assert!(out.contains(cut) && !out.contains("not cut off alike"), "{out}");
    assert!(rows.iter().all(|row| row["finish_reason"] == "length"));
    // The probabilities are those of the probe on the capture of the same tokens.
    let eval = "probe eval p --features f.npz:h_last --labels l.json:y --out e";
    lab.done(eval);
    let p = array(&lab.npz("e/predictions.npz"), "p").to_vec2::<f64>().unwrap();
    for (row, p) in rows.iter().zip(&p[0]) {
        assert!((row["p"].as_f64().unwrap() - p).abs() < 1e-6, "{row}");
    }
    let (again, err) = lab.ends(0, run);
    assert!(again == out && err.contains("nothing left to do"), "{err}");
    let (_, err) = lab.ends(2, &run.replace("--threshold 0.5", "--threshold 0.6"));
    assert!(err.contains("threshold was 0.5, is 0.6"), "{err}");
    let (_, err) = lab.ends(2, &format!("{run} --site 0"));
    assert!(err.contains("--site is 0, but must be left out, or final_norm, which the probe was fitted on"), "{err}");
    let (_, err) = lab.ends(2, &format!("{} --site last:x", run.replace("--model M", "--model ./gone")));
    assert!(err.contains("the list of layers is last:x"), "{err}");
    let mut blank = lab.command(&run.replace("--out g", "--out g6"));
    let blank = blank.args(["--prefix", " "]).output().unwrap();
    assert!(String::from_utf8_lossy(&blank.stderr).contains("--prefix is blank") && !lab.path("g6").exists());
    let (out, _) = lab.ends(0, &format!("{} --raw --dtype bf16", run.replace("--out g", "--out g7")));
    for other in
        ["weights in f32 there, weights in bf16 here", "prompts with it, and these are read without the chat template"]
    {
        assert!(out.contains(other), "{other}: {out}");
    }
    for (threshold, told) in [("nan", "NaN"), ("50", "50")] {
        let line = format!("gate --model M --items items.jsonl --probe p --threshold {threshold} --out g4");
        let (_, err) = lab.ends(2, &line);
        assert!(err.contains(&format!("the threshold is {told}, but must be a probability, from 0 to 1")), "{err}");
        assert!(!lab.path("g4").exists(), "refused before anything is generated");
    }
    // An answer that an item brings without a label says nothing about its hedging either.
    let brought = |i: usize| {
        let label = if i < 3 { json!("cr") } else { Value::Null };
        json!({"id": format!("b{i}"), "prompt": format!("{i}?"), "response": "yes", "gold": "yes", "label": label})
    };
    lab.write_lines("brought.jsonl", (0..8).map(brought));
    let out = lab.done("gate --model M --items brought.jsonl --probe p --threshold 0.5 --out g5");
    assert!(
        out.contains("5 of 8 answers come without one of the labels cr, cw, hr and hw, and without a lexicon"),
        "{out}"
    );
    assert!(
        out.contains("whether 8 of 8 answers were cut off is not known: items say it by a field finish_reason"),
        "{out}"
    );
    let cut_off = &lab.json("g5/gate.json")["cut_off"];
    assert_eq!((&cut_off["unsaid"], &cut_off["known"]["cr"]), (&json!(8), &json!(0)));
    // Labels of another kind tell nothing, which is said before the model is opened.
    let other =
        |i: usize| json!({"prompt": format!("{i}?"), "response": "yes", "label": if i < 3 { "a" } else { "b" }});
    lab.write_lines("other.jsonl", (0..5).map(other));
    let (_, err) = lab.ends(2, "gate --model ./gone --items other.jsonl --probe p --threshold 0.5 --out g6");
    let told = "warning: nothing says of any answer whether it is right: give items gold answers, or finished answers a coverage, \
                correct, or one of the labels cr, cw, hr and hw; they have a (3), b (2)\n";
    assert!(err.contains(told), "{err}");
    let out = lab.done("gate --model M --items other.jsonl --probe p --threshold 0.5 --out g6");
    assert!(
        out.contains("is known to be right or wrong: give items gold answers")
            && out.contains("they have a (3), b (2)"),
        "{out}"
    );
    lab.done("capture --model M --items q.jsonl --generate --max-new-tokens 6 --layers 0 --heads none --out other.npz");
    lab.done("probe fit --features other.npz:h_layers[0] --labels l.json:y --cv 3 --shuffles 0 --out layers");
    lab.done("gate --model M --items items.jsonl --probe layers --threshold 0.5 --max-new-tokens 6 --out g2");
    let (_, err) = lab.ends(2, "gate --model M --items items.jsonl --probe p --c 3 --out g3");
    assert!(err.contains("C is 3, but must be one that the probe was fitted with: 1"), "{err}");
}

/// A probe ranks the items it was fitted on well, however little it knows, so the numbers are those of the other answers; a probe
/// that failed is reported.
#[test]
fn a_gate_is_measured_where_its_probe_was_not_fitted() {
    let lab = Lab::new();
    prompts(&lab, 12);
    lab.done("capture --model M --items q.jsonl --generate --max-new-tokens 6 --heads none --out f.npz");
    lab.write("l.json", json!({"y": (0..12).map(|i| u8::from(i % 3 != 0)).collect::<Vec<_>>()}).to_string());
    lab.done("probe fit --features f.npz:h_last --labels l.json:y --cv 3 --shuffles 0 --out p");
    let seen = lines(&lab.read("q.jsonl")).into_iter().enumerate().map(|(i, mut item)| {
        item["correct"] = json!(i % 3 != 0);
        item["response"] = json!("Oui");
        item
    });
    let fresh = (0..10).map(|i| json!({"id": format!("new{i}"), "prompt": format!("Combien font {i}?"), "response": "Trois", "correct": i % 2 == 0}));
    lab.write_lines("fresh.jsonl", fresh.clone());
    lab.write_lines("both.jsonl", seen.chain(fresh));
    let gate = "gate --model M --probe p --threshold 0.5";
    let out = lab.done(&format!("{gate} --items both.jsonl --out both"));
    lab.done(&format!("{gate} --items fresh.jsonl --out fresh"));
    let (both, fresh) = (lab.json("both/gate.json"), lab.json("fresh/gate.json"));
    assert_eq!(
        (&both["items"], &both["seen_in_training"], &both["measured"]),
        (&json!(22), &json!(12), &json!(10)),
        "{out}"
    );
    for what in ["auc", "auc_delong", "plain", "gated", "change", "measured"] {
        assert_eq!(both[what], fresh[what], "{what}");
    }
    assert!(
        out.contains("on the 10 that it was not fitted on") && out.contains("they take no part in the numbers"),
        "{out}"
    );
    let rows = lines(&lab.read("both/gated.jsonl"));
    assert!(rows.iter().all(|row| row["seen_in_training"] == !row["id"].as_str().unwrap().starts_with("new")));
    assert!(!out.contains("temper falsify"));
    let sha256 = fresh["probe_sha256"].clone();
    lab.write("p/falsify.json", json!({"verdict": "failed", "frozen": {"probe_sha256": "of another"}}).to_string());
    assert!(!lab.done(&format!("{gate} --items fresh.jsonl --out other")).contains("temper falsify"));
    lab.write("p/falsify.json", json!({"verdict": "failed", "frozen": {"probe_sha256": sha256}}).to_string());
    let out = lab.done(&format!("{gate} --items fresh.jsonl --out failed"));
    assert!(out.contains("`temper falsify` says 'failed' of this probe"), "{out}");
}

/// The gate's output can be read as items, by the gate too. The gate reports how the answers that items bring ended, and where items
/// contradict their accepted answers.
#[test]
fn what_a_gate_lets_out_are_items() {
    let lab = Lab::new();
    prompts(&lab, 12);
    lab.done("capture --model M --items q.jsonl --generate --max-new-tokens 6 --heads none --out f.npz");
    lab.write("l.json", json!({"y": (0..12).map(|i| u8::from(i % 3 != 0)).collect::<Vec<_>>()}).to_string());
    lab.done("probe fit --features f.npz:h_last --labels l.json:y --cv 3 --shuffles 0 --out p");
    // All wrong answers are cut off and no right one is; three items contradict their accepted answers.
    let item = |i: usize| {
        let right = i.is_multiple_of(2);
        let end = if right { "stop" } else { "length" };
        json!({
            "id": format!("b{i}"), "messages": [{"role": "user", "content": format!("{i}?")}], "response": format!("yes {i}"),
            "gold": if right { "yes" } else { "no" }, "correct": right != (i < 3), "finish_reason": end, "topic": "t",
            "label": if right { "hr" } else { "hw" },
        })
    };
    lab.write_lines("brought.jsonl", (0..12).map(item));
    lab.write("hedges.txt", "I'm not sure\nyes 0\n");
    let gate = "gate --model M --probe p --threshold 0.5 --hedges hedges.txt";
    let out = lab.done(&format!("{gate} --items brought.jsonl --out g"));
    let found = lab.json("g/gate.json");
    assert_eq!(found["contradicted"], json!({"by_gold": 3, "by_itself": 0, "by_lexicon": 11}), "{out}");
    assert!(out.contains("3 items had a correct, coverage or label that the accepted answers contradict"), "{out}");
    assert!(out.contains("11 items had a label whose hedging the lexicon contradicts"), "{out}");
    let cut = "6 of 12 answers (50.0 %) were cut off at a limit of tokens, 0 of 6 right and 6 of 6 wrong ones";
    assert!(out.contains(cut) && out.contains("not cut off alike") && out.contains("may be truncation"), "{out}");
    assert_eq!(
        found["cut_off"]["prefixed"], found["gated"]["table"]["hw"],
        "the wrong ones are the cut-off ones: {out}"
    );
    let rows = lines(&lab.read("g/gated.jsonl"));
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(
            (&row["messages"], &row["topic"], &row["plain_response"]),
            (&item(i)["messages"], &json!("t"), &item(i)["response"])
        );
        assert_eq!((&row["correct"], &row["finish_reason"]), (&json!(i.is_multiple_of(2)), &item(i)["finish_reason"]));
    }
    // Read again, every label and every finish reason is the same.
    lab.done(&format!("{gate} --items g/gated.jsonl --out again"));
    let again = lab.json("again/gate.json");
    assert_eq!((&again["plain"], &again["cut_off"]["answers"]), (&found["gated"], &json!(6)));
    assert_eq!(again["contradicted"], json!({"by_gold": 0, "by_itself": 0, "by_lexicon": 0}));
    let table: Value = serde_json::from_str(&lab.done("probe table --items g/gated.jsonl --json")).unwrap();
    assert_eq!((&table["cr"], &table["hw"]), (&found["gated"]["table"]["cr"], &found["gated"]["table"]["hw"]));
}
