//! How good a probe's probabilities are on labelled items.

use headtemper_stats::{
    Asymmetry, Bin, GatePoint, Range, asymmetry, auc, bootstrap_auc, calibration, clustered_delong,
};
use serde::{Deserialize, Serialize};

use crate::{Result, StudyError, significance::check_count, store::nan::number};

/// The least p(assert | correct) at which a threshold counts as useful: the paper's.
pub const ASSERT_CORRECT: f64 = 0.70;

/// How good probabilities are. What cannot be measured is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Items.
    pub items: usize,
    /// How many of them are positive.
    pub positives: usize,
    /// Area under the ROC curve.
    #[serde(deserialize_with = "number")]
    pub auc: f64,
    /// DeLong's 95 % interval of it; Obuchowski's for clusters where items share prompts or groups.
    pub auc_delong: Ends,
    /// Its bootstrap interval, over resamples within the classes, of whole prompts or groups; null for none.
    pub auc_bootstrap: Ends,
    /// Share of items on the right side of one half.
    #[serde(deserialize_with = "number")]
    pub accuracy: f64,
    /// Mean squared error.
    #[serde(deserialize_with = "number")]
    pub brier: f64,
    /// Mean negative log-likelihood in nats.
    #[serde(deserialize_with = "number")]
    pub log_loss: f64,
    /// Expected calibration error over ten bins.
    #[serde(deserialize_with = "number")]
    pub ece: f64,
    /// The ten bins.
    pub calibration: Vec<CalibrationBin>,
    /// The least assertion asymmetry p(assert | wrong) - p(assert | correct) of the 91 thresholds 0.05 to 0.95 that keep
    /// p(assert | correct) at `assert_correct` or above; null if none does. Its threshold was chosen on these items.
    pub best_asym: Option<f64>,
    /// That threshold.
    pub best_thr: Option<f64>,
    /// The gate there.
    pub best: Option<OperatingPoint>,
    /// The threshold of least asymmetry, whatever it does to right answers.
    pub lowest: OperatingPoint,
    /// The gate at one half.
    pub half: OperatingPoint,
    /// The floor of p(assert | correct) for `best`.
    pub assert_correct: f64,
}

/// The two ends of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ends {
    /// Lower end.
    #[serde(deserialize_with = "number")]
    pub low: f64,
    /// Upper end.
    #[serde(deserialize_with = "number")]
    pub high: f64,
}

/// "Assert where p is at least the threshold", at one threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// The threshold.
    pub thr: f64,
    /// Assertion asymmetry.
    #[serde(deserialize_with = "number")]
    pub asym: f64,
    /// p(assert | correct).
    #[serde(deserialize_with = "number")]
    pub p_assert_correct: f64,
    /// p(assert | wrong).
    #[serde(deserialize_with = "number")]
    pub p_assert_wrong: f64,
}

/// Items between two probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Items.
    pub items: usize,
    /// Their mean probability.
    #[serde(deserialize_with = "number")]
    pub probability: f64,
    /// Share of them that is positive.
    #[serde(deserialize_with = "number")]
    pub share: f64,
}

/// How probabilities are measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasureOptions {
    /// The floor of p(assert | correct).
    pub assert_correct: f64,
    /// Resamples of the bootstrap; 0 leaves it out.
    pub resamples: usize,
    /// Their seed.
    pub seed: u64,
}

impl MeasureOptions {
    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// If the floor is not a share.
    pub fn check(&self) -> Result<()> {
        check_count("resamples", self.resamples)?;
        if (0.0..=1.0).contains(&self.assert_correct) {
            return Ok(());
        }
        Err(StudyError::option("the floor of p(assert | correct)", self.assert_correct.to_string(), "from 0 to 1"))
    }
}

impl Ends {
    /// No interval.
    pub(crate) const NONE: Self = Self { low: f64::NAN, high: f64::NAN };

    /// No interval, for a file that an older version wrote.
    pub(crate) fn none() -> Self {
        Self::NONE
    }

    /// The interval, if both ends are finite.
    pub(crate) fn known(self) -> Option<Self> {
        (self.low.is_finite() && self.high.is_finite()).then_some(self)
    }
}

impl From<Range> for Ends {
    fn from(range: Range) -> Self {
        Self { low: range.low, high: range.high }
    }
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self { assert_correct: ASSERT_CORRECT, resamples: 1000, seed: 0 }
    }
}

impl OperatingPoint {
    /// The gate at a threshold.
    pub fn at(threshold: f64, p: &[f64], labels: &[bool]) -> Self {
        GatePoint::at(threshold, p, labels).into()
    }
}

impl From<GatePoint> for OperatingPoint {
    fn from(point: GatePoint) -> Self {
        Self {
            thr: point.threshold,
            asym: point.asymmetry(),
            p_assert_correct: point.assert_correct,
            p_assert_wrong: point.assert_wrong,
        }
    }
}

impl From<Bin> for CalibrationBin {
    fn from(bin: Bin) -> Self {
        Self { low: bin.low, high: bin.high, items: bin.items, probability: bin.probability, share: bin.share }
    }
}

impl Measured {
    /// Measures probabilities of the positive class. Intervals are over units; `units` has that of each item.
    pub fn of(p: &[f64], labels: &[bool], units: &[usize], options: MeasureOptions) -> Self {
        let scored = calibration(p, labels);
        let Asymmetry { best, lowest, half } = asymmetry(p, labels, options.assert_correct);
        let by_theory = clustered_delong(p, labels, units);
        let by_resamples = bootstrap_auc(p, labels, units, options.resamples, options.seed);
        Self {
            items: p.len(),
            positives: labels.iter().filter(|&&label| label).count(),
            auc: auc(p, labels),
            auc_delong: by_theory.range.into(),
            auc_bootstrap: by_resamples.into(),
            accuracy: scored.accuracy,
            brier: scored.brier,
            log_loss: scored.log_loss,
            ece: scored.ece,
            calibration: scored.bins.into_iter().map(CalibrationBin::from).collect(),
            best_asym: best.map(|point| point.asymmetry()),
            best_thr: best.map(|point| point.threshold),
            best: best.map(OperatingPoint::from),
            lowest: lowest.into(),
            half: half.into(),
            assert_correct: options.assert_correct,
        }
    }
}
