//! How far a stage is: the binary draws bars or lines from this.

/// Told how far a stage is.
pub trait Progress {
    /// A stage of `total` steps begins, `done` of them finished in an earlier run.
    fn begin(&mut self, stage: &str, total: usize, done: usize);
    /// One more step is finished.
    fn step(&mut self);
    /// So many more tokens are read, or written where texts are generated.
    fn tokens(&mut self, _count: usize) {}
    /// How many tokens the stage is expected to come to, those of [`Progress::tokens`] included; the time that is left
    /// follows from them better than from steps of unequal size.
    fn expect(&mut self, _tokens: usize) {}
    /// The stage is over.
    fn end(&mut self);
    /// Something the user should know.
    fn note(&mut self, text: &str);
}

/// Says nothing.
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: usize, _: usize) {}
    fn step(&mut self) {}
    fn end(&mut self) {}
    fn note(&mut self, _: &str) {}
}

/// What rows of unknown length will come to: those that are done say how much of their limit rows use.
#[derive(Default)]
pub(crate) struct Lengths {
    most: usize,
    finished: usize,
    finished_most: usize,
}

impl Lengths {
    /// Of rows that may have so many tokens together.
    pub(crate) fn up_to(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// A row is done that could have had `most` tokens and has `tokens`.
    pub(crate) fn done(&mut self, tokens: usize, most: usize) {
        self.finished += tokens;
        self.finished_most += most;
    }

    /// The tokens of all rows, those that are done included.
    pub(crate) fn expected(&self) -> usize {
        let left = self.most.saturating_sub(self.finished_most);
        match self.finished_most {
            0 => self.most,
            most => self.finished + (left as f64 * self.finished as f64 / most as f64) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_rows_say_what_the_others_will_come_to() {
        let mut lengths = Lengths::up_to(400);
        assert_eq!(lengths.expected(), 400);
        lengths.done(25, 100);
        assert_eq!(lengths.expected(), 100);
        lengths.done(75, 100);
        assert_eq!(lengths.expected(), 200);
        lengths.done(100, 200);
        assert_eq!(lengths.expected(), 200);
    }
}
