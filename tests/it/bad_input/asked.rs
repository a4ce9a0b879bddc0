//! Bad requests: plans, heads, λ, numbers and experiments that mean nothing or name what is not there.

use std::fs;

use candle_core::{Device, Tensor};
use headtemper_tests::temper;

use super::{Bench, assert_refused, experiment};

/// Plans that name what the model lacks, whose λ is not a number, or that are empty.
#[test]
fn plans_that_mean_nothing() {
    let bench = Bench::new();
    bench.write("key.json", r#"{"schema":"heads/v1","heads":[{"layer":0,"head":1,"lamda":0.5}]}"#);
    bench.write("more.json", r#"{"schema":"heads/v1","heads":[{"layer":0,"head":1,"lambda":0.5}],"note":"x"}"#);
    bench.write("schema.json", r#"{"schema":"heads/v2","heads":[{"layer":0,"head":1,"lambda":0.5}]}"#);
    bench.write("none.json", r#"{"schema":"heads/v1","heads":[]}"#);
    bench.write("unnamed.json", r#"{"heads":[{"layer":0,"head":1,"lambda":0.5}]}"#);
    bench.write("text.json", r#"{"schema":"heads/v1","heads":[{"layer":"0","head":1,"lambda":0.5}]}"#);
    let cases: [(&str, &[&str]); 20] = [
        ("L9H0:0.5", &["layer 9 of head L9H0 does not exist", "layers are 0 to 3", "temper inspect"]),
        ("L2H6:0.5", &["head L2H6 does not exist", "layer 2 has L2H0 to L2H5"]),
        ("L0H1:nan", &["lambda NaN of head L0H1 is not a number from -1000000 to 1000000"]),
        ("L0H1:inf", &["lambda inf of head L0H1 is not a number from -1000000 to 1000000"]),
        ("L0H1:-1e20", &["lambda -100000000000000000000 of head L0H1 is not", "to 1000000", "norms square"]),
        ("L0H1:1e6,L9H0:1", &["layer 9 of head L9H0"]), // the largest λ is allowed
        ("heads/mine.txt", &["the file of a head list is heads/mine.txt", ".json", ".npz"]),
        ("[[0/1]]", &["cannot read '[[0/1]]'", "pairs"]),
        ("L0H1:0.5,L0H1:0.9", &["head L0H1 is listed twice"]),
        ("L0H1", &["head L0H1 has no lambda", "--lambda"]),
        ("L0H1:half", &["cannot read 'L0H1:half'", "L7H6:0.5"]),
        ("L0", &["cannot read 'L0' as a head such as L7H6", "heads/v1"]),
        ("[]", &["the plan names no head", "leave the plan out"]),
        ("none.json", &["the plan names no head"]),
        ("key.json", &["unknown field `lamda`", "`lambda`"]),
        ("more.json", &["unknown field `note`"]),
        ("schema.json", &["'heads/v2'", "the schema name heads/v1"]),
        ("unnamed.json", &["as a heads/v1 document (missing field `schema`"]),
        ("text.json", &["a heads/v1 document (found the text \"0\", but must be a whole number from 0 on"]),
        ("gone.json", &["cannot read gone.json", "No such file"]),
    ];
    for (plan, parts) in cases {
        bench.refused(&format!("generate --model M hi --plan {plan}"), parts);
        bench.refused(&format!("capture --model M --items q.jsonl --out out.npz --plan {plan}"), parts);
    }
    bench.refused(
        "generate --model M hi --plan L0H1 --lambda nan",
        &["'nan' for '--lambda <LAMBDA>': must be a number from"],
    );
    bench.refused("generate --model M hi --lambda 0.5", &["--plan <PLAN>"]);
}

/// The head sets and λ of a sweep are checked before its directory is made.
#[test]
fn sweeps_over_what_is_not_there() {
    let bench = Bench::new();
    bench.write("ranking.json", "{\"schema\":\"attribution/v1\"}");
    bench.write("list.json", "{\"0\":[1]}");
    let sweep = "sweep --model M --items q.jsonl --out out";
    for (rest, parts) in [
        ("--heads L9H0 --lambda 0.5", &["layer 9", "layers are 0 to 3"][..]),
        ("--heads L0H0,L0H6 --lambda 0.5", &["head L0H6 does not exist", "L0H0 to L0H5"]),
        ("--heads L0H0,L0H0 --lambda 0.5", &["head L0H0 is listed twice"]),
        ("--heads [] --lambda 0.5", &["names no head"]),
        (
            "--heads L0H0 --lambda 1,nan",
            &["'nan' for '--lambda <LAMBDA,...>': must be a number from -1000000 to 1000000"],
        ),
        (
            "--heads L0H0 --lambda inf",
            &["'inf' for '--lambda <LAMBDA,...>': must be a number from -1000000 to 1000000"],
        ),
        (
            "--heads L0H0 --lambda 1,1e7",
            &["'1e7' for '--lambda <LAMBDA,...>': must be a number from -1000000 to 1000000"],
        ),
        ("--heads L0H0 --lambda half", &["'half'", "--lambda"]),
        ("--heads L0H0", &["--lambda"]),
        ("--heads top:5@gone.json --lambda 0.5", &["cannot read gone.json"]),
        ("--heads top:5@ranking.json --lambda 0.5", &["ranking.json", "missing field"]),
        (
            "--heads top:1@list.json --lambda 0.5",
            &["list.json: is a list of heads, which ranks none, but top:1@ takes the ranking of an attribution.json"],
        ),
        ("--heads top:five@ranking.json --lambda 0.5", &["top:five@ranking.json", "top:5@attribution.json"]),
        ("--heads top:5 --lambda 0.5", &["top:5@attribution.json"]),
        (
            "--heads top:5:width@ranking.json --lambda 0.5",
            &["top:5:width@ranking.json", "top:5:direction@attribution.json"],
        ),
        ("--heads L0H0 --lambda 1,0.5,0.5", &["lambda 0.5 is listed twice", "1 twice is the control"]),
        ("--heads L0H0,L1H1 --heads L1H1,L0H0 --lambda 0.5", &["head set L0H0+L1H1 is listed twice", "listed once"]),
        ("--heads L0H0 --lambda 0.5 --random-sets 24", &["random head sets is 24", "at most 23"]),
        ("--heads all --each --lambda 0.5 --random-sets 1", &["random head sets is 1", "at most 0"]),
        ("--heads L0H0 --lambda 1,1 --random-sets 2", &["random head sets is 2", "every lambda is 1"]),
        ("--heads L0H0,L1H1 --lambda 0.5 --random-sets 5000", &["random head sets is 5000", "at most 1000"]),
        ("--heads L0H0 --lambda 0.5 --random-sets -1", &["-1"]),
        ("--heads L0H0 --lambda 0.5 --random-seed 3", &["--random-sets"]),
        ("--heads L0H0 --lambda 0.5 --seeds 3,3 --temperature 1", &["list of seeds", "different numbers"]),
    ] {
        bench.refused(&format!("{sweep} {rest}"), parts);
    }
}

/// A λ table must fit the model's heads, and the items row by row.
#[test]
fn lambda_tables_that_fit_nothing() {
    let bench = Bench::new();
    let table = |name: &str, array: &str, shape: (usize, usize, usize), set: &[(usize, f32)]| {
        let mut lambda = vec![1f32; shape.0 * shape.1 * shape.2];
        for &(at, value) in set {
            lambda[at] = value;
        }
        let tensor = Tensor::from_vec(lambda, shape, &Device::Cpu).unwrap();
        Tensor::write_npz(&[(array, tensor)], bench.path(name)).unwrap();
    };
    table("heads.npz", "lambda", (1, 4, 7), &[(6, 0.5)]);
    table("layers.npz", "lambda", (1, 5, 6), &[(24, 0.0)]);
    table("small.npz", "lambda", (3, 1, 2), &[(1, 0.5)]);
    table("none.npz", "lambda", (0, 4, 6), &[]);
    table("two.npz", "lambda", (2, 4, 6), &[(1, 0.5), (25, 0.5)]);
    table("ones.npz", "lambda", (1, 4, 6), &[]);
    table("nan.npz", "lambda", (1, 4, 6), &[(1, f32::NAN)]);
    table("other.npz", "lambdas", (1, 4, 6), &[(1, 0.5)]);
    bench.write("text.npz", "not a zip file");
    let flat = Tensor::new(&[0.5f32, 1.0], &Device::Cpu).unwrap();
    Tensor::write_npz(&[("lambda", flat)], bench.path("flat.npz")).unwrap();
    for (name, parts) in [
        ("heads.npz", &["'lambda' is [1, 4, 7], but must be [row, 4, 6] for this model"][..]),
        ("layers.npz", &["'lambda' is [1, 5, 6], but must be [row, 4, 6]"]),
        ("small.npz", &["'lambda' is [3, 1, 2], but must be [row, 4, 6]"]),
        ("none.npz", &["'lambda' is [0, 4, 6], but must be [row, layer, head], none of them 0"]),
        ("two.npz", &["2", "must ", "1", "as many as there are items"]),
        ("ones.npz", &["the plan names no head"]),
        ("nan.npz", &["nan.npz: row 0: lambda NaN of head L0H1"]),
        ("other.npz", &["other.npz", "lambda"]),
        ("text.npz", &["text.npz"]),
        ("flat.npz", &["'lambda' is [2], but must be [row, layer, head]"]),
        ("gone.npz", &["cannot read gone.npz"]),
    ] {
        bench.refused(&format!("generate --model M --items q.jsonl --plan {name}"), parts);
        bench.refused(&format!("capture --model M --items q.jsonl --out out.npz --plan {name}"), parts);
    }
    table("some.npz", "lambda", (3, 4, 6), &[(1, 0.5)]);
    let output = bench.run_in(temper(), "generate --model M --items q.jsonl --max-new-tokens 1 --plan some.npz");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("warning: 2 of 3 rows temper no head"), "{said}");
    // The arms of a sweep are not rows of items, however many there are; one of them can be a plan for all items.
    bench.done("sweep --model M --items q.jsonl --heads L1H2 --lambda 1,0.5,0 --max-new-tokens 1 --out s");
    let generate = "generate --model M --items q.jsonl --max-new-tokens 1 --plan s/lambda.npz";
    bench.refused(generate, &["s/lambda.npz: holds the arms of a sweep", "s/lambda.npz#base, s/lambda.npz#L1H2@0.5"]);
    bench.refused(&format!("{generate}#L1H2@0.7"), &["has no variant 'L1H2@0.7', but s/lambda.npz#base"]);
    bench.refused("generate --model M --items q.jsonl --plan two.npz#x", &["two.npz: has no array 'variant'"]);
    bench.refused(&format!("{generate}#base"), &["the plan names no head"]);
    let answers = bench.done(&format!("{generate}#L1H2@0"));
    assert_eq!(answers.lines().filter(|line| line.contains("\"plan\":\"L1H2:0\"")).count(), 3, "{answers}");
    // A variant that touches only some tokens makes a plan that does the same.
    bench.done(
        "sweep --model M --items q.jsonl --heads L1H2 --lambda 0 --positions response --max-new-tokens 3 --out p",
    );
    let mut program = temper();
    program.args(["generate", "--plan", "p/lambda.npz#L1H2@0 at response"]);
    let output = bench.run_in(program, "--model M --items q.jsonl --max-new-tokens 3");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("\"plan\":\"L1H2:0 at response\""), "{output:?}");
}

/// Experiment files with unknown, missing or impossible keys.
#[test]
fn experiments_that_cannot_be_read() {
    let bench = Bench::new();
    bench.write("empty.txt", "# no phrase\n");
    for (from, to, parts) in [
        ("name = \"t\"", "name = \"t\"\nseeed = 1", &["x.toml", "unknown field `seeed`"][..]),
        ("a = \"a\"", "a = \"a\", lastn = 3", &["x.toml", "unknown field `lastn`", "`last_n`"]),
        ("b = \"b\", ", "", &["x.toml", "missing field `b`"]),
        ("name = \"t\"", "", &["missing field `name`"]),
        ("name = \"t\"", "name = \"../t\"", &["name '../t'", "letters"]),
        ("name = \"t\"", "name = t", &["x.toml"]),
        ("name = \"t\"", "name = 3", &["x.toml", "line 1", "found 3, but must be a text"]),
        (
            "max_new_tokens = 4",
            "max_new_tokens = \"4\"",
            &["found the text \"4\", but must be a whole number from 0 on"],
        ),
        ("max_new_tokens = 4", "max_new_tokens = -4", &["found -4, but must be a whole number from 0 on"]),
        ("max_new_tokens = 4", "sampling = 1", &["found 1, but must be a table"]),
        ("[1, 0.5]", "0.5", &["found 0.5, but must be a list"]),
        ("[1, 0.5]", "[\"1\"]", &["found the text \"1\", but must be a number"]),
        ("[1, 0.5]", "[1], each = 1", &["found 1, but must be true or false"]),
        ("top:2", "L0H0\", random_from = 3, positions = \"all", &["must be a text"]),
        ("[1, 0.5]", "[]", &["[sweep] lambdas must list at least one"]),
        ("[1, 0.5]", "[1, nan]", &["[sweep] lambda NaN is not a number from -1000000 to 1000000"]),
        ("[1, 0.5]", "[1, inf]", &["[sweep] lambda inf is not a number from -1000000 to 1000000"]),
        ("top:2", "L9H0", &["layer 9", "layers are 0 to 3"]),
        ("max_new_tokens = 4", "max_new_tokens = 0", &["[generate] max_new_tokens must be at least 1"]),
        (
            "max_new_tokens = 4",
            "sampling = { temperature = -1 }",
            &["[generate] temperature is -1", "0 (greedy) or above"],
        ),
        ("max_new_tokens = 4", "sampling = { temperatur = 1 }", &["unknown field `temperatur`"]),
        ("model = { path", "model = { id = \"a/b\", path", &["[model] needs one of path and id"]),
        (" }\nitems", ", dtype = \"f64\" }\nitems", &["[model] dtype is 'f64'", "auto, f32, bf16, f16, stored, q8_0"]),
        (" }\nitems", ", products = \"f64\" }\nitems", &["[model] products is 'f64'", "f32 or bf16"]),
        (" }\nitems", ", device = \"tpu\" }\nitems", &["device 'tpu'", "cpu"]),
        ("c.jsonl", "gone.jsonl", &["cannot read ", "gone.jsonl"]),
        ("sweep =", "judge = { hedges = \"gone.txt\" }\nsweep =", &["cannot read ", "gone.txt"]),
        ("sweep =", "judge = { hedges = \"empty.txt\" }\nsweep =", &["empty.txt", "holds no phrase"]),
    ] {
        let text = experiment();
        assert!(text.contains(from), "{from}");
        bench.write("x.toml", text.replacen(from, to, 1));
        bench.refused("run x.toml --out out", parts);
    }
    bench.refused("run gone.toml --out out", &["cannot read gone.toml"]);
    bench.write("x.toml", experiment());
    bench.refused("run x.toml --out out --model ./gone", &["'./gone'", "neither a directory"]);
    bench.refused("run x.toml --out out --revision main", &["revision is main", "left out for a local path"]);
}

/// Settings of an experiment's later stages are checked before the first stage: no hour of answers before a refusal.
#[test]
fn experiments_whose_last_stage_cannot_be() {
    let bench = Bench::new();
    for (from, to, parts) in [
        ("top:2", "top:0", &["[sweep] heads", "top:0"][..]),
        ("top:2", "top:99", &["[sweep] heads", "top:99", "24 heads"]),
        ("top:2", "top:two", &["[sweep] heads", "top:two", "top:k"]),
        ("top:2", "top:2:width", &["[sweep] heads", "'width' must be magnitude or direction", "top:k:direction"]),
        ("[1, 0.5]", "[1, 0.5, 0.5]", &["0.5 is listed twice"]),
        ("[1, 0.5]", "[1, 0.5], random_sets = 300", &["random head sets is 300", "at most 231"]),
        ("b = \"b\"", "b = \"a\"", &["'a'", "two different labels"]),
        ("b = \"b\"", "b = \"b\", last_n = 0", &["last_n", "at least 1"]),
        ("b = \"b\"", "b = \"z\"", &["cohort 'z' has 0 items", "a 3, b 3"]),
        ("c.jsonl", "q.jsonl", &["cohort 'a' has 0 items", "unlabelled 3"]),
    ] {
        bench.write("x.toml", experiment().replacen(from, to, 1));
        bench.refused("run x.toml --out out", parts);
    }
    bench.write("x.toml", experiment());
    bench.refused("run x.toml --out out --limit 0", &["limit", "at least 1"]);
    bench.done("run x.toml --out out --json");
}

/// Cohorts need labels that items carry, and attribution needs answers.
#[test]
fn cohorts_that_are_not_there() {
    let bench = Bench::new();
    let attribute = "attribute --model M --out out --items";
    let counts = ["cohort 'z' has 0 items, but 2 are needed", "labels in the data: a 3, b 3"];
    bench.refused(&format!("{attribute} c.jsonl --a a --b z"), &counts);
    bench.refused(&format!("{attribute} c.jsonl --a z --b a"), &counts);
    bench.refused(&format!("{attribute} c.jsonl --a a --b b --limit 3"), &["cohort 'b' has 1 item, but 2 are needed"]);
    bench.refused(&format!("{attribute} c.jsonl --a a --b a"), &["cohort b is 'a' like cohort a", "another label"]);
    bench.refused(&format!("{attribute} q.jsonl --a a --b b"), &["labels in the data: unlabelled 3"]);
    let text = fs::read_to_string(bench.path("c.jsonl")).unwrap();
    bench.write("silent.jsonl", text.replacen("\"response\":\"no 3\",", "", 1));
    bench.refused(&format!("{attribute} silent.jsonl --a a --b b"), &["silent.jsonl", "item '3' has no response"]);
}

/// A number of threads that is not a number: rayon would treat it as unset.
#[test]
fn a_variable_that_is_no_number_of_threads() {
    let threads =
        |value: &str| temper().arg("completions").arg("bash").env("RAYON_NUM_THREADS", value).output().unwrap();
    assert_refused("RAYON_NUM_THREADS=two", &threads("two"), &["RAYON_NUM_THREADS is 'two'", "a whole number"]);
    assert_refused("RAYON_NUM_THREADS=-1", &threads("-1"), &["RAYON_NUM_THREADS is '-1'"]);
    for value in ["", "0", "1"] {
        assert!(threads(value).status.success(), "{value}");
    }
}

/// Numbers out of range or in the wrong form.
#[test]
fn numbers_that_mean_nothing() {
    let bench = Bench::new();
    let capture = "capture --model M --items q.jsonl --out out.npz";
    for layers in ["9", "0,4", "2..4"] {
        let parts = ["the list of layers is", "layers from 0 to 3"];
        bench.refused(&format!("{capture} --layers={layers}"), &parts);
    }
    for layers in ["-1", "x"] {
        bench.refused(&format!("{capture} --layers={layers}"), &["the list of layers is", "or layers such as 0,4"]);
    }
    bench.refused(&format!("{capture} --last-n 0"), &["last_n is 0", "at least 1"]);
    bench.refused(&format!("{capture} --limit 0"), &["--limit is 0", "at least 1"]);
    bench.refused(&format!("{capture} --threads 0"), &["--threads is 0", "must be 1 to "]);
    bench.refused(&format!("{capture} --threads 1000000"), &["--threads is 1000000, but must be 1 to "]);
    bench.refused(&format!("{capture} --heads some"), &["'some'", "none, norm, vector"]);
    bench.refused("generate --model M hi --max-new-tokens 0", &["max_new_tokens is 0", "at least 1"]);
    bench.refused("generate --model M hi --max-new-tokens many", &["'many'", "--max-new-tokens"]);
    for (option, parts) in [
        ("--temperature=-1", ["temperature is -1", "0 (greedy) or above"]),
        ("--temperature=nan", ["temperature is NaN", "0 (greedy) or above"]),
        ("--top-p=0", ["top_p is 0", "above 0 and at most 1"]),
        ("--min-p=2", ["min_p is 2", "from 0 to 1"]),
        ("--repetition-penalty=0", ["repetition_penalty is 0", "above 0"]),
        ("--dtype=f64", ["'f64'", "auto, f32, bf16, f16"]),
    ] {
        bench.refused(&format!("generate --model M hi {option}"), &parts);
        bench.refused(&format!("sweep --model M --items q.jsonl --out out --heads L0H0 --lambda 1 {option}"), &parts);
    }
    bench.refused("bench --model M --prompt-tokens 8 --new-tokens 2 --rows 0", &["--rows", "at least 1"]);
    bench.refused("bench --model M --prompt-tokens 250 --new-tokens 7", &["together at most 256"]);
}

/// A negative number is read as a number, even after a space.
#[test]
fn negative_numbers_are_numbers() {
    let bench = Bench::new();
    bench.refused("generate --model M hi --temperature -1", &["temperature is -1", "0 (greedy) or above"]);
    bench.refused("generate --model M hi --repetition-penalty -1", &["repetition_penalty is -1", "above 0"]);
    bench.done("generate --model M hi --max-new-tokens 1 --presence-penalty -0.5");
}

/// Numbers that only the engine can refuse leave no directory either.
#[test]
fn a_refused_number_leaves_no_directory() {
    let bench = Bench::new();
    let parts = ["is 0", "at least 1"];
    bench.refused("attribute --model M --items c.jsonl --a a --b b --out out --last-n 0", &parts);
    bench.refused("sweep --model M --items q.jsonl --heads L0H0 --lambda 1 --out out --max-new-tokens 0", &parts);
}

/// Any number of tokens may be asked for: the context ends the answer.
#[test]
fn a_limit_may_be_as_large_as_it_likes() {
    let bench = Bench::new();
    bench.done("generate --model M hi --max-new-tokens 18446744073709551615");
    let all = "--model M --items q.jsonl --limit 1 --max-new-tokens 18446744073709551615";
    bench.done(&format!("sweep {all} --heads L0H1 --lambda 0.5 --positions response --out s"));
    bench.done(&format!("capture {all} --generate --plan L0H1:0.5 --positions response --heads none --out c.npz"));
}

/// f32 would make 1 of it: nothing would be touched, in silence.
#[test]
fn a_lambda_that_only_f64_tells_from_one_is_refused() {
    let bench = Bench::new();
    let in_f32 = "(in f32, where nothing else may become 1)";
    bench.refused(
        "generate --model M hi --plan L0H1:0.99999999",
        &["lambda 0.99999999 of head L0H1 is not a number", in_f32, "hint: write 1, or"],
    );
    bench.refused("generate --model M hi --plan L0H1 --lambda 0.99999999", &[in_f32]);
    bench.refused("sweep --model M --items q.jsonl --out s --heads L0H1 --lambda 0.5,1.00000001", &[in_f32]);
    bench.done("generate --model M hi --plan L0H1:0.9999999999999999 --max-new-tokens 1");
    bench.done("generate --model M hi --plan L0H1:0.999999 --max-new-tokens 1");
}

/// A range that runs backwards is an error, not an empty list.
#[test]
fn a_range_of_layers_runs_forwards() {
    let bench = Bench::new();
    let capture = "capture --model M --items q.jsonl --out out.npz";
    bench.refused(&format!("{capture} --layers 3..1"), &["the list of layers is 3..1", "or layers such as 0,4"]);
}
