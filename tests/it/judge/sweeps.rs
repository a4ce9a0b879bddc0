//! A judge on the answers of a sweep: whether tempering heads changes what it says of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Value, json};

use super::{
    QUICK, ended,
    mock::{Act, Asked, Server, good},
};
use crate::lab::{Lab, lines};

const ITEMS: usize = 16;
const SWEEP: &str =
    "sweep --model M --items q.jsonl --heads L0H1,L2H4 --max-new-tokens 6 --temperature 1 --seeds 1,2 --out s";

/// A sweep of questions with accepted answers, half of which bring what somebody said of another answer.
fn swept(lab: &Lab, lambdas: &str) {
    let item = |i: usize| {
        let mut item =
            json!({"id": format!("q{i}"), "prompt": format!("What is {i}?"), "gold": ["a", "e"], "topic": i % 3});
        if i.is_multiple_of(2) {
            item["label"] = json!("cw");
            item["response"] = json!("another answer");
            item["scores"] = json!({"curiosity": 5, "calm": 2});
            item["verbal"] = json!("hedge");
        }
        item
    };
    lab.write_lines("q.jsonl", (0..ITEMS).map(item));
    lab.done(&format!("{SWEEP} --lambda {lambdas} --random-sets 2"));
}

/// Runs `temper judge` on the sweep; it must end with this code. Returns stdout and stderr.
fn judge(lab: &Lab, server: &Server, code: i32, line: &str) -> (String, String) {
    let line = format!("judge --sweep s --endpoint {} --judge-model mock {QUICK} {line}", server.url());
    ended(&lab.command(&line).output().unwrap(), code)
}

fn mean(of: impl Iterator<Item = f64>) -> f64 {
    let all: Vec<f64> = of.collect();
    all.iter().sum::<f64>() / all.len() as f64
}

/// Every arm of the tables and of the random sets, by name.
fn arms(outcomes: &Value) -> BTreeMap<String, Value> {
    let tables = outcomes["tables"].as_array().unwrap().iter().flat_map(|table| table["arms"].as_array().unwrap());
    let all = tables.chain(outcomes["random"].as_array().unwrap());
    all.map(|arm| (arm["variant"].as_str().unwrap().to_owned(), arm.clone())).collect()
}

