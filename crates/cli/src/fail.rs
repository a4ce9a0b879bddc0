//! Errors as a user reads them: what failed, why, and what to do.

use std::process::ExitCode;

use headtemper_engine::EngineError;
use headtemper_hook::PlanError;
use headtemper_model::ModelError;
use headtemper_study::StudyError;

use crate::{args::Command, ui};

/// What a stopped command leaves behind.
#[derive(Clone, Copy)]
pub(crate) enum Leaves {
    /// The finished rows or replies, each written as it came.
    Rows,
    /// The finished parts.
    Parts,
    /// The answers, but not what was computed from them.
    Answers,
    /// Only what was printed.
    Printed,
    /// Nothing, though a model has read the items.
    Readings,
    /// Nothing.
    Nothing,
}

impl Leaves {
    /// What this command leaves if it is stopped.
    pub(crate) fn of(command: &Command) -> Self {
        match command {
            Command::Capture(_) => Self::Parts,
            Command::Run(_) => Self::Answers,
            Command::Generate(_) => Self::Printed,
            Command::Attribute(args) if args.features.is_none() => Self::Readings,
            Command::Sweep(_) | Command::Score(_) | Command::Judge(_) | Command::Gate(_) => Self::Rows,
            _ => Self::Nothing,
        }
    }

    /// The message for the user, and a hint if there is a better way.
    fn said(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Rows => ("stopped; what was written stays, and the same command does what is missing", None),
            Self::Parts => {
                ("stopped; the parts that were finished stay, and the same command goes on behind them", None)
            }
            Self::Answers => (
                "stopped; what was written stays, and the same command does what is missing: answers are kept row by row, an \
                 attribution only whole",
                None,
            ),
            Self::Printed => ("stopped; only what was printed is there, and the same command begins anew", None),
            Self::Readings => (
                "stopped; nothing was kept, and the same command begins anew",
                Some(
                    "`temper capture --heads vector`, which goes on where it stopped, and `temper attribute --features` on what it \
                     wrote do the same in two steps",
                ),
            ),
            Self::Nothing => ("stopped; nothing was kept, and the same command begins anew", None),
        }
    }
}

/// The exit code of a command that could not run.
const COULD_NOT: u8 = 2;

/// Writes an error to stderr, followed by its causes and a hint if there is one. `leaves` says what the command leaves behind
/// if it was stopped. Returns the exit code.
pub(crate) fn report(error: &anyhow::Error, leaves: Leaves) -> ExitCode {
    if interrupted(error) {
        let (text, hint) = leaves.said();
        ui::say(text);
        say_hint(hint);
        return ExitCode::from(ui::STOPPED);
    }
    let mut said = plain(&error.to_string());
    let mut text = format!("error: {said}");
    for cause in error.chain().skip(1) {
        let cause = plain(&cause.to_string());
        // Some messages quote their cause already.
        if !said.contains(&cause) {
            text += &format!(": {cause}");
        }
        said += &cause;
    }
    ui::say(&text);
    say_hint(hint(error).as_deref());
    ExitCode::from(COULD_NOT)
}

fn say_hint(hint: Option<&str>) {
    if let Some(hint) = hint {
        ui::say(&format!("hint: {hint}"));
    }
}

/// A message without the stack trace that candle appends when backtraces are enabled.
fn plain(message: &str) -> String {
    message.split("\n   0: ").next().unwrap_or_default().trim_end().into()
}

fn interrupted(error: &anyhow::Error) -> bool {
    error.downcast_ref::<StudyError>().is_some_and(StudyError::interrupted)
        || matches!(error.downcast_ref::<EngineError>(), Some(EngineError::Interrupted))
}

fn hint(error: &anyhow::Error) -> Option<String> {
    error
        .downcast_ref::<StudyError>()
        .and_then(StudyError::hint)
        .or_else(|| error.downcast_ref::<EngineError>().and_then(EngineError::hint))
        .or_else(|| error.downcast_ref::<ModelError>().and_then(ModelError::hint))
        .or_else(|| error.downcast_ref::<PlanError>().and_then(PlanError::hint))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    #[test]
    fn what_is_left_is_said_as_it_is() {
        let said = |line: &str| {
            let args = Args::try_parse_from(std::iter::once("temper").chain(line.split(' '))).unwrap();
            Leaves::of(&args.command).said()
        };
        let items = "--items i --out o";
        for line in
            [format!("sweep --model m {items} --heads all --lambda 0"), format!("score --model m {items} --lambda 0")]
        {
            let (text, hint) = said(&line);
            assert!(text.contains("what was written stays") && hint.is_none(), "{line}: {text}");
        }
        assert!(said(&format!("capture --model m {items}")).0.contains("parts that were finished stay"));
        assert!(said("run x.toml").0.contains("an attribution only whole"));
        assert!(said("generate --model m hi").0.contains("only what was printed"));
        let (text, hint) = said(&format!("attribute --model m {items} --a x --b y"));
        assert!(
            text.contains("nothing was kept") && hint.unwrap().contains("`temper capture --heads vector`"),
            "{text}"
        );
        let (text, hint) = said(&format!("attribute --features f {items} --a x --b y"));
        assert!(text.contains("nothing was kept") && hint.is_none(), "{text}");
    }
}
