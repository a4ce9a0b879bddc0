//! Fitting a probe: cross-validated first, then on all items.

use headtemper_stats::{
    ClassWeight, CrossValidation, FitError, Fits, Logistic, Scaler, Tail, Target, WholeUnits, auc, p_value,
    stratified_folds,
};
use serde::{Deserialize, Serialize};

use super::{Likeness, MeasureOptions, Measured, Origin, ProbeSet, file::prompt_names};
use crate::{
    Progress, Result, StudyError,
    significance::{LEVEL, check_count, told_fixed},
    store::nan::number,
    watch::Watch,
};

/// How a probe is fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct FitOptions {
    /// Inverse strengths of the penalty, scikit-learn's C: one fit each.
    pub c: Vec<f64>,
    /// How items are weighted.
    pub class_weight: Weighting,
    /// Folds of the cross-validation; fewer where the smaller class has fewer items.
    pub folds: usize,
    /// Seed of the folds, as scikit-learn's `random_state`; without one, items are dealt out in their order.
    pub shuffle: Option<u32>,
    /// How often labels are shuffled for the null of the cross-validated AUC; 0 leaves it out.
    pub shuffles: usize,
    /// How probabilities are measured, with the seed of shuffles and resamples.
    pub measure: MeasureOptions,
}

impl Default for FitOptions {
    fn default() -> Self {
        let (class_weight, measure) = (Weighting::None, MeasureOptions::default());
        Self { c: vec![1.0], class_weight, folds: 5, shuffle: Some(0), shuffles: 0, measure }
    }
}

/// How items are weighted: scikit-learn's `class_weight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighting {
    /// All alike.
    #[default]
    None,
    /// Both classes alike.
    Balanced,
}

impl From<Weighting> for ClassWeight {
    fn from(weighting: Weighting) -> Self {
        match weighting {
            Weighting::None => Self::None,
            Weighting::Balanced => Self::Balanced,
        }
    }
}

/// Probes of one set of items, one per C: what `probe.safetensors` holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is subtracted from each feature, and what it is divided by.
    pub scaler: Scaler,
    /// One fit per C, in the order asked for.
    pub fits: Vec<Logistic>,
    /// Names of the rows that it was fitted on, by which it recognises them.
    pub row_hashes: Vec<u64>,
    /// What it recognises them by where they were rounded; none where features are few, and in probes of earlier versions.
    pub likeness: Option<Likeness>,
    /// Names of the prompts that these rows answer, as far as known.
    pub prompt_names: Vec<u64>,
    /// What the probe is.
    pub meta: ProbeMeta,
}

/// What a probe is: the metadata of its file, a JSON text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeMeta {
    /// `probe/v1`.
    pub schema: String,
    /// The version that fitted it.
    pub version: String,
    /// What it was fitted on: features, labels with their rule, hashes, model, site and pooling.
    pub train: Origin,
    /// How items were weighted.
    pub class_weight: Weighting,
    /// Folds of the cross-validation.
    pub folds: usize,
    /// Whether items were shuffled before they were dealt into folds.
    pub shuffled_folds: bool,
    /// Seed of folds, shuffles and resamples.
    pub seed: u64,
    /// One entry per C.
    pub results: Vec<FitResult>,
    /// The place of the C with the largest cross-validated AUC; of equals, the stronger penalty.
    pub chosen: usize,
    /// How that AUC compares with shuffled labels; none if none were shuffled.
    pub null: Option<Null>,
}

/// A fit, and how good fits like it are on items that they were not fitted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitResult {
    /// scikit-learn's C.
    pub c: f64,
    /// Out-of-fold probabilities, all items together.
    #[serde(flatten)]
    pub cv: Measured,
    /// AUC of each fold alone.
    pub fold_auc: Vec<f64>,
    /// Mean of these.
    #[serde(deserialize_with = "number")]
    pub fold_auc_mean: f64,
    /// Newton steps of the fit on all items.
    pub steps: usize,
}

/// The largest cross-validated AUC over all C, beside what shuffled labels give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Null {
    /// How often labels were shuffled, within folds, by whole prompts or groups.
    pub shuffles: usize,
    /// Mean of the largest AUC under shuffled labels.
    pub mean: f64,
    /// 95 % of them lie below this.
    pub q95: f64,
    /// Permutation p: how often shuffles reach the observed AUC.
    pub p: f64,
}

