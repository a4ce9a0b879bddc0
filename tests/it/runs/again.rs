//! A directory of an experiment that is called again: what is done anew, what is not, and what may not stay.

use std::fs;

use headtemper_engine::Engine;
use headtemper_study::{Experiment, Silent, run};
use serde_json::json;

use super::{RUN_FILES, write_experiment};
use crate::lab::{Lab, lines, unchecked};

/// What stands beside `config.toml` is of it, also where the call that wrote it did not come to its end; and a run whose prompts are read
/// otherwise is another run.
#[test]
fn no_results_stand_beside_the_file_of_others() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    lab.done("run x.toml --out out");
    let file = lab.read("x.toml");
    let attributed = lab.read("out/attribution.json");
    // No file can take the place of a directory: as if the call had been killed there.
    let judged = lab.path("out/judged.jsonl");
    fs::remove_file(&judged).unwrap();
    fs::create_dir(&judged).unwrap();
    lab.write("y.toml", file.replace("lambdas = [1, 1, 0.5]", "lambdas = [1, 1, 0.25]"));
    let (_, err) = lab.ends(2, "run y.toml --out out");
    assert!(err.contains("judged.jsonl") && lab.read("out/config.toml").contains("0.25"), "{err}");
    for name in ["report.html", "report.json", "report.md", "sweep.json", "sweep.csv", "lambda.npz", "plan.json"] {
        assert!(!lab.path("out").join(name).exists(), "{name} is of another file");
    }
    assert_eq!(lab.read("out/attribution.json"), attributed, "the other file attributes the same");
    lab.write("z.toml", file.replace("a = \"cw\"\nb = \"cr\"", "a = \"cr\"\nb = \"cw\""));
    lab.ends(2, "run z.toml --out out");
    assert!(!lab.path("out/attribution.json").exists(), "the other file attributes otherwise");
    fs::remove_dir(&judged).unwrap();
    lab.done("run x.toml --out out");
    assert_eq!(lab.read("out/attribution.json"), attributed);
    // How large cohorts must be is asked of the attribution, and no part of it.
    let features = lab.modified("out/features.npz");
    lab.write("m.toml", file.replace("min_cohort = 2", "min_cohort = 3"));
    lab.done_or(&[0, 1], "run m.toml --out out");
    assert_eq!(lab.modified("out/features.npz"), features);
    lab.write("raw.toml", file.replace("[items]\n", "[items]\nraw = true\n"));
    let (_, err) = lab.ends(2, "run raw.toml --out out");
    assert!(err.contains("prompts were put through the chat template, are read as they stand"), "{err}");
}

/// A complete run does nothing again; another attribution may follow in its directory, and its check may fail.
#[test]
fn run_goes_on_where_it_stopped() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    let first = lab.done("run x.toml --out out");
    let contents = |lab: &Lab| RUN_FILES.map(|name| fs::read(lab.path("out").join(name)).unwrap());
    let (before, features) = (contents(&lab), lab.modified("out/features.npz"));
    let (second, said) = lab.ends(0, "run x.toml --out out");
    assert!(said.contains("nothing left to do"), "{said}");
    assert_eq!((second, lab.modified("out/features.npz")), (first, features));
    for ((name, before), after) in RUN_FILES.iter().zip(before).zip(contents(&lab)) {
        assert!(before == after, "{name} has changed");
    }
    fs::remove_file(lab.path("out/attribution.npz")).unwrap();
    lab.done("run x.toml --out out");
    assert!(lab.path("out/attribution.npz").exists(), "a file that is gone is made again");

    let rows = lab.read("out/rows.jsonl");
    lab.write("x.toml", lab.read("x.toml").replace("min_cohort = 2", "min_cohort = 100"));
    let (out, _) = lab.ends(1, "run x.toml --out out");
    assert!(out.contains("the experiment asks for 100"), "{out}");
    lab.write("x.toml", lab.read("x.toml").replace("0.5]", "0.5, 0]"));
    lab.ends(1, "run x.toml --out out");
    assert!(lab.read("out/rows.jsonl").starts_with(&rows) && lab.read("out/rows.jsonl").lines().count() == 4 * 24);
    let (out, _) = lab.ends(1, "run x.toml --out out --json");
    assert_eq!(out, lab.read("out/report.json"));
}

