//! One integration binary: goldens, laws, sites, GGUF, the real model, the hub, the command line, layering.

mod bad_input;
mod cli;
mod gguf;
mod golden;
mod hub;
mod laws;
mod layering;
mod real;
mod sites;
