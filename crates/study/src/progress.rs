//! How far a stage is: the binary draws bars or lines from this.

/// Told how far a stage is.
pub trait Progress {
    /// A stage of `total` steps begins, `done` of them finished in an earlier run.
    fn begin(&mut self, stage: &str, total: usize, done: usize);
    /// One more step is finished.
    fn step(&mut self);
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
