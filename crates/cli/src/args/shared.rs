//! What several verbs take: a model and how it is run, items, sampling, shards, batches, plans.

use std::path::PathBuf;

use clap::{
    ArgGroup, Args as ClapArgs, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use headtemper_engine::{Engine, EngineError, ModelChoice, Sampling, StopRule, parse_bytes};
use headtemper_hook::{LAMBDAS, Positions, lambda_of};
use headtemper_model::{HoldAs, Products};
use headtemper_study::{ItemsFrom, PlanSource, Predicate, ReadAs, Shard, StudyError};

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

/// Which model, for a command that is about the model itself.
#[derive(ClapArgs, Clone)]
#[command(group = ArgGroup::new("which").required(true).args(["named", "model"]))]
pub(crate) struct NamedModelArgs {
    /// The same as --model
    #[arg(value_name = "MODEL")]
    named: Option<String>,
    /// A directory in Hugging Face form, a .gguf file, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct
    #[arg(long)]
    model: Option<String>,
    /// Commit, branch or tag of a hub id
    #[arg(long)]
    revision: Option<String>,
}

impl NamedModelArgs {
    /// The model, in the engine's form.
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
    /// What weights are held in; auto keeps the file's dtype (f32 for quantised files), stored keeps the blocks of a GGUF
    /// file; q8_0 and the like round the weights once, and never the activations
    #[arg(long, visible_alias = "weights", value_parser = held(), default_value_t)]
    pub(crate) dtype: HoldAs,
    /// What linear layers multiply: f32 activations, exact for the weights as they are held; or activations rounded to bf16,
    /// which is less exact and faster on CPUs with AVX512-BF16 (needs weights in bf16)
    #[arg(long, value_parser = multiplied(), default_value_t)]
    pub(crate) products: Products,
    /// Use random weights from this seed; the model is then a config.json, such as configs/models/qwen3-0.6b.json
    #[arg(long, value_name = "SEED")]
    pub(crate) random: Option<u64>,
}

/// On or off.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    Off,
}

/// Reads what weights are held in, and lists it in the help.
pub(super) fn held() -> impl TypedValueParser<Value = HoldAs> {
    PossibleValuesParser::new(HoldAs::all().map(|hold| hold.to_string())).try_map(|name| name.parse())
}

/// Reads what linear layers multiply, and lists it in the help.
pub(super) fn multiplied() -> impl TypedValueParser<Value = Products> {
    PossibleValuesParser::new(Products::ALL.map(|products| products.to_string())).try_map(|name| name.parse())
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
    /// Whether the model thinks before it answers a chat; if left out, its template decides
    #[arg(long, value_enum, conflicts_with = "raw")]
    pub(crate) thinking: Option<Switch>,
    /// A system message before every prompt
    #[arg(long, conflicts_with = "raw", value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Use only items for which this holds, such as 'topic == "capitals"' or '!correct && scores.curiosity >= 4'
    #[arg(id = "where", long = "where", value_name = "CONDITION", value_parser = Predicate::parse)]
    pub(crate) only: Option<Predicate>,
    /// Use only the first LIMIT of them
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

impl ItemArgs {
    /// # Errors
    /// If the limit is 0.
    pub(crate) fn read_as(&self) -> anyhow::Result<ReadAs> {
        anyhow::ensure!(self.limit != Some(0), "--limit is 0, but must be at least 1");
        Ok(ReadAs { raw: self.raw, system: self.system.clone(), only: self.only.clone(), limit: self.limit })
    }

    /// Where the items come from.
    pub(crate) fn from(&self) -> ItemsFrom<'_> {
        ItemsFrom { path: &self.items, only: self.only.as_ref() }
    }
}

/// Which items depend on each other as the answers to one prompt do.
#[derive(ClapArgs, Clone)]
pub(crate) struct GroupArgs {
    /// A field of the items whose values form groups, such as topic, or response to group identical answers: items of a group
    /// stay together in every shuffle, fold and resample, as the answers to one prompt always do
    #[arg(long, value_name = "FIELD")]
    pub(crate) groups: Option<String>,
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
    /// Keep tokens whose probability is at least this share of the largest
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_negative_numbers = true)]
    pub(crate) min_p: f32,
    /// Above 1 makes tokens that are in the prompt or answer less likely
    #[arg(long, default_value_t = 1.0, value_name = "R", allow_negative_numbers = true)]
    pub(crate) repetition_penalty: f32,
    /// Above 0 makes tokens that are already in the answer less likely, by the same amount however often they occur
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

/// Which part of the work this run does.
#[derive(ClapArgs, Clone)]
pub(crate) struct ShardArgs {
    /// Do only the i-th of n equal parts, such as 2/4, with an --out of its own; `temper merge` joins them
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub(crate) shard: Option<Shard>,
}

fn shard(text: &str) -> Result<Shard, StudyError> {
    text.parse()
}

/// How much is done at once.
#[derive(ClapArgs, Clone)]
pub(crate) struct BatchArgs {
    /// The most rows at once; fewer if memory is short [default: 32 where texts are generated, 1024 on a GPU]
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
    /// If what was typed is not an amount of memory.
    pub(crate) fn bytes(&self) -> Result<Option<u64>, EngineError> {
        self.memory.as_deref().map(parse_bytes).transpose()
    }
}

impl BatchArgs {
    /// The most rows that are decoded together.
    pub(crate) fn max_rows(&self, engine: &Engine) -> usize {
        self.asked_rows().unwrap_or_else(|| engine.rows_at_once())
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
    /// If what was typed is not an amount of memory.
    pub(crate) fn memory(&self) -> Result<Option<u64>, EngineError> {
        self.memory.bytes()
    }
}

/// Which tokens end a row.
#[derive(ClapArgs, Clone)]
pub(crate) struct StopArgs {
    /// Generate exactly --max-new-tokens tokens, past any stop tokens: equal work for benchmarks
    #[arg(long)]
    ignore_eos: bool,
}

impl StopArgs {
    pub(crate) fn rule(&self) -> StopRule {
        if self.ignore_eos { StopRule::Never } else { StopRule::Model }
    }
}

fn one_lambda(text: &str) -> Result<f32, String> {
    lambda(text).ok_or_else(|| format!("must be {LAMBDAS}; several λ take a call each, or temper sweep"))
}

/// A λ as it was typed, if it is one.
pub(super) fn lambda(text: &str) -> Option<f32> {
    text.trim().parse().ok().and_then(lambda_of)
}

/// Which heads get which λ.
#[derive(ClapArgs, Clone)]
pub(crate) struct PlanArgs {
    /// L7H6:0.5,L23H1:0.5, a .json file, a λ table .npz (one row per item; lambda.npz#NAME for a variant of a sweep), or
    /// top:5@attribution.json
    #[arg(long)]
    pub(crate) plan: Option<String>,
    /// λ for heads that have none of their own
    #[arg(long, requires = "plan", allow_negative_numbers = true, value_parser = one_lambda)]
    pub(crate) lambda: Option<f32>,
    /// Tokens that the plan touches: all, prompt, response, or window:4..9 (positions from 0, both included)
    #[arg(long, requires = "plan", value_name = "WHERE")]
    pub(crate) positions: Option<Positions>,
}

impl PlanArgs {
    /// What was typed, in the study's form; none if there is no plan.
    pub(crate) fn source(&self) -> Option<PlanSource<'_>> {
        let (lambda, positions) = (self.lambda, self.positions);
        self.plan.as_deref().map(|text| PlanSource { text, lambda, positions })
    }
}
