//! Whole experiments on the tiny Llama: the files they leave, and what they say.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

mod again;

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use headtemper_tests::golden_dir;

use crate::lab::{HEADS, LAYERS, Lab, array, by_id, counts, lines, prompts, row_set};

/// The files of a run directory.
const RUN_FILES: [&str; 15] = [
    "config.toml",
    "manifest.json",
    "rows.jsonl",
    "judged.jsonl",
    "features.npz",
    "lambda.npz",
    "plan.json",
    "attribution.json",
    "attribution.csv",
    "attribution.npz",
    "sweep.json",
    "sweep.csv",
    "report.html",
    "report.json",
    "report.md",
];

/// Writes an experiment over `count` questions. Every other question accepts a word of the model's answer, if it has one.
/// Returns the answers of the untouched model, and how many are right.
pub(crate) fn write_experiment(lab: &Lab, count: usize, new_tokens: usize) -> (BTreeMap<String, Value>, usize) {
    prompts(lab, count);
    let answers = by_id(&lab.done(&format!("generate --model M --items q.jsonl --max-new-tokens {new_tokens}")));
    let word = |text: &str| text.split_whitespace().find(|word| word.contains(char::is_alphanumeric)).map(String::from);
    let mut right = 0;
    let items: Vec<Value> = lines(&lab.read("q.jsonl"))
        .into_iter()
        .enumerate()
        .map(|(i, mut item)| {
            let word = word(answers[item["id"].as_str().unwrap()]["response"].as_str().unwrap());
            item["gold"] = match word.filter(|_| i.is_multiple_of(2)) {
                Some(word) => json!(["nothing of the kind", word]),
                None => json!("nothing of the kind"),
            };
            right += usize::from(item["gold"].is_array());
            item
        })
        .collect();
    lab.write_lines("q.jsonl", items);
    lab.write("hedges.txt", "# none of them occurs\nperhaps\nI am not sure\n");
    lab.write(
        "x.toml",
        format!(
            "name = \"t\"\n[model]\npath = \"{}\"\n[items]\npath = \"q.jsonl\"\n[generate]\nmax_new_tokens = {new_tokens}\n\
             max_rows = 2\n[judge]\nhedges = \"hedges.txt\"\n[attribute]\ndisposition = \"parity\"\na = \"cw\"\nb = \"cr\"\n\
             shuffles = 20\nmin_cohort = 2\n[sweep]\nheads = \"top:2\"\nlambdas = [1, 1, 0.5]\n",
            golden_dir("llama").display()
        ),
    );
    (answers, right)
}

