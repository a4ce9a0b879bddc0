//! Holds docs/files.md against what is written: every written field, column and array has a row there, and no row is about anything
//! else.

use std::{collections::BTreeSet, path::Path};

use headtemper_engine::{FinishReason, Identity};
use headtemper_hook::HeadRef;
use serde_json::{Value, json};

use crate::{
    Answered, ArmsWanted, Cohort, Grader, Item, JudgedAnswers, Mark, Npz, Parts, Plan, Role, Row, RunDir, Shard,
    Silent, arms,
    attribution::text::heads_csv,
    outcome::Outcomes,
    outcomes_of,
    report::fixture::disposition,
    score::{Nulls, ScoreRow, Scores, map, plan::Beside},
    store::rows::line_of,
    sweep::{csv::sweep_csv, files::write_lambda},
};

const DOCS: &str = include_str!("../../../docs/files.md");

/// The names in the first cells of the table below a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let mut lines =
        DOCS.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading || !line.starts_with('#'));
    assert!(lines.next().is_some(), "docs/files.md has no heading '{heading}'");
    let rows = lines.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| `"));
    let mut names = BTreeSet::new();
    for row in rows {
        let cell = row.split('|').nth(1).unwrap_or_default();
        for name in cell.split('`').skip(1).step_by(2) {
            assert!(names.insert(name.to_string()), "{heading}: {name} stands there twice");
        }
    }
    names
}

fn check<'a>(heading: &str, written: impl IntoIterator<Item = &'a str>) {
    let written: BTreeSet<String> = written.into_iter().map(String::from).collect();
    assert_eq!(documented(heading), written, "docs/files.md (left) and what is written (right), {heading}");
}

fn check_object(heading: &str, value: &Value) {
    let fields = value.as_object().unwrap_or_else(|| panic!("{heading}: {value} is no object"));
    check(heading, fields.keys().map(String::as_str));
}

fn check_csv(heading: &str, text: &str) {
    check(heading, text.lines().next().unwrap().split(','));
}

fn check_npz(heading: &str, path: &Path) {
    check(heading, Npz::read(path).unwrap().names());
}

/// A directory of a shard, so that its manifest has everything that one can have.
fn run_dir(dir: &Path) -> RunDir {
    RunDir::open(dir, "sweep", &Parts::default(), Some("1/2".parse::<Shard>().unwrap()), &mut Silent).unwrap()
}

fn row(variant: &str, item: usize, seed: u64, right: bool) -> Row {
    Row {
        key: format!("{variant}-{item}-{seed}"),
        id: format!("q{item}"),
        variant: variant.into(),
        seed,
        prompt: "?".into(),
        response: if right { "yes" } else { "no, perhaps" }.into(),
        finish_reason: FinishReason::Stop,
        n_tokens: 5 + item % 3,
        sum_logprob: -2.0,
        response_ids: vec![u32::from(right)],
        touched: false,
        fired: Some(9),
    }
}

