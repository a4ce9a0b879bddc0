//! What can be typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use headtemper_engine::{EngineError, GenerateOptions, ModelChoice, Sampling, StopRule, parse_bytes};
use headtemper_hook::Positions;
use headtemper_study::{Shard, StudyError};

/// Find out whether a behaviour of a language model sits in a few attention heads, and whether that is real.
#[derive(Parser)]
#[command(name = "temper", version, max_term_width = 110)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Threads of everything that is computed; the physical cores by default
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

/// The verbs.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// What has this model: layers, heads, widths, sites, stop tokens
    Inspect(Inspect),
    /// Generate text, under a head plan or not
    Generate(Generate),
    /// Dump h_last, layers, heads and logits of a data set to .npz
    Capture(Capture),
    /// Rank heads between two cohorts, with a report
    Attribute(Attribute),
    /// Generate for every prompt, λ and head set
    Sweep(Sweep),
    /// The causal map: what tempering each head does to the probability of recorded responses, with a report
    Score(Score),
    /// Join the shards of a sweep, a causal map or a capture
    Merge(Merge),
    /// All of an experiment from one TOML file; goes on where it stopped
    Run(Run),
    /// Write λ into the weights, as an ordinary checkpoint for other engines
    Export(Export),
    /// Measure prefill and decode speed of a model on this machine
    Bench(Bench),
    /// Prove that a model computes what it should on this machine: hooks, batches, cache, parity
    Verify(Verify),
    /// What this machine and this build have, and whether tiny models compute what they should on it
    Doctor(Doctor),
}

/// Which model, and how it is run.
#[derive(ClapArgs, Clone)]
pub(crate) struct ModelArgs {
    /// A directory in Hugging Face form, a .gguf file, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct
    #[arg(long)]
    pub(crate) model: String,
    /// Commit, branch or tag of a hub id
    #[arg(long)]
    pub(crate) revision: Option<String>,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

/// Which model, where a command is about the model itself.
#[derive(ClapArgs, Clone)]
pub(crate) struct NamedModelArgs {
    /// As --model
    #[arg(value_name = "MODEL", required_unless_present = "model", conflicts_with = "model")]
    named: Option<String>,
    /// A directory in Hugging Face form, a .gguf file, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct
    #[arg(long)]
    model: Option<String>,
    /// Commit, branch or tag of a hub id
    #[arg(long)]
    revision: Option<String>,
}

impl NamedModelArgs {
    /// The model, as the engine asks for it.
    pub(crate) fn choice(&self) -> ModelChoice {
        let model = self.named.clone().or_else(|| self.model.clone()).unwrap_or_default();
        ModelChoice { model, revision: self.revision.clone(), progress: true, ..ModelChoice::default() }
    }

    /// The model and how it is run, as other commands have it.
    pub(crate) fn run(&self, how: &HowArgs) -> ModelArgs {
        let ModelChoice { model, revision, .. } = self.choice();
        ModelArgs { model, revision, how: how.clone() }
    }
}

/// How a model is run.
#[derive(ClapArgs, Clone)]
pub(crate) struct HowArgs {
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// What weights are held in; auto keeps what the file has (f32 for quantised files), stored keeps the blocks of a GGUF
    /// file; q8_0 and the like round the weights once, and no activations
    #[arg(long, visible_alias = "weights", value_enum, default_value_t = Dtype::Auto)]
    pub(crate) dtype: Dtype,
    /// What linear layers multiply: f32, exact on the weights as they are held, or activations rounded to bf16, which is
    /// faster on CPUs with AVX512-BF16 and less exact (weights in bf16 only)
    #[arg(long, value_enum, default_value_t = ProductsOf::F32)]
    pub(crate) products: ProductsOf,
    /// Random weights from this seed; the model is then a config.json, such as configs/models/qwen3-0.6b.json
    #[arg(long, value_name = "SEED")]
    pub(crate) random: Option<u64>,
}

/// On or off.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    Off,
}

/// What weights are held in.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Dtype {
    Auto,
    F32,
    Bf16,
    F16,
    Stored,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_1")]
    Q4_1,
    #[value(name = "q5_0")]
    Q5_0,
    #[value(name = "q5_1")]
    Q5_1,
    #[value(name = "q4_k")]
    Q4K,
    #[value(name = "q5_k")]
    Q5K,
    #[value(name = "q6_k")]
    Q6K,
}