#[test]
fn arms_are_compared_by_what_a_judge_says() {
    let (lab, server) = (Lab::new(), Server::new(good));
    swept(&lab, "1,1,0");
    let all = "--tasks coverage,delivery,rubric --axes curious --out j";
    let (out, err) = judge(&lab, &server, 0, all);
    assert!(out.contains("judged by mock (coverage, delivery, rubric)") && out.contains("curiosity, levels"), "{out}");
    assert!(err.contains("report     j/report.html"), "{err}");
    let rows = lines(&lab.read("s/rows.jsonl"));
    let judged = lines(&lab.read("j/judged.jsonl"));
    let full = rows.iter().filter(|row| !row["response"].as_str().unwrap().trim().is_empty()).count();
    assert_eq!((rows.len(), judged.len()), (5 * 2 * ITEMS, full));

    // Each text is asked about once, whichever arms it is from.
    let asked = server.asked();
    let texts: BTreeSet<(&str, &str)> =
        judged.iter().map(|line| (line["item"].as_str().unwrap(), line["response"].as_str().unwrap())).collect();
    let scores = asked.iter().filter(|asked| asked.kind() == "score").count();
    assert!(scores == texts.len() && scores < judged.len(), "{scores} of {}", judged.len());
    assert!(!asked.iter().any(|asked| asked.text.contains("L0H1") || asked.text.contains("another answer")));

    // The tables hold what the lines say, arm by arm.
    let outcomes = lab.json("j/sweep.json");
    assert_eq!((&outcomes["judge"], &outcomes["axes"]), (&json!("mock"), &json!(["curiosity"])));
    let arms = arms(&outcomes);
    assert_eq!(arms.len(), 5);
    let score = |line: &Value| line["scores"]["curiosity"].as_f64().unwrap();
    let of = |variant: &str| judged.iter().filter(move |line| line["variant"] == variant).collect::<Vec<_>>();
    for (variant, arm) in &arms {
        let lines = of(variant);
        let empty = (2 * ITEMS - lines.len()) as f64;
        let close = |found: &Value, expected: f64| (found.as_f64().unwrap() - expected).abs() < 1e-12;
        let share = |hit: &dyn Fn(&Value) -> bool| mean(lines.iter().map(|line| f64::from(u8::from(hit(line)))));
        assert!(close(&arm["scores"]["curiosity"], mean(lines.iter().map(|line| score(line)))), "{variant}");
        // An empty answer gives no accepted one.
        let right = share(&|line| line["correct"] == true) * (1.0 - empty / (2 * ITEMS) as f64);
        assert!(close(&arm["accuracy"], right), "{variant}");
        assert!(close(&arm["assertion_rate"], share(&|line| line["verbal"] == "assert")), "{variant}");
        assert_eq!(arm["unjudged"]["scores"]["curiosity"].as_f64(), Some(empty), "{variant}");
        assert_eq!((&arm["unjudged"]["accuracy"], &arm["unjudged"]["mean_tokens"]), (&json!(0), &json!(0)));
        let line = lines[0];
        assert_eq!(line["id"], json!(format!("{}/{variant}/{}", line["item"].as_str().unwrap(), line["seed"])));
        assert!(line["topic"].is_number() && line["scores"].get("calm").is_none(), "{line}");
        let label = |line: &&Value| match (&line["correct"], &line["verbal"]) {
            (Value::Bool(right), Value::String(said)) => {
                format!("{}{}", &said.replace("assert", "c")[..1], if *right { "r" } else { "w" })
            }
            other => panic!("{other:?}"),
        };
        assert!(lines.iter().all(|line| line["label"] == label(line)), "{variant}");
    }
    let [tempered, control] =
        ["L0H1+L2H4@0", "all@1"].map(|name| arms[name]["difference"]["scores"]["curiosity"].clone());
    assert_eq!((&control["mean"], &control["differing"]), (&json!(0.0), &json!(0)));
    let both = |line: &&Value| {
        let own = |variant: &str, seed: u64| {
            of(variant).into_iter().find(|other| other["item"] == line["item"] && other["seed"] == seed).map(score)
        };
        let of_seed = |seed: u64| Some(own("L0H1+L2H4@0", seed)? - own("base", seed)?);
        let known: Vec<f64> = [1, 2].into_iter().filter_map(of_seed).collect();
        (!known.is_empty()).then(|| mean(known.into_iter()))
    };
    let mut items: Vec<&Value> = judged.iter().filter(|line| line["variant"] == "base").collect();
    items.sort_by_key(|line| line["item"].to_string());
    items.dedup_by_key(|line| line["item"].to_string());
    let differences: Vec<f64> = items.iter().filter_map(both).collect();
    assert!(differences.iter().any(|d| *d != 0.0), "the heads do something");
    assert_eq!(tempered["items"], json!(differences.len()));
    assert!((tempered["mean"].as_f64().unwrap() - mean(differences.into_iter())).abs() < 1e-12);
    assert!(tempered["p"].is_number() && tempered["p_max"].is_number() && tempered["random"]["sets"] == 2);
    assert!(lab.read("j/sweep.csv").contains(",scores.curiosity,"));
    let report = lab.read("j/report.html");
    assert!(
        ["judged by mock (coverage, delivery, rubric)", "curiosity (1 to 5)", "<dt>sweep</dt><dd>s</dd>"]
            .iter()
            .all(|told| report.contains(told))
    );

    // The lines are items as any others: those of an arm can be attributed or captured.
    lab.done("capture --model M --items j/judged.jsonl --out c.npz");

    // Once more, nothing is asked and nothing changes; a further λ asks about its own answers alone.
    let files = ["judged.jsonl", "sweep.json", "sweep.csv", "report.html"];
    let before = files.map(|name| lab.read(&format!("j/{name}")));
    judge(&lab, &server, 0, all);
    assert!(server.asked().is_empty());
    assert_eq!(before, files.map(|name| lab.read(&format!("j/{name}"))));
    swept(&lab, "1,1,0,-1");
    judge(&lab, &server, 0, all);
    let asked = server.asked();
    assert!(!asked.is_empty() && asked.len() < 3 * 3 * 2 * ITEMS, "{}", asked.len());
    assert!(super::kinds(&asked)[3] == ("rubric", 0), "the questions are the same");
    let grown = lab.json("j/sweep.json");
    assert_eq!(grown["tables"][0]["arms"].as_array().unwrap().len(), 4);

    // The first items alone, and what a sweep graded by rules where the judge is asked for less.
    let (out, _) = judge(&lab, &server, 0, "--tasks rubric --axes curious --limit 5 --out k");
    assert!(out.contains("5 items x 2 seeds"), "{out}");
    let (few, by_rules) = (lab.json("k/sweep.json"), lab.json("s/sweep.json"));
    assert_eq!((&few["items"], &few["tables"][0]["arms"][0]["n"]), (&json!(5), &json!(10)));
    judge(&lab, &server, 0, "--tasks rubric --axes curious --out l");
    let accuracy = |of: &Value| of["tables"][0]["arms"][2]["difference"]["accuracy"].clone();
    assert_eq!(accuracy(&lab.json("l/sweep.json")), accuracy(&by_rules));
}

