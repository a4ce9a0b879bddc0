//! What needs no model is refused before one is opened, which may take minutes: here there is none to be opened.

use headtemper_study::{Array, Npz};
use serde_json::json;

use super::{Bench, experiment};

/// Refuses every line for its own fault, though its model is not there; the line without a fault is refused for that.
fn early(bench: &Bench, line: &str, cases: &[(&str, &[&str])]) {
    bench.refused(line, &["'./gone'", "neither a directory"]);
    for (more, parts) in cases {
        bench.refused(&format!("{line} {more}"), parts);
    }
}

/// Lists of heads, plans and tables that no model could have.
fn head_files(bench: &Bench) {
    let head = |head: usize| json!({"layer": 0, "head": head, "cohen_d": 0.5});
    bench.write("ranking.json", json!({"dispositions": [{"heads": [head(0), head(1)]}]}).to_string());
    bench.write("lambda.json", r#"{"schema":"heads/v1","heads":[{"layer":0,"head":1,"lambda":0.5}]}"#);
    let mut table = Npz::default();
    table.add("lambda", Array::F32(vec![3, 1, 1], vec![0.5; 3]));
    table.add("id", Array::Text(["a", "b", "x"].map(String::from).into()));
    table.save(&bench.path("ids.npz")).unwrap();
    for (name, shape) in [("flat.npz", vec![2]), ("empty.npz", vec![0, 4, 6]), ("headless.npz", vec![1, 4, 0])] {
        let mut table = Npz::default();
        table.add("lambda", Array::F32(shape.clone(), vec![0.5; shape.iter().product()]));
        table.save(&bench.path(name)).unwrap();
    }
}

#[test]
fn sweeps_and_scores_are_refused_before_the_model() {
    let bench = Bench::new();
    head_files(&bench);
    let heads: [(&str, &[&str]); 6] = [
        ("--heads top:3@nofile.json", &["cannot read nofile.json"]),
        ("--heads top:3@ranking.json", &["ranking.json: it ranks 2 heads, so top:3 does not exist"]),
        (
            "--heads lambda.json",
            &["the head list is L0H1:0.5 in lambda.json", "like L0H1 without λ", "top:5@attribution.json"],
        ),
        ("--heads nofile.json", &["cannot read nofile.json"]),
        ("--heads L0", &["cannot read 'L0'"]),
        ("--heads ids.npz", &["ids.npz", "the arms bring their own"]),
    ];
    let items = "--model ./gone --items q.jsonl --out out";
    early(&bench, &format!("sweep {items} --lambda 0.5 --heads L0H0"), &heads);
    early(
        &bench,
        &format!("sweep {items} --heads L0H0 --lambda 1,0.5"),
        &[
            ("--seeds 0,0 --temperature 1", &["the list of seeds is [0, 0], but must be different numbers"]),
            ("--seeds 0,1", &["the list of seeds", "greedy"]),
            ("--lambda nan", &["'nan'", "must be a number from -1000000 to 1000000"]),
            ("--lambda 0.5", &["lambda 0.5 is listed twice"]),
            ("--random-sets 1001", &["at most 1000"]),
            ("--max-new-tokens 0", &["max_new_tokens is 0"]),
            ("--temperature=-1", &["temperature is -1"]),
            ("--groups topic", &["groups is 'topic', which no item has"]),
            ("--memory much", &["much"]),
        ],
    );
    let score = "score --model ./gone --out out --lambda 0.5";
    early(&bench, &format!("{score} --items c.jsonl"), &heads);
    early(
        &bench,
        &format!("{score} --items c.jsonl"),
        &[
            ("--a a --b z", &["cohort 'z' has 0 items", "labels in the data: a 3, b 3"]),
            ("--lambda 0.5", &["lambda is 0.5 twice"]),
            ("--batch-tokens 0", &["batch_tokens is 0"]),
            ("--groups topic", &["groups", "topic"]),
        ],
    );
    bench.refused(&format!("{score} --items q.jsonl"), &["q.jsonl: item 'a' has no response to score"]);
}

#[test]
fn attributions_are_refused_before_the_model() {
    let bench = Bench::new();
    let attribute = "attribute --model ./gone --items c.jsonl --out out";
    early(
        &bench,
        &format!("{attribute} --a a --b b"),
        &[
            ("--beside nofile.json", &["cannot read nofile.json"]),
            ("--within topic", &["within", "topic"]),
            ("--groups topic", &["groups", "topic"]),
            ("--lambda nan", &["--lambda is NaN"]),
        ],
    );
    bench.refused(&format!("{attribute} --a a --b z"), &["cohort 'z' has 0 items"]);
    let toml = |label: &str| {
        format!(
            "[[disposition]]\nname='d'\na={{name='x',where='label==\"a\"'}}\nb={{name='y',where='label==\"{label}\"'}}\n"
        )
    };
    bench.write("d.toml", toml("b"));
    early(&bench, &format!("{attribute} --dispositions d.toml"), &[("--only z", &["--only is 'z'", "among d"])]);
    bench.write("d.toml", toml("z"));
    let none = "disposition 'd' has no cohorts in these items: cohort 'y' has 0 items";
    bench.refused(&format!("{attribute} --dispositions d.toml"), &[none]);
    let silent = attribute.replace("c.jsonl", "silent.jsonl");
    let item = |id: &str, label: &str| json!({"id": id, "prompt": id, "label": label}).to_string() + "\n";
    bench.write(
        "silent.jsonl",
        ["a", "b"].map(|label| item(&format!("{label}1"), label) + &item(&format!("{label}2"), label)).concat(),
    );
    bench.refused(&format!("{silent} --a a --b b"), &["silent.jsonl: item 'a1' has no response"]);
}

#[test]
fn captures_answers_and_exports_are_refused_before_the_model() {
    let bench = Bench::new();
    head_files(&bench);
    let plans: [(&str, &[&str]); 10] = [
        ("--plan L0H1", &["head L0H1 has no lambda"]),
        ("--plan L0H1 --lambda nan", &["'nan'", "must be a number from"]),
        ("--plan L0H1:0.5 --lambda 0.5", &["--lambda is 0.5", "left out"]),
        ("--plan top:3@nofile.json --lambda 0.5", &["cannot read nofile.json"]),
        ("--plan nofile.npz", &["cannot read nofile.npz"]),
        ("--plan ids.npz#x", &["ids.npz: has no array 'variant'"]),
        ("--plan flat.npz", &["flat.npz: array 'lambda' is [2], but must be [row, layer, head]"]),
        ("--plan empty.npz", &["empty.npz: array 'lambda' is [0, 4, 6]", "none of them 0"]),
        ("--plan headless.npz", &["headless.npz: array 'lambda' is [1, 4, 0]"]),
        ("--plan all --lambda 1e9", &["'1e9'"]),
    ];
    let (capture, generate) =
        ("capture --model ./gone --items q.jsonl --out o.npz", "generate --model ./gone --items q.jsonl");
    for line in [capture, generate, "bench --model ./gone"] {
        early(&bench, line, &plans);
    }
    for line in [capture, generate] {
        bench.refused(&format!("{line} --plan ids.npz"), &["ids.npz: row 2 is of item 'x', but the item there is 'c'"]);
    }
    early(
        &bench,
        capture,
        &[
            ("--last-n 0", &["last_n is 0"]),
            ("--mean-layers 0", &["mean_layers is 0"]),
            ("--part-items 0", &["--part-items is 0"]),
            ("--layers foo", &["the list of layers is foo", "or layers such as 0,4,8..12, last, last:2"]),
            ("--layers last:x", &["the list of layers is last:x"]),
            ("--layers=", &["the list of layers is empty"]),
            ("--generate --max-new-tokens 0", &["max_new_tokens is 0"]),
            ("--generate --top-p 0", &["top_p is 0"]),
            ("--shard 4/4", &["items"]),
        ],
    );
    early(&bench, generate, &[("--max-new-tokens 0", &["max_new_tokens is 0"]), ("--min-p 2", &["min_p is 2"])]);
    bench.refused("generate --model ./gone --items nofile.jsonl", &["cannot read nofile.jsonl"]);
    early(
        &bench,
        "bench --model ./gone --rows 2",
        &[("--repeat 0", &["--repeat and --rows"]), ("--plans 0,3", &["--plans 3 is more than the 2 rows"])],
    );
    for (plan, parts) in &plans {
        bench.refused(&format!("export --model ./gone --out out {plan}"), parts);
    }
}

#[test]
fn experiments_are_refused_before_the_model() {
    let bench = Bench::new();
    bench.write("empty.txt", "# no phrase\n");
    bench.write("x.toml", experiment());
    let run = "run x.toml --out out --model ./gone";
    bench.refused(run, &["'./gone'", "neither a directory"]);
    for (from, to, parts) in [
        ("b = \"b\"", "b = \"z\"", &["cohort 'z' has 0 items"][..]),
        ("b = \"b\"", "b = \"b\", within = \"topic\"", &["within", "topic"]),
        ("c.jsonl", "nofile.jsonl", &["nofile.jsonl"]),
        ("top:2", "top:3@nofile.json", &["nofile.json"]),
        ("top:2", "top:0", &["[sweep] heads", "top:0"]),
        ("[1, 0.5]", "[1, 0.5, 0.5]", &["lambda 0.5 is listed twice"]),
        ("[1, 0.5]", "[1], random_sets = 2", &["random head sets is 2"]),
        ("sweep =", "judge = { hedges = \"empty.txt\" }\nsweep =", &["empty.txt", "holds no phrase"]),
    ] {
        bench.write("x.toml", experiment().replacen(from, to, 1));
        bench.refused(run, parts);
    }
}
