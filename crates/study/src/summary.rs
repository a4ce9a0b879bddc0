//! What a verb that makes a report ends with.

/// What a person is shown of a report at its end, and what becomes of the exit code.
#[derive(Debug)]
pub struct RunSummary {
    /// The result for a terminal: rankings, maps and outcomes as tables.
    pub text: String,
    /// What a reader must know before any number.
    pub warnings: Vec<String>,
    /// Whether a check of the experiment did not hold.
    pub check_failed: bool,
}