/// Tables of one judging never stand beside the verdicts of another.
#[test]
fn tables_go_before_other_verdicts_are_written() {
    let (lab, server) = (Lab::new(), Server::new(good));
    swept(&lab, "1,0");
    judge(&lab, &server, 0, "--tasks delivery --out j");
    // No file can take the place of a directory: as if the call had been killed there.
    fs::remove_file(lab.path("j/judged.jsonl")).unwrap();
    fs::create_dir(lab.path("j/judged.jsonl")).unwrap();
    judge(&lab, &server, 2, "--tasks coverage,delivery --out j");
    for name in ["judge.json", "sweep.json", "sweep.csv", "report.html"] {
        assert!(!lab.path("j").join(name).exists(), "{name} is of other verdicts");
    }
}

/// A judge that refuses to speak of many answers of one arm says nothing about that arm.
#[test]
fn an_arm_that_a_judge_refuses_is_not_compared() {
    let (lab, server) = (Lab::new(), Server::new(good));
    swept(&lab, "1,1,0");
    let rows = lines(&lab.read("s/rows.jsonl"));
    let of = |variant: &'static str| rows.iter().filter(move |row| row["variant"] == variant);
    let untouched: BTreeSet<String> = of("base").map(|row| row["response"].as_str().unwrap().into()).collect();
    let own: BTreeSet<String> = of("L0H1+L2H4@0").map(|row| row["response"].as_str().unwrap().into()).collect();
    let own: BTreeSet<String> = own.difference(&untouched).cloned().collect();
    assert!(own.len() > 3, "{own:?}");
    server.now(
        move |asked: &Asked| {
            if own.contains(asked.response()) { Act::say("I cannot judge this.") } else { good(asked) }
        },
    );
    let (out, err) = judge(&lab, &server, 1, "--tasks delivery --out j");
    assert!(err.contains("refused"), "{err}");
    let arm = &arms(&lab.json("j/sweep.json"))["L0H1+L2H4@0"];
    assert_eq!(arm["unequally_judged"][0], "assertion_rate", "{arm}");
    assert!(arm["difference"]["assertion_rate"].is_null() && arm["difference"]["mean_tokens"].is_object());
    assert!(out.contains("assertion_rate is not compared: L0H1+L2H4@0") && out.contains("not compared |"), "{out}");
    // What the judge warns of stands with the tables, and is no longer there once items alone are judged in the directory.
    let page = lab.read("j/report.html");
    assert!(page.contains("of the judge: ") && page.contains("refused"), "the judge's own warnings");
    lab.write_lines("i.jsonl", [json!({"id": "a", "prompt": "x", "response": "y"})]);
    let line = format!("judge --items i.jsonl --endpoint {} --judge-model mock --tasks delivery --out j", server.url());
    ended(&lab.command(&line).output().unwrap(), 0);
    assert!(["sweep.json", "sweep.csv", "report.html"].iter().all(|name| !lab.path("j").join(name).exists()));
}

