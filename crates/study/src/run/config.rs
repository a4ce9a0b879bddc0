//! One TOML file per experiment. Unknown keys are refused; paths are relative to the file.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use headtemper_engine::{HoldAs, Keep, ModelChoice, Precision, Products, Sampling, parse_bytes};
use headtemper_hook::{LAMBDAS, Positions, is_lambda, lambda_of};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::{
    Adjust, AttributeOptions, Compat, Controls, GoldRule, HeadChoice, ItemsFrom, Predicate, RandomFrom, ReadAs, Result,
    StudyError,
    heads::relative_to,
    store::files::{named_in_utf8, parse_toml},
};

/// An experiment: what `temper run` reads and, with its paths resolved, writes to `config.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Its name; results go to `runs/<name>` unless another directory is named.
    pub name: String,
    /// Title of the report.
    pub title: Option<String>,
    /// The model.
    pub model: ModelConfig,
    /// The data set.
    pub items: ItemsConfig,
    /// How answers are generated.
    #[serde(default)]
    pub generate: GenerateConfig,
    /// How answers are judged; without it, items bring their own labels.
    pub judge: Option<JudgeConfig>,
    /// Which cohorts are compared, and how.
    pub attribute: AttributeConfig,
    /// Which heads are swept, and how; without it, the experiment ends with the attribution.
    pub sweep: Option<SweepConfig>,
}

/// Which model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A directory or `.gguf` file.
    pub path: Option<PathBuf>,
    /// A hub id.
    pub id: Option<String>,
    /// A commit, branch or tag of the id.
    pub revision: Option<String>,
    /// `auto`, `f32`, `bf16` or `f16`; `stored` for the types in the file, or a ggml block type such as `q8_0`.
    #[serde(default, with = "by_name")]
    pub dtype: HoldAs,
    /// `f32`, or `bf16` to round activations to bf16 in linear layers.
    #[serde(default, with = "by_name", skip_serializing_if = "is_exact")]
    pub products: Products,
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `metal`.
    #[serde(default = "auto")]
    pub device: String,
    /// Whether the model thinks before it answers; by default, its chat template decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<bool>,
}

fn auto() -> String {
    "auto".into()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_exact(products: &Products) -> bool {
    *products == Products::F32
}

/// What a file has by its name.
mod by_name {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'a, T: FromStr<Err = String>, D: Deserializer<'a>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(|why| D::Error::custom(format!("[model] {why}")))
    }
}

impl ModelConfig {
    /// The model in the form in which an engine opens it. A download shows no progress.
    pub fn choice(&self) -> ModelChoice {
        let path = self.path.as_ref().map(|path| path.to_string_lossy().into_owned());
        ModelChoice {
            model: self.id.clone().or(path).unwrap_or_default(),
            revision: self.revision.clone(),
            precision: Precision { hold: self.dtype, products: self.products },
            device: self.device.clone(),
            thinking: self.thinking,
            random: None,
            progress: false,
        }
    }
}

/// Which items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemsConfig {
    /// A JSONL file.
    pub path: PathBuf,
    /// Only items for which this holds.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Predicate>,
    /// Only so many of those, from the start of the file.
    pub limit: Option<usize>,
    /// Prompts are used as plain text, not as chat messages.
    #[serde(default)]
    pub raw: bool,
    /// A system message before every prompt, in place of the template's own.
    pub system: Option<String>,
    /// A field whose values form groups: items of one group are no more independent than answers to one prompt, both in the attribution and
    /// in the sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
}

impl ItemsConfig {
    /// How the items are read.
    pub(crate) fn read_as(&self) -> ReadAs {
        let Self { limit, raw, system, only, .. } = self.clone();
        ReadAs { raw, system, only, limit }
    }

    /// Where the items come from.
    pub(crate) fn from(&self) -> ItemsFrom<'_> {
        ItemsFrom { path: &self.path, only: self.only.as_ref() }
    }
}

/// How answers are generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateConfig {
    /// Most new tokens per answer.
    pub max_new_tokens: usize,
    /// The most rows decoded together; fewer where memory is short. The default is 32, or 1024 on a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<usize>,
    /// The most memory to take, such as `8GiB`; by default, what the machine has available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self { max_new_tokens: Self::MAX_NEW_TOKENS, max_rows: None, memory: None, sampling: Sampling::default() }
    }
}

impl GenerateConfig {
    /// Most new tokens per answer, unless another number is given.
    pub const MAX_NEW_TOKENS: usize = 64;