/// What linear layers multiply.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum ProductsOf {
    F32,
    Bf16,
}

/// Which items, and how they are read.
#[derive(ClapArgs, Clone)]
pub(crate) struct ItemArgs {
    /// JSONL: id, prompt (or messages, or input_ids), optional response, label, scores, gold
    #[arg(long)]
    pub(crate) items: PathBuf,
    /// Feed prompts as they stand, without the chat template
    #[arg(long)]
    pub(crate) raw: bool,
    /// Whether the model thinks before it answers a chat; its template decides if this is left out
    #[arg(long, value_enum, conflicts_with = "raw")]
    pub(crate) thinking: Option<Switch>,
    /// Only the first so many items
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

/// How tokens are chosen.
#[derive(ClapArgs, Clone)]
pub(crate) struct SamplingArgs {
    /// 0 is greedy
    #[arg(long, default_value_t = 0.0, value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub(crate) top_k: usize,
    /// Keep the smallest set of tokens that reaches this probability
    #[arg(long, default_value_t = 1.0, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: f32,
    /// Keep tokens with at least this share of the largest probability
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_negative_numbers = true)]
    pub(crate) min_p: f32,
    /// Above 1 makes tokens of prompt and answer less likely
    #[arg(long, default_value_t = 1.0, value_name = "R", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: f32,
    /// Above 0 makes tokens of the answer less likely, once each
    #[arg(long, default_value_t = 0.0, value_name = "R", allow_negative_numbers = true)]
    pub(crate) presence_penalty: f32,
    /// Seed of the sampling noise
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

impl SamplingArgs {
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed,
        }
    }
}

/// Which part of the work is done here.
#[derive(ClapArgs, Clone)]
pub(crate) struct ShardArgs {
    /// Only the i-th of n equal parts, such as 2/4, with an --out of its own; `temper merge` joins them
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub(crate) shard: Option<Shard>,
}

fn shard(text: &str) -> Result<Shard, StudyError> {
    text.parse()
}

/// How much is done at once.
#[derive(ClapArgs, Clone)]
pub(crate) struct BatchArgs {
    /// The most rows at once; fewer where memory is short [default: 32 where texts are generated]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_rows: Option<u32>,
    #[command(flatten)]
    memory: MemoryArgs,
}

/// How much memory is taken.
#[derive(ClapArgs, Clone)]
pub(crate) struct MemoryArgs {
    /// The most memory to take, the model's included, such as 8GiB; by default what the machine has available
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
}

impl MemoryArgs {
    /// The memory in bytes.
    ///
    /// # Errors
    /// If what was typed is no amount of memory.
    pub(crate) fn bytes(&self) -> Result<Option<u64>, EngineError> {
        self.memory.as_deref().map(parse_bytes).transpose()
    }
}

impl BatchArgs {
    /// Rows that are decoded together at most.
    pub(crate) fn max_rows(&self) -> usize {
        self.asked_rows().unwrap_or(GenerateOptions::default().max_rows)
    }

    /// What was typed for the rows.
    pub(crate) fn asked_rows(&self) -> Option<usize> {
        self.max_rows.map(|rows| rows as usize)
    }

    /// What was typed for the memory.
    pub(crate) fn asked_memory(&self) -> Option<&str> {
        self.memory.memory.as_deref()
    }

    /// The memory in bytes.
    ///
    /// # Errors
    /// If what was typed is no amount of memory.
    pub(crate) fn memory(&self) -> Result<Option<u64>, EngineError> {
        self.memory.bytes()
    }
}

/// Which tokens end a row.
#[derive(ClapArgs, Clone)]
pub(crate) struct StopArgs {
    /// Generate exactly as many tokens as --max-new-tokens says, through stop tokens: equal work for benchmarks
    #[arg(long)]
    ignore_eos: bool,
}

impl StopArgs {
    pub(crate) fn rule(&self) -> StopRule {
        if self.ignore_eos { StopRule::Never } else { StopRule::Model }
    }
}

