//! One thread pool for all computation; the command itself runs on one of its threads.

use anyhow::{Context, Result};

/// Stack size of a thread, in bytes: what the main thread of a process usually has.
const STACK: usize = 8 << 20;

/// The most threads that are started for one that can run; some more than can run are harmless, many wait for each other.
const CROWD: usize = 8;
/// As many are allowed on any machine: whoever tries a number that a larger machine has gets it.
const ALWAYS: usize = 64;

/// Runs `command` on a pool of `threads` threads; `None` takes one per physical core.
///
/// Inside the pool a parallel operation begins on the calling thread, and the other threads take pieces of it as they find
/// time. Nothing is handed over, and a thread that another process keeps from running holds up only the piece it has begun.
/// Two threads of one core share its arithmetic units, so more threads than cores gain nothing.
pub(crate) fn within<T: Send>(threads: Option<usize>, command: impl FnOnce() -> T + Send) -> Result<T> {
    let most = allowed().saturating_mul(CROWD).max(ALWAYS);
    let count = match threads {
        Some(count) => count,
        // Set for all programs, perhaps on a larger machine.
        None => default_threads()?.min(most),
    };
    anyhow::ensure!((1..=most).contains(&count), "--threads is {count}, but must be 1 to {most}");
    let builder = rayon::ThreadPoolBuilder::new().num_threads(count).stack_size(STACK);
    builder.build_global().context("cannot start the threads")?;
    Ok(rayon::scope(|_| command()))
}

/// `RAYON_NUM_THREADS` if it is set; else the number of physical cores, at most as many as this process may use.
fn default_threads() -> Result<usize> {
    if let Some(text) = std::env::var_os("RAYON_NUM_THREADS").filter(|text| !text.is_empty()) {
        let named = text.to_str().and_then(|text| text.trim().parse::<usize>().ok());
        let text = text.display();
        let named = named.with_context(|| format!("RAYON_NUM_THREADS is '{text}', but must be a whole number"))?;
        // Rayon's own 0: as if it were not there.
        if named > 0 {
            return Ok(named);
        }
    }
    Ok(num_cpus::get_physical().clamp(1, allowed()))
}

/// Threads of this process that can run at once.
fn allowed() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