    /// The most memory to take, in bytes.
    ///
    /// # Errors
    /// If the text is not an amount of memory.
    pub fn memory_bytes(&self) -> Result<Option<u64>> {
        Ok(self.memory.as_deref().map(parse_bytes).transpose()?)
    }
}

/// How answers are judged: against the items' accepted answers, and by a lexicon of hedges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeConfig {
    /// The lexicon of hedges.
    pub hedges: PathBuf,
    /// What makes an answer right: `contains` an accepted answer, or `exact`.
    #[serde(default)]
    pub gold: GoldRule,
}

/// A control: the attribution is repeated where there is nothing to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlKind {
    /// With labels shuffled once.
    Shuffled,
    /// With random weights.
    Random,
}

/// Which cohorts are compared, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeConfig {
    /// Name of the disposition.
    pub disposition: String,
    /// Label of the first cohort.
    pub a: String,
    /// Label of the second cohort.
    pub b: String,
    /// Heads are averaged over this many of the last response tokens.
    #[serde(default = "last_n")]
    pub last_n: usize,
    /// How often labels are shuffled for the null.
    #[serde(default = "shuffles")]
    pub shuffles: usize,
    /// Seed of the shuffles.
    #[serde(default)]
    pub seed: u64,
    /// Folds of the cross-fit.
    #[serde(default = "folds")]
    pub folds: usize,
    /// How often the items are dealt into folds.
    #[serde(default = "repeats")]
    pub repeats: usize,
    /// Resamples of the bootstrap intervals.
    #[serde(default = "resamples")]
    pub resamples: usize,
    /// Which heads are ranked: `all`, `attn` or `linear`.
    #[serde(default)]
    pub heads: HeadChoice,
    /// What is taken out of norms and vectors first: `none` or `length`.
    #[serde(default)]
    pub adjust: Adjust,
    /// A field of the items: whatever goes with its values is taken out, and labels are shuffled only among items with the same value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Controls, where there is nothing to find: `shuffled` labels, `random` weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub control: Vec<ControlKind>,
    /// A cohort smaller than this fails the run's check.
    #[serde(default = "min_cohort")]
    pub min_cohort: usize,
}

impl AttributeConfig {
    /// The controls, where there is nothing to find; random weights use the seed of the shuffles.
    pub fn controls(&self) -> Controls {
        let random = self.control.contains(&ControlKind::Random).then_some(self.seed);
        Controls { shuffled: self.control.contains(&ControlKind::Shuffled), random }
    }

    /// How heads are compared; `groups` is the field that groups the items.
    ///
    /// # Errors
    /// If a number is invalid.
    pub fn options(&self, groups: Option<&str>) -> Result<AttributeOptions> {
        let options = AttributeOptions {
            heads: self.heads,
            adjust: self.adjust,
            within: self.within.clone(),
            groups: groups.map(String::from),
            compat: Compat::None,
            shuffles: self.shuffles,
            folds: self.folds,
            repeats: self.repeats,
            resamples: self.resamples,
            seed: self.seed,
        };
        options.check()?;
        Ok(options)
    }
}

fn last_n() -> usize {
    Keep::LAST_N
}
/// Numbers as they are written; those that are no λ stay what they are, and are refused with their place.
fn lambdas<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<f32>, D::Error> {
    let read = |number: f64| match lambda_of(number) {
        None if number as f32 == 1.0 => Err(D::Error::custom(format!("lambda {number} is not {LAMBDAS}"))),
        lambda => Ok(lambda.unwrap_or(number as f32)),
    };
    Vec::<f64>::deserialize(deserializer)?.into_iter().map(read).collect()
}

fn shuffles() -> usize {
    AttributeOptions::SHUFFLES
}
fn folds() -> usize {
    AttributeOptions::FOLDS
}
fn repeats() -> usize {
    AttributeOptions::REPEATS
}
fn resamples() -> usize {
    AttributeOptions::RESAMPLES
}
fn min_cohort() -> usize {
    15
}

/// Which heads are swept, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// `top:k` or `top:k:direction` of the attribution, `all`, or a head list.
    pub heads: String,
    /// Each head alone, instead of all together.
    #[serde(default)]
    pub each: bool,
    /// The λ of the arms. 1 is the untouched model and always present; if it is listed twice, it is also a control.
    #[serde(deserialize_with = "lambdas")]
    pub lambdas: Vec<f32>,
    /// The seeds under which every arm answers, where answers are sampled; none stands for that of the sampling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<u64>,
    /// How many random head sets of the same size are drawn for each set.
    #[serde(default)]
    pub random_sets: usize,
    /// Seed for drawing them.
    #[serde(default)]
    pub random_seed: u64,
    /// Which heads they are drawn from: `model`, or `layers` for as many from each layer as the set has there.
    #[serde(default)]
    pub random_from: RandomFrom,
    /// The tokens that are touched: `all`, `prompt`, `response`, or `window:4..9` (positions from 0, both included).
    #[serde(default)]
    pub positions: Positions,
}

