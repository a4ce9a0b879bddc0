//! Items that belong together stay together, and those that a probe was fitted on are known again.

use headtemper_study::{Array, Npz};
use serde_json::{Value, json};

use super::{FIT, data, fitted, write};
use crate::lab::{Lab, counts};

/// Noise, with every item twice: whole units are dealt to folds, shuffled and drawn, and noise gives no finding.
#[test]
fn items_that_stand_several_times_stay_together() {
    let lab = Lab::new();
    let (mut by_chance, mut p) = (0, Vec::new());
    for seed in 1..=12 {
        let (x, labels) = data(seed, 40, 20, 0.0);
        write(&lab, "train", ([&x[..], &x].concat(), [&labels[..], &labels].concat()));
        let out = format!("probe{seed}");
        let (_, err) = lab.ends(0, &format!("{FIT} --out {out}"));
        assert!(err.contains("80 of 80 items share their prompt or all their features with another"), "{err}");
        let fit = lab.json(&format!("{out}/fit.json"));
        assert_eq!((&fit["train"]["items"], &fit["train"]["units"]), (&json!(80), &json!(40)));
        let interval =
            |at: &str| -> Vec<f64> { ["low", "high"].map(|end| fit["results"][0][at][end].as_f64().unwrap()).to_vec() };
        assert!(interval("auc_delong")[1] - interval("auc_delong")[0] > 0.25, "that of forty items: {fit}");
        assert!(interval("auc_bootstrap")[0] < interval("auc_bootstrap")[1]);
        let fold = counts(&lab.npz(&format!("{out}/predictions.npz")), "fold");
        assert!((0..40).all(|item| fold[item] == fold[item + 40]), "{fold:?}");
        p.push(fit["null"]["p"].as_f64().unwrap());
        by_chance += usize::from(p[p.len() - 1] <= 0.05);
    }
    println!("p of noise: {p:?}");
    // As single items all twelve would be findings; at a true level of 5 %, four or more have a chance of one in three hundred.
    assert!(by_chance < 4, "{p:?}");
}

/// A column groups items that nothing else marks as belonging together; a class in one group cannot be cross-validated.
#[test]
fn groups_stay_together() {
    let lab = Lab::new();
    let (x, labels) = data(3, 80, 40, 1.2);
    write(&lab, "train", (x, labels));
    let mut npz = Npz::read(&lab.path("train.npz")).unwrap();
    let topic = |at: usize| if at == 79 { String::new() } else { format!("t{}", at / 4) };
    npz.add("topic", Array::Text((0..80).map(topic).collect()));
    npz.save(&lab.path("train.npz")).unwrap();
    let (_, err) = lab.ends(0, &format!("{FIT} --groups train.npz:topic --out probe"));
    assert!(
        err.contains("79 of 80 items share their prompt, all their features or a value of train.npz:topic"),
        "{err}"
    );
    // The last item alone, and the three beside it, have no unit of their size to change labels with.
    assert!(
        err.contains("of 80 items keep their label in every shuffle, as nothing with as many items that stay"),
        "{err}"
    );
    let fit = lab.json("probe/fit.json");
    assert_eq!((&fit["train"]["units"], &fit["train"]["groups"]), (&json!(21), &json!("train.npz:topic")));
    let fold = counts(&lab.npz("probe/predictions.npz"), "fold");
    assert!((0..79).all(|item| fold[item] == fold[item / 4 * 4]), "{fold:?}");
    assert!(fit["null"]["p"].as_f64().unwrap() <= 0.05, "a signal is found among twenty-one units: {}", fit["null"]);
    let eval: Value = serde_json::from_str(&lab.done(
        "probe eval probe --features train.npz:X --labels train.npz:coverage>=0.5 --groups train.npz:topic --json",
    ))
    .unwrap();
    assert_eq!(eval["set"]["units"], 21);
    let (_, err) = lab.ends(2, &format!("{FIT} --groups train.npz:topic --no-shuffle --out no"));
    assert!(err.contains("--no-shuffle is given, but must be left out where items share prompts or groups"), "{err}");
    // A class that is a single group says nothing about other groups.
    let (out, err) = lab.ends(0, &format!("{FIT} --groups train.npz:coverage --out one"));
    assert!(
        err.contains("no p and no interval: a class of train.npz:coverage>=0.5 is of one prompt or group"),
        "{err}"
    );
    assert!(!out.contains("shuffled labelings") && out.contains("| no interval |"), "{out}");
    let (_, err) = lab.ends(2, &format!("{FIT} --groups train.npz:nothing --out no"));
    assert!(err.contains("nothing") && !lab.path("no").exists(), "{err}");
}

