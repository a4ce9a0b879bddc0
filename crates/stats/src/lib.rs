//! Statistics on slices of f64. Knows no tensor, no file and no model.
//!
//! Two conventions hold everywhere. Two groups are called a and b, and a difference is always a minus b; where both
//! lie in one table, a slice of labels tells them apart (`true` = group a). And degenerate input never flatters:
//! groups too small to have a variance give NaN, groups without any spread give an effect of 0 and a p of 1, and
//! what cannot be compared counts against the finding.

mod adjust;
mod association;
mod asymmetry;
mod auc;
mod bootstrap;
mod calibration;
mod crossval;
mod direction;
mod effect;
mod fdr;
mod folds;
mod logistic;
mod paired;
mod pca;
mod permute;
mod projector;
mod random;
mod rank;
mod share;
mod signflip;
mod stability;
mod stratified;
mod summary;
mod table;
mod units;
mod vector;
mod welch;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod probe_fixtures;

pub use adjust::{Adjustment, Correction, Covariates};
pub use association::cramers_v;
pub use asymmetry::{Asymmetry, GatePoint, asymmetry, asymmetry_range};
pub use auc::{Delong, auc, bootstrap_auc, clustered_delong, delong, delong_difference};
pub use bootstrap::{Range, bootstrap_d, resample};
pub use calibration::{Bin, Calibration, calibration};
pub use crossval::{CrossValidation, Fits, Step, WholeUnits};
pub use direction::{
    Direction, across_the_mean, centred_cosine, held_out_d, held_out_d_beside, longest, naive_direction,
};
pub use effect::{cohen_d, hedges_correction, hedges_g, welch_d};
pub use fdr::benjamini_hochberg;
pub use folds::Folds;
pub use logistic::{ClassWeight, FitError, Logistic, Scaler, Target, check_finite, sigmoid};
pub use paired::{CONFIDENCE, Interval, averaged_shares, clustered_t, paired_shares, paired_t};
pub use pca::{Components, principal_components};
pub use permute::{Relabelings, Shuffles, Tail, as_extreme, max_abs, max_p_values, p_value};
pub use projector::{Projector, Separation};
pub use random::Random;
pub use rank::{fisher_range, pearson, ranks, spearman};
pub use share::{difference, share, wilson};
pub use signflip::{SignFlipTest, SignFlips, sign_flip_test};
pub use stability::{Halves, split_half};
pub use stratified::stratified_folds;
pub use summary::{mean, quantile, sd, variance};
pub use table::Columns;
pub use units::{class_worth, effective_units, with_small_strata, worth};
pub use vector::{cosine, dot, norm};
pub use welch::{Welch, welch_t};
