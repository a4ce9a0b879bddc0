//! The arguments of those verbs that have no file of their own here.

use std::{path::PathBuf, str::FromStr};

use clap::{ArgGroup, Args as ClapArgs, ValueEnum};
use headtemper_engine::{EngineError, Keep, Pool, Sampling, StopRule};
use headtemper_hook::{LAMBDAS, Positions};
use headtemper_model::{HoldAs, Products};
use headtemper_study::{Answering, GenerateConfig};

use super::{
    BatchArgs, GroupArgs, HowArgs, ItemArgs, MemoryArgs, ModelArgs, NamedModelArgs, PlanArgs, SamplingArgs, ShardArgs,
    StopArgs, Switch,
    shared::{held, lambda, multiplied},
};

/// `temper inspect`
#[derive(ClapArgs)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) model: NamedModelArgs,
    /// Where the model would run: auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// What weights would be held in; auto is the file's dtype
    #[arg(long, visible_alias = "weights", value_parser = held(), default_value_t)]
    pub(crate) dtype: HoldAs,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper generate`
#[derive(ClapArgs)]
#[command(group = ArgGroup::new("asked").required(true).args(["prompt", "items"]))]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The prompt; `-` reads it from stdin
    pub(crate) prompt: Option<String>,
    /// A system message before the prompt, or every prompt
    #[arg(long, conflicts_with = "raw", value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Many prompts: one JSON line per result, in the order they finish
    #[arg(long)]
    pub(crate) items: Option<PathBuf>,
    /// Feed the prompt as it stands, without the chat template
    #[arg(long)]
    pub(crate) raw: bool,
    /// Whether the model thinks before it answers a chat; if left out, its template decides
    #[arg(long, value_enum, conflicts_with = "raw")]
    pub(crate) thinking: Option<Switch>,
    /// The most tokens of the answer
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    #[command(flatten)]
    pub(crate) stop: StopArgs,
    /// One JSON object on stdout instead of the text as it comes
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper export`
#[derive(ClapArgs)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) model: NamedModelArgs,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// The directory to write
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Describe what was written as one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is kept of each head.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Heads {
    None,
    Norm,
    Vector,
}

/// `temper capture`
#[derive(ClapArgs)]
pub(crate) struct Capture {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) items: ItemArgs,
    /// The .npz file to write
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Residual stream of these layers: all, none, or 0,4,8..12,last:2
    #[arg(long, default_value = "none")]
    pub(crate) layers: String,
    /// The mean residual stream of the last K layers as well
    #[arg(long, value_name = "K")]
    pub(crate) mean_layers: Option<usize>,
    /// Hidden states of the last token, or averaged: last, last:N or response
    #[arg(long, default_value_t = Pool::Last, value_name = "WHERE", value_parser = pool)]
    pub(crate) pool: Pool,
    /// What is kept of each head: nothing, its mean norm over the last tokens, or that and its mean vector
    #[arg(long, value_enum, default_value_t = Heads::Norm)]
    pub(crate) heads: Heads,
    /// How many of the last response tokens heads are averaged over
    #[arg(long, default_value_t = Keep::LAST_N, value_name = "N")]
    pub(crate) last_n: usize,
    /// Logits of the last token
    #[arg(long)]
    pub(crate) logits: bool,
    #[command(flatten)]
    pub(crate) answers: AnswerArgs,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
    /// Items per written part; a stopped run goes on after its last part [default: at most 1024]
    #[arg(long, value_name = "N")]
    pub(crate) part_items: Option<usize>,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    /// Only say what there is to do, and how much memory and about how much time it takes; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// A summary as one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whether and how `temper capture` lets the model answer.
#[derive(ClapArgs)]
pub(crate) struct AnswerArgs {
    /// The model answers each item itself, and is read as it writes
    #[arg(long)]
    pub(crate) generate: bool,
    /// A file of items to write as well, with --generate: these, with the answers
    #[arg(long, requires = "generate", value_name = "FILE.jsonl")]
    pub(crate) answers: Option<PathBuf>,
    /// The most tokens of an answer, with --generate [default: 256]
    #[arg(long, requires = "generate", value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) stop: StopArgs,
}

impl AnswerArgs {
    /// The most tokens of an answer, by default.
    const MAX_NEW_TOKENS: usize = 256;

