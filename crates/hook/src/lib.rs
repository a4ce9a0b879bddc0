//! The vocabulary of Headtemper: where a forward pass can be watched or changed, and by whom.
//!
//! * [`Site`] names a place in the forward pass; [`ModelSpec`] is the geometry that decides which sites exist.
//! * [`Tap`] is the only seam: at each site, a model's `forward` asks it whether it wants the tensor.
//! * [`HeadPlan`] says which heads get which λ; compiled against a [`ModelSpec`] it becomes [`HeadScale`], a tap.
//! * [`HeadCapture`] and [`HiddenCapture`] are the taps that read.
//!
//! To write a hook of your own, you need this crate alone:
//!
//! ```
//! use candle_core::{Result, Tensor};
//! use headtemper_hook::{OnSite, Site, Tap};
//!
//! let mut norms = Vec::new();
//! let mut tap = OnSite(Site::ResidPost(3), |x: Tensor| {
//!     norms.push(x.sqr()?.sum_all()?);
//!     Ok(x)
//! });
//! assert!(tap.wants(Site::ResidPost(3)) && !tap.wants(Site::Z(3)));
//! ```

mod batch;
mod capture;
mod plan;
mod positions;
mod scale;
mod site;
mod spec;
mod tap;
mod words;

pub use batch::{Batch, Recorded, Span};
pub use capture::{HeadCapture, HiddenCapture, Recorder};
pub use headtemper_kernels::HeadStats;
pub use plan::{HeadList, HeadPlan, LAMBDAS, MadeFor, PlanError, check_lambda, is_lambda, lambda_of};
pub use positions::Positions;
pub use scale::{HeadScale, check_fired};
pub use site::Site;
pub use spec::{HeadKind, HeadRef, Heads, LayerSpec, Mixer, ModelSpec};
pub use tap::{OnSite, Tap, Tee};
pub use words::{Named, in_words};
