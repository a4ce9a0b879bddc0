//! `temper`: which attention heads carry a behaviour, and is it real?
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 done, but a check did not hold; 2 could not
//! run; 130 was stopped; from `falsify` also 3, a gate failed, and 4, the items cannot decide.

mod args;
mod commands;
mod fail;
mod model;
mod stdout;
mod threads;
mod ui;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Args, Command},
    fail::Leaves,
};

/// How a command that could run ended.
pub(crate) enum Done {
    /// All is well.
    Well,
    /// A check did not hold.
    CheckFailed,
    /// A gate of a falsification failed.
    GateFailed,
    /// The items of a falsification cannot decide it.
    Inconclusive,
}

fn main() -> ExitCode {
    if stdout::was_closed() {
        // Before help and version, which are printed there as well.
        let why =
            "stdout is closed, so that all results printed there would be lost; give it a place, such as >/dev/null";
        return fail::report(&anyhow::anyhow!(why), Leaves::Nothing);
    }
    let args = Args::parse();
    let leaves = Leaves::of(&args.command);
    let chosen = headtemper_model::Level::chosen().and(headtemper_model::Kernels::chosen());
    if let Err(why) = chosen {
        return fail::report(&anyhow::anyhow!(why), leaves);
    }
    if args.no_graph {
        headtemper_model::Recording::forbid();
    }
    let result = threads::within(args.threads, || run(args.command)).and_then(|done| done);
    match result {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::CheckFailed) => ExitCode::from(1),
        Ok(Done::GateFailed) => ExitCode::from(3),
        Ok(Done::Inconclusive) => ExitCode::from(4),
        Err(error) => fail::report(&error, leaves),
    }
}

fn run(command: Command) -> anyhow::Result<Done> {
    match command {
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Capture(args) => commands::capture::run(&args),
        Command::Attribute(args) => commands::attribute::run(&args),
        Command::Judge(args) => commands::judge::run(&args),
        Command::Sweep(args) => commands::sweep::run(&args),
        Command::Score(args) => commands::score::run(&args),
        Command::Probe(args) => commands::probe::run(&args.command),
        Command::Gate(args) => commands::gate::run(&args),
        Command::Falsify(args) => commands::falsify::run(&args),
        Command::Merge(args) => commands::merge::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
    }
}
