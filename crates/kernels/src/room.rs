//! Memory for results, and the splitting of their rows between threads.

use rayon::prelude::*;

use crate::Shared;

/// The memory of a result that a kernel writes once: neither zeroed nor read first.
pub(crate) struct Room {
    values: Vec<f32>,
    len: usize,
}

impl Room {
    /// Room for `len` values. In tests and debug builds they are NaN until written, so that tests notice a missing write.
    pub(crate) fn new(len: usize) -> Self {
        let mut values = Vec::with_capacity(len);
        if cfg!(any(debug_assertions, test)) {
            values.resize(len, f32::NAN);
            values.clear();
        }
        Self { values, len }
    }

    /// The start of the values; valid for writing all of them until [`Room::filled`].
    pub(crate) fn start(&mut self) -> Shared<f32> {
        Shared(self.values.as_mut_ptr())
    }

    /// The result.
    ///
    /// # Safety
    /// Every value must have been written.
    pub(crate) unsafe fn filled(mut self) -> Vec<f32> {
        // SAFETY: the capacity is `len`, and the caller has written that many values.
        unsafe { self.values.set_len(self.len) };
        self.values
    }
}

/// Vectorised operations that are worth handing to another thread: about ten microseconds.
const SHARE: usize = 256 * 1024;

/// How many tasks of `cost` operations make up one thread's share.
pub(crate) fn share(cost: usize) -> usize {
    (SHARE / cost.max(1)).max(1)
}

/// Runs `work` on each of `rows` rows of about `cost` operations, on all threads if there is enough work for two: a single
/// row never wakes another.
pub(crate) fn for_rows(rows: usize, cost: usize, work: impl Fn(usize) + Sync) {
    let share = share(cost);
    if rows < 2 * share {
        (0..rows).for_each(work);
    } else {
        (0..rows).into_par_iter().with_min_len(share).for_each(&work);
    }
}