/// A sweep over one head, with a control, random sets, groups and two seeds.
fn outcomes() -> Outcomes {
    let item =
        |i: usize| json!({"id": format!("q{i}"), "prompt": format!("which is {i}?"), "gold": "yes", "topic": i / 2});
    let items: Vec<Item> = (0..40).map(|i| Item::parse(&item(i).to_string(), i + 1, false).unwrap()).collect();
    let slots: Vec<HeadRef> = (0..9).map(|head| HeadRef::query(0, head)).collect();
    let sets = [vec![HeadRef::query(0, 0)]];
    let wanted = ArmsWanted { sets: &sets, lambdas: &[1.0, 1.0, 0.5], random_sets: 3, ..ArmsWanted::default() };
    let arms = arms(&wanted, &slots).unwrap();
    let answers = |arm: &crate::Arm| {
        let cells = (0..2).flat_map(|seed| (0..40).map(move |item| (seed, item)));
        let right = |item: usize| item >= 10 && (arm.role != Role::Tempered || item >= 22);
        cells.map(|(seed, item)| row(&arm.variant, item, seed, right(item))).collect()
    };
    let rows: Vec<Vec<Row>> = arms.iter().map(answers).collect();
    let grader = Grader::new(["perhaps"].into_iter());
    let mark = |row: &Row| Mark {
        right: Some(row.response == "yes"),
        asserted: Some(true),
        levels: vec![Some(4.0)],
        ..Mark::default()
    };
    let judge = JudgedAnswers {
        judge: "wise".into(),
        tasks: vec!["rubric".into()],
        axes: vec!["curious".into()],
        marks: rows.iter().map(|rows| rows.iter().map(mark).collect()).collect(),
        warnings: vec!["w".into()],
    };
    let judged = Answered {
        items: &items,
        groups: Some("topic"),
        arms: &arms,
        rows: &rows,
        grader: Some(&grader),
        judged: Some(&judge),
        max_new_tokens: 9,
        temperature: 0.8,
        prompts_open_thought: false,
    };
    let mut outcomes = Outcomes { elsewhere: vec!["L0H1@0.5".into()], ..outcomes_of(&judged) };
    let last = outcomes.tables[0].arms.last_mut().unwrap();
    last.unequally_judged.push("accuracy".into());
    outcomes.random.iter_mut().for_each(|arm| arm.unequally_judged.push("accuracy".into()));
    outcomes
}

#[test]
fn fields_of_a_sweep() {
    check_object("rows.jsonl", &line_of(&row("base", 0, 0, true)));
    let outcomes = outcomes();
    let value = json!(outcomes);
    check_object("sweep.json", &value);
    check_object("sweep.json: flips", &value["flips"]);
    check_object("sweep.json: seed_floor", &value["seed_floor"]);
    check_object("sweep.json: tables", &value["tables"][0]);
    check_object("sweep.json: bands", &value["tables"][0]["bands"][0]);
    let arm = value["tables"][0]["arms"].as_array().unwrap().last().unwrap();
    assert_eq!(arm["role"], "tempered");
    check_object("sweep.json: arms", arm);
    check_object("sweep.json: arms", &value["random"][0]);
    check_object("sweep.json: per outcome", &arm["difference"]);
    check_object("sweep.json: difference", &arm["difference"]["accuracy"]);
    check_object("sweep.json: random", &arm["difference"]["accuracy"]["random"]);
    check_csv("sweep.csv", &sweep_csv(&outcomes));
}