    /// How the model answers, if it is to.
    ///
    /// # Errors
    /// If settings are given that would have no effect.
    pub(crate) fn answering(&self) -> anyhow::Result<Option<Answering>> {
        let (sampling, stop) = (self.sampling.sampling(), self.stop.rule());
        if self.generate {
            let max_new_tokens = self.max_new_tokens.unwrap_or(Self::MAX_NEW_TOKENS);
            return Ok(Some(Answering { max_new_tokens, sampling, stop }));
        }
        anyhow::ensure!(
            sampling == Sampling::default() && stop == StopRule::Model,
            "--temperature, --top-k, --top-p, --min-p, --repetition-penalty, --presence-penalty, --seed and --ignore-eos \
             say how answers are written: they need --generate"
        );
        Ok(None)
    }
}

fn pool(text: &str) -> Result<Pool, EngineError> {
    text.parse()
}

/// Which heads random sets are drawn from.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Drawn {
    Model,
    Layers,
}

/// One value of a list with commas.
fn of_list<T: FromStr>(text: &str, kind: &str, example: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| not_of_list(kind, example))
}

fn not_of_list(kind: &str, example: &str) -> String {
    format!("must be {kind}; several have a comma between each two, such as {example}")
}

fn lambda_of_list(text: &str) -> Result<f32, String> {
    lambda(text).ok_or_else(|| not_of_list(LAMBDAS, "1,1,0.5"))
}

fn seed_of_list(text: &str) -> Result<u64, String> {
    of_list(text, "a whole number from 0 on", "0,1,2")
}

fn count_of_list(text: &str) -> Result<usize, String> {
    of_list(text, "a whole number", "1,16")
}

/// `temper sweep`
#[derive(ClapArgs)]
pub(crate) struct Sweep {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) items: ItemArgs,
    #[command(flatten)]
    pub(crate) groups: GroupArgs,
    /// A set of heads: L7H6,L23H1, all, a .json file without λ, or top:5@attribution.json (top:5:direction@… ranks by direction); give --heads again for each further set
    #[arg(long, required = true)]
    pub(crate) heads: Vec<String>,
    /// Each listed head alone, instead of a set together
    #[arg(long)]
    pub(crate) each: bool,
    /// λ values, such as 1,1,0.5. 1 is the untouched model and always included; listed twice, it is a control as well
    #[arg(long, value_delimiter = ',', required = true, allow_hyphen_values = true, alias = "lambdas",
        value_name = "LAMBDA,...", value_parser = lambda_of_list)]
    pub(crate) lambda: Vec<f32>,
    /// How many random head sets of the same size go with each set, at every λ but 1
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) random_sets: usize,
    /// Seed of the random head sets
    #[arg(long, default_value_t = 0, requires = "random_sets")]
    pub(crate) random_seed: u64,
    /// Where their heads are drawn from: the whole model, or from each layer as many as the set has there
    #[arg(long, value_name = "WHERE", default_value = "model", requires = "random_sets")]
    pub(crate) random_from: Drawn,
    /// Tokens that are touched: all, prompt, response, or window:4..9 (positions from 0, both included)
    #[arg(long, value_name = "WHERE", default_value_t = Positions::All)]
    pub(crate) positions: Positions,
    /// The directory to write
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// The most tokens of an answer
    #[arg(long, default_value_t = GenerateConfig::MAX_NEW_TOKENS, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Several seeds instead of one, such as 0,1,2: one generation for each
    #[arg(long, value_delimiter = ',', conflicts_with = "seed", value_name = "SEED,...", value_parser = seed_of_list)]
    pub(crate) seeds: Vec<u64>,
    /// A lexicon of hedges, one phrase per line, to judge how assertive answers are
    #[arg(long)]
    pub(crate) hedges: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    #[command(flatten)]
    pub(crate) stop: StopArgs,
    /// Only say what there is to do, and how much memory and about how much time it takes; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The outcomes as JSON on stdout instead of tables
    #[arg(long, conflicts_with = "shard")]
    pub(crate) json: bool,
}