/// A whole experiment: every file is there, and each says what the previous stage found.
#[test]
fn run_does_a_whole_experiment() {
    let lab = Lab::new();
    let (answers, right) = write_experiment(&lab, 24, 12);
    assert!((2..=22).contains(&right), "{right} right answers make no two cohorts");
    let out = lab.done("run x.toml --out out");
    let mut there: Vec<String> =
        fs::read_dir(lab.path("out")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    let mut expected: Vec<&str> = RUN_FILES.into_iter().chain([".lock"]).collect();
    expected.sort_unstable();
    assert_eq!(there, expected, "all files and no other");

    let judged = by_id(&lab.read("out/judged.jsonl"));
    let questions = by_id(&lab.read("q.jsonl"));
    for (id, item) in &judged {
        assert_eq!(item["response"], answers[id]["response"], "{id}");
        assert_eq!(item["label"], if questions[id]["gold"].is_array() { "cr" } else { "cw" }, "{id}");
    }
    assert_eq!(judged.len(), 24);
    let report = lab.json("out/report.json");
    assert_eq!(report["cohorts"], json!({"cr": right, "cw": 24 - right}));
    let attribution = lab.json("out/attribution.json");
    assert_eq!(report["attribution"], attribution);
    let disposition = &attribution["dispositions"][0];
    assert_eq!((&disposition["n_a"], &disposition["n_b"]), (&json!(24 - right), &json!(right)));
    assert_eq!(report["sweep"], lab.json("out/sweep.json"));
    // Heads that were chosen although nothing was found in them are named.
    let swept = report["sweep"]["tables"][0]["heads"].as_array().unwrap();
    let verdict = |at: &Value| {
        let mut heads = disposition["heads"].as_array().unwrap().iter();
        heads.find(|head| head["layer"] == at["layer"] && head["head"] == at["head"]).unwrap()["verdict"].clone()
    };
    for (verdicts, told) in
        [(&["variance artefact", "no evidence"][..], "found nothing in"), (&["untested"][..], "has no verdict on")]
    {
        let of = swept.iter().filter(|at| verdicts.contains(&verdict(at).as_str().unwrap())).count();
        let told = format!("it {told} {of} of these 2 heads");
        let warned = report["warnings"].as_array().unwrap().iter().any(|it| {
            let it = it.as_str().unwrap();
            it.starts_with("[sweep] heads = \"top:2\": ") && it.contains(&told)
        });
        assert!(warned && out.contains(&told) || of == 0, "{of} of 2: {}", report["warnings"]);
    }
    let arms = report["sweep"]["tables"][0]["arms"].as_array().unwrap();
    assert_eq!(arms[0]["accuracy"], right as f64 / 24.0);
    assert_eq!((&arms[1]["accuracy"], &arms[1]["changed"]), (&arms[0]["accuracy"], &json!(0.0)));
    let variants = row_set(&lab, "out/rows.jsonl").into_iter().fold(BTreeMap::new(), |mut counts, row| {
        *counts.entry(row.1).or_insert(0) += 1;
        counts
    });
    assert_eq!((variants["base"], variants.len(), variants.values().sum::<usize>()), (24, 3, 3 * 24));

    let npz = lab.npz("out/features.npz");
    assert_eq!(array(&npz, "h_layers").dims(), [24, LAYERS, 72]);
    let lengths: Vec<i64> =
        counts(&npz, "total_len").iter().zip(counts(&npz, "prompt_len")).map(|(t, p)| t - p).collect();
    let generated: Vec<i64> = (0..24).map(|i| answers[&format!("q{i}")]["n_tokens"].as_i64().unwrap()).collect();
    assert_eq!(lengths, generated, "the very tokens that were generated");
    assert_eq!(array(&lab.npz("out/lambda.npz"), "lambda").dims(), [3, LAYERS, HEADS]);
    let page = lab.read("out/report.html");
    assert!(page.contains("parity") && !page.contains("://") && !page.contains("src="));
    assert_eq!(lab.read("out/report.md").trim_end(), out.trim_end());
    assert!(lab.read("out/config.toml").contains("min_cohort = 2"));
}

/// A condition takes items as if the others did not stand in the file; the page, the plan and the resolved file say so.
#[test]
fn an_experiment_takes_the_items_that_its_condition_holds_for() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    let spread: Vec<Value> = lines(&lab.read("q.jsonl"))
        .into_iter()
        .enumerate()
        .flat_map(|(i, mut item)| {
            item["kept"] = json!(true);
            let other = json!({"id": format!("other {i}"), "prompt": format!("Another {i}?"), "kept": false});
            [other, item]
        })
        .collect();
    lab.write_lines("kept.jsonl", spread.iter().filter(|item| item["kept"] == true).cloned());
    lab.write_lines("all.jsonl", spread);
    let items = |items: &str| lab.read("x.toml").replace("path = \"q.jsonl\"", items);
    lab.write("kept.toml", items("path = \"kept.jsonl\"\nlimit = 20"));
    lab.write("all.toml", items("path = \"all.jsonl\"\nwhere = \"kept\"\nlimit = 20"));
    lab.write("none.toml", items("path = \"all.jsonl\"\nwhere = \"!(kept || !kept)\""));
    lab.write("typo.toml", items("path = \"all.jsonl\"\nwhere = \"kpet\""));
    lab.done("run kept.toml --out kept");
    lab.done("run all.toml --out all");
    lab.same(&["judged.jsonl", "attribution.json", "sweep.json"], "kept", "all");
    assert_eq!(row_set(&lab, "kept/rows.jsonl"), row_set(&lab, "all/rows.jsonl"));
    lab.done("run all/config.toml --out all");
    assert_eq!(lab.json("all/plan.json")["plan"]["where"], "kept");
    for (dir, told) in [("kept", "20 of kept.jsonl<"), ("all", "20 of all.jsonl, those where kept<")] {
        assert!(lab.read(&format!("{dir}/report.html")).contains(told), "{dir}: {told}");
    }
    // The same items, whatever chose them: the directory is theirs.
    lab.done("run kept.toml --out all");
    let (_, err) = lab.ends(2, "run none.toml --out none");
    assert!(err.contains("holds no item for which !(kept || !kept) holds"), "{err}");
    let (_, err) = lab.ends(2, "run typo.toml --out typo");
    assert!(err.contains("no item has kpet"), "{err}");
}