#[test]
fn fields_of_a_map() {
    let heads = [HeadRef::query(0, 0), HeadRef::value(1, 0)];
    let (n, cells) = (8, 4);
    let values = |scale: f64| (0..cells * n).map(|i| scale * ((i * 7919) % 101) as f64).collect::<Vec<f64>>();
    let scores = Scores {
        heads: heads.to_vec(),
        lambdas: vec![0.0, 0.5],
        ids: (0..n).map(|i| i.to_string()).collect(),
        labels: vec!["x".into(); n],
        tokens: vec![10; n],
        base: vec![-20.0; n],
        scored: vec![[0, 0], [0, 1], [1, 0], [1, 1]],
        delta: values(-0.1),
        kl: values(0.1),
        agree: vec![9; cells * n],
    };
    let cohort =
        |name: &str, rest: usize| Cohort { name: name.into(), rows: (0..n).filter(|i| i % 2 == rest).collect() };
    let (units, cohorts) = ((0..n).map(|i| vec![i]).collect::<Vec<_>>(), [cohort("x", 0), cohort("y", 1)]);
    let nulls = Nulls { shuffles: 20, seed: 0 };
    let field = |i: usize| [("topic".to_string(), ["p", "q"][i % 2].to_string())].into();
    let beside = Beside {
        prompt_tokens: vec![3; n],
        truncated: vec![Some(false); n],
        responses: (0..n).map(Some).collect(),
        fields: (0..n).map(field).collect(),
    };
    let mut map = map(&scores, (&units, Some("topic")), "m", vec![1, 1], Some((&cohorts, Some(&beside))), nulls);
    map.earlier = 1;
    let value = json!(map);
    check_object("score.json", &value);
    check_object("score.json: cells", &value["cells"][0]);
    check_object("score.json: flips", &value["flips"]);
    check_object("score.json: contrast", &value["contrast"]);
    check_object("score.json: contrast confounds", &value["contrast"]["confounds"]);
    check_object("score.json: contrast cells", &value["contrast"]["cells"][0]);
    let row = json!({"key": "k", "id": "a", "head": "L0H0", "lambda": 0.5, "tokens": 1, "base_logprob": 0.0, "sum_logprob": 0.0,
        "kl": 0.0, "agree": 1, "fired": 1});
    // `ScoreRow` refuses unknown fields and requires all of its own, so these are all there are.
    let row: ScoreRow = serde_json::from_value(row).unwrap();
    check_object("scores.jsonl", &line_of(&row));
    let dir = tempfile::tempdir().unwrap();
    scores.save(&run_dir(dir.path()), "{}", map.contrast.as_ref()).unwrap();
    check_npz("scores.npz", &dir.path().join("scores.npz"));
    check_csv("scores.csv", &std::fs::read_to_string(dir.path().join("scores.csv")).unwrap());
}

fn identity() -> Identity {
    Identity {
        model: "m".into(),
        architecture: "llama".into(),
        revision: Some("r".into()),
        random: Some(1),
        weights_sha256: "w".into(),
        settings_sha256: Some("s".into()),
        template_sha256: Some("t".into()),
        thinking: Some(true),
        dtype: "f32".into(),
        products: Some("bf16".into()),
        device: "cpu".into(),
        version: "v".into(),
    }
}

#[test]
fn arrays_of_plans_and_attributions() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = ArmsWanted { sets: &[vec![HeadRef::query(0, 0)]], lambdas: &[0.5], ..ArmsWanted::default() };
    let arms = arms(&wanted, &[HeadRef::query(0, 0)]).unwrap();
    write_lambda(&run_dir(dir.path()), &arms, &[1], &identity()).unwrap();
    check_npz("lambda.npz", &dir.path().join("lambda.npz"));
    // The arrays of a disposition are the columns of its table; then its heads under other names, and those of the reading.
    let table = heads_csv(&disposition(&[2]));
    let columns = table.lines().next().unwrap().split(',').skip_while(|name| *name != "verdict");
    let others =
        ["name", "slot_layer", "slot_head", "slot_name", "head_norm", "head_norm_final", "id", "label", "meta"];
    check("attribution.npz", columns.chain(others));
}

#[test]
fn fields_of_a_directory() {
    let identity = identity();
    check_object("identity", &json!(identity));
    let dir = tempfile::tempdir().unwrap();
    let mut run = run_dir(dir.path());
    run.note("identity", &identity).unwrap();
    run.note(crate::probe::PROBE_SHA256, "p").unwrap();
    let read = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(dir.path().join(name)).unwrap()).unwrap()
    };
    check_object("manifest.json", &read("manifest.json"));
    Plan::new(vec!["k".into()], json!({})).save(&run).unwrap();
    check_object("plan.json", &read("plan.json"));
}

#[test]
fn what_files_hold_is_linked() {
    assert!(include_str!("../../../README.md").contains("(docs/files.md)"));
    // Links within the page lead to headings, as GitHub names them.
    let anchor = |heading: &str| -> String {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    let headings: BTreeSet<String> = DOCS
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect();
    for link in DOCS.split("](#").skip(1) {
        let link = link.split(')').next().unwrap_or_default();
        assert!(headings.contains(link), "docs/files.md links to #{link}, which is no heading");
    }
}