/// `temper merge`
#[derive(ClapArgs)]
pub(crate) struct Merge {
    /// The directory or .npz file to write
    pub(crate) out: PathBuf,
    /// What `--shard 1/n` to `n/n` wrote, in any order
    #[arg(required = true, value_name = "SHARD")]
    pub(crate) shards: Vec<PathBuf>,
    /// The result as JSON on stdout: the outcomes of a sweep, the map of a scoring, or a summary of a capture
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper score`
#[derive(ClapArgs)]
pub(crate) struct Score {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) items: ItemArgs,
    #[command(flatten)]
    pub(crate) groups: GroupArgs,
    /// The heads, each tempered alone: all, L7H6,L23H1, a .json file without λ, or top:5@attribution.json
    #[arg(long, default_value = "all")]
    pub(crate) heads: String,
    /// λ values, such as 0,0.5
    #[arg(long, value_delimiter = ',', required = true, allow_hyphen_values = true, alias = "lambdas",
        value_name = "LAMBDA,...", value_parser = lambda_of_list)]
    pub(crate) lambda: Vec<f32>,
    /// The directory to write; a second run computes only what is missing in it, and its map covers both runs
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Label of a first cohort to compare with a second; d > 0 means Δ is higher in it
    #[arg(long, requires = "b")]
    pub(crate) a: Option<String>,
    /// Label of the second cohort
    #[arg(long, requires = "a")]
    pub(crate) b: Option<String>,
    /// Recompute everything for every head and λ: slow, the reference for the fast way
    #[arg(long)]
    pub(crate) plain: bool,
    /// How often signs are flipped, and labels shuffled, for the nulls
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) shuffles: usize,
    /// Seed of flips and shuffles
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
    /// The most tokens that are read at once, by default 2048 on a CPU and 16384 on a GPU; fewer if memory is short
    #[arg(long, value_name = "N")]
    pub(crate) batch_tokens: Option<usize>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// Only say what there is to do, and how much memory and about how much time it takes; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The map as JSON on stdout instead of tables
    #[arg(long, conflicts_with = "shard")]
    pub(crate) json: bool,
}

/// `temper run`
#[derive(ClapArgs)]
pub(crate) struct Run {
    /// The experiment
    pub(crate) file: PathBuf,
    /// A model to use instead of the file's: a path or a hub id
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Commit, branch or tag of a hub id
    #[arg(long)]
    pub(crate) revision: Option<String>,
    /// A device to use instead of the file's
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// A dtype to use instead of the file's
    #[arg(long, visible_alias = "weights", value_parser = held())]
    pub(crate) dtype: Option<HoldAs>,
    /// Products of linear layers to use instead of the file's
    #[arg(long, value_parser = multiplied())]
    pub(crate) products: Option<Products>,
    /// Use only the first LIMIT items
    #[arg(long)]
    pub(crate) limit: Option<usize>,
    /// The directory to write; runs/NAME by default
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    /// Only say what there is to do, and how much memory and about how much time it takes; write nothing
    #[arg(long = "dry-run")]
    pub(crate) dry: bool,
    /// The report as JSON on stdout instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper completions`
#[derive(ClapArgs)]
#[command(after_help = "In bash, for one session: source <(temper completions bash)")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `temper bench`
#[derive(ClapArgs)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Prompt tokens that are read at once
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) prompt_tokens: usize,
    /// Decode steps
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) new_tokens: usize,
    /// Rows that are decoded together
    #[arg(long, value_delimiter = ',', default_value = "1,16", value_name = "N,...", value_parser = count_of_list)]
    pub(crate) rows: Vec<usize>,
    /// How often prefill and whole answers are measured
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) repeat: usize,
    /// Decode under this many different plans of one head each; 0,16,256 compares three numbers, taking turns step by step (whole
    /// answers: one after another)
    #[arg(long, value_delimiter = ',', value_name = "N,...", value_parser = count_of_list, conflicts_with = "plan")]
    pub(crate) plans: Vec<usize>,
    /// Measure whole answers as jobs write them, including prompt reading and token choice, instead of single decode steps
    #[arg(long)]
    pub(crate) whole: bool,
    /// Of each prompt, the tokens that all of them begin with, as a chat template's do: read once under each plan, and copied to the others
    #[arg(long, default_value_t = 0, value_name = "N", requires = "whole")]
    pub(crate) shared_tokens: usize,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper verify`
#[derive(ClapArgs)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) model: NamedModelArgs,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// A file of what transformers computed for this model: golden.safetensors, with golden.json beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) golden: Option<PathBuf>,
    /// Skip the law that reads the weights a second time, with a plan folded into them
    #[arg(long)]
    pub(crate) quick: bool,
    /// One JSON object on stdout instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper doctor`
#[derive(ClapArgs)]
pub(crate) struct Doctor {
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
