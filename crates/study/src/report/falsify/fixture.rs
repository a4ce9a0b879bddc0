//! A small, made-up falsification for the tests of the page: a probe that collapses, with hostile text wherever there is any.

use crate::{
    FeatureMeta,
    falsify::{
        Axis, AxisPair, Baseline, BaselineName, Check, FailureMode, FailureName, Falsification, Frozen, GateFile, Kind,
        Outcome, Overlap, Plane, Step, StepName, Transfer,
    },
    probe::{
        ColumnSource, Ends, EvalResult, FitResult, LabelSource, MeasureOptions, Measured, Null, OperatingPoint, Origin,
    },
};

pub(super) const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror='a'>&\"";

fn origin(items: usize, positives: usize) -> Origin {
    Origin {
        units: None,
        class_units: None,
        class_worth: None,
        groups: None,
        features: format!("{HOSTILE}/x.npz:{HOSTILE}").parse().expect("a source"),
        labels: LabelSource {
            column: ColumnSource { path: format!("{HOSTILE}.npz").into(), key: HOSTILE.into() },
            rule: None,
        },
        items,
        positives,
        unlabelled: 1,
        matched_by: crate::probe::MatchedBy::Id,
        other_texts: None,
        features_sha256: format!("f{items}"),
        labels_sha256: "ab".repeat(32),
        layers: vec![1, 2],
        meta: Some(meta(items)),
    }
}

/// What a capture says of itself.
fn meta(items: usize) -> FeatureMeta {
    serde_json::from_value(serde_json::json!({
        "schema": "features/v1", "model": HOSTILE, "architecture": HOSTILE, "revision": format!("r{items}"),
        "weights_sha256": "ef".repeat(32), "dtype": HOSTILE, "device": "cpu", "version": HOSTILE, "plan": ["none"],
        "site": HOSTILE, "layer_site": "x", "last_n": 1
    }))
    .expect("the meta of a capture")
}

/// Probabilities for items of which every second is positive; `signal` out of ten rank as they should.
fn measured(items: usize, signal: usize, auc: f64) -> Measured {
    let labels: Vec<bool> = (0..items).map(|i| i % 2 == 0).collect();
    let p: Vec<f64> = (0..items)
        .map(|i| {
            let spread = (i * 37 % 100) as f64 / 250.0;
            if (i % 10 < signal) == labels[i] { 0.55 + spread } else { 0.05 + spread }
        })
        .collect();
    let measured = Measured::of(
        &p,
        &labels,
        &(0..labels.len()).collect::<Vec<_>>(),
        MeasureOptions { resamples: 0, ..MeasureOptions::default() },
    );
    Measured { auc, auc_delong: ends(auc - 0.09, auc + 0.09), ..measured }
}

fn ends(low: f64, high: f64) -> Ends {
    Ends { low, high }
}

fn gate(thr: f64) -> OperatingPoint {
    OperatingPoint { thr, asym: -0.043, p_assert_correct: 0.6, p_assert_wrong: 0.557 }
}

fn check(kind: Kind, what: &str, value: f64, needed: f64, outcome: Outcome) -> Check {
    Check { what: what.into(), kind, value, needed, at_least: needed >= 0.0, outcome, range: None, why: None }
}

fn step(name: StepName, outcome: Outcome, checks: Vec<Check>) -> Step {
    let (question, note) = (format!("does {HOSTILE} hold?"), HOSTILE.to_owned());
    Step { name, question, outcome, decides: name <= StepName::Fresh, checks, note }
}

fn steps(axes: usize) -> Vec<Step> {
    use Outcome::{Failed, NotRun, Passed};
    let fresh = vec![
        check(Kind::Items, "items of the smaller class", 55.0, 10.0, Passed),
        Check { range: Some(ends(0.43, 0.6)), ..check(Kind::Share, "AUC", 0.516, 0.63, Failed) },
        check(Kind::Asymmetry, "asymmetry, threshold chosen in training", -0.043, -0.15, Failed),
        check(Kind::Above, &format!("AUC above {HOSTILE}"), -0.1, 0.0, Failed),
    ];
    let of_axes = vec![
        check(Kind::Share, &format!("{HOSTILE}, cross-validated AUC"), 0.7, 0.65, Passed),
        check(Kind::Share, &format!("{HOSTILE}, fresh AUC"), 0.5, 0.60, Failed),
    ];
    let (of_axes, swept) = if axes > 0 { (of_axes, Failed) } else { (Vec::new(), NotRun) };
    vec![
        step(StepName::Cv, Passed, vec![check(Kind::Share, "AUC", 0.906, 0.65, Passed)]),
        step(StepName::Fresh, Failed, fresh),
        step(StepName::Axes, swept, of_axes),
        step(
            StepName::Pooled,
            Outcome::Inconclusive,
            vec![Check {
                range: Some(ends(0.5, 0.7)),
                why: Some(HOSTILE.into()),
                ..check(Kind::Share, "AUC", 0.61, 0.63, Outcome::Inconclusive)
            }],
        ),
        step(StepName::Replication, NotRun, Vec::new()),
    ]
}

