//! Room for results, and the rows of them that threads share.

use rayon::prelude::*;

use crate::Shared;

/// The memory of a result that a kernel writes once: taken as it is, neither zeroed nor read before.
pub(crate) struct Room {
    values: Vec<f32>,
    len: usize,
}

impl Room {
    /// Room for `len` values. In tests and debug builds they are NaN until they are written, so that tests see one left out.
    pub(crate) fn new(len: usize) -> Self {
        let mut values = Vec::with_capacity(len);
        if cfg!(any(debug_assertions, test)) {
            values.resize(len, f32::NAN);
            values.clear();
        }
        Self { values, len }
    }

    /// Where the values go; valid for writes of all of them until [`Room::filled`].
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

/// Operations, of loops that run on vectors, that are worth handing to another thread: about ten microseconds.
const SHARE: usize = 256 * 1024;

/// How many tasks of `cost` operations make a thread's share.
pub(crate) fn share(cost: usize) -> usize {
    (SHARE / cost.max(1)).max(1)
}

/// Runs `work` on each of `rows` rows of about `cost` operations, on all threads where there is enough for two: a row
/// alone never wakes one.
pub(crate) fn for_rows(rows: usize, cost: usize, work: impl Fn(usize) + Sync) {
    let share = share(cost);
    if rows < 2 * share {
        (0..rows).for_each(work);
    } else {
        (0..rows).into_par_iter().with_min_len(share).for_each(&work);
    }
}
