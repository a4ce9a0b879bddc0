//! `gate.toml`: what is tested and how, declared before anything is seen; `gates` has what would count as passing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Gates, StepName};
use crate::{
    Predicate, Result, StudyError,
    probe::{
        ColumnSource, FeatureSource, FitOptions, LEAST_SHUFFLES, LabelSource, MeasureOptions, ProbeSet, Weighting,
        usual_shuffles,
    },
    store::{
        digest::sha256_json,
        files::{named_in_utf8, parse_toml},
    },
};

/// A falsification: what `temper falsify` reads. Unknown keys are refused; paths are relative to the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateFile {
    /// Its name; results go to `runs/<name>` unless another directory is named.
    pub name: String,
    /// Title of the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The items that the probe is fitted on.
    pub train: SetConfig,
    /// The items that nobody has looked at.
    pub fresh: SetConfig,
    /// How the probe is fitted.
    #[serde(default)]
    pub probe: ProbeConfig,
    /// What would count as passing.
    #[serde(default)]
    pub gates: Gates,
    /// Step 3: the same for each score of the items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axes: Option<AxesConfig>,
    /// Step 4: features pooled over the last layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooled: Option<PooledConfig>,
    /// Step 5: another model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationConfig>,
    /// Controls, which are run where there is nothing to find.
    #[serde(default)]
    pub controls: ControlsConfig,
    /// SHA-256 of all this, including defaults, with paths as they are written: what was declared.
    #[serde(skip)]
    pub sha256: String,
}

/// A set of items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetConfig {
    /// Where the features lie, such as `train.npz:h_last`.
    pub features: FeatureSource,
    /// Where the labels lie, with their rule, such as `train.jsonl:coverage>=0.5`. True is what the gate asserts on.
    pub labels: LabelSource,
    /// The items themselves as JSONL, in the order of the features or with their ids: prompts are then compared between the sets, and the
    /// lengths and words of the texts are baselines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<PathBuf>,
    /// Which of the items belong to the set, such as `topic == "capitals"`: a condition as in dispositions.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub only: Option<Predicate>,
    /// A column such as `train.jsonl:document` that groups items: those with one value of it are no more independent than answers to one
    /// prompt. They stay together in folds, shuffles and intervals, and the two sets may have no group in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<ColumnSource>,
}

/// How the probe is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeConfig {
    /// scikit-learn's C, one or several: the best in cross-validation is chosen.
    pub c: Vec<f64>,
    /// Folds of the cross-validation.
    pub cv: usize,
    /// Seed of folds, shuffles and resamples.
    pub seed: u32,
    /// `none` or `balanced`.
    pub class_weight: Weighting,
}

/// Step 3: which scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxesConfig {
    /// Columns with their rules, such as `scores.humble>=4`.
    #[serde(default)]
    pub columns: Vec<String>,
    /// A rule such as `>=4` for every `scores.*` column of the training file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// The file that has them for the training items; by default `[train] items`, or the file of features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// The same for the fresh items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<PathBuf>,
    /// The least cross-validated AUC of an axis.
    #[serde(default = "axis_cv_auc")]
    pub cv_auc: f64,
    /// The least AUC of an axis on fresh items.
    #[serde(default = "axis_fresh_auc")]
    pub fresh_auc: f64,
    /// The correlation of two axes' out-of-fold predictions at which they count as one.
    #[serde(default = "axis_correlation")]
    pub correlation: f64,
}

/// Step 4: pooled features of the same items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PooledConfig {
    /// Such as `train.npz:h_layers[-4:]`.
    pub train: FeatureSource,
    /// Such as `fresh.npz:h_layers[-4:]`.
    pub fresh: FeatureSource,
}

/// Step 5: another model's features, of the same items or of its own answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicationConfig {
    /// The model's name.
    pub model: String,
    /// Its features of the training items.
    pub train: FeatureSource,
    /// Its features of the fresh items.
    pub fresh: FeatureSource,
    /// Labels of its own training answers; by default those of `[train]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_labels: Option<LabelSource>,
    /// Labels of its own fresh answers; by default those of `[fresh]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_labels: Option<LabelSource>,
}

