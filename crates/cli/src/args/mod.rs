//! What can be typed.

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
    BatchArgs, Dtype, GroupArgs, HowArgs, ItemArgs, MemoryArgs, ModelArgs, NamedModelArgs, PlanArgs, ProductsOf,
    SamplingArgs, ShardArgs, StopArgs, Switch,
};
pub(crate) use verbs::{
    Bench, Capture, Doctor, Drawn, Export, Generate, Heads, Inspect, Merge, Run, Score, Sweep, Verify,
};

/// Find out whether a behaviour of a language model sits in a few attention heads, and whether that is real.
#[derive(Parser)]
#[command(name = "temper", version, max_term_width = 110)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Threads of everything that is computed; the physical cores by default
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// On CUDA, ask for every operation of a decode step by itself, not for a recorded step at once: slower, and for comparison;
    /// elsewhere that is so anyway
    #[arg(long, global = true)]
    pub(crate) no_graph: bool,
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
    /// Label answers by a judge behind an OpenAI-compatible endpoint: coverage, delivery, rubric axes
    Judge(Judge),
    /// Generate for every prompt, λ and head set
    Sweep(Sweep),
    /// The causal map: what tempering each head does to the probability of recorded responses, with a report
    Score(Score),
    /// Linear probes on features of any .npz: fit, evaluate, count
    Probe(Probe),
    /// A probe through gates declared beforehand: cross-validation, fresh items, every score, pooled layers, another model
    Falsify(Falsify),
    /// Generate, read each finished answer with a frozen probe, and put a hedge before those that it doubts
    Gate(Gate),
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