/// A prompt that the probe was fitted on is recognised, whatever was answered.
#[test]
fn prompts_of_the_training_items_are_known_again() {
    let lab = Lab::new();
    for (name, seed, first) in [("train", 5, 0), ("fresh", 6, 78)] {
        let (x, labels) = data(seed, 80, 40, 1.2);
        write(&lab, name, (x, labels));
        let mut npz = Npz::read(&lab.path(&format!("{name}.npz"))).unwrap();
        npz.add("prompt_hash", Array::Text((first..first + 80).map(|at: usize| format!("{at:032x}")).collect()));
        npz.add("id", Array::Text((0..80).map(|at| format!("{name}{at}")).collect()));
        npz.save(&lab.path(&format!("{name}.npz"))).unwrap();
    }
    lab.done(&format!("{FIT} --out probe"));
    let (_, err) = lab.ends(0, "probe eval probe --features fresh.npz:X --labels fresh.json:labels");
    assert!(
        err.contains("2 of 80 items are among those that the probe was fitted on, or answer their prompts"),
        "{err}"
    );
    let set = |name: &str| format!("[{name}]\nfeatures = '{name}.npz:X'\nlabels = '{name}.npz:coverage>=0.5'\n");
    lab.write("gate.toml", format!("name = 'known'\n{}{}", set("train"), set("fresh")));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("the prompt of a training item: 'fresh0', 'fresh1'"), "{err}");
    // Items without a prompt share none.
    for name in ["train", "fresh"] {
        let path = lab.path(&format!("{name}.npz"));
        let old = Npz::read(&path).unwrap();
        let mut npz = Npz::default();
        for array in old.names().filter(|array| *array != "prompt_hash") {
            npz.add(array, old.get(array).unwrap().clone());
        }
        npz.add("prompt_hash", Array::Text(vec![String::new(); 80]));
        npz.save(&path).unwrap();
    }
    let (_, err) = lab.ends(0, &format!("{FIT} --out unasked"));
    assert!(!err.contains("share their prompt"), "{err}");
    let (_, err) = lab.ends(0, "probe eval unasked --features fresh.npz:X --labels fresh.json:labels");
    assert!(!err.contains("are among those"), "{err}");
    let output = lab.command("falsify gate.toml --out unasked-run").output().unwrap();
    assert!(output.status.code() != Some(2), "{output:?}");
    assert!(!lab.read("unasked-run/falsify.json").contains("share their prompt"));
}

/// Even with few features, items that a probe was fitted on are no test of it; but within one set, short rows may be equal by chance.
#[test]
fn few_features_name_training_items_and_no_units() {
    let lab = Lab::new();
    let mut npz = Npz::default();
    npz.add("X", Array::F32(vec![80, 2], (0..160).map(|at| ((at * 7) % 10) as f32).collect()));
    npz.add("y", Array::counts((0..80).map(|at: usize| at % 2)));
    npz.save(&lab.path("few.npz")).unwrap();
    let (_, err) = lab.ends(0, "probe fit --features few.npz:X --labels few.npz:y --shuffles 99 --out probe");
    assert!(!err.contains("share their prompt"), "{err}");
    // One step for each of 5 folds, under the labels themselves and shuffled ones.
    assert!(err.contains("fit        500 to do") && err.contains("fit        500 done"), "{err}");
    let (_, err) = lab.ends(0, "probe eval probe --features few.npz:X --labels few.npz:y");
    assert!(err.contains("80 of 80 items are among those that the probe was fitted on"), "{err}");
    let set = "features = 'few.npz:X'\nlabels = 'few.npz:y'\n";
    lab.write("gate.toml", format!("name = 'few'\n[train]\n{set}[fresh]\n{set}"));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("the very features of a training item"), "{err}");
    // Copies of an item, each taken for one: numbers that are no counts are hardly equal by chance.
    let mut npz = Npz::default();
    let x = |at: usize| ((at / 10 * 2 + at % 2) as f32).sin();
    npz.add("X", Array::F32(vec![80, 2], (0..160).map(x).collect()));
    npz.add("y", Array::counts((0..80).map(|at: usize| at / 5 % 2)));
    npz.add("of", Array::counts((0..80).map(|at: usize| at / 5)));
    npz.save(&lab.path("copies.npz")).unwrap();
    let fit = "probe fit --features copies.npz:X --labels copies.npz:y --shuffles 99";
    let told = "80 of 80 items have the very features of another; with fewer than 8 features";
    let (_, err) = lab.ends(0, &format!("{fit} --out copies"));
    assert!(err.contains(told), "{err}");
    let (_, err) = lab.ends(0, &format!("{fit} --groups copies.npz:of --out grouped"));
    assert!(!err.contains(told) && err.contains("those of 16 units"), "{err}");
}

/// Items that a probe was fitted on are no test of it in another width, or computed once more, either; and copies of one item are one.
#[test]
fn items_are_recognised_after_rounding() {
    let lab = fitted(0.0, 0.0);
    let train = Npz::read(&lab.path("train.npz")).unwrap();
    let Some(Array::F32(shape, x)) = train.get("X") else { panic!("features in f32") };
    let wide: Vec<f64> = x.iter().enumerate().map(|(at, &x)| f64::from(x) * (1.0 + 1e-6 * (at as f64).sin())).collect();
    let mut again = Npz::default();
    again.add("X", Array::F64(shape.clone(), wide.clone()));
    again.save(&lab.path("again.npz")).unwrap();
    let (_, err) = lab.ends(0, "probe eval probe --features again.npz:X --labels train.npz:coverage>=0.5");
    assert!(err.contains("80 of 80 items are among those that the probe was fitted on"), "{err}");
    let set = |name: &str| format!("features = '{name}.npz:X'\nlabels = 'train.npz:coverage>=0.5'\n");
    lab.write("gate.toml", format!("name = 'again'\n[train]\n{}[fresh]\n{}", set("train"), set("again")));
    let (_, err) = lab.ends(2, "falsify gate.toml --out run");
    assert!(err.contains("80 items of") && err.contains("the features of a training item, but for rounding"), "{err}");
    let both: Vec<f64> = x.iter().map(|&x| f64::from(x)).chain(wide).collect();
    let mut twice = Npz::default();
    twice.add("X", Array::F64(vec![2 * shape[0], shape[1]], both));
    twice.add("y", Array::counts((0..2 * shape[0]).map(|at| at % 3 % 2)));
    twice.save(&lab.path("twice.npz")).unwrap();
    let (_, err) = lab.ends(0, "probe fit --features twice.npz:X --labels twice.npz:y --shuffles 0 --out twice");
    assert!(err.contains("160 of 160 items share their prompt or all their features with another"), "{err}");
}