/// An answer that is only a line break is not attributed, but its item is swept: whether an arm answers it is an outcome.
#[test]
fn items_without_an_answer_are_swept() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 1);
    let ask = |mut item: Value| {
        if item["id"] == "q3" {
            item["prompt"] = json!("bbbbbb 221?"); // as the tiny model answers it
        }
        item
    };
    lab.write_lines("q.jsonl", lines(&lab.read("q.jsonl")).into_iter().map(ask).collect::<Vec<_>>());
    let out = lab.done("run x.toml --out out");
    assert!(out.contains("1 answer says nothing and takes no part in the attribution"), "{out}");
    assert!(!by_id(&lab.read("out/judged.jsonl")).contains_key("q3"));
    let report = lab.json("out/report.json");
    let counted: u64 = report["cohorts"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!((counted, &report["sweep"]["items"]), (23, &json!(24)));
    assert_eq!(row_set(&lab, "out/rows.jsonl").iter().filter(|row| row.0 == "q3").count(), 3);
}

/// A dry run of an experiment counts what is left to do, refuses what the run would refuse, and writes nothing.
#[test]
fn a_dry_run_counts_a_whole_experiment() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    let dry = || lines(&lab.done("run x.toml --out out --dry-run --json")).remove(0);
    let before = dry();
    assert!(!lab.path("out").exists(), "nothing is written");
    assert_eq!((&before["schema"], &before["command"]), (&json!("dry-run/v1"), &json!("run")));
    // Three arms: the untouched model, the control, two heads at 0.5.
    assert_eq!((&before["rows_done"], &before["rows_new"]), (&json!(0), &json!(72)));
    assert_eq!(before["new_tokens"], 72 * 12);
    let text = lab.done("run x.toml --out out --dry-run");
    assert!(
        text.contains("rows       72 to do, 0 done before\ntokens     at most ") && text.contains("memory "),
        "{text}"
    );

    lab.done("run x.toml --out out");
    let prompts: Vec<usize> = lines(&lab.done("generate --model M --items q.jsonl --max-new-tokens 1 --json"))
        .iter()
        .map(|row| row["prompt_tokens"].as_u64().unwrap() as usize)
        .collect();
    // Each prompt is read by every arm, and once more with its answer.
    let read = 4 * prompts.iter().sum::<usize>() + 24 * 12;
    assert_eq!(before["prompt_tokens"], read);
    let after = dry();
    assert_eq!((&after["rows_done"], &after["rows_new"], &after["prompt_tokens"]), (&json!(72), &json!(0), &json!(0)));
    assert!(after["memory"].is_null() && after["seconds"] == 0.0, "{after}");
    // Under other settings the attribution reads the texts again, and with `control = ["random"]` once more with random weights. The
    // heads that it will choose are not known yet, so others are counted in their place.
    let experiment = lab.read("x.toml");
    let texts = prompts.iter().sum::<usize>() + 24 * 12;
    for (other, times) in [("shuffles = 21", 1), ("shuffles = 20\ncontrol = [\"random\"]", 2)] {
        lab.write("x.toml", experiment.replace("shuffles = 20", other));
        let again = dry();
        let tokens = times * texts + prompts.iter().sum::<usize>();
        assert_eq!((&again["rows_new"], &again["prompt_tokens"]), (&json!(24), &json!(tokens)), "{other}");
    }
    // Now the heads that the attribution chose are counted, and a further sweep shares rows with this one.
    lab.write("x.toml", experiment.replace("[1, 1, 0.5]", "[1, 1, 0.5, 0]"));
    let more = dry();
    assert_eq!((&more["rows_done"], &more["rows_new"]), (&json!(72), &json!(24)));
    lab.write("x.toml", experiment.replace("max_new_tokens = 12", "max_new_tokens = 11"));
    let (_, why) = lab.ends(2, "run x.toml --out out --dry-run");
    assert!(why.contains("belongs to another run"), "{why}");
}

