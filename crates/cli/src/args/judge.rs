//! What `temper judge` takes.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args as ClapArgs, ValueEnum};
use headtemper_study::{JudgeTask, Patience, Predicate};

/// What is asked for.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum TaskOf {
    /// Which claims or accepted answers the response makes
    Coverage,
    /// Whether the response asserts or hedges
    Delivery,
    /// How strongly the response shows each axis, from 1 to 5
    Rubric,
}

impl TaskOf {
    pub(crate) fn task(self) -> JudgeTask {
        match self {
            Self::Coverage => JudgeTask::Coverage,
            Self::Delivery => JudgeTask::Delivery,
            Self::Rubric => JudgeTask::Rubric,
        }
    }
}

/// `temper judge`
#[derive(ClapArgs)]
#[command(group = ArgGroup::new("answers").required(true).args(["items", "sweep"]))]
pub(crate) struct Judge {
    /// JSONL: id, prompt (or messages) and response, with claims (a list of texts) or gold (accepted answers) for coverage
    #[arg(long)]
    pub(crate) items: Option<PathBuf>,
    /// The directory of a finished sweep, instead of items: its answers are judged, and its arms compared by the verdicts
    #[arg(long, value_name = "DIR")]
    pub(crate) sweep: Option<PathBuf>,
    /// The directory to write
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// The server's address, such as http://127.0.0.1:8000/v1; /chat/completions is appended
    // Checked by the command, not the parser: the parser repeats what it refuses, and an address may hold a secret.
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: String,
    /// The server's name for the judge model
    #[arg(long = "judge-model", value_name = "NAME")]
    pub(crate) model: String,
    /// What the judge is asked for
    #[arg(long, value_enum, value_delimiter = ',', default_value = "coverage,delivery", value_name = "TASK,...")]
    pub(crate) tasks: Vec<TaskOf>,
    /// Axes of the rubric, by their own names or those of their dispositions; all if left out
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) axes: Vec<String>,
    /// A directory with your own prompts; by default the built-in ones, which are those of configs/judge
    #[arg(long, value_name = "DIR")]
    pub(crate) prompts: Option<PathBuf>,
    /// A cache of answers that several runs share, instead of DIR/answers.jsonl
    #[arg(long, value_name = "FILE")]
    pub(crate) cache: Option<PathBuf>,
    /// The most tokens of a reply
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_tokens: u32,
    #[command(flatten)]
    asking: AskingArgs,
    /// The environment variable that holds the key; by default OPENAI_API_KEY, if it is set
    #[arg(long, value_name = "NAME")]
    pub(crate) key_env: Option<String>,
    /// Use only items for which this holds, such as 'topic == "capitals"'
    #[arg(id = "where", long = "where", value_name = "CONDITION", value_parser = Predicate::parse, conflicts_with = "sweep")]
    pub(crate) only: Option<Predicate>,
    /// Use only the first N items; of a sweep, the answers to its first N items
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Only say what there is to ask; ask and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// judge.json on stdout instead of the tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// How the server is asked.
#[derive(ClapArgs)]
struct AskingArgs {
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    concurrency: u32,
    /// The most requests in this call, retries included
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u64).range(1..))]
    budget: Option<u64>,
    /// Begin no request once the server has counted this many tokens in this call
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..))]
    token_budget: Option<u64>,
    /// How long the server may take to answer
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    timeout: Duration,
    /// How often a question is asked again after 429, 5xx, a timeout or a broken connection
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..=20))]
    retries: u32,
    /// The pause before the first retry; each further pause is twice as long
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    backoff: Duration,
}

impl Judge {
    pub(crate) fn patience(&self) -> Patience {
        let asking = &self.asking;
        Patience {
            concurrency: asking.concurrency as usize,
            retries: asking.retries,
            backoff: asking.backoff,
            timeout: asking.timeout,
            budget: asking.budget,
            token_budget: asking.token_budget,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| !time.is_zero() && time.as_secs() <= 86_400).ok_or_else(|| "must be seconds, above 0".into())
}