/// Which heads get which λ.
#[derive(ClapArgs, Clone)]
pub(crate) struct PlanArgs {
    /// L7H6:0.5,L23H1:0.5, a .json file, a λ table .npz, or top:5@attribution.json
    #[arg(long)]
    pub(crate) plan: Option<String>,
    /// λ of heads that have none of their own
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) lambda: Option<f32>,
    /// Tokens that the plan touches: all, prompt, response, or window:4..9 (positions from 0, both included)
    #[arg(long, value_name = "WHERE")]
    pub(crate) positions: Option<Positions>,
}

/// `temper inspect`
#[derive(ClapArgs)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) model: NamedModelArgs,
    /// Where it would run: auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// What weights would be held in; auto is what the file has
    #[arg(long, visible_alias = "weights", value_enum, default_value_t = Dtype::Auto)]
    pub(crate) dtype: Dtype,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper generate`
#[derive(ClapArgs)]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The prompt; `-` reads it from stdin
    #[arg(required_unless_present = "items", conflicts_with = "items")]
    pub(crate) prompt: Option<String>,
    /// A system message before the prompt
    #[arg(long, conflicts_with_all = ["raw", "items"])]
    pub(crate) system: Option<String>,
    /// Many prompts: one JSON line of result an item, in the order they finish
    #[arg(long)]
    pub(crate) items: Option<PathBuf>,
    /// Feed the prompt as it stands, without the chat template
    #[arg(long)]
    pub(crate) raw: bool,
    /// Whether the model thinks before it answers a chat; its template decides if this is left out
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
    /// What was written as one JSON object on stdout
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
    /// Residual stream of these layers: all, none, or 0,4,8..12
    #[arg(long, default_value = "none")]
    pub(crate) layers: String,
    /// What is kept of each head: its mean norm over the last tokens, and the mean vector
    #[arg(long, value_enum, default_value_t = Heads::Norm)]
    pub(crate) heads: Heads,
    /// Heads are averaged over so many of the last response tokens
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub(crate) last_n: usize,
    /// Logits of the last token
    #[arg(long)]
    pub(crate) logits: bool,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    /// Only say what there is to do, how much memory and about how much time it takes; nothing is written
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// A summary as one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

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

/// Whose arithmetic.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Compat {
    Dd,
}

/// Where there is nothing to find.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum ControlOf {
    Shuffled,
    Random,
}

/// `temper attribute`
#[derive(ClapArgs)]
pub(crate) struct Attribute {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) items: ItemArgs,
    /// Label of the first cohort; d > 0 means louder in it
    #[arg(long, requires = "b", required_unless_present = "dispositions", conflicts_with = "dispositions")]
    pub(crate) a: Option<String>,
    /// Label of the second cohort
    #[arg(long, requires = "a", conflicts_with = "dispositions")]
    pub(crate) b: Option<String>,
    /// Dispositions and the conditions of their cohorts, such as configs/dispositions.toml: all from one pass over the
    /// texts; those that the items cannot fill are passed over and named
    #[arg(long, value_name = "FILE")]
    pub(crate) dispositions: Option<PathBuf>,
    /// Only these of the file's dispositions, such as humble,persistent; one that cannot be filled is then an error
    #[arg(long, value_delimiter = ',', requires = "dispositions", value_name = "NAMES")]
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
    /// Heads are averaged over so many of the last response tokens [default: 32]
    #[arg(long, value_name = "N", conflicts_with = "compat")]
    pub(crate) last_n: Option<usize>,
    /// How often labels are shuffled for the null
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) shuffles: usize,
    /// Folds of the cross-fitted d; fewer where a cohort is small
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) folds: usize,
    /// How often the items are dealt into folds
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) repeats: usize,
    /// Resamples of the bootstrap intervals; 0 leaves them out
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) resamples: usize,
    /// Seed of shuffles, folds and resamples
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Take this out of norms and vectors before anything is compared
    #[arg(long, value_enum)]
    pub(crate) adjust: Option<Adjust>,
    /// A field of the items, such as topic: what goes with its values is taken out of norms and vectors, and labels are
    /// shuffled among items of one value only
    #[arg(long, value_name = "FIELD")]
    pub(crate) within: Option<String>,
    /// dd: texts, d and ranking as in the scripts of arXiv 2604.11867, and their two files beside ours
    #[arg(long, value_enum)]
    pub(crate) compat: Option<Compat>,
    /// The same once more where there is nothing to find: labels shuffled, or a model of the same geometry with random
    /// weights in f32, or both
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    pub(crate) control: Vec<ControlOf>,
    /// attribution.json of other models, whose rankings are set beside this one
    #[arg(long, value_delimiter = ',', value_name = "FILES")]
    pub(crate) beside: Vec<PathBuf>,
    /// How many heads the head list heads.json holds
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub(crate) top: usize,
    /// λ of the head list, which is then written as a λ table too
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) lambda: Option<f32>,
    /// The attribution as JSON on stdout instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// `temper sweep`
#[derive(ClapArgs)]
pub(crate) struct Sweep {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) items: ItemArgs,
    /// Heads: L7H6,L23H1, all, a .json file, or top:5@attribution.json; repeat for several sets
    #[arg(long, required = true)]
    pub(crate) heads: Vec<String>,
    /// Each listed head alone, instead of a set together
    #[arg(long)]
    pub(crate) each: bool,
    /// λ values. 1 is the untouched model and always there; listed twice it is a control as well
    #[arg(long, value_delimiter = ',', required = true, allow_negative_numbers = true, alias = "lambdas")]
    pub(crate) lambda: Vec<f32>,
    /// Random head sets of the same size beside each set, at every λ but 1
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) random_sets: usize,
    /// Which random head sets
    #[arg(long, default_value_t = 0, requires = "random_sets")]
    pub(crate) random_seed: u64,
    /// Tokens that are touched: all, prompt, response, or window:4..9 (positions from 0, both included)
    #[arg(long, value_name = "WHERE", default_value_t = Positions::All)]
    pub(crate) positions: Positions,
    /// The directory to write
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// The most tokens of an answer
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Several seeds instead of one: a generation each
    #[arg(long, value_delimiter = ',', conflicts_with = "seed")]
    pub(crate) seeds: Vec<u64>,
    /// A lexicon of hedges, one phrase a line, to judge how assertive answers are
    #[arg(long)]
    pub(crate) hedges: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    #[command(flatten)]
    pub(crate) stop: StopArgs,
    /// Only say what there is to do, how much memory and about how much time it takes; nothing is written
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
    /// Heads, each tempered alone: all, L7H6,L23H1, a .json file, or top:5@attribution.json
    #[arg(long, default_value = "all")]
    pub(crate) heads: String,
    /// λ values
    #[arg(long, value_delimiter = ',', required = true, allow_negative_numbers = true, alias = "lambdas")]
    pub(crate) lambda: Vec<f32>,
    /// The directory to write; a second run computes only what is missing in it
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Label of a first cohort to compare with a second; d > 0 means Δ is higher in it
    #[arg(long, requires = "b")]
    pub(crate) a: Option<String>,
    /// Label of the second cohort
    #[arg(long, requires = "a")]
    pub(crate) b: Option<String>,
    /// Recompute everything for every head and λ: slow, the oracle
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
    /// The most tokens that are read at once; fewer where memory is short
    #[arg(long, default_value_t = 2048, value_name = "N")]
    pub(crate) batch_tokens: usize,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// Only say what there is to do, how much memory and about how much time it takes; nothing is written
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
    /// Another model than the file names: a path or a hub id
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Commit, branch or tag of a hub id
    #[arg(long)]
    pub(crate) revision: Option<String>,
    /// Another device than the file names
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Another dtype than the file names
    #[arg(long, visible_alias = "weights", value_enum)]
    pub(crate) dtype: Option<Dtype>,
    /// Other products of linear layers than the file names
    #[arg(long, value_enum)]
    pub(crate) products: Option<ProductsOf>,
    /// Only the first so many items
    #[arg(long)]
    pub(crate) limit: Option<usize>,
    /// The directory to write; runs/NAME by default
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    /// The report as JSON on stdout instead of tables
    #[arg(long)]
    pub(crate) json: bool,
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
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    pub(crate) rows: Vec<usize>,
    /// How often prefill is measured
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) repeat: usize,
    /// Decode under so many different plans of one head each, in turns: 0,16,256 compares them
    #[arg(long, value_delimiter = ',', value_name = "N", conflicts_with = "plan")]
    pub(crate) plans: Vec<usize>,
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
    /// What transformers computed for this model: golden.safetensors, with golden.json beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) golden: Option<PathBuf>,
    /// Skip the law that reads the weights once more, with a plan folded into them
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