/// Every arm answers under every seed of the sweep, none of which need be that of the answers that chose its heads.
#[test]
fn a_run_sweeps_under_seeds_of_its_own() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 6);
    let greedy = lab.read("x.toml");
    let sampled = greedy.replace("[judge]", "[generate.sampling]\ntemperature = 1\nseed = 7\n[judge]");
    lab.write("x.toml", sampled.replace("[1, 1, 0.5]", "[1, 0.5]\nseeds = [1, 2]"));
    let dry = || lines(&lab.done("run x.toml --out out --dry-run --json")).remove(0);
    // Two arms under two seeds, and the answers that are attributed.
    assert_eq!((&dry()["rows_new"], &dry()["rows_done"]), (&json!(24 * 5), &json!(0)));
    lab.done("run x.toml --out out");
    assert_eq!(dry()["rows_new"], 0);
    let rows = lines(&lab.read("out/rows.jsonl"));
    let count = |variant: &str, seed: u64| {
        rows.iter().filter(|row| (row["variant"] == "base") == (variant == "base") && row["seed"] == seed).count()
    };
    assert_eq!([7, 1, 2].map(|seed| [count("base", seed), count("tempered", seed)]), [[24, 0], [24, 24], [24, 24]]);
    let sweep = lab.json("out/sweep.json");
    assert_eq!((&sweep["seeds"], &sweep["items"]), (&json!([1, 2]), &json!(24)));
    // The answers that are attributed tried nothing.
    assert!(sweep["elsewhere"].is_null(), "{sweep}");
    assert!(lab.read("out/report.md").contains("tempered under seeds 1, 2, not that of the answers attributed\n"));
    let judged = by_id(&lab.read("out/judged.jsonl"));
    for row in rows.iter().filter(|row| row["seed"] == 7) {
        assert_eq!(judged[row["id"].as_str().unwrap()]["response"], row["response"], "the attribution's own seed");
    }
    let facts = &lab.json("out/report.json")["facts"];
    assert!(
        facts
            .as_array()
            .unwrap()
            .contains(&json!(["tempered under", "seeds 1, 2, not that of the answers attributed"])),
        "{facts}"
    );
    // Its own seed among them, nothing is answered twice; a further seed is all that is new.
    lab.write("x.toml", sampled.replace("[1, 1, 0.5]", "[1, 0.5]\nseeds = [7, 1, 2]"));
    assert_eq!((&dry()["rows_new"], &dry()["rows_done"]), (&json!(24), &json!(24 * 5)));
    lab.done("run x.toml --out out");
    assert_eq!(lab.json("out/sweep.json")["seeds"], json!([7, 1, 2]));
    let told = "tempered under seeds 7, 1, 2; the answers under 7 are those attributed\n";
    assert!(lab.read("out/report.md").contains(told));
    lab.write("x.toml", sampled.replace("[1, 1, 0.5]", "[1, 0.5]\nseeds = [1]"));
    lab.done("run x.toml --out out");
    assert_eq!(lab.json("out/sweep.json")["elsewhere"], json!(["seed 2", "seed 7"]), "now arms were tried under both");
    lab.write("x.toml", greedy.replace("[1, 1, 0.5]", "[1, 0.5]\nseeds = [1, 2]"));
    let (_, err) = lab.ends(2, "run x.toml --out other");
    assert!(
        err.contains(
            "[sweep] seeds are [1, 2], but must be one at most at temperature 0: greedy answers do not depend on it"
        ),
        "{err}"
    );
}

