//! The few operations that candle lacks or runs slowly, each a candle custom op beside its oracle.
//!
//! Every operation here has a CPU path (SIMD, chosen at run time), most have a CUDA kernel, and all have a `*_reference` in
//! plain candle ops, which serves other devices and is the oracle in tests. [`Kernels`] says which of them run.
//!
//! **Batch invariance.** On the CPU every output element is accumulated in an order that depends only on its own row: not on
//! how many rows are processed with it, nor on the thread count. A sequence gives the same bits alone or in any batch,
//! prefilled at once or decoded token by token, so any difference between two arms of a sweep is due to the intervention.
//! The instruction set does change the order; [`Level::best`] is what this machine runs.

#![allow(
    clippy::inline_always,
    reason = "a vector operation must end up inside the function that enables its instructions"
)]
#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by row and column, as they are drawn")]

mod activation;
mod angles;
mod attention;
mod choose;
mod conv;
mod decay;
mod delta;
mod delta_net;
mod device;
mod dot;
mod gate;
mod gpu;
mod heads;
mod lambda;
mod linear;
mod matrix;
mod norm;
mod place;
mod ranges;
mod record;
mod room;
mod score;
mod serving;
mod simd;
mod spans;
mod state;
#[cfg(test)]
mod testing;

pub use activation::{
    gelu_mul, gelu_mul_reference, gelu_mul_with, silu_mul, silu_mul_reference, softcap, softcap_reference,
};
pub use angles::{angles, angles_reference};
pub use attention::{AttentionSpan, attend, attend_reference};
pub use choose::{Choice, Chosen, Draw, Penalties, TextTokens, choose, chooses_on_device};
pub use conv::{causal_conv, causal_conv_reference};
pub use decay::{delta_gates, delta_gates_reference};
pub use delta::{delta_rule, delta_rule_reference};
pub use delta_net::{DeltaNet, delta_net, delta_net_in_steps};
pub use device::{fastest, free_memory, is_out_of_memory, open_cuda, reason};
pub use gate::{gated_norm, gated_norm_reference, sigmoid_gate, sigmoid_gate_reference};
pub use gpu::{ATTEND_SPLIT, DecodeRow, DecodeRows, DecodeSize, GPU_LOGITS, attend_partial_bytes};
pub use heads::{HeadSteps, HeadsOf, attended_heads, attended_heads_reference, heads, heads_reference};
pub use linear::{linear, linear_add, linear_columns, linear_reference, logits};
pub use matrix::{Blocks, Held, Matrix, MatrixBuilder, Products};
pub use norm::{
    Join, Norm, add, add_reference, add_rms_norm, add_rms_norm_reference, join, join_in_steps, rms_norm,
    rms_norm_reference,
};
pub use ranges::{HeadStats, head_stats, head_stats_reference, range_means, range_means_reference};
pub use record::{Operations, Recording};
pub use score::{BaseRows, HeadScore, SpoiltRow, score_head, score_head_reference, spoilt_row};
pub use serving::Kernels;
pub use simd::Level;
pub use spans::{SpanRow, Spans};
pub use state::StateSpan;

/// A pointer shared by the threads of one operation, each of which writes its own elements.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: every use splits the output into elements that exactly one task writes and no task reads.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer; a method, so that closures capture the wrapper and not the bare field.
    fn get(self) -> *mut T {
        self.0
    }
}
