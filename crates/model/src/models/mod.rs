//! One file an architecture; the same parts in the same order: attention, MLP, layer, model.

pub(crate) mod llama;
