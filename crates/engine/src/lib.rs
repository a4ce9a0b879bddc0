//! Text in, text or captures out.
//!
//! An [`Engine`] is a loaded model with its tokenizer, chat template and stop tokens. It [generates](Engine::generate)
//! continuations, many rows at once, each under its own head plan. It [captures](Engine::capture) what a forward
//! pass over given texts leaves in the heads and in the residual stream. It [scores](Engine::score) what tempering
//! a head does to the probability of recorded responses.

mod capture;
mod chat;
mod device;
mod engine;
mod error;
pub mod export;
mod generate;
pub mod hub;
mod identity;
mod inspect;
mod keep;
mod locate;
mod memory;
mod noise;
mod prompt;
mod sample;
mod score;
mod speed;
mod stop;
mod texts;
mod tokenizer;
pub mod verify;

pub use capture::{CaptureRequest, Captured};
pub use chat::{ChatTemplate, Message, THOUGHTS, opens_thought};
pub use engine::{Engine, ModelChoice};
pub use error::EngineError;
pub use generate::{Event, FinishReason, GenerateOptions, Generated, Request};
pub use headtemper_model::{HoldAs, Precision, Products, TextTokens, reason};
pub use identity::{Identity, sha256_file};
pub use inspect::Inspection;
pub use keep::{CaptureRow, HeadsWanted, Keep, Pool};
pub use memory::{MemoryPlan, available_memory, format_bytes, parse_bytes, peak_memory};
pub use noise::Noise;
pub use prompt::{Encoded, Input};
pub use sample::Sampling;
pub use score::{BaseScore, Cell, CellScore, ScoreCost, ScoreEvent, ScoreRequest, check_lambdas};
pub use speed::Speed;
pub use stop::{StopRule, StopSet};
pub use tokenizer::TextTokenizer;

/// How many tokens each planned head of each plan was applied to.
pub type Fired = Vec<std::collections::BTreeMap<headtemper_hook::HeadRef, u64>>;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, EngineError>;
