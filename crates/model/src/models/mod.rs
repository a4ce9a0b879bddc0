//! One file an architecture; the same parts in the same order: attention or other mixers, layer, model.

pub(crate) mod gemma4;
pub(crate) mod llama;
pub(crate) mod qwen3;
pub(crate) mod qwen3_5;