fn axis(index: usize) -> Axis {
    let fresh_auc = 0.45 + 0.05 * (index % 5) as f64;
    Axis {
        p: Some((0.01, 0.2)),
        name: format!("scores.{HOSTILE}{index}>=4"),
        train: (100, 40),
        fresh: (193, 50),
        cv_auc: 0.8,
        fresh_auc,
        fresh_range: ends(fresh_auc - 0.1, fresh_auc + 0.1),
        outcome: if index.is_multiple_of(2) { Outcome::Failed } else { Outcome::Inconclusive },
        why: (index == 1).then(|| HOSTILE.into()),
    }
}

/// Every pair of these axes; the first is flagged.
fn pairs(axes: &[Axis]) -> Vec<AxisPair> {
    let of = |i: usize, j: usize| (axes[i].name.clone(), axes[j].name.clone());
    let places = (0..axes.len()).flat_map(|j| (0..j).map(move |i| (i, j)));
    places
        .enumerate()
        .map(|(at, (i, j))| {
            let (a, b) = of(i, j);
            let (r, range) =
                if at == 0 { (0.9, Ends { low: 0.85, high: 0.93 }) } else { (-0.1, Ends { low: -0.29, high: 0.1 }) };
            AxisPair { a, b, items: 100, units: 100, r, range, flagged: at == 0 }
        })
        .collect()
}

fn transfer(name: &str) -> Transfer {
    Transfer {
        name: name.into(),
        train: origin(100, 56),
        fresh: origin(193, 55),
        c: 1.0,
        cv_auc: 0.9,
        cv_p: Some(0.001),
        cv_asym: Some(-0.7),
        fresh_auc: 0.55,
        fresh_range: ends(0.46, 0.64),
        gate: Some(gate(0.4)),
        oracle: Some(gate(0.3)),
        failure_modes: vec![FailureMode { name: FailureName::CapabilityCliff, why: HOSTILE.into() }],
    }
}

fn baselines() -> Vec<Baseline> {
    let names =
        [BaselineName::ShuffledLabels, BaselineName::RandomFeatures, BaselineName::Length, BaselineName::BagOfWords];
    let one = |(at, name): (usize, &BaselineName)| Baseline {
        rival: at > 1,
        name: *name,
        what: HOSTILE.into(),
        cv_auc: 0.5 + 0.05 * at as f64,
        fresh_auc: 0.52,
        gain: -0.01,
        gain_range: ends(-0.1, 0.08),
        to_beat: at > 0,
    };
    names.iter().enumerate().map(one).collect()
}

/// A gate file, as short as possible, with hostile names.
fn declared() -> GateFile {
    let text = "name = 'x'\n[train]\nfeatures = 'a.npz:X'\nlabels = 'a.npz:y'\n\
                [fresh]\nfeatures = 'b.npz:X'\nlabels = 'b.npz:y'\n[axes]\ncolumns = ['scores.a>=4']\n";
    let file: GateFile = toml::from_str(text).unwrap();
    GateFile { name: HOSTILE.into(), title: Some(HOSTILE.into()), ..file }
}

