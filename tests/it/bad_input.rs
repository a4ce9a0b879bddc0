//! What cannot be done is refused: exit code 2, nothing on stdout, a message that names the object and what would be
//! right, and nothing left on the disk.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use candle_core::{DType, Device, Tensor};
use headtemper_tests::{golden_dir, temper};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a model directory consists of.
const MODEL: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
];

/// A directory to run the program in. It holds `q.jsonl` with three prompts and `c.jsonl` with six answered items, three
/// of cohort `a` and three of `b`; `M` in a command is the tiny Llama.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(TempDir::new().unwrap());
        bench.write(
            "q.jsonl",
            "{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"b\",\"prompt\":\"y\"}\n{\"id\":\"c\",\"prompt\":\"z\"}\n",
        );
        let item = |i: usize| {
            let (label, word) = if i.is_multiple_of(2) { ("a", "yes") } else { ("b", "no") };
            json!({"id": i, "prompt": format!("Is {i} even?"), "response": format!("{word} {i}"), "label": label})
        };
        bench.write("c.jsonl", (0..6).map(|i| item(i).to_string() + "\n").collect::<String>());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// A copy of the tiny Llama, to be spoilt.
    fn copy_model(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        for file in MODEL {
            fs::copy(golden_dir("llama").join(file), dir.join(file)).unwrap();
        }
        dir
    }

    fn run(&self, line: &str) -> Output {
        self.run_in(temper(), line)
    }

    /// Runs a line, split at spaces.
    fn run_in(&self, mut program: Command, line: &str) -> Output {
        let model = golden_dir("llama").to_string_lossy().into_owned();
        let words = line.split_whitespace().map(|word| if word == "M" { &model } else { word });
        program.args(words).current_dir(self.0.path()).env("HF_HUB_OFFLINE", "1").output().unwrap()
    }

    /// Runs a line that must succeed.
    fn done(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(0), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a line that must be refused with these parts in the message, and must leave every file as it was.
    fn refused(&self, line: &str, parts: &[&str]) {
        let before = files(self.0.path());
        let output = self.run(line);
        assert_refused(line, &output, parts);
        let after = files(self.0.path());
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&after), names(&before), "{line}");
        assert!(after == before, "{line}: a file has changed");
    }
}

fn assert_refused(line: &str, output: &Output, parts: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{line}\n{message}");
    assert!(output.stdout.is_empty(), "{line} wrote to stdout: {}", String::from_utf8_lossy(&output.stdout));
    for part in parts {
        assert!(message.contains(part), "{line}\n'{part}' is not in:\n{message}");
    }
}

