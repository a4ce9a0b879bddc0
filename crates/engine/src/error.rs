//! What can go wrong between a text and a result.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use headtemper_hook::{HeadRef, PlanError};
use headtemper_model::ModelError;

use crate::{MemoryPlan, hub::HubError, memory::format_bytes};

/// Why a model cannot be opened, or a text cannot be read or continued.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The hub cannot be used.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A plan does not fit the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The name is neither an existing path nor a hub id.
    #[error("model '{0}' is neither a directory, nor a .gguf file, nor a hub id")]
    NoSuchModel(String),
    /// Random weights need a configuration on this disk.
    #[error("'{0}' is no config.json and no directory with one, but random weights are made from that")]
    NoSuchConfig(String),
    /// A checkpoint cannot be written.
    #[error("cannot export {}: {why}", path.display())]
    Export {
        /// The model, or the directory to write.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The tokenizer is missing or cannot be used.
    #[error("tokenizer of {}: {why}", path.display())]
    Tokenizer {
        /// The model.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The model has no chat template.
    #[error("{} has no chat template, and the input is a chat message", path.display())]
    NoTemplate {
        /// The model.
        path: PathBuf,
    },
    /// The chat template cannot be read or rendered.
    #[error("chat template of {}: {why}", path.display())]
    Template {
        /// The model.
        path: PathBuf,
        /// What minijinja says.
        why: String,
    },
    /// An input is longer than the model's context.
    #[error("{what} has {tokens} tokens, but the model's context is {context}")]
    TooLong {
        /// What is too long.
        what: String,
        /// Its tokens.
        tokens: usize,
        /// What fits.
        context: usize,
    },
    /// An input holds nothing.
    #[error("{0} has no tokens")]
    Empty(String),
    /// A text has no response, where the response is what counts.
    #[error("{0} has no response, over which pool 'response' would average")]
    NoResponse(String),
    /// A token id is beyond the vocabulary.
    #[error("{what} holds token id {id}, but the vocabulary ends at {last}")]
    TokenId {
        /// The input that holds it.
        what: String,
        /// The id.
        id: u32,
        /// The last valid one.
        last: usize,
    },
    /// A token stands for something that is not text.
    #[error("{what} holds token id {id}, which stands for an image, a video or a sound, but only text is read")]
    Placeholder {
        /// The input that holds it.
        what: String,
        /// The id.
        id: u32,
    },
    /// A setting has a value that makes no sense.
    #[error("{name} is {found}, but must be {allowed}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        found: String,
        /// What would have been allowed.
        allowed: &'static str,
    },
    /// A golden file cannot be read, or lacks something.
    #[error("golden file {}: {why}", path.display())]
    Golden {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The device cannot be used.
    #[error("device '{asked}' cannot be used: {why}")]
    Device {
        /// What was asked for.
        asked: String,
        /// Why not.
        why: String,
    },
    /// A row asks for a plan that was not given.
    #[error("row {row} asks for plan {plan}, but {} given", given(*.plans))]
    NoSuchPlan {
        /// The row.
        row: usize,
        /// The plan it asks for.
        plan: usize,
        /// How many there are.
        plans: usize,
    },
    /// Something takes more memory than there is, even if it runs alone.
    #[error(
        "{what} takes {} of memory, {} of it for the model, but may take {}",
        format_bytes(*.needs),
        format_bytes(*.held),
        format_bytes(*.limit)
    )]
    Memory {
        /// What takes it.
        what: String,
        /// Bytes it takes when run alone.
        needs: u64,
        /// How many of these bytes the loaded model takes.
        held: u64,
        /// Bytes it may take.
        limit: u64,
    },
    /// Activations are not numbers: the weights or a plan broke the model.
    #[error("{what} gave activations that are not numbers; the weights or the plan overflow")]
    NotANumber {
        /// Which row.
        what: String,
    },
    /// The logits of a scored response are not numbers.
    #[error("item {item}{} gave logits that are not numbers", under(*.tempered))]
    SpoiltScore {
        /// Index of the item.
        item: usize,
        /// The head that was tempered and its λ; `None` under the untempered model.
        tempered: Option<(HeadRef, f32)>,
    },
    /// The device wrote past a row's end: it was given another end than the host knows.
    #[error("the device went on with row {row} after its end; this is a bug of this program")]
    RowWentOn {
        /// Which row.
        row: usize,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The receiver of results failed.
    #[error(transparent)]
    Receiver(Box<dyn std::error::Error + Send + Sync>),
    /// A device ran out of memory, though everything was planned to fit.
    #[error(
        "the device has no memory left, though no more than {}{} was planned: {error}",
        format_bytes(*.planned),
        limit.map_or_else(String::new, |limit| format!(" of {}", format_bytes(limit)))
    )]
    DeviceMemory {
        /// Bytes that were planned in all.
        planned: u64,
        /// Bytes that were allowed.
        limit: Option<u64>,
        /// What the device says.
        error: candle_core::Error,
    },
    /// A device cannot record a decode step, for another reason than memory.
    #[error("the device cannot record a decode step of {rows} rows: {}", headtemper_model::reason(.error))]
    NotRecorded {
        /// The rows.
        rows: usize,
        /// What the device says.
        error: candle_core::Error,
    },
    /// What candle reports.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl EngineError {
    /// Whether work that can be stopped from outside goes on.
    ///
    /// # Errors
    /// [`EngineError::Interrupted`] if `stop` is set.
    pub fn if_stopped(stop: Option<&AtomicBool>) -> Result<(), Self> {
        match stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(Self::Interrupted),
            _ => Ok(()),
        }
    }

    /// The error of work that was planned to fit: if a device ran out of memory, it says what was planned.
    pub(crate) fn of_planned(self, plan: &MemoryPlan) -> Self {
        match self {
            Self::Candle(error) if headtemper_model::is_out_of_memory(&error) => {
                Self::DeviceMemory { planned: plan.total, limit: plan.limit, error }
            }
            other => other,
        }
    }

    /// Advice that goes with the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model(e) => e.hint(),
            Self::Hub(e) => e.hint(),
            Self::Plan(e) => e.hint(),
            Self::NoSuchModel(_) => Some(
                "give a directory with config.json, a .gguf file, or an id such as HuggingFaceTB/SmolLM2-135M-Instruct"
                    .into(),
            ),
            Self::NoResponse(_) => Some("give it a response, leave it out, or pool over last or last:N".into()),
            Self::NoTemplate { .. } => Some("give --raw to feed the prompt as it is".into()),
            Self::Golden { .. } => Some(
                "a golden file is golden.safetensors with golden.json beside it; scripts/golden/common.py describes both"
                    .into(),
            ),
            Self::Memory { .. } => Some(
                "allow more with --memory if the machine has it, shorten or leave out what is long, or ask for fewer new \
                 tokens"
                    .into(),
            ),
            Self::DeviceMemory { .. } => Some(
                "something else takes the device's memory, or the plan is wrong: plan with less by --memory; what was \
                 finished is kept, and the same command goes on from there"
                    .into(),
            ),
            Self::NotRecorded { .. } => {
                Some("with --no-graph the operations of each step are launched one by one: slower, with the same results".into())
            }
            Self::Candle(error) if headtemper_model::is_out_of_memory(error) => {
                Some("the device's memory is full: take another --device, or a smaller --dtype".into())
            }
            Self::NotANumber { .. } | Self::SpoiltScore { .. } => Some(
                "`temper verify` of this model tells whether it is its weights; if it is not, a λ is too large: take a smaller |λ|".into(),
            ),
            Self::Device { asked, .. } if asked != "cpu" => Some("--device cpu always works".into()),
            _ => None,
        }
    }
}

/// Says under which tempering an item was read.
fn under(tempered: Option<(HeadRef, f32)>) -> String {
    tempered.map_or_else(|| " under the untempered model".into(), |(at, lambda)| format!(" under {at}:{lambda}"))
}

fn given(plans: usize) -> String {
    if plans == 0 { "none was".into() } else { format!("plans 0 to {} were", plans - 1) }
}
