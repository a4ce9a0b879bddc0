//! The report of a run: one HTML file that opens offline, prints, and carries the null of every number it ranks by.
//!
//! Each file draws one part of the page; [`html`] puts them together. Every function here returns markup whose text is already escaped
//! (`text::escape`), and accepts any float: NaN is shown as an en dash, never as a colour.

mod across;
mod axis;
mod collinearity;
mod confounds;
mod controls;
mod disposition;
mod dumbbell;
mod facts;
mod falsify;
mod glossary;
mod heatmap;
pub mod html;
mod legend;
mod measure;
mod overview;
mod question;
mod rank_matrix;
mod scale;
mod scatter;
pub(crate) mod score;
mod stability;
mod sweep;
mod sweep_chart;
mod sweep_map;
mod table;
mod text;
mod tried;
mod verdict;

#[cfg(test)]
pub(crate) mod fixture;

pub(crate) use facts::Facts;
pub(crate) use falsify::falsify;
pub use html::{Example, Page, render};
