//! How far a stage is: the binary draws bars or lines from this.

/// Is told how far a stage is; from whichever thread watches it, one at a time.
pub trait Progress: Send {
    /// A stage of `total` steps begins, `done` of them finished in an earlier run.
    fn begin(&mut self, stage: &str, total: usize, done: usize);
    /// One more step is finished.
    fn step(&mut self);
    /// This many more tokens are read, or written where texts are generated.
    fn tokens(&mut self, _count: usize) {}
    /// How many tokens the stage is expected to take in all, those of [`Progress::tokens`] included. The time left follows from
    /// tokens better than from steps of unequal size.
    fn expect(&mut self, _tokens: usize) {}
    /// The same, where so many is the most that there can be.
    fn expect_at_most(&mut self, tokens: usize) {
        self.expect(tokens);
    }
    /// What share of the stage's work is done, from 0 to 1; given where neither steps nor tokens cost the same.
    fn share(&mut self, _done: f64) {}
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

/// How many tokens rows of unknown length will come to. Short rows end first, so the mean over finished rows would be too low.
/// Instead, a row is taken to end after a token as often as rows have ended in all tokens so far, those of running rows included.
pub(crate) struct Lengths {
    most: usize,
    unfinished: usize,
    finished: usize,
    tokens: usize,
}

impl Lengths {
    /// For `rows` rows that may have `most` tokens together.
    pub(crate) fn up_to(rows: usize, most: usize) -> Self {
        Self { most, unfinished: rows, finished: 0, tokens: 0 }
    }

    /// Some row has one more token.
    pub(crate) fn token(&mut self) {
        self.tokens += 1;
    }

    /// A row is done.
    pub(crate) fn done(&mut self) {
        self.unfinished -= 1;
        self.finished += 1;
    }

    /// Tells how many tokens to expect of all rows, those that are there included.
    pub(crate) fn tell(&self, progress: &mut dyn Progress) {
        match self.expected() {
            Some(tokens) => progress.expect(tokens),
            None => progress.expect_at_most(self.most),
        }
    }

    /// How many tokens to expect; none if nothing is known but the most that there can be.
    fn expected(&self) -> Option<usize> {
        let expected = self.tokens + (self.unfinished * self.tokens).checked_div(self.finished)?;
        (expected < self.most).then_some(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_done_say_what_the_others_will_come_to() {
        let mut lengths = Lengths::up_to(4, 400);
        assert_eq!(lengths.expected(), None, "it is not known yet");
        (0..60).for_each(|_| lengths.token());
        lengths.done();
        assert_eq!(lengths.expected(), Some(60 + 3 * 60));
        (0..40).for_each(|_| lengths.token());
        lengths.done();
        assert_eq!(lengths.expected(), Some(100 + 2 * 50));
        lengths.done();
        lengths.done();
        assert_eq!(lengths.expected(), Some(100));
    }

    #[test]
    fn one_short_row_of_many_says_only_what_there_can_be_at_most() {
        let mut lengths = Lengths::up_to(100, 6400);
        (0..200).for_each(|_| lengths.token());
        lengths.done();
        assert_eq!(lengths.expected(), None);
    }
}
