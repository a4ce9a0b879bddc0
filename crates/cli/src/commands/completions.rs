//! `temper completions`: a script that completes verbs and options in a shell.

use anyhow::Result;
use clap::CommandFactory;

use crate::{
    Done,
    args::{Args, Completions},
    ui,
};

pub(crate) fn run(args: &Completions) -> Result<Done> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "temper", &mut script);
    ui::put(&String::from_utf8(script)?)?;
    Ok(Done::Well)
}
