//! Attention-head tempering for interpretability, as one dependency.
//!
//! * [`hook`]: where a forward pass can be watched or changed ([`Site`](hook::Site), [`Tap`](hook::Tap)), and which heads get which
//!   λ ([`HeadPlan`](hook::HeadPlan)).
//! * [`model`]: the architectures, from token ids to hidden states and logits.
//! * [`engine`]: text in, text or captures out; many rows at once, each under its own plan.
//! * [`stats`]: effect sizes, permutations and intervals on slices of f64.
//! * [`study`]: the experiments behind the verbs of `temper`, and their files.
//!
//! Tensors are those of [`candle_core`], which is pinned to one version: use it from here, so that your program holds one copy.
//!
//! This answers a question with heads untouched and tempered, in one batch, and reads what both answers left in the residual stream:
//!
//! ```no_run
#![doc = include_str!("../examples/temper_heads.rs")]
//! ```
//!
//! An experiment file, as `temper run` takes one, is run by a program in the same way, into the same files:
//!
//! ```no_run
//! use headtemper::{prelude::*, study::{Silent, run}};
//!
//! let experiment = Experiment::read("configs/quickstart.toml".as_ref())?;
//! let engine = Engine::open(&experiment.model.choice())?;
//! run(&engine, &experiment, "runs/quickstart".as_ref(), None, &mut Silent)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A hook of your own is a [`Tap`](hook::Tap). [`OnSite`](hook::OnSite) makes one from a closure, and a model's
//! [`forward`](model::CausalLm::forward) takes it:
//!
//! ```
//! use headtemper::{candle_core::Tensor, prelude::*};
//!
//! let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/llama");
//! let engine = Engine::open(&ModelChoice { model: tiny.into(), device: "cpu".into(), ..ModelChoice::default() })?;
//! let (model, mut norms) = (engine.model(), Vec::new());
//! let mut tap = OnSite(Site::ResidPost(3), |x: Tensor| {
//!     norms.push(x.sqr()?.sum(1)?.sqrt()?); // [tokens]
//!     Ok(x)
//! });
//! let ids = Tensor::new(&[3u32, 1, 4], model.device())?;
//! model.forward(&ids, &Batch::single(3), &mut model.new_cache(1, 3)?, &mut tap)?;
//! assert_eq!(norms[0].dims(), [3]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use candle_core;
pub use headtemper_engine as engine;
pub use headtemper_hook as hook;
pub use headtemper_model as model;
pub use headtemper_stats as stats;
pub use headtemper_study as study;

/// What most programs need.
pub mod prelude {
    pub use headtemper_engine::{
        CaptureRequest, Captured, Encoded, Engine, Event, FinishReason, GenerateOptions, Generated, HoldAs, Input,
        Keep, Message, ModelChoice, Precision, Products, Request, Sampling, StopRule,
    };
    pub use headtemper_hook::{Batch, HeadList, HeadPlan, HeadRef, ModelSpec, OnSite, Positions, Site, Tap};
    pub use headtemper_model::CausalLm;
    pub use headtemper_study::{Array, Experiment, Npz};
}
