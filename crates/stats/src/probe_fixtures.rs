//! Our probes against scikit-learn's, made by `fixtures/make_probe_fixtures.py`.

use serde::Deserialize;

use crate::{
    ClassWeight, CrossValidation, Fits, Logistic, Random, Scaler, Target, asymmetry::gate_curve, auc, calibration,
    delong, delong_difference, sigmoid, stratified_folds, units::alone,
};

/// Coefficients, intercepts and probabilities. Measured worst: 5.8e-11.
const FIT: f64 = 1e-6;
/// AUC, its standard error, scores of calibration, shares of the gate. Measured worst: 3.3e-16.
const EXACT: f64 = 1e-12;

#[derive(Deserialize)]
struct Fixtures {
    fits: Vec<Fit>,
    cross_validated: Vec<CrossValidated>,
    folds: Vec<Dealt>,
    curves: Vec<Curve>,
}

#[derive(Deserialize)]
struct Fit {
    kind: String,
    items: usize,
    features: usize,
    c: f64,
    balanced: bool,
    seed: u64,
    positives: usize,
    coef: Vec<f64>,
    intercept: f64,
    probabilities: Vec<f64>,
    auc: f64,
}

#[derive(Deserialize)]
struct CrossValidated {
    items: usize,
    features: usize,
    c: f64,
    balanced: bool,
    folds: usize,
    seed: u32,
    probabilities: Vec<f64>,
    auc: f64,
}

#[derive(Deserialize)]
struct Dealt {
    labels: Vec<bool>,
    folds: usize,
    seed: Option<u32>,
    fold_of: Vec<usize>,
}

#[derive(Deserialize)]
struct Curve {
    p: Vec<f64>,
    other: Vec<f64>,
    labels: Vec<bool>,
    auc: f64,
    se: f64,
    difference: f64,
    difference_se: f64,
    brier: f64,
    log_loss: f64,
    assert_correct: Vec<f64>,
    assert_wrong: Vec<f64>,
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("../fixtures/probe_fixtures.json")).expect("the fixtures can be read")
}

fn uniform(seed: u64, stream: u64, count: usize) -> Vec<f64> {
    let mut random = Random::new(seed, stream);
    (0..count).map(|_| random.uniform()).collect()
}

fn features(kind: &str, seed: u64, n: usize, d: usize) -> Vec<f64> {
    let mut x: Vec<f64> = uniform(seed, 0, n * d).iter().map(|u| u - 0.5).collect();
    for row in x.chunks_exact_mut(d) {
        match kind {
            "collinear" => (d / 2..d).for_each(|j| row[j] = row[j - d / 2] * 2.0 + 1.0),
            "constant" => row.iter_mut().step_by(3).for_each(|x| *x = 0.1),
            _ => {}
        }
    }
    x
}

fn labels(kind: &str, x: &[f64], d: usize, seed: u64) -> Vec<bool> {
    let noise = uniform(seed, 1, x.len() / d);
    let weight = if kind == "separable" { 0.0 } else { 1.5 };
    x.chunks_exact(d).zip(noise).map(|(row, u)| row[0] - row[1] + weight * (u - 0.5) > 0.15).collect()
}

fn weight(balanced: bool) -> ClassWeight {
    if balanced { ClassWeight::Balanced } else { ClassWeight::None }
}

/// The largest distance; infinite if one is NaN, which `f64::max` would pass over.
pub(crate) fn worst<'a>(found: impl IntoIterator<Item = &'a f64>, wanted: impl IntoIterator<Item = &'a f64>) -> f64 {
    let off = found.into_iter().zip(wanted).map(|(a, b)| (a - b).abs());
    off.fold(0.0, |worst, off| if off.is_nan() { f64::INFINITY } else { worst.max(off) })
}

#[test]
fn fits_are_those_of_scikit_learn() {
    for one in fixtures().fits {
        let x = features(&one.kind, one.seed, one.items, one.features);
        let labels = labels(&one.kind, &x, one.features, one.seed);
        assert_eq!(labels.iter().filter(|&&label| label).count(), one.positives, "the same data");
        let rows: Vec<usize> = (0..one.items).collect();
        let z = Scaler::of(&x, one.features, &rows).apply(&x, one.features, &rows);
        let weights = weight(one.balanced).of(&labels);
        let target = Target { labels: &labels, weights: &weights, c: one.c };
        let fit = Logistic::fit(&z, one.features, target).unwrap();
        let p: Vec<f64> = z.chunks_exact(one.features).map(|row| sigmoid(fit.log_odds(row))).collect();
        assert_eq!(fit.coef.len(), one.coef.len());
        let differ = [
            worst(&fit.coef, &one.coef),
            worst(&[fit.intercept], &[one.intercept]),
            worst(&p[..one.probabilities.len()], &one.probabilities),
        ];
        let (name, shape) = (&one.kind, (one.items, one.features, one.c));
        let most = differ.iter().fold(0.0, |most: f64, x| most.max(*x));
        println!("{name} {shape:?}: {most:.1e} of {FIT:.0e}, {} steps", fit.steps);
        assert!(most <= FIT, "{name} {shape:?}: {differ:?}");
        assert!((auc(&p, &labels) - one.auc).abs() <= EXACT);
    }
}

#[test]
fn cross_validation_is_that_of_scikit_learn() {
    for one in fixtures().cross_validated {
        let x = features("plain", one.seed.into(), one.items, one.features);
        let labels = labels("plain", &x, one.features, one.seed.into());
        let folds = stratified_folds(&labels, one.folds, Some(one.seed)).unwrap();
        let ready = CrossValidation::new(&x, one.features, &folds).unwrap();
        let fits = Fits { weight: weight(one.balanced), c: &[one.c] };
        let p = ready.probabilities(&labels, fits, &|| ()).unwrap().remove(0);
        let differ = worst(&p, &one.probabilities);
        println!("{} x {}: {differ:.1e} of {FIT:.0e}", one.items, one.features);
        assert!(p.len() == one.probabilities.len() && differ <= FIT);
        assert!((auc(&p, &labels) - one.auc).abs() <= EXACT);
    }
}

#[test]
fn folds_are_those_of_scikit_learn() {
    for one in fixtures().folds {
        assert_eq!(stratified_folds(&one.labels, one.folds, one.seed).unwrap(), one.fold_of, "seed {:?}", one.seed);
    }
}

#[test]
fn curves_are_those_of_their_definitions() {
    for one in fixtures().curves {
        let found = delong(&one.p, &one.labels);
        let difference = delong_difference(&one.p, &[&one.other], &one.labels, &alone(one.p.len()));
        let scored = calibration(&one.p, &one.labels);
        let curve = gate_curve(&one.p, &one.labels);
        let pairs = [
            (found.value, one.auc),
            (found.se, one.se),
            (difference.value, one.difference),
            (difference.se, one.difference_se),
            (scored.brier, one.brier),
            (scored.log_loss, one.log_loss),
        ];
        let gates = curve.iter().zip(one.assert_correct.iter().zip(&one.assert_wrong));
        let gates = gates.flat_map(|(point, (a, b))| [(point.assert_correct, *a), (point.assert_wrong, *b)]);
        let (found, wanted): (Vec<f64>, Vec<f64>) = pairs.into_iter().chain(gates).unzip();
        let differ = worst(&found, &wanted);
        println!("{} items: {differ:.1e} of {EXACT:.0e}", one.p.len());
        assert!(curve.len() == one.assert_correct.len() && differ <= EXACT, "{differ:e}");
    }
}
