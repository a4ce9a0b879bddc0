//! Who waits for long arithmetic: sees how many steps are done, and may stop it between two of them.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use headtemper_engine::EngineError;

use crate::{Progress, Result};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);

/// What the threads that compute share with the one that waits.
#[derive(Default)]
pub(crate) struct Watch<'a> {
    stop: Option<&'a AtomicBool>,
    steps: AtomicUsize,
}

impl<'a> Watch<'a> {
    /// Of work that `stop`, set from outside, ends.
    pub(crate) fn new(stop: Option<&'a AtomicBool>) -> Self {
        Self { stop, steps: AtomicUsize::new(0) }
    }

    /// Counts a step.
    pub(crate) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a step, and counts it.
    ///
    /// # Errors
    /// If the work is to stop: the step is not taken.
    pub(crate) fn take<T>(&self, step: impl FnOnce() -> T) -> Result<T> {
        EngineError::if_stopped(self.stop)?;
        let taken = step();
        self.step();
        Ok(taken)
    }

    /// Does the work, while another thread tells its steps. Not the other way round: whoever calls may be one
    /// of rayon's threads, without which the work would wait for ever.
    ///
    /// # Errors
    /// Those of the work. If it is to stop, even though it was done by then.
    pub(crate) fn during<T>(&self, progress: &mut dyn Progress, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut told = 0;
        let mut tell = move || {
            let steps = self.steps.load(Ordering::Relaxed);
            (told..steps).for_each(|_| progress.step());
            told = steps;
        };
        let done = thread::scope(|scope| {
            let (over, wait) = sync_channel::<()>(1);
            scope.spawn(move || {
                while wait.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    tell();
                }
                tell();
            });
            let _over = over; // closed when the work ends, however it does
            work()
        })?;
        EngineError::if_stopped(self.stop)?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    struct Steps(usize);

    impl Progress for Steps {
        fn begin(&mut self, _: &str, _: usize, _: usize) {}
        fn step(&mut self) {
            self.0 += 1;
        }
        fn end(&mut self) {}
        fn note(&mut self, _: &str) {}
    }

    /// The whole program runs in one of rayon's threads, which may be the only one.
    #[test]
    fn one_thread_is_enough() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (watch, mut steps) = (Watch::default(), Steps(0));
        let work = || (0..5).into_par_iter().map(|x| watch.take(|| x)).collect::<Result<Vec<_>>>();
        let all = pool.install(|| watch.during(&mut steps, work)).unwrap();
        assert_eq!((all, steps.0), (vec![0, 1, 2, 3, 4], 5));
    }

    #[test]
    fn steps_are_told_while_others_are_at_work() {
        let (watch, mut steps) = (Watch::default(), Steps(0));
        let sum = watch.during(&mut steps, || (0..5).map(|x| watch.take(|| x)).sum::<Result<i32>>()).unwrap();
        assert_eq!((sum, steps.0), (10, 5));

        let stop = AtomicBool::new(false);
        let (watch, mut steps) = (Watch::new(Some(&stop)), Steps(0));
        let work = || -> Result<()> {
            watch.take(|| stop.store(true, Ordering::Relaxed))?;
            watch.take(|| panic!("it was to stop"))
        };
        assert!(watch.during(&mut steps, work).unwrap_err().interrupted());
        assert_eq!(steps.0, 1);
        // What comes after the steps is not stopped, but it does not count either.
        assert!(watch.during(&mut steps, || Ok(())).unwrap_err().interrupted());
    }
}
