//! Errors as a user reads them: what failed, why, and what to do.

use headtemper_engine::EngineError;
use headtemper_hook::PlanError;
use headtemper_model::ModelError;
use headtemper_study::StudyError;

use crate::ui;

/// Writes an error to stderr, its causes after it, and a hint where there is one.
pub(crate) fn report(error: &anyhow::Error) {
    if interrupted(error) {
        ui::say("stopped; what was written stays, and the same command does what is missing");
        return;
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
    if let Some(hint) = hint(error) {
        ui::say(&format!("hint: {hint}"));
    }
}

/// A message without the stack that candle writes into it where backtraces are asked for.
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