/// An attribution that ended while its files were written does not count as finished.
#[test]
fn an_attribution_that_was_cut_short_is_made_again() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    lab.done("run x.toml --out out");
    let (before, features) = (lab.read("out/attribution.json"), lab.path("out/features.npz"));
    let kept = lab.path("kept.npz");
    fs::rename(&features, &kept).unwrap();
    // No file can take the place of a directory.
    fs::create_dir(&features).unwrap();
    let (_, error) = lab.ends(2, "run x.toml --out out");
    assert!(error.contains("not as it was written: features.npz") && error.contains("cannot write"), "{error}");
    fs::remove_dir(&features).unwrap();
    fs::rename(&kept, &features).unwrap();
    let dry = lines(&lab.done("run x.toml --out out --dry-run --json")).remove(0);
    assert!(dry["prompt_tokens"].as_u64() > Some(0), "all files are there, and yet it is made again: {dry}");
    lab.done("run x.toml --out out");
    assert_eq!(lab.read("out/attribution.json"), before);
}

/// A finished attribution whose files were damaged or edited since is made again, and that is said.
#[test]
fn an_attribution_that_is_not_as_it_was_written_is_made_again() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    lab.done("run x.toml --out out");
    for name in ["features.npz", "attribution.json", "attribution.csv", "attribution.npz"] {
        let path = lab.path("out").join(name);
        let before = fs::read(&path).unwrap();
        let mut damaged = before.clone();
        damaged[before.len() / 2] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let dry = lines(&lab.done("run x.toml --out out --dry-run --json")).remove(0);
        assert!(dry["prompt_tokens"].as_u64() > Some(0), "{dry}");
        let (_, said) = lab.ends(0, "run x.toml --out out");
        assert!(said.contains(&format!("not as it was written: {name}; attribute makes its files again")), "{said}");
        assert!(fs::read(&path).unwrap() == before, "{name}");
    }
    let (_, said) = lab.ends(0, "run x.toml --out out");
    assert!(said.contains("nothing left to do"), "{said}");
}

/// An answer that was made again, and is another now, is attributed again: whoever removes its line may be on a device that rounds otherwise.
#[test]
fn an_attribution_of_other_answers_is_made_again() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    lab.done("run x.toml --out out");
    let (report, features) = (lab.read("out/report.json"), fs::read(lab.path("out/features.npz")).unwrap());
    let mut rows = unchecked(&lab.read("out/rows.jsonl"));
    let base = rows.iter_mut().find(|row| row["variant"] == "base").unwrap();
    let ids = base["response_ids"].as_array_mut().unwrap();
    ids[0] = json!(if ids[0] == 5 { 6 } else { 5 });
    lab.write_lines("out/rows.jsonl", rows);
    let dry = lines(&lab.done("run x.toml --out out --dry-run --json")).remove(0);
    assert!(dry["prompt_tokens"].as_u64() > Some(0), "{dry}");
    // No file can take the place of a directory: as if the call had been killed there. What was found with the old answer is gone by then.
    let judged = lab.path("out/judged.jsonl");
    fs::remove_file(&judged).unwrap();
    fs::create_dir(&judged).unwrap();
    assert!(lab.ends(2, "run x.toml --out out").1.contains("judged.jsonl"));
    for name in ["attribution.json", "features.npz", "sweep.json", "sweep.csv", "report.html", "report.json"] {
        assert!(!lab.path("out").join(name).exists(), "{name} is of another answer");
    }
    fs::remove_dir(&judged).unwrap();
    let (_, said) = lab.ends(0, "run x.toml --out out");
    assert!(said.contains("capture    24 done"), "{said}");
    assert!(fs::read(lab.path("out/features.npz")).unwrap() != features, "the features are those of the old answer");
    assert_ne!(lab.read("out/report.json"), report);
}

