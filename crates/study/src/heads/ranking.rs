//! The heads with the largest d of an attribution.

use headtemper_hook::{HeadKind, HeadRef, ModelSpec};
use serde::Deserialize;

use crate::{
    Compat,
    attribution::{Attribution, KindWords, Verdict},
    text::some_of,
};

/// What is read of an attribution to rank heads: other programs may write it too.
#[derive(Deserialize)]
pub(super) struct Ranking {
    #[serde(default)]
    method: RankedBy,
    #[serde(default)]
    model: String,
    #[serde(default)]
    weights_sha256: String,
    #[serde(default)]
    heads_per_layer: Vec<usize>,
    dispositions: Vec<RankedDisposition>,
}

#[derive(Deserialize, Default)]
struct RankedBy {
    #[serde(default)]
    compat: Compat,
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
    #[serde(default, with = "KindWords")]
    kind: HeadKind,
    #[serde(deserialize_with = "crate::store::nan::number")]
    cohen_d: f64,
    #[serde(default)]
    verdict: Option<Verdict>,
}

impl RankedHead {
    fn at(&self) -> HeadRef {
        HeadRef { layer: self.layer, head: self.head, kind: self.kind }
    }
}

impl Ranking {
    /// The heads with the largest |d| of a disposition, the first if none is named; with the largest d where the file was made as
    /// the paper's scripts make it.
    pub(super) fn top(&self, name: Option<&str>, count: usize) -> Result<Vec<HeadRef>, String> {
        let heads = self.disposition(name)?.heads.iter().map(|head| (head.at(), head.cohen_d)).collect();
        top_of(heads, self.method.compat.signed(), count)
    }

    fn disposition(&self, name: Option<&str>) -> Result<&RankedDisposition, String> {
        match name {
            None => self.dispositions.first().ok_or_else(|| "it ranks no heads".into()),
            Some(name) => self.dispositions.iter().find(|d| d.name == name).ok_or_else(|| {
                let names: Vec<&str> = self.dispositions.iter().map(|d| d.name.as_str()).collect();
                format!("it has no disposition '{name}', but {}", names.join(", "))
            }),
        }
    }

    /// Refuses a ranking of a model with other heads, where the file says what its model has.
    pub(super) fn check(&self, spec: &ModelSpec) -> Result<(), String> {
        let here: Vec<usize> = spec.layers.iter().map(|layer| layer.heads.count).collect();
        if self.heads_per_layer.is_empty() || self.heads_per_layer == here {
            return Ok(());
        }
        let of = |heads: &[usize]| format!("{} heads in {} layers", heads.iter().sum::<usize>(), heads.len());
        Err(format!("it ranks {} of {}, but this model has {}", of(&self.heads_per_layer), self.model, of(&here)))
    }

    /// What the user should know about these heads: that the attribution found nothing in them, or is of other weights.
    pub(super) fn remarks(&self, name: Option<&str>, chosen: &[HeadRef], weights_sha256: &str) -> Vec<String> {
        let mut out = Vec::new();
        if !self.weights_sha256.is_empty() && self.weights_sha256 != weights_sha256 {
            out.push(format!("it ranks heads of {}, whose weights are others", self.model));
        }
        let found =
            |head: &&RankedHead| matches!(head.verdict, Some(Verdict::Separable | Verdict::MagnitudeOnly) | None);
        let heads = self.disposition(name).map_or(&[][..], |disposition| &disposition.heads);
        let of_them = || heads.iter().filter(|head| chosen.contains(&head.at()));
        let without: Vec<String> = of_them().filter(|head| !found(head)).map(|head| head.at().to_string()).collect();
        if !without.is_empty() {
            out.push(format!(
                "it found nothing in {} of these {} heads ({}): shuffled labels give as much",
                without.len(),
                chosen.len(),
                some_of(&without, NAMED)
            ));
        }
        out
    }
}

/// The most heads that a remark names.
const NAMED: usize = 5;

/// The heads with the largest |d| of the first disposition.
pub(crate) fn top(report: &Attribution, count: usize) -> Result<Vec<HeadRef>, String> {
    let disposition = report.dispositions.first().ok_or("it ranks no heads")?;
    let heads = disposition.heads.iter().map(|head| (head.at(), head.magnitude.cohen_d)).collect();
    top_of(heads, report.method.compat.signed(), count)
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