/// Every file and directory below, with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.insert(path.clone(), Vec::new());
            all.append(&mut files(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

fn find(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).expect("the file holds it")
}

/// Plans that name what the model lacks, or λ that is no number, or nothing at all.
#[test]
fn plans_that_mean_nothing() {
    let bench = Bench::new();
    bench.write("key.json", r#"{"schema":"heads/v1","heads":[{"layer":0,"head":1,"lamda":0.5}]}"#);
    bench.write("more.json", r#"{"schema":"heads/v1","heads":[{"layer":0,"head":1,"lambda":0.5}],"note":"x"}"#);
    bench.write("schema.json", r#"{"schema":"heads/v2","heads":[{"layer":0,"head":1,"lambda":0.5}]}"#);
    bench.write("none.json", r#"{"schema":"heads/v1","heads":[]}"#);
    let cases: [(&str, &[&str]); 14] = [
        ("L9H0:0.5", &["layer 9 of head L9H0 does not exist", "layers are 0 to 3", "temper inspect"]),
        ("L2H6:0.5", &["head L2H6 does not exist", "layer 2 has L2H0 to L2H5"]),
        ("L0H1:nan", &["lambda NaN of head L0H1 is not a finite number"]),
        ("L0H1:inf", &["lambda inf of head L0H1 is not a finite number"]),
        ("L0H1:0.5,L0H1:0.9", &["head L0H1 is listed twice"]),
        ("L0H1", &["head L0H1 has no lambda", "--lambda"]),
        ("L0H1:half", &["cannot read 'L0H1:half'", "L7H6:0.5"]),
        ("L0", &["cannot read 'L0' as a head such as L7H6", "heads/v1"]),
        ("[]", &["the plan names no head", "leave the plan out"]),
        ("none.json", &["the plan names no head"]),
        ("key.json", &["unknown field `lamda`", "`lambda`"]),
        ("more.json", &["unknown field `note`"]),
        ("schema.json", &["'heads/v2'", "the schema name heads/v1"]),
        ("gone.json", &["cannot read gone.json", "No such file"]),
    ];
    for (plan, parts) in cases {
        bench.refused(&format!("generate --model M hi --plan {plan}"), parts);
        bench.refused(&format!("capture --model M --items q.jsonl --out out.npz --plan {plan}"), parts);
    }
    bench.refused("generate --model M hi --plan L0H1 --lambda nan", &["lambda NaN of head L0H1"]);
    bench.refused("generate --model M hi --lambda 0.5", &["--lambda needs --plan"]);
}

/// The head sets and λ of a sweep are looked at before its directory is made.
#[test]
fn sweeps_over_what_is_not_there() {
    let bench = Bench::new();
    bench.write("ranking.json", "{\"schema\":\"attribution/v1\"}");
    let sweep = "sweep --model M --items q.jsonl --out out";
    for (rest, parts) in [
        ("--heads L9H0 --lambda 0.5", &["layer 9", "layers are 0 to 3"][..]),
        ("--heads L0H0,L0H6 --lambda 0.5", &["head L0H6 does not exist", "L0H0 to L0H5"]),
        ("--heads L0H0,L0H0 --lambda 0.5", &["head L0H0 is listed twice"]),
        ("--heads [] --lambda 0.5", &["names no head"]),
        ("--heads L0H0 --lambda 1,nan", &["lambda NaN of head L0H0 is not a finite number"]),
        ("--heads L0H0 --lambda inf", &["lambda inf of head L0H0 is not a finite number"]),
        ("--heads L0H0 --lambda half", &["'half'", "--lambda"]),
        ("--heads L0H0", &["--lambda"]),
        ("--heads top:5@gone.json --lambda 0.5", &["cannot read gone.json"]),
        ("--heads top:5@ranking.json --lambda 0.5", &["ranking.json", "missing field"]),
        ("--heads top:five@ranking.json --lambda 0.5", &["top:five@ranking.json", "top:5@attribution.json"]),
        ("--heads top:5 --lambda 0.5", &["top:5@attribution.json"]),
        ("--heads L0H0 --lambda 1,0.5,0.5", &["0.5 twice", "1 twice is the control"]),
        ("--heads L0H0,L1H1 --heads L1H1,L0H0 --lambda 0.5", &["L0H0+L1H1 again", "each set once"]),
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
    table("two.npz", "lambda", (2, 4, 6), &[(1, 0.5), (25, 0.5)]);
    table("ones.npz", "lambda", (1, 4, 6), &[]);
    table("nan.npz", "lambda", (1, 4, 6), &[(1, f32::NAN)]);
    table("other.npz", "lambdas", (1, 4, 6), &[(1, 0.5)]);
    bench.write("text.npz", "not a zip file");
    let flat = Tensor::new(&[0.5f32, 1.0], &Device::Cpu).unwrap();
    Tensor::write_npz(&[("lambda", flat)], bench.path("flat.npz")).unwrap();
    for (name, parts) in [
        ("heads.npz", &["head L0H6 does not exist", "layer 0 has L0H0 to L0H5"][..]),
        ("layers.npz", &["layer 4 of head L4H0 does not exist", "layers are 0 to 3"]),
        ("two.npz", &["2", "must ", "1", "as many as there are items"]),
        ("ones.npz", &["the plan names no head"]),
        ("nan.npz", &["lambda NaN of head L0H1"]),
        ("other.npz", &["other.npz", "no array 'lambda' [row, layer, head]"]),
        ("text.npz", &["text.npz"]),
        ("flat.npz", &["flat.npz"]),
        ("gone.npz", &["cannot read gone.npz"]),
    ] {
        bench.refused(&format!("generate --model M --items q.jsonl --plan {name}"), parts);
        bench.refused(&format!("capture --model M --items q.jsonl --out out.npz --plan {name}"), parts);
    }
    // What a smaller table does not name is 1.
    table("small.npz", "lambda", (3, 1, 2), &[(1, 0.5)]);
    bench.done("generate --model M --items q.jsonl --max-new-tokens 1 --plan small.npz");
}

/// An experiment as `temper run` reads it; the model path goes in.
fn experiment() -> String {
    format!(
        "name = \"t\"\nmodel = {{ path = \"{}\" }}\nitems = {{ path = \"c.jsonl\" }}\n\
         generate = {{ max_new_tokens = 4 }}\nattribute = {{ disposition = \"x\", a = \"a\", b = \"b\", min_cohort = 2 }}\n\
         sweep = {{ heads = \"top:2\", lambdas = [1, 0.5] }}\n",
        golden_dir("llama").display()
    )
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
        ("[1, 0.5]", "[]", &["[sweep] lambdas must list at least one"]),
        ("[1, 0.5]", "[1, nan]", &["[sweep] lambda NaN is not a finite number"]),
        ("[1, 0.5]", "[1, inf]", &["[sweep] lambda inf is not a finite number"]),
        ("top:2", "L9H0", &["layer 9", "layers are 0 to 3"]),
        ("max_new_tokens = 4", "max_new_tokens = 0", &["[generate] max_new_tokens must be at least 1"]),
        (
            "max_new_tokens = 4",
            "sampling = { temperature = -1 }",
            &["[generate] temperature is -1", "0 (greedy) or above"],
        ),
        ("max_new_tokens = 4", "sampling = { temperatur = 1 }", &["unknown field `temperatur`"]),
        ("model = { path", "model = { id = \"a/b\", path", &["[model] needs either path or id"]),
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

/// What an experiment asks of its later stages is known before the first: no hour of answers for a refusal.
#[test]
fn experiments_whose_last_stage_cannot_be() {
    let bench = Bench::new();
    for (from, to, parts) in [
        ("top:2", "top:0", &["[sweep] heads", "top:0"][..]),
        ("top:2", "top:99", &["[sweep] heads", "top:99", "24 heads"]),
        ("top:2", "top:two", &["[sweep] heads", "top:two", "top:k"]),
        ("[1, 0.5]", "[1, 0.5, 0.5]", &["0.5 twice"]),
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

/// Directories whose weights are missing, cut short, or of another model.
#[test]
fn weights_that_do_not_belong() {
    let bench = Bench::new();
    let dir = bench.copy_model("m");
    let file = dir.join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    let inspect = "inspect --model m";

    fs::remove_file(&file).unwrap();
    bench.refused("bench --model m", &["m holds no model.safetensors and no model.safetensors.index.json"]);
    bench.done(inspect); // which says what the configuration promises
    for (bytes, parts) in [
        (&whole[..whole.len() - 1000], &["model.safetensors is truncated", "fetch the file again"][..]),
        (&whole[..100], &["model.safetensors is truncated", "100 bytes"]),
        (&whole[..0], &["model.safetensors is truncated", "0 bytes"]),
        (&b"\x08\0\0\0\0\0\0\0not json"[..], &["model.safetensors is not a valid safetensors file"]),
    ] {
        fs::write(&file, bytes).unwrap();
        bench.refused(inspect, parts);
    }

    let index = dir.join("model.safetensors.index.json");
    fs::remove_file(&file).unwrap();
    fs::write(&index, r#"{"weight_map":{"model.norm.weight":"part-2.safetensors"}}"#).unwrap();
    bench.refused(inspect, &["part-2.safetensors is missing", "model.safetensors.index.json names it"]);
    fs::write(&index, "{}").unwrap();
    bench.refused(inspect, &["model.safetensors.index.json is not a valid safetensors index", "weight_map"]);
    fs::write(&file, &whole).unwrap();
    bench.done(inspect); // a single file goes before an index
}

/// Tensors that are missing, too many, of another shape or of another type.
#[test]
fn tensors_that_do_not_fit() {
    let bench = Bench::new();
    let dir = bench.copy_model("m");
    let file = dir.join("model.safetensors");
    let whole = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let refused = |edit: &dyn Fn(&mut HashMap<String, Tensor>), parts: &[&str]| {
        let mut tensors = whole.clone();
        edit(&mut tensors);
        candle_core::safetensors::save(&tensors, &file).unwrap();
        bench.refused("inspect --model m", parts);
    };
    let zeros = |shape: (usize, usize), dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let q = "model.layers.1.self_attn.q_proj.weight";
    refused(
        &|t| drop(t.insert(q.into(), zeros((72, 60), DType::F32))),
        &[q, "shape [72, 60]", "asks for [72, 72]", "different models"],
    );
    refused(&|t| drop(t.insert(q.into(), zeros((72, 72), DType::F64))), &[q, "F64", "readable are F32, F16, BF16"]);
    refused(&|t| drop(t.remove(q)), &[q, "has no tensor"]);
    refused(
        &|t| drop(t.insert("model.layers.1.self_attn.q_norm.weight".into(), zeros((1, 12), DType::F32))),
        &["m holds tensors that the architecture does not know: model.layers.1.self_attn.q_norm.weight"],
    );
}

/// GGUF files that are cut short, hold what candle cannot read, or another architecture.
#[test]
fn gguf_files_that_cannot_be_read() {
    let bench = Bench::new();
    let whole = fs::read(golden_dir("llama").join("model.f32.gguf")).unwrap();
    let refused = |bytes: &[u8], parts: &[&str]| {
        bench.write("m.gguf", bytes);
        bench.refused("inspect --model m.gguf", parts);
    };
    for cut in [3, 20, 1000] {
        refused(&whole[..cut], &["m.gguf is truncated", "header is cut short", "fetch the file again"]);
    }
    refused(&[], &["m.gguf is truncated"]);
    refused(&whole[..whole.len() - 1], &["m.gguf is truncated: tensor '", "fetch the file again"]);
    refused(&whole[..whole.len() / 2], &["m.gguf is truncated: tensor '"]);
    refused(b"PK\x03\x04 something else entirely", &["m.gguf is not a valid GGUF file"]);

    let name = b"blk.1.attn_q.weight";
    let info = find(&whole, name) + name.len();
    let dims = u32::from_le_bytes(whole[info..info + 4].try_into().unwrap()) as usize;
    let mut bytes = whole.clone();
    bytes[info + 4 + 8 * dims..][..4].copy_from_slice(&23u32.to_le_bytes());
    refused(&bytes, &["m.gguf", "ggml type 23 (IQ4_XS)", "readable are F32, F16, BF16, Q4_0", "Q4_K_M"]);

    let mut bytes = whole.clone();
    let key = find(&whole, b"general.architecture") + b"general.architecture".len();
    bytes[key + 12..key + 17].copy_from_slice(b"mamba"); // after the type and the length of the text
    refused(&bytes, &["m.gguf is of architecture 'mamba'", "supported are llama"]);

    let mut bytes = whole;
    let at = find(&bytes, b"llama.rope.freq_base");
    bytes[at..at + 5].copy_from_slice(b"xxxxx");
    refused(&bytes, &["m.gguf has no key 'llama.rope.freq_base'"]);
    bench.write("m.bin", "x");
    bench.refused("inspect --model m.bin", &["m.bin is neither a model directory nor a .gguf file"]);
}

/// Configurations of other architectures, without a key, or with what we cannot honour.
#[test]
fn configurations_that_are_not_ours() {
    let bench = Bench::new();
    let file = bench.copy_model("m").join("config.json");
    let whole: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let refused = |edit: &dyn Fn(&mut Value), parts: &[&str]| {
        let mut config = whole.clone();
        edit(&mut config);
        fs::write(&file, config.to_string()).unwrap();
        bench.refused("inspect --model m", parts);
    };
    let remove = |key: &'static str| move |config: &mut Value| drop(config.as_object_mut().unwrap().remove(key));
    refused(&|c| c["model_type"] = "gpt2".into(), &["config.json is of architecture 'gpt2'", "supported are llama"]);
    for key in ["model_type", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings", "vocab_size"] {
        refused(&remove(key), &[&format!("config.json has no key '{key}'")]);
    }
    refused(
        &|c| drop(c["rope_parameters"].as_object_mut().unwrap().remove("rope_theta")),
        &["config.json has no key 'rope_parameters.rope_theta'"],
    );
    refused(&remove("rope_parameters"), &["config.json has no key 'rope_theta'"]);
    refused(&|c| c["rope_parameters"]["rope_type"] = "yarn".into(), &["rope_type is \"yarn\"", "only \"default\""]);
    refused(&|c| c["hidden_act"] = "gelu".into(), &["hidden_act is \"gelu\"", "only \"silu\" is supported"]);
    refused(&|c| c["num_key_value_heads"] = 4.into(), &["6 query heads cannot share 4 key/value heads"]);
    refused(&|c| c["num_hidden_layers"] = 5.into(), &["has no tensor 'model.layers.4."]);
    refused(&|c| c["num_hidden_layers"] = 3.into(), &["does not know: model.layers.3.", "and 4 more"]);
    fs::write(&file, "{\"model_type\":").unwrap();
    bench.refused("inspect --model m", &["config.json is not a valid config.json"]);
    fs::remove_file(&file).unwrap();
    bench.refused("inspect --model m", &["cannot read m/config.json"]);
}

/// Tokenizers and chat templates that are missing or broken; `--raw` needs no template.
#[test]
fn texts_that_cannot_become_tokens() {
    let bench = Bench::new();
    let dir = bench.copy_model("m");
    let template = dir.join("chat_template.jinja");
    fs::remove_file(&template).unwrap();
    let parts = ["m has no chat template", "give --raw"];
    bench.refused("generate --model m hi", &parts);
    bench.refused("generate --model m --items q.jsonl", &parts);
    bench.refused("capture --model m --items q.jsonl --out out.npz", &parts);
    bench.refused("sweep --model m --items q.jsonl --out out --heads L0H0 --lambda 1", &parts);
    bench.done("generate --model m hi --raw --max-new-tokens 1");
    bench.done("generate --model m --items q.jsonl --raw --max-new-tokens 1");

    fs::write(&template, "{{ raise_exception('roles must alternate') }}").unwrap();
    bench.refused("generate --model m hi", &["chat template of m", "roles must alternate"]);
    bench.done("generate --model m hi --raw --max-new-tokens 1");
    fs::write(&template, "{% for m in messages %}").unwrap();
    bench.refused("generate --model m hi", &["chat template of m"]);
    fs::remove_file(&template).unwrap();

    let tokenizer = dir.join("tokenizer.json");
    fs::write(&tokenizer, "{}").unwrap();
    bench.refused("inspect --model m", &["tokenizer of m", "tokenizer.json"]);
    fs::remove_file(&tokenizer).unwrap();
    bench.refused("inspect --model m", &["tokenizer of m: tokenizer.json is missing"]);
}

/// Lines of an item file that cannot be used are all named, by every verb, with their numbers.
#[test]
fn items_that_cannot_be_used() {
    let bench = Bench::new();
    let lines = [
        "{\"id\":\"a\",\"prompt\":\"x\"}",
        "not json",
        "{\"id\":\"b\"}",
        "{\"id\":\"a\",\"prompt\":\"y\"}",
        "{\"id\":\"c\",\"prompt\":\"x\",\"response\":\" \"}",
        "{\"id\":\"d\",\"prompt\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        "{\"id\":\"e\",\"prompt\":7}",
        "{\"id\":\"f\",\"prompt\":\"\"}",
        "{\"id\":\"g\",\"input_ids\":[]}",
        "{\"id\":\"h\",\"input_ids\":[-1]}",
        "{\"id\":\"i\",\"input_ids\":[6],\"prompt_len\":2}",
    ];
    bench.write("bad.jsonl", lines.join("\n"));
    let parts = [
        "bad.jsonl has lines that cannot be used",
        "line 2: not JSON",
        "line 3: no prompt (prompt, messages or input_ids)",
        "line 4: id 'a' stands there a second time",
        "line 5: the response is empty",
        "line 6: prompt and messages exclude each other",
        "line 7: prompt is a number, not a text",
        "line 8: the prompt is empty",
        "line 9: input_ids is empty",
        "line 10: input_ids",
        "line 11: prompt_len is 2",
        "hint: an item is {\"id\":",
    ];
    let x = experiment().replace("c.jsonl", "bad.jsonl");
    bench.write("x.toml", x);
    bench.write("empty.jsonl", "\n \n");
    bench.write("latin.jsonl", b"{\"id\":\"a\",\"prompt\":\"caf\xe9\"}\n");
    for verb in [
        "generate --model M --items I",
        "capture --model M --items I --out out.npz",
        "attribute --model M --items I --a a --b b --out out",
        "sweep --model M --items I --heads L0H0 --lambda 1 --out out",
    ] {
        bench.refused(&verb.replace('I', "bad.jsonl"), &parts);
        bench.refused(&verb.replace('I', "empty.jsonl"), &["empty.jsonl: holds no items"]);
        bench.refused(&verb.replace('I', "gone.jsonl"), &["cannot read gone.jsonl"]);
        bench.refused(&verb.replace('I', "latin.jsonl"), &["cannot read latin.jsonl", "UTF-8"]);
    }
    bench.refused("run x.toml --out out", &parts);
    bench.refused("generate --model M --items q.jsonl hi", &["cannot be used with"]);
    bench.refused("generate --model M", &["<PROMPT>"]);
}

/// Inputs that are longer than the context, or hold ids beyond the vocabulary, are named by their item.
#[test]
fn inputs_that_do_not_fit() {
    let bench = Bench::new();
    let ids = |n: usize| format!("{:?}", vec![6; n]);
    let item = |ids: &str| format!("{{\"id\":\"good\",\"input_ids\":[6]}}\n{{\"id\":\"bad\",\"input_ids\":{ids}}}\n");
    bench.write("long.jsonl", item(&ids(257)));
    bench.write("beyond.jsonl", item("[6,320]"));
    let line = |id: &str, text: &str| {
        format!("{{\"id\":\"{id}\",\"prompt\":\"x\",\"response\":\"{text}\",\"label\":\"a\"}}\n")
    };
    bench.write("answer.jsonl", line("good", "x") + &line("bad", &"q".repeat(300)));
    for (file, parts) in [
        ("long.jsonl", &["item 'bad' has 257 tokens", "context is 256"][..]),
        ("beyond.jsonl", &["item 'bad' holds token id 320", "vocabulary ends at 319"]),
    ] {
        bench.refused(&format!("generate --model M --items {file}"), parts);
        bench.refused(&format!("capture --model M --items {file} --out out.npz"), parts);
        bench.refused(&format!("sweep --model M --items {file} --out out --heads L0H0 --lambda 1"), parts);
        bench.write("x.toml", experiment().replace("c.jsonl", file));
        bench.refused("run x.toml --out out", parts);
    }
    let parts = ["item 'bad' has ", "context is 256"];
    bench.refused("capture --model M --items answer.jsonl --out out.npz", &parts);
}

/// A prompt that fills the context leaves no room for an answer, which is known before anything is written.
#[test]
fn prompts_that_leave_no_room() {
    let bench = Bench::new();
    bench.write("full.jsonl", format!("{{\"id\":\"full\",\"input_ids\":{:?}}}\n", vec![6; 256]));
    let parts = ["item 'full'", "256"];
    bench.refused("generate --model M --items full.jsonl", &parts);
    bench.refused("sweep --model M --items full.jsonl --out out --heads L0H0 --lambda 1", &parts);
    bench.write("x.toml", experiment().replace("c.jsonl", "full.jsonl"));
    bench.refused("run x.toml --out out", &parts);
    bench.done("capture --model M --items full.jsonl --out out.npz"); // it can be read
}

/// A directory of another run, or of something else, is not touched.
#[test]
fn directories_that_belong_to_others() {
    let bench = Bench::new();
    let attribute = "attribute --model M --items c.jsonl --out out --shuffles 10";
    bench.done(&format!("{attribute} --a a --b b"));
    let other = |options: &str, changes: &str| {
        let why = format!("error: out belongs to another run: {changes}\nhint: choose another --out");
        bench.refused(&format!("{attribute} {options}"), &[&why]);
    };
    other("--a b --b a", "dispositions differ; the first that differs was 'a against b', is 'b against a'");
    other("--a a --b b --last-n 3", "last_n was 32, is 3");
    other("--a a --b b --seed 3", "method.seed was 0, is 3");
    other("--a a --b b --dtype bf16", "dtype was f32, is bf16");
    other(
        "--a a --b b --limit 5",
        "items were 6, are 5; the first that differs was '5', is none; dispositions differ; the first that differs is 'a \
         against b'",
    );
    let made_by = ["out belongs to another run", "made by `temper attribute`"];
    bench.refused("sweep --model M --items q.jsonl --out out --heads L0H0 --lambda 1", &made_by);
    bench.write("x.toml", experiment());
    bench.refused("run x.toml --out out", &made_by);
    bench.done(&format!("{attribute} --a a --b b"));

    let sweep = "sweep --model M --items q.jsonl --heads L0H0 --lambda 1 --out swept";
    bench.done(&format!("{sweep} --max-new-tokens 2"));
    let other = |options: &str, changes: &str| {
        let why = format!("error: swept belongs to another run: {changes}\nhint: choose another --out");
        bench.refused(&format!("{sweep} {options}"), &[&why]);
    };
    other("--max-new-tokens 3", "max_new_tokens was 2, is 3");
    other("--max-new-tokens 2 --temperature 1", "sampling.temperature was 0.0, is 1.0");
    other("--max-new-tokens 3 --dtype bf16", "dtype was f32, is bf16; max_new_tokens was 2, is 3");
    other("--max-new-tokens 2 --raw", "items differ; the first that differs is 'a'");
    other("--max-new-tokens 2 --shard 1/2", "it holds the whole run, asked for is shard 1/2");

    let hedged = || experiment().replace("c.jsonl", "h.jsonl") + "judge = { hedges = \"hedges.txt\" }\n";
    let gold = |id: &str, prompt: &str| json!({"id": id, "prompt": prompt, "gold": "x"}).to_string() + "\n";
    let answers = ["a", "b", "c"].map(|id| gold(id, id)).concat();
    let other = |toml: &str, items: &str, hedges: &str, changes: &str| {
        bench.write("h.toml", toml);
        bench.write("h.jsonl", items);
        bench.write("hedges.txt", hedges);
        if changes.is_empty() {
            // Every answer is wrong and none is hedged, so one cohort is empty: but the rows are there.
            let output = bench.run("run h.toml --out run");
            assert!(String::from_utf8_lossy(&output.stderr).contains("cohort"), "{output:?}");
        } else {
            bench.refused("run h.toml --out run", &[&format!("error: run belongs to another run: {changes}\nhint")]);
        }
    };
    other(&hedged(), &answers, "perhaps\n", "");
    other(&hedged().replace("new_tokens = 4", "new_tokens = 5"), &answers, "perhaps\n", "max_new_tokens was 4, is 5");
    let sampled = hedged().replace("new_tokens = 4", "new_tokens = 4, sampling = { temperature = 0.5 }");
    other(&sampled, &answers, "perhaps\n", "sampling.temperature was 0.0, is 0.5");
    other(&hedged(), &answers, "# only a comment\nperhaps\n", "");
    other(&hedged(), &answers, "maybe\n", "hedges differ; the first that differs was 'perhaps', is 'maybe'");
    other(
        &hedged(),
        &(answers.clone() + &gold("d", "d")),
        "perhaps\n",
        "items were 3, are 4; the first that differs was none, is 'd'",
    );
    other(
        &hedged(),
        &answers.replace(":\"b\",\"gold", ":\"B\",\"gold"),
        "perhaps\n",
        "items differ; the first that differs is 'b'",
    );

    fs::create_dir(bench.path("mine")).unwrap();
    bench.write("mine/notes.txt", "precious");
    let foreign = ["mine belongs to another run", "it holds notes.txt and no manifest.json"];
    bench.refused("attribute --model M --items c.jsonl --a a --b b --out mine", &foreign);
    bench.refused("sweep --model M --items q.jsonl --heads L0H0 --lambda 1 --out mine", &foreign);
    bench.refused("run x.toml --out mine", &foreign);
    bench.write("mine/manifest.json", "{");
    bench.refused("run x.toml --out mine", &["mine/manifest.json"]);
    bench.refused("run x.toml --out q.jsonl", &["cannot write q.jsonl"]);
}

/// Cohorts need labels that items carry, and attribution needs answers.
#[test]
fn cohorts_that_are_not_there() {
    let bench = Bench::new();
    let attribute = "attribute --model M --out out --items";
    let counts = ["cohort 'z' has 0 items, but 2 are needed", "labels in the data: a 3, b 3"];
    bench.refused(&format!("{attribute} c.jsonl --a a --b z"), &counts);
    bench.refused(&format!("{attribute} c.jsonl --a z --b a"), &counts);
    bench.refused(&format!("{attribute} c.jsonl --a a --b b --limit 3"), &["cohort 'b' has 1 items"]);
    bench.refused(&format!("{attribute} c.jsonl --a a --b a"), &["both 'a'", "two different labels"]);
    bench.refused(&format!("{attribute} q.jsonl --a a --b b"), &["labels in the data: unlabelled 3"]);
    let text = fs::read_to_string(bench.path("c.jsonl")).unwrap();
    bench.write("silent.jsonl", text.replacen("\"response\":\"no 3\",", "", 1));
    bench.refused(&format!("{attribute} silent.jsonl --a a --b b"), &["silent.jsonl", "item '3' has no response"]);
}

/// Numbers without meaning.
#[test]
fn numbers_that_mean_nothing() {
    let bench = Bench::new();
    let capture = "capture --model M --items q.jsonl --out out.npz";
    for layers in ["9", "0,4", "2..4", "-1", "x"] {
        let parts = ["the list of layers is", "layers from 0 to 3"];
        bench.refused(&format!("{capture} --layers={layers}"), &parts);
    }
    bench.refused(&format!("{capture} --last-n 0"), &["last_n is 0", "at least 1"]);
    bench.refused(&format!("{capture} --limit 0"), &["--limit is 0", "at least 1"]);
    bench.refused(&format!("{capture} --threads 0"), &["--threads is 0", "at least 1"]);
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

/// A negative number is a number, with a space before it too.
#[test]
fn negative_numbers_are_numbers() {
    let bench = Bench::new();
    bench.refused("generate --model M hi --temperature -1", &["temperature is -1", "0 (greedy) or above"]);
    bench.refused("generate --model M hi --repetition-penalty -1", &["repetition_penalty is -1", "above 0"]);
    bench.done("generate --model M hi --max-new-tokens 1 --presence-penalty -0.5");
}

/// Numbers that only the engine knows to be wrong leave no directory either.
#[test]
fn a_refused_number_leaves_no_directory() {
    let bench = Bench::new();
    let parts = ["is 0", "at least 1"];
    bench.refused("attribute --model M --items c.jsonl --a a --b b --out out --last-n 0", &parts);
    bench.refused("sweep --model M --items q.jsonl --heads L0H0 --lambda 1 --out out --max-new-tokens 0", &parts);
}

/// As many tokens as a number can name may be asked for: the context ends the answer.
#[test]
fn a_limit_may_be_as_large_as_it_likes() {
    let bench = Bench::new();
    bench.done("generate --model M hi --max-new-tokens 18446744073709551615");
}

/// A range that runs backwards names no layer; it is not an empty list.
#[test]
fn a_range_of_layers_runs_forwards() {
    let bench = Bench::new();
    let capture = "capture --model M --items q.jsonl --out out.npz";
    bench.refused(&format!("{capture} --layers 3..1"), &["the list of layers is 3..1", "layers from 0 to 3"]);
}

/// λ so large that the model overflows: no numbers that are none, on stdout or in a file.
#[test]
fn what_overflows_is_no_result() {
    let bench = Bench::new();
    let parts = ["not numbers"];
    bench.refused("generate --model M hi --plan L0H1:3e38", &parts);
    bench.refused("capture --model M --items q.jsonl --out out.npz --plan L0H1:3e38", &["item", "not numbers"]);
}

/// Models, devices and revisions that are not there.
#[test]
fn models_that_are_not_there() {
    let bench = Bench::new();
    for model in ["./gone", "/nowhere/gone", "gone", "a/b/c", "gone.gguf"] {
        let named = format!("model '{model}' is neither a directory, nor a .gguf file, nor a hub id");
        bench.refused(&format!("inspect --model {model}"), &[&named, "HuggingFaceTB/SmolLM2-135M-Instruct"]);
    }
    fs::create_dir(bench.path("empty")).unwrap();
    bench.refused("inspect --model empty", &["cannot read empty/config.json"]);
    bench.refused("inspect q.jsonl", &["q.jsonl is neither a model directory nor a .gguf file"]);
    bench.refused("inspect --model M --revision main", &["revision is main", "left out for a local path"]);
    bench.refused("inspect", &["<MODEL>"]);
    bench.refused("generate --model M hi --thinking on", &["it has no thinking switch", "off or left to the template"]);
    bench.refused("generate --model M hi --raw --thinking off", &["--raw", "cannot be used with"]);
    for unused in
        ["inspect M --thinking on", "bench --model M --thinking on", "export M --dtype f32 --plan L0H0:1 --out o"]
    {
        bench.refused(unused, &["unexpected argument"]);
    }
    bench.done("generate --model M hi --thinking off --max-new-tokens 1");
    bench.refused("bench --model gone.json --random 1", &["'gone.json' is no config.json", "random weights"]);
    bench.refused("bench --model M --random 1 --revision main", &["random weights are made from that"]);
    bench.refused("inspect --model M --device tpu", &["device 'tpu'", "auto, cpu, cuda, cuda:N and metal"]);
    bench.refused("inspect --model M --device cuda:x", &["device 'cuda:x'", "not a number"]);
    if !candle_core::utils::cuda_is_available() {
        for device in ["cuda", "cuda:1"] {
            let named = format!("device '{device}' cannot be used: this binary was built without CUDA");
            bench.refused(&format!("inspect --model M --device {device}"), &[&named, "--device cpu"]);
        }
    }
}

/// Results that cannot be written where they should go.
#[test]
fn places_that_cannot_be_written_to() {
    let bench = Bench::new();
    fs::create_dir(bench.path("dir")).unwrap();
    let capture = "capture --model M --items q.jsonl --out";
    bench.refused(&format!("{capture} gone/out.npz"), &["cannot write gone/out.npz", "gone is no directory"]);
    bench.refused(&format!("{capture} dir"), &["cannot write dir", "give a .npz file"]);
    bench.refused(
        "sweep --model M --items q.jsonl --heads L0H0 --lambda 1 --out q.jsonl/out",
        &["cannot write q.jsonl/out"],
    );
}

/// A program that may write no file beyond 4 KiB: what a full disk looks like, without one.
fn on_a_full_disk() -> Command {
    let program = temper().get_program().to_owned();
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\""]).arg(program).env("RAYON_NUM_THREADS", "1");
    shell
}

/// A full disk leaves no half of a file, and rows that can be continued.
#[test]
fn a_full_disk() {
    let bench = Bench::new();
    let capture = "capture --model M --items q.jsonl --out out.npz --layers all --heads vector --logits";
    let before = files(bench.0.path());
    let output = bench.run_in(on_a_full_disk(), capture);
    assert_refused(capture, &output, &["cannot write out.npz"]);
    assert!(files(bench.0.path()) == before, "something was left");
    bench.done(capture);

    let sweep = "sweep --model M --items q.jsonl --heads L0H1 --lambda 1,0.5,0 --max-new-tokens 100 --out";
    let output = bench.run_in(on_a_full_disk(), &format!("{sweep} out"));
    assert_refused(sweep, &output, &["cannot write out/rows.jsonl"]);
    let rows = |name: &str| {
        let text = fs::read_to_string(bench.path(name).join("rows.jsonl")).unwrap();
        let mut rows: Vec<String> = text.lines().map(String::from).collect();
        rows.sort();
        rows
    };
    let kept = fs::read(bench.path("out/rows.jsonl")).unwrap();
    let whole = kept.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    assert!(whole > 0, "no row fits 4 KiB");
    bench.done(&format!("{sweep} out"));
    bench.done(&format!("{sweep} fresh"));
    assert!(fs::read(bench.path("out/rows.jsonl")).unwrap().starts_with(&kept[..whole]), "finished rows stay");
    assert_eq!(rows("out"), rows("fresh"));
}
