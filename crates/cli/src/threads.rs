//! One pool of threads for all that is computed, and the command itself on one of them.

use anyhow::{Context, Result};

/// Stack of a thread: what the main thread of a process usually has.
const STACK: usize = 8 << 20;

/// Runs `command` on a pool of `threads`, the physical cores if none are named.
///
/// Inside the pool a parallel operation begins where it stands, and the other threads take pieces of it as they find
/// time: nothing is handed over, and a thread that another process keeps from running holds up no more than the piece it
/// has begun. Two threads of one core share its arithmetic units, so that more threads than cores win nothing.
pub(crate) fn within<T: Send>(threads: Option<usize>, command: impl FnOnce() -> T + Send) -> Result<T> {
    anyhow::ensure!(threads != Some(0), "--threads is 0, but must be at least 1");
    let count = threads.unwrap_or_else(default_threads);
    let builder = rayon::ThreadPoolBuilder::new().num_threads(count).stack_size(STACK);
    builder.build_global().context("cannot start the threads")?;
    Ok(rayon::scope(|_| command()))
}

/// The physical cores, as far as this process may use them; `RAYON_NUM_THREADS` where it is set.
fn default_threads() -> usize {
    let named = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok()).filter(|&count| count > 0);
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    named.unwrap_or_else(|| num_cpus::get_physical().clamp(1, allowed))
}
