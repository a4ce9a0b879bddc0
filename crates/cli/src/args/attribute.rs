//! What `temper attribute` takes.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, ValueEnum};
use headtemper_study::{AttributeOptions, TopHeads};

use super::{GroupArgs, HowArgs, ItemArgs, ModelArgs};

/// Which heads are ranked.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum HeadsOf {
    All,
    Attn,
    Linear,
}

/// What is taken out.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Adjust {
    /// The length of the response and its logarithm
    Length,
}

/// Whose arithmetic is used.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Compat {
    Dd,
}

/// Controls in which there is nothing to find.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum ControlOf {
    Shuffled,
    Random,
}

/// `temper attribute`
#[derive(ClapArgs)]
#[command(group = ArgGroup::new("source").required(true).args(["model", "features"]))]
#[command(group = ArgGroup::new("cohorts").required(true).multiple(true).args(["a", "b", "dispositions"]))]
pub(crate) struct Attribute {
    /// A directory in Hugging Face form, a .gguf file, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct
    #[arg(long)]
    model: Option<String>,
    /// Commit, branch or tag of a hub id
    #[arg(long)]
    revision: Option<String>,
    #[command(flatten)]
    how: HowArgs,
    /// The file that `temper capture --heads vector` wrote for the items, in place of a model: any number of comparisons from one
    /// reading; items whose texts differ from those in the file are refused
    #[arg(long, value_name = "FILE.npz", conflicts_with_all = [
        "revision", "device", "dtype", "products", "random", "raw", "thinking", "last_n", "compat",
    ])]
    pub(crate) features: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) items: ItemArgs,
    /// Label of the first cohort, compared with the second; d > 0 means louder in the first
    #[arg(long, requires = "b", conflicts_with = "dispositions", value_name = "LABEL")]
    pub(crate) a: Option<String>,
    /// Label of the second cohort
    #[arg(long, requires = "a", conflicts_with = "dispositions", value_name = "LABEL")]
    pub(crate) b: Option<String>,
    /// A file of dispositions and the conditions of their cohorts, such as configs/dispositions.toml: all in one pass over the
    /// texts; those for which the items do not suffice are skipped and named
    #[arg(long, value_name = "FILE")]
    pub(crate) dispositions: Option<PathBuf>,
    /// Only these of the file's dispositions, such as humble,persistent; one for which the items do not suffice is then an error
    #[arg(long, value_delimiter = ',', requires = "dispositions", value_name = "NAME,...")]
    pub(crate) only: Vec<String>,
    /// The directory to write
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Name of the disposition
    #[arg(long, conflicts_with = "dispositions")]
    pub(crate) name: Option<String>,
    /// Which heads are ranked: query heads of attention, value heads of delta nets, or all [default: all; attn with
    /// --compat dd]
    #[arg(long, value_enum)]
    pub(crate) heads: Option<HeadsOf>,
    /// How many of the last response tokens heads are averaged over [default: 32]
    #[arg(long, value_name = "N", conflicts_with = "compat")]
    pub(crate) last_n: Option<usize>,
    /// How often labels are shuffled for the null
    #[arg(long, default_value_t = AttributeOptions::SHUFFLES, value_name = "N")]
    pub(crate) shuffles: usize,
    /// Folds of the cross-fitted d; fewer where a cohort is small
    #[arg(long, default_value_t = AttributeOptions::FOLDS, value_name = "N")]
    pub(crate) folds: usize,
    /// How many times the items are split into folds
    #[arg(long, default_value_t = AttributeOptions::REPEATS, value_name = "N")]
    pub(crate) repeats: usize,
    /// Resamples of the bootstrap intervals; 0 leaves them out
    #[arg(long, default_value_t = AttributeOptions::RESAMPLES, value_name = "N")]
    pub(crate) resamples: usize,
    /// Seed of shuffles, folds and resamples
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Take this out of norms and vectors before anything is compared
    #[arg(long, value_enum)]
    pub(crate) adjust: Option<Adjust>,
    /// A field of the items, such as topic: its effect is taken out of norms and vectors, and labels are shuffled only among
    /// items with the same value
    #[arg(long, value_name = "FIELD")]
    pub(crate) within: Option<String>,
    #[command(flatten)]
    pub(crate) groups: GroupArgs,
    /// dd: build texts, d and ranking as the scripts of arXiv 2604.11867 do, and write their two files beside ours
    #[arg(long, value_enum)]
    pub(crate) compat: Option<Compat>,
    /// Repeat the analysis where there is nothing to find: with shuffled labels, with a model of the same geometry and random
    /// weights in f32, or with both
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT,...")]
    pub(crate) control: Vec<ControlOf>,
    /// attribution.json files of other models, whose rankings are shown beside this one
    #[arg(long, value_delimiter = ',', value_name = "FILE,...")]
    pub(crate) beside: Vec<PathBuf>,
    /// The heads of the list heads.json: the K with the largest |d|, or with K:direction those that lie farthest apart on held-out items
    #[arg(long, default_value = "5", value_name = "K")]
    pub(crate) top: TopHeads,
    /// λ of the head list; with it a λ table is written too
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) lambda: Option<f32>,
    /// The attribution as JSON on stdout instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

impl Attribute {
    /// The model and how it is run, as other commands have it; `None` if features take its place.
    pub(crate) fn model(&self) -> Option<ModelArgs> {
        let model = self.model.clone()?;
        Some(ModelArgs { model, revision: self.revision.clone(), how: self.how.clone() })
    }
}
