//! One file per verb: from arguments to a study, and what it prints.

pub(crate) mod attribute;
pub(crate) mod bench;
pub(crate) mod capture;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod falsify;
pub(crate) mod gate;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod judge;
pub(crate) mod merge;
pub(crate) mod probe;
pub(crate) mod run;
pub(crate) mod score;
pub(crate) mod sweep;
pub(crate) mod verify;