/// A fitted probe, and its probabilities from cross-validation.
pub struct Fitted {
    /// The probe.
    pub probe: Probe,
    /// Out-of-fold probabilities `[C][item]`.
    pub out_of_fold: Vec<Vec<f64>>,
    /// The fold of each item.
    pub fold_of: Vec<usize>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// How often labels are shuffled by default, unless that would take long.
const USUAL_SHUFFLES: usize = 1000;
/// The fewest: they can still give a p of 0.01.
pub const LEAST_SHUFFLES: usize = 99;
/// Products that a default null may take: some minutes on a few cores.
const WORK: f64 = 2e13;
/// Newton steps of a fit, roughly.
const STEPS: f64 = 6.0;

/// How often labels are shuffled by default: 1,000 times, or fewer, but at least 99, where there are so many items and features
/// that it would take more than some minutes.
pub fn usual_shuffles(set: &ProbeSet, folds: usize, fits: usize) -> usize {
    let (n, d) = (set.labels.len() as f64, set.features as f64);
    // Over items, their products serve all labelings; over features, each fit takes the products of all features.
    let one = if n < d { n * n * n } else { n * d * d };
    let labeling = one * STEPS * (folds * fits) as f64;
    USUAL_SHUFFLES.min((WORK / labeling) as usize).max(LEAST_SHUFFLES)
}

impl FitOptions {
    /// The same without bootstrap intervals, for when nobody reports them.
    pub(crate) fn without_intervals(self) -> Self {
        Self { measure: MeasureOptions { resamples: 0, ..self.measure }, ..self }
    }

    /// Refuses settings that no probe could be fitted with.
    ///
    /// # Errors
    /// Names the setting and what would have been allowed.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str, found: String, allowed: &str| Err(StudyError::option(what, found, allowed));
        if self.c.is_empty() || self.c.iter().any(|c| !(*c > 0.0 && *c <= 1e6)) {
            return wrong("C", format!("{:?}", self.c), "one or more numbers above 0 and up to 1e6, such as 1.0,0.1");
        }
        if let Some((_, c)) = self.c.iter().enumerate().find(|(at, c)| self.c[..*at].contains(c)) {
            return wrong("C", format!("{c} twice"), "each number once");
        }
        if self.folds < 2 {
            return wrong("the number of folds", self.folds.to_string(), "2 or more");
        }
        check_count("shuffles", self.shuffles)?;
        self.measure.check()
    }
}

/// Fits and cross-validates, which is a stage of this name.
///
/// # Errors
/// If an option has no meaning, a class has fewer than two items, or a fit does not converge.
pub fn fit(set: &ProbeSet, options: &FitOptions, stage: &str, progress: &mut dyn Progress) -> Result<Fitted> {
    let wrong = |why: FitError| StudyError::fit(set.origin.labels.to_string(), why);
    let n = set.labels.len();
    let dealt = deal(set, options)?;
    let notes = dealt.notes(set, options);
    let testable = dealt.testable(set);
    let Dealt { fold_of, folds, whole } = dealt;
    let weighting = ClassWeight::from(options.class_weight);
    let fits = Fits { weight: weighting, c: &options.c };
    let best = |all: &[Vec<f64>], labels: &[bool]| all.iter().map(|p| auc(p, labels)).fold(f64::NAN, f64::max);
    let shuffles = if testable { options.shuffles } else { 0 };
    // A step is a labeling in a fold: the items' own, and the shuffled ones.
    let watch = Watch::default();
    progress.begin(stage, folds * (1 + shuffles), 0);
    let (out_of_fold, null) = watch.during(progress, || {
        let ready = CrossValidation::new(&set.x, set.features, &fold_of).map_err(wrong)?;
        let step = || watch.step();
        let out_of_fold = ready.probabilities(&set.labels, fits, &step).map_err(wrong)?;
        let labels = (&set.labels[..], whole.as_ref());
        let null = ready.shuffled(labels, (shuffles, options.measure.seed), fits, &step, best).map_err(wrong)?;
        Ok((out_of_fold, null))
    })?;
    progress.end();
    let null = (shuffles > 0).then(|| Null::of(best(&out_of_fold, &set.labels), null));
    let rows: Vec<usize> = (0..n).collect();
    let scaler = Scaler::of(&set.x, set.features, &rows);
    let scaled = scaler.apply(&set.x, set.features, &rows);
    let weights = weighting.of(&set.labels);
    let one = |&c: &f64| Logistic::fit(&scaled, set.features, Target { labels: &set.labels, weights: &weights, c });
    let fits = options.c.iter().map(one).collect::<std::result::Result<Vec<_>, _>>().map_err(wrong)?;
    let result = |((&c, p), fit): ((&f64, &Vec<f64>), &Logistic)| {
        let fold_auc: Vec<f64> = (0..folds).map(|fold| of_fold(fold, &fold_of, p, &set.labels)).collect();
        let cv = Measured::of(p, &set.labels, &set.units, options.measure);
        FitResult { c, cv, fold_auc_mean: headtemper_stats::mean(&fold_auc), fold_auc, steps: fit.steps }
    };
    let results: Vec<FitResult> = options.c.iter().zip(&out_of_fold).zip(&fits).map(result).collect();
    let better = |a: &FitResult, b: &FitResult| a.cv.auc.total_cmp(&b.cv.auc).then(b.c.total_cmp(&a.c));
    let chosen = (0..results.len()).max_by(|&a, &b| better(&results[a], &results[b])).expect("there is a C");
    let meta = ProbeMeta {
        schema: "probe/v1".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        train: set.origin.clone(),
        class_weight: options.class_weight,
        folds,
        shuffled_folds: options.shuffle.is_some(),
        seed: options.measure.seed,
        results,
        chosen,
        null,
    };
    let (row_hashes, prompt_names) =
        (set.row_hashes(), prompt_names(set.prompts.as_deref()).into_iter().flatten().collect());
    let likeness = Likeness::of(&set.x, set.features);
    Ok(Fitted { probe: Probe { scaler, fits, row_hashes, likeness, prompt_names, meta }, out_of_fold, fold_of, notes })
}