/// A judge that always says the same is warned of where the null is read.
#[test]
fn a_null_of_a_judge_that_tells_nothing_apart_says_so() {
    let (lab, server) = (Lab::new(), Server::new(|_: &Asked| Act::say("ASSERT")));
    swept(&lab, "1,1,0");
    let (out, _) = judge(&lab, &server, 0, "--tasks delivery --out j");
    let told = "the judge tells nothing apart";
    assert!(out.contains("answers assert: either these answers are all alike") && out.contains(told), "{out}");
    assert!(lab.read("j/report.html").contains(told) && lab.read("j/sweep.json").contains(told));
}

#[test]
fn only_a_finished_sweep_is_judged() {
    let (lab, server) = (Lab::new(), Server::new(good));
    swept(&lab, "1,0");
    let refused = |line: &str| {
        let line = format!("judge --endpoint {} --judge-model mock --tasks delivery --out j {line}", server.url());
        let (_, err) = ended(&lab.command(&line).output().unwrap(), 2);
        err
    };
    assert!(refused("--sweep s --items q.jsonl").contains("cannot be used with"));
    let err = refused("");
    assert!(err.contains("--items <ITEMS>") && err.contains("--sweep <DIR>"), "{err}");
    assert!(refused("--sweep nowhere").contains("nowhere/manifest.json"));
    assert!(refused("--sweep q.jsonl").contains("q.jsonl is a file, but must be the directory of a finished"));
    lab.done(&format!("{} --lambda 1,0 --shard 1/2", SWEEP.replace("--out s", "--out part")));
    assert!(refused("--sweep part").contains("shard 1/2, which `temper merge` joins to the others"));
    let rows = lab.read("s/rows.jsonl");
    lab.write("s/rows.jsonl", rows.lines().skip(1).map(|row| format!("{row}\n")).collect::<String>());
    assert!(refused("--sweep s").contains("lacking 1 of its"));
    lab.write("s/rows.jsonl", rows);
    judge(&lab, &server, 0, "--tasks delivery --out j");
    assert!(refused("--sweep j").contains("made by `temper judge`"));
    lab.write_lines("v.jsonl", [json!({"id": "a", "prompt": "x", "variant": "formal"})]);
    lab.done("sweep --model M --items v.jsonl --heads L0H1 --lambda 1,0 --max-new-tokens 2 --out v");
    assert!(refused("--sweep v").contains("the field 'variant' of item 'a' is taken"));
}

/// The sweep of an experiment is judged as any other; items that it answered silently are among its answers.
#[test]
fn the_sweep_of_a_run_is_judged_too() {
    let (lab, server) = (Lab::new(), Server::new(good));
    let item = |i: usize| json!({"id": format!("q{i}"), "prompt": format!("What is {i}?"), "label": if i.is_multiple_of(2) { "x" } else { "y" }});
    lab.write_lines("q.jsonl", (0..ITEMS).map(item));
    let model = headtemper_tests::golden_dir("llama");
    lab.write(
        "x.toml",
        format!(
            "name = \"t\"\n[model]\npath = \"{}\"\n[items]\npath = \"q.jsonl\"\n[generate]\nmax_new_tokens = 6\n[attribute]\n\
             disposition = \"d\"\na = \"x\"\nb = \"y\"\nshuffles = 20\nmin_cohort = 2\n[sweep]\nheads = \"top:2\"\nlambdas = [1, 0]\n",
            model.display()
        ),
    );
    lab.done("run x.toml --out s");
    judge(&lab, &server, 0, "--tasks rubric --axes curious --out j");
    let (own, judged) = (lab.json("s/sweep.json"), lab.json("j/sweep.json"));
    let arm = |of: &Value| of["tables"][0]["arms"][1].clone();
    assert_eq!(arm(&own)["difference"]["mean_tokens"], arm(&judged)["difference"]["mean_tokens"]);
    assert!(arm(&judged)["difference"]["scores"]["curiosity"]["mean"].is_number());
    // Without a sweep there is nothing to compare.
    let experiment = lab.read("x.toml");
    lab.write("x.toml", experiment.split("[sweep]").next().unwrap());
    lab.done("run x.toml --out alone");
    let line = format!("judge --sweep alone --endpoint {} --judge-model mock --out k", server.url());
    let (_, err) = ended(&lab.command(&line).output().unwrap(), 2);
    assert!(err.contains("without the plan.json of a sweep"), "{err}");
}
