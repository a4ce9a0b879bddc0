//! What `temper probe` takes.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use headtemper_study::{
    StudyError,
    probe::{self, ASSERT_CORRECT, ColumnSource, FeatureSource, LabelSource},
};

/// `temper probe`
#[derive(ClapArgs)]
pub(crate) struct Probe {
    #[command(subcommand)]
    pub(crate) command: ProbeCommand,
}

/// What is done with a probe.
#[derive(Subcommand)]
pub(crate) enum ProbeCommand {
    /// Fit a linear probe, cross-validated, and save it
    Fit(ProbeFit),
    /// Measure a saved probe on other items
    Eval(ProbeEval),
    /// Count labelled items in a 2 x 2 table, right or wrong by asserted or hedged, and give its asymmetry
    Table(ProbeTable),
}

/// How items are weighted.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Weighting {
    None,
    Balanced,
}

impl From<Weighting> for probe::Weighting {
    fn from(weighting: Weighting) -> Self {
        match weighting {
            Weighting::None => Self::None,
            Weighting::Balanced => Self::Balanced,
        }
    }
}

/// Not a doc comment of the argument, because there the indices in brackets would read as links.
const FEATURES: &str = "FILE.npz:KEY, an array [items, features]; of [items, k, features] FILE.npz:KEY[2] or the mean \
                        FILE.npz:KEY[-4:]; h_last where no key is named";

/// Features and labels of the same items.
#[derive(ClapArgs)]
pub(crate) struct SetArgs {
    #[arg(long, value_name = "SOURCE", value_parser = features, help = FEATURES)]
    pub(crate) features: FeatureSource,
    /// FILE:COLUMN, of an .npz, a .json object holding an array (dots lead into objects), or a .jsonl; then a rule such as
    /// >=0.5 or ==cw, unless the values are 0 and 1
    #[arg(long, value_name = "SOURCE", value_parser = labels)]
    pub(crate) labels: LabelSource,
    /// FILE:COLUMN, whose values form groups, such as a topic: items of a group stay together in folds, shuffles and resamples, as
    /// those of one prompt always do
    #[arg(long, value_name = "SOURCE", value_parser = groups)]
    pub(crate) groups: Option<ColumnSource>,
}

/// How probabilities are measured.
#[derive(ClapArgs)]
pub(crate) struct MeasureArgs {
    /// The least p(assert | correct) that the best threshold must keep
    #[arg(long, default_value_t = ASSERT_CORRECT, value_name = "SHARE")]
    pub(crate) assert_correct: f64,
    /// Resamples of the bootstrap intervals; 0 leaves them out
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) resamples: usize,
}

/// `temper probe fit`
#[derive(ClapArgs)]
pub(crate) struct ProbeFit {
    #[command(flatten)]
    pub(crate) set: SetArgs,
    /// Inverse strengths of the penalty, scikit-learn's C: one fit for each
    #[arg(long, value_delimiter = ',', default_values_t = [1.0], value_name = "C")]
    pub(crate) c: Vec<f64>,
    /// Folds of the cross-validation; fewer where the smaller class has fewer items
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) cv: usize,
    /// Seed of the folds (scikit-learn's random_state), and of shuffles and resamples
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u32,
    /// Split items into folds in the order they stand, unshuffled
    #[arg(long)]
    pub(crate) no_shuffle: bool,
    /// Weight all items alike, or so that both classes weigh the same
    #[arg(long, value_enum, default_value_t = Weighting::None)]
    pub(crate) class_weight: Weighting,
    /// How often labels are shuffled for the null of the cross-validated AUC [default: 1000, fewer if that takes long]
    #[arg(long, value_name = "N")]
    pub(crate) shuffles: Option<usize>,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
    /// The directory to write: probe.safetensors, fit.json, predictions.npz
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// fit.json on stdout instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper probe eval`
#[derive(ClapArgs)]
pub(crate) struct ProbeEval {
    /// The directory that `temper probe fit` wrote, or its probe.safetensors
    pub(crate) probe: PathBuf,
    #[command(flatten)]
    pub(crate) set: SetArgs,
    /// Seed of the resamples
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) measure: MeasureArgs,
    /// A directory to write: eval.json, predictions.npz
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// eval.json on stdout instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper probe table`
#[derive(ClapArgs)]
pub(crate) struct ProbeTable {
    /// JSONL with labels cr, cw, hr, hw, such as judged.jsonl
    #[arg(long)]
    pub(crate) items: PathBuf,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

fn features(text: &str) -> Result<FeatureSource, StudyError> {
    text.parse()
}

fn groups(text: &str) -> Result<ColumnSource, StudyError> {
    text.parse()
}

fn labels(text: &str) -> Result<LabelSource, StudyError> {
    text.parse()
}