/// The fold of each item, how many there are, and the units that were dealt out whole, where items share any.
struct Dealt {
    fold_of: Vec<usize>,
    folds: usize,
    whole: Option<WholeUnits>,
}

impl Dealt {
    /// In how many ways shuffles can label the units.
    fn labelings(&self) -> f64 {
        self.whole.as_ref().map_or(f64::INFINITY, WholeUnits::labelings)
    }

    /// Whether there are too few ways for a p.
    fn few(&self) -> bool {
        1.0 / self.labelings() > LEVEL
    }

    /// Whether shuffled labels can tell an AUC from chance.
    fn testable(&self, set: &ProbeSet) -> bool {
        !self.few() && (self.whole.is_some() || set.shared() == 0)
    }

    /// What the user should know of the folds, and of labels shuffled in them.
    fn notes(&self, set: &ProbeSet, options: &FitOptions) -> Vec<String> {
        let (source, smaller, folds) = (&set.origin.labels, set.smaller_class(), self.folds);
        let mut notes: Vec<String> = set.few_in_a_class().into_iter().collect();
        match &self.whole {
            None if set.shared() > 0 => notes.push(format!(
                "no p and no interval: a class of {source} is of one prompt or group, and folds are of items that are not independent"
            )),
            _ if folds == options.folds => {}
            None => notes.push(format!("{folds} folds instead of {}: the smaller class has {smaller} items", options.folds)),
            Some(_) => {
                let units = set.origin.smaller_of_units();
                let so = if units < 2 * folds {
                    ", fewer than two for each fold: what a fold shows hangs on one of them"
                } else {
                    ", of which each fold needs two"
                };
                notes.push(format!(
                    "{folds} folds instead of {}: a class has {units} prompts or groups{so}",
                    options.folds
                ));
            }
        }
        if options.shuffles > 0 && self.few() {
            let labelings = self.labelings();
            let ways = if labelings > 1.0 { format!("{labelings} ways") } else { "no other way".into() };
            notes.push(format!(
                "no p: units can be labelled in {ways} within their folds, too few to tell an AUC from chance"
            ));
        } else if options.shuffles > 0 {
            let fixed = self.whole.as_ref().map_or(0, WholeUnits::fixed);
            notes.extend(told_fixed(fixed, set.labels.len(), "as many items that stay together in its fold"));
        }
        notes
    }
}

/// How many folds the items of a set can be dealt out over: fewer than asked for where a class is small.
///
/// # Errors
/// As [`fit`], except for fits that do not converge: whoever cannot be refused by this can be fitted.
pub(crate) fn folds_of(set: &ProbeSet, options: &FitOptions) -> Result<usize> {
    deal(set, options).map(|dealt| dealt.folds)
}

/// Deals items out over folds: by whole units where items share any and each class has several, else as scikit-learn does.
fn deal(set: &ProbeSet, options: &FitOptions) -> Result<Dealt> {
    options.check()?;
    let (n, smaller) = (set.labels.len(), set.smaller_class());
    if smaller == 0 {
        return Err(StudyError::fit(
            set.origin.labels.to_string(),
            FitError::OneClass { items: n, class: set.labels[0] },
        ));
    }
    if set.shared() > 0 && set.origin.smaller_of_units() >= 2 {
        let Some(seed) = options.shuffle else {
            return Err(StudyError::option(
                "--no-shuffle",
                "given",
                "left out where items share prompts or groups, which are dealt out at random",
            ));
        };
        if let Some(whole) = WholeUnits::deal(&set.labels, &set.units, options.folds, seed.into()) {
            return Ok(Dealt { fold_of: whole.fold_of().to_vec(), folds: whole.folds(), whole: Some(whole) });
        }
    }
    let folds = options.folds.min(smaller);
    let fold_of = stratified_folds(&set.labels, folds, options.shuffle).ok_or_else(|| {
        StudyError::option(
            format!("the smaller class of {}", set.origin.labels),
            format!("{smaller} of {n} items"),
            "2 or more, to be cross-validated",
        )
    })?;
    Ok(Dealt { fold_of, folds, whole: None })
}

fn of_fold(fold: usize, fold_of: &[usize], p: &[f64], labels: &[bool]) -> f64 {
    let inside = (0..p.len()).filter(|&item| fold_of[item] == fold);
    let (p, labels): (Vec<f64>, Vec<bool>) = inside.map(|item| (p[item], labels[item])).unzip();
    auc(&p, &labels)
}

impl Null {
    /// What shuffled labels gave.
    pub(crate) fn of(observed: f64, mut null: Vec<f64>) -> Self {
        let p = p_value(observed, &null, Tail::Greater);
        null.sort_by(f64::total_cmp);
        let (mean, q95) = (headtemper_stats::mean(&null), headtemper_stats::quantile(&null, 0.95));
        Self { shuffles: null.len(), mean, q95, p }
    }
}
