//! What can go wrong in a study.

use std::path::{Path, PathBuf};

use headtemper_engine::EngineError;
use headtemper_hook::PlanError;

use crate::text::count;

/// Why a study cannot be run, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A plan cannot be used.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Lines of an item file that cannot be used.
    #[error("{} has lines that cannot be used:\n{}", path.display(), problems.join("\n"))]
    Items {
        /// The file.
        path: PathBuf,
        /// Line numbers and reasons.
        problems: Vec<String>,
    },
    /// A file's content is not what it should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A cohort without enough members.
    #[error(
        "cohort '{name}' has {}, but {needed} are needed; its condition is {condition}; labels in the data: {labels}",
        count(*found, "item")
    )]
    Cohort {
        /// The cohort.
        name: String,
        /// Which items it has.
        condition: String,
        /// Its items.
        found: usize,
        /// The fewest that make sense.
        needed: usize,
        /// Every label with its count.
        labels: String,
    },
    /// None of the dispositions that were asked for has its cohorts in the items.
    #[error("{}: {why}", no_cohorts(*count, name))]
    NoCohorts {
        /// How many were asked for.
        count: usize,
        /// The name of the first.
        name: String,
        /// Why it has none.
        why: String,
    },
    /// An experiment that contradicts itself.
    #[error("experiment '{name}': {why}")]
    Experiment {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// An option that does not fit the others.
    #[error("{what} is {found}, but must be {allowed}")]
    Option {
        /// The option.
        what: String,
        /// Its value.
        found: String,
        /// What would have been allowed.
        allowed: String,
    },
    /// The output directory holds something else.
    #[error("{} belongs to another run: {why}", dir.display())]
    OtherRun {
        /// The directory.
        dir: PathBuf,
        /// What differs.
        why: String,
    },
    /// Another process works in the output directory.
    #[error("{} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// No probe can be fitted.
    #[error("{}: {source}", unfit(what, source))]
    Fit {
        /// The features or labels.
        what: String,
        /// Why.
        source: headtemper_stats::FitError,
    },
    /// Items that are called fresh but are not.
    #[error("{count} items of {fresh} have {what}: {examples}")]
    Overlap {
        /// The fresh items.
        fresh: String,
        /// How many overlap.
        count: usize,
        /// In what.
        what: String,
        /// Some of them.
        examples: String,
    },
    /// A judge's server cannot be used, or is gone.
    #[error("{address} {why}")]
    Endpoint {
        /// Its address, which holds no credentials.
        address: String,
        /// The status it answered with, if that is the reason.
        status: Option<u16>,
        /// What is wrong with it.
        why: String,
    },
    /// Parts that do not make up a run.
    #[error("these shards cannot be merged: {why}")]
    Merge {
        /// What is wrong with them.
        why: String,
    },
}

impl StudyError {
    /// Advice that goes with the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(e) => e.hint(),
            Self::Plan(e) => e.hint(),
            Self::Items { .. } => Some(
                "an item is {\"id\":\"a1\",\"prompt\":\"...\"} with optional response, label, scores and gold; messages \
                 or input_ids may stand for prompt"
                    .into(),
            ),
            Self::Cohort { labels, .. } if labels.contains("unlabelled") => Some(
                "an item brings a label, or a run gives its answer one of cr, cw, hr and hw: by the item's gold and the lexicon of [judge] \
                 hedges"
                    .into(),
            ),
            Self::OtherRun { dir, .. } if dir.is_file() => Some("choose another --out, or remove the file".into()),
            Self::OtherRun { dir, .. } if dir.is_dir() => Some("choose another --out, or remove the directory".into()),
            Self::OtherRun { .. } => Some("choose another --out".into()),
            Self::Fit { source: headtemper_stats::FitError::OneClass { .. }, .. } => {
                Some("choose a rule that splits the items, such as FILE:coverage>=0.5".into())
            }
            Self::Overlap { .. } => {
                Some("what a probe has seen tests nothing: leave these items out of the fresh set, or out of training".into())
            }
            Self::InUse { .. } => Some("wait until it ends, or choose another --out; every shard needs its own".into()),
            Self::Endpoint { status, .. } => Some(
                match status {
                    Some(401 | 403) => "set the key in the environment: OPENAI_API_KEY, or the variable that --key-env names",
                    Some(429) => "see to the account's quota; answers are kept, and the same command goes on",
                    Some(404 | 405) => {
                        "check --endpoint, which mostly ends in /v1 (/chat/completions is put behind it), and --judge-model"
                    }
                    Some(300..=399) => "give the address that it points to as --endpoint; nothing is sent after a redirect",
                    Some(_) => "check --judge-model and --max-tokens; the server says what it does not take",
                    None => {
                        "check that the server is up and --endpoint is right; answers are kept, and the same command goes on"
                    }
                }
                .into(),
            ),
            Self::Write { source, .. } if no_room(source) => {
                Some("free some space and run the same command again; what is finished is kept".into())
            }
            _ => None,
        }
    }

    /// Whether the user asked to stop.
    pub fn interrupted(&self) -> bool {
        match self {
            Self::Engine(EngineError::Interrupted) => true,
            Self::Engine(EngineError::Receiver(inner)) => inner.downcast_ref::<Self>().is_some_and(Self::interrupted),
            _ => false,
        }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Write { path, source }
    }

    pub(crate) fn fit(what: impl Into<String>, source: headtemper_stats::FitError) -> Self {
        Self::Fit { what: what.into(), source }
    }

    pub(crate) fn merge(why: impl Into<String>) -> Self {
        Self::Merge { why: why.into() }
    }

    /// The error for a setting without meaning, with what would be allowed.
    pub(crate) fn option(what: impl Into<String>, found: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self::Option { what: what.into(), found: found.into(), allowed: allowed.into() }
    }

    pub(crate) fn content(path: &Path, why: impl std::fmt::Display) -> Self {
        Self::Content { path: path.into(), why: why.to_string() }
    }
}

/// Which features or labels do not fit a probe; values that are not numbers cannot be used at all.
fn unfit(what: &str, why: &headtemper_stats::FitError) -> String {
    match why {
        headtemper_stats::FitError::NotFinite { .. } => format!("{what} cannot be used"),
        _ => format!("no probe can be fitted on {what}"),
    }
}

/// Which dispositions lack their cohorts.
fn no_cohorts(count: usize, name: &str) -> String {
    match count {
        1 => format!("disposition '{name}' has no cohorts in these items"),
        _ => format!("none of {count} dispositions has its cohorts in these items; the first, '{name}'"),
    }
}

/// Whether nothing more can be written: the disk, a quota or a limit on the size of files is reached.
fn no_room(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Carries an error of ours through a callback of the engine.
pub(crate) fn through(error: StudyError) -> EngineError {
    EngineError::Receiver(Box::new(error))
}

/// Takes an error of ours out of the engine's again.
pub(crate) fn back(error: EngineError) -> StudyError {
    match error {
        EngineError::Receiver(inner) => match inner.downcast::<StudyError>() {
            Ok(ours) => *ours,
            Err(other) => StudyError::Engine(EngineError::Receiver(other)),
        },
        other => StudyError::Engine(other),
    }
}
