//! One file per architecture; the same parts in the same order: attention or other token mixers, layer, model.

pub(crate) mod gemma4;
pub(crate) mod llama;
pub(crate) mod qwen3;
pub(crate) mod qwen3_5;
