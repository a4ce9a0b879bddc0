//! What `temper gate` takes.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use headtemper_study::GenerateConfig;

use super::{BatchArgs, ItemArgs, ModelArgs, SamplingArgs};

/// `temper gate`
#[derive(ClapArgs)]
pub(crate) struct Gate {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) items: ItemArgs,
    /// The frozen probe: the directory that `temper probe fit` or `temper falsify` wrote, or its probe.safetensors
    #[arg(long)]
    pub(crate) probe: PathBuf,
    /// Which of the probe's values of C to use; by default the one that cross-validation chose
    #[arg(long)]
    pub(crate) c: Option<f64>,
    /// Below this probability (0 to 1) the prefix is put in front; by default the threshold chosen on the training items
    #[arg(long, value_name = "P")]
    pub(crate) threshold: Option<f64>,
    /// Where the probe reads, by default what its training file says: final_norm, or layers such as 26..29, whose mean is taken
    #[arg(long, value_name = "SITE")]
    pub(crate) site: Option<String>,
    /// What is put in front of an answer that the probe doubts
    #[arg(long, default_value = "I'm not sure, but ")]
    pub(crate) prefix: String,
    /// A lexicon of hedges, one phrase per line: an answer that contains one counts as hedged even without the gate; without a
    /// lexicon, answers that are generated or have none of the labels cr, cw, hr and hw count as asserted
    #[arg(long)]
    pub(crate) hedges: Option<PathBuf>,
    /// The directory to write: rows.jsonl, gated.jsonl, gate.json
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// The most tokens of an answer, for items without one
    #[arg(long, default_value_t = GenerateConfig::MAX_NEW_TOKENS, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    /// gate.json on stdout instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}
