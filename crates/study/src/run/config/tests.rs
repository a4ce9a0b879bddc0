//! What a file may say, what it may not, and that every key is documented.

use std::collections::BTreeSet;

use super::*;

const GOOD: &str = r#"
name = "t"
model = { path = "m.gguf" }
items = { path = "data/q.jsonl" }
attribute = { disposition = "x", a = "cw", b = "cr" }
sweep = { heads = "top:5", lambdas = [1, 1, 0.5] }
"#;

fn read(text: &str) -> std::result::Result<Experiment, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    std::fs::write(&path, text).unwrap();
    Experiment::read(&path).map_err(|e| e.to_string())
}

#[test]
fn a_file_is_read_and_written_back() {
    let experiment = read(GOOD).unwrap();
    assert!(experiment.items.path.ends_with("data/q.jsonl") && experiment.items.path.is_absolute());
    assert_eq!(experiment.attribute.last_n, 32);
    assert_eq!(read(&experiment.to_toml()), Ok(experiment));
}

/// Every key that a file may have is in its documentation.
#[test]
fn every_key_is_documented() {
    let mut full = read(GOOD).unwrap();
    full.title = Some("t".into());
    full.model = ModelConfig {
        id: Some("x/y".into()),
        revision: Some("main".into()),
        products: Products::Bf16,
        thinking: Some(true),
        ..full.model
    };
    full.items = ItemsConfig {
        only: Some(Predicate::parse("x").unwrap()),
        limit: Some(1),
        system: Some("s".into()),
        groups: Some("g".into()),
        ..full.items
    };
    full.generate.memory = Some("1GiB".into());
    full.generate.max_rows = Some(8);
    full.judge = Some(JudgeConfig { hedges: "h".into(), gold: GoldRule::Exact });
    full.generate.sampling.temperature = 1.0;
    full.sweep.as_mut().unwrap().seeds = vec![1];
    (full.attribute.within, full.attribute.control) = (Some("w".into()), vec![ControlKind::Shuffled]);
    let written: toml::Table = toml::from_str(&full.to_toml()).unwrap();
    let mut keys = BTreeSet::new();
    let mut tables = vec![(String::new(), written)];
    while let Some((name, table)) = tables.pop() {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) if name.is_empty() => tables.push((key, inner)),
                toml::Value::Table(inner) => tables.push((format!("{name}.{key}"), inner)),
                _ => drop(keys.insert(format!("[{name}] {key}"))),
            }
        }
    }
    // The first cell of a row holds keys, or the name of the table that follows.
    let (mut documented, mut table) = (BTreeSet::new(), String::new());
    for row in include_str!("../../../../../docs/experiments.md").lines().filter(|line| line.starts_with("| ")) {
        let cell = row.split('|').nth(1).unwrap_or_default();
        for name in cell.split('`').skip(1).step_by(2) {
            match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
                Some(name) => table = name.into(),
                None => drop(documented.insert(format!("[{table}] {name}"))),
            }
        }
    }
    assert_eq!(keys, documented);
    assert!(keys.len() > 40, "{}", keys.len());
}

#[test]
fn what_is_not_known_is_refused() {
    for (from, to, part) in [
        ("a = \"cw\"", "a = \"cw\", lastn = 3", "unknown field `lastn`"),
        ("name = \"t\"", "name = \"../t\"", "must be letters"),
        ("lambdas = [1, 1, 0.5]", "lambdas = [1, nan]", "not a number from"),
        ("b = \"cr\"", "b = \"cr\", control = [\"none\"]", "unknown variant `none`, expected `shuffled` or `random`"),
        ("b = \"cr\"", "b = \"cr\", adjust = \"x\"", "unknown variant `x`, expected `none` or `length`"),
        ("path = \"m.gguf\"", "dtype = \"f32\"", "one of path and id"),
        (", b = \"cr\"", "", "missing field `b`"),
        ("sweep = {", "generate = { memory = \"8\" }\nsweep = {", "such as 8GiB"),
        ("sweep = {", "sweep = { random_from = \"layers\", ", "random_seed and random_from need random_sets"),
        ("sweep = {", "sweep = { random_seed = 3, ", "random_seed and random_from need random_sets"),
        ("sweep = {", "generate = { max_rows = 0 }\nsweep = {", "max_rows must be at least 1"),
        ("lambdas = [", "lambdas = [0.99999999, ", "lambda 0.99999999 is not a number from"),
        ("sweep = {", "sweep = { seeds = [1, 2], ", "seeds are [1, 2], but must be one at most at temperature 0"),
        (
            "sweep = {",
            "generate = { sampling = { temperature = 1 } }\nsweep = { seeds = [1, 1], ",
            "seeds are [1, 1], but must be different numbers",
        ),
    ] {
        let message = read(&GOOD.replace(from, to)).unwrap_err();
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn the_heads_of_a_file_lie_beside_it() {
    let of = |heads: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.toml");
        std::fs::write(&path, GOOD.replace("heads = \"top:5\"", &format!("heads = '{heads}'"))).unwrap();
        let heads = Experiment::read(&path).unwrap().sweep.unwrap().heads;
        heads.replace(&format!("{}", dir.path().display()), "DIR")
    };
    for (written, read) in [
        ("heads.json", "DIR/heads.json"),
        ("/else/heads.json", "/else/heads.json"),
        ("top:5:direction@a/attribution.json#humble", "top:5:direction@DIR/a/attribution.json#humble"),
        ("top:5", "top:5"),
        ("all", "all"),
        ("L0H1,L2V3", "L0H1,L2V3"),
    ] {
        assert_eq!(of(written), read);
    }
}
