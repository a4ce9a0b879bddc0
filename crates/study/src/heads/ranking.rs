//! The heads with the largest d of an attribution.

use headtemper_hook::{HeadKind, HeadRef};
use serde::Deserialize;

use crate::attribution::{Attribution, kind_name};

/// What is read of an attribution to rank heads: other programs may write it too.
#[derive(Deserialize)]
pub(super) struct Ranking {
    #[serde(default)]
    method: RankedBy,
    dispositions: Vec<RankedDisposition>,
}

#[derive(Deserialize, Default)]
struct RankedBy {
    #[serde(default)]
    compat: String,
}

#[derive(Deserialize)]
struct RankedDisposition {
    #[serde(default)]
    name: String,
    heads: Vec<RankedHead>,
}

#[derive(Deserialize)]
struct RankedHead {
    layer: usize,
    head: usize,
    #[serde(default)]
    kind: String,
    #[serde(deserialize_with = "crate::tables::number")]
    cohen_d: f64,
}

impl Ranking {
    /// The heads with the largest |d| of a disposition, the first if none is named; with the largest d where the file was
    /// made as the paper's scripts do.
    pub(super) fn top(&self, name: Option<&str>, count: usize) -> Result<Vec<HeadRef>, String> {
        let disposition = match name {
            None => self.dispositions.first().ok_or("it ranks no heads")?,
            Some(name) => self.dispositions.iter().find(|d| d.name == name).ok_or_else(|| {
                let names: Vec<&str> = self.dispositions.iter().map(|d| d.name.as_str()).collect();
                format!("it has no disposition '{name}', but {}", names.join(", "))
            })?,
        };
        let at = |head: &RankedHead| {
            let kind = if head.kind == kind_name(HeadKind::Value) { HeadKind::Value } else { HeadKind::Query };
            HeadRef { layer: head.layer, head: head.head, kind }
        };
        let signed = self.method.compat == "dd";
        top_of(disposition.heads.iter().map(|head| (at(head), head.cohen_d)).collect(), signed, count)
    }
}

/// The heads with the largest |d| of the first disposition.
pub(crate) fn top(report: &Attribution, count: usize) -> Result<Vec<HeadRef>, String> {
    let disposition = report.dispositions.first().ok_or("it ranks no heads")?;
    let heads = disposition.heads.iter().map(|head| (head.at(), head.magnitude.cohen_d)).collect();
    top_of(heads, report.method.compat == "dd", count)
}

fn top_of(mut heads: Vec<(HeadRef, f64)>, signed: bool, count: usize) -> Result<Vec<HeadRef>, String> {
    heads.retain(|(_, d)| d.is_finite());
    let size = |d: f64| if signed { d } else { d.abs() };
    heads.sort_by(|a, b| size(b.1).total_cmp(&size(a.1)));
    if count == 0 || count > heads.len() {
        return Err(format!("it ranks {} heads, so top:{count} does not exist", heads.len()));
    }
    let mut chosen: Vec<_> = heads[..count].iter().map(|(at, _)| *at).collect();
    chosen.sort();
    Ok(chosen)
}
