//! One integration binary: goldens, laws, sites, GGUF, text, the real model, the hub, the command line, layering.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a surprise is a failure, and the measured share is shown"
)]

mod attribute;
mod bad_input;
mod batches;
mod branched;
mod captures;
mod chats;
mod checkpoint;
#[cfg(feature = "cuda")]
mod chosen;
mod cli;
#[cfg(feature = "cuda")]
mod cuda;
mod export;
mod families;
mod features;
mod forms;
mod gguf;
mod golden;
mod groups;
mod handed_on;
mod hub;
mod interrupted;
mod items;
mod judge;
mod lab;
mod laws;
mod layering;
mod memory;
mod played;
mod probe;
mod quantised;
mod real;
mod real_heads;
mod resume;
mod runs;
mod score;
mod score_shards;
mod score_verb;
mod shapes;
mod shards;
mod sites;
mod states;
mod sweeps;
mod text;
mod verify;