/// Labels that the judge replaces, and responses that are not the model's answers, are reported: neither happens by chance.
#[test]
fn what_items_bring_and_a_run_does_otherwise_is_told() {
    let lab = Lab::new();
    let (answers, _) = write_experiment(&lab, 24, 12);
    let bring = |(i, mut item): (usize, Value)| {
        let right = item["gold"].is_array();
        let answer = answers[item["id"].as_str().unwrap()]["response"].clone();
        // Four of the eight labels differ from what the judge finds, and three of the six responses from the model's answers.
        if i < 8 {
            item["label"] = if right == (i < 4) { "cw" } else { "cr" }.into();
        }
        if (8..14).contains(&i) {
            item["response"] = if i < 11 { json!(format!("{} {i}", answer.as_str().unwrap())) } else { answer };
        }
        item
    };
    let items = lines(&lab.read("q.jsonl"));
    lab.write_lines("q.jsonl", items.into_iter().enumerate().map(bring));
    let said = lab.done("run x.toml --out out");
    for told in [
        "4 of 8 labels that items with accepted answers bring are replaced by others: [judge] labels these items",
        "3 of 6 responses that items bring are not what the model answers in the sweep: the attribution is of those",
        "were cut off is not known: items say it by a field finish_reason",
    ] {
        assert!(said.contains(told), "{told} is not in:\n{said}");
        assert!(lab.read("out/report.md").contains(told), "{told}");
    }
}

/// A label that no answer can get is refused before anything is generated.
#[test]
fn labels_that_cannot_be_are_refused_at_once() {
    let lab = Lab::new();
    write_experiment(&lab, 8, 4);
    let experiment = lab.read("x.toml");
    lab.write("x.toml", experiment.replace("a = \"cw\"", "a = \"wrong\""));
    let (_, why) = lab.ends(2, "run x.toml --out out");
    assert!(why.contains("[attribute] a is 'wrong', which 0 of 8 items can come to have, where 2 are needed"), "{why}");
    assert!(why.contains("(cr, cw, hr, hw; of items with gold)") && !lab.path("out").exists(), "{why}");
    // Items without accepted answers keep their own labels; two such items are enough to start.
    let own = |i: usize| json!({"id": format!("own{i}"), "prompt": format!("Wer {i}?"), "label": "wrong"});
    let items = lines(&lab.read("q.jsonl"));
    lab.write_lines("q.jsonl", items.iter().cloned().chain((0..2).map(own)));
    lab.done("run x.toml --out out");
}

/// An answer is read as the tokens that were generated, up to the end of the context, even if its text would take more
/// tokens than fit.
#[test]
fn run_reads_the_tokens_that_were_generated() {
    let lab = Lab::new();
    let (answers, _) = write_experiment(&lab, 24, 1000);
    lab.done("run x.toml --out out");
    let npz = lab.npz("out/features.npz");
    let (total, prompt) = (counts(&npz, "total_len"), counts(&npz, "prompt_len"));
    for (i, (total, prompt)) in total.into_iter().zip(prompt).enumerate() {
        assert_eq!(json!(total - prompt), answers[&format!("q{i}")]["n_tokens"], "q{i}");
        assert!(total <= 256, "q{i} has {total} tokens, but the context is 256");
    }
}