/// Controls, which are run where there is nothing to find.
#[expect(clippy::struct_excessive_bools, reason = "each is a baseline that may be left out")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlsConfig {
    /// How often labels are shuffled; by default 1,000, or fewer where a labelling takes long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shuffles: Option<usize>,
    /// Resamples of the bootstrap intervals.
    pub resamples: usize,
    /// Whether a probe is fitted on random numbers of the same shape.
    pub random_features: bool,
    /// Whether a probe is fitted on the lengths of the texts.
    pub length: bool,
    /// Whether a probe is fitted on whether responses were cut off.
    pub truncation: bool,
    /// Whether a probe is fitted on the words of the texts.
    pub bag_of_words: bool,
}

fn axis_cv_auc() -> f64 {
    0.65
}

fn axis_fresh_auc() -> f64 {
    0.60
}

fn axis_correlation() -> f64 {
    0.8
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { c: vec![1.0, 0.1], cv: 5, seed: 0, class_weight: Weighting::None }
    }
}

impl Default for ControlsConfig {
    fn default() -> Self {
        Self {
            shuffles: None,
            resamples: 1000,
            random_features: true,
            length: true,
            truncation: true,
            bag_of_words: true,
        }
    }
}

impl GateFile {
    /// Reads a gate file and makes its paths absolute.
    ///
    /// # Errors
    /// If it cannot be read, has an unknown key, or asks for something that has no meaning.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(StudyError::read(path))?;
        let file: Self = parse_toml(path, &text)?;
        file.check()?;
        // Hashed with the paths as they are written: the same wherever it is run from.
        let sha256 = sha256_json(&file);
        // Everywhere else paths are absolute, so that a directory belongs to the same run wherever it is started from.
        let whole = named_in_utf8(path)?;
        Ok(Self { sha256, ..file.within(whole.parent().unwrap_or(Path::new(""))) })
    }

    fn within(self, dir: &Path) -> Self {
        let set = |set: SetConfig| SetConfig {
            features: set.features.within(dir),
            labels: set.labels.within(dir),
            items: set.items.map(|path| dir.join(path)),
            only: set.only,
            groups: set.groups.map(|groups| groups.within(dir)),
        };
        let file = |path: Option<PathBuf>| path.map(|path| dir.join(path));
        Self {
            train: set(self.train),
            fresh: set(self.fresh),
            axes: self.axes.map(|axes| AxesConfig { train: file(axes.train), fresh: file(axes.fresh), ..axes }),
            pooled: self.pooled.map(|of| PooledConfig { train: of.train.within(dir), fresh: of.fresh.within(dir) }),
            replication: self.replication.map(|of| ReplicationConfig {
                model: of.model,
                train: of.train.within(dir),
                fresh: of.fresh.within(dir),
                train_labels: of.train_labels.map(|labels| labels.within(dir)),
                fresh_labels: of.fresh_labels.map(|labels| labels.within(dir)),
            }),
            ..self
        }
    }

    fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(StudyError::Experiment { name: self.name.clone(), why });
        if self.name.is_empty() || self.name.contains(['/', '\\']) || self.name.starts_with('.') {
            return wrong("its name is a directory's, so it must be without / and no leading dot".into());
        }
        if let Some(why) = self.gates.contradiction() {
            return wrong(why);
        }
        for (name, set) in [("train", &self.train), ("fresh", &self.fresh)] {
            if set.only.is_some() && set.items.is_none() {
                return wrong(format!("{name}.where asks for fields of items, but there is no {name}.items"));
            }
        }
        if self.train.groups.is_some() != self.fresh.groups.is_some() {
            return wrong("[train] and [fresh] take groups both or neither: the sets may have none in common".into());
        }
        if let Some(axes) = &self.axes {
            let of = [("cv_auc", axes.cv_auc), ("fresh_auc", axes.fresh_auc), ("correlation", axes.correlation)];
            for (name, value) in of {
                if !(0.0..=1.0).contains(&value) {
                    return wrong(format!("axes.{name} is {value}, but must be from 0 to 1"));
                }
            }
        }
        let gates = &self.gates;
        let shuffles = self.controls.shuffles.unwrap_or(LEAST_SHUFFLES);
        if gates.alpha < 1.0 && (1 + shuffles) as f64 * gates.alpha < 1.0 {
            return wrong(format!("{shuffles} shuffles give no p of {} or less: shuffle more often", gates.alpha));
        }
        for (step, given) in [
            (StepName::Axes, self.axes.is_some()),
            (StepName::Pooled, self.pooled.is_some()),
            (StepName::Replication, self.replication.is_some()),
        ] {
            if gates.decide.contains(&step) && !given {
                return wrong(format!("gates.decide names {step}, but there is no [{step}]"));
            }
        }
        match &self.axes {
            Some(axes) if axes.columns.is_empty() == axes.every.is_none() => {
                wrong("[axes] takes columns, or a rule for every score: one of them".into())
            }
            _ => Ok(()),
        }
    }

    /// How probes are fitted.
    pub(crate) fn fit_options(&self, train: &ProbeSet) -> FitOptions {
        FitOptions {
            c: self.probe.c.clone(),
            class_weight: self.probe.class_weight,
            folds: self.probe.cv,
            shuffle: Some(self.probe.seed),
            shuffles: self
                .controls
                .shuffles
                .unwrap_or_else(|| usual_shuffles(train, self.probe.cv, self.probe.c.len())),
            measure: self.measure(),
        }
    }

    /// How probabilities are measured.
    pub(crate) fn measure(&self) -> MeasureOptions {
        MeasureOptions {
            assert_correct: self.gates.assert_correct,
            resamples: self.controls.resamples,
            seed: self.probe.seed.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::falsify::FailedBy;

    const SHORT: &str = "name = 'x'\n[train]\nfeatures = 'a.npz:X'\nlabels = 'a.npz:coverage>=0.5'\n\
                         [fresh]\nfeatures = 'b.npz:X'\nlabels = 'b.json:labels'\n";

    fn read(text: &str) -> std::result::Result<GateFile, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.toml");
        std::fs::write(&path, text).unwrap();
        GateFile::read(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn a_short_file_has_the_gates_of_the_paper() {
        let file = read(SHORT).unwrap();
        assert_eq!((file.gates.cv_auc, file.gates.cv_asymmetry), (0.65, -0.20));
        assert_eq!((file.gates.fresh_auc, file.gates.fresh_asymmetry, file.gates.assert_correct), (0.63, -0.15, 0.70));
        assert!(file.train.features.path.is_absolute(), "relative to the file");
        let same = read(&format!("{SHORT}[gates]\nfresh_auc = 0.63\n")).unwrap();
        assert_eq!(same.sha256, file.sha256, "also from another directory");
        let looser = read(&format!("{SHORT}[gates]\nfresh_auc = 0.6\n")).unwrap();
        assert_ne!(looser.sha256, file.sha256);
        assert_eq!(file.gates.failed_by, FailedBy::Interval);
        let by_point = read(&format!("{SHORT}[gates]\nfailed_by = 'point'\n")).unwrap();
        assert_ne!(by_point.sha256, file.sha256, "how a gate fails is declared");
        let other_cut = read(&SHORT.replace(">=0.5", ">=0.9")).unwrap();
        assert_ne!(other_cut.sha256, file.sha256, "another label is another test");
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for (more, part) in [
            ("[gates]\nfresh_acu = 0.6\n", "unknown field `fresh_acu`"),
            ("[gates]\ncv_auc = 65\n", "gates.cv_auc is 65"),
            ("[gates]\nfailed_by = 'luck'\n", "unknown variant `luck`"),
            ("[gates]\ndecide = ['axes']\n", "there is no [axes]"),
            ("[gates]\ndecide = []\n", "no verdict"),
            ("[axes]\nevery = '>=4'\ncorrelation = 80\n", "axes.correlation is 80"),
            ("[axes]\n", "columns, or a rule"),
            ("[controls]\nshuffles = 10\n", "10 shuffles give no p of 0.05"),
            ("[probe]\nclass_weight = 'heavy'\n", "unknown variant `heavy`"),
        ] {
            let error = read(&format!("{SHORT}{more}")).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(read(&SHORT.replace("'x'", "'../x'")).unwrap_err().contains("must be without /"));
        assert!(read(&SHORT.replace("b.json:labels", "b.txt")).unwrap_err().contains("FILE.json:KEY"));
    }
}
