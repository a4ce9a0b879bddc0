//! The command line: its verbs and options.

mod attribute;
mod falsify;
mod gate;
mod judge;
mod probe;
mod shared;
mod verbs;

use clap::{Parser, Subcommand};

pub(crate) use attribute::{Attribute, ControlOf, HeadsOf};
pub(crate) use falsify::Falsify;
pub(crate) use gate::Gate;
pub(crate) use judge::Judge;
pub(crate) use probe::{MeasureArgs, Probe, ProbeCommand, ProbeEval, ProbeFit, ProbeTable, SetArgs};
pub(crate) use shared::{
    BatchArgs, GroupArgs, HowArgs, ItemArgs, MemoryArgs, ModelArgs, NamedModelArgs, PlanArgs, SamplingArgs, ShardArgs,
    StopArgs, Switch,
};
pub(crate) use verbs::{
    Bench, Capture, Completions, Doctor, Drawn, Export, Generate, Heads, Inspect, Merge, Run, Score, Sweep, Verify,
};

/// Find out whether a behaviour of a language model sits in a few attention heads, and whether that is real.
#[derive(Parser)]
#[command(name = "temper", version, max_term_width = 110)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Number of threads for all computation; by default one per physical core, at most eight for each that can run, or 64
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// On CUDA, launch every operation of a decode step by itself instead of playing back a recorded step: slower, for comparison;
    /// other devices do so anyway
    #[arg(long, global = true)]
    pub(crate) no_graph: bool,
}

/// The verbs.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show what a model has: layers, heads, widths, sites, stop tokens
    Inspect(Inspect),
    /// Generate text, with or without a head plan
    Generate(Generate),
    /// Save h_last, layers, heads and logits of a data set to .npz
    Capture(Capture),
    /// Rank heads between two cohorts, with a report
    Attribute(Attribute),
    /// Label answers with a judge behind an OpenAI-compatible endpoint: coverage, delivery, rubric axes
    Judge(Judge),
    /// Generate for every prompt, λ and head set
    Sweep(Sweep),
    /// The causal map: what tempering each head does to the probability of recorded responses, with a report
    Score(Score),
    /// Linear probes on features of any .npz: fit, evaluate, count
    Probe(Probe),
    /// Put a probe through gates declared beforehand: cross-validation, fresh items, every score, pooled layers, another model
    Falsify(Falsify),
    /// Generate, read each finished answer with a frozen probe, and put a hedge before those it doubts
    Gate(Gate),
    /// Join the shards of a sweep, a causal map or a capture
    Merge(Merge),
    /// Run a whole experiment from one TOML file; a stopped run goes on where it stopped
    Run(Run),
    /// Write λ into the weights: an ordinary checkpoint for other engines
    Export(Export),
    /// Measure how fast a model prefills and decodes on this machine
    Bench(Bench),
    /// Prove that a model computes what it should on this machine: hooks, batches, cache, parity
    Verify(Verify),
    /// Show what this machine and this build offer, and whether tiny models compute what they should on it
    Doctor(Doctor),
    /// Print a script that completes these verbs and options in a shell
    Completions(Completions),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        let words = std::iter::once("temper").chain(line.split(' '));
        Args::try_parse_from(words).map(|args| args.command).map_err(|e| e.to_string())
    }

    #[test]
    fn all_that_can_be_typed_is_sound() {
        Args::command().debug_assert();
    }

    /// Whatever help shows as a default can be typed exactly as shown.
    #[test]
    fn defaults_are_shown_as_they_are_typed() {
        let mut shown = 0;
        for verb in Args::command().get_subcommands() {
            for option in verb.get_arguments().filter(|option| option.get_value_delimiter().is_some()) {
                let defaults = option.get_default_values();
                assert!(defaults.len() < 2, "{}: {} shows {defaults:?}", verb.get_name(), option.get_id());
                shown += defaults.len();
            }
        }
        assert_eq!(shown, 2, "of bench --rows and judge --tasks");
        let rows = |line: &str| match parse(line) {
            Ok(Command::Bench(bench)) => bench.rows,
            _ => panic!("{line}"),
        };
        assert_eq!(rows("bench --model m"), [1, 16]);
        assert_eq!(rows("bench --model m --rows 1,16"), [1, 16]);
        let tasks = |line: &str| match parse(line) {
            Ok(Command::Judge(judge)) => judge.tasks.len(),
            _ => panic!("{line}"),
        };
        let judge = "judge --items i --out o --endpoint u --judge-model j";
        assert_eq!((tasks(judge), tasks(&format!("{judge} --tasks coverage,delivery"))), (2, 2));
    }

    #[test]
    fn an_error_says_what_would_have_been_allowed() {
        for (line, parts) in [
            (
                "sweep --model m --items i --out o --heads all --lambda 1,0.5,",
                &[
                    "--lambda <LAMBDA,...>",
                    "(in f32, where nothing else may become 1); several have a comma between each two, such as 1,1,0.5",
                ][..],
            ),
            (
                "score --model m --items i --out o --lambda half",
                &["'half'", "--lambda <LAMBDA,...>", "must be a number from"],
            ),
            (
                "sweep --model m --items i --out o --heads all --lambda 1 --seeds 1,-2",
                &["'-2'", "--seeds <SEED,...>", "a whole number from 0 on", "such as 0,1,2"],
            ),
            ("bench --model m --rows 1,x", &["'x'", "--rows <N,...>", "such as 1,16"]),
            ("attribute --items i --out o --a x --b y", &["<--model <MODEL>|--features <FILE.npz>>"]),
            ("attribute --model m --items i --out o", &["<--a <LABEL>|--b <LABEL>|--dispositions <FILE>>"]),
            ("attribute --model m --items i --out o --a x", &["--b <LABEL>"]),
            ("attribute --model m --items i --out o --a x --b y --dispositions d", &["cannot be used with"]),
            ("attribute --model m --features f --items i --out o --a x --b y", &["cannot be used with"]),
            ("generate --model m", &["<PROMPT|--items <ITEMS>>"]),
            ("generate --model m hi --items i", &["cannot be used with"]),
            ("inspect", &["<MODEL|--model <MODEL>>"]),
        ] {
            let Err(why) = parse(line) else { panic!("{line} is accepted") };
            for part in parts {
                assert!(why.contains(part), "{line}: {part} is not in:\n{why}");
            }
        }
    }
}
