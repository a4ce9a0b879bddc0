//! A tiny model of each architecture with seeded random weights, for checks where there is no checkpoint.

use std::path::Path;

use candle_core::Device;
use headtemper_model::{CausalLm, Config, load_random};

use crate::Result;

/// Every architecture by name, with the `config.json` of its tiny model.
pub const FAMILIES: [(&str, &str); 4] = [
    ("llama", include_str!("tiny/llama.json")),
    ("qwen3", include_str!("tiny/qwen3.json")),
    ("qwen3_5", include_str!("tiny/qwen3_5.json")),
    ("gemma4", include_str!("tiny/gemma4.json")),
];

/// Seed of the weights.
const SEED: u64 = 1;

/// The tiny model of a `config.json`, in f32.
///
/// # Errors
/// If the configuration is wrong or the device has no room.
pub fn tiny(config: &str, device: &Device) -> Result<Box<dyn CausalLm>> {
    Ok(load_random(&Config::from_json(config, Path::new("config.json"))?, SEED, device)?)
}