/// A falsification with this many axes, and with everything else.
pub(super) fn whole(axes: usize) -> Falsification {
    let axes_found: Vec<Axis> = (0..axes).map(axis).collect();
    let null = |mean: f64| Some(Null { shuffles: 1000, mean, q95: mean + 0.08, p: 0.001 });
    let cv = measured(100, 9, 0.906);
    let fresh = Measured { items: 193, positives: 55, ..measured(193, 5, 0.516) };
    Falsification {
        schema: "falsify/v1".into(),
        name: HOSTILE.into(),
        title: HOSTILE.into(),
        verdict: Outcome::Failed,
        sentence: format!("{HOSTILE} failed at fresh."),
        failure_modes: vec![FailureMode { name: FailureName::SingleOutput, why: HOSTILE.into() }],
        declared: declared(),
        gates_sha256: "cd".repeat(32),
        frozen: Frozen { probe_sha256: HOSTILE.into(), gates_sha256: "cd".repeat(32), c: 1.0, threshold: Some(0.49) },
        train: origin(100, 56),
        fresh: origin(193, 55),
        train_items_sha256: None,
        fresh_items_sha256: None,
        overlap: Overlap { by_features: true, by_prompt: true, by_group: false, by_text: false },
        steps: steps(axes),
        cv: vec![FitResult { c: 1.0, cv, fold_auc: vec![0.9, 0.92], fold_auc_mean: 0.91, steps: 7 }],
        cv_null: null(0.5),
        transfer: vec![EvalResult {
            c: 1.0,
            measured: fresh,
            train_chosen: Some(gate(0.49)),
            asym_range: ends(-0.2, 0.1),
            cv_auc: 0.906,
        }],
        fresh_null: null(0.51),
        axis_pairs: pairs(&axes_found),
        axes: axes_found,
        pooled: Some(transfer(HOSTILE)),
        replication: Some(transfer(HOSTILE)),
        baselines: baselines(),
        plane: Plane {
            points: (0..193).map(|i| (f64::from(i % 17), f64::from(i % 7))).collect(),
            labels: (0..193).map(|i| i % 3 == 0).collect(),
            share: vec![0.3, 0.1],
        },
        warnings: vec![HOSTILE.into()],
    }
}

/// Puts a number wherever there is one.
pub(super) fn fill(found: &mut Falsification, hole: f64) {
    let range = ends(hole, hole);
    let nowhere = OperatingPoint { thr: hole, asym: hole, p_assert_correct: hole, p_assert_wrong: hole };
    let measured = |of: &mut Measured| {
        (of.auc, of.accuracy, of.brier, of.log_loss, of.ece) = (hole, hole, hole, hole, hole);
        (of.auc_delong, of.auc_bootstrap) = (range, range);
        (of.best_asym, of.best_thr, of.best) = (Some(hole), Some(hole), Some(nowhere));
        (of.lowest, of.half) = (nowhere, nowhere);
        of.calibration.iter_mut().for_each(|bin| (bin.low, bin.probability, bin.share) = (hole, hole, hole));
    };
    found.cv.iter_mut().for_each(|of| measured(&mut of.cv));
    found.cv.iter_mut().for_each(|of| of.fold_auc_mean = hole);
    for of in &mut found.transfer {
        measured(&mut of.measured);
        (of.train_chosen, of.asym_range) = (Some(nowhere), range);
    }
    for null in [&mut found.cv_null, &mut found.fresh_null].into_iter().flatten() {
        (null.mean, null.q95, null.p) = (hole, hole, hole);
    }
    for axis in &mut found.axes {
        (axis.cv_auc, axis.fresh_auc, axis.fresh_range) = (hole, hole, range);
    }
    found.axis_pairs.iter_mut().for_each(|pair| pair.r = hole);
    for of in [&mut found.pooled, &mut found.replication].into_iter().flatten() {
        (of.c, of.cv_auc, of.cv_p, of.cv_asym) = (hole, hole, Some(hole), Some(hole));
        (of.fresh_auc, of.fresh_range) = (hole, range);
        (of.gate, of.oracle) = (Some(nowhere), Some(nowhere));
    }
    for of in &mut found.baselines {
        (of.cv_auc, of.fresh_auc, of.gain, of.gain_range) = (hole, hole, hole, range);
    }
    for check in found.steps.iter_mut().flat_map(|step| &mut step.checks) {
        (check.value, check.needed) = (hole, hole);
        check.range = check.range.map(|_| range);
    }
    found.plane.points.iter_mut().skip(3).step_by(2).for_each(|point| point.0 = hole);
    found.plane.share.fill(hole);
    found.frozen.threshold = Some(hole);
    let gates = &mut found.declared.gates;
    (gates.cv_auc, gates.fresh_auc, gates.assert_correct, gates.alpha) = (hole, hole, hole, hole);
}