impl Experiment {
    /// Reads an experiment and makes its paths, which are relative to the file, absolute.
    ///
    /// # Errors
    /// If the file cannot be read, has an unknown or missing key, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(StudyError::read(path))?;
        let mut experiment: Self = parse_toml(path, &text)?;
        named_in_utf8(path)?;
        let base = path.parent().unwrap_or(Path::new("."));
        // Absolute, so that the file means the same wherever it is written to.
        let resolve = |relative: &mut PathBuf| -> Result<()> {
            *relative = std::path::absolute(base.join(&*relative)).map_err(StudyError::read(relative))?;
            Ok(())
        };
        resolve(&mut experiment.items.path)?;
        experiment.model.path.as_mut().map(resolve).transpose()?;
        experiment.judge.as_mut().map(|judge| resolve(&mut judge.hedges)).transpose()?;
        if let Some(sweep) = &mut experiment.sweep {
            sweep.heads = relative_to(base, &sweep.heads)?;
        }
        experiment.check()?;
        Ok(experiment)
    }

    /// Refuses an experiment that contradicts itself.
    ///
    /// # Errors
    /// If it does; the error says what is allowed.
    pub fn check(&self) -> Result<()> {
        self.contradiction().map_or(Ok(()), |why| Err(StudyError::Experiment { name: self.name.clone(), why }))
    }

    fn contradiction(&self) -> Option<String> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || !self.name.chars().all(plain) || self.name.starts_with('.') {
            return Some(format!("name '{}' must be letters, digits, -, _ and ., and not begin with a dot", self.name));
        }
        if self.model.path.is_some() == self.model.id.is_some() {
            return Some("[model] needs one of path and id".into());
        }
        if self.generate.max_new_tokens == 0 {
            return Some("[generate] max_new_tokens must be at least 1".into());
        }
        if self.generate.max_rows == Some(0) {
            return Some("[generate] max_rows must be at least 1".into());
        }
        if let Err(why) = self.generate.memory_bytes() {
            return Some(format!("[generate] {why}"));
        }
        if let Some(sweep) = &self.sweep {
            if sweep.lambdas.is_empty() {
                return Some("[sweep] lambdas must list at least one".into());
            }
            if sweep.seeds.len() > 1 && self.generate.sampling.temperature == 0.0 {
                let why = "but must be one at most at temperature 0: greedy answers do not depend on it";
                return Some(format!("[sweep] seeds are {:?}, {why}", sweep.seeds));
            }
            let distinct: BTreeSet<u64> = sweep.seeds.iter().copied().collect();
            if distinct.len() != sweep.seeds.len() {
                return Some(format!("[sweep] seeds are {:?}, but must be different numbers", sweep.seeds));
            }
            if sweep.random_sets == 0 && (sweep.random_seed, sweep.random_from) != (0, RandomFrom::default()) {
                return Some("[sweep] random_seed and random_from need random_sets, of which there are none".into());
            }
            if let Some(lambda) = sweep.lambdas.iter().find(|lambda| !is_lambda(**lambda)) {
                return Some(format!("[sweep] lambda {lambda} is not {LAMBDAS}"));
            }
        }
        if self.items.raw && self.model.thinking.is_some() {
            return Some("[model] thinking needs the chat template, which raw leaves out".into());
        }
        if self.items.raw && self.items.system.is_some() {
            return Some("[items] a system message needs the chat template, which raw leaves out".into());
        }
        let attribute = &self.attribute;
        if attribute.last_n == 0 {
            return Some("[attribute] last_n must be at least 1".into());
        }
        if attribute.a == attribute.b {
            return Some(format!("[attribute] a and b are both '{}', but must be two different labels", attribute.a));
        }
        if let Some(e) = attribute.options(self.items.groups.as_deref()).err() {
            return Some(e.to_string());
        }
        if self.items.limit == Some(0) {
            return Some("[items] limit must be at least 1".into());
        }
        self.generate.sampling.check().err().map(|e| format!("[generate] {e}"))
    }

    /// The experiment as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("plain data has a TOML form")
    }
}

#[cfg(test)]
mod tests;
