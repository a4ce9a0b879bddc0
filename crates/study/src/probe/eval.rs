//! A probe on other items than those it was fitted on.

use headtemper_stats::asymmetry_range;
use serde::{Deserialize, Serialize};

use super::{Ends, MeasureOptions, Measured, OperatingPoint, Origin, Probe, ProbeSet};
use crate::Result;

/// How good a probe is on a set of items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// `probe-eval/v1`.
    pub schema: String,
    /// The items.
    pub set: Origin,
    /// How many of them have exactly the features, or the prompt, of an item that the probe was fitted on.
    pub seen_in_training: usize,
    /// One entry per C, in the probe's order.
    pub results: Vec<EvalResult>,
    /// The place of the C that was chosen in training.
    pub chosen: usize,
    /// What a reader must know before any number.
    pub warnings: Vec<String>,
}

/// How good one fit is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// scikit-learn's C.
    pub c: f64,
    /// How good its probabilities are; `best` is the threshold that these very items would have chosen.
    #[serde(flatten)]
    pub measured: Measured,
    /// The gate at the threshold that the training items chose; null if none kept the floor there.
    pub train_chosen: Option<OperatingPoint>,
    /// The 95 % interval of its asymmetry, over prompts or groups where items share them; null for none.
    #[serde(default = "Ends::none")]
    pub asym_range: Ends,
    /// AUC of the cross-validation.
    pub cv_auc: f64,
}

/// Evaluates all fits of a probe.
///
/// # Errors
/// If the features do not match the probe's.
pub fn evaluate(probe: &Probe, set: &ProbeSet, options: MeasureOptions) -> Result<(Evaluation, Vec<Vec<f64>>)> {
    options.check()?;
    let source = set.origin.features.to_string();
    let (mut results, mut all) = (Vec::new(), Vec::new());
    for (at, fitted) in probe.meta.results.iter().enumerate() {
        let p = probe.probabilities(at, &set.x, set.features, &source)?;
        let range = |thr| asymmetry_range(thr, &p, &set.labels, &set.units).into();
        results.push(EvalResult {
            asym_range: fitted.cv.best_thr.map_or(Ends::NONE, range),
            c: fitted.c,
            measured: Measured::of(&p, &set.labels, &set.units, options),
            train_chosen: fitted.cv.best_thr.map(|thr| OperatingPoint::at(thr, &p, &set.labels)),
            cv_auc: fitted.cv.auc,
        });
        all.push(p);
    }
    let seen = probe.seen(&set.x, set.features, set.prompts.as_deref()).into_iter().filter(|&seen| seen).count();
    let warnings = warnings(probe, set, seen);
    let schema = "probe-eval/v1".into();
    let evaluation = Evaluation {
        schema,
        set: set.origin.clone(),
        seen_in_training: seen,
        results,
        chosen: probe.meta.chosen,
        warnings,
    };
    Ok((evaluation, all))
}

fn warnings(probe: &Probe, set: &ProbeSet, seen: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let (n, smaller) = (set.labels.len(), set.smaller_class());
    if seen > 0 {
        warnings.push(format!(
            "{seen} of {n} items are among those that the probe was fitted on, or answer their prompts: this is no test"
        ));
    }
    if smaller == 0 {
        warnings.push(format!("all {n} items are of one class: nothing can be ranked"));
    }
    warnings.extend(set.few_in_a_class());
    warnings.extend(set.warnings());
    if let Some(other) = probe.meta.train.other_site(&set.origin) {
        warnings.push(format!("the probe was fitted on something else: {other}"));
    }
    warnings.extend(other_labels(&probe.meta.train, &set.origin));
    if let Some(other) = probe.meta.train.other_arithmetic(&set.origin) {
        warnings.push(format!("the probe was fitted on features of another arithmetic: {other}"));
    }
    if probe.meta.train.same_weights(&set.origin) == Some(false) {
        warnings.push("these features are of another model than the probe was fitted on".into());
    }
    warnings
}

/// What a reader must know where positive may mean something else than it did in training.
pub(crate) fn other_labels(train: &Origin, fresh: &Origin) -> Option<String> {
    let other = train.other_labels(fresh)?;
    Some(format!(
        "the probe was fitted on labels of another rule or column ({other}): this is a test only where both mean the same"
    ))
}