/// A file that `[sweep] heads` names is read once, and one that lists other heads than it did makes another sweep.
#[test]
fn a_list_of_heads_that_changed_takes_the_sweep_back() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    let list = |head: usize| format!(r#"{{"schema":"heads/v1","heads":[{{"layer":0,"head":{head}}}]}}"#);
    lab.write("h.json", list(0));
    lab.write("x.toml", lab.read("x.toml").replace("top:2", "h.json"));
    lab.done("run x.toml --out out");
    let (_, said) = lab.ends(0, "run x.toml --out out");
    assert!(!said.contains("removed"), "{said}");
    lab.write("h.json", list(1));
    // No file can take the place of a directory: as if the call had been killed there.
    let judged = lab.path("out/judged.jsonl");
    fs::remove_file(&judged).unwrap();
    fs::create_dir(&judged).unwrap();
    let (_, said) = lab.ends(2, "run x.toml --out out");
    assert!(said.contains("not of the settings of this call, and removed: report.html"), "{said}");
    for name in ["report.html", "report.json", "report.md", "sweep.json", "sweep.csv", "lambda.npz", "plan.json"] {
        assert!(!lab.path("out").join(name).exists(), "{name} is of other heads");
    }
    assert!(lab.path("out/attribution.json").exists(), "no heads that are swept are part of it");
    fs::remove_dir(&judged).unwrap();
    lab.done("run x.toml --out out");
    assert_eq!(lab.json("out/sweep.json")["tables"][0]["set"], "L0H1");
}

/// `config.toml` is the resolved experiment, and can be run from where it is.
#[test]
fn a_resolved_experiment_can_be_run_again() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    lab.done("run x.toml --out out");
    let (_, said) = lab.ends(0, "run out/config.toml --out out");
    assert!(said.contains("nothing left to do"), "{said}");
}

/// A program that uses the library runs the same experiment: nothing is left for the binary to do.
#[test]
fn the_library_runs_what_the_binary_runs() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    let experiment = Experiment::read(&lab.path("x.toml")).unwrap();
    let engine = Engine::open(&experiment.model.choice()).unwrap();
    run(&engine, &experiment, &lab.path("out"), None, &mut Silent).unwrap();
    let contents = || RUN_FILES.map(|name| fs::read(lab.path("out").join(name)).unwrap());
    let (before, features) = (contents(), lab.modified("out/features.npz"));
    let (_, said) = lab.ends(0, "run x.toml --out out");
    assert!(said.contains("nothing left to do"), "{said}");
    assert_eq!(lab.modified("out/features.npz"), features, "the attribution is not made again");
    assert!(contents() == before, "the binary writes other files");
}

/// A directory holds what its `config.toml` describes: without `[sweep]`, nothing of the earlier sweep but the answers.
#[test]
fn an_experiment_that_lost_its_sweep_loses_its_outcomes() {
    let lab = Lab::new();
    write_experiment(&lab, 24, 12);
    lab.done("run x.toml --out r");
    let (with, rows) = (lab.read("r/sweep.csv"), lab.read("r/rows.jsonl"));
    let config = lab.read("x.toml");
    lab.write("x.toml", config.split("[sweep]").next().unwrap());
    let (_, err) = lab.ends(0, "run x.toml --out r");
    assert!(
        err.contains("report.md, sweep.json, sweep.csv, lambda.npz, plan.json; answers stay in rows.jsonl"),
        "{err}"
    );
    for gone in ["sweep.json", "sweep.csv", "lambda.npz", "plan.json"] {
        assert!(!lab.path(&format!("r/{gone}")).exists(), "{gone}");
    }
    assert!(lab.json("r/manifest.json")["stages"].get("sweep").is_none());
    assert_eq!(lab.read("r/rows.jsonl"), rows);
    let (_, err) = lab.ends(0, "run x.toml --out r");
    assert!(!err.contains("removed"), "{err}");
    // What a sweep left that was killed before its end goes as well.
    lab.write("r/sweep.csv", "half");
    let (_, err) = lab.ends(0, "run x.toml --out r");
    assert!(err.contains("and removed: sweep.csv;") && !lab.path("r/sweep.csv").exists(), "{err}");

    lab.write("x.toml", config);
    lab.done("run x.toml --out r");
    assert_eq!((lab.read("r/sweep.csv"), lab.read("r/rows.jsonl")), (with, rows));
}
